//! The journal's reader on directories that a disk has damaged anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use daybook::event::SourceName;
use daybook::journal::{Journal, JournalOptions, PushKind, PushRecord, Stored};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use super::mutate::mutate;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// What comes out of a damaged journal was put in, in that order; what stands in other files than
/// the damaged one is there; and what is reported as damaged is kept aside.
pub(super) fn case(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a folder");
    let records: Vec<PushRecord> = (0..rng.random_range(1..40))
        .map(|_| record(&mut rng))
        .collect();
    let journal = open(dir.path());
    RUNTIME.block_on(async {
        for record in &records {
            journal.append(record.clone()).await.expect("an append");
        }
        if rng.random_bool(0.3) {
            let window = journal.read(rng.random_range(1..2000)).expect("a window");
            journal.drained(window.next).await;
        }
        journal.close().await;
    });
    drop(journal);
    let before = everything(dir.path());
    assert!(
        records.ends_with(&before),
        "a sound journal says what was appended"
    );

    let files = files(dir.path());
    let only_junk_behind = rng.random_bool(0.2);
    let mut untouched = before.clone();
    if only_junk_behind {
        // As after a crash in the middle of a group: behind the last segment.
        if let Some(last) = files.iter().rev().find(|path| is_segment(path)) {
            let mut bytes = fs::read(last).expect("a segment");
            bytes.resize(bytes.len() + rng.random_range(1..40), 0);
            fs::write(last, bytes).expect("a segment");
        }
    } else {
        let path = &files[rng.random_range(0..files.len())];
        let others: Vec<Vec<u8>> = files
            .iter()
            .map(|path| fs::read(path).expect("a file"))
            .collect();
        let bytes = fs::read(path).expect("a file");
        if is_segment(path) {
            fs::remove_file(path).expect("a segment");
            untouched = everything(dir.path());
        }
        fs::write(path, mutate(&mut rng, &bytes, &others)).expect("a file");
    }
    let Some(after) = try_everything(dir.path()) else {
        return;
    };
    if only_junk_behind {
        assert_eq!(after, before, "an unfinished end costs nothing");
    }
    assert_within(&untouched, &after, "lost, or out of order");
    // A damaged position lets drained records come out again, but nothing new and in no other order.
    assert_within(&after, &records, "invented, or out of order");
}

/// All of the one stand in the other, in this order.
fn assert_within(part: &[PushRecord], whole: &[PushRecord], otherwise: &str) {
    let mut rest = whole.iter();
    for record in part {
        assert!(rest.any(|each| each == record), "{otherwise}: {record:?}");
    }
}

fn record(rng: &mut StdRng) -> PushRecord {
    let mut body = vec![0; rng.random_range(0..700)];
    rng.fill(&mut body[..]);
    let millis = rng.random_range(0..1_900_000_000_000);
    PushRecord {
        source: SourceName::new(["mail", "platform"][rng.random_range(0..2)]),
        received_at: Timestamp::from_millisecond(millis).expect("a time"),
        kind: match rng.random_range(0..3) {
            0 => PushKind::Recorder {
                request_id: rng.random(),
                idempotency_key: rng.random_bool(0.5).then(|| "key".to_owned()),
            },
            _ => PushKind::Stalwart,
        },
        body: Bytes::from(body),
    }
}

fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        segment_bytes: 2000,
        // What a disk forgets is what the case is about.
        sync: Arc::new(|_| Ok(())),
        ..JournalOptions::new(dir.to_owned(), 64 << 20)
    }
}

fn open(dir: &Path) -> Journal {
    Journal::open(options(dir)).expect("a journal opens")
}

fn everything(dir: &Path) -> Vec<PushRecord> {
    try_everything(dir).expect("a sound journal is of this version")
}

/// `None`: a segment claims to be of another version, which is refused whole.
fn try_everything(dir: &Path) -> Option<Vec<PushRecord>> {
    let journal = open(dir);
    let window = journal.read(u64::MAX);
    RUNTIME.block_on(journal.close());
    let window = match window {
        Ok(window) => window,
        Err(error) => {
            assert!(error.to_string().contains("format"), "{error}");
            return None;
        }
    };
    let records = window.stored.into_iter().filter_map(|stored| match stored {
        Stored::Push(record) => Some(record),
        Stored::Damage(damage) => {
            let kept = damage.kept.as_ref().expect("its file is there");
            let kept = fs::metadata(kept).expect("damage is kept aside");
            assert_eq!(kept.len(), damage.length, "{damage:?}");
            None
        }
    });
    Some(records.collect())
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "journal")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name != "lock"))
        .collect();
    files.sort();
    files
}
