//! Questions to the API that make no sense, and the longest that make some.

use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use testkit::World;
use testkit::http::exchange;
use testkit::mongod::Mongod;
use testkit::world::Plan;

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
    ("before=eDph", "\"before\" must be the `next` of an earlier answer"),
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
    ("/api/v1/events/0?sort=at", 400, "bad_request"),
    ("/api/v1/sources?sort=at", 400, "bad_request"),
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
    for (name, longest) in [
        ("text", 1024),
        ("tenant", 8192),
        ("ip", 8192),
        ("actor", 8190),
        ("target", 8190),
    ] {
        let long = format!("/api/v1/events?{name}={}", "x".repeat(longest + 1));
        let (status, answer) = ask(&world, &long).await;
        assert_eq!(status, 400);
        let told = format!("is longer than {longest} bytes");
        assert!(answer.to_string().contains(&told), "{answer}");
    }
    for (path, wanted, code) in PATHS {
        let (status, answer) = ask(&world, path).await;
        assert_eq!(status, *wanted, "{path}: {answer}");
        assert_eq!(answer["error"]["code"], *code, "{path}");
        let told = answer["error"]["message"].as_str().unwrap();
        let named = "\"sort\" is not a parameter of this query";
        assert_eq!(told.contains(named), path.contains('?'), "{path}: {told}");
    }
    world.stop().await;
}

/// As the page writes it into its links.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte);
    let bytes = text.bytes().map(|byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}

async fn the_longest_values_are_found(plan: Plan) {
    let plan = plan.journal_size("0B").source("kind = \"recorder\"");
    let world = plan.start().await;
    world.ready().await;
    let names = [
        "N".repeat(2000),
        "𝒳".repeat(2000),
        // The longest patterns that a store gets: of escapes, and of a letter with more than two forms.
        ".".repeat(8190),
        "\0".repeat(4095),
        "k".repeat(8190),
    ];
    let by = |name: &String| json!({"action": "name.changed", "actor": {"name": name}, "target": {"name": name}});
    let (tenant, address) = ("é".repeat(4096), "\0".repeat(8192));
    let of_tenant =
        json!({"action": "name.changed", "tenantSlug": tenant, "actor": {"ip": address}});
    let events: Vec<Value> = names.iter().map(by).chain([of_tenant]).collect();
    let body = json!({ "events": events }).to_string();
    let answer = world.post("/api/v1/events", body, &[]).await;
    assert_eq!(answer, (200, json!({ "received": events.len() })));
    for (name, value) in [("tenant", &tenant), ("ip", &address)] {
        let path = format!("/api/v1/events?{name}={}", encoded(value));
        let (status, answer) = ask(&world, &path).await;
        assert_eq!(status, 200, "{name}: {answer}");
        let found = answer["events"].as_array().unwrap();
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0]["tenantSlug"], tenant.as_str(), "{name}");
    }
    let page = world.text("/audit").await;
    let sent = encoded(&tenant);
    let link = format!("class=\"tenant\" href=\"/audit?tenant={sent}\"");
    assert!(page.contains(&link));
    for row in page.split("<li class=\"event").skip(1) {
        let (row, _) = row.split_once("</li>").unwrap();
        for link in row.split("href=\"/").skip(1) {
            let link = link.split('"').next().unwrap().replace("&amp;", "&");
            let request = format!("GET /{link} HTTP/1.1\r\nhost: x\r\n\r\n");
            let answer = exchange(world.daybook().address(), request).await;
            let shown: String = link.chars().take(40).collect();
            assert_eq!(answer.status, 200, "{shown}");
        }
    }
    for name in &names {
        let sent = encoded(name);
        let shown: String = sent.chars().take(12).collect();
        for query in [
            format!("actor={sent}"),
            format!("target={sent}"),
            format!("actor={sent}&target={sent}"),
        ] {
            let (status, answer) = ask(&world, &format!("/api/v1/events?{query}")).await;
            assert_eq!(status, 200, "{shown}: {answer}");
            let found = answer["events"].as_array().unwrap();
            assert_eq!(found.len(), 1, "{shown}");
            assert_eq!(found[0]["actor"]["name"], name.as_str(), "{shown}");
        }
        for (class, parameter) in [("who", "actor"), ("what", "target")] {
            let link = format!("class=\"{class}\" href=\"/audit?{parameter}={sent}\"");
            assert!(page.contains(&link), "{parameter} {shown}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_values_are_found_in_sqlite() {
    the_longest_values_are_found(World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_values_are_found_in_mongodb() {
    the_longest_values_are_found(World::mongodb(Mongod::shared().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_behind_any_id_of_others() {
    let mongod = Mongod::shared().await;
    let plan = World::mongodb(mongod).await;
    let world = plan.source("kind = \"recorder\"").start().await;
    world.ready().await;
    let database = mongod.database(&world.database_name()).await;
    let stored = database.collection::<Document>("auditevents");
    let ids = ["a\nb".to_owned(), "L".repeat(800), String::new()];
    let at = DateTime::from_millis(1_700_000_000_000);
    let events = ids.iter().zip(0..).map(|(id, number)| {
        // Of a tenant whom nobody can ask for.
        let tenant = "t".repeat(8193);
        doc! {
            "_id": id.as_str(), "at": at, "source": "others", "action": "a.b",
            "externalId": number.to_string(), "tenantSlug": tenant,
        }
    });
    stored.insert_many(events).await.unwrap();
    let first = "/api/v1/events?source=others&limit=1";
    let mut path = first.to_owned();
    let mut found = Vec::new();
    while found.len() < ids.len() {
        let (status, answer) = ask(&world, &path).await;
        assert_eq!(status, 200, "{answer}");
        found.push(answer["events"][0]["id"].clone());
        match answer["next"].as_str() {
            Some(next) => path = format!("{first}&before={next}"),
            None => break,
        }
    }
    assert_eq!(found, ids);
    let page = world.text("/audit?source=others").await;
    assert!(page.contains("<a class=\"tenant\" title="), "{page}");
    world.stop().await;
}

/// By hand: a client would tidy the path up.
async fn ask(world: &World, path: &str) -> (u16, Value) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = exchange(world.daybook().address(), request).await;
    (answer.status, answer.json())
}
