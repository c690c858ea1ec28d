//! A budget of bytes in flight, in permits that travel with what they pay for.
//!
//! Mailboxes are unbounded, so the bound stands before them: whoever makes a message first
//! acquires a [`Permit`] and puts it *inside* the message. An acknowledgement, a panic, a kill and
//! the flush of a dead mailbox all drop the message, and so all refund the bytes; there is no
//! refund to forget. Waiters are served in order, so a large request is not starved by small ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// A shared limit of bytes; clones draw on the same limit.
#[derive(Clone, Debug)]
pub struct Budget {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    limit: u64,
    /// Bytes per semaphore permit: 1 unless the limit is beyond what one acquisition can count.
    unit: u64,
    units: Arc<Semaphore>,
    in_use: AtomicU64,
    waits: Mutex<WaitClock>,
}

impl Budget {
    /// A budget of so many bytes (at least one).
    pub fn new(limit_bytes: u64) -> Self {
        let limit = limit_bytes.max(1);
        let unit = limit.div_ceil(u64::from(u32::MAX));
        let units = usize::try_from(limit.div_ceil(unit)).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            pool: Arc::new(Pool {
                limit,
                unit,
                units: Arc::new(Semaphore::new(units)),
                in_use: AtomicU64::new(0),
                waits: Mutex::new(WaitClock::new()),
            }),
        }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.pool.limit
    }

    /// Bytes held by permits now.
    pub fn in_use(&self) -> u64 {
        self.pool.in_use.load(Ordering::Acquire)
    }

    /// Total time spent waiting in [`Budget::acquire`] and [`Share::acquire`], waits still going on
    /// included. Two waiters of one second each are two seconds.
    pub fn waited(&self) -> Duration {
        self.pool.clock().total(Instant::now())
    }

    /// Waits until so many bytes are free and takes them. A request beyond the limit is charged
    /// the whole limit: it passes alone rather than never. Cancel-safe (the place in the queue is lost).
    pub async fn acquire(&self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.pool.limit);
        if let Some(permit) = self.try_acquire(bytes) {
            return permit;
        }
        let _waiting = Waiting::begin(&self.pool);
        let units = Arc::clone(&self.pool.units)
            .acquire_many_owned(self.pool.units_of(bytes))
            .await
            .expect("the semaphore is never closed");
        self.permit(bytes, units)
    }

    /// Takes so many bytes if they are free now and nobody waits before.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let bytes = bytes.min(self.pool.limit);
        let units = Arc::clone(&self.pool.units)
            .try_acquire_many_owned(self.pool.units_of(bytes))
            .ok()?;
        Some(self.permit(bytes, units))
    }

    /// A part of this budget for one consumer, who can never hold more than this fraction of it
    /// (clamped to 0..=1, and to one byte at least), so that the others always find the rest.
    pub fn share(&self, name: impl Into<String>, fraction: f64) -> Share {
        let limit = self.pool.limit as f64 * fraction.clamp(0.0, 1.0);
        Share {
            name: name.into().into(),
            own: Budget::new(limit as u64),
            parent: self.clone(),
        }
    }

    fn permit(&self, bytes: u64, units: OwnedSemaphorePermit) -> Permit {
        self.pool.in_use.fetch_add(bytes, Ordering::AcqRel);
        Permit {
            parent: Held {
                bytes,
                pool: Arc::clone(&self.pool),
                units,
            },
            own: None,
        }
    }
}

impl Pool {
    fn units_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(self.unit)).unwrap_or(u32::MAX)
    }

    fn clock(&self) -> MutexGuard<'_, WaitClock> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One consumer's part of a [`Budget`].
#[derive(Clone, Debug)]
pub struct Share {
    name: Arc<str>,
    own: Budget,
    parent: Budget,
}

impl Share {
    /// Whose share it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most that this consumer may hold, in bytes.
    pub fn limit(&self) -> u64 {
        self.own.limit()
    }

    /// Bytes that this consumer holds now.
    pub fn in_use(&self) -> u64 {
        self.own.in_use()
    }

    /// Total time this consumer waited for its own limit.
    pub fn waited(&self) -> Duration {
        self.own.waited()
    }

    /// Waits for the consumer's own limit first and then for the whole budget, so that a consumer
    /// over its share stands in no one's way. Cancel-safe.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.limit());
        let own = match self.own.try_acquire(bytes) {
            Some(own) => own,
            None => {
                let _waiting = Waiting::begin(&self.parent.pool);
                self.own.acquire(bytes).await
            }
        };
        self.parent.acquire(bytes).await.within(own)
    }

    /// Takes so many bytes if both limits allow it now.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let bytes = bytes.min(self.limit());
        let own = self.own.try_acquire(bytes)?;
        Some(self.parent.try_acquire(bytes)?.within(own))
    }
}

/// So many bytes of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    parent: Held,
    #[allow(dead_code, reason = "held for its drop")]
    own: Option<Held>,
}

impl Permit {
    /// The bytes charged (the budget's limit at most).
    pub fn bytes(&self) -> u64 {
        self.parent.bytes
    }

    /// Adds another permit of the same budget, and of the same share if it is one's.
    ///
    /// # Panics
    /// When the other permit is of another budget.
    pub fn absorb(&mut self, other: Permit) {
        self.parent.absorb(other.parent);
        if let (Some(own), Some(other)) = (&mut self.own, other.own) {
            own.absorb(other);
        }
    }

    fn within(self, own: Permit) -> Permit {
        Permit {
            parent: self.parent,
            own: Some(own.parent),
        }
    }
}

#[derive(Debug)]
struct Held {
    bytes: u64,
    pool: Arc<Pool>,
    units: OwnedSemaphorePermit,
}

impl Held {
    fn absorb(&mut self, mut other: Held) {
        if let Some(units) = other.units.split(other.units.num_permits()) {
            self.units.merge(units);
            self.bytes += std::mem::take(&mut other.bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the units go back, so that `in_use` never shows more than the limit.
        self.pool.in_use.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Integrates the number of waiters over time.
#[derive(Debug)]
struct WaitClock {
    total: Duration,
    waiting: u32,
    since: Instant,
}

impl WaitClock {
    fn new() -> Self {
        Self {
            total: Duration::ZERO,
            waiting: 0,
            since: Instant::now(),
        }
    }

    fn total(&self, now: Instant) -> Duration {
        self.total + now.saturating_duration_since(self.since) * self.waiting
    }

    fn settle(&mut self) {
        let now = Instant::now();
        self.total = self.total(now);
        self.since = now;
    }
}

struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn begin(pool: &'a Pool) -> Self {
        let mut clock = pool.clock();
        clock.settle();
        clock.waiting += 1;
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut clock = self.0.clock();
        clock.settle();
        clock.waiting -= 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn assert_send<T: Send + 'static>() {}

    #[test]
    fn a_permit_can_travel_inside_a_message() {
        assert_send::<Permit>();
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_charged_and_refunded() {
        let budget = Budget::new(100);
        let first = budget.acquire(60).await;
        assert_eq!((first.bytes(), budget.in_use()), (60, 60));
        assert!(budget.try_acquire(41).is_none());
        let second = budget.try_acquire(40).unwrap();
        assert_eq!(budget.in_use(), 100);
        drop((first, second));
        assert_eq!((budget.in_use(), budget.limit()), (0, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_giant_passes_alone() {
        let budget = Budget::new(100);
        let small = budget.acquire(1).await;
        assert!(budget.acquire(1_000).now_or_never().is_none());
        drop(small);
        let giant = budget.acquire(1_000).now_or_never().unwrap();
        assert_eq!((giant.bytes(), budget.in_use()), (100, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_is_not_overtaken() {
        let budget = Budget::new(100);
        let held = budget.acquire(50).await;
        let mut large = Box::pin(budget.acquire(80));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(
            budget.try_acquire(10).is_none(),
            "would starve the large one"
        );
        drop(held);
        assert_eq!(large.await.bytes(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_wait_gives_its_place_back() {
        let budget = Budget::new(10);
        let held = budget.acquire(10).await;
        {
            let mut waiting = Box::pin(budget.acquire(10));
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(held);
        assert_eq!(budget.acquire(10).now_or_never().unwrap().bytes(), 10);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_waiting_is_counted_while_it_goes_on() {
        let budget = Budget::new(10);
        let held = budget.acquire(10).await;
        assert_eq!(budget.waited(), Duration::ZERO);
        let mut waiting = Box::pin(budget.acquire(10));
        assert!(waiting.as_mut().now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(budget.waited(), Duration::from_secs(3));
        drop(held);
        drop(waiting.await);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(budget.waited(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_waiting_for_a_share_counts_too() {
        let budget = Budget::new(10);
        let share = budget.share("greedy", 0.5);
        let held = share.acquire(5).await;
        let mut waiting = Box::pin(share.acquire(5));
        assert!(waiting.as_mut().now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(held);
        drop(waiting.await);
        assert_eq!(
            (share.waited(), budget.waited()),
            (Duration::from_secs(3), Duration::from_secs(3))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_leaves_the_rest_to_the_others() {
        let budget = Budget::new(100);
        let greedy = budget.share("greedy", 0.5);
        assert_eq!((greedy.limit(), greedy.name()), (50, "greedy"));
        let held = greedy.acquire(1_000).await;
        assert_eq!(
            (held.bytes(), budget.in_use(), greedy.in_use()),
            (50, 50, 50)
        );
        assert!(greedy.try_acquire(1).is_none());
        let mut waiting = Box::pin(greedy.acquire(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(budget.try_acquire(50).is_some(), "others are not behind it");
        drop(held);
        assert_eq!(waiting.await.bytes(), 1);
        assert_eq!((budget.in_use(), greedy.in_use()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_grows_by_another() {
        let budget = Budget::new(100);
        let share = budget.share("a", 0.5);
        let mut held = share.acquire(10).await;
        held.absorb(share.try_acquire(30).unwrap());
        assert_eq!(
            (held.bytes(), budget.in_use(), share.in_use()),
            (40, 40, 40)
        );
        assert!(share.try_acquire(11).is_none());
        drop(held);
        assert_eq!((budget.in_use(), share.in_use()), (0, 0));
        assert!(share.try_acquire(50).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_try_of_a_share_keeps_nothing() {
        let budget = Budget::new(100);
        let share = budget.share("a", 0.5);
        let _others = budget.acquire(80).await;
        assert!(share.try_acquire(30).is_none());
        assert_eq!(share.in_use(), 0);
        assert!(share.try_acquire(20).is_some());
    }

    #[test]
    fn limits_beyond_32_bits_are_counted_in_larger_units() {
        let limit = 20 * u64::from(u32::MAX);
        let budget = Budget::new(limit);
        let all = budget.try_acquire(limit).unwrap();
        assert_eq!(all.bytes(), limit);
        assert!(budget.try_acquire(1).is_none());
        drop(all);
        assert!(budget.try_acquire(1).is_some());
    }

    proptest! {
        #[test]
        fn never_over_the_limit_and_nothing_lost(
            limit in 1u64..1_000,
            steps in proptest::collection::vec((any::<bool>(), 0u64..1_500), 1..200),
        ) {
            let budget = Budget::new(limit);
            let mut held: Vec<Permit> = Vec::new();
            for (take, amount) in steps {
                if take {
                    let free = limit - budget.in_use();
                    let permit = budget.try_acquire(amount);
                    prop_assert_eq!(permit.is_some(), amount.min(limit) <= free);
                    held.extend(permit);
                } else if !held.is_empty() {
                    held.swap_remove(amount as usize % held.len());
                }
                let sum: u64 = held.iter().map(Permit::bytes).sum();
                prop_assert_eq!(sum, budget.in_use());
                prop_assert!(budget.in_use() <= limit);
            }
            held.clear();
            prop_assert_eq!(budget.in_use(), 0);
        }
    }
}
