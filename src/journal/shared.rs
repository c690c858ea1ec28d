//! What the appenders, the writing thread and the reader know in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::frame::SEGMENT_HEAD;
use super::record::RecordError;

/// A place in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// Why a push is not in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// `journal.max_size` is 0: it is only drained.
    #[error("journal is switched off")]
    Off,
    /// It would grow beyond `journal.max_size`.
    #[error("journal is full ({max_bytes} bytes)")]
    Full {
        /// The limit.
        max_bytes: u64,
    },
    /// The disk is full, or fails. Nothing of the push counts.
    #[error("journal cannot {what}: {reason}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
    /// A record that cannot be written as one.
    #[error("journal cannot hold this push: {0}")]
    Record(#[from] RecordError),
    /// It was closed.
    #[error("journal is closed")]
    Closed,
}

/// How the journal is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Bytes that are not drained: `daybook_journal_bytes`.
    pub bytes: u64,
    /// When the oldest record that is not drained was received.
    pub oldest: Option<Timestamp>,
    /// Bytes of all segment files, which `max_size` limits.
    pub file_bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// Records appended since it was opened.
    pub appended: u64,
    /// Groups of records made durable since it was opened, by one sync each.
    pub groups: u64,
}

struct State {
    /// The durable end of each segment.
    ends: BTreeMap<u64, u64>,
    /// Bytes of accepted appends that are not written yet.
    reserved: u64,
    drained: Position,
    oldest: Option<Timestamp>,
}

pub(super) struct Shared {
    max_bytes: u64,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    appended: AtomicU64,
    groups: AtomicU64,
}

impl Shared {
    pub(super) fn new(max_bytes: u64, ends: BTreeMap<u64, u64>, drained: Position) -> Self {
        Self {
            max_bytes,
            state: Mutex::new(State {
                ends,
                reserved: 0,
                drained,
                oldest: None,
            }),
            changed: watch::Sender::new(()),
            appended: AtomicU64::new(0),
            groups: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets room aside for a frame.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), AppendError> {
        if self.max_bytes == 0 {
            return Err(AppendError::Off);
        }
        let mut state = self.state();
        if state.bytes_with(bytes) > self.max_bytes {
            return Err(AppendError::Full {
                max_bytes: self.max_bytes,
            });
        }
        state.reserved += bytes;
        Ok(())
    }

    /// Whether a frame would find room now.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.state().bytes_with(bytes) <= self.max_bytes
    }

    /// Gives room back for which nothing was written.
    pub(super) fn release(&self, bytes: u64) {
        self.state().reserved -= bytes;
    }

    /// A segment is durable up to here; `written` bytes of it were reserved.
    pub(super) fn grown(
        &self,
        segment: u64,
        end: u64,
        written: u64,
        records: u64,
        oldest: Option<Timestamp>,
    ) {
        let mut state = self.state();
        state.reserved -= written;
        state.ends.insert(segment, end);
        if state.oldest.is_none() {
            state.oldest = oldest;
        }
        drop(state);
        self.appended.fetch_add(records, Ordering::Relaxed);
        if records > 0 {
            self.groups.fetch_add(1, Ordering::Relaxed);
        }
        self.changed.send_replace(());
    }

    pub(super) fn removed(&self, segment: u64) {
        self.state().ends.remove(&segment);
    }

    /// Everything before is in the store. Never moves back.
    pub(super) fn drained_to(&self, position: Position) {
        let mut state = self.state();
        state.drained = state.drained.max(position);
        if state.undrained() == 0 {
            state.oldest = None;
        }
        drop(state);
        self.changed.send_replace(());
    }

    pub(super) fn drained(&self) -> Position {
        self.state().drained
    }

    pub(super) fn end_of(&self, segment: u64) -> Option<u64> {
        self.state().ends.get(&segment).copied()
    }

    /// Whether they are drained or not.
    pub(super) fn segments(&self) -> Vec<u64> {
        self.state().ends.keys().copied().collect()
    }

    /// Segments, and how far each is durable, that are not drained.
    pub(super) fn undrained_segments(&self) -> Vec<(u64, u64)> {
        let state = self.state();
        let rest = state.ends.range(state.drained.segment..);
        rest.map(|(segment, end)| (*segment, *end)).collect()
    }

    /// The oldest record not drained is this one.
    pub(super) fn note_oldest(&self, received_at: Timestamp) {
        self.state().oldest = Some(received_at);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().undrained() == 0
    }

    pub(super) async fn until_filled(&self) {
        let mut changed = self.changed.subscribe();
        while self.is_empty() {
            if changed.changed().await.is_err() {
                // The sender lives as long as `self`.
                return;
            }
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let state = self.state();
        Figures {
            bytes: state.undrained(),
            oldest: state.oldest,
            file_bytes: state.file_bytes(),
            segments: state.ends.len(),
            appended: self.appended.load(Ordering::Relaxed),
            groups: self.groups.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn file_bytes(&self) -> u64 {
        self.ends.values().sum()
    }

    /// With one more frame, which may be the first of a segment.
    fn bytes_with(&self, frame: u64) -> u64 {
        self.file_bytes() + self.reserved + frame + SEGMENT_HEAD
    }

    fn undrained(&self) -> u64 {
        self.ends
            .range(self.drained.segment..)
            .map(|(segment, end)| {
                let from = if *segment == self.drained.segment {
                    self.drained.offset.max(SEGMENT_HEAD)
                } else {
                    SEGMENT_HEAD
                };
                end.saturating_sub(from)
            })
            .sum()
    }
}
