//! Where the timeline stands: one trait, two stores, one conformance suite.
//!
//! The writer alone calls [`Store::commit`]; the rest is read by sources (their own cursor),
//! the resolver (the directory) and the HTTP API.
//!
//! Both stores promise the same, and [`conformance`] holds them to it: an answered commit is
//! durable, a repeated one is harmless, a cursor never passes what is not durable, and an event
//! reads back equal to what was entered, whatever is in it.

#[doc(hidden)]
pub mod conformance;
pub mod feed;
mod histogram;
mod keys;
pub mod mongodb;
mod page;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{StoreConfig, StoreTarget};
use crate::event::{Actor, AuditEvent, DeadLetter, DeadLetterReason, Outcome, SourceName, Target};
use crate::probe::Probe;
use feed::{Caseless, Follow};

pub use histogram::{Bar, Histogram};
pub use page::{EventPage, PageKey, Payloads};

/// One thing to make durable. The tenant stands beside the event, which stays shared and unchanged.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// An event and the tenant found for it.
    Event {
        /// The event.
        event: &'a AuditEvent,
        /// The tenant's slug; the field is absent when none was found.
        tenant_slug: Option<&'a str>,
    },
    /// Input that could not become an event.
    DeadLetter(&'a DeadLetter),
}

/// Where a source's cursor goes when the records before it are durable.
///
/// `seq` is a count that the source itself makes and that only grows (bytes read, pages walked);
/// `detail` is the source's own description of the place, opaque to the store.
#[derive(Clone, Debug, PartialEq)]
pub struct CursorMove {
    /// Whose cursor.
    pub source: SourceName,
    /// The generation that [`Store::claim_cursor`] gave to the mover.
    pub generation: u64,
    /// Where to.
    pub step: CursorStep,
    /// `at` of the newest event of the batch; `None` leaves the stored one.
    pub last_event_at: Option<Timestamp>,
    /// The contract's `lastEventId`; `None` leaves the stored one.
    pub last_event_id: Option<String>,
}

/// How a cursor moves.
#[derive(Clone, Debug, PartialEq)]
pub enum CursorStep {
    /// Compare-and-set from `from` to `to`; replaces nothing unless it is [`MoveFate::Moved`].
    Advance {
        /// The cursor must stand here or further.
        from: u64,
        /// And stands here afterwards.
        to: u64,
        /// Replaces the stored detail.
        detail: Value,
    },
    /// No position to keep (pushed events): only notes the newest `last_event_at` and the last
    /// `last_event_id`. The generation is not checked and a missing cursor is made, unclaimed:
    /// with generation 0, which belongs to nobody. Always [`MoveFate::Moved`].
    Touch,
}

/// A stored cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// Whose.
    pub source: String,
    /// The newest claim; an older one cannot move it.
    pub generation: u64,
    /// How far.
    pub seq: u64,
    /// The source's own description of the place; null when it never moved.
    pub detail: Value,
    /// `at` of the last event that went in.
    pub last_event_at: Option<Timestamp>,
    /// The contract's `lastEventId`.
    pub last_event_id: Option<String>,
    /// When it last moved.
    pub updated_at: Timestamp,
}

/// A space whose tenant was learned from its own lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedSpace {
    /// The space's id.
    pub space: String,
    /// Its tenant.
    pub tenant_slug: String,
}

/// Everything that one flush makes durable.
#[derive(Clone, Debug, Default)]
pub struct Commit<'a> {
    /// Events and dead letters. Of two with one key, one is written and the other a duplicate.
    pub records: Vec<Record<'a>>,
    /// Cursors to move once the records are durable. At most one `Advance` a source.
    pub moves: Vec<CursorMove>,
    /// Spaces learned on the way.
    pub learned: Vec<LearnedSpace>,
    /// The records are entered in the order in which they stand; otherwise many of them at once.
    pub in_order: bool,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is durable, for the first time.
    Written,
    /// It was there already, by (`source`, `external_id`) or (`source`, `position`). An event stays
    /// as it is; a dead letter is counted once more.
    Duplicate,
    /// The store will never take it: too large, not representable. Nothing was stored for it. The
    /// reason never holds content. MongoDB refuses events over 16 MiB.
    Rejected(String),
}

/// What became of one cursor move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveFate {
    /// The cursor stands at `to`.
    Moved,
    /// It stood at `to` or further already.
    Covered,
    /// It stands before `from`: moving it would skip something.
    Gap {
        /// Where it stands.
        stored: u64,
    },
    /// Another generation owns it, or nobody claimed it yet.
    Fenced {
        /// The owner's generation; 0: nobody's.
        owner: u64,
    },
}

/// The result of [`Store::commit`], index by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// One per record.
    pub records: Vec<Fate>,
    /// One per move; empty when any record was rejected: then no cursor moves, and the writer
    /// puts dead letters in the place of the rejected ones and commits again.
    pub moves: Vec<MoveFate>,
}

/// An event as read back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredEvent {
    /// The store's own id.
    pub id: String,
    /// When it happened.
    pub at: Timestamp,
    /// When it was entered.
    pub ingested_at: Timestamp,
    /// Which source said it.
    pub source: String,
    /// The source's key.
    pub external_id: String,
    /// `<kind>.<verb>`.
    pub action: String,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Who did it.
    #[serde(skip_serializing_if = "Actor::is_empty")]
    pub actor: Actor,
    /// To what.
    #[serde(skip_serializing_if = "Target::is_empty")]
    pub target: Target,
    /// Whose timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_slug: Option<String>,
    /// The payload.
    pub metadata: Map<String, Value>,
}

/// Which events to read; all given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// Exact source name.
    pub source: Option<String>,
    /// Exact tenant slug.
    pub tenant: Option<String>,
    /// Exact action, or a prefix when it ends in `*`.
    pub action: Option<String>,
    /// Exact id, email or name of the actor, letters in any case.
    pub actor: Option<String>,
    /// Exact address as stored.
    pub ip: Option<String>,
    /// Exact id or name of the target, letters in any case.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Found anywhere in action, actor, target or ip, letters in any case.
    pub text: Option<String>,
    /// `at` not before.
    pub since: Option<Timestamp>,
    /// `at` before.
    pub until: Option<Timestamp>,
}

/// The platform's directory of tenants and users, as far as Daybook needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectoryRecords {
    /// Tenants.
    pub tenants: Vec<TenantRecord>,
    /// Users.
    pub users: Vec<UserRecord>,
    /// Spaces learned so far.
    pub learned: Vec<LearnedSpace>,
}

/// A tenant of the platform.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantRecord {
    /// The platform's id, as text, referred to by `UserRecord::tenant_ids`.
    pub id: String,
    /// Its slug: what stands in events.
    pub slug: String,
    /// Its name.
    pub name: Option<String>,
    /// Its mail domains.
    pub domains: Vec<String>,
    /// Its Authentik groups.
    pub groups: Vec<String>,
    /// Its OCIS spaces.
    pub space_ids: Vec<String>,
}

/// A user of the platform.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserRecord {
    /// OIDC subject: Authentik's `uid`, OCIS's user id.
    pub subject: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Ids of tenants, as text.
    pub tenant_ids: Vec<String>,
}

/// What a bearer of a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Operator,
    /// Send events, through the named recorder source or the first one.
    Recorder(Option<String>),
    /// See one tenant's events.
    Tenant(String),
}

/// A token as stored: never the token itself, only its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// SHA-256 of the token, lower-case hexadecimal.
    pub hash: String,
    /// What it allows.
    pub role: Role,
    /// A name for people.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Of a session of the page: the hash of the token that opened it, without which it is none.
    pub opened_by: Option<String>,
}

/// A dead letter as read back.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDeadLetter {
    /// The store's own id.
    pub id: String,
    /// The letter.
    pub letter: DeadLetter,
    /// How often the same input ended here.
    pub attempts: u64,
    /// When it last did.
    pub last_at: Timestamp,
}

/// A dead letter without its bytes, as it stands in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterHead {
    /// The store's own id.
    pub id: String,
    /// The source it came through.
    pub source: String,
    /// Where it stood.
    pub position: String,
    /// Which kind of trouble.
    pub reason: DeadLetterReason,
    /// The trouble in words.
    pub detail: String,
    /// How long the original was, in bytes.
    pub raw_length: u64,
    /// How often the same input ended here.
    pub attempts: u64,
    /// When it first did.
    pub first_at: Timestamp,
    /// When it last did.
    pub last_at: Timestamp,
}

/// Which dead letters to list; all given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Exact source name.
    pub source: Option<String>,
    /// Exact reason.
    pub reason: Option<DeadLetterReason>,
    /// Last met not before.
    pub since: Option<Timestamp>,
    /// Last met before.
    pub until: Option<Timestamp>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nobody answers, no primary, no majority, connection lost; a file that is damaged.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// No answer within the operation's time.
    #[error("store did not answer {what} within {after:?}")]
    Timeout {
        /// Which operation.
        what: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// Wrong credentials or a missing right: a person must act.
    #[error("store refused access: {0}")]
    Unauthorized(String),
    /// The disk is full or read-only.
    #[error("store cannot write: {0}")]
    Full(String),
    /// It refuses what goes with the events, a cursor say, or an event of Daybook's own: no source's
    /// event is at fault.
    #[error("store failed: {0}")]
    Refused(String),
    /// Anything else; not helped by waiting.
    #[error("store failed: {0}")]
    Other(String),
}

impl StoreError {
    /// The label of `daybook_store_errors_total`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout { .. } => "timeout",
            Self::Unauthorized(_) => "unauthorized",
            Self::Full(_) => "full",
            Self::Refused(_) | Self::Other(_) => "other",
        }
    }

    /// Whether nobody could be served just now, whatever was asked.
    pub fn is_away(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Other(_))
    }
}

/// Opens the configured store. A MongoDB that does not answer is no error: it is connected to when it
/// is first used.
///
/// # Errors
/// When the address is none, or the file cannot be opened.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>> {
    let target = config.url.target().map_err(StoreError::Other)?;
    match target {
        StoreTarget::Sqlite(path) => {
            let (timeout, collections) = (config.timeout, config.collections.clone());
            let opened = tokio::task::spawn_blocking(move || {
                sqlite::SqliteStore::open(&path, timeout, &collections)
            })
            .await;
            let store = opened.map_err(|error| StoreError::Other(error.to_string()))??;
            Ok(Arc::new(store))
        }
        StoreTarget::MongoDb { .. } => {
            let store =
                mongodb::MongoStore::connect(&config.url.0, config.timeout, &config.collections)
                    .await?;
            Ok(Arc::new(store))
        }
    }
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A place for the timeline, its cursors, dead letters and tokens.
///
/// Every method keeps the operation timeout given at construction, but for the making of tables and
/// indexes in SQLite, and is cancel-safe in this sense: a cancelled call may or may not have taken
/// effect, and repeating it is harmless.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes the point between records and cursors, where tests strike.
    #[doc(hidden)]
    fn set_probe(&self, _probe: Probe) {}

    /// Creates what is missing: tables, indexes. Idempotent; to be called before anything else.
    /// On a large collection that lacks an index this may time out while the server goes on
    /// building; calling again waits for the same build. SQLite makes them in one go, however long
    /// that takes.
    async fn prepare(&self) -> Result<()>;

    /// Begins what is done beside the commits for as long as the store lives; for the service, once
    /// the store is prepared. A command has none of it done: it could not tell when a service that
    /// enters events leaves the server free for it.
    fn begin_upkeep(&self) {}

    /// Whether the store answers *and can take writes* (a replica set without primary cannot).
    async fn ping(&self) -> Result<()>;

    /// Makes the records durable (majority and journal, or a synchronous transaction), then moves the cursors.
    ///
    /// # Errors
    /// Any error means: nothing is known about any record; call again with the same commit.
    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed>;

    /// Takes the source's cursor over: its generation grows by one, older ones are fenced from here on.
    async fn claim_cursor(&self, source: &SourceName) -> Result<Cursor>;

    /// All cursors, in the order of their sources' names.
    async fn cursors(&self) -> Result<Vec<Cursor>>;

    /// The platform's tenants and users, and the learned spaces. Records that are not what they
    /// should be (no slug, ids of a strange type) are left out; missing tables are empty.
    async fn directory(&self) -> Result<DirectoryRecords>;

    /// Events newest first by (`at`, id), strictly after `before` in that order; at most `limit`,
    /// so that 0 yields none, and no more than some MiB of payloads take, but one at least.
    async fn event_page(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
        payloads: Payloads,
    ) -> Result<EventPage>;

    /// The same, whole and however large. Fewer than `limit` means that there are no more.
    async fn find_events(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<StoredEvent>> {
        let mut before = before.cloned();
        let mut found = Vec::new();
        loop {
            let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            let page = self
                .event_page(filter, before.as_ref(), left, Payloads::Whole)
                .await?;
            found.extend(page.events);
            if !page.is_cut {
                return Ok(found);
            }
            before = found.last().map(PageKey::of);
        }
    }

    /// Counts the events of a filter, by time and source, in at most `buckets` bars (1 to 1000).
    /// Without `since` or `until` it reaches from the first to the last event of the filter.
    async fn histogram(&self, filter: &EventFilter, buckets: u32) -> Result<Histogram>;

    /// One event by its id, of one tenant if one is named; `None` also for an id that is none.
    async fn event(&self, id: &str, tenant: Option<&str>) -> Result<Option<StoredEvent>>;

    /// Follows the timeline from a [`feed::Entry::position`] on, or from now. `None`: the text is no
    /// position of this store.
    async fn follow(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>>;

    /// The same for the live feed, which no read of the timeline may hold up, wherever it goes on.
    async fn follow_live(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>> {
        self.follow(after).await
    }

    /// How this store compares text in any case; see [`feed::Matcher`].
    fn caseless(&self) -> Caseless;

    /// How many times `writer.batch_events` a source with a backlog delivers at once, at best.
    fn inserts_a_chunk(&self) -> usize;

    /// Dead letters, newest first by the last time they were met; at most `limit`. Their raw bytes
    /// are the first 15 MiB at most, `raw_length` tells the whole.
    async fn dead_letters(&self, limit: u32) -> Result<Vec<StoredDeadLetter>>;

    /// Dead letters without their bytes, newest first by (`last_at`, id), strictly after `before`
    /// in that order (its `at` is a `last_at`); at most `limit`. A letter that is met again while
    /// pages are read moves to the front: it may be missing on the pages that follow.
    async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<DeadLetterHead>>;

    /// One dead letter by its id, with its bytes as [`Store::dead_letters`] has them; `None` also
    /// for an id that is none.
    async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>>;

    /// Deletes the dead letters that have these ids and counts them; others are passed over.
    async fn delete_dead_letters(&self, ids: &[String]) -> Result<u64>;

    /// Deletes the oldest events with `at` before this time, at most `limit` of them, and counts
    /// them. None means that there are no more.
    async fn delete_events_before(&self, at: Timestamp, limit: u32) -> Result<u64>;

    /// The same with dead letters, by the last time they were met.
    async fn delete_dead_letters_before(&self, last_at: Timestamp, limit: u32) -> Result<u64>;

    /// Keeps a token's hash; a repeat replaces what was kept under it. Forgets those that have ended.
    async fn insert_token(&self, token: &TokenRecord) -> Result<()>;

    /// Finds a token by its hash; one that has ended is not found.
    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>>;

    /// Forgets a token; forgetting an unknown one is harmless.
    async fn delete_token(&self, hash: &str) -> Result<()>;
}
