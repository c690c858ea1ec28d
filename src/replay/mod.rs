//! Reading a source again from a point in time, and entering what is missing: after a loss in the
//! store, say, or a time in which a source was not configured.
//!
//! It is a run of its own beside a running or a stopped service: it claims no cursor and moves none. It may enter what
//! the service has yet to read, under the keys that this will have there.
//! What the timeline holds already is recognised by its key, and for files by its content too: the
//! copy that `copytruncate` makes, or an unpacked part, has other keys than the file that it was made
//! of. But it holds each line at the same offset; elsewhere what says the same is another event.

mod authentik;
mod ocis;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::{Config, SourceConfig};
use crate::dead_letters::{Retried, Retrier, RetryError};
use crate::event::{AuditEvent, Decoded, TenantHints};
use crate::sources::authentik::client::ClientError;
use crate::sources::text::REMARKS;
use crate::store::{EventFilter, PageKey, Payloads, Store, StoreError, StoredEvent};
use crate::tail::TailError;

/// Events entered at once.
const AT_ONCE: usize = 500;

/// The times of a batch are asked for in stretches; a longer pause between two of them divides.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Pieces of input read.
    pub read: u64,
    /// Events entered now.
    pub new: u64,
    /// Events that were there already.
    pub known: u64,
    /// Older than asked for, or left out on purpose.
    pub left_out: u64,
    /// Could not become an event; nothing was kept of them.
    pub unreadable: u64,
}

/// Why it did not go to its end. What was entered until then stays; running it again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Its events are pushed.
    #[error(
        "{0} events are pushed to daybook and cannot be read again; what could not become an event is tried again with: daybook dead-letters retry"
    )]
    Pushed(&'static str),
    /// The token or the cursor cannot be read, or no client can be built.
    #[error("{0}")]
    Source(String),
    /// Authentik does not answer as it should.
    #[error("authentik: {0}")]
    Authentik(#[from] ClientError),
    /// It does not tell whose its events are, and they would be entered without a tenant for good.
    #[error("authentik: users cannot be looked up: {}", .0.beside_the_list())]
    People(ClientError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] TailError),
    /// There is no file to read.
    #[error("there is no log at {}, and no part of it beside that can be read", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The store fails, or the directory of tenants cannot be read.
    #[error(transparent)]
    Enter(#[from] RetryError),
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Enter(error.into())
    }
}

/// Reads a source again, back to `since` by the events' own time. `progress` is told after every step.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay(
    store: &Arc<dyn Store>,
    config: &Config,
    source: &SourceConfig,
    since: Timestamp,
    progress: &mut (dyn FnMut(&Replayed) + Send),
) -> Result<Replayed, ReplayError> {
    let mut enterer = Enterer {
        store: &**store,
        retrier: Retrier::new(&**store, config).await?,
        source: source.name(),
        since,
        by_content: matches!(source, SourceConfig::Ocis(_)),
        timeless: None,
        replayed: Replayed::default(),
        progress,
    };
    match source {
        SourceConfig::Authentik(config) => authentik::replay(config, &mut enterer).await?,
        SourceConfig::Ocis(config) => ocis::replay(config, &mut enterer).await?,
        pushed => return Err(ReplayError::Pushed(pushed.kind())),
    }
    Ok(enterer.replayed)
}

/// Enters what is missing.
struct Enterer<'a> {
    store: &'a dyn Store,
    retrier: Retrier<'a>,
    source: &'a str,
    since: Timestamp,
    /// Whether what has another key may be the same event all the same.
    by_content: bool,
    /// What the timeline holds of events that tell no time of their own, once it was looked for.
    timeless: Option<Held>,
    replayed: Replayed,
    progress: &'a mut (dyn FnMut(&Replayed) + Send),
}

type Read = (Box<AuditEvent>, TenantHints);

impl Enterer<'_> {
    async fn enter(&mut self, decoded: Vec<Decoded>) -> Result<(), ReplayError> {
        let mut events = Vec::new();
        for part in decoded {
            self.replayed.read += 1;
            match part {
                Decoded::Event(event, hints) if event.at >= self.since => {
                    events.push((event, hints));
                }
                Decoded::Event(..) | Decoded::Filtered => self.replayed.left_out += 1,
                Decoded::Dead(_) => self.replayed.unreadable += 1,
            }
        }
        (self.progress)(&self.replayed);
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(AT_ONCE));
            let unknown = self.unknown(std::mem::replace(&mut events, rest)).await?;
            self.enter_all(unknown).await?;
            (self.progress)(&self.replayed);
        }
        Ok(())
    }

    /// Input that nobody can read.
    fn passes_over(&mut self, count: u64) {
        self.replayed.read += count;
        self.replayed.unreadable += count;
    }

    async fn enter_all(&mut self, unknown: Vec<Read>) -> Result<(), ReplayError> {
        let unknown: Vec<Decoded> = unknown
            .into_iter()
            .map(|(event, hints)| Decoded::Event(event, hints))
            .collect();
        if let Some((written, duplicate)) = self.enter_some(&unknown).await? {
            self.replayed.new += written;
            self.replayed.known += duplicate;
            return Ok(());
        }
        // The store refuses one of them for good, but may have taken the others in the same commit:
        // what was there before it was left out.
        for event in unknown.chunks(1) {
            match self.enter_some(event).await? {
                Some((written, just_written)) => self.replayed.new += written + just_written,
                None => self.replayed.unreadable += 1,
            }
        }
        Ok(())
    }

    /// How many were entered, and how many were there; `None` when the store will never take one of them.
    async fn enter_some(&mut self, events: &[Decoded]) -> Result<Option<(u64, u64)>, ReplayError> {
        Ok(match self.retrier.enter(events).await? {
            Ok(Retried::Entered {
                written, duplicate, ..
            }) => Some((written, duplicate)),
            Ok(_) => Some((0, 0)),
            Err(_refused) => None,
        })
    }

    /// Leaves out what the timeline holds.
    async fn unknown(&mut self, mut events: Vec<Read>) -> Result<Vec<Read>, ReplayError> {
        let (timeless, dated): (Vec<_>, Vec<_>) = events
            .iter()
            .map(|(event, _)| &**event)
            .partition(|event| is_timeless(&event.metadata));
        if self.timeless.is_none() && !timeless.is_empty() {
            self.timeless = Some(self.held_timeless().await?);
        }
        let mut held = self.held(&dated).await?;
        let by_content = self.by_content;
        let all = events.len();
        events.retain(|(event, _)| {
            let held = match &mut self.timeless {
                Some(timeless) if is_timeless(&event.metadata) => timeless,
                _ => &mut held,
            };
            let key = &event.external_id;
            let content =
                by_content.then(|| content_of(key, event.at, &event.action, &event.metadata));
            !held.holds_or_adds(key, content)
        });
        self.replayed.known += (all - events.len()) as u64;
        Ok(events)
    }

    /// Of the source's events of these times, those that may be one of these.
    async fn held(&self, events: &[&AuditEvent]) -> Result<Held, StoreError> {
        let offsets: HashSet<&str> = events
            .iter()
            .map(|event| place(&event.external_id).1)
            .collect();
        let mut held = Held::default();
        for (first, last) in stretches(events.iter().map(|event| event.at).collect()) {
            let filter = EventFilter {
                source: Some(self.source.to_owned()),
                since: Some(first),
                until: last.checked_add(SignedDuration::from_millis(1)).ok(),
                ..EventFilter::default()
            };
            let may_be_one = |event: &StoredEvent| offsets.contains(place(&event.external_id).1);
            self.hold(&mut held, &filter, may_be_one).await?;
        }
        Ok(held)
    }

    /// Those of any time that tell none: they stand where they were read.
    async fn held_timeless(&self) -> Result<Held, StoreError> {
        let filter = EventFilter {
            source: Some(self.source.to_owned()),
            ..EventFilter::default()
        };
        let mut held = Held::default();
        self.hold(&mut held, &filter, |event| is_timeless(&event.metadata))
            .await?;
        Ok(held)
    }

    async fn hold(
        &self,
        held: &mut Held,
        filter: &EventFilter,
        is_wanted: impl Fn(&StoredEvent) -> bool,
    ) -> Result<(), StoreError> {
        let mut before: Option<PageKey> = None;
        loop {
            let page = self
                .store
                .event_page(filter, before.as_ref(), 1000, Payloads::Whole)
                .await?;
            let complete = !page.is_cut && page.events.len() < 1000;
            before = page.events.last().map(PageKey::of);
            for event in page.events.into_iter().filter(&is_wanted) {
                let key = &event.external_id;
                let content = self
                    .by_content
                    .then(|| content_of(key, event.at, &event.action, &event.metadata));
                held.add(event.external_id, content);
            }
            if complete {
                return Ok(());
            }
        }
    }
}

/// From the first to the last of the times, without the long gaps between them.
fn stretches(mut times: Vec<Timestamp>) -> Vec<(Timestamp, Timestamp)> {
    times.sort_unstable();
    times
        .chunk_by(|one, next| next.duration_since(*one) <= LONGEST_PAUSE)
        .filter_map(|stretch| Some((*stretch.first()?, *stretch.last()?)))
        .collect()
}

/// The SHA-256 of what an event says and where.
type Content = [u8; 32];

/// What the timeline holds.
#[derive(Default)]
struct Held {
    keys: HashSet<String>,
    /// The files that have each content.
    files: HashMap<Content, Vec<String>>,
}

impl Held {
    fn add(&mut self, key: String, content: Option<Content>) {
        if let Some(content) = content {
            let (file, _) = place(&key);
            self.files.entry(content).or_default().push(file.to_owned());
        }
        self.keys.insert(key);
    }

    /// Whether it has an event already: by its key, or by its content in another file.
    fn holds_or_adds(&mut self, key: &str, content: Option<Content>) -> bool {
        let (file, _) = place(key);
        let copied = content.as_ref().and_then(|content| self.files.get(content));
        let is_copy = copied.is_some_and(|files| files.iter().any(|held| held != file));
        let is_held = self.keys.contains(key) || is_copy;
        if !is_held {
            self.add(key.to_owned(), content);
        }
        is_held
    }
}

/// The file and the offset in it that a key names; another key names no file.
fn place(key: &str) -> (&str, &str) {
    key.rsplit_once(':').unwrap_or(("", key))
}

/// Whether an event tells no time of its own, so that it bears that of its reading.
fn is_timeless(metadata: &serde_json::Map<String, serde_json::Value>) -> bool {
    metadata
        .get(REMARKS)
        .is_some_and(|remarks| remarks.get("at").is_some())
}

/// What an event says and at which offset of its file, without Daybook's own remarks on it. A copy of
/// the file has the same.
fn content_of(
    key: &str,
    at: Timestamp,
    action: &str,
    metadata: &serde_json::Map<String, serde_json::Value>,
) -> Content {
    let (_, offset) = place(key);
    let at = match is_timeless(metadata) {
        true => 0,
        false => at.as_millisecond(),
    };
    let mut said: Vec<_> = metadata
        .iter()
        .filter(|(name, _)| *name != REMARKS)
        .collect();
    said.sort_by_key(|(name, _)| *name);
    let said = serde_json::to_string(&said).unwrap_or_default();
    Sha256::digest(format!("{offset}\n{at}\n{action}\n{said}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_long_gap_is_not_asked_for() {
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let times = [600, 0, 660, 60, 721].map(at);
        let wanted = [(0, 60), (600, 660), (721, 721)].map(|(first, last)| (at(first), at(last)));
        assert_eq!(stretches(times.to_vec()), wanted);
        assert!(stretches(Vec::new()).is_empty());
    }
}
