//! The unique index that keeps events from being entered twice: which one counts as it, and when.

use std::time::Duration;

use daybook::config::Collections;
use daybook::store::Store as _;
use daybook::store::mongodb::MongoStore;
use mongodb::bson::{Document, doc};
use testkit::fail_point::TEST_COMMANDS;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{enter, full_event, mongo_store};

const AT: i64 = 1_700_000_000_000;

/// What Daybook calls it.
const OURS: &str = "source_1_externalId_1";

async fn hang_index_builds(mongod: &Mongod, mode: &str) {
    let admin = mongod.database("admin").await;
    let command = doc! { "configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode };
    admin.run_command(command).await.unwrap();
}

/// It keeps nothing unique until it stands, and never stands if a repeat comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_being_built_is_waited_for() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let url = mongod.url("built");
    let store = mongo_store(&url).await;
    let database = mongod.database("built").await;
    let events = database.collection::<Document>("auditevents");
    events.drop_index(OURS).await.unwrap();
    let twin = || doc! { "source": "ocis", "externalId": "1" };
    events.insert_one(twin()).await.unwrap();

    hang_index_builds(&mongod, "alwaysOn").await;
    let hasty = MongoStore::connect(&url, Duration::from_secs(2), &Collections::default()).await;
    let hasty = hasty.unwrap();
    let is_waited_for = async || {
        let Err(error) = hasty.prepare().await else {
            let list = doc! { "listIndexes": "auditevents", "includeBuildUUIDs": true };
            let listed = database.run_command(list).await.unwrap();
            panic!("prepared beside {listed}");
        };
        assert_eq!(error.reason(), "timeout", "{error}");
        let listed = events.list_index_names().await.unwrap();
        listed.contains(&OURS.to_owned())
    };
    // A busy machine may not get as far as the index the first time.
    eventually("the index is begun", async || is_waited_for().await).await;
    assert!(is_waited_for().await, "it was begun");
    events.insert_one(twin()).await.unwrap();
    hang_index_builds(&mongod, "off").await;
    store.prepare().await.unwrap_err();

    events.delete_one(twin()).await.unwrap();
    store.prepare().await.unwrap();
    events.insert_one(twin()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_somebody_counts_if_it_has_every_event() {
    let mongod = Mongod::shared().await;
    for (number, (theirs, filter, ours)) in [
        ("theirs", None, None),
        (
            "theirs",
            Some(doc! { "externalId": { "$type": "string" } }),
            None,
        ),
        (OURS, Some(doc! { "externalId": { "$type": 2 } }), None),
        (
            "theirs",
            Some(doc! { "externalId": { "$exists": true } }),
            None,
        ),
        (
            "theirs",
            Some(doc! { "externalId": { "$gt": "m" } }),
            Some(OURS),
        ),
        ("theirs", Some(doc! { "source": "stalwart" }), Some(OURS)),
        (
            OURS,
            Some(doc! { "source": "stalwart" }),
            Some("daybook_source_1_externalId_1"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("guards_{number}");
        let database = mongod.database(&name).await;
        let key = doc! { "source": 1, "externalId": 1 };
        let mut index = doc! { "key": key, "name": theirs, "unique": true };
        if let Some(filter) = &filter {
            index.insert("partialFilterExpression", filter);
        }
        let command = doc! { "createIndexes": "auditevents", "indexes": [index] };
        database.run_command(command).await.unwrap();

        let store = mongo_store(&mongod.url(&name)).await;
        let events = database.collection::<Document>("auditevents");
        let listed = events.list_index_names().await.unwrap();
        let guards = listed
            .iter()
            .filter(|name| *name == theirs || name.contains("externalId"));
        let guards: Vec<&str> = guards.map(String::as_str).collect();
        let wanted: Vec<&str> = [theirs].into_iter().chain(ours).collect();
        assert_eq!(guards, wanted, "{filter:?}");
        for _ in 0..2 {
            enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
        }
        let count = events.count_documents(doc! {}).await.unwrap();
        assert_eq!(count, 1, "{filter:?}");
    }
}
