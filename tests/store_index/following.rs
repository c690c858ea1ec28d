//! Following takes no more into memory at once than it says, says that it has met everything when it has, and comes
//! forward.

use daybook::store::Store as _;
use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{enter, event, mongo_store, prepared};

const AT: i64 = 1_700_000_000_000;

/// As another process writes it, by its own clock.
fn written_at(second: i64, number: u32) -> Document {
    let [_, count @ ..] = number.to_be_bytes();
    doc! {
        "_id": ObjectId::from_parts(u32::try_from(second).unwrap(), [1; 5], count),
        "at": DateTime::from_millis(AT), "ingestedAt": DateTime::now(), "source": "other",
        "externalId": number.to_string(), "action": "a.b", "metadata": {},
    }
}

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
    let events: Vec<_> = (0..4100)
        .map(|number| event("ocis", &number.to_string(), AT + number))
        .collect();
    enter(&store, "acme", &events).await.unwrap();
    let mut follow = store.follow(Some("0-i")).await.unwrap().unwrap();
    let found = follow.next().await.unwrap();
    assert!(found.more, "all {} at once", found.entries.len());

    let mut late = written_at(Timestamp::now().as_second() - 25, 1);
    late.insert("externalId", "late");
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

/// Each look meets more than are handed out at once otherwise, and more than are read at once.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_met_while_much_is_entered() {
    const ENTERED: usize = 1100;
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("busy")).await;
    let mut follow = store.follow(Some("0-i")).await.unwrap().unwrap();
    for look in ["from the place", "a minute back"] {
        let events: Vec<_> = (0..ENTERED)
            .map(|number| event("ocis", &format!("{number} {look}"), AT))
            .collect();
        enter(&store, "acme", &events).await.unwrap();
        let found = follow.next().await.unwrap();
        assert_eq!(
            (found.entries.len(), found.more),
            (ENTERED, false),
            "{look}"
        );
    }
}

/// Its connection breaks each time that it has taken two events.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_off_again_and_again_comes_forward() {
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("forward")).await;
    let database = mongod.database("forward").await;
    let an_hour_ago = Timestamp::now().as_second() - 3600;
    let events: Vec<_> = (0..10)
        .map(|number| written_at(an_hour_ago + 10 * i64::from(number), number))
        .collect();
    let collection = database.collection::<Document>("auditevents");
    collection.insert_many(events).await.unwrap();
    let mut place = "0-i".to_owned();
    for number in 0..9 {
        let mut follow = store.follow(Some(&place)).await.unwrap().unwrap();
        let entries = follow.next().await.unwrap().entries;
        let keys = entries.iter().map(|one| one.event.external_id.as_str());
        let keys: Vec<_> = keys.take(2).collect();
        assert_eq!(keys, [number.to_string(), (number + 1).to_string()]);
        place.clone_from(&entries[1].position);
    }
}

/// The clock was put back: the ids of what was entered since come before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_lies_ahead_of_the_clock_is_foreign() {
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("put_back")).await;
    let now = Timestamp::now().as_second();
    for (second, is_ours) in [(now - 60, true), (now + 7200, false)] {
        let follow = store.follow(Some(&format!("{second:x}-i1"))).await;
        assert_eq!(follow.unwrap().is_some(), is_ours, "{second}");
    }
    // Who was reading meanwhile goes on.
    let ahead = format!("{:x}-i1", now + 7200);
    let live = store.follow_live(Some(&ahead)).await.unwrap().unwrap();
    let again = store.follow(Some(&live.position())).await;
    assert!(again.unwrap().is_some());
}

/// A look that reads nothing does not read them.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_clock_that_was_ahead_are_not_read_by_every_look() {
    const YEAR: i64 = 365 * 86_400;
    let mongod = Mongod::shared().await;
    let store = prepared(&mongod.url("ahead")).await;
    let database = mongod.database("ahead").await;
    let events = database.collection::<Document>("auditevents");
    let ahead = |number: u32| written_at(Timestamp::now().as_second() + YEAR, number);
    // No multiple of what is read at once: nor does a look that reads them end with nothing.
    let before: Vec<Document> = (0..2500).map(ahead).collect();
    events.insert_many(before).await.unwrap();
    let mut follow = store.follow(None).await.unwrap().unwrap();
    let profile = async |level: i32| {
        let set = database.run_command(doc! { "profile": level }).await;
        set.unwrap();
    };
    profile(2).await;
    let looks = database.collection::<Document>("system.profile");
    let of_nothing = doc! {
        "ns": format!("{}.auditevents", database.name()), "op": "query", "nreturned": 0,
    };
    eventually("a look that reads nothing", async || {
        let entries = follow.next().await.unwrap().entries;
        assert_eq!(entries.len(), 0, "they were there before");
        looks.count_documents(of_nothing.clone()).await.unwrap() > 0
    })
    .await;
    profile(0).await;

    events.insert_one(ahead(2500)).await.unwrap();
    let mut keys = Vec::new();
    eventually("one more is met all the same", async || {
        let entries = follow.next().await.unwrap().entries;
        keys.extend(entries.into_iter().map(|one| one.event.external_id));
        !keys.is_empty()
    })
    .await;
    assert_eq!(keys, ["2500"]);
}
