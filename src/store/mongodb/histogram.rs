//! Counts by time: from counted hours and days where the filter asks for facets alone, else from
//! the events that it finds.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use mongodb::action::Action as _;
use mongodb::bson::{DateTime, Document, RawDocument, doc};

use super::MongoStore;
use super::cells::hot;
use super::errors::store_error;
use super::plan::{Plan, Way};
use super::query::{ceiling, conditions};
use crate::store::histogram::{DAY, Grid, HOUR};
use crate::store::keys::Facet;
use crate::store::{EventFilter, Histogram, Result};

/// So few facets are counted apart from the others by the server.
const FEW_FACETS: usize = 1000;

/// So often it is counted anew while events get their keys.
const ROUNDS: u32 = 8;

/// More events without keys than this are not looked at twice.
const FEW_KEYLESS: u64 = 1000;

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
            let counted = self.count_once(filter, buckets).await?;
            let still = self.keyless().await?;
            if still == keyless {
                return Ok(counted);
            }
            keyless = still;
        }
        self.count_once(filter, buckets).await
    }

    /// How many events have no keys yet.
    async fn keyless(&self) -> Result<u64> {
        let (over, index) = Way::Keyless.over();
        let count = self.events.count_documents(over).limit(FEW_KEYLESS);
        let count = count.optional(self.hint(index), |count, hint| count.hint(hint));
        let counted = count.max_time(self.timeout).await;
        counted.map_err(|error| store_error(&error))
    }

    async fn count_once(&self, filter: &EventFilter, buckets: u32) -> Result<Histogram> {
        let plan = self.plan(filter).await?;
        let since = filter.since.map(|at| ceiling(at).timestamp_millis());
        let until = filter.until.map(|at| ceiling(at).timestamp_millis());
        let (first, last) = tokio::try_join!(
            self.outermost(&plan, filter, false),
            self.outermost(&plan, filter, true),
        )?;
        let end = last.map(|last| last + 1);
        let (Some(from), Some(to)) = (since.or(first), until.or(end)) else {
            return Ok(Grid::empty(since, until).finish());
        };
        let mut grid = Grid::new(from, to, buckets);
        let (Some(from), Some(to)) = (first, end) else {
            return Ok(grid.finish());
        };
        let (whole, ways) = if plan.facets_only {
            (self.matching_facets(filter).await?, vec![Way::Keyless])
        } else {
            (plan.whole, plan.ways)
        };
        let sources = whole.iter();
        let sources = sources.map(|(key, facet)| (*key, facet.source.clone()));
        let sources: HashMap<i64, String> = sources.collect();
        self.count_facets(&mut grid, (from, to), &sources).await?;
        self.count_events(&mut grid, filter, ways, &whole).await?;
        Ok(grid.finish())
    }

    /// The time of the filter's first or last event.
    async fn outermost(
        &self,
        plan: &Plan,
        filter: &EventFilter,
        newest: bool,
    ) -> Result<Option<i64>> {
        let (queries, fields) = if plan.facets_only {
            let fields = doc! { "_id": 1, "at": 1 };
            (plan.clone().key_queries(filter, None), Some(fields))
        } else {
            (plan.clone().queries(filter, None), None)
        };
        let at = |document: &RawDocument| {
            let at = document.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        let found = self.merged(queries, (newest, 1), fields, at).await?;
        Ok(found.first().copied())
    }

    /// Counts the events of facets, of which the sources are given, between two times.
    async fn count_facets(
        &self,
        grid: &mut Grid,
        (from, to): (i64, i64),
        sources: &HashMap<i64, String>,
    ) -> Result<()> {
        if sources.is_empty() {
            return Ok(());
        }
        let units: &[i64] = match grid.width() {
            width if width % DAY == 0 || grid.is_single() => &[DAY, HOUR],
            width if width % HOUR == 0 => &[HOUR],
            _ => &[],
        };
        let cold = self.now() - hot();
        let mut stretches = vec![(from, to, units)];
        while let Some((from, to, units)) = stretches.pop() {
            let Some((&unit, finer)) = units.split_first() else {
                self.count_uncut(grid, (from, to), sources).await?;
                continue;
            };
            let begin = from + (-from).rem_euclid(unit);
            let end = to.min(cold).div_euclid(unit) * unit;
            if begin >= end {
                stretches.push((from, to, finer));
                continue;
            }
            let mut tell = |start: i64, facet: i64, count: u64| {
                if let Some(source) = sources.get(&facet) {
                    grid.add(start, source, count);
                }
            };
            self.count_cells((begin, end), unit, &mut tell).await?;
            stretches.push((from, begin, finer));
            stretches.push((end, to, finer));
        }
        Ok(())
    }

    /// The same where no hour or day serves.
    async fn count_uncut(
        &self,
        grid: &mut Grid,
        (from, to): (i64, i64),
        sources: &HashMap<i64, String>,
    ) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let keys: Vec<i64> = sources.keys().copied().collect();
        let some = (keys.len() <= FEW_FACETS).then_some(keys.as_slice());
        let bars = (grid.start(), grid.width());
        for counted in self.scan((from, to), bars, some).await? {
            if let Some(source) = sources.get(&counted.facet) {
                grid.add_to(counted.bar, source, counted.count);
            }
        }
        Ok(())
    }

    /// Counts the events that ways lead to, but for those of facets that are counted already.
    async fn count_events(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        ways: Vec<Way>,
        counted_facets: &HashMap<i64, Arc<Facet>>,
    ) -> Result<()> {
        let elapsed = doc! { "$subtract": ["$at", DateTime::from_millis(grid.start())] };
        let bar = doc! { "$toLong": { "$floor": { "$divide": [elapsed, grid.width()] } } };
        let group = doc! {
            "_id": { "bar": bar, "source": "$source" },
            "count": { "$sum": 1_i64 },
        };
        let mut counted_before: Vec<Document> = Vec::new();
        if !counted_facets.is_empty() && ways != [Way::Keyless] {
            let keys: Vec<i64> = counted_facets.keys().copied().collect();
            counted_before.push(doc! { "facet": { "$in": keys } });
        }
        for mut way in ways {
            if let Way::Facets(keys) = &mut way {
                keys.retain(|key| !counted_facets.contains_key(key));
                if keys.is_empty() {
                    continue;
                }
            }
            let (over, index) = way.over();
            let mut query = conditions(filter, None);
            query.extend(over.clone());
            if !counted_before.is_empty() {
                query.insert("$and", {
                    let mut all = query.get_array("$and").cloned().unwrap_or_default();
                    all.push(doc! { "$nor": counted_before.clone() }.into());
                    all
                });
            }
            if !over.is_empty() {
                counted_before.push(over);
            }
            let counted = self
                .events
                .aggregate([doc! { "$match": query }, doc! { "$group": group.clone() }])
                .optional(self.hint(index), |count, hint| count.hint(hint))
                .max_time(self.timeout)
                .await;
            let mut counted = counted.map_err(|error| store_error(&error))?;
            while let Some(counts) = counted
                .try_next()
                .await
                .map_err(|error| store_error(&error))?
            {
                let (Ok(id), Ok(count)) = (counts.get_document("_id"), counts.get_i64("count"))
                else {
                    continue;
                };
                if let (Ok(bar), Ok(source)) = (id.get_i64("bar"), id.get_str("source")) {
                    grid.add_to(bar, source, count.unsigned_abs());
                }
            }
        }
        Ok(())
    }
}
