//! The indexes: one for the promise "once", the others for the queries.

use std::sync::atomic::Ordering;

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use mongodb::action::Action as _;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::error::Error;
use mongodb::options::{Collation, CommitQuorum, Hint, IndexOptions, ReadConcern};
use mongodb::{Collection, IndexModel};

use super::MongoStore;
use super::errors::{has_code, store_error};
use crate::store::keys::MASKED;
use crate::store::{Result, StoreError};

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
/// without a look at the events, and with the masks, which tell most events apart that have one condition of several.
pub(super) fn by_term() -> Document {
    let mut keys = doc! { "terms": 1, "at": -1, "_id": -1, "facet": 1 };
    keys.extend(MASKED.map(|(_, name, _)| (mask_of(name), 1.into())));
    keys
}

/// The field of a mask.
pub(super) fn mask_of(name: &str) -> String {
    format!("masks.{name}")
}

/// The sort of a page ends every key: no query sorts in memory.
fn for_queries() -> [Document; 3] {
    [by_time(), by_facet(), by_term()]
}

/// The indexes for queries of more events than these may take minutes, which no commit has to wait for.
const BUILT_AT_ONCE: u64 = 10_000;

impl MongoStore {
    /// Creates the missing indexes and waits until so many members have built them; an existing one is left as it is.
    /// Those for queries of many events are left to the upkeep. Whether the unique one of events was missing.
    ///
    /// One that stands is not asked for: even that it is there the server tells only when the majority has whatever was
    /// written last.
    pub(super) async fn create_indexes(&self, quorum: Option<CommitQuorum>) -> Result<bool> {
        let quorum = quorum.as_ref();
        let of_events = list(&self.events).await?;
        let (was_missing, (), (), (), ()) = tokio::try_join!(
            self.create_unique_event_index(&of_events, quorum),
            create_missing(&self.cursors, vec![unique(doc! { "source": 1 })], quorum),
            create_missing(
                &self.dead_letters,
                vec![
                    unique(doc! { "source": 1, "position": 1 }),
                    plain(doc! { "lastAt": -1, "_id": -1 }),
                ],
                quorum,
            ),
            create_missing(&self.spaces, vec![unique(doc! { "space": 1 })], quorum),
            create_missing(
                &self.texts,
                vec![
                    plain(doc! { "tenantSlug": 1, "endings": 1 }),
                    plain(doc! { "day": 1 }),
                ],
                quorum,
            ),
        )?;
        self.look_at_queries(&of_events).await?;
        if !self.is_indexed() {
            let events = self.events.estimated_document_count().await;
            let events = events.map_err(|error| store_error(&error))?;
            if events <= BUILT_AT_ONCE {
                self.create_all_for_queries(&of_events, quorum).await?;
            }
        }
        Ok(was_missing)
    }

    /// Creates the missing indexes for queries, however long it takes. What stands in the place of one is not touched.
    pub(super) async fn index_for_queries(&self) -> Result<()> {
        if self.is_indexed() {
            return Ok(());
        }
        let listed = list(&self.events).await?;
        let is_there = |keys| listed.iter().any(|index| has_keys(index, keys));
        if for_queries().iter().all(is_there) {
            return self.look_at_queries(&listed).await;
        }
        let quorum = self.look_at_server().await?;
        self.create_all_for_queries(&listed, quorum.as_ref()).await
    }

    async fn create_all_for_queries(
        &self,
        listed: &[IndexModel],
        quorum: Option<&CommitQuorum>,
    ) -> Result<()> {
        let mut all_stand = true;
        for keys in for_queries() {
            all_stand &= self.create_for_queries(keys, listed, quorum).await?;
        }
        self.indexed.store(all_stand, Ordering::Release);
        Ok(())
    }

    /// Learns whether the indexes for queries stand.
    async fn look_at_queries(&self, listed: &[IndexModel]) -> Result<()> {
        let indexes = for_queries().map(plain);
        let stand = indexes
            .iter()
            .map(|index| stands_already(&self.events, listed, index));
        let stand = try_join_all(stand).await?;
        self.indexed
            .store(stand.iter().all(|stands| *stands), Ordering::Release);
        Ok(())
    }

    fn is_indexed(&self) -> bool {
        self.indexed.load(Ordering::Acquire)
    }

    /// [`Self::create_indexes`] for a store that has lost a cursor, and may have lost its indexes with it.
    pub(super) async fn create_indexes_anew(&self) -> Result<bool> {
        let quorum = self.look_at_server().await?;
        self.create_indexes(quorum).await
    }

    /// Makes the indexes anew where the one that keeps events from being entered twice was dropped, alone or with its
    /// collection: the cursors stand then, and tell nothing. Queries do without theirs once one is missing.
    pub(super) async fn look_at_guard(&self) -> Result<()> {
        // Nothing is entered before the first preparation.
        if self.unique_index.get().is_none() {
            return Ok(());
        }
        let listed = list(&self.events).await?;
        if self.is_indexed()
            && !for_queries()
                .into_iter()
                .all(|keys| is_listed(&listed, &plain(keys)))
        {
            self.indexed.store(false, Ordering::Release);
        }
        if let Some(guard) = guard(&listed) {
            if self.guarded.load(Ordering::Acquire) {
                return Ok(());
            }
            let options = guard.options.as_ref();
            let name = options.and_then(|one| one.name.clone()).unwrap_or_default();
            // A listed one may still be being built, and fail.
            if is_hidden(guard) || stands(&self.events, Hint::Name(name)).await? {
                self.guarded.store(true, Ordering::Release);
                return Ok(());
            }
            let message = "the index that keeps events from being entered twice is being built";
            return Err(StoreError::Unavailable(message.to_owned()));
        }
        let why = match self.create_indexes_anew().await {
            Ok(true) => {
                self.forget_touched();
                "they are made anew".to_owned()
            }
            Ok(false) => {
                self.lose();
                "somebody else has made them anew".to_owned()
            }
            Err(error) => error.to_string(),
        };
        let message = format!("it has lost its indexes: {why}");
        Err(StoreError::Unavailable(message))
    }

    /// Whether the index stands afterwards.
    async fn create_for_queries(
        &self,
        keys: Document,
        listed: &[IndexModel],
        quorum: Option<&CommitQuorum>,
    ) -> Result<bool> {
        let index = plain(keys.clone());
        if stands_already(&self.events, listed, &index).await? {
            return Ok(true);
        }
        // Twice, for one that somebody began at the same moment: as with the unique one.
        for _ in 0..2 {
            let create = self.events.create_index(index.clone());
            let create = create.optional(quorum, |create, quorum| {
                create.commit_quorum(quorum.clone())
            });
            match create.await {
                Ok(_) => {
                    if stands(&self.events, Hint::Keys(keys.clone())).await? {
                        return Ok(true);
                    }
                }
                Err(error) if is_index_conflict(&error) => break,
                Err(error) => return Err(store_error(&error)),
            }
        }
        // Somebody tuned or hid an index: queries may be slower, nothing is wrong.
        let collection = self.events.name();
        tracing::warn!(collection, %keys, "another index stands in the place of this one, or it is hidden");
        Ok(false)
    }

    /// Insists on an index, once it is known to stand: the server refuses a hint at another.
    pub(super) fn hint(&self, index: Document) -> Option<Hint> {
        self.is_indexed().then_some(Hint::Keys(index))
    }

    /// Whether it was missing.
    async fn create_unique_event_index(
        &self,
        listed: &[IndexModel],
        quorum: Option<&CommitQuorum>,
    ) -> Result<bool> {
        let keys = guard_keys();
        let guard = guard(listed);
        let was_missing = guard.is_none();
        if was_missing {
            self.guarded.store(false, Ordering::Release);
            // Gone with its collection, perhaps, and with others.
            self.lose();
        }
        let mut index = guard.cloned().unwrap_or_else(|| {
            let is_ours = |index: &IndexModel| {
                let options = index.options.as_ref();
                options.is_some_and(|options| options.name.as_deref() == Some(UNIQUE_INDEX))
            };
            let name = if listed.iter().any(is_ours) {
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
        if let Some(options) = &mut index.options {
            // A list of indexes does not tell it, and without it the collection's own would be asked for.
            options.collation = Some(simple());
        }
        let options = index.options.as_ref();
        let name = options.and_then(|one| one.name.clone()).unwrap_or_default();
        let is_hidden = is_hidden(&index);
        // A listed one may still be being built, and may fail. Asked for again, it is waited for: but for one that
        // somebody began at the same moment, of which the server says at once that it stands.
        let hint = Hint::Name(name.clone());
        let mut is_built = !was_missing && !is_hidden && stands(&self.events, hint.clone()).await?;
        while !is_built {
            create(&self.events, [index.clone()], quorum).await?;
            is_built = is_hidden || stands(&self.events, hint.clone()).await?;
        }
        let _ = self.unique_index.set(name);
        self.guarded.store(true, Ordering::Release);
        Ok(was_missing)
    }

    /// What the unique index on (`source`, `externalId`) is called.
    pub(super) fn unique_index_name(&self) -> &str {
        self.unique_index.get().map_or(UNIQUE_INDEX, String::as_str)
    }
}

/// The indexes that are there or are being built.
async fn list(collection: &Collection<RawDocumentBuf>) -> Result<Vec<IndexModel>> {
    let listed = match collection.list_indexes().await {
        Ok(indexes) => indexes.try_collect::<Vec<_>>().await,
        Err(error) => Err(error),
    };
    match listed {
        Ok(indexes) => Ok(indexes),
        // A collection that is not there yet.
        Err(error) if is_missing_collection(&error) => Ok(Vec::new()),
        Err(error) => Err(store_error(&error)),
    }
}

/// Whether an index is listed as it is wanted: of another one with its keys the server has to judge.
fn is_listed(listed: &[IndexModel], wanted: &IndexModel) -> bool {
    let has_keys = |index: &&IndexModel| has_keys(index, &wanted.keys);
    let mut alike = listed.iter().filter(has_keys);
    let (Some(index), None) = (alike.next(), alike.next()) else {
        return false;
    };
    let is_unique = |index: &IndexModel| {
        let options = index.options.as_ref();
        options.is_some_and(|options| options.unique == Some(true))
    };
    let has_all = |options: &IndexOptions| {
        options.partial_filter_expression.is_none()
            && options.sparse != Some(true)
            && options.hidden != Some(true)
            // A collection hands its own down. It tells nothing of numbers and dates.
            && (options.collation.is_none() || !is_unique(wanted))
    };
    is_unique(index) == is_unique(wanted) && index.options.as_ref().is_none_or(has_all)
}

/// Whether an index has these keys in this order. The server takes numbers of any type for the same, and keeps those of
/// who made it: old shells know nothing but doubles.
fn has_keys(index: &IndexModel, keys: &Document) -> bool {
    let order = |value: &Bson| match value {
        Bson::Double(order) => Some(*order),
        Bson::Int32(order) => Some(f64::from(*order)),
        Bson::Int64(order) => i32::try_from(*order).ok().map(f64::from),
        _ => None,
    };
    let same = |(one, other): (&Bson, &Bson)| {
        one == other || order(one).is_some_and(|one| Some(one) == order(other))
    };
    index.keys.len() == keys.len()
        && index
            .keys
            .iter()
            .zip(keys)
            .all(|((one, its), (other, theirs))| one == other && same((its, theirs)))
}

/// Whether nobody may use an index for a query.
fn is_hidden(index: &IndexModel) -> bool {
    let options = index.options.as_ref();
    options.is_some_and(|options| options.hidden == Some(true))
}

async fn stands_already(
    collection: &Collection<RawDocumentBuf>,
    listed: &[IndexModel],
    wanted: &IndexModel,
) -> Result<bool> {
    Ok(is_listed(listed, wanted) && stands(collection, Hint::Keys(wanted.keys.clone())).await?)
}

/// Whether an index is no longer being built: before, the server refuses a hint at it, as at keys of which there are
/// several. On a majority, so that no later primary lacks it.
async fn stands(collection: &Collection<RawDocumentBuf>, hint: Hint) -> Result<bool> {
    const BAD_VALUE: i32 = 2;
    const INDEX_NOT_FOUND: i32 = 27;
    let any = collection.find_one(doc! {}).projection(doc! { "_id": 1 });
    let any = any.read_concern(ReadConcern::majority());
    match any.hint(hint).await {
        Ok(_) => Ok(true),
        Err(error) if has_code(&error, &[BAD_VALUE, INDEX_NOT_FOUND]) => Ok(false),
        Err(error) => Err(store_error(&error)),
    }
}

fn guard_keys() -> Document {
    doc! { "source": 1, "externalId": 1 }
}

/// The index that keeps events from being entered twice, whatever its name.
fn guard(listed: &[IndexModel]) -> Option<&IndexModel> {
    listed.iter().find(|index| {
        let options = index.options.as_ref();
        has_keys(index, &guard_keys()) && options.is_some_and(guards_every_event)
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
    has_code(error, &[NAMESPACE_NOT_FOUND])
}

fn is_index_conflict(error: &Error) -> bool {
    const INDEX_OPTIONS_CONFLICT: i32 = 85;
    const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
    has_code(error, &[INDEX_OPTIONS_CONFLICT, INDEX_KEY_SPECS_CONFLICT])
}

/// Compares byte by byte. To be said with every unique index and whatever goes by its keys: the platform may have given
/// the collection a collation that takes two of them for one.
pub(super) fn simple() -> Collation {
    Collation::builder().locale("simple").build()
}

fn unique(keys: Document) -> IndexModel {
    let options = IndexOptions::builder()
        .unique(true)
        .collation(simple())
        .build();
    IndexModel::builder().keys(keys).options(options).build()
}

fn plain(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}

/// One that is being built is asked for again, and so waited for.
async fn create_missing(
    collection: &Collection<RawDocumentBuf>,
    indexes: Vec<IndexModel>,
    quorum: Option<&CommitQuorum>,
) -> Result<()> {
    let listed = list(collection).await?;
    let mut missing = Vec::new();
    for index in indexes {
        if !stands_already(collection, &listed, &index).await? {
            missing.push(index);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    create(collection, missing, quorum).await
}

async fn create(
    collection: &Collection<RawDocumentBuf>,
    indexes: impl IntoIterator<Item = IndexModel>,
    quorum: Option<&CommitQuorum>,
) -> Result<()> {
    let create = collection.create_indexes(indexes);
    let create = create.optional(quorum, |create, quorum| {
        create.commit_quorum(quorum.clone())
    });
    let created = create.await;
    created.map(|_| ()).map_err(|error| store_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_differs_is_left_to_the_server() {
        let keys = || doc! { "source": 1 };
        let filter = doc! { "source": { "$type": "string" } };
        let with =
            |options: IndexOptions| IndexModel::builder().keys(keys()).options(options).build();
        let guard = || IndexOptions::builder().unique(true);
        // As the server lists it: without the simple collation.
        let ours = || with(guard().name("any".to_owned()).build());
        let listed = |listed: &[IndexModel]| {
            let wanted = [unique(keys()), plain(keys())];
            wanted.map(|wanted| is_listed(listed, &wanted))
        };
        assert_eq!(listed(&[plain(doc! { "_id": 1 }), ours()]), [true, false]);
        let [by_time, by_facet] = [by_time(), by_facet()].map(plain);
        assert!(is_listed(&[by_facet, by_time.clone()], &by_time));
        assert_eq!(listed(&[plain(keys())]), [false, true]);
        let collated = IndexOptions::builder().collation(simple()).build();
        assert_eq!(listed(&[with(collated)]), [false, true]);
        // As old shells make it.
        assert_eq!(listed(&[plain(doc! { "source": 1.0 })]), [false, true]);
        assert_eq!(listed(&[plain(doc! { "source": 1_i64 })]), [false, true]);
        assert_eq!(listed(&[plain(doc! { "source": "text" })]), [false, false]);
        for others in [
            vec![],
            vec![ours(), plain(keys())],
            vec![unique(doc! { "source": -1 })],
            vec![with(guard().sparse(true).build())],
            vec![with(guard().hidden(true).build())],
            vec![with(guard().partial_filter_expression(filter).build())],
            vec![with(guard().collation(simple()).build())],
            vec![with(IndexOptions::builder().sparse(true).build())],
        ] {
            assert_eq!(listed(&others), [false, false], "{others:?}");
        }
    }
}
