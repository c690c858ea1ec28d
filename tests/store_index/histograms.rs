//! How histograms are counted: part by part, and whatever the events lack.

use std::sync::Arc;

use daybook::probe::{Fault, Probes};
use daybook::store::{EventFilter, Histogram, Store};
use jiff::SignedDuration;
use mongodb::bson::{Bson, DateTime, Document, doc};
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::counts::events_examined;
use super::{AuditEvent, enter, event, filters, find, full_event, mongo_store, prepared};

const AT: i64 = 1_700_000_000_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Five hundred on the first day, and the others on a hundred days later on.
fn of_gross() -> Vec<AuditEvent> {
    let events = (0..600_i64).map(|number| {
        let at = match number {
            0..500 => number * MINUTE,
            _ => (number - 480) * DAY,
        };
        let mut one = event("s", &number.to_string(), at);
        one.actor.name = Some("Gross".into());
        one
    });
    events.collect()
}

fn of_actor(tenant: &str) -> EventFilter {
    EventFilter {
        actor: Some("gross".to_owned()),
        tenant: Some(tenant.to_owned()),
        ..EventFilter::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_was_cut_off_goes_on_where_it_ended() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let store = prepared(&mongod.url("parts")).await;
    let mut events = of_gross();
    // Because of this one every event is looked at.
    events[0].actor.name = Some("Groß".into());
    enter(&store, "acme", &events).await.unwrap();
    // The marks of these events hold for some minutes.
    store.move_clock(SignedDuration::from_mins(10));
    let filter = of_actor("acme");

    let refusal = doc! {
        "failCommands": ["aggregate"], "namespace": "parts.auditevents", "errorCode": 8,
    };
    // Two look for events without keys and for odd texts, two count a part each.
    let fail_point = FailPoint::set(&mongod, doc! { "skip": 4 }, refusal).await;
    store.histogram(&filter, 20).await.unwrap_err();
    assert!(fail_point.off().await > 0, "the third part was refused");

    let database = mongod.database("parts").await;
    let again = async || {
        let mut total = 0;
        let histogram = async {
            total = store.histogram(&filter, 20).await?.total;
            Ok(())
        };
        let looked_at = events_examined(&database, histogram).await;
        (total, looked_at)
    };
    let (total, looked_at) = again().await;
    assert_eq!(total, 599);
    assert!(
        (90..200).contains(&looked_at),
        "{looked_at} were looked at, all but those of the parts that were kept"
    );
    let (total, looked_at) = again().await;
    assert_eq!(total, 599);
    assert!(looked_at < 20, "{looked_at} were looked at once more");

    // Of everything days are counted for all, and kept in the store.
    let store = prepared(&mongod.url("days")).await;
    let daily = (0..64_i64).map(|day| event("s", &day.to_string(), day * DAY));
    let daily: Vec<AuditEvent> = daily.collect();
    enter(&store, "acme", &daily).await.unwrap();
    store.move_clock(SignedDuration::from_mins(10));
    let everything = EventFilter::default();
    let refusal = doc! {
        "failCommands": ["find"], "namespace": "days.auditevents", "errorCode": 8,
    };
    // Two look for the ends, and three count a part: where it begins, and half of it each.
    let fail_point = FailPoint::set(&mongod, doc! { "skip": 9 }, refusal).await;
    store.histogram(&everything, 1).await.unwrap_err();
    assert!(fail_point.off().await > 0, "the third part was refused");
    let database = mongod.database("days").await;
    let cells = database.collection::<Document>("auditevents.counts");
    let kept = async || {
        let kept = doc! { "counts": { "$exists": true } };
        cells.count_documents(kept).await.unwrap()
    };
    let kept_before = kept().await;
    assert!((2..32).contains(&kept_before), "{kept_before} were kept");
    assert_eq!(store.histogram(&everything, 1).await.unwrap().total, 64);
    assert_eq!(kept().await, 63, "all but the day that is cut");
}

/// As retention deletes them, but of the newest too.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_deleted_meanwhile_are_not_the_ends_of_a_histogram() {
    let mongod = Mongod::shared().await;
    let store = Arc::new(prepared(&mongod.url("ends")).await);
    let probes = Probes::new();
    store.set_probe(probes.actor("store"));
    let events = (0..9_i64).map(|day| {
        let mut one = event("s", &day.to_string(), day * DAY + MINUTE);
        one.actor.name = Some("Gross".into());
        one
    });
    let events: Vec<AuditEvent> = events.collect();
    enter(&*store, "acme", &events).await.unwrap();

    let strike = probes.strike("store", "between_counts_and_ends", Fault::Stand, 1);
    let counted = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.histogram(&of_actor("acme"), 20).await }
    });
    strike.struck().await;
    let database = mongod.database("ends").await;
    let stored = database.collection::<Document>("auditevents");
    let ends = doc! { "externalId": { "$in": ["0", "1", "7", "8"] } };
    let deleted = stored.delete_many(ends).await.unwrap();
    assert_eq!(deleted.deleted_count, 4);
    drop(strike);
    let counted = counted.await.unwrap().unwrap();
    let range = [counted.since, counted.until].map(|at| at.as_millisecond());
    assert_eq!(range, [2 * DAY + MINUTE, 6 * DAY + MINUTE + 1]);
    assert_eq!(counted.total, 5);
}

fn without_source(key: &str, source: Option<Bson>) -> Document {
    let mut foreign = doc! {
        "at": DateTime::from_millis(AT), "ingestedAt": DateTime::from_millis(AT),
        "externalId": key, "action": "ocis.file_moved", "outcome": "failure",
        "actor": { "id": "A-1", "email": "Ålice@example.org", "name": "Alice", "ip": "2001:db8::1" },
        "target": { "type": "file", "id": "F-1", "name": "Quarterly Report.odt" },
        "tenantSlug": "acme", "metadata": {},
    };
    if let Some(source) = source {
        foreign.insert("source", source);
    }
    foreign
}

/// How many events have a source in a histogram that is an empty text.
fn sourceless(histogram: &Histogram) -> u64 {
    let counts = histogram.bars.iter().filter_map(|bar| bar.counts.get(""));
    counts.sum()
}

async fn assert_counted(store: &dyn Store, when: &str) {
    let mut most = 0;
    for filter in filters() {
        let found = find(store, &filter).await;
        let listed = found.iter().filter(|event| event.source.is_empty());
        let listed = listed.count() as u64;
        let counted = store.histogram(&filter, 10).await.unwrap();
        assert_eq!(counted.total, found.len() as u64, "{when}: {filter:?}");
        assert_eq!(sourceless(&counted), listed, "{when}: {filter:?}");
        most = most.max(listed);
    }
    assert_eq!(most, 3, "{when}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_a_source_are_counted_as_they_are_listed() {
    let mongod = Mongod::shared().await;
    let url = mongod.url("sourceless");
    let store = prepared(&url).await;
    enter(&store, "acme", &[full_event("1", AT)]).await.unwrap();
    let database = mongod.database("sourceless").await;
    let events = database.collection::<Document>("auditevents");
    let foreign = [None, Some(Bson::Null), Some(Bson::Int32(7))];
    let foreign = foreign.into_iter().zip(["2", "3", "4"]);
    let foreign = foreign.map(|(source, key)| without_source(key, source));
    events.insert_many(foreign).await.unwrap();

    // Nobody gives them keys yet.
    assert_counted(&store, "without keys").await;
    let store = mongo_store(&url).await;
    eventually("keys for all", async || {
        let keyless = events.count_documents(doc! { "facet": null }).await;
        keyless.unwrap() == 0
    })
    .await;
    assert_counted(&store, "with keys").await;
}
