//! What has to stand before the events of a commit do, so that queries cannot miss one of them:
//! facets and texts that are new, and a mark on every counted hour and day that gets another event.
//!
//! A commit whose events bring nothing new, and happened just now, asks the server for nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Instant;

use jiff::Timestamp;

use super::MongoStore;
use super::cells::{Cell, HOT};
use super::texts::NewText;
use crate::store::Result;
use crate::store::keys::{EventKeys, Facet};

/// Texts that a process remembers at most, in two halves of which the older is forgotten.
const REMEMBERED_TEXTS: usize = 64 * 1024;

/// Marks that a process remembers at most.
const REMEMBERED_MARKS: usize = 16 * 1024;

/// What this process has seen to stand in the store.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub facets: HashSet<i64>,
    texts: [HashMap<i64, i32>; 2],
    marks: HashMap<Cell, Instant>,
}

impl Known {
    /// Whether the text stands there with this day or a later one.
    fn has_text(&self, key: i64, day: i32) -> bool {
        let mut days = self.texts.iter().filter_map(|half| half.get(&key));
        days.any(|known| *known >= day)
    }

    fn learn_texts(&mut self, texts: &[NewText]) {
        for text in texts {
            if self.texts[0].len() >= REMEMBERED_TEXTS / 2 {
                let [young, old] = &mut self.texts;
                std::mem::swap(young, old);
                young.clear();
            }
            self.texts[0].insert(text.term.key, text.day);
        }
    }
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
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now: now.as_millisecond(),
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
            if known.has_text(term.key, day) {
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
            if marked.is_none_or(|marked| marked.elapsed() > HOT / 2) {
                self.cells.insert(cell);
            }
        }
    }
}

fn day(at: i64) -> i32 {
    let day = at.div_euclid(24 * 60 * 60 * 1000);
    i32::try_from(day).unwrap_or(i32::MAX)
}

impl MongoStore {
    /// Makes the news stand; to be awaited before the events are inserted.
    pub(super) async fn announce(&self, news: News) -> Result<()> {
        let texts: Vec<NewText> = news.texts.into_values().collect();
        let cells: Vec<Cell> = news.cells.into_iter().collect();
        let begun = Instant::now();
        tokio::try_join!(
            self.enter_facets(news.facets),
            self.enter_texts(&texts),
            self.mark(&cells),
        )?;
        if texts.is_empty() && cells.is_empty() {
            return Ok(());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.learn_texts(&texts);
        if known.marks.len() + cells.len() > REMEMBERED_MARKS {
            known.marks.clear();
        }
        known
            .marks
            .extend(cells.into_iter().map(|cell| (cell, begun)));
        Ok(())
    }
}
