//! One log line an incident: whoever knocks with a wrong key knocks every second, and a stranger
//! as often as he likes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::SourceName;

/// Between two lines about the same source.
const QUIET: Duration = Duration::from_secs(10);

/// When each source's refusals were last told. One entry a configured source at most.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<SourceName, Told>>);

struct Told {
    at: Instant,
    untold: u64,
}

impl Refusals {
    /// Counts a refusal. `Some` when it should be told, with the number of those before it that
    /// were not.
    pub fn note(&self, source: &SourceName) -> Option<u64> {
        self.note_at(source, Instant::now())
    }

    fn note_at(&self, source: &SourceName, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = all.get_mut(source) else {
            let told = Told { at: now, untold: 0 };
            all.insert(source.clone(), told);
            return Some(0);
        };
        if now.saturating_duration_since(told.at) < QUIET {
            told.untold += 1;
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_a_while() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let (mail, other) = (SourceName::new("mail"), SourceName::new("other"));
        assert_eq!(refusals.note_at(&mail, start), Some(0));
        for seconds in 1..10 {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(refusals.note_at(&mail, now), None);
        }
        assert_eq!(refusals.note_at(&other, start), Some(0));
        assert_eq!(refusals.note_at(&mail, start + QUIET), Some(9));
        assert_eq!(refusals.note_at(&mail, start + QUIET * 3), Some(0));
    }
}
