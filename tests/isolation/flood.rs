//! A source that floods takes its share of the room, and no more; the others' events go on arriving.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::World;
use testkit::http::{self, Connection, exchange, sign};
use testkit::world::{eventually, sum_of};

use super::{append_line, log_is_read, with_log};

const KEY: &str = "flood-key";
const ROUTE: &str = "/ingest/stalwart/webhook";
const SENDERS: usize = 48;
/// Few and long: what floods is bytes, and in the end all of them have to be entered.
const BODY_EVENTS: u64 = 30;
const NAME_LENGTH: usize = 400;
/// Rounds of one line and one record, while the flood lasts.
const ROUNDS: u64 = 8;
/// How late the others may be. On a busy machine they take their time, but the flood must not add
/// to it for ever.
const LAG_LIMIT: Duration = Duration::from_secs(120);

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
    let floods = Arc::new(AtomicBool::new(true));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (world, floods) = (Arc::clone(&world), Arc::clone(&floods));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for serial in 0.. {
                    if !floods.load(Ordering::Acquire) {
                        break;
                    }
                    let body = webhook(sender, serial);
                    let signature = sign(KEY, body.as_bytes());
                    let headers = [("x-signature", signature.as_str())];
                    let (status, answer) = world.post(ROUTE, body, &headers).await;
                    assert!([200, 503].contains(&status), "{status} {answer}");
                    answers.push((format!("{sender}-{serial}"), status));
                }
                answers
            })
        })
        .collect();

    let mut fullest: f64 = 0.0;
    let mut slowest = Duration::ZERO;
    let mut longest: f64 = 0.0;
    for round in 1..=ROUNDS {
        let started = Instant::now();
        append_line(&log, &format!("report-{round}.txt"));
        let event = json!({"action": "invoice.paid", "externalId": round.to_string()});
        let answer = world.post("/api/v1/events", event.to_string(), &[]).await;
        assert_eq!(answer, (200, json!({"received": 1})));
        // There is a lag only until the line is entered.
        eventually("the line is entered", async || {
            let scrape = world.text("/metrics").await;
            let of_log = |name: &str| sum_of(&scrape, name, "source=\"ocis\"");
            longest = longest.max(of_log("daybook_ingest_lag_seconds"));
            fullest = fullest.max(sum_of(&scrape, "daybook_in_flight_bytes", ""));
            of_log("daybook_events_written_total") >= round as f64
        })
        .await;
        slowest = slowest.max(started.elapsed());
    }
    floods.store(false, Ordering::Release);
    let mut answers = HashMap::new();
    for sender in senders {
        answers.extend(sender.await.unwrap());
    }
    let taken = answers.values().filter(|status| **status == 200).count();
    let delivered = taken as u64 * BODY_EVENTS;
    println!(
        "{delivered} events flooded in; the others were {slowest:.1?} late at most, with a lag of {longest:.1} s; {fullest} bytes in flight at most"
    );
    assert!(slowest < LAG_LIMIT, "{slowest:?}");
    assert!(longest < LAG_LIMIT.as_secs_f64(), "{longest} s");
    // It was a flood: far more than the others said, and much of the room that one source may have.
    assert!(delivered > 20 * ROUNDS, "only {delivered} events");
    assert!(fullest > f64::from(200 << 10), "only {fullest} bytes");
    // What a late store has taken before it went to the journal counts as a duplicate when it comes from there.
    eventually("everything is entered", async || {
        let written = world.metric("daybook_events_written_total", "").await;
        let repeated = world.metric("daybook_events_duplicate_total", "").await;
        written + repeated >= (delivered + 2 * ROUNDS) as f64
            && world.metric("daybook_journal_bytes", "").await == 0.0
    })
    .await;
    let mut entered: HashMap<String, u64> = HashMap::new();
    for event in world.events().await {
        if event.source == "stalwart" {
            let name = event.metadata["data"]["accountName"].as_str().unwrap();
            let body = name.split('-').take(2).collect::<Vec<_>>().join("-");
            *entered.entry(body).or_default() += 1;
        }
    }
    for (body, status) in answers {
        let count = entered.remove(&body).unwrap_or_default();
        // Whoever was told to come again may have been heard.
        assert!(count == BODY_EVENTS || status == 503, "{count} of {body}");
        assert!(count <= BODY_EVENTS, "{count} of {body}");
    }
    assert!(entered.is_empty(), "{entered:?}");
    Arc::into_inner(world).unwrap().stop().await;
}

/// Two bodies for which there is room enough, if one source may have all of it.
#[tokio::test(flavor = "multi_thread")]
async fn one_source_holds_half_of_the_room_and_the_others_find_the_rest() {
    const BODY: usize = 400 << 10;
    let plan = World::sqlite().await;
    let key = plan.file("hook.key", KEY);
    let world = plan
        .source(&format!(
            "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
            key.display()
        ))
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .settings("[ingest]\nin_flight = \"1MiB\"")
        .journal_size("0B")
        .start()
        .await;
    world.ready().await;
    let budget = world.daybook().budget();
    let address = world.daybook().address();
    // All but its end. What a stranger may have sent would give way to the next.
    let body_comes = async || {
        let head =
            format!("POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY}\r\n\r\n");
        let mut connection = Connection::open(address).await;
        connection.send(head).await.unwrap();
        // Whoever is refused need not be listened to.
        let _refused_early = connection.send(vec![b' '; BODY - 1]).await;
        connection
    };
    let first = body_comes().await;
    eventually("the first body is held", async || {
        budget.in_use() >= BODY as u64
    })
    .await;
    let refused = body_comes().await.answer().await.unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(budget.in_use() <= budget.limit() / 2);

    let answer = exchange(address, http::signed(ROUTE, KEY, webhook(0, 0))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(budget.in_use() >= BODY as u64, "the first one holds on");
    drop(first);
    eventually("all room is given back", async || budget.in_use() == 0).await;
    world.stop().await;
}

fn webhook(sender: usize, serial: u64) -> String {
    let events: Vec<_> = (0..BODY_EVENTS)
        .map(|place| {
            json!({
                "id": "1", "type": "auth.failed", "createdAt": "2026-11-24T04:05:39Z",
                "data": {"accountName": format!("{sender}-{serial}-{place:x>NAME_LENGTH$}@example.org")},
            })
        })
        .collect();
    json!({ "events": events }).to_string()
}
