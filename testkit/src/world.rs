//! A world per test: a temporary folder, a store, a Daybook under a configuration, and verbs.
//!
//! ```no_run
//! # async fn story() {
//! use testkit::World;
//!
//! let world = World::sqlite().await.source("kind = \"recorder\"").start().await;
//! world.post("/api/v1/events", r#"{"action":"invoice.paid"}"#, &[]).await;
//! world.events_reach(1).await;
//! world.stop().await;
//! # }
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook::config::{Config, LoadedConfig};
use daybook::simulators::workspace::Workspace;
use daybook::store::{EventFilter, PageKey, Store, StoreError, StoredEvent};
use daybook::tree::{Daybook, End, TreeOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::mongod::Mongod;

/// No condition that a test awaits takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A world before its Daybook runs: add sources and settings.
pub struct Plan {
    dir: TempDir,
    store_url: String,
    settings: String,
    sources: String,
    journal_size: String,
    tuning: Tuning,
}

/// Puts something between a Daybook and its store.
type Through = fn(Arc<dyn Store>) -> Arc<dyn Store>;

/// What a configuration cannot say.
#[derive(Clone, Default)]
struct Tuning {
    adjust: Option<fn(&mut Config)>,
    options: Option<TreeOptions>,
    through: Option<Through>,
}

/// A running world.
pub struct World {
    dir: TempDir,
    store_url: String,
    toml: String,
    tuning: Tuning,
    daybook: Option<Daybook>,
    client: reqwest::Client,
}

impl World {
    /// A world with a SQLite store in its folder.
    pub async fn sqlite() -> Plan {
        let dir = TempDir::new().expect("a temporary folder");
        let store_url = format!("sqlite:{}", dir.path().join("daybook.db").display());
        Plan::new(dir, store_url)
    }

    /// A world with a database of its own in this mongod.
    pub async fn mongodb(mongod: &Mongod) -> Plan {
        let dir = TempDir::new().expect("a temporary folder");
        let name = format!("world_{:016x}", rand::random::<u64>());
        Plan::new(dir, mongod.url(&name))
    }

    /// A world with its store at this URL.
    pub fn at(store_url: &str) -> Plan {
        let dir = TempDir::new().expect("a temporary folder");
        Plan::new(dir, store_url.to_owned())
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its store is.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// The name of its database in MongoDB.
    pub fn database_name(&self) -> String {
        let path = self.store_url.rsplit('/').next().unwrap_or_default();
        path.split('?').next().unwrap_or_default().to_owned()
    }

    /// Its Daybook.
    pub fn daybook(&self) -> &Daybook {
        self.daybook.as_ref().expect("the Daybook runs")
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.daybook().address())
    }

    /// A client for its HTTP.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Waits until it says that it is ready. One that is being restarted gives no answer.
    pub async fn ready(&self) {
        eventually("readiness", async || {
            let answer = self.try_get("/readyz").await;
            answer.is_ok_and(|(status, _)| status == 200)
        })
        .await;
    }

    /// Posts a body; status and JSON answer (null when it is none).
    pub async fn post(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let mut request = self.client.post(self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send().await.expect("an answer")).await
    }

    /// Gets a path; status and JSON answer (null when it is none).
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.try_get(path).await.expect("an answer")
    }

    async fn try_get(&self, path: &str) -> reqwest::Result<(u16, Value)> {
        let response = self.client.get(self.url(path)).send().await?;
        Ok(answer(response).await)
    }

    /// Gets a path as text.
    pub async fn text(&self, path: &str) -> String {
        let answer = self
            .client
            .get(self.url(path))
            .send()
            .await
            .expect("an answer");
        answer.text().await.expect("a body")
    }

    /// All events in the store, newest first; none as long as it is not prepared.
    pub async fn events(&self) -> Vec<StoredEvent> {
        let store = self.daybook().store();
        let mut all: Vec<StoredEvent> = Vec::new();
        let filter = EventFilter::default();
        loop {
            let before = all.last().map(PageKey::of);
            let page = patiently(async || {
                let found = store.find_events(&filter, before.as_ref(), 1000).await;
                match found {
                    // The first start is just making the tables.
                    Err(StoreError::Unavailable(why)) if why.contains("no such table") => {
                        Ok(Vec::new())
                    }
                    found => found,
                }
            })
            .await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// Waits until the store holds exactly so many events, and fails if it holds more.
    pub async fn events_reach(&self, count: usize) -> Vec<StoredEvent> {
        let mut events = Vec::new();
        eventually(&format!("{count} events"), async || {
            events = self.events().await;
            assert!(
                events.len() <= count,
                "{} events, wanted {count}",
                events.len()
            );
            events.len() == count
        })
        .await;
        events
    }

    /// Sum of a metric's series whose labels contain `labels`, as scraped.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        sum_of(&self.text("/metrics").await, name, labels)
    }

    /// Waits until a source is in this state; its view.
    pub async fn source_becomes(&self, name: &str, state: &str) -> Value {
        let mut view = Value::Null;
        eventually(&format!("source {name} {state}"), async || {
            let source = self
                .daybook()
                .board()
                .source(name)
                .expect("the source is configured");
            view = serde_json::to_value(source.view()).expect("a view is JSON");
            view["state"] == state
        })
        .await;
        view
    }

    /// Drains the Daybook and starts another on the same folder and store.
    pub async fn restart(&mut self) {
        self.resume().await;
    }

    /// Drains the Daybook and leaves its world as it is, until [`World::resume`].
    pub async fn halt(&mut self) {
        if let Some(daybook) = self.daybook.take() {
            assert_eq!(daybook.shutdown().await, End::Drained);
        }
    }

    /// Starts a Daybook again on the same folder and store.
    pub async fn resume(&mut self) {
        self.halt().await;
        self.daybook = Some(start(&self.toml, &self.tuning).await);
    }

    /// Drains and ends.
    pub async fn stop(mut self) {
        if let Some(daybook) = self.daybook.take() {
            assert_eq!(daybook.shutdown().await, End::Drained);
        }
    }
}

impl Plan {
    fn new(dir: TempDir, store_url: String) -> Self {
        Self {
            dir,
            store_url,
            settings: String::new(),
            journal_size: "1GiB".to_owned(),
            sources: String::new(),
            tuning: Tuning::default(),
        }
    }

    /// The world's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its store is.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// Writes a file into the folder.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("a file in the temporary folder");
        path
    }

    /// Adds a source: the lines of its table.
    pub fn source(mut self, lines: &str) -> Self {
        let _infallible = write!(self.sources, "\n[[sources]]\n{lines}\n");
        self
    }

    /// Adds a section with its lines: `[writer]\nbatch_events = 10`. Not `[store]` or `[http]`.
    pub fn settings(mut self, lines: &str) -> Self {
        let _infallible = write!(self.settings, "\n{lines}\n");
        self
    }

    /// Adds a workspace's directory and sources, see [`workspace_toml`].
    pub fn workspace(mut self, workspace: &Workspace) -> Self {
        self.sources.push_str(&workspace_toml(workspace));
        self
    }

    /// The journal's `max_size`, 1 GiB unless said. With `"0B"` there is none: a push is then
    /// answered 200 only from the store.
    pub fn journal_size(mut self, size: &str) -> Self {
        size.clone_into(&mut self.journal_size);
        self
    }

    /// Changes the configuration after it was read and checked, to values that it does not offer.
    pub fn adjust(mut self, adjust: fn(&mut Config)) -> Self {
        self.tuning.adjust = Some(adjust);
        self
    }

    /// Puts something of one's own between the Daybook and its store.
    pub fn store_through(mut self, through: Through) -> Self {
        self.tuning.through = Some(through);
        self
    }

    /// Sets how the tree reacts to faults.
    pub fn options(mut self, options: TreeOptions) -> Self {
        self.tuning.options = Some(options);
        self
    }

    /// Starts its Daybook, on a free port, open to everyone on loopback unless `http` says otherwise.
    pub async fn start(self) -> World {
        self.start_with("auth = \"none\"", "").await
    }

    /// The same with lines of one's own for `[http]` (instead of `auth = "none"`) and `[store]`.
    pub async fn start_with(self, http: &str, store: &str) -> World {
        let toml = format!(
            "[store]\nurl = \"{}\"\n{store}\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\n[journal]\ndir = \"{}\"\nmax_size = \"{}\"\n{}\n{}",
            self.store_url,
            self.dir.path().join("journal").display(),
            self.journal_size,
            self.settings,
            self.sources,
        );
        let daybook = start(&toml, &self.tuning).await;
        World {
            dir: self.dir,
            store_url: self.store_url,
            toml,
            tuning: self.tuning,
            daybook: Some(daybook),
            client: client(),
        }
    }
}

async fn start(toml: &str, tuning: &Tuning) -> Daybook {
    let loaded = LoadedConfig::from_parts(
        Some((PathBuf::from("world.toml"), toml.to_owned())),
        Vec::new(),
    );
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let mut config = loaded.config;
    if let Some(adjust) = tuning.adjust {
        adjust(&mut config);
    }
    let options = tuning.options.clone();
    let options = options.unwrap_or_else(|| TreeOptions::of(&config));
    let store = daybook::store::open(&config.store).await.expect("a store");
    let store = match tuning.through {
        Some(through) => through(store),
        None => store,
    };
    let daybook = Daybook::start_with_options(&config, store, options).await;
    daybook.expect("a Daybook")
}

/// The configuration of a workspace's directory and four sources, Authentik asked once a second,
/// each named as in [`ledger::SOURCES`](crate::ledger::SOURCES).
pub fn workspace_toml(workspace: &Workspace) -> String {
    format!(
        r#"
[tenants]
file = "{}"
[[sources]]
kind = "authentik"
url = "{}"
token_file = "{}"
interval = "1s"
[[sources]]
kind = "ocis"
path = "{}"
[[sources]]
kind = "stalwart"
secret_files = ["{}"]
[[sources]]
kind = "recorder"
name = "platform-api"
"#,
        workspace.tenants_file().display(),
        workspace.authentik().url(),
        workspace.authentik_token_file().display(),
        workspace.ocis_log_path().display(),
        workspace.stalwart_key_file().display(),
    )
}

/// An HTTP client that uses no proxy, and no connection that Daybook may just be closing: after ten
/// idle seconds it does.
pub fn client() -> reqwest::Client {
    daybook::install_crypto_provider();
    reqwest::Client::builder()
        .no_proxy()
        .pool_idle_timeout(Duration::from_secs(5))
        .build()
        .expect("a client")
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap_or_default();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Awaits a condition, looking every 20 ms, and up to every 250 ms where a look takes long; panics
/// with `what` when it does not come.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let pauses = [20, 250].map(Duration::from_millis);
    let started = Instant::now();
    let mut look = started;
    while !condition().await {
        assert!(
            started.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for: {what}"
        );
        tokio::time::sleep(pause_after(look, pauses)).await;
        look = Instant::now();
    }
}

/// How long to wait before the next look, when the last one began then: looking takes more of the
/// machine than what is looked at, and must not take most of the time.
pub fn pause_after(look: Instant, [shortest, longest]: [Duration; 2]) -> Duration {
    (3 * look.elapsed()).clamp(shortest, longest)
}

/// Asks a store again while it is away or too slow.
///
/// # Panics
/// When it goes on so, or fails in another way.
pub async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let started = Instant::now();
    loop {
        let answer = ask().await;
        let comes_back = matches!(
            answer,
            Err(StoreError::Unavailable(_) | StoreError::Timeout { .. })
        );
        if !comes_back || started.elapsed() >= PATIENCE {
            return answer.expect("the store answers");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sum of a metric's series whose labels contain `labels`, in a scrape.
///
/// # Panics
/// When there is no metric of that name: a sum of nothing would say that all is well.
pub fn sum_of(scrape: &str, name: &str, labels: &str) -> f64 {
    let is_there = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .any(|family| matches!(name.strip_prefix(family), Some("" | "_sum" | "_count")));
    assert!(is_there, "no metric {name} in: {scrape}");
    scrape
        .lines()
        .filter(|line| {
            let series = line.split([' ', '{']).next().unwrap_or_default();
            series == name && line.contains(labels)
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    const SCRAPE: &str = "# TYPE a_total counter\na_total{of=\"x\"} 2\na_total{of=\"y\"} 3\n\n\
        # TYPE b histogram\nb_count 7\n";

    #[test]
    fn series_of_a_name_are_summed() {
        for (name, labels, sum) in [
            ("a_total", "", 5.0),
            ("a_total", "x", 2.0),
            ("a_total", "z", 0.0),
            ("b_count", "", 7.0),
        ] {
            assert_eq!(sum_of(SCRAPE, name, labels), sum, "{name} {labels}");
        }
    }

    #[test]
    #[should_panic(expected = "no metric a")]
    fn a_name_that_is_not_there_is_no_zero() {
        sum_of(SCRAPE, "a", "");
    }
}
