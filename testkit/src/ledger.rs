//! What a simulated workspace has promised, held against what stands in a store.
//!
//! Exact, event by event: every Authentik `pk`, every recorded `externalId`, every mail event as
//! often as it was pushed, every line of every log file at its own offset and with all that it
//! says. The log's promise is in its files, so the workspace must keep all rotated ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::time::Instant;

use daybook::event::{Decoded, SourceName};
use daybook::simulators::workspace::Workspace;
use daybook::sources::ocis::decode::{LineContext, decode_line};
use daybook::store::{EventFilter, PageKey, Store, StoreError, StoredEvent};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::eventually;

/// The names that [`workspace_toml`](crate::world::workspace_toml) gives to the sources.
pub const SOURCES: [&str; 4] = ["authentik", "ocis", "stalwart", "platform-api"];

/// How many of each difference are shown.
const SHOWN: usize = 3;

/// All events of a store, newest first.
///
/// # Errors
/// Those of the store.
pub async fn all_events(store: &dyn Store) -> Result<Vec<StoredEvent>, StoreError> {
    let mut all: Vec<StoredEvent> = Vec::new();
    loop {
        let before = all.last().map(PageKey::of);
        let filter = EventFilter::default();
        let page = store.find_events(&filter, before.as_ref(), 1000).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Waits until as many events stand in the store as the workspace, which is paused and drained,
/// has promised, and compares them. Returns how many there are.
///
/// # Panics
/// When one is missing, too many, or says something else than was promised.
pub async fn settle(workspace: &Workspace, store: &dyn Store) -> usize {
    let promised = Promised::of(workspace);
    let wanted = promised.count();
    let mut events = Vec::new();
    let mut seen = 0;
    eventually("all promised events stand in the store", async || {
        let started = Instant::now();
        let Ok(found) = all_events(store).await else {
            return false;
        };
        events = found;
        if events.len() != seen {
            seen = events.len();
            println!(
                "{seen} of {wanted} promised events are there: {}",
                counts(&events)
            );
        }
        if seen < wanted {
            // Looking takes more of the machine than what is looked at: not most of the time.
            tokio::time::sleep(started.elapsed() * 2).await;
        }
        seen >= wanted
    })
    .await;
    promised.compare(&events);
    let letters = store.dead_letters(10).await.expect("the store answers");
    assert!(letters.is_empty(), "dead letters: {letters:?}");
    events.len()
}

fn counts(events: &[StoredEvent]) -> String {
    let of = |source| events.iter().filter(|event| event.source == source).count();
    let counts = SOURCES.map(|source| format!("{source} {}", of(source)));
    counts.join(", ")
}

/// The keys of what was promised, with how often.
struct Promised {
    authentik: BTreeMap<String, u64>,
    ocis: BTreeMap<String, u64>,
    stalwart: BTreeMap<String, u64>,
    platform: BTreeMap<String, u64>,
    files: usize,
}

impl Promised {
    fn of(workspace: &Workspace) -> Self {
        let promises = workspace.promises();
        let (ocis, files) = lines(workspace);
        Self {
            authentik: counted(promises.authentik),
            ocis: counted(ocis),
            stalwart: counted(promises.stalwart),
            platform: counted(promises.platform),
            files,
        }
    }

    fn count(&self) -> usize {
        let all = [&self.authentik, &self.ocis, &self.stalwart, &self.platform];
        all.iter()
            .map(|keys| keys.values().sum::<u64>() as usize)
            .sum()
    }

    fn compare(&self, events: &[StoredEvent]) {
        let mut keys = HashSet::new();
        for event in events {
            let key = (event.source.as_str(), event.external_id.as_str());
            assert!(keys.insert(key), "{key:?} stands in the store twice");
        }
        let of = |source: &str, key: fn(&StoredEvent) -> String| {
            let events = events.iter().filter(|event| event.source == source);
            counted(events.map(key))
        };
        let id = |event: &StoredEvent| event.external_id.clone();
        same("authentik", &self.authentik, &of("authentik", id));
        same("platform-api", &self.platform, &of("platform-api", id));
        same("stalwart", &self.stalwart, &of("stalwart", said_by_mail));
        same("ocis", &self.ocis, &of("ocis", said_by_line));
        let files: BTreeSet<&str> = events
            .iter()
            .filter(|event| event.source == "ocis")
            .filter_map(|event| Some(event.external_id.rsplit_once(':')?.0))
            .collect();
        assert!(
            files.len() <= self.files,
            "{} files became {files:?}",
            self.files
        );
    }
}

fn counted(keys: impl IntoIterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

fn same<K: Ord + Debug>(source: &str, promised: &BTreeMap<K, u64>, stored: &BTreeMap<K, u64>) {
    let differs = |here: &BTreeMap<K, u64>, there: &BTreeMap<K, u64>| -> Vec<String> {
        here.iter()
            .filter(|(key, count)| there.get(*key).copied().unwrap_or(0) < **count)
            .map(|(key, count)| format!("{count} × {key:?}"))
            .collect()
    };
    let (lost, double) = (differs(promised, stored), differs(stored, promised));
    assert!(
        lost.is_empty() && double.is_empty(),
        "{source}: {} lost, as {:#?}; {} never promised or too often, as {:#?}",
        lost.len(),
        &lost[..lost.len().min(SHOWN)],
        double.len(),
        &double[..double.len().min(SHOWN)],
    );
}

/// What a stored mail event says, as its fingerprint says it.
fn said_by_mail(event: &StoredEvent) -> String {
    let part = |key: &str| event.metadata.get(key).cloned().unwrap_or(Value::Null);
    let (at, kind, data) = (part("createdAt"), part("type"), part("data"));
    json!({"createdAt": at, "type": kind, "data": data}).to_string()
}

/// Where in its file a stored line stands, and what it says.
fn said_by_line(event: &StoredEvent) -> String {
    let offset = event.external_id.rsplit(':').next().unwrap_or_default();
    line_key(offset, &event.action, &event.metadata)
}

fn line_key(offset: &str, action: &str, metadata: &serde_json::Map<String, Value>) -> String {
    format!("{offset} {action} {}", Value::Object(metadata.clone()))
}

/// What every line of every file of the log must have become, and how many files there are.
fn lines(workspace: &Workspace) -> (Vec<String>, usize) {
    let source = SourceName::new("ocis");
    let log = workspace.ocis();
    let rotated = (1..).map(|number| log.rotated(number));
    let paths =
        std::iter::once(log.path().to_owned()).chain(rotated.take_while(|path| path.exists()));
    let mut keys = Vec::new();
    let (mut files, mut whole_lines) = (0, 0);
    for path in paths.filter(|path| path.exists()) {
        let content = std::fs::read(&path).expect("a file of the log");
        files += 1;
        let mut offset = 0;
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let context = LineContext {
                source: &source,
                file_key: "any",
                offset,
                read_at: Timestamp::now(),
                include_reads: false,
            };
            whole_lines += 1;
            for piece in decode_line(line.trim_ascii_end(), &context) {
                match piece {
                    Decoded::Event(event, _) => {
                        let offset = offset.to_string();
                        keys.push(line_key(&offset, &event.action, &event.metadata));
                    }
                    Decoded::Filtered => {}
                    Decoded::Dead(letter) => panic!("the simulator wrote {letter:?}"),
                }
            }
            offset += line.len() as u64;
        }
    }
    assert_eq!(
        whole_lines,
        log.lines_written(),
        "the workspace must keep every rotated file"
    );
    (keys, files)
}
