//! What a filter found on days that are over, kept in memory: whoever asks again, as a page that is
//! open does, waits only for what is new.
//!
//! Facets have their counts in the store ([`super::cells`]). Actors, addresses, targets and texts are
//! too many for that; what was counted of them holds under the same conditions, which the versions
//! of the store's days tell: a day changed if somebody marked it since.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{RawDocument, doc};
use mongodb::options::ReadConcern;
use tokio::sync::OnceCell;

use super::MongoStore;
use super::cells::hot;
use super::means::{Means, within};
use crate::store::histogram::{DAY, Grid};
use crate::store::{EventFilter, Result};

/// Longer ranges are counted as a whole.
pub(super) const MOST_DAYS: i64 = 20_000;

/// Days that are kept, of all filters together: some megabytes.
const KEPT_DAYS: usize = 50_000;

/// Then a filter is counted anew: somebody may have put other events in the place of these.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// Days between two that have to be counted which are counted with them: a query more costs more.
const BRIDGED: usize = 3;

/// Events of a day by source.
pub(super) type Counts = Arc<[(Arc<str>, u64)]>;

/// Of each filter what it found, the one that was asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct KeptDays {
    filters: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    filter: EventFilter,
    since: Instant,
    /// By their beginning, with the version that they had.
    days: HashMap<i64, (i64, Counts)>,
}

/// What the store says of a day: its version and when it was marked last.
type Versions = HashMap<i64, (i64, i64)>;

impl KeptDays {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of each day that still has its version.
    fn known(
        &self,
        filter: &EventFilter,
        days: &[i64],
        versions: &Versions,
    ) -> Vec<Option<Counts>> {
        let mut filters = self.lock();
        filters.retain(|kept| kept.since.elapsed() < KEPT_FOR);
        let kept = filters.iter().find(|kept| kept.filter == *filter);
        let known = days.iter().map(|day| {
            let (version, counts) = kept?.days.get(day)?;
            (*version == version_of(versions, *day)).then(|| Arc::clone(counts))
        });
        known.collect()
    }

    fn keep(&self, filter: &EventFilter, days: impl Iterator<Item = (i64, i64, Counts)>) {
        let mut filters = self.lock();
        let place = filters.iter().position(|kept| kept.filter == *filter);
        let mut kept = place
            .and_then(|place| filters.remove(place))
            .unwrap_or_else(|| Kept {
                filter: filter.clone(),
                since: Instant::now(),
                days: HashMap::new(),
            });
        kept.days
            .extend(days.map(|(day, version, counts)| (day, (version, counts))));
        filters.push_back(kept);
        let size = |kept: &Kept| kept.days.len();
        while filters.iter().map(size).sum::<usize>() > KEPT_DAYS && filters.len() > 1 {
            filters.pop_front();
        }
    }
}

fn version_of(versions: &Versions, day: i64) -> i64 {
    versions.get(&day).map_or(0, |(version, _)| *version)
}

/// Days one after the other, and what a filter found on each.
#[derive(Debug)]
pub(super) struct Days {
    begin: i64,
    counts: Vec<Counts>,
}

impl Days {
    /// From the first one's beginning to the last one's end.
    pub(super) fn range(&self) -> (i64, i64) {
        let count = i64::try_from(self.counts.len()).unwrap_or(MOST_DAYS);
        (self.begin, self.begin + count * DAY)
    }

    /// The beginnings of those with events, and these.
    pub(super) fn filled(&self) -> impl DoubleEndedIterator<Item = (i64, &Counts)> {
        let (begin, end) = self.range();
        let starts = (begin..end).step_by(DAY.unsigned_abs() as usize);
        let days: Vec<_> = starts.zip(&self.counts).collect();
        days.into_iter().filter(|(_, counts)| !counts.is_empty())
    }
}

/// Parts of a row in which something is missing; short ones in between are part of them.
fn stretches(is_known: &[bool]) -> Vec<std::ops::Range<usize>> {
    let mut stretches: Vec<std::ops::Range<usize>> = Vec::new();
    for (place, _) in is_known.iter().enumerate().filter(|(_, known)| !**known) {
        match stretches.last_mut() {
            Some(last) if place - last.end <= BRIDGED => last.end = place + 1,
            _ => stretches.push(place..place + 1),
        }
    }
    stretches
}

/// One name for each source, however many days it is in.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn counts(&mut self, counted: BTreeMap<String, u64>) -> Counts {
        let named = counted.into_iter().map(|(source, count)| {
            let name = match self.0.get(source.as_str()) {
                Some(name) => Arc::clone(name),
                None => {
                    let name: Arc<str> = source.into();
                    self.0.insert(Arc::clone(&name));
                    name
                }
            };
            (name, count)
        });
        named.collect()
    }
}

impl MongoStore {
    /// What a filter finds on whole days that are over, of events that have keys. Its own bounds are not looked at.
    pub(super) async fn count_days(
        &self,
        filter: &EventFilter,
        (begin, end): (i64, i64),
        means: &OnceCell<Means>,
    ) -> Result<Days> {
        let filter = EventFilter {
            since: None,
            until: None,
            ..filter.clone()
        };
        let days: Vec<i64> = (begin..end).step_by(DAY.unsigned_abs() as usize).collect();
        let begun = self.now();
        let before = self.versions((begin, end)).await?;
        let mut counts = self.kept_days.known(&filter, &days, &before);
        let is_known: Vec<bool> = counts.iter().map(Option::is_some).collect();
        let mut names = Names::default();
        for stretch in stretches(&is_known) {
            let from = days[stretch.start];
            let to = days[stretch.end - 1] + DAY;
            let mut grid = Grid::of_days(from, to);
            let means = means.get_or_try_init(|| self.means(&filter)).await?;
            let within = within(&filter, (Some(from), Some(to)));
            self.count_keyed(&mut grid, &within, (from, to), means)
                .await?;
            for (place, counted) in stretch.zip(grid.into_bars()) {
                counts[place] = Some(names.counts(counted));
            }
        }
        if is_known.contains(&false) {
            let after = self.versions((begin, end)).await?;
            let counted = days.iter().zip(&is_known).zip(&counts);
            let holding = counted.filter_map(|((day, is_known), counts)| {
                let (version, marked) = before.get(day).copied().unwrap_or((0, i64::MIN));
                let cold = (day + DAY).max(marked).saturating_add(hot());
                let holds = !is_known && cold <= begun && version_of(&after, *day) == version;
                holds.then_some((*day, version, Arc::clone(counts.as_ref()?)))
            });
            self.kept_days.keep(&filter, holding);
        }
        let counts = counts.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Days { begin, counts })
    }

    /// Of the days that were marked.
    async fn versions(&self, (begin, end): (i64, i64)) -> Result<Versions> {
        let id = |start: i64| doc! { "width": DAY, "start": start };
        let found = self
            .cells
            .find(doc! { "_id": { "$gte": id(begin), "$lt": id(end) } })
            .projection(doc! { "version": 1, "markedAt": 1 })
            .read_concern(ReadConcern::majority())
            .batch_size(10_000)
            .max_time(self.timeout)
            .await;
        let version = |day: &RawDocument| {
            let start = day.get_document("_id").ok()?.get_i64("start").ok()?;
            let marked = day.get_datetime("markedAt").ok();
            let marked = marked.map_or(i64::MIN, |at| at.timestamp_millis());
            Some((start, (day.get_i64("version").ok()?, marked)))
        };
        let versions = super::collect(found, version).await?;
        Ok(versions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u64) -> Counts {
        Arc::new([("s".into(), count)])
    }

    fn of(actor: usize) -> EventFilter {
        EventFilter {
            actor: Some(actor.to_string()),
            ..EventFilter::default()
        }
    }

    #[test]
    fn what_is_missing_is_counted_in_few_stretches() {
        let known = |row: &str| row.chars().map(|c| c == '#').collect::<Vec<bool>>();
        assert!(stretches(&known("###")).is_empty());
        assert_eq!(stretches(&known("....####..")), [0..4, 8..10]);
        assert_eq!(stretches(&known("#.###.####.")), [1..6, 10..11]);
    }

    #[test]
    fn a_day_with_another_version_is_not_known() {
        let kept = KeptDays::default();
        kept.keep(&of(1), [(0, 0, counts(5)), (DAY, 3, counts(6))].into_iter());
        let versions = |version: i64| HashMap::from([(DAY, (version, 0))]);
        let days = [0, DAY, 2 * DAY];
        let known = |filter, version| kept.known(&filter, &days, &versions(version));
        assert_eq!(known(of(1), 3), [Some(counts(5)), Some(counts(6)), None]);
        assert_eq!(known(of(1), 4), [Some(counts(5)), None, None]);
        assert_eq!(known(of(2), 3), [None, None, None]);
    }

    #[test]
    fn the_filter_that_was_counted_longest_ago_goes_first() {
        let kept = KeptDays::default();
        let days = KEPT_DAYS as i64 / 4;
        let all = || (0..days).map(|day| (day * DAY, 0, counts(1)));
        for filter in [1, 2, 3, 4, 1, 5] {
            kept.keep(&of(filter), all());
        }
        let is_known = |filter| kept.known(&of(filter), &[0], &HashMap::new())[0].is_some();
        assert_eq!(
            [1, 2, 3, 4, 5].map(is_known),
            [true, false, true, true, true]
        );
    }
}
