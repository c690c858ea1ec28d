//! Finding the texts that hold a part: by the endings of the settled ones (`texts`), and among the pending ones.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mongodb::bson::{Bson, Document, RawDocument, doc};

use super::conditions::{escape, pattern};
use super::errors::store_error;
use super::texts::{CONCURRENT, ENDING, LONG, LONGEST_ENDING, STEP, read_texts};
use super::{MongoStore, decode};
use crate::store::keys::{Role, Term, is_odd};
use crate::store::{Result, StoreError};

/// What has no more characters than this is looked up with each character that may stand before it;
/// of what is longer, enough is left without its first one.
const SHORT: usize = 6;

/// Places in the index that such a query may look at: a character in a tenant each, at some microseconds.
const MOST_PLACES: usize = 50_000;

/// Texts that are too long to be kept: whatever is looked for, they are found besides.
const MOST_LONG: usize = 50_000;

/// Texts that are looked through, for each one that is wanted, where not each has to hold all of what is looked for.
const LOOKED_THROUGH: usize = 4;

/// Parts of a long query of which the rarest leads.
const COMPARED: usize = 4;

/// Texts so few that no rarer part is looked for.
const FEW: u64 = 20;

/// A text that holds what was looked for, or may: [`LONG`] stands for any.
#[derive(Debug)]
pub(super) struct FoundText {
    /// Its number in the index by terms.
    pub key: i64,
    tenant: Option<String>,
    text: String,
}

impl FoundText {
    fn read(document: &RawDocument) -> Option<Self> {
        Some(Self {
            key: document.get_i64("key").ok()?,
            tenant: decode::text(document, "tenantSlug"),
            text: decode::text(document, "text")?,
        })
    }

    fn is_long(&self) -> bool {
        self.text == LONG
    }
}

/// Whether no more than `limit` were found, and of those that are found by anything not too many.
fn are_few<'a>(found: impl IntoIterator<Item = &'a FoundText>, limit: usize) -> bool {
    let (mut long, mut others) = (0, 0);
    for text in found {
        if text.is_long() {
            long += 1;
        } else {
            others += 1;
        }
    }
    others <= limit && long <= MOST_LONG
}

/// The terms of which every event surely holds `text`, and those of which each event has to be asked: a server
/// may tell texts apart that fold to one.
pub(super) fn told_apart(found: &[FoundText], text: &str) -> (Vec<i64>, Vec<i64>) {
    let keys: HashSet<i64> = found.iter().map(|found| found.key).collect();
    let tells = |found: &FoundText| {
        if is_odd(text) || found.is_long() {
            return false;
        }
        let key = |role| Term::new(found.tenant.as_deref(), role, &found.text).key;
        for role in [Role::Actor, Role::Target] {
            if found.key == key(role) {
                return !role.odd().is_some_and(|odd| keys.contains(&key(odd)));
            }
        }
        // As it was written, for it was not folded.
        found.text.is_ascii() && found.key == key(Role::Address)
    };
    let (telling, others): (Vec<_>, Vec<_>) = found.iter().partition(|found| tells(found));
    let keys = |found: Vec<&FoundText>| found.into_iter().map(|found| found.key).collect();
    (keys(telling), keys(others))
}

/// The parts of a query, as many characters as the index holds, that begin `skipped` characters on
/// or a whole number of steps later: one kept ending of each text with the query begins with each.
fn windows(folded: &str, skipped: usize) -> Vec<String> {
    let characters: Vec<char> = folded.chars().skip(skipped).collect();
    let last = characters.len().saturating_sub(ENDING) / STEP;
    let compared = last.min(COMPARED - 1);
    let places = (0..=compared).map(|place| place * last / compared.max(1) * STEP);
    let window = |place| characters.iter().skip(place).take(ENDING).collect();
    places.map(window).collect()
}

/// Endings that begin with a text. Both bounds of one ending, or the server takes each bound for any.
fn begins_with(start: &str) -> Document {
    let end: String = std::iter::repeat_n(char::MAX, LONGEST_ENDING).collect();
    doc! { "$elemMatch": { "$gte": start, "$lte": format!("{start}{end}") } }
}

/// Conditions on endings that together say: begins with one of these. In one condition go those that
/// the server makes a narrow range of the index of.
fn begins_with_any(starts: Vec<String>) -> Vec<Document> {
    let is_plain = |start: &String| start.chars().all(|c| c != '|' && !c.is_ascii_control());
    let (plain, odd): (Vec<_>, Vec<_>) = starts.into_iter().partition(is_plain);
    let mut conditions: Vec<Document> = odd.iter().map(|start| begins_with(start)).collect();
    if !plain.is_empty() {
        let starts = plain.iter().map(|start| exact_pattern("^", start));
        conditions.push(doc! { "$in": starts.collect::<Vec<_>>() });
    }
    conditions
}

/// A pattern in just this case of letters: texts are folded.
fn exact_pattern(before: &str, text: &str) -> Bson {
    pattern(&format!("{before}{}", escape(text)), "")
}

impl MongoStore {
    /// The texts that hold a folded text, and those of which that is not known; `None`: more than `limit` hold it, or it
    /// cannot be told soon.
    pub(super) async fn search_texts(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        limit: usize,
    ) -> Result<Option<Vec<FoundText>>> {
        // In this order: what is settled in between is then found twice, not never.
        let pending = self.search_pending(tenants, folded, limit).await?;
        if !are_few(&pending, limit) {
            return Ok(None);
        }
        let Some(settled) = self.search_settled(tenants, folded, limit).await? else {
            return Ok(None);
        };
        let found = settled.into_iter().chain(pending);
        let found: HashMap<i64, FoundText> = found.map(|text| (text.key, text)).collect();
        Ok(are_few(found.values(), limit).then(|| found.into_values().collect()))
    }

    async fn search_settled(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        limit: usize,
    ) -> Result<Option<Vec<FoundText>>> {
        let Some(ways) = self.ways_to(tenants, folded, limit).await? else {
            return Ok(None);
        };
        let ways = ways.into_iter();
        let ways = ways.chain([(doc! { "$eq": LONG }, MOST_LONG)]);
        let reads = ways.map(|(endings, most)| async move {
            let of = doc! { "tenantSlug": { "$in": tenants }, "endings": endings };
            let found = self.texts.find(of);
            let found = found.projection(doc! { "_id": 0, "key": 1, "tenantSlug": 1, "text": 1 });
            let found = found.limit(i64::try_from(most).unwrap_or(i64::MAX) + 1);
            let found = found.batch_size(10_000).max_time(self.timeout).await;
            let looked_at = super::collect(found, |document| {
                let text = document.get_str("text").ok()?;
                let holds = text == LONG || text.contains(folded);
                Some(holds.then(|| FoundText::read(document)).flatten())
            });
            let looked_at = looked_at.await?;
            // Cut off, they say nothing about the others.
            let is_whole = looked_at.len() <= most;
            Ok::<_, StoreError>(is_whole.then_some(looked_at))
        });
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffer_unordered(CONCURRENT);
        let mut found = Vec::new();
        while let Some(looked_at) = reads.try_next().await? {
            let Some(looked_at) = looked_at else {
                return Ok(None);
            };
            found.extend(looked_at.into_iter().flatten());
        }
        Ok(Some(found))
    }

    /// Conditions on endings, one of which each text with this folded text meets, and how many texts are looked through
    /// that meet it.
    async fn ways_to(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        limit: usize,
    ) -> Result<Option<Vec<(Document, usize)>>> {
        let length = folded.chars().count();
        if length <= SHORT {
            let heads = self.heads_of(tenants).await?;
            if heads.len() * tenants.len() <= MOST_PLACES {
                let headed = heads.iter().map(|head| format!("{head}{folded}"));
                let starts = headed.chain([folded.to_owned()]).collect();
                let ways = begins_with_any(starts).into_iter();
                return Ok(Some(ways.map(|way| (way, limit)).collect()));
            }
            if length < STEP {
                return Ok(None);
            }
        }
        let leading = (0..STEP).map(|skipped| self.rarest_window(tenants, folded, skipped, limit));
        let leading = futures_util::future::try_join_all(leading).await?;
        let ways = leading.iter().map(|start| {
            let for_each = if start == folded { 1 } else { LOOKED_THROUGH };
            (begins_with(start), limit * for_each)
        });
        Ok(Some(ways.collect()))
    }

    /// Of the windows with this many characters skipped, the one with the fewest texts.
    async fn rarest_window(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        skipped: usize,
        limit: usize,
    ) -> Result<String> {
        let mut windows = windows(folded, skipped);
        let mut rarest = (u64::MAX, windows.swap_remove(0));
        if windows.is_empty() {
            return Ok(rarest.1);
        }
        for window in [rarest.1.clone()].into_iter().chain(windows) {
            let of = doc! { "tenantSlug": { "$in": tenants }, "endings": begins_with(&window) };
            let counted = self.texts.count_documents(of);
            let counted = counted.limit((limit * LOOKED_THROUGH) as u64);
            let counted = counted.max_time(self.timeout).await;
            let count = counted.map_err(|error| store_error(&error))?;
            if count < rarest.0 {
                rarest = (count, window);
            }
            if count <= FEW {
                break;
            }
        }
        Ok(rarest.1)
    }

    /// What stands before the endings that these tenants' texts lack.
    async fn heads_of(&self, tenants: &[Option<String>]) -> Result<BTreeSet<char>> {
        let of = tenants.iter().map(|tenant| doc! { "heads": tenant });
        let of = doc! { "_id": { "$in": of.collect::<Vec<_>>() } };
        let found = self.texts.find(of).max_time(self.timeout).await;
        let heads = super::collect(found, |document| {
            let heads = document.get_array("heads").ok()?.into_iter().flatten();
            let heads = heads.filter_map(|head| head.as_str()?.chars().next());
            Some(heads.collect::<Vec<_>>())
        });
        Ok(heads.await?.into_iter().flatten().collect())
    }

    /// Those of the pending texts, or some more than `limit`.
    async fn search_pending(
        &self,
        tenants: &[Option<String>],
        folded: &str,
        limit: usize,
    ) -> Result<Vec<FoundText>> {
        let holds = doc! { "$in": [exact_pattern("", folded), LONG] };
        let of = doc! { "text": holds, "tenantSlug": { "$in": tenants } };
        let query = doc! { "texts": { "$elemMatch": of } };
        let found = self.pending.find(query).max_time(self.timeout).await;
        let mut found = found.map_err(|error| store_error(&error))?;
        let mut all = Vec::new();
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
            all.extend(holding.map(|new| FoundText {
                key: new.term.key,
                tenant: new.tenant,
                text: new.term.text.into_owned(),
            }));
            // During an import they may be millions.
            if all.len() > limit && !are_few(&all, limit) {
                break;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_whole_where_they_can_be() {
        assert_eq!(windows("åb", 0), ["åb"]);
        assert_eq!(windows("åb", 1), ["b"]);
        assert_eq!(windows("abcdefghi", 0), ["abcdefgh"]);
        assert_eq!(windows("abcdefghi", 1), ["bcdefghi"]);
        assert_eq!(windows("abcdefghij", 0), ["abcdefgh", "cdefghij"]);
        let many = windows("abcdefghijklmnopqrstuvwxyz", 1);
        assert_eq!(many, ["bcdefghi", "fghijklm", "lmnopqrs", "rstuvwxy"]);
    }

    #[test]
    fn a_term_tells_unless_an_odd_text_shares_it() {
        let found = |role, text: &str| FoundText {
            key: Term::new(Some("acme"), role, text).key,
            tenant: Some("acme".to_owned()),
            text: crate::store::keys::fold(text).into_owned(),
        };
        let key = |found: &FoundText| found.key;
        let plain = found(Role::Actor, "Strauss");
        let shared = found(Role::Actor, "Weiss");
        let odd = found(Role::OddActor, "Weiß");
        let target = found(Role::Target, "Weiss");
        let address = found(Role::Address, "::ss");
        let capital = found(Role::Address, "::SS");
        let long = FoundText {
            text: LONG.to_owned(),
            ..found(Role::Target, "x")
        };
        let telling = [&plain, &target, &address].map(key);
        let asked = [&shared, &odd, &capital, &long].map(key);
        let all = [plain, shared, odd, target, address, capital, long];
        assert_eq!(told_apart(&all, "SS"), (telling.to_vec(), asked.to_vec()));
        assert_eq!(told_apart(&all, "ß").0, [0; 0]);
    }
}
