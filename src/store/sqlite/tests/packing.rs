//! The packed texts hold what the dictionary holds.

use super::*;

/// An event of a tenant with texts of its own.
fn named(number: usize, at: jiff::Timestamp) -> AuditEvent {
    AuditEvent {
        at,
        actor: Actor {
            name: Some(format!("Person {number} of many").into()),
            email: Some("Same@example.org".into()),
            ..Actor::default()
        },
        target: Target {
            name: Some(if number.is_multiple_of(50) {
                format!("long {}", number.to_string().repeat(800)).into()
            } else {
                format!("Büro-{number}\u{10ffff}\0.odt").into()
            }),
            ..Target::default()
        },
        ..event(number)
    }
}

async fn enter_named(store: &SqliteStore, numbers: std::ops::Range<usize>, at: jiff::Timestamp) {
    for number in numbers {
        let event = named(number, at);
        let record = Record::Event {
            event: &event,
            tenant_slug: [None, Some("acme"), Some("globex")][number % 3],
        };
        let commit = Commit {
            records: vec![record],
            ..Commit::default()
        };
        let committed = store.commit(&commit).await.unwrap();
        assert_eq!(committed.records, [Fate::Written]);
    }
}

/// The packs hold the dictionary's texts, each once and under its term.
fn assert_packed(directory: &TempDir, when: &str) -> usize {
    type Texts = Vec<(String, Vec<u8>, Vec<u8>)>;
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    let read = |sql: &str, row: &mut dyn FnMut(&rusqlite::Row<'_>)| {
        let mut select = file.prepare(sql).unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(next) = rows.next().unwrap() {
            row(next);
        }
    };
    let (mut texts, mut packed) = (Texts::new(), Texts::new());
    let long = index::LONG.as_bytes();
    read(
        "SELECT scope, id, text FROM \"auditevents.texts\"",
        &mut |row| {
            let (id, text): (Vec<u8>, String) = (row.get(1).unwrap(), row.get(2).unwrap());
            texts.push((row.get(0).unwrap(), id[..8].to_vec(), text.into_bytes()));
        },
    );
    read(
        "SELECT scope, long, texts, keys, parts FROM \"auditevents.packs\" WHERE id > 0",
        &mut |row| {
            let scope: String = row.get(0).unwrap();
            let parts: Option<String> = row.get(4).unwrap();
            assert_eq!(parts.is_some(), scope == "*");
            let parts: Vec<(String, usize, usize)> = match &parts {
                Some(parts) => serde_json::from_str(parts).unwrap(),
                None => vec![(scope, usize::MAX, usize::MAX)],
            };
            let owners = |count: fn(&(String, usize, usize)) -> usize| {
                let owners = parts.iter();
                owners.flat_map(move |part| std::iter::repeat_n(part.0.clone(), count(part)))
            };
            let (mut of_long, mut of_texts) = (owners(|part| part.1), owners(|part| part.2));
            let blob = |column: usize| row.get::<_, Vec<u8>>(column).unwrap();
            for term in blob(1).chunks(8) {
                packed.push((of_long.next().unwrap(), term.to_vec(), long.to_vec()));
            }
            let (all, mut start) = (blob(2), 0);
            for key in blob(3).chunks(12) {
                let end = u32::from_le_bytes(key[8..].try_into().unwrap()) as usize;
                assert_eq!(all[end - 1], 0xFF);
                let text = all[start..end - 1].to_vec();
                packed.push((of_texts.next().unwrap(), key[..8].to_vec(), text));
                start = end;
            }
            assert_eq!(start, all.len());
        },
    );
    texts.sort();
    packed.sort();
    assert_eq!(packed, texts, "{when}");
    texts.len()
}

async fn assert_texts_found(store: &SqliteStore, numbers: std::ops::Range<usize>, when: &str) {
    let all = numbers.len() as u64;
    let mut asked = vec![("same@".to_owned(), all), ("r".to_owned(), all)];
    for number in numbers.step_by(30) {
        let one = format!("ÜRO-{number}\u{10ffff}\0.O");
        asked.push((one, u64::from(!number.is_multiple_of(50))));
        asked.push((format!("SON {number} OF"), 1));
    }
    for (text, expected) in asked {
        let filter = EventFilter {
            text: Some(text),
            ..EventFilter::default()
        };
        let found = store.find_events(&filter, None, u32::MAX).await.unwrap();
        assert_eq!(found.len() as u64, expected, "{when}: {filter:?}");
        let counted = store.histogram(&filter, 10).await.unwrap();
        assert_eq!(counted.total, expected, "{when}: {filter:?}");
    }
}

#[tokio::test]
async fn texts_of_an_older_file_are_packed_step_by_step() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let now = jiff::Timestamp::now();
    enter_named(&store, 0..300, now).await;
    assert!(assert_packed(&directory, "commit by commit") > 590);
    assert_texts_found(&store, 0..300, "commit by commit").await;
    let packs = || -> i64 {
        let file = Connection::open(directory.path().join("daybook.db")).unwrap();
        let count = "SELECT count(*) FROM \"auditevents.packs\"";
        file.query_row(count, [], |row| row.get(0)).unwrap()
    };
    assert!(packs() < 30, "{} packs of 300 commits", packs());

    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    file.execute_batch("DROP TABLE \"auditevents.packs\"")
        .unwrap();
    drop((file, store));
    let store = open(&directory, AMPLE);
    let create = store.write("tables", |connection, tables| tables.create(connection));
    create.await.unwrap();
    store.compare().await.unwrap();
    assert_texts_found(&store, 0..300, "before the first step").await;
    for step in 0..6 {
        let pack =
            |connection: &mut Connection, tables: &Tables| packs::pack_some(connection, tables, 25);
        assert!(store.write("a step", pack).await.unwrap());
        let reached = 300 + step * 20;
        enter_named(&store, reached..reached + 20, now).await;
        assert_texts_found(&store, 0..reached + 20, "between two steps").await;
    }
    // Killed here, and begun again.
    drop(store);
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    assert_packed(&directory, "prepared");
    assert_texts_found(&store, 0..420, "prepared").await;

    // A version that does not pack was at work.
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    let lose = "DELETE FROM \"auditevents.packs\" WHERE id % 3 = 0";
    assert!(file.execute(lose, []).unwrap() > 0);
    drop((file, store));
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    assert_packed(&directory, "repaired");
    assert_texts_found(&store, 0..420, "repaired").await;
}

#[tokio::test]
async fn long_texts_are_found_besides_those_that_hold_a_part() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let events = (0..20).map(|number| {
        let mut one = event(number);
        let name = match number {
            0 => "needle".to_owned(),
            1..3 => format!("hay {number}"),
            _ => format!("{number} {}", "long ".repeat(300)),
        };
        one.target.name = Some(name.into());
        one
    });
    enter(&store, &events.collect::<Vec<_>>()).await.unwrap();
    let found = async |part: &'static str| {
        let search = store.read("a search", move |connection, tables| {
            let tenants = std::collections::HashSet::from([None]);
            packs::search(connection, tables, &tenants, part, 1)
        });
        search.await.unwrap().map(|found| found.len())
    };
    assert_eq!(found("needle").await, Some(1 + 17));
    assert_eq!(found("nothing").await, Some(17));
    assert_eq!(found("hay").await, None, "two hold it");
}

#[tokio::test]
async fn a_sweep_deletes_more_old_texts_than_one_transaction() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    let enter = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
        INSERT INTO \"auditevents.texts\" (scope, id, text, day)
        SELECT '', CAST(printf('%08d', i) AS BLOB), 'old', 0 FROM n";
    assert_eq!(file.execute(enter, []).unwrap(), 120_000);
    drop(store);
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let now = jiff::Timestamp::now();
    assert_eq!(store.delete_events_before(now, 1000).await.unwrap(), 0);
    assert_eq!(assert_packed(&directory, "all are gone"), 0);
}

#[tokio::test]
async fn old_texts_go_in_portions_between_commits() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let now = jiff::Timestamp::now();
    let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    enter_named(&store, 0..12, now).await;
    let before = days(10);
    let delete = store.write("a deletion", move |connection, tables| {
        retention::delete_events(connection, tables, before, 100, AMPLE)
    });
    assert_eq!(delete.await.unwrap(), Some(12));
    let (mut entered, mut is_more) = (12, true);
    while is_more {
        let old = store.old_texts.clone();
        let no_time = Duration::ZERO;
        let portion = store.write("a portion", move |connection, tables| {
            if old.is_found() {
                old.delete(connection, tables, before, no_time)
            } else {
                old.look(connection, tables, before, no_time)
            }
        });
        is_more = portion.await.unwrap();
        if entered < 30 {
            enter_named(&store, entered..entered + 1, days(30)).await;
            entered += 1;
        }
        assert_packed(&directory, "between two portions");
    }
    assert_eq!(entered, 30);
    // Two for each event that is left, the address of three tenants.
    assert_eq!(assert_packed(&directory, "the older are gone"), 2 * 18 + 3);
    assert_texts_found(&store, 12..30, "the older are gone").await;
}

#[tokio::test]
async fn texts_that_cannot_be_deleted_are_told_of_and_tried_again() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let now = jiff::Timestamp::now();
    let later = now + jiff::SignedDuration::from_hours(240);
    enter_named(&store, 0..3, now).await;
    let keep = "CREATE TRIGGER keep BEFORE DELETE ON \"auditevents.texts\"
        BEGIN SELECT RAISE(ABORT, 'kept'); END";
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    file.execute_batch(keep).unwrap();
    let mut left = 3;
    while left > 0 {
        left -= store.delete_events_before(later, 10).await.unwrap();
    }
    for _ in 0..2 {
        store.delete_events_before(later, 10).await.unwrap_err();
    }
    assert_eq!(assert_packed(&directory, "kept"), 2 * 3 + 3);
    file.execute_batch("DROP TRIGGER keep").unwrap();
    assert_eq!(store.delete_events_before(later, 10).await.unwrap(), 0);
    assert_eq!(assert_packed(&directory, "gone"), 0);
}

#[tokio::test]
async fn packs_lose_the_texts_that_retention_deletes() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let now = jiff::Timestamp::now();
    let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    enter_named(&store, 0..120, now).await;
    enter_named(&store, 120..200, days(30)).await;
    while store.delete_events_before(days(10), 50).await.unwrap() > 0 {}
    // Two for each event that is left, the address of three tenants.
    assert_eq!(assert_packed(&directory, "the older are gone"), 2 * 80 + 3);
    assert_texts_found(&store, 120..200, "the older are gone").await;
    enter_named(&store, 0..120, days(31)).await;
    assert_packed(&directory, "the same again");
    assert_texts_found(&store, 0..200, "the same again").await;
    while store.delete_events_before(days(60), 50).await.unwrap() > 0 {}
    assert_eq!(assert_packed(&directory, "all are gone"), 0);
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    let count = "SELECT count(*) FROM \"auditevents.packs\"";
    assert_eq!(
        file.query_row(count, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        0
    );
}
