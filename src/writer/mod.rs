//! The batching writer: the only one that enters events and moves cursors.
//!
//! **Group commit.** An idle writer flushes what comes at once. While a flush is under way, what
//! arrives waits and goes together in the next one; a second flush runs beside the first when a
//! whole batch has gathered, or when something has waited for `batch_wait`.
//!
//! **Acks.** A batch is acknowledged when its records are durable and its cursor has moved, never
//! before. Whatever else happens, the source is told (a nack) or hears its reply port close, and
//! sends the same batch again; the unique key makes that harmless.
//!
//! **A store that is away is not a crash.** The breaker opens: batches are refused at once, so
//! that nothing piles up here, and a probe asks the store until it takes writes again. While there is
//! nothing to write a probe asks now and then, so that readiness does not rest on an old answer. A store that was
//! away, or has lost a cursor, may have lost its indexes too: it is prepared anew before anything is entered again.
//!
//! **A commit that the store had no time for** finds none the next time either. So for a while after one no commit is
//! large: a batch that is goes in parts, its cursor moves with the last, and no event is at fault. With each further one
//! parts are half as large.
//!
//! A flush is a task owned by the actor's state: when the actor is killed its flushes end with
//! it, and with them the reply ports they hold.

mod flush;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daybook_actors::liveness::Progress;
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use crate::batch::{Delivery, Nack};
use crate::config::WriterConfig;
use crate::probe::Probe;
use crate::store::{LearnedSpace, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// Entries of one commit at most, for so long after the store had no time for one, ...
const FEW: usize = 1000;
const WARY: Duration = Duration::from_secs(3600);
/// ... half as many each time that it happens again, not fewer than so many, and twice as many after each such time in
/// which it does not.
const FEWEST: usize = 50;
const CALM: Duration = Duration::from_secs(600);
/// Flushes that run at once.
const FLUSHES: usize = 2;
const PROBE_FIRST: Duration = Duration::from_millis(100);
const PROBE_CAP: Duration = Duration::from_secs(1);
/// So long after the store's last answer it is asked again. A commit that begins so soon after the store was shown as
/// up, and fails, shows that those which are taken say little.
const PROBE_IDLE: Duration = Duration::from_secs(5);
/// A probe answers quickly or is repeated: the store's own timeout is for real work.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a store that is away it is waited for until it has said why: for so long it looks for its server.
const PROBE_AWAY: Duration = Duration::from_secs(6);

/// A batch whose tenants are known.
pub struct Resolved {
    /// The batch, where to answer, and who handles it.
    pub delivery: Delivery,
    /// One per entry: the tenant's slug.
    pub tenants: Vec<Option<Arc<str>>>,
    /// Spaces that the resolver learned from this batch.
    pub learned: Vec<LearnedSpace>,
}

/// What the writer is told.
pub enum WriterMessage {
    /// Make this durable.
    Deliver(Box<Resolved>),
    /// A flush that began then ended so; `None`: it panicked.
    Flushed(Option<(Instant, Result<bool, StoreError>)>),
    /// `batch_wait` is over for the oldest waiting batch.
    Due,
    /// Ask the store whether it is back.
    Probe,
    /// What it answered; `true`: it was prepared too.
    Probed(Result<bool, StoreError>),
    /// Ask the store whether it is still there, if it was not heard of for long.
    Watch,
}

/// The actor.
pub struct Writer;

/// What the writer works with.
#[derive(Clone)]
pub struct WriterArgs {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// How batches form.
    pub config: WriterConfig,
    /// Flush figures and `store_up`.
    pub metrics: Metrics,
    /// Whether the store takes writes, for readiness.
    pub store_up: Arc<AtomicBool>,
    /// Shown while a message is handled and while a flush is under way.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

struct Waiting {
    resolved: Resolved,
    since: Instant,
}

enum Breaker {
    Closed,
    Open {
        reason: String,
        probe_delay: Duration,
    },
}

/// The store had no time for a commit.
#[derive(Clone, Copy)]
struct Late {
    at: Instant,
    /// Entries of the commits after it.
    most: usize,
}

type Timer = JoinHandle<Result<(), ractor::MessagingErr<WriterMessage>>>;

/// The actor's state.
pub struct WriterState {
    args: WriterArgs,
    waiting: VecDeque<Waiting>,
    waiting_entries: usize,
    /// And probes; what has ended goes with the next message.
    flushes: JoinSet<()>,
    running: usize,
    breaker: Breaker,
    /// When a commit failed last, until the store is believed to take writes again. A probe that is answered does not
    /// yet say so, as on a disk with room for a probe only.
    failed: Option<Instant>,
    /// The last time that the store had no time for a commit.
    late: Option<Late>,
    /// When it was shown as up last.
    believed: Option<Instant>,
    /// Some commits fail between others that are taken, as where a part of the store is damaged: none is believed until
    /// none has failed for a while.
    wavers: bool,
    /// The store may lack tables or indexes.
    to_prepare: bool,
    was_prepared: bool,
    /// Whether the store's first answer, good or bad, is there.
    answered: bool,
    /// When it answered last.
    heard: Instant,
    due: Option<Timer>,
    /// The only one: each closing of the breaker begins it anew.
    watching: Option<Timer>,
}

impl Actor for Writer {
    type Msg = WriterMessage;
    type State = WriterState;
    type Arguments = WriterArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: WriterArgs,
    ) -> Result<WriterState, ActorProcessingErr> {
        Ok(WriterState {
            args,
            waiting: VecDeque::new(),
            waiting_entries: 0,
            flushes: JoinSet::new(),
            running: 0,
            breaker: Breaker::Open {
                reason: "store has not answered yet".to_owned(),
                probe_delay: PROBE_FIRST,
            },
            failed: None,
            late: None,
            believed: None,
            wavers: false,
            to_prepare: true,
            was_prepared: false,
            answered: false,
            heard: Instant::now(),
            due: None,
            watching: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut WriterState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state.args.probe.hit("post_start").await?;
        myself.cast(WriterMessage::Probe)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: WriterMessage,
        state: &mut WriterState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        match message {
            WriterMessage::Deliver(mut resolved) => {
                resolved.delivery.in_mailbox = None;
                state.args.probe.hit("after_read").await?;
                state.take(*resolved);
            }
            WriterMessage::Flushed(None) => return Err("a flush panicked".into()),
            WriterMessage::Flushed(Some((began, outcome))) => {
                state.running -= 1;
                state.heard = Instant::now();
                match outcome {
                    Ok(true) => state.is_taken(),
                    Ok(false) => {}
                    Err(error) => {
                        state.open_breaker(&error, &myself);
                        let now = Instant::now();
                        state.failed = Some(now);
                        if let StoreError::Timeout { .. } = error {
                            state.note_late(began, now);
                        }
                        // By its beginning: what gets no answer fails only after the store's time.
                        let since = |at| began.saturating_duration_since(at);
                        state.wavers |= state.believed.is_some_and(|at| since(at) < PROBE_IDLE);
                    }
                }
            }
            WriterMessage::Due => state.due = None,
            WriterMessage::Probe => state.probe(&myself),
            WriterMessage::Probed(Ok(prepared)) => state.close_breaker(prepared, &myself),
            WriterMessage::Probed(Err(error)) => state.probe_again(&error, &myself),
            WriterMessage::Watch => state.watch(&myself),
        }
        state.flush_what_is_ready(&myself);
        while state.flushes.try_join_next().is_some() {}
        Ok(())
    }

    /// A graceful end: what was taken is finished first.
    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut WriterState,
    ) -> Result<(), ActorProcessingErr> {
        loop {
            while state.flushes.join_next().await.is_some() {}
            state.running = 0;
            if state.waiting.is_empty() || matches!(state.breaker, Breaker::Open { .. }) {
                return Ok(());
            }
            state.start_flush(&myself);
        }
    }
}

impl WriterState {
    fn take(&mut self, resolved: Resolved) {
        if resolved.delivery.reply.is_closed() {
            return;
        }
        // Until the store has answered for the first time batches wait: a start is no outage.
        if let (Breaker::Open { reason, .. }, true) = (&self.breaker, self.answered) {
            refuse(resolved, reason);
            return;
        }
        self.waiting_entries += resolved.tenants.len();
        self.waiting.push_back(Waiting {
            resolved,
            since: Instant::now(),
        });
    }

    fn flush_what_is_ready(&mut self, myself: &ActorRef<WriterMessage>) {
        while self.running < FLUSHES && matches!(self.breaker, Breaker::Closed) {
            let Some(oldest) = self.waiting.front() else {
                return;
            };
            let batch_wait = self.args.config.batch_wait;
            let whole = self.waiting_entries >= self.args.config.batch_events as usize;
            let waited = oldest.since.elapsed();
            if self.running > 0 && !whole && waited < batch_wait {
                if self.due.is_none() {
                    let rest = batch_wait - waited;
                    self.due = Some(myself.send_after(rest, || WriterMessage::Due));
                }
                return;
            }
            self.start_flush(myself);
        }
    }

    fn start_flush(&mut self, myself: &ActorRef<WriterMessage>) {
        let most = self.most(Instant::now());
        let limit = most.min(self.args.config.batch_events as usize);
        let mut taken = Vec::new();
        let mut entries = 0;
        while let Some(next) = self.waiting.pop_front() {
            let more = next.resolved.tenants.len();
            let suspect = next.resolved.delivery.suspect;
            // Who has given up sends it again, and what has no key would stand twice.
            if next.resolved.delivery.reply.is_closed() {
                self.waiting_entries -= more;
                continue;
            }
            if !taken.is_empty() && (suspect || entries + more > limit) {
                self.waiting.push_front(next);
                break;
            }
            entries += more;
            self.waiting_entries -= more;
            taken.push(next.resolved);
            if suspect {
                break;
            }
        }
        if taken.is_empty() {
            return;
        }
        self.running += 1;
        let began = Instant::now();
        let store = Arc::clone(&self.args.store);
        let metrics = self.args.metrics.clone();
        let report = ReportOnce::new(
            myself,
            |flushed| WriterMessage::Flushed(Some(flushed)),
            || WriterMessage::Flushed(None),
        );
        let progress = self.args.progress.clone();
        let probe = self.args.probe.clone();
        self.flushes.spawn(async move {
            let _working = progress.work();
            let divider = flush::Divider { most, progress };
            let outcome = flush::flush(store, taken, &divider, &metrics, &probe).await;
            report.send((began, outcome));
        });
    }

    /// Entries of one commit at most.
    fn most(&self, now: Instant) -> usize {
        let Some(late) = self.late else {
            return usize::MAX;
        };
        let past = now.saturating_duration_since(late.at);
        if past >= WARY {
            return usize::MAX;
        }
        let doublings = past.as_secs() / CALM.as_secs();
        (late.most << doublings).min(FEW)
    }

    /// The store had no time for a commit that began then.
    fn note_late(&mut self, began: Instant, now: Instant) {
        // One that began before the last such one ended may have been as large as that.
        if self.late.is_some_and(|late| began < late.at) {
            return;
        }
        let former = self.most(now);
        if former == usize::MAX {
            tracing::warn!("store had no time for a commit: for an hour, none is large");
        }
        let most = (former / 2).clamp(FEWEST, FEW);
        self.late = Some(Late { at: now, most });
    }

    fn open_breaker(&mut self, error: &StoreError, myself: &ActorRef<WriterMessage>) {
        self.may_lack(error);
        let reason = error.to_string();
        for waiting in self.waiting.drain(..) {
            refuse(waiting.resolved, &reason);
        }
        self.waiting_entries = 0;
        if let Breaker::Open { reason: known, .. } = &mut self.breaker {
            *known = reason;
            return;
        }
        let probe_delay = if self.failed.is_some() {
            PROBE_CAP
        } else {
            tracing::warn!(error = %error, "store is away: batches are refused until it takes writes again");
            self.show_store(false);
            PROBE_FIRST
        };
        self.breaker = Breaker::Open {
            reason,
            probe_delay,
        };
        // Detached: a probe that fires after the actor's end reaches nobody.
        let _timer = myself.send_after(probe_delay, || WriterMessage::Probe);
    }

    /// What was away may come back empty.
    fn may_lack(&mut self, error: &StoreError) {
        let was_away = matches!(
            error,
            StoreError::Unavailable(_) | StoreError::Timeout { .. }
        );
        self.to_prepare |= was_away;
    }

    /// A commit went through.
    fn is_taken(&mut self) {
        let failed = self.failed.map(|at| at.elapsed());
        let is_over = failed.is_some_and(|past| !self.wavers || past >= PROBE_IDLE);
        if is_over && matches!(self.breaker, Breaker::Closed) {
            self.failed = None;
            self.wavers = false;
            self.show_store(true);
            tracing::info!("store takes writes");
        }
    }

    /// After this the store's next answer is waited for, or asked for when none comes for long.
    fn close_breaker(&mut self, prepared: bool, myself: &ActorRef<WriterMessage>) {
        self.heard = Instant::now();
        self.watch_after(PROBE_IDLE, myself);
        self.answered = true;
        if prepared {
            self.to_prepare = false;
            self.was_prepared = true;
        }
        if matches!(self.breaker, Breaker::Closed) {
            // Nothing was to be committed for a while.
            self.is_taken();
            return;
        }
        if self.to_prepare {
            // It was asked before that was known.
            self.probe(myself);
            return;
        }
        self.breaker = Breaker::Closed;
        if self.failed.is_none() {
            self.show_store(true);
            tracing::info!("store takes writes");
        }
    }

    /// A breaker that is open has a probe of its own, and this begins again when it closes.
    fn watch(&mut self, myself: &ActorRef<WriterMessage>) {
        if matches!(self.breaker, Breaker::Open { .. }) {
            return;
        }
        let rest = PROBE_IDLE.saturating_sub(self.heard.elapsed());
        if rest.is_zero() && self.running == 0 {
            self.probe(myself);
            return;
        }
        // A flush that is under way answers itself.
        let rest = if rest.is_zero() { PROBE_IDLE } else { rest };
        self.watch_after(rest, myself);
    }

    fn watch_after(&mut self, rest: Duration, myself: &ActorRef<WriterMessage>) {
        let timer = myself.send_after(rest, || WriterMessage::Watch);
        if let Some(former) = self.watching.replace(timer) {
            former.abort();
        }
    }

    fn show_store(&mut self, up: bool) {
        if up {
            self.believed = Some(Instant::now());
        }
        self.args.store_up.store(up, Ordering::Release);
        self.args.metrics.store_up.set(if up { 1.0 } else { 0.0 });
    }

    fn probe(&mut self, myself: &ActorRef<WriterMessage>) {
        let store = Arc::clone(&self.args.store);
        let (to_prepare, was_prepared) = (self.to_prepare, self.was_prepared);
        let patience = match self.breaker {
            Breaker::Closed => PROBE_TIMEOUT,
            Breaker::Open { .. } => PROBE_AWAY,
        };
        let probed = was_prepared.then_some(patience);
        let report = ReportOnce::new(myself, WriterMessage::Probed, || {
            WriterMessage::Probed(Err(StoreError::Other("a probe panicked".to_owned())))
        });
        self.flushes.spawn(async move {
            report.send(ask(&*store, probed, to_prepare).await);
        });
    }

    fn probe_again(&mut self, error: &StoreError, myself: &ActorRef<WriterMessage>) {
        self.answered = true;
        if matches!(self.breaker, Breaker::Closed) {
            self.args.metrics.store_errors(error.reason()).increment(1);
            self.open_breaker(error, myself);
            return;
        }
        self.may_lack(error);
        for waiting in self.waiting.drain(..) {
            refuse(waiting.resolved, &error.to_string());
        }
        self.waiting_entries = 0;
        self.show_store(false);
        self.args.metrics.store_errors(error.reason()).increment(1);
        let delay = match &mut self.breaker {
            Breaker::Closed => return,
            Breaker::Open {
                reason,
                probe_delay,
            } => {
                if *probe_delay == PROBE_FIRST {
                    tracing::warn!(error = %error, "store does not take writes");
                }
                *reason = error.to_string();
                *probe_delay = (*probe_delay * 2).min(PROBE_CAP);
                *probe_delay
            }
        };
        let _timer = myself.send_after(delay, || WriterMessage::Probe);
    }
}

/// Whether it was prepared too. One that is still away is found so by the ping, if it is `probed` for so long at most;
/// else the ping comes last: where nothing is missing, to prepare the store writes nothing.
async fn ask(
    store: &dyn Store,
    probed: Option<Duration>,
    to_prepare: bool,
) -> Result<bool, StoreError> {
    if let Some(patience) = probed {
        probe_once(store, patience).await?;
    }
    if to_prepare {
        store.prepare().await?;
        if probed.is_none() {
            probe_once(store, PROBE_AWAY).await?;
        }
        store.begin_upkeep();
    }
    Ok(to_prepare)
}

async fn probe_once(store: &dyn Store, patience: Duration) -> Result<(), StoreError> {
    tokio::time::timeout(patience, store.ping())
        .await
        .unwrap_or(Err(StoreError::Timeout {
            what: "a probe",
            after: patience,
        }))
}

fn refuse(resolved: Resolved, reason: &str) {
    flush::answer(
        resolved.delivery,
        Err(Nack::Unavailable {
            retry_after: Duration::from_millis(200),
            reason: reason.to_owned(),
        }),
    );
}

/// Tells the writer how a flush or a probe ended, also when it panicked. A writer that has ended
/// meanwhile hears nothing and needs nothing.
struct ReportOnce<T> {
    writer: Option<ActorRef<WriterMessage>>,
    ended: fn(T) -> WriterMessage,
    panicked: fn() -> WriterMessage,
}

impl<T> ReportOnce<T> {
    fn new(
        writer: &ActorRef<WriterMessage>,
        ended: fn(T) -> WriterMessage,
        panicked: fn() -> WriterMessage,
    ) -> Self {
        Self {
            writer: Some(writer.clone()),
            ended,
            panicked,
        }
    }

    fn send(mut self, outcome: T) {
        if let Some(writer) = self.writer.take() {
            let _gone = writer.cast((self.ended)(outcome));
        }
    }
}

impl<T> Drop for ReportOnce<T> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _gone = writer.cast((self.panicked)());
        }
    }
}
