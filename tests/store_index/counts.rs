//! Counted hours and days agree with the events, whatever happens between any two steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use daybook::config::Collections;
use daybook::probe::{Fault, Probes};
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{EventFilter, Store};
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::mongod::Mongod;

use super::{AuditEvent, Outcome, TIMEOUT, enter, event, find, mongo_store};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const TENANTS: [&str; 2] = ["acme", "globex"];

/// Two processes that share a store.
struct Scene {
    stores: [Arc<MongoStore>; 2],
    probes: [Probes; 2],
    random: StdRng,
    now: i64,
    entered: u64,
    kept_cells: mongodb::Collection<Document>,
}

impl Scene {
    async fn start(mongod: &Mongod, seed: u64) -> Self {
        let name = format!("counts_{seed}");
        let probes = [Probes::new(), Probes::new()];
        let mut stores = Vec::new();
        for probes in &probes {
            let store = mongo_store(&mongod.url(&name)).await;
            store.set_probe(probes.actor("writer"));
            stores.push(Arc::new(store));
        }
        let database = mongod.database(&name).await;
        Self {
            stores: stores.try_into().map_err(|_| "two stores").unwrap(),
            probes,
            random: StdRng::seed_from_u64(seed),
            now: Timestamp::now().as_millisecond(),
            entered: 0,
            kept_cells: database.collection("auditevents.counts"),
        }
    }

    /// Some events of the last three days, now and then of this minute; some were entered before.
    fn batch(&mut self) -> Vec<AuditEvent> {
        let count = self.random.random_range(1..20);
        let is_late = self.random.random_bool(0.7);
        (0..count)
            .map(|_| {
                self.entered += 1;
                let number = if self.random.random_bool(0.1) {
                    self.random.random_range(0..self.entered)
                } else {
                    self.entered
                };
                let age = if is_late { 3 * DAY } else { 60_000 };
                let at = self.now - self.random.random_range(0..age);
                let mut one = event(
                    ["one", "two"][self.random.random_range(0..2)],
                    &number.to_string(),
                    at,
                );
                one.action = format!("test.action_{}", self.random.random_range(0..3));
                one.outcome = self.random.random_bool(0.3).then_some(Outcome::Failure);
                one
            })
            .collect()
    }

    fn pass_time(&mut self, by: i64) {
        self.now += by;
        for store in &self.stores {
            store.move_clock(Duration::from_millis(by.unsigned_abs()));
        }
    }

    /// Both processes count what the list finds.
    async fn compare(&mut self, step: &str) {
        let mut filter = EventFilter::default();
        match self.random.random_range(0..5) {
            0 => filter.tenant = Some(TENANTS[0].to_owned()),
            1 => filter.source = Some("one".to_owned()),
            2 => filter.outcome = Some(Outcome::Failure),
            3 => filter.since = Timestamp::from_millisecond(self.now - 2 * DAY - 777).ok(),
            _ => {}
        }
        let buckets = [1, 4, 50, 1000][self.random.random_range(0..4)];
        for store in &self.stores {
            let counted = store.histogram(&filter, buckets).await.unwrap();
            let width = i64::try_from(counted.bucket.as_millis()).unwrap();
            let mut bars: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
            let events = find(store.as_ref(), &filter).await;
            let start = counted
                .bars
                .first()
                .map_or(0, |bar| bar.at.as_millisecond());
            for event in &events {
                let bar = (event.at.as_millisecond() - start).div_euclid(width);
                let counts = bars.entry(start + bar * width).or_default();
                *counts.entry(event.source.clone()).or_default() += 1;
            }
            for bar in counted.bars {
                let expected = bars.remove(&bar.at.as_millisecond()).unwrap_or_default();
                assert_eq!(
                    bar.counts, expected,
                    "after {step}: {filter:?} at {}",
                    bar.at
                );
            }
            assert!(bars.is_empty(), "after {step}: {filter:?} lacks {bars:?}");
        }
    }

    async fn kept(&self) -> u64 {
        let kept = doc! { "counts": { "$exists": true } };
        self.kept_cells.count_documents(kept).await.unwrap()
    }

    async fn step(&mut self) -> &'static str {
        let who = self.random.random_range(0..2);
        let tenant = TENANTS[self.random.random_range(0..2)];
        let store = Arc::clone(&self.stores[who]);
        match self.random.random_range(0..10) {
            0..3 => {
                let events = self.batch();
                enter(store.as_ref(), tenant, &events).await.unwrap();
                "a commit"
            }
            point @ 3..5 => {
                let point = [
                    "between_announcement_and_insert",
                    "between_insert_and_cursor",
                ][point - 3];
                let strike = self.probes[who].strike("writer", point, Fault::Error, 1);
                let events = self.batch();
                enter(store.as_ref(), tenant, &events).await.unwrap_err();
                assert!(strike.has_struck());
                "an end in the middle of a commit"
            }
            5 => {
                let point = "between_announcement_and_insert";
                let strike = self.probes[who].strike("writer", point, Fault::Stand, 1);
                let events = self.batch();
                let commit =
                    tokio::spawn(async move { enter(store.as_ref(), tenant, &events).await });
                strike.struck().await;
                self.compare("a mark").await;
                // Less than the time for which a mark holds.
                self.pass_time(2 * 60_000);
                self.compare("a mark and two minutes").await;
                drop(strike);
                commit.await.unwrap().unwrap();
                "a slow commit"
            }
            6 => {
                let before = Timestamp::from_millisecond(self.now - 2 * DAY).unwrap();
                store.delete_events_before(before, 5).await.unwrap();
                "a deletion"
            }
            _ => {
                let by = [60_000, 6 * 60_000, 90 * 60_000][self.random.random_range(0..3)];
                self.pass_time(by);
                "some time"
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_agree_with_the_events_after_every_step() {
    let mongod = Mongod::shared().await;
    for seed in 0..4 {
        let mut scene = Scene::start(mongod, seed).await;
        let mut most_kept = 0;
        for number in 0..40 {
            let step = scene.step().await;
            scene
                .compare(&format!("{step} (step {number} of seed {seed})"))
                .await;
            most_kept = most_kept.max(scene.kept().await);
        }
        assert!(most_kept >= 3, "{most_kept} cells were kept at most");
    }
}

/// An event from before the common era does not make millions of days to be counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_emptiness_is_passed_over() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("emptiness")).await;
    let first = Timestamp::MIN.as_millisecond() + 1;
    let now = Timestamp::now().as_millisecond();
    let events = [
        event("s", "1", first),
        event("s", "2", now - 3 * DAY),
        event("s", "3", now),
    ];
    enter(&store, "acme", &events).await.unwrap();
    for _ in 0..2 {
        for buckets in [1, 1000] {
            let counted = store
                .histogram(&EventFilter::default(), buckets)
                .await
                .unwrap();
            assert_eq!(counted.total, 3);
        }
    }
}

/// A text that is in some events' action, in others' names, and in some in both, also where letters
/// are the same in one place only: the histogram counts what the pages show.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_in_actions_and_names_is_counted_once() {
    let mongod = Mongod::shared().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daybook.db");
    let file = SqliteStore::open(&path, TIMEOUT, &Collections::default()).unwrap();
    file.prepare().await.unwrap();
    let server = mongo_store(&mongod.url("texts_in_both")).await;
    let actions = ["key.kept", "door.opened", "test.\u{212A}ept", "straße.kept"];
    let names = ["Keykeeper", "Alice", "\u{212A}eykeeper", "STRASSE"];
    let mut events = Vec::new();
    for (number, action) in actions.iter().enumerate() {
        for (other, name) in names.iter().enumerate() {
            let day = i64::try_from(number * 4 + other).unwrap();
            let mut one = event("s", &format!("{number}-{other}"), day * 40_000_000);
            one.action = (*action).to_owned();
            one.actor.name = Some((*name).to_owned());
            events.push(one);
        }
    }
    let stores: [&dyn Store; 2] = [&server, &file];
    for store in stores {
        enter(store, "acme", &events).await.unwrap();
        let mut found_any = 0;
        for text in [
            "key", "KEPT", "k", "\u{212A}", "ss", "ß", "e", "door.o", "alice",
        ] {
            let filter = EventFilter {
                text: Some(text.to_owned()),
                ..EventFilter::default()
            };
            let found = find(store, &filter).await.len() as u64;
            for buckets in [1, 20, 1000] {
                let counted = store.histogram(&filter, buckets).await.unwrap();
                assert_eq!(counted.total, found, "{text} in {buckets}");
            }
            found_any += found;
        }
        assert!(found_any > 0);
    }
}
