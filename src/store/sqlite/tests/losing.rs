//! What somebody takes away: a file that is open, or tables that find the events.

use std::process::Command;
use std::sync::mpsc::channel;

use super::*;
use crate::store::feed::Matcher;

#[tokio::test]
async fn nothing_is_acknowledged_into_a_file_that_is_gone() {
    for (name, is_replaced) in [
        ("daybook.db", false),
        ("daybook.db", true),
        ("daybook.db-wal", false),
        ("daybook.db-wal", true),
        ("daybook.db-shm", false),
        ("daybook.db-shm", true),
    ] {
        let directory = TempDir::new().unwrap();
        let mut store = open(&directory, AMPLE);
        store.prepare().await.unwrap();
        enter(&store, &[event(0)]).await.unwrap();
        let [path, moved] = [name, "moved"].map(|name| directory.path().join(name));
        std::fs::rename(&path, &moved).unwrap();
        if is_replaced {
            std::fs::write(&path, "").unwrap();
        }
        let error = enter(&store, &[event(1)]).await.unwrap_err();
        assert_eq!(error.reason(), "unavailable");
        // Over another file the log that is left would be played, and beside none deleted.
        let advice = if name == "daybook.db" {
            "before a restart see DaybookStoreDown"
        } else {
            "restart Daybook to go on"
        };
        assert!(error.to_string().contains(advice), "{error}");
        assert_gone(&store).await;
        std::fs::rename(&moved, &path).unwrap();
        if name == "daybook.db" && !is_replaced {
            // Nobody can have written to what was left.
            store.ping().await.unwrap();
        } else {
            assert_gone(&store).await;
            drop(store);
            store = open(&directory, AMPLE);
        }
        assert_eq!(enter(&store, &[event(1)]).await.unwrap(), [Fate::Written]);
        assert_eq!(count(&store).await, 2);
    }
}

/// Whatever is asked for, and with the reason.
async fn assert_gone(store: &SqliteStore) {
    let everything = EventFilter::default();
    let errors = [
        store.ping().await.err(),
        store.cursors().await.err(),
        store.find_events(&everything, None, 1).await.err(),
        store.histogram(&everything, 1).await.err(),
    ];
    for error in errors.map(Option::unwrap) {
        assert_eq!(error.reason(), "unavailable");
        assert!(error.to_string().contains("restart"), "{error}");
    }
}

/// In this process SQLite would share with another connection what it has open itself.
fn in_another_process(file: &Path, sql: &str) -> String {
    let done = Command::new("sqlite3").arg(file).arg(sql).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Drops a store, and waits for its threads.
async fn close(store: SqliteStore, directory: &TempDir) {
    let directory = directory.path().canonicalize().unwrap();
    let is_open = || {
        let mut open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.starts_with(&directory)))
    };
    assert!(is_open());
    drop(store);
    let closed = async {
        while is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(AMPLE, closed).await.unwrap();
}

#[tokio::test]
async fn what_another_process_writes_where_a_file_is_gone_stands_beside_what_was_answered() {
    const WRITE: &str =
        "PRAGMA journal_mode = WAL; CREATE TABLE other (n); INSERT INTO other VALUES (1)";
    for (name, has_events) in [
        ("daybook.db", "moved"),
        ("daybook.db-wal", "daybook.db"),
        ("daybook.db-shm", "daybook.db"),
    ] {
        let directory = TempDir::new().unwrap();
        let store = open(&directory, AMPLE);
        store.prepare().await.unwrap();
        let events: Vec<AuditEvent> = (0..50).map(event).collect();
        enter(&store, &events).await.unwrap();
        let path = |name| directory.path().join(name);
        std::fs::rename(path(name), path("moved")).unwrap();
        assert_gone(&store).await;
        let file = path("daybook.db");
        in_another_process(&file, WRITE);
        for _ in 0..2 {
            assert_gone(&store).await;
        }
        close(store, &directory).await;

        for (file, table, rows) in [
            (file, "other", 1),
            (path(has_events), "auditevents", events.len()),
        ] {
            let look = format!("PRAGMA integrity_check; SELECT count(*) FROM {table}");
            let found = in_another_process(&file, &look);
            assert_eq!(found, format!("ok\n{rows}\n"), "{table} without {name}");
        }
    }
}

/// As where the directory may not be searched for a while.
#[tokio::test]
async fn files_that_cannot_be_seen_may_be_there_all_the_same() {
    let directory = TempDir::new().unwrap();
    let [inner, moved] = ["inner", "moved"].map(|name| directory.path().join(name));
    let path = inner.join("daybook.db");
    let store = SqliteStore::open(&path, AMPLE, &Collections::default()).unwrap();
    store.prepare().await.unwrap();
    std::fs::rename(&inner, &moved).unwrap();
    std::fs::write(&inner, "").unwrap();
    assert_eq!(store.ping().await.unwrap_err().reason(), "unavailable");
    std::fs::remove_file(&inner).unwrap();
    assert_gone(&store).await;
    std::fs::rename(&moved, &inner).unwrap();
    store.ping().await.unwrap();
}

#[tokio::test]
async fn who_follows_a_file_that_is_gone_is_told() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let mut follower = store.follow(None).await.unwrap().unwrap();
    let [path, moved] = ["daybook.db", "moved"].map(|name| directory.path().join(name));
    std::fs::rename(&path, &moved).unwrap();
    assert_eq!(follower.next().await.unwrap_err().reason(), "unavailable");
    std::fs::rename(&moved, &path).unwrap();
    enter(&store, &[event(0)]).await.unwrap();
    assert_eq!(follower.next().await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn what_a_deleted_log_had_is_in_the_file() {
    let [directory, other] = [(), ()].map(|()| TempDir::new().unwrap());
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[event(0)]).await.unwrap();
    std::fs::remove_file(directory.path().join("daybook.db-wal")).unwrap();
    assert_eq!(store.ping().await.unwrap_err().reason(), "unavailable");
    // As a restart finds it.
    let [file, copy] = [&directory, &other].map(|directory| directory.path().join("daybook.db"));
    std::fs::copy(file, copy).unwrap();
    assert_eq!(count(&open(&other, AMPLE)).await, 1);
}

/// Another copy is under way, as of the thread beside the one that writes.
#[tokio::test]
async fn what_a_deleted_log_had_is_copied_once_nothing_hinders_it() {
    for is_at_the_end in [false, true] {
        let [directory, other] = [(), ()].map(|()| TempDir::new().unwrap());
        let store = open(&directory, AMPLE);
        store.prepare().await.unwrap();
        let file = directory.path().join("daybook.db");
        let [reader, mut copier] = [(); 2].map(|()| open_connection(&file, AMPLE).unwrap());
        let read = "BEGIN; SELECT count(*) FROM auditevents";
        reader.execute_batch(read).unwrap();
        enter(&store, &[event(0)]).await.unwrap();
        // While it waits, for the reader or for what the writer puts away, it has the lock that every copy takes.
        let (tell, told) = channel();
        let (release, held) = channel::<()>();
        let wait = move |_: i32| {
            tell.send(()).unwrap();
            let _released = held.recv();
            false
        };
        copier.busy_handler(Some(wait)).unwrap();
        let copying = std::thread::spawn(move || {
            let copy = "PRAGMA wal_checkpoint(FULL)";
            copier.query_row(copy, [], |row| row.get::<_, bool>(0))
        });
        told.recv_timeout(AMPLE).unwrap();
        std::fs::remove_file(directory.path().join("daybook.db-wal")).unwrap();
        // The writer may wait for that copy.
        assert_eq!(store.cursors().await.unwrap_err().reason(), "unavailable");
        drop(release);
        assert!(copying.join().unwrap().unwrap(), "nothing hindered it");
        drop(reader);
        if is_at_the_end {
            close(store, &directory).await;
        } else {
            assert_gone(&store).await;
        }
        let copy = other.path().join("daybook.db");
        std::fs::copy(file, copy).unwrap();
        assert_eq!(count(&open(&other, AMPLE)).await, 1);
    }
}

/// More events than get their keys at once.
const EVENTS: usize = 1_200;

async fn enter_named(store: &SqliteStore, numbers: std::ops::Range<usize>) {
    let named = |number: usize| AuditEvent {
        outcome: [None, Some(Outcome::Success)][number % 2],
        actor: Actor {
            name: Some(format!("Person {}", number % 7).into()),
            ..Actor::default()
        },
        target: Target {
            id: Some(format!("target-{number}").into()),
            ..Target::default()
        },
        metadata: serde_json::Map::new().into(),
        ..event(number)
    };
    let events: Vec<AuditEvent> = numbers.map(named).collect();
    let record = |event| Record::Event {
        event,
        tenant_slug: Some("acme"),
    };
    let commit = Commit {
        records: events.iter().map(record).collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.unwrap();
}

fn filters() -> [EventFilter; 7] {
    let (some, default) = (|text: &str| Some(text.to_owned()), EventFilter::default());
    let mut filters = [(); 7].map(|()| default.clone());
    filters[0].tenant = some("acme");
    filters[1].source = some("s");
    filters[2].action = some("test.done");
    filters[3].actor = some("PERSON 3");
    filters[4].target = some("target-7");
    filters[5].text = some("son 5");
    filters[6].outcome = Some(Outcome::Success);
    filters
}

/// Which filter finds or counts other events than those it means.
async fn failing(store: &SqliteStore) -> Option<EventFilter> {
    let everything = EventFilter::default();
    let everything = store.find_events(&everything, None, u32::MAX).await;
    let everything = everything.unwrap();
    for filter in filters() {
        let matcher = Matcher::new(filter.clone(), Caseless::Lowercase);
        let meant = everything.iter().filter(|event| matcher.matches(event));
        let meant: Vec<&StoredEvent> = meant.collect();
        assert!(!meant.is_empty(), "{filter:?}");
        let found = store.find_events(&filter, None, u32::MAX).await.unwrap();
        let counted = store.histogram(&filter, 10).await.unwrap();
        if !found.iter().eq(meant.iter().copied()) || counted.total != meant.len() as u64 {
            return Some(filter);
        }
    }
    None
}

fn lose(directory: &TempDir, sql: &str) {
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    file.execute_batch(sql).unwrap();
}

/// As where the events alone are carried into another file.
const LOSE_ALL: &str = r#"
    DROP TABLE "auditevents.facets"; DROP TABLE "auditevents.terms"; DROP TABLE "auditevents.gathered";
    DROP TABLE "auditevents.texts"; DROP TABLE "auditevents.packs"; DROP TABLE "auditevents.days";
"#;

#[tokio::test]
async fn what_finds_the_events_is_made_anew_where_it_was_lost() {
    let directory = TempDir::new().unwrap();
    let mut store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter_named(&store, 0..EVENTS).await;
    assert_eq!(failing(&store).await, None);
    for lost in [
        LOSE_ALL,
        r#"DROP TABLE "auditevents.facets""#,
        r#"DROP TABLE "auditevents.terms""#,
        r#"DROP TABLE "auditevents.texts""#,
        r#"DROP TABLE "auditevents.packs""#,
        r#"DROP TABLE "auditevents.days""#,
        r#"DELETE FROM "auditevents.facets" WHERE outcome IS NULL"#,
        // Somebody has changed events by hand, too.
        r#"UPDATE auditevents SET action = 'test.more' WHERE id % 5 = 0; DROP TABLE "auditevents.facets""#,
    ] {
        drop(store);
        lose(&directory, lost);
        store = open(&directory, AMPLE);
        store.prepare().await.unwrap();
        assert_eq!(failing(&store).await, None, "{lost}");
    }

    // Beneath a process that remembers what stood.
    lose(&directory, LOSE_ALL);
    let committed = enter(&store, &[event(EVENTS)]).await;
    assert_eq!(committed.unwrap_err().reason(), "unavailable");
    store.prepare().await.unwrap();
    enter_named(&store, EVENTS..EVENTS + 10).await;
    assert_eq!(failing(&store).await, None);
}

#[tokio::test]
async fn a_comparison_holds_up_no_commit_and_can_be_interrupted() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter_named(&store, 0..EVENTS).await;
    let path = directory.path().join("daybook.db");
    let mut file = open_connection(&path, AMPLE).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.compare().await.unwrap();
    file.execute_batch("ROLLBACK").unwrap();

    for (differs, _) in COMPARED {
        assert!(!differs(&file, &store.tables).unwrap());
    }
    // What many events take more steps for.
    file.progress_handler(1000, Some(|| true)).unwrap();
    for differs in [counts::differs, packs::differs] {
        let interrupted = differs(&file, &store.tables).unwrap_err();
        let code = interrupted.sqlite_error_code();
        assert_eq!(code, Some(rusqlite::ErrorCode::OperationInterrupted));
    }
}

#[tokio::test]
async fn making_anew_goes_on_where_it_was_killed() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter_named(&store, 0..EVENTS).await;
    drop(store);
    lose(&directory, LOSE_ALL);
    let store = open(&directory, AMPLE);
    let create = store.write("tables", |connection, tables| tables.create(connection));
    create.await.unwrap();
    store.compare().await.unwrap();
    assert_eq!(failing(&store).await, None, "none has its keys");
    let known = store.known.clone();
    let some = store.write("some keys", move |connection, tables| {
        index::give_keys(connection, tables, &known)
    });
    assert!(some.await.unwrap());
    enter_named(&store, EVENTS..EVENTS + 10).await;
    let lacks = store.read("a look for keys", lost::lacks_keys);
    assert!(lacks.await.unwrap());
    assert_eq!(failing(&store).await, None, "some lack their keys");
    drop(store);

    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    assert_eq!(failing(&store).await, None);
    let left = store.read("what is left", lost::rest);
    assert_eq!(left.await.unwrap(), None);
}

#[tokio::test]
async fn events_of_an_older_version_are_found_before_they_get_their_keys() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter_named(&store, 0..30).await;
    lose(
        &directory,
        "UPDATE auditevents SET facet = NULL WHERE id % 3 = 0",
    );
    assert_eq!(failing(&store).await, None, "some have none");
    drop(store);
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let lacks = store.read("a look for keys", lost::lacks_keys);
    assert!(!lacks.await.unwrap());
    assert_eq!(failing(&store).await, None);
}
