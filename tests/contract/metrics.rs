//! What some figures say, not only that they are there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook::config::LoadedConfig;
use jiff::Timestamp;
use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::World;
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;

use super::EVENTS;

/// A world whose pushes are counted when they are answered, in batches of ten.
async fn world() -> World {
    let plan = World::sqlite().await.journal_size("0B");
    let world = plan
        .settings("[writer]\nbatch_events = 10")
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .start()
        .await;
    world.ready().await;
    world
}

async fn record(world: &World, events: &[Value]) {
    let body = json!({ "events": events }).to_string();
    let answer = world.post(EVENTS, body, &[]).await;
    assert_eq!(answer, (200, json!({"received": events.len()})));
}

/// The one series of this name with these labels.
fn value(scrape: &str, name: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| {
        line.split(['{', ' ']).next() == Some(name)
            && labels.iter().all(|label| line.contains(label))
    };
    let series: Vec<&str> = scrape.lines().filter(is_it).collect();
    assert_eq!(series.len(), 1, "{name} {labels:?} in: {scrape}");
    let (_, value) = series[0].rsplit_once(' ').unwrap();
    value.parse().unwrap()
}

/// The actors that a metric tells of.
fn actors_of(scrape: &str, name: &str) -> BTreeSet<String> {
    let series = scrape.lines().filter_map(|line| line.strip_prefix(name));
    let actors = series.map(|labels| labels.split('"').nth(1).unwrap().to_owned());
    actors.collect()
}

/// Else one's figures would be taken for the other's.
#[tokio::test(flavor = "multi_thread")]
async fn no_source_has_the_name_of_an_actor_of_daybooks_own() {
    let plan = World::sqlite().await.settings("[retention]\ndays = 30");
    let source = "kind = \"recorder\"\nname = \"platform-api\"";
    let world = plan.source(source).start().await;
    world.ready().await;
    let scrape = world.text("/metrics").await;
    let mut names = actors_of(&scrape, "daybook_actor_suspended{actor=");
    names.extend(world.daybook().actors().await.into_keys());
    assert!(names.remove("platform-api"));
    let wanted = [
        "edge", "feed", "http", "janitor", "journal", "resolver", "sources", "store", "writer",
    ];
    assert!(names.iter().eq(&wanted), "{names:?}");
    for name in names {
        let source = format!("[[sources]]\nkind = \"recorder\"\nname = \"{name}\"\n");
        let file = (PathBuf::from("daybook.toml"), source);
        let loaded = LoadedConfig::from_parts(Some(file), Vec::new());
        let error = loaded.err().unwrap();
        assert_eq!(error.problems[0].key, "sources[0].name", "{error}");
        assert!(error.problems[0].wanted.contains("another name"), "{error}");
    }
    world.stop().await;
}

/// A figure that is always 0 says that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_mailbox_that_is_counted_has_a_figure() {
    let world = world().await;
    let scrape = world.text("/metrics").await;
    let actors = actors_of(&scrape, "daybook_actor_mailbox_messages{actor=");
    assert!(actors.iter().eq(&["resolver", "writer"]), "{actors:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_counted_by_its_answer_and_a_look_at_events_is_none() {
    let world = world().await;
    record(&world, &[json!({"action": "a"})]).await;
    let (status, _) = world.post(EVENTS, "no json", &[]).await;
    assert_eq!(status, 400);
    let (status, _) = world.get(EVENTS).await;
    assert_eq!(status, 200);
    let scrape = world.text("/metrics").await;
    for (code, count) in [(200, 1.0), (400, 1.0), (401, 0.0), (503, 0.0)] {
        let code = format!("code=\"{code}\"");
        let counted = value(&scrape, "daybook_recorder_requests_total", &[&code]);
        assert_eq!(counted, count, "{code}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_found_no_tenant_is_counted_once() {
    let world = world().await;
    let event = |id: &str, tenant: Option<&str>| json!({"action": "a", "externalId": id, "tenantSlug": tenant});
    let events = [
        event("1", Some("acme")),
        event("2", None),
        event("3", None),
        event("4", Some("globex")),
        event("5", None),
    ];
    for _ in 0..2 {
        record(&world, &events).await;
    }
    let scrape = world.text("/metrics").await;
    let of = |name: &str| value(&scrape, name, &["source=\"platform-api\""]);
    assert_eq!(of("daybook_events_written_total"), 5.0);
    assert_eq!(of("daybook_events_duplicate_total"), 5.0);
    assert_eq!(of("daybook_events_unresolved_tenant_total"), 3.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_an_event_counts_from_when_it_happened() {
    const TWO_HOURS: Duration = Duration::from_secs(7200);
    let world = world().await;
    let begun = Instant::now();
    let at = Timestamp::now() - TWO_HOURS;
    record(&world, &[json!({"action": "a", "at": at.to_string()})]).await;
    let scrape = world.text("/metrics").await;
    let longest = (TWO_HOURS + begun.elapsed()).as_secs_f64();
    let name = "daybook_event_age_seconds";
    let source = "source=\"platform-api\"";
    let sum = value(&scrape, &format!("{name}_sum"), &[source]);
    // Times of events have whole milliseconds.
    let millisecond = 0.001;
    assert!(
        sum >= TWO_HOURS.as_secs_f64() - millisecond && sum <= longest + millisecond,
        "{sum} s, {longest} s at most"
    );
    assert_eq!(value(&scrape, &format!("{name}_count"), &[source]), 1.0);
    for (bound, count) in [("3600", 0.0), ("21600", 1.0), ("+Inf", 1.0)] {
        let bound = format!("le=\"{bound}\"");
        let bucket = value(&scrape, &format!("{name}_bucket"), &[source, &bound]);
        assert_eq!(bucket, count, "{bound}");
    }
    world.stop().await;
}

/// Else nobody is alerted of a store that only readers miss.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_in_the_store_is_counted_by_its_reason() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let plan = World::mongodb(&mongod).await.journal_size("0B");
    let source = "kind = \"recorder\"\nname = \"platform-api\"";
    let world = plan.source(source).start().await;
    world.ready().await;
    record(&world, &[json!({"action": "a"})]).await;
    let id = world.events_reach(1).await.remove(0).id;
    let refused = async || {
        let scrape = world.text("/metrics").await;
        let reason = "reason=\"unauthorized\"";
        value(&scrape, "daybook_store_errors_total", &[reason])
    };

    let reads = doc! {
        "failCommands": ["find", "aggregate"], "errorCode": 13, "appName": "daybook",
    };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", reads).await;
    for (path, code, counted) in [
        (EVENTS.to_owned(), 503, 1.0),
        (format!("{EVENTS}/{id}"), 503, 1.0),
        ("/audit".to_owned(), 503, 1.0),
        (format!("/audit/events/{id}"), 503, 1.0),
        (format!("{EVENTS}?limit=none"), 400, 0.0),
    ] {
        let before = refused().await;
        assert_eq!(world.get(&path).await.0, code, "{path}");
        assert_eq!(refused().await - before, counted, "{path}");
    }
    let before = refused().await;
    let export = async {
        let request = world.client().get(world.url("/api/v1/export"));
        request.send().await?.error_for_status()?.bytes().await
    };
    let broken_off = export.await.unwrap_err();
    assert!(!broken_off.is_status(), "{broken_off}");
    assert_eq!(refused().await - before, 1.0, "an export");
    assert!(fail_point.off().await >= 5);
    world.stop().await;
}

/// Requests of seven at one moment: a flush has no room for two of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_holds_no_more_events_than_a_batch() {
    let world = world().await;
    let requests = (0..8).map(|request| {
        let events: Vec<Value> = (0..7)
            .map(|number| json!({"action": "a", "externalId": format!("{request}-{number}")}))
            .collect();
        let world = &world;
        async move { record(world, &events).await }
    });
    futures_util::future::join_all(requests).await;
    let scrape = world.text("/metrics").await;
    let name = "daybook_writer_batch_events";
    assert_eq!(value(&scrape, &format!("{name}_sum"), &[]), 56.0);
    let at_most_ten = value(&scrape, &format!("{name}_bucket"), &["le=\"10\""]);
    let flushes = value(&scrape, &format!("{name}_count"), &[]);
    assert_eq!(at_most_ten, flushes);
    world.stop().await;
}

/// A request of 25 events is entered by ten, ten and five.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_is_entered_batch_by_batch() {
    let world = world().await;
    let events: Vec<Value> = (0..25)
        .map(|number| json!({"action": "a", "externalId": number.to_string()}))
        .collect();
    record(&world, &events).await;
    let scrape = world.text("/metrics").await;
    let name = "daybook_writer_batch_events";
    assert_eq!(value(&scrape, &format!("{name}_sum"), &[]), 25.0);
    assert_eq!(value(&scrape, &format!("{name}_count"), &[]), 3.0);
    for (bound, count) in [("2", 0.0), ("5", 1.0), ("10", 3.0)] {
        let bound = format!("le=\"{bound}\"");
        let bucket = value(&scrape, &format!("{name}_bucket"), &[&bound]);
        assert_eq!(bucket, count, "{bound}");
    }
    world.stop().await;
}
