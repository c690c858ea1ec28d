//! Counted hours and days agree with the events, whatever happens between any two steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use daybook::config::Collections;
use daybook::probe::{Fault, Probes};
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{EventFilter, PageKey, Store};
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::mongod::Mongod;

use super::texts::settled;
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
                one.action = format!("test.action_{}", self.random.random_range(0..3)).into();
                one.outcome = self.random.random_bool(0.3).then_some(Outcome::Failure);
                let name = ["Alice", "Alina", "Weiss", "Bob"][self.random.random_range(0..4)];
                // Another process's index cannot tell these two apart.
                let is_odd = name == "Weiss" && self.random.random_bool(0.05);
                one.actor.name = Some(if is_odd { "Weiß" } else { name }.into());
                one.actor.ip = Some(format!("192.0.2.{}", self.random.random_range(0..2)).into());
                one
            })
            .collect()
    }

    fn pass_time(&mut self, by: i64) {
        self.now += by;
        for store in &self.stores {
            store.move_clock(SignedDuration::from_millis(by));
        }
    }

    /// Both processes count what the list finds.
    async fn compare(&mut self, step: &str) {
        let text = |text: &str| Some(text.to_owned());
        let mut filter = EventFilter::default();
        match self.random.random_range(0..8) {
            0 => filter.actor = text("alice"),
            1 => filter.actor = text("weiss"),
            2 => (filter.actor, filter.ip) = (text("bob"), text("192.0.2.1")),
            3 => filter.text = text("ali"),
            4 => filter.text = text("weiß"),
            5 => filter.text = text("action_1"),
            _ => {}
        }
        match self.random.random_range(0..5) {
            0 => filter.tenant = text(TENANTS[0]),
            1 => filter.source = text("one"),
            2 => filter.outcome = Some(Outcome::Failure),
            3 => filter.since = Timestamp::from_millisecond(self.now - 2 * DAY - 777).ok(),
            _ => {}
        }
        self.compare_one(step, &filter).await;
    }

    async fn compare_one(&mut self, step: &str, filter: &EventFilter) {
        let buckets = [1, 4, 50, 1000][self.random.random_range(0..4)];
        for store in &self.stores {
            let counted = store.histogram(filter, buckets).await.unwrap();
            let width = i64::try_from(counted.bucket.as_millis()).unwrap();
            let mut bars: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
            let events = find(store.as_ref(), filter).await;
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
            7 => {
                let ahead = 3 * HOUR;
                self.pass_time(ahead);
                self.compare("a jump of the clock").await;
                // By now no mark from before holds.
                self.pass_time(3 * 60_000 - ahead);
                "a clock that was ahead"
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
    for seed in 0..2 {
        let mut scene = Scene::start(mongod, seed).await;
        let mut most_kept = 0;
        for number in 0..40 {
            let step = scene.step().await;
            for _ in 0..2 {
                scene
                    .compare(&format!("{step} (step {number} of seed {seed})"))
                    .await;
            }
            most_kept = most_kept.max(scene.kept().await);
        }
        assert!(most_kept >= 3, "{most_kept} cells were kept at most");
    }
}

/// A day that nobody marked since is not counted twice for one filter, and one that somebody did, is.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_counted_once_for_a_filter() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("days")).await;
    let events = (0..600_i64).map(|number| {
        let mut one = event("s", &number.to_string(), number * 4_000_000);
        one.actor.name = Some(["Alice", "Bob"][usize::from(number % 3 == 0)].into());
        one.actor.ip = Some(format!("192.0.2.{}", number % 2).into());
        one
    });
    let events: Vec<AuditEvent> = events.collect();
    enter(&store, "acme", &events).await.unwrap();
    settled(mongod, "days").await;
    // The marks of these events hold for some minutes.
    store.move_clock(SignedDuration::from_mins(10));
    // The background counts this too, whenever it comes to it; from here on at no cost.
    store.histogram(&EventFilter::default(), 1).await.unwrap();
    let database = mongod.database("days").await;
    let of = |change: &dyn Fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        change(&mut filter);
        filter
    };
    let alice = || Some("alice".to_owned());
    let filters = [
        (400, of(&|filter| filter.actor = alice())),
        (400, of(&|filter| filter.text = Some("LIC".to_owned()))),
        (
            200,
            of(&|filter| (filter.actor, filter.ip) = (alice(), Some("192.0.2.1".to_owned()))),
        ),
    ];
    let count = async |filter: &EventFilter| {
        let mut total = 0;
        let histogram = async {
            total = store.histogram(filter, 20).await?.total;
            Ok(())
        };
        let keys = keys_examined(&database, histogram).await;
        (total, keys)
    };
    for (expected, filter) in &filters {
        let (total, keys) = count(filter).await;
        assert_eq!(total, *expected, "{filter:?}");
        assert!(keys >= 400, "{keys} for {filter:?}");
        let (total, keys) = count(filter).await;
        assert_eq!(total, *expected, "{filter:?}");
        assert!(keys < 150, "{keys} again for {filter:?}");
    }
    let mut late = event("s", "late", 300 * 4_000_000);
    late.actor.name = Some("Alice".into());
    late.actor.ip = Some("192.0.2.1".into());
    enter(&store, "acme", &[late]).await.unwrap();
    for (expected, filter) in &filters {
        let (total, keys) = count(filter).await;
        assert_eq!(total, expected + 1, "{filter:?}");
        assert!(keys < 200, "{keys} after a late event for {filter:?}");
    }
}

/// Whosever that is, each range without bounds begins with it.
#[tokio::test(flavor = "multi_thread")]
async fn days_are_counted_once_though_one_event_is_of_1970() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("epoch")).await;
    let begin = Timestamp::now().as_millisecond() - 60 * DAY;
    let of_alice = |number: i64, at: i64| {
        let mut one = event("s", &number.to_string(), at);
        one.actor.name = Some("Alice".into());
        one
    };
    let recent = (0..600).map(|number| of_alice(number, begin + number * 4_000_000));
    let recent: Vec<AuditEvent> = recent.collect();
    enter(&store, "acme", &recent).await.unwrap();
    enter(&store, "globex", &[of_alice(600, 0)]).await.unwrap();
    settled(mongod, "epoch").await;
    // The marks of these events hold for some minutes.
    store.move_clock(SignedDuration::from_mins(10));
    // The background counts this too, whenever it comes to it; from here on at no cost.
    store.histogram(&EventFilter::default(), 1).await.unwrap();
    let database = mongod.database("epoch").await;
    let of = |change: &dyn Fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        change(&mut filter);
        filter
    };
    let alice = || Some("alice".to_owned());
    let acme = || Some("acme".to_owned());
    for (expected, filter) in [
        (601, of(&|filter| filter.actor = alice())),
        (601, of(&|filter| filter.text = Some("LIC".to_owned()))),
        (
            600,
            of(&|filter| (filter.actor, filter.tenant) = (alice(), acme())),
        ),
    ] {
        for is_first in [true, false] {
            let mut total = 0;
            let histogram = async {
                total = store.histogram(&filter, 20).await?.total;
                Ok(())
            };
            let keys = keys_examined(&database, histogram).await;
            assert_eq!(total, expected, "{filter:?}");
            let is_as_expected = if is_first { keys >= 600 } else { keys < 150 };
            assert!(is_as_expected, "{keys} for {filter:?}");
        }
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
            one.action = (*action).into();
            one.actor.name = Some((*name).into());
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

/// The index alone counts the events of one actor, address or target, until an odd text could be meant by the
/// same term: then the events themselves decide. Either way the histogram counts what the pages show.
#[tokio::test(flavor = "multi_thread")]
async fn one_actors_events_are_counted_from_the_index() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("actors")).await;
    let names = [
        "Gross",
        "GROSS",
        "Alice",
        "İnci",
        "Ålice",
        "ålice",
        "ᲐᲜᲐ",
        "ანა",
    ];
    let mut events = Vec::new();
    for number in 0..600_i64 {
        let name = names[usize::try_from(number).unwrap() % names.len()].to_owned();
        let mut one = event("s", &number.to_string(), number * 4_000_000);
        one.action = format!("test.{}", number % 3).into();
        one.actor.ip = Some(format!("192.0.2.{}", number % 2).into());
        one.target.id = Some(format!("T-{}", number % 4).into());
        one.target.name = Some(name.clone().into());
        one.actor.name = Some(name.into());
        events.push(one);
    }
    enter(&store, "acme", &events).await.unwrap();
    let database = mongod.database("actors").await;
    let mut filters = Vec::new();
    for (action, tenant) in [
        (None, None),
        (None, Some("globex")),
        (Some("test.1"), None),
        (Some("test.*"), Some("acme")),
        (Some("none"), Some("acme")),
    ] {
        let base = EventFilter {
            action: action.map(str::to_owned),
            tenant: tenant.map(str::to_owned),
            ..EventFilter::default()
        };
        for text in [
            "gross",
            "groß",
            "alice",
            "ÅLICE",
            "inci",
            "i̇nci",
            "ანა",
            "t-1",
        ] {
            let (mut actor, mut target) = (base.clone(), base.clone());
            actor.actor = Some(text.to_owned());
            target.target = Some(text.to_owned());
            filters.extend([actor, target]);
        }
        let ip = Some("192.0.2.1".to_owned());
        filters.push(EventFilter { ip, ..base });
    }
    for odd_ones in [false, true] {
        let mut counted_any = 0;
        for filter in &filters {
            let found = find(&store, filter).await.len() as u64;
            for buckets in [1, 20] {
                let counted = store.histogram(filter, buckets).await.unwrap();
                assert_eq!(counted.total, found, "{filter:?} in {buckets}");
            }
            counted_any += found;
        }
        assert!(counted_any > 0);
        let gross = EventFilter {
            actor: Some("gross".to_owned()),
            ..EventFilter::default()
        };
        let looked_at = events_examined(&database, store.histogram(&gross, 20)).await;
        if odd_ones {
            assert!(
                looked_at > 100,
                "odd ones are told apart by looking: {looked_at}"
            );
            break;
        }
        assert!(looked_at < 20, "{looked_at} events were looked at");
        let mut odd = event("s", "odd", 7_000_000);
        odd.actor.name = Some("Groß".into());
        odd.target.name = Some("ﬁnance ı".into());
        enter(&store, "acme", &[odd]).await.unwrap();
    }
}

/// Events with a term each of several conditions: found page by page in parts of the time, and counted from
/// the index alone until an odd text could be meant.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_several_terms_hold_together() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("several")).await;
    let events = (0..600_i64).map(|number| {
        let mut one = event("s", &format!("{number:03}"), number * 4_000_000);
        one.action = format!("test.{}", number % 5).into();
        one.actor.name = Some(["Alice", "Bob"][usize::from(number % 2 == 1)].into());
        one.actor.ip = Some(format!("192.0.2.{}", number % 3).into());
        one.target.name = Some(format!("App {}", number % 4).into());
        one
    });
    let events: Vec<AuditEvent> = events.collect();
    enter(&store, "acme", &events).await.unwrap();
    let database = mongod.database("several").await;
    let text = |text: &str| Some(text.to_owned());
    for odd_ones in [false, true] {
        for (actor, target, ip, action) in [
            (text("ALICE"), text("app 0"), None, None),
            (text("alice"), text("app 1"), None, None),
            (text("bob"), None, text("192.0.2.2"), None),
            (text("bob"), text("app 3"), text("192.0.2.1"), None),
            (text("alice"), None, text("192.0.2.0"), text("test.4")),
            (None, text("APP 2"), text("192.0.2.0"), text("test.*")),
            (text("alice"), text("nothing"), None, None),
        ] {
            let holds = |event: &&AuditEvent| {
                let is = |own: Option<&str>, asked: &Option<String>| {
                    let own = own.unwrap_or_default();
                    asked
                        .as_ref()
                        .is_none_or(|asked| own.eq_ignore_ascii_case(asked))
                };
                is(event.actor.name.as_deref(), &actor)
                    && is(event.target.name.as_deref(), &target)
                    && is(event.actor.ip.as_deref(), &ip)
                    && action
                        .as_ref()
                        .is_none_or(|asked| asked == "test.*" || *asked == *event.action)
            };
            let newest_first = events.iter().rev().filter(holds);
            let expected: Vec<&str> = newest_first
                .map(|event| event.external_id.as_str())
                .collect();
            let filter = EventFilter {
                actor: actor.clone(),
                target: target.clone(),
                ip: ip.clone(),
                action: action.clone(),
                ..EventFilter::default()
            };
            let mut found: Vec<String> = Vec::new();
            let mut before: Option<PageKey> = None;
            loop {
                let page = store
                    .find_events(&filter, before.as_ref(), 7)
                    .await
                    .unwrap();
                let Some(last) = page.last() else {
                    break;
                };
                before = Some(PageKey::of(last));
                found.extend(page.into_iter().map(|event| event.external_id));
            }
            assert_eq!(found, expected, "{filter:?}");
            let mut counted = None;
            let histogram = async {
                counted = Some(store.histogram(&filter, 20).await?.total);
                Ok(())
            };
            let looked_at = events_examined(&database, histogram).await;
            assert_eq!(counted, Some(expected.len() as u64), "{filter:?}");
            assert!(
                odd_ones || looked_at < 20,
                "{looked_at} were looked at: {filter:?}"
            );
        }
        let mut odd = event("s", "odd", 7_000_000);
        odd.actor.name = Some("Al\u{131}ce".into());
        odd.target.name = Some("App \u{FF10} ı".into());
        enter(&store, "acme", &[odd]).await.unwrap();
    }
}

/// Events that the server looks at meanwhile.
pub async fn events_examined<T>(
    database: &mongodb::Database,
    run: impl Future<Output = daybook::store::Result<T>>,
) -> i64 {
    examined(database, "docsExamined", run).await
}

/// Entries of indexes of events that the server looks at meanwhile.
async fn keys_examined<T>(
    database: &mongodb::Database,
    run: impl Future<Output = daybook::store::Result<T>>,
) -> i64 {
    examined(database, "keysExamined", run).await
}

async fn examined<T>(
    database: &mongodb::Database,
    what: &str,
    run: impl Future<Output = daybook::store::Result<T>>,
) -> i64 {
    let examined = |read: &Document| read.get_i32(what).map_or(0, i64::from);
    reads_of(database, run).await.iter().map(examined).sum()
}

/// What the server tells of each read of events meanwhile.
pub async fn reads_of<T>(
    database: &mongodb::Database,
    run: impl Future<Output = daybook::store::Result<T>>,
) -> Vec<Document> {
    let level = async |level: i32| {
        let set = database.run_command(doc! { "profile": level }).await;
        set.unwrap();
    };
    // As much as comes by itself holds only some reads over hundreds of terms.
    let profile = doc! { "create": "system.profile", "capped": true, "size": 64_i64 << 20 };
    // What was under way when the former one went has made one again.
    let _ = database.run_command(profile).await;
    level(2).await;
    run.await.unwrap();
    level(0).await;
    let profile = database.collection::<Document>("system.profile");
    // The background looks at texts meanwhile.
    let of_events = doc! { "ns": format!("{}.auditevents", database.name()) };
    let found = profile.find(of_events).await.unwrap();
    let reads: Vec<Document> = found.try_collect().await.unwrap();
    profile.drop().await.unwrap();
    assert!(!reads.is_empty(), "reads were seen");
    reads
}
