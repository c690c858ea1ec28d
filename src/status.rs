//! What every source is doing: written by its actor, read by the API, the metrics and readiness.
//!
//! The entries outlive the actors: a restarted actor finds its predecessor's counts here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::batch::{Batch, Entry, Receipt};
use crate::event::{DeadLetterReason, SourceName};
use crate::store::CursorStep;
use crate::telemetry::metrics::SourceMetrics;

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Its actor is not up yet, or waits for the store to give it its cursor.
    Starting,
    /// Reads or accepts.
    Running,
    /// Works, but a person should look: a token that sees nothing, a file that is not there yet.
    Warning,
    /// The other side refuses: wrong token, missing right, wrong address.
    Refused,
    /// The other side fails or does not answer.
    Failing,
    /// The store does not take its events; it holds them and tries again.
    Blocked,
    /// Another generation owns its cursor.
    Fenced,
    /// Crashed too often; probed now and then.
    Suspended,
    /// Ended by a shutdown or a change of configuration.
    Stopped,
}

impl SourceState {
    /// Whether input can be taken from this source: the value of `daybook_source_up`.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Warning | Self::Blocked)
    }
}

#[derive(Debug)]
struct Condition {
    state: SourceState,
    reason: Option<String>,
    since: Timestamp,
    last_success: Option<Timestamp>,
    last_error: Option<LastError>,
    cursor: Option<CursorView>,
    bytes_behind: Option<u64>,
    restarts: u64,
    counts: Counts,
    suspended: bool,
    /// Input whose actor died before it heard what became of it.
    abandoned: Vec<Account>,
    /// Pieces of such input that will be taken again.
    owed: u64,
    outstanding: Vec<(u64, Instant)>,
    known_since: Option<Instant>,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// What.
    pub message: String,
}

/// The cursor as people see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CursorView {
    /// `at` of the last event.
    pub last_event_at: Option<Timestamp>,
    /// For a file `<inode>:<bytePosition>`.
    pub last_event_id: Option<String>,
    /// Which incarnation of the source's actor owns it.
    pub generation: u64,
}

/// What became of a source's input since Daybook started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Pieces of input taken.
    pub received: u64,
    /// Events entered.
    pub written: u64,
    /// Events that were there already.
    pub duplicate: u64,
    /// Left out on purpose.
    pub filtered: u64,
    /// Kept as dead letters.
    pub dead_lettered: u64,
}

/// One line of `GET /api/v1/sources`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// What it is doing.
    pub state: SourceState,
    /// Why, where that is not self-evident.
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Where it stands.
    pub cursor: Option<CursorView>,
    /// `daybook_ingest_lag_seconds`.
    pub lag_seconds: f64,
    /// Bytes of the file that are not yet durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_behind: Option<u64>,
    /// When it was last read, or last delivered, without an error.
    pub last_success_at: Option<Timestamp>,
    /// What last went wrong.
    pub last_error: Option<LastError>,
    /// Restarts of its actor since Daybook started.
    pub restarts: u64,
    /// What became of its input since Daybook started.
    pub counts: Counts,
}

/// The entry of one source.
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// Its kind.
    pub kind: &'static str,
    /// Its counters.
    pub metrics: SourceMetrics,
    condition: Mutex<Condition>,
    next_ticket: AtomicU64,
}

impl SourceStatus {
    /// A source that has not started.
    pub fn new(name: SourceName, kind: &'static str, metrics: SourceMetrics) -> Self {
        Self {
            name,
            kind,
            metrics,
            condition: Mutex::new(Condition {
                state: SourceState::Starting,
                reason: None,
                since: Timestamp::now(),
                last_success: None,
                last_error: None,
                cursor: None,
                bytes_behind: None,
                restarts: 0,
                counts: Counts::default(),
                suspended: false,
                abandoned: Vec::new(),
                owed: 0,
                outstanding: Vec::new(),
                known_since: None,
            }),
            next_ticket: AtomicU64::new(0),
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a state and its reason. One log line when the state changes, none when it stays.
    pub fn set_state(&self, state: SourceState, reason: Option<String>) {
        let mut condition = self.condition();
        let changed = condition.state != state;
        if changed {
            condition.since = Timestamp::now();
        }
        if let (Some(reason), false) = (
            &reason,
            matches!(state, SourceState::Running | SourceState::Starting),
        ) {
            condition.last_error = Some(LastError {
                at: Timestamp::now(),
                message: reason.clone(),
            });
        }
        condition.state = state;
        condition.reason.clone_from(&reason);
        drop(condition);
        if !changed {
            return;
        }
        if state == SourceState::Fenced {
            self.metrics.fenced.increment(1);
        }
        let reason = reason.unwrap_or_default();
        match state {
            SourceState::Starting | SourceState::Running | SourceState::Stopped => {
                tracing::info!(source = %self.name, ?state, reason, "source state");
            }
            _ => tracing::warn!(source = %self.name, ?state, reason, "source state"),
        }
    }

    /// Notes that the source was read, or has delivered, without an error.
    pub fn succeeded(&self) {
        self.condition().last_success = Some(Timestamp::now());
    }

    /// Where the cursor stands.
    pub fn set_cursor(&self, cursor: CursorView) {
        self.condition().cursor = Some(cursor);
    }

    /// Where the cursor of a source that is pushed stood at its start; what was delivered meanwhile counts.
    pub fn stood(&self, stored: CursorView) {
        let mut condition = self.condition();
        let cursor = condition.cursor.get_or_insert_with(CursorView::default);
        cursor.generation = cursor.generation.max(stored.generation);
        cursor.last_event_at = cursor.last_event_at.max(stored.last_event_at);
        if cursor.last_event_id.is_none() {
            cursor.last_event_id = stored.last_event_id;
        }
    }

    /// Notes the delivered batch's place in the cursor that people see, as the store does.
    pub fn moved(&self, batch: &Batch) {
        let mut condition = self.condition();
        let cursor = condition.cursor.get_or_insert_with(CursorView::default);
        let newest = batch.newest_at();
        if batch.step == CursorStep::Touch {
            cursor.last_event_at = cursor.last_event_at.max(newest);
        } else {
            cursor.generation = batch.generation;
            cursor.last_event_at = newest.or(cursor.last_event_at);
        }
        if let Some(id) = &batch.last_event_id {
            cursor.last_event_id = Some(id.clone());
        }
    }

    /// Bytes that are not yet durable, for a tailed file.
    pub fn set_bytes_behind(&self, bytes: u64) {
        self.condition().bytes_behind = Some(bytes);
    }

    /// Since when there is input known and not yet durable that no batch holds yet (a file that is
    /// longer than what was read); `None` when there is none.
    pub fn set_known_since(&self, since: Option<Instant>) {
        self.condition().known_since = since;
    }

    /// The supervisor restarts the actor after a while.
    pub fn restarted(&self, reason: &str) {
        self.set_state(SourceState::Starting, Some(format!("restarts: {reason}")));
        let mut condition = self.condition();
        condition.restarts += 1;
        condition.last_error = Some(LastError {
            at: Timestamp::now(),
            message: format!("actor restarted: {reason}"),
        });
    }

    /// The supervisor suspended the actor, or took it back.
    pub fn set_suspended(&self, suspended: bool) {
        self.condition().suspended = suspended;
    }

    /// Whether the supervisor has suspended the actor.
    pub fn is_suspended(&self) -> bool {
        self.condition().suspended
    }

    /// Age of the oldest input known and not yet durable.
    pub fn lag(&self) -> Duration {
        let condition = self.condition();
        condition
            .outstanding
            .iter()
            .map(|(_, since)| *since)
            .chain(condition.known_since)
            .min()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Sets the gauges; called before metrics are rendered.
    pub fn publish(&self) {
        let lag = self.lag();
        let condition = self.condition();
        let up = condition.state.is_up() && !condition.suspended;
        self.metrics.lag_seconds.set(lag.as_secs_f64());
        self.metrics.up.set(if up { 1.0 } else { 0.0 });
        if let Some(at) = condition.last_success {
            self.metrics
                .last_success
                .set(at.as_millisecond() as f64 / 1000.0);
        }
        if let (Some(gauge), Some(bytes)) = (&self.metrics.bytes_behind, condition.bytes_behind) {
            gauge.set(bytes as f64);
        }
    }

    /// For the API.
    pub fn view(&self) -> SourceView {
        let lag_seconds = self.lag().as_secs_f64();
        let condition = self.condition();
        SourceView {
            name: self.name.to_string(),
            kind: self.kind,
            state: if condition.suspended {
                SourceState::Suspended
            } else {
                condition.state
            },
            reason: condition.reason.clone(),
            since: condition.since,
            cursor: condition.cursor.clone(),
            lag_seconds,
            bytes_behind: condition.bytes_behind,
            last_success_at: condition.last_success,
            last_error: condition.last_error.clone(),
            restarts: condition.restarts,
            counts: condition.counts,
        }
    }

    /// Counts input as outstanding until the receipt (or the drop) of the ticket, but for what the journal holds.
    ///
    /// What takes a cursor along counts as received at once, and once: also if its actor dies and
    /// the successor takes it again. What does not, as what is pushed, counts when it is durable: a
    /// sender that was refused may never send it again. That is what keeps *received = written +
    /// duplicate + filtered + dead-lettered + in flight* true.
    pub fn take_in(self: &Arc<Self>, batch: &Batch, filtered: u64) -> Intake {
        let account = Account::of(batch, filtered);
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let mut condition = self.condition();
        if account.step_to.is_some() {
            let again = condition.owed.min(account.pieces());
            condition.owed -= again;
            self.receive(&mut condition, account.pieces() - again);
        }
        if !batch.is_journaled {
            condition.outstanding.push((ticket, batch.received_at));
        }
        drop(condition);
        Intake {
            status: Arc::clone(self),
            ticket,
            account: Some(account),
        }
    }

    /// The source's cursor was claimed and stands here. From this tells what became of input whose
    /// actor died between the commit and the acknowledgement: up to here it is durable and will
    /// not be taken again, beyond it will be.
    pub fn claimed(&self, seq: u64) {
        let mut condition = self.condition();
        for account in std::mem::take(&mut condition.abandoned) {
            if account.step_to.is_none_or(|to| to > seq) {
                condition.owed += account.pieces();
                continue;
            }
            // Which of them were there before, nobody knows any more.
            let receipt = Receipt {
                written: account.events,
                dead: account.dead,
                ..Receipt::default()
            };
            self.count(&mut condition, &receipt, account.filtered);
        }
    }

    /// Goes on with the accounts of an entry of the same name, whose actor has ended for good.
    pub fn inherit(&self, former: &Self) {
        let mut former = former.condition();
        let mut condition = self.condition();
        condition.restarts += former.restarts;
        condition.abandoned.append(&mut former.abandoned);
        condition.owed += former.owed;
        let counts = &mut condition.counts;
        counts.received += former.counts.received;
        counts.written += former.counts.written;
        counts.duplicate += former.counts.duplicate;
        counts.filtered += former.counts.filtered;
        counts.dead_lettered += former.counts.dead_lettered;
    }

    fn receive(&self, condition: &mut Condition, pieces: u64) {
        self.metrics.received.increment(pieces);
        condition.counts.received += pieces;
    }

    fn count(&self, condition: &mut Condition, receipt: &Receipt, filtered: u64) {
        self.metrics.written.increment(receipt.written);
        self.metrics.duplicate.increment(receipt.duplicate);
        self.metrics.unresolved_tenant.increment(receipt.unresolved);
        self.metrics.filtered.increment(filtered);
        for (reason, count) in DeadLetterReason::ALL.iter().zip(receipt.dead) {
            self.metrics.dead_lettered(*reason).increment(count);
        }
        condition.counts.add(receipt, filtered);
    }
}

/// What a batch counts for, kept apart from the batch.
#[derive(Clone, Debug)]
struct Account {
    events: u64,
    dead: [u64; DeadLetterReason::ALL.len()],
    filtered: u64,
    /// Where the cursor stands once it is durable; `None`: it takes no cursor along.
    step_to: Option<u64>,
}

impl Account {
    fn of(batch: &Batch, filtered: u64) -> Self {
        let mut receipt = Receipt::default();
        let mut events = 0;
        for entry in batch.entries() {
            match entry {
                Entry::Event(..) => events += 1,
                Entry::Dead(letter) => receipt.count_dead(letter.reason),
            }
        }
        Self {
            events,
            dead: receipt.dead,
            filtered,
            step_to: match batch.step {
                CursorStep::Advance { to, .. } => Some(to),
                CursorStep::Touch => None,
            },
        }
    }

    fn pieces(&self) -> u64 {
        self.events + self.filtered + self.dead.iter().sum::<u64>()
    }
}

/// Input received and not yet durable.
pub struct Intake {
    status: Arc<SourceStatus>,
    ticket: u64,
    /// Until it is settled.
    account: Option<Account>,
}

impl Intake {
    /// Another generation owns the cursor: however far that gets, this input did not take it there,
    /// and is taken again by either.
    pub fn owe(&mut self) {
        let account = self.account.take_if(|account| account.step_to.is_some());
        self.status.condition().owed += account.as_ref().map_or(0, Account::pieces);
    }

    /// All of it is durable or left out on purpose.
    pub fn settle(mut self, batch: &Batch, receipt: &Receipt, filtered: u64) {
        let account = self.account.take();
        let metrics = &self.status.metrics;
        let mut condition = self.status.condition();
        if let Some(account) = account.filter(|account| account.step_to.is_none()) {
            self.status.receive(&mut condition, account.pieces());
        }
        self.status.count(&mut condition, receipt, filtered);
        drop(condition);
        let now = Timestamp::now();
        let latency = batch.received_at.elapsed().as_secs_f64();
        let mut events = 0;
        for entry in batch.entries() {
            if let Entry::Event(event, _) = entry {
                events += 1;
                let age = now
                    .as_millisecond()
                    .saturating_sub(event.at.as_millisecond());
                metrics.age_seconds.record((age.max(0) as f64) / 1000.0);
            }
        }
        metrics.latency_seconds.record_many(latency, events);
        self.status.moved(batch);
        self.status.succeeded();
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let ticket = self.ticket;
        let mut condition = self.status.condition();
        condition.outstanding.retain(|(each, _)| *each != ticket);
        // Of what takes none along nothing is counted yet.
        let account = self.account.take_if(|account| account.step_to.is_some());
        condition.abandoned.extend(account);
    }
}

impl Counts {
    fn add(&mut self, receipt: &Receipt, filtered: u64) {
        self.written += receipt.written;
        self.duplicate += receipt.duplicate;
        self.filtered += filtered;
        self.dead_lettered += receipt.dead.iter().sum::<u64>();
    }
}

/// Every source's entry, and whether the planes are up.
#[derive(Clone, Default)]
pub struct Board {
    sources: Arc<Mutex<Vec<Arc<SourceStatus>>>>,
}

impl Board {
    /// Adds a source; its entry replaces one of the same name.
    pub fn add(&self, status: Arc<SourceStatus>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|each| each.name != status.name);
        sources.push(status);
    }

    /// These and no others, which is what makes a source a configured one.
    pub fn replace(&self, statuses: Vec<Arc<SourceStatus>>) {
        for status in &statuses {
            status.metrics.info.set(1.0);
        }
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }

    /// All entries, in the order of the configuration.
    pub fn sources(&self) -> Vec<Arc<SourceStatus>> {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One entry.
    pub fn source(&self, name: &str) -> Option<Arc<SourceStatus>> {
        self.sources()
            .into_iter()
            .find(|each| each.name.as_str() == name)
    }
}
