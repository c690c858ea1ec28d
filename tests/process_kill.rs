//! The service as a process that dies at any instant, under load of all four sources, with the log
//! being rotated: what was promised stands in the store in the end, exactly.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use daybook::config::Collections;
use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use daybook::store::Store;
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use testkit::ledger;
use testkit::mongod::Mongod;
use testkit::process::{Process, free_port};
use testkit::world::{eventually, workspace_toml};

const DAYBOOK: &str = env!("CARGO_BIN_EXE_daybook");

/// In each of two stories, and until half as many lives began to work and the log was rotated often
/// enough. The soak kills for longer.
const KILLS: u32 = 15;
const ROTATIONS: u64 = 6;

/// How long a life lasts, counted from its start, in milliseconds; longer where starts take long.
const LIFE: std::ops::Range<u64> = 250..950;
const LONGEST_LIFE: u64 = 5_000;

/// A restart is promised to take a second; a loaded machine needs room, as its first start shows.
fn ready_limit(first_start: Duration) -> Duration {
    Duration::from_secs(30).max(4 * first_start)
}

/// A configuration, a workspace that sends to its address, and lives of the service under it.
struct Stage {
    dir: TempDir,
    workspace: Workspace,
    port: u16,
    config: String,
}

impl Stage {
    async fn new(store_url: impl Fn(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let workspace = Workspace::start(WorkspaceConfig {
            events_per_second: 150.0,
            // Not before the first life's first look: a first start reads the live file only.
            rotate_after_lines: Some(100),
            rotated_logs: 10_000,
            authentik_keeps: 1_000_000,
            senders_pause: Duration::from_millis(50),
            remember_keys: true,
            daybook_url: Some(format!("http://127.0.0.1:{port}")),
            ..WorkspaceConfig::new(dir.path(), 3)
        })
        .await
        .unwrap();
        let text = format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n\
             [journal]\ndir = \"{}\"\n{}",
            store_url(dir.path()),
            dir.path().join("journal").display(),
            workspace_toml(&workspace),
        );
        let path = dir.path().join("daybook.toml");
        std::fs::write(&path, text).unwrap();
        Self {
            config: path.display().to_string(),
            dir,
            workspace,
            port,
        }
    }

    fn life(&self) -> Process {
        let arguments = ["run", "-c", &self.config];
        Process::spawn(DAYBOOK, &arguments, self.port, &self.dir.path().join("log"))
    }

    /// The first life, which lasts until the log's cursor stands; how long it took to be ready.
    async fn begins(&self) -> Duration {
        let started = Instant::now();
        let mut daybook = self.life();
        daybook.ready().await;
        let took = started.elapsed();
        let label = "source=\"ocis\"";
        eventually("the log is read", async || {
            daybook.metric("daybook_events_written_total", label).await > 0.0
        })
        .await;
        daybook.signal("KILL");
        daybook.wait().await;
        took
    }

    /// Lives that end by SIGKILL at a random instant; one more that ends in peace, and the sum.
    async fn dies_again_and_again(mut self, store: &dyn Store, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut readiness = Vec::new();
        let first_start = self.begins().await;
        let end = 4 * first_start.as_millis() as u64;
        let life = LIFE.start..end.clamp(LIFE.end, LONGEST_LIFE);
        let mut kills = 0;
        while kills < KILLS
            || readiness.len() as u32 <= KILLS / 2
            || self.workspace.ocis().rotations() < ROTATIONS
        {
            let working = readiness.len();
            assert!(
                kills < 10 * KILLS,
                "only {working} of {kills} lives began to work"
            );
            kills += 1;
            let started = Instant::now();
            let end = started + Duration::from_millis(rng.random_range(life.clone()));
            let mut daybook = self.life();
            while Instant::now() < end {
                if let Some((200, _)) = daybook.try_get("/readyz").await {
                    readiness.push(started.elapsed());
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep_until(end.into()).await;
            daybook.signal("KILL");
            assert_eq!(daybook.wait().await.signal(), Some(9), "{}", daybook.log());
        }
        let working = readiness.len();
        readiness.sort();
        println!(
            "{kills} kills; start to ready: median {:?}, longest {:?}; {} rotations, {:?}",
            readiness[working / 2],
            readiness[working - 1],
            self.workspace.ocis().rotations(),
            self.workspace.counts(),
        );
        self.ends_in_peace(store, first_start).await;
    }

    /// One life without trouble, which is soon ready.
    async fn ends_in_peace(&mut self, store: &dyn Store, first_start: Duration) {
        let started = Instant::now();
        let mut daybook = self.life();
        daybook.ready().await;
        let took = started.elapsed();
        println!("ready after {took:?}, the first time after {first_start:?}");
        assert!(took < ready_limit(first_start), "{took:?}");
        self.workspace.pause().await;
        self.workspace.drained().await;
        let count = ledger::settle(&self.workspace, store).await;
        println!(
            "{count} events exactly, {:?} after the start",
            started.elapsed()
        );
        daybook.signal("TERM");
        assert_eq!(daybook.wait().await.code(), Some(0));
        ledger::stays_settled(&self.workspace, store).await;
    }
}

async fn mongodb(url: &str) -> MongoStore {
    let collections = Collections::default();
    let store = MongoStore::connect(url, Duration::from_secs(10), &collections);
    store.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant_over_mongodb() {
    let mongod = Mongod::shared().await;
    let url = mongod.url("killed");
    let stage = Stage::new(|_| url.clone()).await;
    let store = mongodb(&url).await;
    stage.dies_again_and_again(&store, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant_over_sqlite() {
    let file = |dir: &Path| dir.join("daybook.db");
    let stage = Stage::new(|dir| format!("sqlite:{}", file(dir).display())).await;
    let path = file(stage.dir.path());
    let store = SqliteStore::open(&path, Duration::from_secs(10), &Collections::default()).unwrap();
    stage.dies_again_and_again(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_under_load_and_a_second_one_means_now() {
    let mongod = Mongod::start().await;
    let url = mongod.url("stopped");
    let mut stage = Stage::new(|_| url.clone()).await;
    let store = mongodb(&url).await;
    let mut first_start = None;
    for round in 1..=3 {
        let started = Instant::now();
        let mut daybook = stage.life();
        daybook.ready().await;
        first_start = first_start.or(Some(started.elapsed()));
        let before = daybook.metric("daybook_events_written_total", "").await;
        eventually("events flow", async || {
            daybook.metric("daybook_events_written_total", "").await > before + 100.0
        })
        .await;
        let told = Instant::now();
        daybook.signal("TERM");
        assert_eq!(daybook.wait().await.code(), Some(0), "{}", daybook.log());
        println!("drain {round} took {:?}", told.elapsed());
        assert_eq!(daybook.log().matches("drained").count(), round);
    }

    let mut daybook = stage.life();
    daybook.ready().await;
    mongod.freeze();
    eventually("something is in flight", async || {
        daybook.metric("daybook_in_flight_bytes", "").await > 0.0
    })
    .await;
    daybook.signal("TERM");
    eventually("it drains", async || {
        daybook.log().matches("draining").count() == 4
    })
    .await;
    let told = Instant::now();
    daybook.signal("TERM");
    let status = daybook.wait().await;
    println!("a second signal took {:?}", told.elapsed());
    assert!(told.elapsed() < Duration::from_secs(20));
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    mongod.thaw();
    stage
        .ends_in_peace(&store, first_start.unwrap_or_default())
        .await;
}
