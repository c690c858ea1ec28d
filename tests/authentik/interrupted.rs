//! What cuts a walk short, and that it goes on where it was.

use std::time::Duration;

use daybook::simulators::authentik::{Fault, Scripted, Times};
use testkit::World;
use testkit::world::eventually;

use super::{
    FakeAuthentik, asked, assert_all_once, fake, history, new_event, source_view, world_of,
    written_reaches,
};

const PAGES: usize = 40;
const EVENTS: usize = PAGES * 100;

/// A backlog of many pages, each after a moment.
async fn slow_backlog() -> FakeAuthentik {
    let fake = fake().await;
    fake.insert_many(history(
        EVENTS,
        Duration::from_secs(400),
        Duration::from_secs(7),
    ));
    let slow = Scripted::new(Fault::Delay(Duration::from_millis(50))).times(Times::Forever);
    fake.script(slow.on("/events/events/"));
    fake
}

async fn half_way(world: &World) {
    eventually("half of it is written", async || {
        world.metric("daybook_events_written_total", "").await > EVENTS as f64 / 2.0
    })
    .await;
}

async fn is_finished_with(world: &World, fake: &FakeAuthentik, most_requests: usize) {
    let mut made = 0;
    eventually("all of it", async || {
        let is_all = world.events().await.len() == EVENTS;
        made = asked(fake).below_the_head();
        is_all
    })
    .await;
    println!("{made} requests for {PAGES} pages");
    assert!(made < most_requests, "{made} requests for {PAGES} pages");
    assert_all_once(world, fake).await;
}

/// It may be down yet after the last time.
async fn is_killed(world: &World, actor: &str) {
    eventually("somebody is up to be killed", async || {
        world.daybook().kill(actor).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_goes_on_where_it_was() {
    let fake = slow_backlog().await;
    let mut world = world_of(&fake, "").await;
    half_way(&world).await;
    world.restart().await;
    // Polls, their pages that overlap, and the search for the place: far less than once more.
    is_finished_with(&world, &fake, PAGES * 15 / 10).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_actor_goes_on_where_it_was() {
    let fake = slow_backlog().await;
    let world = world_of(&fake, "").await;
    for share in [4.0, 2.0, 1.5] {
        eventually("a part of it is written", async || {
            world.metric("daybook_events_written_total", "").await > EVENTS as f64 / share
        })
        .await;
        is_killed(&world, "authentik").await;
    }
    is_finished_with(&world, &fake, PAGES * 2).await;
    assert_eq!(source_view(&world).await["restarts"], 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_stores_lose_and_double_nothing() {
    let fake = slow_backlog().await;
    let world = world_of(&fake, "").await;
    half_way(&world).await;
    is_killed(&world, "writer").await;
    is_killed(&world, "resolver").await;
    is_finished_with(&world, &fake, PAGES * 15 / 10).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_the_middle_cost_a_few_requests() {
    let fake = slow_backlog().await;
    let world = world_of(&fake, "timeout = \"2s\"").await;
    half_way(&world).await;
    for fault in [
        Fault::InvalidPage,
        Fault::ServerError,
        Fault::ResetMidBody,
        Fault::TruncatedJson,
        Fault::OkHtml,
    ] {
        fake.clear_faults();
        let hits = fake.fault_hits();
        fake.script(Scripted::new(fault).on("/events/events/").after(2));
        eventually("the fault", async || fake.fault_hits() > hits).await;
    }
    fake.clear_faults();
    is_finished_with(&world, &fake, PAGES * 2).await;
    world.source_becomes("authentik", "running").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_on_top_survive_a_restart_in_the_middle_too() {
    let fake = slow_backlog().await;
    let mut world = world_of(&fake, "").await;
    half_way(&world).await;
    fake.insert_many((0..150).map(|_| new_event()).collect());
    world.restart().await;
    fake.insert_many((0..150).map(|_| new_event()).collect());
    let all = EVENTS + 300;
    eventually("all of it", async || world.events().await.len() == all).await;
    assert_all_once(&world, &fake).await;
    world.restart().await;
    fake.insert(new_event(), Duration::ZERO);
    written_reaches(&world, 1).await;
    world.stop().await;
}
