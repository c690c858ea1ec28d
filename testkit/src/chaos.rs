//! Seeded chaos: a schedule of faults drawn from a seed, struck against a whole Daybook in a
//! process of its own, with a real mongod and a busy workspace; then calm, and an account.
//!
//! The same seed draws the same faults in the same order and with the same pauses. What they meet
//! depends on the machine, so a failing seed is run again to see, not to replay instructions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daybook::config::Collections;
use daybook::simulators::authentik::{Fault, Times};
use daybook::simulators::workspace::{Workspace, WorkspaceConfig, WorkspaceCounts};
use daybook::store::mongodb::MongoStore;
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ledger;
use crate::mongod::{Mongod, outlasts, server_run};
use crate::process::free_port;
use crate::world::client;

const DATABASE: &str = "chaos";
/// How long everything may take to arrive after the last fault before the run has failed.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(300);
/// How long a number of strikes may take.
const STRIKES_LIMIT: Duration = Duration::from_secs(300);
/// What the kinds of strike are called in a report.
pub const KINDS: [&str; 5] = [
    "actor kills sent",
    "process kills",
    "store freezes",
    "store kills",
    "upstream faults",
];
/// How many requests met an upstream fault, in a report.
pub const UPSTREAM_HITS: &str = "upstream faults met";

/// What may happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Strike {
    /// An actor or a plane's supervisor is killed.
    Actor(&'static str),
    /// The process gets SIGKILL and is started again.
    Process,
    /// mongod is stopped with SIGSTOP for so long.
    FreezeStore(Duration),
    /// mongod gets SIGKILL and is started again.
    KillStore,
    /// The next so many answers of Authentik are this.
    Upstream(Fault, u32),
}

impl Strike {
    /// What it is called in a report.
    pub fn kind(&self) -> &'static str {
        let [actor, process, freeze, kill, upstream] = KINDS;
        match self {
            Self::Actor(_) => actor,
            Self::Process => process,
            Self::FreezeStore(_) => freeze,
            Self::KillStore => kill,
            Self::Upstream(..) => upstream,
        }
    }
}

const ACTORS: [&str; 11] = [
    "authentik",
    "ocis",
    "stalwart",
    "platform-api",
    "journal",
    "resolver",
    "writer",
    "http",
    "store",
    "sources",
    "edge",
];

/// Draws the next fault and the pause before it.
pub fn draw(rng: &mut StdRng) -> (Duration, Strike) {
    let pause = Duration::from_millis(rng.random_range(200..1000));
    let strike = match rng.random_range(0..100) {
        0..70 => Strike::Actor(ACTORS[rng.random_range(0..ACTORS.len())]),
        70..78 => Strike::Process,
        78..84 => Strike::FreezeStore(Duration::from_millis(rng.random_range(100..2500))),
        84..87 => Strike::KillStore,
        _ => Strike::Upstream(upstream(rng), rng.random_range(1..4)),
    };
    (pause, strike)
}

fn upstream(rng: &mut StdRng) -> Fault {
    match rng.random_range(0..10) {
        0 => Fault::TooManyRequests {
            retry_after: 1,
            html: rng.random_bool(0.5),
        },
        1 => Fault::ServerError,
        2 => Fault::BadGateway,
        3 => Fault::GatewayTimeout,
        4 => Fault::ResetMidBody,
        5 => Fault::TruncatedJson,
        6 => Fault::ResetBeforeHeaders,
        7 => Fault::OkHtml,
        8 => Fault::OkWithoutPagination,
        _ => Fault::PageSizeClamp(7),
    }
}

/// How long faults strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// For so long.
    Time(Duration),
    /// So often, and until each kind has struck: the same faults on any machine.
    Strikes(u64),
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Draws the schedule.
    pub seed: u64,
    /// How long faults strike.
    pub length: Length,
    /// Load over all sources.
    pub events_per_second: f64,
    /// The program that [`child`] runs in: this one's own executable, with these arguments before
    /// the configuration's path.
    pub child: (PathBuf, Vec<String>),
    /// One line a fault on standard error.
    pub verbose: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How often each kind of fault struck.
    pub strikes: BTreeMap<&'static str, u64>,
    /// How often the cursors were looked at.
    pub looks: u64,
    /// What the simulators promised.
    pub promised: u64,
    /// What the store holds.
    pub stored: u64,
    /// Rotations of the log.
    pub rotations: u64,
    /// From the last fault until everything promised was stored; `None`: it never was.
    pub converged_after: Option<Duration>,
    /// Everything that is not as it must be.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether every invariant held.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.converged_after.is_some()
    }

    /// One page for people.
    pub fn page(&self, plan: &Plan) -> String {
        let mut page = format!(
            "seed {}  faults for {:?}  load {} events/s\n\n",
            plan.seed, plan.length, plan.events_per_second
        );
        for (kind, count) in &self.strikes {
            let _infallible = writeln!(page, "{kind:<24} {count:>7}");
        }
        let _infallible = writeln!(page, "{:<24} {:>7}", "looks at the cursors", self.looks);
        let _infallible = writeln!(page, "{:<24} {:>7}\n", "log rotations", self.rotations);
        let _infallible = writeln!(page, "{:<24} {:>7}", "events promised", self.promised);
        let _infallible = writeln!(page, "{:<24} {:>7}", "events stored", self.stored);
        let lost = self.promised.saturating_sub(self.stored);
        let double = self.stored.saturating_sub(self.promised);
        let _infallible = writeln!(
            page,
            "{:<24} {lost:>7}\n{:<24} {double:>7}",
            "lost", "double or invented"
        );
        let converged = self.converged_after.map_or_else(
            || "never".to_owned(),
            |after| format!("{:.1}s after the last fault", after.as_secs_f64()),
        );
        let _infallible = writeln!(page, "{:<24} {converged}", "converged");
        for violation in &self.violations {
            let _infallible = writeln!(page, "VIOLATED  {violation}");
        }
        let _infallible = writeln!(
            page,
            "\n{}",
            if self.is_clean() {
                "every invariant held"
            } else {
                "FAILED"
            }
        );
        page
    }
}

/// The other end of [`Plan::child`]: runs a Daybook under the configuration at `config` and kills
/// the actors that standard input names, one a line, until standard input ends.
pub async fn child(config: &Path) -> Result<(), anyhow::Error> {
    let loaded = daybook::config::LoadedConfig::load(Some(config))
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let _last_lines = daybook::telemetry::log::LastLines;
    daybook::telemetry::log::init(&loaded.config.telemetry)?;
    let daybook = daybook::tree::Daybook::start(&loaded.config).await?;
    let (names, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if names.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(name) = commands.recv().await {
        let killed = daybook.kill(name.trim()).await;
        println!("{} {}", if killed { "killed" } else { "down" }, name.trim());
    }
    daybook.shutdown().await;
    Ok(())
}

struct Life {
    child: Child,
}

impl Life {
    fn start(plan: &Plan, config: &Path, log: &Path) -> Result<Self, anyhow::Error> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)?;
        let said = log.try_clone()?;
        let (program, arguments) = &plan.child;
        let child = Command::new(program)
            .args(arguments)
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(said)
            .stderr(log)
            .spawn()?;
        Ok(Self { child })
    }

    fn kill_actor(&mut self, name: &str) -> bool {
        let Some(stdin) = self.child.stdin.as_mut() else {
            return false;
        };
        // A child that has just died hears nothing; it is started again.
        writeln!(stdin, "{name}")
            .and_then(|()| stdin.flush())
            .is_ok()
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn kill(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a schedule and settles the account.
///
/// # Errors
/// When the stage cannot be set; never for what a fault did.
pub async fn run(plan: &Plan) -> Result<Report, anyhow::Error> {
    let mongod = Mongod::start().await;
    let dir = tempfile::tempdir()?;
    let mut workspace = Workspace::start(WorkspaceConfig {
        events_per_second: plan.events_per_second,
        rotate_after_lines: Some((plan.events_per_second * 2.0) as u64 + 20),
        rotated_logs: 10_000,
        authentik_keeps: 1_000_000,
        remember_keys: true,
        ..WorkspaceConfig::new(dir.path(), plan.seed)
    })
    .await?;
    let port = free_port();
    let config = configure(dir.path(), &workspace, &mongod, port)?;
    let log = dir.path().join("daybook.log");
    let mut life = Life::start(plan, &config, &log)?;
    workspace.connect(&format!("http://127.0.0.1:{port}"));
    let watch = Watch::default();
    let watching = tokio::spawn(watch.clone().cursors(mongod.database(DATABASE).await));

    let mut report = Report::default();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let started = Instant::now();
    let mut last_fault = started;
    while !is_over(plan.length, started, &report)? {
        let (pause, strike) = draw(&mut rng);
        tokio::time::sleep(pause).await;
        if !watch.finds_alive(&mut life, &log) {
            life = Life::start(plan, &config, &log)?;
        }
        if plan.verbose {
            eprintln!("{:>7.1}s  {strike:?}", started.elapsed().as_secs_f64());
        }
        let struck =
            strike_once(&strike, plan, &mut life, &mongod, &workspace, &config, &log).await?;
        *report.strikes.entry(strike.kind()).or_default() += u64::from(struck);
        last_fault = Instant::now();
    }
    workspace.authentik().clear_faults();
    if !watch.finds_alive(&mut life, &log) {
        life = Life::start(plan, &config, &log)?;
    }
    workspace.pause().await;
    settle(&mut report, &workspace, &mongod, last_fault).await?;
    watch.finds_alive(&mut life, &log);
    watching.abort();
    let killed = std::fs::read_to_string(&log).unwrap_or_default();
    let killed = killed
        .lines()
        .filter(|line| line.starts_with("killed "))
        .count() as u64;
    report.strikes.insert("actor kills confirmed", killed);
    let met = workspace.authentik().fault_hits();
    report.strikes.insert(UPSTREAM_HITS, met);
    report.rotations = workspace.ocis().rotations();
    let seen = watch.seen();
    report.looks = seen.looks;
    report.violations.extend(seen.violations.iter().cloned());
    if seen.looks == 0 {
        report
            .violations
            .push("nobody has looked at the cursors".to_owned());
    }
    if !report.is_clean() {
        report
            .violations
            .push(format!("last lines of the log:\n{}", tail_of(&log)));
    }
    drop(life);
    Ok(report)
}

fn is_over(length: Length, started: Instant, report: &Report) -> Result<bool, anyhow::Error> {
    match length {
        Length::Time(length) => Ok(started.elapsed() >= length),
        Length::Strikes(least) => {
            anyhow::ensure!(
                started.elapsed() < STRIKES_LIMIT,
                "not every kind of fault has struck, or not often enough: {:?}",
                report.strikes
            );
            let struck = KINDS.map(|kind| report.strikes.get(kind).copied().unwrap_or_default());
            Ok(struck.iter().sum::<u64>() >= least && !struck.contains(&0))
        }
    }
}

async fn strike_once(
    strike: &Strike,
    plan: &Plan,
    life: &mut Life,
    mongod: &Mongod,
    workspace: &Workspace,
    config: &Path,
    log: &Path,
) -> Result<bool, anyhow::Error> {
    match strike {
        Strike::Actor(name) => return Ok(life.kill_actor(name)),
        Strike::Process => {
            life.kill();
            *life = Life::start(plan, config, log)?;
        }
        Strike::FreezeStore(length) => {
            mongod.freeze();
            tokio::time::sleep(*length).await;
            mongod.thaw();
        }
        Strike::KillStore => {
            mongod.kill9();
            mongod.restart().await;
        }
        Strike::Upstream(fault, times) => {
            workspace
                .authentik()
                .set_fault(fault.clone(), Times::Next(u64::from(*times)));
        }
    }
    Ok(true)
}

fn configure(
    dir: &Path,
    workspace: &Workspace,
    mongod: &Mongod,
    port: u16,
) -> Result<PathBuf, anyhow::Error> {
    let text = format!(
        r#"[store]
url = "{store}"
timeout = "5s"
[http]
listen = "127.0.0.1:{port}"
auth = "none"
[journal]
dir = "{journal}"
[tenants]
file = "{tenants}"
[telemetry]
log = "warn"
[[sources]]
kind = "authentik"
url = "{authentik}"
token_file = "{token}"
interval = "1s"
[[sources]]
kind = "ocis"
path = "{ocis}"
[[sources]]
kind = "stalwart"
secret_files = ["{key}"]
[[sources]]
kind = "recorder"
name = "platform-api"
"#,
        store = mongod.url(DATABASE),
        journal = dir.join("journal").display(),
        tenants = workspace.tenants_file().display(),
        authentik = workspace.authentik().url(),
        token = workspace.authentik_token_file().display(),
        ocis = workspace.ocis_log_path().display(),
        key = workspace.stalwart_key_file().display(),
    );
    let path = dir.join("daybook.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Waits until everything promised is stored, then compares it, event by event.
async fn settle(
    report: &mut Report,
    workspace: &Workspace,
    mongod: &Mongod,
    last_fault: Instant,
) -> Result<(), anyhow::Error> {
    let database = mongod.database(DATABASE).await;
    let events = database.collection::<Document>("auditevents");
    let waited = tokio::time::timeout(CONVERGENCE_LIMIT, workspace.drained()).await;
    if waited.is_err() {
        report
            .violations
            .push("the senders could not get rid of their events".to_owned());
    }
    report.promised = total(&workspace.counts());
    while last_fault.elapsed() < CONVERGENCE_LIMIT {
        report.stored = events.count_documents(doc! {}).await.unwrap_or(0);
        if report.stored >= report.promised {
            report.converged_after = Some(last_fault.elapsed());
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Whatever is too much would come now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    report.stored = events.count_documents(doc! {}).await?;
    let (url, collections) = (mongod.url(DATABASE), Collections::default());
    let store = MongoStore::connect(&url, CONVERGENCE_LIMIT, &collections).await?;
    let differences = ledger::differences(workspace, &store).await?;
    report.violations.extend(differences);
    let letters = database
        .collection::<Document>("auditdeadletters")
        .count_documents(doc! {})
        .await?;
    if letters > 0 {
        report.violations.push(format!(
            "{letters} dead letters, though every input was good"
        ));
    }
    Ok(())
}

fn total(promised: &WorkspaceCounts) -> u64 {
    promised.authentik + promised.ocis_lines - promised.ocis_reads
        + promised.stalwart
        + promised.platform
}

/// What is looked at while faults strike. Clones share what they have seen.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    looks: u64,
    violations: BTreeSet<String>,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn violated(&self, what: String) {
        self.seen().violations.insert(what);
    }

    /// Whether the process runs on: only the faults end it.
    fn finds_alive(&self, life: &mut Life, log: &Path) -> bool {
        let is_alive = life.is_alive();
        if !is_alive {
            self.violated(format!("the process ended by itself:\n{}", tail_of(log)));
        }
        is_alive
    }

    /// Cursors only go forward, generations only up.
    async fn cursors(self, database: Database) {
        let mut last: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let cursors = database.collection::<Document>("ingestcursors");
        // Beside Daybook's own database, which holds nothing else.
        let probe = database.client().database("watch");
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let run = server_run(&probe).await;
            let Ok(found) = cursors.find(doc! {}).await else {
                continue;
            };
            let Ok(found): Result<Vec<Document>, _> = found.try_collect().await else {
                continue;
            };
            let is_kept = outlasts(&probe, run).await;
            if is_kept && !found.is_empty() {
                self.seen().looks += 1;
            }
            for cursor in found {
                let source = cursor.get_str("source").unwrap_or_default().to_owned();
                let number = |key: &str| cursor.get_i64(key).unwrap_or_default();
                let now = (number("generation"), number("seq"));
                let before = last.get(&source).copied().unwrap_or_default();
                if now.0 < before.0 || now.1 < before.1 {
                    self.violated(format!(
                        "cursor of {source} went back from {before:?} to {now:?}"
                    ));
                }
                // A server that is killed comes back with what its journal holds.
                if is_kept {
                    last.insert(source, now);
                }
            }
        }
    }
}

fn tail_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Waits until the Daybook at this address is ready. For runs that begin with calm.
pub async fn ready(base: &str) {
    let client = client();
    crate::world::eventually("the Daybook is ready", async || {
        let answer = client.get(format!("{base}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
}
