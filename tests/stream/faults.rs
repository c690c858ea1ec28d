//! What happens to readers when the store or the feed is away.

use std::sync::Arc;
use std::time::Duration;

use daybook::store::EventFilter;
use daybook_actors::supervisor::ChildState;
use mongodb::bson::doc;
use serde_json::json;
use testkit::World;
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::{Mongod, ReplicaSet};
use testkit::world::eventually;

use super::{RECORDER, commit, enter, large, open, recorder, say, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_feed_goes_on_where_it_was() {
    let world = recorder(World::sqlite().await).start().await;
    let mut stream = open(&world, "").await;
    say(&world, 0..5, "a.b").await;
    assert_eq!(stream.keys(5).await, texts(0..5));
    for round in 1..4 {
        assert!(world.daybook().kill("feed").await, "the feed was up");
        let first = round * 5;
        say(&world, first..first + 5, "a.b").await;
        assert_eq!(stream.keys(5).await, texts(first..first + 5));
        eventually("the feed is up", async || {
            world.daybook().actors().await.get("feed") == Some(&ChildState::Running)
        })
        .await;
    }
    assert!(
        world
            .metric("daybook_actor_restarts_total", "actor=\"feed\"")
            .await
            >= 3.0
    );
    world.stop().await;
}

/// It goes on from a place, as readers do that catch up, and has no part in their connections all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_feed_does_not_wait_for_slow_queries_afterwards() {
    let set = ReplicaSet::start_with(1, TEST_COMMANDS).await;
    let url = set.url("held") + "&maxPoolSize=2";
    // Longer than the event is waited for.
    let plan = World::at(&url).source(RECORDER);
    let world = plan
        .start_with("auth = \"none\"", "timeout = \"50s\"")
        .await;
    world.ready().await;
    let mut stream = open(&world, "").await;
    assert!(world.daybook().kill("feed").await, "the feed was up");
    eventually("the feed's end is noticed", async || {
        let restarts = world.metric("daybook_actor_restarts_total", "actor=\"feed\"");
        restarts.await >= 1.0
    })
    .await;
    say(&world, 0..1, "a.b").await;
    assert_eq!(stream.keys(1).await, texts(0..1));

    // The feed has its change stream by now, which is such a command too.
    let slow = doc! {
        "failCommands": ["aggregate"], "namespace": "held.auditevents",
        "blockConnection": true, "blockTimeMS": 60_000,
    };
    let fail_point = FailPoint::set(&set.members[0], "alwaysOn", slow).await;
    let store = Arc::clone(world.daybook().store());
    let count = tokio::spawn(async move { store.histogram(&EventFilter::default(), 1).await });
    eventually("the connection of reads is taken", async || {
        fail_point.struck().await > 0
    })
    .await;
    say(&world, 1..2, "a.b").await;
    let keys = tokio::time::timeout(Duration::from_secs(20), stream.keys(1)).await;
    assert_eq!(keys.expect("an event in time"), texts(1..2));
    assert!(!count.is_finished(), "the count is slow");
    count.abort();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_outlast_a_store_that_is_away() {
    let mongod = Mongod::start().await;
    let plan = World::mongodb(&mongod).await;
    let world = plan
        .source(RECORDER)
        .start_with("auth = \"none\"", "timeout = \"3s\"")
        .await;
    world.ready().await;
    let mut stream = open(&world, "").await;
    let mut beats = open(&world, "?action=never&beats=1").await;
    say(&world, 0..3, "a.b").await;
    let mut keys = stream.keys(3).await;
    keys.sort();
    assert_eq!(keys, texts(0..3));
    while beats.next().await.unwrap() != json!({ "storeUp": true }) {}
    mongod.freeze();
    eventually("the feed notices", async || {
        world
            .text("/metrics")
            .await
            .lines()
            .any(|line| line.starts_with("daybook_store_errors_total") && !line.ends_with(" 0"))
    })
    .await;
    // Taken into the journal meanwhile.
    say(&world, 3..8, "a.b").await;
    while beats.next().await.unwrap() != json!({ "storeUp": false }) {}
    mongod.thaw();
    let mut keys = stream.keys(5).await;
    keys.sort();
    assert_eq!(keys, texts(3..8));
    while beats.next().await.unwrap() != json!({ "storeUp": true }) {}
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_outlast_a_change_of_the_primary() {
    let set = ReplicaSet::start(3).await;
    let world = World::at(&set.url("primary"))
        .source(RECORDER)
        .start()
        .await;
    world.ready().await;
    let mut stream = open(&world, "").await;
    say(&world, 0..3, "a.b").await;
    let mut keys = stream.keys(3).await;
    keys.sort();
    assert_eq!(keys, texts(0..3));
    set.step_down().await;
    set.takes_writes().await;
    say(&world, 3..8, "a.b").await;
    let mut keys = stream.keys(5).await;
    keys.sort();
    assert_eq!(keys, texts(3..8));
    world.stop().await;
}

/// Large events pass too, though a change that holds one is larger than a server's answer may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_event_does_not_end_the_stream() {
    let set = ReplicaSet::start(1).await;
    let admin = set.database("admin").await;
    let larger = doc! {
        "setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=1G",
    };
    admin.run_command(larger).await.unwrap();
    // So much at once takes a slow machine its time.
    let world = World::at(&set.url("huge"))
        .start_with("auth = \"none\"", "timeout = \"50s\"")
        .await;
    world.ready().await;
    let mut stream = open(&world, "").await;
    let store = world.daybook().store();
    commit(&**store, None, &[large(0, 15 << 20)]).await;
    enter(&**store, "small", None, 1..2).await;
    assert_eq!(stream.keys(2).await, ["0", "1"]);
    world.stop().await;
}
