//! A whole simulated workspace: all four kinds of source, busy at a steady rate.
//!
//! The servers that Daybook asks (Authentik) and the file that it reads exist from the start.
//! The senders that call Daybook wait for [`Workspace::connect`], which tells them where it is.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::authentik::{self, AuthentikControls, FakeAuthentik, FakeAuthentikConfig};
use super::hex_token;
use super::ocis::{self, OcisLog, Rotation};
use super::people::People;
use super::platform::{self, PlatformRecorder, PlatformRecorderConfig};
use super::stalwart::{self, StalwartEvent, StalwartProfile, StalwartSender, StalwartSenderConfig};

/// Events that the recorder keeps for later at most.
const MOST_WAITING: usize = 10_000;

/// How the workspace is set up.
#[derive(Clone, Debug)]
pub struct WorkspaceConfig {
    /// Where the log, the secrets and `tenants.toml` are written; must exist.
    pub dir: PathBuf,
    /// For people.
    pub seed: u64,
    /// For events, and for the secrets.
    pub events_seed: u64,
    /// Over all four kinds.
    pub events_per_second: f64,
    /// Where the fake Authentik listens; port 0 takes a free one.
    pub authentik: SocketAddr,
    /// Daybook's base address, if it is known already; see [`Workspace::connect`].
    pub daybook_url: Option<String>,
    /// Path of the webhook.
    pub stalwart_route: String,
    /// The webhook's signature key; empty: one is drawn.
    pub stalwart_key: String,
    /// A recorder's token; `None` where none is asked for.
    pub recorder_token: Option<String>,
    /// The log is rotated by renaming after so many lines. (Copytruncate loses what a reader has
    /// not read yet, so it has no place in a demonstration.)
    pub rotate_after_lines: Option<u64>,
    /// Rotated logs kept.
    pub rotated_logs: usize,
    /// Events that the fake Authentik keeps.
    pub authentik_keeps: usize,
    /// Events of the last so many minutes stand in Authentik and the log from the start.
    pub history: Duration,
    /// Between two webhooks, and between a refused recording and its repetition.
    pub senders_pause: Duration,
    /// Whether every key is remembered, for [`Workspace::promises`].
    pub remember_keys: bool,
}

impl WorkspaceConfig {
    /// Twenty events a second, in memory that does not grow; one seed for everything.
    pub fn new(dir: impl Into<PathBuf>, seed: u64) -> Self {
        Self {
            dir: dir.into(),
            seed,
            events_seed: seed,
            events_per_second: 20.0,
            authentik: SocketAddr::from(([127, 0, 0, 1], 0)),
            daybook_url: None,
            stalwart_route: "/ingest/stalwart/webhook".to_owned(),
            stalwart_key: String::new(),
            recorder_token: None,
            rotate_after_lines: Some(2_000),
            rotated_logs: 3,
            authentik_keeps: 5_000,
            history: Duration::ZERO,
            senders_pause: Duration::from_secs(1),
            remember_keys: false,
        }
    }
}

/// The key of every event that was promised outside the log, whose lines have no keys.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// `pk`s.
    pub authentik: Vec<String>,
    /// [Fingerprints](StalwartEvent::fingerprint), each as often as it was pushed.
    pub stalwart: Vec<String>,
    /// `externalId`s.
    pub platform: Vec<String>,
}

/// What was promised so far, and what the senders know to have arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkspaceCounts {
    /// Events in Authentik's list.
    pub authentik: u64,
    /// Whole lines in the log, reads included.
    pub ocis_lines: u64,
    /// Those of them that only read.
    pub ocis_reads: u64,
    /// Events pushed to the webhook sender.
    pub stalwart: u64,
    /// Those of them that Daybook has taken.
    pub stalwart_delivered: u64,
    /// Events pushed to the recorder.
    pub platform: u64,
    /// Those of them that Daybook has taken.
    pub platform_delivered: u64,
}

/// The running workspace; stops when it is dropped.
pub struct Workspace {
    people: Arc<People>,
    authentik: FakeAuthentik,
    ocis: Arc<OcisLog>,
    senders: Arc<Mutex<Option<Arc<Senders>>>>,
    config: WorkspaceConfig,
    driver: JoinHandle<()>,
}

struct Senders {
    stalwart: StalwartSender,
    platform: PlatformRecorder,
}

impl Workspace {
    /// Writes the files, starts the fake Authentik and begins to be busy.
    ///
    /// # Errors
    /// When a file cannot be written or the address cannot be listened on.
    pub async fn start(mut config: WorkspaceConfig) -> io::Result<Self> {
        let mut rng = StdRng::seed_from_u64(config.events_seed);
        let people = Arc::new(People::new(config.seed));
        if config.stalwart_key.is_empty() {
            config.stalwart_key = hex_token(&mut rng, 40);
        }
        let authentik = FakeAuthentik::try_start(FakeAuthentikConfig {
            token: hex_token(&mut rng, 60),
            seed: config.events_seed,
            listen: config.authentik,
            keep_last: Some(config.authentik_keeps),
            remember_keys: config.remember_keys,
            ..FakeAuthentikConfig::default()
        })
        .await?;
        authentik.add_people(&people);

        let ocis = Arc::new(OcisLog::new(config.dir.join("audit.log")));
        let workspace_files = [
            ("tenants.toml", people.tenants_toml()),
            ("authentik.token", format!("{}\n", authentik.token())),
            ("stalwart.key", format!("{}\n", config.stalwart_key)),
        ];
        for (name, text) in workspace_files {
            std::fs::write(config.dir.join(name), text)?;
        }
        write_history(&mut rng, &config, &people, &authentik, &ocis)?;

        let senders = Arc::new(Mutex::new(None));
        let driver = tokio::spawn(drive(Driver {
            rng,
            people: Arc::clone(&people),
            authentik: authentik.controls(),
            ocis: Arc::clone(&ocis),
            senders: Arc::clone(&senders),
            per_second: config.events_per_second.max(0.1),
            rotate_after_lines: config.rotate_after_lines,
            rotated_logs: config.rotated_logs,
            rotated_at: ocis.lines_written(),
            this_second: (0, HashSet::new()),
        }));
        let workspace = Self {
            people,
            authentik,
            ocis,
            senders,
            config,
            driver,
        };
        if let Some(url) = workspace.config.daybook_url.clone() {
            workspace.connect(&url);
        }
        Ok(workspace)
    }

    /// Tells the senders where Daybook is; from here on they send. A second call replaces them,
    /// with what they hold and have counted.
    pub fn connect(&self, daybook_url: &str) {
        let base = daybook_url.trim_end_matches('/');
        let mut stalwart = StalwartSenderConfig::new(
            &format!("{base}{}", self.config.stalwart_route),
            &self.config.stalwart_key,
            StalwartProfile::V0_16,
        );
        stalwart.headers = vec![("x-audit-source".to_owned(), "mail-1".to_owned())];
        let mut platform = PlatformRecorderConfig::new(base, self.config.recorder_token.as_deref());
        stalwart.throttle = self.config.senders_pause;
        stalwart.remember_keys = self.config.remember_keys;
        platform.retry = self.config.senders_pause;
        platform.remember_keys = self.config.remember_keys;
        let stalwart = StalwartSender::start(stalwart);
        stalwart.push(StalwartEvent::new(
            Timestamp::now(),
            "server.startup",
            serde_json::json!({"version": "0.16.19"}),
        ));
        let senders = Arc::new(Senders {
            stalwart,
            platform: PlatformRecorder::start(platform),
        });
        *self.senders.lock().unwrap_or_else(PoisonError::into_inner) = Some(senders);
    }

    fn senders(&self) -> Option<Arc<Senders>> {
        connected(&self.senders)
    }

    /// Everybody in it.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The fake Authentik.
    pub fn authentik(&self) -> &FakeAuthentik {
        &self.authentik
    }

    /// The log.
    pub fn ocis(&self) -> &OcisLog {
        &self.ocis
    }

    /// The webhook's signature key.
    pub fn stalwart_key(&self) -> &str {
        &self.config.stalwart_key
    }

    /// The directory of tenants and users.
    pub fn tenants_file(&self) -> PathBuf {
        self.file("tenants.toml")
    }

    /// The token for the fake Authentik.
    pub fn authentik_token_file(&self) -> PathBuf {
        self.file("authentik.token")
    }

    /// The webhook's signature key, with a newline at its end.
    pub fn stalwart_key_file(&self) -> PathBuf {
        self.file("stalwart.key")
    }

    /// The log's path.
    pub fn ocis_log_path(&self) -> &Path {
        self.ocis.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.config.dir.join(name)
    }

    /// What was promised and delivered so far.
    pub fn counts(&self) -> WorkspaceCounts {
        let lines = self.ocis.promised();
        let mut counts = WorkspaceCounts {
            authentik: self.authentik.promised_total(),
            ocis_lines: lines.total,
            ocis_reads: lines.of("file_read") + lines.of("public_link_accessed"),
            ..WorkspaceCounts::default()
        };
        if let Some(senders) = self.senders() {
            counts.stalwart = senders.stalwart.promised().total;
            counts.stalwart_delivered = senders.stalwart.delivered().total;
            counts.platform = senders.platform.promised().total;
            counts.platform_delivered = senders.platform.delivered();
        }
        counts
    }

    /// Everything that was promised; empty where keys are not remembered.
    pub fn promises(&self) -> Promises {
        let mut promises = Promises {
            authentik: self.authentik.promised().keys,
            ..Promises::default()
        };
        if let Some(senders) = self.senders() {
            promises.stalwart = senders.stalwart.promised().keys;
            promises.platform = senders.platform.promised().keys;
        }
        promises
    }

    /// Nothing new happens any more; what waits is still sent, see [`Self::drained`].
    pub async fn pause(&mut self) {
        self.driver.abort();
        if !self.driver.is_finished() {
            // Cancelled is what it was asked to be; waiting means that no event is half done.
            let _ended = (&mut self.driver).await;
        }
    }

    /// Waits until Daybook has taken everything that the senders hold. Cancel-safe; without
    /// [`Self::connect`] there is nothing to wait for.
    pub async fn drained(&self) {
        if let Some(senders) = self.senders() {
            senders.stalwart.drained().await;
            senders.platform.drained().await;
        }
    }
}

fn connected(senders: &Mutex<Option<Arc<Senders>>>) -> Option<Arc<Senders>> {
    senders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What happened before anybody looked: as dense as what follows.
fn write_history(
    rng: &mut StdRng,
    config: &WorkspaceConfig,
    people: &People,
    authentik: &FakeAuthentik,
    ocis: &OcisLog,
) -> io::Result<()> {
    let seconds = config.history.as_secs();
    let now = Timestamp::now();
    // Half of all events are of these two kinds, a quarter each.
    let each = (seconds as f64 * config.events_per_second / 4.0) as u64;
    let each = each.min(config.authentik_keeps as u64);
    for index in 0..each {
        let back = seconds - seconds * index / each;
        let at = now
            .checked_sub(SignedDuration::from_secs(
                i64::try_from(back).unwrap_or_default(),
            ))
            .unwrap_or(now);
        authentik.insert(
            authentik::events::realistic(rng, people, at),
            Duration::ZERO,
        );
        ocis.append(&ocis::realistic(rng, people, at))?;
    }
    Ok(())
}

struct Driver {
    rng: StdRng,
    people: Arc<People>,
    authentik: AuthentikControls,
    ocis: Arc<OcisLog>,
    senders: Arc<Mutex<Option<Arc<Senders>>>>,
    per_second: f64,
    rotate_after_lines: Option<u64>,
    rotated_logs: usize,
    rotated_at: u64,
    /// The mail events of the current second.
    this_second: (i64, HashSet<String>),
}

/// Wakes twenty times a second at most and does then what is due, so that high rates cost no timer each.
async fn drive(mut driver: Driver) {
    let period = Duration::from_secs_f64((1.0 / driver.per_second).max(0.05));
    let mut ticks = tokio::time::interval(period);
    // After a stall the rate goes on; what was missed does not come as a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut owed = 0.0;
    loop {
        ticks.tick().await;
        owed += driver.per_second * period.as_secs_f64();
        while owed >= 1.0 {
            owed -= driver.one_event();
        }
    }
}

impl Driver {
    /// Lets something happen; how many events it was.
    fn one_event(&mut self) -> f64 {
        let at = Timestamp::now();
        match self.rng.random_range(0..100) {
            0..30 => {
                let event = authentik::events::realistic(&mut self.rng, &self.people, at);
                // Most are there at once; some transactions take their time.
                let late = if self.rng.random_bool(0.05) {
                    Duration::from_millis(self.rng.random_range(200..4_000))
                } else {
                    Duration::ZERO
                };
                self.authentik.insert(event, late);
                1.0
            }
            30..65 => {
                self.write_line(at);
                1.0
            }
            65..92 => {
                let events =
                    stalwart::realistic(&mut self.rng, &self.people, at, StalwartProfile::V0_16);
                let count = events.len();
                if !self.are_new(at, &events) {
                    return 0.0;
                }
                if let Some(senders) = connected(&self.senders) {
                    senders.stalwart.push_all(events);
                }
                count as f64
            }
            _ => {
                let event = platform::realistic(&mut self.rng, &self.people, at);
                // While Daybook is away the platform's queue does not grow without end.
                if let Some(senders) = connected(&self.senders)
                    && senders.platform.waiting() < MOST_WAITING
                {
                    senders.platform.push(event);
                }
                1.0
            }
        }
    }

    /// Equal events of one second are told apart only within one request: in two, the second one
    /// looks like a repetition of the first, and nobody could be held to a promise of both.
    fn are_new(&mut self, at: Timestamp, events: &[StalwartEvent]) -> bool {
        if self.this_second.0 != at.as_second() {
            self.this_second = (at.as_second(), HashSet::new());
        }
        let known = &mut self.this_second.1;
        let fingerprints: Vec<String> = events.iter().map(StalwartEvent::fingerprint).collect();
        let are_new = fingerprints.iter().all(|print| !known.contains(print));
        known.extend(fingerprints);
        are_new
    }

    fn write_line(&mut self, at: Timestamp) {
        let line = ocis::realistic(&mut self.rng, &self.people, at);
        if let Err(error) = self.ocis.append(&line) {
            tracing::warn!(%error, path = %self.ocis.path().display(), "simulated ocis cannot write its log");
            return;
        }
        let written = self.ocis.lines_written();
        let due = self
            .rotate_after_lines
            .is_some_and(|after| written >= self.rotated_at + after);
        if !due {
            return;
        }
        self.rotated_at = written;
        let keep = self.rotated_logs;
        if let Err(error) = self.ocis.rotate(Rotation::Rename { keep }) {
            tracing::warn!(%error, path = %self.ocis.path().display(), "simulated ocis log cannot be rotated");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;

    use super::*;

    async fn daybook() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/ingest/stalwart/webhook", post(async || StatusCode::OK))
            .route("/api/v1/events", post(async || StatusCode::OK));
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    #[tokio::test]
    async fn all_four_kinds_are_busy_and_the_counts_agree_with_what_stands_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = WorkspaceConfig::new(dir.path(), 9);
        config.events_per_second = 400.0;
        config.rotate_after_lines = Some(40);
        config.rotated_logs = 100;
        config.history = Duration::from_secs(1);
        let mut workspace = Workspace::start(config).await.unwrap();
        assert_eq!(workspace.counts().authentik, 100);
        workspace.connect(&daybook().await);
        let busy = async {
            loop {
                let counts = workspace.counts();
                if counts.stalwart_delivered > 20
                    && counts.platform_delivered > 5
                    && counts.authentik > 150
                    && workspace.ocis().rotations() > 1
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), busy)
            .await
            .unwrap();
        workspace.pause().await;
        workspace.drained().await;
        let counts = workspace.counts();
        assert_eq!(counts.stalwart_delivered, counts.stalwart);
        assert_eq!(counts.platform_delivered, counts.platform);
        let lines: usize = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("audit.log"))
            .map(|path| std::fs::read_to_string(path).unwrap().lines().count())
            .sum();
        assert_eq!(counts.ocis_lines, lines as u64);
        assert!(counts.ocis_reads > 0 && counts.ocis_reads < counts.ocis_lines);
        assert_eq!(workspace.authentik().event_count() as u64, counts.authentik);
        let token = std::fs::read_to_string(workspace.authentik_token_file()).unwrap();
        assert_eq!(token.trim_end(), workspace.authentik().token());
        assert!(workspace.tenants_file().exists() && workspace.stalwart_key_file().exists());
    }

    /// With a hundred events of each kind in its past.
    async fn with_history(dir: &Path, events_seed: u64) -> Workspace {
        let config = WorkspaceConfig {
            events_seed,
            events_per_second: 40.0,
            history: Duration::from_secs(10),
            rotate_after_lines: Some(100),
            remember_keys: true,
            ..WorkspaceConfig::new(dir, 9)
        };
        Workspace::start(config).await.unwrap()
    }

    #[tokio::test]
    async fn another_seed_of_events_gives_the_same_people_other_events() {
        let dir = tempfile::tempdir().unwrap();
        let [first, again, other] = [
            with_history(dir.path(), 1).await,
            with_history(dir.path(), 1).await,
            with_history(dir.path(), 2).await,
        ];
        let people = |workspace: &Workspace| workspace.people().tenants_toml();
        let history = |workspace: &Workspace| workspace.promises().authentik[..100].to_vec();
        assert_eq!(people(&first), people(&other));
        assert_eq!(history(&first), history(&again));
        let known: HashSet<String> = history(&first).into_iter().collect();
        assert!(history(&other).iter().all(|pk| !known.contains(pk)));
    }

    #[tokio::test]
    async fn the_history_stays_when_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut workspace = with_history(dir.path(), 1).await;
        let goes_on = async {
            while workspace.counts().ocis_lines == 100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), goes_on)
            .await
            .unwrap();
        workspace.pause().await;
        assert_eq!(workspace.ocis().rotations(), 0);
    }
}
