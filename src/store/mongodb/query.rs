//! The reads of the timeline. A filter's values are only ever compared, never interpreted: text
//! becomes an escaped pattern, and no operator comes from outside.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mongodb::action::Action as _;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, RawDocument, Regex, doc};
use mongodb::options::Hint;

use super::errors::store_error;
use super::merge::Merged;
use super::plan::{MERGED, Plan, Way};
use super::schema::by_time;
use super::{MongoStore, bson_date, decode};
use crate::store::keys::{asked_terms, first_behind};
use crate::store::page::MOST_BYTES;
use crate::store::{EventFilter, EventPage, PageKey, Payloads, Result, StoredEvent};

/// Events that are looked at, for each one wanted, before many facets are asked one by one.
const LOOKED_AT: i64 = 30;

/// How many of them the server hands over at once.
const LOOKED_AT_ONCE: u32 = 6;

/// Fields of `EventFilter::text`.
const SEARCHED: [&str; 8] = [
    "action",
    "actor.id",
    "actor.email",
    "actor.name",
    "actor.ip",
    "target.type",
    "target.id",
    "target.name",
];

impl MongoStore {
    pub(super) async fn query_events(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
        payloads: Payloads,
    ) -> Result<EventPage> {
        // To MongoDB, a limit of zero is none.
        if limit == 0 {
            return Ok(EventPage::default());
        }
        let plan = self.plan(filter).await?;
        if let [Way::Facets(facets), ..] = plan.ways.as_slice()
            && plan.facets_only
            && facets.len() > MERGED
        {
            let ids = self
                .ids_of_many_facets(filter, before, facets, plan.clone(), limit)
                .await?;
            return self.events_in_order(filter, ids, payloads).await;
        }
        let mut queries = plan.queries(filter, before);
        if asked_terms(filter).len() > 1 {
            queries = self.halved(queries, filter, before).await?;
        }
        let page = self
            .merged(queries, (true, limit), fields(payloads), decode::event)
            .await?;
        Ok(EventPage {
            events: page.found,
            is_cut: page.is_cut,
        })
    }

    /// Where conditions are common each and rare together, the server looks through many events, and with one
    /// processor for each query: so it gets two for each, of the newer and of the older half of the time.
    async fn halved(
        &self,
        queries: Vec<(Document, Document)>,
        filter: &EventFilter,
        before: Option<&PageKey>,
    ) -> Result<Vec<(Document, Document)>> {
        let at = |event: &RawDocument| {
            let at = event.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        let end = |newest: bool| {
            let all = vec![(conditions(&range_of(filter), before), by_time())];
            let fields = Some(doc! { "_id": 1, "at": 1 });
            self.merged(all, (newest, 1), fields, at)
        };
        let (first, last) = tokio::try_join!(end(false), end(true))?;
        let (Some(first), Some(last)) = (first.found.first(), last.found.first()) else {
            return Ok(queries);
        };
        let middle = DateTime::from_millis(first.midpoint(*last));
        let half = |query: &Document, bound: &str| {
            let mut query = query.clone();
            if let Ok(at) = query.get_document_mut("at") {
                at.insert(bound, middle);
            }
            query
        };
        let halves = queries.into_iter().flat_map(|(query, index)| {
            [
                (half(&query, "$gte"), index.clone()),
                (half(&query, "$lt"), index),
            ]
        });
        Ok(halves.collect())
    }

    /// When events are of so many facets, most pages are full after a short look at the newest
    /// events of any. Only otherwise each facet is asked.
    async fn ids_of_many_facets(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        facets: &[i64],
        plan: Plan,
        limit: u32,
    ) -> Result<Merged<Bson>> {
        if let Some(found) = self.among_newest(filter, before, facets, limit).await? {
            return Ok(Merged {
                found,
                is_cut: false,
            });
        }
        let fields = doc! { "_id": 1, "at": 1 };
        let id = |event: &RawDocument| Bson::try_from(event.get("_id").ok()??).ok();
        let queries = plan.key_queries(filter, before);
        self.merged(queries, (true, limit), Some(fields), id).await
    }

    /// The events with these ids, in their order. The server hands them over in another, so when they
    /// take much, fewer are asked for at once.
    async fn events_in_order(
        &self,
        filter: &EventFilter,
        ids: Merged<Bson>,
        payloads: Payloads,
    ) -> Result<EventPage> {
        let mut page = EventPage {
            events: Vec::new(),
            is_cut: ids.is_cut,
        };
        let mut left = ids.found.as_slice();
        let mut at_once = left.len();
        let mut bytes = 0;
        while !left.is_empty() {
            let (asked, others) = left.split_at(at_once.min(left.len()));
            let Some((events, length)) = self.events_of(filter, asked, payloads).await? else {
                at_once = at_once.div_ceil(8);
                continue;
            };
            page.events.extend(events);
            bytes += length;
            left = others;
            if bytes >= MOST_BYTES && !left.is_empty() {
                page.is_cut = true;
                break;
            }
        }
        Ok(page)
    }

    /// With the bytes that they take; `None` when that is more than a page may have, of several.
    async fn events_of(
        &self,
        filter: &EventFilter,
        ids: &[Bson],
        payloads: Payloads,
    ) -> Result<Option<(Vec<StoredEvent>, usize)>> {
        let mut query = conditions(filter, None);
        query.insert("_id", doc! { "$in": ids });
        let found = self
            .events
            .find(query)
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .optional(fields(payloads), |find, fields| find.projection(fields))
            .batch_size(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        let mut found = found.await.map_err(|error| store_error(&error))?;
        let mut events = HashMap::new();
        let mut bytes = 0;
        while let Some(event) = found
            .try_next()
            .await
            .map_err(|error| store_error(&error))?
        {
            bytes += event.as_bytes().len();
            if bytes > MOST_BYTES && ids.len() > 1 {
                return Ok(None);
            }
            let id = event.get("_id").ok().flatten();
            let id = id.and_then(|id| Bson::try_from(id).ok());
            events.extend(id.map(|id| id.to_string()).zip(decode::event(&event)));
        }
        let in_order = ids.iter().filter_map(|id| events.remove(&id.to_string()));
        Ok(Some((in_order.collect(), bytes)))
    }

    /// The ids of a page of facets' events, if it is full with those among the newest of any; they
    /// are read from the index of the timeline, and no further than the page needs.
    async fn among_newest(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        facets: &[i64],
        limit: u32,
    ) -> Result<Option<Vec<Bson>>> {
        let facets: HashSet<i64> = facets.iter().copied().collect();
        let found = self
            .events
            .find(conditions(&range_of(filter), before))
            .projection(doc! { "_id": 1, "at": 1, "facet": 1 })
            .sort(doc! { "at": -1, "_id": -1 })
            .limit(LOOKED_AT * i64::from(limit))
            .batch_size(limit.saturating_mul(LOOKED_AT_ONCE))
            .optional(self.hint(by_time()), |look, hint| look.hint(hint))
            .max_time(self.timeout);
        let mut found = found.await.map_err(|error| store_error(&error))?;
        let mut ids = Vec::new();
        while ids.len() < limit as usize {
            let next = found.try_next().await;
            let Some(event) = next.map_err(|error| store_error(&error))? else {
                return Ok(None);
            };
            let Ok(facet) = event.get_i64("facet") else {
                // Without keys: only the whole query tells whether it belongs here.
                return Ok(None);
            };
            if facets.contains(&facet)
                && let Ok(Some(id)) = event.get("_id")
                && let Ok(id) = Bson::try_from(id)
            {
                ids.push(id);
            }
        }
        Ok(Some(ids))
    }
}

fn fields(payloads: Payloads) -> Option<Document> {
    match payloads {
        Payloads::Whole => None,
        Payloads::LeftOut => Some(doc! { "metadata": 0, "metadataJson": 0 }),
    }
}

/// The filter's conditions on time alone.
pub(super) fn range_of(filter: &EventFilter) -> EventFilter {
    EventFilter {
        since: filter.since,
        until: filter.until,
        ..EventFilter::default()
    }
}

pub(super) fn conditions(filter: &EventFilter, before: Option<&PageKey>) -> Document {
    let mut query = Document::new();
    for (field, exact) in [
        ("source", &filter.source),
        ("tenantSlug", &filter.tenant),
        ("actor.ip", &filter.ip),
    ] {
        if let Some(exact) = exact {
            query.insert(field, exact);
        }
    }
    if let Some(outcome) = filter.outcome {
        query.insert("outcome", outcome.as_str());
    }
    if let Some(action) = &filter.action {
        match action.strip_suffix('*') {
            Some("") => {}
            Some(prefix) => {
                let mut range = doc! { "$gte": prefix };
                if let Some(behind) = first_behind(prefix) {
                    range.insert("$lt", behind);
                }
                query.insert("action", range);
            }
            None => {
                query.insert("action", action);
            }
        }
    }

    // The lower bound also keeps out documents of others whose `at` is no date.
    let mut at = doc! { "$gte": filter.since.map_or(DateTime::MIN, ceiling) };
    if let Some(until) = filter.until {
        at.insert("$lt", ceiling(until));
    }
    if let Some(before) = before {
        at.insert("$lte", bson_date(before.at));
        query.insert("$nor", already_seen("at", before));
    }
    query.insert("at", at);

    let mut all = Vec::new();
    if let Some(actor) = &filter.actor {
        let pattern = format!(r"\A{}\z", escape(actor));
        all.push(any_of(&["actor.id", "actor.email", "actor.name"], &pattern));
    }
    if let Some(target) = &filter.target {
        let pattern = format!(r"\A{}\z", escape(target));
        all.push(any_of(&["target.id", "target.name"], &pattern));
    }
    if let Some(text) = filter.text.as_deref().filter(|text| !text.is_empty()) {
        all.push(any_of(&SEARCHED, &escape(text)));
    }
    if !all.is_empty() {
        query.insert("$and", all);
    }
    query
}

/// What of the page key's own millisecond was on the page. `_id`s of one type compare by value; in
/// the sort, texts come after object ids.
pub(super) fn already_seen(field: &str, before: &PageKey) -> Vec<Document> {
    let at = bson_date(before.at);
    let id = id_bson(&before.id);
    let mut seen = vec![doc! { field: at, "_id": { "$gte": &id } }];
    if !matches!(id, Bson::ObjectId(_)) {
        seen.push(doc! { field: at, "_id": { "$type": "objectId" } });
    }
    seen
}

/// An event's id as it is stored: Daybook's own are object ids, those of others may be texts.
pub(super) fn id_bson(id: &str) -> Bson {
    let canonical = |oid: &ObjectId| oid.to_hex() == id;
    match ObjectId::parse_str(id).ok().filter(canonical) {
        Some(oid) => Bson::ObjectId(oid),
        None => Bson::String(id.to_owned()),
    }
}

fn any_of(fields: &[&str], text: &str) -> Document {
    let pattern = pattern(text);
    let alternatives = fields.iter().map(|field| doc! { *field: pattern.clone() });
    doc! { "$or": alternatives.collect::<Vec<_>>() }
}

/// A pattern that matches in any case of letters.
pub(super) fn pattern(pattern: &str) -> Bson {
    Bson::RegularExpression(Regex {
        pattern: pattern.try_into().expect("escape() leaves no NUL"),
        options: "i".try_into().expect("a literal without NUL"),
    })
}

/// The text as a pattern that matches just it. Letters and digits of any script stand for
/// themselves, and whatever else is ASCII may be escaped.
pub(super) fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => pattern.push_str(r"\x00"),
            '\n' => pattern.push_str(r"\n"),
            other => {
                if other.is_ascii() && !other.is_ascii_alphanumeric() && !other.is_ascii_control() {
                    pattern.push('\\');
                }
                pattern.push(other);
            }
        }
    }
    pattern
}

/// The first whole millisecond not before: stored dates have no finer part.
pub(super) fn ceiling(at: Timestamp) -> DateTime {
    let floor = at.as_nanosecond().div_euclid(1_000_000);
    let rest = i128::from(at.as_nanosecond().rem_euclid(1_000_000) != 0);
    DateTime::from_millis(i64::try_from(floor + rest).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_only_its_text() {
        assert_eq!(escape("a.b*c\0é$"), r"a\.b\*c\x00é\$");
    }

    #[test]
    fn bounds_between_milliseconds_round_up() {
        let at = Timestamp::from_nanosecond(-1_500_001).unwrap_or_default();
        assert_eq!(ceiling(at).timestamp_millis(), -1);
        let whole = Timestamp::from_millisecond(7).unwrap_or_default();
        assert_eq!(ceiling(whole).timestamp_millis(), 7);
    }
}
