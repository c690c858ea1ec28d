//! How the process begins and ends: which configuration it takes, what it needs of its surroundings,
//! signals, exit codes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use daybook::config::Collections;
use daybook::simulators::authentik::events::realistic;
use daybook::simulators::authentik::{FakeAuthentik, FakeAuthentikConfig, Permissions};
use daybook::simulators::people::People;
use daybook::store::Store as _;
use daybook::store::sqlite::SqliteStore;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testkit::process::{Process, free_port, sqlite_in, write_config};
use testkit::world::{PATIENCE, client, eventually};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{DAYBOOK, EVENTS, append, folder_line, ocis_source};

/// Sources that wait for an answer. At a drain each is given five seconds; one after the other they
/// would take longer than a shutdown may.
const WAITING: usize = 6;

/// A service whose sources have asked somebody who does not answer for as long as these
/// connections are held.
async fn with_waiting_sources(dir: &Path) -> (Process, Vec<TcpStream>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let token = dir.join("token");
    std::fs::write(&token, "token").unwrap();
    let mut sources = String::new();
    for number in 0..WAITING {
        sources.push_str(&format!(
            "[[sources]]\nkind = \"authentik\"\nname = \"authentik-{number}\"\n\
             url = \"http://{address}\"\ntoken_file = \"{}\"\ntimeout = \"5m\"\n",
            token.display()
        ));
    }
    let port = free_port();
    let config = write_config(dir, port, &sqlite_in(dir), &sources);
    let arguments = ["run", "-c", &config];
    let mut daybook = Process::spawn(DAYBOOK, &arguments, port, &dir.join("log"));
    daybook.ready().await;
    let mut waiting = Vec::new();
    while waiting.len() < WAITING {
        let (asks, _) = timeout(PATIENCE, silent.accept()).await.unwrap().unwrap();
        waiting.push(asks);
    }
    (daybook, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_wait_for_an_answer_are_given_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daybook, _waiting) = with_waiting_sources(dir.path()).await;
    daybook.signal("TERM");
    // Not 75, as when a drain is given up.
    let code = daybook.wait().await.code();
    assert_eq!(code, Some(0), "{}", daybook.log());
    assert!(daybook.log().contains("did not drain in time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_drain_with_75_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let dir = tempfile::tempdir().unwrap();
        let (mut daybook, _waiting) = with_waiting_sources(dir.path()).await;
        daybook.signal(first);
        eventually("it drains", async || daybook.log().contains("draining")).await;
        daybook.signal(second);
        // A drain that gets to its end ends with 0.
        let code = daybook.wait().await.code();
        assert_eq!(code, Some(75), "{first} {second}: {}", daybook.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_during_a_drain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daybook, _waiting) = with_waiting_sources(dir.path()).await;
    let url = daybook.url("");
    let address = url.trim_start_matches("http://");
    daybook.signal("TERM");
    eventually("connections are refused", async || {
        let connected = TcpStream::connect(address).await;
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    // It was still draining, then.
    daybook.signal("TERM");
    let code = daybook.wait().await.code();
    assert_eq!(code, Some(75), "{}", daybook.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_drains_a_running_service() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    append(&log, &folder_line("alice", "Reports"));
    let port = free_port();
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), &ocis_source(&log));
    let arguments = ["run", "-c", &config];
    let mut daybook = Process::spawn(DAYBOOK, &arguments, port, &dir.path().join("log"));
    daybook.ready().await;
    let events = format!("{EVENTS}?source=ocis");
    eventually("it works", async || {
        let found = daybook.json(&events).await;
        found["events"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    })
    .await;
    daybook.signal("INT");
    let code = daybook.wait().await.code();
    assert_eq!(code, Some(0), "{}", daybook.log());
    assert!(daybook.log().contains("drained"), "{}", daybook.log());
}

/// Each file has a key that there is not, so that the error tells which one was read.
#[test]
fn a_named_file_comes_before_the_variables_and_that_before_the_one_that_lies_here() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["named.toml", "variable.toml", "daybook.toml"];
    for name in names {
        std::fs::write(dir.path().join(name), "no_such_key = 1\n").unwrap();
    }
    let check = |arguments: &[&str], variable: Option<&str>| {
        let mut command = Command::new(DAYBOOK);
        command.arg("check").args(arguments).current_dir(dir.path());
        match variable {
            Some(file) => command.env("DAYBOOK_CONFIG", file),
            None => command.env_remove("DAYBOOK_CONFIG"),
        };
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let named = &["-c", "named.toml"];
    let cases: [(&[&str], Option<&str>, &str); 5] = [
        (named, Some("variable.toml"), "named.toml"),
        (named, None, "named.toml"),
        (&[], Some("variable.toml"), "variable.toml"),
        (&[], Some(""), "daybook.toml"),
        (&[], None, "daybook.toml"),
    ];
    for (arguments, variable, read) in cases {
        let (code, said) = check(arguments, variable);
        assert_eq!(code, Some(78), "{said}");
        for name in names {
            let is_named = said.contains(&format!("no_such_key ({name}:1)"));
            assert_eq!(is_named, name == read, "{arguments:?} {variable:?}: {said}");
        }
    }
    // What was named has to be there, whatever else is.
    let missing: [(&[&str], Option<&str>); 2] =
        [(&["-c", "missing.toml"], None), (&[], Some("missing.toml"))];
    for (arguments, variable) in missing {
        let (code, said) = check(arguments, variable);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("missing.toml"), "{said}");
    }
    std::fs::remove_file(dir.path().join("daybook.toml")).unwrap();
    let (code, said) = check(&[], None);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("(defaults and environment)"), "{said}");
}

/// `daybook` of a user for whom the modes of files hold: root's privileges are taken from it.
fn unprivileged() -> Command {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new(DAYBOOK);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", DAYBOOK]);
    command
}

/// Exit code and everything that it says.
fn said_unprivileged(command: &str, config: &str) -> (Option<i32>, String) {
    let mut daybook = unprivileged();
    daybook.args([command, "-c", config]);
    if command == "check" {
        daybook.arg("--online");
    }
    let output = daybook.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), said)
}

#[test]
fn who_may_not_open_the_store_is_asked_for_the_right() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), free_port(), &sqlite_in(dir.path()), "");
    let file = dir.path().join("daybook.db");
    std::fs::write(&file, "").unwrap();
    for (mode, fault) in [
        (0o000, "unable to open database file"),
        (0o400, "attempt to write a readonly database"),
    ] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let why = format!(
            "cannot open the store: store refused access: {}: {fault}; may this user read and write it and its directory?",
            file.display()
        );
        for (command, code, wanted) in [
            ("tail", 1, format!("error: {why}\n")),
            ("run", 1, format!("error: daybook did not start: {why}\n")),
            ("check", 78, "it and the file belong to the user".to_owned()),
        ] {
            let (ended, said) = said_unprivileged(command, &config);
            assert_eq!(ended, Some(code), "{command}: {said}");
            assert!(
                said.contains(&wanted),
                "{command}: {wanted} is not in {said}"
            );
        }
    }
}

/// As the top of a volume that belongs to root and to a group of the service's.
#[test]
fn a_journal_that_only_somebody_else_could_close_is_told_by_check_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o777)).unwrap();
    // Only root gives directories away.
    if chown(&journal, Some(65_534), None).is_err() {
        return;
    }
    let port = free_port();
    let recorder = "[[sources]]\nkind = \"recorder\"\n";
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), recorder);
    let place = journal.display();
    let why = "is open to others and cannot be closed: Operation not permitted (os error 1)";
    let remedy = "name a directory below it, which Daybook makes";
    let opened = format!("did not start: journal {place} cannot be opened: it {why}; {remedy}");
    let checked = format!("FAIL  journal: {place} {why}\n      remedy: {remedy}");
    for (command, code, wanted) in [("check", 78, checked), ("run", 1, opened)] {
        let (ended, said) = said_unprivileged(command, &config);
        assert_eq!(ended, Some(code), "{command}: {said}");
        assert!(
            said.contains(&wanted),
            "{command}: {wanted} is not in {said}"
        );
        assert_eq!(journal.metadata().unwrap().mode() & 0o777, 0o777);
    }
    let text = std::fs::read_to_string(&config).unwrap();
    let below = text.replace("journal\"", "journal/own\"");
    assert_ne!(below, text);
    std::fs::write(&config, below).unwrap();
    let (_, said) = said_unprivileged("check", &config);
    assert!(said.contains("ok    journal: "), "{said}");
}

/// The same configuration with the switch and without it.
#[tokio::test(flavor = "multi_thread")]
async fn without_ingest_the_service_is_ready_and_runs_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    append(&log, &folder_line("alice", "Reports"));
    let port = free_port();
    let sources = format!("{}[[sources]]\nkind = \"recorder\"\n", ocis_source(&log));
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), &sources);
    let with = |switch: &str| {
        let switch = format!("AUDIT_INGEST_ENABLED={switch}");
        let arguments: [&str; 5] = [&switch, DAYBOOK, "run", "-c", &config];
        Process::spawn("env", &arguments, port, &dir.path().join("log"))
    };
    let record = async |daybook: &Process| {
        let request = client().post(daybook.url(EVENTS));
        let answer = request.body(r#"{"action":"invoice.paid"}"#).send().await;
        answer.unwrap().status().as_u16()
    };

    let mut daybook = with("false");
    daybook.ready().await;
    assert_eq!(daybook.json("/api/v1/sources").await["sources"], json!([]));
    assert_eq!(daybook.json(EVENTS).await["events"], json!([]));
    assert_eq!(daybook.try_get("/audit").await.unwrap().0, 200);
    assert_eq!(record(&daybook).await, 404);
    let scrape = daybook.text("/metrics").await;
    assert!(scrape.contains("daybook_store_up 1"), "{scrape}");
    assert!(!scrape.contains("source=\""), "{scrape}");
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0), "{}", daybook.log());
    let file = dir.path().join("daybook.db");
    let store = SqliteStore::open(&file, Duration::from_secs(10), &Collections::default());
    let cursors = store.unwrap().cursors().await.unwrap();
    assert!(cursors.is_empty(), "claimed by nobody: {cursors:?}");

    let mut daybook = with("true");
    daybook.ready().await;
    eventually("the log is read", async || {
        let found = daybook.json(EVENTS).await;
        found["events"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    })
    .await;
    assert_eq!(record(&daybook).await, 200);
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0), "{}", daybook.log());
}

/// Arguments of `env` for a machine that has no certificate to trust and is told to ask this proxy.
fn bare_machine(dir: &Path, proxy: SocketAddr) -> Vec<String> {
    let mut arguments = Vec::new();
    for name in [
        "NO_PROXY",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "SSL_CERT_DIR",
    ] {
        arguments.push(format!("--unset={name}"));
    }
    for name in ["http_proxy", "https_proxy"] {
        arguments.push(format!("{name}=http://{proxy}"));
    }
    let missing = dir.join("missing.pem");
    arguments.push(format!("SSL_CERT_FILE={}", missing.display()));
    arguments.push(DAYBOOK.to_owned());
    arguments
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_needs_neither_a_proxy_nor_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    // Who asks this one waits in vain.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let machine = bare_machine(dir.path(), proxy.local_addr().unwrap());
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut arguments: Vec<&str> = machine.iter().map(String::as_str).collect();
    arguments.extend(["demo", "--listen", &listen]);
    let mut demo = Process::spawn("env", &arguments, port, &dir.path().join("log"));
    demo.ready().await;
    for source in ["authentik", "ocis", "stalwart", "platform-api"] {
        let label = format!("source=\"{source}\"");
        eventually(&format!("an event of {source}"), async || {
            demo.metric("daybook_events_written_total", &label).await > 0.0
        })
        .await;
    }
    demo.signal("TERM");
    assert_eq!(demo.wait().await.code(), Some(0), "{}", demo.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_to_trust_only_a_source_that_needs_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let authentik = FakeAuthentik::try_start(FakeAuthentikConfig {
        permissions: Permissions::READER,
        ..FakeAuthentikConfig::default()
    });
    let authentik = authentik.await.unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    let event = realistic(&mut rng, &People::new(3), Timestamp::now());
    authentik.insert(event, Duration::ZERO);
    let token = dir.path().join("token");
    std::fs::write(&token, authentik.token()).unwrap();
    let mut sources = "[[sources]]\nkind = \"recorder\"\n".to_owned();
    for (name, url) in [
        ("near", authentik.url()),
        ("far", "http://authentik.example".to_owned()),
        ("secured", "https://authentik.example".to_owned()),
    ] {
        sources.push_str(&format!(
            "[[sources]]\nkind = \"authentik\"\nname = \"{name}\"\nurl = \"{url}\"\n\
             token_file = \"{}\"\n",
            token.display()
        ));
    }
    let port = free_port();
    let config = write_config(dir.path(), port, &sqlite_in(dir.path()), &sources);
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let machine = bare_machine(dir.path(), proxy.local_addr().unwrap());
    let arguments = |command: &[&'static str]| {
        let mut all: Vec<&str> = machine.iter().map(String::as_str).collect();
        all.extend_from_slice(command);
        all.extend(["-c", config.as_str()]);
        all
    };
    let log = dir.path().join("log");
    let mut daybook = Process::spawn("env", &arguments(&["run"]), port, &log);
    daybook.ready().await;

    // The surroundings are as they were meant to be: the proxy is asked, for what is elsewhere.
    let (mut asks, _) = timeout(PATIENCE, proxy.accept()).await.unwrap().unwrap();
    let mut head = [0; 256];
    let read = timeout(PATIENCE, asks.read(&mut head)).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read.unwrap()]).into_owned();
    let wanted = "GET http://authentik.example/api/v3/";
    assert!(head.starts_with(wanted), "{head}");
    drop((asks, proxy));
    eventually("what needs a certificate fails, and says why", async || {
        let view = daybook.json("/api/v1/sources").await;
        let mut all = view["sources"].as_array().unwrap().iter();
        let secured = all.find(|source| source["name"] == "secured").unwrap();
        let reason = secured["reason"].as_str().unwrap_or_default();
        secured["state"] == "failing" && reason.contains("No CA certificates")
    })
    .await;

    eventually("the others work", async || {
        let near = "source=\"near\"";
        daybook.metric("daybook_events_written_total", near).await > 0.0
    })
    .await;
    let request = client().post(daybook.url(EVENTS));
    let answer = request.body(r#"{"action":"invoice.paid"}"#).send().await;
    assert_eq!(answer.unwrap().status(), 200);

    let told = |command: &[&'static str]| {
        let output = Command::new("env").args(arguments(command)).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = told(&["healthcheck"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = told(&["status", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let status: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["running"], true, "{said}");
    let (code, said) = told(&["check", "--online"]);
    assert_eq!(code, Some(78), "{said}");
    for part in [
        "ok    near: ",
        "FAIL  secured: not reached: cannot set up TLS: ",
        "the package ca-certificates",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0), "{}", daybook.log());
}

/// What `daybook run` ends with 70 for. Nothing outside a process can make its actors crash, so the
/// code itself is not seen here, but in `src/cli/mod.rs`.
#[cfg(any(debug_assertions, feature = "probes"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_daybook_gives_up_when_its_planes_cannot_be_kept_up() {
    use daybook::config::{Config, StoreUrl};
    use daybook::probe::{Fault, Probes};
    use daybook::tree::{Daybook, End, TreeOptions};
    use daybook_actors::policy::Intensity;

    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.store.url = StoreUrl(sqlite_in(dir.path()));
    config.http.listen = ([127, 0, 0, 1], 0).into();
    let probes = Probes::new();
    let crash = probes.strike("writer", "post_start", Fault::Panic, 1);
    let no_restart = Intensity {
        max_restarts: 0,
        within: Duration::from_secs(60),
    };
    let options = TreeOptions {
        intensity: no_restart,
        planes_intensity: no_restart,
        probes,
        ..TreeOptions::of(&config)
    };
    let store = daybook::store::open(&config.store).await.unwrap();
    let started = Daybook::start_with_options(&config, store, options).await;
    let mut daybook = started.unwrap();
    let end = timeout(PATIENCE, daybook.ended()).await.unwrap();
    assert!(crash.has_struck());
    let End::GaveUp(why) = end else {
        panic!("{end:?}");
    };
    assert!(why.contains("store"), "{why}");
}
