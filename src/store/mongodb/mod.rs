//! The timeline in MongoDB: a standalone server or a replica set.
//!
//! - Every write waits for the majority and the journal, but for those of which a later one's journal
//!   or a repeat takes care (`announce`, `cursors`), and every method for at most the time
//!   given at construction: a server that hangs yields [`StoreError::Timeout`], not a stuck writer.
//! - No transaction is needed. Events go in first, unordered; what is there already is recognised
//!   by the unique index on (`source`, `externalId`); only then do cursors move, each by one
//!   compare-and-set. Dying between the two repeats events, which are then duplicates.
//! - The clients connect by themselves, so Daybook starts while the server is away.
//! - Reads of the timeline have connections of their own: however many wait for the server, commits, cursors, tokens
//!   and pings find theirs free.
//!
//! `encode` and `decode` hold the form of the documents, `commit` the writes, `cursors` the
//! compare-and-set, `query` the pages and `conditions` what they ask for, `schema` the indexes, `errors` the meaning of failures.
//! Beside the events stand what finds and counts them fast: `facets`, `texts` (and their `search`) and `cells`, to which
//! `announce` adds before a commit and `upkeep` in the background; `plan` chooses among them. A `histogram` counts
//! by one of several `means`, mostly from the `entries` of an index, and what it counted of a filter stays in memory (`found`).

mod announce;
mod cells;
mod commit;
mod conditions;
mod cursors;
mod decode;
mod encode;
mod entries;
mod errors;
mod facets;
mod feed;
mod found;
mod histogram;
mod letters;
mod means;
mod merge;
mod plan;
mod query;
mod schema;
mod search;
mod texts;
mod upkeep;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{DateTime, RawDocumentBuf, doc};
use mongodb::error::ErrorKind;
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::{
    Acknowledgment, ClientOptions, CommitQuorum, Hint, ReadConcern, ReadPreference, ReplaceOptions,
    WriteConcern,
};
use mongodb::{Client, Collection, Database};

use super::feed::{Caseless, Follow};
use super::{
    Commit, Committed, Cursor, DeadLetterFilter, DeadLetterHead, DirectoryRecords, EventFilter,
    EventPage, Histogram, LearnedSpace, PageKey, Payloads, Result, Role, Store, StoreError,
    StoredDeadLetter, StoredEvent, TokenRecord,
};
use crate::config::Collections;
use crate::event::SourceName;
use crate::probe::Probe;
use errors::store_error;

/// The database when the URL names none.
const DEFAULT_DATABASE: &str = "daybook";

/// The store in MongoDB; cheap to clone, the clones share their connections.
#[derive(Clone)]
pub struct MongoStore {
    /// The same with the connections of reads; the one that has them has none.
    reads: Option<Arc<Self>>,
    database: Database,
    timeout: Duration,
    events: Collection<RawDocumentBuf>,
    cursors: Collection<RawDocumentBuf>,
    dead_letters: Collection<RawDocumentBuf>,
    tenants: Collection<RawDocumentBuf>,
    users: Collection<RawDocumentBuf>,
    tokens: Collection<RawDocumentBuf>,
    spaces: Collection<RawDocumentBuf>,
    facets: Collection<RawDocumentBuf>,
    texts: Collection<RawDocumentBuf>,
    pending: Collection<RawDocumentBuf>,
    cells: Collection<RawDocumentBuf>,
    known: Arc<Mutex<announce::Known>>,
    dictionary: Arc<Mutex<Option<Arc<facets::Dictionary>>>>,
    kept_findings: Arc<found::KeptFindings>,
    /// The indexes of queries stand: they may be insisted on.
    indexed: Arc<AtomicBool>,
    /// The unique index of events was seen to stand since it was missing last.
    guarded: Arc<AtomicBool>,
    /// Milliseconds by which tests have moved the clock.
    moved_clock: Arc<AtomicI64>,
    /// There are texts to settle.
    work: Arc<tokio::sync::Notify>,
    /// Connections that were made so far.
    connections: Arc<AtomicU64>,
    /// The server is known to keep all collections in one journal, so that a write that is synced
    /// syncs those before it.
    one_journal: Arc<AtomicBool>,
    upkeep: Arc<upkeep::Upkeep>,
    /// What the index on (`source`, `externalId`) is called, once [`Store::prepare`] saw it.
    unique_index: Arc<OnceLock<String>>,
    probe: Arc<OnceLock<Probe>>,
}

impl std::fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoStore")
            .field("database", &self.database.name())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl MongoStore {
    /// Makes a store of a URL without waiting for its server. `timeout` bounds every later operation.
    ///
    /// The database is the URL's path, or `daybook`. Options of the URL that say how long to wait
    /// for a server or a connection stand; the others of this kind follow from `timeout`. Half of its
    /// `maxPoolSize` is for reads of the timeline, the rest for everything else: of 1 it is one each, of 2 one and two;
    /// without it, it is 10 each.
    ///
    /// # Errors
    /// [`StoreError::Other`] for a URL that is none, or names files that cannot be used, [`StoreError::Unavailable`]
    /// when the name of a `mongodb+srv` URL cannot be looked up. Neither repeats the URL, which may hold a password.
    pub async fn connect(url: &str, timeout: Duration, collections: &Collections) -> Result<Self> {
        let parse = async { ClientOptions::parse(url).await };
        let mut options = match tokio::time::timeout(timeout, parse).await {
            Ok(Ok(options)) => options,
            Ok(Err(error)) => return Err(url_error(&error)),
            Err(_) => {
                return Err(StoreError::Timeout {
                    what: "look-up of the store's address",
                    after: timeout,
                });
            }
        };
        options.app_name.get_or_insert_with(|| "daybook".to_owned());
        // Shorter than the operation's own time: "no server" is told apart from "no answer".
        let selection = (timeout / 2).min(Duration::from_secs(5));
        options.server_selection_timeout.get_or_insert(selection);
        options
            .connect_timeout
            .get_or_insert(timeout.min(Duration::from_secs(10)));
        // How soon a server is seen to be back that answered an error and kept its connections.
        options.heartbeat_freq.get_or_insert(Duration::from_secs(2));
        options.write_concern = Some(durable(timeout));
        // Reads decide what is written next, whatever the URL says of reading elsewhere.
        options.selection_criteria = Some(ReadPreference::Primary.into());
        options.read_concern = None;
        let reads = divide(&mut options);
        let connections = Arc::new(AtomicU64::new(0));
        let made = Arc::clone(&connections);
        options.cmap_event_handler = Some(EventHandler::callback(move |event| {
            if let CmapEvent::ConnectionCreated(_) = event {
                made.fetch_add(1, Ordering::AcqRel);
            }
        }));

        let name = options.default_database.clone();
        let client = |options| Client::with_options(options).map_err(|error| url_error(&error));
        let (client, reads) = (client(options)?, client(reads)?);
        let database = client.database(name.as_deref().unwrap_or(DEFAULT_DATABASE));
        let beside = |part: &str| database.collection(&format!("{}.{part}", collections.events));
        let mut store = Self {
            reads: None,
            events: database.collection(&collections.events),
            cursors: database.collection(&collections.cursors),
            dead_letters: database.collection(&collections.dead_letters),
            tenants: database.collection(&collections.tenants),
            users: database.collection(&collections.users),
            tokens: database.collection(&collections.tokens),
            spaces: database.collection(&collections.spaces),
            facets: beside("facets"),
            texts: beside("texts"),
            pending: beside("pendingtexts"),
            cells: beside("counts"),
            known: Arc::default(),
            dictionary: Arc::default(),
            kept_findings: Arc::default(),
            indexed: Arc::default(),
            guarded: Arc::default(),
            moved_clock: Arc::default(),
            work: Arc::default(),
            connections,
            one_journal: Arc::default(),
            upkeep: Arc::default(),
            database,
            timeout,
            unique_index: Arc::default(),
            probe: Arc::default(),
        };
        store.reads = Some(Arc::new(store.over(&reads)));
        Ok(store)
    }

    /// The same store, whose timeline is read over another client's connections.
    fn over(&self, client: &Client) -> Self {
        let database = client.database(self.database.name());
        let same = |one: &Collection<RawDocumentBuf>| database.collection(one.name());
        Self {
            events: same(&self.events),
            facets: same(&self.facets),
            texts: same(&self.texts),
            pending: same(&self.pending),
            cells: same(&self.cells),
            // What the background does ends with the store that began it.
            upkeep: Arc::default(),
            database,
            ..self.clone()
        }
    }

    /// This store for reads of the timeline, however long they take.
    fn for_reads(&self) -> &Self {
        self.reads.as_deref().unwrap_or(self)
    }

    /// Lets this store believe that time has gone on, or its clock was put back.
    #[doc(hidden)]
    pub fn move_clock(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.moved_clock.fetch_add(by, Ordering::Relaxed);
    }

    /// Milliseconds since 1970.
    fn now(&self) -> i64 {
        Timestamp::now().as_millisecond() + self.moved_clock.load(Ordering::Relaxed)
    }

    /// For what a later, durable write builds on: that one's sync holds it too. Where it may not, it is
    /// synced by itself.
    fn before_another(&self) -> WriteConcern {
        if self.one_journal.load(Ordering::Acquire) {
            unsynced(self.timeout)
        } else {
            durable(self.timeout)
        }
    }

    /// Learns whether there is one journal: a router's collections may lie on several servers. Tells which members of a
    /// replica set have to have built an index: as many as have to have a write, since one of them may be away.
    async fn look_at_server(&self) -> Result<Option<CommitQuorum>> {
        let answer = self.database.run_command(doc! { "hello": 1 }).await;
        let answer = answer.map_err(|error| store_error(&error))?;
        let is_router = answer.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
            || answer.contains_key("serviceId");
        self.one_journal.store(!is_router, Ordering::Release);
        let is_member = answer.contains_key("setName");
        Ok(is_member.then_some(CommitQuorum::Majority))
    }

    /// The time of an operation, as a server is told of it.
    fn timeout_millis(&self) -> i64 {
        i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX)
    }

    /// Runs an operation within its time.
    async fn within<T>(
        &self,
        what: &'static str,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, operation).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Timeout {
                what,
                after: self.timeout,
            }),
        }
    }
}

/// Leaves to reads their part of the connections, and returns their options. Of one or two it makes one more: reads
/// have one of their own, and everything else has no fewer than without them.
fn divide(options: &mut ClientOptions) -> ClientOptions {
    let mut reads = options.clone();
    reads.min_pool_size = None;
    // What a failover may take back is shown to nobody.
    reads.read_concern = Some(ReadConcern::majority());
    if let Some(most) = options.max_pool_size {
        reads.max_pool_size = Some((most / 2).max(1));
        // The live feed takes one of them for a second at a time.
        let others = most.div_ceil(2).max(most.min(2));
        options.max_pool_size = Some(others);
        options.min_pool_size = options.min_pool_size.map(|least| least.min(others));
    }
    reads
}

/// Majority and journal: what Daybook's acknowledgements rest on, whatever the URL says.
/// The server gives up waiting when we do.
fn durable(timeout: Duration) -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .w_timeout(timeout)
        .journal(true)
        .build()
}

/// The same without the journal. It has to be said: a majority alone includes the journal, and a
/// sync takes far longer than the write.
fn unsynced(timeout: Duration) -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .w_timeout(timeout)
        .journal(false)
        .build()
}

/// The driver quotes the URL it cannot read, and a line of the key that it cannot.
fn url_error(error: &mongodb::error::Error) -> StoreError {
    const FILES: &str =
        "the files of certificates in the store's url (tlsCAFile, tlsCertificateKeyFile)";
    match (&*error.kind, store_error(error)) {
        (ErrorKind::InvalidTlsConfig { .. }, _) => {
            StoreError::Other(format!("{FILES} cannot be used"))
        }
        // It has opened nothing else yet.
        (ErrorKind::Io(error), _) => StoreError::Other(format!("{FILES} cannot be read: {error}")),
        (_, StoreError::Unavailable(message)) => StoreError::Unavailable(message),
        _ => StoreError::Other("the store's url is no valid MongoDB connection string".to_owned()),
    }
}

/// Dates of BSON have whole milliseconds, as events do.
fn bson_date(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.as_millisecond())
}

#[async_trait]
impl Store for MongoStore {
    fn set_probe(&self, probe: Probe) {
        // A second Daybook on one store is struck where the first is.
        let _already = self.probe.set(probe);
    }

    async fn prepare(&self) -> Result<()> {
        // What was away may have come back as it was earlier.
        self.forget();
        let look = self.look_at_server();
        let quorum = self.within("a look at the server", look).await?;
        let create = self.create_indexes(quorum);
        self.within("preparation of the indexes", create).await?;
        self.within("a look for the dictionary", self.look_for_dictionary())
            .await
    }

    fn begin_upkeep(&self) {
        self.start_upkeep();
    }

    async fn ping(&self) -> Result<()> {
        let hello = async {
            // Selection waits for a primary; a standalone server is one too.
            let answer = self.database.run_command(doc! { "hello": 1 }).await;
            let answer = answer.map_err(|error| store_error(&error))?;
            if !answer.get_bool("isWritablePrimary").unwrap_or(false) {
                let message = "the server is not primary".to_owned();
                return Err(StoreError::Unavailable(message));
            }
            self.look_at_guard().await
        };
        self.within("a ping", hello).await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed> {
        self.within("a commit", self.commit_all(commit)).await
    }

    async fn claim_cursor(&self, source: &SourceName) -> Result<Cursor> {
        self.within("a claim of a cursor", self.claim(source)).await
    }

    async fn cursors(&self) -> Result<Vec<Cursor>> {
        self.within("a read of the cursors", self.all_cursors())
            .await
    }

    async fn directory(&self) -> Result<DirectoryRecords> {
        let read = async {
            let tenants = doc! { "slug": 1, "name": 1, "domains": 1, "groups": 1, "spaceIds": 1 };
            let users = doc! { "_id": 0, "authentikSubjectId": 1, "email": 1, "tenantIds": 1 };
            let spaces = doc! { "space": 1, "tenantSlug": 1 };
            let (tenants, users, learned) = tokio::try_join!(
                read_all(&self.tenants, tenants, decode::tenant),
                read_all(&self.users, users, decode::user),
                read_all(&self.spaces, spaces, |space| Some(LearnedSpace {
                    space: decode::text(space, "space")?,
                    tenant_slug: decode::text(space, "tenantSlug")?,
                })),
            )?;
            Ok(DirectoryRecords {
                tenants,
                users,
                learned,
            })
        };
        self.within("a read of the directory", read).await
    }

    async fn event_page(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
        payloads: Payloads,
    ) -> Result<EventPage> {
        let store = self.for_reads();
        let query = store.query_events(filter, before, limit, payloads);
        self.within("a query", query).await
    }

    async fn histogram(&self, filter: &EventFilter, buckets: u32) -> Result<Histogram> {
        let count = self.for_reads().count_by_time(filter, buckets);
        self.within("a histogram", count).await
    }

    async fn event(&self, id: &str, tenant: Option<&str>) -> Result<Option<StoredEvent>> {
        let find = async {
            let events = &self.for_reads().events;
            let mut of = doc! { "_id": conditions::id_bson(id) };
            // Were it handed over, the time would tell how large another's event is.
            if let Some(slug) = tenant {
                of.insert("tenantSlug", slug);
            }
            let found = events.find_one(of).hint(Hint::Keys(doc! { "_id": 1 }));
            let found = found.await.map_err(|error| store_error(&error))?;
            let event = found.and_then(|document| decode::event(&document));
            // To the collection's collation two tenants may be one.
            Ok(event.filter(|event| tenant.is_none() || event.tenant_slug.as_deref() == tenant))
        };
        self.within("a look-up of an event", find).await
    }

    async fn follow(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>> {
        // Whoever begins at the end has nothing to catch up with.
        self.start_following(after, after.is_none()).await
    }

    async fn follow_live(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>> {
        self.start_following(after, true).await
    }

    fn caseless(&self) -> Caseless {
        Caseless::SimpleFolding
    }

    /// The server takes them side by side; more gained nothing.
    fn inserts_a_chunk(&self) -> usize {
        2
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<StoredDeadLetter>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let read = async {
            let newest = doc! { "lastAt": -1, "_id": -1 };
            let found = self.dead_letters.find(doc! {}).sort(newest);
            let found = found.limit(i64::from(limit)).await;
            collect(found, decode::dead_letter).await
        };
        self.within("a read of the dead letters", read).await
    }

    async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<DeadLetterHead>> {
        let list = self.letter_heads(filter, before, limit);
        self.within("a list of the dead letters", list).await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>> {
        let find = async {
            let filter = doc! { "_id": conditions::id_bson(id) };
            let found = self.dead_letters.find_one(filter).await;
            let found = found.map_err(|error| store_error(&error))?;
            Ok(found.and_then(|document| decode::dead_letter(&document)))
        };
        self.within("a look-up of a dead letter", find).await
    }

    async fn delete_dead_letters(&self, ids: &[String]) -> Result<u64> {
        let delete = async {
            let ids: Vec<_> = ids.iter().map(|id| conditions::id_bson(id)).collect();
            let matching = doc! { "_id": { "$in": ids } };
            let deleted = self.dead_letters.delete_many(matching).await;
            Ok(deleted.map_err(|error| store_error(&error))?.deleted_count)
        };
        self.within("a deletion of dead letters", delete).await
    }

    async fn delete_events_before(&self, at: Timestamp, limit: u32) -> Result<u64> {
        let delete = self.delete_old_events(at, limit);
        self.within("a deletion of old events", delete).await
    }

    async fn delete_dead_letters_before(&self, last_at: Timestamp, limit: u32) -> Result<u64> {
        let delete = letters::delete_before(&self.dead_letters, "lastAt", last_at, limit);
        self.within("a deletion of old dead letters", delete).await
    }

    async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        let (role, scope) = match &token.role {
            Role::Operator => ("operator", None),
            Role::Recorder(source) => ("recorder", source.as_deref()),
            Role::Tenant(slug) => ("tenant", Some(slug.as_str())),
        };
        let document = doc! {
            "_id": &token.hash,
            "role": role,
            "scope": scope,
            "name": token.name.as_deref(),
            "createdAt": bson_date(token.created_at),
            "expiresAt": token.expires_at.map(bson_date),
            "openedBy": token.opened_by.as_deref(),
        };
        let replace = async {
            let document = RawDocumentBuf::try_from(&document)
                .map_err(|error| StoreError::Other(format!("token is no document: {error}")))?;
            let upsert = ReplaceOptions::builder().upsert(true).build();
            let replaced = self
                .tokens
                .replace_one(doc! { "_id": &token.hash }, &document);
            let replaced = replaced.with_options(upsert).await;
            replaced.map_err(|error| store_error(&error))?;
            let ended = doc! { "expiresAt": { "$lte": bson_date(Timestamp::now()) } };
            let swept = self.tokens.delete_many(ended).await;
            swept.map_err(|error| store_error(&error))?;
            Ok(())
        };
        self.within("the entry of a token", replace).await
    }

    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        let find = async {
            let found = self.tokens.find_one(doc! { "_id": hash }).await;
            let found = found.map_err(|error| store_error(&error))?;
            let now = Timestamp::now();
            Ok(found
                .and_then(|document| decode::token(&document))
                .filter(|token| token.expires_at.is_none_or(|end| end > now)))
        };
        self.within("a look-up of a token", find).await
    }

    async fn delete_token(&self, hash: &str) -> Result<()> {
        let delete = async {
            let deleted = self.tokens.delete_one(doc! { "_id": hash }).await;
            deleted.map_err(|error| store_error(&error))?;
            Ok(())
        };
        self.within("the deletion of a token", delete).await
    }
}

/// Reads a small collection whole; documents that are not what they should be are left out.
async fn read_all<T>(
    collection: &Collection<RawDocumentBuf>,
    fields: mongodb::bson::Document,
    decode: impl Fn(&mongodb::bson::RawDocument) -> Option<T>,
) -> Result<Vec<T>> {
    collect(collection.find(doc! {}).projection(fields).await, decode).await
}

async fn collect<T>(
    found: mongodb::error::Result<mongodb::Cursor<RawDocumentBuf>>,
    decode: impl Fn(&mongodb::bson::RawDocument) -> Option<T>,
) -> Result<Vec<T>> {
    let mut found = found.map_err(|error| store_error(&error))?;
    let mut records = Vec::new();
    while let Some(document) = found
        .try_next()
        .await
        .map_err(|error| store_error(&error))?
    {
        records.extend(decode(&document));
    }
    Ok(records)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_that_cannot_be_used_is_no_bad_address_and_does_not_show() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("client.pem");
        let url = format!(
            "mongodb://u:s3cret@127.0.0.1/daybook?tlsCertificateKeyFile={}",
            file.display()
        );
        let refused = async || {
            let timeout = Duration::from_secs(1);
            let store = MongoStore::connect(&url, timeout, &Collections::default()).await;
            store.unwrap_err().to_string()
        };
        let told = refused().await;
        assert!(
            told.contains("tlsCertificateKeyFile) cannot be read: No such file"),
            "{told}"
        );
        std::fs::write(&file, "-----BEGIN PRIVATE KEY-s3cret\n").unwrap();
        let told = refused().await;
        assert!(
            told.ends_with("tlsCertificateKeyFile) cannot be used"),
            "{told}"
        );
        assert!(!told.contains("s3cret"), "{told}");
    }
}
