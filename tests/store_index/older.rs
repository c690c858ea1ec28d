//! Events without keys, of an older version or of somebody else, are found like all others, before
//! and after they got their keys.

use std::sync::Arc;

use daybook::config::Collections;
use daybook::event::{Outcome, last_time};
use daybook::own_events::{self, Deed};
use daybook::probe::{Fault, Probes};
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{EventFilter, PageKey, Store};
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, Uuid, doc};
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{TIMEOUT, enter, event, filters, find, full_event, mongo_store, prepared};

const AT: i64 = 1_700_000_000_000;

fn older(key: &str) -> Document {
    doc! {
        "at": DateTime::from_millis(AT), "ingestedAt": DateTime::from_millis(AT),
        "source": "ocis", "externalId": key, "action": "ocis.file_moved", "outcome": "failure",
        "actor": { "id": "A-1", "email": "Ålice@example.org", "name": "Alice", "ip": "2001:db8::1" },
        "target": { "type": "file", "id": "F-1", "name": "Quarterly Report.odt" },
        "tenantSlug": "acme", "metadata": {},
    }
}

async fn assert_found(store: &dyn Store, count: usize, when: &str) {
    for filter in filters() {
        let found = find(store, &filter).await;
        assert_eq!(found.len(), count, "{when}: {filter:?}");
        let counted = store.histogram(&filter, 10).await.unwrap();
        assert_eq!(counted.total, count as u64, "{when}: {filter:?}");
    }
    let nobody = EventFilter {
        actor: Some("nobody".to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(find(store, &nobody).await, [], "{when}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_finds_events_without_keys_and_gives_them_some() {
    let mongod = Mongod::shared().await;
    let url = mongod.url("older");
    let database = mongod.database("older").await;
    let events = database.collection::<Document>("auditevents");
    let mut with_text_id = older("2");
    with_text_id.insert("_id", "a text");
    events
        .insert_many([older("1"), with_text_id])
        .await
        .unwrap();

    let store = mongo_store(&url).await;
    enter(&store, "acme", &[full_event("3", AT)]).await.unwrap();
    assert_found(&store, 3, "at first").await;
    let keyless = || async {
        let count = events.count_documents(doc! { "facet": null }).await;
        count.unwrap()
    };
    eventually("keys for all", async || keyless().await == 0).await;
    assert_found(&store, 3, "with keys").await;

    // Somebody else writes while the store is in use.
    events.insert_one(older("4")).await.unwrap();
    for filter in filters() {
        // Its hour may be counted while it gets its keys; a moment later all agree.
        eventually(&format!("one more of {filter:?}"), async || {
            let counted = store.histogram(&filter, 10).await.unwrap();
            find(&store, &filter).await.len() == 4 && counted.total == 4
        })
        .await;
    }
}

/// Pages look at the events without keys first.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_gets_its_keys_while_a_page_is_read_is_on_it_once() {
    let mongod = Mongod::shared().await;
    let store = Arc::new(prepared(&mongod.url("between")).await);
    let probes = Probes::new();
    store.set_probe(probes.actor("store"));
    enter(&*store, "acme", &[full_event("1", AT)])
        .await
        .unwrap();
    let database = mongod.database("between").await;
    let events = database.collection::<Document>("auditevents");
    events.insert_one(older("2")).await.unwrap();
    let entered = events.find_one(doc! { "externalId": "1" }).await;
    let entered = entered.unwrap().unwrap();
    let [facet, terms] = ["facet", "terms"].map(|name| entered.get(name).unwrap().clone());
    let keys = doc! { "$set": { "facet": facet, "terms": terms } };
    let no_keys = doc! { "$unset": { "facet": "", "terms": "" } };
    let update = async |change: &Document| {
        let foreign = doc! { "externalId": "2" };
        let updated = events.update_one(foreign, change.clone()).await;
        updated.unwrap();
    };
    // The others are told by time alone.
    let of_keys = |filter: &EventFilter| *filter != EventFilter::default();
    for filter in filters().into_iter().filter(of_keys) {
        update(&no_keys).await;
        let strike = probes.strike("store", "between_keyless_and_keyed", Fault::Stand, 1);
        let page = tokio::spawn({
            let (store, filter) = (Arc::clone(&store), filter.clone());
            async move { find(&*store, &filter).await }
        });
        strike.struck().await;
        update(&keys).await;
        drop(strike);
        let page = page.await.unwrap().into_iter();
        let mut found: Vec<String> = page.map(|event| event.external_id).collect();
        found.sort();
        assert_eq!(found, ["1", "2"], "{filter:?}");
    }
}

/// Ids of a type that their text does not tell, and events that come while Daybook runs.
#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_events_with_any_id() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("any_id").await;
    let events = database.collection::<Document>("auditevents");
    let ids: [Bson; 3] = [
        Uuid::from_bytes([7; 16]).into(),
        Bson::Int32(7),
        Bson::String("7".to_owned()),
    ];
    let older = |(id, key): (&Bson, i64)| {
        doc! {
            "_id": id, "at": DateTime::from_millis(AT + key), "ingestedAt": DateTime::from_millis(AT),
            "source": "ocis", "externalId": key.to_string(), "action": "ocis.file_moved",
            "tenantSlug": "acme", "metadata": {},
        }
    };
    for turn in 0..3 {
        let mut ids = ids.clone();
        ids.rotate_left(turn);
        events
            .insert_many(ids.iter().zip(0..).map(older))
            .await
            .unwrap();
        let store = mongo_store(&mongod.url("any_id")).await;
        eventually("keys for all", async || {
            let keyless = events.count_documents(doc! { "facet": null }).await;
            keyless.unwrap() == 0
        })
        .await;
        // Events of so many actions are asked for by their ids.
        let many = (0..205).map(|number| {
            let mut event = event("ocis", &format!("many {number}"), AT - 1);
            event.action = format!("ocis.kind{number}").into();
            event
        });
        let many: Vec<_> = many.collect();
        enter(&store, "acme", &many).await.unwrap();
        let of_source = EventFilter {
            source: Some("ocis".to_owned()),
            ..EventFilter::default()
        };
        let found = store.find_events(&of_source, None, 1000).await.unwrap();
        assert_eq!(found.len(), many.len() + ids.len());
        drop(store);
        events.delete_many(doc! {}).await.unwrap();
    }
}

/// One of each type that somebody may have.
fn ids(number: u8) -> [Bson; 10] {
    let object_id = ObjectId::from_bytes([number; 12]);
    [
        Bson::Int32(number.into()),
        Bson::Int64(i64::MAX - i64::from(number)),
        Bson::Double(f64::from(number) + 0.5),
        Bson::String(number.to_string()),
        // What looks like another one.
        object_id.to_hex().into(),
        object_id.into(),
        Uuid::from_bytes([number; 16]).into(),
        DateTime::from_millis(number.into()).into(),
        doc! { "source": "ocis", "day": i32::from(number) }.into(),
        doc! { "parts": [i32::from(number)] }.into(),
    ]
}

/// All at one time, within which pages end, and half of them without keys.
#[tokio::test(flavor = "multi_thread")]
async fn events_with_any_id_are_listed_once_each_and_found_by_it() {
    let mongod = Mongod::shared().await;
    let url = mongod.url("listed_ids");
    let database = mongod.database("listed_ids").await;
    let events = database.collection::<Document>("auditevents");
    let insert = async |numbers: [u8; 3]| {
        let foreign = numbers.into_iter().flat_map(ids).map(|id| {
            let mut foreign = older(&format!("{id:?}"));
            foreign.insert("_id", id);
            foreign
        });
        events.insert_many(foreign).await.unwrap();
    };
    insert([1, 3, 5]).await;
    let upkeep = mongo_store(&url).await;
    eventually("keys for all", async || {
        let keyless = events.count_documents(doc! { "facet": null }).await;
        keyless.unwrap() == 0
    })
    .await;
    drop(upkeep);
    insert([2, 4, 6]).await;

    let newest_first = events.find(doc! {}).sort(doc! { "at": -1, "_id": -1 });
    let newest_first: Vec<Document> = newest_first.await.unwrap().try_collect().await.unwrap();
    let expected = newest_first.iter();
    let expected = expected.map(|event| event.get_str("externalId").unwrap());
    let expected: Vec<&str> = expected.collect();
    assert_eq!(expected.len(), 60);
    let store = prepared(&url).await;
    let everything = EventFilter::default();
    let of_source = EventFilter {
        source: Some("ocis".to_owned()),
        ..EventFilter::default()
    };
    for filter in [&everything, &of_source] {
        for limit in [1, 7] {
            let mut found = Vec::new();
            let mut before = None;
            // Enough for those that end.
            for _ in 0..=expected.len() {
                let page = store.find_events(filter, before.as_ref(), limit).await;
                let page = page.unwrap();
                before = page.last().map(PageKey::of).or(before);
                found.extend(page.into_iter().map(|event| event.external_id));
            }
            assert_eq!(found, expected, "{filter:?} by {limit}");
        }
    }
    for listed in find(&store, &everything).await {
        let by_id = store.event(&listed.id, None).await.unwrap();
        let is_told = !listed.external_id.contains("Array");
        assert_eq!(by_id, is_told.then_some(listed));
    }
}

/// Made of microseconds, say, or a word for never.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_time_that_no_timestamp_can_be_are_nowhere() {
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("times")).await;
    let database = mongod.database("times").await;
    let events = database.collection::<Document>("auditevents");
    let [first, last] = [Timestamp::MIN, last_time()].map(Timestamp::as_millisecond);
    let beyond = [i64::MIN, first - 1, last + 1, AT * 1000, i64::MAX];
    let foreign = [last, AT, first].into_iter().chain(beyond).map(|at| {
        let mut foreign = older(&at.to_string());
        foreign.insert("at", DateTime::from_millis(at));
        foreign
    });
    events.insert_many(foreign).await.unwrap();

    let expected = [last, AT, first].map(|at| at.to_string());
    let of_all_time = EventFilter {
        since: Some(Timestamp::MIN),
        until: Some(Timestamp::MAX),
        ..EventFilter::default()
    };
    for filter in [EventFilter::default(), of_all_time] {
        let found = find(&store, &filter).await.into_iter();
        let found: Vec<String> = found.map(|event| event.external_id).collect();
        assert_eq!(found, expected, "{filter:?}");
        let counted = store.histogram(&filter, 10).await.unwrap();
        assert_eq!(counted.total, 3, "{filter:?}");
    }
    let stored = events.find(doc! {}).await.unwrap();
    let stored: Vec<Document> = stored.try_collect().await.unwrap();
    for event in stored {
        let key = event.get_str("externalId").unwrap().to_owned();
        let id = event.get_object_id("_id").unwrap().to_hex();
        let found = store.event(&id, None).await.unwrap();
        assert_eq!(found.is_some(), expected.contains(&key), "{key}");
    }
    let mut follow = store.follow(Some("0-i")).await.unwrap().unwrap();
    let mut told = Vec::new();
    loop {
        let met = follow.next().await.unwrap();
        told.extend(met.entries.into_iter().map(|one| one.event.external_id));
        if !met.more {
            break;
        }
    }
    told.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(told, expected);
}

/// As when the events alone were restored from a backup: they have keys that nothing tells of.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_dictionary_is_made_anew_though_the_first_to_try_is_killed() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let url = mongod.url("lost");
    let database = mongod.database("lost").await;
    let events = database.collection::<Document>("auditevents");
    // More than get their keys at once stand before one of another kind.
    let others = (0..600).map(|number| event("other", &number.to_string(), AT - 1));
    let mut all: Vec<_> = others.collect();
    all.push(full_event("last", AT));
    let store = mongo_store(&url).await;
    enter(&store, "acme", &all).await.unwrap();
    drop(store);
    drop_what_is_derived(&database).await;
    // Ids of several types at one time, in no order but that of their types.
    for id in [Bson::Int32(7), Bson::String("7".to_owned())] {
        let mut foreign = older(&id.to_string());
        foreign.insert("_id", id);
        foreign.remove("outcome");
        events.insert_one(foreign).await.unwrap();
    }

    let refusal = doc! {
        "failCommands": ["update"], "namespace": "lost.auditevents", "errorCode": 8,
    };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", refusal).await;
    let killed = mongo_store(&url).await;
    eventually("the first events' facets stand, and no more", async || {
        fail_point.struck().await > 0
    })
    .await;
    drop(killed);
    fail_point.off().await;

    let store = mongo_store(&url).await;
    let of_source = EventFilter {
        source: Some("ocis".to_owned()),
        ..EventFilter::default()
    };
    let of_text = EventFilter {
        text: Some("REPORT.o".to_owned()),
        ..EventFilter::default()
    };
    for filter in [of_source, of_text] {
        eventually(&format!("all of {filter:?}"), async || {
            find(&store, &filter).await.len() == 3
        })
        .await;
    }
    let facets = database.collection::<Document>("auditevents.facets");
    eventually("nothing but facets in the dictionary", async || {
        let others = doc! { "_id": { "$type": "string" } };
        facets.count_documents(others).await.unwrap() == 0
    })
    .await;
}

async fn drop_what_is_derived(database: &Database) {
    for part in ["facets", "texts", "pendingtexts", "counts"] {
        let derived = database.collection::<Document>(&format!("auditevents.{part}"));
        derived.drop().await.unwrap();
    }
}

/// Whoever signs in does not wait until the store is prepared.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_dictionary_is_noticed_before_the_first_entry() {
    let mongod = Mongod::shared().await;
    let url = mongod.url("early");
    let store = prepared(&url).await;
    enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    drop(store);
    drop_what_is_derived(&mongod.database("early").await).await;

    let store = MongoStore::connect(&url, TIMEOUT, &Collections::default()).await;
    let store = store.unwrap();
    let refused = Deed::new("daybook.sign_in_failed", Outcome::Failure);
    own_events::enter(&store, refused).await.unwrap();
    store.prepare().await.unwrap();
    let of_tenant = EventFilter {
        tenant: Some("acme".to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(find(&store, &of_tenant).await, [], "nothing tells of it");
    store.begin_upkeep();
    eventually("the tenant's event", async || {
        find(&store, &of_tenant).await.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_do_not_wait_until_all_texts_are_settled() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("unsettled").await;
    let events = database.collection::<Document>("auditevents");
    let texts = database.collection::<Document>("auditevents.texts");
    // All texts of a tenant but one stay pending for good.
    let one = doc! { "key": { "tenantSlug": 1 }, "name": "one_text", "unique": true };
    let command = doc! { "createIndexes": texts.name(), "indexes": [one] };
    database.run_command(command).await.unwrap();
    let store = mongo_store(&mongod.url("unsettled")).await;
    enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    eventually("texts are being settled", async || {
        let settled = doc! { "text": { "$exists": true } };
        texts.count_documents(settled).await.unwrap() == 1
    })
    .await;

    events.insert_one(older("2")).await.unwrap();
    eventually("keys for all", async || {
        store.move_clock(SignedDuration::from_mins(1));
        let keyless = events.count_documents(doc! { "facet": null }).await;
        keyless.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn sqlite_gives_keys_to_the_events_of_an_older_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daybook.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE auditevents (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                at INTEGER NOT NULL, ingestedAt INTEGER NOT NULL,
                source TEXT NOT NULL, externalId TEXT NOT NULL, action TEXT NOT NULL,
                outcome TEXT,
                actorId TEXT, actorEmail TEXT, actorName TEXT, actorIp TEXT,
                targetType TEXT, targetId TEXT, targetName TEXT,
                tenantSlug TEXT, metadata TEXT NOT NULL,
                UNIQUE (source, externalId)
            );
            CREATE INDEX auditevents_at ON auditevents (at, id);
            CREATE INDEX auditevents_source_at ON auditevents (source, at, id);",
        )
        .unwrap();
    // More than get their keys at once.
    let rows = connection.unchecked_transaction().unwrap();
    for key in 0..1050 {
        connection
            .execute(
                "INSERT INTO auditevents VALUES (NULL, ?1, ?1, 'ocis', ?2, 'ocis.file_moved',
                 'failure', 'A-1', 'Ålice@example.org', 'Alice', '2001:db8::1', 'file', 'F-1',
                 'Quarterly Report.odt', 'acme', '{}')",
                rusqlite::params![AT, key.to_string()],
            )
            .unwrap();
    }
    rows.commit().unwrap();
    drop(connection);
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default()).unwrap();
    store.prepare().await.unwrap();
    enter(&store, "acme", &[full_event("new", AT)])
        .await
        .unwrap();
    assert_found(&store, 1051, "with keys").await;
}
