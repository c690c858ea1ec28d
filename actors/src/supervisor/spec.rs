//! What a supervisor is told of its children, and what it tells of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorId, SpawnErr};
use tokio::task::AbortHandle;

use super::reporting::spawn_child;
use crate::liveness::Progress;
use crate::policy::{Backoff, Intensity};
use crate::slot::Slot;

/// How long a child may take to empty its mailbox before it is killed, unless its spec says otherwise.
pub const DEFAULT_DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The future that brings a child up.
pub type SpawnFuture = BoxFuture<'static, Result<(ActorCell, JoinHandle<()>), SpawnErr>>;

type Spawn = dyn Fn(ActorCell) -> BoxFuture<'static, Result<Spawned, SpawnErr>> + Send + Sync;
type OnDown = dyn Fn() + Send + Sync;

/// A child that is up.
pub(super) struct Spawned {
    pub(super) cell: ActorCell,
    /// The task that the actor itself runs in.
    pub(super) task: AbortHandle,
    /// Done when nothing of the child is left.
    pub(super) gone: JoinHandle<()>,
}

/// What follows when a child crashes more often than the intensity bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGiveUp {
    /// The child is left alone, its siblings go on, and it is tried again once in this time.
    Suspend {
        /// Time between two tries.
        probe_every: Duration,
    },
    /// The supervisor ends its other children and then fails itself, so that its own supervisor
    /// restarts the whole plane.
    Escalate,
}

/// One child and how to bring it up, again and again.
#[derive(Clone)]
pub struct ChildSpec {
    /// Its name: unique within the supervisor, a label of metrics. (ractor's own names are global
    /// to the process and not used.)
    pub name: String,
    /// What follows when it crashes too often.
    pub on_give_up: OnGiveUp,
    /// Its sign of life; without one it is never taken for stalled.
    pub progress: Option<Progress>,
    /// How long it may take to empty its mailbox before it is killed.
    pub drain_limit: Duration,
    pub(super) spawn: Arc<Spawn>,
    pub(super) on_down: Option<Arc<OnDown>>,
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("on_give_up", &self.on_give_up)
            .finish_non_exhaustive()
    }
}

impl ChildSpec {
    /// A child from a spawn function, which is given the supervisor and must *link* the new actor
    /// to it ([`Actor::spawn_linked`] or [`spawn_child`]).
    pub fn new(
        name: impl Into<String>,
        on_give_up: OnGiveUp,
        spawn: impl Fn(ActorCell) -> SpawnFuture + Send + Sync + 'static,
    ) -> Self {
        Self::spawning(name, on_give_up, move |supervisor| {
            let spawn = spawn(supervisor);
            Box::pin(async move {
                let (cell, gone) = spawn.await?;
                let task = gone.abort_handle();
                Ok(Spawned { cell, task, gone })
            })
        })
    }

    pub(super) fn spawning(
        name: impl Into<String>,
        on_give_up: OnGiveUp,
        spawn: impl Fn(ActorCell) -> BoxFuture<'static, Result<Spawned, SpawnErr>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            on_give_up,
            progress: None,
            drain_limit: DEFAULT_DRAIN_LIMIT,
            spawn: Arc::new(spawn),
            on_down: None,
        }
    }

    /// The common case: every generation is built by `make`, is published in the slot when it is
    /// up, and is withdrawn from it when it is down.
    pub fn actor<A: Actor>(
        name: impl Into<String>,
        on_give_up: OnGiveUp,
        slot: &Slot<A::Msg>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let published = slot.clone();
        let withdrawn = slot.clone();
        Self::new(name, on_give_up, move |supervisor| {
            let (actor, arguments) = make();
            let slot = published.clone();
            Box::pin(async move {
                let (actor, handle) = spawn_child(actor, arguments, supervisor).await?;
                slot.publish(actor.clone());
                Ok((actor.get_cell(), handle))
            })
        })
        .on_down(Arc::new(move || withdrawn.withdraw_dead()))
    }

    /// Adds a sign of life for the supervisor to watch.
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Sets how long the child may take to empty its mailbox.
    pub fn with_drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// Called once for every generation that ended (and every spawn that failed), always before
    /// the next one is spawned. Must not block and must not panic.
    pub fn on_down(mut self, on_down: Arc<OnDown>) -> Self {
        self.on_down = Some(on_down);
        self
    }
}

/// How a child came to a bad end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It panicked, with this message. (So is an error made of plain text by an actor that was not
    /// spawned through [`spawn_child`]: the two arrive alike.)
    Panic(String),
    /// A handler returned this error.
    Failed(String),
    /// It was killed, or its task was cancelled.
    Killed,
    /// It made no progress and was killed for it.
    Stalled,
    /// It did not come up.
    SpawnFailed(String),
}

impl Exit {
    /// Every [`Exit::reason`].
    pub const REASONS: [&'static str; 5] = ["panic", "error", "killed", "stalled", "spawn_failed"];

    /// The label of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Panic(_) => "panic",
            Self::Failed(_) => "error",
            Self::Killed => "killed",
            Self::Stalled => "stalled",
            Self::SpawnFailed(_) => "spawn_failed",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(message) => write!(f, "panicked: {message}"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Killed => f.write_str("killed"),
            Self::Stalled => f.write_str("stalled"),
            Self::SpawnFailed(message) => write!(f, "did not start: {message}"),
        }
    }
}

/// Is told what happens in a supervisor, for metrics and logs. Called from the supervisor's own
/// task: must not block and must not panic.
#[allow(unused_variables, reason = "every method is optional")]
pub trait Observer: Send + Sync + 'static {
    /// The child crashed and is brought up again after this delay.
    fn restarted(&self, child: &str, exit: &Exit, delay: Duration) {}
    /// The child is up (its `post_start` is done).
    fn running(&self, child: &str) {}
    /// The child ended of its own accord and is not restarted.
    fn ended(&self, child: &str) {}
    /// The child crashed too often and is left alone but for a probe now and then.
    fn suspended(&self, child: &str, exit: &Exit) {}
    /// A suspended child has lived long enough.
    fn resumed(&self, child: &str) {}
    /// The supervisor gives itself up because of this child.
    fn gave_up(&self, supervisor: &str, child: &str) {}
}

/// An observer that looks away.
impl Observer for () {}

/// How a supervisor's children end when it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndOrder {
    /// The last that was started first, each when the one before is gone.
    #[default]
    Reversed,
    /// All at once: none needs another.
    AtOnce,
}

/// What a supervisor is made of.
pub struct SupervisorArgs {
    /// Its name, for logs and [`Observer::gave_up`].
    pub name: String,
    /// Its children in the order of their start.
    pub children: Vec<ChildSpec>,
    /// How they are drained.
    pub end_order: EndOrder,
    /// The wait before a restart.
    pub backoff: Backoff,
    /// How many crashes of one child are too many.
    pub intensity: Intensity,
    /// A child without progress for this long is killed; a longer stop of the whole process does not count.
    /// Also the longest that a spawn may take.
    pub stall_after: Duration,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
}

impl SupervisorArgs {
    /// The default policies, a stall limit of 60 s, and no observer.
    pub fn new(name: impl Into<String>, children: Vec<ChildSpec>) -> Self {
        Self {
            name: name.into(),
            children,
            end_order: EndOrder::default(),
            backoff: Backoff::default(),
            intensity: Intensity::default(),
            stall_after: Duration::from_secs(60),
            observer: Arc::new(()),
        }
    }
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// Being spawned, or in its `post_start`.
    Starting,
    /// Up.
    Running,
    /// Down; its restart is due after a backoff.
    Restarting,
    /// Crashed too often; left alone until the next probe.
    Suspended,
    /// Up on trial after a suspension.
    Probing,
    /// Ended and not coming back.
    Ended,
}

impl ChildState {
    /// The state as a word, for metrics and status pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Suspended => "suspended",
            Self::Probing => "probing",
            Self::Ended => "ended",
        }
    }
}

/// One line of a supervisor's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// The child's name.
    pub name: String,
    /// Where it stands.
    pub state: ChildState,
    /// Its crashes since it was added.
    pub restarts: u64,
    /// How it crashed last.
    pub last_exit: Option<Exit>,
    /// The generation that is up now.
    pub actor: Option<ActorId>,
}

/// Why a supervisor failed of its own accord.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("supervisor {supervisor} gave up: {child} {exit}")]
pub struct GaveUp {
    /// The supervisor.
    pub supervisor: String,
    /// The child that crashed too often.
    pub child: String,
    /// How it crashed last.
    pub exit: Exit,
}
