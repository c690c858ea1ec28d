//! The Authentik source against a faithful fake: every event once, whatever happens on the way.
//!
//! `backlog`: how much it costs; `walking`: what changes while pages are read; `interrupted`: what
//! cuts a walk short; `faults`: every way in which the other side does not answer; `fenced`: two
//! services at once; `people`: whose events they are; `check`: what the command says.

#![allow(clippy::unwrap_used, reason = "tests")]

mod backlog;
mod check;
mod faults;
mod fenced;
mod interrupted;
mod people;
mod retention;
mod walking;

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use daybook::simulators::authentik::{FakeAuthentik, FakeAuthentikConfig};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use testkit::World;
use testkit::world::{Plan, eventually};

/// A fake whose token is like no other test's, so that it can be looked for in the log.
async fn fake() -> FakeAuthentik {
    fake_with(FakeAuthentikConfig::default()).await
}

async fn fake_with(config: FakeAuthentikConfig) -> FakeAuthentik {
    capture_log();
    let token = format!("secret-{:032x}", rand::rng().random::<u128>());
    FakeAuthentik::start(FakeAuthentikConfig { token, ..config }).await
}

/// A world that polls this fake every second; `lines` are added to the source's table.
async fn world_of(fake: &FakeAuthentik, lines: &str) -> World {
    ready(plan_of(World::sqlite().await, fake, lines).start().await).await
}

/// Waits until the store can be asked.
async fn ready(world: World) -> World {
    eventually("readiness", async || world.get("/readyz").await.0 == 200).await;
    world
}

fn plan_of(plan: Plan, fake: &FakeAuthentik, lines: &str) -> Plan {
    let url = fake.url();
    plan_at(plan, fake, &url, lines)
}

fn plan_at(plan: Plan, fake: &FakeAuthentik, url: &str, lines: &str) -> Plan {
    let token = plan.file("token", fake.token());
    plan.source(&format!(
        "kind = \"authentik\"\nurl = \"{url}\"\ntoken_file = \"{}\"\ninterval = \"1s\"\n{lines}",
        token.display()
    ))
}

/// `count` events, the newest one so long ago and each a little older than the one before.
fn history(count: usize, newest_ago: Duration, apart: Duration) -> Vec<Value> {
    let newest = Timestamp::now() - newest_ago;
    (0..count)
        .map(|number| {
            let created = newest - apart * u32::try_from(number).unwrap();
            event_at(created)
        })
        .collect()
}

fn event_at(created: Timestamp) -> Value {
    json!({
        "action": "login",
        "app": "authentik.events.signals",
        "user": {"pk": 4, "email": "alice@example.org", "username": "alice"},
        "context": {"auth_method": "password"},
        "client_ip": "192.0.2.7",
        "created": format!("{created:.6}"),
    })
}

fn new_event() -> Value {
    event_at(Timestamp::now())
}

/// What every story ends with: all that the fake promised is there, once, and nothing else.
async fn assert_all_once(world: &World, fake: &FakeAuthentik) {
    let promised = fake.promised().keys;
    let stored = world.events().await;
    let found: HashSet<&str> = stored
        .iter()
        .map(|event| event.external_id.as_str())
        .collect();
    let missing = promised
        .iter()
        .filter(|key| !found.contains(key.as_str()))
        .count();
    assert_eq!(missing, 0, "{missing} of {} are missing", promised.len());
    assert_eq!(stored.len(), promised.len(), "more than was promised");
    assert_eq!(found.len(), stored.len(), "something is there twice");
}

/// Waits until so many events are written, without reading them.
async fn written_reaches(world: &World, count: u64) {
    eventually(&format!("{count} events written"), async || {
        let written = world.metric("daybook_events_written_total", "").await;
        assert!(written <= count as f64, "{written} written, wanted {count}");
        written == count as f64
    })
    .await;
}

/// Waits until a poll has begun and ended from here on.
async fn a_poll_passes(world: &World, fake: &FakeAuthentik) {
    let before = asked(fake).list;
    eventually("two more polls", async || asked(fake).list >= before + 2).await;
    world.source_becomes("authentik", "running").await;
}

/// How often the fake was asked for the list of events.
#[derive(Clone, Copy)]
struct Asked {
    list: usize,
    /// Of these for its first page: one a poll.
    polls: usize,
}

impl Asked {
    /// Those that do not grow with the time that a machine takes: a poll comes every second.
    fn below_the_head(self) -> usize {
        self.list - self.polls
    }
}

fn asked(fake: &FakeAuthentik) -> Asked {
    let mut asked = Asked { list: 0, polls: 0 };
    for request in fake.requests() {
        if request.path.ends_with("/events/events/") {
            asked.list += 1;
            let query = &request.query;
            let is_head = query.contains("page=1&") && query.ends_with("page_size=100");
            asked.polls += usize::from(is_head);
        }
    }
    asked
}

/// The source as `/api/v1/sources` shows it.
async fn source_view(world: &World) -> Value {
    let (status, body) = world.get("/api/v1/sources").await;
    assert_eq!(status, 200);
    let sources = body["sources"].as_array().unwrap().clone();
    let found = sources.into_iter().find(|s| s["kind"] == "authentik");
    found.unwrap()
}

/// The token stands in nothing that leaves the process.
async fn assert_token_is_nowhere(world: &World, token: &str) {
    let sources = world.text("/api/v1/sources").await;
    assert!(!sources.contains(token), "{sources}");
    assert!(!world.text("/metrics").await.contains(token));
    let log = LOG.get().unwrap().lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("source state"), "the log is captured");
    assert!(!log.contains(token));
}

static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();

/// Everything that this process logs, at the most talkative level.
fn capture_log() {
    struct Log;
    impl Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            let log = LOG.get_or_init(Mutex::default);
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    LOG.get_or_init(Mutex::default);
    // The second test finds it set already.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter("debug,hyper=trace,reqwest=trace")
        .with_writer(|| Log)
        .try_init();
}
