//! The live feed: one reader of the store a process, and everyone who reads along.
//!
//! The feed actor follows the timeline ([`crate::store::feed`]) while there are readers, and a
//! little longer; whoever entered an event, this process or another, it comes along here. It
//! serialises each event once into the [`ring`], from which every reader takes what its filter
//! lets through, at its own pace. The actor may crash and the store may be away: readers wait, and
//! the feed goes on after the last event that it handed out.

mod actor;
pub mod ring;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daybook_actors::slot::Slot;
use tokio::sync::watch;

use crate::store::Store;
use crate::telemetry::metrics::Metrics;

pub use actor::{FeedActor, FeedArgs, FeedMessage};
use ring::{Fed, Found, Ring};

/// What is remembered for those who read along, in bytes.
const MOST_BYTES: usize = 32 << 20;

/// Events that a reader takes at once.
const TAKEN_AT_ONCE: usize = 64;

/// Bytes that a reader takes at once, to be copied for it. An event that has more is taken alone, as
/// all share it.
pub const PIECE: usize = 64 << 10;

/// The feed as readers and actor share it. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    metrics: Metrics,
    actor: Slot<FeedMessage>,
    inner: Mutex<Inner>,
    state: watch::Sender<State>,
}

struct Inner {
    ring: Ring,
    readers: usize,
}

/// What readers wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// The number after the newest event.
    end: u64,
    /// The store is being followed, or is away for the moment.
    following: bool,
    /// No more will come: the service stops.
    closed: bool,
}

impl Feed {
    /// A feed that nobody reads.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                metrics,
                actor: Slot::new(),
                inner: Mutex::new(Inner {
                    ring: Ring::new(MOST_BYTES),
                    readers: 0,
                }),
                state: watch::Sender::new(State::default()),
            }),
        }
    }

    /// Where its actor is found.
    pub fn actor(&self) -> &Slot<FeedMessage> {
        &self.shared.actor
    }

    /// Ends it: readers are told that no more will come.
    pub fn close(&self) {
        self.shared.state.send_modify(|state| state.closed = true);
    }

    /// Reads along from now on; while there is a reader, the store is followed.
    pub fn reader(&self) -> Reader {
        let mut inner = self.lock();
        inner.readers += 1;
        self.shared.metrics.stream_readers.set(inner.readers as f64);
        let next = inner.ring.end();
        drop(inner);
        Reader {
            feed: self.clone(),
            state: self.shared.state.subscribe(),
            next,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn has_readers(&self) -> bool {
        self.lock().readers > 0
    }

    /// The place up to which everything is in the ring; `None`: the store is not being followed.
    fn position(&self) -> Option<String> {
        self.lock().ring.position().map(str::to_owned)
    }

    fn publish(&self, entries: Vec<Fed>, position: String) {
        let (new, end) = {
            let mut inner = self.lock();
            let new = inner.ring.push(entries, position);
            (new, inner.ring.end())
        };
        self.shared.metrics.feed_events.increment(new as u64);
        self.shared.state.send_if_modified(|state| {
            let changed = state.end != end || !state.following;
            state.end = end;
            state.following = true;
            changed
        });
    }

    /// Forgets everything if there is no reader; whether it did.
    fn rest(&self) -> bool {
        let mut inner = self.lock();
        if inner.readers > 0 {
            return false;
        }
        inner.ring.clear();
        // Under the lock: a reader that comes now finds that it has to wait.
        self.shared
            .state
            .send_modify(|state| state.following = false);
        true
    }
}

/// Someone who reads along.
pub struct Reader {
    feed: Feed,
    state: watch::Receiver<State>,
    next: u64,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Taken {
    /// Events, in the order of their entry.
    Events(Vec<Arc<Fed>>),
    /// It was too slow: what comes next for it is no longer remembered.
    Behind,
    /// No more will come.
    Closed,
}

impl Reader {
    /// Waits until the store is followed, so that whatever is entered from then on will come.
    /// Whether it is, within this time. Cancel-safe.
    pub async fn following(&mut self, within: Duration) -> bool {
        let following = async {
            // One that ends just now is replaced, and its successor finds the reader.
            let actor = self.feed.shared.actor.ready().await;
            let _ended = actor.cast(FeedMessage::Begin);
            let state = self.state.wait_for(|state| state.following || state.closed);
            state.await.is_ok_and(|state| state.following)
        };
        let begun = tokio::time::timeout(within, following).await == Ok(true);
        if begun {
            self.next = self.feed.lock().ring.end();
        }
        begun
    }

    /// Goes on after a place, if that is remembered; whether it is.
    pub fn resume(&mut self, position: &str) -> bool {
        let next = self.feed.lock().ring.place(position);
        if let Some(next) = next {
            self.next = next;
        }
        next.is_some()
    }

    /// Goes on with what will be entered from now on.
    pub fn skip_to_end(&mut self) {
        self.next = self.feed.lock().ring.end();
    }

    /// The place after the newest event, if this reader has taken everything.
    pub fn position(&self) -> Option<String> {
        let inner = self.feed.lock();
        let position = inner.ring.position().map(str::to_owned);
        position.filter(|_| inner.ring.end() == self.next)
    }

    /// Waits for the next events: some small ones, or a large one. Cancel-safe.
    pub async fn take(&mut self) -> Taken {
        loop {
            if self.state.borrow_and_update().closed {
                return Taken::Closed;
            }
            match self.feed.lock().ring.from(self.next, TAKEN_AT_ONCE, PIECE) {
                Found::Behind => return Taken::Behind,
                Found::Entries(entries) if !entries.is_empty() => {
                    self.next += entries.len() as u64;
                    return Taken::Events(entries);
                }
                Found::Entries(_) => {}
            }
            if self.state.changed().await.is_err() {
                return Taken::Closed;
            }
        }
    }

    /// Waits for the end of the feed. Cancel-safe.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.feed.shared.state.subscribe();
        async move {
            // A feed that is gone is closed too.
            let _closed = state.wait_for(|state| state.closed).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.feed.lock();
        inner.readers -= 1;
        self.feed
            .shared
            .metrics
            .stream_readers
            .set(inner.readers as f64);
    }
}
