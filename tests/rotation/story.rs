//! A log, who writes it, a Daybook that reads it, and what has to stand in the store at the end.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daybook::simulators::ocis::{OcisLine, OcisLog};
use daybook::store::{Cursor, StoredEvent};
use serde_json::Value;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::{Plan, eventually, patiently};

pub const GAP: &str = "daybook.gap_detected";
const SPACE: &str = "7ce4cda5-f7b4-41e8-a0d2-4ea5ed2668b5$b1f74ec4-dd7e-11ef-a543-03775734d0f7";

/// The service that writes the log. Every line has a number of its own, in its `FileID`.
pub struct Pen {
    pub log: OcisLog,
    page: Mutex<Page>,
}

#[derive(Default)]
struct Page {
    next: u64,
    promised: BTreeMap<u64, Promise>,
}

#[derive(Clone)]
pub struct Promise {
    pub line: OcisLine,
    pub inode: u64,
    pub start: u64,
}

/// A line of the given number, 500 bytes to 5 KiB long.
pub fn line(number: u64) -> OcisLine {
    let file = format!("{SPACE}!node-{number}");
    let path = format!("./{}", "deep/".repeat((number % 97) as usize * 8));
    let message = format!("user 'b1f74ec4-dd7e-11ef-a543-03775734d0f7' trashed file '{file}'");
    OcisLine::new(
        "file_delete",
        "",
        "2026-11-24T03:59:38Z",
        message,
        vec![
            ("Path", path.into()),
            ("Owner", "".into()),
            ("FileID", file.into()),
        ],
    )
}

impl Pen {
    pub fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            log: OcisLog::new(path),
            page: Mutex::new(Page::default()),
        })
    }

    pub fn path(&self) -> &Path {
        self.log.path()
    }

    /// Writes so many lines, each opened, appended and closed.
    pub fn write(&self, count: u64) {
        for _ in 0..count {
            self.try_write().expect("a line");
        }
    }

    /// Writes one line if the disk takes all of it; only then it is promised.
    pub fn try_write(&self) -> std::io::Result<()> {
        let mut page = self.page.lock().unwrap();
        let number = page.next;
        page.next += 1;
        let line = line(number);
        self.log.append(&line)?;
        // Only the next line can make the file another one, and that waits for the lock.
        let written = std::fs::metadata(self.path()).ok();
        let length = line.to_bytes().len() as u64;
        let (inode, start) = written.map_or((0, 0), |file| {
            (file.ino(), file.len().saturating_sub(length))
        });
        page.promised.insert(number, Promise { line, inode, start });
        Ok(())
    }

    /// Nobody writes meanwhile.
    pub fn while_idle<T>(&self, act: impl FnOnce() -> T) -> T {
        let _page = self.page.lock().unwrap();
        act()
    }

    /// A promise for a line that the test has written in its own way.
    pub fn promise(&self) -> OcisLine {
        let mut page = self.page.lock().unwrap();
        let number = page.next;
        page.next += 1;
        let line = line(number);
        let promise = Promise {
            line: line.clone(),
            inode: 0,
            start: 0,
        };
        page.promised.insert(number, promise);
        line
    }

    /// Takes back what was destroyed; how many lines.
    pub fn take_back(&self, destroyed: impl Fn(&Promise) -> bool) -> usize {
        let mut page = self.page.lock().unwrap();
        let before = page.promised.len();
        page.promised.retain(|_, promise| !destroyed(promise));
        before - page.promised.len()
    }

    /// Where the last whole line ends.
    pub fn end_of_lines(&self) -> u64 {
        let page = self.page.lock().unwrap();
        let last = page.promised.values().next_back();
        last.map_or(0, |last| last.start + last.line.to_bytes().len() as u64)
    }

    pub fn metadata(&self) -> Metadata {
        std::fs::metadata(self.path()).expect("the live file is there")
    }

    /// What `lastEventId` has to be when all is read.
    pub fn end(&self) -> String {
        let metadata = self.metadata();
        format!("{}:{}", metadata.ino(), metadata.len())
    }

    /// Writes without a pause until the load is ended.
    pub fn load(self: &Arc<Self>) -> Load {
        let ended = Arc::new(AtomicBool::new(false));
        let (pen, stop) = (Arc::clone(self), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                pen.write(10);
                std::thread::sleep(Duration::from_millis(4));
            }
        });
        Load {
            ended,
            thread: Some(thread),
        }
    }
}

/// A writer at work.
pub struct Load {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    pub fn end(mut self) {
        self.ended.store(true, Ordering::Release);
        let thread = self.thread.take().expect("ended once");
        thread.join().expect("the writer did not fail");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

pub struct Story {
    pub world: World,
    pub pen: Arc<Pen>,
}

/// The lines of a source's table.
pub fn source(path: &Path) -> String {
    format!(
        "kind = \"ocis\"\npath = \"{}\"\npoll = \"200ms\"",
        path.display()
    )
}

impl Story {
    pub async fn sqlite() -> Self {
        Self::of(World::sqlite().await, "audit.log").await
    }

    pub async fn mongodb(mongod: &Mongod) -> Self {
        Self::of(World::mongodb(mongod).await, "audit.log").await
    }

    /// With the log at a path in the world's folder. A store that is away is noticed soon.
    pub async fn of(plan: Plan, log: &str) -> Self {
        let path = plan.dir().join(log);
        let plan = plan.source(&source(&path));
        let world = plan.start_with("auth = \"none\"", "timeout = \"2s\"").await;
        Self {
            world,
            pen: Pen::new(&path),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    /// The source's cursor in the store; none before the store is prepared.
    pub async fn cursor(&self) -> Option<Cursor> {
        let cursors = self.world.daybook().store().cursors().await.ok()?;
        cursors.into_iter().find(|cursor| cursor.source == "ocis")
    }

    pub async fn last_event_id(&self) -> String {
        let cursor = self.cursor().await;
        cursor.and_then(|c| c.last_event_id).unwrap_or_default()
    }

    /// It has looked for the log, and that is durable: what was rotated before is left alone.
    pub async fn has_looked(&self) {
        eventually("the first look is durable", async || {
            self.cursor().await.is_some_and(|cursor| cursor.seq > 0)
        })
        .await;
    }

    /// The file that is live now has been found and is being read: it may be moved and compressed.
    pub async fn live_is_read(&self) {
        let inode = format!("{}:", self.pen.metadata().ino());
        eventually("the live file is being read", async || {
            self.last_event_id().await.starts_with(&inode)
        })
        .await;
    }

    /// Waits until all is read and at rest, the cursor at the end of the live file.
    pub async fn settled(&self) {
        self.settled_at(&self.pen.end()).await;
    }

    /// The same with the cursor elsewhere.
    pub async fn settled_at(&self, end: &str) {
        eventually(&format!("the cursor is at {end}"), async || {
            self.last_event_id().await == end
        })
        .await;
        eventually("nothing is behind, lags or is in flight", async || {
            let metric = async |name| self.world.metric(name, "").await;
            metric("daybook_ocis_bytes_behind").await == 0.0
                && metric("daybook_ingest_lag_seconds").await == 0.0
                && metric("daybook_in_flight_bytes").await == 0.0
        })
        .await;
    }

    /// Everything promised stands in the store once and as it was written; nothing else does but
    /// these gaps (`from`, `to`) and so many dead letters. Gives the gaps' events.
    pub async fn holds(
        &self,
        gaps: &[(u64, Option<u64>)],
        dead_letters: usize,
    ) -> Vec<StoredEvent> {
        let (lost, events): (Vec<_>, Vec<_>) = self
            .world
            .events()
            .await
            .into_iter()
            .partition(|event| event.action == GAP);
        let keys: HashSet<&str> = events.iter().map(|e| e.external_id.as_str()).collect();
        assert_eq!(keys.len(), events.len(), "a key stands in the store twice");
        let mut expected = self.pen.page.lock().unwrap().promised.clone();
        let promised = expected.len();
        let mut found = BTreeMap::new();
        for event in &events {
            let number = event.metadata["FileID"]
                .as_str()
                .and_then(|id| id.rsplit_once('-')?.1.parse::<u64>().ok())
                .expect("a line's number");
            let key = &event.external_id;
            if let Some(other) = found.insert(number, key) {
                panic!("line {number} is double: {key} and {other}");
            }
            let promise = expected.remove(&number);
            let promise = promise.unwrap_or_else(|| panic!("line {number} is invented: {key}"));
            let mut metadata = event.metadata.clone();
            metadata.remove("daybook");
            let written: Value = serde_json::from_slice(&promise.line.to_bytes()).unwrap();
            assert_eq!(
                Value::Object(metadata),
                written,
                "line {number} was altered"
            );
        }
        let lost_lines = expected.len();
        let first: Vec<_> = expected
            .iter()
            .take(5)
            .map(|(number, promise)| (number, promise.inode, promise.start))
            .collect();
        assert_eq!(
            lost_lines, 0,
            "of {promised} lines are lost, the first (number, inode, start): {first:?}; gaps: {lost:?}"
        );
        let mut found: Vec<(u64, Option<u64>)> = lost
            .iter()
            .map(|gap| {
                let from = gap.metadata["fromByte"].as_u64().expect("a byte");
                (from, gap.metadata["toByte"].as_u64())
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, gaps, "gaps: {lost:?}");
        let store = self.world.daybook().store();
        let letters = patiently(async || store.dead_letters(1000).await).await;
        assert_eq!(letters.len(), dead_letters, "{letters:?}");
        self.accounts_are_closed().await;
        lost
    }

    /// Received = written + duplicate + filtered + dead-lettered, at rest.
    async fn accounts_are_closed(&self) {
        let scrape = self.world.text("/metrics").await;
        let sum = |name: &str| testkit::world::sum_of(&scrape, name, "ocis");
        let ended = sum("daybook_events_written_total")
            + sum("daybook_events_duplicate_total")
            + sum("daybook_events_filtered_total")
            + sum("daybook_events_dead_lettered_total");
        assert_eq!(sum("daybook_events_received_total"), ended);
    }
}

/// The real one, with a state file of its own.
pub struct Logrotate {
    configuration: PathBuf,
    state: PathBuf,
    log: PathBuf,
}

impl Logrotate {
    pub fn new(story: &Story, directives: &str) -> Self {
        let configuration = story.path("logrotate.conf");
        let log = story.pen.path().to_owned();
        let text = format!("\"{}\" {{\nrotate 50\n{directives}\n}}\n", log.display());
        std::fs::write(&configuration, text).expect("logrotate's configuration");
        Self {
            configuration,
            state: story.path("logrotate.state"),
            log,
        }
    }

    /// Rotates now, and proves that it did: another file or an empty one is live.
    pub fn force(&self) {
        let program = ["/usr/sbin/logrotate", "/usr/bin/logrotate"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("logrotate");
        let parts = self.parts().len();
        let done = Command::new(program)
            .arg("--force")
            .arg("--state")
            .arg(&self.state)
            .arg(&self.configuration)
            .output()
            .expect("logrotate (Debian package logrotate) runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        assert!(self.parts().len() > parts, "nothing was rotated: {said}");
    }

    /// When the writer makes the next file before logrotate does, that one is moved to a name of the
    /// hour, where the next collision would destroy it.
    pub fn keep_collision(&self) {
        let parts = self.parts();
        for name in parts.iter().filter(|name| name.ends_with(".backup")) {
            let kept = format!("{name}.{}", parts.len());
            std::fs::rename(self.log.with_file_name(name), self.log.with_file_name(kept)).unwrap();
        }
    }

    /// The names of the files that it has rotated.
    pub fn rotated(&self) -> Vec<String> {
        let mut parts = self.parts();
        parts.retain(|name| !name.contains(".backup"));
        parts
    }

    /// The names of all files beside the live one.
    fn parts(&self) -> Vec<String> {
        let live = self.log.file_name().unwrap().to_str().unwrap();
        let mut parts: Vec<String> = std::fs::read_dir(self.log.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(live) && name != live)
            .collect();
        parts.sort();
        parts
    }
}
