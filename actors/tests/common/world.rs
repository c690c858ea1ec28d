//! A supervised world for one test: its root, and the chronicle of what happened in it.

use std::sync::Arc;
use std::time::Duration;

use daybook_actors::delivery::{CallError, call};
use daybook_actors::ractor::concurrency::JoinHandle;
use daybook_actors::ractor::{ActorRef, RpcReplyPort};
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{
    ChildSpec, ChildStatus, Exit, Observer, OnGiveUp, RootEnd, SupervisorArgs, SupervisorMessage,
    spawn_root,
};
use tokio::sync::mpsc;

use super::{Order, Puppet, Strings};

pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const SUSPEND: OnGiveUp = OnGiveUp::Suspend {
    probe_every: Duration::from_secs(300),
};

/// Writes down what the supervisors tell, one line an event.
pub struct Scribe(mpsc::UnboundedSender<String>);

impl Scribe {
    fn write(&self, line: String) {
        let _ = self.0.send(line);
    }
}

impl Observer for Scribe {
    fn restarted(&self, child: &str, exit: &Exit, _delay: Duration) {
        self.write(format!("{child} restarts after {}", exit.reason()));
    }
    fn running(&self, child: &str) {
        self.write(format!("{child} runs"));
    }
    fn ended(&self, child: &str) {
        self.write(format!("{child} ended"));
    }
    fn suspended(&self, child: &str, exit: &Exit) {
        self.write(format!("{child} suspended after {}", exit.reason()));
    }
    fn resumed(&self, child: &str) {
        self.write(format!("{child} resumed"));
    }
    fn gave_up(&self, supervisor: &str, child: &str) {
        self.write(format!("{supervisor} gave up over {child}"));
    }
}

pub struct World {
    pub root: ActorRef<SupervisorMessage>,
    pub end: JoinHandle<RootEnd>,
    pub chronicle: mpsc::UnboundedReceiver<String>,
}

impl World {
    pub async fn of(children: Vec<ChildSpec>) -> Self {
        Self::with(children, |_| {}).await
    }

    pub async fn with(children: Vec<ChildSpec>, adjust: impl FnOnce(&mut SupervisorArgs)) -> Self {
        let (lines, chronicle) = mpsc::unbounded_channel();
        let mut arguments = SupervisorArgs::new("root", children);
        arguments.observer = Arc::new(Scribe(lines));
        adjust(&mut arguments);
        let (root, end) = spawn_root(arguments).await.unwrap();
        Self {
            root,
            end,
            chronicle,
        }
    }

    /// The next line of the chronicle is this one.
    pub async fn then(&mut self, expected: &str) {
        let line = tokio::time::timeout(3_600 * SECOND, self.chronicle.recv()).await;
        assert_eq!(line.expect(expected).expect(expected), expected);
    }

    pub async fn status(&self, child: &str) -> ChildStatus {
        let all: Vec<ChildStatus> = self.ask(SupervisorMessage::Status).await;
        all.into_iter().find(|status| status.name == child).unwrap()
    }

    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(RpcReplyPort<T>) -> SupervisorMessage,
    ) -> T {
        self.root.call(question, None).await.unwrap().unwrap()
    }

    pub async fn kill(&self, child: &str) -> bool {
        self.ask(|reply| SupervisorMessage::KillChild(child.into(), reply))
            .await
    }

    pub async fn drain(self) -> RootEnd {
        self.ask(SupervisorMessage::Drain).await;
        self.end.await.unwrap()
    }
}

pub fn puppet(name: &str, on_give_up: OnGiveUp) -> (ChildSpec, Slot<Order>) {
    let slot = Slot::new();
    let spec = ChildSpec::actor(name, on_give_up, &slot, || (Puppet, Strings::default()));
    (spec, slot)
}

pub async fn order(slot: &Slot<Order>, order: Order) {
    assert!(slot.ready().await.send_message(order).is_ok());
}

pub async fn ask(slot: &Slot<Order>, number: u64) -> Result<u64, CallError> {
    call(slot, 60 * SECOND, |reply| Order::Ask(number, reply)).await
}
