//! Lines that say the same, lines that say no time, and a log that is not there.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::replay;

pub(super) fn line(action: &str, time: &str) -> String {
    let line = json!({
        "RemoteAddr": "", "User": "", "URL": "", "Method": "", "UserAgent": "", "Time": time,
        "App": "admin_audit", "Message": "user 'u' did it", "Action": action, "CLI": false,
        "Level": 1, "SpaceID": "s",
    });
    format!("{line}\n")
}

fn config(dir: &Path) -> PathBuf {
    let path = dir.join("daybook.toml");
    let dir = dir.display();
    let text = format!(
        "[store]\nurl = \"sqlite:{dir}/d.db\"\n[[sources]]\nkind = \"ocis\"\npath = \"{dir}/audit.log\"\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn finds(config: &Path, new: usize, known: usize) {
    let counts = replay(config, "ocis", "2000-01-01");
    assert_eq!(
        (&counts["new"], &counts["known"]),
        (&json!(new), &json!(known)),
        "{counts}"
    );
}

#[test]
fn what_says_the_same_is_entered_as_often_as_it_was_written() {
    let dated = line("file_delete", "2026-01-02T03:04:05Z");
    let timeless = line("space_shared", "");
    for (rotated, live, lines) in [
        // More than are entered at once.
        (None, dated.repeat(1000), 1000),
        (None, timeless.repeat(1000), 1000),
        // Twins in two parts.
        (Some(format!("{timeless}{dated}")), dated.clone(), 3),
        (Some(format!("{dated}{timeless}")), timeless.clone(), 3),
    ] {
        let dir = tempfile::tempdir().unwrap();
        if let Some(rotated) = rotated {
            std::fs::write(dir.path().join("audit.log.1"), rotated).unwrap();
        }
        std::fs::write(dir.path().join("audit.log"), live).unwrap();
        let config = config(dir.path());
        finds(&config, lines, 0);
        finds(&config, 0, lines);
    }
}

#[test]
fn the_lines_of_an_unpacked_part_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("audit.log.1");
    let (dated, timeless) = (
        line("file_delete", "2026-01-02T03:04:05Z"),
        line("space_shared", ""),
    );
    std::fs::write(&part, format!("{dated}{timeless}{timeless}{dated}")).unwrap();
    std::fs::write(
        dir.path().join("audit.log"),
        line("file_delete", "2026-02-02T03:04:05Z"),
    )
    .unwrap();
    let config = config(dir.path());
    finds(&config, 5, 0);
    // Another file, byte for byte the same.
    let unpacked = dir.path().join("unpacked");
    std::fs::copy(&part, &unpacked).unwrap();
    std::fs::rename(&unpacked, &part).unwrap();
    finds(&config, 0, 5);
}

#[test]
fn a_line_without_a_time_is_as_old_as_what_comes_before_it() {
    let (old, young) = ("2001-01-01T00:00:00Z", "2003-01-01T00:00:00Z");
    let timeless = line("space_shared", "");
    for (before, is_file_old, new, left_out) in [
        (line("file_delete", old), false, 0, 2),
        (line("file_delete", young), false, 2, 0),
        // A read is left out, and tells the time.
        (line("file_read", young), false, 1, 1),
        // What comes late is older than what comes before it.
        (
            line("file_delete", young) + &line("share_accepted", old),
            false,
            2,
            1,
        ),
        (String::new(), false, 1, 0),
        (String::new(), true, 0, 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.log");
        std::fs::write(&log, format!("{before}{timeless}")).unwrap();
        if is_file_old {
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(978_307_200);
            let file = File::options().write(true).open(&log).unwrap();
            file.set_modified(then).unwrap();
        }
        let counts = replay(&config(dir.path()), "ocis", "2002-01-01");
        assert_eq!(
            (&counts["new"], &counts["leftOut"]),
            (&json!(new), &json!(left_out)),
            "{before}{is_file_old}: {counts}"
        );
    }
}

/// Its end is found by the third step.
#[test]
fn what_stands_behind_a_huge_line_is_entered() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = File::create(dir.path().join("audit.log")).unwrap();
    log.set_len(160 << 20).unwrap();
    log.seek(SeekFrom::End(0)).unwrap();
    let line = line("file_delete", "2026-01-02T03:04:05Z");
    write!(log, "\n{line}").unwrap();
    finds(&config(dir.path()), 1, 0);
}

#[test]
fn a_log_that_is_not_there_is_an_error_unless_a_part_of_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let output = Command::new(env!("CARGO_BIN_EXE_daybook"))
        .args(["replay", "--source", "ocis", "--since", "7d", "-c"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("audit.log"), "{said}");
    std::fs::write(
        dir.path().join("audit.log.1"),
        line("file_delete", "2026-01-02T03:04:05Z"),
    )
    .unwrap();
    finds(&config, 1, 0);
}
