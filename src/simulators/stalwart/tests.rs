use std::collections::{HashSet, VecDeque};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::*;
use crate::simulators::people::People;

/// A capture's `x-signature` and its exact body.
fn capture(name: &str) -> (String, Vec<u8>) {
    let path = format!(
        "{}/tests/data/stalwart/captures/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = std::fs::read(path).unwrap();
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let signature = head
        .lines()
        .find_map(|line| line.strip_prefix("x-signature: "))
        .unwrap();
    (signature.to_owned(), bytes[head_end + 4..].to_vec())
}

#[test]
fn signatures_are_those_of_the_real_server() {
    for (name, key) in [
        ("v016_auth_failed_imap_http.http", "lab-webhook-key-0001"),
        ("v016_retry_1_of_4_same_event_new_id.http", "ключ-пароль-🔑"),
    ] {
        let (signature, body) = capture(name);
        assert_eq!(sign(key, &body), signature, "{name}");
        assert_ne!(sign("another key", &body), signature, "{name}");
    }
}

fn failed_login(second: i64) -> StalwartEvent {
    StalwartEvent::new(
        Timestamp::from_second(1_795_493_139 + second).unwrap(),
        "auth.failed",
        json!({"accountName": "alice@example.org", "spanId": 342_282_758_751_522_305_u64}),
    )
}

fn ids(body: &[u8]) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let events = body["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn old_ids_collide_within_a_second_and_new_ones_never_repeat() {
    let events = [failed_login(0), failed_login(0), failed_login(1)];
    let old = ids(&body(&events, StalwartProfile::V0_15, 197));
    assert_eq!(old, ["1795493139552", "1795493139552", "1795493140552"]);
    let new = ids(&body(&events, StalwartProfile::V0_16, 197));
    assert_eq!(new[0], "179549313919735");
    let again = ids(&body(&events, StalwartProfile::V0_16, 200));
    assert!(new.iter().all(|id| !again.contains(id)));
}

#[test]
fn a_body_has_the_keys_of_a_real_one_in_their_order() {
    let (_, real) = capture("v016_auth_failed_imap_http.http");
    let made = body(&[failed_login(0)], StalwartProfile::V0_16, 197);
    let head = br#"{"events":[{"id":"179549313919735","createdAt":"2026-11-24T04:05:39Z","type":"auth.failed","data":{"accountName":"alice@example.org""#;
    assert!(real.starts_with(head));
    assert!(made.starts_with(head));
}

/// A signature and the bytes that it came with.
type Signed = (String, Vec<u8>);

#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<StatusCode>>>,
    bodies: Arc<Mutex<Vec<Signed>>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers["x-signature"].to_str().unwrap().to_owned();
    receiver
        .bodies
        .lock()
        .unwrap()
        .push((signature, body.to_vec()));
    let next = receiver.script.lock().unwrap().pop_front();
    match next {
        // Stands for an answer that never comes.
        Some(StatusCode::PROCESSING) => std::future::pending().await,
        other => other.unwrap_or(StatusCode::OK),
    }
}

async fn receiver(script: &[StatusCode]) -> (Receiver, String) {
    let receiver = Receiver {
        script: Arc::new(Mutex::new(script.iter().copied().collect())),
        ..Receiver::default()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/hook", post(receive))
        .with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (receiver, url)
}

fn quick(url: &str) -> StalwartSenderConfig {
    StalwartSenderConfig {
        throttle: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        ..StalwartSenderConfig::new(url, "key", StalwartProfile::V0_16)
    }
}

#[tokio::test]
async fn what_is_not_taken_goes_out_again_with_new_ids_and_a_new_signature() {
    let (receiver, url) = receiver(&[
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::BAD_REQUEST,
        StatusCode::OK,
    ])
    .await;
    let sender = StalwartSender::start(quick(&url));
    sender.push(failed_login(0));
    tokio::time::timeout(Duration::from_secs(120), sender.drained())
        .await
        .unwrap();
    let bodies = receiver.bodies.lock().unwrap().clone();
    assert_eq!(bodies.len(), 3);
    for (signature, body) in &bodies {
        assert_eq!(*signature, sign("key", body));
    }
    let signatures: HashSet<&String> = bodies.iter().map(|(signature, _)| signature).collect();
    assert_eq!(signatures.len(), 3);
    assert_eq!(sender.attempts(), (3, 2));
    assert_eq!(sender.delivered(), sender.promised());
}

#[tokio::test]
async fn a_repetition_is_merged_with_what_is_newer() {
    let (receiver, url) = receiver(&[StatusCode::BAD_GATEWAY]).await;
    let mut config = quick(&url);
    config.throttle = Duration::from_secs(1);
    let sender = StalwartSender::start(config);
    sender.push(failed_login(0));
    while receiver.bodies.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    sender.push(failed_login(1));
    tokio::time::timeout(Duration::from_secs(120), sender.drained())
        .await
        .unwrap();
    let counts: Vec<usize> = receiver
        .bodies
        .lock()
        .unwrap()
        .iter()
        .map(|(_, body)| ids(body).len())
        .collect();
    assert_eq!(counts, [1, 2]);
}

#[tokio::test]
async fn a_slow_answer_is_a_second_delivery() {
    let (receiver, url) = receiver(&[StatusCode::PROCESSING]).await;
    let sender = StalwartSender::start(quick(&url));
    sender.push(failed_login(0));
    tokio::time::timeout(Duration::from_secs(120), sender.drained())
        .await
        .unwrap();
    assert_eq!(receiver.bodies.lock().unwrap().len(), 2);
    assert_eq!(sender.delivered().of("auth.failed"), 1);
}

#[tokio::test]
async fn what_becomes_too_old_is_gone() {
    let refusals = [StatusCode::UNAUTHORIZED; 200];
    let (_receiver, url) = receiver(&refusals).await;
    let mut config = quick(&url);
    // Long enough for a first attempt, and with fewer of them than are refused.
    config.discard_after = Duration::from_secs(5);
    config.throttle = Duration::from_millis(100);
    let sender = StalwartSender::start(config);
    sender.push(failed_login(0));
    tokio::time::timeout(Duration::from_secs(120), sender.drained())
        .await
        .unwrap();
    assert_eq!(sender.discarded().of("auth.failed"), 1);
    assert_eq!(sender.delivered().total, 0);
    assert_eq!(sender.last_status(), Some(401));
}

#[test]
fn realistic_events_are_of_every_kind_and_some_are_twins() {
    let people = People::new(6);
    for profile in [StalwartProfile::V0_15, StalwartProfile::V0_16] {
        let mut rng = StdRng::seed_from_u64(6);
        let mut kinds = HashSet::new();
        let mut twins = 0;
        for _ in 0..1_000 {
            let events = realistic(&mut rng, &people, Timestamp::now(), profile);
            twins += usize::from(events.len() == 2 && events[0] == events[1]);
            kinds.extend(events.into_iter().map(|event| event.kind));
        }
        for kind in [
            "auth.success",
            "auth.failed",
            "auth.too-many-attempts",
            "security.authentication-ban",
            "delivery.dsn-success",
            "delivery.dsn-perm-fail",
            "smtp.dkim-fail",
            "message-ingest.spam",
        ] {
            assert!(kinds.contains(kind), "{kind}");
        }
        assert!(twins > 0);
    }
}
