//! The service as a process: starting, signals, exit codes, memory, and the demo.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use daybook::simulators::ocis::{OcisLog, Rotation};
use daybook::simulators::people::People;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use testkit::mongod::Mongod;
use testkit::process::{Process, free_port, sqlite_in, write_config};
use testkit::world::{PATIENCE, eventually};
use tokio::task::JoinSet;

const DAYBOOK: &str = env!("CARGO_BIN_EXE_daybook");

fn bulk_log(dir: &Path, lines: u64) -> (OcisLog, u64) {
    let log = OcisLog::new(dir.join("audit.log"));
    let changes = grow(&log, lines);
    (log, changes)
}

/// How many changes it has told of then.
fn grow(log: &OcisLog, lines: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(11);
    let people = People::new(11);
    log.append_bulk(lines, &mut rng, &people, Timestamp::now())
        .unwrap();
    let promised = log.promised();
    let reads = promised.of("file_read") + promised.of("public_link_accessed");
    promised.total - reads
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_store_stops_the_flow_and_not_the_service() {
    const LINES: u64 = 60_000;
    const MEBIBYTE: u64 = 1 << 20;
    // What is in hand is a chunk of two thousand lines, of several hundred bytes each.
    const CHUNK: f64 = 400_000.0;
    let mongod = Mongod::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (log, changes) = bulk_log(dir.path(), LINES);
    let port = free_port();
    let sources = format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        log.path().display()
    );
    let config = write_config(dir.path(), port, &mongod.url("frozen"), &sources);
    let mut daybook = Process::spawn(
        DAYBOOK,
        &["run", "-c", &config],
        port,
        &dir.path().join("log"),
    );
    daybook.ready().await;
    eventually("the first events are written", async || {
        daybook.metric("daybook_events_written_total", "").await > 1000.0
    })
    .await;

    mongod.freeze();
    eventually("the store is seen to be away", async || {
        let sources = daybook.json("/api/v1/sources").await;
        sources["sources"][0]["state"] == "blocked"
    })
    .await;
    let written = daybook.metric("daybook_events_written_total", "").await;
    assert!(
        written < changes as f64,
        "the file was read before the store froze"
    );
    // Read between two looks at the clock, for the reading itself may take long.
    let lag = async || {
        let before = Instant::now();
        let lag = daybook.metric("daybook_ingest_lag_seconds", "").await;
        (before, lag, Instant::now())
    };
    let frozen_at = Instant::now();
    let first = lag().await;
    while frozen_at.elapsed() < Duration::from_secs(6) {
        let limit = daybook.metric("daybook_in_flight_limit_bytes", "").await;
        let in_flight = daybook.metric("daybook_in_flight_bytes", "").await;
        assert!(
            (CHUNK..=limit).contains(&in_flight),
            "{in_flight} bytes in flight"
        );
        let (now, _) = daybook.memory();
        assert!(
            now < 100 * MEBIBYTE,
            "{now} bytes resident while the store is frozen"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    eventually("it says that it is not ready", async || {
        matches!(daybook.try_get("/readyz").await, Some((503, _)))
    })
    .await;
    assert_eq!(daybook.metric("daybook_store_up", "").await, 0.0);
    let second = lag().await;
    let grown = second.1 - first.1;
    let least = (second.0 - first.2).as_secs_f64();
    let most = (second.2 - first.0).as_secs_f64();
    assert!(
        least - 0.5 < grown && grown < most + 0.5,
        "lag grew by {grown} in {least} to {most} s"
    );

    mongod.thaw();
    let started = Instant::now();
    eventually("it goes on by itself", async || {
        daybook.metric("daybook_events_written_total", "").await > written
    })
    .await;
    println!("flowing again {:?} after the store", started.elapsed());
    eventually("all of the file is read", async || {
        daybook.metric("daybook_ocis_bytes_behind", "").await == 0.0
            && daybook.metric("daybook_ingest_lag_seconds", "").await == 0.0
    })
    .await;
    let collection = mongod
        .database("frozen")
        .await
        .collection::<mongodb::bson::Document>("auditevents");
    assert_eq!(
        collection
            .count_documents(mongodb::bson::doc! {})
            .await
            .unwrap(),
        changes
    );
    let (_, peak) = daybook.memory();
    println!("peak resident memory {} MiB", peak / MEBIBYTE);
    assert!(peak < 100 * MEBIBYTE, "{peak} bytes at its peak");

    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_goes_on_where_its_cursor_stood() {
    let mongod = Mongod::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let (log, changes) = bulk_log(dir.path(), 15_000);
    let port = free_port();
    let sources = format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        log.path().display()
    );
    let config = write_config(dir.path(), port, &mongod.url("killed"), &sources);
    let mut kills = 0;
    loop {
        let mut daybook = Process::spawn(
            DAYBOOK,
            &["run", "-c", &config],
            port,
            &dir.path().join("log"),
        );
        daybook.ready().await;
        // Before the first look nothing is known to be behind.
        let done = async || {
            daybook
                .metric("daybook_source_last_success_timestamp_seconds", "")
                .await
                > 0.0
                && daybook.metric("daybook_ocis_bytes_behind", "").await == 0.0
        };
        if kills == 3 {
            eventually("the rest is read", done).await;
            break;
        }
        // Or all is, on a fast machine.
        eventually("something is written", async || {
            daybook.metric("daybook_events_written_total", "").await > 0.0 || done().await
        })
        .await;
        daybook.signal("KILL");
        daybook.wait().await;
        kills += 1;
    }
    let collection = mongod
        .database("killed")
        .await
        .collection::<mongodb::bson::Document>("auditevents");
    assert_eq!(
        collection
            .count_documents(mongodb::bson::doc! {})
            .await
            .unwrap(),
        changes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_status_tells_both_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = bulk_log(dir.path(), 200);
    let port = free_port();
    let sources = format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        log.path().display()
    );
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), &sources);
    let mut daybook = Process::spawn(
        DAYBOOK,
        &["run", "-c", &config],
        port,
        &dir.path().join("log"),
    );
    daybook.ready().await;
    eventually("the file is read", async || {
        daybook.metric("daybook_events_written_total", "").await > 0.0
            && daybook.metric("daybook_ocis_bytes_behind", "").await == 0.0
    })
    .await;
    let running = status(&config);
    assert_eq!(running["running"], true);
    assert_eq!(running["sources"][0]["state"], "running");
    let position = running["sources"][0]["cursor"]["lastEventId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        position.ends_with(&format!(":{}", log.bytes_written())),
        "{position}"
    );

    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
    assert!(daybook.log().contains("drained"));
    let stopped = status(&config);
    assert_eq!(stopped["running"], false);
    assert_eq!(
        stopped["sources"][0]["cursor"]["lastEventId"],
        position.as_str()
    );
}

/// A journal that does not open: where it is drained to stands in a pipe that nobody writes to.
fn journal_that_hangs(dir: &Path) {
    let journal = dir.join("journal");
    std::fs::create_dir(&journal).unwrap();
    let pipe = std::process::Command::new("mkfifo")
        .arg(journal.join("drained"))
        .status();
    assert!(pipe.unwrap().success());
}

fn spawn_on_sqlite(dir: &Path, port: u16) -> Process {
    let config = write_config(dir, port, &sqlite_in(dir), "");
    Process::spawn(DAYBOOK, &["run", "-c", &config], port, &dir.join("log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_start_is_heard() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        journal_that_hangs(dir.path());
        let mut daybook = spawn_on_sqlite(dir.path(), free_port());
        eventually("it starts", async || {
            daybook.log().contains("daybook starts")
        })
        .await;
        // It is not ended by this one, which asks for nothing yet.
        daybook.signal("HUP");
        daybook.signal(signal);
        let code = daybook.wait().await.code();
        assert_eq!(code, Some(0), "{signal}: {}", daybook.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_as_soon_as_it_answers_ends_it_in_peace() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    for round in 0..8 {
        let mut daybook = spawn_on_sqlite(dir.path(), port);
        // The very first answer: `eventually` would look too seldom.
        let answers = async {
            while daybook.try_get("/healthz").await.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.unwrap();
        daybook.signal("TERM");
        let code = daybook.wait().await.code();
        assert_eq!(code, Some(0), "{round}: {}", daybook.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_heard_during_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut daybook = spawn_on_sqlite(dir.path(), port);
    daybook.ready().await;
    journal_that_hangs(dir.path());
    let pushed = "[[sources]]\nkind = \"recorder\"\n";
    write_config(dir.path(), port, &sqlite_in(dir.path()), pushed);
    daybook.signal("HUP");
    eventually("the journal is being opened", async || {
        dir.path().join("journal/lock").exists()
    })
    .await;
    daybook.signal("TERM");
    let code = daybook.wait().await.code();
    assert_eq!(code, Some(0), "{}", daybook.log());
    assert!(daybook.log().contains("drained"));
}

/// `daybook run 2>&1 | less`, and nobody turns the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut options = std::fs::OpenOptions::new();
    let _reads_nothing = options.read(true).write(true).open(&pipe).unwrap();
    let port = free_port();
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), "");
    let script = "exec \"$@\" 2> \"$0\"";
    let pipe = pipe.to_str().unwrap();
    let arguments = ["-c", script, pipe, DAYBOOK, "run", "-c", &config];
    let mut daybook = Process::spawn("sh", &arguments, port, &dir.path().join("log"));
    daybook.ready().await;
    // What is said of them all is longer than a pipe.
    let unknown: String = (0..2000)
        .map(|number| format!("no_such_key_{number} = 1\n"))
        .collect();
    write_config(dir.path(), port, &sqlite_in(dir.path()), &unknown);
    for round in 1..=2 {
        daybook.signal("HUP");
        eventually("the reload is refused", async || {
            let refused = daybook.metric("daybook_config_reloads_total", "failure");
            refused.await == f64::from(round)
        })
        .await;
    }
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
}

/// Runs Daybook where so many files may be open at once, by a word of `ulimit`.
fn spawn_with_files(limit: &str, config: &str, port: u16, dir: &Path) -> Process {
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let arguments = ["-c", &script, DAYBOOK, "run", "-c", config];
    Process::spawn("bash", &arguments, port, &dir.join("log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_connect_leave_the_sources_their_files() {
    const FILES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = bulk_log(dir.path(), 200);
    let port = free_port();
    let source = format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\npoll = \"250ms\"\n",
        log.path().display()
    );
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), &source);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[http]", "[http]\nheader_timeout = \"1h\"");
    std::fs::write(&config, text).unwrap();
    let mut daybook = spawn_with_files(&format!("-n {FILES}"), &config, port, dir.path());
    daybook.ready().await;
    eventually("the limit is warned of", async || {
        daybook.log().contains("fewer connections")
    })
    .await;

    // Some of them wait until the others go: the kernel's queue has an end.
    let mut strangers = JoinSet::new();
    for _ in 0..FILES {
        strangers.spawn(async move {
            let connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            std::future::pending::<()>().await;
            drop(connection);
        });
    }
    let open = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", daybook.pid()));
        files.unwrap().count()
    };
    let mut before = 0;
    eventually("no more of them are let in", async || {
        let now = open();
        now > FILES / 2 && now == std::mem::replace(&mut before, now)
    })
    .await;
    log.rotate(Rotation::Rename { keep: 1 }).unwrap();
    let changes = grow(&log, 300);
    let store = rusqlite::Connection::open(dir.path().join("daybook.db")).unwrap();
    let count = "SELECT count(*) FROM auditevents WHERE source = 'ocis'";
    eventually("the new log is read", async || {
        let entered = store.query_row(count, [], |row| row.get::<_, i64>(0));
        entered.is_ok_and(|entered| entered == changes as i64)
    })
    .await;

    strangers.shutdown().await;
    daybook.ready().await;
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_files_are_open_as_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), "");
    let mut daybook = spawn_with_files("-S -n 256", &config, port, dir.path());
    daybook.ready().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daybook.pid())).unwrap();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let files: Vec<&str> = files.unwrap().split_whitespace().collect();
    assert_eq!(files[0], files[1], "soft and hard");
}

fn status(config: &str) -> Value {
    let output = std::process::Command::new(DAYBOOK)
        .args(["status", "--json", "-c", config])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a status with tokens asks with lies in the store.
#[tokio::test(flavor = "multi_thread")]
async fn status_tells_a_service_without_its_store_from_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mongod = Mongod::start().await;
    let port = free_port();
    let config = write_config(dir.path(), port, &mongod.url("away"), "");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text
        .replace("\"none\"", "\"tokens\"")
        .replace("[store]", "[store]\ntimeout = \"1s\"");
    std::fs::write(&config, text).unwrap();
    let mut daybook = Process::spawn(
        DAYBOOK,
        &["run", "-c", &config],
        port,
        &dir.path().join("log"),
    );
    daybook.ready().await;
    mongod.kill9();
    let status = || {
        let command = std::process::Command::new(DAYBOOK)
            .args(["status", "-c", &config])
            .output()
            .unwrap();
        assert_eq!(command.status.code(), Some(1));
        String::from_utf8(command.stderr).unwrap()
    };
    eventually("the service tells why", async || {
        let said = status();
        said.contains("the service runs") && said.contains("the store does not take writes")
    })
    .await;
    daybook.signal("KILL");
    daybook.wait().await;
    let said = status();
    assert!(said.contains("neither the service nor the store"), "{said}");
}

/// It asks with a token that this service's store does not know.
#[tokio::test(flavor = "multi_thread")]
async fn status_tells_a_service_that_refuses_it_from_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("daybook.db"), "").unwrap();
        let sources = "[[sources]]\nkind = \"recorder\"\n";
        let config = write_config(&dir, port, &sqlite_in(&dir), sources);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("\"none\"", "\"tokens\"")).unwrap();
        config
    };
    let (ours, theirs) = (config("ours"), config("theirs"));
    let mut daybook = Process::spawn(
        DAYBOOK,
        &["run", "-c", &theirs],
        port,
        &dir.path().join("log"),
    );
    daybook.ready().await;
    let refused = status(&ours);
    assert_eq!(refused["running"], true, "{refused}");
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("ready; ") && reason.contains("401"),
        "{reason}"
    );
    assert_eq!(refused["sources"][0]["name"], "recorder");
    assert_eq!(refused["sources"][0]["state"], Value::Null);
    let command = std::process::Command::new(DAYBOOK)
        .args(["status", "-c", &ours])
        .output()
        .unwrap();
    let said = String::from_utf8(command.stdout).unwrap();
    assert!(said.starts_with("service is running, but"), "{said}");

    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
    let stopped = status(&ours);
    assert_eq!(stopped["running"], false, "{stopped}");
    assert_eq!(stopped["sources"][0]["state"], "not_running");
}

/// The switch is the service's alone.
#[tokio::test(flavor = "multi_thread")]
async fn status_says_why_a_service_tells_of_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let sources = "[[sources]]\nkind = \"recorder\"\n";
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), sources);
    let arguments = ["AUDIT_INGEST_ENABLED=false", DAYBOOK, "run", "-c", &config];
    let mut daybook = Process::spawn("env", &arguments, port, &dir.path().join("log"));
    daybook.ready().await;
    let told = status(&config);
    assert_eq!(told["running"], true, "{told}");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("ingest is switched off"), "{reason}");
    assert_eq!(told["sources"][0]["name"], "recorder");
    assert_eq!(told["sources"][0]["state"], Value::Null);
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
}

/// `daybook check | true`
#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), free_port(), "sqlite:x.db", "");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(DAYBOOK)
        .args(["check", "-c", &config])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"");
}

/// `daybook status --json > file` on a full disk
#[test]
fn what_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    std::fs::write(&log, "no record\n").unwrap();
    std::fs::write(dir.path().join("daybook.db"), "").unwrap();
    let source = format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        log.display()
    );
    let config = write_config(dir.path(), free_port(), &sqlite_in(dir.path()), &source);
    for arguments in [
        &["check"][..],
        &["status", "--json"],
        &["replay", "--source", "ocis", "--since", "7d", "--json"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let output = std::process::Command::new(DAYBOOK)
            .args(arguments)
            .args(["-c", &config])
            .stdout(full.unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let wanted = "error: cannot write to standard output: ";
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
}

#[test]
fn a_wrong_configuration_ends_with_78_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.toml");
    std::fs::write(&path, "[store]\nurl = \"sqlite:x.db\"\ntimout = \"5s\"\n").unwrap();
    for command in ["check", "run"] {
        let output = std::process::Command::new(DAYBOOK)
            .args([command, "-c"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("store.timout") && said.contains("daybook.toml:3"),
            "{said}"
        );
        assert!(
            said.contains("timeout"),
            "names the key that was meant: {said}"
        );
    }
}

#[test]
fn a_demo_in_a_place_that_no_store_can_have_names_the_option() {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(DAYBOOK)
        .args(["demo", "--dir"])
        .arg(dir.path().join("a?b"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("a?b (--dir): "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_all_four_kinds_of_many_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let started = Instant::now();
    let mut demo = Process::spawn(
        DAYBOOK,
        &["demo", "--listen", &listen],
        port,
        &dir.path().join("log"),
    );
    demo.ready().await;
    for source in ["authentik", "ocis", "stalwart", "platform-api"] {
        let path = format!("/api/v1/events?limit=1&source={source}");
        eventually(&format!("an event of {source}"), async || {
            demo.json(&path).await["events"]
                .as_array()
                .is_some_and(|events| !events.is_empty())
        })
        .await;
    }
    println!("all four kinds after {:?}", started.elapsed());
    eventually("events of five tenants", async || {
        let events = demo.json("/api/v1/events?limit=1000").await;
        let events = events["events"].as_array().unwrap();
        let tenants: BTreeSet<_> = events
            .iter()
            .filter_map(|event| event["tenantSlug"].as_str())
            .collect();
        tenants.len() >= 5
    })
    .await;
    eventually("all sources run", async || {
        let view = demo.json("/api/v1/sources").await;
        let sources = view["sources"].as_array().unwrap();
        sources.iter().all(|source| source["state"] == "running")
    })
    .await;
    eventually("a line of status", async || {
        demo.output().contains("entered")
    })
    .await;
    demo.signal("TERM");
    assert_eq!(demo.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_goes_on_where_it_was_has_new_events() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("demo").display().to_string();
    for (round, entered) in [("first", 20.0), ("second", 5.0)] {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["demo", "--listen", &listen, "--dir", &kept];
        let mut demo = Process::spawn(DAYBOOK, &arguments, port, &dir.path().join(round));
        demo.ready().await;
        let of_platform = "source=\"platform-api\"";
        eventually("events of the platform are entered", async || {
            let written = demo.metric("daybook_events_written_total", of_platform);
            written.await >= entered
        })
        .await;
        // A push whose answer was late is sent again; a beginning from scratch repeats all of the
        // first round before anything is new.
        let repeated = demo.metric("daybook_events_duplicate_total", of_platform);
        let repeated = repeated.await;
        assert!(round == "first" || repeated < 20.0, "{repeated}");
        demo.signal("TERM");
        assert_eq!(demo.wait().await.code(), Some(0), "{round}");
    }
}
