//! Counts by time.

use rusqlite::{Connection, params_from_iter};

use super::query::{ceiling, conditions};
use super::schema::Tables;
use crate::store::histogram::Grid;
use crate::store::{EventFilter, Histogram};

pub(super) fn count_by_time(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    buckets: u32,
) -> rusqlite::Result<Histogram> {
    // One view of the file for the range and for what lies in it.
    let view = connection.unchecked_transaction()?;
    let (conditions, values) = conditions(filter, None);
    let events = &tables.events;
    let outermost = |order: &str| -> rusqlite::Result<Option<i64>> {
        let mut select = view.prepare_cached(&format!(
            "SELECT at FROM {events} WHERE {conditions} ORDER BY at {order}, id {order} LIMIT 1"
        ))?;
        let mut rows = select.query(params_from_iter(&values))?;
        rows.next()?.map(|row| row.get(0)).transpose()
    };
    let (since, until) = (filter.since.map(ceiling), filter.until.map(ceiling));
    let first = match since {
        Some(since) => Some(since),
        None => outermost("ASC")?,
    };
    let last = match until {
        Some(until) => Some(until),
        None => outermost("DESC")?.map(|last| last + 1),
    };
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Grid::empty(since, until).finish());
    };
    let mut grid = Grid::new(first, last, buckets);
    let mut select = view.prepare_cached(&format!(
        "SELECT at, source FROM {events} WHERE {conditions}"
    ))?;
    let mut rows = select.query(params_from_iter(&values))?;
    while let Some(row) = rows.next()? {
        grid.add(row.get(0)?, row.get_ref(1)?.as_str()?, 1);
    }
    drop(rows);
    Ok(grid.finish())
}
