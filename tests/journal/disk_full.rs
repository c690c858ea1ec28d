//! A disk that is full: a process that may write files only up to a size.
//!
//! The test runs itself again under `ulimit -f`, which is what a full disk looks like to a
//! process: a write ends early, and the next one fails.

use std::process::Command;

use daybook::journal::AppendError;

use super::*;

const UNDER_LIMIT: &str = "DAYBOOK_TEST_JOURNAL_UNDER_LIMIT";
/// `ulimit -f` counts blocks of 1024 bytes in bash.
const LIMIT_KIB: u64 = 64;

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_nothing_half_written_counts() {
    if let Some(dir) = std::env::var_os(UNDER_LIMIT) {
        return under_the_limit(&PathBuf::from(dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!("trap '' XFSZ; ulimit -S -f {LIMIT_KIB}; exec \"$@\"");
    let output = Command::new("bash")
        .args(["-c", &script, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "disk_full::a_full_disk_is_a_clear_error_and_nothing_half_written_counts",
            "--nocapture",
        ])
        .env(UNDER_LIMIT, dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("the limit was met"), "{told}");
    // The first, and one in ten seconds.
    let lines = told.matches("journal takes no pushes").count();
    assert!((1..5).contains(&lines), "{lines} lines: {told}");

    let journal = open(dir.path());
    let numbers = kept_numbers(dir.path());
    let wanted: Vec<_> = numbers
        .iter()
        .map(|(number, length)| push(*number, *length))
        .collect();
    assert_eq!(records(&journal), wanted);
}

/// What the other process was answered, as it noted it.
fn kept_numbers(dir: &Path) -> Vec<(u64, usize)> {
    let notes = std::fs::read_to_string(dir.join("answered.txt")).unwrap();
    let pair = |line: &str| {
        let (number, length) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), length.parse().unwrap())
    };
    notes.lines().map(pair).collect()
}

/// What the limited process does.
async fn under_the_limit(dir: &Path) {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stdout);
    lines.init();
    let unlimited_segments = JournalOptions {
        segment_bytes: u64::MAX,
        ..options(dir)
    };
    let journal = Journal::open(unlimited_segments).unwrap();
    let mut answered = String::new();
    let mut refused = 0;
    for number in 0..30 {
        let length = 5000;
        match journal.append(push(number, length)).await {
            Ok(()) => answered.push_str(&format!("{number} {length}\n")),
            Err(AppendError::Disk { what, reason }) => {
                assert_eq!(what, "write a record");
                assert!(reason.contains("File too large"), "{reason}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 10, "{refused}");
    assert!(!answered.is_empty());
    let length = std::fs::metadata(&segments(dir)[0]).unwrap().len();
    assert_eq!(length, journal.figures().file_bytes, "cut back");

    // A small push still finds room, alone or in one group with large ones.
    let group = [(100, 20), (101, 60_000), (102, 20)];
    let appends = group.map(|(number, length)| journal.append(push(number, length)));
    let outcomes = futures_util::future::join_all(appends).await;
    assert!(
        outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok(),
        "{outcomes:?}"
    );
    answered.push_str("100 20\n102 20\n");

    // Somebody makes room.
    let raised = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--fsize=1048576:"])
        .status()
        .unwrap();
    assert!(raised.success());
    journal.append(push(200, 60_000)).await.unwrap();
    answered.push_str("200 60000\n");
    std::fs::write(dir.join("answered.txt"), answered).unwrap();
    println!("the limit was met");
}
