//! The journal: what it promises about a disk, a crash and a store that is away.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod appending;
mod disk_full;
mod hanging;
mod model;
mod pipeline;
mod recovery;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use daybook::event::SourceName;
use daybook::journal::{Damage, Journal, JournalOptions, Position, PushKind, PushRecord, Stored};
use jiff::Timestamp;

const MIB: u64 = 1 << 20;

fn options(dir: &Path) -> JournalOptions {
    JournalOptions::new(dir.to_owned(), 64 * MIB)
}

fn open(dir: &Path) -> Journal {
    Journal::open(options(dir)).unwrap()
}

/// A push that is told from others by its number and is about so long.
fn push(number: u64, length: usize) -> PushRecord {
    let mut body = format!("{{\"n\":{number},\"fill\":\"").into_bytes();
    body.resize(body.len() + length, b'a' + (number % 26) as u8);
    body.extend(b"\"}");
    PushRecord {
        source: SourceName::new("mail"),
        received_at: Timestamp::from_millisecond(1_790_000_000_000 + number as i64).unwrap(),
        kind: if number.is_multiple_of(3) {
            PushKind::Recorder {
                request_id: u128::from(number) << 64,
                idempotency_key: number.is_multiple_of(2).then(|| format!("key {number}")),
            }
        } else {
            PushKind::Stalwart
        },
        body: Bytes::from(body),
    }
}

/// Everything that is not drained, and the place behind it.
fn all(journal: &Journal) -> (Vec<PushRecord>, Vec<Damage>, Position) {
    let window = journal.read(u64::MAX).unwrap();
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    for stored in window.stored {
        match stored {
            Stored::Push(record) => records.push(record),
            Stored::Damage(damage) => damages.push(damage),
        }
    }
    (records, damages, window.next)
}

fn records(journal: &Journal) -> Vec<PushRecord> {
    let (records, damages, _) = all(journal);
    assert_eq!(damages, []);
    records
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "journal")
        })
        .collect();
    segments.sort();
    segments
}

fn copy_dir(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}
