//! What a supervisor remembers of one child.

use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorId, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::SupervisorMessage;
use super::keeper::{Crew, Keeper};
use super::spec::{ChildSpec, ChildState, ChildStatus, Exit};
use crate::policy::{Intensity, RestartHistory};

/// A task that ends with whoever holds this.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Graceful,
    Crash(Exit),
}

/// A delayed message to the supervisor that is void once this is dropped.
pub(super) type Timer = AbortOnDrop<Result<(), ractor::MessagingErr<SupervisorMessage>>>;

pub(super) struct Child {
    pub(super) spec: ChildSpec,
    pub(super) state: ChildState,
    pub(super) generation: u64,
    pub(super) keeper: Option<Keeper>,
    /// Consecutive crashes without a stretch of health between them.
    pub(super) attempt: u32,
    pub(super) history: RestartHistory,
    /// Who waits for the child's removal, and the task that ends it.
    pub(super) removal: Option<(Vec<RpcReplyPort<bool>>, AbortOnDrop<()>)>,
    /// The last crash, for the status.
    pub(super) last_exit: Option<Exit>,
    restarts: u64,
    started: bool,
    on_trial: bool,
    up_since: Option<Instant>,
    down_since: Option<Instant>,
    ending: Option<Ending>,
    killed_for_stalling: bool,
    down_told: bool,
    timer: Option<Timer>,
}

impl Child {
    pub(super) fn new(spec: ChildSpec, intensity: Intensity) -> Self {
        Self {
            spec,
            state: ChildState::Starting,
            generation: 0,
            keeper: None,
            attempt: 0,
            history: RestartHistory::new(intensity),
            removal: None,
            last_exit: None,
            restarts: 0,
            started: false,
            on_trial: false,
            up_since: None,
            down_since: None,
            ending: None,
            killed_for_stalling: false,
            down_told: false,
            timer: None,
        }
    }

    /// Begins the next generation.
    pub(super) fn start(
        &mut self,
        generation: u64,
        supervisor: ActorRef<SupervisorMessage>,
        spawn_limit: Duration,
        crew: Option<Crew>,
    ) {
        self.on_trial = self.state == ChildState::Suspended;
        if let Some(since) = self.down_since.take() {
            self.history.exclude(since.elapsed());
        }
        if let Some(progress) = &self.spec.progress {
            progress.tick();
        }
        self.state = ChildState::Starting;
        self.generation = generation;
        self.started = false;
        self.ending = None;
        self.killed_for_stalling = false;
        self.down_told = false;
        self.timer = None;
        self.keeper = Some(Keeper::start(
            &self.spec,
            generation,
            supervisor,
            spawn_limit,
            crew,
        ));
    }

    /// The spawn succeeded. The actor may have started, or even ended, before this news.
    pub(super) fn came_up(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        healthy_after: Duration,
    ) {
        self.up_since = Some(Instant::now());
        if !self.on_trial {
            return;
        }
        let (child, generation) = (self.spec.name.clone(), self.generation);
        self.timer = Some(AbortOnDrop(myself.send_after(healthy_after, move || {
            SupervisorMessage::Healthy { child, generation }
        })));
    }

    /// The actor's `post_start` is done.
    pub(super) fn has_started(&mut self) {
        self.started = true;
        self.state = if self.on_trial {
            ChildState::Probing
        } else {
            ChildState::Running
        };
    }

    /// A probe has lived long enough; false if this was none.
    pub(super) fn passed_its_trial(&mut self) -> bool {
        if !self.on_trial || self.keeper.is_none() {
            return false;
        }
        self.on_trial = false;
        self.attempt = 0;
        if self.started {
            self.state = ChildState::Running;
        }
        true
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.on_trial
    }

    /// News of the end, before the state is dropped.
    pub(super) fn is_ending(&mut self, ending: Ending) {
        self.ending = Some(ending);
        self.tell_down();
    }

    /// Calls `on_down` once a generation.
    fn tell_down(&mut self) {
        if std::mem::replace(&mut self.down_told, true) {
            return;
        }
        if let Some(on_down) = &self.spec.on_down {
            on_down();
        }
    }

    /// The generation is gone for good; how it ended, and how long it had been up.
    pub(super) fn is_gone(&mut self, failed_spawn: Option<String>) -> (Ending, Duration) {
        self.keeper = None;
        self.timer = None;
        self.tell_down();
        let lived = self.up_since.take().map_or(Duration::ZERO, |t| t.elapsed());
        let ending = match (failed_spawn, self.ending.take()) {
            (Some(reason), _) => Ending::Crash(Exit::SpawnFailed(reason)),
            (None, Some(Ending::Crash(Exit::Killed)) | None) if self.killed_for_stalling => {
                Ending::Crash(Exit::Stalled)
            }
            (None, Some(ending)) => ending,
            (None, None) => Ending::Crash(Exit::Killed),
        };
        if let Ending::Crash(exit) = &ending {
            self.last_exit = Some(exit.clone());
            self.restarts += 1;
        }
        (ending, lived)
    }

    /// Arms the next spawn of a child that is down.
    pub(super) fn respawn_after(&mut self, delay: Duration, myself: &ActorRef<SupervisorMessage>) {
        self.down_since = Some(Instant::now());
        let (child, generation) = (self.spec.name.clone(), self.generation);
        self.timer = Some(AbortOnDrop(myself.send_after(delay, move || {
            SupervisorMessage::Respawn { child, generation }
        })));
    }

    /// No further spawn.
    pub(super) fn cancel_respawn(&mut self) {
        self.timer = None;
        if self.keeper.is_none() {
            self.state = ChildState::Ended;
        }
    }

    /// Kills the child if it has made no progress for too long; true if it did.
    pub(super) fn kill_if_stalled(&mut self, stall_after: Duration) -> bool {
        let (Some(progress), Some(keeper)) = (&self.spec.progress, &self.keeper) else {
            return false;
        };
        let stalled = progress.stalled_for(Instant::now());
        if self.killed_for_stalling || stalled.is_none_or(|stalled| stalled < stall_after) {
            return false;
        }
        let Some(cell) = keeper.cell() else {
            return false;
        };
        self.killed_for_stalling = true;
        cell.kill();
        true
    }

    /// The actor that is up.
    pub(super) fn actor(&self) -> Option<ActorId> {
        self.keeper.as_ref()?.cell().map(|cell| cell.get_id())
    }

    pub(super) fn status(&self) -> ChildStatus {
        ChildStatus {
            name: self.spec.name.clone(),
            state: self.state,
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            actor: self.actor(),
        }
    }
}
