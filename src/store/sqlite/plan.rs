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
use crate::store::keys::{Facet, asked_terms, asks_facets, fold, terms_in_each};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Terms that the filter asks for beside a key of the way: an event of the key must have them too.
    pub beside: HashMap<Key, Vec<i64>>,
    pub asks: Asks,
    /// Events of the way's terms that their table does not have yet.
    pub gathered: Gathered,
    /// Too many texts hold the one that is asked for: the way leads to any events.
    pub is_walk: bool,
}

/// Whether a filter asks for nothing but a time, so that no plan is needed.
pub(super) fn asks_nothing(filter: &EventFilter) -> bool {
    let has_text = filter.text.as_deref().is_some_and(|text| !text.is_empty());
    !has_text && !asks_facets(filter) && asked_terms(filter).is_empty()
}

/// Chooses the way; a text that more texts than `most_texts` hold is not looked up.
pub(super) fn plan(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    most_texts: usize,
) -> rusqlite::Result<Plan> {
    let asks_facets = asks_facets(filter);
    let asks_terms = !asked_terms(filter).is_empty();
    let facets = matching_facets(connection, tables, filter)?;
    let keys: Vec<Key> = facets.keys().copied().map(Key::Facet).collect();
    let mut gathered = Gathered::default();
    let mut beside = HashMap::new();
    let mut is_walk = false;
    let (way, asks) = if asks_terms {
        let led = way_of_terms(connection, tables, filter, &facets, asks_facets)?;
        (gathered, beside) = (led.gathered, led.beside);
        (Way::Keys(led.keys), Asks::Terms)
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
        beside,
        asks,
        gathered,
        is_walk,
    })
}

/// The filter's range of time: first and end.
pub(super) fn bounds(filter: &EventFilter) -> (i64, i64) {
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

/// One of several conditions that leads, and what the others ask of its events.
struct Led {
    keys: Vec<Key>,
    beside: HashMap<Key, Vec<i64>>,
    gathered: Gathered,
}

/// Lets the rarest of several conditions lead: the one that fewest events meet or, where many meet each, the one on
/// which the newest of them reach back furthest.
fn way_of_terms(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    facets: &HashMap<i64, Facet>,
    asks_facets: bool,
) -> rusqlite::Result<Led> {
    let tenants: Vec<Option<&str>> = tenants(filter, facets).into_iter().collect();
    // Each condition's terms, in the order of the tenants.
    let asked = asked_terms(filter).into_iter();
    let asked = asked.map(|(role, text)| terms_in_each(tenants.iter().copied(), role, text));
    let asked: Vec<Vec<i64>> = asked.collect();
    let gathered = Gathered::of(connection, tables, asked.concat(), bounds(filter))?;
    let terms = asked.iter().map(|terms| terms.iter().copied());
    let mut ways: Vec<Vec<Key>> = terms.map(|terms| terms.map(Key::Term).collect()).collect();
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
    let rarest = (0..ways.len()).min_by_key(|way| ranks[*way]);
    let leader = rarest.unwrap_or_default();
    let keys = ways.into_iter().nth(leader).unwrap_or_default();
    let others_of = |tenant: usize| -> Vec<i64> {
        let others = asked.iter().enumerate().filter(|(way, _)| *way != leader);
        others.map(|(_, terms)| terms[tenant]).collect()
    };
    let numbers: HashMap<Option<&str>, usize> = tenants.iter().copied().zip(0..).collect();
    let places = keys.iter().enumerate().map(|(number, key)| match key {
        // All that an event is found by is its tenant's.
        Key::Term(_) => Some(number),
        Key::Facet(facet) => numbers.get(&facets.get(facet)?.tenant.as_deref()).copied(),
    });
    let beside = keys.iter().zip(places);
    let beside = beside.filter_map(|(key, place)| Some((*key, others_of(place?))));
    Ok(Led {
        beside: beside.collect(),
        keys,
        gathered,
    })
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
        let Some(found) = newest.next()? else {
            return Ok(i64::MIN);
        };
        reached = found.event.0;
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

    /// The number of a facet.
    pub(super) fn facet(self) -> Option<i64> {
        match self {
            Self::Facet(facet) => Some(facet),
            Self::Term(_) => None,
        }
    }

    /// Table, columns of the key and the event's id, and the number.
    pub(super) fn place(self, tables: &Tables) -> (&str, &'static str, &'static str, i64) {
        match self {
            Self::Facet(key) => (&tables.events, "facet", "id", key),
            Self::Term(key) => (&tables.terms, "term", "event", key),
        }
    }
}

/// What was read of a key's events; of gathered ones there are no more.
struct List {
    key: Key,
    is_gathered: bool,
    entries: VecDeque<(i64, i64)>,
}

/// (`at`, id) of an event, and the key that led to it.
pub(super) struct Found {
    pub event: (i64, i64),
    pub key: Key,
}

/// Events that keys have, newest first, each once.
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
            lists: Vec::with_capacity(keys.len()),
            heads: BinaryHeap::new(),
            last: None,
        };
        for key in keys {
            let events = key.term().map_or(&[][..], |term| gathered.events(term));
            let events = &events[..events.partition_point(|event| *event < from)];
            if !events.is_empty() {
                merged.lists.push(List {
                    key,
                    is_gathered: true,
                    entries: events.iter().rev().copied().collect(),
                });
            }
            merged.lists.push(List {
                key,
                is_gathered: false,
                entries: VecDeque::new(),
            });
        }
        for list in 0..merged.lists.len() {
            // One entry tells where a list stands; more are read of those that come first.
            merged.read(list, from, 1)?;
        }
        Ok(merged)
    }

    fn read(&mut self, list: usize, from: (i64, i64), limit: i64) -> rusqlite::Result<()> {
        let List {
            key,
            is_gathered,
            entries,
        } = &mut self.lists[list];
        if !*is_gathered {
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

    /// The next event.
    pub(super) fn next(&mut self) -> rusqlite::Result<Option<Found>> {
        while let Some((entry, list)) = self.heads.pop() {
            match self.lists[list].entries.pop_front() {
                Some(following) => self.heads.push((following, list)),
                None => self.read(list, entry, READ_AHEAD)?,
            }
            if self.last.replace(entry) != Some(entry) {
                let key = self.lists[list].key;
                return Ok(Some(Found { event: entry, key }));
            }
        }
        Ok(None)
    }
}

/// The ids of a page of facets' events, if so many are among the newest of any or there are no more.
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
    let mut looked_at = 0;
    while found.len() < limit as usize {
        let Some(row) = rows.next()? else {
            return Ok((looked_at < LOOKED_AT).then_some(found));
        };
        looked_at += 1;
        if facets.contains(&Key::Facet(row.get(1)?)) {
            found.push(row.get(0)?);
        }
    }
    Ok(Some(found))
}
