//! A disk that does not answer, as a network mount whose server is away.

use std::time::Duration;

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::sources::drainer::READS;
use daybook::tree::TreeOptions;
use testkit::World;
use testkit::world::eventually;

use super::*;

/// Reads that hang keep their threads. Successors try again, and then wait and say so.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_hang_keep_few_threads_however_often_the_drainer_is_killed() {
    let plan = World::sqlite().await;
    let left = open(&plan.dir().join("journal"));
    let kind = PushKind::Recorder {
        request_id: 1,
        idempotency_key: None,
    };
    let body = Bytes::from_static(b"{\"action\":\"invoice.paid\"}");
    let push = PushRecord::new(SourceName::new("platform"), kind, body);
    left.append(push).await.unwrap();
    left.close().await;
    let probes = Probes::new();
    // One pass is struck by one of them, and the next by the next.
    let standing = |_| probes.strike("journal", "in_read", Fault::Stand, 1);
    let reads: Vec<_> = (0..READS).map(standing).collect();
    let options = TreeOptions {
        probes: probes.clone(),
        stall_after: Duration::from_secs(10),
        ..TreeOptions::of(&Config::default())
    };
    let plan = plan.source("kind = \"recorder\"\nname = \"platform\"");
    let world = plan.options(options).start().await;
    reads[0].struck().await;
    eventually("it is found hanging", async || {
        let stalls = "actor=\"journal\",reason=\"stalled\"";
        world.metric("daybook_actor_restarts_total", stalls).await > 0.0
    })
    .await;
    for read in &reads {
        read.struck().await;
        eventually("somebody is up to be killed", async || {
            world.daybook().kill("journal").await
        })
        .await;
    }
    let hangs = world.source_becomes("journal", "failing").await;
    let reason = hangs["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("has not come back"), "{hangs}");
    assert_eq!(reads[0].passes(), READS as u64, "nobody else has read");

    drop(reads);
    world.events_reach(1).await;
    world.source_becomes("journal", "running").await;
    eventually("the journal is drained", async || {
        world.daybook().journal().unwrap().is_empty()
    })
    .await;
    world.stop().await;
}
