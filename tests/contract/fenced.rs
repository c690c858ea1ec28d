//! Two services on one store and one log, as a deployment that was made twice: one of them waits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use testkit::mongod::Mongod;
use testkit::process::{Process, free_port, write_config};
use testkit::world::eventually;

use super::{DAYBOOK, append, folder_line, ocis_source};

/// The log, and where in it each line begins.
struct Log {
    path: PathBuf,
    length: u64,
    lines: BTreeSet<u64>,
}

impl Log {
    fn write(&mut self) {
        let line = folder_line("alice", &format!("Reports {}", self.lines.len()));
        append(&self.path, &line);
        self.lines.insert(self.length);
        self.length += line.len() as u64 + 1;
    }
}

/// A service with a folder of its own.
async fn service(dir: &Path, store: &str, log: &Path) -> Process {
    std::fs::create_dir(dir).unwrap();
    let port = free_port();
    let config = write_config(dir, port, store, &ocis_source(log));
    let arguments = ["run", "-c", &config];
    let mut daybook = Process::spawn(DAYBOOK, &arguments, port, &dir.join("log"));
    daybook.ready().await;
    daybook
}

async fn state(daybook: &Process) -> String {
    let view = daybook.json("/api/v1/sources").await;
    view["sources"][0]["state"].as_str().unwrap().to_owned()
}

/// Waits until as many events stand in the store as there are lines, and compares them: by the
/// place in the file, for both services have to call it the same.
async fn every_line_stands_once(events: &Collection<Document>, log: &Log) {
    let mut found = Vec::new();
    eventually("every line is entered", async || {
        let documents = events.find(doc! {}).await.unwrap();
        let documents: Vec<Document> = documents.try_collect().await.unwrap();
        let keys = documents
            .iter()
            .map(|document| document.get_str("externalId").unwrap().to_owned());
        found = keys.collect();
        found.len() >= log.lines.len()
    })
    .await;
    let places = found.iter().map(|key| key.rsplit_once(':').unwrap());
    let (files, offsets): (BTreeSet<&str>, Vec<&str>) = places.unzip();
    assert_eq!(files.len(), 1, "one file: {files:?}");
    let mut offsets: Vec<u64> = offsets
        .into_iter()
        .map(|offset| offset.parse().unwrap())
        .collect();
    offsets.sort_unstable();
    assert!(offsets.iter().eq(&log.lines), "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_on_one_log_one_waits_and_takes_over() {
    let mongod = Mongod::shared().await;
    let name = "contract_fenced";
    let events = mongod.database(name).await.collection("auditevents");
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log {
        path: dir.path().join("audit.log"),
        length: 0,
        lines: BTreeSet::new(),
    };
    for _ in 0..20 {
        log.write();
    }
    let url = mongod.url(name);
    let first = service(&dir.path().join("first"), &url, &log.path).await;
    every_line_stands_once(&events, &log).await;
    let second = service(&dir.path().join("second"), &url, &log.path).await;

    // Whoever claimed the cursor last owns it; the other hears of it with the next line.
    let mut first_waits = false;
    eventually("one of them waits, the other works", async || {
        log.write();
        let states = (state(&first).await, state(&second).await);
        first_waits = states.0 == "fenced";
        let states = [states.0.as_str(), states.1.as_str()];
        states.contains(&"fenced") && states.contains(&"running")
    })
    .await;
    every_line_stands_once(&events, &log).await;
    let (mut waiting, mut working) = if first_waits {
        (first, second)
    } else {
        (second, first)
    };
    let fenced = waiting.metric("daybook_source_fenced_total", "").await;
    assert!(fenced >= 1.0, "{fenced}");

    working.signal("TERM");
    let code = working.wait().await.code();
    assert_eq!(code, Some(0), "{}", working.log());
    for _ in 0..20 {
        log.write();
    }
    every_line_stands_once(&events, &log).await;
    eventually("the other has taken over", async || {
        state(&waiting).await == "running"
    })
    .await;
    waiting.signal("TERM");
    let code = waiting.wait().await.code();
    assert_eq!(code, Some(0), "{}", waiting.log());
    every_line_stands_once(&events, &log).await;
}
