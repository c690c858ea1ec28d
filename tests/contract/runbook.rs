//! The runbook's procedures for a SQLite store, by the commands that stand there, and what its first
//! question of a store that is away finds.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::process::{Process, free_port, write_config};
use testkit::world::client;

use super::{DAYBOOK, EVENTS};

const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// The commands of a section that `part` stands in.
fn commands(section: &str, part: &str) -> &'static str {
    let (_, section) = RUNBOOK
        .split_once(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("no section {section}"));
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let blocks = section.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|block| Some(block.split_once("```")?.0.trim()));
    let found = blocks.find(|block| block.contains(part));
    found.unwrap_or_else(|| panic!("no commands with {part}"))
}

/// Runs them in a folder, where `daybook` finds its configuration, as somebody whose files others may read.
fn run(dir: &Path, commands: &str) {
    let programs = Path::new(DAYBOOK).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    let commands = format!("umask 022\n{commands}");
    shell.args(["-c", &commands]).current_dir(dir);
    shell.env("PATH", format!("{}:{path}", programs.display()));
    let output = shell.env_remove("DAYBOOK_CONFIG").output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{commands}\n{said}");
}

/// Without a journal: what is answered stands in the store.
async fn start(dir: &Path) -> Process {
    let port = free_port();
    let store = format!("sqlite:{}", dir.join("data/daybook.db").display());
    let rest = "max_size = \"0B\"\n[[sources]]\nkind = \"recorder\"\n";
    let config = write_config(dir, port, &store, rest);
    let arguments = ["run", "-c", &config];
    let mut daybook = Process::spawn(DAYBOOK, &arguments, port, &dir.join("log"));
    daybook.ready().await;
    daybook
}

async fn record(daybook: &Process, event: &Value) {
    let request = client().post(daybook.url(EVENTS)).body(event.to_string());
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
}

async fn recorded(daybook: &Process) -> Vec<Value> {
    let found = daybook.json(&format!("{EVENTS}?source=recorder")).await;
    found["events"].as_array().unwrap().clone()
}

/// Its owner, for whom alone it is open.
fn owner(path: &Path) -> u32 {
    let file = path.metadata().unwrap();
    assert_eq!(file.mode() & 0o777, 0o600, "{}", path.display());
    file.uid()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_although_a_log_of_later_events_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut daybook = start(dir.path()).await;
    record(&daybook, &json!({"action": "invoice.made"})).await;
    let backed_up = recorded(&daybook).await;
    assert_eq!(backed_up.len(), 1);
    let section = "Backup and restore";
    run(dir.path(), commands(section, "VACUUM INTO"));
    let user = owner(&dir.path().join("backup.db"));
    record(&daybook, &json!({"action": "invoice.paid"})).await;
    daybook.signal("KILL");
    daybook.wait().await;
    let log = dir.path().join("data/daybook.db-wal");
    assert!(log.metadata().unwrap().len() > 0);
    let (data, file) = (dir.path().join("data"), dir.path().join("data/daybook.db"));
    std::fs::remove_file(&file).unwrap();
    // Only root can restore for somebody else.
    let service = if user == 0 { 65_534 } else { user };
    chown(&data, Some(service), None).unwrap();

    run(dir.path(), commands(section, "install -m 600 backup.db"));
    assert_eq!(owner(&file), service);
    let daybook = start(dir.path()).await;
    assert_eq!(recorded(&daybook).await, backed_up);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_stands_nowhere_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut daybook = start(dir.path()).await;
    for event in [
        json!({"action": "door.opened", "actor": {"email": "Alice@Example.org"}}),
        json!({"action": "note.written", "metadata": {"text": "for alice@example.org"}}),
        json!({"action": "door.closed", "actor": {"email": "bob@example.org"}}),
    ] {
        record(&daybook, &event).await;
    }
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0), "{}", daybook.log());

    let section = "Erasing a person";
    run(dir.path(), commands(section, "> found.ndjson"));
    owner(&dir.path().join("found.ndjson"));
    run(dir.path(), commands(section, "BEGIN;"));
    let file = std::fs::read(dir.path().join("data/daybook.db")).unwrap();
    let file = String::from_utf8_lossy(&file).to_lowercase();
    assert!(file.contains("bob@example.org"));
    assert!(!file.contains("alice@example.org"));

    let daybook = start(dir.path()).await;
    let left = recorded(&daybook).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["action"], "door.closed");
    // grep ends with 1 where it counts none.
    let check = commands(section, "grep -ciF");
    run(dir.path(), &format!("! {check}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_why_the_store_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let _daybook = start(dir.path()).await;
    // For whoever asks now the store is where nobody listens.
    let nowhere = format!("mongodb://127.0.0.1:{}/daybook", free_port());
    let store = format!("sqlite:{}", dir.path().join("data/daybook.db").display());
    let path = dir.path().join("daybook.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        (store.as_str(), nowhere.as_str()),
        ("[store]", "[store]\ntimeout = \"1s\""),
        ("auth = \"none\"", "auth = \"tokens\""),
    ] {
        assert!(config.contains(from), "{from} is not in\n{config}");
        config = config.replace(from, to);
    }
    std::fs::write(&path, config).unwrap();
    let mut status = Command::new(DAYBOOK);
    let output = status.args(["status", "-c"]).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the service runs"), "{said}");
    assert!(said.contains("(ready): store is unavailable: "), "{said}");
}
