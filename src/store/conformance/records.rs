//! Everything but events and cursors.

use super::*;
use crate::store::{DeadLetterFilter, LearnedSpace, PageKey, Role, TokenRecord};

pub(super) async fn preparing_again_changes_nothing(store: Subject) {
    let kept = event("prepare", "1");
    assert_eq!(
        commit_records(&store, records([&kept])).await,
        [Fate::Written]
    );
    store.prepare().await.expect("prepare again");
    assert_eq!(
        commit_records(&store, records([&kept])).await,
        [Fate::Duplicate]
    );
    assert_eq!(of_source(&store, "prepare").await.len(), 1);
}

pub(super) async fn it_answers_a_ping(store: Subject) {
    store.ping().await.expect("ping");
}

pub(super) async fn an_empty_commit_does_nothing(store: Subject) {
    let committed = store.commit(&Commit::default()).await.expect("commit");
    assert_eq!(committed, Committed::default());
}

pub(super) async fn dead_letters_are_kept_once_and_counted(store: Subject) {
    let first = letter("letters", "7:100");
    let again = DeadLetter {
        at: at(1_700_000_060_000),
        ..first.clone()
    };
    let other = letter("letters", "7:200");
    let both = vec![Record::DeadLetter(&first), Record::DeadLetter(&other)];
    assert_eq!(
        commit_records(&store, both).await,
        [Fate::Written, Fate::Written]
    );
    let repeat = vec![Record::DeadLetter(&again)];
    assert_eq!(commit_records(&store, repeat).await, [Fate::Duplicate]);

    let letters = store.dead_letters(1000).await.expect("dead letters");
    let of_rule = |stored: &&crate::store::StoredDeadLetter| stored.letter.source == first.source;
    let letters: Vec<_> = letters.iter().filter(of_rule).collect();
    assert_eq!(letters.len(), 2);
    assert_eq!(
        letters[0].letter, first,
        "the newest comes first, as it was first met"
    );
    assert_eq!((letters[0].attempts, letters[0].last_at), (2, again.at));
    assert_eq!(letters[1].letter, other);
    assert_eq!((letters[1].attempts, letters[1].last_at), (1, other.at));
    assert_ne!(letters[0].id, letters[1].id);

    assert_eq!(store.dead_letters(1).await.expect("dead letters").len(), 1);
    assert_eq!(store.dead_letters(0).await.expect("dead letters").len(), 0);
}

pub(super) async fn a_dead_letter_keeps_its_bytes(store: Subject) {
    let raw: Vec<u8> = (0..=255).chain([0, 255, 0]).collect();
    for (position, reason) in DeadLetterReason::ALL.into_iter().enumerate() {
        let kept = DeadLetter {
            reason,
            detail: "a NUL \0 and \u{202e}bidi".to_owned(),
            raw: raw.clone().into(),
            raw_length: 1_000_000_000_000,
            ..letter("letter bytes", &format!("{position}\0$.x"))
        };
        commit_records(&store, vec![Record::DeadLetter(&kept)]).await;
        let letters = store.dead_letters(1000).await.expect("dead letters");
        assert!(
            letters.iter().any(|stored| stored.letter == kept),
            "{kept:?}"
        );
    }
}

pub(super) async fn an_oversized_dead_letter_keeps_its_head(store: Subject) {
    let raw = vec![b'x'; 17 * 1024 * 1024];
    let huge = DeadLetter {
        raw_length: raw.len() as u64,
        raw: raw.into(),
        at: at(1_800_000_000_000),
        ..letter("oversized letter", "0")
    };
    let repeat = || vec![Record::DeadLetter(&huge)];
    assert_eq!(commit_records(&store, repeat()).await, [Fate::Written]);
    assert_eq!(commit_records(&store, repeat()).await, [Fate::Duplicate]);
    let letters = store.dead_letters(1).await.expect("dead letters");
    let kept = &letters[0].letter;
    assert_eq!(kept.raw_length, huge.raw_length);
    assert!(
        kept.raw.len() >= 1024 * 1024,
        "{} bytes are kept",
        kept.raw.len()
    );
    assert_eq!(kept.raw, huge.raw[..kept.raw.len()]);
}

pub(super) async fn dead_letters_are_listed_by_what_they_are(store: Subject) {
    let minute = |minute: i64| at(1_600_000_000_000 + minute * 60_000);
    let kinds = [
        ("listed letters", "7:100", DeadLetterReason::Malformed, 1),
        ("listed letters", "7:200", DeadLetterReason::Poison, 2),
        ("listed letters", "7:300", DeadLetterReason::Poison, 2),
        ("more letters", "7:100", DeadLetterReason::Poison, 3),
    ];
    let letters = kinds.map(|(source, position, reason, met)| DeadLetter {
        reason,
        at: minute(met),
        ..letter(source, position)
    });
    let records = letters.iter().map(Record::DeadLetter).collect();
    commit_records(&store, records).await;
    let again = DeadLetter {
        at: minute(9),
        ..letters[0].clone()
    };
    commit_records(&store, vec![Record::DeadLetter(&again)]).await;

    let ours = DeadLetterFilter {
        since: Some(minute(0)),
        until: Some(minute(10)),
        ..DeadLetterFilter::default()
    };
    let places = async |filter: DeadLetterFilter| {
        let heads = store.list_dead_letters(&filter, None, 100).await;
        let heads = heads.expect("a list").into_iter();
        let places: Vec<_> = heads.map(|head| (head.source, head.position)).collect();
        let letter = |place: (String, String)| {
            let known = letters
                .iter()
                .position(|letter| letter.source.as_str() == place.0 && letter.position == place.1);
            known.expect("one of this rule's letters")
        };
        places.into_iter().map(letter).collect::<Vec<_>>()
    };
    assert_eq!(places(ours.clone()).await, [0, 3, 2, 1], "newest first");
    let of_source = DeadLetterFilter {
        source: Some("listed letters".to_owned()),
        ..ours.clone()
    };
    assert_eq!(places(of_source.clone()).await, [0, 2, 1]);
    let poison = DeadLetterFilter {
        reason: Some(DeadLetterReason::Poison),
        ..ours.clone()
    };
    assert_eq!(places(poison.clone()).await, [3, 2, 1]);
    let both = DeadLetterFilter {
        source: Some("listed letters".to_owned()),
        ..poison.clone()
    };
    assert_eq!(places(both).await, [2, 1]);
    let some_minutes = DeadLetterFilter {
        since: Some(minute(2)),
        until: Some(minute(3)),
        ..ours.clone()
    };
    assert_eq!(
        places(some_minutes).await,
        [2, 1],
        "since is in, until is out"
    );

    let first = store.list_dead_letters(&of_source, None, 2).await;
    let first = first.expect("a page");
    assert_eq!(first.len(), 2);
    assert_eq!((first[0].attempts, first[0].first_at), (2, minute(1)));
    assert_eq!((first[0].last_at, first[0].raw_length), (minute(9), 5));
    assert_eq!(first[0].detail, letters[0].detail);
    let key = PageKey {
        at: first[1].last_at,
        id: first[1].id.clone(),
    };
    let rest = store.list_dead_letters(&of_source, Some(&key), 2).await;
    let rest = rest.expect("the next page");
    assert_eq!(rest.len(), 1, "a page begins within a tie");
    assert_eq!(rest[0].position, letters[1].position);
    let none = store.list_dead_letters(&of_source, None, 0).await;
    assert_eq!(none.expect("a list"), []);
}

pub(super) async fn a_dead_letter_is_found_and_deleted_by_its_id(store: Subject) {
    let kept: Vec<_> = (0..3)
        .map(|number| letter("deleted letters", &number.to_string()))
        .collect();
    commit_records(&store, kept.iter().map(Record::DeadLetter).collect()).await;
    let filter = DeadLetterFilter {
        source: Some("deleted letters".to_owned()),
        ..DeadLetterFilter::default()
    };
    let heads = store.list_dead_letters(&filter, None, 10).await;
    let ids: Vec<String> = heads.expect("a list").into_iter().map(|h| h.id).collect();
    for (id, letter) in ids.iter().zip(kept.iter().rev()) {
        let found = store.dead_letter(id).await.expect("a look-up");
        let found = found.expect("a letter");
        assert_eq!((&found.id, &found.letter), (id, letter));
        assert_eq!((found.attempts, found.last_at), (1, letter.at));
    }
    for no_id in ["", "x", "0", "ffffffffffffffffffffffff", "$ne"] {
        assert_eq!(store.dead_letter(no_id).await.expect("a look-up"), None);
    }

    let none = store.delete_dead_letters(&[]).await;
    assert_eq!(none.expect("a deletion"), 0);
    let some = [ids[0].clone(), "no id".to_owned(), ids[2].clone()];
    let deleted = store.delete_dead_letters(&some).await;
    assert_eq!(deleted.expect("a deletion"), 2);
    let again = store.delete_dead_letters(&some).await;
    assert_eq!(again.expect("a deletion"), 0);
    assert_eq!(store.dead_letter(&ids[0]).await.expect("a look-up"), None);
    let left = store.list_dead_letters(&filter, None, 10).await;
    let left: Vec<String> = left.expect("a list").into_iter().map(|h| h.id).collect();
    assert_eq!(left, [ids[1].clone()]);

    let written_anew = commit_records(&store, vec![Record::DeadLetter(&kept[2])]).await;
    assert_eq!(written_anew, [Fate::Written]);
}

/// Times before all that other rules use: deletion knows no sources.
pub(super) async fn what_is_old_is_deleted_oldest_first_in_bounded_steps(store: Subject) {
    let ancient = |second: i64| at(-66_000_000_000_000 + second * 1000);
    let events: Vec<_> = (0..5)
        .map(|second| AuditEvent {
            at: ancient(second),
            ..event("old events", &second.to_string())
        })
        .collect();
    let letters: Vec<_> = (0..5)
        .map(|second| DeadLetter {
            at: ancient(second),
            ..letter("old letters", &second.to_string())
        })
        .collect();
    commit_records(&store, records(&events)).await;
    commit_records(&store, letters.iter().map(Record::DeadLetter).collect()).await;
    let met_again = DeadLetter {
        at: ancient(100),
        ..letters[0].clone()
    };
    commit_records(&store, vec![Record::DeadLetter(&met_again)]).await;
    let listed = DeadLetterFilter {
        source: Some("old letters".to_owned()),
        ..DeadLetterFilter::default()
    };

    let limit = ancient(4);
    let none = store.delete_events_before(limit, 0).await;
    assert_eq!(none.expect("a deletion"), 0);
    let mut old: u64 = 4;
    while old > 0 {
        let deleted = store.delete_events_before(limit, 3).await;
        let deleted = deleted.expect("a deletion");
        // A step may end before, where its time is up.
        assert!((1..=old.min(3)).contains(&deleted), "{deleted} of {old}");
        old -= deleted;
    }
    let none = store.delete_events_before(limit, 3).await;
    assert_eq!(none.expect("a deletion"), 0);
    let left = of_source(&store, "old events").await;
    assert_eq!(left.len(), 1, "what is not older stays");
    assert_same(&left[0], &events[4], None);

    let none = store.delete_dead_letters_before(limit, 0).await;
    assert_eq!(none.expect("a deletion"), 0);
    let mut old: u64 = 3;
    while old > 0 {
        let deleted = store.delete_dead_letters_before(limit, 2).await;
        let deleted = deleted.expect("a deletion");
        assert!((1..=old.min(2)).contains(&deleted), "{deleted} of {old}");
        old -= deleted;
    }
    let none = store.delete_dead_letters_before(limit, 2).await;
    assert_eq!(none.expect("a deletion"), 0);
    let left = store.list_dead_letters(&listed, None, 10).await;
    let left = left.expect("a list");
    let left: Vec<_> = left.iter().map(|head| head.position.as_str()).collect();
    assert_eq!(left, ["0", "4"], "the last time counts, not the first");
}

pub(super) async fn learned_spaces_are_remembered_and_corrected(store: Subject) {
    let lesson = |space: &str, tenant: &str| LearnedSpace {
        space: space.to_owned(),
        tenant_slug: tenant.to_owned(),
    };
    for learned in [
        vec![lesson("space-1", "acme"), lesson("$space.2", "globex")],
        vec![lesson("space-1", "initech"), lesson("space-1", "initech")],
    ] {
        let commit = Commit {
            learned,
            ..Commit::default()
        };
        store.commit(&commit).await.expect("commit");
    }
    let mut learned = store.directory().await.expect("directory").learned;
    learned.sort_by(|a, b| a.space.cmp(&b.space));
    assert_eq!(
        learned,
        [lesson("$space.2", "globex"), lesson("space-1", "initech")]
    );
}

pub(super) async fn tokens_are_found_until_they_end(store: Subject) {
    let token = |hash: &str, role, expires_at| TokenRecord {
        hash: hash.to_owned(),
        role,
        name: Some("for a test".to_owned()),
        created_at: at(1_700_000_000_000),
        expires_at,
        opened_by: None,
    };
    let roles = [
        Role::Operator,
        Role::Recorder(None),
        Role::Recorder(Some("platform-api".to_owned())),
        Role::Tenant("acme".to_owned()),
    ];
    for (number, role) in roles.into_iter().enumerate() {
        let kept = token(
            &format!("{number:064x}"),
            role,
            Some(at(32_503_680_000_000)),
        );
        store.insert_token(&kept).await.expect("insert");
        store
            .insert_token(&kept)
            .await
            .expect("a repeat is harmless");
        let found = store.token(&kept.hash).await.expect("token");
        assert_eq!(found, Some(kept));
    }
    let nameless = TokenRecord {
        name: None,
        opened_by: Some("another".to_owned()),
        ..token("nameless", Role::Operator, None)
    };
    store.insert_token(&nameless).await.expect("insert");
    assert_eq!(
        store.token("nameless").await.expect("token"),
        Some(nameless)
    );

    let ended = token("ended", Role::Operator, Some(at(1_700_000_000_001)));
    store.insert_token(&ended).await.expect("insert");
    assert_eq!(store.token("ended").await.expect("token"), None);
    assert_eq!(store.token("unknown").await.expect("token"), None);

    store.delete_token("nameless").await.expect("delete");
    store
        .delete_token("nameless")
        .await
        .expect("a repeat is harmless");
    assert_eq!(store.token("nameless").await.expect("token"), None);
}
