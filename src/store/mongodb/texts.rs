//! The dictionary of texts, for finding a part of one (`search`).
//!
//! New texts go in as one *pending* document a commit: that costs the commit next to nothing. In the
//! background they are settled: each becomes a document of its own with its endings, of which an index
//! finds those that begin with what is looked for. A query looks at both. Settling is done in an order
//! and by keys that make a repeat, a crash or a second process harmless.
//!
//! Only every second ending is kept: those behind an even number of characters. What stands behind an
//! odd number is found either with the character before it (those of a tenant are kept in a document of
//! its own) or without its own first character. Entries of older versions have every ending, and more of
//! each, so the same finds them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mongodb::bson::spec::{BinarySubtype, ElementType};
use mongodb::bson::{Binary, Bson, RawDocument, RawDocumentBuf, doc};
use mongodb::options::WriteConcern;

use super::errors::store_error;
use super::facets::is_repeat;
use super::{MongoStore, decode, encode, unsynced};
use crate::store::keys::Term;
use crate::store::{Result, StoreError};

/// Endings are kept that begin at every so many characters.
pub(super) const STEP: usize = 2;

/// Characters of an ending that the index holds.
pub(super) const ENDING: usize = 8;

/// The same in older versions.
pub(super) const LONGEST_ENDING: usize = 12;

/// A longer text has no endings but [`LONG`]: whoever looks for anything looks at its events too.
const LONGEST: usize = 1024;

/// Sorts after every ending.
pub(super) const LONG: &str = "\u{10FFFF}\u{10FFFF}";

/// Bytes of texts in one pending document.
const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// Texts that are settled in one go, if so many are pending: those of some commits.
const SETTLED_TOGETHER: usize = 2000;

/// Pending documents of one go at most.
const PENDING_TOGETHER: i64 = 100;

/// Texts of one insert: with their endings they are ten times as long as pending.
const SETTLED_AT_ONCE: usize = 500;

/// Commands on the wire at once.
pub(super) const CONCURRENT: usize = 2;

/// A text that may be new.
#[derive(Clone, Debug)]
pub(super) struct NewText {
    pub term: Term<'static>,
    pub tenant: Option<String>,
    /// The last day, since 1970, on which an event with it happened or was entered.
    pub day: i32,
}

impl NewText {
    fn shown(&self) -> &str {
        if self.term.text.len() > LONGEST {
            LONG
        } else {
            &self.term.text
        }
    }

    /// Writes the fields of a document that holds it, but for its id.
    fn write(&self, buf: &mut Vec<u8>, shown: &str) {
        encode::int64(buf, "key", self.term.key);
        match &self.tenant {
            Some(slug) => encode::text(buf, "tenantSlug", slug),
            None => encode::key(buf, ElementType::Null, "tenantSlug"),
        }
        encode::text(buf, "text", shown);
        encode::key(buf, ElementType::Int32, "day");
        buf.extend_from_slice(&self.day.to_le_bytes());
    }

    /// The document of a settled text.
    fn settled(&self) -> Result<RawDocumentBuf> {
        let text = &self.term.text;
        let mut buf = Vec::with_capacity(text.len() / STEP * (ENDING + 12) + 256);
        let start = encode::open(&mut buf);
        encode::binary(&mut buf, "_id", &self.term.id);
        self.write(&mut buf, text);
        encode::key(&mut buf, ElementType::Array, "endings");
        let array = encode::open(&mut buf);
        for (index, ending) in endings(text).into_iter().enumerate() {
            encode::with_index(index, |name| encode::text(&mut buf, name, ending));
        }
        encode::close(&mut buf, array);
        finish(buf, start)
    }

    fn read(document: &RawDocument) -> Option<Self> {
        Some(Self {
            term: Term {
                key: document.get_i64("key").ok()?,
                id: document.get_binary("id").ok()?.bytes.try_into().ok()?,
                text: decode::text(document, "text")?.into(),
            },
            tenant: decode::text(document, "tenantSlug"),
            day: document.get_i32("day").ok()?,
        })
    }
}

fn id_of(text: &NewText) -> Bson {
    Bson::Binary(binary(text.term.id))
}

fn binary(bytes: [u8; 16]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

/// The endings of a text that are kept, cut to what the index holds, each once.
fn endings(text: &str) -> Vec<&str> {
    if text == LONG {
        return vec![LONG];
    }
    let starts = text.char_indices().map(|(start, _)| start);
    let ends = starts.clone().chain([text.len()]).skip(ENDING);
    let ends = ends.chain(std::iter::repeat(text.len()));
    let all = starts.zip(ends).map(|(from, to)| &text[from..to]);
    let mut endings: Vec<&str> = all.step_by(STEP).collect();
    endings.sort_unstable();
    endings.dedup();
    endings
}

/// What kept endings begin with: one of these stands before whatever begins an ending that is left out.
fn heads(text: &str) -> impl Iterator<Item = char> {
    let shown = if text == LONG { "" } else { text };
    shown.chars().step_by(STEP)
}

/// A pending document.
struct Pending {
    buf: Vec<u8>,
    document: usize,
    array: usize,
    count: usize,
}

impl Pending {
    fn new() -> Self {
        let mut buf = Vec::new();
        let document = encode::open(&mut buf);
        encode::key(&mut buf, ElementType::ObjectId, "_id");
        buf.extend_from_slice(&encode::next_id().bytes());
        encode::key(&mut buf, ElementType::Array, "texts");
        let array = encode::open(&mut buf);
        Self {
            buf,
            document,
            array,
            count: 0,
        }
    }

    fn push(&mut self, new: &NewText) {
        let buf = &mut self.buf;
        encode::with_index(self.count, |name| {
            encode::key(buf, ElementType::EmbeddedDocument, name);
        });
        let start = encode::open(buf);
        encode::binary(buf, "id", &new.term.id);
        new.write(buf, new.shown());
        encode::close(buf, start);
        self.count += 1;
    }

    fn document(mut self) -> Result<RawDocumentBuf> {
        encode::close(&mut self.buf, self.array);
        finish(self.buf, self.document)
    }
}

fn finish(buf: Vec<u8>, start: usize) -> Result<RawDocumentBuf> {
    let refused = |error| StoreError::Other(format!("texts are no document: {error}"));
    encode::finish(buf, start).map_err(refused)
}

impl MongoStore {
    pub(super) async fn enter_texts(
        &self,
        texts: impl ExactSizeIterator<Item = &NewText>,
        concern: &WriteConcern,
    ) -> Result<()> {
        let count = texts.len();
        let mut pending = Pending::new();
        for (number, text) in texts.enumerate() {
            pending.push(text);
            if pending.buf.len() >= PENDING_BYTES || number + 1 == count {
                let full = std::mem::replace(&mut pending, Pending::new());
                let insert = self.pending.insert_one(full.document()?);
                let inserted = insert.write_concern(concern.clone()).await;
                inserted.map_err(|error| store_error(&error))?;
            }
        }
        if count > 0 {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Settles some of the pending texts; `false`: there are none.
    pub(super) async fn settle_some(&self) -> Result<bool> {
        let (pending, texts) = self.some_pending().await?;
        if pending.is_empty() {
            return Ok(false);
        }
        self.enter_heads(&texts).await?;
        let ids: Vec<Bson> = texts.iter().map(id_of).collect();
        let there = doc! { "_id": { "$in": ids } };
        let there = self.texts.find(there).projection(doc! { "_id": 1 });
        let there = super::collect(there.batch_size(10_000).await, |document| {
            let id = document.get_binary("_id").ok()?.bytes;
            <[u8; 16]>::try_from(id).ok()
        });
        let there: HashSet<[u8; 16]> = there.await?.into_iter().collect();
        let (old, new): (Vec<_>, Vec<_>) =
            texts.iter().partition(|text| there.contains(&text.term.id));
        let inserts = new
            .chunks(SETTLED_AT_ONCE)
            .map(|part| self.settle_new(part));
        let inserts: Vec<_> = inserts.collect();
        let all_new: Vec<bool> = stream::iter(inserts)
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        let all_old = self.move_days(&old).await?;
        if all_old && all_new.iter().all(|all_new| *all_new) {
            // Unsynced: should they come back, they are settled again.
            let delete = self.pending.delete_many(doc! { "_id": { "$in": pending } });
            let deleted = delete.write_concern(unsynced(self.timeout)).await;
            deleted.map_err(|error| store_error(&error))?;
        }
        Ok(true)
    }

    /// Some pending documents, by their ids, and their texts, each once.
    async fn some_pending(&self) -> Result<(Vec<Bson>, Vec<NewText>)> {
        let found = self.pending.find(doc! {}).limit(PENDING_TOGETHER);
        let found = found.batch_size(8).await;
        let mut found = found.map_err(|error| store_error(&error))?;
        let mut ids = Vec::new();
        let mut texts: HashMap<[u8; 16], NewText> = HashMap::new();
        while texts.len() < SETTLED_TOGETHER {
            let next = found.try_next().await;
            let Some(document) = next.map_err(|error| store_error(&error))? else {
                break;
            };
            if let Ok(Some(id)) = document.get("_id")
                && let Ok(id) = Bson::try_from(id)
            {
                ids.push(id);
            }
            for new in read_texts(&document) {
                let day = new.day;
                let text = texts.entry(new.term.id).or_insert(new);
                text.day = text.day.max(day);
            }
        }
        let mut texts: Vec<NewText> = texts.into_values().collect();
        texts.sort_unstable_by(|one, other| {
            (&one.tenant, &one.term.text).cmp(&(&other.tenant, &other.term.text))
        });
        Ok((ids, texts))
    }

    /// Enters what stands before the endings that are left out. Before the texts are, and also for those
    /// that are there: who entered them may not have got so far.
    async fn enter_heads(&self, texts: &[NewText]) -> Result<()> {
        let mut heads_of: BTreeMap<Option<&str>, BTreeSet<char>> = BTreeMap::new();
        for text in texts {
            let known = heads_of.entry(text.tenant.as_deref()).or_default();
            known.extend(heads(&text.term.text));
        }
        if heads_of.is_empty() {
            return Ok(());
        }
        let updates = heads_of.into_iter().map(|(tenant, heads)| {
            let heads: Vec<String> = heads.into_iter().map(String::from).collect();
            doc! {
                "q": { "_id": { "heads": tenant } },
                "u": { "$addToSet": { "heads": { "$each": heads } } },
                "upsert": true,
            }
        });
        let wait = self.timeout_millis();
        let command = doc! {
            "update": self.texts.name(),
            "updates": updates.collect::<Vec<_>>(),
            "ordered": false,
            "writeConcern": { "w": "majority", "j": true, "wtimeout": wait },
        };
        let answer = self.database.run_command(command).await;
        let answer = answer.map_err(|error| store_error(&error))?;
        let failed = ["writeErrors", "writeConcernError"]
            .into_iter()
            .find_map(|failure| answer.get(failure));
        match failed {
            None => Ok(()),
            Some(failure) => Err(StoreError::Unavailable(failure.to_string())),
        }
    }

    /// `false`: another process has entered some of them meanwhile.
    async fn settle_new(&self, texts: &[&NewText]) -> Result<bool> {
        let documents = texts.iter().map(|text| text.settled());
        let documents = documents.collect::<Result<Vec<_>>>()?;
        let inserted = self.texts.insert_many(&documents).ordered(false).await;
        match inserted {
            Ok(_) => Ok(true),
            Err(error) if is_repeat(&error) => Ok(false),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Gives texts that are there a later day; `false`: some were forgotten at this moment.
    async fn move_days(&self, texts: &[&NewText]) -> Result<bool> {
        let mut days: BTreeMap<i32, Vec<Bson>> = BTreeMap::new();
        for text in texts {
            days.entry(text.day).or_default().push(id_of(text));
        }
        let mut all_there = true;
        for (day, ids) in days {
            let count = ids.len() as u64;
            let later = doc! { "$max": { "day": day } };
            let updated = self
                .texts
                .update_many(doc! { "_id": { "$in": ids } }, later);
            let updated = updated.await.map_err(|error| store_error(&error))?;
            all_there &= updated.matched_count >= count;
        }
        Ok(all_there)
    }

    /// Forgets the texts of which the last event happened and was entered before a day.
    pub(super) async fn forget_texts_before(&self, day: i32) -> Result<()> {
        let old = doc! { "day": { "$lt": day } };
        let deleted = self.texts.delete_many(old).await;
        deleted.map(|_| ()).map_err(|error| store_error(&error))
    }
}

pub(super) fn read_texts(document: &RawDocumentBuf) -> Vec<NewText> {
    let Ok(texts) = document.get_array("texts") else {
        return Vec::new();
    };
    let texts = texts.into_iter().flatten();
    texts
        .filter_map(|text| NewText::read(text.as_document()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Document;

    use super::*;

    #[test]
    fn endings_begin_at_every_second_character() {
        assert_eq!(endings("åba"), ["a", "åba"]);
        assert_eq!(endings("aaaa"), ["aa", "aaaa"]);
        assert_eq!(endings(""), [""; 0]);
        let long = endings("abcdefghijklmnop");
        assert_eq!(long[..2], ["abcdefgh", "cdefghij"]);
        assert_eq!(long[5..], ["klmnop", "mnop", "op"]);
        assert_eq!(heads("åbacd").collect::<String>(), "åad");
        assert_eq!((endings(LONG), heads(LONG).count()), (vec![LONG], 0));
    }

    #[test]
    fn a_pending_document_is_read_as_it_was_written() {
        let text = |number: i32, tenant: Option<&str>, text: &str| NewText {
            term: Term {
                key: number.into(),
                id: [7; 16],
                text: text.to_owned().into(),
            },
            tenant: tenant.map(str::to_owned),
            day: number,
        };
        let mut pending = Pending::new();
        for number in 0..20 {
            pending.push(&text(number, Some("acme"), "åse"));
        }
        pending.push(&text(20, None, &"x".repeat(LONGEST + 1)));
        let read = read_texts(&pending.document().expect("a document"));
        assert_eq!(read.len(), 21);
        assert_eq!((read[19].day, read[19].term.key), (19, 19));
        assert_eq!(read[19].term.id, [7; 16]);
        assert_eq!(read[19].tenant.as_deref(), Some("acme"));
        assert_eq!(read[19].term.text, "åse");
        assert_eq!((read[20].tenant.as_ref(), read[20].shown()), (None, LONG));
        let settled = read[20].settled().expect("a document");
        let read = Document::try_from(settled).expect("no bytes but BSON");
        assert_eq!(
            read,
            doc! {
                "_id": binary([7; 16]), "key": 20_i64, "tenantSlug": null, "text": LONG, "day": 20,
                "endings": [LONG],
            }
        );
    }
}
