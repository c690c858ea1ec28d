//! What the fake knows, behind one lock, and what it does to an event before it keeps it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::archive::{Archive, Stored, django_time, later};
use super::directory::Directory;
use super::faults::{Fault, Script};
use super::profile::{PageSizes, Permissions, Profile};
use super::{LOGGED_REQUESTS, RETENTION, RequestLog, SWEEP_EVERY};
use crate::simulators::{Tally, hex_token, pick, uuid4};

pub(super) type Hook = Box<dyn FnOnce() + Send>;

pub(super) struct State {
    pub(super) archive: Archive,
    pub(super) directory: Directory,
    pub(super) tokens: HashMap<String, Permissions>,
    pub(super) current_token: String,
    pub(super) script: Script,
    pub(super) hooks: Vec<(u64, Hook)>,
    pub(super) log: VecDeque<RequestLog>,
    pub(super) requests: u64,
    pub(super) rng: StdRng,
    pub(super) tally: Tally,
    pub(super) known_actions: Vec<String>,
    pub(super) next_sweep: Instant,
}

pub(super) struct Shared {
    pub(super) profile: Profile,
    pub(super) page_sizes: PageSizes,
    pub(super) path_prefix: String,
    pub(super) clock_skews: Vec<SignedDuration>,
    pub(super) replica_lags: Vec<Duration>,
    pub(super) keep_last: Option<usize>,
    pub(super) address: SocketAddr,
    pub(super) state: Mutex<State>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock must not hide its own message behind another.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes an event as the server would, and counts it.
    pub(super) fn store(
        &self,
        state: &mut State,
        mut event: Value,
        visible_at: Instant,
    ) -> Arc<Stored> {
        if !event.is_object() {
            event = json!({});
        }
        if event["pk"].is_null() {
            event["pk"] = uuid4(&mut state.rng).into();
        }
        if event["created"].is_null() {
            event["created"] = django_time(self.clock(state)).into();
        }
        if event.get("expires").is_none() {
            let created: Timestamp = event["created"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(Timestamp::now);
            event["expires"] = django_time(later(created, RETENTION)).into();
        }
        for (key, empty) in [
            ("user", json!({})),
            ("context", json!({})),
            ("action", "custom_".into()),
            ("app", "".into()),
            ("client_ip", Value::Null),
        ] {
            if event.get(key).is_none() {
                event[key] = empty;
            }
        }
        self.to_vintage(&mut event);
        let stored = Arc::new(Stored::new(&event, visible_at));
        state.tally.note(&stored.action, &stored.pk);
        stored
    }

    /// Gives the event the shape that this version gives it.
    pub(super) fn to_vintage(&self, event: &mut Value) {
        let old = self.profile == Profile::V2023;
        let (key, model) = if old {
            ("tenant", "tenant")
        } else {
            ("brand", "brand")
        };
        if event.get(key).is_none() {
            let given = event
                .as_object_mut()
                .and_then(|object| object.remove(if old { "brand" } else { "tenant" }));
            let pk = given
                .as_ref()
                .map_or("5caeabe61fce419ca2e298ac906d9ee5", |given| {
                    given["pk"].as_str().unwrap_or_default()
                });
            event[key] = json!({
                "pk": pk,
                "app": format!("authentik_{model}s"),
                "name": format!("Default {model}"),
                "model_name": model,
            });
        }
        if old
            && let Some(request) = event
                .pointer_mut("/context/http_request")
                .and_then(Value::as_object_mut)
        {
            request.remove("request_id");
        }
        // Whose log-in failed stands in the context alone.
        if old && event["action"] == "login_failed" {
            event["user"] = json!({"pk": 1, "email": "", "username": "AnonymousUser"});
        }
    }

    /// What follows a query that made the server fail.
    pub(super) fn record_exception(&self, state: &mut State) {
        let now = Instant::now();
        let event = json!({
            "action": "system_exception",
            "app": "authentik.root.middleware",
            "context": {"message": "invalid input syntax in a filter"},
        });
        let stored = self.store(state, event, now);
        state.archive.add(vec![stored], now);
    }

    pub(super) fn tidy(&self, state: &mut State, now: Instant) {
        if let Some(keep) = self.keep_last {
            state.archive.trim(keep);
        }
        if now >= state.next_sweep {
            state.next_sweep = now + SWEEP_EVERY;
            let micros = Timestamp::now().as_microsecond();
            state.archive.remove(|event| event.expires < micros);
        }
    }

    /// The clock of the application server that happens to answer.
    pub(super) fn clock(&self, state: &mut State) -> Timestamp {
        let now = Timestamp::now();
        if self.clock_skews.is_empty() {
            return now;
        }
        now.checked_add(*pick(&mut state.rng, &self.clock_skews))
            .unwrap_or(now)
    }

    pub(super) fn replica_lag(&self, state: &mut State) -> Option<Duration> {
        if self.replica_lags.is_empty() {
            return None;
        }
        let index = state.rng.random_range(0..self.replica_lags.len());
        Some(self.replica_lags[index]).filter(|lag| !lag.is_zero())
    }

    pub(super) fn http_date(&self) -> String {
        let now = self.clock(&mut self.state());
        now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    pub(super) fn request_id(&self) -> String {
        hex_token(&mut self.state().rng, 32)
    }

    pub(super) fn begin_request(&self) -> Vec<Hook> {
        let mut state = self.state();
        state.requests += 1;
        let now = Instant::now();
        self.tidy(&mut state, now);
        let number = state.requests;
        state
            .hooks
            .extract_if(.., |(due, _)| *due <= number)
            .map(|(_, hook)| hook)
            .collect()
    }

    pub(super) fn strike(&self, path: &str) -> Option<Fault> {
        self.state().script.strike(path)
    }

    pub(super) fn log(&self, request: RequestLog) {
        let mut state = self.state();
        if state.log.len() == LOGGED_REQUESTS {
            state.log.pop_front();
        }
        state.log.push_back(request);
    }
}
