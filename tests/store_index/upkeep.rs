//! What is done beside the commits is the service's business.

use std::time::Duration;

use testkit::World;
use testkit::mongod::Mongod;

use super::texts::settled;
use super::{enter, filters, find, full_event, prepared};

const AT: i64 = 1_700_000_000_000;

/// Beside a service that imports they would do the same work, and at full speed.
#[tokio::test(flavor = "multi_thread")]
async fn commands_leave_the_upkeep_to_the_service() {
    let mongod = Mongod::shared().await;
    let name = "upkeep";
    let url = mongod.url(name);
    let command = prepared(&url).await;
    let events = [full_event("1", AT)];
    enter(&command, "acme", &events).await.unwrap();
    // Whoever does it is done a second after the commit.
    let done = tokio::time::timeout(Duration::from_secs(3), settled(mongod, name)).await;
    assert!(done.is_err(), "a command settles texts");
    for filter in filters() {
        assert_eq!(find(&command, &filter).await.len(), 1, "{filter:?}");
    }

    let only_reads = World::at(&url).settings("[ingest]\nenabled = false");
    let world = only_reads.start().await;
    settled(mongod, name).await;
    world.stop().await;
}
