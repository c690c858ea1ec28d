//! The timeline as a file: newest first, as the API lists it, page by page, so that memory stays
//! the same however long it is, and events that are entered meanwhile shift nothing.

mod csv;
mod ecs;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::event::{Outcome, Target};
use crate::own_events::{self, Deed};
use crate::store::{EventFilter, EventPage, PageKey, Payloads, Store, StoreError, StoredEvent};

/// Events of a page, at most; large ones end it earlier.
const PAGE: u32 = 1000;
/// A page is tried so often, the store being away for a moment.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// The action of an export's start.
const STARTED: &str = "daybook.export_started";

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line, as the API shows it.
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
    /// A JSON object of the Elastic Common Schema a line.
    Ecs,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Ndjson, Self::Csv, Self::Ecs];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Ecs => "ecs",
        }
    }

    /// The format of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson | Self::Ecs => "application/x-ndjson",
        }
    }

    /// How a file's name ends, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Ecs => "ecs.ndjson",
        }
    }

    /// What stands before the first event.
    pub fn head(self) -> Vec<u8> {
        match self {
            Self::Csv => csv::head(),
            Self::Ndjson | Self::Ecs => Vec::new(),
        }
    }

    /// Appends an event.
    pub fn write(self, event: &StoredEvent, out: &mut Vec<u8>) {
        match self {
            Self::Csv => csv::write(event, out),
            Self::Ndjson => write_line(event, out),
            Self::Ecs => write_line(&ecs::document(event), out),
        }
    }
}

fn write_line(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Writing strings, numbers and maps with string keys into memory cannot fail.
    let _infallible = serde_json::to_writer(&mut *out, value);
    out.push(b'\n');
}

/// An export under way.
pub struct Export {
    store: Arc<dyn Store>,
    id: String,
    filter: EventFilter,
    format: Format,
    before: Option<PageKey>,
    left: Option<u64>,
    begun: bool,
    ended: bool,
    count: u64,
}

impl Export {
    /// All that the filter finds, or so many of it, but for the start of the export with this id.
    pub fn new(
        store: Arc<dyn Store>,
        id: String,
        filter: EventFilter,
        format: Format,
        limit: Option<u64>,
    ) -> Self {
        Self {
            store,
            id,
            filter,
            format,
            before: None,
            left: limit,
            begun: false,
            ended: false,
            count: 0,
        }
    }

    /// Events written so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next piece; `None` after the last one. Cancel-safe.
    ///
    /// # Errors
    /// When the store does not answer, tried several times.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let wanted = self.left.map_or(PAGE, |left| {
            PAGE.min(u32::try_from(left).unwrap_or(u32::MAX))
        });
        let EventPage { events, is_cut } = self.read(wanted).await?;
        let mut out = if self.begun {
            Vec::new()
        } else {
            self.format.head()
        };
        self.begun = true;
        let read = events.len() as u64;
        let mut written = 0;
        for event in events.iter().filter(|event| !self.is_own_start(event)) {
            self.format.write(event, &mut out);
            written += 1;
        }
        self.count += written;
        if let Some(left) = &mut self.left {
            *left -= written.min(*left);
        }
        self.ended = (read < u64::from(wanted) && !is_cut) || self.left == Some(0);
        self.before = events.last().map(PageKey::of);
        Ok(Some(out))
    }

    /// Whether it stands on the timeline because of this export: no list held it before.
    fn is_own_start(&self, event: &StoredEvent) -> bool {
        event.source == own_events::SOURCE
            && event.action == STARTED
            && event.target.id.as_deref() == Some(self.id.as_str())
    }

    async fn read(&self, limit: u32) -> Result<EventPage, StoreError> {
        let mut tries = 1;
        loop {
            let before = self.before.as_ref();
            let read = self
                .store
                .event_page(&self.filter, before, limit, Payloads::Whole);
            match read.await {
                Err(_) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                read => return read,
            }
        }
    }
}

/// What stands on the timeline about an export: that it began (`ended` is `None`), or how it ended
/// and with how many events. Who did it is for the caller to add.
pub fn deed(
    export: &str,
    filter: &EventFilter,
    limit: Option<u64>,
    format: Format,
    ended: Option<(Outcome, u64)>,
) -> Deed {
    let mut deed = match ended {
        None => Deed::new(STARTED, Outcome::Unknown),
        Some((outcome, _)) => Deed::new("daybook.exported", outcome),
    };
    deed.target = Target {
        kind: Some("export".into()),
        id: Some(export.into()),
        name: None,
    };
    deed.metadata
        .insert("format".to_owned(), json!(format.as_str()));
    let mut asked = described(filter);
    if let Some(limit) = limit {
        asked.insert("limit".to_owned(), json!(limit));
    }
    deed.metadata
        .insert("filter".to_owned(), Value::Object(asked));
    if let Some((_, count)) = ended {
        deed.metadata.insert("count".to_owned(), json!(count));
    }
    deed
}

/// Something to tell one export from another.
pub fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn described(filter: &EventFilter) -> Map<String, Value> {
    let time = |at: &Option<jiff::Timestamp>| at.map(|at| at.to_string());
    let conditions = [
        ("source", filter.source.clone()),
        ("tenant", filter.tenant.clone()),
        ("action", filter.action.clone()),
        ("actor", filter.actor.clone()),
        ("ip", filter.ip.clone()),
        ("target", filter.target.clone()),
        (
            "outcome",
            filter.outcome.map(|outcome| outcome.as_str().to_owned()),
        ),
        ("text", filter.text.clone()),
        ("since", time(&filter.since)),
        ("until", time(&filter.until)),
    ];
    let given = conditions
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?))));
    given.collect()
}
