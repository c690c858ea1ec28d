//! What a simulated workspace has promised, held against what stands in a store.
//!
//! Exact, event by event: every Authentik `pk`, every recorded `externalId`, every mail event as
//! often as it was pushed, every line of every log file at its own offset and with all that it
//! says; each on the timeline of the tenant that it tells of. The log's promise is in its files, so
//! the workspace must keep all rotated ones.
//!
//! What events of Authentik and of the platform say is compared by the [oracle](crate::oracle).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::time::Instant;

use daybook::event::{Decoded, SourceName};
use daybook::simulators::workspace::Workspace;
use daybook::sources::ocis::decode::{LineContext, decode_line};
use daybook::store::{EventFilter, PageKey, Store, StoreError, StoredEvent};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::oracle::says;
use crate::whose::Whose;
use crate::world::{eventually, patiently};

/// The names that [`workspace_toml`](crate::world::workspace_toml) gives to the sources.
pub const SOURCES: [&str; 4] = ["authentik", "ocis", "stalwart", "platform-api"];

/// How many of each difference are shown.
const SHOWN: usize = 3;

/// Reads all events of a store, newest first, a page at a time: all at once may be too many.
async fn each_event(
    store: &dyn Store,
    mut take: impl FnMut(StoredEvent),
) -> Result<(), StoreError> {
    let mut before = None;
    loop {
        let filter = EventFilter::default();
        let page = store.find_events(&filter, before.as_ref(), 1000).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        before = Some(PageKey::of(last));
        page.into_iter().for_each(&mut take);
    }
}

/// Waits until as many events stand in the store as the workspace, which is paused and drained,
/// has promised, and compares them. Returns how many there are.
///
/// # Panics
/// When one is missing, too many, or says something else than was promised.
pub async fn settle(workspace: &Workspace, store: &dyn Store) -> usize {
    let promised = Promised::of(workspace);
    let wanted = count(&promised.keys);
    let whose = Whose::new(workspace.people());
    let mut stored = Stored::default();
    eventually("all promised events stand in the store", async || {
        let started = Instant::now();
        let Ok(found) = Stored::of(store, &whose).await else {
            return false;
        };
        let seen = count(&found.keys);
        if seen != count(&stored.keys) {
            println!("{seen} of {wanted} promised events are there: {found}");
        }
        stored = found;
        if seen < wanted {
            // Looking takes more of the machine than what is looked at: not most of the time.
            tokio::time::sleep(started.elapsed() * 2).await;
        }
        seen >= wanted
    })
    .await;
    let differences = promised.differences(&stored);
    assert!(differences.is_empty(), "{differences:#?}");
    let letters = store.dead_letters(10).await.expect("the store answers");
    assert!(letters.is_empty(), "dead letters: {letters:?}");
    count(&stored.keys)
}

/// Demands that it is still so after the service has drained: what is entered twice may come last.
///
/// # Panics
/// As [`settle`].
pub async fn stays_settled(workspace: &Workspace, store: &dyn Store) {
    let differences = patiently(async || differences(workspace, store).await).await;
    assert!(differences.is_empty(), "{differences:#?}");
    let letters = patiently(async || store.dead_letters(10).await).await;
    assert!(letters.is_empty(), "dead letters: {letters:?}");
}

/// What stands in the store otherwise than the workspace, which is paused and drained, has promised.
///
/// # Errors
/// Those of the store.
pub async fn differences(
    workspace: &Workspace,
    store: &dyn Store,
) -> Result<Vec<String>, StoreError> {
    let whose = Whose::new(workspace.people());
    let stored = Stored::of(store, &whose).await?;
    Ok(Promised::of(workspace).differences(&stored))
}

/// By source: what its events can be told by, with how often.
type Keys = BTreeMap<String, BTreeMap<String, u64>>;

fn count(keys: &Keys) -> usize {
    let counts = keys.values().flat_map(BTreeMap::values);
    counts.sum::<u64>() as usize
}

fn note(keys: &mut Keys, source: &str, key: String) {
    let of_source = keys.entry(source.to_owned()).or_default();
    *of_source.entry(key).or_default() += 1;
}

struct Promised {
    keys: Keys,
    files: usize,
}

impl Promised {
    fn of(workspace: &Workspace) -> Self {
        let promises = workspace.promises();
        let (lines, files) = lines(workspace);
        let mut keys = Keys::new();
        for (source, promised) in [
            ("authentik", promises.authentik),
            ("ocis", lines),
            ("stalwart", promises.stalwart),
            ("platform-api", promises.platform),
        ] {
            promised
                .into_iter()
                .for_each(|key| note(&mut keys, source, key));
        }
        Self { keys, files }
    }

    fn differences(&self, stored: &Stored) -> Vec<String> {
        let mut differences = stored.twice.clone();
        let elsewhere = &stored.elsewhere[..stored.elsewhere.len().min(SHOWN)];
        if !elsewhere.is_empty() {
            let count = stored.elsewhere.len();
            differences.push(format!("{count} on another timeline, as {elsewhere:#?}"));
        }
        let sources: BTreeSet<_> = self.keys.keys().chain(stored.keys.keys()).collect();
        for source in sources {
            let nothing = BTreeMap::new();
            let promised = self.keys.get(source).unwrap_or(&nothing);
            let stored = stored.keys.get(source).unwrap_or(&nothing);
            differences.extend(beyond("lost", source, promised, stored));
            let what = "never promised or too often";
            differences.extend(beyond(what, source, stored, promised));
        }
        if stored.files.len() > self.files {
            differences.push(format!("{} files became {:?}", self.files, stored.files));
        }
        differences
    }
}

/// What is here more often than there.
fn beyond(
    what: &str,
    source: &str,
    here: &BTreeMap<String, u64>,
    there: &BTreeMap<String, u64>,
) -> Option<String> {
    let more: Vec<_> = here
        .iter()
        .filter(|(key, count)| there.get(*key).copied().unwrap_or(0) < **count)
        .collect();
    let shown = &more[..more.len().min(SHOWN)];
    (!more.is_empty()).then(|| format!("{source}: {} {what}, as {shown:#?}", more.len()))
}

#[derive(Default)]
struct Stored {
    keys: Keys,
    /// Of the log.
    files: BTreeSet<String>,
    ids: HashSet<(String, String)>,
    twice: Vec<String>,
    /// Not for whose they are.
    elsewhere: Vec<String>,
}

impl Stored {
    async fn of(store: &dyn Store, whose: &Whose) -> Result<Self, StoreError> {
        let mut stored = Self::default();
        each_event(store, |event| stored.take(event, whose)).await?;
        Ok(stored)
    }

    fn take(&mut self, event: StoredEvent, whose: &Whose) {
        self.elsewhere.extend(whose.amiss(&event));
        let key = match event.source.as_str() {
            "stalwart" => said_by_mail(&event),
            "ocis" => said_by_line(&event),
            _ => event.external_id.clone(),
        };
        note(&mut self.keys, &event.source, key);
        if event.source == "ocis"
            && let Some((file, _)) = event.external_id.rsplit_once(':')
        {
            self.files.insert(file.to_owned());
        }
        let id = (event.source, event.external_id);
        if !self.ids.insert(id.clone()) {
            self.twice.push(format!("{id:?} stands in the store twice"));
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |source: &str| {
            let keys = self.keys.get(source);
            keys.map_or(0, |keys| keys.values().sum::<u64>())
        };
        let counts = SOURCES.map(|source| format!("{source} {}", of(source)));
        f.write_str(&counts.join(", "))
    }
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

fn line_key(offset: &str, action: &str, metadata: &Map<String, Value>) -> String {
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
                        assert_says(&event.metadata, line);
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
    let counts = workspace.counts();
    assert_eq!(
        keys.len() as u64,
        counts.ocis_lines - counts.ocis_reads,
        "a line that changes something is an event, and one that reads is none"
    );
    (keys, files)
}

/// The decoder must not be the only witness of what a line says.
fn assert_says(metadata: &Map<String, Value>, line: &[u8]) {
    let mut kept = metadata.clone();
    kept.remove("daybook");
    let said: Value = serde_json::from_slice(line).expect("a line is JSON");
    let as_many = said.as_object().map(Map::len) == Some(kept.len());
    let kept = Value::Object(kept);
    assert!(as_many && says(&kept, &said), "{said} is decoded as {kept}");
}
