//! Terms of the newest events, gathered before they go into their table.
//!
//! The table has the entries of one term together, so those of a commit stand all over it, and nearly
//! each writes a page of its own. What a large commit has is gathered instead: divided into slices of the
//! range of terms, a row each. Then the slice that has waited longest goes into the table, where its
//! entries stand near each other; so as many commits as there are slices share the pages that each
//! would have written. The rest follows while the writer has nothing else to do.
//!
//! All that happens in the commits' own transactions. Who looks for a term's events looks here too.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::schema::Tables;

/// Term, time and event.
pub(super) type Entry = (i64, i64, i64);

/// A row's number is its slice's times this, and the first event of its commit.
const ROWS: i64 = 1 << 48;

/// Leading bits of a term that name its slice.
const SLICE_BITS: u32 = 6;

/// Fewer entries go into the table at once: a row for each slice would cost as much.
const FEW: usize = 256;

/// Entries of one statement.
pub(super) const TOGETHER: usize = 32;

/// Bytes of an entry in a row.
const WIDTH: usize = 24;

fn slice(term: i64) -> i64 {
    (term.cast_unsigned() >> (u64::BITS - SLICE_BITS)).cast_signed()
}

/// Enters the entries of one transaction, in their order and each once. Never twice for an event.
pub(super) fn enter(
    transaction: &Transaction<'_>,
    tables: &Tables,
    entries: &[Entry],
) -> rusqlite::Result<()> {
    if entries.len() < FEW {
        return into_table(transaction, tables, entries);
    }
    let first = entries.iter().map(|(_, _, event)| *event).min();
    let mut insert = transaction.prepare_cached(&format!(
        "INSERT INTO {} (id, entries) VALUES (?1, ?2)",
        tables.gathered
    ))?;
    for part in entries.chunk_by(|(one, ..), (other, ..)| slice(*one) == slice(*other)) {
        let row = slice(part[0].0) * ROWS + first.unwrap_or_default();
        let numbers = part.iter().flat_map(|(term, at, event)| [term, at, event]);
        let bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        insert.execute(params![row, bytes])?;
    }
    put_away(transaction, tables).map(|_| ())
}

/// Whether terms of an event, or of one before it, may be gathered yet.
pub(super) fn has(
    transaction: &Transaction<'_>,
    tables: &Tables,
    event: i64,
) -> rusqlite::Result<bool> {
    let oldest = waiting_longest(transaction, tables)?;
    Ok(oldest.is_some_and(|(first, _)| first <= event))
}

/// Moves the slice that has waited longest into the table. `false`: nothing is gathered.
pub(super) fn put_away(transaction: &Transaction<'_>, tables: &Tables) -> rusqlite::Result<bool> {
    let gathered = &tables.gathered;
    let Some((_, slice)) = waiting_longest(transaction, tables)? else {
        return Ok(false);
    };
    let rows = params![slice * ROWS, (slice + 1) * ROWS];
    let mut select = transaction.prepare_cached(&format!(
        "SELECT entries FROM {gathered} WHERE id >= ?1 AND id < ?2"
    ))?;
    let mut entries = Vec::new();
    let mut found = select.query(rows)?;
    while let Some(row) = found.next()? {
        entries.extend(Row(row.get_ref(0)?.as_blob()?).all());
    }
    drop(found);
    let mut delete = transaction.prepare_cached(&format!(
        "DELETE FROM {gathered} WHERE id >= ?1 AND id < ?2"
    ))?;
    delete.execute(rows)?;
    entries.sort_unstable();
    into_table(transaction, tables, &entries)?;
    Ok(true)
}

/// The first event of the commit whose slice has waited longest, and that slice.
fn waiting_longest(
    transaction: &Transaction<'_>,
    tables: &Tables,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let mut next = transaction.prepare_cached(&format!(
        "SELECT id FROM {} WHERE id >= ?1 ORDER BY id LIMIT 1",
        tables.gathered
    ))?;
    let mut oldest: Option<(i64, i64)> = None;
    let mut from = 0;
    while let Some(row) = next.query_row([from], |row| row.get(0)).optional()? {
        let row: i64 = row;
        let (slice, event) = (row / ROWS, row % ROWS);
        let this = (event, slice);
        oldest = Some(oldest.map_or(this, |oldest| oldest.min(this)));
        from = (slice + 1) * ROWS;
    }
    Ok(oldest)
}

/// Writes entries, in the order of the table, so that its pages are met one after the other.
fn into_table(
    transaction: &Transaction<'_>,
    tables: &Tables,
    entries: &[Entry],
) -> rusqlite::Result<()> {
    let (together, rest) = entries.as_chunks::<TOGETHER>();
    write(transaction, tables, together)?;
    write(transaction, tables, rest.as_chunks::<1>().0)
}

/// Writes groups of entries, one statement a group.
fn write<const ENTRIES: usize>(
    transaction: &Transaction<'_>,
    tables: &Tables,
    groups: &[[Entry; ENTRIES]],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(&format!(
        "INSERT OR IGNORE INTO {} (term, at, event) VALUES {}",
        tables.terms,
        ["(?, ?, ?)"; ENTRIES].join(", ")
    ))?;
    for group in groups {
        let numbers = group.iter().flat_map(|(term, at, event)| [term, at, event]);
        for (index, number) in numbers.enumerate() {
            insert.raw_bind_parameter(index + 1, number)?;
        }
        insert.raw_execute()?;
    }
    Ok(())
}

/// The entries of a row, in order.
struct Row<'a>(&'a [u8]);

impl Row<'_> {
    fn all(&self) -> impl Iterator<Item = Entry> {
        self.0.as_chunks::<WIDTH>().0.iter().map(entry)
    }

    fn of(&self, term: i64) -> impl Iterator<Item = Entry> {
        let all = self.0.as_chunks::<WIDTH>().0;
        let from = all.partition_point(|bytes| entry(bytes).0 < term);
        let rest = all[from..].iter().map(entry);
        rest.take_while(move |(found, ..)| *found == term)
    }
}

fn entry(bytes: &[u8; WIDTH]) -> Entry {
    let numbers = bytes.as_chunks::<8>().0;
    let number = |index: usize| i64::from_le_bytes(numbers[index]);
    (number(0), number(1), number(2))
}

/// What is still gathered of some terms.
#[derive(Debug, Default)]
pub(super) struct Gathered(HashMap<i64, Vec<(i64, i64)>>);

impl Gathered {
    /// Finds the entries of these terms from `since` until before `until`.
    pub(super) fn of(
        connection: &Connection,
        tables: &Tables,
        mut terms: Vec<i64>,
        (since, until): (i64, i64),
    ) -> rusqlite::Result<Self> {
        terms.sort_unstable();
        terms.dedup();
        let mut select = connection.prepare_cached(&format!(
            "SELECT entries FROM {} WHERE id >= ?1 AND id < ?2",
            tables.gathered
        ))?;
        let mut found = Self::default();
        for terms in terms.chunk_by(|one, other| slice(*one) == slice(*other)) {
            let slice = slice(terms[0]);
            let mut rows = select.query(params![slice * ROWS, (slice + 1) * ROWS])?;
            while let Some(row) = rows.next()? {
                let row = Row(row.get_ref(0)?.as_blob()?);
                for (term, at, event) in terms.iter().flat_map(|term| row.of(*term)) {
                    if (since..until).contains(&at) {
                        found.0.entry(term).or_default().push((at, event));
                    }
                }
            }
        }
        for events in found.0.values_mut() {
            events.sort_unstable();
        }
        Ok(found)
    }

    /// Time and id of the events that are still gathered of a term, in order.
    pub(super) fn events(&self, term: i64) -> &[(i64, i64)] {
        self.0.get(&term).map_or(&[], Vec::as_slice)
    }
}
