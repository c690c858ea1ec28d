//! Actors that do what a test tells them, and a supervisor that writes down what it hears.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daybook_actors::ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

pub type Outcome = Result<(), ActorProcessingErr>;
type Script = Box<dyn FnOnce(ActorRef<Order>) -> BoxFuture<'static, Outcome> + Send>;

/// What a [`Puppet`] can be told.
pub enum Order {
    /// Runs this in the handler.
    Run(Script),
    /// Answers.
    Ask(u64, RpcReplyPort<u64>),
    /// Does nothing, and keeps this until it is handled.
    Hold(Box<dyn Send>),
}

impl Order {
    pub fn run<F>(script: impl FnOnce(ActorRef<Order>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self::Run(Box::new(move |myself| Box::pin(script(myself))))
    }

    pub fn panic(message: &'static str) -> Self {
        Self::run(move |_| async move { std::panic::panic_any(message) })
    }

    pub fn fail(message: &'static str) -> Self {
        Self::run(move |_| async move { Err(message.into()) })
    }

    /// Never ends; tells when it has begun.
    pub fn hang() -> (Self, oneshot::Receiver<()>) {
        let (begun, has_begun) = oneshot::channel();
        let order = Self::run(move |_| async move {
            let _ = begun.send(());
            std::future::pending().await
        });
        (order, has_begun)
    }
}

/// Counts how many times it was dropped, stopped, and so on.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs a closure when it is dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What a puppet is born with.
#[derive(Default)]
pub struct Strings {
    pub pre_start: Option<BoxFuture<'static, Outcome>>,
    pub post_start: Option<BoxFuture<'static, Outcome>>,
    pub post_stop: Option<Box<dyn FnOnce() + Send>>,
    /// Dropped with the state.
    pub luggage: Option<Box<dyn Send>>,
}

/// An actor that does what it is told.
pub struct Puppet;

impl Actor for Puppet {
    type Msg = Order;
    type State = Strings;
    type Arguments = Strings;

    async fn pre_start(
        &self,
        _myself: ActorRef<Order>,
        mut strings: Strings,
    ) -> Result<Strings, ActorProcessingErr> {
        if let Some(pre_start) = strings.pre_start.take() {
            pre_start.await?;
        }
        Ok(strings)
    }

    async fn post_start(&self, _myself: ActorRef<Order>, strings: &mut Strings) -> Outcome {
        match strings.post_start.take() {
            Some(post_start) => post_start.await,
            None => Ok(()),
        }
    }

    async fn post_stop(&self, _myself: ActorRef<Order>, strings: &mut Strings) -> Outcome {
        if let Some(post_stop) = strings.post_stop.take() {
            post_stop();
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        _strings: &mut Strings,
    ) -> Outcome {
        match order {
            Order::Run(script) => script(myself).await,
            Order::Ask(number, reply) => {
                let _ = reply.send(number);
                Ok(())
            }
            Order::Hold(_) => Ok(()),
        }
    }
}

/// A supervision event as data.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Started,
    Failed(String),
    Terminated {
        with_state: bool,
        reason: Option<String>,
    },
}

/// A supervisor that passes on what it hears and does nothing about it.
pub struct Witness;

pub enum Never {}

impl Actor for Witness {
    type Msg = Never;
    type State = mpsc::UnboundedSender<Heard>;
    type Arguments = mpsc::UnboundedSender<Heard>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Never>,
        heard: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Never>,
        event: SupervisionEvent,
        heard: &mut Self::State,
    ) -> Outcome {
        let _ = heard.send(match event {
            SupervisionEvent::ActorStarted(_) => Heard::Started,
            SupervisionEvent::ActorFailed(_, error) => Heard::Failed(error.to_string()),
            SupervisionEvent::ActorTerminated(_, state, reason) => Heard::Terminated {
                with_state: state.is_some(),
                reason,
            },
            SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        });
        Ok(())
    }
}

/// Fails the test when the condition does not come true; no fixed wait.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never came true: {what}");
}
