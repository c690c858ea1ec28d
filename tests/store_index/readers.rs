//! Reads of the timeline may take all connections that are theirs, and none of the others.

use std::sync::Arc;
use std::time::Duration;

use daybook::store::{EventFilter, Store as _};
use mongodb::bson::{Document, doc};
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::counts::reads_of;
use super::{enter, find, full_event, prepared};

const AT: i64 = 1_700_000_000_000;

/// More than any connections of reads.
const READS: usize = 12;

/// Far less than reads are held here.
const PROBE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn slow_reads_keep_no_commit_and_no_probe_waiting() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let mut stores = Vec::new();
    for (options, connections) in [
        ("", 10),
        ("&maxPoolSize=4", 2),
        ("&maxPoolSize=1&minPoolSize=1", 1),
    ] {
        let url = format!("{}{options}", mongod.url("readers"));
        stores.push((options, Arc::new(prepared(&url).await), connections));
    }
    let slow = doc! {
        "failCommands": ["find", "aggregate"], "namespace": "readers.auditevents",
        "blockConnection": true, "blockTimeMS": 60_000,
    };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", slow).await;
    for (options, store, connections) in stores {
        let before = fail_point.struck().await;
        let read = || {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.find_events(&EventFilter::default(), None, 10).await })
        };
        let reads: Vec<_> = (0..READS).map(|_| read()).collect();
        eventually("reads have all that is theirs", async || {
            fail_point.struck().await - before >= connections
        })
        .await;

        let probe = tokio::time::timeout(PROBE, store.ping()).await;
        probe.expect("an answer in time").unwrap();
        assert_eq!(store.token("nobody's").await.unwrap(), None);
        let event = full_event(&format!("with {options:?}"), AT);
        enter(&*store, "acme", &[event]).await.unwrap();
        assert!(reads.iter().all(|read| !read.is_finished()), "{options}");
        let struck = fail_point.struck().await - before;
        assert_eq!(struck, connections, "{options}");
        reads.iter().for_each(|read| read.abort());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_looks_at_single_events_keep_nobody_else_waiting() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let store = Arc::new(prepared(&mongod.url("single")).await);
    let slow = doc! {
        "failCommands": ["find"], "namespace": "single.auditevents",
        "blockConnection": true, "blockTimeMS": 60_000,
    };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", slow).await;
    let look = |number: usize| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.event(&number.to_string(), None).await })
    };
    let looks: Vec<_> = (0..READS).map(look).collect();
    eventually("they have all that is theirs", async || {
        fail_point.struck().await >= 10
    })
    .await;
    let token = tokio::time::timeout(PROBE, store.token("nobody's")).await;
    assert_eq!(token.expect("an answer in time").unwrap(), None);
    assert!(looks.iter().all(|look| !look.is_finished()));
    looks.iter().for_each(|look| look.abort());
}

/// The time that it takes would tell how large it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_anothers_event_does_not_take_it_from_the_server() {
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("anothers")).await;
    enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    let event = find(&store, &EventFilter::default()).await.remove(0);
    let database = mongod.database("anothers").await;
    for (tenant, taken) in [("acme", 1), ("globex", 0)] {
        let reads = reads_of(&database, store.event(&event.id, Some(tenant))).await;
        let taken_by = |read: &Document| read.get_i32("nreturned").unwrap();
        let all: Vec<i32> = reads.iter().map(taken_by).collect();
        assert_eq!(all, [taken], "{tenant}: {reads:?}");
    }
}
