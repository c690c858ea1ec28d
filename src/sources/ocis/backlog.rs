//! How long the oldest unread byte has been known: the lag of a tailed file.

use std::collections::VecDeque;
use std::time::Instant;

/// When which part of the file became known. Places are counted in bytes made durable since the
/// actor began, so they grow through rotations.
#[derive(Default)]
pub(super) struct Backlog {
    /// Ends of the known part and when they were first seen, oldest first.
    seen: VecDeque<(u64, Instant)>,
    durable: u64,
}

impl Backlog {
    const SAMPLES: usize = 1024;

    /// So many bytes beyond the durable ones are known now. Fewer than before: some were destroyed.
    pub fn holds(&mut self, unread: u64, now: Instant) {
        let end = self.durable + unread;
        let mut since = now;
        while let Some((_, seen)) = self.seen.pop_back_if(|(known, _)| *known > end) {
            since = seen;
        }
        if self.seen.back().map_or(self.durable, |(known, _)| *known) >= end {
            return;
        }
        if self.seen.len() < Self::SAMPLES {
            self.seen.push_back((end, since));
        } else if let Some(newest) = self.seen.back_mut() {
            // Counting the newest bytes as older than they are errs on the safe side.
            newest.0 = end;
        }
    }

    /// So many more bytes are durable.
    pub fn made_durable(&mut self, bytes: u64) {
        self.durable += bytes;
        while self
            .seen
            .pop_front_if(|(known, _)| *known <= self.durable)
            .is_some()
        {}
    }

    /// Since when the oldest byte that is not durable has been known.
    pub fn oldest(&self) -> Option<Instant> {
        self.seen.front().map(|(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_unread_byte_tells_the_lag() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut backlog = Backlog::default();
        assert_eq!(backlog.oldest(), None);
        backlog.holds(100, at(0));
        backlog.holds(100, at(1));
        backlog.holds(300, at(2));
        assert_eq!(backlog.oldest(), Some(at(0)));
        backlog.made_durable(99);
        assert_eq!(backlog.oldest(), Some(at(0)));
        backlog.made_durable(1);
        assert_eq!(backlog.oldest(), Some(at(2)));
        backlog.made_durable(200);
        assert_eq!(backlog.oldest(), None);
    }

    #[test]
    fn destroyed_bytes_are_not_waited_for() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut backlog = Backlog::default();
        backlog.holds(100, at(0));
        backlog.holds(1000, at(1));
        backlog.made_durable(100);
        // 900 were known; a truncation leaves 50.
        backlog.holds(50, at(2));
        assert_eq!(backlog.oldest(), Some(at(1)));
        backlog.made_durable(50);
        assert_eq!(backlog.oldest(), None);
        backlog.holds(0, at(3));
        assert_eq!(backlog.oldest(), None);
        backlog.holds(7, at(4));
        assert_eq!(backlog.oldest(), Some(at(4)));
        backlog.holds(0, at(5));
        assert_eq!(backlog.oldest(), None);
    }

    #[test]
    fn its_memory_is_bounded_and_old_ages_win() {
        let start = Instant::now();
        let mut backlog = Backlog::default();
        for step in 1..=10_000_u64 {
            backlog.holds(step, start + Duration::from_secs(step));
        }
        assert!(backlog.seen.len() <= Backlog::SAMPLES);
        backlog.made_durable(9_999);
        assert_eq!(backlog.oldest(), Some(start + Duration::from_secs(1024)));
        backlog.made_durable(1);
        assert_eq!(backlog.oldest(), None);
    }
}
