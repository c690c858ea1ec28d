//! The timeline in one SQLite file: the embedded store.
//!
//! - One thread writes, six read: two for lists, two for counts, two for the rest. The write-ahead log lets them
//!   work at once, and other processes too (`daybook token new` beside a running service). Another copies that log
//!   into the file.
//! - `synchronous = FULL`: a commit that was answered survives a loss of power.
//! - A commit is one transaction; cursors move in the same one as its records. A batch that the writer divides goes in
//!   several, of which the last moves the cursor.
//! - Ids are row numbers as sixteen hexadecimal digits; they only grow.

mod checkpoint;
mod commit;
mod counts;
mod errors;
mod feed;
mod files;
mod gathered;
mod histogram;
mod index;
mod letters;
mod lost;
mod packs;
mod plan;
mod query;
mod records;
mod retention;
mod schema;
mod sieve;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::feed::{Caseless, Follow};
use super::{
    Commit, Committed, Cursor, DeadLetterFilter, DeadLetterHead, DirectoryRecords, EventFilter,
    EventPage, Histogram, PageKey, Payloads, Result, Role, Store, StoreError, StoredDeadLetter,
    StoredEvent, TokenRecord,
};
use crate::config::Collections;
use crate::event::SourceName;
use crate::probe::Probe;
use errors::store_error;
use files::OpenFiles;
use schema::Tables;
use worker::Workers;

/// Connections for lists, for counts and for other reads, of each so many: lists and counts may take long, and nothing
/// else waits for them.
const READERS: usize = 2;

/// Raw bytes of a dead letter that are kept, as in the other store.
const MAX_RAW_BYTES: usize = 15 * 1024 * 1024;

/// How long a transaction that deletes goes on, if `store.timeout` leaves the time: commits wait for it.
const PORTION: Duration = Duration::from_millis(250);

/// Between two looks whether a lock is free that another process holds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

type Differs = fn(&Connection, &Tables) -> rusqlite::Result<bool>;
type BeginAnew = fn(&Connection, &Tables) -> rusqlite::Result<()>;

/// What tells whether something differs from the events, and what has it made anew.
const COMPARED: [(Differs, BeginAnew); 3] = [
    (lost::differs, lost::begin_again),
    (counts::differs, counts::begin_anew),
    (packs::differs, packs::begin_anew),
];

/// Statements that a connection keeps prepared.
const PREPARED_STATEMENTS: usize = 64;

/// The store in a SQLite file.
pub struct SqliteStore {
    files: Arc<OpenFiles>,
    timeout: Duration,
    probe: OnceLock<Probe>,
    tables: Arc<Tables>,
    known: index::Known,
    old_texts: retention::OldTexts,
    was_prepared: AtomicBool,
    writer: Workers,
    readers: Arc<Workers>,
    listers: Workers,
    counters: Workers,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.files.path())
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, or makes it and the directories above it for this user alone. `timeout` bounds every
    /// later operation, but for the making of tables and indexes, and how long a lock of another process is waited
    /// for. Blocks for as long.
    ///
    /// # Errors
    /// When the file cannot be opened or is no database, or a collection's name cannot name a table.
    pub fn open(path: &Path, timeout: Duration, collections: &Collections) -> Result<Self> {
        let tables = Arc::new(Tables::new(collections)?);
        if let Some(directory) = path.parent() {
            let mut closed = DirBuilder::new();
            let made = closed.recursive(true).mode(0o700).create(directory);
            made.map_err(|error| io_error(directory, &error))?;
        }
        make_closed(path).map_err(|error| io_error(path, &error))?;
        let failed = |error: rusqlite::Error| in_file(path, store_error(&error));
        let mut writer = open_connection(path, timeout).map_err(failed)?;
        let beside = open_connection(path, timeout).map_err(failed)?;
        // The connections have made the log by now.
        let files = Arc::new(OpenFiles::at(path)?);
        checkpoint::beside(&mut writer, beside, Arc::clone(&files))
            .map_err(failed)?
            .map_err(|error| io_error(path, &error))?;
        let readers = || -> Result<Vec<Connection>> {
            let reader = || {
                let reader = open_connection(path, timeout)?;
                reader.pragma_update(None, "query_only", true)?;
                Ok(reader)
            };
            let readers: rusqlite::Result<_> = (0..READERS).map(|_| reader()).collect();
            readers.map_err(failed)
        };
        let threads = |name, connections, meanwhile| {
            Workers::start(name, connections, &files, timeout, meanwhile)
                .map_err(|error| io_error(path, &error))
        };
        let known = index::Known::default();
        let (of_writer, also_known) = (Arc::clone(&tables), known.clone());
        let put_away =
            move |connection: &mut Connection| also_known.put_away(connection, &of_writer);
        Ok(Self {
            files: Arc::clone(&files),
            timeout,
            probe: OnceLock::new(),
            tables,
            known,
            old_texts: retention::OldTexts::default(),
            was_prepared: AtomicBool::new(false),
            writer: threads("sqlite-writer", vec![writer], Some(Arc::new(put_away)))?,
            readers: Arc::new(threads("sqlite-reader", readers()?, None)?),
            listers: threads("sqlite-lister", readers()?, None)?,
            counters: threads("sqlite-counter", readers()?, None)?,
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Connection, &Tables) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write_for(self.timeout, what, job).await
    }

    /// The same, for at most so long.
    async fn write_for<T: Send + 'static>(
        &self,
        after: Duration,
        what: &'static str,
        job: impl FnOnce(&mut Connection, &Tables) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (files, tables) = (Arc::clone(&self.files), Arc::clone(&self.tables));
        let run = self.writer.run_for(after, what, move |connection| {
            let outcome = job(connection, &tables)?;
            // What is written to a file that was deleted or moved away is lost with the process.
            Ok(files.check(connection).map(|()| outcome))
        });
        run.await?
    }

    /// Compares what finds and counts the events with them, and has made anew what differs. That takes long in a large
    /// file: only what differs takes the lock that commits need.
    async fn compare(&self) -> Result<()> {
        for (differs, begin_anew) in COMPARED {
            let tables = Arc::clone(&self.tables);
            let compare = move |connection: &mut Connection| {
                // One view of the file for both sides.
                let view = connection.unchecked_transaction()?;
                differs(&view, &tables)
            };
            let compare = self.counters.run("a comparison with the events", compare);
            match compare.await {
                Ok(true) => {}
                Ok(false) => continue,
                // It looks for what others have done to the file: the next start looks again.
                Err(error @ StoreError::Timeout { .. }) => {
                    tracing::warn!(error = %error, "what finds the events is not compared with them");
                    continue;
                }
                Err(error) => return Err(error),
            }
            let known = self.known.clone();
            let begin = move |connection: &mut Connection, tables: &Tables| {
                known.forget();
                let transaction = write_transaction(connection)?;
                begin_anew(&transaction, tables)?;
                transaction.commit()
            };
            self.write("preparation of what differs", begin).await?;
        }
        Ok(())
    }

    /// Deletes texts of events that are long gone. No longer than one operation takes, or the sweep would be taken for
    /// stalled: the next one goes on.
    async fn forget_texts(&self, before: Timestamp) -> Result<()> {
        let until = Instant::now() + self.timeout;
        let portion = self.portion();
        let mut is_more = true;
        while is_more && Instant::now() < until {
            let old = self.old_texts.clone();
            is_more = if old.is_found() {
                let delete = self.write("a deletion of old texts", move |connection, tables| {
                    old.delete(connection, tables, before, portion)
                });
                delete.await?
            } else {
                let tables = Arc::clone(&self.tables);
                let look = move |connection: &mut Connection| {
                    old.look(connection, &tables, before, portion)
                };
                self.counters.run("a look for old texts", look).await?
            };
        }
        Ok(())
    }

    /// How long a deletion holds up commits, about.
    fn portion(&self) -> Duration {
        PORTION.min(self.timeout / 4)
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Connection, &Tables) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let tables = Arc::clone(&self.tables);
        let run = self
            .readers
            .run(what, move |connection| job(connection, &tables));
        run.await
    }
}

/// SQLite would let every user of the machine read a file that it makes itself. Those that it makes
/// beside have this one's mode.
fn make_closed(path: &Path) -> std::io::Result<()> {
    // Only then: what closes a file that is a database drops the locks that its process has on it.
    if !path.try_exists()? {
        let mut made = File::options();
        made.write(true).create(true).truncate(false).mode(0o600);
        made.open(path)?;
    }
    Ok(())
}

fn open_connection(path: &Path, timeout: Duration) -> rusqlite::Result<Connection> {
    // SQLite would take `file:…` for an address, and open another file than the one that was made.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut connection = Connection::open(path)?;
    // Shorter than the operation's own time: a lock of another process is named as such.
    let patience = timeout * 9 / 10;
    wait_for_locks(&mut connection, patience)?;
    turn_to_the_log(&connection, patience)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    // In KiB where negative: the pages of all indexes that one flush touches stay in memory.
    connection.pragma_update(None, "cache_size", -8 * 1024)?;
    // Else each `LIMIT ?` is parsed and planned anew whenever its value is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    schema::add_functions(&connection)?;
    Ok(connection)
}

/// SQLite itself would soon look ten times a second only, and miss a lock that is seldom free.
fn wait_for_locks(connection: &mut Connection, patience: Duration) -> rusqlite::Result<()> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |looks: i32| {
        if looks == 0 {
            since = Instant::now();
        }
        std::thread::sleep(BETWEEN_LOOKS);
        since.elapsed() < patience
    }))
}

/// SQLite itself would not wait for another process that turns a new file to it: both have begun to read.
fn turn_to_the_log(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let since = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && since.elapsed() < patience =>
            {
                std::thread::sleep(BETWEEN_LOOKS);
            }
            turned => return turned,
        }
    }
}

/// Takes the write lock at once: one that is upgraded later fails when another process wrote meanwhile. Who may find
/// nothing to do looks without it first.
fn write_transaction(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn io_error(path: &Path, error: &std::io::Error) -> StoreError {
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => StoreError::Unauthorized(message),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Full(message)
        }
        _ => StoreError::Other(message),
    }
}

fn in_file(path: &Path, error: StoreError) -> StoreError {
    let named = |message| format!("{}: {message}", path.display());
    match error {
        StoreError::Unavailable(message) => StoreError::Unavailable(named(message)),
        StoreError::Unauthorized(message) => StoreError::Unauthorized(named(message)),
        StoreError::Full(message) => StoreError::Full(named(message)),
        StoreError::Other(message) => StoreError::Other(named(message)),
        other @ (StoreError::Timeout { .. } | StoreError::Refused(_)) => other,
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn set_probe(&self, probe: Probe) {
        // A second Daybook on one store is struck where the first is.
        let _already = self.probe.set(probe);
    }

    async fn prepare(&self) -> Result<()> {
        let is_first = !self.was_prepared.load(Ordering::Acquire);
        let known = self.known.clone();
        let create = move |connection: &mut Connection, tables: &Tables| {
            // What was away may have come back without it.
            known.forget();
            tables.create(connection)
        };
        // An index of millions of events takes long, and is made in one go.
        let create = self.write_for(Duration::MAX, "preparation of the tables", create);
        let is_changed = create.await?;
        if is_changed {
            // Whatever fails from here on is made up for by the next preparation.
            self.was_prepared.store(false, Ordering::Release);
        }
        if is_first || is_changed {
            self.compare().await?;
        }
        let count = |connection: &mut Connection, tables: &Tables| {
            counts::count_some(connection, tables, counts::EVENTS_AT_ONCE)
        };
        while self.write("preparation of the counts", count).await? {}
        loop {
            let known = self.known.clone();
            let more = self.write("preparation of the events", move |connection, tables| {
                index::give_keys(connection, tables, &known)
            });
            if !more.await? {
                break;
            }
        }
        let pack = |connection: &mut Connection, tables: &Tables| {
            packs::pack_some(connection, tables, packs::TEXTS_AT_ONCE)
        };
        while self.write("preparation of the texts", pack).await? {}
        self.was_prepared.store(true, Ordering::Release);
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        // Taking the write lock shows that the file can be written; nothing is.
        self.write("a ping", |connection, _| {
            write_transaction(connection)?.rollback()
        })
        .await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed> {
        let probe = self.probe.get().cloned().unwrap_or_default();
        let known = self.known.clone();
        let (parts, coming) = tokio::sync::mpsc::channel(commit::PIECES_AHEAD);
        let committed = self.write("a commit", move |connection, tables| {
            commit::commit(connection, tables, coming, &known, &probe)
        });
        let send = async {
            let now = Timestamp::now().as_millisecond();
            for records in commit.records.chunks(commit::PIECE_RECORDS) {
                let piece = commit::Piece::of(records, now, &self.known);
                // Who does not take it any more says why, in its own answer.
                if parts.send(commit::Part::Piece(piece)).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let (moves, learned) = (commit.moves.clone(), commit.learned.clone());
            let _gone = parts.send(commit::Part::End { moves, learned }).await;
        };
        // Who waits begins to before anything is sent, and is told at once when it took too long.
        let mut committed = std::pin::pin!(committed);
        tokio::select! {
            biased;
            committed = &mut committed => committed,
            () = send => committed.await,
        }
    }

    async fn claim_cursor(&self, source: &SourceName) -> Result<Cursor> {
        let source = source.clone();
        self.write("a claim of a cursor", move |connection, tables| {
            records::claim(connection, tables, &source)
        })
        .await
    }

    async fn cursors(&self) -> Result<Vec<Cursor>> {
        self.read("a read of the cursors", records::cursors).await
    }

    async fn directory(&self) -> Result<DirectoryRecords> {
        self.read("a read of the directory", records::directory)
            .await
    }

    async fn event_page(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
        payloads: Payloads,
    ) -> Result<EventPage> {
        let (filter, before) = (filter.clone(), before.cloned());
        let tables = Arc::clone(&self.tables);
        let list = move |connection: &mut Connection| {
            query::events(
                connection,
                &tables,
                &filter,
                before.as_ref(),
                limit,
                payloads,
            )
        };
        self.listers.run("a query", list).await
    }

    async fn histogram(&self, filter: &EventFilter, buckets: u32) -> Result<Histogram> {
        let (filter, tables) = (filter.clone(), Arc::clone(&self.tables));
        let count = move |connection: &mut Connection| {
            histogram::count_by_time(connection, &tables, &filter, buckets)
        };
        self.counters.run("a histogram", count).await
    }

    async fn event(&self, id: &str, tenant: Option<&str>) -> Result<Option<StoredEvent>> {
        let Some(id) = query::parse_id(id) else {
            return Ok(None);
        };
        let tenant = tenant.map(str::to_owned);
        self.read("a look-up of an event", move |connection, tables| {
            query::event_by_id(connection, tables, id, tenant.as_deref())
        })
        .await
    }

    async fn follow(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>> {
        let (readers, tables) = (Arc::clone(&self.readers), Arc::clone(&self.tables));
        let follower = feed::Follower::start(readers, tables, after).await?;
        Ok(follower.map(|follower| Box::new(follower) as Box<dyn Follow>))
    }

    fn caseless(&self) -> Caseless {
        Caseless::Lowercase
    }

    /// The larger a transaction, the fewer pages and syncs an event costs, and the more memory.
    fn inserts_a_chunk(&self) -> usize {
        3
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<StoredDeadLetter>> {
        self.read("a read of the dead letters", move |connection, tables| {
            letters::newest(connection, tables, limit)
        })
        .await
    }

    async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<DeadLetterHead>> {
        let (filter, before) = (filter.clone(), before.cloned());
        self.read("a list of the dead letters", move |connection, tables| {
            letters::list(connection, tables, &filter, before.as_ref(), limit)
        })
        .await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>> {
        let Some(id) = query::parse_id(id) else {
            return Ok(None);
        };
        self.read("a look-up of a dead letter", move |connection, tables| {
            letters::by_id(connection, tables, id)
        })
        .await
    }

    async fn delete_dead_letters(&self, ids: &[String]) -> Result<u64> {
        let ids: Vec<i64> = ids.iter().filter_map(|id| query::parse_id(id)).collect();
        self.write("a deletion of dead letters", move |connection, tables| {
            letters::delete(connection, tables, &ids)
        })
        .await
    }

    async fn delete_events_before(&self, at: Timestamp, limit: u32) -> Result<u64> {
        let portion = self.portion();
        let deleted = loop {
            let delete = self.write("a deletion of old events", move |connection, tables| {
                retention::delete_events(connection, tables, at, limit, portion)
            });
            if let Some(deleted) = delete.await? {
                break deleted;
            }
        };
        if deleted == 0 && limit > 0 {
            self.forget_texts(at).await?;
        }
        Ok(deleted)
    }

    async fn delete_dead_letters_before(&self, last_at: Timestamp, limit: u32) -> Result<u64> {
        let portion = self.portion();
        let delete = move |connection: &mut Connection, tables: &Tables| {
            retention::delete_letters(connection, tables, last_at, limit, portion)
        };
        self.write("a deletion of old dead letters", delete).await
    }

    async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        let token = token.clone();
        self.write("the entry of a token", move |connection, tables| {
            let (role, scope) = match &token.role {
                Role::Operator => ("operator", None),
                Role::Recorder(source) => ("recorder", source.as_deref()),
                Role::Tenant(slug) => ("tenant", Some(slug.as_str())),
            };
            let replace = format!(
                "INSERT OR REPLACE INTO {}
                    (hash, role, scope, name, createdAt, expiresAt, openedBy)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                tables.tokens
            );
            let created_at = token.created_at.as_millisecond();
            let expires_at = token.expires_at.map(|end| end.as_millisecond());
            let values = params![
                token.hash,
                role,
                scope,
                token.name,
                created_at,
                expires_at,
                token.opened_by
            ];
            connection.execute(&replace, values)?;
            let sweep = format!("DELETE FROM {} WHERE expiresAt <= ?1", tables.tokens);
            let now = Timestamp::now().as_millisecond();
            connection.execute(&sweep, [now]).map(|_| ())
        })
        .await
    }

    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        let hash = hash.to_owned();
        self.read("a look-up of a token", move |connection, tables| {
            records::token(connection, tables, &hash)
        })
        .await
    }

    async fn delete_token(&self, hash: &str) -> Result<()> {
        let hash = hash.to_owned();
        self.write("the deletion of a token", move |connection, tables| {
            let delete = format!("DELETE FROM {} WHERE hash = ?1", tables.tokens);
            connection.execute(&delete, [hash]).map(|_| ())
        })
        .await
    }
}
