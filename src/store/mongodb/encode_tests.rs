use mongodb::bson::{RawBson, RawBsonRef, Regex, cstr, rawdoc};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{Actor, Payload, SourceName, Target};
use crate::store::mongodb::decode;

fn event_with(metadata: Value) -> AuditEvent {
    AuditEvent {
        at: Timestamp::UNIX_EPOCH,
        source: SourceName::new("s"),
        external_id: "e".to_owned(),
        action: "a".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: metadata.as_object().unwrap().clone().into(),
    }
}

fn encoded(metadata: Value) -> RawDocumentBuf {
    document_of(&event_with(metadata)).unwrap()
}

fn document_of(event: &AuditEvent) -> Result<RawDocumentBuf, String> {
    let keys = EventKeys::of(event, None);
    super::event(event, None, Timestamp::UNIX_EPOCH, &keys)
}

fn number_of(text: &str) -> Value {
    serde_json::from_str(&format!("{{\"n\":{text}}}")).unwrap()
}

#[test]
fn numbers_take_the_smallest_exact_type() {
    for (text, expected) in [
        ("1", RawBsonRef::Int32(1)),
        ("-2147483648", RawBsonRef::Int32(i32::MIN)),
        ("2147483648", RawBsonRef::Int64(2_147_483_648)),
        ("9223372036854775807", RawBsonRef::Int64(i64::MAX)),
        ("0.5", RawBsonRef::Double(0.5)),
        ("-0.0", RawBsonRef::Double(-0.0)),
    ] {
        let document = encoded(number_of(text));
        let metadata = document.get_document("metadata").unwrap();
        assert_eq!(metadata.get("n").unwrap(), Some(expected), "{text}");
    }
    for exact in ["9223372036854775808", "18446744073709551615", "1.10", "1e5"] {
        let document = encoded(number_of(exact));
        let metadata = document.get_document("metadata").unwrap();
        let stored = metadata.get("n").unwrap().unwrap();
        assert!(
            matches!(stored, RawBsonRef::Decimal128(_)),
            "{exact}: {stored:?}"
        );
        assert_eq!(document.get("metadataJson").unwrap(), None, "{exact}");
    }
    let document = encoded(number_of("1e99999"));
    assert_eq!(
        document.get_str("metadataJson").unwrap(),
        "{\"n\":1e+99999}"
    );
}

#[test]
fn only_what_bson_cannot_hold_stands_twice() {
    for plain in [json!({ "$a.b": "\0" }), json!({ "": [{ "$ref": 1 }] })] {
        assert_eq!(encoded(plain).get("metadataJson").unwrap(), None);
    }
    let document = encoded(json!({ "a\0b": 1 }));
    let metadata = document.get_document("metadata").unwrap();
    assert_eq!(metadata.get_i32("a\u{2400}b").unwrap(), 1);
    assert_eq!(
        document.get_str("metadataJson").unwrap(),
        "{\"a\\u0000b\":1}"
    );
}

#[test]
fn kept_text_becomes_what_its_tree_becomes() {
    for nested in [None, Some(("z", r#"{"at":"read time"}"#.to_owned()))] {
        let text = r#"{"a":1,"b":null,"c":"ü","d":true,"e":-3000000000}"#;
        let mut event = event_with(json!({}));
        event.metadata = Payload::flat(text.into(), nested);
        assert!(event.metadata.as_flat().is_some());
        let kept = document_of(&event).unwrap();
        event.metadata = serde_json::Map::from(event.metadata.clone()).into();
        let tree = document_of(&event).unwrap();
        let metadata =
            |document: &RawDocumentBuf| document.get_document("metadata").unwrap().to_owned();
        assert_eq!(metadata(&kept), metadata(&tree));
    }
}

#[test]
fn an_absent_part_is_no_field() {
    let document = encoded(json!({}));
    let names: Vec<_> = document
        .iter()
        .map(|field| field.unwrap().0.as_str())
        .collect();
    let expected = [
        "_id",
        "at",
        "ingestedAt",
        "source",
        "externalId",
        "action",
        "facet",
        "terms",
        "masks",
        "metadata",
    ];
    assert_eq!(names, expected);
}

/// Daybook writes none of these.
#[test]
fn what_json_has_no_type_for_is_read_as_text() {
    let document = rawdoc! {
        "pattern": Regex { pattern: cstr!("a.b").into(), options: cstr!("i").into() },
        "least": RawBson::MinKey,
    };
    let read = |name| decode::value(document.get(name).unwrap().unwrap());
    assert_eq!([read("pattern"), read("least")], ["/a.b/i", "MinKey"]);
}

#[test]
fn a_document_over_the_limit_is_refused_with_its_size() {
    let text = "x".repeat(MAX_DOCUMENT_BYTES);
    let event = event_with(json!({ "text": text }));
    let refused = document_of(&event);
    assert!(refused.unwrap_err().contains("the store takes 16777216"));
}

#[test]
fn ids_grow() {
    let ids: Vec<_> = (0..100_000).map(|_| next_id()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    let now = Timestamp::now().as_millisecond();
    let made = ids[0].timestamp().timestamp_millis();
    assert!((now - made).abs() < 60_000, "{made} is about {now}");
}

#[test]
fn ids_begin_again_when_the_clock_was_far_ahead() {
    const NOW: u64 = 1_700_000_000;
    const AHEAD: u64 = NOW + 365 * 86_400;
    let mut ids = Ids::new();
    let mut made = std::collections::HashSet::new();
    // The clock, and the second of the id.
    for (clock, second) in [
        (NOW, NOW),
        (NOW - 59, NOW),
        (AHEAD, AHEAD),
        (AHEAD - 1, AHEAD),
        (NOW, NOW),
        (NOW + 1, NOW + 1),
        (NOW - 59, NOW - 59),
    ] {
        let id = ids.next(clock);
        let of = id.timestamp().timestamp_millis() / 1000;
        assert_eq!(u64::try_from(of).unwrap(), second, "at {clock}");
        assert!(made.insert(id), "{id} is made twice");
    }
}

proptest! {
    #[test]
    fn every_number_reads_back_digit_for_digit(
        text in r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,5})?"
    ) {
        let event = event_with(number_of(&text));
        let document = document_of(&event).unwrap();
        let stored = decode::event(&document).unwrap();
        prop_assert_eq!(event.metadata, stored.metadata.into());
    }

    #[test]
    fn a_cursor_detail_reads_back_or_is_said_to_be_inexact(text in ".*", number: i64) {
        let value = json!([{ &text: [number, text, null] }]);
        let (document, exact) = value_document(&value);
        prop_assert_eq!(exact, !text.contains('\0'));
        if exact {
            let stored = decode::value(document.get("v").unwrap().unwrap());
            prop_assert_eq!(stored, value);
        }
    }
}
