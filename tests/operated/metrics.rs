//! Every metric that others rely on, as a real Prometheus sees it, and what the lag means.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daybook::simulators::authentik::{Fault, Times};
use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use daybook::telemetry::metrics::NAMES;
use testkit::World;
use testkit::http::signed;
use testkit::mongod::Mongod;
use testkit::prometheus::{Prometheus, Setup};
use testkit::world::eventually;

/// Name, type, labels beside `instance` and `job`.
const CONTRACT: &[(&str, &str, &[&str])] = &[
    ("events_received_total", "counter", &["source"]),
    ("events_written_total", "counter", &["source"]),
    ("events_duplicate_total", "counter", &["source"]),
    ("events_filtered_total", "counter", &["source"]),
    (
        "events_dead_lettered_total",
        "counter",
        &["reason", "source"],
    ),
    ("events_unresolved_tenant_total", "counter", &["source"]),
    ("security_events_total", "counter", &["action", "source"]),
    ("ingest_lag_seconds", "gauge", &["source"]),
    ("ingest_latency_seconds", "histogram", &["source"]),
    ("event_age_seconds", "histogram", &["source"]),
    ("source_info", "gauge", &["kind", "source"]),
    ("source_interval_seconds", "gauge", &["source"]),
    ("source_up", "gauge", &["source"]),
    ("source_fenced_total", "counter", &["source"]),
    (
        "source_last_success_timestamp_seconds",
        "gauge",
        &["source"],
    ),
    ("ocis_bytes_behind", "gauge", &["source"]),
    ("ocis_rotations_total", "counter", &["source"]),
    ("authentik_requests_total", "counter", &["code"]),
    ("authentik_polls_total", "counter", &["source"]),
    ("authentik_pages_total", "counter", &["source"]),
    ("authentik_late_events_total", "counter", &["source"]),
    ("webhook_requests_total", "counter", &["code"]),
    ("recorder_requests_total", "counter", &["code"]),
    ("webhook_refused_total", "counter", &["reason", "source"]),
    ("http_requests_total", "counter", &["code", "route"]),
    ("journal_bytes", "gauge", &[]),
    ("journal_limit_bytes", "gauge", &[]),
    ("journal_oldest_seconds", "gauge", &[]),
    ("in_flight_bytes", "gauge", &[]),
    ("in_flight_limit_bytes", "gauge", &[]),
    ("backpressure_seconds_total", "counter", &[]),
    ("writer_batch_events", "histogram", &[]),
    ("writer_flush_seconds", "histogram", &[]),
    ("store_up", "gauge", &[]),
    ("store_errors_total", "counter", &["reason"]),
    ("retention_deleted_events_total", "counter", &[]),
    ("retention_deleted_dead_letters_total", "counter", &[]),
    ("actor_restarts_total", "counter", &["actor", "reason"]),
    ("actor_mailbox_messages", "gauge", &["actor"]),
    ("actor_suspended", "gauge", &["actor"]),
    ("actor_busy_seconds_total", "counter", &["actor"]),
    ("stream_readers", "gauge", &[]),
    ("streams_cut_total", "counter", &["reason"]),
    ("feed_events_total", "counter", &[]),
    ("exports_total", "counter", &["outcome"]),
    ("config_reloads_total", "counter", &["outcome"]),
    ("config_last_reload_timestamp_seconds", "gauge", &[]),
    ("log_lines_lost_total", "counter", &[]),
    ("start_time_seconds", "gauge", &[]),
    ("build_info", "gauge", &["version"]),
];

/// How far a lag may be from the clock, in seconds.
const INEXACT: f64 = 0.5;

pub async fn busy_workspace(dir: &std::path::Path, rate: f64) -> Workspace {
    let config = WorkspaceConfig {
        events_per_second: rate,
        rotate_after_lines: Some(100),
        senders_pause: Duration::from_millis(200),
        history: Duration::from_secs(120),
        ..WorkspaceConfig::new(dir, 7)
    };
    Workspace::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_sees_every_metric_with_its_type_and_labels() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = busy_workspace(dir.path(), 100.0).await;
    let plan = World::sqlite().await.workspace(&workspace);
    let world = plan.settings("[retention]\ndays = 30").start().await;
    workspace.connect(&world.url(""));
    let port = world.daybook().address().port();
    let prometheus = Prometheus::start(&Setup {
        targets: vec![("daybook".to_owned(), port)],
        rules: Vec::new(),
        interval: "500ms".to_owned(),
    })
    .await;
    for source in ["authentik", "ocis", "stalwart", "platform-api"] {
        eventually(&format!("events of {source}"), async || {
            let written = format!("daybook_events_written_total{{source=\"{source}\"}} > 0");
            prometheus.query(&written).await.unwrap().len() == 1
        })
        .await;
    }
    assert!(world.daybook().kill("resolver").await);
    let restarts = "daybook_actor_restarts_total{actor=\"resolver\",reason=\"killed\"} == 1";
    eventually("the kill is counted", async || {
        prometheus.query(restarts).await.unwrap().len() == 1
    })
    .await;

    let names: BTreeSet<String> = CONTRACT
        .iter()
        .map(|(name, ..)| format!("daybook_{name}"))
        .collect();
    let declared: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names, declared, "a metric is declared and not listed here");
    let metadata = prometheus.api("metadata", &[]).await.unwrap();
    let mut series_in_all = 0;
    for (name, kind, labels) in CONTRACT {
        let name = format!("daybook_{name}");
        let told = &metadata[&name][0];
        assert_eq!(told["type"], *kind, "{name}");
        assert!(
            told["help"].as_str().unwrap().ends_with('.'),
            "{name}: {told}"
        );
        let sample = if *kind == "histogram" {
            format!("{name}_count")
        } else {
            name.clone()
        };
        let series = prometheus.api("series", &[("match[]", &sample)]).await;
        let series = series.unwrap();
        let series = series.as_array().unwrap();
        assert!(!series.is_empty(), "{name} has no series");
        series_in_all += series.len();
        for each in series {
            let mut found: Vec<&str> = each
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .filter(|label| !["__name__", "instance", "job"].contains(label))
                .collect();
            found.sort_unstable();
            assert_eq!(found, *labels, "{name}: {each}");
        }
    }
    let buckets = prometheus
        .query("count({__name__=~\"daybook_.*_bucket\"})")
        .await;
    println!(
        "{series_in_all} series and {} buckets for four sources",
        buckets.unwrap()[0].value
    );
    assert!(series_in_all < 500, "{series_in_all} series");

    let scrape = world.text("/metrics").await;
    assert!(!scrape.contains(workspace.stalwart_key()));
    let mut lint = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = lint.stdin.take().unwrap();
    stdin.write_all(scrape.as_bytes()).unwrap();
    drop(stdin);
    let linted = lint.wait_with_output().unwrap();
    assert!(
        linted.status.success(),
        "{}",
        String::from_utf8_lossy(&linted.stderr)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_events_are_counted_once_and_only_from_the_list() {
    const KEY: &str = "a key for this test";
    let plan = World::sqlite().await;
    let key = plan.file("key", KEY);
    let hook = format!(
        "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
        key.display()
    );
    let world = plan.source(&hook).start().await;
    world.ready().await;
    let counted = |action: &str| format!("source=\"stalwart\",action=\"{action}\"");
    let name = "daybook_security_events_total";
    let scrape = world.text("/metrics").await;
    assert!(
        scrape.contains(&counted("stalwart.auth_banned")),
        "declared at start"
    );

    let event = |kind: &str, account: &str| {
        format!(
            r#"{{"id":"1","createdAt":"2026-11-24T04:05:39Z","type":"{kind}","data":{{"accountName":"{account}"}}}}"#
        )
    };
    let events = [
        event("auth.failed", "a"),
        event("auth.failed", "b"),
        event("auth.success", "a"),
        event("queue.message-queued", "a"),
        event("made-up.type", "a"),
    ];
    let body = format!("{{\"events\":[{}]}}", events.join(","));
    for _ in 0..2 {
        let request = signed("/ingest/stalwart/webhook", KEY, &body);
        let answer = testkit::http::exchange(world.daybook().address(), &request).await;
        assert_eq!(answer.status, 200);
    }
    eventually("the repeat is recognised", async || {
        world
            .metric("daybook_events_duplicate_total", "stalwart")
            .await
            == 5.0
    })
    .await;
    for (action, count) in [
        ("stalwart.auth_failed", 2.0),
        ("stalwart.auth_success", 1.0),
    ] {
        assert_eq!(
            world.metric(name, &counted(action)).await,
            count,
            "{action}"
        );
    }
    let scrape = world.text("/metrics").await;
    assert!(
        !scrape.contains("made_up"),
        "an action of a sender is no label"
    );
    assert!(!scrape.contains(&counted("stalwart.mail_received")));

    // Two refusals, each under its reason.
    let wrong = signed("/ingest/stalwart/webhook", "another key", &body);
    let answer = testkit::http::exchange(world.daybook().address(), &wrong).await;
    assert_eq!(answer.status, 401);
    let (status, _) = world.post("/ingest/stalwart/webhook", body, &[]).await;
    assert_eq!(status, 401);
    for reason in ["unsigned", "wrong_signature"] {
        let refused = world.metric("daybook_webhook_refused_total", reason).await;
        assert_eq!(refused, 1.0, "{reason}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_grows_with_the_clock_and_a_dead_source_is_not_up() {
    let mongod = Mongod::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut workspace = busy_workspace(dir.path(), 40.0).await;
    let plan = World::mongodb(&mongod).await.workspace(&workspace);
    let quiet = plan.file("quiet.log", "");
    let source = format!(
        "kind = \"ocis\"\nname = \"quiet\"\npath = \"{}\"",
        quiet.display()
    );
    let world = plan
        .source(&source)
        .start_with("auth = \"none\"", "timeout = \"2s\"")
        .await;
    workspace.connect(&world.url(""));
    let lag = async |source: &str| {
        let label = format!("source=\"{source}\"");
        world.metric("daybook_ingest_lag_seconds", &label).await
    };
    eventually("events flow", async || {
        world
            .metric("daybook_events_written_total", "source=\"ocis\"")
            .await
            > 0.0
    })
    .await;

    mongod.freeze();
    eventually("the store is seen to be away", async || {
        world.metric("daybook_store_up", "").await == 0.0
    })
    .await;
    eventually("a line waits", async || lag("ocis").await > 1.0).await;
    // Read between two looks at the clock, for the reading itself may take long.
    let reading = async || {
        let before = Instant::now();
        (before, lag("ocis").await, Instant::now())
    };
    let first = reading().await;
    eventually("four seconds of the clock", async || {
        first.2.elapsed() > Duration::from_secs(4)
    })
    .await;
    let second = reading().await;
    let grown = second.1 - first.1;
    let least = (second.0 - first.2).as_secs_f64();
    let most = (second.2 - first.0).as_secs_f64();
    println!("lag grew by {grown} in {least} to {most} s");
    assert!(
        least - INEXACT < grown && grown < most + INEXACT,
        "lag grew by {grown} in {least} to {most} s"
    );
    assert_eq!(
        lag("quiet").await,
        0.0,
        "who has nothing to enter has no lag"
    );
    mongod.thaw();
    eventually("the lag is gone", async || lag("ocis").await < 1.0).await;

    // Authentik dies. Nobody knows of events that wait, so the lag cannot tell.
    let up = "source=\"authentik\"";
    workspace.pause().await;
    eventually("everything that Authentik has is entered", async || {
        let is_up = world.metric("daybook_source_up", up).await == 1.0;
        is_up && lag("authentik").await == 0.0
    })
    .await;
    workspace
        .authentik()
        .set_fault(Fault::ResetBeforeHeaders, Times::Forever);
    eventually("Authentik is down", async || {
        world.metric("daybook_source_up", up).await == 0.0
    })
    .await;
    let success = "daybook_source_last_success_timestamp_seconds";
    let last = world.metric(success, up).await;
    assert!(last > 1.7e9, "seconds since 1970, not {last}");
    eventually("the last success grows old", async || {
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        now - world.metric(success, up).await > 3.0
    })
    .await;
    assert_eq!(world.metric(success, up).await, last);
    assert_eq!(lag("authentik").await, 0.0);
    assert_eq!(
        world.metric("daybook_source_up", "source=\"ocis\"").await,
        1.0
    );
    world.stop().await;
}
