//! A reader that comes back misses nothing.

use std::sync::atomic::Ordering;

use daybook::config::{StoreConfig, StoreUrl};
use testkit::World;
use testkit::mongod::Mongod;
use testkit::sse::StreamEnd;
use testkit::world::eventually;

use super::{enter, open, recorder, replica_set, resumed, say, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_remembered_is_gone_on_from_exactly() {
    let mongod = Mongod::shared().await;
    let world = recorder(World::mongodb(mongod).await).start().await;
    world.ready().await;
    let mut stream = open(&world, "").await;
    say(&world, 0..10, "a.b").await;
    let mut places = Vec::new();
    for key in 0..10 {
        assert_eq!(stream.keys(1).await, [key.to_string()]);
        places.push(stream.last_event_id().to_owned());
    }
    drop(stream);
    say(&world, 10..12, "a.b").await;
    for (index, place) in places.iter().enumerate() {
        let mut stream = resumed(&world, "", place).await;
        assert_eq!(stream.keys(11 - index).await, texts(index + 1..12));
    }
    world.stop().await;
}

/// A filter that lets nothing through moves along all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_events_has_a_place_too() {
    let world = recorder(World::sqlite().await).start().await;
    let mut stream = open(&world, "?action=never").await;
    let mut other = open(&world, "").await;
    say(&world, 0..3, "a.b").await;
    other.keys(3).await;
    // The next thing that comes is a heartbeat, or, at the end of the service, the end.
    let heartbeats = stream.heartbeats();
    let waiting = tokio::spawn(async move {
        let end = stream.next().await;
        (end, stream.last_event_id().to_owned())
    });
    eventually("a heartbeat", async || {
        heartbeats.load(Ordering::Relaxed) > 0
    })
    .await;
    let place = other.last_event_id().to_owned();
    world.stop().await;
    let (end, last) = waiting.await.unwrap();
    assert_eq!(end, Err(StreamEnd::Clean));
    assert_eq!(last, place);
}

async fn restart_loses_nothing(mut world: World, repeats: bool) {
    let mut stream = open(&world, "").await;
    say(&world, 0..20, "a.b").await;
    assert_eq!(stream.keys(10).await, texts(0..10));
    let place = stream.last_event_id().to_owned();
    let config = StoreConfig {
        url: StoreUrl(world.store_url().to_owned()),
        ..StoreConfig::default()
    };
    let store = daybook::store::open(&config).await.unwrap();
    world.restart().await;
    enter(&*store, "elsewhere", None, 20..700).await;
    let mut stream = resumed(&world, "", &place).await;
    say(&world, 700..710, "a.b").await;
    let mut read = Vec::new();
    let mut repeated = 0;
    while read.len() < 700 {
        let key: usize = stream.keys(1).await[0].parse().unwrap();
        if key < 10 || read.contains(&key) {
            repeated += 1;
        } else {
            read.push(key);
        }
    }
    read.sort_unstable();
    assert_eq!(read, (10..710).collect::<Vec<_>>());
    assert!(repeats || repeated == 0, "{repeated} repeats");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_with_sqlite() {
    let world = recorder(World::sqlite().await).start().await;
    restart_loses_nothing(world, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_with_a_standalone() {
    let world = recorder(World::mongodb(Mongod::shared().await).await);
    restart_loses_nothing(world.start().await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_with_a_replica_set() {
    let set = replica_set().await;
    let world = recorder(World::at(&set.url("resume"))).start().await;
    world.ready().await;
    restart_loses_nothing(world, false).await;
}
