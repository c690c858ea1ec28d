//! Limits of size, time and number, each with a normal sender beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::World;
use testkit::http::{self, Connection, exchange, sign};
use testkit::world::{PATIENCE, eventually};
use tokio::task::JoinHandle;

use super::{KEY, ROUTE, body, send, with_keys};

async fn world_with(http: &str) -> World {
    let plan = with_keys(World::sqlite().await, &[KEY]);
    let world = plan
        .start_with(&format!("auth = \"none\"\n{http}"), "")
        .await;
    world.ready().await;
    world
}

/// The world works, and holds nothing back.
async fn is_well(world: &World, events: usize) {
    let answer = send(world, body("well", 1)).await;
    assert_eq!(answer.json(), json!({ "received": 1 }), "{answer:?}");
    assert_eq!(world.events().await.len(), events + 1);
    assert!(
        world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap()
            .is_empty()
    );
    eventually("nothing is in flight", async || {
        world.daybook().budget().in_use() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_body_than_allowed_is_refused_declared_or_not() {
    let world = world_with("max_body = \"16KiB\"").await;
    let address = world.daybook().address();
    let fits = body("fits", 100);
    assert_eq!(send(&world, &fits).await.json(), json!({ "received": 100 }));

    let exactly = format!("{fits}{}", " ".repeat((16 << 10) - fits.len()));
    assert_eq!(send(&world, &exactly).await.status, 200);
    let over = format!("{exactly} ");
    let answer = send(&world, &over).await;
    assert_eq!(answer.status, 413);
    assert!(
        answer.error().contains("max_body (16384 bytes)"),
        "{answer:?}"
    );

    for size in [over.len(), 1 << 20, 5 << 20] {
        let over = format!("{exactly}{}", " ".repeat(size - exactly.len()));
        assert_eq!(send(&world, &over).await.status, 413, "{size} declared");
        let request = format!(
            "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nx-signature: {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{over}\r\n0\r\n\r\n",
            sign(KEY, over.as_bytes()),
            over.len(),
        );
        assert_eq!(
            exchange(address, request).await.status,
            413,
            "{size} in chunks"
        );
    }
    is_well(&world, 100).await;
    world.stop().await;
}

/// A request, and how long its head is.
fn slow_request() -> (Vec<u8>, usize) {
    let request = http::signed(ROUTE, KEY, body("slow", 1));
    let mut fours = request.windows(4);
    let head = fours.position(|four| four == b"\r\n\r\n").unwrap() + 4;
    (request, head)
}

/// Sends a part of a request; the answer's status, or the end.
async fn status_after(world: &World, part: &[u8]) -> Option<u16> {
    let mut connection = Connection::open(world.daybook().address()).await;
    // On a busy machine it may have been given up already.
    let _late = connection.send(part).await;
    let answer = connection.answer().await;
    connection.closed().await;
    answer.map(|answer| answer.status)
}

/// A limit of its own for each, so that whoever is slow meets the one that is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let world = world_with("header_timeout = \"400ms\"").await;
    let (request, head) = slow_request();
    for sent in [0, 1, head - 2] {
        let status = status_after(&world, &request[..sent]).await;
        assert_eq!(status, None, "after {sent} bytes");
    }
    assert_eq!(world.events().await.len(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = world_with("body_timeout = \"400ms\"").await;
    let (request, head) = slow_request();
    for sent in [head, head + 9] {
        let status = status_after(&world, &request[..sent]).await;
        assert_eq!(status, Some(408), "after {sent} bytes");
    }
    is_well(&world, 0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_at_a_time_is_a_request_too() {
    let world = world_with("").await;
    let request = http::signed(ROUTE, KEY, body("drip", 1));
    let mut connection = Connection::open(world.daybook().address()).await;
    for byte in &request {
        connection.send([*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = connection.answer().await.unwrap();
    assert_eq!(answer.json(), json!({ "received": 1 }));
    is_well(&world, 1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_that_hang_up_in_the_middle_leave_nothing() {
    let world = world_with("").await;
    let request = http::signed(ROUTE, KEY, body("cut", 2000));
    for part in 1..40 {
        let mut connection = Connection::open(world.daybook().address()).await;
        let _early_end = connection.send(&request[..request.len() * part / 40]).await;
    }
    is_well(&world, 0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_cap_wait_for_a_place() {
    let plan = with_keys(World::sqlite().await, &[KEY]);
    let limits = "auth = \"none\"\nmax_connections = 3\nheader_timeout = \"60s\"";
    let world = plan.start_with(limits, "").await;
    let address = world.daybook().address();
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut holder = Connection::open(address).await;
        holder
            .send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(holder.answer().await.unwrap().status, 200);
        // From here on it holds its place with half a head.
        holder.send("GET").await.unwrap();
        holders.push(holder);
    }
    let mut late = Connection::open(address).await;
    late.send(http::signed(ROUTE, KEY, body("late", 1)))
        .await
        .unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), late.answer()).await;
    assert!(early.is_err(), "answered beyond the cap: {early:?}");
    holders.pop();
    assert_eq!(late.answer().await.unwrap().status, 200);
    drop((late, holders));
    is_well(&world, 1).await;
    world.stop().await;
}

/// Sends `count` bodies one after the other, each of which is answered soon, whoever else is there.
async fn is_served(world: &World, count: usize, events: usize) {
    let mut slowest = Duration::ZERO;
    for index in 0..count {
        let started = Instant::now();
        let answer = send(world, body(&format!("busy-{index}"), events)).await;
        slowest = slowest.max(started.elapsed());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    println!("the slowest of {count} answers took {slowest:?}");
    // Sooner than whoever holds a place has to let it go.
    assert!(slowest < Duration::from_secs(40), "{slowest:?}");
}

async fn hold_open(address: SocketAddr, count: usize) -> Vec<Connection> {
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let opening = (0..100).map(|_| Connection::open(address));
        held.extend(futures_util::future::join_all(opening).await);
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_hinder_nobody() {
    let world = world_with("header_timeout = \"60s\"").await;
    let mut held = hold_open(world.daybook().address(), 2000).await;
    is_served(&world, 20, 1).await;
    // None was let go meanwhile to make room.
    let last = held.last_mut().unwrap();
    last.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(last.answer().await.unwrap().status, 200);
    drop(held);
    is_well(&world, 20).await;
    world.stop().await;
}

/// Nor do as many that have announced a large body, and keep it to themselves.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_announced_bodies_hinder_nobody() {
    let world = world_with("").await;
    let mut held = hold_open(world.daybook().address(), 2000).await;
    let head = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nx-signature: x\r\ncontent-length: 60000000\r\n\r\n{{"
    );
    for connection in &mut held {
        connection.send(&head).await.unwrap();
    }
    is_served(&world, 20, 10).await;
    drop(held);
    is_well(&world, 200).await;
    world.stop().await;
}

/// Large bodies beside each other, more than a source may have in flight: some are told to come again,
/// and all come through.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_larger_than_their_room_come_through_one_after_the_other() {
    let plan = with_keys(World::sqlite().await, &[KEY]);
    let world = plan
        .settings("[ingest]\nin_flight = \"2MiB\"")
        .start()
        .await;
    world.ready().await;
    let address = world.daybook().address();
    let filler = format!(r#""filler":"{}","remoteIp""#, "x".repeat(1_100));
    // Most of a megabyte each, where a source may hold one at a time.
    let request = |index: usize| {
        let body = body(&format!("large-{index}"), 700).replace(r#""remoteIp""#, &filler);
        http::signed(ROUTE, KEY, body)
    };
    let first = request(0);
    let (most, end) = first.split_at(first.len() - 1);
    let mut holder = Connection::open(address).await;
    holder.send(most).await.unwrap();
    eventually("the first one is held", async || {
        world.daybook().budget().in_use() > 700_000
    })
    .await;
    let refusals = Arc::new(AtomicUsize::new(0));
    let senders = (1..6).map(|index| {
        let (request, refusals) = (request(index), Arc::clone(&refusals));
        tokio::spawn(async move {
            loop {
                let answer = exchange(address, &request).await;
                match answer.status {
                    200 => return,
                    503 => assert!(answer.header("retry-after").is_some()),
                    408 => {}
                    other => panic!("{other}"),
                }
                refusals.fetch_add(1, Ordering::AcqRel);
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    eventually("somebody is told to come again", async || {
        refusals.load(Ordering::Acquire) > 0
    })
    .await;
    // On a slow machine it may have given way by now.
    let _or_it_has = holder.send(end).await;
    let held = holder.answer().await.unwrap().status;
    assert!([200, 408].contains(&held), "{held}");
    for ended in futures_util::future::join_all(senders).await {
        ended.unwrap();
    }
    if held == 408 {
        assert_eq!(exchange(address, &first).await.status, 200);
    }
    assert_eq!(world.events().await.len(), 6 * 700);
    let limit = world.metric("daybook_in_flight_limit_bytes", "").await;
    assert_eq!(limit, f64::from(2 << 20));
    is_well(&world, 6 * 700).await;
    world.stop().await;
}

/// Strangers who send a part of a body and no more: one takes all that the source may have in flight, another the
/// journal's reserve.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_go_on_give_their_room_to_others() {
    let recorded = http::post("/api/v1/events", &[], "{\"action\":\"team.done\"}");
    let (most, end) = recorded.split_at(recorded.len() - 1);
    let part = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nx-signature: x\r\ncontent-length: 60000000\r\n\r\n{}",
        "x".repeat(1_100_000)
    );
    for (journal, strangers) in [("0B", 1), ("1GiB", 2)] {
        let plan = with_keys(World::sqlite().await, &[KEY]).journal_size(journal);
        let plan = plan.source("kind = \"recorder\"");
        let plan = plan.settings("[ingest]\nin_flight = \"2MiB\"");
        let limits = "auth = \"none\"\nbody_timeout = \"1h\"";
        let world = plan.start_with(limits, "").await;
        world.ready().await;
        let address = world.daybook().address();
        // As slow as theirs, but nobody vouches for theirs.
        let mut slow = Connection::open(address).await;
        slow.send(most).await.unwrap();
        let mut served = 0;
        let others_come = async {
            // On a slow machine one may take its room only when another has given way, and be in nobody's way.
            loop {
                let mut held = Vec::new();
                for _ in 0..strangers {
                    let mut stranger = Connection::open(address).await;
                    stranger.send(&part).await.unwrap();
                    let answer = async move { stranger.answer().await.map(|answer| answer.status) };
                    held.push(tokio::spawn(answer));
                    eventually("the source's part is held", async || {
                        world.daybook().budget().in_use() >= 1 << 20
                    })
                    .await;
                }
                let mut after_the_first = 0;
                while after_the_first < 50 && !held.iter().all(JoinHandle::is_finished) {
                    let answer = send(&world, body(&format!("honest-{served}"), 1)).await;
                    // On a slow machine it may have waited in vain once.
                    assert!([200, 503].contains(&answer.status), "{answer:?}");
                    served += usize::from(answer.status == 200);
                    after_the_first += u32::from(held.iter().any(JoinHandle::is_finished));
                }
                let have_all_gone = held.iter().all(JoinHandle::is_finished);
                for stranger in held {
                    if stranger.is_finished() {
                        assert_eq!(stranger.await.unwrap(), Some(408));
                    } else {
                        stranger.abort();
                    }
                }
                if have_all_gone {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, others_come).await.unwrap();
        assert!(served > 0);
        slow.send(end).await.unwrap();
        assert_eq!(slow.answer().await.unwrap().status, 200);
        world.events_reach(served + 1).await;
        world.stop().await;
    }
}
