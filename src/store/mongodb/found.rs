//! What a filter found in hours and days that are over, kept in memory: whoever asks again, as a page
//! that is open does, waits only for what is new.
//!
//! Facets have their counts in the store ([`super::cells`]). Actors, addresses, targets and texts are
//! too many for that; what was counted of them holds under the same conditions, which the versions
//! of the store's cells tell: a cell changed if somebody marked it since.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, RawDocument, doc};
use mongodb::options::ReadConcern;
use tokio::sync::OnceCell;

use super::MongoStore;
use super::cells::{Cell, hot};
use super::means::{Means, within};
use crate::store::histogram::Grid;
use crate::store::{EventFilter, Result};

/// Of a longer range the newest cells: where one event is of 1970, every range is that long.
const MOST_CELLS: i64 = 5000;

/// Cells that are kept, of all filters together: some megabytes.
const KEPT_CELLS: usize = 50_000;

/// Filters that are kept, each with texts of some KiB.
const KEPT_FILTERS: usize = 500;

/// Then a filter is counted anew: somebody may have put other events in the place of these.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// Cells between two that have to be counted which are counted with them: a query more costs more.
const BRIDGED: usize = 3;

/// So long should a part of a count take: behind a shorter one more cells are counted at once, behind a longer one fewer.
pub(super) const A_PART: Duration = Duration::from_millis(500);

/// Events of a cell by source.
pub(super) type Counts = Arc<[(Arc<str>, u64)]>;

/// Of each filter what it found, the one that was asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct KeptFindings {
    filters: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    filter: EventFilter,
    since: Instant,
    /// With the version that the cell had.
    cells: HashMap<Cell, (i64, Counts)>,
}

/// What the store says of a cell: its version and when it was marked last.
type Versions = HashMap<Cell, (i64, i64)>;

impl KeptFindings {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// What is known of each cell that still has its version.
    fn known(
        &self,
        filter: &EventFilter,
        cells: &[Cell],
        versions: &Versions,
    ) -> Vec<Option<Counts>> {
        let mut filters = self.lock();
        filters.retain(|kept| kept.since.elapsed() < KEPT_FOR);
        let kept = filters.iter().find(|kept| kept.filter == *filter);
        let known = cells.iter().map(|cell| {
            let (version, counts) = kept?.cells.get(cell)?;
            (*version == version_of(versions, *cell)).then(|| Arc::clone(counts))
        });
        known.collect()
    }

    fn keep(&self, filter: &EventFilter, cells: impl Iterator<Item = (Cell, i64, Counts)>) {
        let mut cells = cells.peekable();
        let mut filters = self.lock();
        let place = filters.iter().position(|kept| kept.filter == *filter);
        if place.is_none() && cells.peek().is_none() {
            return;
        }
        let mut kept = place
            .and_then(|place| filters.remove(place))
            .unwrap_or_else(|| Kept {
                filter: filter.clone(),
                since: Instant::now(),
                cells: HashMap::new(),
            });
        kept.cells
            .extend(cells.map(|(cell, version, counts)| (cell, (version, counts))));
        filters.push_back(kept);
        let size = |kept: &Kept| kept.cells.len();
        let are_too_many = |filters: &VecDeque<Kept>| {
            filters.len() > KEPT_FILTERS || filters.iter().map(size).sum::<usize>() > KEPT_CELLS
        };
        while are_too_many(&filters) && filters.len() > 1 {
            filters.pop_front();
        }
    }
}

fn version_of(versions: &Versions, cell: Cell) -> i64 {
    versions.get(&cell).map_or(0, |(version, _)| *version)
}

/// Hours and days one after the other that fill a range: the largest that are of a unit given, which
/// are multiples of each other, largest first. Of too many the newest.
pub(super) fn cells_within(range: (i64, i64), units: &[i64]) -> Vec<Cell> {
    let Some((&unit, finer)) = units.split_first() else {
        return Vec::new();
    };
    let (from, to) = range;
    let end = to.div_euclid(unit) * unit;
    let from = from.max(end - MOST_CELLS * unit);
    let begin = from + (-from).rem_euclid(unit);
    if begin >= end {
        return cells_within(range, finer);
    }
    let mut cells = cells_within((from, begin), finer);
    cells.extend(Cell::row((begin, end), unit));
    cells.extend(cells_within((end, to), finer));
    cells
}

/// Cells one after the other, and what a filter found in each.
#[derive(Debug)]
pub(super) struct Findings(Vec<(Cell, Counts)>);

impl Findings {
    /// From the first one's beginning to the last one's end.
    pub(super) fn range(&self) -> (i64, i64) {
        let begin = self.0.first().map_or(0, |(cell, _)| cell.start());
        (begin, self.0.last().map_or(begin, |(cell, _)| cell.end()))
    }

    /// The widest one.
    pub(super) fn width(&self) -> i64 {
        let widths = self.0.iter().map(|(cell, _)| cell.width());
        widths.max().unwrap_or_default()
    }

    /// Those with events.
    pub(super) fn filled(&self) -> impl Iterator<Item = &(Cell, Counts)> {
        self.0.iter().filter(|(_, counts)| !counts.is_empty())
    }
}

/// Parts of a row of cells of one width in which something is missing; short ones in between are
/// part of them.
fn stretches(cells: &[Cell], is_known: &[bool]) -> Vec<Range<usize>> {
    let is_of_one_width = |from: usize, to: usize| {
        let row = &cells[from..=to];
        row.iter().all(|cell| cell.width() == row[0].width())
    };
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for (place, _) in is_known.iter().enumerate().filter(|(_, known)| !**known) {
        match stretches.last_mut() {
            Some(last) if place - last.end <= BRIDGED && is_of_one_width(last.start, place) => {
                last.end = place + 1;
            }
            _ => stretches.push(place..place + 1),
        }
    }
    stretches
}

/// One name for each source, however many cells it is in.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn counts(&mut self, counted: BTreeMap<String, u64>) -> Counts {
        let named = counted.into_iter().map(|(source, count)| {
            let name = match self.0.get(source.as_str()) {
                Some(name) => Arc::clone(name),
                None => {
                    let name: Arc<str> = source.into();
                    self.0.insert(Arc::clone(&name));
                    name
                }
            };
            (name, count)
        });
        named.collect()
    }
}

impl MongoStore {
    /// What a filter finds in cells, one after the other, that are over, of events that have keys. Its own bounds are
    /// not looked at. What it counted is kept part by part: to ask again after it was cut off goes on behind the last.
    pub(super) async fn count_over(
        &self,
        filter: &EventFilter,
        cells: Vec<Cell>,
        means: &OnceCell<Means>,
    ) -> Result<Findings> {
        let filter = EventFilter {
            since: None,
            until: None,
            ..filter.clone()
        };
        let begun = self.now();
        let before = self.versions(&cells).await?;
        let mut counts = self.kept_findings.known(&filter, &cells, &before);
        let is_known: Vec<bool> = counts.iter().map(Option::is_some).collect();
        let mut names = Names::default();
        for mut left in stretches(&cells, &is_known) {
            let means = means.get_or_try_init(|| self.means(&filter)).await?;
            let least = means.cells_at_once();
            let mut at_once = least;
            while !left.is_empty() {
                let part = left.start..left.end.min(left.start.saturating_add(at_once));
                left.start = part.end;
                let since = Instant::now();
                let row = &cells[part.clone()];
                let range = (row[0].start(), row[row.len() - 1].end());
                let mut grid = Grid::of_cells(range, row[0].width());
                let within = within(&filter, (Some(range.0), Some(range.1)));
                self.count_keyed(&mut grid, &within, range, means).await?;
                for (place, counted) in part.clone().zip(grid.into_bars()) {
                    counts[place] = Some(names.counts(counted));
                }
                let after = self.versions(row).await?;
                let counted = row.iter().zip(&counts[part]);
                let holding = counted.filter_map(|(cell, counts)| {
                    let (version, marked) = before.get(cell).copied().unwrap_or((0, i64::MIN));
                    let cold = cell.end().max(marked).saturating_add(hot());
                    let holds = cold <= begun && version_of(&after, *cell) == version;
                    holds.then_some((*cell, version, Arc::clone(counts.as_ref()?)))
                });
                self.kept_findings.keep(&filter, holding);
                at_once = if since.elapsed() < A_PART {
                    at_once.saturating_mul(4)
                } else {
                    (at_once / 2).max(least)
                };
            }
        }
        let counts = counts.into_iter().map(Option::unwrap_or_default);
        Ok(Findings(cells.into_iter().zip(counts).collect()))
    }

    /// Of the cells that were marked.
    async fn versions(&self, cells: &[Cell]) -> Result<Versions> {
        let rows = cells.chunk_by(|one, next| one.width() == next.width());
        let rows: Vec<Document> = rows
            .map(|row| {
                let (first, last) = (row[0], row[row.len() - 1]);
                doc! { "_id": { "$gte": first.id(), "$lte": last.id() } }
            })
            .collect();
        let found = self
            .cells
            .find(doc! { "$or": rows })
            .projection(doc! { "version": 1, "markedAt": 1 })
            .read_concern(ReadConcern::majority())
            .batch_size(10_000)
            .max_time(self.timeout)
            .await;
        let version = |document: &RawDocument| {
            let cell = Cell::of_id(document.get_document("_id").ok()?)?;
            let marked = document.get_datetime("markedAt").ok();
            let marked = marked.map_or(i64::MIN, |at| at.timestamp_millis());
            Some((cell, (document.get_i64("version").ok()?, marked)))
        };
        let versions = super::collect(found, version).await?;
        Ok(versions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::histogram::{DAY, HOUR};

    fn counts(count: u64) -> Counts {
        Arc::new([("s".into(), count)])
    }

    fn of(actor: usize) -> EventFilter {
        EventFilter {
            actor: Some(actor.to_string()),
            ..EventFilter::default()
        }
    }

    fn days(count: i64) -> Vec<Cell> {
        Cell::row((0, count * DAY), DAY).collect()
    }

    #[test]
    fn a_range_is_filled_with_the_largest_cells() {
        let both = [DAY, HOUR];
        let cells = cells_within((-2 * HOUR - 1, 2 * DAY + HOUR + 1), &both);
        let expected = Cell::row((-2 * HOUR, 0), HOUR)
            .chain(Cell::row((0, 2 * DAY), DAY))
            .chain(Cell::row((2 * DAY, 2 * DAY + HOUR), HOUR));
        assert_eq!(cells, expected.collect::<Vec<_>>());
        let hours = cells_within((HOUR - 1, DAY - 1), &both);
        assert_eq!(
            hours,
            Cell::row((HOUR, 23 * HOUR), HOUR).collect::<Vec<_>>()
        );
        assert_eq!(cells_within((1, HOUR), &both), []);
        assert_eq!(cells_within((0, DAY), &[]), []);
        let newest = Cell::row((DAY, (MOST_CELLS + 1) * DAY), DAY);
        let cells = cells_within((-HOUR, (MOST_CELLS + 1) * DAY), &both);
        assert_eq!(cells, newest.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_missing_is_counted_in_few_stretches() {
        let known = |row: &str| row.chars().map(|c| c == '#').collect::<Vec<bool>>();
        let days = days(11);
        assert!(stretches(&days, &known("###")).is_empty());
        assert_eq!(stretches(&days, &known("....####..")), [0..4, 8..10]);
        assert_eq!(stretches(&days, &known("#.###.####.")), [1..6, 10..11]);
        let mixed = cells_within((-2 * HOUR, DAY + HOUR), &[DAY, HOUR]);
        assert_eq!(stretches(&mixed, &known("....")), [0..2, 2..3, 3..4]);
        assert_eq!(stretches(&mixed, &known("..#.")), [0..2, 3..4]);
    }

    #[test]
    fn a_cell_with_another_version_is_not_known() {
        let kept = KeptFindings::default();
        let days = days(3);
        let found = [(days[0], 0, counts(5)), (days[1], 3, counts(6))];
        kept.keep(&of(1), found.into_iter());
        let versions = |version: i64| HashMap::from([(days[1], (version, 0))]);
        let known = |filter, version| kept.known(&filter, &days, &versions(version));
        assert_eq!(known(of(1), 3), [Some(counts(5)), Some(counts(6)), None]);
        assert_eq!(known(of(1), 4), [Some(counts(5)), None, None]);
        assert_eq!(known(of(2), 3), [None, None, None]);
        let hour = Cell::row((0, HOUR), HOUR).collect::<Vec<_>>();
        assert_eq!(kept.known(&of(1), &hour, &versions(3)), [None]);
    }

    #[test]
    fn the_filter_that_was_counted_longest_ago_goes_first() {
        let kept = KeptFindings::default();
        let days = days(KEPT_CELLS as i64 / 4);
        for filter in [1, 2, 3, 4, 1, 5] {
            let found = days.iter().map(|day| (*day, 0, counts(1)));
            kept.keep(&of(filter), found);
        }
        let is_known = |filter| kept.known(&of(filter), &days[..1], &HashMap::new())[0].is_some();
        assert_eq!(
            [1, 2, 3, 4, 5].map(is_known),
            [true, false, true, true, true]
        );
    }

    #[test]
    fn few_filters_are_kept_and_none_of_which_nothing_is_known() {
        let kept = KeptFindings::default();
        kept.keep(&of(0), std::iter::empty());
        assert_eq!(kept.lock().len(), 0);
        let day = days(1)[0];
        for filter in 0..=KEPT_FILTERS {
            kept.keep(&of(filter), std::iter::once((day, 0, counts(1))));
        }
        assert_eq!(kept.lock().len(), KEPT_FILTERS);
        let is_known = |filter| kept.known(&of(filter), &[day], &HashMap::new())[0].is_some();
        assert_eq!([0, 1, KEPT_FILTERS].map(is_known), [false, true, true]);
    }
}
