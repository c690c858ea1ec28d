//! How a filter is answered: by which keys, over which index.
//!
//! Whatever the way, every condition of the filter is also part of the query itself, so a way can
//! only be slow, not wrong. What no way can find is an event without keys: of an older version, or
//! of somebody else. Those stand together at one end of the index and are asked for beside it.

use std::collections::HashMap;
use std::sync::Arc;

use mongodb::action::Action as _;
use mongodb::bson::{DateTime, Document, doc};

use super::MongoStore;
use super::errors::store_error;
use super::query::{ceiling, conditions, range_of};
use super::schema::{by_facet, by_term, by_time};
use crate::store::keys::{Facet, Role, Term, asked_terms, asks_facets, fold, is_odd};
use crate::store::{EventFilter, PageKey, Result};

/// Index ranges that the server merges by time in one query; with more it sorts in memory.
pub(super) const MERGED: usize = 200;

/// A text that more texts than this hold is not looked up but looked for, newest event first.
const MOST_TEXTS: usize = 1000;

/// Facets that entries of the index by terms are compared with.
const LOOKED_THROUGH: usize = 1000;

/// Events that are few enough to be looked through.
const FEW: u64 = 2000;

/// One of the queries that answer a filter together.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    /// By time alone.
    Time,
    /// By facets; the filter may have other conditions too.
    Facets(Vec<i64>),
    /// By terms, of these facets only unless there are none; the filter may have other conditions too.
    Terms { terms: Vec<i64>, facets: Vec<i64> },
    /// Events without keys.
    Keyless,
}

impl Way {
    /// The condition that leads over the index, and that index.
    pub(super) fn over(self) -> (Document, Document) {
        match self {
            Self::Time => (doc! {}, by_time()),
            Self::Facets(keys) => (doc! { "facet": { "$in": keys } }, by_facet()),
            Self::Terms { terms, facets } => {
                let mut over = doc! { "terms": { "$in": terms } };
                if !facets.is_empty() {
                    over.insert("facet", doc! { "$in": facets });
                }
                (over, by_term())
            }
            Self::Keyless => (doc! { "facet": null }, by_facet()),
        }
    }

    /// Divided so that each part is merged by the server.
    fn parts(self) -> Vec<Self> {
        let divide = |keys: Vec<i64>, way: &dyn Fn(Vec<i64>) -> Self| -> Vec<Self> {
            keys.chunks(MERGED).map(|part| way(part.to_vec())).collect()
        };
        match self {
            Self::Facets(keys) => divide(keys, &Self::Facets),
            Self::Terms { terms, facets } => divide(terms, &|terms| {
                let facets = facets.clone();
                Self::Terms { terms, facets }
            }),
            other => vec![other],
        }
    }

    /// Whether no event can be met this way.
    fn is_empty(&self) -> bool {
        match self {
            Self::Facets(keys) | Self::Terms { terms: keys, .. } => keys.is_empty(),
            Self::Time | Self::Keyless => false,
        }
    }
}

/// The queries of a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub ways: Vec<Way>,
    /// No condition but those on time and facets.
    pub facets_only: bool,
    /// Facets of which the text finds every event.
    pub whole: HashMap<i64, Arc<Facet>>,
}

impl Plan {
    /// A look at one event after the other.
    pub(super) fn of_time() -> Self {
        Self::of(Way::Time)
    }

    /// The events without keys.
    pub(super) fn of_keyless() -> Self {
        Self::of(Way::Keyless)
    }

    fn of(way: Way) -> Self {
        Self {
            ways: vec![way],
            facets_only: false,
            whole: HashMap::new(),
        }
    }

    /// The single queries, each with its index.
    pub(super) fn queries(
        self,
        filter: &EventFilter,
        before: Option<&PageKey>,
    ) -> Vec<(Document, Document)> {
        self.each_query(|_| conditions(filter, before))
    }

    /// The same for nothing but times and ids, which the index by facets tells alone. Only for
    /// filters that ask for nothing but facets.
    pub(super) fn key_queries(
        self,
        filter: &EventFilter,
        before: Option<&PageKey>,
    ) -> Vec<(Document, Document)> {
        let range = range_of(filter);
        self.each_query(|way| match way {
            Way::Facets(_) => conditions(&range, before),
            _ => conditions(filter, before),
        })
    }

    fn each_query(self, conditions: impl Fn(&Way) -> Document) -> Vec<(Document, Document)> {
        let ways = self.ways.into_iter().flat_map(Way::parts);
        ways.map(|way| {
            let mut query = conditions(&way);
            let (over, index) = way.over();
            query.extend(over);
            (query, index)
        })
        .collect()
    }
}

/// A text's term in each of the tenants.
fn in_each(tenants: &[Option<String>], role: Role, text: &str) -> Vec<i64> {
    let term = |tenant: &Option<String>| Term::new(tenant.as_deref(), role, text).key;
    tenants.iter().map(term).collect()
}

impl MongoStore {
    /// Chooses the ways.
    pub(super) async fn plan(&self, filter: &EventFilter) -> Result<Plan> {
        let text = filter.text.as_deref().filter(|text| !text.is_empty());
        let asks_terms = filter.actor.is_some() || filter.ip.is_some() || filter.target.is_some();
        let facets_only = !asks_terms && text.is_none();
        let plan = |mut ways: Vec<Way>| {
            ways.retain(|way| !way.is_empty());
            if !ways.contains(&Way::Time) {
                ways.push(Way::Keyless);
            }
            Plan {
                ways,
                facets_only,
                whole: HashMap::new(),
            }
        };
        if facets_only && !asks_facets(filter) {
            return Ok(plan(vec![Way::Time]));
        }
        // A term is looked up within its tenant: nothing else of the facets is needed then.
        let only_terms = asks_terms
            && filter.source.is_none()
            && filter.outcome.is_none()
            && filter.action.is_none();
        let facets = if only_terms {
            None
        } else {
            Some(self.matching_facets(filter).await?)
        };
        if facets.as_ref().is_some_and(|facets| facets.is_empty()) {
            return Ok(plan(Vec::new()));
        }
        let keys: Vec<i64> = facets.iter().flatten().map(|(key, _)| *key).collect();
        if facets_only {
            return Ok(plan(vec![Way::Facets(keys)]));
        }
        let tenants = self.tenants_of(filter).await?;
        if asks_terms {
            let way = self.rarest(filter, &tenants, keys).await?;
            return Ok(plan(vec![way]));
        }
        let folded = fold(text.unwrap_or_default());
        let found = self.search_texts(&tenants, &folded, MOST_TEXTS).await?;
        let mut whole = facets.unwrap_or_default();
        whole.retain(|_, facet| facet.has(&folded));
        let named = whole.keys().copied().collect();
        whole.retain(|_, facet| facet.surely_has(text.unwrap_or_default()));
        let ways = match found {
            Some(found) => {
                let terms = found.iter().map(|text| text.key).collect();
                let facets = Vec::new();
                vec![Way::Facets(named), Way::Terms { terms, facets }]
            }
            None if asks_facets(filter) && keys.len() <= MERGED => vec![Way::Facets(keys)],
            None => vec![Way::Time],
        };
        Ok(Plan {
            whole,
            ..plan(ways)
        })
    }

    /// Of the conditions on terms, or the facets, the one with the fewest events.
    async fn rarest(
        &self,
        filter: &EventFilter,
        tenants: &[Option<String>],
        facets: Vec<i64>,
    ) -> Result<Way> {
        let few = facets.len() <= LOOKED_THROUGH;
        let looked_through = if few { facets.as_slice() } else { &[] };
        let asked = asked_terms(filter).into_iter();
        let mut ways: Vec<Way> = asked
            .map(|(role, text)| Way::Terms {
                terms: in_each(tenants, role, text),
                facets: looked_through.to_vec(),
            })
            .collect();
        if !facets.is_empty() && facets.len() <= MERGED {
            ways.push(Way::Facets(facets));
        }
        let Some(first) = ways.first().cloned() else {
            return Ok(Way::Time);
        };
        if ways.len() == 1 {
            return Ok(first);
        }
        let mut best = (u64::MAX, first);
        for way in ways {
            let count = self.count_few(filter, &way).await?;
            if count < best.0 {
                best = (count, way);
            }
            if count < FEW / 10 {
                break;
            }
        }
        Ok(best.1)
    }

    /// The terms that together tell the events of a filter, but for their facets: those of each text that it asks
    /// for, none of which an odd one shares.
    pub(super) async fn telling_terms(&self, filter: &EventFilter) -> Result<Option<Vec<Way>>> {
        let asked = asked_terms(filter);
        if asked.is_empty() || filter.text.is_some() {
            return Ok(None);
        }
        let tenants = self.tenants_of(filter).await?;
        let mut ways = Vec::new();
        for (role, text) in asked {
            let of = |role: Role| Way::Terms {
                terms: in_each(&tenants, role, text),
                facets: Vec::new(),
            };
            let is_shared = match role.odd() {
                Some(odd) => is_odd(text) || self.count_few(filter, &of(odd)).await? > 0,
                None => false,
            };
            if is_shared {
                return Ok(None);
            }
            ways.push(of(role));
        }
        Ok(Some(ways))
    }

    /// The tenants that a filter's events may have.
    pub(super) async fn tenants_of(&self, filter: &EventFilter) -> Result<Vec<Option<String>>> {
        match &filter.tenant {
            Some(tenant) => Ok(vec![Some(tenant.clone())]),
            None => self.tenants_with_events().await,
        }
    }

    /// Counts the entries of an index in the filter's range of time, up to [`FEW`].
    async fn count_few(&self, filter: &EventFilter, way: &Way) -> Result<u64> {
        let (mut query, index) = way.clone().over();
        // How many there are of the others' is not worth looking through all for.
        if matches!(way, Way::Terms { .. }) {
            query.remove("facet");
        }
        let mut at = doc! { "$gte": filter.since.map_or(DateTime::MIN, ceiling) };
        if let Some(until) = filter.until {
            at.insert("$lt", ceiling(until));
        }
        query.insert("at", at);
        let counted = self.events.count_documents(query);
        let counted = counted.optional(self.hint(index), |count, hint| count.hint(hint));
        let counted = counted.limit(FEW).max_time(self.timeout).await;
        counted.map_err(|error| store_error(&error))
    }
}
