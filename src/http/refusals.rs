//! One log line an incident: whoever knocks with a wrong key knocks every second, and a stranger
//! as often as he likes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::SourceName;
use crate::telemetry::metrics::Refusal;

/// Between two lines about the same source and reason.
const QUIET: Duration = Duration::from_secs(10);

/// When each source's refusals were last told, by their reasons.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<(SourceName, Refusal), Told>>);

struct Told {
    at: Instant,
    untold: u64,
}

impl Refusals {
    /// Counts a refusal. `Some` when it should be told, with the number of those before it that
    /// were not.
    pub fn note(&self, source: &SourceName, why: Refusal) -> Option<u64> {
        self.note_at(source, why, Instant::now())
    }

    fn note_at(&self, source: &SourceName, why: Refusal, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.clone(), why);
        let Some(told) = all.get_mut(&key) else {
            all.insert(key, Told { at: now, untold: 0 });
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
        let unsigned = |source: &SourceName, after: Duration| {
            refusals.note_at(source, Refusal::Unsigned, start + after)
        };
        assert_eq!(unsigned(&mail, Duration::ZERO), Some(0));
        for seconds in 1..10 {
            assert_eq!(unsigned(&mail, Duration::from_secs(seconds)), None);
        }
        assert_eq!(unsigned(&other, Duration::ZERO), Some(0));
        let wrong = refusals.note_at(&mail, Refusal::WrongSignature, start);
        assert_eq!(wrong, Some(0));
        assert_eq!(unsigned(&mail, QUIET), Some(9));
        assert_eq!(unsigned(&mail, QUIET * 3), Some(0));
    }
}
