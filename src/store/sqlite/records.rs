//! What stands beside the events: cursors, tokens and the platform's directory.

use std::str::FromStr as _;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::{Number, Value};

use super::schema::Tables;
use crate::event::{SourceName, from_millis};
use crate::store::{
    Cursor, DirectoryRecords, LearnedSpace, Role, TenantRecord, TokenRecord, UserRecord,
};

pub(super) fn claim(
    connection: &mut Connection,
    tables: &Tables,
    source: &SourceName,
) -> rusqlite::Result<Cursor> {
    let transaction = super::write_transaction(connection)?;
    // Sources claim theirs while the file is still being prepared.
    transaction.execute(&tables.cursor_table(), [])?;
    let claimed = transaction.query_row(
        &format!(
            "INSERT INTO {} (source, generation, seq, detail, updatedAt)
             VALUES (?1, 1, 0, 'null', ?2)
             ON CONFLICT (source) DO UPDATE SET generation = generation + 1
             RETURNING source, generation, seq, detail, lastEventAt, lastEventId, updatedAt",
            tables.cursors
        ),
        rusqlite::params![source.as_str(), Timestamp::now().as_millisecond()],
        cursor,
    )?;
    transaction.commit()?;
    Ok(claimed)
}

pub(super) fn cursors(connection: &Connection, tables: &Tables) -> rusqlite::Result<Vec<Cursor>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT source, generation, seq, detail, lastEventAt, lastEventId, updatedAt
         FROM {} ORDER BY source",
        tables.cursors
    ))?;
    select.query_map([], cursor)?.collect()
}

fn cursor(row: &Row<'_>) -> rusqlite::Result<Cursor> {
    let detail: String = row.get(3)?;
    Ok(Cursor {
        source: row.get(0)?,
        generation: row.get::<_, i64>(1)?.unsigned_abs(),
        seq: row.get::<_, i64>(2)?.unsigned_abs(),
        detail: serde_json::from_str(&detail).unwrap_or(Value::Null),
        last_event_at: row.get::<_, Option<i64>>(4)?.map(from_millis),
        last_event_id: row.get(5)?,
        updated_at: from_millis(row.get(6)?),
    })
}

pub(super) fn token(
    connection: &Connection,
    tables: &Tables,
    hash: &str,
) -> rusqlite::Result<Option<TokenRecord>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT role, scope, name, createdAt, expiresAt, openedBy FROM {}
         WHERE hash = ?1 AND (expiresAt IS NULL OR expiresAt > ?2)",
        tables.tokens
    ))?;
    let now = Timestamp::now().as_millisecond();
    let found = select.query_row(rusqlite::params![hash, now], |row| {
        let role: String = row.get(0)?;
        let scope: Option<String> = row.get(1)?;
        let role = match (role.as_str(), scope) {
            ("operator", _) => Role::Operator,
            ("recorder", source) => Role::Recorder(source),
            ("tenant", Some(slug)) => Role::Tenant(slug),
            _ => return Ok(None),
        };
        Ok(Some(TokenRecord {
            hash: hash.to_owned(),
            role,
            name: row.get(2)?,
            created_at: from_millis(row.get(3)?),
            expires_at: row.get::<_, Option<i64>>(4)?.map(from_millis),
            opened_by: row.get(5)?,
        }))
    });
    found.optional().map(Option::flatten)
}

/// The platform's tables, if there are such, and the learned spaces.
pub(super) fn directory(
    connection: &Connection,
    tables: &Tables,
) -> rusqlite::Result<DirectoryRecords> {
    let learned = |row: &Row<'_>| {
        Some(LearnedSpace {
            space: row.get("space").ok()?,
            tenant_slug: row.get("tenantSlug").ok()?,
        })
    };
    Ok(DirectoryRecords {
        tenants: platform_rows(connection, &tables.tenants, tenant)?,
        users: platform_rows(connection, &tables.users, user)?,
        learned: platform_rows(connection, &tables.spaces, learned)?,
    })
}

fn platform_rows<T>(
    connection: &Connection,
    quoted_table: &str,
    record: impl Fn(&Row<'_>) -> Option<T>,
) -> rusqlite::Result<Vec<T>> {
    let bare = quoted_table[1..quoted_table.len() - 1].replace("\"\"", "\"");
    let known = "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1";
    if !connection.prepare_cached(known)?.exists([bare])? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare(&format!("SELECT * FROM {quoted_table}"))?;
    let mut rows = select.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.extend(record(row));
    }
    Ok(records)
}

fn tenant(row: &Row<'_>) -> Option<TenantRecord> {
    Some(TenantRecord {
        id: column(row, "id").or_else(|| column(row, "_id"))?,
        slug: column(row, "slug").filter(|slug| !slug.is_empty())?,
        name: column(row, "name"),
        domains: list(row, "domains"),
        groups: list(row, "groups"),
        space_ids: list(row, "spaceIds"),
    })
}

fn user(row: &Row<'_>) -> Option<UserRecord> {
    let user = UserRecord {
        subject: column(row, "authentikSubjectId"),
        email: column(row, "email"),
        tenant_ids: list(row, "tenantIds"),
    };
    let reachable = user.subject.is_some() || user.email.is_some();
    (reachable && !user.tenant_ids.is_empty()).then_some(user)
}

/// A text or whole number; `None` for a column that is missing or holds anything else.
fn column(row: &Row<'_>, name: &str) -> Option<String> {
    match row.get_ref(name).ok()? {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        ValueRef::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A JSON array of texts and whole numbers, or one bare text.
fn list(row: &Row<'_>, name: &str) -> Vec<String> {
    let Some(text) = column(row, name).filter(|text| !text.is_empty()) else {
        return Vec::new();
    };
    match serde_json::from_str(&text) {
        Ok(Value::Array(items)) => items.into_iter().filter_map(item).collect(),
        Ok(Value::Null) => Vec::new(),
        Ok(other) => item(other).into_iter().collect(),
        Err(_) => vec![text],
    }
}

fn item(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) if i64::from_str(&number.to_string()).is_ok() => {
            Some(Number::to_string(&number))
        }
        _ => None,
    }
}
