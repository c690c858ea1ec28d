//! How a filter is answered: by time, or by the lists of events that some keys have, merged.
//!
//! Whatever the way, every condition of the filter is checked on the event itself.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use rusqlite::{Connection, params};

use super::gathered::Gathered;
use super::index::matching_facets;
use super::packs;
use super::query::{ceiling, parse_id};
use super::schema::Tables;
use crate::store::keys::{Facet, Term, asked_terms, asks_facets, fold};
use crate::store::{EventFilter, PageKey};

/// A text that more texts than this hold is looked for among the newest events before they are looked up.
pub(super) const MOST_TEXTS: usize = 2000;

/// Events that are few enough to be looked through.
const FEW: i64 = 2000;

/// With more facets than this, the newest events of any are looked at first.
const FEW_FACETS: usize = 32;

/// How many of them.
const LOOKED_AT: usize = 5000;

/// With more facets than this it is not asked whether few events have them.
const MOST_FACETS: usize = 1000;

/// Entries of a list that are read at once.
const READ_AHEAD: i64 = 16;

/// A key and the index that has its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Facet(i64),
    Term(i64),
}

/// The way of a filter.
#[derive(Debug)]
pub(super) enum Way {
    /// By time alone.
    Time,
    /// By the events of these keys.
    Keys(Vec<Key>),
}

/// What a filter asks of an event beside its time.
#[derive(Debug)]
pub(super) enum Asks {
    /// A facet.
    Facets,
    /// Some text in any place, and a facet.
    Text,
    /// A certain actor, address or target, and more.
    Terms,
}

/// What [`plan`] chooses.
#[derive(Debug)]
pub(super) struct Plan {
    pub way: Way,
    /// The facets that the filter allows.
    pub facets: HashMap<i64, Facet>,
    pub asks: Asks,
    /// Events of the way's terms that their table does not have yet.
    pub gathered: Gathered,
    /// Too many texts hold the one that is asked for: the way leads to any events.
    pub is_walk: bool,
}

/// Chooses the way; a text that more texts than `most_texts` hold is not looked up.
pub(super) fn plan(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    most_texts: usize,
) -> rusqlite::Result<Plan> {
    let asks_facets = asks_facets(filter);
    let asks_terms = filter.actor.is_some() || filter.ip.is_some() || filter.target.is_some();
    let facets = matching_facets(connection, tables, filter)?;
    let keys: Vec<Key> = facets.keys().copied().map(Key::Facet).collect();
    let mut gathered = Gathered::default();
    let mut is_walk = false;
    let (way, asks) = if asks_terms {
        let way;
        (way, gathered) = way_of_terms(connection, tables, filter, &facets, asks_facets)?;
        (way, Asks::Terms)
    } else if let Some(text) = filter.text.as_deref().filter(|text| !text.is_empty()) {
        let folded = fold(text);
        let few = asks_facets
            && keys.len() <= MOST_FACETS
            && count_few(connection, tables, filter, &keys, &gathered)? < FEW;
        let found = if few {
            None
        } else {
            let tenants = tenants(filter, &facets);
            packs::search(connection, tables, &tenants, &folded, most_texts)?
        };
        is_walk = !few && found.is_none();
        let way = match found {
            Some(found) => {
                gathered = Gathered::of(connection, tables, found.clone(), bounds(filter))?;
                let named = facets.iter().filter(|(_, facet)| facet.has(&folded));
                let named = named.map(|(key, _)| Key::Facet(*key));
                let terms = found.into_iter().map(Key::Term);
                Way::Keys(terms.chain(named).collect())
            }
            None if few || (asks_facets && keys.len() <= FEW_FACETS) => Way::Keys(keys),
            None => Way::Time,
        };
        (way, Asks::Text)
    } else if asks_facets {
        (Way::Keys(keys), Asks::Facets)
    } else {
        (Way::Time, Asks::Facets)
    };
    Ok(Plan {
        way,
        facets,
        asks,
        gathered,
        is_walk,
    })
}

/// The filter's range of time: first and end.
fn bounds(filter: &EventFilter) -> (i64, i64) {
    let since = filter.since.map_or(i64::MIN, ceiling);
    (since, filter.until.map_or(i64::MAX, ceiling))
}

/// The tenants of which a filter may find events.
fn tenants<'a>(
    filter: &'a EventFilter,
    facets: &'a HashMap<i64, Facet>,
) -> HashSet<Option<&'a str>> {
    match &filter.tenant {
        Some(tenant) => HashSet::from([Some(tenant.as_str())]),
        None => facets
            .values()
            .map(|facet| facet.tenant.as_deref())
            .collect(),
    }
}

/// The rarest of several conditions: the one that fewest events meet or, where many meet each, the one on which the
/// newest of them reach back furthest.
fn way_of_terms(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    facets: &HashMap<i64, Facet>,
    asks_facets: bool,
) -> rusqlite::Result<(Way, Gathered)> {
    let tenants = tenants(filter, facets);
    let asked = asked_terms(filter).into_iter();
    let mut ways: Vec<Vec<Key>> = asked
        .map(|(role, text)| {
            let term = |tenant: &Option<&str>| Key::Term(Term::new(*tenant, role, text).key);
            tenants.iter().map(term).collect()
        })
        .collect();
    let terms = ways.iter().flatten().filter_map(|key| key.term()).collect();
    let gathered = Gathered::of(connection, tables, terms, bounds(filter))?;
    if asks_facets {
        ways.push(facets.keys().copied().map(Key::Facet).collect());
    }
    let mut ranks = Vec::with_capacity(ways.len());
    for way in &ways {
        ranks.push(count_few(connection, tables, filter, way, &gathered)?);
    }
    if ways.len() > 1 && ranks.iter().all(|count| *count >= FEW) {
        for (rank, way) in ranks.iter_mut().zip(&ways) {
            *rank = reach(connection, tables, filter, way, &gathered)?;
        }
    }
    let rarest = ways.into_iter().zip(ranks).min_by_key(|(_, rank)| *rank);
    let keys = rarest.map_or_else(Vec::new, |(keys, _)| keys);
    Ok((Way::Keys(keys), gathered))
}

/// The time of the last of the [`FEW`] newest events of keys.
fn reach(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    keys: &[Key],
    gathered: &Gathered,
) -> rusqlite::Result<i64> {
    let mut newest = Merged::new(connection, tables, filter, None, keys.to_vec(), gathered)?;
    let mut reached = i64::MIN;
    for _ in 0..FEW {
        let Some((at, _)) = newest.next()? else {
            return Ok(i64::MIN);
        };
        reached = at;
    }
    Ok(reached)
}

/// Counts the events of keys in the filter's range of time, up to [`FEW`].
fn count_few(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    keys: &[Key],
    gathered: &Gathered,
) -> rusqlite::Result<i64> {
    let terms = keys.iter().filter_map(|key| key.term());
    let gathered: usize = terms.map(|term| gathered.events(term).len()).sum();
    let mut counted = i64::try_from(gathered).unwrap_or(FEW);
    for key in keys {
        if counted >= FEW {
            break;
        }
        let (table, column, _, key) = key.place(tables);
        let mut count = connection.prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table}
             WHERE {column} = ?1 AND at >= ?2 AND at < ?3 LIMIT ?4)"
        ))?;
        let (since, until) = bounds(filter);
        let rest = FEW - counted;
        let found = count.query_row(params![key, since, until, rest], |row| row.get::<_, i64>(0));
        counted += found?;
    }
    Ok(counted)
}

impl Key {
    /// The number of a term.
    pub(super) fn term(self) -> Option<i64> {
        match self {
            Self::Term(term) => Some(term),
            Self::Facet(_) => None,
        }
    }

    /// Table, columns of the key and the event's id, and the number.
    fn place(self, tables: &Tables) -> (&str, &'static str, &'static str, i64) {
        match self {
            Self::Facet(key) => (&tables.events, "facet", "id", key),
            Self::Term(key) => (&tables.terms, "term", "event", key),
        }
    }
}

/// What was read of a key's events; without a key there are no more of them.
#[derive(Default)]
struct List {
    key: Option<Key>,
    entries: VecDeque<(i64, i64)>,
}

/// (`at`, id) of events that keys have, newest first, each once.
pub(super) struct Merged<'a> {
    connection: &'a Connection,
    tables: &'a Tables,
    since: i64,
    lists: Vec<List>,
    /// The newest entry of each list that has one.
    heads: BinaryHeap<((i64, i64), usize)>,
    last: Option<(i64, i64)>,
}

impl<'a> Merged<'a> {
    /// Begins after a page, at the filter's range.
    pub(super) fn new(
        connection: &'a Connection,
        tables: &'a Tables,
        filter: &EventFilter,
        before: Option<&PageKey>,
        keys: Vec<Key>,
        gathered: &Gathered,
    ) -> rusqlite::Result<Self> {
        let (since, until) = bounds(filter);
        let mut from = (until, i64::MIN);
        if let Some(before) = before {
            let page = (
                before.at.as_millisecond(),
                parse_id(&before.id).unwrap_or(0),
            );
            from = from.min(page);
        }
        let mut merged = Self {
            connection,
            tables,
            since,
            lists: Vec::with_capacity(keys.len() + 1),
            heads: BinaryHeap::new(),
            last: None,
        };
        let terms = keys.iter().filter_map(|key| key.term());
        let events = terms.flat_map(|term| gathered.events(term)).copied();
        let mut events: Vec<(i64, i64)> = events.filter(|event| *event < from).collect();
        events.sort_unstable_by(|one, other| other.cmp(one));
        merged.lists.push(List {
            key: None,
            entries: events.into(),
        });
        merged.lists.extend(keys.into_iter().map(|key| List {
            key: Some(key),
            ..List::default()
        }));
        for list in 0..merged.lists.len() {
            // One entry tells where a list stands; more are read of those that come first.
            merged.read(list, from, 1)?;
        }
        Ok(merged)
    }

    fn read(&mut self, list: usize, from: (i64, i64), limit: i64) -> rusqlite::Result<()> {
        let List { key, entries } = &mut self.lists[list];
        if let Some(key) = key {
            let (table, column, id, key) = key.place(self.tables);
            let mut select = self.connection.prepare_cached(&format!(
                "SELECT at, {id} FROM {table}
                 WHERE {column} = ?1 AND at >= ?2 AND (at, {id}) < (?3, ?4)
                 ORDER BY at DESC, {id} DESC LIMIT ?5"
            ))?;
            let mut rows = select.query(params![key, self.since, from.0, from.1, limit])?;
            while let Some(row) = rows.next()? {
                entries.push_back((row.get(0)?, row.get(1)?));
            }
        }
        if let Some(head) = entries.pop_front() {
            self.heads.push((head, list));
        }
        Ok(())
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> rusqlite::Result<Option<(i64, i64)>> {
        while let Some((entry, list)) = self.heads.pop() {
            match self.lists[list].entries.pop_front() {
                Some(following) => self.heads.push((following, list)),
                None => self.read(list, entry, READ_AHEAD)?,
            }
            if self.last.replace(entry) != Some(entry) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// The ids of a page of facets' events, if so many are among the newest of any.
pub(super) fn among_newest(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    before: Option<&PageKey>,
    keys: &[Key],
    limit: u32,
) -> rusqlite::Result<Option<Vec<i64>>> {
    if keys.len() <= FEW_FACETS {
        return Ok(None);
    }
    let facets: HashSet<Key> = keys.iter().copied().collect();
    let until = filter.until.map_or(i64::MAX, ceiling);
    let page = before.map(|key| (key.at.as_millisecond(), parse_id(&key.id).unwrap_or(0)));
    let from = page.map_or((until, i64::MIN), |page| page.min((until, i64::MIN)));
    let mut select = connection.prepare_cached(&format!(
        "SELECT id, facet FROM {} WHERE at >= ?1 AND (at, id) < (?2, ?3)
         ORDER BY at DESC, id DESC LIMIT {LOOKED_AT}",
        tables.events
    ))?;
    let since = filter.since.map_or(i64::MIN, ceiling);
    let mut rows = select.query(params![since, from.0, from.1])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if found.len() == limit as usize {
            break;
        }
        if facets.contains(&Key::Facet(row.get(1)?)) {
            found.push(row.get(0)?);
        }
    }
    Ok((found.len() == limit as usize).then_some(found))
}
