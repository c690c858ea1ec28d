use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use daybook_actors::budget::Budget;
use daybook_actors::slot::Slot;
use futures_util::FutureExt;
use jiff::Timestamp;

use super::*;
use crate::config::Collections;
use crate::event::{DeadLetter, DeadLetterReason, SourceName};
use crate::journal::{JournalOptions, PushKind};
use crate::store::sqlite::SqliteStore;
use crate::telemetry::metrics::Metrics;

fn pusher(budget: &Budget, journal: Option<Journal>) -> Pusher {
    let metrics = Metrics::new();
    let name = SourceName::new("mail");
    let counters = metrics.source(&name, "stalwart");
    Pusher {
        courier: Courier {
            resolver: Slot::new(),
            resolver_mailbox: metrics.actor_mailbox("resolver"),
            share: budget.share("mail", 1.0),
            status: Arc::new(SourceStatus::new(name, "stalwart", counters)),
            ack_timeout: PATIENCE,
            waits_of: None,
        },
        journal,
        detour: Detour::default(),
        batch_events: 1,
        probe: Probe::default(),
        until: Instant::now() + PATIENCE,
    }
}

fn push() -> PushRecord {
    let body = Bytes::from_static(b"{}");
    PushRecord::new(SourceName::new("mail"), PushKind::Stalwart, body)
}

fn letter(number: usize) -> Entry {
    Entry::Dead(DeadLetter {
        source: SourceName::new("mail"),
        position: number.to_string(),
        reason: DeadLetterReason::Malformed,
        detail: String::new(),
        raw: Bytes::new(),
        raw_length: 0,
        at: Timestamp::now(),
    })
}

/// As the acceptor gives up a job that takes too long.
#[tokio::test]
async fn a_push_that_is_given_up_is_paid_for_until_the_disk_has_let_go_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (hangs, answers) = mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let syncing = Arc::new(Notify::new());
    let syncs = Arc::clone(&syncing);
    let journal = Journal::open(JournalOptions {
        sync: Arc::new(move |file: &File| {
            syncs.notify_one();
            let _answers_from_now_on = answers.lock().unwrap().recv();
            file.sync_data()
        }),
        ..JournalOptions::new(dir.path().to_owned(), 1 << 20)
    })
    .unwrap();
    let budget = Budget::new(1000);
    let pusher = pusher(&budget, Some(journal.clone()));
    let push = push();
    let room = Room::Reserve(budget.try_acquire(600).unwrap());
    let mut delivery = Box::pin(pusher.deliver(&push, std::iter::empty(), room));
    assert_eq!(delivery.as_mut().now_or_never(), None);
    syncing.notified().await;
    drop(delivery);
    assert_eq!(budget.in_use(), 600);
    drop(hangs);
    journal.append(push.clone()).await.unwrap();
    assert_eq!(budget.in_use(), 0);
}

#[tokio::test]
async fn a_push_over_which_its_decoder_panics_is_durable_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(dir.path().to_owned(), 1 << 20);
    let journal = Journal::open(options).unwrap();
    let budget = Budget::new(1000);
    let pusher = pusher(&budget, Some(journal));
    let room = Room::Reserve(budget.try_acquire(0).unwrap());
    let entries = std::iter::repeat_with(|| -> Entry { panic!("over an event") });
    let pushed = pusher.deliver(&push(), entries, room).await;
    let (received, quarantined) = (0, 1);
    let wanted = Pushed::Durable {
        received,
        quarantined,
    };
    assert_eq!(pushed, wanted);
}

async fn take_turns(turns: Arc<AtomicUsize>) {
    loop {
        turns.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn others_have_their_turns_while_a_push_in_the_journal_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(dir.path().to_owned(), 1 << 20);
    let journal = Journal::open(options).unwrap();
    let budget = Budget::new(1000);
    let pusher = pusher(&budget, Some(journal));
    let turns = Arc::new(AtomicUsize::new(0));
    let mut others = JoinSet::new();
    others.spawn(take_turns(Arc::clone(&turns)));
    let mut seen = Vec::new();
    let entries = (0..5).map(|number| {
        seen.push(turns.load(Ordering::Relaxed));
        letter(number)
    });
    let room = Room::Reserve(budget.try_acquire(0).unwrap());
    let pushed = pusher.deliver(&push(), entries, room).await;
    let (received, quarantined) = (0, 5);
    let wanted = Pushed::Durable {
        received,
        quarantined,
    };
    assert_eq!(pushed, wanted);
    assert!(seen.first() < seen.last(), "{seen:?}");
}

/// It is durable, and as large in memory as it was.
#[tokio::test]
async fn a_push_in_the_journal_is_neither_given_up_nor_for_free_while_it_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(dir.path().to_owned(), 1 << 20);
    let journal = Journal::open(options).unwrap();
    let budget = Budget::new(1000);
    let pusher = Pusher {
        until: Instant::now(),
        ..pusher(&budget, Some(journal))
    };
    let turns = Arc::new(AtomicUsize::new(0));
    let mut others = JoinSet::new();
    others.spawn(take_turns(Arc::clone(&turns)));
    let mut seen = Vec::new();
    let entries = (0..5).map(|number| {
        seen.push((turns.load(Ordering::Relaxed), budget.in_use()));
        letter(number)
    });
    let room = Room::Reserve(budget.try_acquire(600).unwrap());
    let pushed = pusher.deliver(&push(), entries, room).await;
    assert!(matches!(pushed, Pushed::Durable { quarantined: 5, .. }));
    assert_eq!(seen, [(seen[0].0, 600); 5]);
    assert_eq!(budget.in_use(), 0);
}

#[tokio::test]
async fn the_store_has_its_time_for_what_the_journal_refuses_only_while_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let sync_fails = Arc::clone(&fails);
    let journal = Journal::open(JournalOptions {
        sync: Arc::new(move |file: &File| {
            if sync_fails.load(Ordering::SeqCst) {
                return Err(std::io::Error::other("no sync today"));
            }
            file.sync_data()
        }),
        ..JournalOptions::new(dir.path().to_owned(), 1 << 20)
    })
    .unwrap();
    let budget = Budget::new(1000);
    fails.store(true, Ordering::SeqCst);
    let refused = Pusher {
        until: Instant::now(),
        ..pusher(&budget, Some(journal.clone()))
    };
    let room = Room::Reserve(budget.try_acquire(0).unwrap());
    let pushed = refused.deliver(&push(), (0..1).map(letter), room).await;
    let Pushed::Unavailable(reason) = pushed else {
        panic!("{pushed:?}");
    };
    let both = "no acknowledgement in time, and the journal cannot";
    assert!(reason.starts_with(both), "{reason}");

    fails.store(false, Ordering::SeqCst);
    let mut taken = pusher(&budget, Some(journal));
    taken.courier.ack_timeout = Duration::from_millis(1);
    let room = Room::InFlight(budget.try_acquire(0).unwrap());
    let push = push();
    let delivery = taken.deliver(&push, (0..1).map(letter), room);
    let pushed = timeout(PATIENCE / 2, delivery).await.unwrap();
    assert!(matches!(pushed, Pushed::Durable { quarantined: 1, .. }));
}

#[tokio::test]
async fn a_push_that_nothing_takes_in_time_leaves_the_source_blocked() {
    let budget = Budget::new(1000);
    let pusher = Pusher {
        until: Instant::now(),
        ..pusher(&budget, None)
    };
    let status = Arc::clone(&pusher.courier.status);
    let room = Room::InFlight(budget.try_acquire(0).unwrap());
    let pushed = pusher.deliver(&push(), (0..1).map(letter), room).await;
    assert!(matches!(pushed, Pushed::Unavailable(_)), "{pushed:?}");
    assert_eq!(status.view().state, SourceState::Blocked);
}

/// As where the disk of the journal hangs.
#[tokio::test]
async fn a_push_that_does_not_end_by_itself_is_given_up_and_leaves_the_source_blocked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.db");
    let store = SqliteStore::open(&path, PATIENCE, &Collections::default()).unwrap();
    let courier = pusher(&Budget::new(1000), None).courier;
    let status = Arc::clone(&courier.status);
    let args = AcceptorArgs {
        courier,
        store: Arc::new(store),
        journal: None,
        batch_events: 1,
        patience: Duration::from_millis(50),
        progress: Progress::on_demand(),
        probe: Probe::default(),
    };
    let spawned = Actor::spawn(None, Acceptor, args).await;
    let (acceptor, ended) = spawned.unwrap();
    let job: Job = Box::new(|_| Box::pin(std::future::pending::<Pushed>()));
    let (reply, answer) = tokio::sync::oneshot::channel::<Pushed>();
    let sent = acceptor.cast(AcceptorMessage::Push(job, reply.into()));
    assert!(sent.is_ok());
    let pushed = timeout(PATIENCE, answer).await.unwrap().unwrap();
    let reason = "the push took too long".to_owned();
    assert_eq!(pushed, Pushed::Unavailable(reason.clone()));
    let view = status.view();
    assert_eq!(view.state, SourceState::Blocked);
    assert_eq!(view.reason, Some(reason));
    acceptor.stop(None);
    ended.await.unwrap();
}

/// As `daybook check --online` sends it.
#[tokio::test]
async fn a_push_of_nothing_does_not_say_that_pushes_are_taken_again() {
    let budget = Budget::new(1000);
    let pusher = pusher(&budget, None);
    let status = Arc::clone(&pusher.courier.status);
    status.set_state(SourceState::Blocked, Some("the store is away".to_owned()));
    let room = Room::InFlight(budget.try_acquire(0).unwrap());
    let pushed = pusher.deliver(&push(), std::iter::empty(), room).await;
    assert!(matches!(pushed, Pushed::Durable { received: 0, .. }));
    let view = status.view();
    assert_eq!(view.state, SourceState::Blocked);
    assert_eq!(view.reason.as_deref(), Some("the store is away"));
}

#[tokio::test]
async fn at_the_end_of_a_detour_one_push_tries_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(dir.path().to_owned(), 1 << 20);
    let journal = Journal::open(options).unwrap();
    journal.append(push()).await.unwrap();
    let detour = Detour(Arc::new(Mutex::new(Some(Instant::now()))));
    assert!(!detour.is_taken(&journal));
    assert!(detour.is_taken(&journal));
    detour.leave();
    assert!(!detour.is_taken(&journal));
}
