//! 200 means durable: with the store away, and with actors dying under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use testkit::World;
use testkit::http::{self, Connection, exchange, sign};
use testkit::mongod::Mongod;
use testkit::world::{PATIENCE, eventually};
use tokio::sync::Notify;

use super::{KEY, ROUTE, body, with_keys};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_store_gives_no_200_and_a_resend_is_stored_once() {
    let mongod = Mongod::start().await;
    let plan = with_keys(World::mongodb(&mongod).await, &[KEY]);
    let world = plan.start_with("auth = \"none\"", "timeout = \"2s\"").await;
    world.ready().await;
    let address = world.daybook().address();
    let request = |name: &str| http::signed(ROUTE, KEY, body(name, 3));
    assert_eq!(exchange(address, request("before")).await.status, 200);

    mongod.freeze();
    let names: Vec<String> = (0..10).map(|index| format!("frozen-{index}")).collect();
    let sends = names.iter().map(|name| exchange(address, request(name)));
    for answer in futures_util::future::join_all(sends).await {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(!answer.error().is_empty());
    }
    eventually("nothing is in flight", async || {
        world.metric("daybook_in_flight_bytes", "").await == 0.0
    })
    .await;
    // One that is on its way when the store comes back is answered by itself.
    let mut waiting = Connection::open(address).await;
    waiting.send(request("thawed")).await.unwrap();
    eventually("the request is in flight", async || {
        world.daybook().budget().in_use() > 0
    })
    .await;
    mongod.thaw();
    assert_eq!(waiting.answer().await.unwrap().status, 200);
    for name in &names {
        let answer = exchange(address, request(name)).await;
        assert_eq!(answer.json(), json!({ "received": 3 }), "{answer:?}");
    }
    assert_eq!(world.events().await.len(), 3 + 3 + 3 * names.len());
    world.stop().await;
}

const SENDERS: usize = 50;
const EVENTS: usize = 3;
/// Bodies that come through between two kills.
const BETWEEN_KILLS: usize = 50;

/// A load that goes on until it is over, and what became of it.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    progress: Notify,
}

impl Load {
    /// Waits for some more acknowledgements.
    async fn goes_on(&self) {
        let count = self.acknowledged.load(Ordering::Acquire) + BETWEEN_KILLS;
        let acknowledged = async {
            loop {
                let progress = self.progress.notified();
                if self.acknowledged.load(Ordering::Acquire) >= count {
                    break;
                }
                progress.await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, acknowledged).await;
        in_time.expect("the load goes on");
    }
}

/// Sends each body until it is answered 200, as Stalwart does.
async fn sender(url: String, client: reqwest::Client, name: String, load: Arc<Load>) {
    for index in 0.. {
        if load.is_over.load(Ordering::Acquire) {
            return;
        }
        let body = body(&format!("{name}-{index}"), EVENTS);
        let signature = sign(KEY, body.as_bytes());
        loop {
            let request = client.post(&url).header("x-signature", &signature);
            match request.body(body.clone()).send().await {
                Ok(answer) if answer.status() == 200 => break,
                Ok(answer) => {
                    assert_eq!(answer.status(), 503);
                    load.refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    load.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        load.acknowledged.fetch_add(1, Ordering::AcqRel);
        load.progress.notify_waiters();
    }
}

/// Kills these actors one after the other while the load goes on.
async fn under_kills(victims: &[&str]) {
    let world = with_keys(World::sqlite().await, &[KEY]).start().await;
    let load = Arc::new(Load::default());
    let mut senders = tokio::task::JoinSet::new();
    for index in 0..SENDERS {
        let (url, client) = (world.url(ROUTE), world.client().clone());
        senders.spawn(sender(url, client, format!("s{index}"), Arc::clone(&load)));
    }
    for victim in victims {
        load.goes_on().await;
        // It may still be down from the last kill.
        let what = format!("{victim} is up, to be killed");
        eventually(&what, async || world.daybook().kill(victim).await).await;
    }
    load.goes_on().await;
    load.is_over.store(true, Ordering::Release);
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let bodies = load.acknowledged.load(Ordering::Acquire);
    let events = world.events().await;
    assert_eq!(events.len(), bodies * EVENTS);
    for victim in victims {
        let label = format!("actor=\"{victim}\"");
        let restarts = world.metric("daybook_actor_restarts_total", &label).await;
        assert!(restarts >= 1.0, "{victim}");
    }
    eventually("nothing is in flight", async || {
        world.daybook().budget().in_use() == 0
    })
    .await;
    let source = "source=\"stalwart\"";
    let received = world.metric("daybook_events_received_total", source).await;
    let written = world.metric("daybook_events_written_total", source).await;
    let duplicate = world.metric("daybook_events_duplicate_total", source).await;
    assert_eq!(
        received,
        written + duplicate,
        "written {written}, duplicate {duplicate}"
    );
    let refused = load.refused.load(Ordering::Relaxed);
    println!("{victims:?}: {bodies} bodies, {refused} refusals");
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
async fn killed_acceptors_lose_nothing_of_fifty_senders() {
    under_kills(&["stalwart"; 5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_resolvers_lose_nothing_of_fifty_senders() {
    under_kills(&["resolver"; 5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_nothing_of_fifty_senders() {
    under_kills(&["writer"; 5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_in_turn_loses_nothing_of_fifty_senders() {
    under_kills(&[
        "http", "writer", "stalwart", "resolver", "http", "writer", "stalwart",
    ])
    .await;
}

/// A sender that hangs up before its answer has its events entered all the same, and sends again.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_does_not_wait_for_the_answer_is_stored_once() {
    let world = super::world().await;
    let request = http::signed(ROUTE, KEY, body("gone", 5));
    for _ in 0..5 {
        let mut connection = Connection::open(world.daybook().address()).await;
        connection.send(&request).await.unwrap();
        drop(connection);
    }
    world.events_reach(5).await;
    assert_eq!(
        exchange(world.daybook().address(), &request).await.status,
        200
    );
    assert_eq!(world.events().await.len(), 5);
    eventually("nothing is in flight", async || {
        world.daybook().budget().in_use() == 0
    })
    .await;
    tokio::time::timeout(Duration::from_secs(25), world.stop())
        .await
        .unwrap();
}
