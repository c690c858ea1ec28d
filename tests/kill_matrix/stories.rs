//! What no single cell shows.

use std::time::Duration;

use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use daybook_actors::policy::Intensity;
use jiff::Timestamp;
use serde_json::json;
use testkit::World;
use testkit::world::{eventually, sum_of};

use super::cell::{PATIENT, Store, eager, quiet_panics, world};
use super::recovery::MATRIX;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_crashes_too_often_is_suspended_and_comes_back_with_its_plane() {
    let _matrix = MATRIX.read().await;
    quiet_panics();
    let probes = Probes::new();
    let options = TreeOptions {
        intensity: Intensity {
            max_restarts: 2,
            within: Duration::from_secs(60),
        },
        ..eager(PATIENT, &probes)
    };
    let (world, load) = world(Store::Sqlite, options, 5).await;
    let watch = load.oracle().watch(world.daybook());
    let started = Timestamp::now();
    let strikes = [(); 3].map(|()| probes.strike("ocis", "after_read", Fault::Panic, 1));
    load.resume();
    world.source_becomes("ocis", "suspended").await;
    assert!(strikes.iter().all(|strike| strike.has_struck()));
    let (status, answer) = world.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(
        answer["reasons"],
        json!(["source ocis is suspended"]),
        "{answer}"
    );
    let suspended = || {
        let metrics = world.daybook().metrics().render();
        sum_of(&metrics, "daybook_actor_suspended", "actor=\"ocis\"")
    };
    assert_eq!(suspended(), 1.0);

    // The others do not notice.
    let others = ["authentik", "stalwart", "platform-api"].map(|source| load.say(source));
    let store = world.daybook().store();
    eventually("the other sources flow", async || {
        let stored = load.oracle().stored(&**store, &others, started).await;
        stored.len() == others.len()
    })
    .await;

    assert!(world.daybook().kill("sources").await);
    world.source_becomes("ocis", "running").await;
    world.ready().await;
    assert_eq!(suspended(), 0.0);
    load.pause();
    load.drained().await;
    eventually("everything is stored", async || {
        load.oracle().settled(world.daybook(), started).await
    })
    .await;
    let violations = load.oracle().judge(world.daybook(), None).await;
    assert!(violations.is_empty(), "{violations:#?}");
    drop(watch);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_directory_cannot_be_read_nothing_piles_up() {
    let _matrix = MATRIX.read().await;
    let plan = World::sqlite().await;
    let file = plan.file(
        "directory.toml",
        "[[tenants]]\nslug = \"acme\"\nname = \"Acme\"\n",
    );
    let world = plan
        .journal_size("0B")
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .settings(&format!("[tenants]\nfile = \"{}\"", file.display()))
        .options(TreeOptions {
            push_patience: Duration::from_millis(200),
            ..eager(PATIENT, &Probes::default())
        })
        .start()
        .await;
    world.ready().await;
    std::fs::remove_file(&file).unwrap();
    // The next generation knows no directory.
    assert!(world.daybook().kill("resolver").await);
    let event = r#"{"action":"invoice.paid","externalId":"1"}"#;
    eventually("the push is refused", async || {
        world.post("/api/v1/events", event, &[]).await.0 == 503
    })
    .await;
    for _ in 0..5 {
        let (status, answer) = world.post("/api/v1/events", event, &[]).await;
        assert_eq!(status, 503, "{answer}");
        eventually("its room is given back", async || {
            world.daybook().budget().in_use() == 0
        })
        .await;
    }
    let view = world.source_becomes("platform-api", "blocked").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains("directory of tenants"), "{reason}");

    std::fs::write(&file, "[[tenants]]\nslug = \"acme\"\nname = \"Acme\"\n").unwrap();
    eventually("the push is taken", async || {
        world.post("/api/v1/events", event, &[]).await.0 == 200
    })
    .await;
    world.events_reach(1).await;
    world.stop().await;
}
