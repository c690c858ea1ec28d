//! What ractor 0.16.5 really does. The supervisor and the backpressure are built on these; when a
//! later version of it breaks one of these tests, read the test's name in the design first.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Counter, Heard, Never, OnDrop, Order, Puppet, Strings, Witness, eventually};
use daybook_actors::ractor::concurrency::JoinHandle;
use daybook_actors::ractor::rpc::CallResult;
use daybook_actors::ractor::{
    Actor, ActorProcessingErr, ActorRef, ActorStatus, MessagingErr, SpawnErr,
};
use tokio::sync::{mpsc, oneshot};

const SECOND: Duration = Duration::from_secs(1);

/// A witness and what it hears.
async fn witness() -> (ActorRef<Never>, mpsc::UnboundedReceiver<Heard>) {
    let (heard, hears) = mpsc::unbounded_channel();
    let (witness, _) = Actor::spawn(None, Witness, heard).await.unwrap();
    (witness, hears)
}

async fn puppet(
    strings: Strings,
    supervisor: &ActorRef<Never>,
) -> (ActorRef<Order>, JoinHandle<()>) {
    Actor::spawn_linked(None, Puppet, strings, supervisor.get_cell())
        .await
        .unwrap()
}

async fn lone_puppet(strings: Strings) -> (ActorRef<Order>, JoinHandle<()>) {
    Actor::spawn(None, Puppet, strings).await.unwrap()
}

fn counting_stop(stopped: &Counter) -> Strings {
    let stopped = stopped.clone();
    Strings {
        post_stop: Some(Box::new(move || stopped.add())),
        ..Strings::default()
    }
}

/// Keeps an actor in its handler until the returned sender is used.
async fn occupy(actor: &ActorRef<Order>) -> oneshot::Sender<()> {
    let (release, released) = oneshot::channel();
    let (begun, has_begun) = oneshot::channel();
    let order = Order::run(move |_| async move {
        let _ = begun.send(());
        let _ = released.await;
        Ok(())
    });
    assert!(actor.send_message(order).is_ok());
    has_begun.await.unwrap();
    release
}

fn counting_order(handled: &Counter) -> Order {
    let handled = handled.clone();
    Order::run(move |_| async move {
        handled.add();
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_of_the_parent_kills_its_children_without_post_stop() {
    let (parent, _hears) = witness().await;
    let stopped = Counter::default();
    let (_child, ended) = puppet(counting_stop(&stopped), &parent).await;
    parent.stop_and_wait(None, None).await.unwrap();
    ended.await.unwrap();
    assert_eq!(stopped.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_parent_leaves_a_draining_child_running() {
    let (parent, _hears) = witness().await;
    let stopped = Counter::default();
    let (child, ended) = puppet(counting_stop(&stopped), &parent).await;
    let release = occupy(&child).await;
    child.drain().unwrap();
    parent.stop_and_wait(None, None).await.unwrap();
    assert!(!ended.is_finished());
    release.send(()).unwrap();
    ended.await.unwrap();
    assert_eq!(stopped.get(), 1, "it finished in its own time");
}

#[tokio::test(start_paused = true)]
async fn stop_overtakes_and_discards_what_is_queued() {
    let handled = Counter::default();
    let (actor, ended) = lone_puppet(Strings::default()).await;
    let release = occupy(&actor).await;
    for _ in 0..3 {
        assert!(actor.send_message(counting_order(&handled)).is_ok());
    }
    actor.stop(None);
    release.send(()).unwrap();
    ended.await.unwrap();
    assert_eq!(handled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_handles_what_is_queued_and_refuses_what_comes_later() {
    let handled = Counter::default();
    let stopped = Counter::default();
    let (actor, ended) = lone_puppet(counting_stop(&stopped)).await;
    let release = occupy(&actor).await;
    for _ in 0..3 {
        assert!(actor.send_message(counting_order(&handled)).is_ok());
    }
    actor.drain().unwrap();
    let late = actor.send_message(counting_order(&handled));
    assert!(
        matches!(late, Err(MessagingErr::SendErr(Order::Run(_)))),
        "given back"
    );
    release.send(()).unwrap();
    ended.await.unwrap();
    assert_eq!((handled.get(), stopped.get()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_drained_or_stopped_actor_arrives_as_terminated_with_its_state() {
    let (supervisor, mut hears) = witness().await;
    let (drained, _) = puppet(Strings::default(), &supervisor).await;
    assert_eq!(hears.recv().await, Some(Heard::Started));
    drained.drain().unwrap();
    assert_eq!(
        hears.recv().await,
        Some(Heard::Terminated {
            with_state: true,
            reason: Some("Drained".into()),
        })
    );
    let (stopped, _) = puppet(Strings::default(), &supervisor).await;
    assert_eq!(hears.recv().await, Some(Heard::Started));
    stopped.stop(None);
    assert_eq!(
        hears.recv().await,
        Some(Heard::Terminated {
            with_state: true,
            reason: None,
        })
    );
}

/// Not without a state, as one might expect: only the reason tells a kill from a graceful end.
#[tokio::test(start_paused = true)]
async fn a_kill_arrives_as_terminated_with_its_state_and_the_reason_killed() {
    let (supervisor, mut hears) = witness().await;
    for busy in [false, true] {
        let stopped = Counter::default();
        let (actor, _) = puppet(counting_stop(&stopped), &supervisor).await;
        assert_eq!(hears.recv().await, Some(Heard::Started));
        if busy {
            let (order, has_begun) = Order::hang();
            assert!(actor.send_message(order).is_ok());
            has_begun.await.unwrap();
        }
        actor.kill();
        assert_eq!(
            hears.recv().await,
            Some(Heard::Terminated {
                with_state: true,
                reason: Some("killed".into()),
            })
        );
        assert_eq!(stopped.get(), 0, "no post_stop");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_post_start_arrives_as_terminated_without_a_state() {
    let (supervisor, mut hears) = witness().await;
    let strings = Strings {
        post_start: Some(Box::pin(std::future::pending())),
        ..Strings::default()
    };
    let (actor, _) = puppet(strings, &supervisor).await;
    actor.kill();
    assert_eq!(
        hears.recv().await,
        Some(Heard::Terminated {
            with_state: false,
            reason: Some("killed".into()),
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_arrives_as_terminated_without_a_state() {
    let (supervisor, mut hears) = witness().await;
    let (_actor, handle) = puppet(Strings::default(), &supervisor).await;
    assert_eq!(hears.recv().await, Some(Heard::Started));
    handle.abort();
    assert_eq!(
        hears.recv().await,
        Some(Heard::Terminated {
            with_state: false,
            reason: Some("actor_task_cancelled".into()),
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_returned_error_arrive_alike() {
    let (supervisor, mut hears) = witness().await;
    for order in [Order::panic("the end"), Order::fail("the end")] {
        let (actor, _) = puppet(Strings::default(), &supervisor).await;
        assert_eq!(hears.recv().await, Some(Heard::Started));
        assert!(actor.send_message(order).is_ok());
        assert_eq!(hears.recv().await, Some(Heard::Failed("the end".into())));
    }
}

/// A supervisor that does not override the handler.
struct Default_;

impl Actor for Default_ {
    type Msg = Never;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Never>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_supervision_handler_stops_the_parent() {
    let (parent, parent_ended) = Actor::spawn(None, Default_, ()).await.unwrap();
    let (child, _) = puppet(Strings::default(), &parent).await;
    child.stop(None);
    parent_ended.await.unwrap();
    assert_eq!(parent.get_status(), ActorStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_failing_pre_start_sends_no_event() {
    let (supervisor, mut hears) = witness().await;
    let panics: futures_util::future::BoxFuture<'static, common::Outcome> =
        Box::pin(async { std::panic::panic_any("at birth") });
    let fails: futures_util::future::BoxFuture<'static, common::Outcome> =
        Box::pin(async { Err("at birth".into()) });
    for pre_start in [panics, fails] {
        let strings = Strings {
            pre_start: Some(pre_start),
            ..Strings::default()
        };
        let spawned = Actor::spawn_linked(None, Puppet, strings, supervisor.get_cell()).await;
        assert!(matches!(spawned, Err(SpawnErr::StartupFailed(_))));
    }
    // The next thing heard is of the next actor.
    let _third = puppet(Strings::default(), &supervisor).await;
    assert_eq!(hears.recv().await, Some(Heard::Started));
    assert!(hears.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_pre_start_blocks_the_spawner() {
    let strings = Strings {
        pre_start: Some(Box::pin(async {
            tokio::time::sleep(60 * SECOND).await;
            Ok(())
        })),
        ..Strings::default()
    };
    let begun = tokio::time::Instant::now();
    let _actor = lone_puppet(strings).await;
    assert_eq!(begun.elapsed(), 60 * SECOND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_supervisor_hears_of_a_death_before_the_dead_state_is_dropped() {
    let (supervisor, mut hears) = witness().await;
    let (heard_first, hold) = std::sync::mpsc::channel::<()>();
    let dropped = Counter::default();
    let drops = dropped.clone();
    // The drop waits until the test has heard of the death: no race, an order.
    let luggage = OnDrop(move || {
        tokio::task::block_in_place(|| hold.recv_timeout(30 * SECOND)).unwrap();
        drops.add();
    });
    let strings = Strings {
        luggage: Some(Box::new(luggage)),
        ..Strings::default()
    };
    let (actor, ended) = puppet(strings, &supervisor).await;
    assert_eq!(hears.recv().await, Some(Heard::Started));
    assert!(actor.send_message(Order::fail("over")).is_ok());
    assert_eq!(hears.recv().await, Some(Heard::Failed("over".into())));
    assert_eq!(dropped.get(), 0);
    heard_first.send(()).unwrap();
    ended.await.unwrap();
    assert_eq!(dropped.get(), 1, "the join handle is the one that tells");
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_dies_with_its_actor() {
    let (actor, ended) = lone_puppet(Strings::default()).await;
    let _release = occupy(&actor).await;
    let dropped = Counter::default();
    for _ in 0..3 {
        let drops = dropped.clone();
        let luggage = OnDrop(move || drops.add());
        assert!(actor.send_message(Order::Hold(Box::new(luggage))).is_ok());
    }
    let waits = actor.call(|reply| Order::Ask(1, reply), None);
    actor.kill();
    ended.await.unwrap();
    assert_eq!(dropped.get(), 3);
    assert!(matches!(waits.await, Ok(CallResult::SenderError) | Err(_)));
}

#[tokio::test(start_paused = true)]
async fn mailboxes_are_unbounded() {
    let (actor, _ended) = lone_puppet(Strings::default()).await;
    let _release = occupy(&actor).await;
    for _ in 0..100_000 {
        assert!(actor.send_message(Order::Hold(Box::new(()))).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_global_to_the_process() {
    let name = || Some("the only test that names an actor".to_owned());
    let (first, ended) = Actor::spawn(name(), Puppet, Strings::default())
        .await
        .unwrap();
    let second = Actor::spawn(name(), Puppet, Strings::default()).await;
    assert!(matches!(second, Err(SpawnErr::ActorAlreadyRegistered(_))));
    first.stop(None);
    ended.await.unwrap();
    assert!(
        Actor::spawn(name(), Puppet, Strings::default())
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_timed_out_is_still_handled_with_its_reply_port_closed() {
    let (actor, _ended) = lone_puppet(Strings::default()).await;
    let release = occupy(&actor).await;
    let (port_closed, was_closed) = oneshot::channel();
    let late = actor
        .call(
            |reply: daybook_actors::ractor::RpcReplyPort<()>| {
                Order::run(move |_| async move {
                    let _ = port_closed.send(reply.is_closed());
                    Ok(())
                })
            },
            Some(SECOND),
        )
        .await;
    assert!(matches!(late, Ok(CallResult::Timeout)));
    release.send(()).unwrap();
    assert_eq!(was_closed.await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_an_actor_spawned_survives_its_kill() {
    let (actor, ended) = lone_puppet(Strings::default()).await;
    let (tell, told) = oneshot::channel();
    let (go, may_go) = oneshot::channel::<()>();
    let order = Order::run(move |_| async move {
        tokio::spawn(async move {
            let _ = may_go.await;
            let _ = tell.send("still here");
        });
        Ok(())
    });
    assert!(actor.send_message(order).is_ok());
    let answered = actor.call(|reply| Order::Ask(1, reply), None).await;
    assert!(matches!(answered, Ok(CallResult::Success(1))));
    actor.kill();
    ended.await.unwrap();
    go.send(()).unwrap();
    assert_eq!(told.await, Ok("still here"));
}

#[tokio::test(start_paused = true)]
async fn send_interval_fills_the_mailbox_of_a_stuck_actor() {
    let (actor, _ended) = lone_puppet(Strings::default()).await;
    let release = occupy(&actor).await;
    let handled = Counter::default();
    let count = handled.clone();
    let interval = actor.send_interval(SECOND, move || counting_order(&count));
    tokio::time::sleep(100 * SECOND + SECOND / 2).await;
    interval.abort();
    assert_eq!(handled.get(), 0);
    release.send(()).unwrap();
    eventually("all hundred at once", || handled.get() == 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_supervisor_gets_no_new_children() {
    let (parent, _ended) = lone_puppet(Strings::default()).await;
    let _release = occupy(&parent).await;
    parent.drain().unwrap();
    let spawned = Actor::spawn_linked(None, Puppet, Strings::default(), parent.get_cell()).await;
    assert!(matches!(spawned, Err(SpawnErr::StartupFailed(_))));
}

#[test]
fn panics_unwind_or_there_is_no_supervision() {
    assert_eq!(
        std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7)))
            .unwrap_err()
            .downcast_ref(),
        Some(&7)
    );
}
