//! What stands before events is not synced by itself. A server that dies before the events come, and
//! loses it, must not take them without it afterwards.

use std::sync::Arc;

use daybook::probe::{Fault, Probes};
use daybook::store::{EventFilter, Store as _};
use mongodb::bson::{Document, doc};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{enter, find, full_event, mongo_store};

const AT: i64 = 1_700_000_000_000;

/// A server syncs by itself now and then: not every death loses something.
const DEATHS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_server_lost_stands_before_its_events_are_acknowledged() {
    let mongod = Mongod::start_with(&["--journalCommitInterval", "500"]).await;
    let url = mongod.url("crash");
    let store = Arc::new(mongo_store(&url).await);
    let probes = Probes::new();
    store.set_probe(probes.actor("store"));
    for death in 0..DEATHS {
        let tenant = format!("tenant-{death}");
        let point = "between_announcement_and_insert";
        let strike = probes.strike("store", point, Fault::Stand, 1);
        let commit = tokio::spawn({
            let (store, tenant) = (Arc::clone(&store), tenant.clone());
            async move {
                let event = full_event(&tenant, AT);
                enter(&*store, &tenant, &[event]).await
            }
        });
        strike.struck().await;
        mongod.kill9();
        mongod.restart().await;
        eventually("the client sees that the server is back", async || {
            store.ping().await.is_ok()
        })
        .await;
        let database = mongod.database("crash").await;
        let facets = database.collection::<Document>("auditevents.facets");
        let of_tenant = doc! { "tenantSlug": &tenant };
        let lost = facets.count_documents(of_tenant).await.unwrap() == 0;
        drop(strike);
        let entered = commit.await.unwrap();
        if entered.is_err() {
            let event = full_event(&tenant, AT);
            enter(&*store, &tenant, &[event]).await.unwrap();
        }
        for text in [None, Some("REPORT.o"), Some("file_mov")] {
            let filter = EventFilter {
                tenant: Some(tenant.clone()),
                text: text.map(str::to_owned),
                ..EventFilter::default()
            };
            assert_eq!(find(&*store, &filter).await.len(), 1, "{filter:?}");
        }
        if lost && entered.is_ok() {
            return;
        }
    }
    panic!("no server lost anything in {DEATHS} deaths");
}
