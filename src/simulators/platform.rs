//! The platform's own services: they POST events to Daybook's API and repeat until it says 200.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::people::People;
use super::{Tally, client_nearby, pick, uuid4, whole_seconds};

/// Events in one request, at most.
const BATCH: usize = 100;

/// How the recorder is set up.
#[derive(Clone, Debug)]
pub struct PlatformRecorderConfig {
    /// Daybook's base address.
    pub daybook_url: String,
    /// A token of the role recorder; `None` where none is asked for.
    pub token: Option<String>,
    /// Between a failed request and its repetition.
    pub retry: Duration,
    /// Whether every `externalId` is remembered.
    pub remember_keys: bool,
}

impl PlatformRecorderConfig {
    /// Retries after a second and remembers keys.
    pub fn new(daybook_url: &str, token: Option<&str>) -> Self {
        Self {
            daybook_url: daybook_url.to_owned(),
            token: token.map(str::to_owned),
            retry: Duration::from_secs(1),
            remember_keys: true,
        }
    }
}

/// The running recorder; stops when it is dropped.
pub struct PlatformRecorder {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    config: PlatformRecorderConfig,
    client: reqwest::Client,
    state: Mutex<RecorderState>,
    pushed: Notify,
    settled: watch::Sender<u64>,
}

struct RecorderState {
    waiting: VecDeque<Value>,
    promised: Tally,
    delivered: u64,
    failures: u64,
    last_status: Option<u16>,
}

impl PlatformRecorder {
    /// Starts sending. Must be called within a runtime.
    pub fn start(config: PlatformRecorderConfig) -> Self {
        let promised = if config.remember_keys {
            Tally::new()
        } else {
            Tally::counting_only()
        };
        let inner = Arc::new(Inner {
            config,
            client: client_nearby(),
            state: Mutex::new(RecorderState {
                waiting: VecDeque::new(),
                promised,
                delivered: 0,
                failures: 0,
                last_status: None,
            }),
            pushed: Notify::new(),
            settled: watch::Sender::new(0),
        });
        let task = tokio::spawn(run(Arc::clone(&inner)));
        Self { inner, task }
    }

    /// Hands an event over; its key is its `externalId`.
    pub fn push(&self, event: Value) {
        let mut state = self.inner.state();
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        state.promised.note(&text("action"), &text("externalId"));
        state.waiting.push_back(event);
        drop(state);
        self.inner.pushed.notify_one();
    }

    /// What was pushed, by action, with its `externalId`.
    pub fn promised(&self) -> Tally {
        self.inner.state().promised.clone()
    }

    /// How many events were answered with 200.
    pub fn delivered(&self) -> u64 {
        self.inner.state().delivered
    }

    /// How many events wait.
    pub fn waiting(&self) -> usize {
        self.inner.state().waiting.len()
    }

    /// How many requests were not answered with 200.
    pub fn failures(&self) -> u64 {
        self.inner.state().failures
    }

    /// The last answer's status; `None` when there was none.
    pub fn last_status(&self) -> Option<u16> {
        self.inner.state().last_status
    }

    /// Waits until everything pushed so far is delivered.
    pub async fn drained(&self) {
        let mut settled = self.inner.settled.subscribe();
        // The sender lives as long as self; an error cannot come before the condition.
        let _done = settled
            .wait_for(|_| self.inner.state().waiting.is_empty())
            .await;
    }
}

impl Drop for PlatformRecorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the events were taken.
    fn settle(&self, status: Option<u16>, sent: usize) -> bool {
        let mut state = self.state();
        state.last_status = status;
        if status != Some(200) {
            state.failures += 1;
            return false;
        }
        state.waiting.drain(..sent);
        state.delivered += sent as u64;
        true
    }

    async fn post(&self, events: &[Value]) -> Option<u16> {
        let url = format!(
            "{}/api/v1/events",
            self.config.daybook_url.trim_end_matches('/')
        );
        let mut request = self
            .client
            .post(url)
            .timeout(Duration::from_secs(30))
            .json(&json!({ "events": events }));
        if let Some(token) = &self.config.token {
            request = request.bearer_auth(token);
        }
        Some(request.send().await.ok()?.status().as_u16())
    }
}

async fn run(inner: Arc<Inner>) {
    loop {
        let events: Vec<Value> = inner.state().waiting.iter().take(BATCH).cloned().collect();
        if events.is_empty() {
            inner.settled.send_modify(|count| *count += 1);
            inner.pushed.notified().await;
            continue;
        }
        let status = inner.post(&events).await;
        if !inner.settle(status, events.len()) {
            tokio::time::sleep(inner.config.retry).await;
        }
    }
}

/// A believable event of the platform: tenants, plans, exports, API keys.
pub fn realistic(rng: &mut impl Rng, people: &People, at: Timestamp) -> Value {
    let person = people.anyone(rng);
    let (action, kind, name) = *pick(
        rng,
        &[
            ("tenant.member_invited", "invitation", "new colleague"),
            ("tenant.settings_changed", "tenant", "settings"),
            ("billing.plan_changed", "plan", "business"),
            ("export.requested", "export", "mailbox export"),
            ("api_key.created", "api_key", "integration"),
            ("support.access_granted", "grant", "read-only"),
        ],
    );
    let failed = rng.random_bool(0.05);
    let mut event = json!({
        "externalId": uuid4(rng),
        "at": whole_seconds(at),
        "action": action,
        "outcome": if failed { "failure" } else { "success" },
        "actor": {"id": person.uid, "email": person.email, "name": person.name, "ip": person.ip},
        "target": {"type": kind, "id": uuid4(rng), "name": name},
        "metadata": {"requestId": uuid4(rng), "region": "eu-central"},
    });
    if let Some(tenant) = people.tenant_of(person) {
        event["tenantSlug"] = tenant.slug.as_str().into();
    }
    event
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use axum::{Json, Router};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    type Taken = Arc<Mutex<(u32, Vec<Value>)>>;

    async fn take(
        State(taken): State<Taken>,
        headers: HeaderMap,
        Json(body): Json<Value>,
    ) -> StatusCode {
        assert_eq!(headers["authorization"], "Bearer recorder-token");
        let mut taken = taken.lock().unwrap();
        taken.0 += 1;
        if taken.0 == 1 {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        taken
            .1
            .extend(body["events"].as_array().unwrap().iter().cloned());
        StatusCode::OK
    }

    #[tokio::test]
    async fn every_event_arrives_in_spite_of_a_refusal() {
        let taken = Taken::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/api/v1/events", post(take))
            .with_state(Arc::clone(&taken));
        tokio::spawn(async move { axum::serve(listener, app).await });

        let mut config = PlatformRecorderConfig::new(&url, Some("recorder-token"));
        config.retry = Duration::from_millis(10);
        let recorder = PlatformRecorder::start(config);
        let people = People::new(2);
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..250 {
            recorder.push(realistic(&mut rng, &people, Timestamp::now()));
        }
        tokio::time::timeout(Duration::from_secs(120), recorder.drained())
            .await
            .unwrap();
        let taken = taken.lock().unwrap();
        let arrived: HashSet<&str> = taken
            .1
            .iter()
            .map(|event| event["externalId"].as_str().unwrap())
            .collect();
        let promised = recorder.promised();
        assert_eq!(arrived.len(), 250);
        assert!(
            promised
                .keys
                .iter()
                .all(|key| arrived.contains(key.as_str()))
        );
        assert_eq!((recorder.delivered(), recorder.failures()), (250, 1));
    }
}
