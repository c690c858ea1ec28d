//! Places that no stream has given out.

use jiff::Timestamp;
use testkit::World;
use testkit::sse::EventStream;

use crate::{RECORDER, STREAM, open, recorder, replica_set, resumed, say, texts};

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

/// As a restore leaves it. The server tells so with its first reply, not when the stream is opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_change_that_the_oplog_does_not_have_leaves_it_to_ids() {
    let set = replica_set().await;
    let world = recorder(World::at(&set.url("lost"))).start().await;
    world.ready().await;
    let mut stream = open(&world, "").await;
    say(&world, 0..3, "a.b").await;
    assert_eq!(stream.keys(3).await, texts(0..3));
    let place = stream.last_event_id().to_owned();
    let (second, token) = place.split_once("-t82").expect(&place);
    // It begins with the time of its change: this one is of 2023.
    let lost = format!("t8265000000{}", &token[8..]);
    let mut stream = resumed(&world, "", &format!("{second}-{lost}")).await;
    assert_eq!(stream.keys(3).await, texts(0..3));

    // The clock was put back since, too: the ids of what was entered then come before the place.
    let ahead = Timestamp::now().as_second() + 7200;
    let (url, place) = (world.url(STREAM), format!("{ahead:x}-{lost}"));
    let opened = EventStream::open(world.client(), &url, None, Some(&place)).await;
    let (status, body) = opened.err().expect("a refusal");
    assert_eq!(status, 400, "{body}");
    // What the oplog tells needs no clock.
    let mut stream = resumed(&world, "", &format!("{ahead:x}-t82{token}")).await;
    say(&world, 3..4, "a.b").await;
    assert_eq!(stream.keys(1).await, texts(3..4));
    world.stop().await;
}
