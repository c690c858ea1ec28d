//! Does an actor still get anywhere? A counter that it moves and its supervisor reads.
//!
//! An actor that panics is noticed at once; one that waits for ever on something that never
//! comes is not. So an actor shows [`Progress`], and its supervisor kills it when it shows none
//! for too long. Two kinds: one that must always move ([`Progress::new`], for an actor with a
//! timer of its own), and one that must move only while it has work ([`Progress::on_demand`],
//! for an actor that may rightly see no message for hours).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// An actor's sign of life; clones are the same one.
#[derive(Clone, Debug)]
pub struct Progress {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// The last sign of life; works that begin and end beside each other are none for each other.
    last: Instant,
    on_demand: bool,
    next_id: u64,
    works: Vec<(u64, Instant)>,
    long_waits: Vec<(u64, Instant)>,
    busy: Duration,
    busy_since: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Progress that must be shown always.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// Progress that must be shown only while a [`Working`] guard is held.
    pub fn on_demand() -> Self {
        Self::with(true)
    }

    fn with(on_demand: bool) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                last: Instant::now(),
                on_demand,
                next_id: 0,
                works: Vec::new(),
                long_waits: Vec::new(),
                busy: Duration::ZERO,
                busy_since: None,
            })),
        }
    }

    /// Something was done.
    pub fn tick(&self) {
        self.lock().last = Instant::now();
    }

    /// Work begins; it ends when the guard is dropped. Of several that are under way each must
    /// end, or [`Progress::tick`] be called, in time: one that hangs is not excused by others that
    /// come and go.
    pub fn work(&self) -> Working {
        let mut inner = self.lock();
        let id = inner.new_id();
        inner.works.push((id, Instant::now()));
        inner.account();
        Working {
            progress: self.clone(),
            id,
        }
    }

    /// Declares that no progress is to be expected for this long; the guard's end is progress.
    pub fn long_wait(&self, at_most: Duration) -> LongWait {
        let mut inner = self.lock();
        let now = Instant::now();
        let id = inner.new_id();
        // Far enough ahead to be "never", near enough for the clock's arithmetic.
        let until = now + at_most.min(Duration::from_secs(10 * 365 * 86_400));
        inner.long_waits.push((id, until));
        inner.last = now;
        inner.account();
        LongWait {
            progress: self.clone(),
            id,
        }
    }

    /// How long progress has been overdue: since the last sign of life, since the oldest work under
    /// way began, or since the end of the longest declared wait, whichever is latest. `None` where
    /// none is due.
    pub fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let inner = self.lock();
        let oldest_work = inner.works.iter().map(|(_, begun)| *begun).min();
        if inner.on_demand && oldest_work.is_none() {
            return None;
        }
        let declared = inner.long_waits.iter().map(|(_, until)| *until).max();
        let due = [oldest_work, declared].into_iter().flatten().max();
        let due = due.map_or(inner.last, |due| due.max(inner.last));
        now.checked_duration_since(due)
            .filter(|stalled| !stalled.is_zero())
    }

    /// Leaves out so much of the time before now: nothing could run in it.
    pub fn excuse(&self, missed: Duration) {
        let mut inner = self.lock();
        let now = Instant::now();
        let later = |at: Instant| (at + missed).min(now);
        inner.last = later(inner.last);
        for (_, begun) in &mut inner.works {
            *begun = later(*begun);
        }
        for (_, until) in &mut inner.long_waits {
            *until += missed;
        }
    }

    /// Whether this is its last clone, and so nobody is left to show progress.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }

    /// How long in all there was work under way and no declared wait.
    pub fn busy(&self) -> Duration {
        let inner = self.lock();
        let now = inner
            .busy_since
            .map_or(Duration::ZERO, |since| since.elapsed());
        inner.busy + now
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn account(&mut self) {
        let is_busy = !self.works.is_empty() && self.long_waits.is_empty();
        match self.busy_since {
            None if is_busy => self.busy_since = Some(Instant::now()),
            Some(since) if !is_busy => {
                self.busy += since.elapsed();
                self.busy_since = None;
            }
            _ => {}
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Held while an actor works (see [`Progress::on_demand`]).
#[derive(Debug)]
#[must_use = "the work ends when this is dropped"]
pub struct Working {
    progress: Progress,
    id: u64,
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut inner = self.progress.lock();
        inner.works.retain(|(id, _)| *id != self.id);
        inner.account();
        if !inner.on_demand {
            inner.last = Instant::now();
        }
    }
}

/// Held during a declared wait.
#[derive(Debug)]
#[must_use = "the wait ends when this is dropped"]
pub struct LongWait {
    progress: Progress,
    id: u64,
}

impl Drop for LongWait {
    fn drop(&mut self) {
        let mut inner = self.progress.lock();
        inner.long_waits.retain(|(id, _)| *id != self.id);
        inner.account();
        inner.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_from_the_last_tick() {
        let progress = Progress::new();
        assert_eq!(progress.stalled_for(Instant::now()), None);
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), Some(5 * SECOND));
        progress.clone().tick();
        assert_eq!(progress.stalled_for(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_declared_wait_is_not_a_stall_until_it_is_over() {
        let progress = Progress::new();
        let longer = progress.long_wait(30 * SECOND);
        let shorter = progress.long_wait(10 * SECOND);
        tokio::time::advance(20 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), None);
        tokio::time::advance(20 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), Some(10 * SECOND));
        drop((longer, shorter));
        assert_eq!(progress.stalled_for(Instant::now()), None);
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_wait_can_be_declared() {
        let progress = Progress::new();
        let _endless = progress.long_wait(Duration::MAX);
        tokio::time::advance(1_000_000 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn busy_is_work_without_declared_waits() {
        let second = Duration::from_secs(1);
        let progress = Progress::on_demand();
        tokio::time::advance(second).await;
        assert_eq!(progress.busy(), Duration::ZERO);
        let first = progress.work();
        let second_work = progress.work();
        tokio::time::advance(second).await;
        drop(first);
        assert_eq!(
            progress.busy(),
            second,
            "works beside each other count once"
        );
        let waiting = progress.long_wait(second * 60);
        tokio::time::advance(second * 10).await;
        assert_eq!(progress.busy(), second);
        drop(waiting);
        tokio::time::advance(second).await;
        assert_eq!(progress.busy(), second * 2, "work under way counts already");
        drop(second_work);
        tokio::time::advance(second).await;
        assert_eq!(progress.busy(), second * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn on_demand_only_work_can_stall() {
        let progress = Progress::on_demand();
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), None);
        let work = progress.work();
        tokio::time::advance(7 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), Some(7 * SECOND));
        drop(work);
        tokio::time::advance(100 * SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_is_left_out_is_no_time_without_progress() {
        let stalled = |progress: &Progress| progress.stalled_for(Instant::now());
        let silent = Progress::new();
        let working = Progress::on_demand();
        let work = working.work();
        let waiting = Progress::new();
        let wait = waiting.long_wait(20 * SECOND);
        tokio::time::advance(70 * SECOND).await;
        for progress in [&silent, &working, &waiting] {
            progress.excuse(40 * SECOND);
        }
        assert_eq!(stalled(&silent), Some(30 * SECOND));
        assert_eq!(stalled(&working), Some(30 * SECOND));
        assert_eq!(stalled(&waiting), Some(10 * SECOND));
        // What came since is not to come.
        silent.excuse(40 * SECOND);
        assert_eq!(stalled(&silent), None);
        tokio::time::advance(SECOND).await;
        assert_eq!(stalled(&silent), Some(SECOND));
        drop((work, wait));
    }

    #[tokio::test(start_paused = true)]
    async fn works_that_come_and_go_do_not_excuse_one_that_hangs() {
        let progress = Progress::on_demand();
        let hanging = progress.work();
        for _ in 0..10 {
            let quick = progress.work();
            tokio::time::advance(SECOND).await;
            drop(quick);
        }
        assert_eq!(progress.stalled_for(Instant::now()), Some(10 * SECOND));
        progress.tick();
        assert_eq!(progress.stalled_for(Instant::now()), None);
        drop(hanging);
        let begun = progress.work();
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.stalled_for(Instant::now()), Some(SECOND));
        drop(begun);
    }
}
