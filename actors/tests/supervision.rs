//! What happens to a child, told as stories.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Counter, OnDrop, Order, Puppet, Strings, eventually};
use daybook_actors::budget::Budget;
use daybook_actors::delivery::{CallError, Custody, call};
use daybook_actors::liveness::Progress;
use daybook_actors::policy::{Backoff, Intensity};
use daybook_actors::ractor::concurrency::JoinHandle;
use daybook_actors::ractor::{Actor, ActorRef, RpcReplyPort};
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{
    ChildSpec, ChildState, ChildStatus, Exit, GaveUp, Observer, OnGiveUp, RootEnd, Supervisor,
    SupervisorArgs, SupervisorMessage, spawn_root,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const SUSPEND: OnGiveUp = OnGiveUp::Suspend {
    probe_every: Duration::from_secs(300),
};

/// Writes down what the supervisors tell, one line an event.
struct Scribe(mpsc::UnboundedSender<String>);

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

struct World {
    root: ActorRef<SupervisorMessage>,
    end: JoinHandle<RootEnd>,
    chronicle: mpsc::UnboundedReceiver<String>,
}

impl World {
    async fn of(children: Vec<ChildSpec>) -> Self {
        Self::with(children, |_| {}).await
    }

    async fn with(children: Vec<ChildSpec>, adjust: impl FnOnce(&mut SupervisorArgs)) -> Self {
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
    async fn then(&mut self, expected: &str) {
        let line = tokio::time::timeout(3_600 * SECOND, self.chronicle.recv()).await;
        assert_eq!(line.expect(expected).expect(expected), expected);
    }

    async fn status(&self, child: &str) -> ChildStatus {
        let all: Vec<ChildStatus> = self.ask(SupervisorMessage::Status).await;
        all.into_iter().find(|status| status.name == child).unwrap()
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(RpcReplyPort<T>) -> SupervisorMessage,
    ) -> T {
        self.root.call(question, None).await.unwrap().unwrap()
    }

    async fn kill(&self, child: &str) -> bool {
        self.ask(|reply| SupervisorMessage::KillChild(child.into(), reply))
            .await
    }

    async fn drain(self) -> RootEnd {
        self.ask(SupervisorMessage::Drain).await;
        self.end.await.unwrap()
    }
}

fn puppet(name: &str, on_give_up: OnGiveUp) -> (ChildSpec, Slot<Order>) {
    let slot = Slot::new();
    let spec = ChildSpec::actor(name, on_give_up, &slot, || (Puppet, Strings::default()));
    (spec, slot)
}

async fn order(slot: &Slot<Order>, order: Order) {
    assert!(slot.ready().await.send_message(order).is_ok());
}

async fn ask(slot: &Slot<Order>, number: u64) -> Result<u64, CallError> {
    call(slot, 60 * SECOND, |reply| Order::Ask(number, reply)).await
}

#[tokio::test(start_paused = true)]
async fn a_panicking_child_is_restarted_and_its_sibling_is_not_disturbed() {
    let (a, a_slot) = puppet("a", SUSPEND);
    let (b, b_slot) = puppet("b", SUSPEND);
    let mut world = World::of(vec![a, b]).await;
    world.then("a runs").await;
    world.then("b runs").await;
    let sibling = b_slot.ready().await.get_id();

    order(&a_slot, Order::panic("boom")).await;
    world.then("a restarts after panic").await;
    world.then("a runs").await;
    assert_eq!(ask(&a_slot, 7).await, Ok(7));
    assert_eq!(b_slot.current().unwrap().get_id(), sibling);
    let status = world.status("a").await;
    assert_eq!((status.state, status.restarts), (ChildState::Running, 1));
    assert_eq!(status.last_exit, Some(Exit::Panic("boom".into())));
}

#[tokio::test(start_paused = true)]
async fn a_returned_error_is_told_from_a_panic() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    order(&slot, Order::fail("no luck")).await;
    world.then("a restarts after error").await;
    let status = world.status("a").await;
    assert_eq!(status.last_exit, Some(Exit::Failed("no luck".into())));
}

#[tokio::test(start_paused = true)]
async fn a_killed_child_is_restarted() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    assert!(world.kill("a").await);
    world.then("a restarts after killed").await;
    world.then("a runs").await;
    assert_eq!(ask(&slot, 1).await, Ok(1));
    assert!(!world.kill("nobody").await);
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_task_is_cancelled_is_restarted() {
    let handles = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&handles);
    let spec = ChildSpec::new("a", SUSPEND, move |supervisor| {
        let kept = Arc::clone(&kept);
        Box::pin(async move {
            let (actor, handle) =
                Actor::spawn_linked(None, Puppet, Strings::default(), supervisor).await?;
            kept.lock().unwrap().push(handle.abort_handle());
            Ok((actor.get_cell(), handle))
        })
    });
    let mut world = World::of(vec![spec]).await;
    world.then("a runs").await;
    handles.lock().unwrap()[0].abort();
    world.then("a restarts after killed").await;
    world.then("a runs").await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_stops_by_itself_stays_down() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    slot.ready().await.stop(None);
    world.then("a ended").await;
    assert_eq!(world.status("a").await.state, ChildState::Ended);
    assert!(slot.current().is_none());
    assert_eq!(world.drain().await, RootEnd::Stopped);
}

/// Fails, panics, or hangs in `pre_start` until it has done so often enough.
#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_come_up_is_tried_again_and_the_supervisor_starts_all_the_same() {
    let tries = Counter::default();
    let count = tries.clone();
    let slot = Slot::new();
    let spec = ChildSpec::actor("a", SUSPEND, &slot, move || {
        count.add();
        let pre_start: futures_util::future::BoxFuture<'static, common::Outcome> = match count.get()
        {
            1 => Box::pin(async { Err("not yet".into()) }),
            2 => Box::pin(async { std::panic::panic_any("not yet") }),
            3 => Box::pin(std::future::pending()),
            4 => std::panic::panic_any("in the factory"),
            _ => Box::pin(async { Ok(()) }),
        };
        let strings = Strings {
            pre_start: Some(pre_start),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let mut world = World::of(vec![spec]).await;
    for _ in 0..4 {
        world.then("a restarts after spawn_failed").await;
    }
    world.then("a runs").await;
    assert_eq!(ask(&slot, 1).await, Ok(1));
    assert_eq!(tries.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_post_start_is_a_crash() {
    let tries = Counter::default();
    let count = tries.clone();
    let spec = ChildSpec::actor("a", SUSPEND, &Slot::new(), move || {
        count.add();
        let first = count.get() == 1;
        let strings = Strings {
            post_start: Some(Box::pin(async move {
                if first {
                    Err("no connection".into())
                } else {
                    Ok(())
                }
            })),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let mut world = World::of(vec![spec]).await;
    world.then("a restarts after error").await;
    world.then("a runs").await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_suspended_probed_and_resumed_while_the_sibling_lives() {
    let broken = Arc::new(Mutex::new(true));
    let breaks = Arc::clone(&broken);
    let a_slot = Slot::new();
    let a = ChildSpec::actor("a", SUSPEND, &a_slot, move || {
        let fails = *breaks.lock().unwrap();
        let strings = Strings {
            pre_start: Some(Box::pin(async move {
                if fails { Err("broken".into()) } else { Ok(()) }
            })),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let (b, b_slot) = puppet("b", SUSPEND);
    let mut world = World::of(vec![b, a]).await;
    world.then("b runs").await;
    for _ in 0..10 {
        world.then("a restarts after spawn_failed").await;
    }
    world.then("a suspended after spawn_failed").await;
    let suspended_at = Instant::now();
    assert_eq!(world.status("a").await.state, ChildState::Suspended);

    // The first probe fails, the second comes up and lives.
    world.then("a suspended after spawn_failed").await;
    assert_eq!(suspended_at.elapsed().as_secs(), 300);
    *broken.lock().unwrap() = false;
    world.then("a runs").await;
    assert_eq!(suspended_at.elapsed().as_secs(), 600);
    assert_eq!(world.status("a").await.state, ChildState::Probing);
    assert_eq!(ask(&a_slot, 1).await, Ok(1));
    world.then("a resumed").await;
    assert_eq!(suspended_at.elapsed().as_secs(), 660);
    assert_eq!(world.status("a").await.state, ChildState::Running);

    // Once resumed it has all its restarts again.
    order(&a_slot, Order::panic("once more")).await;
    world.then("a restarts after panic").await;
    assert_eq!(world.status("b").await.restarts, 0);
    assert_eq!(ask(&b_slot, 2).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_crashes_within_its_trial_is_suspended_again() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::with(vec![a], |arguments| {
        arguments.intensity.max_restarts = 0;
    })
    .await;
    world.then("a runs").await;
    order(&slot, Order::panic("first")).await;
    world.then("a suspended after panic").await;
    world.then("a runs").await;
    tokio::time::sleep(59 * SECOND).await;
    order(&slot, Order::panic("on trial")).await;
    world.then("a suspended after panic").await;
}

#[tokio::test(start_paused = true)]
async fn health_resets_the_backoff() {
    let (a, slot) = puppet("a", SUSPEND);
    let delays = Arc::new(Mutex::new(Vec::new()));
    struct Delays(Arc<Mutex<Vec<Duration>>>);
    impl Observer for Delays {
        fn restarted(&self, _child: &str, _exit: &Exit, delay: Duration) {
            self.0.lock().unwrap().push(delay);
        }
    }
    let observer = Arc::new(Delays(Arc::clone(&delays)));
    let _world = World::with(vec![a], |arguments| arguments.observer = observer).await;
    for _ in 0..40 {
        order(&slot, Order::panic("after a healthy life")).await;
        slot.ready().await;
        tokio::time::sleep(61 * SECOND).await;
    }
    let delays = delays.lock().unwrap();
    assert_eq!(delays.len(), 40);
    assert!(delays.iter().all(|delay| *delay <= 200 * MILLISECOND));
}

/// A plane with one child, under a root.
fn plane(child: ChildSpec, slot: &Slot<SupervisorMessage>) -> ChildSpec {
    Supervisor::child_spec("plane", OnGiveUp::Escalate, slot, move || {
        let mut arguments = SupervisorArgs::new("plane", vec![child.clone()]);
        arguments.intensity = Intensity {
            max_restarts: 2,
            within: 60 * SECOND,
        };
        arguments
    })
}

#[tokio::test(start_paused = true)]
async fn escalation_restarts_the_plane_and_then_ends_the_root() {
    let (child, slot) = puppet("child", OnGiveUp::Escalate);
    let planes = Slot::new();
    let mut world = World::with(vec![plane(child, &planes)], |arguments| {
        arguments.intensity.max_restarts = 1;
    })
    .await;
    for end in ["plane restarts after error", "root gave up over plane"] {
        world.then("plane runs").await;
        for _ in 0..3 {
            let peer = slot.ready().await;
            assert!(peer.send_message(Order::panic("again")).is_ok());
            peer.wait(None).await.unwrap();
        }
        world.then(end).await;
    }
    let RootEnd::GaveUp(GaveUp {
        supervisor,
        child,
        exit,
    }) = world.end.await.unwrap()
    else {
        panic!("the root should have given up");
    };
    assert_eq!((supervisor.as_str(), child.as_str()), ("root", "plane"));
    let exit = exit.to_string();
    assert!(exit.contains("child panicked: again"), "{exit}");
    assert!(planes.current().is_none());
    assert!(slot.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn before_it_escalates_a_supervisor_lets_the_others_finish() {
    let (guilty, slot) = puppet("guilty", OnGiveUp::Escalate);
    let stopped = Counter::default();
    let stops = stopped.clone();
    let bystander = ChildSpec::actor("bystander", SUSPEND, &Slot::new(), move || {
        let stops = stops.clone();
        let strings = Strings {
            post_stop: Some(Box::new(move || stops.add())),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let mut world = World::with(vec![bystander, guilty], |arguments| {
        arguments.intensity.max_restarts = 0;
    })
    .await;
    world.then("bystander runs").await;
    world.then("guilty runs").await;
    order(&slot, Order::panic("guilty")).await;
    world.then("root gave up over guilty").await;
    assert!(matches!(world.end.await.unwrap(), RootEnd::GaveUp(_)));
    assert_eq!(stopped.get(), 1, "with its post_stop");
}

#[tokio::test(start_paused = true)]
async fn a_killed_plane_comes_back_only_after_its_whole_subtree_is_gone() {
    let alive = Counter::default();
    let gone = Counter::default();
    let overlaps = Counter::default();
    let slot = Slot::new();
    let (a, g, o) = (alive.clone(), gone.clone(), overlaps.clone());
    let child = ChildSpec::actor("child", SUSPEND, &slot, move || {
        if a.get() != g.get() {
            o.add();
        }
        a.add();
        let gone = g.clone();
        let strings = Strings {
            luggage: Some(Box::new(OnDrop(move || gone.add()))),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let planes = Slot::new();
    let mut world = World::of(vec![plane(child, &planes)]).await;
    world.then("plane runs").await;
    for round in 1..=5 {
        // Draining: the one state in which the end of its supervisor does not end it.
        let (hang, has_begun) = Order::hang();
        order(&slot, hang).await;
        has_begun.await.unwrap();
        slot.current().unwrap().drain().unwrap();
        assert!(world.kill("plane").await);
        world.then("plane restarts after killed").await;
        world.then("plane runs").await;
        slot.ready().await;
        assert_eq!(gone.get(), round);
    }
    assert_eq!((alive.get(), overlaps.get()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_the_children_in_reverse_order_each_with_its_mailbox_empty() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let handled = Counter::default();
    let mut children = Vec::new();
    let mut slots = Vec::new();
    for name in ["store", "writer", "source"] {
        let slot = Slot::new();
        let ended = Arc::clone(&ended);
        children.push(ChildSpec::actor(name, SUSPEND, &slot, move || {
            let ended = Arc::clone(&ended);
            let strings = Strings {
                post_stop: Some(Box::new(move || ended.lock().unwrap().push(name))),
                ..Strings::default()
            };
            (Puppet, strings)
        }));
        slots.push(slot);
    }
    let nested = children.clone();
    let planes = Slot::new();
    let plane = Supervisor::child_spec("plane", OnGiveUp::Escalate, &planes, move || {
        SupervisorArgs::new("plane", nested.clone())
    });
    let mut world = World::of(vec![plane]).await;
    world.then("plane runs").await;
    for slot in &slots {
        for _ in 0..10 {
            let handled = handled.clone();
            let slow = Order::run(move |_| async move {
                tokio::time::sleep(100 * MILLISECOND).await;
                handled.add();
                Ok(())
            });
            order(slot, slow).await;
        }
    }
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert_eq!(*ended.lock().unwrap(), ["source", "writer", "store"]);
    assert_eq!(handled.get(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_drain_in_time_is_killed() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a.with_drain_limit(5 * SECOND)]).await;
    world.then("a runs").await;
    let (hang, has_begun) = Order::hang();
    order(&slot, hang).await;
    has_begun.await.unwrap();
    let begun = Instant::now();
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_drain_abandons_a_spawn_and_a_restart_that_are_under_way() {
    let hanging = ChildSpec::actor("hanging", SUSPEND, &Slot::new(), || {
        let strings = Strings {
            pre_start: Some(Box::pin(std::future::pending())),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let failing = ChildSpec::new("failing", SUSPEND, |_| {
        Box::pin(async { std::panic::panic_any("no") })
    });
    let mut world = World::of(vec![hanging, failing]).await;
    world.then("failing restarts after spawn_failed").await;
    let begun = Instant::now();
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_supervisor_lets_its_children_finish_too() {
    let stopped = Counter::default();
    let stops = stopped.clone();
    let a = ChildSpec::actor("a", SUSPEND, &Slot::new(), move || {
        let stops = stops.clone();
        let strings = Strings {
            post_stop: Some(Box::new(move || stops.add())),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    world.root.stop(None);
    assert_eq!(world.end.await.unwrap(), RootEnd::Stopped);
    assert_eq!(stopped.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_child_without_progress_is_killed_unless_it_declared_to_wait() {
    let progress = Progress::on_demand();
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a.with_progress(progress.clone())]).await;
    world.then("a runs").await;

    // Idle for an hour: nothing is expected of it.
    tokio::time::sleep(3_600 * SECOND).await;
    assert_eq!(world.status("a").await.restarts, 0);

    // A declared wait of ten minutes.
    let working = progress.clone();
    let patient = Order::run(move |_| async move {
        let _work = working.work();
        let _wait = working.long_wait(600 * SECOND);
        tokio::time::sleep(599 * SECOND).await;
        Ok(())
    });
    order(&slot, patient).await;
    assert_eq!(
        call(&slot, 900 * SECOND, |reply| Order::Ask(1, reply)).await,
        Ok(1)
    );

    // Stuck.
    let working = progress.clone();
    let stuck = Order::run(move |_| async move {
        let _work = working.work();
        std::future::pending().await
    });
    let begun = Instant::now();
    order(&slot, stuck).await;
    world.then("a restarts after stalled").await;
    assert!((60..=75).contains(&begun.elapsed().as_secs()));
    world.then("a runs").await;
    assert_eq!(world.status("a").await.last_exit, Some(Exit::Stalled));
}

#[tokio::test(start_paused = true)]
async fn nobody_finds_a_dead_peer_in_the_slot() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    let first = slot.ready().await;
    order(&slot, Order::panic("gone")).await;
    world.then("a restarts after panic").await;
    assert!(slot.current().is_none());
    let second = slot.ready().await;
    assert_ne!(first.get_id(), second.get_id());

    // A late withdrawal of the first generation leaves the second where it is.
    slot.withdraw_if(first.get_id());
    slot.withdraw_dead();
    assert_eq!(slot.current(), Some(second.clone()));
    slot.withdraw_if(second.get_id());
    assert!(slot.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_restart_of_its_peer() {
    let (a, slot) = puppet("a", SUSPEND);
    assert_eq!(ask(&slot, 1).await, Err(CallError::NoPeer));
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    let (hang, has_begun) = Order::hang();
    order(&slot, hang).await;
    has_begun.await.unwrap();
    assert_eq!(
        call(&slot, SECOND, |reply| Order::Ask(1, reply)).await,
        Err(CallError::TimedOut)
    );
    let (killed, answer) = tokio::join!(world.kill("a"), ask(&slot, 1));
    assert!(killed);
    // Either it was in the mailbox that died, or it came after.
    assert!(
        matches!(answer, Err(CallError::CalleeDied) | Ok(1)),
        "{answer:?}"
    );
    assert_eq!(ask(&slot, 2).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_peer_that_is_ending_goes_to_its_successor() {
    let slot = Slot::new();
    let (first, ended) = Actor::spawn(None, Puppet, Strings::default())
        .await
        .unwrap();
    slot.publish(first.clone());
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let busy = Order::run(move |_| async move {
        let _ = released.await;
        Ok(())
    });
    order(&slot, busy).await;
    first.drain().unwrap();
    let answer = ask(&slot, 5);
    tokio::pin!(answer);
    assert!(futures_util::FutureExt::now_or_never(answer.as_mut()).is_none());
    let (second, _) = Actor::spawn(None, Puppet, Strings::default())
        .await
        .unwrap();
    slot.publish(second);
    assert_eq!(answer.await, Ok(5));
    release.send(()).unwrap();
    ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_flush_of_a_dead_mailbox_refunds_every_permit_and_suspects_nothing() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    let budget = Budget::new(1_000);

    let handled = Custody::new();
    let (custody, permit) = (handled.clone(), budget.acquire(100).await);
    let in_hand = Order::run(move |_| async move {
        let _permit = permit;
        let _handling = custody.begin();
        std::future::pending().await
    });
    order(&slot, in_hand).await;
    let mut queued = Vec::new();
    for _ in 0..9 {
        let custody = Custody::new();
        let luggage = (custody.clone(), budget.acquire(100).await);
        queued.push(custody);
        order(&slot, Order::Hold(Box::new(luggage))).await;
    }
    assert_eq!(budget.in_use(), 1_000);
    let mut waiting = Box::pin(budget.acquire(1));
    assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
    eventually("the first is in hand", || handled.was_taken()).await;

    assert!(world.kill("a").await);
    assert_eq!(waiting.await.bytes(), 1, "the waiter was let in");
    world.then("a restarts after killed").await;
    assert_eq!(budget.in_use(), 0);
    assert!(handled.was_taken());
    assert!(queued.iter().all(|custody| !custody.was_taken()));
}

#[tokio::test(start_paused = true)]
async fn a_panic_refunds_the_permit_it_was_handling() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    let budget = Budget::new(10);
    let permit = budget.acquire(10).await;
    let poison = Order::run(move |_| async move {
        let _permit = permit;
        std::panic::panic_any("poison")
    });
    order(&slot, poison).await;
    world.then("a restarts after panic").await;
    assert_eq!(budget.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_port_of_an_abandoned_call_is_closed_when_the_callee_comes_to_it() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let busy = Order::run(move |_| async move {
        let _ = released.await;
        Ok(())
    });
    order(&slot, busy).await;
    let (closed, was_closed) = tokio::sync::oneshot::channel();
    let answer = call(&slot, SECOND, |reply: RpcReplyPort<()>| {
        Order::run(move |_| async move {
            let _ = closed.send(reply.is_closed());
            Ok(())
        })
    })
    .await;
    assert_eq!(answer, Err(CallError::TimedOut));
    release.send(()).unwrap();
    assert_eq!(was_closed.await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn children_can_be_added_and_removed() {
    let mut world = World::of(Vec::new()).await;
    let (a, slot) = puppet("a", SUSPEND);
    let add = |spec: &ChildSpec| {
        world
            .root
            .send_message(SupervisorMessage::AddChild(spec.clone()))
    };
    assert!(add(&a).is_ok());
    assert!(add(&a).is_ok(), "refused in the log only");
    world.then("a runs").await;
    assert_eq!(world.ask(SupervisorMessage::Status).await.len(), 1);

    let remove = |name: &'static str| {
        world.ask(move |reply| SupervisorMessage::RemoveChild(name.into(), reply))
    };
    let (once, twice, other) = tokio::join!(remove("a"), remove("a"), remove("b"));
    assert_eq!((once, twice, other), (true, true, false));
    assert!(slot.current().is_none());
    assert!(world.ask(SupervisorMessage::Status).await.is_empty());
    assert_eq!(world.drain().await, RootEnd::Stopped);
}

#[tokio::test(start_paused = true)]
async fn two_children_of_one_name_are_refused_at_the_start() {
    let (a, _) = puppet("a", SUSPEND);
    let twice = SupervisorArgs::new("root", vec![a.clone(), a]);
    let refused = spawn_root(twice).await.unwrap_err();
    assert!(refused.to_string().contains("two children are named a"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_root_says_so() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    world.root.kill();
    assert_eq!(world.end.await.unwrap(), RootEnd::Died);
    assert!(slot.current().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_kills_in_a_row_lose_no_supervisor_and_no_generation_overlaps() {
    let born = Counter::default();
    let dead = Counter::default();
    let overlaps = Counter::default();
    let slot = Slot::new();
    let (b, d, o) = (born.clone(), dead.clone(), overlaps.clone());
    let child = ChildSpec::actor("child", OnGiveUp::Escalate, &slot, move || {
        if b.get() != d.get() {
            o.add();
        }
        b.add();
        let dead = d.clone();
        let strings = Strings {
            luggage: Some(Box::new(OnDrop(move || dead.add()))),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let mut world = World::with(vec![child], |arguments| {
        arguments.intensity.max_restarts = u32::MAX;
        arguments.backoff = Backoff {
            base: Duration::from_micros(10),
            cap: Duration::from_micros(10),
            reset_after: SECOND,
        };
    })
    .await;
    let mut last = None;
    for round in 0..1_000u64 {
        let peer = slot.ready().await;
        assert_ne!(last.replace(peer.get_id()), Some(peer.get_id()));
        match round % 4 {
            0 => peer.kill(),
            1 => drop(peer.send_message(Order::panic("one of a thousand"))),
            2 => drop(peer.send_message(Order::fail("one of a thousand"))),
            _ => {
                assert_eq!(
                    call(&slot, 10 * SECOND, |reply| Order::Ask(round, reply)).await,
                    Ok(round)
                );
                peer.kill();
            }
        }
        let id = peer.get_id();
        slot.ready_after(id).await;
    }
    assert_eq!((born.get(), dead.get(), overlaps.get()), (1_001, 1_000, 0));
    assert_eq!(world.status("child").await.restarts, 1_000);
    world.then("child runs").await;
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert_eq!(dead.get(), 1_001);
}
