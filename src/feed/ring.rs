//! The newest events, each serialised once, for everyone who reads along.
//!
//! Bounded by bytes: who falls behind what is remembered is cut off, not waited for. Remembering
//! places lets a reader that was away for a moment go on exactly where it was.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::store::StoredEvent;
use crate::store::feed::Entry;

/// Places remembered that stand between two events rather than after one.
const MOST_PLACES: usize = 50_000;

/// An event as it goes out.
#[derive(Debug)]
pub struct Fed {
    /// The event, for filters: without its payload, which they do not ask for.
    pub event: StoredEvent,
    /// The place after it.
    pub position: String,
    /// The whole server-sent event.
    pub frame: Bytes,
}

impl Fed {
    /// Serialises it.
    pub fn new(mut entry: Entry) -> Self {
        // Of strings, numbers and maps with string keys, nothing fails to be JSON.
        let json = serde_json::to_string(&entry.event).unwrap_or_default();
        // JSON has no line breaks outside of escapes, so the data is one line.
        let frame = Bytes::from(format!("id: {}\ndata: {json}\n\n", entry.position));
        // As values a payload takes many times its text.
        entry.event.metadata = serde_json::Map::new();
        Self {
            event: entry.event,
            position: entry.position,
            frame,
        }
    }

    /// What it costs to remember, roughly: what filters ask for stands there twice.
    fn bytes(&self) -> usize {
        self.frame.len() * 2 + 1024
    }
}

/// What a reader finds from its place on.
#[derive(Debug)]
pub enum Found {
    /// These, perhaps none.
    Entries(Vec<Arc<Fed>>),
    /// Its place is no longer remembered.
    Behind,
}

/// The newest events, numbered.
#[derive(Debug)]
pub struct Ring {
    most_bytes: usize,
    bytes: usize,
    /// The number of the oldest one remembered.
    first: u64,
    entries: VecDeque<Arc<Fed>>,
    ids: HashSet<String>,
    /// The number of the event after each place.
    places: HashMap<String, u64>,
    places_in_order: VecDeque<(String, u64)>,
    position: Option<String>,
}

impl Ring {
    /// Remembers so many bytes, and always the newest event.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            bytes: 0,
            first: 0,
            entries: VecDeque::new(),
            ids: HashSet::new(),
            places: HashMap::new(),
            places_in_order: VecDeque::new(),
            position: None,
        }
    }

    /// The number that the next event will have.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The place after the newest event.
    pub fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    /// The number of the event after a place that is remembered.
    pub fn place(&self, position: &str) -> Option<u64> {
        let next = self.places.get(position).copied();
        next.filter(|next| *next >= self.first)
    }

    /// At most so many from this number on, and so many bytes of frames: above that one alone.
    pub fn from(&self, next: u64, limit: usize, bytes: usize) -> Found {
        let Some(skip) = next.checked_sub(self.first) else {
            return Found::Behind;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut taken = 0;
        for fed in self.entries.iter().skip(skip).take(limit) {
            taken += fed.frame.len();
            if taken > bytes && !found.is_empty() {
                break;
            }
            found.push(Arc::clone(fed));
        }
        Found::Entries(found)
    }

    /// Takes in what was not taken in before; returns how many that were.
    pub fn push(&mut self, entries: Vec<Fed>, position: String) -> usize {
        let before = self.end();
        for fed in entries {
            if !self.ids.insert(fed.event.id.clone()) {
                continue;
            }
            self.bytes += fed.bytes();
            let place = fed.position.clone();
            self.entries.push_back(Arc::new(fed));
            self.remember(place);
        }
        let new = self.end() - before;
        if self.position.as_deref() != Some(&position) {
            self.remember(position.clone());
            self.position = Some(position);
        }
        while self.bytes > self.most_bytes && self.entries.len() > 1 {
            self.forget_oldest();
        }
        usize::try_from(new).unwrap_or(usize::MAX)
    }

    /// Forgets everything; numbers go on.
    pub fn clear(&mut self) {
        while !self.entries.is_empty() {
            self.forget_oldest();
        }
        self.places.clear();
        self.places_in_order.clear();
        self.position = None;
    }

    fn remember(&mut self, place: String) {
        let next = self.end();
        self.places.insert(place.clone(), next);
        self.places_in_order.push_back((place, next));
        while self.places_in_order.len() > MOST_PLACES {
            self.forget_oldest_place();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(fed) = self.entries.pop_front() else {
            return;
        };
        self.bytes -= fed.bytes();
        self.ids.remove(&fed.event.id);
        self.first += 1;
        while self
            .places_in_order
            .front()
            .is_some_and(|(_, next)| *next < self.first)
        {
            self.forget_oldest_place();
        }
    }

    fn forget_oldest_place(&mut self) {
        if let Some((place, next)) = self.places_in_order.pop_front()
            && self.places.get(&place) == Some(&next)
        {
            self.places.remove(&place);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Actor, Target};
    use crate::feed::PIECE;

    fn fed(number: u64, payload: usize) -> Fed {
        Fed::new(Entry {
            position: format!("p{number}"),
            event: StoredEvent {
                id: number.to_string(),
                at: Timestamp::UNIX_EPOCH,
                ingested_at: Timestamp::UNIX_EPOCH,
                source: "s".to_owned(),
                external_id: number.to_string(),
                action: "x".repeat(payload),
                outcome: None,
                actor: Actor::default(),
                target: Target::default(),
                tenant_slug: None,
                metadata: serde_json::Map::new(),
            },
        })
    }

    fn ids(found: Found) -> Option<Vec<String>> {
        match found {
            Found::Entries(entries) => {
                Some(entries.iter().map(|fed| fed.event.id.clone()).collect())
            }
            Found::Behind => None,
        }
    }

    #[test]
    fn a_frame_is_one_event_whatever_it_holds() {
        let mut entry = Entry {
            position: "p1".to_owned(),
            event: fed(1, 1).event,
        };
        entry.event.actor.name = Some("a\n\ndata: {}\r\rid: 9".into());
        let frame = Fed::new(entry).frame;
        let frame = std::str::from_utf8(&frame).unwrap();
        let lines: Vec<_> = frame.split(['\n', '\r']).collect();
        assert_eq!(lines.len(), 4, "{frame:?}");
        assert!(lines[0] == "id: p1" && lines[1].starts_with("data: {"));
        assert_eq!(lines[2..], ["", ""]);
    }

    #[test]
    fn it_forgets_the_oldest_and_says_so() {
        let mut ring = Ring::new(50_000);
        for number in 0..100 {
            assert_eq!(ring.push(vec![fed(number, 1000)], format!("p{number}")), 1);
        }
        assert_eq!(ring.end(), 100);
        assert!(
            ring.bytes <= 50_000 && ring.entries.len() > 5,
            "{}",
            ring.bytes
        );
        assert!(ids(ring.from(0, 10, PIECE)).is_none());
        assert_eq!(ids(ring.from(98, 10, PIECE)).unwrap(), ["98", "99"]);
        assert_eq!(ids(ring.from(100, 10, PIECE)).unwrap(), [""; 0]);
        assert_eq!(ring.place("p97"), Some(98));
        assert_eq!(ring.place("p3"), None);
        // The place before the oldest one is remembered too: all after it is there.
        assert_eq!(ring.places.len(), ring.entries.len() + 1);
        assert_eq!(ring.ids.len(), ring.entries.len());
        // One that is larger than everything is kept nevertheless.
        ring.push(vec![fed(100, 1 << 20)], "p100".to_owned());
        assert_eq!(ids(ring.from(100, 10, PIECE)).unwrap(), ["100"]);
    }

    #[test]
    fn small_ones_are_found_together_and_a_large_one_alone() {
        let mut ring = Ring::new(32 << 20);
        let large = (0..30).map(|number| fed(number, 250 << 10)).collect();
        ring.push(large, "p29".to_owned());
        let mixed = (30..40).map(|number| fed(number, if number == 35 { PIECE } else { 1000 }));
        ring.push(mixed.collect(), "p39".to_owned());
        let mut found = Vec::new();
        let mut next = 0;
        while next < 40 {
            let ids = ids(ring.from(next, 64, PIECE)).unwrap();
            next += ids.len() as u64;
            found.push(ids.len());
        }
        assert_eq!(found[..30], [1; 30]);
        assert_eq!(found[30..], [5, 1, 4]);
        assert_eq!(ids(ring.from(36, 2, PIECE)).unwrap(), ["36", "37"]);
    }

    #[test]
    fn what_comes_twice_is_taken_once_and_idle_places_count() {
        let mut ring = Ring::new(1 << 20);
        ring.push(vec![fed(1, 1), fed(2, 1)], "p2".to_owned());
        ring.push(Vec::new(), "later".to_owned());
        assert_eq!(ring.push(vec![fed(2, 1), fed(3, 1)], "p3".to_owned()), 1);
        assert_eq!(ring.place("later"), Some(2));
        assert_eq!(ids(ring.from(2, 10, PIECE)).unwrap(), ["3"]);
        ring.clear();
        assert_eq!((ring.end(), ring.place("p3"), ring.bytes), (3, None, 0));
    }
}
