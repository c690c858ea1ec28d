//! The dictionary of facets: which combinations of tenant, source, action, outcome and kind of
//! target there are. An entry stands before the first event that has it, and is never removed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mongodb::Collection;
use mongodb::bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::options::{ReadConcern, WriteConcern};

use super::commit::{DUPLICATE_KEY, no_events_fault};
use super::cursors::is_upsert_race;
use super::errors::store_error;
use super::{MongoStore, collect, decode};
use crate::event::Outcome;
use crate::store::keys::Facet;
use crate::store::{EventFilter, Result};

/// What was read is read again after this time: somebody may have put another dictionary in its place.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// The entries as they were read.
#[derive(Debug)]
pub(super) struct Dictionary {
    read_at: Instant,
    /// How many there were, unreadable ones too.
    entries: usize,
    facets: HashMap<i64, Arc<Facet>>,
}

impl MongoStore {
    /// Enters those that this process does not know to be there.
    pub(super) async fn enter_facets(
        &self,
        facets: &HashMap<i64, Facet>,
        concern: &WriteConcern,
    ) -> Result<()> {
        if facets.is_empty() {
            return Ok(());
        }
        if !self.has_looked() {
            let looked = self.look_for_dictionary().await;
            looked.map_err(no_events_fault)?;
        }
        let documents = facets.iter().map(|(key, facet)| {
            doc! {
                "_id": key,
                "tenantSlug": &facet.tenant,
                "source": &facet.source,
                "action": &facet.action,
                "outcome": facet.outcome.map(Outcome::as_str),
                "targetType": &facet.target_kind,
            }
        });
        let documents: Vec<Document> = documents.collect();
        let facets_of = self.facets.clone_with_type::<Document>();
        let insert = facets_of.insert_many(&documents).ordered(false);
        let inserted = insert.write_concern(concern.clone()).await;
        if let Err(error) = inserted
            && !is_repeat(&error)
        {
            return Err(store_error(&error));
        }
        Ok(())
    }

    /// The facets that a filter allows, by their numbers.
    pub(super) async fn matching_facets(
        &self,
        filter: &EventFilter,
    ) -> Result<HashMap<i64, Arc<Facet>>> {
        let dictionary = self.dictionary().await?;
        let facets = dictionary.facets.iter();
        let matching = facets.filter(|(_, facet)| facet.matches(filter));
        Ok(matching
            .map(|(key, facet)| (*key, Arc::clone(facet)))
            .collect())
    }

    /// The tenants that have events, `None` among them when there are events without one.
    pub(super) async fn tenants_with_events(&self) -> Result<Vec<Option<String>>> {
        let dictionary = self.dictionary().await?;
        Ok(tenants_of(&dictionary.facets))
    }

    /// Notes it when the dictionary is gone, as when the events alone were restored from a backup. To be
    /// awaited before the first entry, which would make a new one.
    pub(super) async fn look_for_dictionary(&self) -> Result<()> {
        // In this order: the entry of an event that is there stands too.
        if is_there(&self.events, doc! { "at": { "$gte": DateTime::MIN } }).await?
            && !is_there(&self.facets, any_entry()).await?
        {
            let since = doc! { "$setOnInsert": { "since": DateTime::now() } };
            let noted = self.facets.update_one(unfinished(), since).upsert(true);
            if let Err(error) = noted.await
                && !is_upsert_race(&error)
            {
                return Err(store_error(&error));
            }
        }
        self.looked();
        Ok(())
    }

    /// Whether there may be events whose facet or texts do not stand in the store.
    pub(super) async fn lacks_entries(&self) -> Result<bool> {
        is_there(&self.facets, unfinished()).await
    }

    /// Notes that all of them stand there.
    pub(super) async fn has_all_entries(&self) -> Result<()> {
        let deleted = self.facets.delete_one(unfinished()).await;
        deleted.map(|_| ()).map_err(|error| store_error(&error))
    }

    /// All entries. As none is ever removed, those read before are all if they are as many.
    async fn dictionary(&self) -> Result<Arc<Dictionary>> {
        let kept = self.dictionary.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kept) = kept
            && kept.read_at.elapsed() < READ_AGAIN
            && kept.entries == self.count_entries().await?
        {
            return Ok(kept);
        }
        let read_at = Instant::now();
        let found = self.facets.find(any_entry());
        let found = found
            .batch_size(20_000)
            .read_concern(ReadConcern::majority())
            .max_time(self.timeout);
        let entries = collect(found.await, |entry| Some(facet(entry))).await?;
        let read = Arc::new(Dictionary {
            read_at,
            entries: entries.len(),
            facets: entries.into_iter().flatten().collect(),
        });
        let mut kept = self
            .dictionary
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Arc::clone(&read));
        Ok(read)
    }

    /// Those on a majority, as when they are read: an entry that a new primary does not have must
    /// not make up for one that it has.
    async fn count_entries(&self) -> Result<usize> {
        let count = doc! {
            "count": self.facets.name(),
            "query": any_entry(),
            "readConcern": { "level": "majority" },
        };
        let answer = self.database.run_command(count).await;
        let answer = answer.map_err(|error| store_error(&error))?;
        let count = match answer.get("n") {
            Some(Bson::Int32(count)) => i64::from(*count),
            Some(Bson::Int64(count)) => *count,
            _ => -1,
        };
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

/// The tenants of facets, each once and in the same order every time.
pub(super) fn tenants_of(facets: &HashMap<i64, Arc<Facet>>) -> Vec<Option<String>> {
    let tenants = facets.values().map(|facet| &facet.tenant);
    let tenants: BTreeSet<&Option<String>> = tenants.collect();
    tenants.into_iter().cloned().collect()
}

async fn is_there(collection: &Collection<RawDocumentBuf>, query: Document) -> Result<bool> {
    let found = collection.find_one(query).projection(doc! { "_id": 1 });
    let found = found.await.map_err(|error| store_error(&error))?;
    Ok(found.is_some())
}

/// Stands in the dictionary while it is made anew. Entries have a number: nobody takes it for one.
fn unfinished() -> Document {
    doc! { "_id": "unfinished" }
}

/// Counted from the index of `_id` alone.
fn any_entry() -> Document {
    doc! { "_id": { "$gte": i64::MIN } }
}

/// Whether an unordered insert failed for nothing but documents that were there.
pub(super) fn is_repeat(error: &mongodb::error::Error) -> bool {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::InsertMany(insert) => {
            let only_duplicates = |errors: &Vec<mongodb::error::IndexedWriteError>| {
                errors.iter().all(|error| error.code == DUPLICATE_KEY)
            };
            insert.write_concern_error.is_none()
                && insert.write_errors.as_ref().is_some_and(only_duplicates)
        }
        _ => false,
    }
}

fn facet(document: &RawDocument) -> Option<(i64, Arc<Facet>)> {
    let key = document.get_i64("_id").ok()?;
    let outcome = document.get_str("outcome").ok();
    let facet = Facet {
        tenant: decode::text(document, "tenantSlug"),
        source: decode::text(document, "source")?,
        action: decode::text(document, "action")?,
        outcome: outcome.and_then(Outcome::from_word),
        target_kind: decode::text(document, "targetType"),
    };
    Some((key, Arc::new(facet)))
}
