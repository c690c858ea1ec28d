//! One flush: records first, and cursors only when every record is durable.
//!
//! An unordered insert counts as done when there is no write-concern error and every write error
//! is a duplicate key of *our* unique index. Anything else says nothing about any record, and the
//! writer repeats the whole commit: what had landed is then a duplicate.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::task::Poll;

use futures_util::future::try_join_all;
use futures_util::poll;
use futures_util::stream::{self, FuturesOrdered, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use mongodb::Collection;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::error::{ErrorKind, IndexedWriteError};
use tokio::sync::OnceCell;

use super::announce::News;
use super::cursors::is_upsert_race;
use super::encode;
use super::errors::{by_code, store_error};
use super::schema::simple;
use super::{MongoStore, bson_date, durable};
use crate::event::DeadLetter;
use crate::store::keys::{EventKeys, Facet};
use crate::store::{Commit, Committed, Fate, LearnedSpace, Record, Result, StoreError};

/// `DuplicateKey`.
pub(super) const DUPLICATE_KEY: i32 = 11000;

/// A server's refusal of one document's content, for good: `BadValue`, `FailedToParse`, `Overflow`
/// (nested too deep), `InvalidBSON`, `InvalidLength`, `DollarPrefixedFieldName`, `DottedFieldName`,
/// `DocumentValidationFailure`, `BSONObjectTooLarge`.
const CONTENT_CODES: [i32; 9] = [2, 9, 15, 16, 22, 52, 57, 121, 10334];

/// Those of them that can be the answer to a whole command. Not more: a server that cannot journal,
/// say, answers every command with `BadValue`, and that is no event's fault.
const COMMAND_CONTENT_CODES: [i32; 2] = [22, 10334];

/// Records that are encoded and entered together, at most.
const CHUNK_DOCUMENTS: usize = 500;

/// Fewer are not divided: each command has its price.
const UNDIVIDED: usize = 50;

/// Bytes of one insert command; the server's limit is 48,000,000, and 100,000 documents.
const CHUNK_BYTES: usize = 32 * 1024 * 1024;

/// Commands of one commit on the wire at once.
const CONCURRENT: usize = 4;

/// An insert into one collection, guarded by one unique index.
struct Target<'a> {
    collection: &'a Collection<RawDocumentBuf>,
    unique_index: &'a str,
    /// The second field of that index; the first is `source`.
    key: &'static str,
}

impl MongoStore {
    pub(super) async fn commit_all(&self, commit: &Commit<'_>) -> Result<Committed> {
        let ingested_at = Timestamp::now();
        let _committing = self.upkeep.committing();
        let connections = self.connections.load(Ordering::Acquire);
        let losses = self.losses();
        let (entered, ()) = tokio::try_join!(self.enter_all(commit, ingested_at), async {
            self.learn(&commit.learned).await.map_err(no_events_fault)
        },)?;
        if self.connections.load(Ordering::Acquire) != connections {
            for chunk in &entered {
                let announced = self.announce(&chunk.news, &durable(self.timeout)).await;
                announced.map_err(no_events_fault)?;
            }
        }
        let mut fates = Vec::with_capacity(commit.records.len());
        for chunk in entered {
            self.remember(chunk.news);
            fates.extend(chunk.fates);
        }
        let counted = self.count_repeated_letters(commit, &fates).await;
        counted.map_err(no_events_fault)?;

        self.pass("between_insert_and_cursor").await?;
        let rejected = fates.iter().any(|fate| matches!(fate, Fate::Rejected(_)));
        let moves = if rejected {
            Vec::new()
        } else {
            let moved = self.move_cursors(&commit.moves).await;
            moved.map_err(no_events_fault)?
        };
        if self.losses() != losses {
            // What this one has remembered meanwhile is among it.
            self.forget();
            let message = "what events are found by was lost meanwhile";
            return Err(StoreError::Unavailable(message.to_owned()));
        }
        Ok(Committed {
            records: fates,
            moves,
        })
    }

    /// Enters several chunks at once, or one after the other where their order matters; while the
    /// server enters one the next is encoded.
    async fn enter_all(&self, commit: &Commit<'_>, ingested_at: Timestamp) -> Result<Vec<Chunk>> {
        // The server enters one command's documents one after the other, whatever its processors do.
        let (at_once, size) = if commit.in_order {
            (1, CHUNK_DOCUMENTS)
        } else {
            let part = commit.records.len().div_ceil(CONCURRENT);
            (CONCURRENT, part.clamp(UNDIVIDED, CHUNK_DOCUMENTS))
        };
        let guard = OnceCell::new();
        let mut entered = Vec::new();
        let mut under_way = FuturesOrdered::new();
        for records in commit.records.chunks(size) {
            let chunk = self.encode(records, ingested_at);
            if under_way.len() == at_once {
                entered.extend(under_way.try_next().await?);
            }
            under_way.push_back(self.enter(chunk, &guard));
            if let Poll::Ready(Some(chunk)) = poll!(under_way.next()) {
                entered.push(chunk?);
            }
            tokio::task::yield_now().await;
        }
        while let Some(chunk) = under_way.try_next().await? {
            entered.push(chunk);
        }
        Ok(entered)
    }

    fn encode(&self, records: &[Record<'_>], ingested_at: Timestamp) -> Chunk {
        let mut chunk = Chunk {
            news: News::new(self),
            events: Batch::default(),
            letters: Batch::default(),
            fates: vec![Fate::Written; records.len()],
        };
        for (index, record) in records.iter().enumerate() {
            let (batch, encoded) = match record {
                Record::Event { event, tenant_slug } => {
                    let keys = EventKeys::of(event, *tenant_slug);
                    let document = encode::event(event, *tenant_slug, ingested_at, &keys);
                    let facet = || Facet::of(event, *tenant_slug);
                    let at = event.at.as_millisecond();
                    chunk.news.add(self, at, *tenant_slug, &keys, facet);
                    (&mut chunk.events, document)
                }
                Record::DeadLetter(letter) => (&mut chunk.letters, encode::dead_letter(letter)),
            };
            match encoded {
                Ok(document) => batch.push(index, document),
                Err(reason) => chunk.fates[index] = Fate::Rejected(reason),
            }
        }
        chunk
    }

    /// Makes a chunk's news and then its documents stand.
    async fn enter(&self, mut chunk: Chunk, guard: &OnceCell<()>) -> Result<Chunk> {
        let before_another = self.before_another();
        tokio::try_join!(self.announce(&chunk.news, &before_another), async {
            // Once for a commit, before anything is entered: with twins there the index cannot be made.
            let looked = guard.get_or_try_init(|| self.look_at_guard()).await;
            looked.map_err(no_events_fault)
        })?;
        self.pass("between_announcement_and_insert").await?;

        let event_target = Target {
            collection: &self.events,
            unique_index: self.unique_index_name(),
            key: "externalId",
        };
        let letter_target = Target {
            collection: &self.dead_letters,
            unique_index: "source_1_position_1",
            key: "position",
        };
        let (event_fates, letter_fates) = tokio::try_join!(
            event_target.insert(&chunk.events.documents),
            letter_target.insert(&chunk.letters.documents),
        )?;
        std::mem::take(&mut chunk.events).report(event_fates, &mut chunk.fates);
        std::mem::take(&mut chunk.letters).report(letter_fates, &mut chunk.fates);
        Ok(chunk)
    }

    /// Where tests strike.
    pub(super) async fn pass(&self, point: &'static str) -> Result<()> {
        if let Some(probe) = self.probe.get() {
            let passed = probe.hit(point).await;
            passed.map_err(|struck| StoreError::Unavailable(struck.to_string()))?;
        }
        Ok(())
    }

    async fn learn(&self, learned: &[LearnedSpace]) -> Result<()> {
        let upserts = learned.iter().map(|lesson| async {
            let filter = doc! { "space": &lesson.space };
            let update = doc! { "$set": { "tenantSlug": &lesson.tenant_slug } };
            let upsert = || {
                let update = self.spaces.update_one(filter.clone(), update.clone());
                update.collation(simple()).upsert(true)
            };
            let mut done = upsert().await;
            if done.as_ref().is_err_and(is_upsert_race) {
                done = upsert().await;
            }
            done.map(|_| ()).map_err(|error| store_error(&error))
        });
        try_join_all(upserts).await.map(|_| ())
    }

    async fn count_repeated_letters(&self, commit: &Commit<'_>, fates: &[Fate]) -> Result<()> {
        let mut counts = Vec::new();
        for (record, fate) in commit.records.iter().zip(fates) {
            if let (Record::DeadLetter(letter), Fate::Duplicate) = (record, fate) {
                counts.push(self.count_letter(letter));
            }
        }
        stream::iter(counts)
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await
    }

    async fn count_letter(&self, letter: &DeadLetter) -> Result<()> {
        let filter = doc! {
            "source": letter.source.as_str(),
            "position": encode::head(&letter.position),
        };
        let update = doc! {
            "$inc": { "attempts": 1_i64 },
            "$max": { "lastAt": bson_date(letter.at) },
        };
        let counted = self.dead_letters.update_one(filter, update);
        let counted = counted.collation(simple()).await;
        counted.map(|_| ()).map_err(|error| store_error(&error))
    }
}

/// The events stand, or have nothing to do with it: none may be condemned for it.
pub(super) fn no_events_fault(error: StoreError) -> StoreError {
    match error {
        StoreError::Other(message) => StoreError::Refused(message),
        known => known,
    }
}

/// Records that are entered together.
struct Chunk {
    news: News,
    events: Batch,
    letters: Batch,
    fates: Vec<Fate>,
}

/// Documents, and the indexes of the records they came from.
#[derive(Default)]
struct Batch {
    indexes: Vec<usize>,
    documents: Vec<RawDocumentBuf>,
}

impl Batch {
    fn push(&mut self, index: usize, document: RawDocumentBuf) {
        self.indexes.push(index);
        self.documents.push(document);
    }

    fn report(self, fates: Vec<Fate>, into: &mut [Fate]) {
        for (index, fate) in self.indexes.into_iter().zip(fates) {
            into[index] = fate;
        }
    }
}

impl Target<'_> {
    /// Inserts them all, one command after the other; the fates are in the order of the documents.
    async fn insert(&self, documents: &[RawDocumentBuf]) -> Result<Vec<Fate>> {
        let mut fates = Vec::with_capacity(documents.len());
        for command in commands(documents) {
            fates.extend(self.insert_once(&documents[command]).await?);
        }
        Ok(fates)
    }

    async fn insert_once(&self, documents: &[RawDocumentBuf]) -> Result<Vec<Fate>> {
        let inserted = self.collection.insert_many(documents).ordered(false).await;
        let Err(error) = inserted else {
            return Ok(vec![Fate::Written; documents.len()]);
        };
        match error.kind.as_ref() {
            ErrorKind::InsertMany(insert) if insert.write_concern_error.is_none() => {
                match insert.write_errors.as_deref() {
                    Some(errors) if !errors.is_empty() => self.sort_out(documents, errors).await,
                    _ => Err(store_error(&error)),
                }
            }
            // The command as a whole was refused for what one document holds: find out which.
            ErrorKind::Command(command) if COMMAND_CONTENT_CODES.contains(&command.code) => {
                if documents.len() == 1 {
                    let reason = format!("the store refuses it: {}", command.code_name);
                    return Ok(vec![Fate::Rejected(reason)]);
                }
                let (left, right) = documents.split_at(documents.len() / 2);
                let mut fates = Box::pin(self.insert_once(left)).await?;
                fates.extend(Box::pin(self.insert_once(right)).await?);
                Ok(fates)
            }
            _ => Err(store_error(&error)),
        }
    }

    async fn sort_out(
        &self,
        documents: &[RawDocumentBuf],
        errors: &[IndexedWriteError],
    ) -> Result<Vec<Fate>> {
        let mut fates = vec![Fate::Written; documents.len()];
        for error in errors {
            let name = error.code_name.as_deref().unwrap_or("write error");
            let Some(document) = documents.get(error.index) else {
                return Err(by_code(error.code, name, &error.message));
            };
            fates[error.index] = match error.code {
                // A large answer leaves the messages of its later errors empty; another unique
                // index may have spoken. Only the look-up tells then.
                DUPLICATE_KEY
                    if names_index(&error.message, self.unique_index)
                        || self.holds(document).await? =>
                {
                    Fate::Duplicate
                }
                code if CONTENT_CODES.contains(&code) => {
                    Fate::Rejected(format!("the store refuses it: {name} ({code})"))
                }
                code => return Err(by_code(code, name, &error.message)),
            };
        }
        Ok(fates)
    }

    async fn holds(&self, document: &RawDocumentBuf) -> Result<bool> {
        let (Ok(source), Ok(key)) = (document.get_str("source"), document.get_str(self.key)) else {
            return Err(StoreError::Other("a document without its key".to_owned()));
        };
        let found = self
            .collection
            .find_one(doc! { "source": source, self.key: key });
        let found = found.projection(doc! { "_id": 1 }).collation(simple());
        let found = found.await;
        found
            .map(|document| document.is_some())
            .map_err(|error| store_error(&error))
    }
}

/// Whether a duplicate-key message speaks of this index. What the document holds comes after
/// `dup key:` in it, so that no content can pretend.
fn names_index(message: &str, index: &str) -> bool {
    let before_content = message.split(" dup key: ").next().unwrap_or_default();
    let named = before_content.rsplit(" index: ").next().unwrap_or_default();
    let named = named.split(" collation: ").next().unwrap_or_default();
    named == index && before_content.contains(" index: ")
}

/// Divides them into what one command each can carry.
fn commands(documents: &[RawDocumentBuf]) -> Vec<Range<usize>> {
    let mut commands = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (index, document) in documents.iter().enumerate() {
        let length = document.as_bytes().len();
        if index > start && bytes + length > CHUNK_BYTES {
            commands.push(start..index);
            start = index;
            bytes = 0;
        }
        bytes += length;
    }
    if start < documents.len() {
        commands.push(start..documents.len());
    }
    commands
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_our_index_makes_a_duplicate() {
        let ours = "E11000 duplicate key error collection: d.auditevents index: \
                    source_1_externalId_1 dup key: { source: \"a\", externalId: \"b\" }";
        assert!(names_index(ours, "source_1_externalId_1"));
        let other = "E11000 duplicate key error collection: d.auditevents index: _id_ dup key: \
                     { _id: \" index: source_1_externalId_1 dup key: \" }";
        assert!(!names_index(other, "source_1_externalId_1"));
        assert!(!names_index("", "source_1_externalId_1"));
    }

    #[test]
    fn commands_keep_order_and_the_limit() {
        let small = vec![RawDocumentBuf::new(); CHUNK_DOCUMENTS];
        assert_eq!(
            commands(&small),
            std::slice::from_ref(&(0..CHUNK_DOCUMENTS))
        );

        let mut large = RawDocumentBuf::new();
        let field = mongodb::bson::raw::cstr!("a");
        large.append(field, "x".repeat(CHUNK_BYTES / 2));
        assert_eq!(commands(&[large.clone(), large]), [0..1, 1..2]);
        assert!(commands(&[]).is_empty());
    }
}
