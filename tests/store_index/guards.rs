//! The unique index that keeps events from being entered twice: which one counts as it, and when.

use std::time::Duration;

use daybook::config::Collections;
use daybook::event::{DeadLetter, DeadLetterReason, SourceName};
use daybook::store::mongodb::MongoStore;
use daybook::store::{Commit, CursorMove, CursorStep, Fate, Record, Result, Store as _};
use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, doc};
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::eventually;
use tokio::task::JoinHandle;

use super::{enter, filters, find, full_event, mongo_store, prepared};

const AT: i64 = 1_700_000_000_000;

/// What Daybook calls it.
const OURS: &str = "source_1_externalId_1";

/// Where an index that is being built stands still.
const BEGUN: &str = "hangAfterStartingIndexBuild";

/// Where somebody stands still who asks for an index that is not there.
const BEFORE: &str = "hangCreateIndexesBeforeStartingIndexBuild";

async fn hang(mongod: &Mongod, point: &str, mode: &str) {
    let admin = mongod.database("admin").await;
    let command = doc! { "configureFailPoint": point, "mode": mode };
    admin.run_command(command).await.unwrap();
}

/// How many have come to a point since the server began.
async fn came_to(mongod: &Mongod, point: &str) -> i64 {
    let admin = mongod.database("admin").await;
    let name = format!("failpoint.{point}");
    let mut question = doc! { "getParameter": 1 };
    question.insert(name.as_str(), 1);
    let answer = admin.run_command(question).await.unwrap();
    match answer.get_document(&name).unwrap().get("timesEntered") {
        Some(Bson::Int32(times)) => i64::from(*times),
        Some(Bson::Int64(times)) => *times,
        other => panic!("{other:?} in {answer}"),
    }
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

    hang(&mongod, BEGUN, "alwaysOn").await;
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
    hang(&mongod, BEGUN, "off").await;
    store.prepare().await.unwrap_err();

    events.delete_one(twin()).await.unwrap();
    store.prepare().await.unwrap();
    events.insert_one(twin()).await.unwrap_err();
}

/// Lets two prepare at once until one of them has begun an index that both have seen to be missing: no index stands
/// before [`BEGUN`] is off.
async fn begin_twice(
    mongod: &Mongod,
    database: &str,
    stores: [MongoStore; 2],
    index: &str,
) -> Vec<JoinHandle<Result<()>>> {
    hang(mongod, BEGUN, "alwaysOn").await;
    hang(mongod, BEFORE, "alwaysOn").await;
    let mut under_way = Vec::new();
    for (store, came) in stores.into_iter().zip(1..) {
        under_way.push(tokio::spawn(async move { store.prepare().await }));
        let has_seen = "it is seen that there is no index";
        eventually(has_seen, async || came_to(mongod, BEFORE).await >= came).await;
    }
    hang(mongod, BEFORE, "off").await;
    let database = mongod.database(database).await;
    let events = database.collection::<Document>("auditevents");
    eventually("the index is begun", async || {
        let listed = events.list_index_names().await.unwrap();
        listed.contains(&index.to_owned())
    })
    .await;
    under_way
}

/// Of two that have seen that it is not there, the server tells the later one that it stands as soon as
/// the other's is begun.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_two_ask_for_at_once_is_waited_for_by_both() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let url = mongod.url("twice");
    let stores = [prepared(&url).await, prepared(&url).await];
    let database = mongod.database("twice").await;
    let events = database.collection::<Document>("auditevents");
    events.drop_index(OURS).await.unwrap();
    let twin = || doc! { "source": "ocis", "externalId": "1" };
    events.insert_one(twin()).await.unwrap();

    let under_way = begin_twice(&mongod, "twice", stores, OURS).await;
    events.insert_one(twin()).await.unwrap();
    hang(&mongod, BEGUN, "off").await;
    for prepared in under_way {
        prepared.await.unwrap().unwrap_err();
    }
}

/// Until it stands, the server refuses the hints of queries at it.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_queries_that_two_ask_for_at_once_is_waited_for_by_both() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let url = mongod.url("queries");
    let stores = [prepared(&url).await, prepared(&url).await];
    enter(&stores[0], "acme", &[full_event("1", AT)])
        .await
        .unwrap();
    let database = mongod.database("queries").await;
    let events = database.collection::<Document>("auditevents");
    let by_time = "at_-1__id_-1_facet_1";
    events.drop_index(by_time).await.unwrap();

    let under_way = begin_twice(&mongod, "queries", stores.clone(), by_time).await;
    eventually("the later one waits for the other's", async || {
        mongod.log().contains("is already being built")
    })
    .await;
    hang(&mongod, BEGUN, "off").await;
    for prepared in under_way {
        prepared.await.unwrap().unwrap();
    }
    for store in &stores {
        for filter in filters() {
            assert_eq!(find(store, &filter).await.len(), 1, "{filter:?}");
        }
    }
}

/// Where the collections are gone, so are the cursors: whoever finds none where there was one looks after the rest.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_were_lost_with_a_cursor_are_made_anew() {
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("lost_indexes")).await;
    let database = mongod.database("lost_indexes").await;
    let events = database.collection::<Document>("auditevents");
    let stands = async || {
        let listed = events.list_index_names().await.unwrap();
        listed.contains(&OURS.to_owned())
    };
    let source = SourceName::new("ocis");
    let event = full_event("1", AT);
    let push = Commit {
        records: vec![Record::Event {
            event: &event,
            tenant_slug: Some("acme"),
        }],
        moves: vec![CursorMove {
            source: source.clone(),
            generation: 0,
            step: CursorStep::Touch,
            last_event_at: None,
            last_event_id: None,
        }],
        ..Commit::default()
    };
    store.commit(&push).await.unwrap();
    database.drop().await.unwrap();
    // Of what makes the event found, this process believed that it stands.
    let error = store.commit(&push).await.unwrap_err();
    assert_eq!(error.reason(), "unavailable", "{error}");
    assert!(stands().await);
    let again = store.commit(&push).await.unwrap();
    assert_eq!(again.records, [Fate::Written]);
    for filter in filters() {
        assert_eq!(find(&store, &filter).await.len(), 1, "{filter:?}");
    }

    // Nor does it if somebody else was quicker to make the indexes.
    database.drop().await.unwrap();
    let _other = prepared(&mongod.url("lost_indexes")).await;
    let error = store.commit(&push).await.unwrap_err();
    assert_eq!(error.reason(), "unavailable", "{error}");
    store.commit(&push).await.unwrap();
    for filter in filters() {
        assert_eq!(find(&store, &filter).await.len(), 1, "{filter:?}");
    }

    database.drop().await.unwrap();
    store.claim_cursor(&source).await.unwrap();
    assert!(stands().await);
}

/// The cursors stand, and tell nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_lost_without_a_cursor_is_made_anew() {
    let mongod = Mongod::shared().await;
    for lost in ["index", "indexes", "collection"] {
        let name = format!("lost_{lost}_alone");
        let store = prepared(&mongod.url(&name)).await;
        let events = mongod.database(&name).await;
        let events = events.collection::<Document>("auditevents");
        let event = [full_event("1", AT)];
        enter(&store, "acme", &event).await.unwrap();
        match lost {
            "index" => events.drop_index(OURS).await.unwrap(),
            "indexes" => events.drop_indexes().await.unwrap(),
            _ => events.drop().await.unwrap(),
        }
        let error = enter(&store, "acme", &event).await.unwrap_err();
        assert_eq!(error.reason(), "unavailable", "{error}");
        enter(&store, "acme", &event).await.unwrap();
        assert_eq!(events.count_documents(doc! {}).await.unwrap(), 1, "{lost}");
        for filter in filters() {
            assert_eq!(find(&store, &filter).await.len(), 1, "{filter:?}");
        }
        // Where nothing comes, the next look at the store finds it.
        events.drop_indexes().await.unwrap();
        assert!(store.ping().await.is_err());
        store.ping().await.unwrap();
        let names = events.list_index_names().await.unwrap();
        assert!(names.contains(&OURS.to_owned()), "{names:?}");
    }
}

/// The platform may have made a collection whose texts are the same in any case. Keys are not.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_collation_takes_for_one_are_two() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("collated").await;
    for name in ["auditevents", "ingestcursors", "auditdeadletters"] {
        let collation = doc! { "locale": "en", "strength": 2 };
        let command = doc! { "create": name, "collation": collation };
        database.run_command(command).await.unwrap();
    }
    let keys = ["a", "A"];
    let events = keys.map(|key| full_event(key, AT));
    let letters = keys.map(|key| DeadLetter {
        source: SourceName::new("ocis"),
        position: key.to_owned(),
        reason: DeadLetterReason::Malformed,
        detail: String::new(),
        raw: bytes::Bytes::new(),
        raw_length: 0,
        at: Timestamp::from_millisecond(AT).unwrap(),
    });
    for fate in [Fate::Written, Fate::Duplicate] {
        let store = prepared(&mongod.url("collated")).await;
        let records = events.iter().map(|event| Record::Event {
            event,
            tenant_slug: Some("acme"),
        });
        let commit = Commit {
            records: records
                .chain(letters.iter().map(Record::DeadLetter))
                .collect(),
            ..Commit::default()
        };
        let committed = store.commit(&commit).await.unwrap();
        assert_eq!(committed.records, vec![fate; 4]);
    }

    let store = prepared(&mongod.url("collated")).await;
    let letters = store.dead_letters(10).await.unwrap();
    let attempts: Vec<u64> = letters.iter().map(|letter| letter.attempts).collect();
    assert_eq!(attempts, [2, 2]);
    for source in ["ocis", "OCIS"] {
        let claimed = store.claim_cursor(&SourceName::new(source)).await.unwrap();
        assert_eq!((claimed.source.as_str(), claimed.generation), (source, 1));
    }
    for filter in filters() {
        let found = find(&store, &filter).await;
        assert_eq!(found.len(), 2, "{filter:?}");
        for (tenant, is_theirs) in [("acme", true), ("ACME", false)] {
            let event = store.event(&found[0].id, Some(tenant)).await.unwrap();
            assert_eq!(event.is_some(), is_theirs, "{tenant}");
        }
    }
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

/// What is entered beside a build may make it fail, and every later one.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_entered_while_the_lost_index_is_built() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let store = prepared(&mongod.url("beside")).await;
    let events = mongod.database("beside").await;
    let events = events.collection::<Document>("auditevents");
    let [one, other] = ["1", "2"].map(|key| [full_event(key, AT)]);
    enter(&store, "acme", &one).await.unwrap();
    events.drop_index(OURS).await.unwrap();
    hang(&mongod, BEGUN, "alwaysOn").await;
    let first = tokio::spawn({
        let store = store.clone();
        async move { enter(&store, "acme", &other).await }
    });
    eventually("the index is begun", async || {
        let listed = events.list_index_names().await.unwrap();
        listed.contains(&OURS.to_owned())
    })
    .await;
    let error = enter(&store, "acme", &one).await.unwrap_err();
    assert_eq!(error.reason(), "unavailable", "{error}");
    assert_eq!(events.count_documents(doc! {}).await.unwrap(), 1);

    hang(&mongod, BEGUN, "off").await;
    first.await.unwrap().unwrap_err();
    eventually("the index stands", async || store.ping().await.is_ok()).await;
    enter(&store, "acme", &one).await.unwrap();
    assert_eq!(events.count_documents(doc! {}).await.unwrap(), 1);
}

/// Shells that know nothing but doubles make it so.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_keys_of_another_type_is_the_same() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("doubles").await;
    let index = doc! {
        "name": "theirs",
        "key": { "source": 1.0, "externalId": 1.0 },
        "unique": true,
        "partialFilterExpression": { "externalId": { "$type": "string" } },
    };
    let command = doc! { "createIndexes": "auditevents", "indexes": [index] };
    database.run_command(command).await.unwrap();
    let store = prepared(&mongod.url("doubles")).await;
    for _ in 0..2 {
        enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    }
    let events = database.collection::<Document>("auditevents");
    assert_eq!(events.count_documents(doc! {}).await.unwrap(), 1);
}

/// Queries do without one, and it is made anew beside the commits.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_queries_that_is_lost_or_hidden_is_done_without() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("lost_queries").await;
    let events = database.collection::<Document>("auditevents");
    let store = prepared(&mongod.url("lost_queries")).await;
    enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    let assert_found = async |what: &str| {
        for filter in filters() {
            assert_eq!(find(&store, &filter).await.len(), 1, "{what}: {filter:?}");
        }
    };
    let assert_done_without = async |what: &str| {
        let mut refused = 0;
        for filter in filters() {
            let found = store.find_events(&filter, None, 10).await;
            refused += usize::from(found.is_err());
        }
        assert!(refused > 0, "{what}");
        store.ping().await.unwrap();
        assert_found(what).await;
    };
    let names = events.list_index_names().await.unwrap();
    let for_queries = names.iter().filter(|name| name.contains("facet"));
    let for_queries: Vec<&String> = for_queries.collect();
    assert_eq!(for_queries.len(), 3, "{names:?}");
    for name in &for_queries {
        let hide = |hidden: bool| {
            let index = doc! { "name": *name, "hidden": hidden };
            database.run_command(doc! { "collMod": "auditevents", "index": index })
        };
        hide(true).await.unwrap();
        assert_done_without(&format!("{name} is hidden")).await;
        hide(false).await.unwrap();
        store.prepare().await.unwrap();

        events.drop_index(*name).await.unwrap();
        assert_done_without(&format!("{name} is lost")).await;
        store.prepare().await.unwrap();
    }
    store.begin_upkeep();
    for name in &for_queries {
        events.drop_index(*name).await.unwrap();
    }
    assert_done_without("all are lost").await;
    eventually("they are made anew", async || {
        let names = events.list_index_names().await.unwrap();
        for_queries.iter().all(|name| names.contains(name))
    })
    .await;
    assert_found("made anew").await;
}

/// It may take minutes, and every source would wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_queries_of_many_events_is_left_to_the_background() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("many_queries").await;
    let events = database.collection::<Document>("auditevents");
    let foreign = (0..10_001).map(|number| doc! { "number": number });
    events.insert_many(foreign).await.unwrap();
    let store = prepared(&mongod.url("many_queries")).await;
    enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    let of_queries = async || {
        let names = events.list_index_names().await.unwrap();
        names.iter().filter(|name| name.contains("facet")).count()
    };
    assert_eq!(of_queries().await, 0);
    for filter in filters() {
        assert_eq!(find(&store, &filter).await.len(), 1, "{filter:?}");
    }
    store.begin_upkeep();
    eventually("they are made", async || of_queries().await == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_queries_that_cannot_be_built_holds_up_nothing_else() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let database = mongod.database("unbuilt").await;
    let events = database.collection::<Document>("auditevents");
    let mut foreign: Vec<Document> = (0..10_001)
        .map(|number| doc! { "number": number })
        .collect();
    foreign.push(doc! { "source": "ocis", "action": "test.done", "at": DateTime::from_millis(AT) });
    events.insert_many(foreign).await.unwrap();
    let store = prepared(&mongod.url("unbuilt")).await;
    let refuse = doc! {
        "failCommands": ["createIndexes"], "namespace": "unbuilt.auditevents", "errorCode": 67,
    };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", refuse).await;
    store.begin_upkeep();
    eventually("the event gets its keys", async || {
        let keyed = doc! { "action": "test.done", "facet": { "$ne": null } };
        events.count_documents(keyed).await.unwrap() == 1
    })
    .await;
    eventually("an index is asked for", async || {
        fail_point.struck().await > 0
    })
    .await;
}
