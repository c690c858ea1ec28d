//! Places that no stream has given out.

use testkit::World;
use testkit::sse::EventStream;

use crate::{RECORDER, STREAM, open, replica_set, say};

/// The server says what is a token; trying again would never help.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_of_a_replica_set_is_refused() {
    let set = replica_set().await;
    let url = set.url("places");
    let world = World::at(&url).source(RECORDER).start().await;
    let mut stream = open(&world, "").await;
    say(&world, 0..1, "a.b").await;
    assert_eq!(stream.keys(1).await, ["0"]);
    let place = stream.last_event_id().to_owned();
    assert!(place.contains("-t"), "a change's token: {place}");
    let cut = &place[..place.len() - 9];
    for tampered in ["5-t04", "5-tzz", "5-t82", "5-t8265", cut] {
        let url = world.url(STREAM);
        let opened = EventStream::open(world.client(), &url, None, Some(tampered)).await;
        let (status, body) = opened.err().expect(tampered);
        assert_eq!(status, 400, "{tampered}: {body}");
    }
    world.stop().await;
}
