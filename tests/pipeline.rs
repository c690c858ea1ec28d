//! The main job on real input: every audit log that a real server wrote, through a tailed file,
//! into a real MongoDB; and a whole workspace at once, with its actors dying on the way.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use daybook::store::StoredEvent;
use serde_json::{Map, Value};
use testkit::World;
use testkit::mongod::Mongod;
use testkit::whose::Whose;
use testkit::world::eventually;

/// Logs, and how many events, reads and dead letters their lines must become.
const LOGS: [(&str, usize, usize, usize); 5] = [
    ("audit-every-event-type.log", 59, 3, 0),
    ("audit-full-server.log", 100, 50, 0),
    // A record is cut, and the next one glued on.
    ("torn-line-after-disk-full.log", 52, 0, 1),
    ("console-stdout-with-noise.log", 59, 3, 3),
    // Two of its messages are empty: a blank line, left out as reads are.
    ("minimal-format.log", 0, 2, 123),
];

/// Events that are written between two kills.
const BETWEEN_KILLS: f64 = 50.0;

fn capture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("tests/data/ocis").join(name)).unwrap()
}

/// What of a line is masked wherever it stands: a link's token, or the id by which a link is removed, which
/// may be its token.
fn secret(said: &Map<String, Value>) -> Option<&str> {
    let text = |key: &str| said.get(key).and_then(Value::as_str);
    let is_removed_link =
        text("Action") == Some("file_unshared") && text("ShareType") == Some("link");
    let secret = if is_removed_link {
        text("ShareID")
    } else {
        text("ShareToken")
    };
    secret.filter(|secret| !secret.is_empty())
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
    for (name, events, reads, dead) in LOGS {
        let plan = World::mongodb(mongod).await;
        let path = plan.file("audit.log", capture(name));
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
        assert_eq!(view["lastError"], Value::Null, "{name}");
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
        let mut wanted: Map<String, Value> = serde_json::from_slice(line).unwrap();
        let stored = by_offset[&offset];
        assert_eq!(stored.source, "files");
        if let Some(secret) = secret(&wanted) {
            let all = serde_json::to_string(stored).unwrap();
            assert!(!all.contains(secret), "a link's token is stored");
            let masked = std::str::from_utf8(line).unwrap().replace(secret, "***");
            wanted = serde_json::from_str(&masked).unwrap();
        }
        let mut kept = stored.metadata.clone();
        // What Daybook itself remarks.
        kept.remove("daybook");
        assert_eq!(kept, wanted);
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

    let kills = [
        "ocis",
        "writer",
        "authentik",
        "resolver",
        "stalwart",
        "platform-api",
        "writer",
        "ocis",
    ];
    let written = async || world.metric("daybook_events_written_total", "").await;
    for actor in kills {
        let before = written().await;
        eventually("events flow", async || {
            written().await >= before + BETWEEN_KILLS
        })
        .await;
        // It may still be down from the last kill.
        let what = format!("{actor} is up, to be killed");
        eventually(&what, async || world.daybook().kill(actor).await).await;
    }
    eventually("all kills are counted", async || {
        let killed = "reason=\"killed\"";
        let restarts = world.metric("daybook_actor_restarts_total", killed).await;
        restarts >= kills.len() as f64
    })
    .await;

    workspace.pause().await;
    workspace.drained().await;
    let promised = workspace.counts();
    let changes = promised.ocis_lines - promised.ocis_reads;
    assert_eq!(promised.stalwart, promised.stalwart_delivered);
    let count = |events: &[StoredEvent], source: &str| {
        events.iter().filter(|event| event.source == source).count() as u64
    };
    let wanted = [
        ("authentik", promised.authentik),
        ("ocis", changes),
        ("stalwart", promised.stalwart),
        ("platform-api", promised.platform),
    ];
    let mut events = Vec::new();
    eventually("every promised event stands in the store", async || {
        events = world.events().await;
        let stands = |(source, wanted): &(&str, u64)| count(&events, source) >= *wanted;
        wanted.iter().all(stands)
    })
    .await;
    keys(&events);
    for (source, wanted) in wanted {
        assert_eq!(count(&events, source), wanted, "{source}");
    }
    let whose = Whose::new(workspace.people());
    let amiss = events.iter().filter_map(|event| whose.amiss(event));
    assert_eq!(amiss.collect::<Vec<_>>(), [""; 0]);
    let slugs = events.iter().filter_map(|event| event.tenant_slug.as_ref());
    let tenants = slugs.collect::<HashSet<_>>().len();
    assert_eq!(tenants, workspace.people().tenants.len());
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
