//! `daybook tail`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{HOSTILE, Place, enter, event, hostile_events, lines, on_terminal};

#[tokio::test]
async fn the_newest_stand_last() {
    let place = Place::new().await;
    let events: Vec<_> = (0..50)
        .map(|key| event(key, &format!("user{key}")))
        .collect();
    enter(&*place.store, &events).await;
    let text = place.succeeds("tail", &["--limit", "3"]);
    let rows: Vec<_> = text.lines().collect();
    assert_eq!(rows.len(), 3);
    assert!(
        rows[2].contains("user49") && rows[0].contains("user47"),
        "{text}"
    );
    assert!(rows[2].starts_with("2023-11-14 22:13:20 acme"), "{text}");
    assert!(
        rows[2].contains("failure") && rows[2].ends_with("from 192.0.2.7"),
        "{text}"
    );
    let json = lines(&place.succeeds("tail", &["--json", "--actor", "USER7"]));
    assert_eq!((json.len(), &json[0]["externalId"]), (1, &"7".into()));
    assert_eq!(place.succeeds("tail", &[]).lines().count(), 20);
    assert_eq!(place.succeeds("tail", &["--limit", "0"]), "");
    for (zone, time, said) in [
        ("Asia/Tokyo", "2023-11-15 07:13:20", ""),
        (
            "Mars/Olympus",
            "2023-11-14 22:13:20",
            "warning: TZ: no time zone \"Mars/Olympus\" is known here; times are in UTC\n",
        ),
    ] {
        let mut tail = place.command("tail");
        let output = tail.args(["--limit", "1"]).env("TZ", zone).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(time), "{zone}: {text}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), said);
    }
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_those_who_ask() {
    let place = Place::new().await;
    enter(&*place.store, &[event(1, "alice")]).await;
    assert!(!place.succeeds("tail", &[]).contains('\u{1b}'));
    assert!(
        place
            .succeeds("tail", &["--color", "always"])
            .contains("\u{1b}[31mfailure")
    );
    let tail =
        |environment: &[(&str, &str)]| on_terminal(&place, "DAYBOOK tail -c CONFIG", environment);
    assert!(tail(&[]).contains("\u{1b}[31mfailure"));
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        assert!(!tail(&[plain]).contains('\u{1b}'), "{plain:?}");
    }
}

#[tokio::test]
async fn a_line_is_as_long_as_the_terminal_is_wide() {
    let place = Place::new().await;
    enter(&*place.store, &[event(1, &"alice".repeat(20))]).await;
    let long = on_terminal(&place, "DAYBOOK tail --color never -c CONFIG", &[]);
    assert!(long.trim_end().chars().count() > 100, "{long}");
    // Of the terminal itself: the image holds no program to ask.
    let narrow = "stty cols 60; PATH=/nonexistent DAYBOOK tail --color never -c CONFIG";
    for (line, environment) in [
        (narrow, &[][..]),
        ("DAYBOOK tail --color never -c CONFIG", &[("COLUMNS", "60")]),
    ] {
        let text = on_terminal(&place, line, environment);
        let text = text.trim_end();
        assert_eq!(text.lines().count(), 1);
        assert!(text.chars().count() <= 60, "{text}");
        assert!(text.contains("failure stalwart.au… alicealicea…"), "{text}");
    }
}

#[tokio::test]
async fn hostile_names_do_nothing() {
    let place = Place::new().await;
    enter(&*place.store, &hostile_events()).await;
    for arguments in [&["--limit", "100"][..], &["--limit", "100", "--json"]] {
        let text = place.succeeds("tail", arguments);
        assert_eq!(text.lines().count(), HOSTILE.len() + 1);
        let acting = text.chars().filter(|character| {
            character.is_control() && *character != '\n'
                || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        });
        assert_eq!(acting.count(), 0, "{text:?}");
    }
    let json = lines(&place.succeeds("tail", &["--limit", "100", "--json"]));
    for (line, name) in json.iter().zip(HOSTILE) {
        assert_eq!(line["actor"]["name"], *name);
    }
}

/// A running `tail --follow`, line by line.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut child = place
            .command("tail")
            .arg("--follow")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    fn key(&self) -> String {
        let event: serde_json::Value = serde_json::from_str(&self.line()).unwrap();
        event["externalId"].as_str().unwrap().to_owned()
    }

    /// The most memory that it ever had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mut lines = status.lines();
        let line = lines.find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib >> 10
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn following_shows_what_comes_and_ends_well() {
    let place = Place::new().await;
    enter(
        &*place.store,
        &[event(1, "alice"), event(2, "bob"), event(3, "alice")],
    )
    .await;
    let mut following = Following::start(&place, &["--json", "--actor", "alice", "--limit", "1"]);
    assert_eq!(following.key(), "3");
    enter(&*place.store, &[event(4, "bob"), event(5, "Alice")]).await;
    assert_eq!(following.key(), "5");
    let interrupted = Command::new("kill")
        .args(["-INT", &following.child.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    assert!(following.child.wait().unwrap().success());
}

/// Tiny values take many times their length when they are decoded; never those of all events at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_events_are_shown_in_order_and_in_little_memory() {
    const EVENTS: usize = 100;
    const VALUES: usize = 20_000;
    let place = Place::new().await;
    for key in 0..EVENTS {
        let mut event = event(key, "alice");
        let values = vec![0; VALUES].into();
        event.metadata.insert("v".to_owned(), values);
        enter(&*place.store, &[event]).await;
    }
    let one = Following::start(&place, &["--limit", "1"]);
    one.line();
    let bare = one.peak_mib();
    for arguments in [&["--limit", "99"][..], &["--limit", "99", "--json"]] {
        let many = Following::start(&place, arguments);
        for key in 1..EVENTS {
            if arguments.contains(&"--json") {
                assert_eq!(many.key(), key.to_string());
            } else {
                assert!(many.line().contains("alice"));
            }
        }
        let peak = many.peak_mib();
        println!("{arguments:?}: peak {peak} MiB, of one event {bare} MiB");
        assert!(peak < bare + 48, "{arguments:?}: {peak} MiB, {bare}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_error() {
    let place = Place::new().await;
    let events: Vec<_> = (0..5000).map(|key| event(key, &"x".repeat(100))).collect();
    enter(&*place.store, &events).await;
    let mut tail = place
        .command("tail")
        .args(["--limit", "5000", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = tail.stdout.take().unwrap();
    out.read_exact(&mut [0; 100]).unwrap();
    drop(out);
    let ended = tail.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}
