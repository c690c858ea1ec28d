//! Beside readers and other processes.

use std::sync::mpsc::{RecvTimeoutError, channel};

use futures_util::future::join_all;
use rusqlite::OpenFlags;

use super::*;

fn begin_reading(reader: &Connection) -> Transaction<'_> {
    let view = reader.unchecked_transaction().unwrap();
    let newest = "SELECT max(id) FROM auditevents";
    view.query_row(newest, [], |row| row.get::<_, Option<i64>>(0))
        .unwrap();
    view
}

#[tokio::test]
async fn reads_that_overlap_without_an_end_leave_the_log_bounded() {
    let directory = TempDir::new().unwrap();
    let store = open_with_small_pages(&directory).await;
    let path = directory.path().join("daybook.db");
    let readers = [(); 2].map(|()| open_connection(&path, AMPLE).unwrap());
    let (committed, commits) = channel::<()>();
    let reading = std::thread::spawn(move || {
        let mut view = begin_reading(&readers[0]);
        for next in readers.iter().rev().cycle() {
            // Each lasts until something was committed beside it, or as long as a query takes.
            let ended = commits.recv_timeout(Duration::from_millis(20));
            drop(std::mem::replace(&mut view, begin_reading(next)));
            if ended == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    });
    for first in (0..480).step_by(20) {
        let events: Vec<AuditEvent> = (first..first + 20).map(large).collect();
        enter(&store, &events).await.unwrap();
        committed.send(()).unwrap();
    }
    drop(committed);
    reading.join().unwrap();
    let log = std::fs::metadata(directory.path().join("daybook.db-wal"));
    // It would have 60 MiB otherwise.
    assert!(log.unwrap().len() < 40 * MIB);
}

/// As a command does beside a service.
#[tokio::test]
async fn what_is_prepared_is_prepared_again_without_the_lock() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[event(1)]).await.unwrap();
    let other = Connection::open(directory.path().join("daybook.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    open(&directory, AMPLE).prepare().await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn a_file_that_may_only_be_read_is_not_taken_for_prepared() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let (path, flags) = (store.files.path(), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let mut reader = Connection::open_with_flags(path, flags).unwrap();
    let refused = store.tables.create(&mut reader).unwrap_err();
    assert_eq!(store_error(&refused).reason(), "unauthorized");
}

#[tokio::test]
async fn another_process_has_its_turn_beside_one_that_writes_without_a_pause() {
    let directory = TempDir::new().unwrap();
    let [store, other] = [(); 2].map(|()| open(&directory, AMPLE));
    store.prepare().await.unwrap();
    let long = |_| {
        store.write("a long one", |connection, _| {
            let transaction = write_transaction(connection)?;
            std::thread::sleep(Duration::from_millis(110));
            transaction.rollback()
        })
    };
    tokio::select! {
        biased;
        _ = join_all((0..40).map(long)) => panic!("it came last"),
        pinged = other.ping() => pinged.unwrap(),
    }
}

#[test]
fn a_new_file_that_another_process_writes_to_is_waited_for() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("daybook.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (begun, timeout) = (Instant::now(), Duration::from_millis(200));
    let refused = open_connection(&path, timeout).unwrap_err();
    assert!(begun.elapsed() >= timeout * 9 / 10, "nobody waited");
    assert_eq!(store_error(&refused).reason(), "unavailable");
    other.execute_batch("ROLLBACK").unwrap();
    open_connection(&path, AMPLE).unwrap();
}
