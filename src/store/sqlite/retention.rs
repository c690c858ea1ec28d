//! Deletion of what is old, a bounded number of rows at a time: the writer's own commits go in between.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::query::ceiling;

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
