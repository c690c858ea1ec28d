//! What indexes tell of events without a look at them: how many there are, and which have a term each of several.

use std::collections::{HashMap, HashSet};

use futures_util::future::try_join_all;
use mongodb::action::{Action as _, Find};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::options::ReadConcern;

use super::MongoStore;
use super::errors::store_error;
use super::plan::Way;
use crate::store::{Result, StoreError};

/// Entries of the index that are held in memory for each of several terms.
const MOST_SHARED: i64 = 500_000;

/// What the index by terms tells of an event.
pub(super) struct IndexEntry {
    id: ObjectId,
    pub at: i64,
    pub facet: i64,
}

fn time_and_facet(entry: &RawDocument) -> Option<(i64, i64)> {
    let at = entry.get_datetime("at").ok()?;
    Some((at.timestamp_millis(), entry.get_i64("facet").ok()?))
}

/// The server uses one processor for each query.
fn halves((from, to): (i64, i64)) -> [(i64, i64); 2] {
    let middle = from.midpoint(to);
    [(from, middle), (middle, to)]
}

impl MongoStore {
    /// Counts the events of a way between two times by bar and facet, as the way's index tells them: bars have one width,
    /// and the first begins at a given time. Events without a facet are left out.
    pub(super) async fn tally(
        &self,
        way: &Way,
        range: (i64, i64),
        (start, width): (i64, i64),
    ) -> Result<HashMap<(i64, i64), u64>> {
        let fields = doc! { "_id": 0, "at": 1, "facet": 1 };
        let scans = halves(range).map(async |(from, to)| {
            let mut counts: HashMap<(i64, i64), u64> = HashMap::new();
            let range = (DateTime::from_millis(from), DateTime::from_millis(to));
            let found = self.read_entries(way.clone(), range, fields.clone()).await;
            let mut found = found.map_err(|error| store_error(&error))?;
            while found.advance().await.map_err(|error| store_error(&error))? {
                if let Some((at, facet)) = time_and_facet(found.current()) {
                    let bar = (at - start).div_euclid(width);
                    *counts.entry((bar, facet)).or_default() += 1;
                }
            }
            Ok::<_, StoreError>(counts)
        });
        let mut all = HashMap::new();
        for (place, count) in try_join_all(scans).await?.into_iter().flatten() {
            *all.entry(place).or_default() += count;
        }
        Ok(all)
    }

    /// Reads entries of an index. To hand them over costs the server less than to group them.
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
            .read_concern(ReadConcern::majority())
            .batch_size(50_000)
            .max_time(self.timeout)
    }

    /// The events that have a term each of several, by the index alone; `None`: they are too many or have ids of
    /// others.
    pub(super) async fn shared_entries(
        &self,
        terms: &[Way],
        (from, to): (i64, i64),
    ) -> Result<Option<Vec<IndexEntry>>> {
        let range = (DateTime::from_millis(from), DateTime::from_millis(to));
        let reads = terms.iter().map(|way| self.entries(way.clone(), range));
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
}
