//! What finds events fast: their facets, terms and texts (see `store::keys`), entered in the
//! transaction that enters the events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::counts::Changes;
use super::gathered::{self, Entry};
use super::lost;
use super::packs::Packing;
use super::query;
use super::schema::Tables;
use crate::event::Outcome;
use crate::store::keys::{EventKeys, Facet, KnownTexts, Term, TextId, day};
use crate::store::{EventFilter, StoredEvent};

/// A longer text is kept as [`LONG`]: whoever looks for anything looks at its events too.
const LONGEST: usize = 1024;

/// In the place of a long text.
pub(super) const LONG: &str = "\u{10FFFF}\u{10FFFF}";

/// Events that get their keys in one transaction.
const EVENTS_AT_ONCE: u32 = 1000;

/// What this process has seen to stand in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<KnownSets>>);

#[derive(Debug, Default)]
struct KnownSets {
    facets: HashSet<i64>,
    texts: KnownTexts,
    /// Whether terms may be gathered that this process should put away.
    has_gathered: bool,
}

impl Known {
    /// Lets go what the file may have lost.
    pub(super) fn forget(&self) {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sets.facets.clear();
        sets.texts = KnownTexts::default();
    }

    /// Puts some of the gathered terms away, in a transaction of its own. `false`: there are none, or this process
    /// entered nothing since there were none: who only reads leaves that to the one that writes.
    pub(super) fn put_away(
        &self,
        connection: &mut Connection,
        tables: &Tables,
    ) -> rusqlite::Result<bool> {
        let sets = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !sets().has_gathered {
            return Ok(false);
        }
        let transaction = super::write_transaction(connection)?;
        let is_more = gathered::put_away(&transaction, tables)?;
        transaction.commit()?;
        sets().has_gathered = is_more;
        Ok(is_more)
    }
}

/// Entries of one transaction: gathered event by event, written at its end in the order of the tables'
/// keys, so that pages are met one after the other, and remembered when it is committed.
pub(super) struct Indexing<'a> {
    known: &'a Known,
    tables: &'a Tables,
    facets: HashMap<i64, Facet>,
    texts: HashMap<TextId, NewText>,
    terms: Vec<Entry>,
    counts: Changes,
}

struct NewText {
    scope: String,
    term: Term<'static>,
    day: i32,
}

/// What an event is found by, with those of its texts that may be new.
#[derive(Default)]
pub(super) struct NewKeys {
    pub facet: i64,
    terms: Vec<i64>,
    texts: Vec<Term<'static>>,
    day: i32,
}

impl NewKeys {
    pub(super) fn of(keys: EventKeys<'_>, at: i64, now: i64, known: &Known) -> Self {
        let day = day(at.max(now));
        let terms = keys.terms.iter().map(|term| term.key).collect();
        let known = known.0.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = keys.terms.into_iter();
        let texts = texts.filter(|term| !known.texts.has(&term.id, day));
        Self {
            facet: keys.facet,
            terms,
            texts: texts.map(Term::into_owned).collect(),
            day,
        }
    }
}

impl<'a> Indexing<'a> {
    pub(super) fn new(known: &'a Known, tables: &'a Tables) -> Self {
        Self {
            known,
            tables,
            facets: HashMap::new(),
            texts: HashMap::new(),
            terms: Vec::new(),
            counts: Changes::default(),
        }
    }

    /// Adds what an event of a tenant is found by; `facet` is asked for when its number is new.
    pub(super) fn add(
        &mut self,
        (id, at): (i64, i64),
        tenant: Option<&str>,
        keys: NewKeys,
        facet: impl FnOnce() -> Facet,
    ) {
        self.counts.count(at, keys.facet, 1);
        let known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.facets.contains(&keys.facet) {
            self.facets.entry(keys.facet).or_insert_with(facet);
        }
        drop(known);
        self.terms
            .extend(keys.terms.into_iter().map(|term| (term, at, id)));
        for term in keys.texts {
            let text = self.texts.entry(term.id).or_insert_with(|| NewText {
                scope: scope(tenant),
                term,
                day: keys.day,
            });
            text.day = text.day.max(keys.day);
        }
    }

    /// Writes what was added.
    pub(super) fn write(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut insert = transaction.prepare_cached(&format!(
            "INSERT OR IGNORE INTO {} (key, tenantSlug, source, action, outcome, targetType)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            self.tables.facets
        ))?;
        for (key, facet) in &self.facets {
            insert.execute(params![
                key,
                facet.tenant,
                facet.source,
                facet.action,
                facet.outcome.map(Outcome::as_str),
                facet.target_kind,
            ])?;
        }
        let mut insert = transaction.prepare_cached(&format!(
            "INSERT OR IGNORE INTO {} (scope, id, text, day) VALUES (?1, ?2, ?3, ?4)",
            self.tables.texts
        ))?;
        let mut update = transaction.prepare_cached(&format!(
            "UPDATE {} SET day = max(day, ?3) WHERE scope = ?1 AND id = ?2",
            self.tables.texts
        ))?;
        let mut packing = Packing::begin(transaction, self.tables)?;
        let mut texts: Vec<&NewText> = self.texts.values().collect();
        texts.sort_unstable_by_key(|new| (&new.scope, new.term.id));
        for new in texts {
            let text = &*new.term.text;
            let text = if text.len() > LONGEST { LONG } else { text };
            if insert.execute(params![new.scope, new.term.id, text, new.day])? > 0 {
                packing.add(&new.scope, &new.term.id, text);
            } else {
                update.execute(params![new.scope, new.term.id, new.day])?;
            }
        }
        packing.write(transaction, self.tables)?;
        self.terms.sort_unstable();
        self.terms.dedup();
        gathered::enter(transaction, self.tables, &self.terms)?;
        self.counts.apply(transaction, self.tables)
    }

    /// To be called when the transaction is committed.
    pub(super) fn learn(self) {
        let mut known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.has_gathered |= !self.terms.is_empty();
        known.facets.extend(self.facets.into_keys());
        for (id, text) in self.texts {
            known.texts.learn(id, text.day);
        }
    }
}

/// Tells a missing tenant from every tenant.
pub(super) fn scope(tenant: Option<&str>) -> String {
    tenant.map_or_else(String::new, |slug| format!("={slug}"))
}

/// Gives keys to some of the events that have lost them, or that an older version entered; `false`: there are none.
pub(super) fn give_keys(
    connection: &mut Connection,
    tables: &Tables,
    known: &Known,
) -> rusqlite::Result<bool> {
    if !lost::lacks_keys(connection, tables)? {
        return Ok(false);
    }
    let transaction = super::write_transaction(connection)?;
    let rest = lost::rest(&transaction, tables)?;
    let events: Vec<StoredEvent> = match rest {
        Some(rest) => lost::first_of(&transaction, tables, rest, EVENTS_AT_ONCE)?,
        None => query::keyless(&transaction, tables, EVENTS_AT_ONCE)?,
    };
    if rest.is_none() && events.is_empty() {
        return Ok(false);
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let mut indexing = Indexing::new(known, tables);
    for event in &events {
        let Some(id) = query::parse_id(&event.id) else {
            continue;
        };
        let at = event.at.as_millisecond();
        let tenant = event.tenant_slug.as_deref();
        let keys = NewKeys::of(EventKeys::of_stored(event), at, now, known);
        let mut facet_of = transaction.prepare_cached(&format!(
            "SELECT facet FROM {} WHERE id = ?1",
            tables.events
        ))?;
        let former: Option<i64> = facet_of.query_row([id], |row| row.get(0))?;
        if let Some(former) = former {
            indexing.counts.count(at, former, -1);
        }
        let mut update = transaction.prepare_cached(&format!(
            "UPDATE {} SET facet = ?2 WHERE id = ?1 AND facet IS NOT ?2",
            tables.events
        ))?;
        update.execute(params![id, keys.facet])?;
        indexing.add((id, at), tenant, keys, || Facet::of_stored(event));
    }
    indexing.write(&transaction)?;
    if rest.is_some() {
        let reached = events.last().and_then(|event| query::parse_id(&event.id));
        lost::go_on(&transaction, tables, reached)?;
    }
    transaction.commit()?;
    indexing.learn();
    Ok(true)
}

/// Removes what an event was found by, of whose terms none is gathered.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    tables: &Tables,
    (id, event): (i64, &StoredEvent),
    counts: &mut Changes,
) -> rusqlite::Result<()> {
    let at = event.at.as_millisecond();
    let mut facet_of = transaction.prepare_cached(&format!(
        "SELECT facet FROM {} WHERE id = ?1",
        tables.events
    ))?;
    let facet: Option<Option<i64>> = facet_of.query_row([id], |row| row.get(0)).optional()?;
    if let Some(facet) = facet.flatten() {
        counts.count(at, facet, -1);
    }
    let mut delete = transaction.prepare_cached(&format!(
        "DELETE FROM {} WHERE term = ?1 AND at = ?2 AND event = ?3",
        tables.terms
    ))?;
    for term in EventKeys::of_stored(event).terms {
        delete.execute(params![term.key, at, id])?;
    }
    Ok(())
}

/// The facets that a filter allows, by their numbers.
pub(super) fn matching_facets(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
) -> rusqlite::Result<HashMap<i64, Facet>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT key, tenantSlug, source, action, outcome, targetType FROM {}
         WHERE ?1 IS NULL OR tenantSlug = ?1",
        tables.facets
    ))?;
    let facet = |row: &Row<'_>| {
        let outcome: Option<String> = row.get(4)?;
        let facet = Facet {
            tenant: row.get(1)?,
            source: row.get(2)?,
            action: row.get(3)?,
            outcome: outcome.as_deref().and_then(Outcome::from_word),
            target_kind: row.get(5)?,
        };
        Ok((row.get(0)?, facet))
    };
    let facets = select.query_map([&filter.tenant], facet)?;
    facets
        .filter(|facet| {
            !facet
                .as_ref()
                .is_ok_and(|(_, facet)| !facet.matches(filter))
        })
        .collect()
}
