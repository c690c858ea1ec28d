//! A store that is away for long, or changes its primary, while a mail server goes on pushing signed
//! webhooks at a steady rate to a Daybook in a process of its own; then an account: every answer,
//! every event, their order, and the memory that it took.
//!
//! The order is that of arrival: a webhook that was answered before another one was sent stands before
//! it. It is promised for what went into the journal, so it is looked at for what was answered while
//! the store was away; webhooks that were under way at the same time have no order among themselves.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daybook::simulators::stalwart::sign;
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Document, doc};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::mongod::{Mongod, ReplicaSet};
use crate::process::{Process, free_port};
use crate::world::{PATIENCE, client, pause_after};

const DATABASE: &str = "outage";
const ROUTE: &str = "/ingest/stalwart/webhook";
const KEY: &str = "outage-signature-key";
/// What the process may take, whatever waits in its journal.
pub const MEMORY_LIMIT: u64 = 100 << 20;
/// Before, between and after the faults.
const CALM: Duration = Duration::from_secs(2);
/// A sender's patience.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What happens to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A single server is stopped with SIGSTOP, so that nobody answers.
    Freeze,
    /// A single server gets SIGKILL.
    Kill,
    /// The primary of three is told to step down, and stays up.
    StepDown,
    /// The primary of three gets SIGKILL.
    KillPrimary,
}

impl Fault {
    fn needs_replica_set(self) -> bool {
        matches!(self, Self::StepDown | Self::KillPrimary)
    }
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One after the other, with the store whole in between. All of one server, or all of three.
    pub faults: Vec<Fault>,
    /// How long each lasts.
    pub each: Duration,
    /// Webhooks a second, whatever the answers do.
    pub rate: f64,
    /// Events a webhook.
    pub events: u64,
    /// A program that runs a Daybook when the configuration's path is put behind these arguments.
    pub child: (PathBuf, Vec<String>),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answers by status code; 0: none at all.
    pub answers: BTreeMap<u16, u64>,
    /// The slowest answer.
    pub slowest: Duration,
    /// Of each fault: answers while it lasted, bytes in the journal at its end, time until drained.
    pub outages: Vec<Outage>,
    /// Resident memory at its highest, in bytes.
    pub memory: u64,
    /// Events that were answered 200.
    pub promised: u64,
    /// Events in the store.
    pub stored: u64,
    /// Promised and not stored.
    pub lost: u64,
    /// Stored twice, or never sent.
    pub double: u64,
    /// Events that stand behind one that was sent after their answer.
    pub out_of_order: u64,
    /// Events whose order was looked at.
    pub in_order: u64,
    /// Events a second while the load ran.
    pub rate: f64,
}

/// One fault's figures.
#[derive(Clone, Debug)]
pub struct Outage {
    /// What it was.
    pub fault: Fault,
    /// Webhooks that were both sent and answered while it lasted.
    pub answered: u64,
    /// Bytes that waited in the journal at its end.
    pub journal_bytes: u64,
    /// From its end until the journal was empty.
    pub drained_after: Duration,
}

impl Report {
    /// Whether everything was answered 200 and stands in the store once, in order, at little cost.
    pub fn is_clean(&self) -> bool {
        self.answers.keys().eq([&200])
            && (self.lost, self.double, self.out_of_order) == (0, 0, 0)
            && self.memory < MEMORY_LIMIT
    }

    /// One page for people.
    pub fn page(&self) -> String {
        let mut page = String::new();
        for outage in &self.outages {
            let _infallible = writeln!(
                page,
                "{:?}: {} webhooks answered meanwhile, {} bytes in the journal, drained {:.1?} after it",
                outage.fault, outage.answered, outage.journal_bytes, outage.drained_after
            );
        }
        let mebibytes = self.memory as f64 / f64::from(1 << 20);
        let rows = [
            ("answers", format!("{:?}", self.answers)),
            ("slowest answer", format!("{:.2?}", self.slowest)),
            ("events a second", format!("{:.0}", self.rate)),
            ("events promised", self.promised.to_string()),
            ("events stored", self.stored.to_string()),
            ("lost", self.lost.to_string()),
            ("double or invented", self.double.to_string()),
            (
                "out of order",
                format!("{} of {}", self.out_of_order, self.in_order),
            ),
            ("most memory (RSS)", format!("{mebibytes:.1} MiB")),
        ];
        for (what, value) in rows {
            let _infallible = writeln!(page, "{what:<20} {value}");
        }
        let verdict = if self.is_clean() { "clean" } else { "FAILED" };
        let _infallible = writeln!(page, "{verdict}");
        page
    }
}

/// Runs a Daybook under the configuration at `config` until the process is killed.
///
/// # Errors
/// When it does not start.
pub async fn child(config: &Path) -> Result<(), anyhow::Error> {
    let loaded = daybook::config::LoadedConfig::load(Some(config))
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let _last_lines = daybook::telemetry::log::LastLines;
    daybook::telemetry::log::init(&loaded.config.telemetry)?;
    let _running = daybook::tree::Daybook::start(&loaded.config).await?;
    std::future::pending().await
}

/// A webhook's life.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    answered: Instant,
    code: u16,
}

impl Sent {
    fn within(&self, (from, to): (Instant, Instant)) -> bool {
        self.at >= from && self.answered <= to
    }
}

enum Servers {
    One(Mongod),
    Three(ReplicaSet),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::One(mongod) => mongod.url(DATABASE),
            Self::Three(set) => set.url(DATABASE),
        }
    }

    async fn database(&self) -> Database {
        match self {
            Self::One(mongod) => mongod.database(DATABASE).await,
            Self::Three(set) => set.database(DATABASE).await,
        }
    }

    /// The fault from its begin to its end; how many bytes were in the journal just before that.
    async fn suffer(&self, fault: Fault, length: Duration, daybook: &Process) -> u64 {
        let over = tokio::time::sleep(length);
        let lasts = async {
            over.await;
            daybook.metric("daybook_journal_bytes", "").await as u64
        };
        match (self, fault) {
            (Self::One(mongod), Fault::Freeze) => {
                mongod.freeze();
                let journal_bytes = lasts.await;
                mongod.thaw();
                journal_bytes
            }
            (Self::One(mongod), Fault::Kill) => {
                mongod.kill9();
                let journal_bytes = lasts.await;
                mongod.restart().await;
                journal_bytes
            }
            (Self::Three(set), Fault::StepDown) => {
                set.step_down().await;
                lasts.await
            }
            (Self::Three(set), Fault::KillPrimary) => {
                let primary = set.primary().await;
                primary.kill9();
                // Another one, for it answers nobody.
                set.primary().await;
                let journal_bytes = lasts.await;
                primary.restart().await;
                journal_bytes
            }
            _ => unreachable!("one kind of store a run"),
        }
    }
}

/// Runs the plan.
///
/// # Errors
/// When the stage cannot be set; never for what the fault did.
pub async fn run(plan: &Plan) -> Result<Report, anyhow::Error> {
    let three = plan.faults.iter().any(|fault| fault.needs_replica_set());
    let one = plan.faults.iter().any(|fault| !fault.needs_replica_set());
    anyhow::ensure!(three != one, "the faults are of one server or of three");
    let servers = if three {
        Servers::Three(ReplicaSet::start(3).await)
    } else {
        Servers::One(Mongod::start().await)
    };
    let dir = tempfile::tempdir()?;
    let port = free_port();
    let config = configure(dir.path(), &servers.url(), port)?;
    let (program, arguments) = &plan.child;
    let config = config.display().to_string();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .chain([&*config])
        .collect();
    let log = dir.path().join("daybook.log");
    let program = program.to_string_lossy();
    let mut daybook = Process::spawn(&program, &arguments, port, &log);
    daybook.ready().await;
    let report = play(plan, &servers, &daybook).await;
    if !report.as_ref().is_ok_and(Report::is_clean) {
        eprintln!("the end of its log:\n{}", tail_of(&daybook.log()));
    }
    report
}

/// The faults under load, and the account.
async fn play(plan: &Plan, servers: &Servers, daybook: &Process) -> Result<Report, anyhow::Error> {
    let mut report = Report::default();
    let load = MailServer::start(daybook.url(ROUTE), plan.rate, plan.events);
    let memory = Arc::new(AtomicU64::new(0));
    let sampling = tokio::spawn(sample_memory(daybook.pid(), Arc::clone(&memory)));
    tokio::time::sleep(CALM).await;
    let mut windows = Vec::new();
    for fault in &plan.faults {
        let began = Instant::now();
        let journal_bytes = servers.suffer(*fault, plan.each, daybook).await;
        let ended = Instant::now();
        let limit = PATIENCE.max(plan.each);
        anyhow::ensure!(
            drained_within(daybook, limit).await,
            "the journal still holds {} bytes {limit:?} after the fault",
            daybook.metric("daybook_journal_bytes", "").await
        );
        // A server that was killed answers some time before its restart is seen to be over.
        windows.push((began, began + plan.each));
        report.outages.push(Outage {
            fault: *fault,
            answered: 0,
            journal_bytes,
            drained_after: ended.elapsed(),
        });
        tokio::time::sleep(CALM).await;
    }
    let (sent, ran) = load.finish().await;
    report.memory = memory.load(Ordering::Relaxed).max(daybook.memory().1);
    sampling.abort();
    for (outage, window) in report.outages.iter_mut().zip(&windows) {
        outage.answered = sent.values().filter(|sent| sent.within(*window)).count() as u64;
    }
    for webhook in sent.values() {
        *report.answers.entry(webhook.code).or_default() += 1;
        report.slowest = report.slowest.max(webhook.answered - webhook.at);
    }
    let answered = report.answers.get(&200).copied().unwrap_or_default();
    report.promised = answered * plan.events;
    report.rate = (sent.len() as u64 * plan.events) as f64 / ran.as_secs_f64();
    let entered = entered(&servers.database().await, report.promised).await?;
    if matches!(servers, Servers::Three(_)) {
        // The store is back at once: what comes then does not wait behind the journal.
        windows.clear();
    }
    judge(&mut report, plan.events, &sent, &entered, &windows);
    Ok(report)
}

/// Whether the journal is drained while the load goes on.
async fn drained_within(daybook: &Process, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if daybook.metric("daybook_journal_bytes", "").await == 0.0 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn tail_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

fn configure(dir: &Path, store: &str, port: u16) -> Result<PathBuf, anyhow::Error> {
    std::fs::write(dir.join("key"), KEY)?;
    let text = format!(
        r#"[store]
url = "{store}"
timeout = "5s"
[http]
listen = "127.0.0.1:{port}"
auth = "none"
[journal]
dir = "{journal}"
[telemetry]
log = "warn"
[[sources]]
kind = "stalwart"
secret_files = ["{key}"]
"#,
        journal = dir.join("journal").display(),
        key = dir.join("key").display(),
    );
    let path = dir.join("daybook.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

async fn sample_memory(pid: u32, highest: Arc<AtomicU64>) {
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        highest.fetch_max(kib.unwrap_or_default() << 10, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sends at its rate, on as many connections as it takes, and never the same twice.
struct MailServer {
    running: watch::Sender<bool>,
    sending: tokio::task::JoinHandle<(HashMap<u64, Sent>, Duration)>,
}

impl MailServer {
    fn start(url: String, rate: f64, events: u64) -> Self {
        let running = watch::Sender::new(true);
        let mut runs = running.subscribe();
        let sending = tokio::spawn(async move {
            let started = Instant::now();
            let client = client();
            let sent = Arc::new(Mutex::new(HashMap::new()));
            let mut under_way = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            for serial in 0.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = runs.wait_for(|runs| !*runs) => break,
                }
                let request = request(&client, &url, serial, events);
                let sent = Arc::clone(&sent);
                under_way.spawn(async move {
                    let at = Instant::now();
                    let answer = request.send().await;
                    let code = answer.map_or(0, |answer| answer.status().as_u16());
                    let answered = Instant::now();
                    let life = Sent { at, answered, code };
                    sent.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(serial, life);
                });
                while under_way.try_join_next().is_some() {}
            }
            let ran = started.elapsed();
            while under_way.join_next().await.is_some() {}
            let sent = std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner));
            (sent, ran)
        });
        Self { running, sending }
    }

    /// Stops and waits for the last answers.
    async fn finish(self) -> (HashMap<u64, Sent>, Duration) {
        self.running.send_replace(false);
        self.sending.await.expect("the mail server does not panic")
    }
}

fn request(
    client: &reqwest::Client,
    url: &str,
    serial: u64,
    events: u64,
) -> reqwest::RequestBuilder {
    let events: Vec<_> = (0..events)
        .map(|place| {
            json!({
                "id": "1", "type": "auth.failed", "createdAt": "2026-11-24T04:05:39Z",
                "data": {"accountName": format!("{serial}-{place}@example.org"), "remoteIp": "192.0.2.1"},
            })
        })
        .collect();
    let body = json!({ "events": events }).to_string();
    client
        .post(url)
        .header("x-signature", sign(KEY, body.as_bytes()))
        .header("content-type", "application/json")
        .timeout(ANSWER_LIMIT)
        .body(body)
}

/// Serial and place of every event in the order in which the store has taken them, once so many are
/// there, or no more come.
async fn entered(database: &Database, wanted: u64) -> Result<Vec<(u64, u64)>, anyhow::Error> {
    let pauses = [100, 5_000].map(Duration::from_millis);
    let limit = Instant::now() + PATIENCE;
    loop {
        let look = Instant::now();
        // The primary may be changing yet.
        let found = entered_by_now(database).await;
        let is_all = found
            .as_ref()
            .is_ok_and(|found| found.len() as u64 >= wanted);
        if is_all || Instant::now() >= limit {
            return found;
        }
        tokio::time::sleep(pause_after(look, pauses)).await;
    }
}

async fn entered_by_now(database: &Database) -> Result<Vec<(u64, u64)>, anyhow::Error> {
    let collection = database.collection::<Document>("auditevents");
    let mut found = collection
        .find(doc! {})
        .sort(doc! { "$natural": 1 })
        .projection(doc! { "metadata.data.accountName": 1 })
        .await?;
    let mut entered = Vec::new();
    while let Some(event) = found.try_next().await? {
        let name = event.get_document("metadata")?.get_document("data")?;
        let name = name.get_str("accountName")?;
        let (serial, rest) = name.split_once('-').unwrap_or_default();
        let place = rest.split('@').next().unwrap_or_default();
        entered.push((serial.parse()?, place.parse()?));
    }
    Ok(entered)
}

fn judge(
    report: &mut Report,
    events: u64,
    sent: &HashMap<u64, Sent>,
    entered: &[(u64, u64)],
    windows: &[(Instant, Instant)],
) {
    let mut counts: HashMap<(u64, u64), u64> = HashMap::new();
    for key in entered {
        *counts.entry(*key).or_default() += 1;
    }
    report.stored = entered.len() as u64;
    report.lost = sent
        .iter()
        .filter(|(_, sent)| sent.code == 200)
        .flat_map(|(serial, _)| (0..events).map(move |place| (*serial, place)))
        .filter(|key| !counts.contains_key(key))
        .count() as u64;
    report.double = counts
        .iter()
        .map(|((serial, _), count)| count - u64::from(sent.contains_key(serial)))
        .sum();
    for window in windows {
        // When the last webhook was sent that stands before, and the last place within its own.
        let mut latest: Option<Instant> = None;
        let mut places: HashMap<u64, u64> = HashMap::new();
        for (serial, place) in entered {
            let Some(webhook) = sent.get(serial).filter(|sent| sent.within(*window)) else {
                continue;
            };
            let overtaken = latest.is_some_and(|latest| latest > webhook.answered);
            let shuffled = places
                .insert(*serial, *place)
                .is_some_and(|last| last > *place);
            report.in_order += 1;
            report.out_of_order += u64::from(overtaken || shuffled);
            latest = latest.max(Some(webhook.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_sees_what_is_lost_double_and_overtaken() {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let sent = |from, to| Sent {
            at: at(from),
            answered: at(to),
            code: 200,
        };
        let all = HashMap::from([(0, sent(0, 10)), (1, sent(20, 30)), (2, sent(25, 40))]);
        let judged = |entered: &[(u64, u64)]| {
            let mut report = Report::default();
            judge(&mut report, 1, &all, entered, &[(zero, at(100))]);
            (report.lost, report.double, report.out_of_order)
        };
        assert_eq!(judged(&[(0, 0), (1, 0), (2, 0)]), (0, 0, 0));
        assert_eq!(judged(&[(0, 0), (2, 0), (1, 0)]), (0, 0, 0), "they overlap");
        assert_eq!(judged(&[(1, 0), (0, 0), (2, 0)]), (0, 0, 1));
        assert_eq!(judged(&[(0, 0), (1, 0), (1, 0)]), (1, 1, 0));
        assert_eq!(judged(&[(0, 0), (1, 0), (2, 0), (9, 0)]), (0, 1, 0));
    }
}
