//! A source that floods takes its share of the room; the others' events go on arriving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::World;
use testkit::http::sign;
use testkit::world::eventually;

use super::{append_line, log_is_read, with_log, written};

const KEY: &str = "flood-key";
const ROUTE: &str = "/ingest/stalwart/webhook";
const SENDERS: usize = 48;
const BODY_EVENTS: u64 = 100;
/// Rounds of one line and one record, while the flood lasts.
const ROUNDS: u64 = 15;
/// How late the others may be. On a busy machine they take their time, but the flood must not add
/// to it for ever.
const LAG_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn while_one_source_floods_the_lag_of_the_others_stays_bounded() {
    let plan = World::sqlite().await;
    let key = plan.file("hook.key", KEY);
    let (plan, log) = with_log(plan);
    let world = plan
        .source(&format!(
            "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
            key.display()
        ))
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        // So little that the flood alone would fill it many times over.
        .settings("[ingest]\nin_flight = \"1MiB\"")
        .start()
        .await;
    log_is_read(&world).await;
    let world = Arc::new(world);
    let (floods, delivered) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (world, floods) = (Arc::clone(&world), Arc::clone(&floods));
            let delivered = Arc::clone(&delivered);
            tokio::spawn(async move {
                for serial in 0.. {
                    if !floods.load(Ordering::Acquire) {
                        return;
                    }
                    let body = webhook(sender, serial);
                    let signature = sign(KEY, body.as_bytes());
                    let headers = [("x-signature", signature.as_str())];
                    let (status, answer) = world.post(ROUTE, body, &headers).await;
                    assert!([200, 503].contains(&status), "{status} {answer}");
                    if status == 200 {
                        delivered.fetch_add(BODY_EVENTS, Ordering::AcqRel);
                    }
                }
            })
        })
        .collect();

    let mut fullest: f64 = 0.0;
    let mut slowest = Duration::ZERO;
    for round in 1..=ROUNDS {
        let started = Instant::now();
        append_line(&log, &format!("report-{round}.txt"));
        let event = json!({"action": "invoice.paid", "externalId": round.to_string()});
        let answer = world.post("/api/v1/events", event.to_string(), &[]).await;
        assert_eq!(answer, (200, json!({"received": 1})));
        written(&world, "ocis", round as f64).await;
        slowest = slowest.max(started.elapsed());
        let lag = world
            .metric("daybook_ingest_lag_seconds", "source=\"ocis\"")
            .await;
        assert!(lag < LAG_LIMIT.as_secs_f64(), "round {round}: {lag} s");
        fullest = fullest.max(world.metric("daybook_in_flight_bytes", "").await);
    }
    floods.store(false, Ordering::Release);
    for sender in senders {
        sender.await.unwrap();
    }
    let delivered = delivered.load(Ordering::Acquire);
    println!(
        "{delivered} events flooded in; the others were {slowest:.1?} late at most; {fullest} bytes in flight at most"
    );
    assert!(slowest < LAG_LIMIT, "{slowest:?}");
    // It was a flood: far more than the others said, and as much room as one source may have.
    assert!(delivered > 20 * ROUNDS, "only {delivered} events");
    assert!(fullest > f64::from(200 << 10), "only {fullest} bytes");
    let everything = delivered as usize + 2 * ROUNDS as usize;
    eventually("everything is entered", async || {
        world.metric("daybook_events_written_total", "").await >= everything as f64
    })
    .await;
    assert_eq!(world.events().await.len(), everything);
    Arc::into_inner(world).unwrap().stop().await;
}

fn webhook(sender: usize, serial: u64) -> String {
    let events: Vec<_> = (0..BODY_EVENTS)
        .map(|place| {
            json!({
                "id": "1", "type": "auth.failed", "createdAt": "2026-11-24T04:05:39Z",
                "data": {"accountName": format!("{sender}-{serial}-{place}@example.org")},
            })
        })
        .collect();
    json!({ "events": events }).to_string()
}
