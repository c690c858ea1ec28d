//! Signals end `daybook export` and `daybook tail`, whatever their readers do.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use daybook::event::Outcome;
use testkit::world::eventually;

use super::{Place, deeds, enter, event, files};

/// A command, killed when dropped.
struct Running(Child);

impl Running {
    /// Hears a hangup, even if the tests were started by `nohup`.
    fn start(command: &mut Command) -> Self {
        let mut hearing = Command::new("env");
        hearing
            .arg("--default-signal=HUP")
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            );
        if let Some(directory) = command.get_current_dir() {
            hearing.current_dir(directory);
        }
        Self(hearing.stdout(Stdio::piped()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.unwrap().success());
    }

    async fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the command ends", async || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        ended.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// More than any pipe holds.
async fn filled() -> Place {
    let place = Place::new().await;
    let events: Vec<_> = (0..5000).map(|key| event(key, &"x".repeat(200))).collect();
    enter(&*place.store, &events).await;
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_hears_signals_while_its_reader_reads_nothing() {
    let place = filled().await;
    for (number, signal) in ["-INT", "-TERM", "-HUP"].into_iter().enumerate() {
        let mut export = Running::start(place.command("export").args(["--format", "ndjson"]));
        let out = export.0.stdout.as_mut().unwrap();
        // So far that what it writes now does not fit into the pipe.
        out.read_exact(&mut vec![0; 200_000]).unwrap();
        export.signal(signal);
        assert_eq!(export.end().await.code(), Some(1), "{signal}");
        let deeds = deeds(&*place.store).await;
        assert_eq!(deeds.len(), 2 * (number + 1), "{signal}: no end");
        assert_eq!(deeds.last().unwrap().outcome, Some(Outcome::Failure));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_hears_signals_while_its_reader_reads_nothing() {
    let place = filled().await;
    for signal in ["-INT", "-TERM"] {
        let mut tail = Running::start(place.command("tail").args(["--limit", "5000"]));
        tail.0
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
        tail.signal(signal);
        assert!(tail.end().await.success(), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_an_export_and_removes_what_is_not_complete() {
    let place = filled().await;
    let unfinished = || {
        let files = files(place.dir.path());
        files
            .iter()
            .any(|name| name.starts_with(".daybook-export-"))
    };
    let mut code = None;
    // Its file may come and go between two looks, and it may be done before it hears of the hangup.
    eventually("a hangup meets an export at work", async || {
        let _none = std::fs::remove_file(place.path("out.csv"));
        let mut command = place.command("export");
        command.args(["--format", "csv", "-o", "out.csv"]);
        let mut export = Running::start(command.current_dir(place.dir.path()));
        while export.0.try_wait().unwrap().is_none() {
            if unfinished() {
                export.signal("-STOP");
                if unfinished() {
                    export.signal("-HUP");
                    export.signal("-CONT");
                    code = export.end().await.code();
                    return code != Some(0);
                }
                export.signal("-CONT");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        false
    })
    .await;
    assert_eq!(code, Some(1));
    assert_eq!(files(place.dir.path()), ["daybook.toml"]);
    let ended = deeds(&*place.store).await.pop().unwrap();
    assert_eq!(ended.action, "daybook.exported");
    assert_eq!(ended.outcome, Some(Outcome::Failure));
}

#[tokio::test(flavor = "multi_thread")]
async fn nohup_keeps_an_export_alive() {
    let place = filled().await;
    let mut command = Command::new("nohup");
    let export = place.command("export");
    command.arg(export.get_program()).args(export.get_args());
    let mut export = Running::start(command.args(["--format", "ndjson"]));
    let mut out = export.0.stdout.take().unwrap();
    out.read_exact(&mut vec![0; 200_000]).unwrap();
    export.signal("-HUP");
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert!(export.end().await.success());
}
