//! Counted days: how many events of each facet happened in each. A histogram of months reads these
//! instead of every event.
//!
//! They change in the transaction that enters or deletes the events, and are therefore exact. A
//! version that does not know them may have written in between: whoever prepares a store compares
//! their sum with the events, and counts anew if it differs.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::schema::Tables;
use crate::store::histogram::DAY;

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
        for ((day, facet), events) in self.by_day.iter().filter(|(_, events)| **events != 0) {
            change.execute(params![day, facet, events])?;
            if *events < 0 {
                forget.execute(params![day, facet])?;
            }
        }
        Ok(())
    }
}

/// Counts all days anew if they do not hold as many events as there are with keys.
pub(super) fn check(transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
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
        // Division rounds towards zero, a day begins before it.
        transaction.execute(
            &format!(
                "INSERT INTO {counts} (day, facet, events)
                 SELECT (at - ((at % {DAY}) + {DAY}) % {DAY}) / {DAY}, facet, count(*)
                 FROM {events} WHERE facet IS NOT NULL GROUP BY 1, 2"
            ),
            [],
        )?;
    }
    Ok(())
}

/// Tells the counts of the days between two times, both at a day's begin: time, facet, events.
pub(super) fn tell(
    connection: &Connection,
    tables: &Tables,
    (from, to): (i64, i64),
    mut hear: impl FnMut(i64, i64, u64),
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT day, facet, events FROM {} WHERE day >= ?1 AND day < ?2",
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
