//! The server itself: killed, frozen, not there at the start.

use std::io::Write as _;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_or_frozen_again_and_again() {
    let mongod = Mongod::start().await;
    let url = mongod.url("faults");
    let scene = Scene::start(&url, &url, 100.0).await;

    for round in 1..=3 {
        let failed = scene.metric("daybook_store_errors_total", "").await;
        mongod.kill9();
        scene.store_is_seen_away().await;
        assert!(scene.metric("daybook_store_errors_total", "").await > failed);
        mongod.restart().await;
        scene.flows_soon(&format!("after kill {round}")).await;
    }
    for round in 1..=2 {
        let label = "reason=\"timeout\"";
        let timeouts = scene.metric("daybook_store_errors_total", label).await;
        mongod.freeze();
        scene.store_is_seen_away().await;
        assert!(scene.metric("daybook_store_errors_total", label).await > timeouts);
        mongod.thaw();
        scene.flows_soon(&format!("after freeze {round}")).await;
    }
    // Frozen for less than an operation's time is no outage. A busy machine may make it longer; then
    // it is tried again.
    let mut is_no_outage = false;
    for _ in 0..20 {
        let errors = scene.metric("daybook_store_errors_total", "").await;
        mongod.freeze();
        tokio::time::sleep(Duration::from_millis(700)).await;
        mongod.thaw();
        scene.flows_soon("after a hiccup").await;
        is_no_outage = scene.metric("daybook_store_errors_total", "").await == errors;
        if is_no_outage {
            break;
        }
    }
    assert!(is_no_outage, "every hiccup was an outage");
    let restarts = scene.metric("daybook_actor_restarts_total", "").await;
    assert_eq!(restarts, 0.0, "a store that is away is not a crash");
    scene.finish().await;
}

/// Readiness does not rest on an answer of long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_while_nothing_is_written_is_missed() {
    let mongod = Mongod::start().await;
    let world = World::mongodb(&mongod).await.start().await;
    world.ready().await;
    mongod.freeze();
    eventually("an idle service is not ready", async || {
        world.get("/readyz").await.0 == 503
    })
    .await;
    assert_eq!(world.metric("daybook_store_up", "").await, 0.0);
    assert!(world.metric("daybook_store_errors_total", "").await > 0.0);
    mongod.thaw();
    eventually("it is ready again", async || {
        world.get("/readyz").await.0 == 200
    })
    .await;
    assert_eq!(world.metric("daybook_store_up", "").await, 1.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_hears_that_its_events_are_safe_from_the_first_moment_of_an_outage_on() {
    let mongod = Mongod::start().await;
    let url = mongod.url("patience");
    let scene = Scene::start(&url, &url, 20.0).await;
    mongod.kill9();
    scene.store_is_seen_away().await;
    let delivered = scene.workspace.counts().stalwart_delivered;
    eventually("senders get rid of their events", async || {
        scene.workspace.counts().stalwart_delivered > delivered + 10
    })
    .await;
    mongod.restart().await;
    scene.flows_soon("after a long outage").await;
    scene.finish().await;
}

/// Whoever is fenced waits, so as not to wrestle with the other incarnation; here there is none.
#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_the_store_has_lost_are_claimed_anew_at_once() {
    let mongod = Mongod::start().await;
    let plan = World::mongodb(&mongod).await;
    let log = plan.file("audit.log", "");
    let source = format!("kind = \"ocis\"\npath = \"{}\"", log.display());
    let world = plan.source(&source).start().await;
    world.ready().await;
    world.source_becomes("ocis", "running").await;
    let captured = std::fs::read_to_string("tests/data/ocis/audit-every-event-type.log").unwrap();
    let mut lines = captured.lines();
    let mut append = || {
        let mut file = std::fs::File::options().append(true).open(&log).unwrap();
        writeln!(file, "{}", lines.next().unwrap()).unwrap();
    };
    append();
    world.events_reach(1).await;

    let database = mongod.database(&world.database_name()).await;
    let cursors = database.collection::<Document>("ingestcursors");
    let lost = cursors.delete_many(doc! {}).await.unwrap();
    assert_eq!(lost.deleted_count, 1);
    append();
    eventually(
        "the file is read from its beginning, once more",
        async || {
            let again = world.metric("daybook_events_duplicate_total", "").await;
            let claimed = cursors.count_documents(doc! {}).await.unwrap();
            again >= 1.0 && claimed == 1
        },
    )
    .await;
    let fenced = world.metric("daybook_source_fenced_total", "ocis").await;
    assert_eq!(fenced, 0.0);
    world.events_reach(2).await;
    world.stop().await;
}
