//! The tailer: one chunk of lines a message, each delivered before the next is sent.
//!
//! While a chunk is under way the next one is read and decoded, so that neither the store nor the
//! reader waits for the other.
//!
//! The doorbell (see [`crate::tail::Doorbell`]) only says "look"; everything else is in the file and
//! in the cursor. File access runs on the blocking pool.
//!
//! A chunk is read first and then waits for room in flight: who has nothing to send holds no room,
//! and what is read and waits is one chunk beside the one under way. While anything is waited for, room or ack, the
//! path is watched on: a file that takes the place of another is opened and held, so that it may be
//! rotated away and deleted before its turn comes.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daybook_actors::budget::Permit;
use daybook_actors::liveness::Progress;
use jiff::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::batch::{Batch, Entry};
use crate::config::OcisConfig;
use crate::probe::Probe;
use crate::sources::courier::{Attempt, Courier, FENCED_RETRY, Parcel};
use crate::status::{CursorView, SourceState};
use crate::store::{CursorStep, Store};
use crate::tail::{Doorbell, FileEvent, TailCursor, TailOptions, Tailer};

use super::backlog::Backlog;
use super::gaps::gap_entries;
use super::reading::{Decoding, GAP_BYTES, Read, ReadChunk, Reading};
use super::skim::is_plain_read;

/// Bytes sent at once, if the source's share of the bytes in flight is not smaller.
const CHUNK_BYTES: u64 = 2 << 20;
/// While a doorbell works the timer is only its understudy.
const QUICK_POLL: Duration = Duration::from_millis(250);
/// While something is waited for, the path is watched so often.
const WATCH: Duration = Duration::from_secs(1);
/// How long a new generation waits for a read that the former has begun, and what is in hand for a
/// watch.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// A watch that takes longer is said to hang: the disk of a file server is slow at times.
const WATCH_PATIENCE: Duration = Duration::from_secs(5);
const CLAIM_RETRY: Duration = Duration::from_millis(500);

/// What the tailer is told.
pub enum TailerMessage {
    /// Get the cursor from the store.
    Claim,
    /// Something may have happened at the file.
    Look,
    /// Send the waiting parcel again.
    Resume,
}

/// The actor.
pub struct LogTailer;

/// What the tailer works with.
#[derive(Clone)]
pub struct TailerArgs {
    /// Its configuration.
    pub config: OcisConfig,
    /// Lines a batch.
    pub batch_events: usize,
    /// Where its cursor is.
    pub store: Arc<dyn Store>,
    /// Its way downstream.
    pub courier: Courier,
    /// One read of the files at a time. A disk that hangs keeps the thread that reads, whoever is
    /// killed meanwhile, and the successor must not spend another on it.
    pub reads: Arc<Semaphore>,
    /// The last place that was durable, whichever incarnation has reached it: the store may lose its
    /// cursor.
    pub place: Arc<Mutex<Value>>,
    /// Shown while a message is handled.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

impl TailerArgs {
    fn place(&self) -> MutexGuard<'_, Value> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hanging(&self) -> String {
        let path = self.config.path.display();
        format!("a read of {path} has not come back: its disk hangs")
    }
}

/// The actor's state.
pub struct TailerState {
    args: TailerArgs,
    tailer: Option<Tailer>,
    /// Has the tailer, and brings it back with what comes after the parcel.
    reading: Option<JoinHandle<(Tailer, Reading)>>,
    /// Has the tailer, and brings it back with the bytes behind it.
    watching: Option<JoinHandle<(Tailer, u64)>>,
    /// What comes after the parcel.
    ahead: Option<Reading>,
    /// What is durable, to be freed by the next reading: that takes milliseconds.
    spent: Option<Arc<Vec<Entry>>>,
    generation: u64,
    seq: u64,
    parcel: Option<(Parcel, u64)>,
    look_pending: Arc<AtomicBool>,
    doorbell: JoinSet<()>,
    timer: Option<AbortHandle>,
    backlog: Backlog,
    /// Bytes known to stand in the files that are not durable.
    unread: u64,
    missing: bool,
    was_there: bool,
}

impl Drop for TailerState {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

impl Actor for LogTailer {
    type Msg = TailerMessage;
    type State = TailerState;
    type Arguments = TailerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: TailerArgs,
    ) -> Result<TailerState, ActorProcessingErr> {
        Ok(TailerState {
            args,
            tailer: None,
            reading: None,
            watching: None,
            ahead: None,
            spent: None,
            generation: 0,
            seq: 0,
            parcel: None,
            look_pending: Arc::new(AtomicBool::new(false)),
            doorbell: JoinSet::new(),
            timer: None,
            backlog: Backlog::default(),
            unread: 0,
            missing: false,
            was_there: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut TailerState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state
            .args
            .courier
            .status
            .set_state(SourceState::Starting, None);
        state.args.probe.hit("post_start").await?;
        myself.cast(TailerMessage::Claim)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: TailerMessage,
        state: &mut TailerState,
    ) -> Result<(), ActorProcessingErr> {
        let progress = state.args.progress.clone();
        let _working = progress.work();
        match message {
            TailerMessage::Claim => state.claim(&myself).await,
            TailerMessage::Look => {
                state.look_pending.store(false, Ordering::Release);
                if state.parcel.is_none() {
                    state.look(&myself).await?;
                }
                Ok(())
            }
            TailerMessage::Resume => state.resume(&myself).await,
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut TailerState,
    ) -> Result<(), ActorProcessingErr> {
        state
            .args
            .courier
            .status
            .set_state(SourceState::Stopped, None);
        Ok(())
    }
}

impl TailerState {
    fn hang_doorbell(&mut self, myself: &ActorRef<TailerMessage>) {
        let path = self.args.config.path.clone();
        let poll = self.args.config.poll;
        let pending = Arc::clone(&self.look_pending);
        let tailer = myself.clone();
        self.doorbell.spawn(async move {
            let mut doorbell = Doorbell::new(path, poll, QUICK_POLL.min(poll));
            loop {
                doorbell.rang().await;
                // One waiting look sees everything that has happened until it is handled.
                if !pending.swap(true, Ordering::AcqRel)
                    && tailer.cast(TailerMessage::Look).is_err()
                {
                    return;
                }
            }
        });
    }

    fn look_again(&self, myself: &ActorRef<TailerMessage>) {
        if !self.look_pending.swap(true, Ordering::AcqRel) {
            // An actor that has ended meanwhile looks no more.
            let _ended = myself.cast(TailerMessage::Look);
        }
    }

    fn arm(
        &mut self,
        after: Duration,
        myself: &ActorRef<TailerMessage>,
        message: fn() -> TailerMessage,
    ) {
        let timer = myself.send_after(after, message).abort_handle();
        if let Some(former) = self.timer.replace(timer) {
            former.abort();
        }
    }

    async fn claim(&mut self, myself: &ActorRef<TailerMessage>) -> Result<(), ActorProcessingErr> {
        let status = Arc::clone(&self.args.courier.status);
        if timeout(READ_PATIENCE, self.args.reads.acquire())
            .await
            .is_err()
        {
            status.set_state(SourceState::Failing, Some(self.args.hanging()));
            self.arm(CLAIM_RETRY, myself, || TailerMessage::Claim);
            return Ok(());
        }
        // It needs a thread of its own to be set up, which a disk that hangs keeps too.
        if self.doorbell.is_empty() {
            self.hang_doorbell(myself);
        }
        let cursor = match self.args.store.claim_cursor(&status.name).await {
            Ok(cursor) => cursor,
            Err(error) => {
                status.set_state(SourceState::Blocked, Some(error.to_string()));
                self.arm(CLAIM_RETRY, myself, || TailerMessage::Claim);
                return Ok(());
            }
        };
        self.let_go();
        self.generation = cursor.generation;
        self.seq = cursor.seq;
        self.parcel = None;
        status.claimed(cursor.seq);
        let is_stored = !cursor.detail.is_null();
        let detail = if is_stored {
            cursor.detail
        } else {
            self.args.place().clone()
        };
        // Starting over would be safe (the keys are the same) but must not happen unnoticed:
        // a cursor that cannot be read is a crash, seen in restarts and status.
        let place: Option<TailCursor> = serde_json::from_value(detail.clone())
            .map_err(|error| format!("stored cursor cannot be read: {error}"))?;
        if !is_stored && place.is_some() {
            tracing::warn!(
                source = %status.name,
                "the store has lost the cursor: the file that was being read is read again from its beginning"
            );
        }
        *self.args.place() = detail;
        status.set_cursor(CursorView {
            last_event_at: cursor.last_event_at,
            last_event_id: cursor.last_event_id,
            generation: cursor.generation,
        });
        let options = TailOptions {
            max_line: self.args.config.max_line.bytes(),
            chunk_bytes: self.chunk_bytes(),
            max_lines: self
                .args
                .batch_events
                .saturating_mul(self.args.store.inserts_a_chunk()),
            skips: (!self.args.config.include_reads).then_some(is_plain_read),
            // Whoever claimed it before has looked, or was about to.
            earlier_look: (cursor.generation > 1).then_some(cursor.updated_at.into()),
            // Events may be lost with the cursor.
            from_beginning: !is_stored,
            ..TailOptions::new(self.args.config.path.clone())
        };
        self.tailer = Some(Tailer::open(options, place));
        self.look_again(myself);
        Ok(())
    }

    /// Forgets what was read: it is read again from the stored cursor on.
    fn let_go(&mut self) {
        self.tailer = None;
        self.reading = None;
        self.watching = None;
        self.ahead = None;
    }

    fn chunk_bytes(&self) -> usize {
        let most = CHUNK_BYTES.min(self.args.courier.share.limit());
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    fn start_reading(&mut self) {
        if self.ahead.is_some() {
            return;
        }
        let Some(tailer) = self.tailer.take() else {
            return;
        };
        let decoding = Decoding {
            source: self.args.courier.status.name.clone(),
            include_reads: self.args.config.include_reads,
        };
        let spent = self.spent.take();
        let probe = self.args.probe.clone();
        self.reading = Some(self.aside(move || {
            drop(spent);
            let _struck = probe.hit_blocking("in_read");
            Reading::make(tailer, &decoding)
        }));
    }

    /// Works on the files, which blocks.
    fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // Nobody else reads since this generation has begun.
        let read = Arc::clone(&self.args.reads).try_acquire_owned();
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(read);
            done
        })
    }

    /// Waits for what is being read. Cancel-safe.
    async fn finish_reading(&mut self) -> Result<(), ActorProcessingErr> {
        if let Some(reading) = &mut self.reading {
            let (tailer, reading) = reading.await?;
            self.reading = None;
            self.missing = tailer.is_missing();
            self.was_there |= tailer.position().is_some();
            self.tailer = Some(tailer);
            self.ahead = Some(reading);
        }
        Ok(())
    }

    async fn look(&mut self, myself: &ActorRef<TailerMessage>) -> Result<(), ActorProcessingErr> {
        self.finish_watching().await?;
        self.start_reading();
        self.finish_reading().await?;
        let Some(reading) = self.ahead.take() else {
            return Ok(());
        };
        let (behind, half_line) = (reading.behind, reading.half_line);
        if !matches!(reading.read, Ok(Read::Lines(_))) {
            self.spent = None;
        }
        match reading.read {
            Ok(Read::Lines(chunk)) => {
                self.knows(chunk.bytes + behind);
                let permit = self.room(chunk.bytes, chunk.charge()).await?;
                self.take_lines(chunk, permit);
                self.args.probe.hit("after_read").await?;
                self.deliver(myself).await
            }
            Ok(Read::Nothing {
                events,
                cursor_after,
            }) => {
                self.is_read_up_to_half_a_line(behind, half_line);
                let permit = self.room(0, GAP_BYTES * events.len() as u64).await?;
                self.take_silence(&events, cursor_after, permit);
                if self.parcel.is_some() {
                    return self.deliver(myself).await;
                }
                self.at_rest();
                Ok(())
            }
            Err(error) => {
                self.is_read_up_to_half_a_line(behind, half_line);
                self.args
                    .courier
                    .status
                    .set_state(SourceState::Failing, Some(error.to_string()));
                Ok(())
            }
        }
    }

    fn knows(&mut self, unread: u64) {
        self.unread = unread;
        self.backlog.holds(unread, Instant::now());
        let status = &self.args.courier.status;
        status.set_bytes_behind(unread);
        status.set_known_since(self.backlog.oldest());
    }

    /// Half a line is no event yet: it counts as bytes, but nothing lags.
    fn is_read_up_to_half_a_line(&mut self, behind: u64, half_line: u64) {
        self.knows(behind.saturating_sub(half_line));
        self.unread = behind;
        self.args.courier.status.set_bytes_behind(behind);
    }

    async fn room(&mut self, in_hand: u64, bytes: u64) -> Result<Permit, ActorProcessingErr> {
        let courier = self.args.courier.clone();
        self.while_watching(in_hand, courier.room(bytes)).await
    }

    /// Awaits what may take long, and watches the path meanwhile.
    async fn while_watching<T>(
        &mut self,
        in_hand: u64,
        outcome: impl Future<Output = T>,
    ) -> Result<T, ActorProcessingErr> {
        let pause = WATCH.min(self.args.config.poll);
        let mut outcome = pin!(outcome);
        loop {
            if let Ok(outcome) = timeout(pause, &mut outcome).await {
                return Ok(outcome);
            }
            // A disk that hangs must not keep what comes from elsewhere.
            tokio::select! {
                outcome = &mut outcome => return Ok(outcome),
                watched = self.watch(in_hand) => watched?,
            }
        }
    }

    /// Cancel-safe: whoever needs the tailer next waits for it.
    async fn watch(&mut self, in_hand: u64) -> Result<(), ActorProcessingErr> {
        self.args.progress.tick();
        if self.reading.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish_reading().await?;
        }
        if let Some(mut tailer) = self.tailer.take() {
            let probe = self.args.probe.clone();
            self.watching = Some(self.aside(move || {
                let _struck = probe.hit_blocking("in_watch");
                tailer.watch();
                let behind = tailer.bytes_behind();
                (tailer, behind)
            }));
        }
        if let Some(behind) = self.finish_watching().await? {
            let ahead = self.ahead.as_ref().map_or(0, Reading::bytes);
            self.knows(in_hand + ahead + behind);
        }
        Ok(())
    }

    /// Waits for a watch that is under way, and says so when that does not end. Cancel-safe.
    async fn finish_watching(&mut self) -> Result<Option<u64>, ActorProcessingErr> {
        let Some(watching) = &mut self.watching else {
            return Ok(None);
        };
        let status = &self.args.courier.status;
        let hanging = self.args.hanging();
        let (tailer, behind) = match timeout(WATCH_PATIENCE, &mut *watching).await {
            Ok(watched) => watched?,
            Err(_) => {
                // What the store has said stays: before it takes what is in hand, nothing is read.
                if status.view().state != SourceState::Blocked {
                    status.set_state(SourceState::Failing, Some(hanging.clone()));
                }
                watching.await?
            }
        };
        if status.view().reason == Some(hanging) {
            status.set_state(SourceState::Running, None);
        }
        self.watching = None;
        self.tailer = Some(tailer);
        Ok(Some(behind))
    }

    fn take_lines(&mut self, chunk: ReadChunk, permit: Permit) {
        self.log_events(&chunk.events);
        self.pack(
            chunk.entries,
            chunk.filtered,
            chunk.bytes,
            &chunk.cursor_after,
            permit,
        );
    }

    fn take_silence(
        &mut self,
        events: &[FileEvent],
        cursor_after: Option<TailCursor>,
        permit: Permit,
    ) {
        self.log_events(events);
        let entries = gap_entries(events, &self.args.courier.status.name, Timestamp::now());
        let place = cursor_after.or_else(|| {
            let tailer = self.tailer.as_ref()?;
            (!entries.is_empty()).then(|| tailer.cursor()).flatten()
        });
        match place {
            Some(place) => self.pack(entries, 0, 0, &place, permit),
            // A gap before any file is there again: nothing to move, the event goes alone.
            None if !entries.is_empty() => {
                let batch = Batch::new(
                    self.args.courier.status.name.clone(),
                    self.generation,
                    entries,
                    permit,
                );
                self.parcel = Some((self.args.courier.parcel(batch, 0), 0));
            }
            None => {}
        }
    }

    fn pack(
        &mut self,
        entries: Vec<Entry>,
        filtered: u64,
        bytes: u64,
        place: &TailCursor,
        permit: Permit,
    ) {
        let detail = serde_json::to_value(place).unwrap_or(Value::Null);
        // A place that moved without a line (a rotation) still is a step.
        let step = bytes.max(1);
        let mut batch = Batch::new(
            self.args.courier.status.name.clone(),
            self.generation,
            entries,
            permit,
        )
        .with_step(self.seq, self.seq + step, detail);
        batch.last_event_id = place.awaited.is_none().then(|| place.last_event_id());
        self.parcel = Some((self.args.courier.parcel(batch, filtered), bytes));
    }

    async fn resume(&mut self, myself: &ActorRef<TailerMessage>) -> Result<(), ActorProcessingErr> {
        // A disk that hangs must not keep what is in hand for longer.
        if let Some((_, bytes)) = self.parcel
            && let Ok(watched) = timeout(READ_PATIENCE, self.watch(bytes)).await
        {
            watched?;
        }
        self.deliver(myself).await
    }

    async fn deliver(
        &mut self,
        myself: &ActorRef<TailerMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let Some((mut parcel, bytes)) = self.parcel.take() else {
            return Ok(());
        };
        let courier = self.args.courier.clone();
        self.start_reading();
        let attempt = courier.attempt(&mut parcel);
        match self.while_watching(bytes, attempt).await? {
            Attempt::Durable => {
                self.args.probe.hit("after_ack").await?;
                if let CursorStep::Advance { to, detail, .. } = &parcel.batch().step {
                    self.seq = *to;
                    *self.args.place() = detail.clone();
                }
                self.backlog.made_durable(bytes);
                self.spent = Some(parcel.batch().spent());
                courier.settle(parcel);
                self.knows(self.unread.saturating_sub(bytes));
                self.at_rest();
                self.look_again(myself);
            }
            Attempt::Later(pause) => {
                self.args.probe.hit("in_retry").await?;
                self.parcel = Some((parcel, bytes));
                self.arm(pause, myself, || TailerMessage::Resume);
            }
            Attempt::Reload(reason) => {
                self.let_go();
                courier.status.set_state(SourceState::Blocked, Some(reason));
                self.arm(CLAIM_RETRY, myself, || TailerMessage::Claim);
            }
            Attempt::Fenced(reason) => {
                self.let_go();
                courier.status.set_state(SourceState::Fenced, Some(reason));
                self.arm(FENCED_RETRY, myself, || TailerMessage::Claim);
            }
        }
        Ok(())
    }

    fn at_rest(&self) {
        let status = &self.args.courier.status;
        status.succeeded();
        if !self.missing {
            status.set_state(SourceState::Running, None);
            return;
        }
        let path = self.args.config.path.display();
        if self.was_there {
            // So it is after every rotation until something happens: nothing to warn of.
            let reason =
                format!("no file at {path} since it was moved away; the next event makes it");
            status.set_state(SourceState::Running, Some(reason));
            return;
        }
        let reason = format!(
            "no file at {path}: it appears with the first event, if AUDIT_LOG_TO_FILE=true and AUDIT_FILEPATH are set"
        );
        status.set_state(SourceState::Warning, Some(reason));
    }

    fn log_events(&self, events: &[FileEvent]) {
        let source = &self.args.courier.status.name;
        for event in events {
            match event {
                FileEvent::Rotated { .. } | FileEvent::Truncated { .. } => {
                    if let Some(rotations) = &self.args.courier.status.metrics.rotations {
                        rotations.increment(1);
                    }
                    tracing::info!(%source, ?event, "file");
                }
                FileEvent::Gap { .. } => {
                    tracing::error!(%source, ?event, "lines were destroyed before they could be read");
                }
                _ => tracing::info!(%source, ?event, "file"),
            }
        }
    }
}
