//! `daybook export`.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Place, deeds, enter, event, files, lines};

#[tokio::test]
async fn a_file_appears_whole_and_replaces_nothing_unasked() {
    let place = Place::new().await;
    let events: Vec<_> = (0..2500).map(|key| event(key, "alice")).collect();
    enter(&*place.store, &events).await;
    let path = place.path("out.ndjson");
    let file = path.to_str().unwrap();
    place.succeeds("export", &["--format", "ndjson", "-o", file]);
    let exported = lines(&std::fs::read_to_string(&path).unwrap());
    let keys: Vec<_> = exported
        .iter()
        .map(|line| line["externalId"].clone())
        .collect();
    let wanted: Vec<_> = (0..2500).rev().map(|key| key.to_string()).collect();
    assert_eq!(keys, wanted);

    let refused = place.run("export", &["--format", "csv", "-o", file]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--force"), "{said}");
    place.succeeds(
        "export",
        &["--format", "csv", "-o", file, "--force", "--limit", "3"],
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4);
    let mut left = files(place.dir.path());
    left.sort();
    assert_eq!(left, ["daybook.toml", "out.ndjson"]);
}

#[tokio::test]
async fn every_export_stands_on_the_timeline() {
    let place = Place::new().await;
    enter(&*place.store, &[event(1, "alice"), event(2, "bob")]).await;
    place.succeeds(
        "export",
        &[
            "--format",
            "csv",
            "--actor",
            "ALICE",
            "--since",
            "2020-01-01",
            "--limit",
            "7",
        ],
    );
    let deeds = deeds(&*place.store).await;
    let actions: Vec<_> = deeds.iter().map(|deed| deed.action.as_str()).collect();
    assert_eq!(actions, ["daybook.export_started", "daybook.exported"]);
    let ended = &deeds[1];
    let user = std::process::Command::new("id").arg("-un").output();
    let user = String::from_utf8(user.unwrap().stdout).unwrap();
    assert_eq!(ended.actor.name.as_deref(), Some(user.trim()));
    assert_eq!(ended.metadata["filter"]["limit"], 7);
    assert_eq!(ended.metadata["count"], 1);
    assert_eq!(ended.metadata["format"], "csv");
    assert_eq!(ended.metadata["filter"]["actor"], "ALICE");
    assert_eq!(ended.metadata["filter"]["since"], "2020-01-01T00:00:00Z");
    assert_eq!(ended.outcome, Some(daybook::event::Outcome::Success));
    assert_eq!(deeds[0].target, ended.target);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error_and_no_success() {
    let place = Place::new().await;
    let events: Vec<_> = (0..5000).map(|key| event(key, &"x".repeat(200))).collect();
    enter(&*place.store, &events).await;
    let mut export = place
        .command("export")
        .args(["--format", "ndjson"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = export.stdout.take().unwrap();
    out.read_exact(&mut [0; 1000]).unwrap();
    drop(out);
    assert!(export.wait().unwrap().success());
    let ended = deeds(&*place.store).await.pop().unwrap();
    assert_eq!(ended.action, "daybook.exported");
    assert_eq!(ended.outcome, Some(daybook::event::Outcome::Failure));
    assert!(ended.metadata["count"].as_u64().unwrap() < 5000);
}

#[tokio::test]
async fn a_store_that_is_away_at_the_end_hides_no_error_and_makes_none() {
    let place = Place::new().await;
    let events: Vec<_> = (0..5000).map(|key| event(key, &"x".repeat(200))).collect();
    enter(&*place.store, &events).await;
    let other = rusqlite::Connection::open(place.path("d.db")).unwrap();
    other.busy_timeout(Duration::from_secs(30)).unwrap();
    let untold = "the timeline does not say that this was exported: store ";
    for (is_ended, code, told) in [
        (false, 0, "warning: "),
        (true, 1, "error: interrupted; the export is not complete\n"),
    ] {
        let mut export = place
            .command("export")
            .args(["--format", "ndjson"])
            .env("DAYBOOK__STORE__TIMEOUT", "3s")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = export.stdout.take().unwrap();
        out.read_exact(&mut [0; 1000]).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        // Or its reader goes.
        let _reader = is_ended.then_some(out);
        if is_ended {
            let id = export.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &id]).status();
            assert!(sent.unwrap().success());
        }
        let output = export.wait_with_output().unwrap();
        other.execute_batch("ROLLBACK").unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(&format!("{told}{untold}")), "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_command_line_says_what_is_wanted() {
    let place = Place::new().await;
    let long = place.path(&"n".repeat(300));
    let long = long.to_str().unwrap();
    for (arguments, said) in [
        (&["--format", "xlsx"][..], "ndjson, csv or ecs"),
        (&["--format", "csv", "--since", "yesterday"], "2h"),
        (
            &["--format", "csv", "--outcome", "maybe"],
            "success, failure or unknown",
        ),
        (
            &[
                "--format",
                "csv",
                "--since",
                "2026-01-02",
                "--until",
                "2026-01-01",
            ],
            "--until is before --since",
        ),
        (&["--format", "csv", "-o", "/not/there/x"], "/not/there"),
        (&["--format", "csv", "-o", "nosuch/"], "not of a file"),
        (&["--format", "csv", "-o", "nosuch/."], "not of a file"),
        (&["--format", "csv", "-o", long], "cannot name a file"),
        (&[], "--format"),
    ] {
        let output = place.run("export", arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    assert!(
        deeds(&*place.store).await.is_empty(),
        "nothing was exported"
    );
}
