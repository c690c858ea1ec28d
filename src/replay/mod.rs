//! Reading a source again from a point in time, and entering what is missing: after a loss in the
//! store, say, or a time in which a source was not configured.
//!
//! It is a run of its own beside a running or a stopped service: it claims no cursor and moves none.
//! What the timeline holds already is recognised by its key, and for files by its content too: the
//! copy that `copytruncate` makes has other keys than the file that it was made of.

mod authentik;
mod ocis;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::{Config, SourceConfig};
use crate::dead_letters::{Retried, Retrier, RetryError};
use crate::event::{AuditEvent, Decoded, TenantHints};
use crate::sources::authentik::client::ClientError;
use crate::sources::text::REMARKS;
use crate::store::{EventFilter, PageKey, Store, StoreError, StoredEvent};
use crate::tail::TailError;

/// Events entered at once.
const AT_ONCE: usize = 500;

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
    /// The token cannot be read, or no client can be built.
    #[error("{0}")]
    Source(String),
    /// Authentik does not answer as it should.
    #[error("authentik: {0}")]
    Authentik(#[from] ClientError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] TailError),
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
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(AT_ONCE));
            let unknown = self.unknown(std::mem::replace(&mut events, rest)).await?;
            self.enter_all(unknown).await?;
        }
        (self.progress)(&self.replayed);
        Ok(())
    }

    async fn enter_all(&mut self, unknown: Vec<Read>) -> Result<(), ReplayError> {
        let unknown: Vec<Decoded> = unknown
            .into_iter()
            .map(|(event, hints)| Decoded::Event(event, hints))
            .collect();
        if self.enter_some(&unknown).await? {
            return Ok(());
        }
        // The store refuses one of them for good: the others go in.
        for event in unknown.chunks(1) {
            if !self.enter_some(event).await? {
                self.replayed.unreadable += 1;
            }
        }
        Ok(())
    }

    async fn enter_some(&mut self, events: &[Decoded]) -> Result<bool, ReplayError> {
        match self.retrier.enter(events).await? {
            Ok(Retried::Entered {
                written, duplicate, ..
            }) => {
                self.replayed.new += written;
                self.replayed.known += duplicate;
                Ok(true)
            }
            Ok(_) => Ok(true),
            Err(_refused) => Ok(false),
        }
    }

    /// Leaves out what the timeline holds.
    async fn unknown(&mut self, events: Vec<Read>) -> Result<Vec<Read>, ReplayError> {
        let (timeless, dated): (Vec<_>, Vec<_>) = events
            .iter()
            .map(|(event, _)| event)
            .partition(|event| is_timeless(&event.metadata));
        if self.timeless.is_none() && !timeless.is_empty() {
            self.timeless = Some(self.held_timeless().await?);
        }
        let times = || dated.iter().map(|event| event.at);
        let mut held = match times().min().zip(times().max()) {
            Some((first, last)) => self.held(first, last).await?,
            None => Held::default(),
        };
        let keys: HashSet<&str> = events
            .iter()
            .map(|(event, _)| event.external_id.as_str())
            .collect();
        // What is one of these by its key is not another one of them by its content.
        held.contents.retain(|_, held| {
            held.retain(|key| !keys.contains(key.as_str()));
            !held.is_empty()
        });
        let mut unknown = Vec::new();
        for (event, hints) in events {
            let content = content_of(event.at, &event.action, &event.metadata);
            let same = held.contents.get_mut(&content).filter(|_| self.by_content);
            let is_held = match &mut self.timeless {
                Some(timeless) if is_timeless(&event.metadata) => {
                    let content = content_of(Timestamp::UNIX_EPOCH, &event.action, &event.metadata);
                    timeless.meets(content, &event.external_id, self.by_content)
                }
                _ => {
                    held.keys.contains(&event.external_id)
                        || same.is_some_and(|held| held.pop().is_some())
                }
            };
            if is_held {
                self.replayed.known += 1;
            } else {
                unknown.push((event, hints));
            }
        }
        Ok(unknown)
    }

    /// The source's events of this time.
    async fn held(&self, first: Timestamp, last: Timestamp) -> Result<Held, StoreError> {
        let filter = EventFilter {
            source: Some(self.source.to_owned()),
            since: Some(first),
            until: last.checked_add(SignedDuration::from_millis(1)).ok(),
            ..EventFilter::default()
        };
        self.held_of(&filter, |event| Some(event.at)).await
    }

    /// Those of any time that tell none: they stand where they were read.
    async fn held_timeless(&self) -> Result<Held, StoreError> {
        let filter = EventFilter {
            source: Some(self.source.to_owned()),
            ..EventFilter::default()
        };
        let epoch =
            |event: &StoredEvent| is_timeless(&event.metadata).then_some(Timestamp::UNIX_EPOCH);
        self.held_of(&filter, epoch).await
    }

    async fn held_of(
        &self,
        filter: &EventFilter,
        time_of: impl Fn(&StoredEvent) -> Option<Timestamp>,
    ) -> Result<Held, StoreError> {
        let mut held = Held::default();
        let mut before: Option<PageKey> = None;
        loop {
            let page = self
                .store
                .find_events(filter, before.as_ref(), 1000)
                .await?;
            let complete = page.len() < 1000;
            before = page.last().map(|last| PageKey {
                at: last.at,
                id: last.id.clone(),
            });
            for event in page {
                let Some(at) = time_of(&event) else { continue };
                let content = content_of(at, &event.action, &event.metadata);
                held.contents
                    .entry(content)
                    .or_default()
                    .push(event.external_id.clone());
                held.keys.insert(event.external_id);
            }
            if complete {
                return Ok(held);
            }
        }
    }
}

#[derive(Default)]
struct Held {
    keys: HashSet<String>,
    /// The keys of each content.
    contents: HashMap<String, Vec<String>>,
}

impl Held {
    /// Whether it has an event that tells no time: by its key, or by its content under the key of
    /// another file, for within one file each line has a key of its own. It has it afterwards.
    fn meets(&mut self, content: String, key: &str, by_content: bool) -> bool {
        if !self.keys.insert(key.to_owned()) {
            return true;
        }
        let file = |key: &str| key.rsplit_once(':').map(|(file, _)| file.to_owned());
        let keys = self.contents.entry(content).or_default();
        let copy = keys.iter().position(|held| file(held) != file(key));
        match copy.filter(|_| by_content) {
            Some(copy) => {
                keys.swap_remove(copy);
                true
            }
            None => {
                keys.push(key.to_owned());
                false
            }
        }
    }
}

/// Whether an event tells no time of its own, so that it bears that of its reading.
fn is_timeless(metadata: &serde_json::Map<String, serde_json::Value>) -> bool {
    metadata
        .get(REMARKS)
        .is_some_and(|remarks| remarks.get("at").is_some())
}

/// What an event says, without Daybook's own remarks on it.
fn content_of(
    at: Timestamp,
    action: &str,
    metadata: &serde_json::Map<String, serde_json::Value>,
) -> String {
    let mut said: Vec<_> = metadata
        .iter()
        .filter(|(name, _)| *name != REMARKS)
        .collect();
    said.sort_by_key(|(name, _)| *name);
    let said = serde_json::to_string(&said).unwrap_or_default();
    format!("{}\n{action}\n{said}", at.as_millisecond())
}
