//! How soon events flow again after a kill, with the service's own backoff.

use std::time::{Duration, Instant};

use daybook::tree::TreeOptions;
use jiff::Timestamp;
use testkit::load::SOURCES;
use tokio::sync::RwLock;

use super::cell::{Store, world};

/// Cells run beside each other; whoever measures runs alone.
pub static MATRIX: RwLock<()> = RwLock::const_new(());

const GOAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_flow_again_within_a_second_of_any_kill() {
    let _alone = MATRIX.write().await;
    let (world, load) = world(Store::Sqlite, options(), 3).await;
    let watch = load.oracle().watch(world.daybook());
    let started = Timestamp::now();
    let mut slowest = Duration::ZERO;
    for victim in [
        "authentik",
        "ocis",
        "stalwart",
        "platform-api",
        "journal",
        "resolver",
        "writer",
        "http",
        "store",
        "sources",
        "edge",
    ] {
        load.resume();
        assert!(world.daybook().kill(victim).await, "{victim} was down");
        let killed = Instant::now();
        let said = SOURCES.map(|source| load.say(source));
        let daybook = world.daybook();
        let oracle = load.oracle();
        while oracle
            .stored(&**daybook.store(), &said, started)
            .await
            .len()
            < said.len()
        {
            assert!(
                killed.elapsed() < 10 * GOAL,
                "{victim}: {}",
                oracle.missing(daybook)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = killed.elapsed();
        println!("{victim:<14} killed; all sources flow again after {after:?}");
        assert!(after < GOAL, "{victim}: {after:?}");
        slowest = slowest.max(after);
        load.pause();
        load.drained().await;
        while !oracle.settled(daybook, started).await {
            assert!(
                killed.elapsed() < 20 * GOAL,
                "{victim}: {}",
                oracle.missing(daybook)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let violations = load.oracle().judge(world.daybook(), None).await;
    assert!(violations.is_empty(), "{violations:#?}");
    println!("slowest: {slowest:?}");
    drop(watch);
    world.stop().await;
}

/// What the service itself runs with; only planes may be killed more often.
fn options() -> TreeOptions {
    let config = daybook::config::Config::default();
    let mut options = TreeOptions::of(&config);
    options.planes_intensity.max_restarts = 100;
    options
}
