//! Something else than a readable file at the path, or nothing at all.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

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

/// As another user, for nothing is unreadable to root.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_file_fails_with_its_reason_until_it_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (data, logs) = (dir.path().join("data"), dir.path().join("logs"));
    for each in [&data, &logs] {
        std::fs::create_dir(each).unwrap();
    }
    allow(dir.path(), 0o755);
    let pen = Pen::new(&logs.join("audit.log"));
    pen.write(30);
    allow(pen.path(), 0o000);
    let port = free_port();
    let configuration = dir.path().join("daybook.toml");
    let toml = format!(
        "[store]\nurl = \"sqlite:{0}/daybook.db\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n[journal]\ndir = \"{0}/journal\"\n[[sources]]\n{1}\n",
        data.display(),
        source(pen.path()),
    );
    std::fs::write(&configuration, toml).unwrap();
    // Where everybody may run it.
    let daybook = dir.path().join("daybook");
    std::fs::copy(env!("CARGO_BIN_EXE_daybook"), &daybook).unwrap();
    let daybook = daybook.to_str().unwrap();
    let run = ["run", "-c", configuration.to_str().unwrap()];
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", daybook];
    let is_root = chown(&data, Some(65_534), Some(65_534)).is_ok();
    let (program, arguments) = if is_root {
        ("setpriv", [&as_nobody[..], &run[..]].concat())
    } else {
        (daybook, run.to_vec())
    };
    let mut process = Process::spawn(program, &arguments, port, &dir.path().join("log"));
    process.ready().await;
    let reason = failing(&process).await;
    assert!(reason.contains("no permission to open"), "{reason}");
    assert!(reason.contains("audit.log"), "{reason}");

    allow(pen.path(), 0o644);
    eventually("all lines are entered", async || {
        process.metric("daybook_events_written_total", "").await == 30.0
    })
    .await;
    // Unreadable while tailed: the descriptor stays good; the directory closed: nothing is seen.
    allow(&logs, 0o000);
    failing(&process).await;
    allow(&logs, 0o755);
    pen.write(12);
    eventually("the others, too", async || {
        process.metric("daybook_events_written_total", "").await == 42.0
            && only_source(&process).await["state"] == "running"
    })
    .await;
    assert_eq!(
        only_source(&process).await["cursor"]["lastEventId"],
        pen.end()
    );
    process.signal("TERM");
    assert!(process.wait().await.success());

    // What was rotated meanwhile and may not be read is waited for too.
    pen.write(10);
    let rotated = logs.join("audit.log.1");
    std::fs::rename(pen.path(), &rotated).unwrap();
    allow(&rotated, 0o000);
    pen.write(5);
    let mut process = Process::spawn(program, &arguments, port, &dir.path().join("log"));
    process.ready().await;
    let reason = failing(&process).await;
    assert!(reason.contains("audit.log.1"), "{reason}");
    allow(&rotated, 0o644);
    eventually("the rest", async || {
        process
            .metric("daybook_events_written_total", "source=\"ocis\"")
            .await
            == 15.0
            && only_source(&process).await["state"] == "running"
    })
    .await;
    assert_eq!(
        only_source(&process).await["cursor"]["lastEventId"],
        pen.end()
    );
    process.signal("TERM");
    assert!(process.wait().await.success());
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
