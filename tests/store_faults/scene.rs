//! A workspace at work, a Daybook that enters what it does, and witnesses of how that goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daybook::config::Collections;
use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use daybook::store::Store;
use daybook::store::mongodb::MongoStore;
use mongodb::Database;
use testkit::World;
use testkit::ledger::{self, SOURCES};
use testkit::mongod::{outlasts, server_run};
use testkit::world::{eventually, sum_of};
use tokio::task::JoinHandle;

/// Events must flow again this soon after a fault. An idle machine takes less than two seconds
/// after a server is back, and less than six where drivers find out first that their connections
/// are of no use; what it took is printed.
pub const BACK_LIMIT: Duration = Duration::from_secs(30);

/// The other sources have their own pauses, and wait behind the first.
const OTHERS_LIMIT: Duration = Duration::from_secs(10);

/// The time of one store operation in these stories.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(3);

pub struct Scene {
    pub world: World,
    pub workspace: Workspace,
    pub observer: Arc<dyn Store>,
    cursors: Watch,
    health: Watch,
}

/// A task that looks again and again; what it sees amiss is a panic, found at the end.
struct Watch {
    looks: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    async fn finish(self, what: &str) {
        if self.task.is_finished() {
            self.task.await.unwrap();
        } else {
            self.task.abort();
        }
        let looks = self.looks.load(Ordering::Acquire);
        assert!(looks > 5, "{what} was looked at only {looks} times");
    }
}

impl Scene {
    /// `daybook_url` may lead through a proxy; `observer_url` goes straight to the server.
    pub async fn start(daybook_url: &str, observer_url: &str, events_per_second: f64) -> Self {
        let plan = World::at(daybook_url);
        let workspace = Workspace::start(WorkspaceConfig {
            events_per_second,
            // Not before Daybook's first look: a first start reads the live file only.
            rotate_after_lines: Some(200.max(events_per_second as u64)),
            rotated_logs: 1000,
            authentik_keeps: 1_000_000,
            senders_pause: Duration::from_millis(200),
            remember_keys: true,
            ..WorkspaceConfig::new(plan.dir(), 5)
        })
        .await
        .unwrap();
        let store = format!("timeout = \"{}s\"", STORE_TIMEOUT.as_secs());
        let plan = plan.workspace(&workspace);
        let world = plan.start_with("auth = \"none\"", &store).await;
        let senders_url = world.url("");
        Self::watched(world, workspace, observer_url, &senders_url).await
    }

    /// A world and a workspace that a story has set up itself, and where its senders find Daybook.
    pub async fn watched(
        world: World,
        workspace: Workspace,
        observer_url: &str,
        senders_url: &str,
    ) -> Self {
        // A name of its own: what fails for Daybook does not fail for the witness, nor is used up by it.
        let observer_url = format!("{observer_url}&appName=observer");
        let collections = Collections::default();
        let observer =
            MongoStore::connect(&observer_url, Duration::from_secs(5), &collections).await;
        let observer: Arc<dyn Store> = Arc::new(observer.unwrap());
        workspace.connect(senders_url);
        let client = mongodb::Client::with_uri_str(&observer_url).await.unwrap();
        let cursors = watch_cursors(Arc::clone(&observer), client.database("watch"));
        let health = watch_health(world.url("/healthz"), world.client().clone());
        let scene = Self {
            world,
            workspace,
            observer,
            cursors,
            health,
        };
        scene.flows("at the start").await;
        scene
    }

    /// Sum of a metric of Daybook, see [`World::metric`].
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        self.world.metric(name, labels).await
    }

    /// Waits until the writer has noticed that the store is away.
    pub async fn store_is_seen_away(&self) {
        eventually("the store is seen to be away", async || {
            self.metric("daybook_store_up", "").await == 0.0
        })
        .await;
        assert_eq!(self.world.get("/readyz").await.0, 503);
    }

    /// Waits until something new of every source is in the store; how long the first took.
    pub async fn flows(&self, what: &str) -> Duration {
        let started = Instant::now();
        let before = self.written().await;
        let mut after = BTreeMap::new();
        eventually(&format!("events of all sources flow {what}"), async || {
            for (source, count) in self.written().await {
                if count > before[source] {
                    after.entry(source).or_insert_with(|| started.elapsed());
                }
            }
            after.len() == SOURCES.len()
        })
        .await;
        println!("{what}: flowing after {after:.1?}");
        after.values().min().copied().unwrap_or_default()
    }

    /// The same, and soon.
    pub async fn flows_soon(&self, what: &str) {
        let started = Instant::now();
        let took = self.flows(what).await;
        assert!(took < BACK_LIMIT, "{what}: flowing only after {took:?}");
        assert!(started.elapsed() < BACK_LIMIT + OTHERS_LIMIT, "{what}");
        // Another connection that was lost in silence may yet be met, and the store away once more.
        self.world.ready().await;
    }

    async fn written(&self) -> BTreeMap<&'static str, u64> {
        let scrape = self.world.text("/metrics").await;
        let of = |source: &str| {
            let label = format!("source=\"{source}\"");
            sum_of(&scrape, "daybook_events_written_total", &label) as u64
        };
        SOURCES.iter().map(|source| (*source, of(source))).collect()
    }

    /// Lets the workspace rest, waits for everything to arrive and compares it, event by event.
    pub async fn finish(self) {
        self.finish_with(&["200"]).await;
    }

    /// The same for a story in which webhooks are answered in these ways.
    pub async fn finish_with(mut self, codes: &[&str]) {
        self.workspace.pause().await;
        self.workspace.drained().await;
        let count = ledger::settle(&self.workspace, &*self.observer).await;
        self.cursors.finish("every cursor").await;
        self.health.finish("/healthz").await;
        let scrape = self.world.text("/metrics").await;
        for line in scrape.lines() {
            // Series of known codes are there from the start, at 0.
            let is_webhook =
                line.starts_with("daybook_webhook_requests_total") && !line.ends_with(" 0");
            let is_known = codes
                .iter()
                .any(|code| line.contains(&format!("code=\"{code}\"")));
            assert!(!is_webhook || is_known, "a sender saw {line}");
        }
        println!(
            "{count} events exactly; {} repeats recognised",
            sum_of(&scrape, "daybook_events_duplicate_total", ""),
        );
        self.world.halt().await;
        ledger::stays_settled(&self.workspace, &*self.observer).await;
    }
}

/// Cursors and generations never go back. `probe` is on the same server.
fn watch_cursors(store: Arc<dyn Store>, probe: Database) -> Watch {
    let looks = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&looks);
    let task = tokio::spawn(async move {
        let mut highest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let run = server_run(&probe).await;
            // While the store is away there is nothing to see.
            let found = store.cursors().await.unwrap_or_default();
            let is_kept = outlasts(&probe, run).await;
            if is_kept && !found.is_empty() {
                count.fetch_add(1, Ordering::AcqRel);
            }
            for cursor in found {
                let place = (cursor.generation, cursor.seq);
                let known = highest.get(&cursor.source).copied().unwrap_or_default();
                assert!(
                    place.0 >= known.0 && place.1 >= known.1,
                    "the cursor of {} went from {known:?} back to {place:?}",
                    cursor.source
                );
                // A server that is killed comes back with what its journal holds.
                if is_kept {
                    highest.insert(cursor.source, place);
                }
            }
        }
    });
    Watch { looks, task }
}

/// The service is alive, whatever the store does.
fn watch_health(url: String, client: reqwest::Client) -> Watch {
    let looks = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&looks);
    let task = tokio::spawn(async move {
        loop {
            let request = client.get(&url).timeout(Duration::from_secs(30));
            let answer = request.send().await.expect("the service answers");
            assert_eq!(answer.status().as_u16(), 200);
            count.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    Watch { looks, task }
}
