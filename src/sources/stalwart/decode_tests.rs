//! Bodies as Stalwart sends them, and as nobody should.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::event::{Outcome, TenantHints};

fn source() -> SourceName {
    SourceName::new("stalwart")
}

fn decode(body: &[u8]) -> Result<Vec<Decoded>, BodyError> {
    let source = source();
    let ctx = BodyContext {
        source: &source,
        received_at: "2026-11-24T05:00:00Z".parse().unwrap(),
    };
    decode_body(body, &ctx).map(Iterator::collect)
}

fn body(events: &[Value]) -> Vec<u8> {
    json!({ "events": events }).to_string().into_bytes()
}

fn event(kind: &str, data: Value) -> Value {
    json!({"id": "1", "createdAt": "2026-11-24T04:00:00Z", "type": kind, "data": data})
}

fn one(kind: &str, data: Value) -> (AuditEvent, TenantHints) {
    let mut decoded = decode(&body(&[event(kind, data)])).unwrap();
    assert_eq!(decoded.len(), 1);
    match decoded.remove(0) {
        Decoded::Event(event, hints) => (*event, hints),
        other => panic!("{other:?}"),
    }
}

fn ids(body: &[u8]) -> Vec<String> {
    decode(body)
        .unwrap()
        .into_iter()
        .map(|decoded| match decoded {
            Decoded::Event(event, _) => event.external_id,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_failed_log_in_names_the_account_and_where_it_came_from() {
    let (event, hints) = one(
        "auth.failed",
        json!({"accountName": "alice@Example.org", "accountId": 7, "remoteIp": "198.51.100.7"}),
    );
    assert_eq!(event.action, "stalwart.auth_failed");
    assert_eq!(event.outcome, Some(Outcome::Failure));
    assert_eq!(event.actor.email.as_deref(), Some("alice@Example.org"));
    assert_eq!(event.actor.id.as_deref(), Some("7"));
    assert_eq!(event.actor.ip.as_deref(), Some("198.51.100.7"));
    assert_eq!(event.target.kind.as_deref(), Some("account"));
    assert_eq!(hints.domains, ["example.org"]);
}

#[test]
fn the_account_may_stand_in_the_cause() {
    let (event, hints) = one(
        "auth.too-many-attempts",
        json!({"causedBy": {"type": "auth.failed", "data": {"accountName": "a@b.example", "accountId": 1}}, "remoteIp": "192.0.2.1"}),
    );
    assert_eq!(event.actor.email.as_deref(), Some("a@b.example"));
    assert_eq!(event.actor.id.as_deref(), Some("1"));
    assert_eq!(hints.domains, ["b.example"]);
    let (event, _) = one("server.shutdown", json!({"causedBy": "SIGTERM"}));
    assert!(event.actor.is_empty());
}

#[test]
fn mail_that_came_in_is_not_its_recipients_deed() {
    let (event, _) = one(
        "message-ingest.ham",
        json!({"accountId": 2, "from": "ceo@spoofed.example.net", "to": ["bob@example.org"]}),
    );
    assert_eq!(
        event.actor.email.as_deref(),
        Some("ceo@spoofed.example.net")
    );
    assert_eq!(event.actor.id, None);
    let (bounce, _) = one(
        "message-ingest.ham",
        json!({"accountId": 2, "from": "<>", "to": ["bob@example.org"]}),
    );
    assert!(bounce.actor.is_empty());
    // What a program of the account put there itself.
    let (own, _) = one("message-ingest.imap-append", json!({"accountId": 2}));
    assert_eq!(own.actor.id.as_deref(), Some("2"));
}

#[test]
fn an_impersonating_administrator_is_the_actor() {
    let (event, hints) = one(
        "auth.success",
        json!({"accountName": "bob@b.example", "accountId": 9, "details": "admin", "remoteIp": "192.0.2.1"}),
    );
    assert_eq!(event.actor.name.as_deref(), Some("admin"));
    assert_eq!(event.actor.id, None);
    assert_eq!(event.target.name.as_deref(), Some("bob@b.example"));
    assert_eq!(hints.domains, ["b.example"]);
}

#[test]
fn a_type_that_always_means_the_same_does_so_in_any_spelling() {
    let of_an_account = json!({"accountName": "alice@a.example", "accountId": 7,
        "details": "admin", "id": "YWxpY2U6cHc=", "remoteIp": "192.0.2.1"});
    let of_mail = json!({"from": "x@acme.example", "to": ["<c@d.example> (rate limited)"],
        "details": ["y@own.example"], "accountId": 7, "queueId": 9, "queueName": "remote",
        "hostname": "mx.d.example", "domain": "e.example", "remoteIp": "192.0.2.1"});
    for (kind, _) in verbs::PLAIN {
        for data in [&of_an_account, &of_mail] {
            let said = |kind: &str| {
                let (event, hints) = one(kind, data.clone());
                let data = event.metadata["data"].clone();
                (event.action, event.actor, event.target, hints, data)
            };
            let spellings = [
                kind.replace(['.', '-'], "_"),
                kind.replace('.', "-"),
                kind.to_uppercase(),
            ];
            for spelling in spellings {
                assert_eq!(said(&spelling), said(kind), "{spelling} {data}");
            }
        }
    }
}

#[test]
fn mail_belongs_to_the_side_that_is_vouched_for() {
    for (kind, data, wanted) in [
        (
            "queue.message-queued",
            json!({"from": "x@acme.example", "to": ["a@b.example", "c@d.example"]}),
            vec!["b.example", "d.example"],
        ),
        (
            "queue.authenticated-message-queued",
            json!({"from": "x@acme.example", "to": ["a@b.example"]}),
            vec!["acme.example"],
        ),
        (
            "queue.queue-message-authenticated",
            json!({"from": "x@acme.example", "to": ["a@b.example"]}),
            vec!["acme.example"],
        ),
        (
            "delivery.dsn-success",
            json!({"queueName": "local", "from": "x@acme.example", "to": "a@b.example"}),
            vec!["b.example"],
        ),
        (
            "delivery.dsn-success",
            json!({"queueName": "remote", "from": "x@acme.example", "to": "a@b.example"}),
            vec!["acme.example"],
        ),
        (
            "queue.rescheduled",
            json!({"queueName": "remote", "from": "x@acme.example", "to": ["a@b.example"]}),
            vec!["acme.example"],
        ),
        (
            "queue.rescheduled",
            json!({"queueName": "local", "from": "x@acme.example", "to": ["a@b.example"]}),
            vec!["b.example"],
        ),
        (
            "queue.dsn-queued",
            json!({"queueName": "remote", "from": "<>", "to": ["a@b.example"]}),
            vec!["b.example"],
        ),
        (
            "delivery.double-bounce",
            json!({"to": [
                "<a@b.example> (host 'mx' rejected transaction with code 550 (5.1.1) 'x@acme.example')\r\n",
                "<\"x@acme.example>\"@d.example> (rate limited)\r\n"]}),
            vec!["b.example"],
        ),
        (
            "calendar.itip-message-sent",
            json!({"from": "x@acme.example", "to": "a@b.example", "accountId": 2, "documentId": 1, "queueId": 9}),
            vec!["acme.example"],
        ),
        (
            "calendar.itip-message-error",
            json!({"from": "x@acme.example", "to": "a@b.example", "accountId": 2, "documentId": 1, "reason": "Server rejected RCPT-TO: 550"}),
            vec!["acme.example"],
        ),
        (
            "calendar.itip-message-error",
            json!({"from": "x@acme.example", "accountId": 2, "spanId": 1, "queueName": "local", "to": ["a@b.example"]}),
            vec!["b.example"],
        ),
        (
            "calendar.itip-message-received",
            json!({"from": "x@acme.example", "accountId": 2, "spanId": 1, "queueName": "local", "to": ["a@b.example"]}),
            vec!["b.example"],
        ),
        (
            "message-ingest.spam",
            json!({"from": "x@acme.example", "to": ["a@b.example"]}),
            vec!["b.example"],
        ),
        ("smtp.mail-from", json!({"from": "x@acme.example"}), vec![]),
        (
            "smtp.mail-from-unauthorized",
            json!({"from": "x@evil.example", "details": ["x@acme.example"]}),
            vec!["acme.example"],
        ),
        (
            "smtp.dmarc-fail",
            json!({"domain": "Acme.example", "policy": "reject"}),
            vec!["acme.example"],
        ),
        (
            "smtp.dkim-fail",
            json!({"result": [{"type": "dkim.fail", "data": {"domain": "acme.example"}}]}),
            vec!["acme.example"],
        ),
    ] {
        let hints = one(kind, data.clone()).1;
        assert_eq!(hints.domains, wanted, "{kind} {data}");
        assert!(hints.senders.is_empty(), "{kind} {data}");
    }
}

#[test]
fn the_sender_is_asked_where_another_server_took_the_mail_and_nowhere_else() {
    let gmail = json!("a@gmail.com");
    let both = json!(["a@gmail.com", "c@b.example"]);
    for (kind, queue, hostname, to, domains, senders) in [
        (
            "delivery.dsn-success",
            Some("default"),
            Some("mx.gmail.com"),
            &gmail,
            vec!["gmail.com"],
            vec!["acme.example"],
        ),
        (
            "delivery.dsn-success",
            Some("default"),
            Some("localhost"),
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        (
            "delivery.attempt-start",
            Some("default"),
            None,
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        (
            "queue.rescheduled",
            Some("default"),
            None,
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        // Up to 0.12.
        (
            "delivery.dsn-success",
            None,
            Some("mx.gmail.com"),
            &gmail,
            vec!["gmail.com"],
            vec!["acme.example"],
        ),
        (
            "delivery.dsn-success",
            None,
            Some("localhost"),
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        (
            "delivery.dsn-perm-fail",
            None,
            None,
            &gmail,
            vec!["gmail.com"],
            vec!["acme.example"],
        ),
        (
            "delivery.attempt-start",
            None,
            None,
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        // Of a mail that expired nothing tells whether it was to go out.
        (
            "delivery.failed",
            None,
            None,
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        // Never of a local mailbox, whatever else it names.
        (
            "delivery.delivered",
            None,
            None,
            &gmail,
            vec!["gmail.com"],
            vec!["acme.example"],
        ),
        (
            "delivery.delivered",
            Some("default"),
            None,
            &gmail,
            vec!["gmail.com"],
            vec!["acme.example"],
        ),
        (
            "delivery.delivered",
            Some("local"),
            None,
            &gmail,
            vec!["gmail.com"],
            vec![],
        ),
        // Of all of them.
        (
            "delivery.connect",
            Some("default"),
            Some("mx.gmail.com"),
            &both,
            vec!["gmail.com", "b.example"],
            vec!["acme.example"],
        ),
        // Before 0.11.7, of one of them: nothing tells which.
        (
            "delivery.delivered",
            None,
            Some("mx.gmail.com"),
            &both,
            vec!["gmail.com", "b.example", "acme.example"],
            vec![],
        ),
        (
            "delivery.dsn-perm-fail",
            None,
            None,
            &both,
            vec!["gmail.com", "b.example", "acme.example"],
            vec![],
        ),
        (
            "delivery.rcpt-to-rejected",
            None,
            Some("mx.gmail.com"),
            &both,
            vec!["gmail.com", "b.example", "acme.example"],
            vec![],
        ),
    ] {
        let mut data = json!({"from": "x@acme.example", "to": to});
        for (key, value) in [("queueName", queue), ("hostname", hostname)] {
            if let Some(value) = value {
                data[key] = value.into();
            }
        }
        let hints = one(kind, data.clone()).1;
        assert_eq!(hints.domains, domains, "{kind} {data}");
        assert_eq!(hints.senders, senders, "{kind} {data}");
    }
}

#[test]
fn a_delivery_has_no_client() {
    let (event, _) = one(
        "delivery.dsn-success",
        json!({"queueName": "remote", "from": "x@acme.example", "to": "a@b.example", "remoteIp": "192.0.2.25"}),
    );
    assert_eq!(event.actor.ip, None);
    assert_eq!(event.actor.email.as_deref(), Some("x@acme.example"));
    assert_eq!(event.target.name.as_deref(), Some("a@b.example"));
}

#[test]
fn a_retry_with_a_new_id_has_the_same_key() {
    let first = br#"{"events":[{"id":"1","createdAt":"2026-11-24T04:00:00Z","type":"auth.success","data":{"b":1,"a":342282797018251265}}]}"#;
    let again = br#"{"events":[{"type":"auth.success","id":"9","data":{"a":342282797018251265,"b":1},"createdAt":"2026-11-24T04:00:00Z"}]}"#;
    assert_eq!(ids(first), ids(again));
    assert_eq!(ids(first)[0].len(), 32);
}

#[test]
fn one_id_for_several_events_gives_several_keys() {
    let events: Vec<Value> = (0..7)
        .map(|port| {
            event(
                "auth.failed",
                json!({"accountName": "alice", "remotePort": port}),
            )
        })
        .collect();
    let mut keys = ids(&body(&events));
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 7);
}

#[test]
fn identical_twins_are_told_apart_by_their_ordinal() {
    let twin = event("auth.warning", json!({"accountName": "root"}));
    let keys = ids(&body(&[twin.clone(), twin.clone(), twin]));
    assert_eq!(keys[1], format!("{}-1", keys[0]));
    assert_eq!(keys[2], format!("{}-2", keys[0]));
}

#[test]
fn a_time_has_any_number_of_digits() {
    let mut late = event("auth.success", json!({}));
    late["createdAt"] = json!("2026-11-24T04:00:00.1239999999999Z");
    let decoded = decode(&body(&[late])).unwrap();
    let [Decoded::Event(event, _)] = &decoded[..] else {
        panic!("{decoded:?}");
    };
    assert_eq!(event.at, "2026-11-24T04:00:00.123Z".parse().unwrap());
}

#[test]
fn a_bad_event_is_quarantined_alone() {
    let good = event("auth.success", json!({"accountName": "a"}));
    let bad = [
        json!(7),
        json!({"type": "auth.success"}),
        json!({"type": "", "createdAt": "2026-11-24T04:00:00Z"}),
        json!({"createdAt": "2026-11-24T04:00:00Z", "data": {}}),
        json!({"type": "auth.success", "createdAt": "soon", "data": {}}),
        json!({"type": "auth.success", "createdAt": "2026-11-24T04:00:00Z", "data": [1]}),
        json!({"type": "http.request-url", "data": {"url": "/auth?access_token=hunter2&code=hunter2"}}),
    ];
    for bad in bad {
        let decoded = decode(&body(&[good.clone(), bad.clone(), good.clone()])).unwrap();
        let [
            Decoded::Event(..),
            Decoded::Dead(letter),
            Decoded::Event(..),
        ] = &decoded[..]
        else {
            panic!("{decoded:?}");
        };
        assert_eq!(letter.reason, DeadLetterReason::UnexpectedShape);
        assert_eq!(letter.position, sha256_hex(bad.to_string().as_bytes()));
        assert!(!String::from_utf8_lossy(&letter.raw).contains("hunter2"));
    }
}

#[test]
fn an_unreadable_event_has_the_same_position_under_another_id() {
    let position = |piece: &str| {
        let decoded = decode(format!("{{\"events\":[{piece}]}}").as_bytes()).unwrap();
        let [Decoded::Dead(letter)] = &decoded[..] else {
            panic!("{decoded:?}");
        };
        letter.position.clone()
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for data in ["[1]", deep.as_str()] {
        let sent = |id: u32, kind: &str| {
            position(&format!(
                r#"{{"id":"{id}","createdAt":"2026-11-24T04:00:00Z","type":"{kind}","data":{data}}}"#
            ))
        };
        assert_eq!(sent(1, "auth.failed"), sent(2, "auth.failed"), "{data}");
        assert_ne!(sent(1, "auth.failed"), sent(1, "auth.success"), "{data}");
    }
}

#[test]
fn unreadable_twins_of_one_body_are_two_letters() {
    let piece = |id: u32| format!(r#"{{"id":"{id}","type":"auth.failed","data":[1]}}"#);
    let body = format!("{{\"events\":[{},{}]}}", piece(1), piece(2));
    let decoded = decode(body.as_bytes()).unwrap();
    let [Decoded::Dead(first), Decoded::Dead(second)] = &decoded[..] else {
        panic!("{decoded:?}");
    };
    assert_eq!(second.position, format!("{}-1", first.position));
}

#[test]
fn an_event_nested_too_deep_is_quarantined_alone() {
    let deep = format!(
        r#"{{"events":[{{"type":"a.b","createdAt":"2026-11-24T04:00:00Z","data":{{"x":{}{}}}}},{}]}}"#,
        "[".repeat(5000),
        "]".repeat(5000),
        event("auth.success", json!({}))
    );
    let decoded = decode(deep.as_bytes()).unwrap();
    assert!(
        matches!(&decoded[..], [Decoded::Dead(letter), Decoded::Event(..)] if letter.detail.contains("nested"))
    );
}

#[test]
fn a_body_that_cannot_be_read_is_refused_as_what_it_is() {
    let source = source();
    let ctx = BodyContext {
        source: &source,
        received_at: Timestamp::UNIX_EPOCH,
    };
    for (body, reason) in [
        (&b""[..], DeadLetterReason::Malformed),
        (b"hello", DeadLetterReason::Malformed),
        (
            b"{\"events\":[{\"type\":\"auth.",
            DeadLetterReason::Malformed,
        ),
        (b"{\"events\":7} trailing", DeadLetterReason::Malformed),
        (b"[]", DeadLetterReason::UnexpectedShape),
        (b"{}", DeadLetterReason::UnexpectedShape),
        (b"[[]]", DeadLetterReason::UnexpectedShape),
        (
            b"{\"events\":{\"password\":\"hunter2\"}}",
            DeadLetterReason::UnexpectedShape,
        ),
        (b"{\"events\":null}", DeadLetterReason::UnexpectedShape),
        (b"{\"events\":[\"\xff\"]}", DeadLetterReason::InvalidUtf8),
    ] {
        let error = decode(body).unwrap_err();
        let letter = quarantine(body, &ctx, &error);
        assert_eq!(
            letter.reason,
            reason,
            "{error} {}",
            String::from_utf8_lossy(body)
        );
        assert_eq!(letter.position, sha256_hex(body));
        assert!(!format!("{letter:?}").contains("hunter2"));
    }
    assert_eq!(decode(b"{\"events\":[]}").unwrap(), []);
}

#[test]
fn hostile_names_are_data() {
    let long = "x".repeat(2000);
    for name in [
        "",
        "a\u{0}b",
        "\r\nInjected: 1",
        "\u{202e}evil",
        "<script>",
        long.as_str(),
        "😀@x",
    ] {
        let (event, _) = one(
            "auth.failed",
            json!({"accountName": name, "a.b": 1, "$where": 1}),
        );
        let seen = event.actor.name.or(event.actor.email).unwrap_or_default();
        assert_eq!(seen, name);
        assert_eq!(event.metadata["data"]["$where"], 1);
    }
}

#[test]
fn the_proxy_of_a_change_is_marked() {
    let (event, _) = one(
        "jmap.method-call",
        json!({"id": "x:AccountPassword/set", "accountId": 1}),
    );
    assert_eq!(event.action, "stalwart.password_changed");
    assert_eq!(event.metadata[REMARKS]["proxy"], true);
    assert_eq!(event.actor.id.as_deref(), Some("1"));
    assert!(event.target.is_empty());
}

#[test]
fn masking_does_not_change_the_key() {
    let with = |contents: &str| {
        ids(&body(&[event(
            "imap.raw-input",
            json!({"contents": contents}),
        )]))
    };
    assert_ne!(with("a"), with("b"));
    let (event, _) = one(
        "imap.raw-input",
        json!({"contents": "1 LOGIN a pw", "remoteIp": "192.0.2.1"}),
    );
    assert_eq!(
        event.metadata["data"],
        json!({"contents": "***", "remoteIp": "192.0.2.1"})
    );
}

#[test]
fn a_secret_beside_the_data_is_masked_too() {
    let mut event = event("auth.failed", json!({"accountName": "alice"}));
    event["accessToken"] = json!("s3cr3t");
    event["more"] = json!({"password": "s3cr3t", "n": 1});
    let decoded = decode(&body(&[event])).unwrap();
    assert!(!format!("{decoded:?}").contains("s3cr3t"), "{decoded:?}");
}

proptest! {
    #[test]
    fn any_bytes_end_in_events_or_an_error(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&raw).map(|decoded| decoded.len());
    }

    #[test]
    fn any_events_get_distinct_keys(names in proptest::collection::vec("[ab]{0,2}", 0..12)) {
        let events: Vec<Value> = names.iter().map(|name| event("auth.failed", json!({"accountName": name}))).collect();
        let mut keys = ids(&body(&events));
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), names.len());
    }
}
