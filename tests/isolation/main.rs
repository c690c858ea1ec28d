//! One source's flood or poison is no other source's trouble, and one tenant's readers no other
//! tenant's, seen from outside of a whole Daybook.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod flood;
mod poison;
mod slow_readers;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::World;
use testkit::world::Plan;

/// The log's source in a plan, and its file, which is there and empty.
fn with_log(plan: Plan) -> (Plan, PathBuf) {
    let log = plan.file("audit.log", "");
    let source = format!("kind = \"ocis\"\npath = \"{}\"", log.display());
    (plan.source(&source), log)
}

/// Before its first look at the log nobody knows which lines are new.
async fn log_is_read(world: &World) {
    world.ready().await;
    world.source_becomes("ocis", "running").await;
}

/// Appends a line of the file server's to its log; `name` is the file's that somebody made.
fn append_line(log: &Path, name: &str) {
    let line = json!({
        "RemoteAddr": "", "User": "4c510ada", "URL": "", "Method": "", "UserAgent": "",
        "Time": "2026-11-24T03:44:09Z", "App": "admin_audit", "Message": "user created file",
        "Action": "file_create", "CLI": false, "Level": 1, "Path": format!("./{name}"),
        "Owner": "4c510ada", "FileID": format!("166d1210$4c510ada!4c510ada/{name}"),
    });
    let mut file = OpenOptions::new().append(true).open(log).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}
