//! The one message of the pipeline: a batch, its way down, and what comes back.
//!
//! A batch is cheap to clone (its entries are shared) because its source keeps it until the ack
//! and sends it again when no ack comes. The permit for its bytes travels inside: when the last
//! clone is gone, by ack, panic, kill or a flushed mailbox, the budget has its bytes back.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daybook_actors::budget::Permit;
use daybook_actors::delivery::{Custody, Divisible};
use jiff::Timestamp;
use ractor::RpcReplyPort;
use serde_json::Value;

use crate::event::{AuditEvent, DeadLetter, DeadLetterReason, SourceName, TenantHints, whole};
use crate::store::CursorStep;

/// One piece of input on its way.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An event and what it tells about its tenant.
    Event(Box<AuditEvent>, TenantHints),
    /// Input that could not become an event.
    Dead(DeadLetter),
}

/// About what the entries of one batch of pushed events may take in memory, but for the last one.
pub const BATCH_WEIGHT: usize = 8 << 20;

impl Entry {
    /// About how many bytes it takes in memory.
    pub fn weight(&self) -> usize {
        match self {
            Self::Event(event, _) => event
                .metadata
                .iter()
                .map(|(key, value)| key.len() + weight_of(value))
                .sum(),
            Self::Dead(letter) => letter.raw.len(),
        }
    }
}

fn weight_of(value: &Value) -> usize {
    let inner = match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Number(_) => size_of::<Value>(),
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight_of).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| size_of::<String>() + key.len() + weight_of(value))
            .sum(),
    };
    size_of::<Value>() + inner
}

/// Takes the entries of the next batch: no more than `most`, and until they have [`BATCH_WEIGHT`].
pub fn take_batch(entries: &mut impl Iterator<Item = Entry>, most: usize) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut weight = 0;
    while taken.len() < most && weight < BATCH_WEIGHT {
        let Some(entry) = entries.next() else {
            break;
        };
        weight += entry.weight();
        taken.push(entry);
    }
    taken
}

/// What a source sends at once, with the step its cursor takes when all of it is durable.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose.
    pub source: SourceName,
    /// The generation of the actor that sends it.
    pub generation: u64,
    /// When its first byte was received.
    pub received_at: Instant,
    /// What the cursor does afterwards.
    pub step: CursorStep,
    /// The contract's `lastEventAt` afterwards; `None`: that of its newest event.
    pub last_event_at: Option<Timestamp>,
    /// The contract's `lastEventId` afterwards.
    pub last_event_id: Option<String>,
    /// Its entries are entered one after the other; otherwise many of them at once.
    pub in_order: bool,
    /// It stands in the journal, and so is durable before the store has it.
    pub is_journaled: bool,
    entries: Arc<Vec<Entry>>,
    range: Range<usize>,
    /// Held, not read: its drop refunds the bytes.
    _permit: Arc<Permit>,
}

impl Batch {
    /// A batch that takes no cursor along; see [`Batch::with_step`].
    pub fn new(
        source: SourceName,
        generation: u64,
        entries: Vec<Entry>,
        permit: impl Into<Arc<Permit>>,
    ) -> Self {
        Self {
            source,
            generation,
            received_at: Instant::now(),
            step: CursorStep::Touch,
            last_event_at: None,
            last_event_id: None,
            in_order: false,
            is_journaled: false,
            range: 0..entries.len(),
            entries: Arc::new(entries),
            _permit: permit.into(),
        }
    }

    /// A batch of pushed events: no place to keep, only the last event to note.
    pub fn pushed(source: SourceName, entries: Vec<Entry>, permit: impl Into<Arc<Permit>>) -> Self {
        let last_event_id = entries.iter().rev().find_map(|entry| match entry {
            Entry::Event(event, _) => Some(event.external_id.clone()),
            Entry::Dead(_) => None,
        });
        Self {
            last_event_id,
            ..Self::new(source, 0, entries, permit)
        }
    }

    /// Moves the cursor too.
    pub fn with_step(mut self, from: u64, to: u64, detail: Value) -> Self {
        self.step = CursorStep::Advance { from, to, detail };
        self
    }

    /// Whether somebody sent it: what is fetched belongs to a generation.
    pub fn is_pushed(&self) -> bool {
        self.generation == 0
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries[self.range.clone()]
    }

    /// The entries alone, to be freed when there is time: the bytes in flight are given back without them.
    pub fn spent(&self) -> Arc<Vec<Entry>> {
        Arc::clone(&self.entries)
    }

    /// `at` of the newest event, of this batch or of those before it if the source says so.
    pub fn newest_at(&self) -> Option<Timestamp> {
        let times = self.entries().iter().filter_map(|entry| match entry {
            Entry::Event(event, _) => Some(event.at),
            Entry::Dead(_) => None,
        });
        self.last_event_at.or_else(|| times.max())
    }

    /// The batch in which the single entry, which nothing could handle, is a dead letter. The
    /// cursor step stays.
    pub fn into_dead_letter(mut self, reason: DeadLetterReason, detail: &str) -> Self {
        let entries = self
            .entries()
            .iter()
            .map(|entry| match entry {
                Entry::Event(event, hints) => {
                    Entry::Dead(dead_letter_of(event, hints, reason, detail))
                }
                Entry::Dead(letter) => Entry::Dead(DeadLetter {
                    raw: Bytes::new(),
                    ..letter.clone()
                }),
            })
            .collect::<Vec<_>>();
        self.range = 0..entries.len();
        self.entries = Arc::new(entries);
        self
    }
}

/// The dead letter that keeps a whole event when the event itself cannot be entered.
pub fn dead_letter_of(
    event: &AuditEvent,
    hints: &TenantHints,
    reason: DeadLetterReason,
    detail: &str,
) -> DeadLetter {
    let raw = whole::write(event, hints).unwrap_or_default();
    DeadLetter {
        source: event.source.clone(),
        position: event.external_id.clone(),
        reason,
        detail: detail.to_owned(),
        raw_length: raw.len() as u64,
        raw: Bytes::from(raw),
        at: Timestamp::now(),
    }
}

impl Divisible for Batch {
    fn len(&self) -> usize {
        self.range.len()
    }

    /// The front part leaves the cursor alone: only the rear one may move it, once both are durable.
    fn split(self) -> (Self, Self) {
        let middle = self.range.start + self.range.len() / 2;
        let mut front = self.clone();
        let mut rear = self;
        front.range.end = middle;
        front.step = CursorStep::Touch;
        front.last_event_at = None;
        front.last_event_id = None;
        rear.range.start = middle;
        (front, rear)
    }
}

/// A batch on its way to the resolver.
pub struct Delivery {
    /// What is delivered.
    pub batch: Batch,
    /// Tells the source how far its handler came, should that one die.
    pub custody: Custody,
    /// Counted as waiting in a mailbox until this is dropped.
    pub in_mailbox: Option<InMailbox>,
    /// A batch that may have killed its handler before: it is handled alone.
    pub suspect: bool,
    /// Where the answer goes: straight to the source.
    pub reply: RpcReplyPort<Reply>,
}

/// Counts a message in `daybook_actor_mailbox_messages` for as long as it lives: a mailbox that dies
/// with its actor drops its messages, and so its count is right too.
pub struct InMailbox(metrics::Gauge);

impl InMailbox {
    /// One more message waits.
    pub fn new(gauge: &metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for InMailbox {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What a source learns from downstream; all it learns.
pub type Reply = Result<Receipt, Nack>;

/// Everything in the batch is durable and its cursor stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Entered now.
    pub written: u64,
    /// Were there already.
    pub duplicate: u64,
    /// Events entered without a tenant.
    pub unresolved: u64,
    /// Kept as dead letters now, index by [`DeadLetterReason::ALL`].
    pub dead: [u64; DeadLetterReason::ALL.len()],
    /// Events that are dead letters instead, since now or before.
    pub kept_aside: u64,
}

/// Why a batch is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nack {
    /// The store is away or a peer restarts: send it again after a pause.
    Unavailable {
        /// How long to wait at least.
        retry_after: Duration,
        /// For `status`; never content.
        reason: String,
    },
    /// The store failed at this batch in a way that waiting does not mend.
    Failed {
        /// For `status`; never content.
        reason: String,
        /// Whether it was over a dead letter, for its own sake.
        refuses_letter: bool,
    },
    /// The cursor stands before the batch: load it again.
    Gap {
        /// Where it stands.
        stored: u64,
    },
    /// Another generation owns the cursor.
    Fenced {
        /// Its number.
        owner: u64,
    },
}

impl Receipt {
    /// Adds another receipt's counts.
    pub fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.duplicate += other.duplicate;
        self.unresolved += other.unresolved;
        for (mine, theirs) in self.dead.iter_mut().zip(other.dead) {
            *mine += theirs;
        }
        self.kept_aside += other.kept_aside;
    }

    /// Counts one dead letter.
    pub fn count_dead(&mut self, reason: DeadLetterReason) {
        for (each, count) in DeadLetterReason::ALL.iter().zip(&mut self.dead) {
            if *each == reason {
                *count += 1;
            }
        }
    }
}
