//! What happens to a child, told as stories.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::world::{MILLISECOND, SECOND, SUSPEND, World, ask, order, puppet};
use common::{Counter, OnDrop, Order, Puppet, Strings};
use daybook_actors::delivery::call;
use daybook_actors::liveness::Progress;
use daybook_actors::policy::Backoff;
use daybook_actors::ractor::Actor;
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{ChildSpec, ChildState, Exit, Observer, OnGiveUp, RootEnd};
use tokio::sync::oneshot;
use tokio::time::Instant;

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

/// Its news is read while another's, that it is up, is on its way.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_child_makes_nobody_forget_that_another_has_started() {
    // Opened as the first `a` is dropped, by way of a task of its own: so `b` is up after the keeper of
    // `a` has told of its end, and before the supervisor has read that.
    let (open, opened) = oneshot::channel();
    let (pass, passed) = oneshot::channel();
    tokio::spawn(async move {
        let _ = opened.await;
        let _ = pass.send(());
    });
    let open = Arc::new(Mutex::new(Some(open)));
    let a_slot = Slot::new();
    let a = ChildSpec::actor("a", SUSPEND, &a_slot, move || {
        let open = Arc::clone(&open);
        let opens = OnDrop(move || {
            let _ = open.lock().unwrap().take().map(|open| open.send(()));
        });
        let strings = Strings {
            luggage: Some(Box::new(opens)),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let passed = Arc::new(Mutex::new(Some(passed)));
    let b = ChildSpec::new("b", SUSPEND, move |supervisor| {
        let passed = passed.lock().unwrap().take();
        Box::pin(async move {
            let (actor, handle) =
                Actor::spawn_linked(None, Puppet, Strings::default(), supervisor).await?;
            let _ = passed.unwrap().await;
            Ok((actor.get_cell(), handle))
        })
    });
    let mut world = World::of(vec![a, b]).await;
    world.then("a runs").await;
    order(&a_slot, Order::panic("boom")).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let line = tokio::time::timeout(60 * SECOND, world.chronicle.recv()).await;
        told.extend(line.expect("b runs"));
    }
    told.sort();
    assert_eq!(told, ["a restarts after panic", "a runs", "b runs"]);
    assert_eq!(world.status("b").await.state, ChildState::Running);
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

/// SIGSTOP and, five minutes later, SIGCONT.
#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_has_no_stalled_child_and_hides_none() {
    let progress = Progress::on_demand();
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a.with_progress(progress.clone())]).await;
    world.then("a runs").await;

    // Forty seconds of work.
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let working = progress.clone();
    let slow = Order::run(move |_| async move {
        let _work = working.work();
        let _told = finished.await;
        Ok(())
    });
    order(&slot, slow).await;
    tokio::time::sleep(20 * SECOND).await;
    tokio::time::advance(300 * SECOND).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(finish.send(()), Ok(()));
    assert_eq!(ask(&slot, 1).await, Ok(1));
    assert_eq!(world.status("a").await.restarts, 0);

    // Stuck.
    let stuck = Order::run(move |_| async move {
        let _work = progress.work();
        std::future::pending().await
    });
    order(&slot, stuck).await;
    tokio::time::sleep(20 * SECOND).await;
    tokio::time::advance(300 * SECOND).await;
    let woken = Instant::now();
    world.then("a restarts after stalled").await;
    assert!((25..=60).contains(&woken.elapsed().as_secs()));
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
    world.then("child runs").await;
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
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert_eq!(dead.get(), 1_001);
}
