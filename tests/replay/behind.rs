//! A log of which the service knows more than its lines tell, or has not read all yet.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::World;
use testkit::world::{Plan, eventually};

use super::replay;
use super::twins::line;

const GAP: &str = "daybook.gap_detected";

/// The lines of a source's table, the log, and a configuration with it.
fn with_log(plan: &Plan) -> (String, PathBuf, PathBuf) {
    let path = plan.dir().join("audit.log");
    let source = format!(
        "kind = \"ocis\"\npath = \"{}\"\npoll = \"200ms\"",
        path.display()
    );
    let text = format!(
        "[store]\nurl = \"{}\"\n[[sources]]\n{source}\n",
        plan.store_url()
    );
    let config = plan.file("cli.toml", text);
    (source, path, config)
}

/// Each has a minute of its own.
fn append(log: &Path, minutes: std::ops::Range<u32>) {
    let mut file = File::options().create(true).append(true).open(log).unwrap();
    for minute in minutes {
        let line = line("file_delete", &format!("2026-01-02T03:{minute:02}:05Z"));
        file.write_all(line.as_bytes()).unwrap();
    }
}

fn truncate(log: &Path) {
    let log = File::options().write(true).open(log).unwrap();
    log.set_len(0).unwrap();
}

/// The keys of what was entered of lines.
async fn keys(world: &World) -> Vec<String> {
    let mut events = world.events().await;
    events.retain(|event| event.source == "ocis" && event.action != GAP);
    let mut keys: Vec<_> = events.into_iter().map(|event| event.external_id).collect();
    keys.sort();
    keys
}

async fn hold(world: &World, lines: usize) {
    eventually("the lines are entered", async || {
        keys(world).await.len() == lines
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_has_yet_to_read_of_copied_parts_is_entered_once() {
    for parts in [1, 2] {
        let plan = World::sqlite().await;
        let (source, path, config) = with_log(&plan);
        append(&path, 0..20);
        let mut world = plan.source(&source).start().await;
        hold(&world, 20).await;
        world.halt().await;
        let unread = 10 * parts + 5;
        for part in 0..parts {
            append(&path, 20 + 10 * part..30 + 10 * part);
            let copy = path.with_extension(format!("log.{}", parts - part));
            std::fs::copy(&path, copy).unwrap();
            truncate(&path);
        }
        append(&path, 15 + unread..20 + unread);

        for (new, known) in [(unread, 20), (0, 20 + unread)] {
            let counts = replay(&config, "ocis", "2000-01-01");
            let wanted = json!({
                "read": 20 + unread, "new": new, "known": known, "leftOut": 0, "unreadable": 0,
            });
            assert_eq!(counts, wanted, "{parts} parts");
        }
        world.resume().await;
        eventually("the service has read the rest", async || {
            let received = world.metric("daybook_events_received_total", "source=\"ocis\"");
            received.await == f64::from(unread)
                && world.metric("daybook_in_flight_bytes", "").await == 0.0
        })
        .await;
        assert_eq!(keys(&world).await.len(), 20 + unread as usize, "{parts}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_line_of_a_log_that_began_alike_before_is_entered_again() {
    let plan = World::sqlite().await;
    let (source, path, config) = with_log(&plan);
    let file = plan.store_url().trim_start_matches("sqlite:").to_owned();
    append(&path, 0..2);
    let mut world = plan.source(&source).start().await;
    hold(&world, 2).await;
    world.halt().await;
    truncate(&path);
    append(&path, 0..1);
    append(&path, 2..3);
    world.resume().await;
    hold(&world, 4).await;
    let before = keys(&world).await;
    let again: Vec<_> = before.iter().filter(|key| key.contains("~2:")).collect();
    assert_eq!(again.len(), 2, "{before:?}");
    let lost = again.iter().find(|key| !key.ends_with(":0")).unwrap();
    let connection = rusqlite::Connection::open(file).unwrap();
    let delete = "DELETE FROM auditevents WHERE externalId = ?1";
    assert_eq!(connection.execute(delete, [lost]).unwrap(), 1);
    for new in [1, 0] {
        let counts = replay(&config, "ocis", "2000-01-01");
        assert_eq!(counts["new"], new, "{counts}");
    }
    assert_eq!(keys(&world).await, before);
    world.stop().await;
}
