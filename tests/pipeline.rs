//! The main job on real input: every audit log that a real server wrote, through a tailed file,
//! into a real MongoDB; and a whole workspace at once, with its actors dying on the way.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use daybook::event::{Decoded, SourceName};
use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use daybook::sources::ocis::decode::{LineContext, decode_line};
use daybook::store::StoredEvent;
use jiff::Timestamp;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

const LOGS: [&str; 5] = [
    "audit-every-event-type.log",
    "audit-full-server.log",
    "torn-line-after-disk-full.log",
    "console-stdout-with-noise.log",
    "minimal-format.log",
];

fn capture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("tests/data/ocis").join(name)).unwrap()
}

/// What each line of a log must become, found by the decoder alone: events, reads, dead letters.
fn fates(log: &[u8]) -> (usize, usize, usize) {
    let source = SourceName::new("ocis");
    let (mut events, mut reads, mut dead) = (0, 0, 0);
    for line in log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let context = LineContext {
            source: &source,
            file_key: "any",
            offset: 0,
            read_at: Timestamp::now(),
            include_reads: false,
        };
        let decoded = decode_line(line, &context);
        assert!(!decoded.is_empty(), "a line became nothing");
        for piece in decoded {
            match piece {
                Decoded::Event(..) => events += 1,
                Decoded::Filtered => reads += 1,
                Decoded::Dead(_) => dead += 1,
            }
        }
    }
    (events, reads, dead)
}

fn keys(events: &[StoredEvent]) -> HashSet<(String, String)> {
    let keys: HashSet<_> = events
        .iter()
        .map(|event| (event.source.clone(), event.external_id.clone()))
        .collect();
    assert_eq!(
        keys.len(),
        events.len(),
        "an event stands in the store twice"
    );
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_every_real_log_becomes_an_event_a_read_or_a_dead_letter() {
    let mongod = Mongod::shared().await;
    for name in LOGS {
        let log = capture(name);
        let (events, reads, dead) = fates(&log);
        let plan = World::mongodb(mongod).await;
        let path = plan.file("audit.log", &log);
        let mut world = plan
            .source(&format!("kind = \"ocis\"\npath = \"{}\"", path.display()))
            .start()
            .await;

        let pieces = (events + reads + dead) as f64;
        eventually(&format!("{name} is read"), async || {
            world.metric("daybook_events_received_total", "").await == pieces
                && world.metric("daybook_ingest_lag_seconds", "").await == 0.0
        })
        .await;
        let stored = world.events_reach(events).await;
        assert_eq!(
            world.metric("daybook_events_written_total", "").await,
            events as f64,
            "{name}"
        );
        assert_eq!(
            world.metric("daybook_events_filtered_total", "").await,
            reads as f64,
            "{name}"
        );
        assert_eq!(
            world.metric("daybook_events_dead_lettered_total", "").await,
            dead as f64,
            "{name}"
        );
        let letters = world.daybook().store().dead_letters(10_000).await.unwrap();
        assert_eq!(letters.len(), dead, "{name}");
        let first = keys(&stored);

        // A restart reads nothing again.
        world.restart().await;
        eventually("the source is up again", async || {
            world
                .daybook()
                .board()
                .source("ocis")
                .unwrap()
                .view()
                .last_success_at
                .is_some()
        })
        .await;
        assert_eq!(
            world.metric("daybook_events_received_total", "").await,
            0.0,
            "{name}"
        );

        // Everything again from the first byte, as if the cursor had been lost.
        mongod
            .database(&world.database_name())
            .await
            .collection::<mongodb::bson::Document>("ingestcursors")
            .delete_many(mongodb::bson::doc! {})
            .await
            .unwrap();
        world.restart().await;
        eventually(&format!("{name} is read again"), async || {
            world.metric("daybook_events_received_total", "").await == pieces
                && world.metric("daybook_ingest_lag_seconds", "").await == 0.0
        })
        .await;
        assert_eq!(keys(&world.events_reach(events).await), first, "{name}");
        assert_eq!(
            world.metric("daybook_events_written_total", "").await,
            0.0,
            "{name}"
        );
        let view = world.source_becomes("ocis", "running").await;
        assert_eq!(view["lastError"], serde_json::Value::Null, "{name}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_line_says_what_the_file_said() {
    let mongod = Mongod::shared().await;
    let log = capture("audit-full-server.log");
    let plan = World::mongodb(mongod).await;
    let path = plan.file("audit.log", &log);
    let world = plan
        .source(&format!(
            "kind = \"ocis\"\nname = \"files\"\npath = \"{}\"\ninclude_reads = true",
            path.display()
        ))
        .start()
        .await;
    let lines: Vec<&[u8]> = log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let events = world.events_reach(lines.len()).await;
    let by_offset: BTreeMap<u64, &StoredEvent> = events
        .iter()
        .map(|event| {
            (
                event
                    .external_id
                    .rsplit_once(':')
                    .unwrap()
                    .1
                    .parse()
                    .unwrap(),
                event,
            )
        })
        .collect();
    let mut offset = 0;
    for line in lines {
        let said: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(line).unwrap();
        let stored = by_offset[&offset];
        assert_eq!(stored.source, "files");
        for (key, value) in &said {
            let kept = &stored.metadata[key];
            let is_masked = kept.to_string().contains("***");
            assert!(kept == value || is_masked, "{key}: {value} became {kept}");
        }
        if let Some(token) = said
            .get("ShareToken")
            .and_then(|token| token.as_str())
            .filter(|token| !token.is_empty())
        {
            let all = serde_json::to_string(stored).unwrap();
            assert!(!all.contains(token), "a link's token is stored");
        }
        offset += line.len() as u64 + 1;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_workspace_is_entered_exactly_once_while_actors_die() {
    let mongod = Mongod::shared().await;
    let plan = World::mongodb(mongod).await;
    let mut workspace = Workspace::start(WorkspaceConfig {
        events_per_second: 150.0,
        rotate_after_lines: Some(80),
        rotated_logs: 50,
        ..WorkspaceConfig::new(plan.dir(), 7)
    })
    .await
    .unwrap();
    let world = plan
        .source(&format!(
            "kind = \"authentik\"\nurl = \"{}\"\ntoken_file = \"{}\"\ninterval = \"1s\"",
            workspace.authentik().url(),
            workspace.authentik_token_file().display()
        ))
        .source(&format!(
            "kind = \"ocis\"\npath = \"{}\"",
            workspace.ocis_log_path().display()
        ))
        .source(&format!(
            "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
            workspace.stalwart_key_file().display()
        ))
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .settings(&format!(
            "[tenants]\nfile = \"{}\"",
            workspace.tenants_file().display()
        ))
        .start()
        .await;
    workspace.connect(&world.url(""));

    let mut killed = 0;
    for actor in [
        "ocis",
        "writer",
        "authentik",
        "resolver",
        "stalwart",
        "platform-api",
        "writer",
        "ocis",
    ] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        if world.daybook().kill(actor).await {
            killed += 1;
        }
    }
    assert!(killed >= 6, "only {killed} actors were up to be killed");
    assert!(
        world
            .metric("daybook_actor_restarts_total", "reason=\"killed\"")
            .await
            >= 6.0
    );

    workspace.pause().await;
    workspace.drained().await;
    let promised = workspace.counts();
    let changes = promised.ocis_lines - promised.ocis_reads;
    assert_eq!(promised.stalwart, promised.stalwart_delivered);
    let count = |events: &[StoredEvent], source: &str| {
        events.iter().filter(|event| event.source == source).count() as u64
    };
    let mut events = Vec::new();
    eventually("every promised event stands in the store", async || {
        events = world.events().await;
        count(&events, "authentik") >= promised.authentik && count(&events, "ocis") >= changes
    })
    .await;
    keys(&events);
    assert_eq!(count(&events, "authentik"), promised.authentik);
    assert_eq!(count(&events, "ocis"), changes);
    assert_eq!(count(&events, "stalwart"), promised.stalwart);
    assert_eq!(count(&events, "platform-api"), promised.platform);
    let in_tenants = events
        .iter()
        .filter(|event| event.tenant_slug.is_some())
        .count();
    assert!(
        in_tenants * 10 > events.len() * 6,
        "{in_tenants} of {} events have a tenant",
        events.len()
    );
    assert!(
        world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap()
            .is_empty()
    );
    world.stop().await;
}
