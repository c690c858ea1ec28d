//! One source's flood or poison is no other source's trouble, and one tenant's readers no other
//! tenant's, seen from outside of a whole Daybook.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod behind;
mod flood;
mod late;
mod poison;
mod queries;
mod revoked;
mod slow_readers;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use daybook::config::{Config, LoadedConfig};
use daybook::http::auth::new_token;
use daybook::store::{Role, Store};
use daybook::tree::Daybook;
use serde_json::json;
use testkit::World;
use testkit::http::exchange;
use testkit::world::{Plan, eventually};

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

/// A configuration that demands tokens, with store and journal in this folder; `http`: more lines of
/// `[http]`.
fn guarded(dir: &Path, http: &str, sources: &str) -> Config {
    let at = dir.display();
    let toml = format!(
        "[store]\nurl = \"sqlite:{at}/daybook.db\"\n[journal]\ndir = \"{at}/journal\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\nauth = \"tokens\"\n{http}\n{sources}\n"
    );
    let file = (PathBuf::from("daybook.toml"), toml);
    let loaded = LoadedConfig::from_parts(Some(file), Vec::new());
    loaded.unwrap().config
}

async fn is_ready(daybook: &Daybook) {
    eventually("readiness", async || {
        let answer = exchange(daybook.address(), request("/readyz", "none")).await;
        answer.status == 200
    })
    .await;
}

/// A new one and its hash.
async fn token_of(store: &dyn Store, role: Role) -> (String, String) {
    let (token, record) = new_token(role, None, None);
    store.insert_token(&record).await.unwrap();
    (token, record.hash)
}

fn request(path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: daybook.test\r\n\
         authorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    )
}
