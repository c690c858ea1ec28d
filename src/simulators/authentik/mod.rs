//! A faithful fake of Authentik's API: events, users, groups, and everything that goes wrong.
//!
//! It is a real HTTP server on the loopback interface. What it does follows what was measured on
//! running servers: there is no filter by time and unknown parameters are ignored without a word;
//! the page size is clamped without a word; rows of equal order come in any order; events can
//! become visible late, behind newer ones; events expire and are deleted while someone walks;
//! a refusal is always a 403, in three wordings.

mod answer;
mod archive;
mod directory;
pub mod events;
mod faults;
mod profile;
mod query;
mod route;
mod server;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use directory::{FakeGroup, FakeUser};
pub use faults::{Fault, Scripted, Times};
pub use profile::{Permissions, Profile};

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::people::People;
use super::{Tally, hex_token, uuid4};
use archive::{Archive, Stored};
use directory::Directory;
use faults::Script;
use profile::PageSizes;
use state::{Shared, State};

/// The user behind the tokens.
const POLLER_PK: i64 = 7;
const RETENTION: Duration = Duration::from_secs(365 * 86_400);
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Older requests fall out of the log; the count goes on.
const LOGGED_REQUESTS: usize = 20_000;

/// How the fake is set up.
#[derive(Clone, Debug)]
pub struct FakeAuthentikConfig {
    /// Which versions it behaves like.
    pub profile: Profile,
    /// The key that is valid at the start.
    pub token: String,
    /// What that key may do.
    pub permissions: Permissions,
    /// For ids, ties and the choice of server.
    pub seed: u64,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Before `/api/v3/`, without a slash at its end.
    pub path_prefix: String,
    /// In place of the profile's default page size.
    pub page_size_default: Option<usize>,
    /// In place of the profile's largest page size.
    pub page_size_max: Option<usize>,
    /// How wrong the clock of each application server is; none: one server, right.
    pub clock_skews: Vec<SignedDuration>,
    /// How late each replica is; each query meets one at random.
    pub replica_lags: Vec<Duration>,
    /// Keeps about the last so many events: the rest expires.
    pub keep_last: Option<usize>,
    /// Whether every key is remembered for [`AuthentikControls::promised`].
    pub remember_keys: bool,
}

impl Default for FakeAuthentikConfig {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            token: "fake-authentik-token".to_owned(),
            permissions: Permissions::READER,
            seed: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            path_prefix: String::new(),
            page_size_default: None,
            page_size_max: None,
            clock_skews: Vec::new(),
            replica_lags: Vec::new(),
            keep_last: None,
            remember_keys: true,
        }
    }
}

/// One request that was answered, or left hanging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLog {
    /// `GET`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Undecoded, without the question mark; empty when there was none.
    pub query: String,
    /// What was answered; 0 when nothing was.
    pub status: u16,
    /// The header as sent.
    pub authorization: Option<String>,
    /// The header as sent.
    pub accept_encoding: Option<String>,
}

/// The running fake; stops when it is dropped.
pub struct FakeAuthentik {
    controls: AuthentikControls,
    server: JoinHandle<()>,
}

/// Everything that can be done to a running fake; cheap to clone and to move into a task.
#[derive(Clone)]
pub struct AuthentikControls {
    shared: Arc<Shared>,
}

impl FakeAuthentik {
    /// Starts listening.
    ///
    /// # Panics
    /// When the address cannot be listened on; [`Self::try_start`] tells instead.
    pub async fn start(config: FakeAuthentikConfig) -> Self {
        Self::try_start(config)
            .await
            .expect("the simulated Authentik must be able to listen")
    }

    /// Starts listening.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn try_start(config: FakeAuthentikConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let sizes = config.profile.page_sizes();
        let mut rng = StdRng::seed_from_u64(config.seed);
        let poller = FakeUser {
            pk: POLLER_PK,
            username: "daybook".to_owned(),
            name: "daybook".to_owned(),
            email: String::new(),
            uid: hex_token(&mut rng, 64),
            uuid: uuid4(&mut rng),
            groups: Vec::new(),
            is_active: true,
        };
        let known_actions = serde_json::from_str::<Vec<Value>>(route::ACTIONS)
            .unwrap_or_default()
            .iter()
            .filter_map(|action| Some(action["component"].as_str()?.to_owned()))
            .collect();
        let shared = Arc::new(Shared {
            profile: config.profile,
            page_sizes: PageSizes {
                default: config.page_size_default.unwrap_or(sizes.default),
                max: config.page_size_max.unwrap_or(sizes.max),
            },
            path_prefix: config.path_prefix,
            clock_skews: config.clock_skews,
            replica_lags: config.replica_lags,
            keep_last: config.keep_last,
            address: listener.local_addr()?,
            state: Mutex::new(State {
                archive: Archive::default(),
                directory: Directory {
                    users: vec![poller],
                    groups: Vec::new(),
                },
                tokens: HashMap::from([(config.token.clone(), config.permissions)]),
                current_token: config.token,
                script: Script::default(),
                hooks: Vec::new(),
                log: VecDeque::new(),
                requests: 0,
                rng,
                tally: if config.remember_keys {
                    Tally::new()
                } else {
                    Tally::counting_only()
                },
                known_actions,
                next_sweep: Instant::now() + SWEEP_EVERY,
            }),
        });
        Ok(Self {
            server: tokio::spawn(server::serve(listener, Arc::clone(&shared))),
            controls: AuthentikControls { shared },
        })
    }

    /// A handle that does not keep the server running.
    pub fn controls(&self) -> AuthentikControls {
        self.controls.clone()
    }

    /// Stops listening and breaks every connection; returns when the port is free.
    pub async fn stop(mut self) {
        self.server.abort();
        // Cancelled is what it was asked to be.
        let _ended = (&mut self.server).await;
    }
}

impl Drop for FakeAuthentik {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Deref for FakeAuthentik {
    type Target = AuthentikControls;

    fn deref(&self) -> &AuthentikControls {
        &self.controls
    }
}

impl AuthentikControls {
    /// Base address with any path prefix, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.shared.address, self.shared.path_prefix)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Stores an event and shows it after `visible_after`, at the place its `created` gives it.
    ///
    /// What is missing of `pk`, `created`, `expires`, `brand`, `app`, `context` and `user` is
    /// filled in. Returns its `pk`.
    pub fn insert(&self, event: Value, visible_after: Duration) -> String {
        let now = Instant::now();
        let mut state = self.shared.state();
        let stored = self.shared.store(&mut state, event, now + visible_after);
        let pk = stored.pk.to_string();
        state.archive.add(vec![stored], now);
        self.shared.tidy(&mut state, now);
        pk
    }

    /// Stores many events at once, all visible; returns their `pk`s in order.
    pub fn insert_many(&self, events: Vec<Value>) -> Vec<String> {
        let now = Instant::now();
        let mut state = self.shared.state();
        let stored: Vec<Arc<Stored>> = events
            .into_iter()
            .map(|event| self.shared.store(&mut state, event, now))
            .collect();
        let pks = stored.iter().map(|event| event.pk.to_string()).collect();
        state.archive.add(stored, now);
        self.shared.tidy(&mut state, now);
        pks
    }

    /// Deletes one event; whether it was there.
    pub fn delete(&self, pk: &str) -> bool {
        self.shared.state().archive.remove(|e| *e.pk == *pk) > 0
    }

    /// What an administrator can do: replaces fields of a visible event in place, its `pk` and
    /// `created` excepted. Whether it was there.
    pub fn edit(&self, pk: &str, changes: &Value) -> bool {
        let now = Instant::now();
        let mut state = self.shared.state();
        let Some(old) = state.archive.find(pk, now) else {
            return false;
        };
        let mut event = old.parsed();
        for (key, value) in changes.as_object().into_iter().flatten() {
            if key != "pk" && key != "created" {
                event[key] = value.clone();
            }
        }
        state.archive.remove(|event| *event.pk == *pk);
        let edited = Arc::new(Stored::new(&event, old.visible_at));
        state.archive.add(vec![edited], now);
        true
    }

    /// What follows the deletion of a user: all events of that user go. Returns how many.
    pub fn delete_user_events(&self, user_pk: i64) -> usize {
        let mut state = self.shared.state();
        state.archive.remove(|event| event.user_pk == Some(user_pk))
    }

    /// The sweep: removes what expired before `now`. Returns how many.
    pub fn expire(&self, now: Timestamp) -> usize {
        let micros = now.as_microsecond();
        self.shared
            .state()
            .archive
            .remove(|event| event.expires < micros)
    }

    /// Strikes the next requests, whatever they ask for.
    pub fn set_fault(&self, fault: Fault, times: Times) {
        self.script(Scripted::new(fault).times(times));
    }

    /// Adds a fault to the script.
    pub fn script(&self, fault: Scripted) {
        self.shared.state().script.add(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.state().script.clear();
    }

    /// How many requests a fault has struck.
    pub fn fault_hits(&self) -> u64 {
        self.shared.state().script.hits
    }

    /// Runs `hook` when the `nth` request from now (1 is the next) has arrived and before it is
    /// answered: for what changes in the middle of a walk.
    pub fn at_request(&self, nth: u64, hook: impl FnOnce(&AuthentikControls) + Send + 'static) {
        let controls = self.clone();
        let mut state = self.shared.state();
        let due = state.requests + nth;
        state.hooks.push((due, Box::new(move || hook(&controls))));
    }

    /// The requests so far, oldest first; at most the last 20,000.
    pub fn requests(&self) -> Vec<RequestLog> {
        self.shared.state().log.iter().cloned().collect()
    }

    /// How many requests have arrived.
    pub fn request_count(&self) -> u64 {
        self.shared.state().requests
    }

    /// How many events are stored, visible or not.
    pub fn event_count(&self) -> usize {
        self.shared.state().archive.len()
    }

    /// Every event that was ever inserted, by action, with its `pk`.
    pub fn promised(&self) -> Tally {
        self.shared.state().tally.clone()
    }

    /// How many events were ever inserted; cheaper than [`Self::promised`].
    pub fn promised_total(&self) -> u64 {
        self.shared.state().tally.total
    }

    /// Adds a user, or replaces the one with the same `pk`.
    pub fn add_user(&self, user: FakeUser) {
        let mut state = self.shared.state();
        state.directory.users.retain(|known| known.pk != user.pk);
        state.directory.users.push(user);
    }

    /// Deletes a user: look-ups answer 404 from here on. The events stay, see
    /// [`Self::delete_user_events`].
    pub fn remove_user(&self, pk: i64) {
        self.shared.state().directory.users.retain(|u| u.pk != pk);
    }

    /// Adds a group, or replaces the one with the same `pk`.
    pub fn add_group(&self, group: FakeGroup) {
        let mut state = self.shared.state();
        state.directory.groups.retain(|known| known.pk != group.pk);
        state.directory.groups.push(group);
    }

    /// Adds everybody, with their tenants' groups.
    pub fn add_people(&self, people: &People) {
        for group in people.tenants.iter().map(|tenant| &tenant.group) {
            self.add_group(FakeGroup {
                pk: group.pk.clone(),
                name: group.name.clone(),
                is_superuser: false,
            });
        }
        for group in &people.common_groups {
            self.add_group(FakeGroup {
                pk: group.pk.clone(),
                name: group.name.clone(),
                is_superuser: group.name == "authentik Admins",
            });
        }
        for person in people.persons.iter().chain([&people.admin]) {
            let groups = match people.tenant_of(person) {
                Some(tenant) => vec![tenant.group.pk.clone()],
                None => people
                    .common_groups
                    .iter()
                    .take(1)
                    .map(|g| g.pk.clone())
                    .collect(),
            };
            self.add_user(FakeUser {
                pk: person.pk,
                username: person.username.clone(),
                name: person.name.clone(),
                email: person.email.clone(),
                uid: person.uid.clone(),
                uuid: person.uuid.clone(),
                groups,
                is_active: true,
            });
        }
    }

    /// The key that is valid now (the last one made).
    pub fn token(&self) -> String {
        self.shared.state().current_token.clone()
    }

    /// Adds a key with its own permissions.
    pub fn add_token(&self, key: &str, permissions: Permissions) {
        self.shared
            .state()
            .tokens
            .insert(key.to_owned(), permissions);
    }

    /// What an expiring token meets: its key is replaced, the old one is refused from here on.
    /// Returns the new key.
    pub fn rotate_token(&self) -> String {
        let mut state = self.shared.state();
        let key = hex_token(&mut state.rng, 60);
        let old = std::mem::replace(&mut state.current_token, key.clone());
        if let Some(permissions) = state.tokens.remove(&old) {
            state.tokens.insert(key.clone(), permissions);
        }
        key
    }
}
