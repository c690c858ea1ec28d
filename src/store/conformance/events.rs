//! Events go in once, as they are.

use bytestring::ByteString;
use futures_util::future::join_all;

use super::*;

pub(super) async fn an_event_reads_back_as_it_was_written(store: Subject) {
    let before = Timestamp::now().as_millisecond();
    let mut written = Vec::new();
    for (number, milliseconds) in [1_700_000_000_123, 0, -1, -62_135_596_800_000]
        .into_iter()
        .enumerate()
    {
        let mut one = full_event("read back", &number.to_string());
        one.at = at(milliseconds);
        one.outcome = [Outcome::Success, Outcome::Failure, Outcome::Unknown]
            .get(number)
            .copied();
        let record = Record::Event {
            event: &one,
            tenant_slug: Some("acme"),
        };
        assert_eq!(commit_records(&store, vec![record]).await, [Fate::Written]);
        written.push(one);
    }
    let after = Timestamp::now().as_millisecond();
    let stored = of_source(&store, "read back").await;
    assert_eq!(stored.len(), written.len());
    for (stored, written) in stored.iter().zip(&written) {
        assert_same(stored, written, Some("acme"));
        let ingested_at = stored.ingested_at.as_millisecond();
        assert!(
            (before..=after).contains(&ingested_at),
            "entered at {ingested_at}"
        );
    }
}

pub(super) async fn what_an_event_lacks_stays_absent(store: Subject) {
    let mut bare = event("bare", "");
    bare.action = ByteString::new();
    commit_records(&store, records([&bare])).await;
    let partial = AuditEvent {
        actor: Actor {
            ip: Some(ByteString::new()),
            ..Actor::default()
        },
        ..event("bare", "partial")
    };
    commit_records(&store, records([&partial])).await;
    let stored = of_source(&store, "bare").await;
    assert_eq!(stored.len(), 2);
    assert_same(&stored[0], &partial, None);
    assert_same(&stored[1], &bare, None);
}

pub(super) async fn a_repeat_is_a_duplicate_and_changes_nothing(store: Subject) {
    let first = full_event("repeat", "1");
    assert_eq!(
        commit_records(&store, records([&first])).await,
        [Fate::Written]
    );
    let stored = of_source(&store, "repeat").await;

    let altered = AuditEvent {
        action: "test.altered".into(),
        at: at(1_600_000_000_000),
        ..event("repeat", "1")
    };
    let new = event("repeat", "2");
    let fates = commit_records(&store, records([&altered, &new, &first])).await;
    assert_eq!(fates, [Fate::Duplicate, Fate::Written, Fate::Duplicate]);
    let both = of_source(&store, "repeat").await;
    assert_eq!(both.len(), 2);
    assert!(both.contains(&stored[0]), "the first is as it was");
}

pub(super) async fn twins_in_one_commit_are_one_event(store: Subject) {
    let twin = event("twins", "1");
    let other = event("twins", "2");
    let fates = commit_records(&store, records([&twin, &twin, &other, &twin])).await;
    let written = fates.iter().filter(|fate| **fate == Fate::Written).count();
    assert_eq!((written, fates.len()), (2, 4));
    assert_eq!(fates[2], Fate::Written);
    assert_eq!(of_source(&store, "twins").await.len(), 2);
}

pub(super) async fn the_same_key_of_two_sources_is_two_events(store: Subject) {
    let (one, other) = (event("source one", "same"), event("source other", "same"));
    let fates = commit_records(&store, records([&one, &other])).await;
    assert_eq!(fates, [Fate::Written, Fate::Written]);
}

pub(super) async fn a_large_commit_reports_each_record_at_its_index(store: Subject) {
    let known: Vec<_> = (0..2500)
        .step_by(7)
        .map(|n| event("large", &n.to_string()))
        .collect();
    commit_records(&store, records(&known)).await;

    let mut all: Vec<_> = (0..2500).map(|n| event("large", &n.to_string())).collect();
    // Long keys make long answers, in which a server leaves out words.
    let long = "k".repeat(2000);
    all.extend((0..800).map(|n| event("large", &format!("{long}{n}"))));
    let fates = commit_records(&store, records(&all)).await;
    assert_eq!(fates.len(), all.len());
    for (index, fate) in fates.iter().enumerate() {
        let known = index < 2500 && index % 7 == 0;
        let expected = if known {
            Fate::Duplicate
        } else {
            Fate::Written
        };
        assert_eq!(*fate, expected, "record {index}");
    }
    let fates = commit_records(&store, records(&all)).await;
    assert!(fates.iter().all(|fate| *fate == Fate::Duplicate));
    assert_eq!(of_source(&store, "large").await.len(), all.len());
}

pub(super) async fn a_rejected_record_moves_no_cursor(store: Subject) {
    let generation = claim(&store, "rejecting").await;
    let good = event("rejecting", "good");
    let mut huge = event("rejecting", "huge");
    let text = Value::String("x".repeat(17 * 1024 * 1024));
    huge.metadata.insert("text".to_owned(), text);
    let commit = Commit {
        records: records([&huge, &good]),
        moves: vec![advance("rejecting", generation, 0, 10)],
        ..Commit::default()
    };
    let committed = store.commit(&commit).await.expect("commit");
    assert_eq!(committed.records[1], Fate::Written);
    if committed.records[0] == Fate::Written {
        // A store without that limit is free to take it.
        assert_eq!(committed.moves, [MoveFate::Moved]);
        return;
    }
    assert!(
        matches!(committed.records[0], Fate::Rejected(_)),
        "{:?}",
        committed.records[0]
    );
    assert_eq!(committed.moves, []);
    assert_eq!(cursor(&store, "rejecting").await.expect("a cursor").seq, 0);

    let instead = letter("rejecting", "huge");
    let commit = Commit {
        records: vec![Record::DeadLetter(&instead), records([&good])[0].clone()],
        ..commit
    };
    let committed = store.commit(&commit).await.expect("commit");
    assert_eq!(committed.records, [Fate::Written, Fate::Duplicate]);
    assert_eq!(committed.moves, [MoveFate::Moved]);
}

pub(super) async fn racing_commits_write_each_event_once(store: Subject) {
    let events: Vec<_> = (0..300).map(|n| event("racing", &n.to_string())).collect();
    let commits = (0..6).map(|_| commit_records(&store, records(&events)));
    let fates = join_all(commits).await.concat();
    let written = fates.iter().filter(|fate| **fate == Fate::Written).count();
    let duplicates = fates
        .iter()
        .filter(|fate| **fate == Fate::Duplicate)
        .count();
    assert_eq!((written, duplicates), (300, 1500));
    assert_eq!(of_source(&store, "racing").await.len(), 300);
}

async fn claim(store: &Subject, source: &str) -> u64 {
    let claimed = store.claim_cursor(&SourceName::new(source)).await;
    claimed.expect("claim").generation
}
