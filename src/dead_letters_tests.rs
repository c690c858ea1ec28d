#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::batch::dead_letter_of;
use crate::config::{
    AuthentikConfig, Collections, OcisConfig, RecorderConfig, StalwartConfig, TenantsConfig,
};
use crate::event::{AuditEvent, SourceName, TenantHints};
use crate::store::sqlite::SqliteStore;
use crate::store::{DeadLetterFilter, EventFilter, StoredEvent};

const LINE: &str = r#"{"RemoteAddr":"","User":"alice-id","Time":"2026-11-24T03:44:09Z","App":"admin_audit","Message":"user 'alice-id' created folder 'p$s!n/Reports'","Action":"container_create","Path":"./Reports","FileID":"p$s!n/Reports"}"#;
const READ: &str = r#"{"RemoteAddr":"","User":"alice-id","Time":"2026-11-24T03:44:09Z","App":"admin_audit","Message":"user 'alice-id' read file 'f'","Action":"file_read","FileID":"f"}"#;
const PIECE: &str = r#"{"id":"1","createdAt":"2026-11-24T04:05:39Z","type":"auth.failed","data":{"accountName":"alice@acme.example","remoteIp":"192.0.2.7"}}"#;

struct Desk {
    _dir: TempDir,
    store: SqliteStore,
    config: Config,
}

impl Desk {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let directory = dir.path().join("tenants.toml");
        std::fs::write(
            &directory,
            "[[tenants]]\nslug = \"acme\"\ndomains = [\"acme.example\"]\ngroups = [\"staff\"]\n\
             [[users]]\nsubject = \"alice-id\"\ntenantIds = [\"acme\"]\n",
        )
        .unwrap();
        let path = dir.path().join("daybook.db");
        let store = SqliteStore::open(&path, Duration::from_secs(30), &Collections::default());
        let store = store.unwrap();
        store.prepare().await.unwrap();
        let config = Config {
            tenants: TenantsConfig {
                file: Some(directory),
                ..TenantsConfig::default()
            },
            sources: vec![
                SourceConfig::Ocis(OcisConfig::default()),
                SourceConfig::Stalwart(StalwartConfig::default()),
                SourceConfig::Authentik(AuthentikConfig::default()),
                SourceConfig::Recorder(RecorderConfig::default()),
            ],
            ..Config::default()
        };
        Self {
            _dir: dir,
            store,
            config,
        }
    }

    /// Puts a letter into the store and tries it again.
    async fn retry(&self, letter: &DeadLetter) -> Retried {
        let commit = Commit {
            records: vec![Record::DeadLetter(letter)],
            ..Commit::default()
        };
        self.store.commit(&commit).await.unwrap();
        self.retry_stored(&self.letter(&letter.position).await.unwrap())
            .await
    }

    async fn retry_stored(&self, stored: &StoredDeadLetter) -> Retried {
        let mut retrier = Retrier::new(&self.store, &self.config).await.unwrap();
        retrier.retry(stored).await.unwrap()
    }

    async fn letter(&self, position: &str) -> Option<StoredDeadLetter> {
        let letters = self.store.dead_letters(100).await.unwrap();
        letters
            .into_iter()
            .find(|stored| stored.letter.position == position)
    }

    async fn letters(&self) -> usize {
        let all = DeadLetterFilter::default();
        self.store
            .list_dead_letters(&all, None, 100)
            .await
            .unwrap()
            .len()
    }

    async fn events(&self) -> Vec<StoredEvent> {
        let all = EventFilter::default();
        self.store.find_events(&all, None, 100).await.unwrap()
    }
}

fn letter(source: &str, position: &str, raw: &str) -> DeadLetter {
    DeadLetter {
        source: SourceName::new(source),
        position: position.to_owned(),
        reason: DeadLetterReason::Malformed,
        detail: "it could not be read".to_owned(),
        raw: Bytes::copy_from_slice(raw.as_bytes()),
        raw_length: raw.len() as u64,
        at: "2026-11-24T05:00:00Z".parse().unwrap(),
    }
}

const ONE_EVENT: Retried = Retried::Entered {
    written: 1,
    duplicate: 0,
    dead: 0,
};

#[tokio::test]
async fn a_line_becomes_its_event_at_its_own_place_once() {
    let desk = Desk::new().await;
    let kept = letter("ocis", "7:ab:100", LINE);
    assert_eq!(desk.retry(&kept).await, ONE_EVENT);
    assert_eq!(desk.letters().await, 0);
    let events = desk.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].external_id, "7:ab:100");
    assert_eq!(events[0].action, "ocis.container_create");
    assert_eq!(events[0].tenant_slug.as_deref(), Some("acme"));

    let again = Retried::Entered {
        written: 0,
        duplicate: 1,
        dead: 0,
    };
    assert_eq!(desk.retry(&kept).await, again);
    assert_eq!((desk.letters().await, desk.events().await.len()), (0, 1));
}

#[tokio::test]
async fn a_line_without_a_time_happened_when_it_was_first_met() {
    let desk = Desk::new().await;
    let kept = letter("ocis", "7:1", &LINE.replace("2026-11-24T03:44:09Z", ""));
    assert_eq!(desk.retry(&kept).await, ONE_EVENT);
    assert_eq!(desk.events().await[0].at, kept.at);
}

#[tokio::test]
async fn what_is_still_unreadable_stays_and_is_counted() {
    let desk = Desk::new().await;
    let kept = letter("ocis", "7:100", &LINE[..50]);
    let Retried::Stays(why) = desk.retry(&kept).await else {
        panic!("it cannot be read");
    };
    assert!(why.contains("cut off"), "{why}");
    let stored = desk.letter("7:100").await.unwrap();
    assert_eq!(stored.letter, kept, "as it was first met");
    assert_eq!(stored.attempts, 2);
    assert!(stored.last_at > kept.at);
    assert_eq!(desk.events().await.len(), 0);
}

#[tokio::test]
async fn what_is_dropped_while_it_is_tried_again_comes_back_whole() {
    let desk = Desk::new().await;
    let kept = letter("ocis", "7:100", &LINE[..50]);
    desk.retry(&kept).await;
    let stored = desk.letter("7:100").await.unwrap();
    let ids = std::slice::from_ref(&stored.id);
    assert_eq!(desk.store.delete_dead_letters(ids).await.unwrap(), 1);
    let tried = desk.retry_stored(&stored).await;
    assert!(matches!(tried, Retried::Stays(_)), "{tried:?}");
    let back = desk.letter("7:100").await.unwrap().letter;
    assert_eq!((back.raw, back.raw_length), (kept.raw, kept.raw_length));
}

#[tokio::test]
async fn what_is_left_out_on_purpose_is_no_dead_letter() {
    let desk = Desk::new().await;
    let kept = letter("ocis", "7:100", READ);
    assert_eq!(desk.retry(&kept).await, Retried::LeftOut);
    assert_eq!((desk.letters().await, desk.events().await.len()), (0, 0));
}

#[tokio::test]
async fn of_two_glued_records_the_good_one_is_entered_and_the_cut_one_stays() {
    let desk = Desk::new().await;
    let kept = letter("ocis", "7:100", &format!("{}{LINE}", &LINE[..50]));
    assert!(matches!(desk.retry(&kept).await, Retried::Stays(_)));
    assert_eq!(desk.letter("7:100").await.unwrap().attempts, 2);
    assert_eq!(desk.events().await[0].external_id, "7:150");

    let kept = letter("ocis", "8:100", &format!("{LINE}{}", &LINE[..50]));
    let parted = Retried::Entered {
        written: 1,
        duplicate: 0,
        dead: 1,
    };
    assert_eq!(desk.retry(&kept).await, parted);
    assert_eq!(desk.letter("8:100").await, None);
    let rest = desk.letter(&format!("8:{}", 100 + LINE.len())).await;
    let rest = rest.unwrap().letter;
    assert_eq!(rest.raw, &LINE.as_bytes()[..50]);
    assert_eq!(rest.at, kept.at, "it was met with the whole");
}

#[tokio::test]
async fn a_webhook_body_and_one_event_of_it_have_the_same_key() {
    let desk = Desk::new().await;
    let body = letter(
        "stalwart",
        "body hash",
        &format!("{{\"events\":[{PIECE}]}}"),
    );
    assert_eq!(desk.retry(&body).await, ONE_EVENT);
    let piece = letter("stalwart", "piece hash", PIECE);
    let there = Retried::Entered {
        written: 0,
        duplicate: 1,
        dead: 0,
    };
    assert_eq!(desk.retry(&piece).await, there);
    let events = desk.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].tenant_slug.as_deref(), Some("acme"));
    assert_eq!(desk.letters().await, 0);

    for odd in ["{\"type\":\"auth.failed\"}", "[1]", "nonsense"] {
        let kept = letter("stalwart", odd, odd);
        assert!(
            matches!(desk.retry(&kept).await, Retried::Stays(_)),
            "{odd}"
        );
        assert_eq!(desk.letter(odd).await.unwrap().attempts, 2, "{odd}");
    }
}

/// Nobody knows the keys that were made for the others: they may be in the store already.
#[tokio::test]
async fn of_a_recorders_request_only_good_events_with_an_id_of_their_own_are_entered() {
    let desk = Desk::new().await;
    let request = r#"{"events":[{"action":"a"},{"action":" ","externalId":"x"},{"action":"b","externalId":"own"}]}"#;
    let kept = letter("recorder", "body hash", request);
    for (written, duplicate) in [(1, 0), (0, 1)] {
        let parted = Retried::Entered {
            written,
            duplicate,
            dead: 2,
        };
        assert_eq!(desk.retry(&kept).await, parted);
        assert_eq!((desk.letters().await, desk.events().await.len()), (2, 1));
    }
    assert_eq!(desk.events().await[0].external_id, "own");
    for (position, raw, wanted) in [
        ("body hash:0", r#"{"action":"a"}"#, "externalId: is missing"),
        (
            "body hash:1",
            r#"{"action":" ","externalId":"x"}"#,
            "action: must not be empty",
        ),
    ] {
        let part = desk.letter(position).await.unwrap();
        assert_eq!(part.letter.raw, raw.as_bytes());
        assert_eq!(part.letter.at, kept.at, "it was met with the request");
        assert!(part.letter.detail.contains(wanted), "{part:?}");
        let Retried::Stays(why) = desk.retry_stored(&part).await else {
            panic!("{position} is refused");
        };
        assert!(why.contains(wanted), "{why}");
    }

    let alone = letter("recorder", "other hash", r#"{"action":"a"}"#);
    let Retried::Stays(why) = desk.retry(&alone).await else {
        panic!("it may be there already");
    };
    assert!(why.contains("externalId: is missing"), "{why}");
    assert_eq!(desk.events().await.len(), 1);
}

#[tokio::test]
async fn a_recorders_event_is_entered_under_the_key_that_was_made_for_it_or_its_own() {
    let there = Retried::Entered {
        written: 0,
        duplicate: 1,
        dead: 0,
    };
    for (position, raw, id) in [
        ("7:idem:5f0c:1", r#"{"action":"a"}"#, "idem:5f0c:1"),
        ("7:rnd:5f0c", r#"{"action":"a"}"#, "rnd:5f0c"),
        ("7:rnd:5f0c", r#"{"action":"a","externalId":"own"}"#, "own"),
    ] {
        let desk = Desk::new().await;
        let kept = letter("recorder", position, raw);
        assert_eq!(desk.retry(&kept).await, ONE_EVENT);
        assert_eq!(desk.retry(&kept).await, there);
        let events = desk.events().await;
        assert_eq!((events.len(), desk.letters().await), (1, 0));
        assert_eq!(
            (events[0].external_id.as_str(), events[0].at),
            (id, kept.at)
        );
    }

    let desk = Desk::new().await;
    let nested = r#"{"events":[{"action":"a","externalId":"own"}]}"#;
    let tried = desk.retry(&letter("recorder", "7:rnd:5f0c", nested)).await;
    assert!(matches!(tried, Retried::Stays(_)), "an event is no request");
}

#[tokio::test]
async fn an_authentik_event_has_its_own_key() {
    let desk = Desk::new().await;
    let raw = r#"{"pk":"5f0c","created":"2026-11-24T04:05:39.5Z","action":"login","user":{"pk":5,"username":"alice"},"context":{}}"#;
    assert_eq!(
        desk.retry(&letter("authentik", "hash", raw)).await,
        ONE_EVENT
    );
    let events = desk.events().await;
    assert_eq!(events[0].external_id, "5f0c");
    assert_eq!(events[0].action, "authentik.login");
}

#[tokio::test]
async fn an_event_that_was_refused_comes_back_whole() {
    let desk = Desk::new().await;
    let event = AuditEvent {
        at: "2026-11-24T04:05:39Z".parse().unwrap(),
        source: SourceName::new("no longer configured"),
        external_id: "e-1".to_owned(),
        action: "invoice.paid".into(),
        outcome: None,
        actor: crate::event::Actor::default(),
        target: crate::event::Target::default(),
        tenant_slug: None,
        metadata: serde_json::from_str::<serde_json::Map<String, Value>>("{\"n\":1.10}")
            .unwrap()
            .into(),
    };
    let hints = TenantHints {
        groups: vec!["staff".into()],
        ..TenantHints::default()
    };
    for (reason, entered) in [
        (DeadLetterReason::Rejected, 1),
        (DeadLetterReason::Poison, 0),
    ] {
        let kept = dead_letter_of(&event, &hints, reason, "refused");
        let expected = Retried::Entered {
            written: entered,
            duplicate: 1 - entered,
            dead: 0,
        };
        assert_eq!(desk.retry(&kept).await, expected);
    }
    let events = desk.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(event.metadata, events[0].metadata.clone().into());
    assert_eq!(events[0].external_id, "e-1");
    assert_eq!(events[0].tenant_slug.as_deref(), Some("acme"));
}

#[test]
fn what_cannot_be_tried_says_why() {
    let ocis = SourceConfig::Ocis(OcisConfig::default());
    let head = DeadLetter {
        reason: DeadLetterReason::Oversized,
        raw_length: 1_000_000,
        ..letter("ocis", "7:1", LINE)
    };
    let emptied = DeadLetter {
        raw: Bytes::new(),
        ..letter("ocis", "7:1", LINE)
    };
    let payload_only = DeadLetter {
        reason: DeadLetterReason::Rejected,
        ..letter("ocis", "7:1", "{\"a\":1}")
    };
    let damage = DeadLetter {
        raw_length: 61,
        detail: "61 bytes of the journal: its checksum is wrong; kept as /j/2.corrupt".to_owned(),
        ..letter("journal", "2:24", "")
    };
    for (kept, source, why) in [
        (&damage, None, "kept as /j/2.corrupt"),
        (&head, Some(&ocis), "only the first"),
        (&emptied, Some(&ocis), "none of its bytes"),
        (&payload_only, Some(&ocis), "no whole event"),
        (&letter("gone", "7:1", LINE), None, "\"gone\" is configured"),
        (&letter("ocis", "nowhere", LINE), Some(&ocis), "no place"),
    ] {
        let error = decode_again(kept, source).unwrap_err();
        assert!(error.contains(why), "{error}, wanted: {why}");
    }
    let masked = DeadLetter {
        raw_length: 5000,
        ..letter("ocis", "7:1", LINE)
    };
    assert!(!is_head_only(&masked), "masking shortens, too");
    let value: Value = serde_json::from_str(LINE).unwrap();
    let decoded = decode_again(&masked, Some(&ocis)).unwrap();
    assert!(
        matches!(&decoded[..], [Decoded::Event(event, _)] if Value::from(event.metadata.clone()) == value)
    );
}

#[test]
fn input_over_which_a_decoder_panicked_is_decoded_as_input() {
    let stalwart = SourceConfig::Stalwart(StalwartConfig::default());
    let body = format!("{{\"events\":[{PIECE}]}}");
    for reason in [DeadLetterReason::Poison, DeadLetterReason::UnexpectedShape] {
        let kept = DeadLetter {
            reason,
            ..letter("stalwart", "hash of the body", &body)
        };
        let decoded = decode_again(&kept, Some(&stalwart)).unwrap();
        assert!(matches!(&decoded[..], [Decoded::Event(..)]), "{reason:?}");
    }
    let again = unless_it_panics(|| panic!("over an event"));
    assert_eq!(again, Err("its decoder panicked over it".to_owned()));
}
