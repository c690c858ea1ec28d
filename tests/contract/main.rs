//! What the world outside relies on, looked at from outside: documents of MongoDB, the end of the
//! process, whose events they are, figures, two services on one store, and the runbook's commands.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod documents;
mod fenced;
mod metrics;
mod process;
mod runbook;
mod tenants;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

const DAYBOOK: &str = env!("CARGO_BIN_EXE_daybook");
const WEBHOOK: &str = "/ingest/stalwart/webhook";
const KEY: &str = "a key for this test";
const EVENTS: &str = "/api/v1/events";

fn ocis_source(path: &Path) -> String {
    format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        path.display()
    )
}

/// A folder of this name in a user's own space, by its id.
fn folder_id(user: &str, name: &str) -> String {
    format!("166d1210-f4a2-4e3b-9f27-1f9d5a3b6c01${user}!{user}/{name}")
}

/// The line that OCIS writes when a user makes a folder.
fn folder_line(user: &str, name: &str) -> String {
    let id = folder_id(user, name);
    format!(
        r#"{{"RemoteAddr":"","User":"","URL":"","Method":"","UserAgent":"","Time":"2026-11-24T03:44:09Z","App":"admin_audit","Message":"user '{user}' created folder '{id}'","Action":"container_create","CLI":false,"Level":1,"Path":"./{name}","Owner":"","FileID":"{id}"}}"#
    )
}

/// Appends a line and its end at once.
fn append(log: &Path, line: &str) {
    let mut file = File::options().create(true).append(true).open(log).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}
