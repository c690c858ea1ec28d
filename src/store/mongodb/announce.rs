//! What has to stand before the events of a commit do, so that queries cannot miss one of them:
//! facets and texts that are new, and a mark on every hour and day that gets another event.
//!
//! A commit whose events bring nothing new, in an hour that was marked a moment ago, asks the server
//! for nothing.
//!
//! An announcement need not be synced: the sync of the events covers it, if the server is the same
//! that took it. One that died in between may have lost it. Nothing gets to its successor but on a new
//! connection, so when one was made meanwhile the announcement is made again, synced, before the
//! events are acknowledged. Only then it is remembered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use mongodb::options::WriteConcern;

use super::MongoStore;
use super::cells::{Cell, hot};
use super::commit::no_events_fault;
use super::texts::NewText;
use crate::event::SourceName;
use crate::store::Result;
use crate::store::keys::{EventKeys, Facet, KeySet, KnownTexts, TextId, day};

/// Marks that a process remembers at most.
const REMEMBERED_MARKS: usize = 16 * 1024;

/// What this process has seen to stand in the store.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub facets: KeySet,
    texts: KnownTexts,
    marks: HashMap<Cell, i64>,
    /// Sources whose cursor was there to be touched.
    touched: HashSet<SourceName>,
    /// A lack of the dictionary would have been noted.
    has_looked: bool,
    /// How often what stood there was found to be lost.
    losses: u64,
}

/// Gathered from the events of one commit.
#[derive(Debug)]
pub(super) struct News {
    now: i64,
    facets: HashMap<i64, Facet>,
    texts: HashMap<TextId, NewText>,
    cells: BTreeSet<Cell>,
    /// Of the event before: neighbours mostly share theirs.
    former: Option<[Cell; 2]>,
}

impl News {
    pub(super) fn new(store: &MongoStore) -> Self {
        Self {
            now: store.now(),
            facets: HashMap::new(),
            texts: HashMap::new(),
            cells: BTreeSet::new(),
            former: None,
        }
    }

    /// Whether there are facets that this process did not know to stand in the store.
    pub(super) fn has_facets(&self) -> bool {
        !self.facets.is_empty()
    }

    /// Adds an event; `facet` is asked for when its number is new.
    pub(super) fn add(
        &mut self,
        store: &MongoStore,
        at: i64,
        tenant: Option<&str>,
        keys: &EventKeys<'_>,
        facet: impl FnOnce() -> Facet,
    ) {
        let known = store.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.facets.contains(&keys.facet) && !self.facets.contains_key(&keys.facet) {
            self.facets.insert(keys.facet, facet());
        }
        let day = day(at.max(self.now));
        for term in &keys.terms {
            if known.texts.has(&term.id, day) {
                continue;
            }
            let text = self.texts.entry(term.id).or_insert_with(|| NewText {
                term: term.clone().into_owned(),
                tenant: tenant.map(str::to_owned),
                day,
            });
            text.day = text.day.max(day);
        }
        let cells = Cell::around(at);
        if self.former.replace(cells) == Some(cells) {
            return;
        }
        for cell in cells {
            // Also one that has not ended: by a clock that was ahead it may have, and be counted. Nor
            // does a mark hold that such a clock has made.
            let marked = known.marks.get(&cell);
            if marked.is_none_or(|marked| (self.now - marked).abs() > hot() / 2) {
                self.cells.insert(cell);
            }
        }
    }
}

impl MongoStore {
    /// Makes the news stand; to be awaited before the events are inserted.
    pub(super) async fn announce(&self, news: &News, concern: &WriteConcern) -> Result<()> {
        tokio::try_join!(
            self.enter_facets(&news.facets, concern),
            self.enter_texts(news.texts.values(), concern),
            async {
                let marked = self.mark(&news.cells, concern).await;
                marked.map_err(no_events_fault)
            },
        )?;
        Ok(())
    }

    /// Forgets what this process has seen to stand in the store: it may stand there no more.
    pub(super) fn forget(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known {
            touched: std::mem::take(&mut known.touched),
            losses: known.losses,
            ..Known::default()
        };
        drop(known);
        let mut dictionary = self
            .dictionary
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *dictionary = None;
        drop(dictionary);
        self.kept_findings.clear();
    }

    /// The same where it surely is lost: no commit under way may rely on it.
    pub(super) fn lose(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.losses += 1;
        drop(known);
        self.forget();
    }

    /// Remembers that a source's cursor stands.
    pub(super) fn touched(&self, source: &SourceName) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.touched.contains(source) {
            known.touched.insert(source.clone());
        }
    }

    /// What a lost cursor would tell is known: the cursors may be gone with the indexes.
    pub(super) fn forget_touched(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.touched.clear();
    }

    /// Whether a source's cursor stood when it was touched before.
    pub(super) fn was_touched(&self, source: &SourceName) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.touched.contains(source)
    }

    /// Remembers that a lack of the dictionary would have been noted.
    pub(super) fn looked(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.has_looked = true;
    }

    pub(super) fn has_looked(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.has_looked
    }

    pub(super) fn losses(&self) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.losses
    }

    /// Remembers what is durable, so that it is not announced again.
    pub(super) fn remember(&self, news: News) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.facets.extend(news.facets.into_keys());
        for (id, text) in news.texts {
            known.texts.learn(id, text.day);
        }
        if known.marks.len() + news.cells.len() > REMEMBERED_MARKS {
            known.marks.clear();
        }
        let marks = news.cells.into_iter().map(|cell| (cell, news.now));
        known.marks.extend(marks);
    }
}
