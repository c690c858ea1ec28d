//! The pages of the timeline.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use mongodb::action::Action as _;
use mongodb::bson::{Bson, DateTime, Document, RawDocument, doc};
use mongodb::options::Hint;

use super::conditions::{conditions, parted, range_of};
use super::errors::store_error;
use super::merge::{Row, Run, together};
use super::plan::{MERGED, MOST_TEXTS, Plan, Scope, Way, is_of_time, text_of};
use super::schema::by_time;
use super::upkeep::A_LOOK;
use super::{MongoStore, bson_date, decode};
use crate::store::keys::asked_terms;
use crate::store::page::MOST_BYTES;
use crate::store::{EventFilter, EventPage, PageKey, Payloads, Result, StoredEvent};

/// Events that are looked at, for each one wanted, before many facets are asked one by one.
const LOOKED_AT: i64 = 30;

/// How many of them the server hands over at once.
const LOOKED_AT_ONCE: u32 = 6;

/// How a text is found: so many texts that hold it are looked up. Where more do, so many of the newest events are looked
/// through, for each one wanted and at most; where those do not fill the page, it goes on with the next.
const LADDER: [(usize, Option<(u64, u64)>); 3] = [
    (250, Some((60, 6_000))),
    (MOST_TEXTS, Some((600, 100_000))),
    (50_000, None),
];

/// What a page is asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    filter: &'a EventFilter,
    before: Option<&'a PageKey>,
    limit: u32,
    payloads: Payloads,
}

/// A part of the time, in milliseconds since 1970: from one until before another, open where there is none.
type Span = (Option<i64>, Option<i64>);

impl From<Run<StoredEvent>> for EventPage {
    fn from(run: Run<StoredEvent>) -> Self {
        Self {
            is_cut: run.is_cut,
            events: run.into_events(),
        }
    }
}

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
        let asked = Asked {
            filter,
            before,
            limit,
            payloads,
        };
        if is_of_time(filter) {
            let all = Plan::of_time().queries(filter, before);
            return Ok(self.page_of(all, asked).await?.into());
        }
        // These first: an event that gets its keys meanwhile is then found twice, not never.
        let keyless = Plan::of_keyless().queries(filter, before);
        let keyless = self.page_of(keyless, asked);
        let begun = Instant::now();
        let (keyless, mut scope) = tokio::try_join!(keyless, self.scope(filter))?;
        if begun.elapsed() >= A_LOOK {
            // Events may have left those without keys by a facet that the dictionary did not have yet.
            scope = self.scope(filter).await?;
        }
        self.pass("between_keyless_and_keyed").await?;
        let keyed = match asked_terms(filter).len() {
            0 if text_of(filter).is_some() => self.page_of_text(asked, &scope).await?,
            0 | 1 => {
                let plan = self.plan_within(filter, &scope).await?;
                self.page_of_plan(plan, asked).await?
            }
            _ => self.page_of_several(asked, &scope).await?,
        };
        Ok(together((true, limit), [keyless, keyed]).into())
    }

    /// The events that have keys.
    async fn page_of_plan(&self, plan: Plan, asked: Asked<'_>) -> Result<Run<StoredEvent>> {
        let plan = plan.keyed();
        if let [Way::Facets(facets)] = plan.ways.as_slice()
            && plan.facets_only
            && facets.len() > MERGED
        {
            return self.page_of_many_facets(facets, &plan, asked).await;
        }
        let queries = plan.queries(asked.filter, asked.before);
        self.page_of(queries, asked).await
    }

    async fn page_of(
        &self,
        queries: Vec<(Document, Document)>,
        asked: Asked<'_>,
    ) -> Result<Run<StoredEvent>> {
        let fields = fields(asked.payloads);
        self.merged(queries, (true, asked.limit), fields, decode::event)
            .await
    }

    /// A text is found by the texts that hold it, or among the newest events where many hold it. Only one that far too
    /// many texts hold and hardly an event is looked for in all events.
    async fn page_of_text(&self, asked: Asked<'_>, scope: &Scope) -> Result<Run<StoredEvent>> {
        let filter = asked.filter;
        if let Some(plan) = self.plan_by_few(filter, scope).await? {
            return self.page_of_plan(plan, asked).await;
        }
        let way = scope.looked_through(filter);
        for (texts, events) in LADDER {
            if let Some(plan) = self.plan_by_texts(filter, scope, texts).await? {
                return self.page_of_plan(plan, asked).await;
            }
            if let Some(events) = events
                && let Some(page) = self.page_among(&way, events, asked).await?
            {
                return Ok(page);
            }
        }
        self.page_of_plan(Plan::new(vec![way]), asked).await
    }

    /// The page, if it is full with those among so many of the newest events of a way, or there are no more. The newer
    /// and the older half of them are looked through side by side: for one query the server uses one processor.
    async fn page_among(
        &self,
        way: &Way,
        (for_each, at_most): (u64, u64),
        asked: Asked<'_>,
    ) -> Result<Option<Run<StoredEvent>>> {
        let events = (for_each * u64::from(asked.limit)).min(at_most);
        let at_behind = |events| self.at_behind(way, asked.filter, asked.before, events);
        let (middle, end) = tokio::try_join!(at_behind(events / 2), at_behind(events))?;
        // Events of one time are all looked at or none: others of the same may come later.
        let later = |at: i64| at.saturating_add(1);
        let newer = (middle.map(later), None);
        let older = middle.map(|middle| (end.map(later), Some(later(middle))));
        let plan = Plan::new(vec![way.clone()]).keyed();
        let queries = plan.queries(asked.filter, asked.before);
        let mut halves = within(&queries, newer);
        if let Some(older) = older {
            halves.extend(within(&queries, older));
        }
        let page = self.page_of(halves, asked).await?;
        let is_full = page.is_cut || page.rows.len() >= asked.limit as usize;
        Ok((is_full || end.is_none()).then_some(page))
    }

    /// Of several conditions on terms one leads, and the events of the others are looked for among its own.
    async fn page_of_several(&self, asked: Asked<'_>, scope: &Scope) -> Result<Run<StoredEvent>> {
        let Asked { filter, before, .. } = asked;
        let plan = self.plan_by_terms(filter, scope);
        let (plan, ends) = tokio::try_join!(plan, self.ends(filter))?;
        let Some((first, last)) = ends else {
            return Ok(Run::EMPTY);
        };
        let key = before.map(|before| bson_date(before.at).timestamp_millis());
        let begin = key.map_or(last, |key| key.min(last));
        let queries = plan.keyed().queries(filter, before);
        self.page_in_pairs(&queries, pairs(begin, (first, last)), asked)
            .await
    }

    /// The times of the first and the last event of the range, whatever else the filter asks for.
    async fn ends(&self, filter: &EventFilter) -> Result<Option<(i64, i64)>> {
        let at = |event: &RawDocument| {
            let at = event.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        let end = |newest: bool| {
            let all = Plan::of_time().queries(&range_of(filter), None);
            let fields = Some(doc! { "_id": 1, "at": 1 });
            self.merged(all, (newest, 1), fields, at)
        };
        let (first, last) = tokio::try_join!(end(false), end(true))?;
        let first = first.into_events().pop();
        Ok(first.zip(last.into_events().pop()))
    }

    /// Where conditions are common each and rare together, the server looks through many events, and with one
    /// processor for each query: so it gets two for each, of parts of the time that become longer the further back
    /// they are.
    async fn page_in_pairs(
        &self,
        queries: &[(Document, Document)],
        pairs: Vec<[Span; 2]>,
        asked: Asked<'_>,
    ) -> Result<Run<StoredEvent>> {
        let limit = asked.limit;
        let mut page = Run::EMPTY;
        for (turn, [mut newer, mut older]) in pairs.into_iter().enumerate() {
            // Where the newest are none, the rest is worth one turn more.
            let is_rest = turn == 1 && page.rows.is_empty();
            if is_rest {
                (newer, older) = ((older.0, newer.1), (None, older.0));
            }
            let missing = limit.saturating_sub(u32::try_from(page.rows.len()).unwrap_or(limit));
            let part = |span: Span| {
                let limit = missing;
                self.page_of(within(queries, span), Asked { limit, ..asked })
            };
            let (newer, older) = tokio::try_join!(part(newer), part(older))?;
            page = together((true, limit), [page, newer, older]);
            if is_rest || page.is_cut || page.rows.len() >= limit as usize {
                break;
            }
        }
        Ok(page)
    }

    /// The ids are read before the events. Where those of a full page are deleted meanwhile, more may come behind them.
    async fn page_of_many_facets(
        &self,
        facets: &[i64],
        plan: &Plan,
        asked: Asked<'_>,
    ) -> Result<Run<StoredEvent>> {
        let Asked { filter, limit, .. } = asked;
        let mut before = asked.before.cloned();
        loop {
            let ids = self.ids_of_many_facets(filter, before.as_ref(), facets, plan.clone(), limit);
            let ids = ids.await?;
            self.pass("between_ids_and_events").await?;
            let mut page = self.events_in_order(filter, &ids, asked.payloads).await?;
            let is_full = ids.rows.len() >= limit as usize;
            page.is_cut |= is_full && page.rows.len() < ids.rows.len();
            match ids.rows.last() {
                Some(last) if page.is_cut && page.rows.is_empty() => {
                    before = Some(last.event.clone());
                }
                _ => return Ok(page),
            }
        }
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
    ) -> Result<Run<PageKey>> {
        if let Some(rows) = self.among_newest(filter, before, facets, limit).await? {
            let is_cut = false;
            return Ok(Run { rows, is_cut });
        }
        let fields = doc! { "_id": 1, "at": 1 };
        let queries = plan.key_queries(filter, before);
        self.merged(queries, (true, limit), Some(fields), page_key)
            .await
    }

    /// The events with these ids, in their order. The server hands them over in another, so when they
    /// take much, fewer are asked for at once.
    async fn events_in_order(
        &self,
        filter: &EventFilter,
        ids: &Run<PageKey>,
        payloads: Payloads,
    ) -> Result<Run<StoredEvent>> {
        let mut page = Run {
            rows: Vec::new(),
            is_cut: ids.is_cut,
        };
        let mut left = ids.rows.as_slice();
        let mut at_once = left.len();
        let mut bytes = 0;
        while !left.is_empty() {
            let (asked, others) = left.split_at(at_once.min(left.len()));
            let Some((events, length)) = self.events_of(filter, asked, payloads).await? else {
                at_once = at_once.div_ceil(8);
                continue;
            };
            page.rows.extend(events);
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
        ids: &[Row<PageKey>],
        payloads: Payloads,
    ) -> Result<Option<(Vec<Row<StoredEvent>>, usize)>> {
        let mut query = conditions(filter, None);
        let wanted: Vec<Bson> = ids.iter().map(|row| row.id().clone()).collect();
        query.insert("_id", doc! { "$in": wanted });
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
            if let Some(row) = Row::read(&event, decode::event) {
                events.insert(row.id().to_string(), row);
            }
        }
        let in_order = ids.iter();
        let in_order = in_order.filter_map(|row| events.remove(&row.id().to_string()));
        Ok(Some((in_order.collect(), bytes)))
    }

    /// The ids of a page of facets' events, if it is full with those among the newest of any or there are no more; they
    /// are read from the index of the timeline, and no further than the page needs. Events without keys are passed over.
    async fn among_newest(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        facets: &[i64],
        limit: u32,
    ) -> Result<Option<Vec<Row<PageKey>>>> {
        let facets: HashSet<i64> = facets.iter().copied().collect();
        let mut left = LOOKED_AT * i64::from(limit);
        let looks = parted(&range_of(filter), before).into_iter();
        let looks = looks.map(async |range| {
            let look = self
                .events
                .find(range)
                .projection(doc! { "_id": 1, "at": 1, "facet": 1 })
                .sort(doc! { "at": -1, "_id": -1 })
                .limit(left)
                .batch_size(limit.saturating_mul(LOOKED_AT_ONCE))
                .optional(self.hint(by_time()), |look, hint| look.hint(hint))
                .max_time(self.timeout);
            look.await.map_err(|error| store_error(&error))
        });
        let mut ids = Vec::new();
        for mut found in try_join_all(looks).await? {
            while left > 0
                && let Some(event) = found
                    .try_next()
                    .await
                    .map_err(|error| store_error(&error))?
            {
                left -= 1;
                let facet = event.get_i64("facet");
                if facet.is_ok_and(|facet| facets.contains(&facet)) {
                    ids.extend(Row::read(&event, page_key));
                }
                if ids.len() >= limit as usize {
                    return Ok(Some(ids));
                }
            }
        }
        Ok((left > 0).then_some(ids))
    }
}

/// The place of an event of which only that was read.
fn page_key(event: &RawDocument) -> Option<PageKey> {
    Some(PageKey::of(&decode::event(event)?))
}

/// The same queries for a part of the time, without those for a time that lies elsewhere.
fn within(queries: &[(Document, Document)], (from, to): Span) -> Vec<(Document, Document)> {
    let mut queries = queries.to_vec();
    queries.retain_mut(|(query, _)| {
        let Ok(at) = query.get_document_mut("at") else {
            return true;
        };
        let own = |bound: &str| Some(at.get_datetime(bound).ok()?.timestamp_millis());
        let exact = own("$eq");
        let from = from.max(own("$gte"));
        let to = [to, own("$lt")].into_iter().flatten().min();
        for (bound, time) in [("$gte", from), ("$lt", to)] {
            if let Some(time) = time {
                at.insert(bound, DateTime::from_millis(time));
            }
        }
        exact.is_none_or(|exact| {
            from.is_none_or(|from| from <= exact) && to.is_none_or(|to| exact < to)
        })
    });
    queries
}

/// All time in parts, newest first, of which each two are longer than the two before. Wherever a page begins, they are
/// as long as the first page's: events are as far apart there.
fn pairs(begin: i64, (first, last): (i64, i64)) -> Vec<[Span; 2]> {
    // In 32nds of the time between both ends, from where the page begins.
    const REACHED: [i128; 5] = [1, 2, 9, 17, 24];
    let length = i128::from(last) - i128::from(first);
    let at = |reached: i128| i128::from(begin) - length * reached / 32;
    let at = |reached| i64::try_from(at(reached)).unwrap_or(first).max(first);
    let mut parts = Vec::new();
    let mut to = None;
    for from in REACHED
        .map(|reached| Some(at(reached)))
        .into_iter()
        .chain([None])
    {
        parts.push((from, to));
        to = from;
    }
    parts.as_chunks().0.to_vec()
}

fn fields(payloads: Payloads) -> Option<Document> {
    match payloads {
        Payloads::Whole => None,
        Payloads::LeftOut => Some(doc! { "metadata": 0, "metadataJson": 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_cover_all_time_newest_first() {
        for (begin, ends) in [
            (6400, (0, 6400)),
            (1000, (0, 6400)),
            (-7, (-7, -7)),
            (i64::MAX, (i64::MIN, i64::MAX)),
            (i64::MIN, (i64::MIN, i64::MAX)),
        ] {
            let parts = pairs(begin, ends).concat();
            assert_eq!((parts.len(), parts[0].1), (6, None));
            assert!(parts[0].0 <= Some(begin) && parts[5].0.is_none());
            assert!(parts.is_sorted_by(|newer, older| newer.0 == older.1));
            let borders: Vec<_> = parts[..5].iter().filter_map(|part| part.0).collect();
            assert!(borders.len() == 5 && borders.is_sorted_by(|newer, older| newer >= older));
            assert!(ends.0 <= borders[4] && borders[0] <= ends.1);
        }
        let first = |begin| pairs(begin, (0, 6400))[0];
        assert_eq!(first(6400), [(Some(6200), None), (Some(6000), Some(6200))]);
        assert_eq!(first(1000), [(Some(800), None), (Some(600), Some(800))]);
    }
}
