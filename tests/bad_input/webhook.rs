//! Signed webhooks that are not what Stalwart writes.

use serde_json::json;
use testkit::World;
use testkit::http::{exchange, signed};

const ROUTE: &str = "/ingest/stalwart/webhook";
const KEY: &str = "key";

/// Body, reason of its dead letter, a piece of its detail.
pub fn bodies() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let good = r#"{"events":[{"type":"auth.failed","createdAt":"2026-11-24T04:00:00Z","data":{"accountName":"é"}}]}"#;
    let inside = good.find('é').unwrap();
    let cut = |at: usize| good.as_bytes()[..at].to_vec();
    let mut bodies: Vec<(Vec<u8>, &str, &str)> = vec![
        (cut(1), "malformed", "cut off at line 1 column 1"),
        (cut(12), "malformed", "cut off"),
        (cut(good.len() - 1), "malformed", "cut off"),
        (cut(inside + 1), "invalid_utf8", "no UTF-8 at byte 91"),
        (
            good.replace('é', "\u{1}").into_bytes(),
            "malformed",
            "not JSON at line 1 column",
        ),
        (
            format!("{good}{good}").into_bytes(),
            "malformed",
            "not JSON",
        ),
        (
            format!("\u{feff}{good}").into_bytes(),
            "malformed",
            "not JSON at line 1 column 1",
        ),
        (
            good.replace('"', "'").into_bytes(),
            "malformed",
            "not JSON at line 1 column 2",
        ),
        (
            good.replace("}]", "},]").into_bytes(),
            "malformed",
            "not JSON",
        ),
    ];
    let texts = [
        ("", "malformed", "cut off"),
        ("   \r\n", "malformed", "cut off"),
        ("hello", "malformed", "not JSON"),
        ("<html></html>", "malformed", "not JSON"),
        ("events=1&type=auth.failed", "malformed", "not JSON"),
        ("NaN", "malformed", "not JSON"),
        (
            "null",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "7",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "\"events\"",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "[]",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "[[]]",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "{}",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "{\"Events\":[]}",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "{\"events\":{}}",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "{\"events\":null}",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
        (
            "{\"events\":\"[]\"}",
            "unexpected_shape",
            "not an object with a list `events`",
        ),
    ];
    bodies.extend(texts.map(|(body, reason, detail)| (body.as_bytes().to_vec(), reason, detail)));
    bodies.extend([
        (vec![0], "malformed", "not JSON"),
        (
            vec![0xff, 0xfe, b'{', 0],
            "invalid_utf8",
            "no UTF-8 at byte 0",
        ),
        (
            b"\x1f\x8b\x08\x00\x00".to_vec(),
            "invalid_utf8",
            "no UTF-8 at byte 1",
        ),
        (
            format!("{}{}", "[".repeat(200), "]".repeat(200)).into_bytes(),
            "unexpected_shape",
            "not an object",
        ),
        ("[".repeat(100_000).into_bytes(), "malformed", "cut off"),
    ]);
    bodies
}

/// An event within a body, a piece of its dead letter's detail.
#[rustfmt::skip]
pub const EVENTS: &[(&str, &str)] = &[
    ("7", "an event is an object"),
    ("null", "an event is an object"),
    ("true", "an event is an object"),
    ("\"auth.failed\"", "an event is an object"),
    ("[{}]", "an event is an object"),
    ("{}", "without `type`"),
    (r#"{"type":null,"createdAt":"2026-11-24T04:00:00Z"}"#, "without `type`"),
    (r#"{"type":7,"createdAt":"2026-11-24T04:00:00Z"}"#, "without `type`"),
    (r#"{"type":"","createdAt":"2026-11-24T04:00:00Z"}"#, "without `type`"),
    (r#"{"Type":"auth.failed","createdAt":"2026-11-24T04:00:00Z"}"#, "without `type`"),
    (r#"{"type":"auth.failed"}"#, "without `createdAt`"),
    (r#"{"type":"auth.failed","createdAt":1795492800}"#, "without `createdAt`"),
    (r#"{"type":"auth.failed","createdAt":""}"#, "no RFC 3339 time"),
    (r#"{"type":"auth.failed","createdAt":"yesterday"}"#, "no RFC 3339 time"),
    (r#"{"type":"auth.failed","createdAt":"2026-11-24T04:00:00"}"#, "no RFC 3339 time"),
    (r#"{"type":"auth.failed","createdAt":"2026-02-30T04:00:00Z"}"#, "no RFC 3339 time"),
    (r#"{"type":"auth.failed","createdAt":"2026-11-24T04:00:00Z","data":[]}"#, "`data` is no object"),
    (r#"{"type":"auth.failed","createdAt":"2026-11-24T04:00:00Z","data":"x"}"#, "`data` is no object"),
];

/// Without a journal: what is answered stands in the store.
async fn world() -> World {
    let plan = World::sqlite().await.journal_size("0B");
    let key = plan.file("key", KEY);
    let source = format!("kind = \"stalwart\"\nsecret_files = [{key:?}]");
    let world = plan.source(&source).start().await;
    world.ready().await;
    world
}

fn good(index: usize) -> String {
    format!(
        r#"{{"type":"auth.success","createdAt":"2026-11-24T04:00:00Z","data":{{"spanId":{index}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_body_is_acknowledged_and_kept_with_its_reason() {
    let world = world().await;
    let address = world.daybook().address();
    for (index, (body, reason, detail)) in bodies().into_iter().enumerate() {
        let shown: String = String::from_utf8_lossy(&body).chars().take(100).collect();
        let answer = exchange(address, signed(ROUTE, KEY, &body)).await;
        assert_eq!(answer.status, 200, "{shown}");
        assert_eq!(
            answer.json(),
            json!({"received": 0, "quarantined": 1}),
            "{shown}"
        );
        let letters = world.daybook().store().dead_letters(1000).await.unwrap();
        assert_eq!(letters.len(), index + 1, "{shown}");
        let letter = letters
            .into_iter()
            .map(|kept| kept.letter)
            .find(|letter| letter.raw == body);
        let letter = letter.unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(letter.reason.as_str(), reason, "{shown}: {}", letter.detail);
        assert!(letter.detail.contains(detail), "{shown}: {}", letter.detail);

        let body = format!("{{\"events\":[{}]}}", good(index));
        let answer = exchange(address, signed(ROUTE, KEY, body)).await;
        assert_eq!(answer.json(), json!({ "received": 1 }), "after {shown}");
    }
    assert_eq!(world.events().await.len(), bodies().len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_is_kept_aside_and_its_neighbours_are_entered() {
    let world = world().await;
    let mut received = 0;
    for (index, (bad, detail)) in EVENTS.iter().enumerate() {
        let body = format!(
            "{{\"events\":[{},{bad},{}]}}",
            good(2 * index),
            good(2 * index + 1)
        );
        let answer = exchange(world.daybook().address(), signed(ROUTE, KEY, body)).await;
        assert_eq!(
            answer.json(),
            json!({"received": 2, "quarantined": 1}),
            "{bad}"
        );
        received += 2;
        assert_eq!(world.events().await.len(), received, "{bad}");
        let letters = world.daybook().store().dead_letters(1000).await.unwrap();
        let letter = letters
            .iter()
            .find(|kept| kept.letter.raw == bad.as_bytes());
        let letter = &letter.unwrap_or_else(|| panic!("{bad}")).letter;
        assert_eq!(letter.reason.as_str(), "unexpected_shape", "{bad}");
        assert!(letter.detail.contains(detail), "{bad}: {}", letter.detail);
    }
    world.stop().await;
}
