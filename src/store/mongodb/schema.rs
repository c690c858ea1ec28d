//! The indexes: one for the promise "once", the others for the queries.

use std::sync::atomic::Ordering;

use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{Hint, IndexOptions};
use mongodb::{Collection, IndexModel};

use super::MongoStore;
use super::errors::store_error;
use crate::store::Result;

/// Its default name, so that an index made by the platform with the same keys is the same one.
pub(super) const UNIQUE_INDEX: &str = "source_1_externalId_1";
/// Its name where somebody's index that does not hold every event has that one.
const OTHER_NAME: &str = "daybook_source_1_externalId_1";

/// The timeline itself; with the facets, so that they are counted without a look at the events.
pub(super) fn by_time() -> Document {
    doc! { "at": -1, "_id": -1, "facet": 1 }
}

/// Tenant, source, action, outcome, kind of target.
pub(super) fn by_facet() -> Document {
    doc! { "facet": 1, "at": -1, "_id": -1 }
}

/// Actors, addresses, targets; with the facets, so that actions are told apart and sources are counted
/// without a look at the events.
pub(super) fn by_term() -> Document {
    doc! { "terms": 1, "at": -1, "_id": -1, "facet": 1 }
}

impl MongoStore {
    /// Creates the missing indexes and waits for them; an existing one is left as it is.
    pub(super) async fn create_indexes(&self) -> Result<()> {
        tokio::try_join!(
            self.create_unique_event_index(),
            create(&self.cursors, [unique(doc! { "source": 1 })]),
            create(
                &self.dead_letters,
                [
                    unique(doc! { "source": 1, "position": 1 }),
                    plain(doc! { "lastAt": -1, "_id": -1 }),
                ]
            ),
            create(&self.spaces, [unique(doc! { "space": 1 })]),
            create(
                &self.texts,
                [
                    plain(doc! { "tenantSlug": 1, "endings": 1 }),
                    plain(doc! { "day": 1 }),
                ]
            ),
        )?;
        // The sort of a page ends every key: no query sorts in memory.
        let queries = [by_time(), by_facet(), by_term()].map(plain);
        let mut all_stand = true;
        for index in queries {
            let keys = index.keys.clone();
            match self.events.create_index(index).await {
                Ok(_) => {}
                // Somebody tuned an index of theirs: queries may be slower, nothing is wrong.
                Err(error) if is_index_conflict(&error) => {
                    let collection = self.events.name();
                    tracing::warn!(collection, %keys, "another index stands in the place of this one");
                    all_stand = false;
                }
                Err(error) => return Err(store_error(&error)),
            }
        }
        self.indexed.store(all_stand, Ordering::Release);
        Ok(())
    }

    /// Insists on an index, once it is known to stand: the server refuses a hint at another.
    pub(super) fn hint(&self, index: Document) -> Option<Hint> {
        let stands = self.indexed.load(Ordering::Acquire);
        stands.then_some(Hint::Keys(index))
    }

    async fn create_unique_event_index(&self) -> Result<()> {
        let keys = doc! { "source": 1, "externalId": 1 };
        let listed = existing_unique(&self.events, &keys).await?;
        let index = listed.guard.unwrap_or_else(|| {
            let name = if listed.name_is_taken {
                OTHER_NAME
            } else {
                UNIQUE_INDEX
            };
            let options = IndexOptions::builder()
                .unique(true)
                .name(name.to_owned())
                .partial_filter_expression(doc! { "externalId": { "$type": "string" } })
                .build();
            IndexModel::builder().keys(keys).options(options).build()
        });
        let name = index.options.as_ref().and_then(|one| one.name.clone());
        // A listed one may still be being built, and may fail. Asked for again, it is waited for.
        create(&self.events, [index]).await?;
        let _ = self.unique_index.set(name.unwrap_or_default());
        Ok(())
    }

    /// What the unique index on (`source`, `externalId`) is called.
    pub(super) fn unique_index_name(&self) -> &str {
        self.unique_index.get().map_or(UNIQUE_INDEX, String::as_str)
    }
}

/// What indexes there are already.
#[derive(Default)]
struct Listed {
    /// One that guards the keys or is being built to, whatever its name.
    guard: Option<IndexModel>,
    /// Another one is called as ours would be.
    name_is_taken: bool,
}

async fn existing_unique(
    collection: &Collection<RawDocumentBuf>,
    keys: &Document,
) -> Result<Listed> {
    let listed = match collection.list_indexes().await {
        Ok(indexes) => indexes.try_collect::<Vec<_>>().await,
        Err(error) => Err(error),
    };
    let indexes = match listed {
        Ok(indexes) => indexes,
        // A collection that is not there yet.
        Err(error) if is_missing_collection(&error) => return Ok(Listed::default()),
        Err(error) => return Err(store_error(&error)),
    };
    let is_ours = |index: &IndexModel| {
        let options = index.options.as_ref();
        options.is_some_and(|options| options.name.as_deref() == Some(UNIQUE_INDEX))
    };
    Ok(Listed {
        name_is_taken: indexes.iter().any(is_ours),
        guard: indexes.into_iter().find(|index| {
            let options = index.options.as_ref();
            index.keys == *keys && options.is_some_and(guards_every_event)
        }),
    })
}

/// Whether a unique index has every event of Daybook's, each of which has a text for a key.
fn guards_every_event(index: &IndexOptions) -> bool {
    let all_texts = [
        doc! { "$type": "string" },
        doc! { "$type": 2 },
        doc! { "$exists": true },
    ];
    let filter = index.partial_filter_expression.as_ref();
    let has_all = filter.is_none_or(|filter| {
        all_texts
            .iter()
            .any(|condition| *filter == doc! { "externalId": condition })
    });
    index.unique == Some(true) && index.collation.is_none() && has_all
}

fn is_missing_collection(error: &Error) -> bool {
    const NAMESPACE_NOT_FOUND: i32 = 26;
    command_code(error) == Some(NAMESPACE_NOT_FOUND)
}

fn is_index_conflict(error: &Error) -> bool {
    const INDEX_OPTIONS_CONFLICT: i32 = 85;
    const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
    let conflicts = [INDEX_OPTIONS_CONFLICT, INDEX_KEY_SPECS_CONFLICT];
    command_code(error).is_some_and(|code| conflicts.contains(&code))
}

fn command_code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

fn unique(keys: Document) -> IndexModel {
    let options = IndexOptions::builder().unique(true).build();
    IndexModel::builder().keys(keys).options(options).build()
}

fn plain(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}

async fn create(
    collection: &Collection<RawDocumentBuf>,
    indexes: impl IntoIterator<Item = IndexModel>,
) -> Result<()> {
    let created = collection.create_indexes(indexes).await;
    created.map(|_| ()).map_err(|error| store_error(&error))
}
