//! Sends signed webhooks as Stalwart does.
//!
//! Events wait in memory and go out together, at most one request a throttle interval. Whatever
//! is not answered with 2xx, be it an error, a refusal or a timeout, goes out again at the next
//! interval, merged with what is newer, until it is older than `discard_after`; then it is gone
//! for good. The ids in a body are no keys: up to 0.16.10 all events of one type in one second
//! share an id, from 0.16.11 on every serialisation makes new ones.

mod events;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use events::realistic;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::Sha256;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Tally, client_nearby, whole_seconds};

/// Which version's habits the sender has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StalwartProfile {
    /// 0.15 (and 0.16 up to .10): an id is the second and the type.
    V0_15,
    /// 0.16.11 and later: a new id at every serialisation.
    #[default]
    V0_16,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct StalwartEvent {
    /// When; sent in whole seconds.
    pub created_at: Timestamp,
    /// `auth.failed`, …
    pub kind: String,
    /// Its keys.
    pub data: Map<String, Value>,
}

impl StalwartEvent {
    /// An event; what is no object is no data.
    pub fn new(created_at: Timestamp, kind: &str, data: Value) -> Self {
        Self {
            created_at,
            kind: kind.to_owned(),
            data: match data {
                Value::Object(data) => data,
                _ => Map::new(),
            },
        }
    }

    /// All that it says, as text: what a receiver can tell it by.
    pub fn fingerprint(&self) -> String {
        let (at, kind, data) = (whole_seconds(self.created_at), &self.kind, &self.data);
        serde_json::json!({"createdAt": at, "type": kind, "data": data}).to_string()
    }
}

/// How the sender is set up.
#[derive(Clone, Debug)]
pub struct StalwartSenderConfig {
    /// The endpoint.
    pub url: String,
    /// The signature key; empty: unsigned, as a hook without a key is.
    pub key: String,
    /// Whose habits.
    pub profile: StalwartProfile,
    /// Between two requests.
    pub throttle: Duration,
    /// Of one request.
    pub timeout: Duration,
    /// How old an event gets before it is given up.
    pub discard_after: Duration,
    /// Further headers, such as one that names the node.
    pub headers: Vec<(String, String)>,
    /// Whether the [fingerprint](StalwartEvent::fingerprint) of every event is remembered.
    pub remember_keys: bool,
}

impl StalwartSenderConfig {
    /// The defaults of the original: 1 s, 30 s, 5 min.
    pub fn new(url: &str, key: &str, profile: StalwartProfile) -> Self {
        Self {
            url: url.to_owned(),
            key: key.to_owned(),
            profile,
            throttle: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            discard_after: Duration::from_secs(300),
            headers: Vec::new(),
            remember_keys: false,
        }
    }
}

/// The running sender; stops, and forgets what waits, when it is dropped.
pub struct StalwartSender {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    config: StalwartSenderConfig,
    client: reqwest::Client,
    state: Mutex<SenderState>,
    pushed: Notify,
    settled: watch::Sender<u64>,
    serial: AtomicU64,
}

#[derive(Default)]
struct SenderState {
    waiting: Vec<Waiting>,
    promised: Tally,
    delivered: Tally,
    discarded: Tally,
    attempts: u64,
    failures: u64,
    last_status: Option<u16>,
}

struct Waiting {
    event: StalwartEvent,
    since: Instant,
}

impl StalwartSender {
    /// Starts sending with the original's defaults.
    pub fn new(url: &str, key: &str, profile: StalwartProfile) -> Self {
        Self::start(StalwartSenderConfig::new(url, key, profile))
    }

    /// Starts sending. Must be called within a runtime.
    pub fn start(config: StalwartSenderConfig) -> Self {
        let promised = if config.remember_keys {
            Tally::new()
        } else {
            Tally::counting_only()
        };
        let state = SenderState {
            promised,
            delivered: Tally::counting_only(),
            discarded: Tally::counting_only(),
            ..SenderState::default()
        };
        let inner = Arc::new(Inner {
            config,
            client: client_nearby(),
            state: Mutex::new(state),
            pushed: Notify::new(),
            settled: watch::Sender::new(0),
            serial: AtomicU64::new(1),
        });
        let task = tokio::spawn(run(Arc::clone(&inner)));
        Self { inner, task }
    }

    /// Hands an event over; it goes out with the next request.
    pub fn push(&self, event: StalwartEvent) {
        self.push_all(vec![event]);
    }

    /// Hands events over that go out in one request. Identical twins must: in two requests nobody
    /// could tell the second from a repeat of the first.
    pub fn push_all(&self, events: Vec<StalwartEvent>) {
        let mut state = self.inner.state();
        for event in events {
            let key = if self.inner.config.remember_keys {
                event.fingerprint()
            } else {
                String::new()
            };
            state.promised.note(&event.kind, &key);
            state.waiting.push(Waiting {
                event,
                since: Instant::now(),
            });
        }
        drop(state);
        self.inner.pushed.notify_one();
    }

    /// What was pushed, by type, with its fingerprint where it is remembered.
    pub fn promised(&self) -> Tally {
        self.inner.state().promised.clone()
    }

    /// What was answered with 2xx, by type.
    pub fn delivered(&self) -> Tally {
        self.inner.state().delivered.clone()
    }

    /// What became too old, by type.
    pub fn discarded(&self) -> Tally {
        self.inner.state().discarded.clone()
    }

    /// How many events wait.
    pub fn waiting(&self) -> usize {
        self.inner.state().waiting.len()
    }

    /// How many requests were made, and how many of them were not answered with 2xx.
    pub fn attempts(&self) -> (u64, u64) {
        let state = self.inner.state();
        (state.attempts, state.failures)
    }

    /// The last answer's status; `None` when there was none.
    pub fn last_status(&self) -> Option<u16> {
        self.inner.state().last_status
    }

    /// Waits until nothing waits any more: all is delivered or discarded.
    pub async fn drained(&self) {
        let mut settled = self.inner.settled.subscribe();
        // The sender lives as long as self; an error cannot come before the condition.
        let _done = settled
            .wait_for(|_| self.inner.state().waiting.is_empty())
            .await;
    }
}

impl Drop for StalwartSender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, SenderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the next request and how many events it carries; `None` when nothing waits.
    fn next_body(&self) -> Option<(Vec<u8>, usize)> {
        let mut state = self.state();
        let now = Instant::now();
        let discard_after = self.config.discard_after;
        let old: Vec<Waiting> = state
            .waiting
            .extract_if(.., |waiting| now - waiting.since > discard_after)
            .collect();
        for waiting in &old {
            state.discarded.note(&waiting.event.kind, "");
        }
        if state.waiting.is_empty() {
            return None;
        }
        state.attempts += 1;
        let body = serialise(
            state.waiting.iter().map(|waiting| &waiting.event),
            self.config.profile,
            &self.serial,
        );
        Some((body, state.waiting.len()))
    }

    async fn post(&self, body: Vec<u8>) -> Option<u16> {
        let mut request = self
            .client
            .post(&self.config.url)
            .timeout(self.config.timeout)
            .header("content-type", "application/json");
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        if !self.config.key.is_empty() {
            request = request.header("x-signature", sign(&self.config.key, &body));
        }
        let response = request.body(body).send().await.ok()?;
        Some(response.status().as_u16())
    }

    fn settle(&self, status: Option<u16>, sent: usize) {
        let mut state = self.state();
        state.last_status = status;
        if status.is_some_and(|status| (200..300).contains(&status)) {
            let done: Vec<Waiting> = state.waiting.drain(..sent).collect();
            for waiting in &done {
                state.delivered.note(&waiting.event.kind, "");
            }
        } else {
            state.failures += 1;
        }
    }
}

async fn run(inner: Arc<Inner>) {
    loop {
        let Some((body, sent)) = inner.next_body() else {
            inner.settled.send_modify(|count| *count += 1);
            inner.pushed.notified().await;
            continue;
        };
        let started = Instant::now();
        let status = inner.post(body).await;
        inner.settle(status, sent);
        inner.settled.send_modify(|count| *count += 1);
        tokio::time::sleep_until(started + inner.config.throttle).await;
    }
}

/// The value of `X-Signature`: base64 of HMAC-SHA256 over the exact bytes, keyed with the key's
/// UTF-8 bytes.
pub fn sign(key: &str, body: &[u8]) -> String {
    // HMAC takes a key of any length, so this cannot fail; no signature is what a failure would be.
    Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(body);
            STANDARD.encode(mac.finalize().into_bytes())
        },
    )
}

/// A body with these events, as the sender would send it; `serial` is how many events it has
/// serialised before, which 0.16.11 and later make their ids of.
pub fn body(events: &[StalwartEvent], profile: StalwartProfile, serial: u64) -> Vec<u8> {
    serialise(events.iter(), profile, &AtomicU64::new(serial))
}

fn serialise<'a>(
    events: impl Iterator<Item = &'a StalwartEvent>,
    profile: StalwartProfile,
    serial: &AtomicU64,
) -> Vec<u8> {
    let mut text = String::from("{\"events\":[");
    for (index, event) in events.enumerate() {
        if index > 0 {
            text.push(',');
        }
        let seconds = event.created_at.as_second();
        let number = type_number(profile, &event.kind);
        let id = match profile {
            StalwartProfile::V0_15 => format!("{seconds}{number}"),
            StalwartProfile::V0_16 => {
                format!(
                    "{seconds}{}{number}",
                    serial.fetch_add(1, Ordering::Relaxed)
                )
            }
        };
        text.push_str(&format!(
            "{{\"id\":\"{id}\",\"createdAt\":\"{}\",\"type\":{},\"data\":{}}}",
            whole_seconds(event.created_at),
            Value::from(event.kind.as_str()),
            Value::Object(event.data.clone()),
        ));
    }
    text.push_str("]}");
    text.into_bytes()
}

/// The number that stands for a type at the end of an id.
fn type_number(profile: StalwartProfile, kind: &str) -> u64 {
    const KNOWN: [(&str, u64, u64); 14] = [
        ("auth.failed", 552, 35),
        ("auth.success", 551, 37),
        ("auth.too-many-attempts", 553, 38),
        ("security.authentication-ban", 11, 533),
        ("security.ip-blocked", 10, 318),
        ("smtp.dkim-fail", 98, 421),
        ("smtp.dmarc-fail", 100, 423),
        ("delivery.dsn-success", 222, 88),
        ("delivery.dsn-perm-fail", 224, 87),
        ("delivery.delivered", 209, 84),
        ("message-ingest.ham", 506, 283),
        ("message-ingest.spam", 507, 286),
        ("queue.message-queued", 227, 380),
        ("server.startup", 356, 393),
    ];
    match KNOWN.iter().find(|(name, _, _)| *name == kind) {
        Some((_, old, _)) if profile == StalwartProfile::V0_15 => *old,
        Some((_, _, new)) => *new,
        None => {
            let sum = kind.bytes().fold(7_u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(byte))
            });
            1 + sum % 637
        }
    }
}
