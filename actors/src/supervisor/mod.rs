//! The supervisor: one-for-one restarts, backoff, giving up, liveness, orderly drain.
//!
//! Invariants, each with a test in `tests/supervision.rs`:
//!
//! 1. A supervisor fails only by giving up ([`OnGiveUp::Escalate`]); no end of a child, and no
//!    failing spawn, not even the first, takes it along.
//! 2. At most one generation of a child exists: the next is spawned only after the last one's
//!    state has been dropped. This holds for the children of a nested supervisor too
//!    ([`Supervisor::child_spec`]).
//! 3. Whatever ended without being asked to is a crash: a panic, an error, a kill, a cancelled
//!    task, a failed spawn, a stall. A child that stops of its own accord is not restarted.
//! 4. A supervisor never waits in a handler. Spawns and joins happen in tasks that send a
//!    message; delays are delayed messages whose timers end with the state that holds them.
//! 5. Children end before their supervisor, in the reverse order of their start or at once, and each
//!    may empty its mailbox first.
//!
//! ```text
//!             spawn             post_start done
//!  Starting ─────────▶ Starting ───────────────▶ Running ──stop──▶ Ended
//!     ▲                   │ crash                   │ crash
//!     │  backoff over     ▼                         ▼
//!     └────────────── Restarting ◀──────────────────┤
//!                                                   │ too many
//!               probe_every over                    ▼
//!  Probing ◀──────────────────────────────────── Suspended    or: the supervisor fails
//!     │ lived for reset_after ──▶ Running           ▲
//!     └──────────────── crash ──────────────────────┘
//! ```

mod actor;
mod child;
mod keeper;
mod reporting;
mod root;
mod spec;

use ractor::RpcReplyPort;

pub use actor::Supervisor;
pub use keeper::KeeperReport;
pub use reporting::spawn_child;
pub use root::{RootEnd, spawn_root};
pub use spec::{
    ChildSpec, ChildState, ChildStatus, DEFAULT_DRAIN_LIMIT, EndOrder, Exit, GaveUp, Observer,
    OnGiveUp, SpawnFuture, SupervisorArgs,
};

/// What a supervisor can be told.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// Ends all children, answers, and stops the supervisor.
    Drain(RpcReplyPort<()>),
    /// Adds a child and starts it. A name that is taken is refused with a warning in the log.
    AddChild(ChildSpec),
    /// Drains a child and forgets it; answers whether there was one, once it is gone.
    RemoveChild(String, RpcReplyPort<bool>),
    /// Where every child stands, in the order of their start.
    Status(RpcReplyPort<Vec<ChildStatus>>),
    /// Kills a child, which is a crash like any other; answers whether it was up.
    KillChild(String, RpcReplyPort<bool>),
    /// Cancels the task that a child runs in, which is a crash like any other; answers whether it was up.
    AbortChild(String, RpcReplyPort<bool>),
    /// The supervisor to itself: a backoff or a suspension is over.
    Respawn {
        /// Whose.
        child: String,
        /// The generation that ended; a later one makes the message void.
        generation: u64,
    },
    /// The supervisor to itself: a probe has lived long enough.
    Healthy {
        /// Whose.
        child: String,
        /// The probe.
        generation: u64,
    },
    /// The supervisor to itself: look who makes no progress.
    CheckLiveness,
    /// From the task that keeps a child.
    Keeper {
        /// Whose.
        child: String,
        /// Which generation.
        generation: u64,
        /// The news.
        report: KeeperReport,
    },
    /// The supervisor to itself: all children have ended.
    ChildrenEnded,
}
