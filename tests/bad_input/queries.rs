//! Questions to the API that make no sense.

use serde_json::Value;
use testkit::World;
use testkit::http::exchange;

/// Query string, a piece of the error's message.
#[rustfmt::skip]
pub const QUERIES: &[(&str, &str)] = &[
    ("limit=0", "\"limit\" must be a number from 1 to 1000"),
    ("limit=1001", "\"limit\" must be a number from 1 to 1000"),
    ("limit=-1", "\"limit\" must be a number from 1 to 1000"),
    ("limit=1e2", "\"limit\" must be a number from 1 to 1000"),
    ("limit=99999999999999999999", "\"limit\" must be a number from 1 to 1000"),
    ("since=yesterday", "\"since\" must be a time like 2026-11-24T04:05:39Z"),
    ("since=2026-11-24T04:05:39", "\"since\" must be a time like"),
    ("since=2026-11-24T04:05:39+01:00", "an unescaped + is a space"),
    ("until=2026-13-01", "\"until\" must be a time like"),
    ("until=1795492800", "\"until\" must be a time like"),
    ("since=2026-11-25&until=2026-11-24", "\"until\" is before since"),
    ("outcome=maybe", "\"outcome\" must be success, failure or unknown"),
    ("outcome=Success", "\"outcome\" must be success, failure or unknown"),
    ("before=!!", "\"before\" must be the `next` of an earlier answer"),
    ("before=YWJj", "\"before\" must be the `next` of an earlier answer"),
    ("before=MTo", "\"before\" must be the `next` of an earlier answer"),
    ("source=a&source=b", "\"source\" is given twice"),
    ("limit=5&limit=5", "\"limit\" is given twice"),
    ("tenant=a&%74enant=b", "\"tenant\" is given twice"),
    ("sort=at", "\"sort\" is not a parameter of this query"),
    ("Source=a", "\"Source\" is not a parameter of this query"),
    ("$where=1", "\"$where\" is not a parameter of this query"),
    ("actor[$ne]=x", "\"actor[$ne]\" is not a parameter of this query"),
    ("text=%zz", "% without two hexadecimal digits"),
    ("text=%f", "% without two hexadecimal digits"),
    ("text=%ff", "not UTF-8"),
];

/// Path, status, code.
#[rustfmt::skip]
pub const PATHS: &[(&str, u16, &str)] = &[
    ("/api/v1/events/", 404, "not_found"),
    ("/api/v1/events/0", 404, "not_found"),
    ("/api/v1/events/not-an-id", 404, "not_found"),
    ("/api/v1/events/%00", 404, "not_found"),
    ("/api/v1/events/../../etc/passwd", 404, "not_found"),
    ("/api/v1/events/%2e%2e%2f", 404, "not_found"),
    ("/api/v1/events/%ff", 400, "bad_request"),
    ("/api/v1/events/1/2", 404, "not_found"),
    ("/api/v2/events", 404, "not_found"),
    ("/api/v1", 404, "not_found"),
    ("//api/v1/events", 404, "not_found"),
    ("/nowhere", 404, "not_found"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_sense_is_refused_by_name() {
    let world = World::sqlite()
        .await
        .source("kind = \"recorder\"")
        .start()
        .await;
    world.ready().await;
    for (query, message) in QUERIES {
        let (status, answer) = ask(&world, &format!("/api/v1/events?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert_eq!(answer["error"]["code"], "bad_request", "{query}");
        let told = answer["error"]["message"].as_str().unwrap();
        assert!(told.contains(message), "{query}: {told}");
    }
    let long = format!("/api/v1/events?text={}", "x".repeat(1025));
    let (status, answer) = ask(&world, &long).await;
    assert_eq!(status, 400);
    assert!(
        answer.to_string().contains("is longer than 1024 bytes"),
        "{answer}"
    );
    for (path, wanted, code) in PATHS {
        let (status, answer) = ask(&world, path).await;
        assert_eq!(status, *wanted, "{path}: {answer}");
        assert_eq!(answer["error"]["code"], *code, "{path}");
    }
    world.stop().await;
}

/// By hand: a client would tidy the path up.
async fn ask(world: &World, path: &str) -> (u16, Value) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = exchange(world.daybook().address(), request).await;
    (answer.status, answer.json())
}
