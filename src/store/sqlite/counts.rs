//! Counted days: how many events of each facet happened in each. A histogram of months reads these
//! instead of every event. Some facets' counts stand together in a row, so that few rows are read for months, and
//! few bytes written for an event.
//!
//! They change in the transaction that enters or deletes the events, and are therefore exact. A
//! version that does not know them may have written in between: whoever prepares a store compares
//! their sum with the events, and counts anew if it differs, some days at a time. Until that is done, a row of its own
//! tells the first day that is still to be counted. From it on nothing is counted by anybody else, and histograms
//! count from the indexes.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::schema::Tables;
use crate::store::histogram::DAY;

/// A day has so many rows: facets whose numbers begin alike share one.
const ROWS: i64 = 16;
/// A facet's number, and that of its events.
const ENTRY: usize = 8 + 4;

/// The row that has the first day to be counted in the place of its events.
const UNFINISHED: i64 = i64::MIN;

/// Events that are counted anew in one transaction, but for the rest of their last day.
pub(super) const EVENTS_AT_ONCE: usize = 200_000;

/// The row's number. They are in the order of the days, and of the facets' numbers.
fn row_of(day: i64, facet: i64) -> i64 {
    day.saturating_mul(ROWS) + (facet >> 60) + ROWS / 2
}

/// What one transaction adds to the counted days, or takes from them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    by_day: BTreeMap<(i64, i64), i64>,
}

impl Changes {
    /// An event of a facet was entered (1) or is deleted (-1).
    pub(super) fn count(&mut self, at: i64, facet: i64, change: i64) {
        let day = at.div_euclid(DAY);
        *self.by_day.entry((day, facet)).or_default() += change;
    }

    /// Writes them; to be called once, before the transaction is committed.
    pub(super) fn apply(&self, transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
        let days = &tables.days;
        let mut select =
            transaction.prepare_cached(&format!("SELECT counts FROM {days} WHERE id = ?1"))?;
        let mut replace = transaction.prepare_cached(&format!(
            "INSERT OR REPLACE INTO {days} (id, events, counts) VALUES (?1, ?2, ?3)"
        ))?;
        let mut forget =
            transaction.prepare_cached(&format!("DELETE FROM {days} WHERE id = ?1"))?;
        let uncounted = rest(transaction, tables)?.unwrap_or(i64::MAX);
        let changes: Vec<(i64, i64, i64)> = self
            .by_day
            .iter()
            .filter(|((day, _), change)| *day < uncounted && **change != 0)
            .map(|((day, facet), change)| (row_of(*day, *facet), *facet, *change))
            .collect();
        for of_row in changes.chunk_by(|(one, ..), (next, ..)| one == next) {
            let Some((id, ..)) = of_row.first() else {
                continue;
            };
            let counted =
                select.query_row([id], |row| Ok(unpack(row.get_ref(0)?.as_blob()?).collect()));
            let mut counts: BTreeMap<i64, u32> = counted.optional()?.unwrap_or_default();
            for (_, facet, change) in of_row {
                let count = counts.entry(*facet).or_default();
                let changed = (i64::from(*count) + change).max(0);
                *count = u32::try_from(changed).unwrap_or(u32::MAX);
            }
            counts.retain(|_, count| *count > 0);
            if counts.is_empty() {
                forget.execute([id])?;
            } else {
                let events: i64 = counts.values().copied().map(i64::from).sum();
                replace.execute(params![id, events, pack(&counts)])?;
            }
        }
        Ok(())
    }
}

/// In the order of the facets.
fn pack(counts: &BTreeMap<i64, u32>) -> Vec<u8> {
    let mut packed = Vec::with_capacity(counts.len() * ENTRY);
    for (facet, count) in counts {
        packed.extend(facet.to_le_bytes());
        packed.extend(count.to_le_bytes());
    }
    packed
}

fn unpack(packed: &[u8]) -> impl Iterator<Item = (i64, u32)> {
    packed.chunks_exact(ENTRY).filter_map(|entry| {
        let (facet, count) = entry.split_first_chunk()?;
        let count = count.first_chunk()?;
        Some((i64::from_le_bytes(*facet), u32::from_le_bytes(*count)))
    })
}

/// The first day that is to be counted yet; `None`: all are.
pub(super) fn rest(connection: &Connection, tables: &Tables) -> rusqlite::Result<Option<i64>> {
    let mut select =
        connection.prepare_cached(&format!("SELECT events FROM {} WHERE id = ?1", tables.days))?;
    select.query_row([UNFINISHED], |row| row.get(0)).optional()
}

/// Whether the days do not hold as many events as there are with keys, but for days that are to be counted yet.
pub(super) fn differs(connection: &Connection, tables: &Tables) -> rusqlite::Result<bool> {
    if rest(connection, tables)?.is_some() {
        return Ok(false);
    }
    // `count(*)` is one step, which nobody can interrupt.
    connection.query_row(
        &format!(
            "SELECT (SELECT count(facet) FROM {})
                 <> (SELECT coalesce(sum(events), 0) FROM {})",
            tables.events, tables.days
        ),
        [],
        |row| row.get(0),
    )
}

/// Has all days counted anew.
pub(super) fn begin_anew(transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
    let days = &tables.days;
    transaction.execute(&format!("DELETE FROM {days}"), [])?;
    let begin = format!("INSERT INTO {days} (id, events, counts) VALUES (?1, ?2, x'')");
    transaction.execute(&begin, [UNFINISHED, i64::MIN])?;
    Ok(())
}

/// Counts days that are to be counted, until they have so many events; `false`: all are.
pub(super) fn count_some(
    connection: &mut Connection,
    tables: &Tables,
    events: usize,
) -> rusqlite::Result<bool> {
    if rest(connection, tables)?.is_none() {
        return Ok(false);
    }
    let transaction = super::write_transaction(connection)?;
    let Some(first) = rest(&transaction, tables)? else {
        return Ok(false);
    };
    let mut select = transaction.prepare_cached(&format!(
        "SELECT at, facet FROM {} INDEXED BY {} WHERE at >= ?1 ORDER BY at",
        tables.events, tables.by_time
    ))?;
    let mut rows = select.query([first.saturating_mul(DAY)])?;
    let mut changes = Changes::default();
    let (mut read, mut last, mut next) = (0, first, None);
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        let day = at.div_euclid(DAY);
        if read >= events && day != last {
            next = Some(day);
            break;
        }
        if let Some(facet) = row.get::<_, Option<i64>>(1)? {
            changes.count(at, facet, 1);
        }
        (read, last) = (read + 1, day);
    }
    drop(rows);
    drop(select);
    // First: it tells which of the changes are written.
    let days = &tables.days;
    match next {
        Some(day) => {
            let go_on = format!("UPDATE {days} SET events = ?2 WHERE id = ?1");
            transaction.execute(&go_on, [UNFINISHED, day])?
        }
        None => {
            let finish = format!("DELETE FROM {days} WHERE id = ?1");
            transaction.execute(&finish, [UNFINISHED])?
        }
    };
    changes.apply(&transaction, tables)?;
    transaction.commit()?;
    Ok(next.is_some())
}

/// Tells the counts of the days between two times, both at a day's begin: time, facet, events; ordered by time and facet.
pub(super) fn tell(
    connection: &Connection,
    tables: &Tables,
    (from, to): (i64, i64),
    mut hear: impl FnMut(i64, i64, u64),
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT id, counts FROM {} WHERE id >= ?1 AND id < ?2 ORDER BY id",
        tables.days
    ))?;
    let mut rows = select.query([from, to].map(|day| day.div_euclid(DAY) * ROWS))?;
    while let Some(row) = rows.next()? {
        let day = row.get::<_, i64>(0)?.div_euclid(ROWS) * DAY;
        for (facet, count) in unpack(row.get_ref(1)?.as_blob()?) {
            hear(day, facet, u64::from(count));
        }
    }
    Ok(())
}
