//! Signed, but not what Stalwart writes: kept for a person, acknowledged, and no obstacle to the rest.

use serde_json::json;
use testkit::World;
use testkit::http::Capture;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{KEY, body, event, send, with_keys, world};

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_body_is_kept_once_with_its_bytes() {
    let world = world().await;
    let mut deep = "[".repeat(200);
    deep.push_str(&"]".repeat(200));
    // An `id` may be a credential (`auth.error`).
    let good = body("x", 2).replace(r#""id":"1","#, "");
    let bodies: [(&[u8], &str); 9] = [
        (b"hello", "malformed"),
        (b"", "malformed"),
        (&good.as_bytes()[..good.len() - 1], "malformed"),
        (b"{\"events\":[\xff\xfe]}", "invalid_utf8"),
        (deep.as_bytes(), "unexpected_shape"),
        (b"{\"events\":{}}", "unexpected_shape"),
        (b"[]", "unexpected_shape"),
        (b"{\"event\":[]}", "unexpected_shape"),
        (b"null", "unexpected_shape"),
    ];
    for _ in 0..3 {
        for (body, _) in bodies {
            let answer = send(&world, body).await;
            let shown = String::from_utf8_lossy(body);
            assert_eq!(answer.status, 200, "{shown}");
            assert_eq!(
                answer.json(),
                json!({"received": 0, "quarantined": 1}),
                "{shown}"
            );
        }
    }
    let letters = world.daybook().store().dead_letters(100).await.unwrap();
    assert_eq!(letters.len(), bodies.len());
    for (body, reason) in bodies {
        let found = letters.iter().find(|each| each.letter.raw == body);
        let found = found.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(body)));
        assert_eq!(found.letter.reason.as_str(), reason, "{found:?}");
        assert_eq!(found.letter.raw_length, body.len() as u64);
        assert!(found.letter.detail.starts_with("the body is "), "{found:?}");
        assert_eq!(found.attempts, 3, "{found:?}");
    }
    assert!(world.events().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_among_good_ones_are_kept_aside() {
    let world = world().await;
    let (open, close) = ("[".repeat(200), "]".repeat(200));
    let deep = format!(
        r#"{{"type":"auth.failed","createdAt":"2026-11-24T04:00:00Z","data":{{"a":{open}{close}}}}}"#
    );
    let bad = [
        "7",
        "null",
        "[]",
        "\"text\"",
        "{}",
        r#"{"type":"auth.failed"}"#,
        r#"{"type":"","createdAt":"2026-11-24T04:00:00Z"}"#,
        r#"{"type":"auth.failed","createdAt":"yesterday"}"#,
        r#"{"type":"auth.failed","createdAt":"2026-11-24T04:00:00Z","data":[1]}"#,
        &deep,
    ];
    let mut events = vec![event("good", 0)];
    for (index, bad) in bad.iter().enumerate() {
        events.push((*bad).to_owned());
        events.push(event("good", index + 1));
    }
    let body = format!("{{\"events\":[{}]}}", events.join(","));
    for _ in 0..2 {
        let answer = send(&world, &body).await;
        let wanted = json!({"received": bad.len() + 1, "quarantined": bad.len()});
        assert_eq!((answer.status, answer.json()), (200, wanted));
    }
    assert_eq!(world.events().await.len(), bad.len() + 1);
    let letters = world.daybook().store().dead_letters(100).await.unwrap();
    assert_eq!(letters.len(), bad.len());
    for bad in bad {
        let kept = letters
            .iter()
            .find(|each| each.letter.raw == bad.as_bytes());
        assert_eq!(
            kept.unwrap().letter.reason.as_str(),
            "unexpected_shape",
            "{bad}"
        );
    }
    world.stop().await;
}

/// Newer servers give an event another `id` each time that they send it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_that_is_sent_again_is_kept_once() {
    let world = world().await;
    for id in 1..=3 {
        let bad = format!(r#"{{"id":"{id}","createdAt":"yesterday","type":"auth.failed"}}"#);
        let body = format!("{{\"events\":[{bad},{}]}}", event("good", 0));
        let answer = send(&world, &body).await;
        let wanted = json!({"received": 1, "quarantined": 1});
        assert_eq!((answer.status, answer.json()), (200, wanted));
    }
    assert_eq!(world.events().await.len(), 1);
    let letters = world.daybook().store().dead_letters(100).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].attempts, 3);
    world.stop().await;
}

/// The whole payload of every type that carries content, whole and cut: what was said over the
/// wire stands in no event, dead letter or log line.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_over_the_wire_reaches_neither_store_nor_log() {
    let log = super::logs::capture();
    let world = world().await;
    let capture = Capture::named("v016_unsigned_bearer_all_events_178KB.http");
    let secret = "Correct-Horse";
    let sent = String::from_utf8(capture.body.clone()).unwrap();
    assert!(sent.contains(secret));

    let unsigned = capture.request(super::ROUTE, world.daybook().address());
    let answer = testkit::http::exchange(world.daybook().address(), unsigned).await;
    assert_eq!(answer.status, 401);
    assert!(world.events().await.is_empty());

    let answer = send(&world, &sent).await;
    assert_eq!(answer.json(), json!({ "received": capture.events }));
    let mut cuts = 0;
    for end in (1..sent.len()).step_by(9973) {
        let answer = send(&world, &sent.as_bytes()[..end]).await;
        assert_eq!(answer.json()["quarantined"], 1);
        cuts += 1;
    }
    let events = world.events().await;
    assert_eq!(events.len(), capture.events);
    let mut kept = serde_json::to_string(&events).unwrap();
    let letters = world.daybook().store().dead_letters(1000).await.unwrap();
    assert_eq!(letters.len(), cuts);
    for letter in letters {
        kept.push_str(&letter.letter.detail);
        kept.push_str(&String::from_utf8_lossy(&letter.letter.raw));
    }
    let sources = world.text("/api/v1/sources").await;
    let listed = world.text("/api/v1/events?limit=1000").await;
    world.stop().await;
    let log = log.text();
    assert!(
        log.contains("webhook is refused for its signature"),
        "{log}"
    );
    // A secret as it is, as JSON writes it, and what encodes it for a log-in.
    let encoded = "Basic aG9vazpzM2NyZXQ";
    for (place, text) in [
        ("store", &kept),
        ("log", &log),
        ("status", &sources),
        ("list", &listed),
    ] {
        assert!(!text.contains(secret), "{place}");
        assert!(!text.contains(encoded), "{place}");
    }
    assert!(!log.contains(super::KEY));
}

/// No document of MongoDB is longer than 16 MiB. Sending the same again would not help, so what
/// does not fit is kept as a dead letter, as much of it as fits, and acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_larger_than_a_document_is_kept_aside() {
    let plan = World::mongodb(Mongod::shared().await).await;
    let plan = with_keys(plan, &[KEY]);
    // So much at once takes a slow machine its time.
    let world = plan
        .start_with("auth = \"none\"", "timeout = \"50s\"")
        .await;
    world.ready().await;
    for (size, received) in [(15 << 20, 3), (17 << 20, 2)] {
        let huge = format!(
            r#"{{"type":"server.panic","createdAt":"2026-11-24T04:00:00Z","data":{{"reason":"{}"}}}}"#,
            "x".repeat(size)
        );
        let name = format!("beside-{size}");
        let body = format!(
            "{{\"events\":[{},{huge},{}]}}",
            event(&name, 0),
            event(&name, 1)
        );
        let before = world
            .daybook()
            .store()
            .dead_letters(100)
            .await
            .unwrap()
            .len();
        let mut answer = send(&world, &body).await;
        eventually("it is durable in time", async || {
            if answer.status == 503 {
                answer = send(&world, &body).await;
            }
            answer.status != 503
        })
        .await;
        assert_eq!(answer.status, 200, "{size}: {answer:?}");
        assert_eq!(answer.json()["received"], received, "{size}");
        let letters = world.daybook().store().dead_letters(100).await.unwrap();
        assert_eq!(letters.len() - before, 3 - received, "{size}");
        if received == 2 {
            assert_eq!(answer.json()["quarantined"], 1, "{size}");
            let letter = &letters[0].letter;
            assert_eq!(letter.reason.as_str(), "rejected", "{letter:.300?}");
            assert!(letter.raw_length > size as u64, "{}", letter.raw_length);
            assert!(letter.raw.len() > 1 << 20, "{}", letter.raw.len());
            assert!(letter.detail.contains("16"), "{}", letter.detail);
        }
    }
    world.stop().await;
}
