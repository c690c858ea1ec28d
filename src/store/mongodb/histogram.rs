//! Counts by time. Of hours and days that are over, what was counted is known ([`super::cells`], [`super::found`]);
//! [`super::means`] counts the rest.

use mongodb::action::Action as _;
use mongodb::bson::{RawDocument, doc};
use tokio::sync::OnceCell;

use super::MongoStore;
use super::cells::{Cell, hot};
use super::conditions::{ceiling, conditions, range_of};
use super::errors::store_error;
use super::found::{Findings, cells_within};
use super::means::{Means, within};
use super::plan::{Plan, Way};
use super::schema::by_time;
use crate::store::histogram::Grid;
use crate::store::keys::asked_terms;
use crate::store::{EventFilter, Histogram, Result};

/// So often it is counted anew while events get their keys.
const ROUNDS: u32 = 8;

/// More events without keys than this are not looked at twice.
const FEW_KEYLESS: u64 = 1000;

/// A text is not looked up for so few events: a look at each takes some 10 µs.
const FEW_EVENTS: u64 = 5000;

/// From a time until before another, in milliseconds since 1970.
type Span = (i64, i64);

fn is_of_facets(filter: &EventFilter) -> bool {
    asked_terms(filter).is_empty() && !has_text(filter)
}

fn has_text(filter: &EventFilter) -> bool {
    filter.text.as_ref().is_some_and(|text| !text.is_empty())
}

fn bounds(filter: &EventFilter) -> (Option<i64>, Option<i64>) {
    let bound = |at| ceiling(at).timestamp_millis();
    (filter.since.map(bound), filter.until.map(bound))
}

impl MongoStore {
    /// An event of somebody else that gets its keys meanwhile could be missed or counted twice, as
    /// those with and those without keys are counted one after the other: then it is done again.
    pub(super) async fn count_by_time(
        &self,
        filter: &EventFilter,
        buckets: u32,
    ) -> Result<Histogram> {
        let mut keyless = self.keyless().await?;
        for _ in 0..ROUNDS {
            let counted = self.count_once(filter, buckets, keyless > 0).await?;
            let still = self.keyless().await?;
            if still == keyless {
                return Ok(counted);
            }
            keyless = still;
        }
        self.count_once(filter, buckets, keyless > 0).await
    }

    /// How many events have no keys yet.
    async fn keyless(&self) -> Result<u64> {
        let (over, index) = Way::Keyless.over();
        let count = self.events.count_documents(over).limit(FEW_KEYLESS);
        let count = count.optional(self.hint(index), |count, hint| count.hint(hint));
        let counted = count.max_time(self.timeout).await;
        counted.map_err(|error| store_error(&error))
    }

    async fn count_once(
        &self,
        filter: &EventFilter,
        buckets: u32,
        has_keyless: bool,
    ) -> Result<Histogram> {
        let means = OnceCell::new();
        let (since, until) = bounds(filter);
        let over = self.cells_over(filter, buckets).await?;
        let over = if over.is_empty() {
            None
        } else {
            let over = self.count_over(filter, over, &means).await?;
            self.pass("between_counts_and_ends").await?;
            Some(over)
        };
        let (first, last) = tokio::try_join!(
            self.outermost(filter, over.as_ref(), has_keyless, false),
            self.outermost(filter, over.as_ref(), has_keyless, true),
        )?;
        let end = last.map(|last| last + 1);
        let (Some(from), Some(to)) = (since.or(first), until.or(end)) else {
            return Ok(Grid::empty(since, until).finish());
        };
        let mut grid = Grid::new(from, to, buckets);
        let (Some(first), Some(end)) = (first, end) else {
            return Ok(grid.finish());
        };
        let serving = over.filter(|over| grid.units().contains(&over.width()));
        let mut rests = vec![(first, end)];
        if let Some(over) = serving {
            // Of the others all events were deleted meanwhile.
            let is_within = |cell: &Cell| first < cell.end() && cell.start() < end;
            for (cell, counts) in over.filled().filter(|(cell, _)| is_within(cell)) {
                for (source, count) in counts.iter() {
                    grid.add(cell.start().max(first), source, *count);
                }
            }
            let (begin, to) = over.range();
            rests = vec![(first, end.min(begin)), (first.max(to), end)];
        }
        for rest in rests {
            self.count_rest(&mut grid, filter, rest, &means).await?;
        }
        if has_keyless {
            self.count_keyless(&mut grid, filter).await?;
        }
        Ok(grid.finish())
    }

    /// The hours and days that are over among those of the filter, if it is one whose findings are kept and they
    /// can be parts of the bars that it asks for.
    async fn cells_over(&self, filter: &EventFilter, buckets: u32) -> Result<Vec<Cell>> {
        if is_of_facets(filter) {
            return Ok(Vec::new());
        }
        let all = range_of(filter);
        let (first, last) = tokio::try_join!(
            self.first_found(Plan::of_time(), &all, false),
            self.first_found(Plan::of_time(), &all, true),
        )?;
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(Vec::new());
        };
        let (since, until) = bounds(filter);
        let (from, to) = (since.unwrap_or(first), until.unwrap_or(last + 1));
        let units = Grid::new(from, to, buckets).units();
        let Some(unit) = units.first() else {
            return Ok(Vec::new());
        };
        // Where no event is, nothing hinders a cell from being a whole one.
        let (first, end) = (first.div_euclid(*unit), last.div_euclid(*unit) + 1);
        let begin = since.map_or(first * unit, |since| since.max(first * unit));
        let end = until.map_or(end * unit, |until| until.min(end * unit));
        let end = end.min(self.now() - hot());
        Ok(cells_within((begin, end), units))
    }

    /// The time of the filter's first or last event; what was found tells where to look for it.
    async fn outermost(
        &self,
        filter: &EventFilter,
        over: Option<&Findings>,
        has_keyless: bool,
        newest: bool,
    ) -> Result<Option<i64>> {
        let Some(over) = over else {
            let plan = self.plan(filter).await?;
            return self.first_found(plan, filter, newest).await;
        };
        let (begin, end) = over.range();
        // Events may have been deleted since they were counted: the first of these mostly has one.
        let filled = over.filled().map(|(cell, _)| cell);
        let mut places = vec![(None, Some(begin))];
        places.extend(filled.map(|cell| (Some(cell.start()), Some(cell.end()))));
        places.push((Some(end), None));
        if newest {
            places.reverse();
        }
        let mut found = None;
        for place in places {
            found = self
                .outermost_within(&within(filter, place), newest)
                .await?;
            if found.is_some() {
                break;
            }
        }
        if has_keyless {
            let keyless = self.first_found(Plan::of_keyless(), filter, newest).await?;
            let both = found.into_iter().chain(keyless);
            found = if newest { both.max() } else { both.min() };
        }
        Ok(found)
    }

    /// The same within a day or so, which may have so few events that each is looked at.
    async fn outermost_within(&self, filter: &EventFilter, newest: bool) -> Result<Option<i64>> {
        let plan = if has_text(filter) && self.are_few(filter).await? {
            Plan::of_time()
        } else {
            self.plan(filter).await?
        };
        self.first_found(plan, filter, newest).await
    }

    /// The time of the first or last event that a plan leads to.
    async fn first_found(
        &self,
        plan: Plan,
        filter: &EventFilter,
        newest: bool,
    ) -> Result<Option<i64>> {
        let queries = if plan.facets_only {
            plan.key_queries(filter, None)
        } else {
            plan.queries(filter, None)
        };
        let fields = Some(doc! { "_id": 1, "at": 1 });
        let at = |document: &RawDocument| {
            let at = document.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        let found = self.merged(queries, (newest, 1), fields, at).await?;
        Ok(found.into_events().pop())
    }

    /// Counts the filter's events that have keys in a part of its range that is no whole day.
    async fn count_rest(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        (from, to): Span,
        means: &OnceCell<Means>,
    ) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let rest = within(filter, (Some(from), Some(to)));
        if has_text(filter) && !means.initialized() && self.are_few(&rest).await? {
            return self
                .count_keyed(grid, &rest, (from, to), &Means::Time)
                .await;
        }
        let means = means.get_or_try_init(|| self.means(filter)).await?;
        self.count_keyed(grid, &rest, (from, to), means).await
    }

    /// Whether few events of any kind lie in the filter's range.
    async fn are_few(&self, filter: &EventFilter) -> Result<bool> {
        let count = self
            .events
            .count_documents(conditions(&range_of(filter), None))
            .optional(self.hint(by_time()), |count, hint| count.hint(hint))
            .limit(FEW_EVENTS)
            .max_time(self.timeout);
        let count = count.await.map_err(|error| store_error(&error))?;
        Ok(count < FEW_EVENTS)
    }
}
