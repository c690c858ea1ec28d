//! The dictionary of facets: which combinations of tenant, source, action, outcome and kind of
//! target there are. An entry stands before the first event that has it, and is never removed.

use std::collections::HashMap;

use mongodb::bson::{Bson, Document, RawDocument, doc};
use mongodb::options::WriteConcern;

use super::commit::DUPLICATE_KEY;
use super::errors::store_error;
use super::{MongoStore, collect, decode};
use crate::event::Outcome;
use crate::store::keys::Facet;
use crate::store::{EventFilter, Result};

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
    ) -> Result<HashMap<i64, Facet>> {
        let mut query = doc! {};
        for (field, exact) in [("tenantSlug", &filter.tenant), ("source", &filter.source)] {
            if let Some(exact) = exact {
                query.insert(field, exact);
            }
        }
        if let Some(outcome) = filter.outcome {
            query.insert("outcome", outcome.as_str());
        }
        match filter
            .action
            .as_deref()
            .map(|action| (action, action.strip_suffix('*')))
        {
            Some((action, None)) => {
                query.insert("action", action);
            }
            Some((_, Some(prefix))) => {
                query.insert("action", doc! { "$gte": prefix });
            }
            None => {}
        }
        let found = self.facets.find(query).max_time(self.timeout);
        let found = collect(found.batch_size(20_000).await, facet).await?;
        let matching = found.into_iter().filter(|(_, facet)| facet.matches(filter));
        Ok(matching.collect())
    }

    /// The tenants that have events, `None` among them when there are events without one.
    pub(super) async fn tenants_with_events(&self) -> Result<Vec<Option<String>>> {
        let found = self.facets.distinct("tenantSlug", doc! {}).await;
        let found = found.map_err(|error| store_error(&error))?;
        let slug = |slug: Bson| match slug {
            Bson::String(slug) => Some(Some(slug)),
            Bson::Null => Some(None),
            _ => None,
        };
        Ok(found.into_iter().filter_map(slug).collect())
    }
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

fn facet(document: &RawDocument) -> Option<(i64, Facet)> {
    let key = document.get_i64("_id").ok()?;
    let outcome = document.get_str("outcome").ok();
    Some((
        key,
        Facet {
            tenant: decode::text(document, "tenantSlug"),
            source: decode::text(document, "source")?,
            action: decode::text(document, "action")?,
            outcome: outcome.and_then(Outcome::from_word),
            target_kind: decode::text(document, "targetType"),
        },
    ))
}
