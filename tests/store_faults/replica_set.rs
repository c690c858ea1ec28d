//! Three servers that elect one of them.

use std::time::{Duration, Instant};

use daybook::config::Collections;
use daybook::store::Store as _;
use daybook::store::mongodb::MongoStore;
use mongodb::bson::{Document, doc};
use testkit::mongod::{Mongod, ReplicaSet};

use crate::scene::Scene;

/// About half of what a small machine carries in a debug build beside three servers: what piles up
/// during the faults is worked off soon, also beside other tests.
const LOAD: f64 = 300.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_steps_down_freezes_and_is_killed_under_load() {
    let set = ReplicaSet::start(3).await;
    let url = set.url("elections");
    // A new primary may answer from further back than the old one did, unless it must be sure.
    let observer = format!("{url}&readConcernLevel=linearizable");
    let scene = Scene::start(&url, &observer, LOAD).await;
    let (started, before) = (Instant::now(), written(&scene).await);

    set.step_down().await;
    scene.flows_soon("after a step-down").await;

    let frozen = set.primary().await;
    frozen.freeze();
    let elected = primary_of_the_rest(&set, frozen).await;
    // The other secondary goes on waiting for the frozen one for a while, and so does the majority.
    set.takes_writes().await;
    scene.flows_soon("after a frozen primary").await;
    frozen.thaw();

    // Not whoever says to be the primary: the one that was frozen may yet think so.
    elected.kill9();
    primary_of_the_rest(&set, elected).await;
    // The one that was frozen has to catch up before there is a majority again.
    set.takes_writes().await;
    scene.flows_soon("after a killed primary").await;
    is_prepared_by_the_rest(&set).await;
    elected.restart().await;

    let rate = (written(&scene).await - before) / started.elapsed().as_secs_f64();
    println!("{rate:.0} events/s all the while");
    let refused = scene
        .metric("daybook_webhook_requests_total", "code=\"503\"")
        .await;
    assert_eq!(refused, 0.0, "senders were told to come again");
    assert_eq!(scene.metric("daybook_actor_restarts_total", "").await, 0.0);
    scene.finish().await;
}

/// A majority takes writes, and no index waits for the member that is away either.
async fn is_prepared_by_the_rest(set: &ReplicaSet) {
    let database = set.database("indexes").await;
    // Those of an empty collection stand at once.
    let events = database.collection::<Document>("auditevents");
    events.insert_one(doc! { "action": "a.b" }).await.unwrap();
    let (url, timeout) = (set.url("indexes"), Duration::from_secs(30));
    let store = MongoStore::connect(&url, timeout, &Collections::default()).await;
    store.unwrap().prepare().await.unwrap();
}

async fn written(scene: &Scene) -> f64 {
    scene.metric("daybook_events_written_total", "").await
}

/// Waits until the other members have elected one of them.
async fn primary_of_the_rest<'a>(set: &'a ReplicaSet, without: &Mongod) -> &'a Mongod {
    let rest: Vec<_> = set
        .members
        .iter()
        .filter(|member| member.port() != without.port())
        .collect();
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        for &member in &rest {
            let admin = member.database("admin").await;
            let hello = admin.run_command(doc! { "hello": 1 }).await;
            if hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
                return member;
            }
        }
        assert!(Instant::now() < limit, "no new primary");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
