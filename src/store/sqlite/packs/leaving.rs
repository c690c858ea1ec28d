//! Texts leave the dictionary and the packs alike.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::schema::Tables;
use super::{Pack, Packing, Packs};

/// Texts that are to be deleted.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Leaving {
    /// Their terms, by the tenant that they stand under.
    pub terms: BTreeMap<String, HashSet<[u8; 8]>>,
    /// They were taken out of the packs up to this one.
    pub pack: i64,
}

/// Deletes as many of them as there is time for, from the dictionary and from the packs alike. Those that were met on
/// that day or later stay. So do those that no further pack holds: theirs may have become part of another meanwhile, and
/// the next look finds them again.
pub(in crate::store::sqlite) fn forget(
    transaction: &Connection,
    tables: &Tables,
    leaving: &mut Leaving,
    day: i32,
    until: Instant,
) -> rusqlite::Result<()> {
    if leaving.pack == 0 {
        // Whatever is queued is looked at as part of its tenant's.
        let nothing_new = Packing {
            new: Packs::new(),
            unfinished: None,
        };
        nothing_new.hand_out(transaction, tables)?;
    }
    let mut next = transaction.prepare_cached(&format!(
        "SELECT id, long, texts, keys, scope FROM {} WHERE id > ?1 ORDER BY id LIMIT 1",
        tables.packs
    ))?;
    let mut delete = transaction.prepare_cached(&format!(
        "DELETE FROM {} WHERE scope = ?1 AND id BETWEEN ?2 AND ?3 AND day < ?4",
        tables.texts
    ))?;
    let mut others = transaction.prepare_cached(&format!(
        "SELECT 1 FROM {} WHERE scope = ?1 AND id BETWEEN ?2 AND ?3",
        tables.texts
    ))?;
    let mut forget = |scope: &str, term: &[u8; 8]| -> rusqlite::Result<bool> {
        // An id begins with its term, which another may have been given on purpose.
        let last = [*term, [0xFF; 8]].concat();
        let is_deleted = delete.execute(params![scope, &term[..], last, day])? > 0;
        Ok(is_deleted && !others.exists(params![scope, &term[..], last])?)
    };
    while !leaving.terms.is_empty() {
        let read = |row: &Row<'_>| {
            let scope: String = row.get(4)?;
            let pack = match leaving.terms.contains_key(&scope) {
                true => Some(Pack::read(row)?.1),
                false => None,
            };
            Ok((row.get(0)?, scope, pack))
        };
        let found: Option<(i64, String, Option<Pack>)> =
            next.query_row([leaving.pack], read).optional()?;
        let Some((id, scope, pack)) = found else {
            leaving.terms.clear();
            break;
        };
        let mut is_late = false;
        if let Some(pack) = pack
            && let Some(terms) = leaving.terms.get_mut(&scope)
        {
            let mut gone = HashSet::new();
            for term in pack.terms() {
                if !terms.remove(term) {
                    continue;
                }
                if forget(&scope, term)? {
                    gone.insert(*term);
                }
                is_late = Instant::now() >= until;
                if is_late {
                    break;
                }
            }
            if terms.is_empty() {
                leaving.terms.remove(&scope);
            }
            take_out(transaction, tables, (id, &pack), &gone)?;
        }
        if is_late {
            // The pack may hold more.
            break;
        }
        leaving.pack = id;
        if Instant::now() >= until {
            break;
        }
    }
    Ok(())
}

/// Takes terms out of a pack.
fn take_out(
    transaction: &Connection,
    tables: &Tables,
    (id, pack): (i64, &Pack),
    gone: &HashSet<[u8; 8]>,
) -> rusqlite::Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let packs = &tables.packs;
    let mut left = Pack::default();
    left.extend(pack, |term| !gone.contains(term));
    if left.is_empty() {
        let delete = format!("DELETE FROM {packs} WHERE id = ?1");
        transaction.prepare_cached(&delete)?.execute([id])?;
    } else {
        let mut update = transaction.prepare_cached(&format!(
            "UPDATE {packs} SET level = ?2, long = ?3, texts = ?4, keys = ?5 WHERE id = ?1"
        ))?;
        update.execute(params![id, left.level(), left.long, left.texts, left.keys])?;
    }
    Ok(())
}
