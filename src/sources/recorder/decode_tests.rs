//! Requests that are good, and every way in which one is not.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn decode_with(body: &[u8], key: Option<&str>) -> Result<Vec<AuditEvent>, RequestError> {
    let source = SourceName::new("platform-api");
    let ctx = RequestContext {
        source: &source,
        received_at: "2026-11-24T05:00:00.1239Z".parse().unwrap(),
        request_id: 7,
    };
    decode_request(body, key, ctx).map(Iterator::collect)
}

fn decode(body: Value) -> Result<Vec<AuditEvent>, RequestError> {
    decode_with(body.to_string().as_bytes(), None)
}

#[test]
fn a_full_event_stands_as_sent() {
    let events = decode(json!({
        "action": "billing.plan changed", "at": "2026-11-24T06:05:39.1234+02:00",
        "actor": {"id": "7", "email": "a@b.test", "name": "A", "ip": "192.0.2.1"},
        "target": {"type": "plan", "id": "p", "name": "Pro"}, "outcome": "failure",
        "tenantSlug": "acme", "externalId": "x-1",
        "metadata": {"password": "hunter2", "n": 1.10, "$set": {"a.b": [null]}}}))
    .unwrap();
    let [event] = &events[..] else {
        panic!("one event")
    };
    assert_eq!(event.action, "billing.plan changed");
    assert_eq!(event.at, "2026-11-24T04:05:39.123Z".parse().unwrap());
    assert_eq!(event.actor.email.as_deref(), Some("a@b.test"));
    assert_eq!(event.target.kind.as_deref(), Some("plan"));
    assert_eq!(event.outcome, Some(Outcome::Failure));
    assert_eq!(event.tenant_slug.as_deref(), Some("acme"));
    assert_eq!(event.external_id, "x-1");
    assert_eq!(
        Value::from(event.metadata.clone()),
        json!({"password": "***", "n": 1.10, "$set": {"a.b": [null]}})
    );
}

#[test]
fn a_time_has_any_number_of_digits() {
    for (at, kept) in [
        (
            "2026-11-24T04:05:39.1234567891Z",
            "2026-11-24T04:05:39.123Z",
        ),
        (
            "2026-11-24T06:05:39.123999999999999+02:00",
            "2026-11-24T04:05:39.123Z",
        ),
    ] {
        let events = decode(json!({"action": "a", "at": at})).unwrap();
        assert_eq!(events[0].at, kept.parse().unwrap(), "{at}");
    }
}

/// Java leaves seconds out that are zero. What has no zone is no time.
#[test]
fn a_time_is_taken_in_the_forms_that_senders_write() {
    for at in [
        "2026-01-01T00:00Z",
        "2026-01-01T01:00:00+01:00",
        "2025-12-31t19:00:00.0-05:00",
        "2026-01-01T23:59:00+23:59",
        "2026-01-01 00:00:00z",
    ] {
        let events = decode(json!({"action": "a", "at": at})).unwrap();
        let wanted = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(events[0].at, wanted, "{at}");
    }
    for at in ["2026-01-01T00:00", "2026-01-01T00:00:00", "2026-01-01"] {
        let error = decode(json!({"action": "a", "at": at})).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("at"), "{at}: {error}");
    }
}

/// As where the journal has it from a version that took it.
#[test]
fn a_time_in_another_form_is_refused_but_read_again() {
    let source = SourceName::new("platform-api");
    let ctx = RequestContext {
        source: &source,
        received_at: Timestamp::UNIX_EPOCH,
        request_id: 7,
    };
    for (at, meant) in [
        ("2026-11-25T06:04:39+25:59", "2026-11-24T04:05:39Z"),
        ("2026-11-25T04:05:39+24:00", "2026-11-24T04:05:39Z"),
        ("2026-11-24T05:06:09+01:00:30", "2026-11-24T04:05:39Z"),
        ("2026-11-24T05:05:39+0100", "2026-11-24T04:05:39Z"),
        ("2026-11-24T05:05:39+01", "2026-11-24T04:05:39Z"),
        ("2026-11-24T04:05:39Z[Nope/Zone]", "2026-11-24T04:05:39Z"),
        ("2026-11-24T04:05:39,5Z", "2026-11-24T04:05:39.5Z"),
        ("20261124T040539Z", "2026-11-24T04:05:39Z"),
        ("2026-11-24T04Z", "2026-11-24T04:00:00Z"),
        ("+002026-11-24T04:05:39Z", "2026-11-24T04:05:39Z"),
    ] {
        let event = json!({"action": "a", "at": at});
        let error = decode(event.clone()).unwrap_err().to_string();
        assert!(
            error.starts_with("at: must be an RFC 3339"),
            "{at}: {error}"
        );
        let body = event.to_string();
        let request = read_request(body.as_bytes(), None, ctx).unwrap();
        let (piece, made_id) = request.pieces().next().unwrap();
        let event = decode_alone(piece, Some(&made_id), &ctx).unwrap();
        assert_eq!(event.at, meant.parse().unwrap(), "{at}");
    }
}

#[test]
fn an_action_is_enough() {
    let events =
        decode(json!({"events": [{"action": "a"}, {"action": "a", "at": null, "actor": null}]}))
            .unwrap();
    assert_eq!(events[0].at, "2026-11-24T05:00:00.123Z".parse().unwrap());
    assert_eq!(events[0].outcome, None);
    assert!(events[0].external_id.starts_with("rnd:") && events[0].external_id.len() == 36);
    assert_ne!(events[0].external_id, events[1].external_id);
}

#[test]
fn an_idempotency_key_makes_the_ids() {
    let body =
        json!({"events": [{"action": "a"}, {"action": "b", "externalId": "own"}, {"action": "a"}]})
            .to_string();
    let first = decode_with(body.as_bytes(), Some("key")).unwrap();
    let again = decode_with(body.as_bytes(), Some("key")).unwrap();
    let other = decode_with(body.as_bytes(), Some("other")).unwrap();
    let ids = |events: &[AuditEvent]| -> Vec<String> {
        events
            .iter()
            .map(|event| event.external_id.clone())
            .collect()
    };
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(first[1].external_id, "own");
    assert_eq!(
        first[2].external_id,
        format!("idem:{}:2", &sha256_hex(b"key")[..32])
    );
    assert_ne!(first[0].external_id, other[0].external_id);
}

/// Of two that are alike one would be lost, with an answer that all is well.
#[test]
fn a_name_that_stands_twice_is_refused() {
    for (body, whose, name, place) in [
        (
            r#"{"events":[{"action":"one"}],"events":[{"action":"two"}]}"#,
            "the body is",
            "events",
            ")",
        ),
        (
            r#"{"action":"one","action":"two"}"#,
            "the body is",
            "action",
            ")",
        ),
        (
            r#"{"action":"one","actor":{"id":"a","id":"b"}}"#,
            "the body is",
            "id",
            ")",
        ),
        (
            r#"{"events":[{"action":"one","metadata":{"list":[{"a":1,"\u0061":2}]}}]}"#,
            "events[0]: is",
            "a",
            " of this event)",
        ),
    ] {
        let error = decode_with(body.as_bytes(), None).unwrap_err().to_string();
        let told = format!(
            "{whose} not valid (a name stands twice in an object: \"{name}\" at line 1 column "
        );
        let column = error.strip_prefix(&told);
        let column = column.and_then(|rest| rest.strip_suffix(place)).unwrap();
        assert!(column.parse::<u32>().is_ok(), "{error}");
    }
}

#[test]
fn times_are_cut_to_milliseconds_also_before_1970_and_at_the_end() {
    for (at, kept) in [
        ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
        ("1960-01-01T00:00:00.0005Z", "1960-01-01T00:00:00Z"),
        (
            "2026-11-24T04:05:39.9999999999Z",
            "2026-11-24T04:05:39.999Z",
        ),
        ("9999-12-30T22:00:00.000Z", "9999-12-30T22:00:00Z"),
        ("0001-01-01T00:00:00.0009Z", "0001-01-01T00:00:00Z"),
    ] {
        let event = decode(json!({"action": "a", "at": at})).unwrap().remove(0);
        assert_eq!(event.at, kept.parse().unwrap(), "{at}");
    }
    let error = decode(json!({"action": "a", "at": "9999-12-30T22:00:00.5Z"}));
    assert!(error.unwrap_err().to_string().starts_with("at: must be"));
}

#[test]
fn names_may_be_long() {
    let [action, kind, slug] = ["ä".repeat(256), "ä".repeat(4096), "x".repeat(8192)];
    let event = json!({"action": action, "target": {"type": kind}, "tenantSlug": slug});
    let event = decode(event).unwrap().remove(0);
    assert_eq!(event.action, *action);
    assert_eq!(event.target.kind.as_deref(), Some(&*kind));
    assert_eq!(event.tenant_slug, Some(slug));
}

#[test]
fn every_error_names_its_place() {
    let long = "x".repeat(513);
    for (body, wanted) in [
        (json!([]), "the body must be"),
        (json!(7), "the body must be"),
        (json!({}), "action: is required"),
        (json!({"action": null}), "action: is required"),
        (json!({"action": 7}), "action: must be a string"),
        (json!({"action": " "}), "action: must not be empty"),
        (json!({"action": "a\nb"}), "action: must not hold control"),
        (
            json!({"action": "ä".repeat(257)}),
            "action: must not be longer than 256",
        ),
        (json!({"action": "a", "Actor": {}}), "Actor: unknown field"),
        (json!({"action": "a", "at": 7}), "at: must be a string"),
        (
            json!({"action": "a", "at": "yesterday"}),
            "at: must be an RFC 3339",
        ),
        (
            json!({"action": "a", "at": "2026-11-24T04:05:39"}),
            "at: must be an RFC 3339",
        ),
        (
            json!({"action": "a", "at": "-009999-01-03T00:00:00Z"}),
            "at: must be an RFC 3339",
        ),
        (
            json!({"action": "a", "at": "9999-12-31T00:00:00Z"}),
            "at: must be an RFC 3339",
        ),
        (
            json!({"action": "a", "at": "0000-12-31T23:59:59.5Z"}),
            "at: must be an RFC 3339",
        ),
        (
            json!({"action": "a", "actor": "bob"}),
            "actor: must be an object",
        ),
        (
            json!({"action": "a", "actor": {"mail": "x"}}),
            "actor.mail: unknown field",
        ),
        (
            json!({"action": "a", "actor": {"id": 7}}),
            "actor.id: must be a string",
        ),
        (
            json!({"action": "a", "target": []}),
            "target: must be an object",
        ),
        (
            json!({"action": "a", "target": {"kind": "x"}}),
            "target.kind: unknown field",
        ),
        (
            json!({"action": "a", "target": {"type": {}}}),
            "target.type: must be a string",
        ),
        (
            json!({"action": "a", "target": {"type": "ä".repeat(4097)}}),
            "target.type: must not be longer than 8192 bytes",
        ),
        (
            json!({"action": "a", "outcome": "ok"}),
            "outcome: must be success, failure or unknown",
        ),
        (
            json!({"action": "a", "tenantSlug": ""}),
            "tenantSlug: must not be empty",
        ),
        (
            json!({"action": "a", "tenantSlug": "x".repeat(8193)}),
            "tenantSlug: must not be longer than 8192 bytes",
        ),
        (
            json!({"action": "a", "externalId": ""}),
            "externalId: must not be empty",
        ),
        (
            json!({"action": "a", "externalId": long}),
            "externalId: must not be longer than 512",
        ),
        (
            json!({"action": "a", "metadata": []}),
            "metadata: must be an object",
        ),
        (json!({"events": []}), "events: must not be empty"),
        (json!({"events": null}), "events: must be a list"),
        (json!({"events": {}}), "events: must be a list"),
        (
            json!({"events": [], "action": "a"}),
            "action: unknown field",
        ),
        (json!({"events": [7]}), "events[0]: must be an object"),
        (
            json!({"events": [{"action": "a"}, {"action": "b", "at": "x"}]}),
            "events[1].at: must be",
        ),
        (
            json!({"events": [{"action": "a", "actor": {"x": 1}}]}),
            "events[0].actor.x: unknown field",
        ),
        (
            json!({"events": [{"action": "a", "events": []}]}),
            "events[0].events: unknown field",
        ),
        (
            json!({"events": [{"action": "a", "externalId": "1"}, {"action": "b"}, {"action": "c", "externalId": "1"}]}),
            "events[2].externalId: stands in an earlier",
        ),
    ] {
        let error = decode(body.clone()).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{body}: {error}");
    }
}

#[test]
fn an_event_that_no_store_takes_is_refused() {
    let of_bytes = |length: usize| {
        let frame = json!({"action": "a", "metadata": {"note": ""}}).to_string();
        json!({"action": "a", "metadata": {"note": "x".repeat(length - frame.len())}})
    };
    let longest = decode(of_bytes(MAX_EVENT_BYTES)).unwrap();
    assert_eq!(longest.len(), 1);
    let error = decode(json!({"events": [{"action": "a"}, of_bytes(MAX_EVENT_BYTES + 1)]}));
    assert_eq!(
        error.unwrap_err().to_string(),
        "events[1]: an event must not be longer than 14680064 bytes"
    );
}

#[test]
fn what_is_no_json_says_where() {
    for (body, wanted) in [
        (&b" "[..], "the body is empty"),
        (b"{\"action\":", "the body is not valid (JSON is cut off"),
        (b"action=a", "the body is not valid (not JSON"),
        (b"{\"action\":\"\xff\"}", "the body is not valid"),
    ] {
        let error = decode_with(body, None).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
    let error = decode_with(b"{\"action\":\"a\"}", Some("")).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("Idempotency-Key"));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200), key in proptest::option::of(".{0,9}")) {
        let _ = decode_with(&body, key.as_deref()).map(|events| events.len());
    }

    #[test]
    fn metadata_without_secrets_stands_as_sent(name in ".{0,30}", number in any::<u64>()) {
        let sent = json!({"name": name, "n": number, "list": [number, name]});
        let events = decode(json!({"action": "a", "metadata": sent})).unwrap();
        prop_assert_eq!(Value::from(events[0].metadata.clone()), sent);
    }
}
