//! How many rows a page to ask for. Pure.

use std::ops::RangeInclusive;

use super::list::{PageAnswer, PageRequest};

/// Fewer rows a page than this cannot overlap and still go forward.
const SMALLEST_PAGE: u64 = 3;
/// After so many answers twice as many rows are asked for again, ...
const ANSWERS_WITHIN_LIMIT: u32 = 5;
/// ... and each time after twice as many, up to this: they may be too many again.
const MOST_ANSWERS_WITHIN_LIMIT: u32 = 160;

/// What is wanted, granted and not too long.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// As configured.
    wanted: u64,
    /// As the server's pages have them.
    granted: u64,
    /// Whether they have so many whatever is asked for.
    is_fixed: bool,
    /// At most so many, since more of them were too long.
    limit: u64,
    /// None: none was too long lately.
    answers_within_limit: Option<u32>,
    /// After so many of them more rows are asked for.
    answers_wanted: u32,
}

impl Sizes {
    pub(super) fn new(wanted: u32) -> Self {
        let wanted = u64::from(wanted).max(SMALLEST_PAGE);
        Self {
            wanted,
            granted: wanted,
            is_fixed: false,
            limit: wanted,
            answers_within_limit: None,
            answers_wanted: ANSWERS_WITHIN_LIMIT,
        }
    }

    /// The first page.
    pub(super) fn head(&self) -> PageRequest {
        PageRequest {
            page: 1,
            page_size: self.wanted.min(self.limit),
        }
    }

    /// Those that another page may have.
    pub(super) fn choice(&self) -> RangeInclusive<u64> {
        if self.is_fixed {
            return self.granted..=self.granted;
        }
        let most = self.granted.min(self.limit);
        (most / 2).max(1)..=most
    }

    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// How many rows are asked for at most, where longer pages were too long.
    pub(super) fn limit(&self) -> Option<u64> {
        (self.limit < self.wanted).then_some(self.limit)
    }

    /// Takes in how many rows the answer has, and puts its request right: the server may grant fewer than
    /// asked for, or more than it will next time; or it, or a cache before it, takes no notice of the size.
    pub(super) fn learn(&mut self, request: &mut PageRequest, answer: &PageAnswer) {
        let asked = *request;
        if answer.length == 0 {
            return;
        }
        if answer.has_next {
            request.page_size = answer.length;
            self.is_fixed |= answer.length > asked.page_size;
            let is_free = asked.page == 1 && self.limit().is_none();
            if is_free || answer.length != asked.page_size {
                self.granted = answer.length;
            }
            return;
        }
        // The last page may be short, but tells its place by where it ends.
        let whole = PageRequest {
            page_size: self.granted,
            ..asked
        };
        let ends_the_list = |page: PageRequest| page.first_index() + answer.length == answer.count;
        if asked.page > 1 && ends_the_list(whole) && !ends_the_list(asked) {
            *request = whole;
            self.is_fixed = true;
        }
    }

    /// Takes in that an answer for so many rows was too long: the next requests are for half as many at most.
    /// False when it was for one row alone.
    pub(super) fn ask_for_less(&mut self, asked: u64) -> bool {
        if asked == 1 {
            return false;
        }
        self.is_fixed = false;
        self.limit = (self.limit / 2).min(asked - 1).max(1);
        self.answers_within_limit = Some(0);
        true
    }

    /// Takes in that an answer was not too long.
    pub(super) fn ask_for_more(&mut self) {
        let Some(answers) = &mut self.answers_within_limit else {
            return;
        };
        *answers += 1;
        if *answers < self.answers_wanted {
            return;
        }
        *answers = 0;
        if self.limit < self.wanted {
            self.limit = (self.limit * 2).min(self.wanted);
            self.answers_wanted = (self.answers_wanted * 2).min(MOST_ANSWERS_WITHIN_LIMIT);
        } else {
            self.answers_within_limit = None;
            self.answers_wanted = ANSWERS_WITHIN_LIMIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that is late costs the whole timeout.
    #[test]
    fn more_rows_are_tried_ever_more_rarely() {
        let mut sizes = Sizes::new(100);
        let mut late = 0;
        for _ in 0..1000 {
            let asked = sizes.head().page_size;
            if asked > 50 {
                late += 1;
                assert!(sizes.ask_for_less(asked));
            } else {
                sizes.ask_for_more();
            }
        }
        assert!((5..15).contains(&late), "{late}");
        for _ in 0..2 * MOST_ANSWERS_WITHIN_LIMIT {
            sizes.ask_for_more();
        }
        assert_eq!(sizes.limit(), None);
        assert_eq!(sizes.answers_wanted, ANSWERS_WITHIN_LIMIT);
    }
}
