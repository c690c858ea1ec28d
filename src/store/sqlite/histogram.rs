//! Counts by time: from counted days and the indexes alone where the filter asks for facets, or for a text that
//! stands in them, else from the events that it finds, each of which is looked at once.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::counts;
use super::gathered::Gathered;
use super::plan::{self, Asks, Key, Way};
use super::query::{ceiling, conditions};
use super::schema::Tables;
use crate::store::histogram::{DAY, Grid};
use crate::store::keys::{Facet, asks_facets};
use crate::store::{EventFilter, Histogram};

/// More facets than this are counted in one pass over all events.
const FEW_FACETS: usize = 8;

/// Counting looks up more texts than a page does: it has to meet every event anyway.
const MOST_TEXTS: usize = 50_000;

/// With more events than this of the texts found, all are looked through: these are held in memory.
const MOST_LISTED: usize = 1_000_000;

pub(super) fn count_by_time(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    buckets: u32,
) -> rusqlite::Result<Histogram> {
    // One view of the file for the range and for what lies in it.
    let view = connection.unchecked_transaction()?;
    let (since, until) = (filter.since.map(ceiling), filter.until.map(ceiling));
    let bounds = (since.unwrap_or(i64::MIN), until.unwrap_or(i64::MAX));
    let parts = parts(&view, tables, filter, bounds)?;
    let found = if since.is_some() && until.is_some() {
        None
    } else {
        range(&view, tables, filter, bounds, &parts)?
    };
    let first = since.or(found.map(|(first, _)| first));
    let last = until.or(found.map(|(_, last)| last + 1));
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Grid::empty(since, until).finish());
    };
    let mut grid = Grid::new(first, last, buckets);
    count_facets(&view, tables, (first, last), &parts.whole, &mut grid)?;
    for (at, facet) in &parts.listed {
        if let Some(facet) = parts.rest.get(facet) {
            grid.add(*at, &facet.source, 1);
        }
    }
    if let Some(way) = &parts.looked_through {
        count_events(&view, tables, filter, &parts, way, &mut grid)?;
    }
    Ok(grid.finish())
}

/// How the events of a filter are counted, each in one of three ways.
struct Parts {
    /// The filter asks for nothing but a time.
    everything: bool,
    /// Every event of these facets.
    whole: HashMap<i64, Facet>,
    /// Other facets that the filter allows.
    rest: HashMap<i64, Facet>,
    /// Time and facet of events that are known already, oldest first.
    listed: Vec<(i64, i64)>,
    /// The way to events of which each is asked; none of a whole facet is among them.
    looked_through: Option<Way>,
    /// Events of its terms that their table does not have yet.
    gathered: Gathered,
}

fn parts(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    bounds: (i64, i64),
) -> rusqlite::Result<Parts> {
    let plan = plan::plan(connection, tables, filter, MOST_TEXTS)?;
    let everything = matches!((&plan.asks, &plan.way), (Asks::Facets, Way::Time));
    let (mut whole, mut rest) = (HashMap::new(), HashMap::new());
    match plan.asks {
        Asks::Facets => whole = plan.facets,
        Asks::Text => {
            let text = filter.text.as_deref().unwrap_or_default();
            let facets = plan.facets.into_iter();
            (whole, rest) = facets.partition(|(_, facet)| facet.surely_has(text));
        }
        Asks::Terms => {
            return Ok(Parts {
                everything,
                whole,
                rest,
                listed: Vec::new(),
                looked_through: Some(plan.way),
                gathered: plan.gathered,
            });
        }
    }
    let (mut terms, mut facets) = (Vec::new(), HashSet::new());
    let mut listed = None;
    if let Way::Keys(keys) = &plan.way {
        for key in keys {
            match key {
                Key::Term(term) => terms.push(*term),
                Key::Facet(facet) => {
                    if rest.contains_key(facet) {
                        facets.insert(*facet);
                    }
                }
            }
        }
        terms.sort_unstable();
        // What these facets have is looked through.
        let other = |facet: i64| rest.contains_key(&facet) && !facets.contains(&facet);
        let is_asked = (whole.len() + facets.len() > 0 || asks_facets(filter))
            .then_some(&other as &dyn Fn(i64) -> bool);
        let gathered = &plan.gathered;
        listed = list(
            connection, tables, filter, bounds, &terms, gathered, is_asked,
        )?;
    }
    let looked_through = match (&listed, rest.is_empty()) {
        (_, true) => None,
        (Some(_), _) if facets.is_empty() => None,
        (Some(_), _) => Some(Way::Keys(facets.into_iter().map(Key::Facet).collect())),
        (None, _) => Some(Way::Time),
    };
    Ok(Parts {
        everything,
        whole,
        rest,
        listed: listed.unwrap_or_default(),
        looked_through,
        gathered: plan.gathered,
    })
}

/// Time and facet of the events that have one of some terms, a facet that is asked for (if not all are), and what
/// else the filter wants; `None`: they are too many.
fn list(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    (since, until): (i64, i64),
    terms: &[i64],
    gathered: &Gathered,
    is_asked: Option<&dyn Fn(i64) -> bool>,
) -> rusqlite::Result<Option<Vec<(i64, i64)>>> {
    let mut of_term = connection.prepare_cached(&format!(
        "SELECT at, event FROM {} WHERE term = ?1 AND at >= ?2 AND at < ?3",
        tables.terms
    ))?;
    let mut events: Vec<(i64, i64)> = Vec::new();
    for term in terms {
        let mut rows = of_term.query(params![term, since, until])?;
        while let Some(row) = rows.next()? {
            events.push((row.get(0)?, row.get(1)?));
        }
        events.extend(gathered.events(*term));
        if events.len() > MOST_LISTED {
            return Ok(None);
        }
    }
    events.sort_unstable();
    events.dedup();
    let mut facet_of = connection.prepare_cached(&format!(
        "SELECT facet FROM {} INDEXED BY {} WHERE at = ?1 AND id = ?2",
        tables.events, tables.by_time
    ))?;
    let (conditions, mut values) = conditions(filter, None);
    // A term's texts are the same when folded, which is not what everybody takes for the same letters.
    let mut meant = connection.prepare_cached(&format!(
        "SELECT facet FROM {} WHERE id = ?{} AND {conditions}",
        tables.events,
        values.len() + 1
    ))?;
    values.push(Sql::Null);
    let mut listed = Vec::new();
    for (at, event) in events {
        // The index tells before the event itself is read.
        if let Some(is_asked) = is_asked {
            let facet = facet_of.query_row([at, event], |row| row.get::<_, Option<i64>>(0));
            if !facet.optional()?.flatten().is_some_and(is_asked) {
                continue;
            }
        }
        if let Some(last) = values.last_mut() {
            *last = Sql::Integer(event);
        }
        let facet = meant.query_row(params_from_iter(&values), |row| {
            row.get::<_, Option<i64>>(0)
        });
        listed.extend(facet.optional()?.flatten().map(|facet| (at, facet)));
    }
    Ok(Some(listed))
}

/// The times of the first and the last event.
fn range(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    bounds: (i64, i64),
    parts: &Parts,
) -> rusqlite::Result<Option<(i64, i64)>> {
    if parts.everything {
        return range_of_events(connection, tables, filter, parts, &Way::Time);
    }
    let listed = parts.listed.first().zip(parts.listed.last());
    let ranges = [
        range_of_facets(connection, tables, bounds, &parts.whole)?,
        listed.map(|(first, last)| (first.0, last.0)),
        match &parts.looked_through {
            Some(way) => range_of_events(connection, tables, filter, parts, way)?,
            None => None,
        },
    ];
    let both = |one: (i64, i64), other: (i64, i64)| (one.0.min(other.0), one.1.max(other.1));
    Ok(ranges.into_iter().flatten().reduce(both))
}

fn range_of_facets(
    connection: &Connection,
    tables: &Tables,
    (since, until): (i64, i64),
    facets: &HashMap<i64, Facet>,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let within = format!(
        "FROM {} WHERE facet = ?1 AND at >= ?2 AND at < ?3",
        tables.events
    );
    let mut first = connection.prepare_cached(&format!("SELECT min(at) {within}"))?;
    let mut last = connection.prepare_cached(&format!("SELECT max(at) {within}"))?;
    let mut range: Option<(i64, i64)> = None;
    for facet in facets.keys() {
        let values = params![facet, since, until];
        let Some(oldest) = first.query_row(values, |row| row.get::<_, Option<i64>>(0))? else {
            continue;
        };
        let newest = last.query_row(values, |row| row.get::<_, Option<i64>>(0))?;
        let newest = newest.unwrap_or(oldest);
        range = Some(range.map_or((oldest, newest), |(first, last)| {
            (first.min(oldest), last.max(newest))
        }));
    }
    Ok(range)
}

fn count_facets(
    connection: &Connection,
    tables: &Tables,
    (first, last): (i64, i64),
    facets: &HashMap<i64, Facet>,
    grid: &mut Grid,
) -> rusqlite::Result<()> {
    if facets.is_empty() {
        return Ok(());
    }
    let by_days = grid.units().contains(&DAY);
    let (begin, end) = (first + (-first).rem_euclid(DAY), last.div_euclid(DAY) * DAY);
    if !by_days || begin >= end {
        return count_uncut(connection, tables, (first, last), facets, grid);
    }
    count_uncut(connection, tables, (first, begin), facets, grid)?;
    counts::tell(connection, tables, (begin, end), |day, facet, events| {
        if let Some(facet) = facets.get(&facet) {
            grid.add(day, &facet.source, events);
        }
    })?;
    count_uncut(connection, tables, (end, last), facets, grid)
}

/// The same where no day serves.
fn count_uncut(
    connection: &Connection,
    tables: &Tables,
    (first, last): (i64, i64),
    facets: &HashMap<i64, Facet>,
    grid: &mut Grid,
) -> rusqlite::Result<()> {
    if first >= last {
        return Ok(());
    }
    if facets.len() <= FEW_FACETS {
        let mut select = connection.prepare_cached(&format!(
            "SELECT at FROM {} WHERE facet = ?1 AND at >= ?2 AND at < ?3",
            tables.events
        ))?;
        for (key, facet) in facets {
            let mut rows = select.query(params![key, first, last])?;
            while let Some(row) = rows.next()? {
                grid.add(row.get(0)?, &facet.source, 1);
            }
        }
        return Ok(());
    }
    let mut select = connection.prepare_cached(&format!(
        "SELECT at, facet FROM {} INDEXED BY {} WHERE at >= ?1 AND at < ?2",
        tables.events, tables.by_time
    ))?;
    let mut counts: HashMap<(i64, i64), u64> = HashMap::new();
    let mut rows = select.query(params![first, last])?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        let bar = (at - grid.start()) / grid.width();
        *counts.entry((bar, row.get(1)?)).or_default() += 1;
    }
    for ((bar, facet), count) in counts {
        if let Some(facet) = facets.get(&facet) {
            grid.add_to(bar, &facet.source, count);
        }
    }
    Ok(())
}

/// `FROM … WHERE …` of the events that a way leads to; the numbers come from this program.
fn events_of(tables: &Tables, conditions: &str, parts: &Parts, way: &Way) -> String {
    let events = &tables.events;
    let Way::Keys(keys) = way else {
        let mut query = format!(
            "FROM {events} INDEXED BY {} WHERE {conditions}",
            tables.by_time
        );
        if !parts.whole.is_empty() && !parts.everything {
            let whole: Vec<String> = parts.whole.keys().map(i64::to_string).collect();
            let other = format!(" AND (facet IS NULL OR facet NOT IN ({}))", whole.join(","));
            query.push_str(&other);
        }
        return query;
    };
    let (mut facets, mut terms) = (String::from("NULL"), String::from("NULL"));
    let mut gathered: Vec<i64> = Vec::new();
    for key in keys {
        let events = key.term().map(|term| parts.gathered.events(term));
        gathered.extend(events.unwrap_or_default().iter().map(|(_, event)| event));
        // Writing into a string cannot fail.
        let _infallible = match key {
            Key::Facet(key) => write!(facets, ",{key}"),
            Key::Term(key) => write!(terms, ",{key}"),
        };
    }
    format!(
        "FROM {events} WHERE {conditions} AND id IN (
            SELECT event FROM {} WHERE term IN ({terms})
            UNION SELECT id FROM {events} WHERE facet IN ({facets})
            UNION SELECT value FROM json_each('{gathered:?}'))",
        tables.terms
    )
}

fn range_of_events(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    parts: &Parts,
    way: &Way,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let (conditions, values) = conditions(filter, None);
    let events = events_of(tables, &conditions, parts, way);
    let end = |order: &str| -> rusqlite::Result<Option<i64>> {
        let mut select =
            connection.prepare(&format!("SELECT at {events} ORDER BY at {order} LIMIT 1"))?;
        let mut rows = select.query(params_from_iter(&values))?;
        rows.next()?.map(|row| row.get(0)).transpose()
    };
    let Some(first) = end("ASC")? else {
        return Ok(None);
    };
    Ok(end("DESC")?.map(|last| (first, last)))
}

fn count_events(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    parts: &Parts,
    way: &Way,
    grid: &mut Grid,
) -> rusqlite::Result<()> {
    let (conditions, values) = conditions(filter, None);
    let events = events_of(tables, &conditions, parts, way);
    let mut select = connection.prepare(&format!("SELECT at, source {events}"))?;
    let mut rows = select.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        grid.add(row.get(0)?, row.get_ref(1)?.as_str()?, 1);
    }
    Ok(())
}
