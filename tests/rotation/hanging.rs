//! A disk that does not answer, as a network mount whose server is away.

use std::time::Duration;

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::story::{Pen, Story, source};

/// Waits until the source says that its disk hangs; how often its actor was restarted by then.
async fn restarts_of_hanging(story: &Story) -> u64 {
    let hangs = story.world.source_becomes("ocis", "failing").await;
    let reason = hangs["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("has not come back"), "{hangs}");
    hangs["restarts"].as_u64().unwrap()
}

/// What hung has come back: everything is entered, once.
async fn goes_on(story: Story) {
    story.settled().await;
    story.world.source_becomes("ocis", "running").await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

/// It hangs while a batch is under way: that is told, and the batch's ack is heard all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_hangs_is_told_and_keeps_no_ack() {
    let plan = World::sqlite().await;
    let path = plan.dir().join("audit.log");
    let pen = Pen::new(&path);
    pen.write(20);
    let probes = Probes::new();
    let writes = probes.strike("writer", "before_insert", Fault::Stand, 1);
    let watches = probes.strike("ocis", "in_watch", Fault::Stand, 1);
    let options = TreeOptions {
        probes,
        ..TreeOptions::of(&Config::default())
    };
    let world = plan.source(&source(&path)).options(options).start().await;
    let story = Story { world, pen };
    writes.struck().await;
    watches.struck().await;
    assert_eq!(restarts_of_hanging(&story).await, 0);
    drop(writes);
    eventually("the ack is heard", async || {
        let source = story.world.daybook().board().source("ocis").unwrap();
        source.view().last_success_at.is_some()
    })
    .await;
    drop(watches);
    goes_on(story).await;
}

/// It hangs while the store is away: what is in hand is sent as soon as that is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_hangs_keeps_nothing_that_is_in_hand() {
    let mongod = Mongod::start().await;
    let plan = World::mongodb(&mongod).await;
    let path = plan.dir().join("audit.log");
    let probes = Probes::new();
    let options = TreeOptions {
        probes: probes.clone(),
        ..TreeOptions::of(&Config::default())
    };
    let plan = plan.source(&source(&path)).options(options);
    let world = plan.start_with("auth = \"none\"", "timeout = \"2s\"").await;
    let story = Story {
        world,
        pen: Pen::new(&path),
    };
    story.pen.write(20);
    story.settled().await;
    mongod.freeze();
    // All of one line is in hand.
    story.pen.write(1);
    story.world.source_becomes("ocis", "blocked").await;
    let watches = probes.strike("ocis", "in_watch", Fault::Stand, 1);
    watches.struck().await;
    mongod.thaw();
    let end = story.pen.end();
    eventually("what is in hand is entered", async || {
        story.last_event_id().await == end
    })
    .await;
    assert_eq!(restarts_of_hanging(&story).await, 0);
    drop(watches);
    goes_on(story).await;
}

/// The read that hangs keeps its thread. A successor waits for it and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_hangs_keeps_one_thread_however_often_its_actor_is_killed() {
    let plan = World::sqlite().await;
    let path = plan.dir().join("audit.log");
    let pen = Pen::new(&path);
    pen.write(20);
    let probes = Probes::new();
    let reads = probes.strike("ocis", "in_read", Fault::Stand, 1);
    let options = TreeOptions {
        probes,
        stall_after: Duration::from_secs(10),
        ..TreeOptions::of(&Config::default())
    };
    let world = plan.source(&source(&path)).options(options).start().await;
    let story = Story { world, pen };
    reads.struck().await;
    let restarts = restarts_of_hanging(&story).await;
    assert!(restarts > 0, "it was found hanging");

    // After a stall it may be down for a moment.
    eventually("somebody is up to be killed", async || {
        story.world.daybook().kill("ocis").await
    })
    .await;
    eventually("the next one waits too", async || {
        let view = story.world.source_becomes("ocis", "failing").await;
        view["restarts"].as_u64().unwrap() > restarts
    })
    .await;
    assert_eq!(reads.passes(), 1, "nobody has read beside it");

    story.pen.write(3);
    drop(reads);
    goes_on(story).await;
}
