//! Where exports go, and where commands look for the store.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::{Place, deeds, enter, event, on_terminal};

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
async fn progress_is_not_drawn_into_the_events() {
    let place = Place::new().await;
    enter(&*place.store, &[event(1, "alice")]).await;
    let export = |arguments: &str, term| {
        let shell = format!("DAYBOOK export --format csv -c CONFIG {arguments}");
        on_terminal(&place, &shell, &[("TERM", term)])
    };
    assert!(!export("", "xterm").contains('\u{1b}'));
    let out = place.path("out.csv");
    assert!(export(&format!("-o {}", out.display()), "xterm").contains('\u{1b}'));
    assert!(!export(&format!("--force -o {}", out.display()), "dumb").contains('\u{1b}'));
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
