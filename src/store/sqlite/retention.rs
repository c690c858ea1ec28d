//! Deletion of what is old, a bounded number of rows at a time: the writer's own commits go in between.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::query::ceiling;
use super::schema::Tables;
use super::{index, query};

/// Deletes the oldest events, and what they were found by.
pub(super) fn delete_events(
    connection: &mut Connection,
    tables: &Tables,
    before: Timestamp,
    limit: u32,
) -> rusqlite::Result<u64> {
    let transaction = super::write_transaction(connection)?;
    let old = query::oldest(&transaction, tables, ceiling(before), limit)?;
    index::forget(&transaction, tables, &old)?;
    let mut delete =
        transaction.prepare_cached(&format!("DELETE FROM {} WHERE id = ?1", tables.events))?;
    let mut deleted = 0;
    for id in old.iter().filter_map(|event| query::parse_id(&event.id)) {
        deleted += delete.execute([id])?;
    }
    drop(delete);
    transaction.commit()?;
    Ok(deleted as u64)
}

/// Deletes texts of events that are long gone; whether there may be more.
pub(super) fn forget_texts(
    connection: &mut Connection,
    tables: &Tables,
    before: Timestamp,
) -> rusqlite::Result<bool> {
    let transaction = super::write_transaction(connection)?;
    let is_more = index::forget_texts(&transaction, tables, before.as_millisecond())?;
    transaction.commit()?;
    Ok(is_more)
}

/// `table` and `column` come from this program, never from outside.
pub(super) fn delete_before(
    connection: &mut Connection,
    table: &str,
    column: &str,
    before: Timestamp,
    limit: u32,
) -> rusqlite::Result<u64> {
    let transaction = super::write_transaction(connection)?;
    let deleted = transaction
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE id IN
                (SELECT id FROM {table} WHERE {column} < ?1 ORDER BY {column}, id LIMIT ?2)"
        ))?
        .execute(params![ceiling(before), limit])?;
    transaction.commit()?;
    Ok(deleted as u64)
}
