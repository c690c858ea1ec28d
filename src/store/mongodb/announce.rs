//! What has to stand before the events of a commit do, so that queries cannot miss one of them:
//! facets and texts that are new, and a mark on every counted hour and day that gets another event.
//!
//! A commit whose events bring nothing new, and happened just now, asks the server for nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use super::MongoStore;
use super::cells::{Cell, hot};
use super::texts::NewText;
use crate::store::Result;
use crate::store::keys::{EventKeys, Facet, KnownTexts, day};

/// Marks that a process remembers at most.
const REMEMBERED_MARKS: usize = 16 * 1024;

/// What this process has seen to stand in the store.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub facets: HashSet<i64>,
    texts: KnownTexts,
    marks: HashMap<Cell, i64>,
}

/// Gathered from the events of one commit.
#[derive(Debug)]
pub(super) struct News {
    now: i64,
    facets: HashMap<i64, Facet>,
    texts: HashMap<i64, NewText>,
    cells: BTreeSet<Cell>,
}

impl News {
    pub(super) fn new(store: &MongoStore) -> Self {
        Self {
            now: store.now(),
            facets: HashMap::new(),
            texts: HashMap::new(),
            cells: BTreeSet::new(),
        }
    }

    /// Adds an event; `facet` is asked for when its number is new.
    pub(super) fn add(
        &mut self,
        store: &MongoStore,
        at: i64,
        tenant: Option<&str>,
        keys: &EventKeys,
        facet: impl FnOnce() -> Facet,
    ) {
        let known = store.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.facets.contains(&keys.facet) && !self.facets.contains_key(&keys.facet) {
            self.facets.insert(keys.facet, facet());
        }
        let day = day(at.max(self.now));
        for term in &keys.terms {
            if known.texts.has(term.key, day) {
                continue;
            }
            let text = self.texts.entry(term.key).or_insert_with(|| NewText {
                term: term.clone(),
                tenant: tenant.map(str::to_owned),
                day,
            });
            text.day = text.day.max(day);
        }
        for cell in Cell::around(at) {
            // Nobody counts a cell that has not ended, and some minutes more.
            if cell.end() > self.now {
                continue;
            }
            let marked = known.marks.get(&cell);
            if marked.is_none_or(|marked| self.now - marked > hot() / 2) {
                self.cells.insert(cell);
            }
        }
    }
}

impl MongoStore {
    /// Makes the news stand; to be awaited before the events are inserted.
    pub(super) async fn announce(&self, news: News) -> Result<()> {
        let texts: Vec<NewText> = news.texts.into_values().collect();
        let cells: Vec<Cell> = news.cells.into_iter().collect();
        let begun = news.now;
        tokio::try_join!(
            self.enter_facets(news.facets),
            self.enter_texts(&texts),
            self.mark(&cells),
        )?;
        if texts.is_empty() && cells.is_empty() {
            return Ok(());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for text in &texts {
            known.texts.learn(text.term.key, text.day);
        }
        if known.marks.len() + cells.len() > REMEMBERED_MARKS {
            known.marks.clear();
        }
        known
            .marks
            .extend(cells.into_iter().map(|cell| (cell, begun)));
        Ok(())
    }
}
