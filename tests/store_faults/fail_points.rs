//! Single commands that fail inside the server.

use std::sync::Mutex;

use mongodb::bson::{Bson, Document, doc};
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::scene::Scene;

/// Daybook's commands fail, nobody else's.
async fn fail(mongod: &Mongod, mode: impl Into<Bson>, mut data: Document) -> FailPoint {
    data.insert("appName", "daybook");
    FailPoint::set(mongod, mode, data).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_daybook_sends_may_fail() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let url = mongod.url("points");
    let scene = Scene::start(&url, &url, 100.0).await;
    let concern = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
    let unavailable = "reason=\"unavailable\"";
    for (what, data, metric, labels) in [
        (
            "an insert that stands on one server only",
            doc! { "failCommands": ["insert"], "writeConcernError": &concern },
            "daybook_store_errors_total",
            unavailable,
        ),
        (
            "an insert whose connection is lost",
            doc! { "failCommands": ["insert"], "closeConnection": true },
            "daybook_store_errors_total",
            unavailable,
        ),
        (
            "an insert that waits longer than anybody",
            doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 4_000 },
            "daybook_store_errors_total",
            "reason=\"timeout\"",
        ),
        (
            "an insert on a full disk",
            doc! { "failCommands": ["insert", "update"], "errorCode": 14031 },
            "daybook_store_errors_total",
            "reason=\"full\"",
        ),
        (
            "an insert that is refused",
            doc! { "failCommands": ["insert"], "errorCode": 13 },
            "daybook_store_errors_total",
            "reason=\"unauthorized\"",
        ),
        (
            "a cursor that moved on one server only",
            doc! { "failCommands": ["update"], "writeConcernError": &concern },
            "daybook_store_errors_total",
            unavailable,
        ),
        (
            "a cursor whose connection is lost",
            doc! { "failCommands": ["update"], "closeConnection": true },
            "daybook_store_errors_total",
            unavailable,
        ),
        (
            "a cursor on a server that is no primary any more",
            doc! { "failCommands": ["update"], "errorCode": 10107 },
            "daybook_store_errors_total",
            unavailable,
        ),
    ] {
        let before = scene.metric(metric, labels).await;
        let fail_point = fail(&mongod, "alwaysOn", data).await;
        let is_full = what.ends_with("full disk");
        // A full disk is tried a few times more, to see what is shown meanwhile.
        let (strikes, looks) = if is_full { (8, 3) } else { (3, 0) };
        let shown = Mutex::new(Vec::new());
        eventually(what, async || {
            let up = scene.metric("daybook_store_up", "").await > 0.0;
            shown.lock().unwrap().push(up);
            fail_point.struck().await >= strikes
                && scene.metric(metric, labels).await > before
                && shown.lock().unwrap().iter().filter(|up| !**up).count() >= looks
        })
        .await;
        if is_full {
            // It answers probes, which need no room.
            let shown = shown.into_inner().unwrap();
            let mut since_down = shown.iter().skip_while(|up| **up);
            assert!(since_down.all(|up| !up), "{shown:?}");
        }
        fail_point.off().await;
        scene.flows_soon(&format!("after {what}")).await;
    }
    assert!(scene.metric("daybook_events_duplicate_total", "").await > 0.0);
    assert_eq!(scene.metric("daybook_actor_restarts_total", "").await, 0.0);

    for actor in ["ocis", "authentik"] {
        let data = doc! { "failCommands": ["findAndModify"], "closeConnection": true };
        let fail_point = fail(&mongod, doc! { "times": 2 }, data).await;
        assert!(scene.world.daybook().kill(actor).await);
        eventually("claims fail", async || fail_point.struck().await >= 2).await;
        scene
            .flows_soon(&format!("after claims of {actor} that failed"))
            .await;
    }
    // The resolver reads the directory when it starts; `find` fails three times before it may.
    let data = doc! { "failCommands": ["find"], "errorCode": 11600 };
    let fail_point = fail(&mongod, doc! { "times": 3 }, data).await;
    assert!(scene.world.daybook().kill("resolver").await);
    eventually("the directory cannot be read", async || {
        fail_point.struck().await >= 3
    })
    .await;
    scene
        .flows_soon("after a directory that could not be read")
        .await;
    scene.finish().await;
}
