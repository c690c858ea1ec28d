//! What only this store can do wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod damage;
mod gathering;
mod losing;
mod packing;
mod planning;
mod sharing;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::event::{Actor, AuditEvent, DeadLetter, DeadLetterReason, Outcome, Target};
use crate::store::page::MOST_BYTES;
use crate::store::{Fate, Record, TenantRecord, UserRecord};

const AMPLE: Duration = Duration::from_secs(30);

fn open(directory: &TempDir, timeout: Duration) -> SqliteStore {
    let path = directory.path().join("daybook.db");
    SqliteStore::open(&path, timeout, &Collections::default()).unwrap()
}

/// One with little time for each operation, and one with ample time that has prepared the file.
async fn hasty_and_patient(directory: &TempDir, timeout: Duration) -> [SqliteStore; 2] {
    let patient = open(directory, AMPLE);
    patient.prepare().await.unwrap();
    [open(directory, timeout), patient]
}

/// Repeats what a busy machine may not do in its short time.
async fn at_last<T>(mut operation: impl AsyncFnMut() -> Result<T>) -> T {
    let repeated = async {
        loop {
            if let Ok(done) = operation().await {
                return done;
            }
        }
    };
    tokio::time::timeout(AMPLE, repeated).await.unwrap()
}

/// Why something fails that the store, and not its short time, is to put an end to: repeated where
/// a busy machine was too late for that.
async fn reason_of<T>(mut operation: impl AsyncFnMut() -> Result<T>) -> &'static str {
    let repeated = async {
        loop {
            let reason = operation().await.err().unwrap().reason();
            if reason != "timeout" {
                return reason;
            }
        }
    };
    tokio::time::timeout(AMPLE, repeated).await.unwrap()
}

fn event(number: usize) -> AuditEvent {
    AuditEvent {
        at: jiff::Timestamp::UNIX_EPOCH,
        source: SourceName::new("s"),
        external_id: number.to_string(),
        action: "test.done".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: json!({ "filler": "x".repeat(1000) })
            .as_object()
            .unwrap()
            .clone()
            .into(),
    }
}

async fn enter(store: &SqliteStore, events: &[AuditEvent]) -> Result<Vec<Fate>> {
    let record = |event| Record::Event {
        event,
        tenant_slug: None,
    };
    let commit = Commit {
        records: events.iter().map(record).collect(),
        ..Commit::default()
    };
    Ok(store.commit(&commit).await?.records)
}

#[tokio::test]
async fn a_source_claims_its_cursor_before_the_file_is_prepared() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    let name = SourceName::new("early");
    assert_eq!(store.claim_cursor(&name).await.unwrap().generation, 1);
    store.prepare().await.unwrap();
    assert_eq!(store.claim_cursor(&name).await.unwrap().generation, 2);
}

#[tokio::test]
async fn a_commit_that_is_dropped_half_sent_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let events: Vec<AuditEvent> = (0..2 * commit::PIECE_RECORDS).map(event).collect();
    {
        let mut entering = std::pin::pin!(enter(&store, &events));
        assert!(futures_util::poll!(&mut entering).is_pending());
    }
    // Takes its turn after the dropped one.
    store.ping().await.unwrap();
    assert_eq!(count(&store).await, 0);
    let fates = enter(&store, &events).await.unwrap();
    assert!(fates.iter().all(|fate| *fate == Fate::Written));
}

#[tokio::test]
async fn events_are_found_by_their_terms_whichever_statement_wrote_them() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    // Whole statements, and a rest of single ones.
    let events: Vec<AuditEvent> = (0..2 * gathered::TOGETHER + 3)
        .map(|number| {
            let mut event = event(number);
            event.target.id = Some(format!("target-{number}").into());
            event
        })
        .collect();
    enter(&store, &events).await.unwrap();
    for event in &events {
        let filter = EventFilter {
            target: event.target.id.as_deref().map(str::to_owned),
            ..EventFilter::default()
        };
        let found = store.find_events(&filter, None, 10).await.unwrap();
        let found: Vec<&str> = found.iter().map(|found| &*found.external_id).collect();
        assert_eq!(found, [&*event.external_id]);
    }
}

/// Of a thousand large ones those would be gigabytes.
#[tokio::test]
async fn retention_and_who_makes_keys_leave_payloads_alone() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[event(1)]).await.unwrap();
    let read = store.write("some looks", |connection, tables| {
        let old = query::oldest(connection, tables, 1, 10)?;
        let lost = lost::first_of(connection, tables, (0, 1), 10)?;
        connection.execute("UPDATE auditevents SET facet = NULL", [])?;
        Ok([old, lost, query::keyless(connection, tables, 10)?])
    });
    for events in read.await.unwrap() {
        let fields: Vec<usize> = events.iter().map(|event| event.metadata.len()).collect();
        assert_eq!(fields, [0]);
    }
}

/// A name may be as long as a payload.
#[tokio::test]
async fn retention_and_who_makes_keys_take_few_events_of_long_names_at_once() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let of_long_name = |number| AuditEvent {
        actor: Actor {
            name: Some("x".repeat(MOST_BYTES * 2 / 3).into()),
            ..Actor::default()
        },
        ..event(number)
    };
    let events: Vec<AuditEvent> = (0..5).map(of_long_name).collect();
    enter(&store, &events).await.unwrap();
    let read = store.write("some looks", |connection, tables| {
        let old = query::oldest(connection, tables, 1, 10)?;
        let lost = lost::first_of(connection, tables, (0, 5), 10)?;
        connection.execute("UPDATE auditevents SET facet = NULL", [])?;
        Ok([old, lost, query::keyless(connection, tables, 10)?])
    });
    let together = read.await.unwrap().map(|events| events.len());
    assert_eq!(together, [2; 3]);

    // Few at once, but all of them.
    store.prepare().await.unwrap();
    let keyless = store.write("a look", |connection, tables| {
        query::keyless(connection, tables, 10)
    });
    assert!(keyless.await.unwrap().is_empty());
    let now = jiff::Timestamp::now();
    let mut left = 5;
    while left > 0 {
        let gone = store.delete_events_before(now, 10).await.unwrap();
        assert!((1..=2).contains(&gone), "{gone} of {left}");
        left -= gone;
    }
    assert_eq!(store.delete_events_before(now, 10).await.unwrap(), 0);
}

/// Of a thousand large ones that is all the time there is.
#[tokio::test]
async fn old_dead_letters_go_while_there_is_time_and_one_at_least() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let letter = |number: usize| DeadLetter {
        source: SourceName::new("s"),
        position: number.to_string(),
        reason: DeadLetterReason::Malformed,
        detail: String::new(),
        raw: Bytes::new(),
        raw_length: 0,
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    let letters: Vec<DeadLetter> = (0..3).map(letter).collect();
    let commit = Commit {
        records: letters.iter().map(Record::DeadLetter).collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.unwrap();
    let now = jiff::Timestamp::now();
    for (portion, gone) in [(Duration::ZERO, 1), (AMPLE, 2), (AMPLE, 0)] {
        let delete = store.write("a deletion", move |connection, tables| {
            retention::delete_letters(connection, tables, now, 10, portion)
        });
        assert_eq!(delete.await.unwrap(), gone);
    }
}

#[tokio::test]
async fn payloads_of_many_values_are_followed_a_few_at_a_time() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let of_many_values = |number| AuditEvent {
        metadata: json!({ "values": vec![0; 200_000] })
            .as_object()
            .unwrap()
            .clone()
            .into(),
        ..event(number)
    };
    let events: Vec<AuditEvent> = (0..3).map(of_many_values).collect();
    enter(&store, &events).await.unwrap();
    let beginning = query::id_text(0);
    let mut follower = store.follow(Some(&beginning)).await.unwrap().unwrap();
    for _ in &events {
        let found = follower.next().await.unwrap();
        assert_eq!((found.entries.len(), found.more), (1, true));
    }
}

/// Such a place was given before the file was restored from a backup.
#[tokio::test]
async fn a_place_beyond_all_that_was_entered_is_foreign() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[event(1), event(2)]).await.unwrap();
    let is_ours = async |place: &str| store.follow(Some(place)).await.unwrap().is_some();
    let (newest, beyond) = ("0000000000000002", "0000000000000003");
    assert!(is_ours(newest).await && !is_ours(beyond).await);
    // Retention takes no place away.
    let now = jiff::Timestamp::now();
    assert_eq!(delete_before(&store, now).await, 2);
    assert!(is_ours(newest).await && !is_ours(beyond).await);
}

/// Deletes whatever is older, and counts it: one call goes on only while there is time.
async fn delete_before(store: &SqliteStore, at: jiff::Timestamp) -> u64 {
    let mut deleted = 0;
    loop {
        match store.delete_events_before(at, 1000).await.unwrap() {
            0 => return deleted,
            some => deleted += some,
        }
    }
}

async fn count(store: &SqliteStore) -> usize {
    let found = store
        .find_events(&EventFilter::default(), None, u32::MAX)
        .await;
    found.unwrap().len()
}

#[tokio::test]
async fn before_the_first_preparation_it_is_away_and_does_not_fail_for_good() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    let read = store.find_events(&EventFilter::default(), None, 1).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let write = enter(&store, &[event(1)]).await;
    assert!(
        matches!(write, Err(StoreError::Unavailable(_))),
        "{write:?}"
    );
    store.prepare().await.unwrap();
    assert_eq!(enter(&store, &[event(1)]).await.unwrap(), [Fate::Written]);
}

#[tokio::test]
async fn two_processes_share_a_file() {
    let directory = TempDir::new().unwrap();
    let (one, other) = (open(&directory, AMPLE), open(&directory, AMPLE));
    one.prepare().await.unwrap();
    other.prepare().await.unwrap();
    let events: Vec<_> = (0..20).map(event).collect();
    for event in &events {
        let event = std::slice::from_ref(event);
        let (left, right) = tokio::join!(enter(&one, event), enter(&other, event));
        let mut fates = [left.unwrap(), right.unwrap()].concat();
        fates.sort_by_key(|fate| *fate == Fate::Duplicate);
        assert_eq!(fates, [Fate::Written, Fate::Duplicate]);
    }
    assert_eq!((count(&one).await, count(&other).await), (20, 20));
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_reopening() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[event(1)]).await.unwrap();
    let id = store
        .find_events(&EventFilter::default(), None, 1)
        .await
        .unwrap()[0]
        .id
        .clone();
    assert_eq!(id, "0000000000000001");
    drop(store);
    let store = open(&directory, AMPLE);
    assert!(store.event(&id, None).await.unwrap().is_some());
    let modes = store.write("a look", |connection, _| {
        let journal: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let synchronous: i64 =
            connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        Ok((journal, synchronous))
    });
    const FULL: i64 = 2;
    assert_eq!(modes.await.unwrap(), ("wal".to_owned(), FULL));
}

const MIB: u64 = 1 << 20;

/// The log's bounds count pages: with pages of an eighth, an eighth of the data meets them.
async fn open_with_small_pages(directory: &TempDir) -> SqliteStore {
    Connection::open(directory.path().join("daybook.db"))
        .unwrap()
        .execute_batch("PRAGMA page_size = 512; CREATE TABLE one (n); DROP TABLE one")
        .unwrap();
    let store = open(directory, AMPLE);
    store.prepare().await.unwrap();
    store
}

fn large(number: usize) -> AuditEvent {
    AuditEvent {
        metadata: json!({ "filler": "x".repeat(1 << 17) })
            .as_object()
            .unwrap()
            .clone()
            .into(),
        ..event(number)
    }
}

#[tokio::test]
async fn the_log_is_copied_beside_the_writer_and_stays_bounded() {
    let directory = TempDir::new().unwrap();
    let store = open_with_small_pages(&directory).await;
    let length = |name| std::fs::metadata(directory.path().join(name)).map_or(0, |file| file.len());
    let events: Vec<AuditEvent> = (0..20).map(large).collect();
    enter(&store, &events).await.unwrap();
    // No commit of the writer's copies so short a log.
    assert!(length("daybook.db-wal") < 8 * MIB);
    let copied = async {
        let mut number = 1000;
        while length("daybook.db") < 20 * MIB / 8 {
            enter(&store, &[event(number)]).await.unwrap();
            number += 1;
        }
    };
    tokio::time::timeout(AMPLE, copied).await.unwrap();
    for first in (20..320).step_by(20) {
        let events: Vec<AuditEvent> = (first..first + 20).map(large).collect();
        enter(&store, &events).await.unwrap();
    }
    // It was begun anew, however late: it would have 40 MiB otherwise.
    assert!(length("daybook.db-wal") < 30 * MIB);
}

#[tokio::test]
async fn a_lock_of_another_is_unavailable_until_it_goes() {
    let directory = TempDir::new().unwrap();
    // SQLite gives up a tenth of it before the operation's time is over.
    let [store, patient] = hasty_and_patient(&directory, Duration::from_secs(3)).await;
    let other = Connection::open(directory.path().join("daybook.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let events = [event(1)];
    let refused = reason_of(async || enter(&store, &events).await).await;
    assert_eq!(refused, "unavailable");
    assert_eq!(reason_of(async || store.ping().await).await, "unavailable");
    assert_eq!(count(&patient).await, 0, "reads go on");
    other.execute_batch("ROLLBACK").unwrap();
    let fates = at_last(async || enter(&store, &events).await).await;
    assert!(matches!(fates[..], [Fate::Written | Fate::Duplicate]));
}

/// As in a large file that has none of them.
#[tokio::test]
async fn an_index_may_take_longer_than_an_operation() {
    let directory = TempDir::new().unwrap();
    let [store, _patient] = hasty_and_patient(&directory, Duration::from_millis(20)).await;
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    file.execute_batch(
        "DROP INDEX auditevents_at_facet; DROP INDEX auditevents_facet_at;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
         INSERT INTO auditevents (at, ingestedAt, source, externalId, action, metadata)
         SELECT i, 0, 's', i, 'test.done', '{}' FROM n",
    )
    .unwrap();
    // What comes after them may be late.
    let _late = store.prepare().await;
    let indexes = "SELECT count(*) FROM sqlite_master
         WHERE name IN ('auditevents_at_facet', 'auditevents_facet_at')";
    let stand: i64 = file.query_row(indexes, [], |row| row.get(0)).unwrap();
    assert_eq!(stand, 2);
}

#[tokio::test]
async fn a_full_disk_is_full_and_keeps_commits_whole() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[event(0)]).await.unwrap();
    let set_limit = async |pages: i64| {
        let limit = store.write("a limit", move |connection, _| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        });
        limit.await.unwrap();
    };
    // SQLite takes the file's present size for a smaller limit.
    set_limit(1).await;
    let events: Vec<_> = (0..200).map(event).collect();
    let error = enter(&store, &events).await.unwrap_err();
    assert_eq!(error.reason(), "full", "{error}");
    assert_eq!(count(&store).await, 1);
    set_limit(1_000_000).await;
    let fates = enter(&store, &events).await.unwrap();
    assert_eq!(
        (fates[0].clone(), count(&store).await),
        (Fate::Duplicate, 200)
    );
}

#[test]
fn a_log_that_sqlite_could_not_make_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("daybook.db");
    std::fs::write(&path, "").unwrap();
    let error = OpenFiles::at(&path).err().unwrap();
    assert_eq!(error.reason(), "full", "{error}");
    assert!(error.to_string().contains("daybook.db-wal: "), "{error}");
}

#[tokio::test]
async fn an_endless_query_ends_in_time_and_frees_its_thread() {
    let directory = TempDir::new().unwrap();
    let [store, _patient] = hasty_and_patient(&directory, Duration::from_millis(200)).await;
    for _ in 0..2 * READERS {
        let endless = store.read("an endless query", |connection, _| {
            connection.query_row(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
                [],
                |row| row.get::<_, i64>(0),
            )
        });
        let error = endless.await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Timeout {
                    what: "an endless query",
                    ..
                }
            ),
            "{error}"
        );
    }
    let found = at_last(async || store.find_events(&EventFilter::default(), None, 1).await);
    assert!(found.await.is_empty());
}

#[tokio::test]
async fn a_commit_of_many_pieces_is_told_in_time_that_the_writer_is_busy() {
    let directory = TempDir::new().unwrap();
    let [store, patient] = hasty_and_patient(&directory, Duration::from_secs(1)).await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holding = store.write("a long one", move |_, _| {
        let _released = held.recv();
        Ok(())
    });
    assert_eq!(holding.await.unwrap_err().reason(), "timeout");
    let pieces = 3 * commit::PIECES_AHEAD;
    let events: Vec<_> = (0..pieces * commit::PIECE_RECORDS).map(event).collect();
    let refused = tokio::time::timeout(AMPLE, enter(&store, &events)).await;
    assert_eq!(refused.unwrap().unwrap_err().reason(), "timeout");
    drop(release);
    at_last(async || enter(&store, &[event(1)]).await).await;
    assert_eq!(count(&patient).await, 1, "nothing stands of the refused");
}

#[tokio::test]
async fn a_panic_fails_its_own_operation_only() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let panicking = store.write("a panic", |connection, _| -> rusqlite::Result<()> {
        let _transaction = write_transaction(connection)?;
        panic!("on purpose");
    });
    assert_eq!(panicking.await.unwrap_err().reason(), "other");
    assert_eq!(enter(&store, &[event(1)]).await.unwrap(), [Fate::Written]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "not a database, ".repeat(1000)).unwrap();
    let error = SqliteStore::open(&path, AMPLE, &Collections::default()).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(error.reason(), "unavailable");

    let error = SqliteStore::open(&path.join("below"), AMPLE, &Collections::default());
    assert!(error.unwrap_err().to_string().contains("notes.txt"));
}

#[tokio::test]
async fn a_file_is_made_for_its_user_alone_and_one_that_is_there_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let deep = directory.path().join("deep");
    let path = deep.join("daybook.db");
    let open = || SqliteStore::open(&path, AMPLE, &Collections::default()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    let files = || {
        let entries = std::fs::read_dir(&deep).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let store = open();
    store.prepare().await.unwrap();
    assert_eq!(mode(&deep), 0o700);
    let made = files();
    assert_eq!(made.len(), 3, "with its log and that one's index: {made:?}");
    for file in &made {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }

    for shared in [&path, &deep] {
        std::fs::set_permissions(shared, Permissions::from_mode(0o750)).unwrap();
    }
    open().prepare().await.unwrap();
    assert_eq!((mode(&path), mode(&deep)), (0o750, 0o750));
}

#[tokio::test]
async fn tables_may_have_any_name() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("names.db");
    let mut names = Collections {
        events: "audit \"events\"; DROP".to_owned(),
        ..Collections::default()
    };
    let store = SqliteStore::open(&path, AMPLE, &names).unwrap();
    store.prepare().await.unwrap();
    store.prepare().await.unwrap();
    enter(&store, &[event(1)]).await.unwrap();
    assert_eq!(count(&store).await, 1);
    names.events = "nul\0".to_owned();
    assert!(SqliteStore::open(&path, AMPLE, &names).is_err());
}

#[tokio::test]
async fn the_platforms_tables_are_read_as_far_as_they_go() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    assert_eq!(
        store.directory().await.unwrap(),
        DirectoryRecords::default()
    );
    let platform = Connection::open(directory.path().join("daybook.db")).unwrap();
    platform
        .execute_batch(
            r#"
            CREATE TABLE tenants (id, slug, name, domains, groups, spaceIds);
            INSERT INTO tenants VALUES (1, 'acme', 'Acme', '["acme.example", 7, null]', '[]', NULL);
            INSERT INTO tenants VALUES ('t2', 'globex', NULL, 'globex.example', '{}', '["s-1"]');
            INSERT INTO tenants VALUES ('t3', NULL, 'no slug', '[]', '[]', '[]');
            INSERT INTO tenants VALUES (NULL, 'no id', NULL, NULL, NULL, NULL);
            CREATE TABLE users (email, authentikSubjectId, tenantIds);
            INSERT INTO users VALUES ('a@acme.example', 's1', '[1, "t2"]');
            INSERT INTO users VALUES ('b@acme.example', NULL, '1');
            INSERT INTO users VALUES (NULL, NULL, '[1]');
            INSERT INTO users VALUES ('c@acme.example', 's3', '[]');
            "#,
        )
        .unwrap();
    let found = store.directory().await.unwrap();
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let expected = [
        TenantRecord {
            id: "1".to_owned(),
            slug: "acme".to_owned(),
            name: Some("Acme".to_owned()),
            domains: texts(&["acme.example", "7"]),
            ..TenantRecord::default()
        },
        TenantRecord {
            id: "t2".to_owned(),
            slug: "globex".to_owned(),
            domains: texts(&["globex.example"]),
            space_ids: texts(&["s-1"]),
            ..TenantRecord::default()
        },
    ];
    assert_eq!(found.tenants, expected);
    let expected = [
        UserRecord {
            subject: Some("s1".to_owned()),
            email: Some("a@acme.example".to_owned()),
            tenant_ids: texts(&["1", "t2"]),
        },
        UserRecord {
            subject: None,
            email: Some("b@acme.example".to_owned()),
            tenant_ids: texts(&["1"]),
        },
    ];
    assert_eq!(found.users, expected);
}

/// The whole range's histogram, day by day, against the events themselves.
async fn assert_counted(store: &SqliteStore, events: usize) {
    let everything = EventFilter::default();
    for filter in [
        everything.clone(),
        EventFilter {
            source: Some("s".to_owned()),
            ..everything.clone()
        },
    ] {
        let found = store.find_events(&filter, None, u32::MAX).await.unwrap();
        assert_eq!(found.len(), events);
        for buckets in [1, 40, 1000] {
            let counted = store.histogram(&filter, buckets).await.unwrap();
            assert_eq!(counted.total, events as u64);
            for bar in &counted.bars {
                let end = bar.at.checked_add(counted.bucket).unwrap();
                let inside = found
                    .iter()
                    .filter(|event| bar.at <= event.at && event.at < end);
                assert_eq!(bar.total(), inside.count() as u64, "{bar:?}");
            }
        }
    }
}

#[tokio::test]
async fn counted_days_follow_the_events() {
    const HOUR: i64 = 3_600_000;
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let at = |hours: i64| jiff::Timestamp::from_millisecond(hours * HOUR).unwrap();
    // Around 1970, a few in an hour, over a month.
    let events: Vec<AuditEvent> = (0..300)
        .map(|number| AuditEvent {
            at: at((i64::try_from(number).unwrap() - 150) * 5 / 2),
            ..event(number)
        })
        .collect();
    for part in events.chunks(70) {
        enter(&store, part).await.unwrap();
    }
    enter(&store, &events[..100]).await.unwrap();
    assert_counted(&store, 300).await;
    let days = |sql: &str| -> i64 {
        let file = Connection::open(directory.path().join("daybook.db")).unwrap();
        file.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let sum = "SELECT coalesce(sum(events), 0) FROM \"auditevents.days\"";
    assert_eq!(days(sum), 300);

    let gone = delete_before(&store, at(-100)).await;
    let left = 300 - usize::try_from(gone).unwrap();
    assert!(gone > 0 && left > 0);
    assert_counted(&store, left).await;
    let old = "SELECT count(*) FROM \"auditevents.days\" WHERE id < -5 * 16";
    assert_eq!(days(old), 0);

    // A version without them was at work.
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    file.execute(
        "DELETE FROM \"auditevents.days\" WHERE (id >> 4) % 2 = 0",
        [],
    )
    .unwrap();
    drop((file, store));
    let store = open(&directory, AMPLE);
    let create = store.write("tables", |connection, tables| tables.create(connection));
    create.await.unwrap();
    store.compare().await.unwrap();
    // One more and one less: while no day is counted, then of a day that is, and of one that is not.
    for (key, late) in [(300, 200), (301, -90), (302, 300)] {
        assert_counted(&store, left).await;
        let late = AuditEvent {
            at: at(late),
            ..event(key)
        };
        enter(&store, &[late]).await.unwrap();
        let gone = store.delete_events_before(at(-85), 1).await.unwrap();
        assert_eq!(gone, 1);
        let some = |connection: &mut Connection, tables: &Tables| {
            counts::count_some(connection, tables, 20)
        };
        assert!(store.write("some days", some).await.unwrap());
    }
    assert_counted(&store, left).await;
    // Killed here, and begun again.
    drop(store);
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    assert_eq!(days(sum), i64::try_from(left).unwrap());
    assert_counted(&store, left).await;
    while store.delete_events_before(at(10_000), 50).await.unwrap() > 0 {}
    assert_eq!(days("SELECT count(*) FROM \"auditevents.days\""), 0);
}
