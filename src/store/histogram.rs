//! Counts by time: the grid of bars that both stores fill.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// How many events a filter finds, by time and source.
///
/// The bars are contiguous and equally wide, empty ones included. Their width is a usual one (1, 2,
/// 5, 10, 15, 30 seconds or minutes; 1, 2, 3 hours; 1, 2, 7, 14, 28, 91, 364 days, then doubling) and they begin at its multiples since 1970, so that the bars stay where they are while
/// time goes on. The first begins at or before `since`, the last ends at or after `until`; only
/// events between those two are counted. A single bar is just the range, to whole seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The filter's bound, or the time of its first event; `until` (or 1970) when there is none.
    pub since: Timestamp,
    /// The filter's bound, or a millisecond after its last event; exclusive.
    pub until: Timestamp,
    /// The width of a bar; whole seconds.
    pub bucket: Duration,
    /// Events in all bars.
    pub total: u64,
    /// Oldest first; none when `since` is `until`.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Where it begins.
    pub at: Timestamp,
    /// Events by source; sources without any are left out.
    pub counts: BTreeMap<String, u64>,
}

impl Bar {
    /// Events of all sources.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
/// Milliseconds of an hour.
pub(super) const HOUR: i64 = 60 * MINUTE;
/// Milliseconds of a day.
pub(super) const DAY: i64 = 24 * HOUR;

#[rustfmt::skip]
const WIDTHS: [i64; 22] = [
    SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND,
    MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    // Nothing between: weeks are then counted by days, not by hundreds of hours.
    HOUR, 2 * HOUR, 3 * HOUR,
    DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY, 364 * DAY,
];

/// Bars that are being filled. Times are milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Grid {
    since: i64,
    until: i64,
    start: i64,
    width: i64,
    bars: Vec<BTreeMap<String, u64>>,
}

impl Grid {
    /// Lays bars over a range; `until` is exclusive.
    pub(super) fn new(since: i64, until: i64, buckets: u32) -> Self {
        let until = until.max(since);
        let buckets = i64::from(buckets.clamp(1, 1000));
        let (start, width) = lay(since, until, buckets);
        let bars = if until == since {
            0
        } else {
            bars_between(start, until, width)
        };
        Self {
            since,
            until,
            start,
            width,
            bars: vec![BTreeMap::new(); usize::try_from(bars).unwrap_or(0)],
        }
    }

    /// Lays a bar over each hour or day of a range of whole ones.
    pub(super) fn of_cells((since, until): (i64, i64), width: i64) -> Self {
        let cells = bars_between(since, until, width);
        Self {
            since,
            until,
            start: since,
            width,
            bars: vec![BTreeMap::new(); usize::try_from(cells).unwrap_or(0)],
        }
    }

    /// What to answer about a filter without an event.
    pub(super) fn empty(since: Option<i64>, until: Option<i64>) -> Self {
        let at = since.or(until).unwrap_or(0);
        Self::new(at, at, 1)
    }

    /// Where the first bar begins.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// How wide a bar is.
    pub(super) fn width(&self) -> i64 {
        self.width
    }

    /// The widths of cells of which each lies in one bar, largest first.
    pub(super) fn units(&self) -> &'static [i64] {
        match self.width {
            width if width % DAY == 0 || self.bars.len() == 1 => &[DAY, HOUR],
            width if width % HOUR == 0 => &[HOUR],
            _ => &[],
        }
    }

    /// Counts events of a source at a time; those outside of the range are left out.
    pub(super) fn add(&mut self, at: i64, source: &str, count: u64) {
        if at < self.since || at >= self.until {
            return;
        }
        self.add_to((at - self.start) / self.width, source, count);
    }

    /// Counts events of a source into a bar.
    pub(super) fn add_to(&mut self, bar: i64, source: &str, count: u64) {
        let bar = usize::try_from(bar).ok();
        let Some(counts) = bar.and_then(|bar| self.bars.get_mut(bar)) else {
            return;
        };
        match counts.get_mut(source) {
            Some(counted) => *counted += count,
            None => {
                counts.insert(source.to_owned(), count);
            }
        }
    }

    /// What is in each bar.
    pub(super) fn into_bars(self) -> Vec<BTreeMap<String, u64>> {
        self.bars
    }

    /// The filled bars.
    pub(super) fn finish(self) -> Histogram {
        let (start, width) = (self.start, self.width);
        let bars = self.bars.into_iter().zip(0_i64..);
        let bars: Vec<_> = bars
            .map(|(counts, number)| Bar {
                at: time(start + number * width),
                counts,
            })
            .collect();
        Histogram {
            since: time(self.since),
            until: time(self.until),
            bucket: Duration::from_millis(width.unsigned_abs()),
            total: bars.iter().map(Bar::total).sum(),
            bars,
        }
    }
}

/// Where bars begin, and their width: the smallest with which they are few enough.
fn lay(since: i64, until: i64, buckets: i64) -> (i64, i64) {
    let floor = |width: i64| since.div_euclid(width) * width;
    if buckets == 1 {
        // Multiples of any width may lie within the range.
        let start = floor(SECOND);
        let seconds = bars_between(start, until, SECOND).max(1);
        return (start, seconds * SECOND);
    }
    let longer = std::iter::successors(Some(2 * 364 * DAY), |width| width.checked_mul(2));
    WIDTHS
        .into_iter()
        .chain(longer)
        .map(|width| (floor(width), width))
        .find(|(start, width)| bars_between(*start, until, *width) <= buckets)
        .unwrap_or((since, i64::MAX / 4))
}

/// How many bars reach from `start` to `until`, which is not before it.
fn bars_between(start: i64, until: i64, width: i64) -> i64 {
    (until - start + width - 1) / width
}

/// A bar of a range that begins with time itself may begin before it.
fn time(milliseconds: i64) -> Timestamp {
    let end = if milliseconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_millisecond(milliseconds).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bars_begin_at_multiples_of_their_width() {
        let noon = 1_700_000_000_000 / DAY * DAY + 12 * HOUR;
        let grid = Grid::new(noon + 1, noon + HOUR, 12);
        assert_eq!((grid.start, grid.width), (noon, 5 * MINUTE));
        assert_eq!(grid.bars.len(), 12);
        let single = Grid::new(-1, 1, 1);
        assert_eq!((single.start, single.width), (-1000, 2 * SECOND));
        assert_eq!(single.bars.len(), 1);
        assert_eq!(Grid::new(5, 5, 10).finish().bars, []);
    }

    #[test]
    fn what_lies_outside_of_the_range_is_not_counted() {
        let mut grid = Grid::new(1_500, 2_500, 10);
        for at in [1_000, 1_499, 1_500, 2_000, 2_499, 2_500, 2_999] {
            grid.add(at, "s", 1);
        }
        let histogram = grid.finish();
        assert_eq!(histogram.total, 3);
        let totals: Vec<_> = histogram.bars.iter().map(Bar::total).collect();
        assert_eq!(totals, [1, 2]);
    }

    proptest! {
        #[test]
        fn bars_cover_the_range_and_are_few_enough(
            since in -377_705_116_800_000_i64..253_402_207_200_000,
            length in prop_oneof![1..10_i64, 1..1_000_000_000_i64, 1..631_000_000_000_000_i64],
            buckets in 1..=1000_u32,
        ) {
            let until = since + length;
            let grid = Grid::new(since, until, buckets);
            let bars = i64::try_from(grid.bars.len()).expect("at most a thousand");
            prop_assert!((1..=i64::from(buckets)).contains(&bars));
            prop_assert!(grid.start <= since && since < grid.start + grid.width);
            let end = grid.start + bars * grid.width;
            prop_assert!(end - grid.width < until && until <= end);
        }
    }
}
