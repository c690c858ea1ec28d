//! Deletion of what is old, a bounded part at a time: the writer's own commits go in between.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::counts::Changes;
use super::packs::{self, Leaving};
use super::query::ceiling;
use super::schema::Tables;
use super::{gathered, index, query};
use crate::store::keys::{TEXTS_OUTLIVE, day};

/// Old texts that are found before they are deleted: some bytes of memory each.
const FOUND_AT_ONCE: usize = 500_000;

/// Deletes the oldest events, and what they were found by: as many as there is time for, but one at least. `None`: none
/// yet. Terms of some were gathered, and there was no time to put all of them away.
pub(super) fn delete_events(
    connection: &mut Connection,
    tables: &Tables,
    before: Timestamp,
    limit: u32,
    portion: Duration,
) -> rusqlite::Result<Option<u64>> {
    let transaction = super::write_transaction(connection)?;
    let until = Instant::now() + portion;
    let old = query::oldest(&transaction, tables, ceiling(before), limit)?;
    let ids = old.iter().filter_map(|event| query::parse_id(&event.id));
    let last = ids.max().unwrap_or_default();
    while gathered::has(&transaction, tables, last)? {
        gathered::put_away(&transaction, tables)?;
        if Instant::now() >= until {
            transaction.commit()?;
            return Ok(None);
        }
    }
    let mut delete =
        transaction.prepare_cached(&format!("DELETE FROM {} WHERE id = ?1", tables.events))?;
    let (mut deleted, mut counts) = (0, Changes::default());
    for event in &old {
        let Some(id) = query::parse_id(&event.id) else {
            continue;
        };
        index::forget(&transaction, tables, (id, event), &mut counts)?;
        deleted += delete.execute([id])?;
        if Instant::now() >= until {
            break;
        }
    }
    drop(delete);
    counts.apply(&transaction, tables)?;
    transaction.commit()?;
    Ok(Some(deleted as u64))
}

/// Texts of events that are long gone, between the portions in which they are looked for and deleted: how far that is.
#[derive(Clone, Debug, Default)]
pub(super) struct OldTexts(Arc<Mutex<Reached>>);

#[derive(Debug, Default)]
struct Reached {
    /// The last text of the dictionary that was looked at.
    text: (String, Vec<u8>),
    is_end: bool,
    found: Leaving,
}

impl OldTexts {
    /// Whether some are found, and are to be deleted before more are looked for.
    pub(super) fn is_found(&self) -> bool {
        let reached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !reached.found.terms.is_empty()
    }

    /// Looks for some; whether there is more to do.
    pub(super) fn look(
        &self,
        connection: &Connection,
        tables: &Tables,
        before: Timestamp,
        portion: Duration,
    ) -> rusqlite::Result<bool> {
        let until = Instant::now() + portion;
        let mut reached = self.take();
        reached.is_end = true;
        reached.found.pack = 0;
        let mut select = connection.prepare_cached(&format!(
            "SELECT day, scope, id FROM {} WHERE (scope, id) > (?1, ?2) ORDER BY scope, id",
            tables.texts
        ))?;
        let mut rows = select.query(params![reached.text.0, reached.text.1])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            if row.get::<_, i32>(0)? < leaving_day(before) {
                let terms = reached.found.terms.entry(row.get(1)?).or_default();
                terms.extend(row.get_ref(2)?.as_blob()?.first_chunk::<8>());
                found += 1;
            }
            if found >= FOUND_AT_ONCE || Instant::now() >= until {
                reached.text = (row.get(1)?, row.get(2)?);
                reached.is_end = false;
                break;
            }
        }
        Ok(self.go_on(reached))
    }

    /// Deletes some of those that are found, but for those that were met again; whether there is more to do.
    pub(super) fn delete(
        &self,
        connection: &mut Connection,
        tables: &Tables,
        before: Timestamp,
        portion: Duration,
    ) -> rusqlite::Result<bool> {
        let transaction = super::write_transaction(connection)?;
        let until = Instant::now() + portion;
        let mut reached = self.take();
        let day = leaving_day(before);
        packs::forget(&transaction, tables, &mut reached.found, day, until)?;
        transaction.commit()?;
        Ok(self.go_on(reached))
    }

    /// What fails begins again at the first text.
    fn take(&self) -> Reached {
        let mut reached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *reached)
    }

    fn go_on(&self, reached: Reached) -> bool {
        let is_done = reached.is_end && reached.found.terms.is_empty();
        if !is_done {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reached;
        }
        !is_done
    }
}

/// Texts of which the last event happened and was entered before this day leave.
fn leaving_day(before: Timestamp) -> i32 {
    day(before.as_millisecond()) - TEXTS_OUTLIVE
}

/// Deletes the dead letters that were last met the longest ago: as many as there is time for, but one at least. Each may
/// have some MiB.
pub(super) fn delete_letters(
    connection: &mut Connection,
    tables: &Tables,
    before: Timestamp,
    limit: u32,
    portion: Duration,
) -> rusqlite::Result<u64> {
    let transaction = super::write_transaction(connection)?;
    let until = Instant::now() + portion;
    let letters = &tables.dead_letters;
    let old: Vec<i64> = transaction
        .prepare_cached(&format!(
            "SELECT id FROM {letters} WHERE lastAt < ?1 ORDER BY lastAt, id LIMIT ?2"
        ))?
        .query_map(params![ceiling(before), limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut delete = transaction.prepare_cached(&format!("DELETE FROM {letters} WHERE id = ?1"))?;
    let mut deleted = 0;
    for id in old {
        deleted += delete.execute([id])?;
        if Instant::now() >= until {
            break;
        }
    }
    drop(delete);
    transaction.commit()?;
    Ok(deleted as u64)
}
