//! The way to the server, and the ways of the sources to Daybook.

use std::net::SocketAddr;
use std::time::Duration;

use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use mongodb::bson::doc;
use testkit::World;
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::proxy::{Counts, Mode, Proxy};
use testkit::world::{eventually, workspace_toml};
use tokio::net::TcpStream;

use crate::scene::{BACK_LIMIT, STORE_TIMEOUT, Scene};

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits until the proxy has done something since `before`.
async fn strikes(proxy: &Proxy, before: Counts, what: &str, count: fn(&Counts) -> u64) {
    eventually(&format!("{what} strikes"), async || {
        count(&proxy.counts()) > count(&before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_which_the_way_to_the_server_can_fail() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::start(loopback(mongod.port())).await;
    let (through, direct) = (proxy.mongodb_url("network"), mongod.url("network"));
    let scene = Scene::start(&through, &direct, 100.0).await;

    let before = proxy.counts();
    proxy.set(Mode::Refuse).await;
    assert!(TcpStream::connect(proxy.address()).await.is_err());
    scene.store_is_seen_away().await;
    assert!(proxy.counts().reset > before.reset);
    proxy.set(Mode::Pass).await;
    scene.flows_soon("after refused connections").await;

    let before = proxy.counts();
    proxy.set(Mode::Reset).await;
    scene.store_is_seen_away().await;
    assert!(proxy.counts().reset > before.reset + 1, "new ones too");
    proxy.set(Mode::Pass).await;
    scene.flows_soon("after reset connections").await;

    let before = proxy.counts();
    proxy.set(Mode::BlackHole).await;
    strikes(&proxy, before, "the black hole", |counts| counts.held).await;
    scene.store_is_seen_away().await;
    proxy.set(Mode::Pass).await;
    scene.flows_soon("after a partition that healed").await;

    let before = proxy.counts();
    proxy.forget_connections();
    strikes(&proxy, before, "the lost table", |counts| counts.forgotten).await;
    // Only the silence tells, and silence takes one operation's time.
    let took = scene.flows("after connections that were forgotten").await;
    assert!(took < STORE_TIMEOUT + BACK_LIMIT, "{took:?}");

    let before = proxy.counts();
    proxy.set(Mode::Delay(Duration::from_millis(40))).await;
    strikes(&proxy, before, "the delay", |counts| counts.delayed).await;
    scene.flows_soon("with a slow network").await;

    for (what, mode) in [
        ("after cut requests", Mode::CutRequestsAfter(3_000)),
        ("after cut replies", Mode::CutRepliesAfter(1_000)),
        (
            "after replies cut at their first byte",
            Mode::CutRepliesAfter(0),
        ),
    ] {
        let before = proxy.counts();
        proxy.set(mode).await;
        strikes(&proxy, before, what, |counts| counts.cut).await;
        proxy.set(Mode::Pass).await;
        scene.flows_soon(what).await;
    }
    assert_eq!(scene.metric("daybook_actor_restarts_total", "").await, 0.0);
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_never_acknowledged_is_recognised() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let proxy = Proxy::start(loopback(mongod.port())).await;
    let (through, direct) = (proxy.mongodb_url("silent"), mongod.url("silent"));
    let scene = Scene::start(&through, &direct, 100.0).await;
    let mut recognised = false;
    for round in 1..=20 {
        let before = proxy.counts();
        let duplicates = scene.metric("daybook_events_duplicate_total", "").await;
        // Silence finds a write on its way: it waits in the server, and is carried out after all.
        let slow = doc! {
            "failCommands": ["insert"],
            "namespace": "silent.auditevents",
            "blockConnection": true,
            "blockTimeMS": STORE_TIMEOUT.as_millis() as i64 / 2,
        };
        let fail_point = FailPoint::set(&mongod, doc! { "times": 1 }, slow).await;
        eventually("a write waits", async || fail_point.struck().await > 0).await;
        proxy.set(Mode::DropReplies).await;
        strikes(&proxy, before, "silence", |counts| {
            counts.dropped_reply_bytes
        })
        .await;
        scene.store_is_seen_away().await;
        proxy.set(Mode::Pass).await;
        scene.flows_soon(&format!("after silence {round}")).await;
        // A slow machine may have been silent too late; then nothing is to be recognised.
        if scene.metric("daybook_events_duplicate_total", "").await > duplicates {
            recognised = true;
            break;
        }
    }
    assert!(recognised, "no write was left unacknowledged");
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_of_the_sources_fail_as_well() {
    let mongod = Mongod::start().await;
    let url = mongod.url("sources");
    let plan = World::at(&url);
    let workspace = Workspace::start(WorkspaceConfig {
        events_per_second: 100.0,
        rotated_logs: 1000,
        authentik_keeps: 1_000_000,
        senders_pause: Duration::from_millis(100),
        remember_keys: true,
        ..WorkspaceConfig::new(plan.dir(), 5)
    })
    .await
    .unwrap();
    let to_authentik = Proxy::start(workspace.authentik().address()).await;
    let straight = workspace.authentik().url();
    let around = format!("http://{}", to_authentik.address());
    let toml = workspace_toml(&workspace).replace(&straight, &around);
    assert!(toml.contains(&around));
    let world = plan.settings(&toml).start().await;
    let to_daybook = Proxy::start(world.daybook().address()).await;
    let senders_url = format!("http://{}", to_daybook.address());
    let scene = Scene::watched(world, workspace, &url, &senders_url).await;

    for (what, mode, count) in [
        (
            "dropped replies",
            Mode::DropReplies,
            dropped as fn(&Counts) -> u64,
        ),
        ("cut replies", Mode::CutRepliesAfter(20), cut),
        ("cut requests", Mode::CutRequestsAfter(500), cut),
        ("resets", Mode::Reset, reset),
        ("a partition that heals", Mode::BlackHole, held),
    ] {
        let before = (to_authentik.counts(), to_daybook.counts());
        to_authentik.set(mode).await;
        to_daybook.set(mode).await;
        strikes(&to_authentik, before.0, what, count).await;
        strikes(&to_daybook, before.1, what, count).await;
        to_authentik.set(Mode::Pass).await;
        to_daybook.set(Mode::Pass).await;
        scene.flows(&format!("after {what}")).await;
    }
    assert!(scene.metric("daybook_events_duplicate_total", "").await > 0.0);
    assert_eq!(scene.metric("daybook_actor_restarts_total", "").await, 0.0);
    // A body that is cut off is the client's fault, and the client does not hear of it any more.
    scene.finish_with(&["200", "400", "503"]).await;
}

fn dropped(counts: &Counts) -> u64 {
    counts.dropped_reply_bytes
}

fn cut(counts: &Counts) -> u64 {
    counts.cut
}

fn reset(counts: &Counts) -> u64 {
    counts.reset
}

fn held(counts: &Counts) -> u64 {
    counts.held
}
