//! Appending: group commit, order, the cap, failing syncs, two processes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use daybook::journal::{AppendError, Journal, JournalOptions, OpenError};
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;

/// Counts syncs, holds them up while the gate is shut, and lets them fail on demand.
#[derive(Default)]
struct Disk {
    syncs: AtomicU64,
    fails: AtomicBool,
    /// For directories alone.
    fails_above: AtomicBool,
    /// Inodes of the directories that were synced.
    directories: Mutex<Vec<u64>>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Disk {
    fn options(self: &Arc<Self>, dir: &Path) -> JournalOptions {
        let disk = Arc::clone(self);
        JournalOptions {
            sync: Arc::new(move |file: &File| {
                disk.syncs.fetch_add(1, Ordering::SeqCst);
                let shut = disk.shut.lock().unwrap();
                let _open = disk.opened.wait_while(shut, |shut| *shut).unwrap();
                let metadata = file.metadata()?;
                let mut fails = disk.fails.load(Ordering::SeqCst);
                if metadata.is_dir() {
                    disk.directories.lock().unwrap().push(metadata.ino());
                    fails |= disk.fails_above.load(Ordering::SeqCst);
                }
                if fails {
                    return Err(io::Error::other("no sync today"));
                }
                file.sync_data()
            }),
            ..options(dir)
        }
    }

    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

async fn reaches(syncs: &AtomicU64, count: u64) {
    while syncs.load(Ordering::SeqCst) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_into_a_directory_that_was_deleted_or_moved() {
    let deleted: fn(&Path) = |dir| fs::remove_dir_all(dir).unwrap();
    let moved: fn(&Path) = |dir| fs::rename(dir, dir.with_extension("old")).unwrap();
    for take_away in [deleted, moved] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("journal");
        let journal = open(&dir);
        journal.append(push(0, 300)).await.unwrap();
        take_away(&dir);
        for number in 1..4 {
            let error = journal.append(push(number, 300)).await.unwrap_err();
            assert!(matches!(error, AppendError::Disk { .. }), "{error}");
        }
        fs::create_dir(&dir).unwrap();
        journal.append(push(4, 300)).await.unwrap();
        drop(journal);
        assert_eq!(segments(&dir).len(), 1);
    }
}

/// Replaced, as where another directory is mounted over the journal's.
#[tokio::test]
async fn nothing_is_acknowledged_into_a_segment_that_was_moved_or_replaced() {
    for is_replaced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        journal.append(push(1, 100)).await.unwrap();
        let segment = segments(dir.path()).remove(0);
        let moved = dir.path().join("moved");
        fs::rename(&segment, &moved).unwrap();
        if is_replaced {
            fs::write(&segment, b"theirs").unwrap();
        }
        let before = fs::metadata(&moved).unwrap().len();
        let error = journal.append(push(2, 100)).await.unwrap_err();
        assert!(error.to_string().contains("find a segment"), "{error}");
        assert_eq!(fs::metadata(&moved).unwrap().len(), before);
        if is_replaced {
            assert_eq!(fs::read(&segment).unwrap(), b"theirs");
        }
        journal.append(push(3, 100)).await.unwrap();

        // What was answered is in the moved file still.
        fs::rename(&moved, &segment).unwrap();
        assert_eq!(records(&journal), [push(1, 100), push(3, 100)]);
    }
}

/// After a crash nobody finds a file whose directory does not know it.
#[tokio::test]
async fn nothing_is_answered_before_the_directory_knows_its_segment() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("journal");
    let disk = Arc::new(Disk::default());
    let journal = Journal::open(disk.options(&dir)).unwrap();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let synced = || std::mem::take(&mut *disk.directories.lock().unwrap());
    let made_in = [dir.parent().unwrap(), parent.path()];
    assert_eq!(synced(), made_in.map(inode));

    disk.fails_above.store(true, Ordering::SeqCst);
    let error = journal.append(push(1, 100)).await.unwrap_err();
    assert!(error.to_string().contains("begin a segment"), "{error}");
    assert_eq!(synced(), [inode(&dir)]);
    assert_eq!(segments(&dir), Vec::<PathBuf>::new());

    disk.fails_above.store(false, Ordering::SeqCst);
    journal.append(push(2, 100)).await.unwrap();
    assert_eq!(synced(), [inode(&dir)]);
    journal.append(push(3, 100)).await.unwrap();
    assert_eq!(synced(), [0; 0], "once for a segment");
    assert_eq!(records(&journal), [push(2, 100), push(3, 100)]);
}

#[tokio::test]
async fn a_thousand_appends_share_few_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let journal = Journal::open(disk.options(dir.path())).unwrap();
    disk.shut(true);
    let pushes = (0..1000).map(|number| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.append(push(number, 300)).await })
    });
    let pushes: Vec<_> = pushes.collect();
    // All are handed over while the first sync is held up.
    reaches(&disk.syncs, 1).await;
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    assert!(pushes.iter().all(|push| !push.is_finished()));
    assert_eq!(
        journal.figures().appended,
        0,
        "nothing is answered unsynced"
    );
    disk.shut(false);
    for outcome in join_all(pushes).await {
        outcome.unwrap().unwrap();
    }
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!((3..=7).contains(&syncs), "{syncs} syncs");
    assert_eq!(journal.figures().appended, 1000);
    assert_eq!(records(&journal).len(), 1000);
}

#[tokio::test]
async fn records_come_out_in_the_order_of_arrival_over_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let small = JournalOptions {
        segment_bytes: 2000,
        ..options(dir.path())
    };
    let mut wanted = Vec::new();
    for run in 0..5 {
        let journal = Journal::open(small.clone()).unwrap();
        for number in 0..20 {
            let record = push(run * 20 + number, 100);
            wanted.push(record.clone());
            journal.append(record).await.unwrap();
        }
        assert_eq!(records(&journal), wanted);
        journal.close().await;
    }
    assert!(segments(dir.path()).len() > 5);
    let journal = open(dir.path());
    assert_eq!(records(&journal), wanted);
    let oldest = journal.figures().oldest;
    assert_eq!(oldest, Some(wanted[0].received_at));
}

#[tokio::test]
async fn draining_in_windows_deletes_what_is_drained_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let small = JournalOptions {
        segment_bytes: 3000,
        ..options(dir.path())
    };
    let mut journal = Journal::open(small.clone()).unwrap();
    let wanted: Vec<_> = (0..100).map(|number| push(number, 200)).collect();
    for record in &wanted {
        journal.append(record.clone()).await.unwrap();
    }
    let all_segments = segments(dir.path()).len();
    let mut drained = Vec::new();
    while !journal.is_empty() {
        let before = journal.figures();
        let window = journal.read(1000).unwrap();
        assert!(
            (1..=6).contains(&window.stored.len()),
            "windows are bounded"
        );
        for stored in window.stored {
            let Stored::Push(record) = stored else {
                panic!("{stored:?}");
            };
            drained.push(record);
        }
        journal.drained(window.next).await;
        assert!(journal.figures().bytes < before.bytes);
        if drained.len() % 7 == 0 {
            journal.close().await;
            journal = Journal::open(small.clone()).unwrap();
        }
    }
    assert_eq!(drained, wanted);
    assert!(all_segments > 5);
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
    let figures = journal.figures();
    assert_eq!(
        (figures.bytes, figures.oldest, figures.file_bytes),
        (0, None, 0)
    );
    // Numbers are never used again.
    journal.append(push(0, 1)).await.unwrap();
    let name = segments(dir.path())[0].file_stem().unwrap().to_owned();
    assert!(name.to_str().unwrap().parse::<usize>().unwrap() > all_segments);
}

#[tokio::test]
async fn a_full_journal_says_so_at_once_and_takes_again_what_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let capped = JournalOptions {
        segment_bytes: 2000,
        ..JournalOptions::new(dir.path().to_owned(), 10_000)
    };
    let journal = Journal::open(capped).unwrap();
    // With all that stands around the body.
    assert!(journal.has_room(600));
    let mut taken = 0;
    let error = loop {
        match journal.append(push(taken, 500)).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(!journal.has_room(600));
    assert_eq!(error, AppendError::Full { max_bytes: 10_000 });
    assert!((14..20).contains(&taken), "{taken}");
    assert!(journal.figures().file_bytes <= 10_000);
    let too_large = journal.append(push(0, 20_000)).await;
    assert_eq!(too_large, Err(AppendError::Full { max_bytes: 10_000 }));
    let window = journal.read(3000).unwrap();
    journal.drained(window.next).await;
    journal.append(push(taken, 500)).await.unwrap();
}

#[tokio::test]
async fn one_that_is_switched_off_is_only_drained() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.append(push(1, 10)).await.unwrap();
    journal.close().await;
    let journal = Journal::open(JournalOptions::new(dir.path().to_owned(), 0)).unwrap();
    assert!(!journal.has_room(0));
    assert_eq!(journal.append(push(2, 10)).await, Err(AppendError::Off));
    let (records, _, next) = all(&journal);
    assert_eq!(records, [push(1, 10)]);
    journal.drained(next).await;
    assert!(journal.is_empty());
}

#[tokio::test]
async fn a_failed_sync_takes_the_whole_group_back_and_the_segment_out_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let journal = Journal::open(disk.options(dir.path())).unwrap();
    journal.append(push(1, 100)).await.unwrap();
    let before = fs::metadata(&segments(dir.path())[0]).unwrap().len();

    disk.fails.store(true, Ordering::SeqCst);
    let outcomes = join_all((2..5).map(|number| journal.append(push(number, 100)))).await;
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error, AppendError::Disk { .. }), "{error:?}");
        assert!(error.to_string().contains("no sync today"), "{error}");
    }
    assert_eq!(
        fs::metadata(&segments(dir.path())[0]).unwrap().len(),
        before
    );
    assert_eq!(records(&journal), [push(1, 100)]);

    disk.fails.store(false, Ordering::SeqCst);
    journal.append(push(9, 100)).await.unwrap();
    assert_eq!(
        segments(dir.path()).len(),
        2,
        "a segment that failed is left"
    );
    assert_eq!(records(&journal), [push(1, 100), push(9, 100)]);
    journal.close().await;
    assert_eq!(records(&open(dir.path())), [push(1, 100), push(9, 100)]);
}

#[tokio::test]
async fn who_gives_up_before_his_turn_takes_his_push_along() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let small = JournalOptions {
        max_bytes: 10_000,
        ..disk.options(dir.path())
    };
    let journal = Journal::open(small).unwrap();
    disk.shut(true);
    let (for_begun, for_waiting) = (Arc::new(()), Arc::new(()));
    let mut begun = Box::pin(journal.append_paid(push(1, 100), Arc::clone(&for_begun)));
    assert_eq!(begun.as_mut().now_or_never(), None);
    reaches(&disk.syncs, 1).await;
    let mut waiting = Box::pin(journal.append_paid(push(2, 8000), Arc::clone(&for_waiting)));
    assert_eq!(waiting.as_mut().now_or_never(), None);
    drop((begun, waiting));
    let held = |permit: &Arc<()>| Arc::strong_count(permit) > 1;
    assert!(held(&for_begun), "it is being written");
    assert!(!held(&for_waiting), "nothing is left of it");

    disk.shut(false);
    journal.append(push(3, 100)).await.unwrap();
    assert!(!held(&for_begun));
    let room_is_free_again = journal.append(push(4, 8000)).await;
    room_is_free_again.unwrap();
    let wanted = [push(1, 100), push(3, 100), push(4, 8000)];
    assert_eq!(records(&journal), wanted);
    assert_eq!(journal.figures().appended, 3);
}

#[tokio::test]
async fn who_gives_up_while_his_group_fails_is_left_out_when_each_is_tried_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (say, said) = mpsc::channel::<io::Result<()>>();
    let said = Mutex::new(said);
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    // Every sync ends as the test says.
    let journal = Journal::open(JournalOptions {
        sync: Arc::new(move |_: &File| {
            counted.fetch_add(1, Ordering::SeqCst);
            said.lock().unwrap().recv().unwrap()
        }),
        ..options(dir.path())
    })
    .unwrap();
    let no_room = || Err(io::Error::other("no room for a segment"));
    let mut first = Box::pin(journal.append(push(1, 100)));
    assert_eq!(first.as_mut().now_or_never(), None);
    reaches(&syncs, 1).await;
    let mut given_up = Box::pin(journal.append(push(2, 100)));
    let mut last = Box::pin(journal.append(push(3, 100)));
    assert_eq!(given_up.as_mut().now_or_never(), None);
    assert_eq!(last.as_mut().now_or_never(), None);
    say.send(no_room()).unwrap();
    first.await.unwrap_err();
    reaches(&syncs, 2).await;
    drop(given_up);
    // The group's segment, then the segment, its directory and the record of the one that is left.
    for outcome in [no_room(), Ok(()), Ok(()), Ok(())] {
        say.send(outcome).unwrap();
    }
    drop(say);
    last.await.unwrap();
    assert_eq!(records(&journal), [push(3, 100)]);
    assert_eq!(syncs.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_segment_that_somebody_else_put_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let theirs = dir.path().join("0000000000000001.journal");
    fs::write(&theirs, b"theirs").unwrap();
    journal.append(push(1, 100)).await.unwrap();
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    assert_eq!(segments(dir.path()).len(), 2);
    assert_eq!(records(&journal), [push(1, 100)]);
}

#[tokio::test]
async fn a_large_push_goes_through_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let large = push(5, 20 << 20);
    let (small, whole, after) = tokio::join!(
        journal.append(push(1, 10)),
        journal.append(large.clone()),
        journal.append(push(2, 10)),
    );
    for outcome in [small, whole, after] {
        outcome.unwrap();
    }
    assert_eq!(records(&journal), [push(1, 10), large, push(2, 10)]);
}

#[tokio::test]
async fn the_directory_belongs_to_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let Err(error) = Journal::open(options(dir.path())) else {
        panic!("two journals on one directory");
    };
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().ends_with("is in use by another process"));
    let clone = journal.clone();
    journal.close().await;
    assert_eq!(clone.append(push(1, 1)).await, Err(AppendError::Closed));
    open(dir.path()).append(push(1, 1)).await.unwrap();
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("journal");
    let journal = open(&dir);
    journal.append(push(1, 1)).await.unwrap();
    let window = journal.read(1).unwrap();
    journal.append(push(2, 1)).await.unwrap();
    journal.drained(window.next).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("file");
    fs::write(&dir, b"").unwrap();
    let Err(error) = Journal::open(options(&dir)) else {
        panic!("a journal in a file");
    };
    assert!(
        error.to_string().contains(&dir.display().to_string()),
        "{error}"
    );
}
