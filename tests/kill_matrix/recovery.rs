//! How soon events flow again after a kill, with the service's own backoff.

use std::time::{Duration, Instant};

use daybook::tree::TreeOptions;
use jiff::Timestamp;
use testkit::World;
use testkit::load::{Load, SOURCES};
use testkit::world::{PATIENCE, eventually};
use tokio::sync::RwLock;

use super::cell::{Store, world};

/// Cells run beside each other; whoever measures runs alone.
pub static MATRIX: RwLock<()> = RwLock::const_new(());

/// Where nothing else runs it takes no longer.
const GOAL: Duration = Duration::from_secs(1);
/// A busy machine needs room.
const LIMIT: Duration = Duration::from_secs(5);
/// Of so many kills of one the best counts: a sync of the disk may take as long as the goal.
const TRIES: u32 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_flow_again_soon_after_any_kill() {
    let _alone = MATRIX.write().await;
    let (world, load) = world(Store::Sqlite, options(), 3).await;
    let watch = load.oracle().watch(world.daybook());
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
        let mut best = Duration::MAX;
        for _ in 0..TRIES {
            best = best.min(flows_again_after_a_kill(&world, &load, victim).await);
            if best < GOAL {
                break;
            }
        }
        assert!(best < LIMIT, "{victim}: {best:?}");
        slowest = slowest.max(best);
    }
    let violations = load.oracle().judge(world.daybook(), None).await;
    assert!(violations.is_empty(), "{violations:#?}");
    println!("slowest: {slowest:?}");
    drop(watch);
    world.stop().await;
}

/// Until all sources flow; then everything is at rest again.
async fn flows_again_after_a_kill(world: &World, load: &Load, victim: &str) -> Duration {
    let (daybook, oracle) = (world.daybook(), load.oracle());
    // All that is older is settled, and looking at it would take the time that is measured.
    let since = Timestamp::now();
    load.resume();
    eventually("somebody is up to be killed", async || {
        daybook.kill(victim).await
    })
    .await;
    let killed = Instant::now();
    let said = SOURCES.map(|source| load.say(source));
    while oracle.stored(&**daybook.store(), &said, since).await.len() < said.len() {
        assert!(
            killed.elapsed() < PATIENCE,
            "{victim}: {}",
            oracle.missing(daybook)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after = killed.elapsed();
    println!("{victim:<14} killed; all sources flow again after {after:?}");
    load.pause();
    load.drained().await;
    eventually("everything is at rest again", async || {
        oracle.settled(daybook, since).await
    })
    .await;
    after
}

/// What the service itself runs with; only planes may be killed more often, and each kill is like the first.
fn options() -> TreeOptions {
    let config = daybook::config::Config::default();
    let mut options = TreeOptions::of(&config);
    options.planes_intensity.max_restarts = 100;
    options.backoff.reset_after = Duration::from_millis(100);
    options
}
