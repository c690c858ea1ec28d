//! The real thing under the project's own rules: the service as a process, a replica set of one, a
//! Prometheus. In peace nothing fires; each fault makes its alert fire, and no other.
//!
//! The rules are those of the project with every duration divided by 50. `ALERTS_FASTER=1` runs the
//! same story with the rules as they are, in an hour and a half.

use std::path::Path;
use std::time::{Duration, Instant};

use daybook::simulators::authentik::{Fault, Times};
use daybook::simulators::workspace::{Workspace, WorkspaceConfig};
use testkit::http::{exchange, post, signed};
use testkit::mongod::ReplicaSet;
use testkit::process::{Process, free_port};
use testkit::prometheus::{Prometheus, Setup};
use testkit::world::{PATIENCE, workspace_toml};

use crate::text;

const ROUTE: &str = "/ingest/stalwart/webhook";
const SECOND_ROUTE: &str = "/ingest/mail-2";
/// That the service does not answer.
const DOWN: &str = "DaybookDown{}";

const FASTER: u64 = 50;
/// A machine that stands still for a moment can make another alert fire until the next evaluation.
/// One that is there in so many looks in a row, which take longer than two, is a wrong one.
const STAYS: u32 = 18;

/// A rule file whose durations (`for: 5m`, `[5m]`, `offset 1d`) and thresholds in seconds are so many
/// times shorter.
fn hurried(rules: &str, faster: u64) -> String {
    let mut hurried = String::new();
    let mut rest = rules;
    while let Some((at, start)) = ["for: ", "[", "offset "]
        .iter()
        .filter_map(|word| Some((rest.find(word)?, *word)))
        .min()
    {
        let (before, after) = rest.split_at(at + start.len());
        hurried.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let unit = match after[digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => 0,
        };
        rest = after;
        if digits > 0 && unit > 0 {
            let seconds: u64 = after[..digits].parse().unwrap();
            hurried.push_str(&format!("{}ms", seconds * unit * 1_000 / faster));
            rest = &after[digits + 1..];
        }
    }
    hurried.push_str(rest);
    // The objective stays so long that a busy machine keeps it.
    let objective = format!("vector({})", (60 / faster).max(4));
    for (seconds, fewer) in [
        ("> 900", format!("> {}", 900 / faster)),
        ("> 300", format!("> {}", 300 / faster)),
        ("< 900", format!("< {}", 900 / faster)),
        ("< 3600", format!("< {}", 3600 / faster)),
        ("vector(60)", objective),
    ] {
        hurried = hurried.replace(seconds, &fewer);
    }
    hurried
}

#[test]
fn durations_are_divided_and_nothing_else() {
    let rule = "for: 5m\nexpr: a[15m] > 300 and b[2h] offset 1d > 5 # [not] for: ever\n";
    let wanted =
        "for: 4000ms\nexpr: a[12000ms] > 4 and b[96000ms] offset 1152000ms > 5 # [not] for: ever\n";
    assert_eq!(hurried(rule, 75), wanted);
}

struct Watch {
    prometheus: Prometheus,
    patience: Duration,
    /// In how many looks in a row, up to the last, another alert fired than the wanted one.
    others: u32,
}

impl Watch {
    /// What fires. A machine that stands still looks like a service that does: that it is down counts
    /// only where that is wanted.
    async fn firing(&mut self, wanted: &str) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut firing = self.prometheus.firing().await;
        firing.retain(|alert| alert == wanted || alert != DOWN);
        let is_alone = firing.iter().all(|alert| alert == wanted);
        self.others = if is_alone { 0 } else { self.others + 1 };
        assert!(self.others < STAYS, "{wanted}: these fire: {firing:?}");
        firing
    }

    /// Waits until exactly this fires; nothing else may fire on the way.
    async fn fires(&mut self, alert: &str) {
        let started = Instant::now();
        while self.firing(alert).await != [alert] {
            assert!(started.elapsed() < self.patience, "{alert} does not fire");
        }
        println!("{:>6.1} s  {alert}", started.elapsed().as_secs_f64());
    }

    /// Waits until nothing fires; nothing but this may fire on the way.
    async fn ends(&mut self, alert: &str) {
        let started = Instant::now();
        while !self.firing(alert).await.is_empty() {
            assert!(started.elapsed() < self.patience, "{alert} does not end");
        }
    }

    /// For so long nothing fires.
    async fn is_quiet(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            self.firing("").await;
        }
    }
}

fn write_config(
    dir: &Path,
    port: u16,
    store: &str,
    max_body: usize,
    workspace: &Workspace,
) -> String {
    let key = dir.join("mail-2.key");
    std::fs::write(&key, "the key of the second server").unwrap();
    let path = dir.join("daybook.toml");
    let text = format!(
        "[store]\nurl = \"{store}\"\ntimeout = \"2s\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\nmax_body = \"{max_body}\"\n\
         [journal]\ndir = \"{}\"\n{}\n[[sources]]\nkind = \"stalwart\"\nname = \"mail-2\"\nroute = \"{SECOND_ROUTE}\"\nsecret_files = [\"{}\"]\n",
        dir.join("journal").display(),
        workspace_toml(workspace),
        key.display(),
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_makes_its_alert_fire_and_no_other() {
    let faster = std::env::var("ALERTS_FASTER").map_or(FASTER, |text| text.parse().unwrap());
    let set = ReplicaSet::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::start(WorkspaceConfig {
        events_per_second: 15.0,
        ..WorkspaceConfig::new(dir.path(), 11)
    })
    .await
    .unwrap();
    let port = free_port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    // The longer Daybook is away, the more waits in one body of Stalwart's.
    let max_body = (64 << 10) * FASTER.div_ceil(faster) as usize;
    let config = write_config(dir.path(), port, &set.url("alerts"), max_body, &workspace);
    let log = dir.path().join("log");
    let start = || {
        Process::spawn(
            env!("CARGO_BIN_EXE_daybook"),
            &["run", "-c", &config],
            port,
            &log,
        )
    };
    let mut daybook = start();
    daybook.ready().await;
    workspace.connect(&daybook.url(""));

    let mut rules = Vec::new();
    for name in ["recording.yml", "alerts.yml"] {
        let path = dir.path().join(name);
        std::fs::write(&path, hurried(&text(&format!("prometheus/{name}")), faster)).unwrap();
        rules.push(path);
    }
    let prometheus = Prometheus::start(&Setup {
        targets: vec![("daybook".to_owned(), port)],
        rules,
        interval: format!("{}ms", 30_000 / faster),
    })
    .await;
    prometheus.all_up(1).await;
    let mut watch = Watch {
        prometheus,
        patience: PATIENCE * u32::try_from(FASTER.div_ceil(faster)).unwrap(),
        others: 0,
    };
    // Targets are discovered some seconds after the rules are first evaluated.
    watch.ends(DOWN).await;
    watch.is_quiet(Duration::from_secs(8)).await;
    for source in ["authentik", "ocis", "stalwart", "platform-api"] {
        let label = format!("source=\"{source}\"");
        assert!(
            daybook.metric("daybook_events_written_total", &label).await > 0.0,
            "{source}"
        );
    }

    println!("fault to alert, durations {faster} times shorter:");

    // 1. The store is away.
    let alert = "DaybookStoreDown{}";
    set.members[0].freeze();
    watch.fires(alert).await;
    assert_eq!(daybook.metric("daybook_store_up", "").await, 0.0);
    set.members[0].thaw();
    watch.ends(alert).await;

    // 2. Authentik is dead.
    let alert = "DaybookSourceDown{authentik}";
    workspace
        .authentik()
        .set_fault(Fault::ResetBeforeHeaders, Times::Forever);
    watch.fires(alert).await;
    assert!(workspace.authentik().fault_hits() > 0);
    workspace.authentik().clear_faults();
    watch.ends(alert).await;

    // 3. A key was changed on one side.
    let alert = "DaybookWebhookKeyMismatch{mail-2}";
    for _ in 0..8 {
        let answer = exchange(
            address,
            signed(SECOND_ROUTE, "another key", "{\"events\":[]}"),
        )
        .await;
        assert_eq!(answer.status, 401);
    }
    watch.fires(alert).await;
    watch.ends(alert).await;

    // 4. A stranger tries his luck beside a sender that works.
    let alert = "DaybookWebhookSignatureFailures{stalwart,unsigned}";
    for _ in 0..16 {
        let answer = exchange(address, post(ROUTE, &[], "{\"events\":[]}")).await;
        assert_eq!(answer.status, 401);
    }
    watch.fires(alert).await;
    watch.ends(alert).await;

    // 5. Lines that are no records.
    let alert = "DaybookDeadLetters{ocis,malformed}";
    workspace.ocis().append_raw(b"no record\n").unwrap();
    watch.fires(alert).await;
    watch.ends(alert).await;

    // 6. A body that is longer than Daybook takes, and is sent again and again.
    let alert = "DaybookWebhookTooLarge{}";
    let too_long = signed(ROUTE, workspace.stalwart_key(), vec![b' '; max_body + 1]);
    let sender: tokio::task::JoinHandle<()> = tokio::spawn(async move {
        loop {
            assert_eq!(exchange(address, &too_long).await.status, 413);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    watch.fires(alert).await;
    sender.abort();
    assert!(sender.await.unwrap_err().is_cancelled());
    watch.ends(alert).await;

    // 7. The service is gone.
    daybook.signal("KILL");
    daybook.wait().await;
    watch.fires(DOWN).await;
    let mut daybook = start();
    daybook.ready().await;
    watch.ends(DOWN).await;

    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
}
