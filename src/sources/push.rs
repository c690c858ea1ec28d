//! The acceptor: the actor of a source whose events are pushed to Daybook.
//!
//! A connection's task hands over a job (decode this body, deliver it) and waits. The jobs run
//! beside each other, owned by the actor's state: when the actor ends, however it ends, they end
//! with it, and every waiting connection hears its reply port close and answers 503, so that the
//! sender sends again. The answer is 200 only for what is durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_actors::budget::Permit;
use daybook_actors::liveness::Progress;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;

use crate::batch::{Batch, Entry, Receipt};
use crate::event::DeadLetterReason;
use crate::probe::Probe;
use crate::sources::courier::Courier;
use crate::status::{CursorView, SourceState};

/// How long a push may take in all, unless the tree says otherwise. Stalwart gives up after 30 s
/// and sends again.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// So many events are durable and so many pieces are quarantined, durably.
    Durable {
        /// Events.
        received: u64,
        /// Dead letters.
        quarantined: u64,
    },
    /// Not durable: to be sent again.
    Unavailable(String),
}

/// A job: runs with the source's way downstream.
pub type Job = Box<dyn FnOnce(Pusher) -> Pin<Box<dyn Future<Output = Pushed> + Send>> + Send>;

/// What the acceptor is told.
pub enum AcceptorMessage {
    /// Run this job and answer.
    Push(Job, RpcReplyPort<Pushed>),
}

/// The actor.
pub struct Acceptor;

/// What the acceptor works with.
#[derive(Clone)]
pub struct AcceptorArgs {
    /// Its way downstream.
    pub courier: Courier,
    /// Events a batch.
    pub batch_events: usize,
    /// How long a push may take in all.
    pub patience: Duration,
    /// Shown while a message is handled.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct AcceptorState {
    args: AcceptorArgs,
    jobs: JoinSet<()>,
}

impl Actor for Acceptor {
    type Msg = AcceptorMessage;
    type State = AcceptorState;
    type Arguments = AcceptorArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: AcceptorArgs,
    ) -> Result<AcceptorState, ActorProcessingErr> {
        Ok(AcceptorState {
            args,
            jobs: JoinSet::new(),
        })
    }

    async fn post_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut AcceptorState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state.args.probe.hit("post_start").await?;
        let status = &state.args.courier.status;
        status.set_cursor(CursorView::default());
        status.set_state(SourceState::Running, None);
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: AcceptorMessage,
        state: &mut AcceptorState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        let AcceptorMessage::Push(job, reply) = message;
        state.args.probe.hit("after_read").await?;
        let pusher = Pusher {
            courier: state.args.courier.clone(),
            batch_events: state.args.batch_events,
            probe: state.args.probe.clone(),
            until: Instant::now() + state.args.patience,
        };
        // A job keeps its time by itself; one that does not is dropped with all that it holds.
        let given_up = pusher.until + state.args.patience / 4;
        state.jobs.spawn(async move {
            let pushed = tokio::time::timeout_at(given_up.into(), job(pusher)).await;
            let late = || Pushed::Unavailable("the push took too long".to_owned());
            let pushed = pushed.unwrap_or_else(|_| late());
            // A sender that has hung up meanwhile gets no answer and sends again.
            let _gone = reply.send(pushed);
        });
        while state.jobs.try_join_next().is_some() {}
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut AcceptorState,
    ) -> Result<(), ActorProcessingErr> {
        while state.jobs.join_next().await.is_some() {}
        state
            .args
            .courier
            .status
            .set_state(SourceState::Stopped, None);
        Ok(())
    }
}

/// What a job delivers with.
pub struct Pusher {
    courier: Courier,
    batch_events: usize,
    probe: Probe,
    until: Instant,
}

impl Pusher {
    /// The source that pushes.
    pub fn source(&self) -> &crate::event::SourceName {
        &self.courier.status.name
    }

    /// Delivers entries as they are decoded, a batch at a time, so that a large body is never in
    /// memory both raw and decoded. The permit covers the body and travels with every batch.
    pub async fn deliver(
        self,
        entries: impl Iterator<Item = Entry> + Send,
        permit: Arc<Permit>,
    ) -> Pushed {
        let mut entries = entries.peekable();
        let (mut received, mut quarantined) = (0, 0);
        while entries.peek().is_some() {
            let chunk: Vec<Entry> = entries.by_ref().take(self.batch_events).collect();
            let dead = chunk
                .iter()
                .filter(|entry| matches!(entry, Entry::Dead(_)))
                .count() as u64;
            let events = chunk.len() as u64 - dead;
            let last_id = chunk.iter().rev().find_map(|entry| match entry {
                Entry::Event(event, _) => Some(event.external_id.clone()),
                Entry::Dead(_) => None,
            });
            let mut batch = Batch::new(self.source().clone(), 0, chunk, Arc::clone(&permit));
            batch.last_event_id = last_id;
            let parcel = self.courier.parcel(batch, 0);
            if let Err(struck) = self.probe.hit("in_job").await {
                return Pushed::Unavailable(struck.to_string());
            }
            let receipt = match self.courier.deliver_within(parcel, self.until).await {
                Ok(receipt) => receipt,
                Err(reason) => return Pushed::Unavailable(reason),
            };
            if let Err(struck) = self.probe.hit("after_ack").await {
                return Pushed::Unavailable(struck.to_string());
            }
            let refused = refused_downstream(&receipt).min(events);
            received += events - refused;
            quarantined += dead + refused;
        }
        self.courier.status.set_state(SourceState::Running, None);
        Pushed::Durable {
            received,
            quarantined,
        }
    }
}

/// Events that became dead letters on their way: no decoder gives these reasons.
fn refused_downstream(receipt: &Receipt) -> u64 {
    DeadLetterReason::ALL
        .iter()
        .zip(receipt.dead)
        .filter(|(reason, _)| {
            matches!(
                reason,
                DeadLetterReason::Rejected | DeadLetterReason::Poison
            )
        })
        .map(|(_, count)| count)
        .sum()
}
