//! A clock that was ahead leaves no count behind that is wrong.

use daybook::store::mongodb::MongoStore;
use daybook::store::{EventFilter, Store as _};
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{Document, doc};
use testkit::mongod::Mongod;

use super::{AuditEvent, enter, event, prepared};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Then this hour and this day are over.
const LATER: i64 = 50 * HOUR;

fn of_alice(key: &str, at: i64) -> AuditEvent {
    let mut one = event("s", key, at);
    one.actor.name = Some("Alice".into());
    one
}

/// What is counted by days and by hours: of everything, which the store keeps, and of an actor,
/// which the process keeps.
async fn totals(store: &MongoStore) -> Vec<u64> {
    let of_actor = EventFilter {
        actor: Some("alice".to_owned()),
        ..EventFilter::default()
    };
    let mut totals = Vec::new();
    for filter in [EventFilter::default(), of_actor] {
        for buckets in [1, 110] {
            let counted = store.histogram(&filter, buckets).await.unwrap();
            totals.push(counted.total);
        }
    }
    totals
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_while_the_clock_was_ahead_is_counted_again() {
    let mongod = Mongod::shared().await;
    let url = mongod.url("clock");
    let database = mongod.database("clock").await;
    let counts = database.collection::<Document>("auditevents.counts");
    let now = Timestamp::now().as_millisecond();
    let cells = [HOUR, DAY].map(|width| doc! { "width": width, "start": now - now % width });
    let kept = doc! { "_id": { "$in": cells.to_vec() }, "counts": { "$exists": true } };

    let store = prepared(&url).await;
    let other = prepared(&url).await;
    let events = [of_alice("before", now - LATER), of_alice("now", now)];
    enter(&store, "acme", &events).await.unwrap();
    store.move_clock(SignedDuration::from_millis(LATER));
    let ahead = of_alice("ahead", now + LATER);
    enter(&store, "acme", &[ahead]).await.unwrap();
    let mut entered: u64 = 3;
    // One has marked this hour before, the other knows nothing of it.
    for (writer, key) in [(&store, "one more"), (&other, "another")] {
        assert_eq!(totals(&store).await, [entered; 4], "before {key}");
        let kept = counts.count_documents(kept.clone()).await.unwrap();
        assert_eq!(kept, 2, "this hour and this day seemed to be over");
        // Put right, the clock has gone on by some minutes.
        store.move_clock(SignedDuration::from_millis(3 * 60_000 - LATER));
        enter(writer, "acme", &[of_alice(key, now)]).await.unwrap();
        entered += 1;
        store.move_clock(SignedDuration::from_millis(LATER));
        assert_eq!(totals(&store).await, [entered; 4], "after {key}");
    }
}
