//! One flush as one transaction: records, learned spaces and cursors stand together or not at all.

use std::ops::Range;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, Statement, Transaction, params};
use tokio::sync::mpsc::Receiver;

use super::index::{Indexing, Known, NewKeys};
use super::schema::Tables;
use crate::event::{AuditEvent, DeadLetter, Outcome};
use crate::probe::Probe;
use crate::store::keys::{EventKeys, Facet};
use crate::store::{Committed, CursorMove, CursorStep, Fate, LearnedSpace, MoveFate, Record};

/// What goes to the thread of the database, piece by piece: while it enters one the next is made.
pub(super) enum Part {
    Piece(Piece),
    /// The last: without it nothing of the commit stands.
    End {
        moves: Vec<CursorMove>,
        learned: Vec<LearnedSpace>,
    },
}

/// Records of one piece.
pub(super) const PIECE_RECORDS: usize = 250;

/// Pieces that are made ahead.
pub(super) const PIECES_AHEAD: usize = 2;

/// Some records, with all texts of their events in one.
#[derive(Default)]
pub(super) struct Piece {
    texts: String,
    rows: Vec<Row>,
}

#[expect(clippy::large_enum_variant, reason = "nearly all are events")]
enum Row {
    Event(EventRow),
    DeadLetter(DeadLetter),
    Rejected(String),
}

struct EventRow {
    at: i64,
    /// Where each column's text stands in the piece's.
    columns: [Option<Range<usize>>; COLUMNS],
    outcome: Option<Outcome>,
    keys: NewKeys,
}

/// Columns with texts, in the order of the statement.
const COLUMNS: usize = 12;
const SOURCE: usize = 0;
const ACTION: usize = 2;
const TARGET_TYPE: usize = 7;
const TENANT: usize = 10;

impl Piece {
    pub(super) fn of(records: &[Record<'_>], now: i64, known: &Known) -> Self {
        let mut piece = Self::default();
        for record in records {
            let row = match record {
                Record::DeadLetter(letter) => Row::DeadLetter((*letter).clone()),
                Record::Event { event, tenant_slug } => match event.metadata.to_json() {
                    Err(error) => Row::Rejected(format!("metadata is no JSON: {error}")),
                    Ok(metadata) => {
                        let at = event.at.as_millisecond();
                        let keys = EventKeys::of(event, *tenant_slug);
                        Row::Event(EventRow {
                            at,
                            columns: piece.columns(event, *tenant_slug, &metadata),
                            outcome: event.outcome,
                            keys: NewKeys::of(keys, at, now, known),
                        })
                    }
                },
            };
            piece.rows.push(row);
        }
        piece
    }

    fn columns(
        &mut self,
        event: &AuditEvent,
        tenant: Option<&str>,
        metadata: &str,
    ) -> [Option<Range<usize>>; COLUMNS] {
        let (actor, target) = (&event.actor, &event.target);
        let texts = [
            Some(event.source.as_str()),
            Some(&event.external_id),
            Some(&event.action),
            actor.id.as_deref(),
            actor.email.as_deref(),
            actor.name.as_deref(),
            actor.ip.as_deref(),
            target.kind.as_deref(),
            target.id.as_deref(),
            target.name.as_deref(),
            tenant,
            Some(metadata),
        ];
        texts.map(|text| {
            let start = self.texts.len();
            self.texts.push_str(text?);
            Some(start..self.texts.len())
        })
    }

    fn text(&self, row: &EventRow, column: usize) -> Option<&str> {
        row.columns[column].clone().map(|place| &self.texts[place])
    }

    fn facet(&self, row: &EventRow) -> Facet {
        let text = |column| self.text(row, column).map(str::to_owned);
        Facet {
            tenant: text(TENANT),
            source: text(SOURCE).unwrap_or_default(),
            action: text(ACTION).unwrap_or_default(),
            outcome: row.outcome,
            target_kind: text(TARGET_TYPE),
        }
    }
}

/// Enters the parts as they come, in one transaction.
pub(super) fn commit(
    connection: &mut Connection,
    tables: &Tables,
    mut parts: Receiver<Part>,
    known: &Known,
    probe: &Probe,
) -> rusqlite::Result<Committed> {
    let now = Timestamp::now().as_millisecond();
    let transaction = super::write_transaction(connection)?;
    let mut indexing = Indexing::new(known, tables);
    let mut records = Vec::new();
    let (moves, learned) = loop {
        match parts.blocking_recv() {
            Some(Part::Piece(piece)) => {
                insert_piece(
                    &transaction,
                    tables,
                    piece,
                    now,
                    &mut indexing,
                    &mut records,
                )?;
            }
            Some(Part::End { moves, learned }) => break (moves, learned),
            None => {
                let gone = "nobody waits for the commit any more";
                return Err(rusqlite::Error::ToSqlConversionFailure(gone.into()));
            }
        }
    };
    indexing.write(&transaction)?;
    for lesson in &learned {
        learn(&transaction, tables, lesson)?;
    }
    let rejected = records.iter().any(|fate| matches!(fate, Fate::Rejected(_)));
    let mut moved = Vec::new();
    probe
        .hit_blocking("between_insert_and_cursor")
        .map_err(|struck| rusqlite::Error::ToSqlConversionFailure(Box::new(struck)))?;
    if !rejected {
        for step in &moves {
            moved.push(move_cursor(&transaction, tables, step, now)?);
        }
    }
    transaction.commit()?;
    indexing.learn();
    Ok(Committed {
        records,
        moves: moved,
    })
}

fn insert_piece(
    transaction: &Transaction<'_>,
    tables: &Tables,
    mut piece: Piece,
    now: i64,
    indexing: &mut Indexing<'_>,
    records: &mut Vec<Fate>,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(&format!(
        "INSERT INTO {} (at, ingestedAt, outcome, facet, source, externalId, action,
            actorId, actorEmail, actorName, actorIp, targetType, targetId, targetName,
            tenantSlug, metadata)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
         ON CONFLICT (source, externalId) DO NOTHING",
        tables.events
    ))?;
    for row in std::mem::take(&mut piece.rows) {
        let inserted = match row {
            Row::Rejected(reason) => {
                records.push(Fate::Rejected(reason));
                continue;
            }
            Row::Event(mut row) => {
                let inserted = insert_event(&mut insert, &piece, &row, now);
                if matches!(inserted, Ok(true)) {
                    let place = (transaction.last_insert_rowid(), row.at);
                    let keys = std::mem::take(&mut row.keys);
                    let tenant = piece.text(&row, TENANT);
                    let facet = || piece.facet(&row);
                    indexing.add(place, tenant, keys, facet);
                }
                inserted
            }
            Row::DeadLetter(letter) => insert_letter(transaction, tables, &letter),
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
    Ok(())
}

/// `false`: it was there.
fn insert_event(
    insert: &mut Statement<'_>,
    piece: &Piece,
    row: &EventRow,
    now: i64,
) -> rusqlite::Result<bool> {
    let outcome = row.outcome.map(Outcome::as_str);
    let first = params![row.at, now, outcome, row.keys.facet];
    for (index, value) in first.iter().enumerate() {
        insert.raw_bind_parameter(index + 1, value)?;
    }
    for column in 0..COLUMNS {
        insert.raw_bind_parameter(first.len() + column + 1, piece.text(row, column))?;
    }
    Ok(insert.raw_execute()? > 0)
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
