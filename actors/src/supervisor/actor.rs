//! The supervisor's actor: supervision events and messages in, decisions out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::join_all;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, Signal, SupervisionEvent,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::SupervisorMessage;
use super::child::{AbortOnDrop, Child, Ending, Timer};
use super::keeper::{Crew, Keeper, Report, WeakCrew};
use super::reporting::exit_of;
use super::root::{RootEnd, Verdict};
use super::spec::{ChildSpec, ChildState, EndOrder, Exit, GaveUp, OnGiveUp, SupervisorArgs};

/// The supervising actor. Start it with [`super::spawn_root`] or as a child of another with
/// [`Supervisor::child_spec`].
#[derive(Debug, Default)]
pub struct Supervisor {
    crew: Option<Crew>,
    verdict: Verdict,
}

impl Supervisor {
    /// A supervisor, and a channel that closes when it and all its children are gone.
    pub(super) fn with_crew() -> (Self, mpsc::Receiver<Infallible>) {
        let (crew, gone) = mpsc::channel(1);
        let supervisor = Self {
            crew: Some(crew),
            verdict: Verdict::default(),
        };
        (supervisor, gone)
    }

    pub(super) fn verdict(&self) -> Verdict {
        Verdict::clone(&self.verdict)
    }
}

/// Why all children are being ended.
enum Closing {
    Drain(Vec<RpcReplyPort<()>>),
    GiveUp(GaveUp),
}

/// What came of an actor before its keeper could tell that it is up.
#[derive(Default)]
struct Early {
    started: bool,
    ending: Option<Ending>,
}

/// The state of a [`Supervisor`].
pub struct SupervisorState {
    arguments: SupervisorArgs,
    children: Vec<Child>,
    next_generation: u64,
    early: HashMap<ActorId, Early>,
    closing: Option<Closing>,
    /// Ends the children, one after the other.
    closer: Option<AbortOnDrop<()>>,
    children_ended: bool,
    liveness_timer: Option<Timer>,
    /// When that is over.
    liveness_due: Instant,
    /// Weak: the state of a dead supervisor may lie unread in its parent's queue, and must not
    /// pass for a member of the crew meanwhile.
    crew: Option<WeakCrew>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<SupervisorMessage>,
        mut arguments: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let specs = std::mem::take(&mut arguments.children);
        let mut state = SupervisorState {
            arguments,
            children: Vec::new(),
            next_generation: 1,
            early: HashMap::new(),
            closing: None,
            closer: None,
            children_ended: false,
            liveness_timer: None,
            liveness_due: Instant::now(),
            crew: self.crew.as_ref().map(Crew::downgrade),
        };
        for spec in specs {
            if state.position(&spec.name).is_some() {
                return Err(format!("two children are named {}", spec.name).into());
            }
            state.add(spec);
        }
        Ok(state)
    }

    async fn post_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        for index in 0..state.children.len() {
            state.start(index, &myself);
        }
        state.arm_liveness(&myself);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Keeper {
                child,
                generation,
                report,
            } => state.heard_of(&child, generation, report.0, &myself),
            SupervisorMessage::Respawn { child, generation } => {
                state.respawn(&child, generation, &myself);
            }
            SupervisorMessage::Healthy { child, generation } => state.healthy(&child, generation),
            SupervisorMessage::CheckLiveness => state.check_liveness(&myself),
            SupervisorMessage::Drain(reply) => state.drain(reply, &myself),
            SupervisorMessage::ChildrenEnded => return self.children_ended(&myself, state),
            SupervisorMessage::AddChild(spec) => state.add_child(spec, &myself),
            SupervisorMessage::RemoveChild(name, reply) => state.remove_child(&name, reply),
            SupervisorMessage::Status(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(state.children.iter().map(Child::status).collect());
            }
            SupervisorMessage::KillChild(name, reply) => {
                let _ = reply.send(state.kill_child(&name));
            }
            SupervisorMessage::AbortChild(name, reply) => {
                let keeper = state
                    .position(&name)
                    .and_then(|index| state.children[index].keeper.as_ref());
                let _ = reply.send(keeper.is_some_and(Keeper::abort));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(who) => state.has_started(&who),
            SupervisionEvent::ActorFailed(who, error) => {
                state.is_ending(&who, Ending::Crash(exit_of(&error)));
            }
            SupervisionEvent::ActorTerminated(who, last_state, reason) => {
                // A kill in a handler or between two still brings the state; only its reason tells.
                let killed = reason.is_some_and(|reason| reason == Signal::Kill.to_string());
                let ending = if killed || last_state.is_none() {
                    Ending::Crash(Exit::Killed)
                } else {
                    Ending::Graceful
                };
                state.is_ending(&who, ending);
            }
            SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<SupervisorMessage>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        // However the stop came, the children end first. (Ractor would kill them.)
        state.closer = None;
        state.liveness_timer = None;
        if !state.children_ended {
            state.end_children().await;
        }
        if let Some(Closing::Drain(replies)) = state.closing.take() {
            answer(replies, ());
        }
        let _ = self.verdict.set(RootEnd::Stopped);
        Ok(())
    }
}

impl Supervisor {
    fn children_ended(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        state.children_ended = true;
        match state.closing.take() {
            Some(Closing::GiveUp(gave_up)) => {
                let _ = self.verdict.set(RootEnd::GaveUp(gave_up.clone()));
                Err(gave_up.into())
            }
            Some(Closing::Drain(replies)) => {
                answer(replies, ());
                myself.stop(None);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn answer<T: Clone>(replies: Vec<RpcReplyPort<T>>, answer: T) {
    for reply in replies {
        // Whoever asked may have gone.
        let _ = reply.send(answer.clone());
    }
}

impl SupervisorState {
    fn position(&self, name: &str) -> Option<usize> {
        self.children
            .iter()
            .position(|child| child.spec.name == name)
    }

    fn generation(&mut self, name: &str, generation: u64) -> Option<&mut Child> {
        self.children
            .iter_mut()
            .find(|child| child.spec.name == name && child.generation == generation)
    }

    fn with_actor(&mut self, who: &ActorCell) -> Option<&mut Child> {
        let id = who.get_id();
        self.children
            .iter_mut()
            .find(|child| child.actor() == Some(id))
    }

    fn add(&mut self, spec: ChildSpec) {
        let intensity = self.arguments.intensity;
        self.children.push(Child::new(spec, intensity));
    }

    fn start(&mut self, index: usize, myself: &ActorRef<SupervisorMessage>) {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.children[index].start(
            generation,
            myself.clone(),
            self.arguments.stall_after,
            self.crew.as_ref().and_then(WeakCrew::upgrade),
        );
    }

    fn has_started(&mut self, who: &ActorCell) {
        let observer = self.arguments.observer.clone();
        match self.with_actor(who) {
            Some(child) => {
                child.has_started();
                observer.running(&child.spec.name);
            }
            None => self.early.entry(who.get_id()).or_default().started = true,
        }
    }

    fn is_ending(&mut self, who: &ActorCell, ending: Ending) {
        match self.with_actor(who) {
            Some(child) => child.is_ending(ending),
            None => self.early.entry(who.get_id()).or_default().ending = Some(ending),
        }
    }

    fn heard_of(
        &mut self,
        name: &str,
        generation: u64,
        report: Report,
        myself: &ActorRef<SupervisorMessage>,
    ) {
        let healthy_after = self.arguments.backoff.reset_after;
        if self.generation(name, generation).is_none() {
            return;
        }
        match report {
            Report::Up(cell) => {
                let early = self.early.remove(&cell.get_id()).unwrap_or_default();
                let observer = self.arguments.observer.clone();
                if let Some(child) = self.generation(name, generation) {
                    child.came_up(myself, healthy_after);
                    if early.started {
                        child.has_started();
                        observer.running(name);
                    }
                    if let Some(ending) = early.ending {
                        child.is_ending(ending);
                    }
                }
            }
            Report::Ended(actor) => {
                // The keeper was past "up" when these came, if any did.
                let late = self.early.remove(&actor).and_then(|early| early.ending);
                if let (Some(ending), Some(child)) = (late, self.generation(name, generation)) {
                    child.is_ending(ending);
                }
                self.is_gone(name, None, myself);
            }
            Report::SpawnFailed(reason) => self.is_gone(name, Some(reason), myself),
        }
    }

    fn is_gone(
        &mut self,
        name: &str,
        failed_spawn: Option<String>,
        myself: &ActorRef<SupervisorMessage>,
    ) {
        let Some(index) = self.position(name) else {
            return;
        };
        let child = &mut self.children[index];
        let (ending, lived) = child.is_gone(failed_spawn);
        if let Some((replies, _closer)) = child.removal.take() {
            self.children.remove(index);
            answer(replies, true);
            return;
        }
        if self.closing.is_some() {
            child.state = ChildState::Ended;
            return;
        }
        let Ending::Crash(exit) = ending else {
            child.state = ChildState::Ended;
            self.arguments.observer.ended(name);
            return;
        };
        tracing::warn!(supervisor = self.arguments.name, child = name, %exit, "child crashed");
        let backoff = self.arguments.backoff;
        if child.is_on_trial() {
            return self.give_up_on(index, exit, myself);
        }
        if lived >= backoff.reset_after {
            child.attempt = 0;
        }
        if child.history.record(Instant::now()) {
            return self.give_up_on(index, exit, myself);
        }
        let delay = backoff.delay(child.attempt, &mut rand::rng());
        child.attempt = child.attempt.saturating_add(1);
        child.state = ChildState::Restarting;
        child.respawn_after(delay, myself);
        self.arguments.observer.restarted(name, &exit, delay);
    }

    fn give_up_on(&mut self, index: usize, exit: Exit, myself: &ActorRef<SupervisorMessage>) {
        let child = &mut self.children[index];
        let name = child.spec.name.clone();
        let supervisor = self.arguments.name.clone();
        match child.spec.on_give_up {
            OnGiveUp::Suspend { probe_every } => {
                tracing::error!(supervisor, child = name, %exit, "child crashed too often, suspended");
                child.state = ChildState::Suspended;
                child.history.clear();
                child.respawn_after(probe_every, myself);
                self.arguments.observer.suspended(&name, &exit);
            }
            OnGiveUp::Escalate => {
                tracing::error!(supervisor, child = name, %exit, "child crashed too often, giving up");
                child.state = ChildState::Ended;
                self.arguments.observer.gave_up(&supervisor, &name);
                self.close(
                    Closing::GiveUp(GaveUp {
                        supervisor,
                        child: name,
                        exit,
                    }),
                    myself,
                );
            }
        }
    }

    fn respawn(&mut self, name: &str, generation: u64, myself: &ActorRef<SupervisorMessage>) {
        if self.closing.is_some() {
            return;
        }
        let Some(index) = self.position(name) else {
            return;
        };
        let child = &self.children[index];
        if child.generation == generation && child.keeper.is_none() {
            self.start(index, myself);
        }
    }

    fn healthy(&mut self, name: &str, generation: u64) {
        let observer = self.arguments.observer.clone();
        if let Some(child) = self.generation(name, generation)
            && child.passed_its_trial()
        {
            observer.resumed(name);
        }
    }

    fn liveness_period(&self) -> Duration {
        (self.arguments.stall_after / 4).max(Duration::from_millis(10))
    }

    fn arm_liveness(&mut self, myself: &ActorRef<SupervisorMessage>) {
        let period = self.liveness_period();
        let timer = myself.send_after(period, || SupervisorMessage::CheckLiveness);
        self.liveness_timer = Some(AbortOnDrop(timer));
        self.liveness_due = Instant::now() + period;
    }

    fn check_liveness(&mut self, myself: &ActorRef<SupervisorMessage>) {
        let stall_after = self.arguments.stall_after;
        let late = Instant::now().saturating_duration_since(self.liveness_due);
        // A process that was stopped, or not let run, did not run the children either.
        let stood_still = late > self.liveness_period();
        for child in &mut self.children {
            if stood_still && let Some(progress) = &child.spec.progress {
                progress.excuse(late);
            }
            if child.kill_if_stalled(stall_after) {
                tracing::error!(child = child.spec.name, "child makes no progress, killed");
            }
        }
        self.arm_liveness(myself);
    }

    fn add_child(&mut self, spec: ChildSpec, myself: &ActorRef<SupervisorMessage>) {
        if self.closing.is_some() || self.position(&spec.name).is_some() {
            tracing::warn!(
                child = spec.name,
                "child refused: ending, or the name is taken"
            );
            return;
        }
        self.add(spec);
        self.start(self.children.len() - 1, myself);
    }

    fn remove_child(&mut self, name: &str, reply: RpcReplyPort<bool>) {
        let Some(index) = self.position(name) else {
            let _ = reply.send(false);
            return;
        };
        let child = &mut self.children[index];
        if let Some((replies, _)) = &mut child.removal {
            return replies.push(reply);
        }
        let limit = child.spec.drain_limit;
        let Some(keeper) = &mut child.keeper else {
            self.children.remove(index);
            let _ = reply.send(true);
            return;
        };
        let ended = keeper.end(name.to_owned(), limit);
        child.removal = Some((vec![reply], AbortOnDrop(tokio::spawn(ended))));
    }

    fn kill_child(&mut self, name: &str) -> bool {
        let child = self.position(name).map(|index| &self.children[index]);
        let cell = child.and_then(|child| child.keeper.as_ref()?.cell());
        cell.is_some_and(|cell| {
            cell.kill();
            true
        })
    }

    fn drain(&mut self, reply: RpcReplyPort<()>, myself: &ActorRef<SupervisorMessage>) {
        match &mut self.closing {
            Some(Closing::Drain(replies)) => replies.push(reply),
            // The supervisor fails as soon as its children have ended, which closes the port.
            Some(Closing::GiveUp(_)) => drop(reply),
            None => self.close(Closing::Drain(vec![reply]), myself),
        }
    }

    fn close(&mut self, why: Closing, myself: &ActorRef<SupervisorMessage>) {
        self.closing = Some(why);
        let ended = self.end_children();
        let myself = myself.clone();
        self.closer = Some(AbortOnDrop(tokio::spawn(async move {
            ended.await;
            // Fails only if the supervisor is stopping anyhow.
            let _ = myself.send_message(SupervisorMessage::ChildrenEnded);
        })));
    }

    /// Ends the children, in the order that was asked for.
    fn end_children(&mut self) -> impl Future<Output = ()> + use<> {
        let mut endings = Vec::new();
        for child in self.children.iter_mut().rev() {
            child.cancel_respawn();
            let limit = child.spec.drain_limit;
            let name = child.spec.name.clone();
            endings.extend(child.keeper.as_mut().map(|keeper| keeper.end(name, limit)));
        }
        let end_order = self.arguments.end_order;
        async move {
            match end_order {
                EndOrder::AtOnce => drop(join_all(endings).await),
                EndOrder::Reversed => {
                    for ending in endings {
                        ending.await;
                    }
                }
            }
        }
    }
}
