//! Many readers, slow readers, too many readers, and their end.

use std::time::{Duration, Instant};

use daybook::http::auth::new_token;
use daybook::store::Role;
use testkit::World;
use testkit::sse::{EventStream, StreamEnd};
use testkit::world::eventually;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::{RECORDER, STREAM, commit, enter, large, open, resumed, texts};

const HEARTBEAT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn too_many_readers_are_refused_and_nobody_else_is() {
    let plan = World::sqlite().await.source(RECORDER);
    let world = plan
        .start_with("auth = \"none\"\nmax_streams = 3", "")
        .await;
    let opened = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = open(&world, "?beats=1").await;
        // A client that goes without having read everything is heard of at once.
        stream.next().await.unwrap();
        streams.push(stream);
    }
    let url = world.url(STREAM);
    let Err((status, body)) = EventStream::open(world.client(), &url, None, None).await else {
        panic!("a fourth reader was let in");
    };
    assert_eq!(status, 503);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("readers"),
        "{body}"
    );
    assert_eq!(world.get("/api/v1/events").await.0, 200);
    drop(streams);
    eventually("a place is free again", async || {
        EventStream::open(world.client(), &url, None, None)
            .await
            .is_ok()
    })
    .await;
    let after = opened.elapsed();
    assert!(after < 2 * HEARTBEAT, "{after:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_leaves_places_to_others() {
    let plan = World::sqlite().await;
    let world = plan
        .start_with("auth = \"tokens\"\nmax_streams = 4", "")
        .await;
    world.ready().await;
    let tenant = |slug: &str| Role::Tenant(slug.to_owned());
    let mut tokens = Vec::new();
    for role in [
        tenant("acme"),
        // Another token of the tenant is no other tenant.
        tenant("acme"),
        tenant("globex"),
        Role::Operator,
    ] {
        let (token, record) = new_token(role, None, None);
        world.daybook().store().insert_token(&record).await.unwrap();
        tokens.push(token);
    }
    let url = world.url(STREAM);
    let open = async |token: &str| {
        let opened = EventStream::open(world.client(), &url, Some(token), None);
        opened.await
    };
    let mut held = Vec::new();
    for token in &tokens[..2] {
        held.push(open(token).await.ok().unwrap());
    }
    let Err((status, body)) = open(&tokens[0]).await else {
        panic!("a third reader was let in");
    };
    assert_eq!(status, 503);
    let told = body["error"]["message"].as_str().unwrap();
    assert!(told.contains("of this tenant"), "{body}");
    held.push(open(&tokens[2]).await.ok().unwrap());
    // The last place is none of tenants'.
    let Err((status, body)) = open(&tokens[2]).await else {
        panic!("tenants have every place");
    };
    assert_eq!(status, 503);
    let told = body["error"]["message"].as_str().unwrap();
    assert_eq!(told, "too many readers of the live stream");
    held.push(open(&tokens[3]).await.ok().unwrap());
    drop(held);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_many_readers_gets_everything() {
    const READERS: usize = 40;
    const EVENTS: usize = 300;
    let world = World::sqlite().await.start().await;
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let mut stream = open(&world, "").await;
        reading.spawn(async move { stream.keys(EVENTS).await });
    }
    assert_eq!(
        world.metric("daybook_stream_readers", "").await,
        READERS as f64
    );
    let store = world.daybook().store();
    for first in (0..EVENTS).step_by(50) {
        enter(&**store, "many", None, first..first + 50).await;
    }
    let mut readers = 0;
    while let Some(keys) = reading.join_next().await {
        assert_eq!(keys.unwrap(), texts(0..EVENTS));
        readers += 1;
    }
    assert_eq!(readers, READERS);
    assert_eq!(
        world.metric("daybook_feed_events_total", "").await,
        EVENTS as f64
    );
    world.stop().await;
}

/// Asks for the stream and takes nothing of it; little is enough to fill its end of the connection.
async fn open_stuck(world: &World) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stuck = socket.connect(world.daybook().address()).await.unwrap();
    let request = format!("GET {STREAM} HTTP/1.1\r\nhost: daybook.test\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    stuck
}

/// One that reads nothing at all is cut off; the others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let plan = World::sqlite().await;
    let world = plan
        .start_with("auth = \"none\"\nwrite_timeout = \"3s\"", "")
        .await;
    let mut well = open(&world, "").await;
    let stuck = open_stuck(&world).await;
    eventually("both read along", async || {
        world.metric("daybook_stream_readers", "").await == 2.0
    })
    .await;
    let store = world.daybook().store();
    let mut sent = 0;
    while world.metric("daybook_stream_readers", "").await == 2.0 {
        commit(&**store, None, &[large(sent, 256 << 10)]).await;
        assert_eq!(well.keys(1).await, [sent.to_string()]);
        sent += 1;
        assert!(
            sent < 2000,
            "{sent} large events, and the reader is still there"
        );
    }
    drop(stuck);
    world.stop().await;
}

/// The server's end of the connection takes what is written for a client that vanished without a word, and
/// the kernel waits for it in vain, as for this one.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_vanished_gives_its_place_back_though_no_write_waits() {
    let plan = World::sqlite().await;
    let world = plan
        .start_with("auth = \"none\"\nwrite_timeout = \"3s\"", "")
        .await;
    let vanished = open_stuck(&world).await;
    eventually("it reads along", async || {
        world.metric("daybook_stream_readers", "").await == 1.0
    })
    .await;
    commit(&**world.daybook().store(), None, &[large(0, 64 << 10)]).await;
    eventually("its place is free", async || {
        world.metric("daybook_stream_readers", "").await == 0.0
    })
    .await;
    drop(vanished);
    world.stop().await;
}

/// What comes next for one that pauses is forgotten some day.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_cut_off_and_resumes() {
    // The feed remembers half of them, and the connection takes some MiB.
    const EVENTS: usize = 512;
    const BYTES: usize = 64 << 10;
    const AT_ONCE: usize = 128;
    let plan = World::sqlite().await;
    let world = plan
        .start_with("auth = \"none\"\nwrite_timeout = \"1h\"", "")
        .await;
    let mut paused = open(&world, "").await;
    let mut well = open(&world, "").await;
    let store = world.daybook().store();
    for first in (0..EVENTS).step_by(AT_ONCE) {
        let keys = first..first + AT_ONCE;
        let events: Vec<_> = keys.clone().map(|key| large(key, BYTES)).collect();
        commit(&**store, None, &events).await;
        assert_eq!(well.keys(AT_ONCE).await, texts(keys));
    }
    let mut taken = 0;
    let end = loop {
        match paused.next().await {
            Ok(_) => taken += 1,
            Err(end) => break end,
        }
    };
    assert_eq!(end, StreamEnd::Broken);
    assert_eq!(world.metric("daybook_streams_cut_total", "slow").await, 1.0);
    let mut goes_on = resumed(&world, "", paused.last_event_id()).await;
    assert_eq!(goes_on.keys(EVENTS - taken).await, texts(taken..EVENTS));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_end_well_when_the_service_stops() {
    let world = World::sqlite().await.start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(open(&world, "").await);
    }
    let begun = Instant::now();
    world.stop().await;
    println!("the service stopped in {:?}", begun.elapsed());
    for stream in &mut streams {
        assert_eq!(stream.next().await, Err(StreamEnd::Clean));
    }
}
