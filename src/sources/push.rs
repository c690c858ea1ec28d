//! The acceptor: the actor of a source whose events are pushed to Daybook.
//!
//! A connection's task hands over a job (decode this body, deliver it) and waits. The jobs run
//! beside each other, owned by the actor's state: when the actor ends, however it ends, they end
//! with it, and every waiting connection hears its reply port close and answers 503, so that the
//! sender sends again. The answer is 200 only for what is durable: in the store, or in the journal
//! when the store does not take it in time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daybook_actors::budget::Permit;
use daybook_actors::liveness::Progress;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::batch::{Batch, Entry, take_batch};
use crate::journal::{Journal, PushRecord};
use crate::probe::Probe;
use crate::sources::courier::{Courier, Undurable};
use crate::sources::drainer::guarded;
use crate::status::{CursorView, SourceState, SourceStatus};
use crate::store::Store;
use crate::tenants;

/// How long a push may take in all, unless the tree says otherwise. Stalwart gives up after 30 s
/// and sends again.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long the store may take for a batch before the push goes to the journal.
pub const JOURNAL_AFTER: Duration = Duration::from_secs(2);
// Or a slow directory of tenants would send pushes to the journal, and the store be blamed for it.
const _: () = assert!(tenants::PATIENCE_OF_PUSHES.as_millis() * 2 < JOURNAL_AFTER.as_millis());

const LATE: &str = "the store is late";
/// After a store that was late, pushes go straight to the journal for so long, or until it is
/// drained: then one push finds out whether the store is still late, not every one.
const DETOUR: Duration = Duration::from_secs(5);
/// A store that does not tell of the cursor is asked again after this.
const CURSOR_RETRY: Duration = Duration::from_secs(1);
/// When no push came in vain for so long, none finds out whether they are taken again.
const QUIET: Duration = Duration::from_secs(5);

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// So many events are durable and so many pieces are quarantined, durably.
    Durable {
        /// Events.
        received: u64,
        /// Dead letters.
        quarantined: u64,
    },
    /// Not durable: to be sent again.
    Unavailable(String),
}

/// What pays for a push's bytes in memory.
#[derive(Debug)]
pub enum Room {
    /// Bytes in flight: the push goes to the store.
    InFlight(Permit),
    /// The journal's reserve, because too much is in flight: the push goes to the journal.
    Reserve(Permit),
}

impl Room {
    /// The bytes paid for.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::InFlight(permit) | Self::Reserve(permit) => permit.bytes(),
        }
    }
}

/// A job: runs with the source's way downstream.
pub type Job = Box<dyn FnOnce(Pusher) -> Pin<Box<dyn Future<Output = Pushed> + Send>> + Send>;

/// What the acceptor is told.
pub enum AcceptorMessage {
    /// Run this job and answer.
    Push(Job, RpcReplyPort<Pushed>),
}

/// The actor.
pub struct Acceptor;

/// What the acceptor works with.
#[derive(Clone)]
pub struct AcceptorArgs {
    /// Its way downstream.
    pub courier: Courier,
    /// Which knows how far former runs came.
    pub store: Arc<dyn Store>,
    /// Where pushes go that the store does not take.
    pub journal: Option<Journal>,
    /// Events a batch.
    pub batch_events: usize,
    /// How long a push may take in all.
    pub patience: Duration,
    /// Shown while a message is handled.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct AcceptorState {
    args: AcceptorArgs,
    detour: Detour,
    jobs: JoinSet<()>,
    /// Told of each push that left the source blocked.
    blocked: Arc<Notify>,
    /// Nobody waits for what is done here: pushes are taken while the store is away, too.
    aside: JoinSet<()>,
}

impl Actor for Acceptor {
    type Msg = AcceptorMessage;
    type State = AcceptorState;
    type Arguments = AcceptorArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: AcceptorArgs,
    ) -> Result<AcceptorState, ActorProcessingErr> {
        Ok(AcceptorState {
            args,
            detour: Detour::default(),
            jobs: JoinSet::new(),
            blocked: Arc::default(),
            aside: JoinSet::new(),
        })
    }

    async fn post_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut AcceptorState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state.args.probe.hit("post_start").await?;
        let courier = &state.args.courier;
        let status = &courier.status;
        status.stood(CursorView::default());
        let store = Arc::clone(&state.args.store);
        state.aside.spawn(look_up(store, Arc::clone(status)));
        let blocked = Arc::clone(&state.blocked);
        state.aside.spawn(unblock(courier.clone(), blocked));
        status.set_state(SourceState::Running, None);
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: AcceptorMessage,
        state: &mut AcceptorState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        let AcceptorMessage::Push(job, reply) = message;
        state.args.probe.hit("after_read").await?;
        let pusher = Pusher {
            courier: state.args.courier.clone(),
            journal: state.args.journal.clone(),
            detour: state.detour.clone(),
            batch_events: state.args.batch_events,
            probe: state.args.probe.clone(),
            until: Instant::now() + state.args.patience,
        };
        // A job keeps its time by itself; one that does not is dropped with all that it holds.
        let given_up = pusher.until + state.args.patience / 4;
        let blocked = Arc::clone(&state.blocked);
        let status = Arc::clone(&state.args.courier.status);
        state.jobs.spawn(async move {
            let pushed = tokio::time::timeout_at(given_up.into(), job(pusher)).await;
            let late = |_| {
                let reason = "the push took too long".to_owned();
                status.set_state(SourceState::Blocked, Some(reason.clone()));
                Pushed::Unavailable(reason)
            };
            let pushed = pushed.unwrap_or_else(late);
            if status.view().state == SourceState::Blocked {
                blocked.notify_one();
            }
            // A sender that has hung up meanwhile gets no answer and sends again.
            let _gone = reply.send(pushed);
        });
        while state.jobs.try_join_next().is_some() {}
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut AcceptorState,
    ) -> Result<(), ActorProcessingErr> {
        while state.jobs.join_next().await.is_some() {}
        state.aside.shutdown().await;
        state
            .args
            .courier
            .status
            .set_state(SourceState::Stopped, None);
        Ok(())
    }
}

/// Notes where the source's cursor stands, as soon as the store tells.
async fn look_up(store: Arc<dyn Store>, status: Arc<SourceStatus>) {
    let cursors = loop {
        match store.cursors().await {
            Ok(cursors) => break cursors,
            Err(_away) => tokio::time::sleep(CURSOR_RETRY).await,
        }
    };
    let mut cursors = cursors.into_iter();
    if let Some(cursor) = cursors.find(|cursor| cursor.source == status.name.as_str()) {
        status.stood(CursorView {
            last_event_at: cursor.last_event_at,
            last_event_id: cursor.last_event_id,
            generation: cursor.generation,
        });
    }
}

/// Finds out with empty batches when pushes are taken again: there may never be another.
async fn unblock(courier: Courier, blocked: Arc<Notify>) {
    let status = &courier.status;
    loop {
        blocked.notified().await;
        while status.view().state == SourceState::Blocked {
            if timeout(QUIET, blocked.notified()).await.is_ok() {
                continue;
            }
            let reason = status.view().reason;
            let permit = courier.room(0).await;
            let nothing = Batch::pushed(status.name.clone(), Vec::new(), permit);
            let mut parcel = courier.parcel(nothing, 0);
            let delivered = courier.deliver_once(&mut parcel, PATIENCE).await;
            if delivered.is_ok() {
                courier.settle(parcel);
                status.set_state(SourceState::Running, None);
            } else if status.view().state == SourceState::Blocked {
                // The store's own reason does not say what becomes of pushes.
                status.set_state(SourceState::Blocked, reason);
            }
        }
    }
}

/// What a job delivers with.
pub struct Pusher {
    courier: Courier,
    journal: Option<Journal>,
    detour: Detour,
    batch_events: usize,
    probe: Probe,
    until: Instant,
}

/// Until when pushes of this source go straight to the journal.
#[derive(Clone, Default)]
struct Detour(Arc<Mutex<Option<Instant>>>);

impl Detour {
    /// At its end one push tries the store, and the others take it until that one knows more.
    fn is_taken(&self, journal: &Journal) -> bool {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = *until else {
            return false;
        };
        let now = Instant::now();
        if journal.is_empty() {
            *until = None;
        } else if now >= end {
            *until = Some(now + JOURNAL_AFTER);
        }
        until.is_some() && now < end
    }

    fn leave(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn take(&self) {
        let until = Instant::now() + DETOUR;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

#[derive(Default)]
struct Tally {
    received: u64,
    quarantined: u64,
}

impl Tally {
    fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Event(..) => self.received += 1,
            Entry::Dead(_) => self.quarantined += 1,
        }
    }

    /// `refused`: events that are dead letters instead.
    fn durable(&self, refused: u64) -> Pushed {
        let refused = refused.min(self.received);
        Pushed::Durable {
            received: self.received - refused,
            quarantined: self.quarantined + refused,
        }
    }
}

impl Pusher {
    /// Delivers a push's entries as they are decoded, a batch at a time, so that a large body is
    /// never in memory both raw and decoded. The room covers the body and travels with every batch.
    ///
    /// When the store does not take them, the push goes to the journal, whole: what is in the store
    /// already is recognised when it is drained. When the journal does not take it either, the store
    /// has all the time that there is.
    pub async fn deliver(
        self,
        push: &PushRecord,
        entries: impl Iterator<Item = Entry> + Send,
        room: Room,
    ) -> Pushed {
        let mut tally = Tally::default();
        let mut entries = guarded(push, entries).inspect(|entry| tally.count(entry));
        let straight = match &room {
            Room::InFlight(_) => self.is_detoured().then_some(LATE),
            Room::Reserve(_) => Some("too much is in flight"),
        };
        // Held until the push is counted, or refused.
        let (Room::InFlight(permit) | Room::Reserve(permit)) = room;
        let permit = Arc::new(permit);
        let is_journaled = match straight {
            Some(why) => self.to_journal(push, why, &permit).await.is_ok(),
            None => false,
        };
        let delivered = if is_journaled {
            Ok(0)
        } else {
            let asks_journal = straight.is_none() && self.journal.is_some();
            self.to_store(push, &mut entries, &permit, asks_journal)
                .await
        };
        let outcome = match delivered {
            Ok(refused) => Ok(refused),
            // There may be room in it by now.
            Err(Undelivered::Store(reason)) => {
                let appended = self.to_journal(push, &reason, &permit).await;
                appended.map(|()| 0)
            }
            Err(Undelivered::Struck(reason)) => Err(reason),
        };
        let refused = match outcome {
            Ok(refused) => refused,
            Err(reason) => return Pushed::Unavailable(reason),
        };
        // What is left is decoded only to be counted: nobody else must wait for all of it, but where
        // the push would be given up, durable as it is.
        while !take_batch(&mut entries, self.batch_events).is_empty() {
            if Instant::now() < self.until {
                tokio::task::yield_now().await;
            }
        }
        tally.durable(refused)
    }

    fn is_detoured(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|journal| self.detour.is_taken(journal))
    }

    /// `asks_journal`: whether the push goes there when the store refuses it or is late.
    async fn to_store(
        &self,
        push: &PushRecord,
        entries: &mut (impl Iterator<Item = Entry> + Send),
        permit: &Arc<Permit>,
        mut asks_journal: bool,
    ) -> Result<u64, Undelivered> {
        let mut refused = 0;
        let mut was_asked = false;
        loop {
            let chunk = take_batch(entries, self.batch_events);
            if chunk.is_empty() {
                break;
            }
            was_asked = true;
            let source = self.courier.status.name.clone();
            let batch = Batch::pushed(source, chunk, Arc::clone(permit));
            let mut parcel = self.courier.parcel(batch, 0);
            self.strike("in_job").await?;
            let left = self.until.saturating_duration_since(Instant::now());
            let at_most = left.min(JOURNAL_AFTER);
            if asks_journal
                && let Err(undurable) = self.courier.deliver_once(&mut parcel, at_most).await
            {
                let why = undurable.to_string();
                if self.to_journal(push, &why, permit).await.is_ok() {
                    // Not before: a detour ends when the journal is empty.
                    if undurable == Undurable::Late {
                        self.detour.take();
                    }
                    return Ok(0);
                }
                asks_journal = false;
            }
            // One that is durable already is only settled.
            let delivered = self.courier.deliver_within(parcel, self.until).await;
            refused += delivered.map_err(Undelivered::Store)?.kept_aside;
            self.detour.leave();
            self.strike("after_ack").await?;
        }
        // A push of nothing tells nothing of the store.
        if was_asked {
            self.courier.status.set_state(SourceState::Running, None);
        }
        Ok(refused)
    }

    /// A test's strike ends the push, not in the journal.
    async fn strike(&self, point: &'static str) -> Result<(), Undelivered> {
        let struck = self.probe.hit(point).await;
        struck.map_err(|struck| Undelivered::Struck(struck.to_string()))
    }

    async fn to_journal(
        &self,
        push: &PushRecord,
        why: &str,
        permit: &Arc<Permit>,
    ) -> Result<(), String> {
        let status = &self.courier.status;
        let blocked = |reason: String| status.set_state(SourceState::Blocked, Some(reason));
        let Some(journal) = &self.journal else {
            // Whoever refused it may have said more.
            if status.view().state != SourceState::Blocked {
                blocked(why.to_owned());
            }
            return Err(why.to_owned());
        };
        let appended = journal.append_paid(push.clone(), Arc::clone(permit)).await;
        if let Err(error) = appended {
            let reason = format!("{why}, and the {error}");
            blocked(reason.clone());
            return Err(reason);
        }
        blocked(format!("{why}: pushes go to the journal"));
        status.succeeded();
        Ok(())
    }
}

/// Why the store has not taken a push.
enum Undelivered {
    Store(String),
    Struck(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "push_tests.rs"]
mod tests;
