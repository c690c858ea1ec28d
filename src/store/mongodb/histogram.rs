//! Counts by time: from counted hours and days where the filter asks for facets alone, from the index by
//! terms where it asks for one of them, else from the events that it finds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use mongodb::action::{Action as _, Find};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc};

use super::MongoStore;
use super::cells::hot;
use super::errors::store_error;
use super::plan::{Plan, Way};
use super::query::{ceiling, conditions};
use super::search::told_apart;
use crate::store::histogram::{DAY, Grid, HOUR};
use crate::store::keys::{Facet, asked_terms, fold};
use crate::store::{EventFilter, Histogram, Result, StoreError};

/// So few facets are counted apart from the others by the server.
const FEW_FACETS: usize = 1000;

/// So often it is counted anew while events get their keys.
const ROUNDS: u32 = 8;

/// Counting looks up more texts than a page does: it has to meet every event anyway.
const MOST_TEXTS: usize = 50_000;

/// More events without keys than this are not looked at twice.
const FEW_KEYLESS: u64 = 1000;

/// The server counts with one processor for each query.
fn halves((from, to): (i64, i64)) -> [(i64, i64); 2] {
    let middle = from.midpoint(to);
    [(from, middle), (middle, to)]
}

fn sources_of(facets: &HashMap<i64, Arc<Facet>>) -> HashMap<i64, String> {
    let sources = facets.iter();
    let sources = sources.map(|(key, facet)| (*key, facet.source.clone()));
    sources.collect()
}

/// Entries of the index that are held in memory for each of several terms.
const MOST_SHARED: i64 = 500_000;

/// What the index by terms tells of an event.
struct IndexEntry {
    id: ObjectId,
    at: i64,
    facet: i64,
}

fn time_and_facet(entry: &RawDocument) -> Option<(i64, i64)> {
    let at = entry.get_datetime("at").ok()?;
    Some((at.timestamp_millis(), entry.get_i64("facet").ok()?))
}

/// The events of a filter for a text, by how they are counted.
#[derive(Default)]
struct Parts {
    /// Every event of these facets.
    whole: HashMap<i64, Arc<Facet>>,
    /// Events of these facets that hold the text when asked.
    asked: HashMap<i64, Arc<Facet>>,
    /// The other facets that the filter allows, ...
    rest: HashMap<i64, Arc<Facet>>,
    /// ... of which every event with one of these terms holds the text, ...
    telling: Vec<i64>,
    /// ... and those with one of these when asked.
    asked_terms: Vec<i64>,
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
        let (mut plan, shared, parts) = tokio::try_join!(
            self.plan(filter),
            self.shared_entries(filter),
            self.parts_of_text(filter),
        )?;
        if shared.is_some() {
            plan.ways = vec![Way::Keyless];
        }
        let since = filter.since.map(|at| ceiling(at).timestamp_millis());
        let until = filter.until.map(|at| ceiling(at).timestamp_millis());
        let (first, last) = tokio::try_join!(
            self.outermost(&plan, filter, false),
            self.outermost(&plan, filter, true),
        )?;
        let times = || shared.iter().flatten().map(|entry| entry.at);
        let first = first.into_iter().chain(times()).min();
        let last = last.into_iter().chain(times()).max();
        let end = last.map(|last| last + 1);
        let (Some(from), Some(to)) = (since.or(first), until.or(end)) else {
            return Ok(Grid::empty(since, until).finish());
        };
        let mut grid = Grid::new(from, to, buckets);
        let (Some(from), Some(to)) = (first, end) else {
            return Ok(grid.finish());
        };
        let (whole, ways) = if plan.facets_only {
            let facets = self.matching_facets(filter).await?;
            let sources = sources_of(&facets);
            self.count_facets(&mut grid, (from, to), &sources).await?;
            (facets, vec![Way::Keyless])
        } else if let Some(shared) = shared {
            let facets = self.matching_facets(filter).await?;
            for entry in shared {
                if let Some(facet) = facets.get(&entry.facet) {
                    grid.add(entry.at, &facet.source, 1);
                }
            }
            (facets, plan.ways)
        } else if let Some([terms]) = self.telling_terms(filter).await?.as_deref() {
            let facets = self.matching_facets(filter).await?;
            let sources = sources_of(&facets);
            self.count_terms(&mut grid, (from, to), terms, &sources)
                .await?;
            (facets, vec![Way::Keyless])
        } else if let Some(parts) = parts {
            self.count_parts(&mut grid, (from, to), filter, parts)
                .await?;
            return Ok(grid.finish());
        } else {
            let sources = sources_of(&plan.whole);
            self.count_facets(&mut grid, (from, to), &sources).await?;
            (plan.whole, plan.ways)
        };
        self.count_events(&mut grid, filter, ways, &whole, &[])
            .await?;
        Ok(grid.finish())
    }

    /// Divides the events of a filter for a text by how they can be counted; `None`: it asks for something else too
    /// that facets do not tell, or too many texts hold it.
    async fn parts_of_text(&self, filter: &EventFilter) -> Result<Option<Parts>> {
        let text = filter.text.as_deref().unwrap_or_default();
        if text.is_empty() || !asked_terms(filter).is_empty() {
            return Ok(None);
        }
        let folded = fold(text);
        let mut parts = Parts::default();
        for (key, facet) in self.matching_facets(filter).await? {
            let part = if facet.surely_has(text) {
                &mut parts.whole
            } else if facet.has(&folded) {
                &mut parts.asked
            } else {
                &mut parts.rest
            };
            part.insert(key, facet);
        }
        if !parts.rest.is_empty() {
            let tenants = self.tenants_of(filter).await?;
            let found = self.search_texts(&tenants, &folded, MOST_TEXTS).await?;
            let Some(found) = found else {
                return Ok(None);
            };
            (parts.telling, parts.asked_terms) = told_apart(&found, text);
        }
        Ok(Some(parts))
    }

    async fn count_parts(
        &self,
        grid: &mut Grid,
        range: (i64, i64),
        filter: &EventFilter,
        parts: Parts,
    ) -> Result<()> {
        let sources = sources_of(&parts.whole);
        self.count_facets(grid, range, &sources).await?;
        let way = |terms: &[i64]| Way::Terms {
            terms: terms.to_vec(),
            facets: Vec::new(),
        };
        if !parts.telling.is_empty() {
            let sources = sources_of(&parts.rest);
            self.count_terms(grid, range, &way(&parts.telling), &sources)
                .await?;
        }
        let asked = Way::Facets(parts.asked.keys().copied().collect());
        self.count_events(grid, filter, vec![asked], &HashMap::new(), &[])
            .await?;
        let mut ways = vec![Way::Keyless];
        if !parts.asked_terms.is_empty() {
            ways.push(way(&parts.asked_terms));
        }
        let counted = parts.whole.into_iter().chain(parts.asked).collect();
        self.count_events(grid, filter, ways, &counted, &parts.telling)
            .await
    }

    /// Counts the events of terms, of facets of which the sources are given, by the index alone.
    async fn count_terms(
        &self,
        grid: &mut Grid,
        (from, to): (i64, i64),
        terms: &Way,
        sources: &HashMap<i64, String>,
    ) -> Result<()> {
        let bar = |at: i64| (at - grid.start()).div_euclid(grid.width());
        let scans = halves((from, to)).map(async |(from, to)| {
            let mut counts: HashMap<(i64, i64), u64> = HashMap::new();
            let range = (DateTime::from_millis(from), DateTime::from_millis(to));
            let fields = doc! { "_id": 0, "at": 1, "facet": 1 };
            let found = self.read_entries(terms.clone(), range, fields).await;
            let mut found = found.map_err(|error| store_error(&error))?;
            while found.advance().await.map_err(|error| store_error(&error))? {
                if let Some((at, facet)) = time_and_facet(found.current()) {
                    *counts.entry((bar(at), facet)).or_default() += 1;
                }
            }
            Ok::<_, StoreError>(counts)
        });
        for ((bar, facet), count) in try_join_all(scans).await?.into_iter().flatten() {
            if let Some(source) = sources.get(&facet) {
                grid.add_to(bar, source, count);
            }
        }
        Ok(())
    }

    /// Reads entries of the index by terms. To hand them over costs the server less than to group them.
    fn read_entries(
        &self,
        way: Way,
        (from, to): (DateTime, DateTime),
        fields: Document,
    ) -> Find<'_, RawDocumentBuf> {
        let (mut over, index) = way.over();
        over.insert("at", doc! { "$gte": from, "$lt": to });
        self.events
            .find(over)
            .projection(fields)
            .optional(self.hint(index), |find, hint| find.hint(hint))
            .batch_size(50_000)
            .max_time(self.timeout)
    }

    /// The events that have a term each of several conditions, by the index alone, if it tells them; `None` too when they
    /// are too many or have ids of others.
    async fn shared_entries(&self, filter: &EventFilter) -> Result<Option<Vec<IndexEntry>>> {
        if asked_terms(filter).len() < 2 {
            return Ok(None);
        }
        let Some(ways) = self.telling_terms(filter).await? else {
            return Ok(None);
        };
        let range = (
            filter.since.map_or(DateTime::MIN, ceiling),
            filter.until.map_or(DateTime::MAX, ceiling),
        );
        let reads = ways.into_iter().map(|way| self.entries(way, range));
        let read: Option<Vec<_>> = try_join_all(reads).await?.into_iter().collect();
        let Some(mut sets) = read else {
            return Ok(None);
        };
        sets.sort_by_key(Vec::len);
        let mut sets = sets.into_iter();
        let mut shared = sets.next().unwrap_or_default();
        for set in sets {
            let ids: HashSet<ObjectId> = shared.iter().map(|entry| entry.id).collect();
            shared = set;
            shared.retain(|entry| ids.contains(&entry.id));
        }
        let facets = self.matching_facets(filter).await?;
        shared.retain(|entry| facets.contains_key(&entry.facet));
        Ok(Some(shared))
    }

    /// The entries of the index by terms; `None`: they are too many, or somebody else made their ids.
    async fn entries(
        &self,
        way: Way,
        range: (DateTime, DateTime),
    ) -> Result<Option<Vec<IndexEntry>>> {
        let fields = doc! { "_id": 1, "at": 1, "facet": 1 };
        let found = self.read_entries(way, range, fields);
        let found = found.limit(MOST_SHARED + 1).await;
        let mut found = found.map_err(|error| store_error(&error))?;
        let mut entries = Vec::new();
        while found.advance().await.map_err(|error| store_error(&error))? {
            let document = found.current();
            let Ok(id) = document.get_object_id("_id") else {
                return Ok(None);
            };
            if let Some((at, facet)) = time_and_facet(document) {
                entries.push(IndexEntry { id, at, facet });
            }
        }
        let few = i64::try_from(entries.len()).is_ok_and(|count| count <= MOST_SHARED);
        Ok(few.then_some(entries))
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
        let scans = halves((from, to)).map(|half| self.scan(half, bars, some));
        for counted in try_join_all(scans).await?.into_iter().flatten() {
            if let Some(source) = sources.get(&counted.facet) {
                grid.add_to(counted.bar, source, counted.count);
            }
        }
        Ok(())
    }

    /// Counts the events that ways lead to, but for those of facets and of terms that are counted already.
    async fn count_events(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        ways: Vec<Way>,
        counted_facets: &HashMap<i64, Arc<Facet>>,
        counted_terms: &[i64],
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
        if !counted_terms.is_empty() && ways != [Way::Keyless] {
            counted_before.push(doc! { "terms": { "$in": counted_terms } });
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
