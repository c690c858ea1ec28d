//! Something else than a readable file at the path, or nothing at all.

use std::fs::OpenOptions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use testkit::World;
use testkit::process::{Process, free_port};
use testkit::world::eventually;

use crate::story::{Pen, Story, source};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_or_a_directory_that_is_not_there_yet_is_waited_for() {
    for log in ["audit.log", "not/yet/audit.log"] {
        let story = Story::of(World::sqlite().await, log).await;
        let view = story.world.source_becomes("ocis", "warning").await;
        let reason = view["reason"].as_str().unwrap();
        assert!(reason.contains("AUDIT_FILEPATH"), "{reason}");
        std::fs::create_dir_all(story.pen.path().parent().unwrap()).unwrap();
        story.pen.write(5);
        story.settled().await;
        story.world.source_becomes("ocis", "running").await;
        story.holds(&[], 0).await;
        story.world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_or_a_pipe_in_its_place_is_named_and_survived() {
    let mut story = Story::sqlite().await;
    for (turn, what) in ["directory", "pipe"].into_iter().enumerate() {
        story.pen.write(20);
        story.live_is_read().await;
        story.pen.write(100);
        let path = story.pen.path().to_owned();
        std::fs::rename(&path, story.path(&format!("audit.log.{}", 9 - turn))).unwrap();
        if what == "directory" {
            std::fs::create_dir(&path).unwrap();
        } else {
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
        }
        let view = story.world.source_becomes("ocis", "failing").await;
        let reason = view["reason"].as_str().unwrap();
        assert!(reason.contains(what), "{reason}");
        assert_eq!(story.world.metric("daybook_source_up", "ocis").await, 0.0);
        // A restart finds it so, too.
        story.world.restart().await;
        story.world.source_becomes("ocis", "failing").await;
        if what == "directory" {
            std::fs::remove_dir(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        story.pen.write(20);
        story.settled().await;
        story.world.source_becomes("ocis", "running").await;
        story.holds(&[], 0).await;
    }
    story.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_file_fails_with_its_reason_until_it_is_readable() {
    let user = OtherUser::new();
    let pen = &user.pen;
    pen.write(30);
    allow(pen.path(), 0o000);
    let mut process = user.start().await;
    let reason = failing(&process).await;
    assert!(reason.contains("no permission to open"), "{reason}");
    assert!(reason.contains("audit.log"), "{reason}");

    allow(pen.path(), 0o644);
    user.has_entered(&process, 30).await;
    // Unreadable while tailed: the descriptor stays good; the directory closed: nothing is seen.
    let logs = pen.path().parent().unwrap();
    allow(logs, 0o000);
    failing(&process).await;
    allow(logs, 0o755);
    pen.write(12);
    user.has_entered(&process, 42).await;
    end(&mut process).await;

    // What was rotated meanwhile and may not be read is waited for too.
    pen.write(10);
    let rotated = user.path("audit.log.1");
    std::fs::rename(pen.path(), &rotated).unwrap();
    allow(&rotated, 0o000);
    pen.write(5);
    let mut process = user.start().await;
    let reason = failing(&process).await;
    assert!(reason.contains("audit.log.1"), "{reason}");
    allow(&rotated, 0o644);
    user.has_entered(&process, 15).await;
    end(&mut process).await;
}

/// It may be entered, and not listed.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_in_a_directory_that_may_not_be_listed_is_read_on() {
    let user = OtherUser::new();
    let pen = &user.pen;
    pen.write(30);
    let mut process = user.start().await;
    user.has_entered(&process, 30).await;
    std::fs::rename(pen.path(), user.path("audit.log.1")).unwrap();
    std::fs::write(pen.path(), "").unwrap();
    user.has_entered(&process, 30).await;
    end(&mut process).await;
    allow(pen.path().parent().unwrap(), 0o711);
    let mut process = user.start().await;
    pen.write(5);
    user.has_entered(&process, 5).await;
    end(&mut process).await;
}

/// Made before the log's last line it is none of its parts; made after it, it may be one.
#[tokio::test(flavor = "multi_thread")]
async fn somebodys_copy_that_may_not_be_opened_is_read_in_no_case() {
    for is_before in [true, false] {
        let user = OtherUser::new();
        let pen = &user.pen;
        let mut lines = 30;
        pen.write(lines);
        let mut process = user.start().await;
        user.has_entered(&process, lines).await;
        let copy = user.path("audit.log.bak");
        std::fs::copy(pen.path(), &copy).unwrap();
        allow(&copy, 0o000);
        let made = std::fs::metadata(&copy).unwrap().modified().unwrap();
        while is_before && pen.metadata().modified().unwrap() <= made {
            pen.write(1);
            lines += 1;
        }
        user.has_entered(&process, lines).await;
        std::fs::rename(pen.path(), user.path("audit.log.1")).unwrap();
        pen.write(5);
        if !is_before {
            let reason = failing(&process).await;
            assert!(reason.contains("audit.log.bak"), "{reason}");
            allow(&copy, 0o644);
        }
        user.has_entered(&process, lines + 5).await;
        end(&mut process).await;
    }
}

/// Of the log that stands there at a start, behind the copy in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_next_log_that_may_not_be_opened_is_read_in_no_case() {
    let user = OtherUser::new();
    let pen = &user.pen;
    pen.write(30);
    let mut process = user.start().await;
    user.has_entered(&process, 30).await;
    end(&mut process).await;
    std::fs::rename(pen.path(), user.path("audit.log.1")).unwrap();
    pen.write(20);
    let copy = user.path("audit.log.bak");
    std::fs::copy(pen.path(), &copy).unwrap();
    allow(&copy, 0o000);
    let mut process = user.start().await;
    let reason = failing(&process).await;
    assert!(reason.contains("audit.log.bak"), "{reason}");
    allow(&copy, 0o644);
    user.has_entered(&process, 20).await;
    end(&mut process).await;
}

/// Of one that was read and rotated before.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_former_log_that_may_not_be_opened_is_read_in_no_case() {
    let user = OtherUser::new();
    let pen = &user.pen;
    pen.write(30);
    let mut process = user.start().await;
    user.has_entered(&process, 30).await;
    let rotated = user.path("audit.log-1");
    std::fs::rename(pen.path(), &rotated).unwrap();
    pen.write(20);
    user.has_entered(&process, 50).await;
    let copy = user.path("audit.log.bak");
    std::fs::copy(&rotated, &copy).unwrap();
    allow(&copy, 0o000);
    std::fs::rename(pen.path(), user.path("audit.log-2")).unwrap();
    pen.write(5);
    let reason = failing(&process).await;
    assert!(reason.contains("audit.log.bak"), "{reason}");
    allow(&copy, 0o644);
    user.has_entered(&process, 55).await;
    end(&mut process).await;
}

/// It may hold lines that nobody has read, and is no gap as long as nobody can tell.
#[tokio::test(flavor = "multi_thread")]
async fn the_copy_of_a_truncated_log_that_may_not_be_opened_is_waited_for() {
    for (is_stopped, is_deleted) in [(false, false), (true, false), (false, true), (true, true)] {
        let user = OtherUser::new();
        let pen = &user.pen;
        pen.write(30);
        let mut process = user.start().await;
        user.has_entered(&process, 30).await;
        let copy = user.path("audit.log.1");
        std::fs::copy(pen.path(), &copy).unwrap();
        allow(&copy, 0o000);
        let log = OpenOptions::new().write(true).open(pen.path());
        log.unwrap().set_len(0).unwrap();
        pen.write(5);
        let mut entered = 35;
        if is_stopped {
            failing(&process).await;
            end(&mut process).await;
            process = user.start().await;
            entered = 5;
        }
        let reason = failing(&process).await;
        assert!(reason.contains("audit.log.1"), "{reason}");
        if is_deleted {
            // The gap is entered too.
            entered += 1;
            std::fs::remove_file(&copy).unwrap();
        } else {
            allow(&copy, 0o644);
        }
        user.has_entered(&process, entered).await;
        end(&mut process).await;
    }
}

/// A log is rotated where it is, whatever link leads to it.
#[tokio::test(flavor = "multi_thread")]
async fn parts_are_found_beside_what_a_link_leads_to() {
    let plan = World::sqlite().await;
    let real = plan.dir().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("real/audit.log", plan.dir().join("audit.log")).unwrap();
    let mut story = Story::of(plan, "audit.log").await;
    story.pen.write(30);
    story.settled().await;
    story.world.halt().await;
    story.pen.write(20);
    std::fs::rename(real.join("audit.log"), real.join("audit.log.1")).unwrap();
    story.pen.write(10);
    story.world.resume().await;
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

/// A Daybook that runs as another user, for nothing is unreadable to root.
struct OtherUser {
    dir: tempfile::TempDir,
    pen: Arc<Pen>,
    command: Vec<String>,
    port: u16,
}

impl OtherUser {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, logs) = (dir.path().join("data"), dir.path().join("logs"));
        for each in [&data, &logs] {
            std::fs::create_dir(each).unwrap();
        }
        allow(dir.path(), 0o755);
        let pen = Pen::new(&logs.join("audit.log"));
        let port = free_port();
        let configuration = dir.path().join("daybook.toml");
        let toml = format!(
            "[store]\nurl = \"sqlite:{0}/daybook.db\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n[journal]\ndir = \"{0}/journal\"\n[[sources]]\n{1}\n",
            data.display(),
            source(pen.path()),
        );
        std::fs::write(&configuration, toml).unwrap();
        // Where everybody may run it. What a thread has just written is busy while another one forks.
        let (built, daybook) = (env!("CARGO_BIN_EXE_daybook"), dir.path().join("daybook"));
        if std::fs::hard_link(built, &daybook).is_err() {
            std::fs::copy(built, &daybook).unwrap();
        }
        let run = [
            daybook.to_str().unwrap(),
            "run",
            "-c",
            configuration.to_str().unwrap(),
        ];
        let as_nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let is_root = chown(&data, Some(65_534), Some(65_534)).is_ok();
        let words = match is_root {
            true => [&as_nobody[..], &run[..]].concat(),
            false => run.to_vec(),
        };
        let command = words.into_iter().map(str::to_owned).collect();
        Self {
            dir,
            pen,
            command,
            port,
        }
    }

    /// Beside the log.
    fn path(&self, name: &str) -> PathBuf {
        self.pen.path().with_file_name(name)
    }

    async fn start(&self) -> Process {
        let words: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let log = self.dir.path().join("log");
        let mut process = Process::spawn(words[0], &words[1..], self.port, &log);
        process.ready().await;
        process
    }

    /// So many events since its start and no more, all that there is.
    async fn has_entered(&self, process: &Process, events: u64) {
        eventually("all of the log is entered, once", async || {
            let source = only_source(process).await;
            let written = "daybook_events_written_total";
            source["state"] == "running"
                && source["cursor"]["lastEventId"] == self.pen.end()
                && process.metric(written, "source=\"ocis\"").await == events as f64
        })
        .await;
    }
}

async fn end(process: &mut Process) {
    process.signal("TERM");
    assert!(process.wait().await.success());
}

async fn only_source(process: &Process) -> Value {
    process.json("/api/v1/sources").await["sources"][0].clone()
}

/// Waits until the only source is failing; why it is.
async fn failing(process: &Process) -> String {
    eventually("it is failing", async || {
        only_source(process).await["state"] == "failing"
    })
    .await;
    let source = only_source(process).await;
    source["reason"].as_str().unwrap().to_owned()
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
