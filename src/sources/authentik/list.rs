//! Authentik's list as a walk sees it: rows, pages, and what a page tells about the list. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A row's place in the total order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// When it was created, to the microsecond.
    pub created: Timestamp,
    /// Its UUID as Authentik writes it: lower-case hexadecimal, so that text order is byte order.
    pub pk: String,
}

impl RowKey {
    /// Whether `self` comes after `other`, newest first.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        self < other
    }
}

/// One page of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub page: u64,
    /// Rows.
    pub page_size: u64,
}

impl PageRequest {
    pub(super) fn first_index(self) -> u64 {
        (self.page - 1) * self.page_size
    }
}

/// What the server answered, as far as the walk cares.
#[derive(Clone, Debug)]
pub struct PageAnswer {
    /// Places of the rows, in the order of the answer.
    pub rows: Vec<RowKey>,
    /// Rows in the answer, with those that tell no place.
    pub length: u64,
    /// Whether there is a page after it.
    pub has_next: bool,
    /// Rows in all.
    pub count: u64,
    /// The server's clock.
    pub server_time: Timestamp,
}

impl PageAnswer {
    pub(super) fn has_placeless_rows(&self) -> bool {
        (self.rows.len() as u64) < self.length
    }

    pub(super) fn is_placeless(&self) -> bool {
        self.rows.is_empty() && self.length > 0
    }
}

/// The list at the time of a head: all that was in it is known, or will be once no gap is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The first page.
    pub(super) rows: Vec<RowKey>,
    pub(super) count: u64,
    /// The last row that the walk read, and its index; known once the walk is finished.
    pub(super) foot: Option<(RowKey, u64)>,
}

impl Snapshot {
    pub(super) fn of(answer: &PageAnswer) -> Self {
        Self {
            rows: answer.rows.clone(),
            count: answer.count,
            foot: None,
        }
    }

    /// The same list with so many new rows at its top, if a first page shows no other change.
    pub(super) fn grown(&self, answer: &PageAnswer) -> Option<(Self, u64)> {
        let top = self.rows.first()?;
        let known_from = answer.rows.iter().position(|row| row == top)?;
        let mut below = answer.rows[known_from..].iter().zip(&self.rows);
        let new = known_from as u64;
        if !below.all(|(now, then)| now == then) || answer.count != self.count + new {
            return None;
        }
        let foot = self.foot.clone().map(|(row, index)| (row, index + new));
        Some((
            Self {
                foot,
                ..Self::of(answer)
            },
            new,
        ))
    }
}
