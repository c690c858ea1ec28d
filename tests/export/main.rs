//! Exports over HTTP and on the command line, `daybook tail`, and what the commands share.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod access;
mod command;
mod formats;
mod http;
mod places;
mod stopped;
mod tail;
mod token;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use daybook::config::LoadedConfig;
use daybook::event::{Actor, AuditEvent, Outcome, SourceName, Target};
use daybook::store::{Commit, EventFilter, Record, Store, StoredEvent};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Names that real servers pass on, and some that strangers make.
const HOSTILE: &[&str] = &[
    "=HYPERLINK(\"http://evil\",\"x\")",
    "+1-1",
    "-2+3",
    "@SUM(A1:A9)",
    "\t=1",
    "\r=1",
    "a,b;c",
    "say \"hi\"",
    "two\r\nlines",
    "<script>alert(1)</script>",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{9b}2J",
    "\u{202e}cod.exe",
    "zero\u{200b}width",
    "NUL\u{0}inside",
    "\0=1",
    "\n=1",
    " =1",
    "\u{ff1d}1",
    "x'; DROP TABLE auditevents;--",
    "用户@例え.テスト",
    "{\"$gt\":\"\"}",
    "",
];

fn event(key: usize, name: &str) -> AuditEvent {
    AuditEvent {
        at: Timestamp::from_millisecond(1_700_000_000_000 + i64::try_from(key).unwrap()).unwrap(),
        source: SourceName::new("stalwart"),
        external_id: key.to_string(),
        action: "stalwart.auth_failed".into(),
        outcome: Some(Outcome::Failure),
        actor: Actor {
            id: None,
            email: None,
            name: Some(name.into()),
            ip: Some("192.0.2.7".into()),
        },
        target: Target {
            kind: Some("account".into()),
            id: None,
            name: Some(name.into()),
        },
        tenant_slug: None,
        metadata: serde_json::from_value::<serde_json::Map<_, _>>(
            json!({ "data": { "login": name }, "n": 1.50 }),
        )
        .unwrap()
        .into(),
    }
}

fn hostile_events() -> Vec<AuditEvent> {
    let long = "N".repeat(2000);
    let names = HOSTILE.iter().copied().chain([long.as_str()]);
    names
        .enumerate()
        .map(|(key, name)| event(key, name))
        .collect()
}

async fn enter(store: &dyn Store, events: &[AuditEvent]) {
    for events in events.chunks(250) {
        let records = events.iter().map(|event| Record::Event {
            event,
            tenant_slug: Some("acme"),
        });
        let commit = Commit {
            records: records.collect(),
            ..Commit::default()
        };
        store.commit(&commit).await.unwrap();
    }
}

/// A folder with a configuration and its store.
struct Place {
    dir: tempfile::TempDir,
    config: PathBuf,
    store: Arc<dyn Store>,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("daybook.toml");
        let text = format!(
            "[store]\nurl = \"sqlite:{}\"\n",
            dir.path().join("d.db").display()
        );
        std::fs::write(&config, &text).unwrap();
        let loaded = LoadedConfig::from_parts(Some((config.clone(), text)), Vec::new()).unwrap();
        let store = daybook::store::open(&loaded.config.store).await.unwrap();
        store.prepare().await.unwrap();
        Self { dir, config, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, command: &str) -> Command {
        let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
        daybook.arg(command).arg("-c").arg(&self.config);
        daybook
            .env_remove("NO_COLOR")
            .env("TZ", "UTC")
            // Anybody may say to be anybody.
            .env("USER", "mallory")
            .env_remove("SUDO_USER");
        daybook
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        self.command(command).args(arguments).output().unwrap()
    }

    fn succeeds(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What a line of shell shows on a terminal of its own; without `script` there is none to be had.
fn on_terminal(place: &Place, line: &str, environment: &[(&str, &str)]) -> String {
    let line = line
        .replace("DAYBOOK", env!("CARGO_BIN_EXE_daybook"))
        .replace("CONFIG", &place.config.display().to_string());
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

async fn deeds(store: &dyn Store) -> Vec<StoredEvent> {
    let filter = EventFilter {
        source: Some("daybook".to_owned()),
        ..EventFilter::default()
    };
    let mut deeds = store.find_events(&filter, None, 100).await.unwrap();
    deeds.sort_by(|a, b| a.id.cmp(&b.id));
    deeds
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("d.db")).collect()
}
