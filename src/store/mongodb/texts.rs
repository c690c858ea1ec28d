//! The dictionary of texts, for finding a part of one.
//!
//! New texts go in as one *pending* document a commit: that costs the commit next to nothing. In the
//! background they are settled: each becomes a document of its own with all of its endings, of which
//! an index finds those that begin with what is looked for. A query looks at both. Settling is done
//! in an order and by keys that make a repeat, a crash or a second process harmless.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use mongodb::bson::spec::{BinarySubtype, ElementType};
use mongodb::bson::{Binary, Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::options::WriteConcern;

use super::errors::store_error;
use super::facets::is_repeat;
use super::query::{escape, pattern};
use super::{MongoStore, decode, encode, unsynced};
use crate::store::keys::Term;
use crate::store::{Result, StoreError};

/// Characters of an ending that the index holds.
const ENDING: usize = 12;

/// A longer text has no endings but [`LONG`]: whoever looks for anything looks at its events too.
const LONGEST: usize = 1024;

/// Sorts after every ending.
const LONG: &str = "\u{10FFFF}\u{10FFFF}";

/// Bytes of texts in one pending document.
const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// Texts of one insert: with their endings they are twenty times as long as pending.
const SETTLED_AT_ONCE: usize = 500;

/// A text that may be new.
#[derive(Clone, Debug)]
pub(super) struct NewText {
    pub term: Term,
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
        let mut buf = Vec::with_capacity(text.len() * (ENDING + 10) + 256);
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
                text: decode::text(document, "text")?,
            },
            tenant: decode::text(document, "tenantSlug"),
            day: document.get_i32("day").ok()?,
        })
    }
}

fn binary(bytes: [u8; 16]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

/// Every ending of a text, cut to what the index holds, each once.
fn endings(text: &str) -> Vec<&str> {
    if text == LONG {
        return vec![LONG];
    }
    let starts = text.char_indices().map(|(start, _)| start);
    let ends = starts.clone().chain([text.len()]).skip(ENDING);
    let ends = ends.chain(std::iter::repeat(text.len()));
    let mut endings: Vec<&str> = starts.zip(ends).map(|(from, to)| &text[from..to]).collect();
    endings.sort_unstable();
    endings.dedup();
    endings
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

    /// Settles one pending document; `false`: there is none.
    pub(super) async fn settle_one(&self) -> Result<bool> {
        let found = self.pending.find_one(doc! {}).await;
        let Some(found) = found.map_err(|error| store_error(&error))? else {
            return Ok(false);
        };
        let texts = read_texts(&found);
        let ids = |texts: &[NewText]| -> Vec<Bson> {
            let ids = texts.iter().map(|text| Bson::Binary(binary(text.term.id)));
            ids.collect()
        };
        let there = doc! { "_id": { "$in": ids(&texts) } };
        let there = self.texts.find(there).projection(doc! { "_id": 1 }).await;
        let there = super::collect(there, |document| {
            let id = document.get_binary("_id").ok()?.bytes;
            <[u8; 16]>::try_from(id).ok()
        });
        let there: HashSet<[u8; 16]> = there.await?.into_iter().collect();
        let (old, new): (Vec<_>, Vec<_>) = texts
            .into_iter()
            .partition(|text| there.contains(&text.term.id));
        for part in new.chunks(SETTLED_AT_ONCE) {
            let documents = part.iter().map(NewText::settled);
            let documents = documents.collect::<Result<Vec<_>>>()?;
            let inserted = self.texts.insert_many(&documents).ordered(false).await;
            if let Err(error) = inserted
                && !is_repeat(&error)
            {
                return Err(store_error(&error));
            }
        }
        // Those entered by another process just now have their day from it; a later one is ours.
        if let Some(day) = old.iter().chain(&new).map(|text| text.day).max()
            && !old.is_empty()
        {
            let later = doc! { "$max": { "day": day } };
            let updated = self
                .texts
                .update_many(doc! { "_id": { "$in": ids(&old) } }, later);
            let updated = updated.await.map_err(|error| store_error(&error))?;
            if updated.matched_count < old.len() as u64 {
                // Forgotten at this moment; the next turn enters them as new.
                return Ok(true);
            }
        }
        if let Ok(Some(id)) = found.get("_id")
            && let Ok(id) = Bson::try_from(id)
        {
            // Unsynced: should it come back, it is settled again.
            let delete = self.pending.delete_one(doc! { "_id": id });
            let deleted = delete.write_concern(unsynced(self.timeout)).await;
            deleted.map_err(|error| store_error(&error))?;
        }
        Ok(true)
    }

    /// The numbers of the texts that hold a folded text; `None`: of more than `limit`.
    pub(super) async fn search_texts(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        limit: usize,
    ) -> Result<Option<Vec<i64>>> {
        // In this order: what is settled in between is then found twice, not never.
        let pending = self.search_pending(tenants, folded).await?;
        let settled = self.search_settled(tenants, folded, limit).await?;
        let found: HashSet<i64> = settled.into_iter().chain(pending).collect();
        Ok((found.len() <= limit).then(|| found.into_iter().collect()))
    }

    async fn search_settled(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        limit: usize,
    ) -> Result<Vec<i64>> {
        let start: String = folded.chars().take(ENDING).collect();
        let end = format!("{start}{}", char::MAX);
        let begins = if folded.chars().count() >= ENDING {
            doc! { "$eq": &start }
        } else {
            doc! { "$gte": &start, "$lt": end }
        };
        let of = doc! { "$in": tenants };
        let read = |query: Document| async {
            let found = self.texts.find(query);
            let found = found.projection(doc! { "_id": 0, "key": 1, "text": 1 });
            let found = found.limit(i64::try_from(limit).unwrap_or(i64::MAX) + 1);
            let found = found.batch_size(10_000).max_time(self.timeout).await;
            super::collect(found, |document| {
                let text = document.get_str("text").ok()?;
                let holds = text == LONG || text.contains(folded);
                document.get_i64("key").ok().filter(|_| holds)
            })
            .await
        };
        let (mut found, long) = tokio::try_join!(
            read(doc! { "tenantSlug": of.clone(), "endings": begins }),
            read(doc! { "tenantSlug": of, "endings": LONG }),
        )?;
        found.extend(long);
        Ok(found)
    }

    async fn search_pending(&self, tenants: &[Option<String>], folded: &str) -> Result<Vec<i64>> {
        let holds = doc! { "$in": [pattern(&escape(folded)), LONG] };
        let query = doc! { "texts": { "$elemMatch": { "text": holds } } };
        let found = self.pending.find(query).max_time(self.timeout).await;
        let mut found = found.map_err(|error| store_error(&error))?;
        let mut keys = Vec::new();
        while let Some(document) = found
            .try_next()
            .await
            .map_err(|error| store_error(&error))?
        {
            let texts = read_texts(&document).into_iter();
            let texts = texts.filter(|new| tenants.contains(&new.tenant));
            let holding = texts.filter(|new| {
                let text = &new.term.text;
                text == LONG || text.contains(folded)
            });
            keys.extend(holding.map(|new| new.term.key));
        }
        Ok(keys)
    }

    /// Forgets the texts of which the last event happened and was entered before a day.
    pub(super) async fn forget_texts_before(&self, day: i32) -> Result<()> {
        let old = doc! { "day": { "$lt": day } };
        let deleted = self.texts.delete_many(old).await;
        deleted.map(|_| ()).map_err(|error| store_error(&error))
    }
}

fn read_texts(document: &RawDocumentBuf) -> Vec<NewText> {
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
    use super::*;

    #[test]
    fn endings_begin_at_every_character() {
        assert_eq!(endings("åba"), ["a", "ba", "åba"]);
        assert_eq!(endings("aa"), ["a", "aa"]);
        assert_eq!(endings(""), [""; 0]);
        let long = endings("abcdefghijklmnop");
        assert_eq!(long[0], "abcdefghijkl");
        assert_eq!(long[4..6], ["efghijklmnop", "fghijklmnop"]);
        assert_eq!(long.len(), 16);
    }

    #[test]
    fn a_pending_document_is_read_as_it_was_written() {
        let text = |number: i32, tenant: Option<&str>, text: &str| NewText {
            term: Term {
                key: number.into(),
                id: [7; 16],
                text: text.to_owned(),
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
