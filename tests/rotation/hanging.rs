//! A disk that does not answer, as a network mount whose server is away.

use std::time::Duration;

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use testkit::World;
use testkit::world::eventually;

use crate::story::{Pen, Story, source};

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
        stall_after: Duration::from_secs(3),
        ..TreeOptions::of(&Config::default())
    };
    let world = plan.source(&source(&path)).options(options).start().await;
    let story = Story { world, pen };
    reads.struck().await;
    let hangs = story.world.source_becomes("ocis", "failing").await;
    let reason = hangs["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("has not come back"), "{hangs}");
    let restarts = hangs["restarts"].as_u64().unwrap();
    assert!(restarts > 0, "it was found hanging: {hangs}");

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
    story.settled().await;
    story.world.source_becomes("ocis", "running").await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}
