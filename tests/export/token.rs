//! `daybook token new`.

use std::fs::OpenOptions;
use std::process::Command;

use daybook::event::Outcome;
use rusqlite::Connection;
use testkit::process::{Process, free_port};

use super::{Place, deeds};

/// How many rows of a SQLite store this finds.
fn count(store: &Connection, what: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {what}");
    store.query_row(&count, [], |row| row.get(0)).unwrap()
}

fn new_token(place: &Place, arguments: &[&str]) -> Command {
    let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
    daybook.args(["token", "new", "-c"]).arg(&place.config);
    daybook.args(arguments);
    daybook
}

#[tokio::test]
async fn a_token_that_nobody_has_seen_is_not_kept() {
    let place = Place::new().await;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = new_token(&place, &["--role", "operator"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("deleted again"), "{said}");
    let store = Connection::open(place.path("d.db")).unwrap();
    assert_eq!(count(&store, "daybooktokens"), 0);
    let deeds = deeds(&*place.store).await;
    let outcomes: Vec<_> = deeds.iter().map(|deed| deed.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Success), Some(Outcome::Failure)]);
}

#[tokio::test]
async fn a_token_that_the_timeline_does_not_tell_of_is_not_kept() {
    let place = Place::new().await;
    let store = Connection::open(place.path("d.db")).unwrap();
    for (refused, is_told) in [("'success'", true), ("'success', 'failure'", false)] {
        let refusal = format!(
            "DROP TRIGGER IF EXISTS refusal;
             CREATE TRIGGER refusal BEFORE INSERT ON auditevents WHEN NEW.outcome IN ({refused})
             BEGIN SELECT RAISE(ABORT, 'refused by a test'); END;"
        );
        store.execute_batch(&refusal).unwrap();
        let output = new_token(&place, &["--role", "operator"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
        let said = String::from_utf8(output.stderr).unwrap();
        for told in ["refused by a test", "no token was made", "deleted again"] {
            assert!(said.contains(told), "{said}");
        }
        assert_eq!(said.contains("but the timeline does not say so"), !is_told);
        assert_eq!(count(&store, "daybooktokens"), 0);
        // It may stand there that the token was made, though the store did not say so.
        let deeds = deeds(&*place.store).await;
        let outcomes: Vec<_> = deeds.iter().map(|deed| deed.outcome).collect();
        assert_eq!(outcomes, [Some(Outcome::Failure)]);
    }
}

/// Elsewhere than on loopback it asks for tokens.
#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_demo_end_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (listen, kept) = (format!("0.0.0.0:{port}"), dir.path().join("demo"));
    let arguments = ["demo", "--listen", &listen, "--dir", kept.to_str().unwrap()];
    let log = dir.path().join("log");
    let mut demo = Process::spawn(env!("CARGO_BIN_EXE_daybook"), &arguments, port, &log);
    demo.ready().await;
    let store = Connection::open(kept.join("daybook.db")).unwrap();
    assert_eq!(count(&store, "daybooktokens"), 2);
    demo.signal("TERM");
    assert_eq!(demo.wait().await.code(), Some(0));
    assert_eq!(count(&store, "daybooktokens"), 0);
    let made = "auditevents WHERE action = 'daybook.token_created' AND outcome = 'success'";
    assert_eq!(count(&store, made), 2);
}

#[tokio::test]
async fn a_token_for_what_is_not_there_comes_with_a_warning() {
    let place = Place::new().await;
    std::fs::write(place.path("tenants.toml"), "[[tenants]]\nslug = \"acme\"\n").unwrap();
    let mut config = std::fs::read_to_string(&place.config).unwrap();
    config += &format!(
        "[tenants]\nfile = \"{}\"\n[[sources]]\nkind = \"recorder\"\nname = \"billing\"\n\
         [[sources]]\nkind = \"ocis\"\nname = \"files\"\npath = \"audit.log\"\n",
        place.path("tenants.toml").display()
    );
    std::fs::write(&place.config, config).unwrap();
    for (arguments, warned) in [
        (&["--role", "recorder", "--source", "billing"][..], false),
        (&["--role", "recorder", "--source", "files"], true),
        (&["--role", "recorder", "--source", "nosuch"], true),
        (&["--role", "tenant:acme"], false),
        (&["--role", "tenant:nosuch"], true),
    ] {
        let output = new_token(&place, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        assert!(output.stdout.starts_with(b"dbk_"), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said.starts_with("warning: "),
            warned,
            "{arguments:?}: {said}"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_made_for_a_token_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for _ in 0..2 {
        let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
        daybook.args(["token", "new", "--role", "operator"]);
        let output = daybook.current_dir(&directory).output().unwrap();
        assert!(output.status.success());
        said.push(String::from_utf8(output.stderr).unwrap());
    }
    assert!(said[0].starts_with("warning: the store /"), "{}", said[0]);
    assert!(
        said[0].contains("/data/daybook.db was not there"),
        "{}",
        said[0]
    );
    assert_eq!(said[1], "");
}
