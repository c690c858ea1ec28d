//! What happens to a supervisor: escalation, nesting, drain, told as stories.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::world::{MILLISECOND, SECOND, SUSPEND, World, order, puppet};
use common::{Counter, OnDrop, Order, Puppet, Strings};
use daybook_actors::policy::Intensity;
use daybook_actors::ractor::Actor;
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{
    ChildSpec, EndOrder, GaveUp, OnGiveUp, RootEnd, Supervisor, SupervisorArgs, SupervisorMessage,
    spawn_root,
};
use tokio::time::Instant;

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
async fn children_that_do_not_drain_in_time_are_killed_one_by_one_or_at_once() {
    for (end_order, seconds) in [(EndOrder::Reversed, 10), (EndOrder::AtOnce, 5)] {
        let (children, slots): (Vec<_>, Vec<_>) = ["a", "b"]
            .map(|name| puppet(name, SUSPEND))
            .map(|(child, slot)| (child.with_drain_limit(5 * SECOND), slot))
            .into_iter()
            .unzip();
        let set = |arguments: &mut SupervisorArgs| arguments.end_order = end_order;
        let mut world = World::with(children, set).await;
        world.then("a runs").await;
        world.then("b runs").await;
        for slot in &slots {
            let (hang, has_begun) = Order::hang();
            order(slot, hang).await;
            has_begun.await.unwrap();
        }
        let begun = Instant::now();
        assert_eq!(world.drain().await, RootEnd::Stopped);
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
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
#[tokio::test(start_paused = true)]
async fn a_stopped_root_drains_its_planes_without_delay() {
    let (child, slot) = puppet("child", SUSPEND);
    let planes = Slot::new();
    let mut world = World::of(vec![plane(child, &planes)]).await;
    world.then("plane runs").await;
    slot.ready().await;
    let begun = Instant::now();
    world.root.stop(None);
    assert_eq!(world.end.await.unwrap(), RootEnd::Stopped);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(slot.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_cannot_be_ended_does_not_hold_up_the_drain_for_ever() {
    let blocked = ChildSpec::new("blocked", SUSPEND, |supervisor| {
        Box::pin(async move {
            let (actor, _) =
                Actor::spawn_linked(None, Puppet, Strings::default(), supervisor).await?;
            Ok((actor.get_cell(), tokio::spawn(std::future::pending())))
        })
    });
    let (other, other_slot) = puppet("other", SUSPEND);
    let mut world = World::of(vec![other, blocked.with_drain_limit(3 * SECOND)]).await;
    world.then("other runs").await;
    world.then("blocked runs").await;
    let begun = Instant::now();
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert!(begun.elapsed() <= 10 * SECOND, "{:?}", begun.elapsed());
    assert!(other_slot.current().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_killed_planes_leave_no_child_behind() {
    let born = Counter::default();
    let gone = Counter::default();
    let overlaps = Counter::default();
    let slot = Slot::new();
    let (b, g, o) = (born.clone(), gone.clone(), overlaps.clone());
    let child = ChildSpec::actor("child", SUSPEND, &slot, move || {
        if b.get() != g.get() {
            o.add();
        }
        b.add();
        let gone = g.clone();
        let strings = Strings {
            luggage: Some(Box::new(OnDrop(move || gone.add()))),
            ..Strings::default()
        };
        (Puppet, strings)
    });
    let planes = Slot::new();
    let mut world = World::with(vec![plane(child, &planes)], |arguments| {
        arguments.intensity.max_restarts = u32::MAX;
        arguments.backoff.cap = Duration::from_micros(10);
    })
    .await;
    world.then("plane runs").await;
    for round in 0..200 {
        let plane = planes.ready().await;
        if round % 2 == 0 {
            let (hang, has_begun) = Order::hang();
            if slot.ready().await.send_message(hang).is_ok() {
                has_begun.await.unwrap();
            }
        }
        plane.kill();
        planes.ready_after(plane.get_id()).await;
    }
    assert_eq!(world.drain().await, RootEnd::Stopped);
    assert_eq!(overlaps.get(), 0);
    assert_eq!(born.get(), gone.get());
    assert!(born.get() > 100, "{}", born.get());
}

#[tokio::test(start_paused = true)]
async fn a_plane_waits_for_what_is_left_of_its_predecessor() {
    let slot = Slot::new();
    let published = slot.clone();
    // An actor that takes ten seconds to be gone once it has ended.
    let lingering = ChildSpec::new("lingering", SUSPEND, move |supervisor| {
        let slot = published.clone();
        Box::pin(async move {
            let (actor, handle) =
                Actor::spawn_linked(None, Puppet, Strings::default(), supervisor).await?;
            slot.publish(actor.clone());
            let gone = tokio::spawn(async move {
                let _ = handle.await;
                tokio::time::sleep(10 * SECOND).await;
            });
            Ok((actor.get_cell(), gone))
        })
    });
    let planes = Slot::new();
    let mut world = World::of(vec![plane(lingering, &planes)]).await;
    world.then("plane runs").await;
    slot.ready().await;
    let killed_at = Instant::now();
    assert!(world.kill("plane").await);
    world.then("plane restarts after killed").await;
    assert!(killed_at.elapsed() >= 10 * SECOND);
}
