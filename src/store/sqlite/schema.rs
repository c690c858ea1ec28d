//! The tables. Columns have the names of the documents' fields; `at` and the like are whole
//! milliseconds since 1970, what is nested in a document is JSON text.

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ErrorCode, MAIN_DB, Transaction, ffi};

use super::query::shown;
use super::{counts, lost, packs};
use crate::config::Collections;
use crate::store::keys::lower;
use crate::store::{Result, StoreError};

/// The tables' names, quoted for use in a statement.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub events: String,
    pub cursors: String,
    pub tenants: String,
    pub users: String,
    pub dead_letters: String,
    pub tokens: String,
    pub spaces: String,
    pub facets: String,
    pub terms: String,
    pub gathered: String,
    pub texts: String,
    pub packs: String,
    pub days: String,
    /// The index of the timeline itself.
    pub by_time: String,
    /// That of the facets' events.
    pub by_facet: String,
}

impl Tables {
    pub(super) fn new(names: &Collections) -> Result<Self> {
        let beside = |part: &str| quoted(&format!("{}.{part}", names.events));
        Ok(Self {
            facets: beside("facets")?,
            terms: beside("terms")?,
            gathered: beside("gathered")?,
            texts: beside("texts")?,
            packs: beside("packs")?,
            days: beside("days")?,
            by_time: quoted(&format!("{}_at_facet", names.events))?,
            by_facet: quoted(&format!("{}_facet_at", names.events))?,
            events: quoted(&names.events)?,
            cursors: quoted(&names.cursors)?,
            tenants: quoted(&names.tenants)?,
            users: quoted(&names.users)?,
            dead_letters: quoted(&names.dead_letters)?,
            tokens: quoted(&names.tokens)?,
            spaces: quoted(&names.spaces)?,
        })
    }

    /// Creates what is missing, and has made anew what was in it; whether anything was. Where nothing is missing that
    /// takes no lock.
    pub(super) fn create(&self, connection: &mut Connection) -> rusqlite::Result<bool> {
        if connection.is_readonly(MAIN_DB)? {
            let refused = ffi::Error::new(ffi::SQLITE_READONLY);
            return Err(rusqlite::Error::SqliteFailure(refused, None));
        }
        let looking = connection.transaction()?;
        match self.create_in(looking) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                self.create_in(super::write_transaction(connection)?)
            }
            created => created,
        }
    }

    /// None of these statements writes where it finds what it is to make.
    fn create_in(&self, transaction: Transaction<'_>) -> rusqlite::Result<bool> {
        let events = &self.events;
        let dead_letters = &self.dead_letters;
        let statements = [
            format!(
                "CREATE TABLE IF NOT EXISTS {events} (
                    id INTEGER PRIMARY KEY AUTOINCREMENT,
                    at INTEGER NOT NULL, ingestedAt INTEGER NOT NULL,
                    source TEXT NOT NULL, externalId TEXT NOT NULL, action TEXT NOT NULL,
                    outcome TEXT,
                    actorId TEXT, actorEmail TEXT, actorName TEXT, actorIp TEXT,
                    targetType TEXT, targetId TEXT, targetName TEXT,
                    tenantSlug TEXT, metadata TEXT NOT NULL, facet INTEGER,
                    UNIQUE (source, externalId)
                )"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    key INTEGER PRIMARY KEY, tenantSlug TEXT, source TEXT NOT NULL,
                    action TEXT NOT NULL, outcome TEXT, targetType TEXT
                )",
                self.facets
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    term INTEGER NOT NULL, at INTEGER NOT NULL, event INTEGER NOT NULL,
                    PRIMARY KEY (term, at, event)
                ) WITHOUT ROWID",
                self.terms
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (id INTEGER PRIMARY KEY, entries BLOB NOT NULL)",
                self.gathered
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    scope TEXT NOT NULL, id BLOB NOT NULL, text TEXT NOT NULL,
                    day INTEGER NOT NULL, PRIMARY KEY (scope, id)
                ) WITHOUT ROWID",
                self.texts
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id INTEGER PRIMARY KEY, scope TEXT NOT NULL, level INTEGER NOT NULL,
                    long BLOB NOT NULL, texts BLOB NOT NULL, keys BLOB NOT NULL, parts TEXT
                )",
                self.packs
            ),
            index(&self.packs, "scope", "scope, level"),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id INTEGER PRIMARY KEY, events INTEGER NOT NULL, counts BLOB NOT NULL
                )",
                self.days
            ),
            self.cursor_table(),
            format!(
                "CREATE TABLE IF NOT EXISTS {dead_letters} (
                    id INTEGER PRIMARY KEY AUTOINCREMENT,
                    source TEXT NOT NULL, position TEXT NOT NULL, reason TEXT NOT NULL,
                    detail TEXT NOT NULL, raw BLOB NOT NULL, rawLength INTEGER NOT NULL,
                    at INTEGER NOT NULL, attempts INTEGER NOT NULL, lastAt INTEGER NOT NULL,
                    UNIQUE (source, position)
                )"
            ),
            index(dead_letters, "lastAt", "lastAt, id"),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    hash TEXT PRIMARY KEY, role TEXT NOT NULL, scope TEXT, name TEXT,
                    createdAt INTEGER NOT NULL, expiresAt INTEGER, openedBy TEXT
                ) WITHOUT ROWID",
                self.tokens
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    space TEXT PRIMARY KEY, tenantSlug TEXT NOT NULL
                ) WITHOUT ROWID",
                self.spaces
            ),
        ];
        let before = version(&transaction)?;
        let mut is_missing = false;
        for table in [&self.facets, &self.terms, &self.texts] {
            is_missing |= !stands(&transaction, table)?;
        }
        let has_days = stands(&transaction, &self.days)?;
        let has_packs = stands(&transaction, &self.packs)?;
        for statement in &statements {
            transaction.execute(statement, [])?;
        }
        add_column(&transaction, events, "facet", "INTEGER")?;
        add_column(&transaction, &self.tokens, "openedBy", "TEXT")?;
        let bare = inner(events);
        for old in ["at", "source_at", "tenantSlug_at", "action_at"] {
            transaction.execute(&format!("DROP INDEX IF EXISTS \"{bare}_{old}\""), [])?;
        }
        transaction.execute(&index(events, "at_facet", "at, id, facet"), [])?;
        transaction.execute(&index(events, "facet_at", "facet, at, id"), [])?;
        if is_missing && lost::has_keys(&transaction, self)? {
            lost::begin_anew(&transaction, self)?;
        }
        if !has_days {
            counts::begin_anew(&transaction, self)?;
        }
        if !has_packs {
            packs::begin_anew(&transaction, self)?;
        }
        let is_changed = version(&transaction)? != before;
        transaction.commit()?;
        Ok(is_changed)
    }

    /// What makes the table that sources need first of all.
    pub(super) fn cursor_table(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (
                source TEXT PRIMARY KEY, generation INTEGER NOT NULL, seq INTEGER NOT NULL,
                detail TEXT NOT NULL, lastEventAt INTEGER, lastEventId TEXT,
                updatedAt INTEGER NOT NULL
            ) WITHOUT ROWID",
            self.cursors
        )
    }
}

/// Another one after each change of a table or an index.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA schema_version", [], |row| row.get(0))
}

fn stands(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let mut columns = connection.prepare("SELECT 1 FROM pragma_table_info(?1)")?;
    columns.exists([name(table)])
}

/// Adds a column that an older version's table lacks.
fn add_column(
    connection: &Connection,
    table: &str,
    column: &str,
    kind: &str,
) -> rusqlite::Result<()> {
    let mut has = connection.prepare("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?;
    if !has.exists([name(table).as_str(), column])? {
        let add = format!("ALTER TABLE {table} ADD COLUMN {column} {kind}");
        connection.execute(&add, [])?;
    }
    Ok(())
}

/// A quoted name as a value, not an identifier.
fn name(quoted: &str) -> String {
    inner(quoted).replace("\"\"", "\"")
}

/// A quoted name without its outer quotes.
fn inner(quoted: &str) -> &str {
    let opened = quoted.strip_prefix('"').unwrap_or(quoted);
    opened.strip_suffix('"').unwrap_or(opened)
}

fn index(table: &str, name: &str, columns: &str) -> String {
    let bare = inner(table);
    format!("CREATE INDEX IF NOT EXISTS \"{bare}_{name}\" ON {table} ({columns})")
}

fn quoted(name: &str) -> Result<String> {
    if name.is_empty() || name.contains('\0') {
        return Err(StoreError::Other(format!("{name:?} cannot name a table")));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// Comparisons of text in any case, which SQLite itself knows for ASCII only. The second argument
/// is lower case already; a missing text compares as false.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("daybook_is", 2, flags, |context| {
        let wanted = context.get_raw(1).as_str()?;
        Ok(shown(context.get_raw(0)).is_some_and(|text| lower(&text) == wanted))
    })?;
    connection.create_scalar_function("daybook_has", 2, flags, |context| {
        let wanted = context.get_raw(1).as_str()?;
        Ok(shown(context.get_raw(0)).is_some_and(|text| lower(&text).contains(wanted)))
    })
}
