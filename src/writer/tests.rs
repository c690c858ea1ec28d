#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use daybook_actors::budget::Budget;
use daybook_actors::delivery::Custody;
use serde_json::Value;
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::batch::{Batch, Entry, Reply};
use crate::config::Collections;
use crate::event::{AuditEvent, SourceName, Target, TenantHints};
use crate::store::EventFilter;
use crate::store::sqlite::SqliteStore;
use crate::telemetry::captured::Captured;

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
    deliver_entries(writer, generation, (0, 10), Vec::new()).await
}

async fn deliver_entries(
    writer: &ActorRef<WriterMessage>,
    generation: u64,
    step: (u64, u64),
    entries: Vec<Entry>,
) -> Reply {
    let (resolved, answer) = resolved(generation, step, entries);
    let sent = writer.cast(WriterMessage::Deliver(Box::new(resolved)));
    assert!(sent.is_ok());
    answer.await.unwrap()
}

fn resolved(
    generation: u64,
    (from, to): (u64, u64),
    entries: Vec<Entry>,
) -> (Resolved, Receiver<Reply>) {
    let permit = Budget::new(1).try_acquire(1).unwrap();
    let tenants = vec![None; entries.len()];
    let batch = Batch::new(SourceName::new("s"), generation, entries, permit);
    let (reply, answer) = tokio::sync::oneshot::channel::<Reply>();
    let delivery = Delivery {
        batch: batch.with_step(from, to, Value::Null),
        custody: Custody::new(),
        in_mailbox: None,
        suspect: false,
        reply: reply.into(),
    };
    let resolved = Resolved {
        delivery,
        tenants,
        learned: Vec::new(),
    };
    (resolved, answer)
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

#[tokio::test]
async fn a_store_that_another_process_holds_locked_at_a_start_takes_no_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.db");
    let store = args(&path, Duration::from_secs(1)).store;
    store.prepare().await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = in_time(ask(&*store, None, true)).await.unwrap_err();
    assert!(refused.is_away(), "{refused}");
    other.execute_batch("COMMIT").unwrap();
    in_time(async {
        while ask(&*store, None, true).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
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

fn event(number: usize) -> Entry {
    let event = AuditEvent {
        at: jiff::Timestamp::UNIX_EPOCH,
        source: SourceName::new("s"),
        external_id: number.to_string(),
        action: "a.b".into(),
        outcome: None,
        actor: crate::event::Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: serde_json::Map::new().into(),
    };
    Entry::Event(Box::new(event), TenantHints::default())
}

#[tokio::test]
async fn a_batch_that_the_store_has_no_time_for_is_entered_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.db");
    let args = args(&path, Duration::from_secs(3));
    let store = Arc::clone(&args.store);
    let spawned = ractor::Actor::spawn(None, Writer, args).await;
    let (writer, ended) = spawned.unwrap();
    let generation = in_time(taken(&*store, &writer)).await;
    // Of one commit it takes so many, and is busy for ever with the next.
    let slow = format!(
        "CREATE TRIGGER slow BEFORE INSERT ON auditevents
         WHEN NEW.ingestedAt = (SELECT ingestedAt FROM auditevents
            WHERE id = (SELECT max(id) FROM auditevents) - {FEW})
         BEGIN SELECT count(*) FROM auditevents a, auditevents b, auditevents c, auditevents d; END"
    );
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch(&slow).unwrap();
    let entries: Vec<Entry> = (0..FEW * 3 / 2).map(event).collect();
    let again = async || deliver_entries(&writer, generation, (10, 20), entries.clone()).await;

    let reply = again().await;
    let Err(Nack::Unavailable { reason, .. }) = &reply else {
        panic!("{reply:?}");
    };
    assert!(reason.contains("did not answer a commit"), "{reason}");
    in_time(async {
        while again().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let everything = EventFilter::default();
    let entered = store.find_events(&everything, None, u32::MAX).await;
    assert_eq!(entered.unwrap().len(), entries.len());
    assert_eq!(store.cursors().await.unwrap()[0].seq, 20);
    writer.stop(None);
    ended.await.unwrap();
}

#[tokio::test]
async fn a_batch_whose_sender_gives_up_while_it_waits_is_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    let args = args(&dir.path().join("daybook.db"), Duration::from_secs(30));
    let store = Arc::clone(&args.store);
    store.prepare().await.unwrap();
    let claimed = store.claim_cursor(&SourceName::new("s")).await.unwrap();
    let batch = |step, number| resolved(claimed.generation, step, vec![event(number)]);
    // Nobody needs to hear how a flush ends.
    let spawned = ractor::Actor::spawn(None, Writer, args.clone()).await;
    let (other, end) = spawned.unwrap();
    other.stop(None);
    end.await.unwrap();
    let mut state = Writer.pre_start(other.clone(), args).await.unwrap();

    let (abandoned, given_up) = batch((0, 10), 1);
    let (kept, answer) = batch((0, 10), 2);
    state.take(abandoned);
    state.take(kept);
    drop(given_up);
    state.start_flush(&other);
    let reply = in_time(answer).await.unwrap();
    assert_eq!(reply.unwrap().written, 1);
    let entered = store.find_events(&EventFilter::default(), None, 10).await;
    let entered = entered.unwrap().into_iter().map(|event| event.external_id);
    assert_eq!(entered.collect::<Vec<_>>(), ["2"]);

    // Where nothing is left nothing is flushed.
    let (abandoned, given_up) = batch((10, 20), 3);
    state.take(abandoned);
    drop(given_up);
    state.start_flush(&other);
    assert_eq!((state.running, state.waiting_entries), (1, 0));
}

/// Each that was made in parts may have been too large still.
#[tokio::test]
async fn commits_are_small_while_the_store_has_no_time_for_larger_ones() {
    let dir = tempfile::tempdir().unwrap();
    let args = args(&dir.path().join("daybook.db"), Duration::from_secs(30));
    // Hears the answers.
    let spawned = ractor::Actor::spawn(None, Writer, args.clone()).await;
    let (other, _end) = spawned.unwrap();
    let writer = Writer;
    let mut state = writer.pre_start(other.clone(), args).await.unwrap();
    assert_eq!(state.most(Instant::now()), usize::MAX);
    let (captured, _guard) = Captured::begin();
    for most in [1000, 500, 250, 125, 62, 50, 50] {
        let began = Instant::now();
        // Two that run side by side are late for one reason.
        for _ in 0..2 {
            let error = StoreError::Timeout {
                what: "a commit",
                after: Duration::from_secs(30),
            };
            let late = WriterMessage::Flushed(Some((began, Err(error))));
            state.running = 1;
            let told = writer.handle(other.clone(), late, &mut state);
            told.await.unwrap();
            assert_eq!(state.late.unwrap().most, most);
        }
    }
    assert_eq!(captured.lines_with("had no time").len(), 1);
    let at = state.late.unwrap().at;
    for (minutes, most) in [
        (0, 50),
        (9, 50),
        (10, 100),
        (40, 800),
        (50, 1000),
        (59, 1000),
        (60, usize::MAX),
    ] {
        let later = at + Duration::from_secs(60 * minutes);
        assert_eq!(state.most(later), most, "after {minutes} minutes");
    }
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
