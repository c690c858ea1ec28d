//! When to restart and when to stop trying: plain arithmetic, no actor and no clock of its own.

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// How long to wait before a restart: full jitter over `base · 2^attempt`, capped.
///
/// Full jitter (anything from nothing to the ceiling) keeps children that died together
/// from coming back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first wait.
    pub base: Duration,
    /// The ceiling that no wait exceeds.
    pub cap: Duration,
    /// A child that lived this long starts again at attempt 0.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(30),
            reset_after: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The longest wait that [`Backoff::delay`] may give for this attempt (0 is the first restart).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let factor = 2u32.checked_pow(attempt).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// A wait between zero and [`Backoff::ceiling`], evenly distributed.
    pub fn delay(&self, attempt: u32, rng: &mut impl Rng) -> Duration {
        self.ceiling(attempt).mul_f64(rng.random::<f64>())
    }
}

/// How many restarts in how much time are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// So many are still borne.
    pub max_restarts: u32,
    /// Within this time.
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self {
            max_restarts: 10,
            within: Duration::from_secs(60),
        }
    }
}

/// The recent crashes of one child, measured against an [`Intensity`].
///
/// Time in which the child was waiting for its restart does not count ([`RestartHistory::exclude`]):
/// a growing backoff would otherwise stretch a crash loop until it no longer looks like one.
#[derive(Clone, Debug)]
pub struct RestartHistory {
    intensity: Intensity,
    crashes: VecDeque<Instant>,
    excluded: Duration,
}

impl RestartHistory {
    /// No crash yet.
    pub fn new(intensity: Intensity) -> Self {
        Self {
            intensity,
            crashes: VecDeque::new(),
            excluded: Duration::ZERO,
        }
    }

    /// Notes a crash; true when there are now more than the intensity bears.
    pub fn record(&mut self, now: Instant) -> bool {
        let now = now.checked_sub(self.excluded).unwrap_or(now);
        self.crashes.push_back(now);
        let within = self.intensity.within;
        while let Some(oldest) = self.crashes.front()
            && now.saturating_duration_since(*oldest) > within
        {
            self.crashes.pop_front();
        }
        self.crashes.len() > self.intensity.max_restarts as usize
    }

    /// Takes a wait out of the account.
    pub fn exclude(&mut self, waited: Duration) {
        self.excluded = self.excluded.saturating_add(waited);
    }

    /// Forgets every crash.
    pub fn clear(&mut self) {
        self.crashes.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let backoff = Backoff::default();
        assert_eq!(backoff.ceiling(0), Duration::from_millis(200));
        assert_eq!(backoff.ceiling(3), Duration::from_millis(1600));
        assert_eq!(backoff.ceiling(8), Duration::from_secs(30));
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(30));
        assert_eq!(Intensity::default().max_restarts, 10);
    }

    #[test]
    fn the_eleventh_crash_within_the_window_is_too_many() {
        let start = Instant::now();
        let mut history = RestartHistory::new(Intensity::default());
        for second in 0..10 {
            assert!(!history.record(start + Duration::from_secs(second)));
        }
        assert!(history.record(start + Duration::from_secs(10)));
    }

    #[test]
    fn waiting_for_a_restart_is_not_counted() {
        let start = Instant::now();
        let mut history = RestartHistory::new(Intensity::default());
        let mut now = start;
        for _ in 0..10 {
            assert!(!history.record(now));
            now += Duration::from_secs(30);
            history.exclude(Duration::from_secs(30));
        }
        assert!(history.record(now), "a crash loop behind a long backoff");
    }

    proptest! {
        #[test]
        fn a_delay_stays_under_its_ceiling_and_the_cap(
            base_ms in 0u64..100_000, cap_ms in 0u64..100_000, attempt: u32, seed: u64,
        ) {
            let backoff = Backoff {
                base: Duration::from_millis(base_ms),
                cap: Duration::from_millis(cap_ms),
                reset_after: Duration::ZERO,
            };
            let delay = backoff.delay(attempt, &mut StdRng::seed_from_u64(seed));
            prop_assert!(delay <= backoff.ceiling(attempt));
            prop_assert!(delay <= backoff.cap);
            prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt.saturating_add(1)));
        }

        #[test]
        fn jitter_covers_the_whole_range(attempt in 0u32..8, seed: u64) {
            let backoff = Backoff::default();
            let mut rng = StdRng::seed_from_u64(seed);
            let delays: Vec<_> = (0..200).map(|_| backoff.delay(attempt, &mut rng)).collect();
            let ceiling = backoff.ceiling(attempt);
            prop_assert!(delays.iter().any(|d| *d < ceiling / 4));
            prop_assert!(delays.iter().any(|d| *d > ceiling * 3 / 4));
        }

        #[test]
        fn the_history_agrees_with_a_plain_count(
            gaps in proptest::collection::vec(0u64..40, 1..60), max_restarts in 0u32..12,
        ) {
            let intensity = Intensity { max_restarts, within: Duration::from_secs(60) };
            let mut history = RestartHistory::new(intensity);
            let start = Instant::now();
            let mut crashes = Vec::new();
            let mut second = 0;
            for gap in gaps {
                second += gap;
                crashes.push(second);
                let recent = crashes.iter().filter(|at| second - **at <= 60).count();
                let exceeded = history.record(start + Duration::from_secs(second));
                prop_assert_eq!(exceeded, recent > max_restarts as usize);
            }
        }
    }
}
