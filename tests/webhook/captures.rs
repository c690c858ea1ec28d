//! Every captured request of real servers, replayed with its original head, into real stores.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use testkit::World;
use testkit::http::{Capture, exchange};
use testkit::mongod::Mongod;
use testkit::world::Plan;

use super::{ROUTE, with_keys};

fn with_every_key(plan: Plan) -> Plan {
    let keys: BTreeSet<String> = Capture::all()
        .into_iter()
        .map(|capture| capture.key)
        .filter(|key| !key.is_empty())
        .collect();
    assert!(keys.iter().any(|key| !key.is_ascii()), "{keys:?}");
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    with_keys(plan, &keys)
}

fn is_good(capture: &Capture) -> bool {
    capture.method == "POST" && !capture.key.is_empty()
}

/// Sends it, checks the answer, and gives the number of events that it must have brought.
async fn replay(world: &World, capture: &Capture) -> usize {
    let address = world.daybook().address();
    let answer = exchange(address, capture.request(ROUTE, address)).await;
    let name = &capture.name;
    if is_good(capture) {
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(
            answer.json(),
            json!({ "received": capture.events }),
            "{name}"
        );
        return capture.events;
    }
    let wanted = if capture.method == "GET" { 405 } else { 401 };
    assert_eq!(answer.status, wanted, "{name}: {answer:?}");
    assert!(!answer.error().is_empty(), "{name}");
    0
}

async fn alone_in_mongodb() -> World {
    let plan = World::mongodb(Mongod::shared().await).await;
    let world = with_every_key(plan).start().await;
    world.ready().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capture_alone_is_answered_and_stored_whole() {
    for capture in Capture::all() {
        let world = with_every_key(World::sqlite().await).start().await;
        world.ready().await;
        let count = replay(&world, &capture).await;
        // Answered means durable: nothing to wait for.
        let events = world.events().await;
        assert_eq!(events.len(), count, "{}", capture.name);
        for _ in 0..2 {
            replay(&world, &capture).await;
        }
        assert_eq!(world.events().await.len(), count, "{} again", capture.name);
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
}

/// How many different events the signed captures hold: an event is what its content says, and its
/// place among its twins in one body.
fn distinct_events(captures: &[Capture]) -> usize {
    let mut distinct = BTreeSet::new();
    for capture in captures.iter().filter(|capture| is_good(capture)) {
        let body: Value = serde_json::from_slice(&capture.body).unwrap();
        let mut twins: BTreeMap<String, usize> = BTreeMap::new();
        for event in body["events"].as_array().unwrap() {
            let mut event = event.clone();
            event.as_object_mut().unwrap().remove("id");
            let content = event.to_string();
            let ordinal = twins.entry(content.clone()).or_default();
            distinct.insert((content, *ordinal));
            *ordinal += 1;
        }
    }
    distinct.len()
}

/// The answers count what was sent; the store holds each event once, however often it was sent,
/// by whom, and at the same time as what.
#[tokio::test(flavor = "multi_thread")]
async fn all_captures_at_once_and_again_and_after_a_restart_are_stored_once() {
    let mut world = alone_in_mongodb().await;
    let captures = Capture::all();
    let mut distinct = 0;
    for _round in 0..3 {
        let replays = captures
            .iter()
            .chain(captures.iter().rev())
            .map(|capture| replay(&world, capture));
        futures_util::future::join_all(replays).await;
        let stored = world.events().await.len();
        assert!(
            distinct == 0 || stored == distinct,
            "{stored}, before {distinct}"
        );
        distinct = stored;
        world.restart().await;
        world.ready().await;
    }
    assert_eq!(distinct, distinct_events(&captures));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_log_ins_under_one_id_are_seven_events_and_retries_are_one() {
    let mut world = alone_in_mongodb().await;
    replay(
        &world,
        &Capture::named("v015_same_second_id_collisions.http"),
    )
    .await;
    let failed = |events: Vec<daybook::store::StoredEvent>| {
        let failed = events
            .iter()
            .filter(|event| event.action == "stalwart.auth_failed");
        failed.count()
    };
    assert_eq!(failed(world.events().await), 7);

    let pairs = [
        [
            "v016_retry_1_of_4_same_event_new_id.http",
            "v016_retry_2_of_4_same_event_new_id.http",
        ],
        [
            "v016_timeout_duplicate_a.http",
            "v016_timeout_duplicate_b.http",
        ],
    ];
    for pair in pairs {
        world.stop().await;
        world = alone_in_mongodb().await;
        let [first, second] = pair.map(Capture::named);
        assert_ne!(first.body, second.body);
        replay(&world, &first).await;
        replay(&world, &second).await;
        assert_eq!(world.events().await.len(), 1, "{pair:?}");
    }

    // A batch that grows while it is refused holds the earlier event again.
    world.stop().await;
    world = alone_in_mongodb().await;
    let growing = Capture::named("v016_retry_growing_batch.http");
    let body: Value = serde_json::from_slice(&growing.body).unwrap();
    let events = body["events"].as_array().unwrap();
    for count in 1..=events.len() {
        let body = json!({ "events": events[..count] }).to_string();
        let request = testkit::http::signed(ROUTE, &growing.key, body);
        let answer = exchange(world.daybook().address(), request).await;
        assert_eq!(answer.json(), json!({ "received": count }));
        assert_eq!(world.events().await.len(), count);
    }

    let twins = Capture::named("same_second_identical_twins.http");
    let before = world.events().await.len();
    for _ in 0..2 {
        replay(&world, &twins).await;
        assert_eq!(world.events().await.len(), before + twins.events);
    }
    world.stop().await;
}
