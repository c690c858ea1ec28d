//! Counted days: how many events of each facet happened in each. A histogram of months reads these
//! instead of every event.
//!
//! They change in the transaction that enters or deletes the events, and are therefore exact. A
//! version that does not know them may have written in between: whoever prepares a store compares
//! their sum with the events, and counts anew if it differs, some days at a time. Until that is done, a row of its own
//! tells the first day that is still to be counted. From it on nothing is counted by anybody else, and histograms
//! count from the indexes.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::schema::Tables;
use crate::store::histogram::DAY;

/// In the place of a day: the row that has the first day to be counted in the place of its events.
const UNFINISHED: i64 = i64::MIN;

/// Events that are counted anew in one transaction, but for the rest of their last day.
pub(super) const EVENTS_AT_ONCE: usize = 200_000;

/// What one transaction adds to the counted days, or takes from them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    by_day: HashMap<(i64, i64), i64>,
}

impl Changes {
    /// An event of a facet was entered (1) or is deleted (-1).
    pub(super) fn count(&mut self, at: i64, facet: i64, change: i64) {
        let day = at.div_euclid(DAY);
        *self.by_day.entry((day, facet)).or_default() += change;
    }

    /// Writes them; to be called once, before the transaction is committed.
    pub(super) fn apply(&self, transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
        let mut change = transaction.prepare_cached(&format!(
            "INSERT INTO {} (day, facet, events) VALUES (?1, ?2, ?3)
             ON CONFLICT (day, facet) DO UPDATE SET events = events + excluded.events",
            tables.counts
        ))?;
        let mut forget = transaction.prepare_cached(&format!(
            "DELETE FROM {} WHERE day = ?1 AND facet = ?2 AND events = 0",
            tables.counts
        ))?;
        let uncounted = rest(transaction, tables)?.unwrap_or(i64::MAX);
        for ((day, facet), events) in &self.by_day {
            if *events == 0 || *day >= uncounted {
                continue;
            }
            change.execute(params![day, facet, events])?;
            if *events < 0 {
                forget.execute(params![day, facet])?;
            }
        }
        Ok(())
    }
}

/// The first day that is to be counted yet; `None`: all are.
pub(super) fn rest(connection: &Connection, tables: &Tables) -> rusqlite::Result<Option<i64>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT events FROM {} WHERE day = ?1",
        tables.counts
    ))?;
    select.query_row([UNFINISHED], |row| row.get(0)).optional()
}

/// Has all days counted anew if they do not hold as many events as there are with keys.
pub(super) fn check(transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
    if rest(transaction, tables)?.is_some() {
        return Ok(());
    }
    let (events, counts) = (&tables.events, &tables.counts);
    let differs: bool = transaction.query_row(
        &format!(
            "SELECT (SELECT count(*) FROM {events})
                 - (SELECT count(*) FROM {events} WHERE facet IS NULL)
                 <> (SELECT coalesce(sum(events), 0) FROM {counts})"
        ),
        [],
        |row| row.get(0),
    )?;
    if differs {
        transaction.execute(&format!("DELETE FROM {counts}"), [])?;
        let begin = format!("INSERT INTO {counts} (day, facet, events) VALUES (?1, 0, ?2)");
        transaction.execute(&begin, [UNFINISHED, i64::MIN])?;
    }
    Ok(())
}

/// Counts days that are to be counted, until they have so many events; `false`: all are.
pub(super) fn count_some(
    connection: &mut Connection,
    tables: &Tables,
    events: usize,
) -> rusqlite::Result<bool> {
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
    let counts = &tables.counts;
    match next {
        Some(day) => {
            let go_on = format!("UPDATE {counts} SET events = ?2 WHERE day = ?1");
            transaction.execute(&go_on, [UNFINISHED, day])?
        }
        None => {
            let finish = format!("DELETE FROM {counts} WHERE day = ?1");
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
        "SELECT day, facet, events FROM {} WHERE day >= ?1 AND day < ?2
         ORDER BY day, facet",
        tables.counts
    ))?;
    let mut rows = select.query([from.div_euclid(DAY), to.div_euclid(DAY)])?;
    while let Some(row) = rows.next()? {
        let events: i64 = row.get(2)?;
        let events = u64::try_from(events).unwrap_or(0);
        hear(row.get::<_, i64>(0)? * DAY, row.get(1)?, events);
    }
    Ok(())
}
