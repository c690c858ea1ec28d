//! Several queries of one order, read side by side as one.

use std::cmp::Ordering;
use std::future::ready;
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mongodb::action::Action as _;
use mongodb::bson::{Binary, Bson, DateTime, Document, RawDocument, doc};

use super::MongoStore;
use super::errors::store_error;
use crate::store::page::MOST_BYTES;
use crate::store::{Result, StoreError};

/// What queries found, in order, and whether that was cut: documents took so many bytes that not all were read.
pub(super) struct Run<T> {
    pub rows: Vec<Row<T>>,
    pub is_cut: bool,
}

impl<T> Run<T> {
    pub(super) const EMPTY: Self = Self {
        rows: Vec::new(),
        is_cut: false,
    };

    pub(super) fn into_events(self) -> Vec<T> {
        self.rows.into_iter().map(|row| row.event).collect()
    }
}

/// An event, or what was read of it.
pub(super) struct Row<T> {
    place: Place,
    bytes: usize,
    pub event: T,
}

impl<T> Row<T> {
    pub(super) fn read(
        document: &RawDocument,
        read: impl FnOnce(&RawDocument) -> Option<T>,
    ) -> Option<Self> {
        Some(Self {
            place: Place::of(document)?,
            bytes: document.as_bytes().len(),
            event: read(document)?,
        })
    }

    pub(super) fn id(&self) -> &Bson {
        &self.place.id.0
    }
}

/// Puts runs of one order into one, each event once.
pub(super) fn together<T>(order: (bool, u32), runs: impl IntoIterator<Item = Run<T>>) -> Run<T> {
    let first = First::new(order);
    runs.into_iter().for_each(|run| first.add(run));
    first.into_run()
}

/// The first rows of all queries that have ended.
struct First<T> {
    newest_first: bool,
    limit: usize,
    run: Mutex<Run<T>>,
}

impl<T> First<T> {
    fn new((newest_first, limit): (bool, u32)) -> Self {
        Self {
            newest_first,
            limit: limit as usize,
            run: Mutex::new(Run::EMPTY),
        }
    }

    fn into_run(self) -> Run<T> {
        let run = self.run.into_inner();
        run.unwrap_or_else(PoisonError::into_inner)
    }

    /// Once no more rows are wanted: a condition on the time that any other row among the first meets.
    fn condition(&self) -> Option<(&'static str, DateTime)> {
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = run.is_cut || run.rows.len() >= self.limit;
        let last = run.rows.last().filter(|_| is_full)?;
        let bound = if self.newest_first { "$gte" } else { "$lte" };
        Some((bound, DateTime::from_millis(last.place.at)))
    }

    fn add(&self, ended: Run<T>) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if run.rows.is_empty() {
            *run = ended;
        } else {
            self.merge(&mut run, ended);
        }
    }

    fn merge(&self, run: &mut Run<T>, ended: Run<T>) {
        let in_order = |one: &Place, other: &Place| {
            let order = one.cmp(other);
            if self.newest_first {
                order.reverse()
            } else {
                order
            }
        };
        // Behind the first end of a query that was cut, its events are missing.
        let ends = [&*run, &ended].into_iter().filter(|run| run.is_cut);
        let ends = ends.filter_map(|run| run.rows.last());
        let end = ends.map(|last| last.place.clone()).min_by(in_order);
        let rows = &mut run.rows;
        rows.extend(ended.rows);
        rows.sort_by(|one, other| in_order(&one.place, &other.place));
        rows.dedup_by(|one, other| one.place.id == other.place.id);
        if let Some(end) = &end {
            rows.retain(|row| in_order(&row.place, end).is_le());
        }
        rows.truncate(self.limit);
        let within = fitting(rows);
        run.is_cut = end.is_some() || within < rows.len();
        rows.truncate(within);
    }
}

/// How many of the first rows a page has room for.
fn fitting<T>(rows: &[Row<T>]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&Row<T>| {
        let has_room = bytes < MOST_BYTES;
        bytes += row.bytes;
        has_room
    };
    rows.iter().take_while(fits).count()
}

impl MongoStore {
    /// Runs queries side by side and puts what they find in one order, each event once.
    pub(super) async fn merged<T: Send>(
        &self,
        queries: Vec<(Document, Document)>,
        order: (bool, u32),
        fields: Option<Document>,
        read: impl Fn(&RawDocument) -> Option<T> + Send + Sync + Copy,
    ) -> Result<Run<T>> {
        let first = First::new(order);
        let (newest_first, limit) = order;
        let direction = if newest_first { -1 } else { 1 };
        let runs = queries.into_iter().map(|(mut query, index)| {
            let (first, fields) = (&first, fields.clone());
            async move {
                // When its turn comes, others may have found enough that comes before most of its events.
                if let Some((bound, at)) = first.condition()
                    && let Ok(range) = query.get_document_mut("at")
                {
                    range.insert(bound, at);
                }
                let find = self
                    .events
                    .find(query)
                    .sort(doc! { "at": direction, "_id": direction })
                    .limit(i64::from(limit))
                    .optional(self.hint(index), |find, hint| find.hint(hint))
                    .optional(fields, |find, fields| find.projection(fields))
                    .max_time(self.timeout);
                let mut events = find.await.map_err(|error| store_error(&error))?;
                let mut rows = Vec::new();
                let mut taken = 0;
                let mut is_cut = false;
                while let Some(document) = events.try_next().await.map_err(|e| store_error(&e))? {
                    let Some(row) = Row::read(&document, read) else {
                        continue;
                    };
                    if taken >= MOST_BYTES {
                        is_cut = true;
                        break;
                    }
                    taken += row.bytes;
                    rows.push(row);
                }
                first.add(Run { rows, is_cut });
                Ok::<_, StoreError>(())
            }
        });
        let runs: Vec<_> = runs.collect();
        let ended = stream::iter(runs).buffer_unordered(4);
        ended.try_for_each(|()| ready(Ok(()))).await?;
        Ok(first.into_run())
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

/// An `_id` in the server's order, by which pages end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id(Bson);

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

fn compare(one: &Bson, other: &Bson) -> Ordering {
    match (one, other) {
        (Bson::String(one), Bson::String(other)) => one.cmp(other),
        (Bson::Document(one), Bson::Document(other)) => {
            let fields = one.iter().zip(other.iter());
            let mut orders = fields.map(|((name, value), (other_name, other))| {
                let types = rank(value).cmp(&rank(other));
                let names = types.then_with(|| name.cmp(other_name));
                names.then_with(|| compare(value, other))
            });
            let differing = orders.find(|order| order.is_ne());
            differing.unwrap_or(one.len().cmp(&other.len()))
        }
        (Bson::Array(one), Bson::Array(other)) => {
            let mut orders = one.iter().zip(other).map(|(one, other)| {
                let types = rank(one).cmp(&rank(other));
                types.then_with(|| compare(one, other))
            });
            let differing = orders.find(|order| order.is_ne());
            differing.unwrap_or(one.len().cmp(&other.len()))
        }
        (Bson::Binary(one), Bson::Binary(other)) => {
            let head = |binary: &Binary| (binary.bytes.len(), u8::from(binary.subtype));
            let heads = head(one).cmp(&head(other));
            heads.then_with(|| one.bytes.cmp(&other.bytes))
        }
        (Bson::ObjectId(one), Bson::ObjectId(other)) => one.cmp(other),
        (Bson::Boolean(one), Bson::Boolean(other)) => one.cmp(other),
        (Bson::DateTime(one), Bson::DateTime(other)) => one.cmp(other),
        (Bson::Timestamp(one), Bson::Timestamp(other)) => one.cmp(other),
        (one, other) => {
            let ranks = rank(one).cmp(&rank(other));
            ranks.then_with(|| {
                let ((one, whole), (other, other_whole)) = (number(one), number(other));
                one.total_cmp(&other).then(whole.cmp(&other_whole))
            })
        }
    }
}

/// A number of any type as the nearest double, and whole: doubles do not tell large ones apart.
fn number(id: &Bson) -> (f64, i64) {
    match id {
        Bson::Int32(number) => (f64::from(*number), i64::from(*number)),
        Bson::Int64(number) => (*number as f64, *number),
        other => {
            let number: f64 = other.to_string().parse().unwrap_or_default();
            (number, number as i64)
        }
    }
}

/// The place of an id's type.
fn rank(id: &Bson) -> u8 {
    match id {
        Bson::Null => 0,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => 1,
        Bson::String(_) => 2,
        Bson::Document(_) => 3,
        Bson::Array(_) => 4,
        Bson::Binary(_) => 5,
        Bson::ObjectId(_) => 6,
        Bson::Boolean(_) => 7,
        Bson::DateTime(_) => 8,
        Bson::Timestamp(_) => 9,
        _ => 10,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use mongodb::bson::Uuid;
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::spec::BinarySubtype;

    use super::*;

    fn run(at: &[i64], is_cut: bool) -> Run<i64> {
        let row = |at: &i64| Row {
            place: Place {
                at: *at,
                id: Id(Bson::String(at.to_string())),
            },
            bytes: MOST_BYTES / 4,
            event: *at,
        };
        Run {
            rows: at.iter().map(row).collect(),
            is_cut,
        }
    }

    fn merged(first: &First<i64>) -> (Vec<i64>, bool) {
        let run = first.run.lock().unwrap();
        (run.rows.iter().map(|row| row.event).collect(), run.is_cut)
    }

    #[test]
    fn behind_the_first_end_of_a_cut_query_nothing_is_told() {
        for (newest_first, limit, runs, expected) in [
            (
                true,
                10,
                [run(&[9, 7], true), run(&[8, 7, 6, 1], false)],
                (vec![9, 8, 7], true),
            ),
            (
                false,
                10,
                [run(&[1, 5], true), run(&[2, 3], true)],
                (vec![1, 2, 3], true),
            ),
            (
                true,
                2,
                [run(&[9, 7], false), run(&[8], false)],
                (vec![9, 8], false),
            ),
            // Together they take more room than a page has.
            (
                true,
                10,
                [run(&[9, 7, 5], false), run(&[8, 6, 4], false)],
                (vec![9, 8, 7, 6], true),
            ),
        ] {
            let first = First::new((newest_first, limit));
            runs.into_iter().for_each(|run| first.add(run));
            assert_eq!(merged(&first), expected);
        }
    }

    #[test]
    fn what_comes_too_late_is_not_asked_for() {
        for newest_first in [true, false] {
            let first = First::new((newest_first, 3));
            let bound = |at| {
                let bound = if newest_first { "$gte" } else { "$lte" };
                Some((bound, DateTime::from_millis(at)))
            };
            let (near, far) = if newest_first {
                (&[7, 5], &[9, 6, 1])
            } else {
                (&[5, 7], &[1, 6, 9])
            };
            first.add(run(near, false));
            // An event that two queries find is one.
            first.add(run(&[7], false));
            assert_eq!(first.condition(), None);
            first.add(run(far, false));
            assert_eq!(first.condition(), bound(6));
            first.add(run(&[if newest_first { 8 } else { 2 }], true));
            assert_eq!(first.condition(), bound(if newest_first { 8 } else { 2 }));
        }
    }

    #[test]
    fn ids_of_any_types_have_the_order_of_the_server() {
        let binary = |subtype, bytes: &[u8]| {
            let bytes = bytes.to_vec();
            Bson::Binary(Binary { subtype, bytes })
        };
        let ids = [
            Bson::Null,
            Bson::Int32(-1),
            Bson::Double(6.5),
            Bson::Int32(7),
            Bson::Int64(8),
            Bson::Decimal128("8.25".parse().unwrap()),
            Bson::Int64(1 << 53),
            Bson::Int64((1 << 53) + 1),
            "".into(),
            "7".into(),
            doc! {}.into(),
            doc! { "a": 1 }.into(),
            doc! { "a": 1, "b": 2 }.into(),
            doc! { "a": 2 }.into(),
            doc! { "z": 1 }.into(),
            doc! { "a": "x" }.into(),
            doc! { "a": [1] }.into(),
            doc! { "a": [1, 0] }.into(),
            doc! { "a": [2] }.into(),
            binary(BinarySubtype::Generic, &[9]),
            binary(BinarySubtype::Function, &[9]),
            binary(BinarySubtype::Generic, &[0, 1]),
            Uuid::from_bytes([7; 16]).into(),
            Uuid::from_bytes([8; 16]).into(),
            ObjectId::from_bytes([1; 12]).into(),
            ObjectId::from_bytes([2; 12]).into(),
            false.into(),
            true.into(),
            DateTime::from_millis(-5).into(),
            DateTime::from_millis(5).into(),
        ];
        assert!(ids.map(Id).is_sorted_by(|one, other| one < other));
    }
}
