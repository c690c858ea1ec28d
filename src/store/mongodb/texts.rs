//! The dictionary of texts, for finding a part of one.
//!
//! New texts go in as one *pending* document a commit: that costs the commit next to nothing. In the
//! background they are settled: each becomes a document of its own with all of its endings, of which
//! an index finds those that begin with what is looked for. A query looks at both. Settling is done
//! in an order and by keys that make a repeat, a crash or a second process harmless.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, RawDocument, RawDocumentBuf, doc};

use super::errors::store_error;
use super::facets::is_repeat;
use super::query::{escape, pattern};
use super::{MongoStore, decode, encode};
use crate::store::Result;
use crate::store::keys::Term;

/// Characters of an ending that the index holds.
const ENDING: usize = 12;

/// A longer text has no endings but [`LONG`]: whoever looks for anything looks at its events too.
const LONGEST: usize = 1024;

/// Sorts after every ending.
const LONG: &str = "\u{10FFFF}\u{10FFFF}";

/// Bytes of texts in one pending document.
const PENDING_BYTES: usize = 4 * 1024 * 1024;

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

    fn document(&self) -> Document {
        doc! {
            "id": binary(self.term.id),
            "key": self.term.key,
            "tenantSlug": &self.tenant,
            "text": self.shown(),
            "day": self.day,
        }
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

/// Every ending of a text, cut to what the index holds.
fn endings(text: &str) -> HashSet<String> {
    if text == LONG {
        return HashSet::from([LONG.to_owned()]);
    }
    let starts = text.char_indices().map(|(start, _)| start);
    starts
        .map(|start| text[start..].chars().take(ENDING).collect())
        .collect()
}

impl MongoStore {
    pub(super) async fn enter_texts(&self, texts: &[NewText]) -> Result<()> {
        let mut pending = Vec::new();
        let mut bytes = 0;
        for (number, text) in texts.iter().enumerate() {
            pending.push(text.document());
            bytes += text.shown().len() + 200;
            if bytes >= PENDING_BYTES || number + 1 == texts.len() {
                let document =
                    doc! { "_id": encode::next_id(), "texts": std::mem::take(&mut pending) };
                let inserted = self.pending.insert_one(raw(&document)?).await;
                inserted.map_err(|error| store_error(&error))?;
                bytes = 0;
            }
        }
        if !texts.is_empty() {
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
        if !new.is_empty() {
            let documents = new.iter().map(|text| {
                let endings: Vec<String> = endings(&text.term.text).into_iter().collect();
                raw(&doc! {
                    "_id": binary(text.term.id),
                    "key": text.term.key,
                    "tenantSlug": &text.tenant,
                    "text": &text.term.text,
                    "day": text.day,
                    "endings": endings,
                })
            });
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
            let deleted = self.pending.delete_one(doc! { "_id": id }).await;
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

fn raw(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document)
        .map_err(|error| crate::store::StoreError::Other(format!("texts are no document: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_begin_at_every_character() {
        let of = |text: &str| {
            let mut endings: Vec<String> = endings(text).into_iter().collect();
            endings.sort();
            endings
        };
        assert_eq!(of("åba"), ["a", "ba", "åba"]);
        assert_eq!(of("aa"), ["a", "aa"]);
        assert_eq!(of(""), [""; 0]);
        assert!(of("abcdefghijklmnop").contains(&"abcdefghijkl".to_owned()));
    }
}
