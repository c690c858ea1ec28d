//! Requests to the recorder that are wrong: each is refused whole, with the place of its mistake.

use testkit::World;

/// Body, the error's message.
#[rustfmt::skip]
pub const CASES: &[(&str, &str)] = &[
    // The body as a whole.
    ("", "the body is empty"),
    (" \r\n", "the body is empty"),
    ("hello", "the body is not valid (not JSON at line 1 column 1)"),
    ("action=a", "the body is not valid (not JSON at line 1 column 1)"),
    ("{\"action\":\"a\"", "the body is not valid (JSON is cut off at line 1 column 13)"),
    ("{\"action\":\"a\"}{\"action\":\"b\"}", "the body is not valid (not JSON at line 1 column 15)"),
    ("{\"action\":\"a\",}", "the body is not valid (not JSON at line 1 column 15)"),
    ("{\"action\":\"\\ud800\"}", "the body is not valid (not JSON at line 1 column 18)"),
    ("null", "the body must be one event or an object with the list `events`"),
    ("[{\"action\":\"a\"}]", "the body must be one event or an object with the list `events`"),
    ("\"a\"", "the body must be one event or an object with the list `events`"),
    ("{\"events\":[]}", "events: must not be empty"),
    ("{\"events\":{}}", "events: must be a list"),
    ("{\"events\":null}", "events: must be a list"),
    ("{\"events\":[{\"action\":\"a\"}],\"tenantSlug\":\"x\"}", "tenantSlug: unknown field: beside `events` nothing may stand"),
    ("{\"events\":[{\"action\":\"a\"},7]}", "events[1]: must be an object"),
    ("{\"events\":[{\"action\":\"a\"},null]}", "events[1]: must be an object"),
    // One field each.
    ("{}", "action: is required"),
    ("{\"action\":null}", "action: is required"),
    ("{\"action\":7}", "action: must be a string"),
    ("{\"action\":\"\"}", "action: must not be empty"),
    ("{\"action\":\" \\t\"}", "action: must not be empty"),
    ("{\"action\":\"a\\u0000b\"}", "action: must not hold control characters"),
    ("{\"action\":\"a\\nb\"}", "action: must not hold control characters"),
    ("{\"action\":\"a\",\"at\":\"yesterday\"}", "at: must be an RFC 3339 time, such as 2026-11-24T04:05:39Z, not before the year 1 nor after 9999-12-30T22:00:00Z"),
    ("{\"action\":\"a\",\"at\":\"2026-11-24T04:05:39\"}", "at: must be an RFC 3339 time, such as 2026-11-24T04:05:39Z, not before the year 1 nor after 9999-12-30T22:00:00Z"),
    ("{\"action\":\"a\",\"at\":\"2026-13-24T04:05:39Z\"}", "at: must be an RFC 3339 time, such as 2026-11-24T04:05:39Z, not before the year 1 nor after 9999-12-30T22:00:00Z"),
    ("{\"action\":\"a\",\"at\":\"0000-12-31T23:59:59.5Z\"}", "at: must be an RFC 3339 time, such as 2026-11-24T04:05:39Z, not before the year 1 nor after 9999-12-30T22:00:00Z"),
    ("{\"action\":\"a\",\"at\":1795492800}", "at: must be a string"),
    ("{\"action\":\"a\",\"actor\":\"alice\"}", "actor: must be an object"),
    ("{\"action\":\"a\",\"actor\":{\"mail\":\"x\"}}", "actor.mail: unknown field; known are id, email, name, ip"),
    ("{\"action\":\"a\",\"actor\":{\"id\":7}}", "actor.id: must be a string"),
    ("{\"action\":\"a\",\"target\":[]}", "target: must be an object"),
    ("{\"action\":\"a\",\"target\":{\"kind\":\"x\"}}", "target.kind: unknown field; known are type, id, name"),
    ("{\"action\":\"a\",\"target\":{\"name\":{}}}", "target.name: must be a string"),
    ("{\"action\":\"a\",\"outcome\":\"ok\"}", "outcome: must be success, failure or unknown"),
    ("{\"action\":\"a\",\"outcome\":true}", "outcome: must be a string"),
    ("{\"action\":\"a\",\"tenantSlug\":\"\"}", "tenantSlug: must not be empty"),
    ("{\"action\":\"a\",\"tenantSlug\":7}", "tenantSlug: must be a string"),
    ("{\"action\":\"a\",\"externalId\":\"\"}", "externalId: must not be empty"),
    ("{\"action\":\"a\",\"externalId\":7}", "externalId: must be a string"),
    ("{\"action\":\"a\",\"metadata\":[]}", "metadata: must be an object"),
    ("{\"action\":\"a\",\"metadata\":\"x\"}", "metadata: must be an object"),
    ("{\"action\":\"a\",\"source\":\"authentik\"}", "source: unknown field; known are action, at, actor, target, outcome, tenantSlug, externalId, metadata"),
    ("{\"action\":\"a\",\"Action\":\"b\"}", "Action: unknown field; known are action, at, actor, target, outcome, tenantSlug, externalId, metadata"),
    // The place of a mistake among others.
    ("{\"events\":[{\"action\":\"a\"},{\"action\":\"b\",\"actor\":{\"email\":1}}]}", "events[1].actor.email: must be a string"),
    ("{\"events\":[{\"action\":\"a\"},{}]}", "events[1].action: is required"),
    ("{\"events\":[{\"action\":\"a\",\"externalId\":\"x\"},{\"action\":\"b\"},{\"action\":\"c\",\"externalId\":\"x\"}]}", "events[2].externalId: stands in an earlier event of this request too"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_refused_whole_and_told_where() {
    let world = World::sqlite()
        .await
        .source("kind = \"recorder\"")
        // What is answered stands in the store.
        .journal_size("0B")
        .start()
        .await;
    world.ready().await;
    for (body, message) in CASES {
        let (status, answer) = world.post("/api/v1/events", *body, &[]).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(answer["error"]["code"], "bad_request", "{body}");
        assert_eq!(answer["error"]["message"], *message, "{body}");
    }
    for (body, message) in [
        (
            format!("{{\"action\":\"{}\"}}", "ü".repeat(257)),
            "action: must not be longer than 256 characters",
        ),
        (
            format!(
                "{{\"action\":\"a\",\"externalId\":\"{}\"}}",
                "x".repeat(513)
            ),
            "externalId: must not be longer than 512 bytes",
        ),
        (
            format!(
                "{{\"action\":\"a\",\"target\":{{\"type\":\"{}\"}}}}",
                "ü".repeat(4097)
            ),
            "target.type: must not be longer than 8192 bytes",
        ),
        (
            format!(
                "{{\"action\":\"a\",\"tenantSlug\":\"{}\"}}",
                "x".repeat(8193)
            ),
            "tenantSlug: must not be longer than 8192 bytes",
        ),
        (
            format!(
                "{{\"action\":\"a\",\"metadata\":{}0{}}}",
                "{\"d\":".repeat(130),
                "}".repeat(130)
            ),
            "the body is not valid (JSON is nested deeper than 128 levels at line 1 column",
        ),
    ] {
        let (status, answer) = world.post("/api/v1/events", body, &[]).await;
        assert_eq!(status, 400);
        let told = answer["error"]["message"].as_str().unwrap().to_owned();
        assert!(told.starts_with(message), "{told}");
    }
    let (status, answer) = world
        .post("/api/v1/events", &b"{\"action\":\"\xff\"}"[..], &[])
        .await;
    assert_eq!(status, 400, "{answer}");
    assert!(world.events().await.is_empty());
    assert!(
        world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap()
            .is_empty()
    );

    let (status, _) = world
        .post("/api/v1/events", "{\"action\":\"good\"}", &[])
        .await;
    assert_eq!((status, world.events().await.len()), (200, 1));
    world.stop().await;
}
