//! Tells an error that an actor returned from a panic: ractor reports both in the same way.

use std::fmt;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use super::spec::Exit;

/// Spawns an actor linked to its supervisor, such that the supervisor can tell a returned error
/// from a panic.
pub async fn spawn_child<A: Actor>(
    actor: A,
    arguments: A::Arguments,
    supervisor: ActorCell,
) -> Result<(ActorRef<A::Msg>, JoinHandle<()>), SpawnErr> {
    Actor::spawn_linked(None, Reporting(actor), arguments, supervisor).await
}

/// What a failed actor's error says of how it failed.
pub(super) fn exit_of(error: &ActorProcessingErr) -> Exit {
    let message = error.to_string();
    if error.is::<Returned>() {
        return Exit::Failed(message);
    }
    // A panic arrives as an error made of text, whose debug form is the quoted text. A returned
    // error with a type of its own looks otherwise.
    if format!("{error:?}") == format!("{message:?}") {
        return Exit::Panic(message);
    }
    Exit::Failed(message)
}

/// An error that a handler returned.
#[derive(Debug)]
struct Returned(ActorProcessingErr);

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Returned {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.as_ref())
    }
}

fn returned(error: ActorProcessingErr) -> ActorProcessingErr {
    Box::new(Returned(error))
}

/// The same actor, its errors marked.
struct Reporting<A>(A);

impl<A: Actor> Actor for Reporting<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<A::Msg>,
        arguments: A::Arguments,
    ) -> Result<A::State, ActorProcessingErr> {
        self.0.pre_start(myself, arguments).await
    }

    async fn post_start(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.0.post_start(myself, state).await.map_err(returned)
    }

    async fn post_stop(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.0.post_stop(myself, state).await.map_err(returned)
    }

    async fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        let handled = self.0.handle(myself, message, state).await;
        handled.map_err(returned)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        let handled = self.0.handle_supervisor_evt(myself, event, state).await;
        handled.map_err(returned)
    }
}
