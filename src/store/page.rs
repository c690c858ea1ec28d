//! Pages of the timeline: bounded in events and in bytes, for a payload may have some MiB.

use jiff::Timestamp;

use super::StoredEvent;

/// A page whose events take more is cut. What it takes in memory is a few times that.
pub(super) const MOST_BYTES: usize = 4 << 20;
/// What a value takes as part of a tree, beside its text.
const VALUE_BYTES: usize = 48;

/// The place between two events of a page, newest first by (`at`, id).
#[derive(Clone, Debug, PartialEq)]
pub struct PageKey {
    /// `at` of the last event seen.
    pub at: Timestamp,
    /// Its id.
    pub id: String,
}

impl PageKey {
    /// The place after this event.
    pub fn of(event: &StoredEvent) -> Self {
        Self {
            at: event.at,
            id: event.id.clone(),
        }
    }
}

/// Whether events are read with their payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// As they are.
    Whole,
    /// Empty in their place.
    LeftOut,
}

/// Events, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Whether it ends early, for its size or because events of it were deleted meanwhile: more may come after the last one.
    pub is_cut: bool,
}

/// A page while it is being read.
pub(super) struct Filling {
    page: EventPage,
    limit: usize,
    bytes: usize,
}

impl Filling {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            page: EventPage::default(),
            limit: limit as usize,
            bytes: 0,
        }
    }

    /// Adds the next event, which takes so many bytes, payload and names; false when the page takes no more.
    pub(super) fn add(&mut self, event: StoredEvent, bytes: usize) -> bool {
        if self.bytes >= MOST_BYTES {
            self.page.is_cut = true;
            return false;
        }
        self.bytes += bytes;
        self.page.events.push(event);
        !self.is_full()
    }

    pub(super) fn is_full(&self) -> bool {
        self.page.is_cut || self.page.events.len() >= self.limit
    }

    pub(super) fn finish(self) -> EventPage {
        self.page
    }
}

/// What a payload takes as a tree, about.
pub(super) fn tree_bytes(json: &str) -> usize {
    let values = json.bytes().filter(|byte| *byte == b',').count();
    json.len() + values * VALUE_BYTES
}
