//! Commands that fail inside a mongod which was started with [`TEST_COMMANDS`].

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

use crate::mongod::Mongod;

/// Arguments with which a mongod knows `failCommand`.
pub const TEST_COMMANDS: &[&str] = &["--setParameter", "enableTestCommands=1"];

/// Makes commands fail, and knows how often it did.
pub struct FailPoint {
    admin: Database,
    entered_before: i64,
}

impl FailPoint {
    /// Sets it: `mode` is `"alwaysOn"` or `{ "times": n }`; `data` names the commands, what happens
    /// to them, and with `appName` whose they are.
    ///
    /// # Panics
    /// When the server does not know it.
    pub async fn set(mongod: &Mongod, mode: impl Into<Bson>, data: Document) -> Self {
        let admin = mongod.database("admin").await;
        let command =
            doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
        let answer = admin.run_command(command).await.expect("a fail point");
        Self {
            entered_before: entered(&answer),
            admin,
        }
    }

    /// How often it has struck since it was set.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn struck(&self) -> i64 {
        let question = doc! { "getParameter": 1, "failpoint.failCommand": 1 };
        let answer = self.admin.run_command(question).await.expect("an answer");
        let state = answer.get_document("failpoint.failCommand");
        entered(state.expect("a fail point")) - self.entered_before
    }

    /// How often it struck since it was set; it strikes no more.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn off(self) -> i64 {
        let command = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        let answer = self.admin.run_command(command).await.expect("an answer");
        entered(&answer) - self.entered_before
    }
}

fn entered(state: &Document) -> i64 {
    match state.get("count").or_else(|| state.get("timesEntered")) {
        Some(Bson::Int32(count)) => i64::from(*count),
        Some(Bson::Int64(count)) => *count,
        other => panic!("a count of entries, not {other:?} in {state}"),
    }
}
