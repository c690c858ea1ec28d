//! The journal's drainer: reads pushes back in the order in which they came, decodes them with
//! their source's decoder and delivers them under their source's name, like any other input.
//!
//! It works through the journal window by window. The entries of a window go out in one batch a
//! source, all of them at once, and the next window is read when every one of them is durable;
//! only then is the window gone from the journal. So the events of a source are entered in the
//! order in which they arrived, and a window's bytes bound the memory.
//!
//! The work is a task that the actor's state owns: it ends with the actor, however that ends, and
//! its end, which should never come, fails the actor.

use std::collections::HashMap;
use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daybook_actors::budget::Permit;
use daybook_actors::liveness::Progress;
use futures_util::future::join_all;
use jiff::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::batch::{BATCH_WEIGHT, Batch, Entry};
use crate::event::letter::mask_letter;
use crate::event::mask::SECRET_KEYS;
use crate::event::{DeadLetter, DeadLetterReason, SourceName, TenantHints};
use crate::journal::{Damage, Journal, PushKind, PushRecord, Stored, Window};
use crate::probe::Probe;
use crate::sources::courier::{Attempt, Courier};
use crate::sources::recorder::decode::{RequestContext, decode_alone, read_request};
use crate::sources::stalwart;
use crate::sources::stalwart::decode::BodyContext;
use crate::sources::text::{LetterContext, sha256_hex};
use crate::status::{SourceState, SourceStatus};
use crate::telemetry::metrics::Metrics;

/// The drainer's name among the sources.
pub const NAME: &str = "journal";
/// Reads at once, beside each other only where some hang: each keeps its thread, perhaps for ever, and
/// those after it may find another disk there.
pub const READS: usize = 3;
const WINDOW_BYTES: u64 = 1 << 20;
/// How long a read waits for one that a killed drainer has begun.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// A disk that fails is asked again after this.
const READ_RETRY: Duration = Duration::from_secs(5);

/// What the drainer is told: nothing; it is only stopped.
pub enum DrainerMessage {
    /// Its task has ended, which it never should.
    Ended(String),
}

/// The actor.
pub struct Drainer;

/// The ways downstream of the sources that push. Clones are the same ones.
pub type Couriers = Arc<Mutex<HashMap<SourceName, Courier>>>;

/// What the drainer works with.
#[derive(Clone)]
pub struct DrainerArgs {
    /// What it drains.
    pub journal: Journal,
    /// Its own way downstream: room in flight, and what is damaged.
    pub courier: Courier,
    /// The ways downstream of the sources that push.
    pub couriers: Couriers,
    /// For sources that are not configured any more.
    pub metrics: Metrics,
    /// Events a batch.
    pub batch_events: usize,
    /// One read of the journal at a time. A disk that hangs keeps the thread that reads, whoever is
    /// killed meanwhile, and the successor must not spend another on it.
    pub reads: Arc<Semaphore>,
    /// Shown while the journal is read or noted, and during a pause.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct DrainerState {
    status: Arc<SourceStatus>,
    draining: JoinSet<()>,
    stop: watch::Sender<bool>,
    work: Option<DrainerArgs>,
}

impl Actor for Drainer {
    type Msg = DrainerMessage;
    type State = DrainerState;
    type Arguments = DrainerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: DrainerArgs,
    ) -> Result<DrainerState, ActorProcessingErr> {
        Ok(DrainerState {
            status: Arc::clone(&args.courier.status),
            draining: JoinSet::new(),
            stop: watch::Sender::new(false),
            work: Some(args),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut DrainerState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(args) = state.work.take() else {
            return Err("started twice".into());
        };
        let _working = args.progress.work();
        args.probe.hit("post_start").await?;
        let stop = state.stop.subscribe();
        let report = ReportEnd(myself);
        let args = args.clone();
        state.draining.spawn(async move {
            let _report = report;
            Draining { args, stop }.run().await;
        });
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: DrainerMessage,
        _state: &mut DrainerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DrainerMessage::Ended(how) => Err(how.into()),
        }
    }

    /// A graceful end: what is on its way is finished first.
    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut DrainerState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop.send_replace(true);
        while state.draining.join_next().await.is_some() {}
        state.status.set_state(SourceState::Stopped, None);
        Ok(())
    }
}

/// Tells the actor that its task has ended, also when it panicked.
struct ReportEnd(ActorRef<DrainerMessage>);

impl Drop for ReportEnd {
    fn drop(&mut self) {
        let how = if std::thread::panicking() {
            "draining panicked"
        } else {
            "draining ended"
        };
        // After a graceful stop nobody listens any more.
        let _ended = self.0.cast(DrainerMessage::Ended(how.to_owned()));
    }
}

/// The drainer was stopped, or a test struck it.
struct Stopped;

struct Draining {
    args: DrainerArgs,
    stop: watch::Receiver<bool>,
}

/// What goes out for one source.
struct Load {
    courier: Courier,
    entries: Vec<Entry>,
    /// Of all entries, see [`Entry::weight`].
    weight: usize,
    received_at: Timestamp,
}

impl Draining {
    /// Until it is stopped.
    async fn run(mut self) {
        self.at_rest();
        while let Ok(()) = self.drain_window().await {}
    }

    fn at_rest(&self) {
        self.args
            .courier
            .status
            .set_state(SourceState::Running, None);
    }

    async fn drain_window(&mut self) -> Result<(), Stopped> {
        let journal = self.args.journal.clone();
        unless_stopped(&mut self.stop, journal.filled()).await?;
        let room = self.args.courier.share.acquire(WINDOW_BYTES);
        let mut permit = unless_stopped(&mut self.stop, room).await?;
        let window = match self.read().await? {
            Ok(window) => window,
            Err(reason) => {
                let status = &self.args.courier.status;
                status.set_state(SourceState::Failing, Some(reason));
                return self.pause(READ_RETRY).await;
            }
        };
        if window.bytes > permit.bytes() {
            // Only a record that is larger than a window; it passes alone.
            drop(permit);
            let room = self.args.courier.share.acquire(window.bytes);
            permit = unless_stopped(&mut self.stop, room).await?;
        }
        let next = window.next;
        self.deliver(window, permit.into()).await?;
        {
            let _working = self.args.progress.work();
            self.strike("after_ack").await?;
            journal.drained(next).await;
        }
        self.args.courier.status.succeeded();
        self.at_rest();
        Ok(())
    }

    async fn read(&mut self) -> Result<Result<Window, String>, Stopped> {
        let turn = timeout(READ_PATIENCE, Arc::clone(&self.args.reads).acquire_owned());
        let Ok(Ok(turn)) = unless_stopped(&mut self.stop, turn).await? else {
            let hangs = "a read of the journal has not come back: its disk hangs";
            return Ok(Err(hangs.to_owned()));
        };
        let _working = self.args.progress.work();
        let (journal, probe) = (self.args.journal.clone(), self.args.probe.clone());
        let window = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let _struck = probe.hit_blocking("in_read");
            journal.read(WINDOW_BYTES)
        })
        .await;
        self.strike("after_read").await?;
        Ok(window
            .map_err(|error| format!("reading the journal failed: {error}"))
            .and_then(|window| window.map_err(|error| format!("cannot read the journal: {error}"))))
    }

    async fn strike(&self, point: &'static str) -> Result<(), Stopped> {
        self.args.probe.hit(point).await.map_err(|_| Stopped)
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), Stopped> {
        unless_stopped(&mut self.stop, tokio::time::sleep(pause)).await
    }

    async fn deliver(&mut self, window: Window, permit: Arc<Permit>) -> Result<(), Stopped> {
        let mut loads = Vec::new();
        for stored in window.stored {
            match stored {
                Stored::Push(record) => self.load(&record, &mut loads, &permit).await?,
                Stored::Damage(damage) => {
                    let letter = letter_of(&self.args.courier.status.name, &damage);
                    tracing::error!(
                        from = ?damage.from, length = damage.length, what = damage.what,
                        kept = ?damage.kept, "the journal is damaged"
                    );
                    let courier = self.args.courier.clone();
                    add(&mut loads, &courier, Timestamp::now(), Entry::Dead(letter));
                }
            }
        }
        self.send(&mut loads, &permit).await
    }

    /// Decodes a push; sends what has gathered whenever it is a whole batch.
    async fn load(
        &mut self,
        record: &PushRecord,
        loads: &mut Vec<Load>,
        permit: &Arc<Permit>,
    ) -> Result<(), Stopped> {
        let courier = self.courier_of(record);
        let context = stalwart::context(record);
        let decoded = iter::once_with(|| entries_of(record, &context)).flatten();
        for entry in guarded(record, decoded) {
            add(loads, &courier, record.received_at, entry);
            if self.is_whole_batch(loads) {
                self.send(loads, permit).await?;
            }
        }
        Ok(())
    }

    fn is_whole_batch(&self, loads: &[Load]) -> bool {
        let entries: usize = loads.iter().map(|load| load.entries.len()).sum();
        let weight: usize = loads.iter().map(|load| load.weight).sum();
        entries >= self.args.batch_events || weight >= BATCH_WEIGHT
    }

    fn courier_of(&mut self, record: &PushRecord) -> Courier {
        let mut couriers = self
            .args
            .couriers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(courier) = couriers.get(&record.source) {
            return courier.clone();
        }
        let kind = match record.kind {
            PushKind::Stalwart => "stalwart",
            PushKind::Recorder { .. } => "recorder",
        };
        let name = record.source.clone();
        tracing::warn!(source = %name, "the journal holds pushes of a source that is not configured any more");
        let metrics = self.args.metrics.source(&name, kind);
        let courier = Courier {
            status: Arc::new(SourceStatus::new(name.clone(), kind, metrics)),
            ..self.args.courier.clone()
        };
        couriers.insert(name, courier.clone());
        courier
    }

    /// Delivers the loads, one batch a source, and waits until all of them are durable.
    async fn send(&mut self, loads: &mut Vec<Load>, permit: &Arc<Permit>) -> Result<(), Stopped> {
        let sent = loads.drain(..).map(|load| {
            let (permit, stop) = (Arc::clone(permit), self.stop.clone());
            self.until_durable(load, permit, stop)
        });
        join_all(sent).await.into_iter().collect()
    }

    async fn until_durable(
        &self,
        load: Load,
        permit: Arc<Permit>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Stopped> {
        let status = Arc::clone(&load.courier.status);
        let mut batch = Batch::pushed(status.name.clone(), load.entries, permit);
        batch.in_order = true;
        batch.is_journaled = true;
        let age = Timestamp::now().as_millisecond() - load.received_at.as_millisecond();
        let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        batch.received_at = Instant::now().checked_sub(age).unwrap_or(batch.received_at);
        let mut parcel = load.courier.parcel(batch, 0);
        loop {
            let pause = match load.courier.attempt(&mut parcel).await {
                Attempt::Durable => break,
                Attempt::Later(pause) => pause,
                // Pushed events have no cursor that could stand elsewhere.
                Attempt::Reload(_) | Attempt::Fenced(_) => READ_RETRY,
            };
            let reason = Some("the store does not take events".to_owned());
            self.args
                .courier
                .status
                .set_state(SourceState::Blocked, reason);
            let _working = self.args.progress.work();
            let _waiting = self.args.progress.long_wait(pause);
            self.strike("in_retry").await?;
            unless_stopped(&mut stop, tokio::time::sleep(pause)).await?;
        }
        load.courier.settle(parcel);
        if status.view().state == SourceState::Blocked {
            status.set_state(SourceState::Running, None);
        }
        Ok(())
    }
}

/// The entries of a push. A decoder that panics over one leaves a dead letter in the place of the
/// rest: draining would otherwise stop at that push for ever, and its sender send it again and again.
pub(super) fn guarded(
    record: &PushRecord,
    mut entries: impl Iterator<Item = Entry> + Send,
) -> impl Iterator<Item = Entry> + Send {
    let mut broken = false;
    iter::from_fn(move || {
        if broken {
            return None;
        }
        let decode = AssertUnwindSafe(|| entries.next());
        std::panic::catch_unwind(decode).unwrap_or_else(|_| {
            broken = true;
            let detail = "its decoder panicked over it".to_owned();
            Some(Entry::Dead(letter_in_place_of(record, detail)))
        })
    })
}

fn entries_of<'a>(
    record: &'a PushRecord,
    context: &'a BodyContext<'a>,
) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
    match &record.kind {
        PushKind::Stalwart => stalwart::entries(record, context),
        PushKind::Recorder {
            request_id,
            idempotency_key,
        } => recorder_entries(record, *request_id, idempotency_key.as_deref()),
    }
}

/// The entries of a recorder's request. It was good when it was accepted; where it is not for this version, each event
/// that is refused becomes a dead letter, or all of it does if it cannot be taken apart. The good ones keep the keys
/// under which they may be in the store already; the position of a refused one's letter ends with such a key, for a retry.
fn recorder_entries<'a>(
    record: &'a PushRecord,
    request_id: u128,
    idempotency_key: Option<&str>,
) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
    let context = RequestContext {
        source: &record.source,
        received_at: record.received_at,
        request_id,
    };
    let events = match read_request(&record.body, idempotency_key, context) {
        Ok(events) => events,
        Err(error) => {
            let letter = letter_in_place_of(record, error.to_string());
            return Box::new(iter::once(Entry::Dead(letter)));
        }
    };
    let entries = events.pieces().map(move |(piece, made_id)| {
        let error = match decode_alone(piece, Some(&made_id), &context) {
            Ok(event) => return Entry::Event(Box::new(event), TenantHints::default()),
            Err(error) => error.to_string(),
        };
        // An idempotency key may come again with other events, so the made one alone is no place.
        let position = format!("{request_id:032x}:{made_id}");
        let raw = piece.get().as_bytes();
        Entry::Dead(letter_at(position, record, error, raw))
    });
    Box::new(entries)
}

/// Adds an entry to its source's load.
fn add(loads: &mut Vec<Load>, courier: &Courier, received_at: Timestamp, entry: Entry) {
    let weight = entry.weight();
    let name = &courier.status.name;
    match loads
        .iter_mut()
        .find(|load| load.courier.status.name == *name)
    {
        Some(load) => {
            load.entries.push(entry);
            load.weight += weight;
        }
        None => loads.push(Load {
            courier: courier.clone(),
            entries: vec![entry],
            weight,
            received_at,
        }),
    }
}

/// What the future yields, unless the drainer is stopped before.
async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    future: impl Future<Output = T>,
) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        // An error means that the actor is gone.
        _ = stop.wait_for(|stop| *stop) => Err(Stopped),
        outcome = future => Ok(outcome),
    }
}

/// The bytes stay beside the journal: they cannot be masked, so they do not go into the store.
fn letter_of(source: &SourceName, damage: &Damage) -> DeadLetter {
    let kept = damage.kept.as_ref();
    let kept = kept.map(|path| format!("; kept as {}", path.display()));
    DeadLetter {
        source: source.clone(),
        position: format!(
            "{}:{}:{:08x}",
            damage.from.segment, damage.from.offset, damage.checksum
        ),
        reason: DeadLetterReason::Malformed,
        detail: format!(
            "{} bytes of the journal: {}{}",
            damage.length,
            damage.what,
            kept.unwrap_or_default()
        ),
        raw: bytes::Bytes::new(),
        raw_length: damage.length,
        at: Timestamp::now(),
    }
}

fn letter_in_place_of(record: &PushRecord, detail: String) -> DeadLetter {
    letter_at(sha256_hex(&record.body), record, detail, &record.body)
}

fn letter_at(position: String, record: &PushRecord, detail: String, raw: &[u8]) -> DeadLetter {
    let letters = LetterContext {
        source: &record.source,
        at: record.received_at,
    };
    let mask = |raw: &[u8]| mask_letter(raw, SECRET_KEYS);
    let reason = DeadLetterReason::UnexpectedShape;
    letters.letter(position, reason, detail, raw, mask)
}
