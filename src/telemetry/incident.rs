//! One log line an incident: whoever knocks with a wrong key knocks every second, and a store that
//! is away fails every request.

use std::time::{Duration, Instant};

/// Between two lines about the same incident.
const QUIET: Duration = Duration::from_secs(10);

/// What may happen again and again, and when it was last told.
#[derive(Debug, Default)]
pub struct Incident {
    told: Option<Instant>,
    untold: u64,
}

impl Incident {
    /// It has not happened yet.
    pub const fn new() -> Self {
        Self {
            told: None,
            untold: 0,
        }
    }

    /// Notes that it happened. `Some` when it should be told, with the number of times before that
    /// were not.
    pub fn note(&mut self) -> Option<u64> {
        self.note_at(Instant::now())
    }

    fn note_at(&mut self, now: Instant) -> Option<u64> {
        let is_recent = |told| now.saturating_duration_since(told) < QUIET;
        if self.told.is_some_and(is_recent) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_a_while() {
        let mut incident = Incident::new();
        let start = Instant::now();
        assert_eq!(incident.note_at(start), Some(0));
        for seconds in 1..10 {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(incident.note_at(now), None);
        }
        assert_eq!(incident.note_at(start + QUIET), Some(9));
        assert_eq!(incident.note_at(start + QUIET * 3), Some(0));
    }
}
