//! Finds a row again in a list that grows and shrinks above it. Pure.

use std::ops::RangeInclusive;

use super::list::PageRequest;

const LONGEST_LEAP: u64 = 1 << 30;

/// Where the row is, as far as is known; indices from 0 at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// The row here is at or above the one that is looked for.
    low: u64,
    /// The row here is below it.
    high: Option<u64>,
    /// How far to leap while `high` is unknown.
    leap: u64,
}

impl Search {
    /// Begins where the row was last.
    pub(super) fn from(index: u64) -> Self {
        Self {
            low: index,
            high: None,
            leap: 0,
        }
    }

    /// The page to ask for.
    pub(super) fn next_page(&self, sizes: RangeInclusive<u64>) -> PageRequest {
        let index = match self.high {
            None => self.low + self.leap,
            Some(high) if high > self.low => self.low + (high - self.low) / 2,
            Some(_) => self.low,
        };
        let page = page_covering(index, sizes);
        let goes_beyond = page.page * page.page_size > index + 1;
        if goes_beyond || self.leap > 0 || self.high.is_some() {
            return page;
        }
        // Every size there is cuts the list right here: the page that follows is the best there is.
        PageRequest {
            page: page.page + 1,
            ..page
        }
    }

    /// So many rows have come at the top.
    pub(super) fn push_down(&mut self, rows: u64) {
        self.low += rows;
        self.high = self.high.map(|high| high + rows);
    }

    /// A page that begins here began below the row: it is somewhere above.
    pub(super) fn step_back(&mut self, first_index: u64) {
        self.high = Some(first_index);
        if self.low >= first_index {
            // The list has shrunk: what was known of the upper part no longer holds.
            self.low = first_index.saturating_sub(2 * self.leap.max(50));
            self.leap = self.leap.max(50) * 2;
        }
    }

    /// A page that ends here lay wholly above the row.
    pub(super) fn leap_beyond(&mut self, last_index: u64, granted: u64) {
        self.low = last_index;
        self.leap = (self.leap * 2).max(granted / 2 + 1).min(LONGEST_LEAP);
        // Nothing can lie between: the list has moved meanwhile.
        if self.high.is_some_and(|high| high <= self.low + 1) {
            self.high = None;
        }
    }
}

/// The page of one of these sizes that holds the row at `index` and reaches furthest beyond it.
///
/// With a fixed page size the row after a page's last could only be read without overlap; by
/// choosing among sizes an overlap of at least one row is possible nearly everywhere.
pub(super) fn page_covering(index: u64, sizes: RangeInclusive<u64>) -> PageRequest {
    let covering = |page_size| PageRequest {
        page: index / page_size + 1,
        page_size,
    };
    let largest = *sizes.end();
    sizes
        .map(covering)
        .max_by_key(|request| request.page * request.page_size)
        .unwrap_or(covering(largest))
}
