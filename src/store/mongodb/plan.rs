//! How a filter is answered: by which keys, over which index.
//!
//! Whatever the way, every condition of the filter is also part of the query itself, so a way can
//! only be slow, not wrong. What no way can find is an event without keys: of an older version, or
//! of somebody else. Those stand together at one end of the index and are asked for besides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::try_join_all;
use mongodb::action::Action as _;
use mongodb::bson::{Bson, Document, RawDocument, doc};

use super::conditions::{conditions, parted, range_of};
use super::errors::store_error;
use super::facets::tenants_of;
use super::schema::{by_facet, by_term, by_time, mask_of};
use super::{MongoStore, collect};
use crate::store::keys::{
    Facet, MASKED, Role, asked_terms, asks_facets, fold, is_odd, masks_with, terms_in_each,
};
use crate::store::{EventFilter, PageKey, Result, StoreError};

/// Index ranges that the server merges by time in one query; with more it sorts in memory.
pub(super) const MERGED: usize = 200;

/// A text that more texts than this hold is looked for, newest event first, where a plan has no better way.
pub(super) const MOST_TEXTS: usize = 1000;

/// Facets that entries of the index by terms are compared with.
const LOOKED_THROUGH: usize = 1000;

/// Events that are few enough to be looked through.
const FEW: u64 = 2000;

type Facets = HashMap<i64, Arc<Facet>>;

/// One of the queries that answer a filter together.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    /// By time alone.
    Time,
    /// By facets; the filter may have other conditions too.
    Facets(Vec<i64>),
    /// By terms, of these facets only unless there are none, and of events that can have the others' texts; the
    /// filter may have other conditions too.
    Terms {
        terms: Vec<i64>,
        facets: Vec<i64>,
        others: Vec<Mask>,
    },
    /// Events without keys.
    Keyless,
}

impl Way {
    /// The condition that leads over the index, and that index.
    pub(super) fn over(self) -> (Document, Document) {
        match self {
            Self::Time => (doc! {}, by_time()),
            Self::Facets(keys) => (doc! { "facet": { "$in": keys } }, by_facet()),
            Self::Terms {
                terms,
                facets,
                others,
            } => {
                let mut over = doc! { "terms": { "$in": terms } };
                if !facets.is_empty() {
                    over.insert("facet", doc! { "$in": facets });
                }
                for Mask { field, masks } in others {
                    // Events of older versions have none.
                    let masks = masks.into_iter().map(Bson::from).chain([Bson::Null]);
                    over.insert(field, doc! { "$in": masks.collect::<Vec<_>>() });
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
            Self::Terms {
                terms,
                facets,
                others,
            } => divide(terms, &|terms| Self::Terms {
                terms,
                facets: facets.clone(),
                others: others.clone(),
            }),
            other => vec![other],
        }
    }

    /// The same whatever else its terms' events have.
    fn of_any_event(&self) -> Self {
        match self {
            Self::Terms { terms, .. } => Self::of_terms(terms.clone()),
            other => other.clone(),
        }
    }

    pub(super) fn of_terms(terms: Vec<i64>) -> Self {
        Self::Terms {
            terms,
            facets: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Whether its events stand together in its index, in the order of pages.
    fn is_one_range(&self) -> bool {
        match self {
            Self::Time => true,
            Self::Facets(keys) | Self::Terms { terms: keys, .. } => keys.len() == 1,
            Self::Keyless => false,
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

/// Of one role, what events have that can have a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mask {
    field: String,
    masks: BTreeSet<i32>,
}

/// What the index by terms tells of a filter's conditions on other roles than this one.
fn others(asked: &[(Role, &str)], role: Role) -> Vec<Mask> {
    let others = asked.iter().filter(|(other, _)| *other != role);
    let others = others.filter_map(|(other, text)| {
        let (_, name, _) = MASKED.iter().find(|(masked, ..)| masked == other)?;
        Some(Mask {
            field: mask_of(name),
            masks: masks_with(*other, text),
        })
    });
    others.collect()
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
    /// Leads to the events of some ways and to those without keys.
    pub(super) fn new(mut ways: Vec<Way>) -> Self {
        ways.retain(|way| !way.is_empty());
        if !ways.contains(&Way::Time) {
            ways.push(Way::Keyless);
        }
        Self {
            ways,
            facets_only: false,
            whole: HashMap::new(),
        }
    }

    /// A look at one event after the other.
    pub(super) fn of_time() -> Self {
        Self::new(vec![Way::Time])
    }

    /// The events without keys.
    pub(super) fn of_keyless() -> Self {
        Self::new(Vec::new())
    }

    /// Without the query for events that have no keys.
    pub(super) fn keyed(mut self) -> Self {
        self.ways.retain(|way| *way != Way::Keyless);
        self
    }

    /// The single queries, each with its index.
    pub(super) fn queries(
        self,
        filter: &EventFilter,
        before: Option<&PageKey>,
    ) -> Vec<(Document, Document)> {
        self.each_query(before, |_| filter)
    }

    /// The same for nothing but times and ids, which the index by facets tells alone. Only for
    /// filters that ask for nothing but facets.
    pub(super) fn key_queries(
        self,
        filter: &EventFilter,
        before: Option<&PageKey>,
    ) -> Vec<(Document, Document)> {
        let range = range_of(filter);
        self.each_query(before, |way| match way {
            Way::Facets(_) => &range,
            _ => filter,
        })
    }

    fn each_query<'a>(
        self,
        before: Option<&PageKey>,
        filter: impl Fn(&Way) -> &'a EventFilter,
    ) -> Vec<(Document, Document)> {
        let mut queries = Vec::new();
        for way in self.ways.into_iter().flat_map(Way::parts) {
            let filter = filter(&way);
            let parts = if way.is_one_range() {
                parted(filter, before)
            } else {
                vec![conditions(filter, before)]
            };
            let (over, index) = way.over();
            for mut query in parts {
                query.extend(over.clone());
                queries.push((query, index.clone()));
            }
        }
        queries
    }
}

/// What the dictionary of facets tells of a filter.
#[derive(Debug)]
pub(super) struct Scope {
    /// The facets that it allows; `None`: nobody has to know them.
    facets: Option<Facets>,
    /// The tenants that its events may have.
    pub tenants: Vec<Option<String>>,
}

impl Scope {
    fn keys(&self) -> Vec<i64> {
        let facets = self.facets.iter().flatten();
        facets.map(|(key, _)| *key).collect()
    }

    /// Where a text is looked for that cannot be looked up.
    pub(super) fn looked_through(&self, filter: &EventFilter) -> Way {
        let keys = self.keys();
        if asks_facets(filter) && keys.len() <= MERGED {
            Way::Facets(keys)
        } else {
            Way::Time
        }
    }

    /// The facets of which a text finds every event.
    fn whole(&self, text: &str) -> Facets {
        let facets = self.facets.iter().flatten();
        let whole = facets.filter(|(_, facet)| facet.surely_has(text));
        whole
            .map(|(key, facet)| (*key, Arc::clone(facet)))
            .collect()
    }
}

/// A text's term in each of the tenants.
fn in_each(tenants: &[Option<String>], role: Role, text: &str) -> Vec<i64> {
    terms_in_each(tenants.iter().map(Option::as_deref), role, text)
}

/// The text that a filter asks for.
pub(super) fn text_of(filter: &EventFilter) -> Option<&str> {
    filter.text.as_deref().filter(|text| !text.is_empty())
}

/// Whether time alone tells the events of a filter.
pub(super) fn is_of_time(filter: &EventFilter) -> bool {
    asked_terms(filter).is_empty() && text_of(filter).is_none() && !asks_facets(filter)
}

/// Whether facets tell more of a filter than the tenant, which terms tell too.
fn asks_other_facets(filter: &EventFilter) -> bool {
    let of_any_tenant = EventFilter {
        tenant: None,
        ..filter.clone()
    };
    asks_facets(&of_any_tenant)
}

impl MongoStore {
    /// Chooses the ways.
    pub(super) async fn plan(&self, filter: &EventFilter) -> Result<Plan> {
        if is_of_time(filter) {
            return Ok(Plan::of_time());
        }
        let scope = self.scope(filter).await?;
        self.plan_within(filter, &scope).await
    }

    /// The same where more than time tells the events.
    pub(super) async fn plan_within(&self, filter: &EventFilter, scope: &Scope) -> Result<Plan> {
        if !asked_terms(filter).is_empty() {
            return self.plan_by_terms(filter, scope).await;
        }
        let Some(text) = text_of(filter) else {
            return Ok(Plan {
                facets_only: true,
                ..Plan::new(vec![Way::Facets(scope.keys())])
            });
        };
        if let Some(plan) = self.plan_by_few(filter, scope).await? {
            return Ok(plan);
        }
        let plan = self.plan_by_texts(filter, scope, MOST_TEXTS).await?;
        Ok(plan.unwrap_or_else(|| Plan {
            whole: scope.whole(text),
            ..Plan::new(vec![scope.looked_through(filter)])
        }))
    }

    /// Reads what the dictionary tells of a filter.
    pub(super) async fn scope(&self, filter: &EventFilter) -> Result<Scope> {
        // A term is looked up within its tenant: nothing else of the facets is needed then.
        if !asked_terms(filter).is_empty() && !asks_other_facets(filter) {
            return Ok(Scope {
                facets: None,
                tenants: self.tenants_of(filter).await?,
            });
        }
        let facets = self.matching_facets(filter).await?;
        let tenants = match &filter.tenant {
            Some(tenant) => vec![Some(tenant.clone())],
            None => tenants_of(&facets),
        };
        Ok(Scope {
            facets: Some(facets),
            tenants,
        })
    }

    /// The facets alone, if the filter asks for some that few events have.
    pub(super) async fn plan_by_few(
        &self,
        filter: &EventFilter,
        scope: &Scope,
    ) -> Result<Option<Plan>> {
        let keys = scope.keys();
        if !asks_facets(filter) || keys.len() > LOOKED_THROUGH {
            return Ok(None);
        }
        let way = Way::Facets(keys);
        let are_few = way.is_empty() || self.count_few(filter, &way).await? < FEW;
        Ok(are_few.then(|| Plan::new(vec![way])))
    }

    /// The terms of the texts that hold the filter's; `None`: they are more than `most`, or cannot be told soon.
    pub(super) async fn plan_by_texts(
        &self,
        filter: &EventFilter,
        scope: &Scope,
        most: usize,
    ) -> Result<Option<Plan>> {
        let text = text_of(filter).unwrap_or_default();
        let folded = fold(text);
        let found = self.search_texts(&scope.tenants, &folded, most).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let facets = scope.facets.iter().flatten();
        let named = facets.filter(|(_, facet)| facet.has(&folded));
        let named = named.map(|(key, _)| *key).collect();
        let keys = scope.keys();
        // They stand in the index by terms: others are passed over before they are read.
        let tells_facets = asks_other_facets(filter) && keys.len() <= LOOKED_THROUGH;
        let terms = Way::Terms {
            terms: found.iter().map(|text| text.key).collect(),
            facets: if tells_facets { keys } else { Vec::new() },
            others: Vec::new(),
        };
        Ok(Some(Plan {
            whole: scope.whole(text),
            ..Plan::new(vec![Way::Facets(named), terms])
        }))
    }

    /// The rarest of the conditions on terms, and the facets.
    pub(super) async fn plan_by_terms(&self, filter: &EventFilter, scope: &Scope) -> Result<Plan> {
        let facets = scope.keys();
        if facets.is_empty() && scope.facets.is_some() {
            return Ok(Plan::new(Vec::new()));
        }
        let few = facets.len() <= LOOKED_THROUGH;
        let looked_through = if few { facets.as_slice() } else { &[] };
        let asked = asked_terms(filter);
        let mut ways: Vec<Way> = asked
            .iter()
            .map(|(role, text)| Way::Terms {
                terms: in_each(&scope.tenants, *role, text),
                facets: looked_through.to_vec(),
                others: others(&asked, *role),
            })
            .collect();
        if !facets.is_empty() && facets.len() <= MERGED {
            ways.push(Way::Facets(facets));
        }
        let rarest = self.rarest(filter, ways).await?;
        Ok(Plan::new(vec![rarest]))
    }

    /// The way to the fewest events; where each leads to many, the one on which the newest reach back furthest.
    async fn rarest(&self, filter: &EventFilter, mut ways: Vec<Way>) -> Result<Way> {
        if ways.len() == 1 {
            return Ok(ways.swap_remove(0));
        }
        let rarities = ways.iter().map(|way| self.rarity(filter, way));
        let rarities: Vec<_> = rarities.collect();
        let rarities = try_join_all(rarities).await?;
        let rarest = ways.into_iter().zip(rarities);
        let rarest = rarest.min_by_key(|(_, rarity)| *rarity);
        Ok(rarest.map_or(Way::Time, |(way, _)| way))
    }

    /// Least for the rarest way: whether it leads to [`FEW`] events or more, whatever their facets, and then the time
    /// of the last of so many newest; else their number.
    async fn rarity(&self, filter: &EventFilter, way: &Way) -> Result<(bool, i64)> {
        let way = way.of_any_event();
        let is_merged = !matches!(&way, Way::Terms { terms, .. } if terms.len() > MERGED);
        if is_merged && let Some(at) = self.at_behind(&way, filter, None, FEW - 1).await? {
            return Ok((true, at));
        }
        match self.count_few(filter, &way).await? {
            FEW.. => Ok((true, i64::MAX)),
            count => Ok((false, i64::try_from(count).unwrap_or(i64::MAX))),
        }
    }

    /// The time of the event behind so many of a way's newest up to the time of a page key, by the index alone.
    pub(super) async fn at_behind(
        &self,
        way: &Way,
        filter: &EventFilter,
        before: Option<&PageKey>,
        events: u64,
    ) -> Result<Option<i64>> {
        let mut range = conditions(&range_of(filter), before);
        // Ids that have been on the page are told by the events, not by the index.
        range.remove("$nor");
        let (over, index) = way.clone().over();
        range.extend(over);
        let found = self
            .events
            .find(range)
            .projection(doc! { "_id": 0, "at": 1 })
            .sort(doc! { "at": -1, "_id": -1 })
            .skip(events)
            .limit(1)
            .optional(self.hint(index), |find, hint| find.hint(hint))
            .max_time(self.timeout)
            .await;
        let at = |event: &RawDocument| {
            let at = event.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        Ok(collect(found, at).await?.first().copied())
    }

    /// The terms that together tell the events of a filter, but for their facets: those of each text that it asks
    /// for, none of which an odd one shares.
    pub(super) async fn telling_terms(&self, filter: &EventFilter) -> Result<Option<Vec<Way>>> {
        let asked = asked_terms(filter);
        if asked.is_empty() || filter.text.is_some() {
            return Ok(None);
        }
        let tenants = &self.tenants_of(filter).await?;
        let ways = asked.into_iter().map(|(role, text)| async move {
            let of = |role: Role| Way::of_terms(in_each(tenants, role, text));
            let is_shared = match role.odd() {
                Some(odd) => is_odd(text) || self.count_few(filter, &of(odd)).await? > 0,
                None => false,
            };
            Ok::<_, StoreError>((!is_shared).then(|| of(role)))
        });
        let ways: Vec<_> = ways.collect();
        Ok(try_join_all(ways).await?.into_iter().collect())
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
        let (over, index) = way.clone().over();
        let mut query = conditions(&range_of(filter), None);
        query.extend(over);
        let counted = self.events.count_documents(query);
        let counted = counted.optional(self.hint(index), |count, hint| count.hint(hint));
        let counted = counted.limit(FEW).max_time(self.timeout).await;
        counted.map_err(|error| store_error(&error))
    }
}
