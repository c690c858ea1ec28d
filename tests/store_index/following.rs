//! Following takes no more into memory at once than it says, says that it has met everything when it has, and comes
//! forward.

use std::time::Duration;

use daybook::config::Collections;
use daybook::store::Store as _;
use daybook::store::feed::{Entry, Follow};
use daybook::store::mongodb::MongoStore;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::{Mongod, ReplicaSet};
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

/// A store whose operations may take so long only.
async fn hasty(url: &str, timeout: Duration) -> MongoStore {
    let store = MongoStore::connect(url, timeout, &Collections::default()).await;
    store.unwrap()
}

/// Reads on until everything is met.
async fn met(follow: &mut Box<dyn Follow>) -> Vec<Entry> {
    let mut met = Vec::new();
    loop {
        let found = follow.next().await.unwrap();
        met.extend(found.entries);
        if !found.more {
            return met;
        }
    }
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    let keys = entries.iter().map(|one| one.event.external_id.as_str());
    keys.collect()
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

/// What others write to the same server stands in its oplog, too.
#[tokio::test(flavor = "multi_thread")]
async fn an_oplog_that_takes_longer_than_an_operation_is_read_to_its_end() {
    let set = ReplicaSet::start_with(1, TEST_COMMANDS).await;
    let url = set.url("behind");
    let store = prepared(&url).await;
    let mut follow = store.follow(None).await.unwrap().unwrap();
    let one = |key: &str| [event("ocis", key, AT)];
    enter(&store, "acme", &one("0")).await.unwrap();
    let place = met(&mut follow).await.pop().unwrap().position;
    let database = set.database("others").await;
    let others = database.collection::<Document>("others");
    let numbers = (0..1000_i32).map(|number| doc! { "_id": number });
    let documents: Vec<Document> = numbers.collect();
    others.insert_many(documents).await.unwrap();
    for _ in 0..30 {
        let count = doc! { "$inc": { "count": 1 } };
        others.update_many(doc! {}, count).await.unwrap();
    }
    enter(&store, "acme", &one("1")).await.unwrap();

    // So long the server stands still with every thousand entries that it has read.
    let admin = set.database("admin").await;
    let slow = doc! {
        "configureFailPoint": "setYieldAllLocksWait", "mode": "alwaysOn",
        "data": { "namespace": "local.oplog.rs", "waitForMillis": 300 },
    };
    admin.run_command(slow).await.unwrap();
    let hasty = hasty(&url, Duration::from_secs(3)).await;
    let mut follow = hasty.follow(Some(&place)).await.unwrap().unwrap();
    let late = follow.next().await.unwrap_err();
    assert_eq!(late.reason(), "timeout");
    let fast = doc! { "configureFailPoint": "setYieldAllLocksWait", "mode": "off" };
    admin.run_command(fast).await.unwrap();

    // The reply is ready, and nobody has taken it, when one more is entered.
    let reads = doc! { "currentOp": 1, "op": "getmore", "ns": "behind.auditevents" };
    eventually("the server has read the oplog", async || {
        let running = admin.run_command(reads.clone()).await.unwrap();
        running.get_array("inprog").unwrap().is_empty()
    })
    .await;
    enter(&store, "acme", &one("2")).await.unwrap();
    assert_eq!(keys(&met(&mut follow).await), ["1", "2"]);
}

/// It answers its readers all the same, as if nothing were entered.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_that_is_late_is_left_after_a_minute() {
    let set = ReplicaSet::start_with(3, TEST_COMMANDS).await;
    let store = prepared(&set.url("former")).await;
    let mut follow = store.follow(None).await.unwrap().unwrap();
    let one = |key: &str| [event("ocis", key, AT)];
    enter(&store, "acme", &one("0")).await.unwrap();
    assert_eq!(keys(&met(&mut follow).await), ["0"]);

    let former = set.primary().await.database("admin").await;
    let late = doc! { "configureFailPoint": "stopReplProducer", "mode": "alwaysOn" };
    former.run_command(late).await.unwrap();
    set.step_down().await;
    set.takes_writes().await;
    eventually("another event is entered", async || {
        enter(&store, "acme", &one("1")).await.is_ok()
    })
    .await;
    let entries = met(&mut follow).await;
    assert!(entries.is_empty(), "the former primary has {entries:?}");

    store.move_clock(SignedDuration::from_secs(61));
    let mut entries = Vec::new();
    eventually("the event comes", async || {
        entries.extend(met(&mut follow).await);
        !entries.is_empty()
    })
    .await;
    assert_eq!(keys(&entries), ["1"]);
}

/// Behind a router it may not have reached the end of the oplog, and would begin anew each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_stream_that_has_come_no_further_is_not_opened_again() {
    let set = ReplicaSet::start_with(1, TEST_COMMANDS).await;
    let store = prepared(&set.url("quiet")).await;
    let counted = doc! {
        "failCommands": ["aggregate"], "namespace": "quiet.auditevents",
        "blockConnection": true, "blockTimeMS": 1,
    };
    let openings = FailPoint::set(&set.members[0], "alwaysOn", counted).await;
    let mut follow = store.follow(None).await.unwrap().unwrap();
    // The server itself enters something into its oplog every few seconds.
    eventually("a minute passes without an opening", async || {
        let before = openings.struck().await;
        store.move_clock(SignedDuration::from_secs(61));
        // One that was to be left is so behind the first, and another is opened with the second.
        for _ in 0..2 {
            assert!(met(&mut follow).await.is_empty());
        }
        openings.struck().await == before
    })
    .await;
    assert!(openings.off().await > 0, "openings were counted");
}

/// The driver repeats no such command.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_meets_an_election_is_tried_once_more() {
    let set = ReplicaSet::start_with(1, TEST_COMMANDS).await;
    let store = prepared(&set.url("again")).await;
    let refused = doc! {
        "failCommands": ["aggregate"], "namespace": "again.auditevents", "errorCode": 11602,
    };
    let once = FailPoint::set(&set.members[0], doc! { "times": 1 }, refused).await;
    assert!(store.follow(None).await.unwrap().is_some());
    assert_eq!(once.off().await, 1, "the opening was refused");
}

/// The server waits a second for a change, where an operation may take that long.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_is_answered_within_the_time_of_an_operation() {
    let set = ReplicaSet::start_with(1, TEST_COMMANDS).await;
    let url = set.url("hasty");
    prepared(&url).await;
    let hasty = hasty(&url, Duration::from_millis(800)).await;
    eventually("two looks in a row are answered", async || {
        let Ok(Some(mut follow)) = hasty.follow(None).await else {
            return false;
        };
        follow.next().await.is_ok() && follow.next().await.is_ok()
    })
    .await;

    let held = doc! {
        "failCommands": ["aggregate"], "namespace": "hasty.auditevents",
        "blockConnection": true, "blockTimeMS": 20_000,
    };
    let fail_point = FailPoint::set(&set.members[0], "alwaysOn", held).await;
    let late = hasty.follow(None).await.err().unwrap();
    assert_eq!(late.reason(), "timeout");
    assert!(fail_point.off().await > 0, "the opening was held");
}
