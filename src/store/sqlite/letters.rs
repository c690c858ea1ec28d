//! Dead letters: lists without their bytes, single ones with them.

use bytes::Bytes;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::query::{ceiling, id_text, parse_id};
use super::schema::Tables;
use crate::event::{DeadLetter, DeadLetterReason, SourceName, from_millis};
use crate::store::{DeadLetterFilter, DeadLetterHead, PageKey, StoredDeadLetter};

const HEAD_COLUMNS: &str = "id, source, position, reason, detail, rawLength, at, attempts, lastAt";

pub(super) fn newest(
    connection: &Connection,
    tables: &Tables,
    limit: u32,
) -> rusqlite::Result<Vec<StoredDeadLetter>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {HEAD_COLUMNS}, raw FROM {} ORDER BY lastAt DESC, id DESC LIMIT {limit}",
        tables.dead_letters
    ))?;
    select.query_map([], letter)?.collect()
}

pub(super) fn list(
    connection: &Connection,
    tables: &Tables,
    filter: &DeadLetterFilter,
    before: Option<&PageKey>,
    limit: u32,
) -> rusqlite::Result<Vec<DeadLetterHead>> {
    let reason = filter.reason.map(|reason| reason.as_str().to_owned());
    let mut conditions = vec!["1".to_owned()];
    let mut values = Vec::new();
    for (condition, value) in [
        ("source = ?", filter.source.clone().map(Sql::Text)),
        ("reason = ?", reason.map(Sql::Text)),
        ("lastAt >= ?", filter.since.map(ceiling).map(Sql::Integer)),
        ("lastAt < ?", filter.until.map(ceiling).map(Sql::Integer)),
    ] {
        if let Some(value) = value {
            conditions.push(condition.to_owned());
            values.push(value);
        }
    }
    if let Some(before) = before {
        conditions.push("(lastAt, id) < (?, ?)".to_owned());
        let id = parse_id(&before.id).unwrap_or(0);
        values.extend([Sql::Integer(before.at.as_millisecond()), Sql::Integer(id)]);
    }
    let mut select = connection.prepare_cached(&format!(
        "SELECT {HEAD_COLUMNS} FROM {} WHERE {} ORDER BY lastAt DESC, id DESC LIMIT {limit}",
        tables.dead_letters,
        conditions.join(" AND ")
    ))?;
    select.query_map(params_from_iter(values), head)?.collect()
}

pub(super) fn by_id(
    connection: &Connection,
    tables: &Tables,
    id: i64,
) -> rusqlite::Result<Option<StoredDeadLetter>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {HEAD_COLUMNS}, raw FROM {} WHERE id = ?1",
        tables.dead_letters
    ))?;
    select.query_row([id], letter).optional()
}

pub(super) fn delete(
    connection: &mut Connection,
    tables: &Tables,
    ids: &[i64],
) -> rusqlite::Result<u64> {
    let transaction = super::write_transaction(connection)?;
    let mut deleted = 0;
    let sql = format!("DELETE FROM {} WHERE id = ?1", tables.dead_letters);
    for id in ids {
        deleted += transaction.prepare_cached(&sql)?.execute([id])?;
    }
    transaction.commit()?;
    Ok(deleted as u64)
}

fn head(row: &Row<'_>) -> rusqlite::Result<DeadLetterHead> {
    let reason: String = row.get(3)?;
    Ok(DeadLetterHead {
        id: id_text(row.get(0)?),
        source: row.get(1)?,
        position: row.get(2)?,
        reason: DeadLetterReason::from_word(&reason).unwrap_or(DeadLetterReason::Malformed),
        detail: row.get(4)?,
        raw_length: row.get::<_, i64>(5)?.unsigned_abs(),
        first_at: from_millis(row.get(6)?),
        attempts: row.get::<_, i64>(7)?.unsigned_abs(),
        last_at: from_millis(row.get(8)?),
    })
}

fn letter(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let head = head(row)?;
    Ok(StoredDeadLetter {
        id: head.id,
        letter: DeadLetter {
            source: SourceName::new(&head.source),
            position: head.position,
            reason: head.reason,
            detail: head.detail,
            raw: Bytes::from(row.get::<_, Vec<u8>>(9)?),
            raw_length: head.raw_length,
            at: head.first_at,
        },
        attempts: head.attempts,
        last_at: head.last_at,
    })
}
