//! Everything but events and cursors.

use super::*;
use crate::store::{LearnedSpace, Role, TokenRecord};

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
