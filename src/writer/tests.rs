#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use daybook_actors::budget::Budget;
use daybook_actors::delivery::Custody;
use serde_json::Value;

use super::*;
use crate::batch::{Batch, Reply};
use crate::config::Collections;
use crate::event::SourceName;
use crate::store::sqlite::SqliteStore;

/// As many as there are while the store is away, or while nothing is to be written.
const PROBES: usize = 20;

fn args(path: &Path, timeout: Duration) -> WriterArgs {
    let store = SqliteStore::open(path, timeout, &Collections::default()).unwrap();
    WriterArgs {
        store: Arc::new(store),
        config: WriterConfig::default(),
        metrics: Metrics::new(),
        store_up: Arc::default(),
        progress: Progress::on_demand(),
        probe: Probe::default(),
    }
}

/// Moves a cursor.
async fn deliver(writer: &ActorRef<WriterMessage>, generation: u64) -> Reply {
    let permit = Budget::new(1).try_acquire(1).unwrap();
    let batch = Batch::new(SourceName::new("s"), generation, Vec::new(), permit);
    let (reply, answer) = tokio::sync::oneshot::channel::<Reply>();
    let delivery = Delivery {
        batch: batch.with_step(0, 10, Value::Null),
        custody: Custody::new(),
        in_mailbox: None,
        suspect: false,
        reply: reply.into(),
    };
    let resolved = Resolved {
        delivery,
        tenants: Vec::new(),
        learned: Vec::new(),
    };
    let sent = writer.cast(WriterMessage::Deliver(Box::new(resolved)));
    assert!(sent.is_ok());
    answer.await.unwrap()
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, work).await.unwrap()
}

/// Claims the cursor until the writer moves it; the generation.
async fn taken(store: &dyn Store, writer: &ActorRef<WriterMessage>) -> u64 {
    loop {
        let claimed = store.claim_cursor(&SourceName::new("s")).await;
        if let Ok(claimed) = claimed
            && deliver(writer, claimed.generation).await.is_ok()
        {
            return claimed.generation;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_store_that_was_away_or_has_lost_a_cursor_is_prepared_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.db");
    let args = args(&path, Duration::from_secs(10));
    let store = Arc::clone(&args.store);
    let spawned = ractor::Actor::spawn(None, Writer, args).await;
    let (writer, ended) = spawned.unwrap();
    for is_away in [true, false] {
        let generation = in_time(taken(&*store, &writer)).await;
        let other = rusqlite::Connection::open(&path).unwrap();
        let lose = "BEGIN IMMEDIATE; DROP INDEX auditdeadletters_lastAt; DELETE FROM ingestcursors";
        other.execute_batch(lose).unwrap();
        if is_away {
            let reply = deliver(&writer, generation).await;
            assert!(matches!(reply, Err(Nack::Unavailable { .. })), "{reply:?}");
        }
        other.execute_batch("COMMIT").unwrap();
        if !is_away {
            let reply = deliver(&writer, generation).await;
            assert_eq!(reply, Err(Nack::Fenced { owner: 0 }));
        }
        let stands = || {
            let index = "SELECT 1 FROM sqlite_master WHERE name = 'auditdeadletters_lastAt'";
            other.prepare(index).unwrap().exists([]).unwrap()
        };
        in_time(async {
            while !stands() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    in_time(taken(&*store, &writer)).await;
    writer.stop(None);
    ended.await.unwrap();
}

/// As where only a part of it is damaged, and others' commits go through in between.
#[tokio::test]
async fn a_store_that_fails_now_and_then_is_not_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.db");
    let args = args(&path, Duration::from_secs(1));
    let store = Arc::clone(&args.store);
    let store_up = Arc::clone(&args.store_up);
    let is_up = || store_up.load(Ordering::Acquire);
    // Before the writer's own clock, as `failing`.
    let begun = Instant::now();
    let spawned = ractor::Actor::spawn(None, Writer, args).await;
    let (writer, ended) = spawned.unwrap();
    let generation = in_time(taken(&*store, &writer)).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    let fail = async || {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let reply = deliver(&writer, generation).await;
        assert!(matches!(reply, Err(Nack::Unavailable { .. })), "{reply:?}");
        other.execute_batch("COMMIT").unwrap();
    };
    let up_again = async || {
        while !is_up() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };

    let mut failing = Instant::now();
    fail().await;
    let is_soon = begun.elapsed() < PROBE_IDLE;
    for _ in 0..2 {
        in_time(taken(&*store, &writer)).await;
        assert!(!is_soon || !is_up() || failing.elapsed() >= PROBE_IDLE);
        failing = Instant::now();
        fail().await;
    }
    // With nothing more to commit an answer will do.
    in_time(up_again()).await;
    assert!(!is_soon || failing.elapsed() >= PROBE_IDLE);
    writer.stop(None);
    ended.await.unwrap();
}

/// However it has become so, and however long the commit takes to fail.
#[tokio::test]
async fn a_commit_that_begins_soon_after_the_store_is_up_and_fails_makes_it_waver() {
    let dir = tempfile::tempdir().unwrap();
    let args = args(&dir.path().join("daybook.db"), Duration::from_secs(30));
    // Hears the answers.
    let spawned = ractor::Actor::spawn(None, Writer, args.clone()).await;
    let (other, _end) = spawned.unwrap();
    let writer = Writer;
    let failure = || Err(StoreError::Unavailable("it is away".to_owned()));
    let probed = WriterMessage::Probed;
    let flushed = |began, outcome| WriterMessage::Flushed(Some((began, outcome)));
    let now = Instant::now();
    for (way, messages) in [
        ("a start", vec![probed(Ok(true))]),
        (
            "an outage that a probe alone has noticed",
            vec![probed(Ok(true)), probed(failure()), probed(Ok(true))],
        ),
        (
            "an outage that a commit has met",
            vec![
                flushed(now, failure()),
                probed(Ok(true)),
                flushed(now, Ok(true)),
            ],
        ),
    ] {
        let mut state = writer.pre_start(other.clone(), args.clone()).await.unwrap();
        for message in messages {
            state.believed = None;
            state.running = 1;
            let told = writer.handle(other.clone(), message, &mut state);
            told.await.unwrap();
        }
        let up_since = state.believed.expect(way);
        let long_ago = up_since.checked_sub(4 * PROBE_IDLE).unwrap();
        state.believed = Some(long_ago);
        for (after, wavers) in [(0, true), (4, true), (6, false)] {
            state.wavers = false;
            state.running = 1;
            let began = long_ago + Duration::from_secs(after);
            let told = writer.handle(other.clone(), flushed(began, failure()), &mut state);
            told.await.unwrap();
            assert_eq!(state.wavers, wavers, "{after} s after {way}");
        }
    }
}

#[tokio::test]
async fn probes_that_have_ended_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let args = args(&dir.path().join("daybook.db"), Duration::from_secs(30));
    // Hears the answers.
    let spawned = ractor::Actor::spawn(None, Writer, args.clone()).await;
    let (other, _end) = spawned.unwrap();
    let writer = Writer;
    let mut state = writer.pre_start(other.clone(), args).await.unwrap();
    for _ in 0..PROBES {
        let probe = writer.handle(other.clone(), WriterMessage::Probe, &mut state);
        probe.await.unwrap();
    }
    let forgotten = async {
        while !state.flushes.is_empty() {
            tokio::task::yield_now().await;
            let message = writer.handle(other.clone(), WriterMessage::Due, &mut state);
            message.await.unwrap();
        }
    };
    let forgotten = tokio::time::timeout(Duration::from_secs(30), forgotten).await;
    assert!(forgotten.is_ok(), "{} are left", state.flushes.len());
}
