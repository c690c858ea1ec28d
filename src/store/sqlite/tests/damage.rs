//! What somebody, or a disk, has put into the file.

use super::*;

fn named(number: usize) -> AuditEvent {
    AuditEvent {
        actor: Actor {
            name: Some(format!("Person {number}").into()),
            ..Actor::default()
        },
        ..event(number)
    }
}

fn change(directory: &TempDir, sql: &str) {
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    file.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_damaged_value_is_no_fault_of_the_event_that_meets_it() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[named(0)]).await.unwrap();
    change(
        &directory,
        r#"UPDATE "auditevents.packs" SET parts = CAST(zeroblob(length(parts)) AS TEXT)"#,
    );
    // Some are queued before the queue is read.
    let mut number = 1;
    let error = loop {
        match enter(&store, &[named(number)]).await {
            Ok(fates) => assert_eq!(fates, [Fate::Written]),
            Err(error) => break error,
        }
        number += 1;
        assert!(number < 100, "nobody has met it");
    };
    assert_eq!(error.reason(), "unavailable", "{error}");
    assert!(error.to_string().contains("damaged"), "{error}");
}

/// As where the events were carried into the file without their constraint.
#[tokio::test]
async fn a_table_that_is_none_of_ours_is_no_events_fault() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    drop(store);
    change(
        &directory,
        "CREATE TABLE carried AS SELECT * FROM auditevents; DROP TABLE auditevents;
         ALTER TABLE carried RENAME TO auditevents",
    );
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let error = enter(&store, &[event(0)]).await.unwrap_err();
    assert_eq!(error.reason(), "unavailable", "{error}");
}

#[tokio::test]
async fn a_text_that_is_no_utf8_is_shown_at_its_event_and_holds_up_no_other() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    enter(&store, &[named(1), named(2), named(3)])
        .await
        .unwrap();
    change(
        &directory,
        "UPDATE auditevents SET actorName = CAST(x'41FF42' AS TEXT),
            metadata = CAST(x'7B2261223A22FF227D' AS TEXT) WHERE id = 2",
    );
    let assert_shown = |events: &[StoredEvent]| {
        assert_eq!(events.len(), 3);
        let damaged = &events[1];
        assert_eq!(damaged.actor.name.as_deref(), Some("A\u{fffd}B"));
        assert_eq!(damaged.metadata["a"], "\u{fffd}");
    };
    let everything = EventFilter::default();
    let listed = store.find_events(&everything, None, 10).await.unwrap();
    assert_shown(&listed);
    let by_id = store.event(&listed[1].id, None).await.unwrap();
    assert_eq!(by_id.as_ref(), Some(&listed[1]));
    let holding = EventFilter {
        text: Some("person".to_owned()),
        ..everything.clone()
    };
    let found = store.find_events(&holding, None, 10).await.unwrap();
    assert_eq!(found.len(), 2);

    let beginning = query::id_text(0);
    let mut follower = store.follow(Some(&beginning)).await.unwrap().unwrap();
    let followed = follower.next().await.unwrap().entries.into_iter();
    assert_shown(&followed.map(|entry| entry.event).collect::<Vec<_>>());

    let now = jiff::Timestamp::now();
    assert_eq!(delete_before(&store, now).await, 3);
}
