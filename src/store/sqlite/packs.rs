//! The dictionary's texts once more, packed: looking through them takes one search in some dozens of KiB at a
//! time, not a step from row to row.
//!
//! - A pack holds texts of one tenant, each closed by a byte that is in no text. What a match belongs to
//!   stands beside them and is read only when there is one.
//! - Whoever enters texts into the dictionary, or deletes them, does the same here in the same transaction.
//!   A commit appends a row in which all of its tenants' packs stand one after the other: the queue. As soon as
//!   some are queued, each tenant gets its own, and of those some of a size become a larger one, so that a
//!   text is written about four times and a tenant has few packs.
//! - A file of an older version is packed in the order of the dictionary, some texts at a time. Until it is done,
//!   a row of its own says how far it is, whoever enters a text leaves it to that if it comes later in the
//!   order, and whoever searches is told to look at the events.

mod leaving;

use std::collections::{BTreeMap, HashSet};

use memchr::memmem::Finder;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::index::{LONG, scope};
use super::schema::Tables;
pub(super) use leaving::{Leaving, forget};

/// Ends a text; no byte of UTF-8.
const END: u8 = 0xFF;

/// Bytes of an entry of `keys`: the term's number and where its text ends.
const KEY: usize = 12;

/// In the place of a tenant (see [`scope`]): a row of the queue.
const QUEUE: &str = "*";

/// Rows of the queue that are handed out at once, and packs of a tenant and level that become one.
const MERGED_AT_ONCE: i64 = 16;

/// Bytes from which on a pack is of a level.
const LEVELS: [(usize, u8); 3] = [(0, 0), (4 * 1024, 1), (64 * 1024, LAST_LEVEL)];

/// Bytes of texts with which a commit is not queued.
const LARGEST_QUEUED: usize = 256 * 1024;

/// A pack of this level is left as it is.
const LAST_LEVEL: u8 = 2;

/// So many tenants are looked up one by one.
const FEW_SCOPES: usize = 8;

/// Texts that are too long to be kept: whatever is looked for, they are found besides.
const MOST_LONG: usize = 50_000;

/// Texts of an older file that are packed in one transaction.
pub(super) const TEXTS_AT_ONCE: u32 = 20_000;

/// The row that says how far an older file is packed.
const UNFINISHED: i64 = 0;

#[derive(Debug, Default)]
struct Pack {
    /// Terms whose texts are too long to be kept.
    long: Vec<u8>,
    texts: Vec<u8>,
    keys: Vec<u8>,
}

impl Pack {
    fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Self)> {
        let pack = Self {
            long: row.get(1)?,
            texts: row.get(2)?,
            keys: row.get(3)?,
        };
        Ok((row.get(0)?, pack))
    }

    fn push(&mut self, term: [u8; 8], text: &[u8]) {
        if text == LONG.as_bytes() {
            self.long.extend(term);
            return;
        }
        self.texts.extend(text);
        self.texts.push(END);
        self.keys.extend(term);
        // A commit is far smaller than what four bytes count.
        let end = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.keys.extend(end.to_le_bytes());
    }

    fn extend(&mut self, other: &Self, keep: impl Fn(&[u8; 8]) -> bool) {
        let long = other.long.as_chunks().0;
        self.long
            .extend(long.iter().filter(|term| keep(term)).flatten());
        let mut start = 0;
        for (term, end) in entries(&other.keys) {
            let text = other.texts.get(start..end).and_then(<[u8]>::split_last);
            if let Some((_, text)) = text.filter(|_| keep(term)) {
                self.push(*term, text);
            }
            start = end;
        }
    }

    fn is_empty(&self) -> bool {
        self.long.is_empty() && self.keys.is_empty()
    }

    fn terms(&self) -> impl Iterator<Item = &[u8; 8]> {
        let of_texts = entries(&self.keys).map(|(term, _)| term);
        self.long.as_chunks::<8>().0.iter().chain(of_texts)
    }

    fn level(&self) -> u8 {
        let length = self.texts.len() + self.long.len();
        let reached = LEVELS.iter().rfind(|(bytes, _)| length >= *bytes);
        reached.map_or(0, |(_, level)| *level)
    }
}

type Packs = BTreeMap<String, Pack>;

/// One row of the packs of several tenants, with how many long texts and others each has in it.
fn join(packs: &Packs) -> rusqlite::Result<(Pack, String)> {
    let (mut joined, mut parts) = (Pack::default(), Vec::new());
    for (scope, pack) in packs {
        joined.extend(pack, |_| true);
        parts.push((scope, pack.long.len() / 8, pack.keys.len() / KEY));
    }
    let parts = serde_json::to_string(&parts);
    let parts = parts.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    Ok((joined, parts))
}

/// What [`join`] joined.
fn split(row: &Row<'_>) -> rusqlite::Result<(i64, Packs)> {
    let (id, joined) = Pack::read(row)?;
    let parts = serde_json::from_str(row.get_ref(4)?.as_str()?);
    // The parser's own words would quote a name.
    let parts: Vec<(String, usize, usize)> = parts.map_err(|_| {
        let unread = "the parts of a pack are unreadable";
        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, unread.into())
    })?;
    let mut long = joined.long.as_chunks::<8>().0.iter();
    let (mut texts, mut start) = (entries(&joined.keys), 0);
    let mut packs = Packs::new();
    for (scope, of_long, of_texts) in parts {
        let pack = packs.entry(scope).or_default();
        pack.long.extend(long.by_ref().take(of_long).flatten());
        for (term, end) in texts.by_ref().take(of_texts) {
            let text = joined.texts.get(start..end.saturating_sub(1));
            pack.push(*term, text.unwrap_or_default());
            start = end;
        }
    }
    Ok((id, packs))
}

/// Terms and where their texts end.
fn entries(keys: &[u8]) -> impl Iterator<Item = (&[u8; 8], usize)> {
    keys.as_chunks::<KEY>().0.iter().filter_map(entry)
}

fn entry(entry: &[u8; KEY]) -> Option<(&[u8; 8], usize)> {
    let (term, end) = entry.split_first_chunk()?;
    let end = u32::from_le_bytes(*end.first_chunk()?);
    Some((term, end as usize))
}

/// Texts that are new in the dictionary, to be packed.
pub(super) struct Packing {
    new: Packs,
    unfinished: Option<(String, Vec<u8>)>,
}

impl Packing {
    pub(super) fn begin(transaction: &Connection, tables: &Tables) -> rusqlite::Result<Self> {
        Ok(Self {
            new: Packs::new(),
            unfinished: unfinished(transaction, tables)?,
        })
    }

    /// Adds a text that was just entered.
    pub(super) fn add(&mut self, scope: &str, id: &[u8], text: &str) {
        let later = |(of, last): &(String, Vec<u8>)| (scope, id) > (of, last.as_slice());
        if !self.unfinished.as_ref().is_some_and(later) {
            self.pack(scope, id, text);
        }
    }

    fn pack(&mut self, scope: &str, id: &[u8], text: &str) {
        let Some(term) = id.first_chunk() else {
            return;
        };
        if !self.new.contains_key(scope) {
            self.new.insert(scope.to_owned(), Pack::default());
        }
        if let Some(pack) = self.new.get_mut(scope) {
            pack.push(*term, text.as_bytes());
        }
    }

    /// Writes what was added.
    pub(super) fn write(self, transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
        if self.new.is_empty() {
            return Ok(());
        }
        let mut count = transaction.prepare_cached(&format!(
            "SELECT count(*) FROM {} WHERE scope = ?1 AND level = ?2",
            tables.packs
        ))?;
        let queued: i64 = count.query_row(params![QUEUE, 0], |row| row.get(0))?;
        let length: usize = self.new.values().map(|pack| pack.texts.len()).sum();
        if queued + 1 < MERGED_AT_ONCE && length < LARGEST_QUEUED {
            let (joined, parts) = join(&self.new)?;
            let mut append = transaction.prepare_cached(&format!(
                "INSERT INTO {} (scope, level, long, texts, keys, parts)
                 VALUES (?1, 0, ?2, ?3, ?4, ?5)",
                tables.packs
            ))?;
            append.execute(params![
                QUEUE,
                joined.long,
                joined.texts,
                joined.keys,
                parts
            ])?;
            return Ok(());
        }
        drop(count);
        self.hand_out(transaction, tables)
    }

    /// Makes packs of tenants of what was added and what is queued.
    fn hand_out(self, transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
        let mut all = take_queue(transaction, tables)?;
        for (scope, pack) in self.new {
            all.entry(scope).or_default().extend(&pack, |_| true);
        }
        let mut insert = transaction.prepare_cached(&format!(
            "INSERT INTO {} (scope, level, long, texts, keys) VALUES (?1, ?2, ?3, ?4, ?5)",
            tables.packs
        ))?;
        let mut count = transaction.prepare_cached(&format!(
            "SELECT count(*) FROM {} WHERE scope = ?1 AND level = ?2",
            tables.packs
        ))?;
        for (scope, mut pack) in all {
            loop {
                let level = pack.level();
                let others: i64 = count.query_row(params![scope, level], |row| row.get(0))?;
                if level == LAST_LEVEL || others + 1 < MERGED_AT_ONCE {
                    insert.execute(params![scope, level, pack.long, pack.texts, pack.keys])?;
                    break;
                }
                pack = merge(transaction, tables, (&scope, level), &pack)?;
            }
        }
        Ok(())
    }
}

fn take_queue(transaction: &Connection, tables: &Tables) -> rusqlite::Result<Packs> {
    let packs = &tables.packs;
    let mut select = transaction.prepare_cached(&format!(
        "SELECT id, long, texts, keys, parts FROM {packs} WHERE scope = ?1 ORDER BY id"
    ))?;
    let mut taken = Packs::new();
    for queued in select.query_map([QUEUE], split)? {
        for (scope, pack) in queued?.1 {
            taken.entry(scope).or_default().extend(&pack, |_| true);
        }
    }
    let mut delete =
        transaction.prepare_cached(&format!("DELETE FROM {packs} WHERE scope = ?1"))?;
    delete.execute([QUEUE])?;
    Ok(taken)
}

/// Takes all packs of a level out and puts another behind them.
fn merge(
    transaction: &Connection,
    tables: &Tables,
    (scope, level): (&str, u8),
    last: &Pack,
) -> rusqlite::Result<Pack> {
    let mut select = transaction.prepare_cached(&format!(
        "SELECT id, long, texts, keys FROM {} WHERE scope = ?1 AND level = ?2 ORDER BY id",
        tables.packs
    ))?;
    let mut merged = Pack::default();
    for pack in select.query_map(params![scope, level], Pack::read)? {
        merged.extend(&pack?.1, |_| true);
    }
    merged.extend(last, |_| true);
    let mut delete = transaction.prepare_cached(&format!(
        "DELETE FROM {} WHERE scope = ?1 AND level = ?2",
        tables.packs
    ))?;
    delete.execute(params![scope, level])?;
    Ok(merged)
}

/// The terms of tenants whose texts hold a folded text that is not empty, and those of which that is not known;
/// `None`: more than `most` hold it, or the file is not packed yet.
pub(super) fn search(
    connection: &Connection,
    tables: &Tables,
    tenants: &HashSet<Option<&str>>,
    folded: &str,
    most: usize,
) -> rusqlite::Result<Option<Vec<i64>>> {
    if unfinished(connection, tables)?.is_some() {
        return Ok(None);
    }
    let scopes: HashSet<String> = tenants.iter().map(|tenant| scope(*tenant)).collect();
    let columns = format!(
        "SELECT id, long, texts, keys, parts, scope FROM {}",
        tables.packs
    );
    let mut search = Search {
        wanted: Finder::new(folded.as_bytes()),
        most,
        found: Vec::new(),
        long: Vec::new(),
    };
    if scopes.len() > FEW_SCOPES {
        let mut all = connection.prepare_cached(&columns)?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            if !search.row(row, &scopes)? {
                return Ok(None);
            }
        }
        return Ok(Some(search.terms()));
    }
    let mut of_scope = connection.prepare_cached(&format!("{columns} WHERE scope = ?1"))?;
    for scope in scopes.iter().map(String::as_str).chain([QUEUE]) {
        let mut rows = of_scope.query([scope])?;
        while let Some(row) = rows.next()? {
            if !search.row(row, &scopes)? {
                return Ok(None);
            }
        }
    }
    Ok(Some(search.terms()))
}

struct Search<'a> {
    wanted: Finder<'a>,
    most: usize,
    found: Vec<i64>,
    /// Terms of texts that are not kept.
    long: Vec<i64>,
}

impl Search<'_> {
    fn terms(mut self) -> Vec<i64> {
        self.found.append(&mut self.long);
        self.found
    }

    fn are_few(&self) -> bool {
        self.found.len() <= self.most && self.long.len() <= MOST_LONG
    }

    /// Looks through a row as far as it is of some tenants; `false`: there are too many.
    fn row(&mut self, row: &Row<'_>, scopes: &HashSet<String>) -> rusqlite::Result<bool> {
        let scope = row.get_ref(5)?.as_str()?;
        if scope == QUEUE {
            let (_, packs) = split(row)?;
            let asked = packs.iter().filter(|(scope, _)| scopes.contains(*scope));
            for (_, pack) in asked {
                if !self.look(&pack.long, &pack.texts, || Ok(&pack.keys))? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        if !scopes.contains(scope) {
            return Ok(true);
        }
        let (long, texts) = (row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?);
        self.look(long, texts, || Ok(row.get_ref(3)?.as_blob()?))
    }

    /// Looks through a pack; `false`: there are too many.
    fn look<'k>(
        &mut self,
        long: &[u8],
        texts: &[u8],
        keys: impl FnOnce() -> rusqlite::Result<&'k [u8]>,
    ) -> rusqlite::Result<bool> {
        let long = long.as_chunks().0.iter();
        self.long.extend(long.map(|term| i64::from_le_bytes(*term)));
        let Some(mut at) = self.wanted.find(texts) else {
            return Ok(self.are_few());
        };
        let keys = keys()?.as_chunks::<KEY>().0;
        let ends_before =
            |at: usize| move |key: &[u8; KEY]| entry(key).is_some_and(|(_, end)| end <= at);
        let mut next = 0;
        while self.are_few() {
            next += keys[next..].partition_point(ends_before(at));
            let Some((term, end)) = keys.get(next).and_then(entry) else {
                break;
            };
            self.found.push(i64::from_le_bytes(*term));
            let Some(rest) = texts.get(end..) else {
                break;
            };
            let Some(further) = self.wanted.find(rest) else {
                break;
            };
            at = end + further;
        }
        Ok(self.are_few())
    }
}

/// Up to which text of the dictionary an older file is packed; `None`: it is packed.
fn unfinished(
    connection: &Connection,
    tables: &Tables,
) -> rusqlite::Result<Option<(String, Vec<u8>)>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT scope, keys FROM {} WHERE id = {UNFINISHED}",
        tables.packs
    ))?;
    let reached = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
    reached.optional()
}

/// Whether the packs do not hold as many texts as the dictionary, as where a version that does not pack them was at
/// work; not before all are packed.
pub(super) fn differs(connection: &Connection, tables: &Tables) -> rusqlite::Result<bool> {
    if unfinished(connection, tables)?.is_some() {
        return Ok(false);
    }
    // `count(*)` is one step, which nobody can interrupt.
    connection.query_row(
        &format!(
            "SELECT (SELECT count(id) FROM {})
                 <> (SELECT coalesce(sum(length(keys) / {KEY} + length(long) / 8), 0) FROM {})",
            tables.texts, tables.packs
        ),
        [],
        |row| row.get(0),
    )
}

/// Has all texts packed anew.
pub(super) fn begin_anew(transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
    let packs = &tables.packs;
    transaction.execute(&format!("DELETE FROM {packs}"), [])?;
    transaction.execute(
        &format!(
            "INSERT INTO {packs} (id, scope, level, long, texts, keys)
             VALUES ({UNFINISHED}, '', -1, x'', x'', x'')"
        ),
        [],
    )?;
    Ok(())
}

/// Packs so many of an older file's texts; `false`: all are.
pub(super) fn pack_some(
    connection: &mut Connection,
    tables: &Tables,
    texts: u32,
) -> rusqlite::Result<bool> {
    if unfinished(connection, tables)?.is_none() {
        return Ok(false);
    }
    let transaction = super::write_transaction(connection)?;
    let Some(reached) = unfinished(&transaction, tables)? else {
        return Ok(false);
    };
    let mut packing = Packing::begin(&transaction, tables)?;
    let mut select = transaction.prepare_cached(&format!(
        "SELECT scope, id, text FROM {} WHERE (scope, id) > (?1, ?2)
         ORDER BY scope, id LIMIT {texts}",
        tables.texts
    ))?;
    let mut rows = select.query(params![reached.0, reached.1])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (scope, id): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        packing.pack(&scope, &id, row.get_ref(2)?.as_str()?);
        last = Some((scope, id));
    }
    drop(rows);
    drop(select);
    let more = last.is_some();
    packing.write(&transaction, tables)?;
    match last {
        Some((scope, id)) => {
            let go_on = format!(
                "UPDATE {} SET scope = ?1, keys = ?2 WHERE id = {UNFINISHED}",
                tables.packs
            );
            transaction.execute(&go_on, params![scope, id])?
        }
        None => {
            let finish = format!("DELETE FROM {} WHERE id = {UNFINISHED}", tables.packs);
            transaction.execute(&finish, [])?
        }
    };
    transaction.commit()?;
    Ok(more)
}
