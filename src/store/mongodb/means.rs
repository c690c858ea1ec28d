//! How the events of a filter are counted: from counted hours and days where facets tell them, from the index by
//! terms where it tells them, else by a look at each.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mongodb::action::Action as _;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::ReadConcern;

use super::MongoStore;
use super::cells::hot;
use super::conditions::conditions;
use super::errors::store_error;
use super::plan::Way;
use super::search::told_apart;
use crate::store::histogram::Grid;
use crate::store::keys::{Facet, asked_terms, fold};
use crate::store::{EventFilter, Result};

/// So few facets are counted apart from the others.
const FEW_FACETS: usize = 1000;

/// Counting looks up more texts than a page does: it has to meet every event anyway.
const MOST_TEXTS: usize = 50_000;

/// More terms than this are not looked up for each part of the time anew.
const FEW_TERMS: usize = 1000;

type Facets = HashMap<i64, Arc<Facet>>;

/// What tells the events of a filter that have keys.
#[derive(Debug)]
pub(super) enum Means {
    /// Facets alone.
    Facets(Facets),
    /// A term each of these, and facets.
    Terms(Vec<Way>, Facets),
    /// A text, in facets and in terms.
    Text(Parts),
    /// The events themselves, found as pages find them, ...
    Events,
    /// ... or one after the other.
    Time,
}

impl Means {
    /// With how many hours or days a count begins, which are kept before it goes on.
    pub(super) fn cells_at_once(&self) -> usize {
        match self {
            Self::Text(parts) if parts.telling.len() + parts.asked_terms.len() > FEW_TERMS => 400,
            _ => 1,
        }
    }
}

/// The events of a filter for a text, by how they are counted.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Every event of these facets.
    whole: Facets,
    /// Events of these facets that hold the text when asked.
    asked: Facets,
    /// The other facets that the filter allows, ...
    rest: Facets,
    /// ... of which every event with one of these terms holds the text, ...
    telling: Vec<i64>,
    /// ... and those with one of these when asked.
    asked_terms: Vec<i64>,
}

fn sources_of(facets: &Facets) -> HashMap<i64, String> {
    let sources = facets.iter();
    let sources = sources.map(|(key, facet)| (*key, facet.source.clone()));
    sources.collect()
}

/// The filter between two times, if they are given, in place of its own.
pub(super) fn within(
    filter: &EventFilter,
    (since, until): (Option<i64>, Option<i64>),
) -> EventFilter {
    let time = |at: Option<i64>, own: Option<Timestamp>| match at {
        Some(at) => Some(Timestamp::from_millisecond(at).unwrap_or(if at < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })),
        None => own,
    };
    EventFilter {
        since: time(since, filter.since),
        until: time(until, filter.until),
        ..filter.clone()
    }
}

/// Met by events with keys, and told by an index.
fn has_keys() -> Document {
    doc! { "facet": { "$gte": i64::MIN } }
}

impl MongoStore {
    /// Chooses what tells the events of a filter.
    pub(super) async fn means(&self, filter: &EventFilter) -> Result<Means> {
        let text = filter.text.as_deref().unwrap_or_default();
        let asks_terms = !asked_terms(filter).is_empty();
        Ok(match (asks_terms, text.is_empty()) {
            (false, true) => Means::Facets(self.matching_facets(filter).await?),
            (false, false) => match self.parts_of_text(filter, text).await? {
                Some(parts) => Means::Text(parts),
                None => Means::Events,
            },
            (true, _) => match self.telling_terms(filter).await? {
                Some(terms) => Means::Terms(terms, self.matching_facets(filter).await?),
                None => Means::Events,
            },
        })
    }

    /// Counts the filter's events that have keys, all of which lie in the range.
    pub(super) async fn count_keyed(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        range: (i64, i64),
        means: &Means,
    ) -> Result<()> {
        match means {
            Means::Facets(facets) => self.count_facets(grid, range, &sources_of(facets)).await,
            Means::Terms(terms, facets) => match terms.as_slice() {
                [terms] => {
                    self.count_told(grid, range, terms, &sources_of(facets))
                        .await
                }
                several => match self.shared_entries(several, range).await? {
                    Some(shared) => {
                        for entry in shared {
                            if let Some(facet) = facets.get(&entry.facet) {
                                grid.add(entry.at, &facet.source, 1);
                            }
                        }
                        Ok(())
                    }
                    None => self.count_looked_at(grid, filter, range).await,
                },
            },
            Means::Text(parts) => self.count_parts(grid, range, filter, parts).await,
            Means::Events => self.count_looked_at(grid, filter, range).await,
            Means::Time => {
                let all = vec![Way::Time];
                self.count_events(grid, filter, all, &HashMap::new(), &[])
                    .await
            }
        }
    }

    /// Counts as pages find events.
    async fn count_looked_at(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        range: (i64, i64),
    ) -> Result<()> {
        let plan = self.plan(filter).await?;
        let sources = sources_of(&plan.whole);
        self.count_facets(grid, range, &sources).await?;
        self.count_events(grid, filter, plan.ways, &plan.whole, &[])
            .await
    }

    /// Divides the events of a filter for a text by how they can be counted; `None`: too many texts hold it.
    async fn parts_of_text(&self, filter: &EventFilter, text: &str) -> Result<Option<Parts>> {
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
        parts: &Parts,
    ) -> Result<()> {
        let sources = sources_of(&parts.whole);
        self.count_facets(grid, range, &sources).await?;
        let way = |terms: &[i64]| Way::of_terms(terms.to_vec());
        if !parts.telling.is_empty() {
            let sources = sources_of(&parts.rest);
            self.count_told(grid, range, &way(&parts.telling), &sources)
                .await?;
        }
        let asked = Way::Facets(parts.asked.keys().copied().collect());
        self.count_events(grid, filter, vec![asked], &HashMap::new(), &[])
            .await?;
        if parts.asked_terms.is_empty() {
            return Ok(());
        }
        let counted = parts.whole.iter().chain(&parts.asked);
        let counted = counted.map(|(key, facet)| (*key, Arc::clone(facet)));
        let ways = vec![way(&parts.asked_terms)];
        self.count_events(grid, filter, ways, &counted.collect(), &parts.telling)
            .await
    }

    /// Counts the events of a way that an index tells, of facets of which the sources are given.
    async fn count_told(
        &self,
        grid: &mut Grid,
        range: (i64, i64),
        way: &Way,
        sources: &HashMap<i64, String>,
    ) -> Result<()> {
        let bars = (grid.start(), grid.width());
        for ((bar, facet), count) in self.tally(way, range, bars).await? {
            if let Some(source) = sources.get(&facet) {
                grid.add_to(bar, source, count);
            }
        }
        Ok(())
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
        // Where no hour or day serves.
        let way = if sources.len() <= FEW_FACETS {
            Way::Facets(sources.keys().copied().collect())
        } else {
            Way::Time
        };
        let cold = self.now() - hot();
        let mut stretches = vec![(from, to, grid.units())];
        while let Some((from, to, units)) = stretches.pop() {
            let Some((&unit, finer)) = units.split_first() else {
                if from < to {
                    self.count_told(grid, (from, to), &way, sources).await?;
                }
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

    /// Counts the filter's events without keys.
    pub(super) async fn count_keyless(&self, grid: &mut Grid, filter: &EventFilter) -> Result<()> {
        let (over, index) = Way::Keyless.over();
        self.group(grid, filter, vec![over], index).await
    }

    /// Counts the events with keys that ways lead to, but for those of facets and of terms that are counted already.
    pub(super) async fn count_events(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        ways: Vec<Way>,
        counted_facets: &Facets,
        counted_terms: &[i64],
    ) -> Result<()> {
        let mut counted: Vec<Document> = Vec::new();
        if !counted_facets.is_empty() {
            let keys: Vec<i64> = counted_facets.keys().copied().collect();
            counted.push(doc! { "facet": { "$in": keys } });
        }
        if !counted_terms.is_empty() {
            counted.push(doc! { "terms": { "$in": counted_terms } });
        }
        for mut way in ways {
            match &mut way {
                Way::Keyless => continue,
                Way::Facets(keys) => {
                    keys.retain(|key| !counted_facets.contains_key(key));
                    if keys.is_empty() {
                        continue;
                    }
                }
                Way::Time | Way::Terms { .. } => {}
            }
            let is_time = way == Way::Time;
            let (over, index) = way.over();
            let mut all = vec![if is_time { has_keys() } else { over.clone() }];
            if !counted.is_empty() {
                all.push(doc! { "$nor": counted.clone() });
            }
            self.group(grid, filter, all, index).await?;
            if !over.is_empty() {
                counted.push(over);
            }
        }
        Ok(())
    }

    /// Counts a filter's events that meet other conditions too, over an index.
    async fn group(
        &self,
        grid: &mut Grid,
        filter: &EventFilter,
        others: Vec<Document>,
        index: Document,
    ) -> Result<()> {
        let elapsed = doc! { "$subtract": ["$at", DateTime::from_millis(grid.start())] };
        let bar = doc! { "$toLong": { "$floor": { "$divide": [elapsed, grid.width()] } } };
        let group = doc! {
            "_id": { "bar": bar, "source": "$source" },
            "count": { "$sum": 1_i64 },
        };
        let mut query = conditions(filter, None);
        let mut all = query.get_array("$and").cloned().unwrap_or_default();
        all.extend(others.into_iter().map(Into::into));
        query.insert("$and", all);
        let counted = self
            .events
            .aggregate([doc! { "$match": query }, doc! { "$group": group }])
            .optional(self.hint(index), |count, hint| count.hint(hint))
            .read_concern(ReadConcern::majority())
            .max_time(self.timeout)
            .await;
        let mut counted = counted.map_err(|error| store_error(&error))?;
        while let Some(counts) = counted
            .try_next()
            .await
            .map_err(|error| store_error(&error))?
        {
            let (Ok(id), Ok(count)) = (counts.get_document("_id"), counts.get_i64("count")) else {
                continue;
            };
            if let Ok(bar) = id.get_i64("bar") {
                // Without one, or with one that is no text, it is listed with an empty one.
                let source = id.get_str("source").unwrap_or_default();
                grid.add_to(bar, source, count.unsigned_abs());
            }
        }
        Ok(())
    }
}
