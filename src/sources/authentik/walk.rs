//! Which page to ask for next, and which of its rows are new. Pure.
//!
//! Authentik's events API knows no time filter, numbers its pages, and changes under the reader:
//! new events push rows down (repeats, harmless), expired or deleted ones pull rows up (a row
//! could be skipped), and an event can become visible after younger ones. So:
//!
//! - **Order.** Newest first by (`created`, `pk`): a total order, so that any two answers can be
//!   laid against each other.
//! - **Contiguity is proven, not assumed.** The last row taken is the *anchor*. An answer counts
//!   only if it begins at or above the anchor (or is the first page): then everything below the
//!   anchor in it follows without a hole. Pages are chosen so that they overlap the anchor, by
//!   varying the page size. An answer that begins below the anchor is not used; the search for
//!   the anchor steps back, by bisection. (A server that grants very few rows can leave no size
//!   that overlaps, and one whose pages have their size whatever is asked for leaves none. There a
//!   page counts too if the one before it ended with the anchor and the total has not changed
//!   between them.)
//! - **The full head.** A poll walks from the top down to `high water − overlap`. That re-reads
//!   what late events could have slipped into. The high water is the newest `created` seen, but
//!   never later than the server's own clock. It rises only together with the gap that the walk
//!   leaves open.
//! - **Gaps.** What a walk has not reached yet is a gap: {from this anchor, down to this time}.
//!   It is part of the cursor, so a walk of thousands of pages goes on where it was after any
//!   interruption.
//! - **The brief head.** While a gap is open, a poll reads only what is newer than the head before
//!   it. Late events have to wait for the next full head, whose lower end does not move up
//!   meanwhile: otherwise a walk that takes longer than the interval would begin again and again.
//!   Many rows of one time, or of a clock that is ahead, are read again at each: only pages that lead
//!   onward ([`Taken::onward`]) bring the next one closer, else none would come below those rows.
//! - **Nothing new costs one request, or two.** The first page fits on what was known if it shows
//!   known rows below the new ones and the total count has grown by exactly their number. If the
//!   overlap is longer than that page, the lower end is looked at too: as many rows must lie above
//!   it as before. What still goes unnoticed, a late event and a removal that outweigh each other,
//!   is found by a deep poll, which the caller asks for now and then.
//! - **Rows that tell no place** cannot be an anchor. Where a page ends with them, the page right
//!   after it is next, and counts if the total has not fallen between them.
//! - **A page that is too long**, or takes too long, is asked for in smaller ones; see
//!   [`Walk::ask_for_less`].
//! - **An empty list closes nothing.** A token that has become blind sees one; what was open stays.
//! - **The first head with something new** after heads without tells up to when everything was known
//!   before them: what came later and was removed before the first of them was never seen.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use super::cursor::{Gap, WalkCursor};
use super::durable::DurableRows;
use super::list::Snapshot;
pub use super::list::{PageAnswer, PageRequest, RowKey};
use super::search::{Search, page_covering};
use super::sizes::Sizes;

/// What to do with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Indices of the rows to enter, newest first; empty when the answer only helped to find the place.
    pub rows: Vec<usize>,
    /// How many of them should have been known, had they been visible in time.
    pub late: usize,
    /// The cursor once they are durable.
    pub cursor: WalkCursor,
    /// Whether that is another cursor than before.
    pub moved: bool,
    /// Whether less is left to read of the oldest gap, whatever came at the top.
    pub further: bool,
    /// Whether less is, or most of the answer's rows are new. Else it was only on the way there.
    pub onward: bool,
    /// Of a head with something new.
    pub unseen: Option<Unseen>,
}

/// A time in which events may have come and gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Everything up to then was known.
    pub since: Timestamp,
    /// The server's time at the next head.
    pub until: Timestamp,
}

impl Unseen {
    fn length(&self) -> SignedDuration {
        self.since.duration_until(self.until)
    }
}

/// How far the present poll is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// The first page is next.
    Head,
    /// The first page fits on what was known; the lower end is next.
    Foot(Box<Head>),
    /// The last gap is being read.
    Gap,
    /// Nothing to do until the next poll.
    Done,
}

/// What a full head's first page showed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    newest: Timestamp,
    last: RowKey,
    last_index: u64,
    down_to: Option<Timestamp>,
    seen: Snapshot,
}

/// The reader of one Authentik.
#[derive(Clone, Debug)]
pub struct Walk {
    cursor: WalkCursor,
    overlap: SignedDuration,
    sizes: Sizes,
    stage: Stage,
    /// How far this poll reads back, and that it trusts nothing.
    depth: Option<SignedDuration>,
    known: Option<Snapshot>,
    durable: DurableRows,
    last_request: PageRequest,
    /// The page right after one that ended with rows that tell no place.
    following: Option<PageRequest>,
    /// Where each gap's anchor is looked for.
    places: Vec<Search>,
    /// Index and total when the last gap's anchor was the last row of an answer.
    anchor_seen: Option<(u64, u64)>,
    late_line: Option<Timestamp>,
    /// The server's time at the last head.
    head_at: Option<Timestamp>,
    /// Before the first of the heads that showed nothing new.
    unseen: Option<Unseen>,
    fruitless: u32,
}

/// How many answers in a row may bring nothing before the walk counts as lost.
const FRUITLESS_CAP: u32 = 100;
/// More of them are read as one: the cursor stays short, and what lies between them is read again.
const MOST_GAPS: usize = 16;

impl Walk {
    /// Goes on from a cursor.
    pub fn new(cursor: WalkCursor, overlap: Duration, page_size: u32) -> Self {
        let sizes = Sizes::new(page_size);
        let places = cursor.gaps.iter().map(|gap| Search::from(gap.index));
        Self {
            places: places.collect(),
            cursor,
            overlap: signed(overlap),
            stage: Stage::Done,
            depth: None,
            known: None,
            durable: DurableRows::default(),
            last_request: sizes.head(),
            sizes,
            following: None,
            anchor_seen: None,
            late_line: None,
            head_at: None,
            unseen: None,
            fruitless: 0,
        }
    }

    /// Whether so many answers have brought nothing that the server cannot be telling a
    /// consistent story; the poll is to be given up and begun again later.
    pub fn is_lost(&self) -> bool {
        self.fruitless > FRUITLESS_CAP
    }

    /// Begins a poll: the first page is next. An unfinished gap goes on afterwards.
    pub fn begin_poll(&mut self) {
        self.stage = Stage::Head;
        self.anchor_seen = None;
        self.following = None;
        self.depth = None;
    }

    /// Begins a poll that reads back so far, whatever its first page shows. Not while a gap is
    /// open: then it is an ordinary one.
    pub fn begin_deep_poll(&mut self, depth: Duration) {
        self.begin_poll();
        self.depth = Some(signed(depth));
    }

    /// Forgets a poll that failed midway; what was taken stays taken.
    pub fn abandon_poll(&mut self) {
        self.stage = Stage::Done;
        self.fruitless = 0;
    }

    /// Whether older events wait to be read.
    pub fn has_gaps(&self) -> bool {
        !self.cursor.gaps.is_empty()
    }

    /// Whether they are not all of a time that was read before, and is read again for what came late.
    pub fn has_backlog(&self) -> bool {
        let mut gaps = self.cursor.gaps.iter();
        gaps.any(|gap| self.late_line.is_none_or(|line| gap.below.created >= line))
    }

    /// Whether the next request is for the first page.
    pub fn is_at_head(&self) -> bool {
        self.stage == Stage::Head
    }

    /// Whether it is among rows that tell no place: a new poll would have to begin with them again.
    pub fn is_among_placeless_rows(&self) -> bool {
        self.following.is_some()
    }

    /// How many rows it asks for at most, where longer pages were too long.
    pub fn limit(&self) -> Option<u64> {
        self.sizes.limit()
    }

    /// The next request of this poll; `None` when it is finished.
    pub fn next_request(&mut self) -> Option<PageRequest> {
        let request = match &self.stage {
            Stage::Done => return None,
            _ if self.following.is_some() => self.following?,
            Stage::Head => self.sizes.head(),
            Stage::Foot(head) => {
                let index = head.seen.foot.as_ref().map_or(0, |(_, index)| *index);
                page_covering(index, self.sizes.choice())
            }
            Stage::Gap => self.places.last()?.next_page(self.sizes.choice()),
        };
        self.last_request = request;
        Some(request)
    }

    /// Takes in that the answer was too long, or did not come in time: the next requests are for half as
    /// many rows at most. False when it was for one row alone.
    pub fn ask_for_less(&mut self) -> bool {
        let is_possible = self.sizes.ask_for_less(self.last_request.page_size);
        if is_possible {
            self.following = None;
        }
        is_possible
    }

    /// Takes an answer in. The returned cursor is to be stored with the rows; call
    /// [`Walk::confirm`] once they are durable.
    pub fn accept(&mut self, answer: &PageAnswer) -> Taken {
        self.sizes.learn(&mut self.last_request, answer);
        self.sizes.ask_for_more();
        let follows = self.follows(answer);
        let former = self.cursor.clone();
        let begins = self.stage == Stage::Head && self.last_request.page == 1;
        let unseen = if begins {
            self.unseen_before(answer)
        } else {
            None
        };
        let rows = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Head => self.accept_head(answer, follows),
            Stage::Foot(head) => self.accept_foot(answer, *head),
            Stage::Gap => self.accept_gap(answer, follows),
            Stage::Done => Vec::new(),
        };
        let moved = former != self.cursor;
        let is_fruitful = !begins && (moved || !rows.is_empty());
        if is_fruitful || self.stage == Stage::Done {
            self.fruitless = 0;
        } else if !begins && self.following.is_none() {
            self.fruitless += 1;
        }
        let oldest_gap = former.gaps.first();
        let further = oldest_gap.is_some_and(|gap| self.cursor.gaps.first() != Some(gap));
        let is_late = |index: &&usize| {
            let created = answer.rows[**index].created;
            self.late_line.is_some_and(|line| created < line)
        };
        Taken {
            late: rows.iter().filter(is_late).count(),
            onward: further || 2 * rows.len() > answer.rows.len(),
            rows,
            further,
            cursor: self.cursor.clone(),
            moved,
            unseen,
        }
    }

    /// Whether the answer begins right below what was seen last.
    fn follows(&mut self, answer: &PageAnswer) -> bool {
        let first_index = self.last_request.first_index();
        let is_following = self.following.take().is_some();
        self.anchor_seen.take().is_some_and(|(index, count)| {
            let unchanged = answer.count == count;
            // What has come at the top meanwhile has pushed rows down, which only repeats some.
            let only_grown = is_following && answer.count > count;
            index + 1 == first_index && (unchanged || only_grown)
        })
    }

    /// The page right after this one is next.
    fn go_on_after(&mut self, answer: &PageAnswer) {
        let PageRequest { page, page_size } = self.last_request;
        let last_index = self.last_request.first_index() + answer.length - 1;
        self.anchor_seen = Some((last_index, answer.count));
        self.following = Some(PageRequest {
            page: page + 1,
            page_size,
        });
    }

    fn accept_head(&mut self, answer: &PageAnswer, follows: bool) -> Vec<usize> {
        let is_first_page = self.last_request.page == 1;
        if !is_first_page && !follows {
            self.stage = Stage::Head;
            return Vec::new();
        }
        if answer.is_placeless() && answer.has_next {
            self.go_on_after(answer);
            self.stage = Stage::Head;
            return Vec::new();
        }
        self.lower_to_now(answer);
        if self.has_gaps() {
            self.accept_brief_head(answer)
        } else {
            self.accept_full_head(answer)
        }
    }

    /// Where the last row that tells a place is, or a little above it.
    fn index_of_last(&self, answer: &PageAnswer) -> u64 {
        (self.last_request.first_index() + answer.rows.len() as u64).saturating_sub(1)
    }

    fn accept_full_head(&mut self, answer: &PageAnswer) -> Vec<usize> {
        let Some((first, last)) = answer.rows.first().zip(answer.rows.last()) else {
            self.known = None;
            return Vec::new();
        };
        let now = answer.server_time;
        self.late_line = self.below_high_water(now, self.overlap / 2);
        let down_to = self.below_high_water(now, self.depth.unwrap_or(self.overlap));
        let mut head = Head {
            newest: first.created.min(answer.server_time),
            last: last.clone(),
            last_index: self.index_of_last(answer),
            down_to,
            seen: Snapshot::of(answer),
        };
        let grown = self
            .known
            .as_ref()
            .filter(|_| self.depth.is_none())
            .and_then(|known| known.grown(answer));
        if is_finished(answer, down_to) {
            head.seen.foot = Some((last.clone(), head.last_index));
            self.finish_full_head(head);
        } else if let Some((seen, _)) = grown.filter(|(seen, _)| seen.foot.is_some()) {
            self.stage = Stage::Foot(Box::new(Head { seen, ..head }));
        } else {
            self.open_walk(head);
        }
        self.unknown_rows(answer, 0)
    }

    fn accept_foot(&mut self, answer: &PageAnswer, head: Head) -> Vec<usize> {
        let first_index = self.last_request.first_index();
        let found = head.seen.foot.as_ref().is_some_and(|(foot, index)| {
            // What has come at the top since then has pushed it down.
            let expected = index + answer.count.saturating_sub(head.seen.count);
            let at = answer.rows.iter().position(|row| row == foot);
            at.is_some_and(|at| first_index + at as u64 == expected)
        });
        if found {
            self.finish_full_head(head);
        } else {
            self.open_walk(Head {
                seen: Snapshot {
                    foot: None,
                    ..head.seen
                },
                ..head
            });
        }
        Vec::new()
    }

    fn finish_full_head(&mut self, head: Head) {
        self.cursor.high_water = self.cursor.high_water.max(Some(head.newest));
        self.known = Some(head.seen);
        self.stage = Stage::Done;
    }

    fn open_walk(&mut self, head: Head) {
        self.cursor.high_water = self.cursor.high_water.max(Some(head.newest));
        self.cursor.fresh = Some(head.newest);
        self.known = Some(head.seen);
        self.open_gap(Gap {
            below: head.last,
            down_to: head.down_to,
            index: head.last_index,
        });
    }

    fn open_gap(&mut self, mut gap: Gap) {
        while self.cursor.gaps.len() >= MOST_GAPS {
            self.places.pop();
            let former = self.cursor.gaps.pop();
            gap.down_to = gap.down_to.min(former.and_then(|former| former.down_to));
        }
        self.places.push(Search::from(gap.index));
        self.cursor.gaps.push(gap);
        self.stage = Stage::Gap;
    }

    fn accept_brief_head(&mut self, answer: &PageAnswer) -> Vec<usize> {
        let Some((first, last)) = answer.rows.first().zip(answer.rows.last()) else {
            self.known = None;
            return Vec::new();
        };
        let down_to = self.cursor.fresh.or(self.cursor.high_water);
        let down_to = down_to.map(|down_to| down_to.min(answer.server_time));
        let newest = first.created.min(answer.server_time);
        self.cursor.fresh = self.cursor.fresh.max(Some(newest));
        match self.known.take().and_then(|known| known.grown(answer)) {
            Some((known, new)) => {
                self.known = Some(known);
                for place in &mut self.places {
                    place.push_down(new);
                }
            }
            None => self.known = None,
        }
        if is_finished(answer, down_to) {
            self.stage = Stage::Gap;
        } else {
            self.open_gap(Gap {
                below: last.clone(),
                down_to,
                index: self.index_of_last(answer),
            });
        }
        self.unknown_rows(answer, 0)
    }

    fn accept_gap(&mut self, answer: &PageAnswer, follows: bool) -> Vec<usize> {
        let first_index = self.last_request.first_index();
        let is_first_page = self.last_request.page == 1;
        let last_index = (first_index + answer.length).saturating_sub(1);
        let index_of_last = self.index_of_last(answer);
        let Some((gap, place)) = self.cursor.gaps.last_mut().zip(self.places.last_mut()) else {
            return Vec::new();
        };
        let Some((first, last)) = answer.rows.first().zip(answer.rows.last()) else {
            let goes_on = answer.is_placeless() && (is_first_page || follows);
            if goes_on && answer.has_next {
                self.stage = Stage::Gap;
                self.go_on_after(answer);
            } else if goes_on && !is_first_page {
                let last = gap.below.clone();
                self.stage = Stage::Gap;
                self.close_gap(&last, last_index, answer.count);
            } else if !is_first_page {
                place.step_back(first_index);
                self.stage = Stage::Gap;
            }
            return Vec::new();
        };
        self.stage = Stage::Gap;
        if first.is_below(&gap.below) && !is_first_page && !follows {
            place.step_back(first_index);
            return Vec::new();
        }
        let Some(below) = answer.rows.iter().position(|row| row.is_below(&gap.below)) else {
            if !answer.has_next {
                self.close_gap(last, last_index, answer.count);
            } else if answer.has_placeless_rows() {
                *place = Search::from(index_of_last);
                self.go_on_after(answer);
            } else if *last == gap.below {
                self.anchor_seen = Some((last_index, answer.count));
                *place = Search::from(last_index);
            } else {
                place.leap_beyond(last_index, self.sizes.granted());
            }
            return Vec::new();
        };
        if is_finished(answer, gap.down_to) {
            self.close_gap(last, last_index, answer.count);
        } else {
            gap.below = last.clone();
            gap.index = index_of_last;
            *place = Search::from(index_of_last);
            self.anchor_seen = Some((last_index, answer.count));
        }
        self.unknown_rows(answer, below)
    }

    fn close_gap(&mut self, last: &RowKey, last_index: u64, count: u64) {
        self.cursor.gaps.pop();
        self.places.pop();
        if !self.cursor.gaps.is_empty() {
            return;
        }
        self.stage = Stage::Done;
        self.cursor.fresh = None;
        self.known = self.known.take().and_then(|known| {
            let index = (last_index + known.count).checked_sub(count)?;
            Some(Snapshot {
                foot: Some((last.clone(), index)),
                ..known
            })
        });
    }

    /// The rows are durable: they need not be entered again while polls read them again.
    pub fn confirm(&mut self, rows: impl Iterator<Item = RowKey>) {
        self.durable.add(rows);
    }

    /// Whether it is known of a row that it need not be entered again.
    pub fn is_durable(&self, row: &RowKey) -> bool {
        self.durable.contains(row)
    }

    /// What was there at a head has been read since, or stands in a gap.
    fn unseen_before(&mut self, answer: &PageAnswer) -> Option<Unseen> {
        let now = answer.server_time;
        let former = self.head_at.replace(now);
        let newest = self.cursor.fresh.max(self.cursor.high_water)?.min(now);
        let lately = Unseen {
            since: former.map_or(newest, |former| former.max(newest)),
            until: now,
        };
        // The longest of those after which nothing new was there tells: nobody could ask meanwhile. One
        // that a clock made which was ahead does not.
        let kept = self.unseen.take();
        let unseen = kept
            .filter(|kept| kept.until <= now && kept.length() >= lately.length())
            .unwrap_or(lately);
        let is_new = |row: &RowKey| row.created > unseen.since;
        if !answer.rows.iter().any(is_new) {
            self.unseen = Some(unseen);
            return None;
        }
        Some(unseen)
    }

    /// What a clock that was ahead has left in the future would hide what happens until then. One that
    /// is behind is not believed: it shows events younger than itself alone.
    fn lower_to_now(&mut self, answer: &PageAnswer) {
        let now = answer.server_time;
        if answer.rows.iter().any(|row| row.created <= now) {
            for remembered in [&mut self.cursor.high_water, &mut self.cursor.fresh] {
                *remembered = (*remembered).min(Some(now));
            }
        }
    }

    /// A server's clock that was ahead and was put right leaves a high water in the future.
    fn below_high_water(&self, now: Timestamp, by: SignedDuration) -> Option<Timestamp> {
        let high_water = self.cursor.high_water?.min(now);
        Some(high_water.checked_sub(by).unwrap_or(Timestamp::MIN))
    }

    fn unknown_rows(&self, answer: &PageAnswer, from: usize) -> Vec<usize> {
        let unknown = |index: &usize| !self.is_durable(&answer.rows[*index]);
        (from..answer.rows.len()).filter(unknown).collect()
    }
}

fn signed(duration: Duration) -> SignedDuration {
    // A third, so that twice as much can be told too.
    SignedDuration::try_from(duration)
        .unwrap_or(SignedDuration::MAX)
        .min(SignedDuration::MAX / 3)
}

fn is_finished(answer: &PageAnswer, down_to: Option<Timestamp>) -> bool {
    let reached = answer
        .rows
        .last()
        .zip(down_to)
        .is_some_and(|(last, down_to)| last.created < down_to);
    reached || !answer.has_next
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "walk_tests.rs"]
mod tests;
