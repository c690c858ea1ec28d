//! Counts by time: from counted days and the indexes alone where the filter asks for facets, or for a text that
//! stands in them, else from the events that it finds, each of which is looked at once. While some events lack their
//! keys, all are looked through.

use std::collections::{HashMap, HashSet};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::counts;
use super::gathered::Gathered;
use super::lost;
use super::plan::{self, Asks, Key, Way, bounds};
use super::query::{ceiling, conditions, shown};
use super::schema::Tables;
use super::sieve::Sieve;
use crate::store::histogram::{DAY, Grid};
use crate::store::keys::{Facet, asks_facets};
use crate::store::{EventFilter, Histogram};

/// More facets than this are counted in one pass over all events.
const FEW_FACETS: usize = 8;

/// Counting looks up more texts than a page does: it has to meet every event anyway.
const MOST_TEXTS: usize = 50_000;

/// With more events than this of the keys that lead, all are looked through: these are held in memory.
const MOST_LISTED: usize = 2_000_000;

pub(super) fn count_by_time(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    buckets: u32,
) -> rusqlite::Result<Histogram> {
    // One view of the file for the range and for what lies in it.
    let view = connection.unchecked_transaction()?;
    let (since, until) = (filter.since.map(ceiling), filter.until.map(ceiling));
    let parts = parts(&view, tables, filter)?;
    let found = if since.is_some() && until.is_some() {
        None
    } else {
        range(&view, tables, filter, &parts)?
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
    if let Some(events) = &parts.looked_through {
        count_events(&view, tables, filter, &parts, events, &mut grid)?;
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
    /// Events of which each is asked; none of a whole facet is among them.
    looked_through: Option<Events>,
}

impl Parts {
    /// Each event is asked.
    fn of_all_events() -> Self {
        Self {
            everything: false,
            whole: HashMap::new(),
            rest: HashMap::new(),
            listed: Vec::new(),
            looked_through: Some(Events::All),
        }
    }
}

/// Events that are looked through.
enum Events {
    All,
    OfFacets(HashSet<i64>),
}

fn parts(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
) -> rusqlite::Result<Parts> {
    if lost::lacks_keys(connection, tables)? {
        return Ok(Parts::of_all_events());
    }
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
        Asks::Terms => rest = plan.facets,
    }
    let (mut leading, mut facets) = (Vec::new(), HashSet::new());
    let mut listed = None;
    if let Way::Keys(keys) = &plan.way {
        for key in keys {
            match key {
                Key::Facet(facet) if matches!(plan.asks, Asks::Facets | Asks::Text) => {
                    if rest.contains_key(facet) {
                        facets.insert(*facet);
                    }
                }
                key => leading.push(*key),
            }
        }
        leading.sort_unstable();
        // What these facets have is looked through.
        let other = |facet: i64| rest.contains_key(&facet) && !facets.contains(&facet);
        let is_asked = (whole.len() + facets.len() > 0 || asks_facets(filter))
            .then_some(&other as &dyn Fn(i64) -> bool);
        let sieve = Sieve::new(connection, tables, &plan.beside, &plan.gathered, is_asked)?;
        listed = list(connection, tables, filter, &leading, &plan.gathered, sieve)?;
    }
    if listed.is_none() && matches!(plan.asks, Asks::Terms) {
        // At least no event of another facet is looked at.
        facets.extend(leading.iter().filter_map(|key| key.facet()));
    }
    let looked_through = match (&listed, rest.is_empty()) {
        (_, true) => None,
        (Some(_), _) if facets.is_empty() => None,
        (Some(_), _) => Some(Events::OfFacets(facets)),
        (None, _) if matches!(plan.asks, Asks::Terms) && !facets.is_empty() => {
            Some(Events::OfFacets(facets))
        }
        (None, _) => Some(Events::All),
    };
    Ok(Parts {
        everything,
        whole,
        rest,
        listed: listed.unwrap_or_default(),
        looked_through,
    })
}

/// Time and facet of the events that have one of some keys, pass the sieve, and have what else the filter wants;
/// `None`: they are too many.
fn list(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    keys: &[Key],
    gathered: &Gathered,
    mut sieve: Sieve<'_>,
) -> rusqlite::Result<Option<Vec<(i64, i64)>>> {
    let (since, until) = bounds(filter);
    let mut events: Vec<(i64, i64)> = Vec::new();
    for key in keys {
        let (table, column, id, number) = key.place(tables);
        let mut of_key = connection.prepare_cached(&format!(
            "SELECT at, {id} FROM {table} WHERE {column} = ?1 AND at >= ?2 AND at < ?3"
        ))?;
        let mut rows = of_key.query(params![number, since, until])?;
        while let Some(row) = rows.next()? {
            let event = (row.get(0)?, row.get(1)?);
            if sieve.lets_through(*key, event)? {
                events.push(event);
            }
            if events.len() > MOST_LISTED {
                return Ok(None);
            }
        }
        for event in key.term().map_or(&[][..], |term| gathered.events(term)) {
            if sieve.lets_through(*key, *event)? {
                events.push(*event);
            }
        }
    }
    events.sort_unstable();
    events.dedup();
    let (conditions, mut values) = conditions(filter, None);
    // A term's texts are the same when folded, which is not what everybody takes for the same letters.
    let mut meant = connection.prepare_cached(&format!(
        "SELECT facet FROM {} WHERE id = ?{} AND {conditions}",
        tables.events,
        values.len() + 1
    ))?;
    values.push(Sql::Null);
    let mut listed = Vec::new();
    for event in events {
        if let Some(last) = values.last_mut() {
            *last = Sql::Integer(event.1);
        }
        let facet = meant.query_row(params_from_iter(&values), |row| row.get(0));
        let facet: Option<Option<i64>> = facet.optional()?;
        listed.extend(facet.flatten().map(|facet| (event.0, facet)));
    }
    Ok(Some(listed))
}

/// The times of the first and the last event.
fn range(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    parts: &Parts,
) -> rusqlite::Result<Option<(i64, i64)>> {
    if parts.everything {
        return range_of_events(connection, tables, filter, parts, &Events::All);
    }
    let listed = parts.listed.first().zip(parts.listed.last());
    let ranges = [
        range_of_facets(connection, tables, bounds(filter), &parts.whole)?,
        listed.map(|(first, last)| (first.0, last.0)),
        match &parts.looked_through {
            Some(events) => range_of_events(connection, tables, filter, parts, events)?,
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
    if !by_days || begin >= end || counts::rest(connection, tables)?.is_some() {
        return count_uncut(connection, tables, (first, last), facets, grid);
    }
    count_uncut(connection, tables, (first, begin), facets, grid)?;
    let mut days = Days::of(facets);
    counts::tell(connection, tables, (begin, end), |day, facet, events| {
        days.add(day, facet, events, grid);
    })?;
    days.finish(grid);
    count_uncut(connection, tables, (end, last), facets, grid)
}

/// Adds up the counts of days, which come ordered by day and facet: months of them are many.
struct Days<'f> {
    /// Key and place among the sources, in the keys' order.
    facets: Vec<(i64, usize)>,
    sources: Vec<&'f str>,
    /// The day that is added up, the first facet that may come next, and the sum of each source.
    day: i64,
    next: usize,
    sums: Vec<u64>,
}

impl<'f> Days<'f> {
    fn of(facets: &'f HashMap<i64, Facet>) -> Self {
        let mut sources: Vec<&str> = facets.values().map(|facet| &*facet.source).collect();
        sources.sort_unstable();
        sources.dedup();
        let place = |facet: &Facet| sources.partition_point(|source| *source < &*facet.source);
        let mut by_key: Vec<(i64, usize)> = facets
            .iter()
            .map(|(key, facet)| (*key, place(facet)))
            .collect();
        by_key.sort_unstable();
        Self {
            facets: by_key,
            day: i64::MIN,
            next: 0,
            sums: vec![0; sources.len()],
            sources,
        }
    }

    fn add(&mut self, day: i64, facet: i64, events: u64, grid: &mut Grid) {
        if day != self.day {
            self.finish(grid);
            (self.day, self.next) = (day, 0);
        }
        while let Some((key, source)) = self.facets.get(self.next)
            && *key <= facet
        {
            if *key == facet {
                self.sums[*source] += events;
            }
            self.next += 1;
        }
    }

    /// Puts the day into its bar.
    fn finish(&mut self, grid: &mut Grid) {
        for (source, sum) in self.sources.iter().zip(&mut self.sums) {
            match std::mem::take(sum) {
                0 => {}
                sum => grid.add(self.day, source, sum),
            }
        }
    }
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

/// `FROM … WHERE …` of events; the numbers come from this program.
fn from_where(tables: &Tables, conditions: &str, parts: &Parts, events: &Events) -> String {
    let numbers = |facets: &mut dyn Iterator<Item = &i64>| {
        let facets: Vec<String> = facets.map(i64::to_string).collect();
        facets.join(",")
    };
    let table = &tables.events;
    match events {
        Events::OfFacets(facets) => {
            let facets = numbers(&mut facets.iter());
            format!(
                "FROM {table} INDEXED BY {} WHERE facet IN ({facets}) AND {conditions}",
                tables.by_facet
            )
        }
        Events::All if parts.whole.is_empty() || parts.everything => {
            format!(
                "FROM {table} INDEXED BY {} WHERE {conditions}",
                tables.by_time
            )
        }
        Events::All => {
            let whole = numbers(&mut parts.whole.keys());
            format!(
                "FROM {table} INDEXED BY {} WHERE {conditions}
                 AND (facet IS NULL OR facet NOT IN ({whole}))",
                tables.by_time
            )
        }
    }
}

fn range_of_events(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    parts: &Parts,
    events: &Events,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let (conditions, values) = conditions(filter, None);
    let events = from_where(tables, &conditions, parts, events);
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
    events: &Events,
    grid: &mut Grid,
) -> rusqlite::Result<()> {
    let (conditions, values) = conditions(filter, None);
    let events = from_where(tables, &conditions, parts, events);
    let mut select = connection.prepare(&format!("SELECT at, source {events}"))?;
    let mut rows = select.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let source = shown(row.get_ref(1)?).unwrap_or_default();
        grid.add(row.get(0)?, &source, 1);
    }
    Ok(())
}
