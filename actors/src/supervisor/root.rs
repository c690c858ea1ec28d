//! The top of a tree, which has nobody to escalate to.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorRef, SpawnErr};

use super::actor::Supervisor;
use super::spec::{GaveUp, Spawned, SupervisorArgs};
use super::{ChildSpec, OnGiveUp, SupervisorMessage};
use crate::slot::Slot;

/// How long the end of a root waits for what is left of its tree.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(5);

/// How long a nested supervisor may take to drain, its children one after the other.
const PLANE_DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// How a tree ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootEnd {
    /// It was drained or stopped.
    Stopped,
    /// One of its children crashed too often.
    GaveUp(GaveUp),
    /// It was killed, or failed in a way that it should not.
    Died,
}

pub(super) type Verdict = Arc<OnceLock<RootEnd>>;

/// Starts a tree. The handle is done when the supervisor and everything under it has ended, and
/// says why.
pub async fn spawn_root(
    arguments: SupervisorArgs,
) -> Result<(ActorRef<SupervisorMessage>, JoinHandle<RootEnd>), SpawnErr> {
    let (supervisor, mut crew_gone) = Supervisor::with_crew();
    let verdict = supervisor.verdict();
    let (root, handle) = Actor::spawn(None, supervisor, arguments).await?;
    let end = tokio::spawn(async move {
        let _ = handle.await;
        if tokio::time::timeout(LEFTOVER_LIMIT, crew_gone.recv())
            .await
            .is_err()
        {
            tracing::error!("actors are left behind at the end of the tree");
        }
        verdict.get().cloned().unwrap_or(RootEnd::Died)
    });
    Ok((root, end))
}

impl Supervisor {
    /// A supervisor as the child of another. `make` builds fresh arguments for each generation,
    /// whose [`SupervisorArgs::name`] should be `name`; the slot holds the one that is up.
    ///
    /// The next generation starts only after the last one's whole subtree is gone.
    pub fn child_spec(
        name: impl Into<String>,
        on_give_up: OnGiveUp,
        slot: &Slot<SupervisorMessage>,
        make: impl Fn() -> SupervisorArgs + Send + Sync + 'static,
    ) -> ChildSpec {
        let published = slot.clone();
        let withdrawn = slot.clone();
        ChildSpec::spawning(name, on_give_up, move |parent| {
            let arguments = make();
            let slot = published.clone();
            Box::pin(async move {
                let (supervisor, mut crew_gone) = Supervisor::with_crew();
                let (plane, handle) =
                    Actor::spawn_linked(None, supervisor, arguments, parent).await?;
                slot.publish(plane.clone());
                let task = handle.abort_handle();
                let gone = tokio::spawn(async move {
                    let _ = handle.await;
                    let _ = crew_gone.recv().await;
                });
                let cell = plane.get_cell();
                Ok(Spawned { cell, task, gone })
            })
        })
        .on_down(Arc::new(move || withdrawn.withdraw_dead()))
        .with_drain_limit(PLANE_DRAIN_LIMIT)
    }
}
