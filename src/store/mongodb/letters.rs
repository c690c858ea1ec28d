//! Lists of dead letters, and the deletion of what is old.

use jiff::Timestamp;
use mongodb::Collection;
use mongodb::bson::{Bson, DateTime, RawDocumentBuf, doc};

use super::conditions::{already_seen, ceiling};
use super::errors::store_error;
use super::{MongoStore, bson_date, collect, decode};
use crate::store::{DeadLetterFilter, DeadLetterHead, PageKey, Result};

impl MongoStore {
    pub(super) async fn letter_heads(
        &self,
        filter: &DeadLetterFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<DeadLetterHead>> {
        // To MongoDB, a limit of zero is none.
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut query = doc! {};
        if let Some(source) = &filter.source {
            query.insert("source", source);
        }
        if let Some(reason) = filter.reason {
            query.insert("reason", reason.as_str());
        }
        let mut last_at = doc! { "$gte": filter.since.map_or(DateTime::MIN, ceiling) };
        if let Some(until) = filter.until {
            last_at.insert("$lt", ceiling(until));
        }
        if let Some(before) = before {
            last_at.insert("$lte", bson_date(before.at));
            query.insert("$nor", already_seen("lastAt", before));
        }
        query.insert("lastAt", last_at);
        let found = self
            .dead_letters
            .find(query)
            .projection(doc! { "raw": 0 })
            .sort(doc! { "lastAt": -1, "_id": -1 })
            .limit(i64::from(limit))
            .max_time(self.timeout)
            .await;
        collect(found, decode::dead_letter_head).await
    }
}

/// Finds the oldest by the index on `field` and deletes those, as long as they are still old: a dead
/// letter may be met again in between.
pub(super) async fn delete_before(
    collection: &Collection<RawDocumentBuf>,
    field: &str,
    before: Timestamp,
    limit: u32,
) -> Result<u64> {
    if limit == 0 {
        return Ok(0);
    }
    let is_old = doc! { "$gte": DateTime::MIN, "$lt": ceiling(before) };
    let found = collection
        .find(doc! { field: &is_old })
        .projection(doc! { "_id": 1 })
        .sort(doc! { field: 1 })
        .limit(i64::from(limit))
        .await;
    let ids: Vec<Bson> = collect(found, |document| {
        let id = document.get("_id").ok()??;
        Bson::try_from(id).ok()
    })
    .await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let matching = doc! { "_id": { "$in": ids }, field: is_old };
    let deleted = collection.delete_many(matching).await;
    Ok(deleted.map_err(|error| store_error(&error))?.deleted_count)
}
