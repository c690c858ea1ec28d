//! An event over which the writer's handling panics, every time: it is found by dividing its batch,
//! and only it is kept aside.

use std::sync::Arc;
use std::time::Duration;

use daybook::config::Config;
use daybook::event::DeadLetterReason;
use daybook::store::{Commit, Record};
use daybook::tree::TreeOptions;
use daybook_actors::policy::{Backoff, Intensity};
use serde_json::{Value, json};
use testkit::World;
use testkit::world::{Plan, eventually};

use super::behind::{Before, Behind};
use super::{append_line, log_is_read, with_log};

const POISON: &str = "poisonous";
const EVENTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_event_is_found_among_the_good_ones_and_the_rest_goes_on() {
    quiet_panics();
    let (plan, log) = with_log(World::sqlite().await);
    let world = allergic(plan).start().await;
    log_is_read(&world).await;

    for number in 0..EVENTS {
        let name = if number == EVENTS / 3 { POISON } else { "good" };
        append_line(&log, &format!("{name}-{number}.txt"));
    }
    let body = body(EVENTS);
    // In the store or, if finding the poison takes longer than a push may, in the journal.
    let (status, answer) = world.post("/api/v1/events", body, &[]).await;
    assert_eq!(status, 200, "{answer}");

    let stored = world.events_reach(2 * (EVENTS - 1)).await;
    assert!(!stored.iter().any(|event| is_poisonous(&event.metadata)));
    let mut letters = Vec::new();
    eventually("both poisonous events are dead letters", async || {
        letters = world.daybook().store().dead_letters(10).await.unwrap();
        letters.len() == 2
    })
    .await;
    for source in ["ocis", "platform-api"] {
        let letter = letters
            .iter()
            .map(|stored| &stored.letter)
            .find(|letter| letter.source.as_str() == source)
            .unwrap();
        assert_eq!(letter.reason, DeadLetterReason::Poison, "{source}");
        let kept = String::from_utf8(letter.raw.to_vec()).unwrap();
        assert!(kept.contains(POISON), "{source}: it is kept whole: {kept}");
    }
    // It did kill its handler, and again.
    let deaths = "actor=\"writer\",reason=\"error\"";
    assert!(world.metric("daybook_actor_restarts_total", deaths).await >= 3.0);

    append_line(&log, "afterwards.txt");
    world.events_reach(2 * (EVENTS - 1) + 1).await;
    world.stop().await;
}

/// A push that is durable in the store says what became of it there.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_records_is_told_that_an_event_was_kept_aside() {
    quiet_panics();
    let plan = World::sqlite().await.journal_size("0B");
    let world = allergic(plan).start().await;
    world.ready().await;
    let mut told = Value::Null;
    // Sent again where finding the poison takes longer than a push may.
    eventually("the push is durable", async || {
        let (status, answer) = world.post("/api/v1/events", body(3), &[]).await;
        told = answer;
        status == 200
    })
    .await;
    assert_eq!(told, json!({"received": 2, "quarantined": 1}));
    world.events_reach(2).await;
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    world.stop().await;
}

/// With a recorder, and a store before which poison kills.
fn allergic(plan: Plan) -> Plan {
    plan.source("kind = \"recorder\"\nname = \"platform-api\"")
        .store_through(|store| {
            let before = Arc::new(Allergic);
            Arc::new(Behind { before, store })
        })
        .options(soon_up_again())
}

/// So many events, the middle one poisonous.
fn body(events: usize) -> String {
    let events: Vec<_> = (0..events)
        .map(|number| {
            let name = if number == events / 2 { POISON } else { "good" };
            json!({"action": "a", "externalId": number.to_string(), "metadata": {"name": name}})
        })
        .collect();
    json!({ "events": events }).to_string()
}

/// The service's own reactions, but for the pauses: a poisonous event costs a dozen of them.
fn soon_up_again() -> TreeOptions {
    let often = Intensity {
        max_restarts: 1000,
        within: Duration::from_secs(60),
    };
    TreeOptions {
        backoff: Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(100),
            reset_after: Duration::from_secs(60),
        },
        intensity: often,
        ..TreeOptions::of(&Config::default())
    }
}

/// Planned panics are no news.
fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if !message.starts_with("struck at") {
            loud(panic);
        }
    }));
}

fn is_poisonous(metadata: &serde_json::Map<String, serde_json::Value>) -> bool {
    metadata
        .values()
        .any(|value| value.as_str().is_some_and(|text| text.contains(POISON)))
}

/// Panics over poisonous events.
struct Allergic;

impl Before for Allergic {
    fn commit(&self, commit: &Commit<'_>) {
        let poisonous = commit.records.iter().any(|record| match record {
            Record::Event { event, .. } => is_poisonous(&event.metadata),
            Record::DeadLetter(_) => false,
        });
        assert!(!poisonous, "struck at a poisonous event");
    }
}
