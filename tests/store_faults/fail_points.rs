//! Single commands that fail inside the server.

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::scene::Scene;

const TEST_COMMANDS: &[&str] = &["--setParameter", "enableTestCommands=1"];

/// Makes commands of Daybook fail, and nobody else's.
struct FailPoint {
    admin: Database,
    entered_before: i64,
}

impl FailPoint {
    async fn set(mongod: &Mongod, times: i32, mut data: Document) -> Self {
        let admin = mongod.database("admin").await;
        data.insert("appName", "daybook");
        let mode = doc! { "times": times };
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        let answer = admin.run_command(command).await.unwrap();
        Self {
            entered_before: entered(&answer),
            admin,
        }
    }

    /// How often it has struck since it was set.
    async fn struck(&self) -> i64 {
        let question = doc! { "getParameter": 1, "failpoint.failCommand": 1 };
        let answer = self.admin.run_command(question).await.unwrap();
        let state = answer.get_document("failpoint.failCommand").unwrap();
        entered(state) - self.entered_before
    }
}

fn entered(state: &Document) -> i64 {
    match state.get("count").or_else(|| state.get("timesEntered")) {
        Some(Bson::Int32(count)) => i64::from(*count),
        Some(Bson::Int64(count)) => *count,
        other => panic!("a count of entries, not {other:?} in {state}"),
    }
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
            doc! { "failCommands": ["insert"], "errorCode": 14031 },
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
        let fail_point = FailPoint::set(&mongod, 3, data).await;
        eventually(what, async || fail_point.struck().await >= 3).await;
        assert!(scene.metric(metric, labels).await > before, "{what}");
        scene.flows_soon(&format!("after {what}")).await;
    }
    assert!(scene.metric("daybook_events_duplicate_total", "").await > 0.0);
    assert_eq!(scene.metric("daybook_actor_restarts_total", "").await, 0.0);

    for actor in ["ocis", "authentik"] {
        let data = doc! { "failCommands": ["findAndModify"], "closeConnection": true };
        let fail_point = FailPoint::set(&mongod, 2, data).await;
        assert!(scene.world.daybook().kill(actor).await);
        eventually("claims fail", async || fail_point.struck().await >= 2).await;
        scene
            .flows_soon(&format!("after claims of {actor} that failed"))
            .await;
    }
    // The resolver reads the directory when it starts; `find` fails three times before it may.
    let data = doc! { "failCommands": ["find"], "errorCode": 11600 };
    let fail_point = FailPoint::set(&mongod, 3, data).await;
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
