//! Several queries of one order, read side by side as one.

use std::cmp::Ordering;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mongodb::action::Action as _;
use mongodb::bson::{Bson, Document, RawDocument, doc};

use super::MongoStore;
use super::errors::store_error;
use crate::store::Result;
use crate::store::page::MOST_BYTES;

/// What was found, and whether that was cut: documents took so many bytes that not all were read.
pub(super) struct Merged<T> {
    pub(super) found: Vec<T>,
    pub(super) is_cut: bool,
}

/// What one query found.
struct Run<T> {
    rows: Vec<(Place, T)>,
    is_cut: bool,
}

impl MongoStore {
    /// Runs queries side by side and puts what they find in one order, each event once.
    pub(super) async fn merged<T: Send>(
        &self,
        queries: Vec<(Document, Document)>,
        (newest_first, limit): (bool, u32),
        fields: Option<Document>,
        read: impl Fn(&RawDocument) -> Option<T> + Send + Sync + Copy,
    ) -> Result<Merged<T>> {
        let order = if newest_first { -1 } else { 1 };
        let runs = queries.into_iter().map(|(query, index)| {
            let find = self
                .events
                .find(query)
                .sort(doc! { "at": order, "_id": order })
                .limit(i64::from(limit))
                .optional(self.hint(index), |find, hint| find.hint(hint))
                .optional(fields.clone(), |find, fields| find.projection(fields))
                .max_time(self.timeout);
            async move {
                let mut events = find.await.map_err(|error| store_error(&error))?;
                let mut rows = Vec::new();
                let mut bytes = 0;
                while let Some(document) = events.try_next().await.map_err(|e| store_error(&e))? {
                    let Some((place, event)) = Place::of(&document).zip(read(&document)) else {
                        continue;
                    };
                    if bytes >= MOST_BYTES {
                        return Ok(Run { rows, is_cut: true });
                    }
                    bytes += document.as_bytes().len();
                    rows.push((place, event));
                }
                Ok(Run {
                    rows,
                    is_cut: false,
                })
            }
        });
        let runs: Vec<_> = runs.collect();
        let runs: Vec<Run<T>> = stream::iter(runs).buffer_unordered(4).try_collect().await?;
        Ok(merge(runs, newest_first, limit as usize))
    }
}

fn merge<T>(mut runs: Vec<Run<T>>, newest_first: bool, limit: usize) -> Merged<T> {
    if runs.len() == 1
        && let Some(Run { rows, is_cut }) = runs.pop()
    {
        let found = rows.into_iter().map(|(_, event)| event).collect();
        return Merged { found, is_cut };
    }
    let in_order = |one: &Place, other: &Place| {
        let order = one.cmp(other);
        if newest_first { order.reverse() } else { order }
    };
    // Behind the first end of a query that was cut, its events are missing.
    let ends = runs.iter().filter(|run| run.is_cut);
    let ends = ends.filter_map(|run| run.rows.last());
    let end = ends.map(|(place, _)| place.clone()).min_by(in_order);
    let mut rows: Vec<(Place, T)> = runs.into_iter().flat_map(|run| run.rows).collect();
    rows.sort_by(|(one, _), (other, _)| in_order(one, other));
    rows.dedup_by(|(one, _), (other, _)| one.id == other.id);
    if let Some(end) = &end {
        rows.retain(|(place, _)| in_order(place, end).is_le());
    }
    rows.truncate(limit);
    Merged {
        found: rows.into_iter().map(|(_, event)| event).collect(),
        is_cut: end.is_some(),
    }
}

/// Where an event stands in the timeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: i64,
    id: Id,
}

impl Place {
    fn of(event: &RawDocument) -> Option<Self> {
        let at = event.get_datetime("at").ok()?.timestamp_millis();
        let id = Bson::try_from(event.get("_id").ok()??).ok()?;
        Some(Self { at, id: Id(id) })
    }
}

/// An `_id` in the server's order of types, and within texts and object ids, which pages tell apart.
#[derive(Clone, Debug, PartialEq)]
struct Id(Bson);

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Bson::ObjectId(one), Bson::ObjectId(another)) => one.cmp(another),
            (Bson::String(one), Bson::String(another)) => one.cmp(another),
            (one, another) => rank(one).cmp(&rank(another)),
        }
    }
}

fn rank(id: &Bson) -> u8 {
    match id {
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => 0,
        Bson::String(_) => 1,
        Bson::Document(_) => 2,
        Bson::Binary(_) => 3,
        Bson::ObjectId(_) => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Uuid;
    use mongodb::bson::oid::ObjectId;

    use super::*;

    fn run(at: &[i64], is_cut: bool) -> Run<i64> {
        let row = |at: &i64| {
            let id = Id(Bson::String(at.to_string()));
            (Place { at: *at, id }, *at)
        };
        Run {
            rows: at.iter().map(row).collect(),
            is_cut,
        }
    }

    #[test]
    fn behind_the_first_end_of_a_cut_query_nothing_is_told() {
        let merged = merge(
            vec![run(&[9, 7], true), run(&[8, 7, 6, 1], false)],
            true,
            10,
        );
        assert_eq!((merged.found, merged.is_cut), (vec![9, 8, 7], true));
        let merged = merge(vec![run(&[1, 5], true), run(&[2, 3], true)], false, 10);
        assert_eq!((merged.found, merged.is_cut), (vec![1, 2, 3], true));
        let merged = merge(vec![run(&[9, 7], false), run(&[8], false)], true, 2);
        assert_eq!((merged.found, merged.is_cut), (vec![9, 8], false));
    }

    /// A sort may panic at an order that contradicts itself.
    #[test]
    fn ids_of_any_types_have_one_order() {
        let ids = [
            Bson::Int32(7),
            Bson::Int64(8),
            Bson::String("7".to_owned()),
            Bson::String("8".to_owned()),
            Uuid::from_bytes([7; 16]).into(),
            Bson::ObjectId(ObjectId::from_bytes([1; 12])),
            Bson::ObjectId(ObjectId::from_bytes([2; 12])),
        ];
        let ids = ids.map(Id);
        assert!(ids.is_sorted());
        for [one, another, third] in ids.iter().flat_map(|one| {
            let pairs = ids
                .iter()
                .flat_map(|two| ids.iter().map(move |three| [two, three]));
            pairs.map(move |[two, three]| [one, two, three])
        }) {
            if one.cmp(another).is_eq() {
                assert_eq!(one.cmp(third), another.cmp(third));
            }
        }
    }
}
