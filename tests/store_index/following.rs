//! Following takes no more into memory at once than it says, and says that it has met everything when it has.

use daybook::store::Store as _;
use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use testkit::mongod::Mongod;

use super::{enter, event, mongo_store, prepared};

const AT: i64 = 1_700_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn large_events_come_a_few_at_a_time() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("large")).await;
    let large = |number: i64| {
        let mut one = event("ocis", &number.to_string(), AT + number);
        let text = "x".repeat(3 << 20);
        one.metadata.insert("text".to_owned(), text.into());
        one
    };
    let events: Vec<_> = (0..7).map(large).collect();
    enter(&store, "acme", &events).await.unwrap();
    let mut follow = store.follow(Some("0-i")).await.unwrap().unwrap();
    let mut keys = Vec::new();
    while keys.len() < events.len() {
        let entries = follow.next().await.unwrap().entries;
        assert!(entries.len() <= 3, "{} at once", entries.len());
        keys.extend(entries.into_iter().map(|entry| entry.event.external_id));
    }
    keys.sort();
    assert_eq!(keys, ["0", "1", "2", "3", "4", "5", "6"]);
}

/// Whoever is told so leaves the rest to the live feed, which may have told of a late one already.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_visible_late_is_met_before_everything_is() {
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("late")).await;
    // More than are handed out at once.
    let events: Vec<_> = (0..300)
        .map(|number| event("ocis", &number.to_string(), AT + number))
        .collect();
    enter(&store, "acme", &events).await.unwrap();
    let mut follow = store.follow(Some("0-i")).await.unwrap().unwrap();
    let found = follow.next().await.unwrap();
    assert!(found.more, "all {} at once", found.entries.len());

    let second = Timestamp::now().as_second() - 25;
    let id = ObjectId::from_parts(u32::try_from(second).unwrap(), [1; 5], [0, 0, 1]);
    let late = doc! {
        "_id": id, "at": DateTime::from_millis(AT), "ingestedAt": DateTime::now(), "source": "other",
        "externalId": "late", "action": "a.b", "metadata": {},
    };
    let database = mongod.database("late").await;
    let collection = database.collection::<Document>("auditevents");
    collection.insert_one(late).await.unwrap();
    let mut keys = Vec::new();
    loop {
        let found = follow.next().await.unwrap();
        keys.extend(found.entries.into_iter().map(|one| one.event.external_id));
        if !found.more {
            break;
        }
    }
    assert!(keys.contains(&"late".to_owned()), "{keys:?}");
    assert_eq!(keys.len(), 101);
}
