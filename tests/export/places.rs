//! Where exports go, and where commands look for the store.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::{Place, deeds, enter, event, hostile_events, on_terminal};

#[tokio::test]
async fn a_dash_is_standard_output() {
    let place = Place::new().await;
    enter(&*place.store, &[event(1, "alice")]).await;
    let arguments = ["--format", "csv", "-o", "-"];
    let mut command = place.command("export");
    let output = command.args(arguments).current_dir(place.dir.path());
    let output = output.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("alice"), "{text}");
    assert_eq!(output.stderr, b"");
    assert!(!place.path("-").exists());
}

#[tokio::test]
async fn a_link_is_followed_and_what_is_no_file_is_left_alone() {
    let place = Place::new().await;
    let (file, link) = (place.path("out.csv"), place.path("link"));
    std::fs::write(&file, "old").unwrap();
    symlink("out.csv", &link).unwrap();
    let export = |path: &str| place.run("export", &["--format", "csv", "--force", "-o", path]);
    assert!(export(link.to_str().unwrap()).status.success());
    assert!(link.is_symlink());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("at,id,"), "{text}");

    let before = deeds(&*place.store).await.len();
    let socket = place.path("socket");
    let _bound = UnixListener::bind(&socket).unwrap();
    let nowhere = place.path("nowhere");
    symlink("not-there", &nowhere).unwrap();
    for (path, said) in [(socket, "no regular file"), (nowhere, "leads nowhere")] {
        let refused = export(path.to_str().unwrap());
        assert_eq!(refused.status.code(), Some(1));
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains(said), "{error}");
        assert!(path.symlink_metadata().is_ok());
    }
    assert_eq!(deeds(&*place.store).await.len(), before);
}

#[tokio::test]
async fn a_file_that_is_replaced_stays_open_to_whom_it_was() {
    let place = Place::new().await;
    let path = place.path("out.csv");
    let file = path.to_str().unwrap();
    let export = || {
        let arguments = ["--format", "csv", "--force", "-o", file];
        place.succeeds("export", &arguments);
        path.metadata().unwrap()
    };
    let first = export();
    assert_eq!(first.mode() & 0o777, 0o600);
    // Only root gives files away.
    let others = (12_345, 54_321);
    let is_given = chown(&path, Some(others.0), Some(others.1)).is_ok();
    for mode in [0o644, 0o660] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let former = path.metadata().unwrap();
        let new = export();
        assert_ne!(new.ino(), former.ino());
        assert_eq!(new.mode() & 0o777, mode);
        assert_eq!((new.uid(), new.gid()), (former.uid(), former.gid()));
        assert_eq!((new.uid(), new.gid()) == others, is_given);
    }
}

/// `out=$(mktemp)` makes one.
#[tokio::test]
async fn an_empty_file_is_replaced_unasked_and_keeps_its_mode() {
    let place = Place::new().await;
    let (file, link) = (place.path("out.csv"), place.path("link"));
    symlink("out.csv", &link).unwrap();
    for (path, mode) in [(&file, 0o644), (&link, 0o640)] {
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let arguments = ["--format", "csv", "-o", path.to_str().unwrap()];
        place.succeeds("export", &arguments);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("at,id,"), "{text}");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, mode);
        let refused = place.run("export", &arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    assert!(link.is_symlink());

    // Whoever else's it is would own the events.
    let other = place.path("other.csv");
    std::fs::write(&other, "").unwrap();
    if std::os::unix::fs::chown(&other, Some(12_345), None).is_ok() {
        let refused = place.run(
            "export",
            &["--format", "csv", "-o", other.to_str().unwrap()],
        );
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(other.metadata().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn progress_is_drawn_from_first_to_last_and_not_into_the_events() {
    let place = Place::new().await;
    let events: Vec<_> = (0..10).map(|key| event(key, "alice")).collect();
    enter(&*place.store, &events).await;
    let export = |arguments: &str, term| {
        let shell = format!("DAYBOOK export --format csv --source stalwart -c CONFIG {arguments}");
        on_terminal(&place, &shell, &[("TERM", term)])
    };
    assert!(!export("", "xterm").contains('\u{1b}'));
    let out = place.path("out.csv");
    let shown = export(&format!("-o {}", out.display()), "xterm");
    let bar = "100 % [######################] 10 of 10 events, ";
    let (before, after) = shown.rsplit_once(bar).unwrap();
    assert_eq!(before.matches("\u{1b}[K").count(), 2, "{shown:?}");
    let (_, after) = after.split_once('\n').unwrap();
    assert!(after.contains("10 events in "), "{shown:?}");
    assert!(!after.contains("\u{1b}[K"), "{shown:?}");
    assert!(!export(&format!("--force -o {}", out.display()), "dumb").contains('\u{1b}'));
}

#[tokio::test]
async fn names_act_on_no_terminal_and_stand_as_they_are_elsewhere() {
    let place = Place::new().await;
    enter(&*place.store, &hostile_events()).await;
    let acts = |text: &str| text.contains(['\u{9b}', '\u{202e}']);
    for format in ["ndjson", "csv", "ecs"] {
        let shell = format!("DAYBOOK export --format {format} --source stalwart -c CONFIG");
        let shown = on_terminal(&place, &shell, &[]);
        assert!(shown.contains("\\u202ecod.exe"), "{format}: {shown}");
        assert!(!acts(&shown) && !shown.contains('\u{1b}'), "{format}");
        let piped = place.succeeds("export", &["--format", format, "--source", "stalwart"]);
        assert!(acts(&piped), "{format}");
    }
}

#[tokio::test]
async fn a_replay_draws_no_progress_on_a_dumb_terminal() {
    let place = Place::new().await;
    let log = place.path("audit.log");
    std::fs::write(&log, "no record\n").unwrap();
    let source = format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        log.display()
    );
    let config = std::fs::read_to_string(&place.config).unwrap();
    std::fs::write(&place.config, config + &source).unwrap();
    let replay = "DAYBOOK replay --source ocis --since 7d -c CONFIG";
    for (term, is_drawn) in [("xterm", true), ("dumb", false)] {
        let shown = on_terminal(&place, replay, &[("TERM", term)]);
        assert!(shown.contains("read 1, new 0"), "{term}: {shown}");
        assert_eq!(shown.contains('\u{1b}'), is_drawn, "{term}: {shown}");
    }
}

#[test]
fn a_replay_into_a_store_that_was_not_there_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("audit.log"), "no record\n").unwrap();
    let source = "[[sources]]\nkind = \"ocis\"\npath = \"audit.log\"\n";
    std::fs::write(dir.path().join("daybook.toml"), source).unwrap();
    for is_new in [true, false] {
        let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
        daybook.args(["replay", "--source", "ocis", "--since", "7d"]);
        daybook.current_dir(&dir).env_remove("DAYBOOK_CONFIG");
        let output = daybook.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.starts_with("warning: the store /"), is_new, "{said}");
        assert_eq!(said.contains("was not there"), is_new, "{said}");
    }
}

/// Root may look into every directory, but nobody into a file.
#[test]
fn a_store_that_cannot_be_looked_at_is_not_called_missing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("closed"), "").unwrap();
    std::fs::write(
        dir.path().join("daybook.toml"),
        "[store]\nurl = \"sqlite:closed/daybook.db\"\n",
    )
    .unwrap();
    for arguments in [&["status"][..], &["token", "new", "--role", "operator"]] {
        let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
        daybook.args(arguments).current_dir(&dir);
        let output = daybook.env_remove("DAYBOOK_CONFIG").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let wanted = "error: this user cannot look at the store at /";
        assert!(said.starts_with(wanted), "{arguments:?}: {said}");
        assert!(said.contains("closed/daybook.db"), "{arguments:?}: {said}");
    }
}

/// SQLite itself knows addresses that begin so, of other files.
#[test]
fn a_store_that_is_named_like_an_address_is_the_file_of_that_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
    daybook.args(["token", "new", "--role", "operator"]);
    daybook.current_dir(&dir).env_remove("DAYBOOK_CONFIG");
    daybook.env("DAYBOOK__STORE__URL", "sqlite:file:d.db");
    let output = daybook.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let made = rusqlite::Connection::open(dir.path().join("file:d.db")).unwrap();
    let count = "SELECT count(*) FROM daybooktokens";
    let tokens = made.query_row(count, [], |row| row.get::<_, i64>(0));
    assert_eq!(tokens.unwrap(), 1);
    assert!(!dir.path().join("d.db").exists());
}

#[test]
fn commands_that_read_make_no_store() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["tail"][..],
        &["export", "--format", "csv"],
        &["status"],
        &["dead-letters", "list"],
    ] {
        let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
        daybook.args(arguments).current_dir(dir.path());
        let output = daybook.env_remove("DAYBOOK_CONFIG").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let wanted = dir.path().canonicalize().unwrap().join("data/daybook.db");
        let wanted = format!("there is no store at {}", wanted.display());
        assert!(said.contains(&wanted), "{arguments:?}: {said}");
        assert!(!dir.path().join("data").exists(), "{arguments:?}");
    }
}

#[tokio::test]
async fn the_status_of_an_empty_store_is_no_error() {
    let place = Place::new().await;
    let empty = place.path("empty.db");
    std::fs::write(&empty, "").unwrap();
    let mut status = place.command("status");
    status.env("DAYBOOK__STORE__URL", format!("sqlite:{}", empty.display()));
    // Nobody listens there.
    status.env("DAYBOOK__HTTP__LISTEN", "127.0.0.1:1");
    let output = status.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("not running") && !text.contains("no such table"),
        "{text}"
    );
}
