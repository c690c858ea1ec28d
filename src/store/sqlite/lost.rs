//! What finds the events is made anew where it was lost: in a file into which the events alone were carried, say.
//!
//! A row below the gathered terms says for which events that is to be done yet: its number is the last one's below 0, and
//! in it stands the one up to which it is done. It changes in the transactions that do it. Later events get their keys
//! when they are entered. Until it is gone, filters go by time.

use rusqlite::{Connection, OptionalExtension as _};

use super::query;
use super::schema::Tables;
use crate::store::page::Filling;
use crate::store::{Payloads, StoredEvent};

/// Whether some events have a facet that does not stand, but for those for which it is to be done yet.
pub(super) fn differs(connection: &Connection, tables: &Tables) -> rusqlite::Result<bool> {
    Ok(rest(connection, tables)?.is_none() && lacks_facets(connection, tables)?)
}

/// Has everything made anew, if another process has not begun with that since it was found to differ: that one remembers
/// what it enters.
pub(super) fn begin_again(transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
    if differs(transaction, tables)? {
        begin_anew(transaction, tables)?;
    }
    Ok(())
}

/// Has everything made anew.
pub(super) fn begin_anew(transaction: &Connection, tables: &Tables) -> rusqlite::Result<()> {
    tracing::warn!("what finds the events was lost, and is made anew");
    let gathered = &tables.gathered;
    for table in [&tables.facets, gathered, &tables.texts, &tables.packs] {
        transaction.execute(&format!("DELETE FROM {table}"), [])?;
    }
    let begin = format!(
        "INSERT INTO {gathered} (id, entries) SELECT -max(id), 0 FROM {}",
        tables.events
    );
    transaction.execute(&begin, [])?;
    Ok(())
}

/// Whether any event has keys; an older version's have none.
pub(super) fn has_keys(transaction: &Connection, tables: &Tables) -> rusqlite::Result<bool> {
    let events = &tables.events;
    let has = format!("SELECT EXISTS (SELECT 1 FROM {events} WHERE facet IS NOT NULL)");
    transaction.query_row(&has, [], |row| row.get(0))
}

/// Steps from facet to facet in their index, not from event to event.
fn lacks_facets(transaction: &Connection, tables: &Tables) -> rusqlite::Result<bool> {
    let (events, facets) = (&tables.events, &tables.facets);
    transaction.query_row(
        &format!(
            "WITH RECURSIVE own (facet) AS (
                SELECT min(facet) FROM {events}
                UNION ALL
                SELECT (SELECT min(facet) FROM {events} WHERE facet > own.facet)
                FROM own WHERE own.facet IS NOT NULL
             )
             SELECT EXISTS (SELECT 1 FROM own
                WHERE facet IS NOT NULL AND facet NOT IN (SELECT key FROM {facets}))"
        ),
        [],
        |row| row.get(0),
    )
}

/// Events after one id, up to another.
pub(super) type Rest = (i64, i64);

/// For which events it is to be done yet.
pub(super) fn rest(transaction: &Connection, tables: &Tables) -> rusqlite::Result<Option<Rest>> {
    let mut select = transaction.prepare_cached(&format!(
        "SELECT entries, -id FROM {} WHERE id < 0",
        tables.gathered
    ))?;
    let rest = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
    rest.optional()
}

/// Whether what finds the events does not tell of all of them: some are to be done yet, or an older version's.
pub(super) fn lacks_keys(connection: &Connection, tables: &Tables) -> rusqlite::Result<bool> {
    // A step each to an end of an index.
    let mut lacks = connection.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM {} WHERE id < 0)
             OR EXISTS (SELECT 1 FROM {} INDEXED BY {} WHERE facet IS NULL)",
        tables.gathered, tables.events, tables.by_facet
    ))?;
    lacks.query_row([], |row| row.get(0))
}

/// The first of these events, without their payloads: fewer than so many where their names are long.
pub(super) fn first_of(
    transaction: &Connection,
    tables: &Tables,
    (reached, last): Rest,
    limit: u32,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut page = Filling::new(limit);
    let take = |id: i64, event: StoredEvent, bytes: usize| id <= last && page.add(event, bytes);
    let (limit, payloads) = (limit as usize, Payloads::LeftOut);
    query::event_after(transaction, tables, reached, limit, payloads, take)?;
    Ok(page.finish().events)
}

/// It is done up to this event; `None`: for all.
pub(super) fn go_on(
    transaction: &Connection,
    tables: &Tables,
    reached: Option<i64>,
) -> rusqlite::Result<()> {
    let gathered = &tables.gathered;
    let go_on = match reached {
        Some(reached) => format!("UPDATE {gathered} SET entries = {reached} WHERE id < 0"),
        None => format!("DELETE FROM {gathered} WHERE id < 0"),
    };
    transaction.execute(&go_on, [])?;
    Ok(())
}
