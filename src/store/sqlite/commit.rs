//! One flush as one transaction: records, learned spaces and cursors stand together or not at all.

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, Statement, Transaction, params};

use super::index::{Indexing, Known};
use super::schema::Tables;
use crate::event::{AuditEvent, DeadLetter};
use crate::probe::Probe;
use crate::store::keys::{EventKeys, Facet};
use crate::store::{
    Commit, Committed, CursorMove, CursorStep, Fate, LearnedSpace, MoveFate, Record,
};

/// A commit that can go to another thread.
pub(super) struct OwnedCommit {
    records: Vec<Row>,
    moves: Vec<CursorMove>,
    learned: Vec<LearnedSpace>,
}

enum Row {
    Event {
        event: Box<AuditEvent>,
        metadata: String,
        tenant_slug: Option<String>,
        keys: EventKeys,
    },
    DeadLetter(DeadLetter),
    Rejected(String),
}

impl OwnedCommit {
    pub(super) fn of(commit: &Commit<'_>) -> Self {
        Self {
            records: commit.records.iter().map(row).collect(),
            moves: commit.moves.clone(),
            learned: commit.learned.clone(),
        }
    }
}

fn row(record: &Record<'_>) -> Row {
    match record {
        Record::DeadLetter(letter) => Row::DeadLetter((*letter).clone()),
        Record::Event { event, tenant_slug } => match event.metadata.to_json() {
            Err(error) => Row::Rejected(format!("metadata is no JSON: {error}")),
            Ok(metadata) => Row::Event {
                // All but the payload, which goes as the text just made.
                event: Box::new(AuditEvent {
                    at: event.at,
                    source: event.source.clone(),
                    external_id: event.external_id.clone(),
                    action: event.action.clone(),
                    outcome: event.outcome,
                    actor: event.actor.clone(),
                    target: event.target.clone(),
                    tenant_slug: None,
                    metadata: serde_json::Map::new().into(),
                }),
                metadata: metadata.into_owned(),
                tenant_slug: tenant_slug.map(str::to_owned),
                keys: EventKeys::of(event, *tenant_slug),
            },
        },
    }
}

pub(super) fn commit(
    connection: &mut Connection,
    tables: &Tables,
    commit: &OwnedCommit,
    known: &Known,
    probe: &Probe,
) -> rusqlite::Result<Committed> {
    let now = Timestamp::now().as_millisecond();
    let transaction = super::write_transaction(connection)?;
    let mut indexing = Indexing::new(known, tables, now);
    let mut records = Vec::with_capacity(commit.records.len());
    let mut insert = transaction.prepare_cached(&format!(
        "INSERT INTO {} (at, ingestedAt, source, externalId, action, outcome,
            actorId, actorEmail, actorName, actorIp, targetType, targetId, targetName,
            tenantSlug, metadata, facet)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
         ON CONFLICT (source, externalId) DO NOTHING",
        tables.events
    ))?;
    for row in &commit.records {
        let inserted = match row {
            Row::Rejected(reason) => {
                records.push(Fate::Rejected(reason.clone()));
                continue;
            }
            Row::Event {
                event,
                metadata,
                tenant_slug,
                keys,
            } => {
                let tenant = tenant_slug.as_deref();
                let written = (event.as_ref(), metadata.as_str(), tenant, keys.facet);
                let inserted = insert_event(&mut insert, written, now);
                if matches!(inserted, Ok(true)) {
                    let place = (transaction.last_insert_rowid(), event.at.as_millisecond());
                    indexing.add(place, tenant, keys, || Facet::of(event, tenant));
                }
                inserted
            }
            Row::DeadLetter(letter) => insert_letter(&transaction, tables, letter),
        };
        records.push(match inserted {
            Ok(true) => Fate::Written,
            Ok(false) => Fate::Duplicate,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
                Fate::Rejected("it is larger than a row may be".to_owned())
            }
            Err(error) => return Err(error),
        });
    }
    drop(insert);
    indexing.write(&transaction)?;
    for lesson in &commit.learned {
        learn(&transaction, tables, lesson)?;
    }
    let rejected = records.iter().any(|fate| matches!(fate, Fate::Rejected(_)));
    let mut moves = Vec::new();
    probe
        .hit_blocking("between_insert_and_cursor")
        .map_err(|struck| rusqlite::Error::ToSqlConversionFailure(Box::new(struck)))?;
    if !rejected {
        for step in &commit.moves {
            moves.push(move_cursor(&transaction, tables, step, now)?);
        }
    }
    transaction.commit()?;
    indexing.learn();
    Ok(Committed { records, moves })
}

/// `false`: it was there.
fn insert_event(
    insert: &mut Statement<'_>,
    (event, metadata, tenant_slug, facet): (&AuditEvent, &str, Option<&str>, i64),
    now: i64,
) -> rusqlite::Result<bool> {
    let changed = insert.execute(params![
        event.at.as_millisecond(),
        now,
        event.source.as_str(),
        event.external_id,
        event.action,
        event.outcome.map(|outcome| outcome.as_str()),
        event.actor.id,
        event.actor.email,
        event.actor.name,
        event.actor.ip,
        event.target.kind,
        event.target.id,
        event.target.name,
        tenant_slug,
        metadata,
        facet,
    ])?;
    Ok(changed > 0)
}

/// `false`: it was there, and is counted once more.
fn insert_letter(
    transaction: &Transaction<'_>,
    tables: &Tables,
    letter: &DeadLetter,
) -> rusqlite::Result<bool> {
    let at = letter.at.as_millisecond();
    let source = letter.source.as_str();
    let mut insert = transaction.prepare_cached(&format!(
        "INSERT INTO {} (source, position, reason, detail, raw, rawLength, at, attempts, lastAt)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?7)
         ON CONFLICT (source, position) DO NOTHING",
        tables.dead_letters
    ))?;
    let changed = insert.execute(params![
        source,
        letter.position,
        letter.reason.as_str(),
        letter.detail,
        &letter.raw[..letter.raw.len().min(super::MAX_RAW_BYTES)],
        i64::try_from(letter.raw_length).unwrap_or(i64::MAX),
        at,
    ])?;
    if changed > 0 {
        return Ok(true);
    }
    let mut count = transaction.prepare_cached(&format!(
        "UPDATE {} SET attempts = attempts + 1, lastAt = max(lastAt, ?3)
         WHERE source = ?1 AND position = ?2",
        tables.dead_letters
    ))?;
    count.execute(params![source, letter.position, at])?;
    Ok(false)
}

fn learn(
    transaction: &Transaction<'_>,
    tables: &Tables,
    lesson: &LearnedSpace,
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(&format!(
        "INSERT INTO {} (space, tenantSlug) VALUES (?1, ?2)
         ON CONFLICT (space) DO UPDATE SET tenantSlug = excluded.tenantSlug",
        tables.spaces
    ))?;
    upsert.execute(params![lesson.space, lesson.tenant_slug])?;
    Ok(())
}

fn move_cursor(
    transaction: &Transaction<'_>,
    tables: &Tables,
    step: &CursorMove,
    now: i64,
) -> rusqlite::Result<MoveFate> {
    let source = step.source.as_str();
    let last_at = step.last_event_at.map(|at| at.as_millisecond());
    let CursorStep::Advance { from, to, detail } = &step.step else {
        let mut touch = transaction.prepare_cached(&format!(
            "INSERT INTO {} (source, generation, seq, detail, lastEventAt, lastEventId, updatedAt)
             VALUES (?1, 0, 0, 'null', ?2, ?3, ?4)
             ON CONFLICT (source) DO UPDATE SET
                lastEventAt = max(coalesce(lastEventAt, excluded.lastEventAt),
                                  coalesce(excluded.lastEventAt, lastEventAt)),
                lastEventId = coalesce(excluded.lastEventId, lastEventId),
                updatedAt = excluded.updatedAt",
            tables.cursors
        ))?;
        touch.execute(params![source, last_at, step.last_event_id, now])?;
        return Ok(MoveFate::Moved);
    };

    let mut select = transaction.prepare_cached(&format!(
        "SELECT generation, seq FROM {} WHERE source = ?1",
        tables.cursors
    ))?;
    let stored = select.query_row([source], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    let (generation, seq) = match stored {
        Ok((generation, seq)) => (generation.unsigned_abs(), seq.unsigned_abs()),
        Err(rusqlite::Error::QueryReturnedNoRows) => (0, 0),
        Err(error) => return Err(error),
    };
    // Generation 0 belongs to nobody: it only has been touched.
    if generation != step.generation || generation == 0 {
        return Ok(MoveFate::Fenced { owner: generation });
    }
    if *to <= seq {
        return Ok(MoveFate::Covered);
    }
    if *from > seq {
        return Ok(MoveFate::Gap { stored: seq });
    }
    let mut update = transaction.prepare_cached(&format!(
        "UPDATE {} SET seq = ?2, detail = ?3, lastEventAt = coalesce(?4, lastEventAt),
            lastEventId = coalesce(?5, lastEventId), updatedAt = ?6
         WHERE source = ?1",
        tables.cursors
    ))?;
    let to = i64::try_from(*to)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    update.execute(params![
        source,
        to,
        detail.to_string(),
        last_at,
        step.last_event_id,
        now
    ])?;
    Ok(MoveFate::Moved)
}
