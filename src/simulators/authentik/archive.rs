//! The fake's events: serialised once, kept sorted by (`created`, `pk`), never parsed to be served.
//!
//! An event inserted with a delay stays out of every read until it is due and then stands at its
//! own, older place: what a transaction that committed late looks like from outside.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

/// One event, ready to be served.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) pk: Box<str>,
    /// Microseconds since the epoch.
    pub(super) created: i64,
    /// Microseconds since the epoch; `i64::MAX` for never.
    pub(super) expires: i64,
    pub(super) visible_at: Instant,
    pub(super) user_pk: Option<i64>,
    pub(super) action: Box<str>,
    pub(super) json: Box<[u8]>,
}

impl Stored {
    /// Takes an event whose fields the server has completed already.
    pub(super) fn new(event: &Value, visible_at: Instant) -> Self {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        Self {
            pk: text("pk").into(),
            created: micros(text("created")).unwrap_or_default(),
            expires: micros(text("expires")).unwrap_or(i64::MAX),
            visible_at,
            user_pk: event["user"]["pk"].as_i64(),
            action: text("action").into(),
            json: event.to_string().into_bytes().into_boxed_slice(),
        }
    }

    pub(super) fn parsed(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    fn place(&self) -> (i64, &str) {
        (self.created, &self.pk)
    }
}

fn micros(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|at| at.as_microsecond())
}

/// All events of the server.
#[derive(Debug, Default)]
pub(super) struct Archive {
    visible: Vec<Arc<Stored>>,
    hidden: Vec<Arc<Stored>>,
}

impl Archive {
    pub(super) fn add(&mut self, events: Vec<Arc<Stored>>, now: Instant) {
        self.hidden.extend(events);
        self.reveal(now);
    }

    /// What a reader sees at `now`, ascending by (`created`, `pk`).
    pub(super) fn visible(&mut self, now: Instant) -> &[Arc<Stored>] {
        self.reveal(now);
        &self.visible
    }

    fn reveal(&mut self, now: Instant) {
        let due: Vec<Arc<Stored>> = self
            .hidden
            .extract_if(.., |event| event.visible_at <= now)
            .collect();
        if due.len() > 32 {
            self.visible.extend(due);
            // Stable, because it is the one that is quick on what is nearly sorted.
            self.visible.sort_by(|a, b| a.place().cmp(&b.place()));
            return;
        }
        for event in due {
            let index = self
                .visible
                .partition_point(|other| other.place() <= event.place());
            self.visible.insert(index, event);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.visible.len() + self.hidden.len()
    }

    pub(super) fn find(&mut self, pk: &str, now: Instant) -> Option<Arc<Stored>> {
        self.visible(now)
            .iter()
            .find(|event| &*event.pk == pk)
            .cloned()
    }

    /// Removes what `doomed` says, seen or not; how many.
    pub(super) fn remove(&mut self, doomed: impl Fn(&Stored) -> bool) -> usize {
        let before = self.len();
        self.visible.retain(|event| !doomed(event));
        self.hidden.retain(|event| !doomed(event));
        before - self.len()
    }

    /// Drops the oldest beyond `keep`, a tenth of it at a time so that it costs little.
    pub(super) fn trim(&mut self, keep: usize) {
        if self.visible.len() > keep + keep / 10 {
            let surplus = self.visible.len() - keep;
            self.visible.drain(..surplus);
        }
    }
}

/// A time as Django writes it: six digits of fraction, or none at all when it is zero.
pub(super) fn django_time(at: Timestamp) -> String {
    if at.subsec_microsecond() == 0 && at.subsec_millisecond() == 0 {
        format!("{at:.0}")
    } else {
        format!("{at:.6}")
    }
}

/// `at` plus a duration; the time itself where that cannot be told.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}
