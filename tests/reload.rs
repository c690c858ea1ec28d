//! SIGHUP: what changed is taken over, and nothing else notices.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use daybook::simulators::ocis::OcisLog;
use daybook::simulators::people::People;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use testkit::http::{exchange, post, signed};
use testkit::process::{self, Process, free_port, sqlite_in};
use testkit::world::eventually;
use tokio::net::unix::pipe;

const WEBHOOK: &str = "/ingest/stalwart/webhook";

/// A service and the file that it is configured by.
struct Service {
    dir: tempfile::TempDir,
    port: u16,
    /// More lines of `[store]` and of `[journal]`.
    lines: [&'static str; 2],
    process: Process,
}

impl Service {
    async fn start(sources: &str) -> Self {
        Self::start_with(["", ""], sources).await
    }

    async fn start_with(lines: [&'static str; 2], sources: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        std::fs::write(dir.path().join("key"), "first key").unwrap();
        write_config(dir.path(), port, lines, "info", sources);
        let mut process = spawn(dir.path(), port);
        process.ready().await;
        Self {
            dir,
            port,
            lines,
            process,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration anew, and waits until it is taken over, or refused.
    async fn reload(&self, log: &str, sources: &str, outcome: &str) {
        write_config(self.dir.path(), self.port, self.lines, log, sources);
        self.hang_up(outcome).await;
    }

    async fn hang_up(&self, outcome: &str) {
        let before = self.reloads(outcome).await;
        self.process.signal("HUP");
        let what = format!("a reload ends with {outcome}");
        eventually(&what, async || self.reloads(outcome).await == before + 1.0).await;
    }

    /// Its log may be written a moment after what it tells of.
    async fn logs(&self, words: &str) {
        let what = format!("it logs {words}");
        eventually(&what, async || self.process.log().contains(words)).await;
    }

    async fn reloads(&self, outcome: &str) -> f64 {
        self.process
            .metric("daybook_config_reloads_total", outcome)
            .await
    }

    async fn source(&self, name: &str) -> Option<Value> {
        let answer = self.process.json("/api/v1/sources").await;
        let sources = answer["sources"].as_array().unwrap();
        sources
            .iter()
            .find(|source| source["name"] == name)
            .cloned()
    }

    async fn running(&self, name: &str) -> Value {
        let mut view = Value::Null;
        eventually(&format!("{name} runs"), async || {
            view = self.source(name).await.unwrap_or_default();
            view["state"] == "running"
        })
        .await;
        view
    }

    async fn written(&self, source: &str) -> f64 {
        let label = format!("source=\"{source}\"");
        self.process
            .metric("daybook_events_written_total", &label)
            .await
    }

    async fn reaches(&self, source: &str, count: f64) {
        let what = format!("{source} has entered {count}");
        eventually(&what, async || self.written(source).await == count).await;
    }

    /// With all of the log durable: what was received is what became of it, since the service began.
    async fn accounts_add_up(&self, source: &str, log: &OcisLog, written: f64) {
        let end = format!(":{}", std::fs::metadata(log.path()).unwrap().len());
        let mut counts = Value::Null;
        eventually(&format!("{source} is at {end}"), async || {
            let mut view = self.source(source).await.unwrap_or_default();
            counts = view["counts"].take();
            let place = view["cursor"]["lastEventId"].as_str();
            place.is_some_and(|place| place.ends_with(&end))
        })
        .await;
        assert_eq!(counts["written"].as_f64(), Some(written), "{counts}");
        assert_eq!(counts["received"].as_u64(), outcomes(&counts), "{counts}");
        let label = format!("source=\"{source}\"");
        let received = self.process.metric("daybook_events_received_total", &label);
        assert_eq!(counts["received"].as_f64(), Some(received.await));
    }

    fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    async fn webhook(&self, key: &str, number: u64) -> u16 {
        let body = format!(
            r#"{{"events":[{{"id":"{number}","createdAt":"2026-11-24T04:05:39Z","type":"auth.failed","data":{{"accountName":"a{number}"}}}}]}}"#
        );
        exchange(self.address(), signed(WEBHOOK, key, body))
            .await
            .status
    }
}

fn spawn(dir: &Path, port: u16) -> Process {
    let config = dir.join("daybook.toml").display().to_string();
    let arguments = ["run", "-c", &config];
    let log = dir.join("log");
    Process::spawn(env!("CARGO_BIN_EXE_daybook"), &arguments, port, &log)
}

fn write_config(dir: &Path, port: u16, lines: [&str; 2], log: &str, sources: &str) {
    let [store, journal] = lines;
    let rest = format!(
        "{journal}\n[telemetry]\nlog = \"{log}\"\n{}",
        sources.replace("DIR", &dir.display().to_string())
    );
    let path = process::write_config(dir, port, &sqlite_in(dir), &rest);
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replacen("[store]", &format!("[store]\n{store}"), 1);
    std::fs::write(&path, text).unwrap();
}

fn append(log: &OcisLog, lines: u64, seed: u64) -> f64 {
    let before = log.promised();
    let mut rng = StdRng::seed_from_u64(seed);
    log.append_bulk(lines, &mut rng, &People::new(seed), Timestamp::now())
        .unwrap();
    let after = log.promised();
    let reads = |promised: &daybook::simulators::Tally| {
        promised.of("file_read") + promised.of("public_link_accessed")
    };
    ((after.total - reads(&after)) - (before.total - reads(&before))) as f64
}

const RELOADED: &str = "/api/v1/events?action=daybook.configuration_reloaded";
const FILES: &str =
    "[[sources]]\nkind = \"ocis\"\nname = \"a\"\npath = \"DIR/a.log\"\npoll = \"250ms\"\n";
const OTHER: &str =
    "[[sources]]\nkind = \"ocis\"\nname = \"b\"\npath = \"DIR/b.log\"\npoll = \"250ms\"\n";
const RECORDER: &str = "[[sources]]\nkind = \"recorder\"\n";
const PUSHED: &str = "[[sources]]\nkind = \"stalwart\"\nsecret_files = [\"DIR/key\"]\n\
                      [[sources]]\nkind = \"recorder\"\nname = \"platform-api\"\n";

/// Sends until it is told to stop; every single answer must be 200.
fn keep_posting(
    address: std::net::SocketAddr,
) -> (Arc<AtomicBool>, Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                let body = format!(r#"{{"action":"a.b","externalId":"{number}"}}"#);
                let answer = exchange(address, post("/api/v1/events", &[], body)).await;
                assert_eq!(answer.status, 200, "post {number}: {}", answer.error());
                sent.store(number + 1, Ordering::Relaxed);
            }
        }
    });
    (stop, sent, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_come_and_go_and_the_others_do_not_notice() {
    // What is answered stands in the store, and was counted once.
    let lines = ["", "max_size = \"0B\""];
    let service = Service::start_with(lines, &format!("{FILES}{PUSHED}")).await;
    let (a, b) = (
        OcisLog::new(service.path("a.log")),
        OcisLog::new(service.path("b.log")),
    );
    let in_a = append(&a, 300, 1);
    service.reaches("a", in_a).await;
    let before = service.running("a").await;
    let (stop, sent, posting) = keep_posting(service.address());

    let mut in_b = append(&b, 300, 2);
    service
        .reload("info", &format!("{FILES}{OTHER}{PUSHED}"), "success")
        .await;
    service.running("b").await;
    service.reaches("b", in_b).await;

    service
        .reload("info", &format!("{PUSHED}{FILES}"), "success")
        .await;
    assert_eq!(service.source("b").await, None);
    in_b += append(&b, 300, 3);

    // What was written while it was gone is read when it is back.
    service
        .reload("info", &format!("{FILES}{OTHER}{PUSHED}"), "success")
        .await;
    service.reaches("b", in_b).await;

    // The same file again changes nothing.
    service.hang_up("success").await;
    stop.store(true, Ordering::Relaxed);
    posting.await.unwrap();
    assert!(
        sent.load(Ordering::Relaxed) > 4,
        "{sent:?} posts during four reloads"
    );
    service
        .reaches("platform-api", sent.load(Ordering::Relaxed) as f64)
        .await;

    let more = append(&a, 100, 4);
    service.reaches("a", in_a + more).await;
    let after = service.running("a").await;
    assert_eq!(
        after["cursor"]["generation"],
        before["cursor"]["generation"]
    );
    assert_eq!(
        (&after["restarts"], &after["since"]),
        (&before["restarts"], &before["since"])
    );
    let events = service.process.json(RELOADED).await;
    let deeds = events["events"].as_array().unwrap();
    assert_eq!(deeds.len(), 4);
    assert_eq!(deeds[3]["metadata"]["added"][0], "b");
    assert_eq!(deeds[2]["metadata"]["removed"][0], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_source_goes_on_where_it_was() {
    let service = Service::start(&format!("{FILES}{PUSHED}")).await;
    let a = OcisLog::new(service.path("a.log"));
    let mut wanted = append(&a, 300, 1);
    service.reaches("a", wanted).await;
    let before = service.running("a").await;
    let slower = FILES.replace("250ms", "300ms");
    service
        .reload("info", &format!("{slower}{PUSHED}"), "success")
        .await;
    let changed = service.running("a").await;
    assert!(changed["cursor"]["generation"].as_u64() > before["cursor"]["generation"].as_u64());
    wanted += append(&a, 300, 2);
    service.reaches("a", wanted).await;
}

/// What it had in hand is counted once.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_while_the_store_is_away_goes_on_with_its_accounts() {
    let service = Service::start(FILES).await;
    let a = OcisLog::new(service.path("a.log"));
    let mut wanted = append(&a, 300, 1);
    service.reaches("a", wanted).await;
    let [file, moved] = ["daybook.db", "moved.db"].map(|name| service.path(name));
    std::fs::rename(&file, &moved).unwrap();
    wanted += append(&a, 100, 2);
    eventually("nobody acknowledges what is in hand", async || {
        let view = service.source("a").await.unwrap_or_default();
        let counts = &view["counts"];
        view["state"] == "blocked" && counts["received"].as_u64() > outcomes(counts)
    })
    .await;

    let slower = FILES.replace("250ms", "300ms");
    service.reload("info", &slower, "success").await;
    std::fs::rename(&moved, &file).unwrap();
    service.reaches("a", wanted).await;
    service.accounts_add_up("a", &a, wanted).await;

    service.reload("info", OTHER, "success").await;
    assert_eq!(service.source("a").await, None);
    service.reload("info", FILES, "success").await;
    wanted += append(&a, 100, 3);
    service.reaches("a", wanted).await;
    service.accounts_add_up("a", &a, wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_the_store_is_away_is_told_when_it_is_back() {
    let mut service = Service::start_with(["timeout = \"2s\"", ""], PUSHED).await;
    let other = rusqlite::Connection::open(service.path("daybook.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    service.hang_up("success").await;
    eventually("it cannot be told", async || {
        let log = service.process.log();
        log.contains("the reload is not on the timeline")
    })
    .await;
    let told = async || {
        let events = service.process.json(RELOADED).await;
        events["events"].as_array().unwrap().len()
    };
    assert_eq!(told().await, 0);
    other.execute_batch("ROLLBACK").unwrap();
    eventually("it is told", async || told().await == 1).await;

    // One that is not told before the end is not forgotten silently.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    service.hang_up("success").await;
    service.process.signal("TERM");
    service.process.wait().await;
    let log = service.process.log();
    assert!(log.contains("stopped before these reloads"), "{log}");
}

/// What became of the pieces that were received; `None` where there are no counts.
fn outcomes(counts: &Value) -> Option<u64> {
    let ends = ["written", "duplicate", "filtered", "deadLettered"];
    ends.iter().map(|end| counts[end].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_routes_are_changed_without_a_restart() {
    // A store that is late for once must not make the source another state, which has another `since`.
    let service = Service::start_with(["", "max_size = \"0B\""], PUSHED).await;
    let before = service.running("stalwart").await;
    assert_eq!(service.webhook("first key", 1).await, 200);
    std::fs::write(service.path("key"), "second key").unwrap();
    assert_eq!(service.webhook("second key", 2).await, 401);
    service.hang_up("success").await;
    assert_eq!(service.webhook("first key", 3).await, 401);
    assert_eq!(service.webhook("second key", 4).await, 200);

    let moved = PUSHED.replace("[\"DIR/key\"]", "[\"DIR/key\"]\nroute = \"/elsewhere\"");
    service.reload("info", &moved, "success").await;
    assert_eq!(service.webhook("second key", 5).await, 404);
    service.reload("info", PUSHED, "success").await;
    assert_eq!(service.webhook("second key", 6).await, 200);
    let after = service.running("stalwart").await;
    assert_eq!(
        (&after["since"], &after["restarts"]),
        (&before["since"], &before["restarts"])
    );
    let log = service.process.log();
    assert!(!log.contains("second key"), "a key is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_changes_nothing_and_says_why() {
    let service = Service::start(&format!("{FILES}{PUSHED}")).await;
    append(&OcisLog::new(service.path("a.log")), 10, 1);
    let before = service.running("a").await;
    for (sources, said) in [
        ("[[sources]]\nkind = \"ocis\"\n", "path"),
        (
            "[[sources]]\nkind = \"stalwart\"\nsecret_files = [\"DIR/none\"]\n",
            "DIR/none",
        ),
        ("[writer]\nbatch = 1\n", "batch"),
        ("not toml", "daybook.toml"),
        ("", "the configuration has no source"),
    ] {
        service.reload("info", sources, "failure").await;
        let said = said.replace("DIR", &service.dir.path().display().to_string());
        service.logs(&said).await;
    }
    let after = service.running("a").await;
    assert_eq!(
        after["cursor"]["generation"],
        before["cursor"]["generation"]
    );
    assert_eq!(service.webhook("first key", 1).await, 200);
    assert_eq!(service.process.try_get("/readyz").await.unwrap().0, 200);

    // What needs a restart is named, and the rest is taken over.
    let other = "[writer]\nbatch_events = 7\n";
    service
        .reload("info", &format!("{other}{FILES}{PUSHED}"), "success")
        .await;
    service.logs("need a restart").await;
    service.logs("writer.batch_events").await;

    // The log's level is in force for what is said about the reload itself.
    let told = || {
        service
            .process
            .log()
            .matches("configuration is reloaded")
            .count()
    };
    eventually("the first is told", async || told() == 1).await;
    service
        .reload("error", &format!("{FILES}{PUSHED}"), "success")
        .await;
    service
        .reload("info", &format!("{FILES}{PUSHED}"), "success")
        .await;
    eventually("the second is told", async || told() == 2).await;
}

/// Also where nobody had named it: it was found in the working directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_changes_nothing_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (port, lines) = (free_port(), ["", ""]);
    write_config(dir.path(), port, lines, "info", RECORDER);
    let place = dir.path().display().to_string();
    let script = "cd \"$0\" && exec \"$1\" run";
    let arguments = ["-c", script, &place, env!("CARGO_BIN_EXE_daybook")];
    let mut process = Process::spawn("sh", &arguments, port, &dir.path().join("log"));
    process.ready().await;
    let service = Service {
        dir,
        port,
        lines,
        process,
    };
    let [file, moved] = ["daybook.toml", "moved.toml"].map(|name| service.path(name));
    std::fs::rename(&file, &moved).unwrap();
    service.hang_up("failure").await;
    service.logs("no such file").await;
    service.running("recorder").await;
    std::fs::rename(&moved, &file).unwrap();
    service.hang_up("success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_heard_while_a_key_cannot_be_read_to_its_end() {
    let mut service = Service::start(PUSHED).await;
    let key = service.path("key");
    std::fs::remove_file(&key).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&key).status();
    assert!(made.unwrap().success());
    service.process.signal("HUP");
    let unfinished = somebody_reads(&key).await;
    service.process.signal("TERM");
    let code = service.process.wait().await.code();
    assert_eq!(code, Some(0), "{}", service.process.log());
    drop(unfinished);

    // A start reads it too.
    service.process = spawn(service.dir.path(), service.port);
    let unfinished = somebody_reads(&key).await;
    service.process.signal("TERM");
    let code = service.process.wait().await.code();
    assert_eq!(code, Some(0), "{}", service.process.log());
    drop(unfinished);
}

/// Waits for a reader of a pipe, who comes to no end while the other end is held.
async fn somebody_reads(pipe: &Path) -> pipe::Sender {
    let mut other_end = None;
    eventually("the pipe is read", async || {
        other_end = pipe::OpenOptions::new().open_sender(pipe).ok();
        other_end.is_some()
    })
    .await;
    other_end.unwrap()
}
