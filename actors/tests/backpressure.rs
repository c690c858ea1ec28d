//! What senders meet while their peer dies and comes back, told as stories.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::world::{MILLISECOND, SECOND, SUSPEND, World, ask, order, puppet};
use common::{Order, Puppet, Strings, eventually};
use daybook_actors::budget::Budget;
use daybook_actors::delivery::{CallError, Custody, Fate, call, call_in_custody};
use daybook_actors::ractor::{Actor, RpcReplyPort};
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{RootEnd, SupervisorMessage};

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

/// Callers that never pause, and a peer that is killed or cancelled again and again: now and then a
/// message is sent in the moment of its death.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn no_call_waits_for_a_dead_peer() {
    const DEATHS: u64 = 800;
    let (a, slot) = puppet("a", SUSPEND);
    let world = World::with(vec![a], |arguments| {
        arguments.backoff.base = MILLISECOND;
        arguments.backoff.cap = MILLISECOND;
        arguments.intensity.max_restarts = 1_000_000;
    })
    .await;
    let mut callers = tokio::task::JoinSet::new();
    let (over, is_over) = tokio::sync::watch::channel(false);
    for _ in 0..6 {
        let (slot, is_over) = (slot.clone(), is_over.clone());
        callers.spawn(async move {
            let mut died = 0u64;
            while !*is_over.borrow() {
                match call(&slot, 30 * SECOND, |reply| Order::Ask(1, reply)).await {
                    Ok(_) => {}
                    Err(CallError::CalleeDied) => died += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            died
        });
    }
    for death in 0..DEATHS {
        let dying = slot.ready().await.get_id();
        // It may be in the slot before its supervisor has heard that it is up.
        while !world
            .ask(|reply| match death % 2 {
                0 => SupervisorMessage::KillChild("a".into(), reply),
                _ => SupervisorMessage::AbortChild("a".into(), reply),
            })
            .await
        {
            tokio::task::yield_now().await;
        }
        slot.ready_after(dying).await;
    }
    over.send_replace(true);
    let died: u64 = callers.join_all().await.into_iter().sum();
    assert!(died > 0, "no call met a death");
    assert_eq!(world.drain().await, RootEnd::Stopped);
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
async fn a_message_that_is_being_handled_may_take_longer_than_its_call() {
    let (a, slot) = puppet("a", SUSPEND);
    let mut world = World::of(vec![a]).await;
    world.then("a runs").await;
    let custody = Custody::new();
    let handled = custody.clone();
    let slow = call_in_custody(&slot, SECOND, &custody, |reply: RpcReplyPort<()>| {
        Order::run(move |_| async move {
            let handling = handled.begin();
            tokio::time::sleep(100 * SECOND).await;
            handling.finish();
            let _ = reply.send(());
            Ok(())
        })
    });
    assert_eq!(slow.await, Ok(()));

    // One that hangs is waited for until it is killed.
    let custody = Custody::new();
    let handled = custody.clone();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let hanging = call_in_custody(&slot, SECOND, &custody, |reply: RpcReplyPort<()>| {
        Order::run(move |_| async move {
            let _kept = (handled.begin(), reply);
            let _ = begun.send(());
            std::future::pending().await
        })
    });
    let kill = async {
        has_begun.await.unwrap();
        tokio::time::sleep(100 * SECOND).await;
        world.kill("a").await
    };
    let (answer, killed) = tokio::join!(hanging, kill);
    assert_eq!((answer, killed), (Err(CallError::CalleeDied), true));
    assert_eq!(custody.fate(), Fate::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_peer_refuses_goes_to_its_successor() {
    let slot = Slot::new();
    let (first, _) = Actor::spawn(None, Puppet, Strings::default())
        .await
        .unwrap();
    slot.publish(first.clone());
    // The peer closes its mailbox between being found and being sent to.
    let answer = call(&slot, SECOND, |reply| {
        first.drain().unwrap();
        Order::Ask(6, reply)
    });
    tokio::pin!(answer);
    assert!(futures_util::FutureExt::now_or_never(answer.as_mut()).is_none());
    let (second, _) = Actor::spawn(None, Puppet, Strings::default())
        .await
        .unwrap();
    slot.publish(second);
    assert_eq!(answer.await, Ok(6));
}
