//! Counts by time: from counted days and the indexes alone where the filter asks for facets alone,
//! else from the events that it finds.

use std::collections::HashMap;
use std::fmt::Write as _;

use rusqlite::{Connection, params, params_from_iter};

use super::counts;
use super::plan::{self, Key, Way};
use super::query::{ceiling, conditions};
use super::schema::Tables;
use crate::store::histogram::{DAY, Grid};
use crate::store::keys::Facet;
use crate::store::{EventFilter, Histogram};

/// More facets than this are counted in one pass over all events.
const FEW_FACETS: usize = 8;

pub(super) fn count_by_time(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    buckets: u32,
) -> rusqlite::Result<Histogram> {
    // One view of the file for the range and for what lies in it.
    let view = connection.unchecked_transaction()?;
    let plan = plan::plan(&view, tables, filter)?;
    let (since, until) = (filter.since.map(ceiling), filter.until.map(ceiling));
    let found = match (&plan.facets, &plan.way) {
        (Some(facets), Way::Keys(_)) => {
            let range = (since.unwrap_or(i64::MIN), until.unwrap_or(i64::MAX));
            range_of_facets(&view, tables, range, facets)?
        }
        (_, way) => range_of_events(&view, tables, filter, way)?,
    };
    let first = since.or(found.map(|(first, _)| first));
    let last = until.or(found.map(|(_, last)| last + 1));
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Grid::empty(since, until).finish());
    };
    let mut grid = Grid::new(first, last, buckets);
    match &plan.facets {
        Some(facets) => count_facets(&view, tables, (first, last), facets, &mut grid)?,
        None => count_events(&view, tables, filter, &plan.way, &mut grid)?,
    }
    Ok(grid.finish())
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
    let by_days = grid.width() % DAY == 0 || grid.is_single();
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
fn events_of(tables: &Tables, conditions: &str, way: &Way) -> String {
    let events = &tables.events;
    let Way::Keys(keys) = way else {
        return format!(
            "FROM {events} INDEXED BY {} WHERE {conditions}",
            tables.by_time
        );
    };
    let (mut facets, mut terms) = (String::from("NULL"), String::from("NULL"));
    for key in keys {
        // Writing into a string cannot fail.
        let _infallible = match key {
            Key::Facet(key) => write!(facets, ",{key}"),
            Key::Term(key) => write!(terms, ",{key}"),
        };
    }
    format!(
        "FROM {events} WHERE {conditions} AND id IN (
            SELECT event FROM {} WHERE term IN ({terms})
            UNION SELECT id FROM {events} WHERE facet IN ({facets}))",
        tables.terms
    )
}

fn range_of_events(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    way: &Way,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let (conditions, values) = conditions(filter, None);
    let events = events_of(tables, &conditions, way);
    let end = |order: &str| -> rusqlite::Result<Option<i64>> {
        let mut select =
            connection.prepare(&format!("SELECT at {events} ORDER BY at {order} LIMIT 1"))?;
        let mut rows = select.query(params_from_iter(&values))?;
        rows.next()?.map(|row| row.get(0)).transpose()
    };
    Ok(end("ASC")?.zip(end("DESC")?))
}

fn count_events(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    way: &Way,
    grid: &mut Grid,
) -> rusqlite::Result<()> {
    let (conditions, values) = conditions(filter, None);
    let events = events_of(tables, &conditions, way);
    let mut select = connection.prepare(&format!("SELECT at, source {events}"))?;
    let mut rows = select.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        grid.add(row.get(0)?, row.get_ref(1)?.as_str()?, 1);
    }
    Ok(())
}
