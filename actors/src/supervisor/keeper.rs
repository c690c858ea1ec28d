//! One generation of one child, from its spawn to the drop of its state.
//!
//! A task of its own spawns the child and then awaits its join handle, so that the supervisor
//! never waits: not for a slow `pre_start`, and not for a dead child whose state is still being
//! dropped. The supervision event of a death is sent before the join handle is done and is read
//! before ordinary messages; when [`Report::Ended`] is handled, the event has been.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{ActorCell, ActorId, ActorRef};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::SupervisorMessage;
use super::spec::{ChildSpec, Spawned};

/// How long a killed child may take to be gone. Longer means that it blocks its thread; nothing
/// inside the process can end it.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Held by everything that belongs to a supervisor's generation; the other end of the channel
/// closes when all of it is gone.
pub(super) type Crew = mpsc::Sender<Infallible>;
pub(super) type WeakCrew = mpsc::WeakSender<Infallible>;

/// What a keeper tells its supervisor.
#[derive(Clone, Debug)]
pub(super) enum Report {
    Up(ActorCell),
    Ended(ActorId),
    SpawnFailed(String),
}

#[derive(Clone, Debug)]
enum Phase {
    Spawning,
    Up(ActorCell, AbortHandle),
    Gone,
}

/// The supervisor's hold on a generation; dropping it kills the child.
pub(super) struct Keeper {
    phase: watch::Receiver<Phase>,
    abandon_spawn: Option<oneshot::Sender<Infallible>>,
}

impl Keeper {
    pub(super) fn start(
        spec: &ChildSpec,
        generation: u64,
        supervisor: ActorRef<SupervisorMessage>,
        spawn_limit: Duration,
        crew: Option<Crew>,
    ) -> Self {
        let (phase_sender, phase) = watch::channel(Phase::Spawning);
        let (abandon_spawn, abandoned) = oneshot::channel();
        let spawn = Arc::clone(&spec.spawn);
        let name = spec.name.clone();
        tokio::spawn(async move {
            let _member = crew;
            let report = |report| {
                supervisor.send_message(SupervisorMessage::Keeper {
                    child: name.clone(),
                    generation,
                    report: KeeperReport(report),
                })
            };
            let attempt = async { spawn(supervisor.get_cell()).await };
            let outcome = tokio::select! {
                biased;
                outcome = bring_up(attempt, spawn_limit) => outcome,
                _ = abandoned => Err("abandoned".to_owned()),
            };
            let last_report = match outcome {
                Ok(Spawned { cell, task, gone }) => {
                    phase_sender.send_replace(Phase::Up(cell.clone(), task));
                    if report(Report::Up(cell.clone())).is_err() {
                        cell.kill();
                    }
                    let id = cell.get_id();
                    drop(cell);
                    // A panic of the task (a state that panics in its drop) is an end like others.
                    let _ = gone.await;
                    Report::Ended(id)
                }
                Err(reason) => Report::SpawnFailed(reason),
            };
            phase_sender.send_replace(Phase::Gone);
            // A supervisor that is gone has no use for it.
            let _ = report(last_report);
        });
        Self {
            phase,
            abandon_spawn: Some(abandon_spawn),
        }
    }

    /// The child, while it is up.
    pub(super) fn cell(&self) -> Option<ActorCell> {
        match &*self.phase.borrow() {
            Phase::Up(cell, _) => Some(cell.clone()),
            Phase::Spawning | Phase::Gone => None,
        }
    }

    /// Aborts the task that the child runs in, as a runtime that shuts down does; false if it is not up.
    pub(super) fn abort(&self) -> bool {
        let Phase::Up(_, task) = &*self.phase.borrow() else {
            return false;
        };
        task.abort();
        true
    }

    /// Lets the child empty its mailbox and waits for its end; kills it after the limit.
    pub(super) fn end(
        &mut self,
        name: String,
        limit: Duration,
    ) -> impl Future<Output = ()> + use<> {
        drop(self.abandon_spawn.take());
        let mut phase = self.phase.clone();
        async move {
            let settled = phase.wait_for(|phase| !matches!(phase, Phase::Spawning));
            let Ok(Phase::Up(cell, _)) = settled.await.map(|phase| phase.clone()) else {
                return;
            };
            // Fails only for a child that is ending already.
            let _ = cell.drain();
            if gone_within(&mut phase, limit).await {
                return;
            }
            tracing::warn!(
                child = name,
                ?limit,
                "child did not drain in time, killing it"
            );
            cell.kill();
            if !gone_within(&mut phase, KILL_LIMIT).await {
                tracing::error!(
                    child = name,
                    "killed child blocks its thread, leaving it behind"
                );
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The end of a supervisor kills its children, but not those that are draining.
        if let Some(cell) = self.cell() {
            cell.kill();
        }
    }
}

async fn gone_within(phase: &mut watch::Receiver<Phase>, limit: Duration) -> bool {
    let gone = phase.wait_for(|phase| matches!(phase, Phase::Gone));
    timeout(limit, gone).await.is_ok()
}

async fn bring_up(
    attempt: impl Future<Output = Result<Spawned, ractor::SpawnErr>>,
    limit: Duration,
) -> Result<Spawned, String> {
    match timeout(limit, AssertUnwindSafe(attempt).catch_unwind()).await {
        Ok(Ok(Ok(up))) => Ok(up),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(panic)) => Err(panic_message(panic.as_ref())),
        Err(_) => Err(format!("not up within {limit:?}")),
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
        .to_owned()
}

/// News of a child from the task that keeps it; made by this crate only.
#[derive(Debug)]
pub struct KeeperReport(pub(super) Report);
