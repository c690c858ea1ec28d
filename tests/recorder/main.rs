//! Events of the platform's own services: who may send them, what is kept, what is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

mod memory;
mod tokens;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use serde_json::{Value, json};
use testkit::World;
use testkit::http;
use testkit::mongod::Mongod;
use testkit::world::{PATIENCE, Plan, eventually};

const PATH: &str = "/api/v1/events";
const RECORDER: &str = "kind = \"recorder\"\nname = \"platform-api\"";

async fn world() -> World {
    world_in(World::sqlite().await).await
}

/// Without a journal: what is answered stands in the store.
async fn world_in(plan: Plan) -> World {
    let plan = plan.source(RECORDER).journal_size("0B");
    let world = plan.start().await;
    world.ready().await;
    world
}

async fn post(world: &World, body: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    world.post(PATH, body.to_string(), headers).await
}

fn received(count: usize) -> (u16, Value) {
    (200, json!({ "received": count }))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_or_many_are_entered_as_given() {
    let world = world().await;
    let one = json!({
        "action": "invoice.paid",
        "at": "2026-11-24T05:05:39.123456+01:00",
        "actor": {"id": "u-1", "email": "alice@example.org", "name": "Alice", "ip": "2001:db8::1"},
        "target": {"type": "invoice", "id": "4711", "name": "№ 4711"},
        "outcome": "success",
        "tenantSlug": "a-tenant-nobody-knows",
        "externalId": "inv-4711",
        "metadata": {"amount": 12.50, "lines": [1, 2, {"three": null}]}
    });
    assert_eq!(post(&world, &one, &[]).await, received(1));
    let (status, listed) = world.get(PATH).await;
    assert_eq!(status, 200);
    let event = &listed["events"][0];
    assert_eq!(event["at"], "2026-11-24T04:05:39.123Z");
    assert_eq!(event["source"], "platform-api");
    for field in [
        "action",
        "actor",
        "target",
        "outcome",
        "tenantSlug",
        "externalId",
        "metadata",
    ] {
        assert_eq!(event[field], one[field], "{field}");
    }
    let (status, alone) = world
        .get(&format!("{PATH}/{}", event["id"].as_str().unwrap()))
        .await;
    assert_eq!((status, &alone), (200, event));

    let many: Vec<Value> = (0..2500)
        .map(
            |index| json!({"action": format!("job.{index}"), "externalId": format!("job-{index}")}),
        )
        .collect();
    assert_eq!(
        post(&world, &json!({ "events": many }), &[]).await,
        received(2500)
    );
    assert_eq!(world.events().await.len(), 2501);

    // The least that is an event: its time is that of its arrival.
    let before = jiff::Timestamp::now();
    assert_eq!(
        post(&world, &json!({"action": "ping"}), &[]).await,
        received(1)
    );
    let newest = world.events().await.remove(0);
    assert_eq!(newest.action, "ping");
    assert!(newest.at.as_millisecond() >= before.as_millisecond());
    assert!(newest.at <= jiff::Timestamp::now());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_harmless_where_it_can_be_told() {
    let world = world().await;
    let named = json!({"action": "a", "externalId": "x"});
    let nameless =
        json!({"events": [{"action": "b"}, {"action": "b"}, {"action": "c", "externalId": "y"}]});
    for _ in 0..3 {
        let repeats = (0..10).map(|_| post(&world, &named, &[]));
        for answer in futures_util::future::join_all(repeats).await {
            assert_eq!(answer, received(1));
        }
        let repeats = (0..10).map(|_| post(&world, &nameless, &[("idempotency-key", "order-1")]));
        for answer in futures_util::future::join_all(repeats).await {
            assert_eq!(answer, received(3));
        }
    }
    assert_eq!(world.events().await.len(), 1 + 3);
    // Another key is another request.
    let answer = post(&world, &nameless, &[("idempotency-key", "order-2")]).await;
    assert_eq!(answer, received(3));
    assert_eq!(world.events().await.len(), 4 + 2, "y has a name of its own");
    // Without a name and a key each request speaks of new events.
    for _ in 0..3 {
        assert_eq!(
            post(&world, &json!({"action": "d"}), &[]).await,
            received(1)
        );
    }
    let events = world.events().await;
    assert_eq!(events.len(), 9);
    let ids: BTreeSet<&str> = events
        .iter()
        .map(|event| event.external_id.as_str())
        .collect();
    assert_eq!(ids.len(), 9);
    assert!(ids.iter().filter(|id| id.starts_with("rnd:")).count() == 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_what_the_store_refuses_is_told_so_too() {
    let world = world().await;
    let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    // It is refused as a row is that is too large.
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON auditevents
        WHEN NEW.externalId = 'huge' BEGIN SELECT zeroblob(2000000000); END";
    database.execute_batch(refuse).unwrap();
    let huge = json!({"action": "a", "externalId": "huge"});
    let both = json!({"events": [huge, {"action": "a", "externalId": "good"}]});
    for _ in 0..2 {
        for (body, received) in [(&huge, 0), (&both, 1)] {
            let told = json!({"received": received, "quarantined": 1});
            assert_eq!(post(&world, body, &[]).await, (200, told));
        }
    }
    assert_eq!(world.events().await.len(), 1);
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_that_people_see_is_the_stored_one() {
    let mut world = world().await;
    for (at, newest) in [
        ("2026-11-24T00:00:00Z", "2026-11-24T00:00:00Z"),
        ("2026-11-01T00:00:00Z", "2026-11-24T00:00:00Z"),
    ] {
        let event = json!({"action": "a", "at": at, "externalId": at});
        assert_eq!(post(&world, &event, &[]).await, received(1));
        let stored = world.daybook().store().cursors().await.unwrap().remove(0);
        assert_eq!(stored.last_event_at, Some(newest.parse().unwrap()));
        assert_eq!(stored.last_event_id.as_deref(), Some(at));
        let seen = json!({"lastEventAt": newest, "lastEventId": at, "generation": 0});
        let view = world.source_becomes("platform-api", "running").await;
        assert_eq!(view["cursor"], seen);

        world.restart().await;
        // Without an event; and it moves on from there.
        eventually("the stored cursor is seen", async || {
            let view = world.source_becomes("platform-api", "running").await;
            view["cursor"] == seen
        })
        .await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_event_keeps_the_whole_request_out() {
    let world = world().await;
    let mut events: Vec<Value> = (0..1500)
        .map(|index| json!({"action": format!("a.{index}")}))
        .collect();
    events[1400] = json!({"action": "a", "actor": {"email": 7}});
    let (status, answer) = post(&world, &json!({ "events": events }), &[]).await;
    assert_eq!(status, 400);
    assert_eq!(
        answer,
        json!({"error": {"code": "bad_request", "message": "events[1400].actor.email: must be a string"}})
    );
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
    for key in ["", " "] {
        let (status, answer) =
            post(&world, &json!({"action": "a"}), &[("idempotency-key", key)]).await;
        assert_eq!(status, 400, "{key:?}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .unwrap()
                .contains("Idempotency-Key")
        );
    }
    let (status, answer) = post(
        &world,
        &json!({"action": "a"}),
        &[("content-encoding", "gzip")],
    )
    .await;
    assert_eq!(status, 400);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Content-Encoding")
    );
    assert!(world.events().await.is_empty());
    world.stop().await;
}

/// All others are served by a single thread here, and asked by a thread that is none of the service's.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn others_are_answered_while_a_large_request_is_checked() {
    let probes = Probes::new();
    let options = TreeOptions {
        probes: probes.clone(),
        ..TreeOptions::of(&Config::default())
    };
    let world = world_in(World::sqlite().await.options(options)).await;
    let address = world.daybook().address();
    let check = probes.strike("http", "in_check", Fault::Stand, 1);
    let large = json!({"note": "x".repeat(64 << 10)});
    let event = json!({"action": "invoice.paid", "metadata": large}).to_string();
    let recorded = tokio::spawn(async move {
        let request = http::post(PATH, &[], event);
        http::exchange(address, request).await.json()
    });
    check.struck().await;
    let mut other = TcpStream::connect(address).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut status = [0; 12];
    other.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(check);
    assert_eq!(recorded.await.unwrap(), json!({"received": 1}));
    world.stop().await;
}

fn hostile() -> Vec<Value> {
    let mut deep = json!("bottom");
    for _ in 0..100 {
        deep = json!({ "d": deep });
    }
    let numbers: Value = serde_json::from_str(
        r#"{"u64": 18446744073709551615, "more": 123456789012345678901234567890, "i64": -9223372036854775808, "float": 1e300}"#,
    )
    .unwrap();
    let metadatas = [
        json!({"nul": "a\u{0}b", "\u{0}key\u{0}": 1, "": "no name"}),
        json!({"$where": "1", "a.b.c": {"$set": {"x.y": 1}}, "$": 1, ".": 2}),
        json!({"bidi": "\u{202e}gnp.exe", "lines": "a\r\nb", "html": "<script>alert(1)</script>", "emoji": "🔑🏳️‍🌈"}),
        json!({"quotes": "\"'`;--", "slash": "\\\\..//", "percent": "%00%s{}"}),
        json!({"long": "x".repeat(1 << 20)}),
        json!({"_id": "mine", "source": "not mine", "externalId": "nor mine", "__proto__": {"a": 1}}),
        deep,
        numbers,
    ];
    metadatas
        .into_iter()
        .enumerate()
        .map(|(index, metadata)| {
            let text = format!("{index}\u{0}\u{202e}<b>$ne.\"'\r\n");
            json!({
                "action": format!("hostile.$ne.{index}"),
                "externalId": format!("{index}\u{0}$\"\n"),
                "tenantSlug": text,
                "actor": {"id": text, "email": text, "name": text, "ip": text},
                "target": {"type": text, "id": text, "name": text},
                "metadata": metadata,
            })
        })
        .collect()
}

async fn hostile_strings_stay_what_they_are(plan: Plan) {
    let world = world_in(plan).await;
    let sent = hostile();
    for _ in 0..2 {
        let answer = post(&world, &json!({ "events": sent }), &[]).await;
        assert_eq!(answer, received(sent.len()));
    }
    let (_, listed) = world.get(PATH).await;
    let listed = listed["events"].as_array().unwrap();
    assert_eq!(listed.len(), sent.len());
    for sent in &sent {
        let kept = listed
            .iter()
            .find(|event| event["externalId"] == sent["externalId"]);
        let kept = kept.unwrap_or_else(|| panic!("{}", sent["action"]));
        for field in ["action", "tenantSlug", "actor", "target", "metadata"] {
            assert_eq!(
                kept[field].to_string(),
                sent[field].to_string(),
                "{}: {field}",
                sent["action"]
            );
        }
    }
    assert!(
        world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap()
            .is_empty()
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_strings_stay_what_they_are_in_sqlite() {
    hostile_strings_stay_what_they_are(World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_strings_stay_what_they_are_in_mongodb() {
    hostile_strings_stay_what_they_are(World::mongodb(Mongod::shared().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_metadata_are_masked() {
    let world = world().await;
    let event = json!({"action": "user.created", "metadata": {
        "password": "hunter2", "user": {"api_token": "hunter2", "client-secret": ["hunter2", {"a": "hunter2"}]},
        "name": "stays"
    }});
    assert_eq!(post(&world, &event, &[]).await, received(1));
    let text = world.text(PATH).await;
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("***") && text.contains("stays"));
    world.stop().await;
}
