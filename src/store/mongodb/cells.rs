//! Counted hours and days: how many events of each facet happened in them. A histogram of months
//! reads these instead of counting millions of events.
//!
//! A count is derived from the events, and exact without a transaction:
//!
//! - Only a *cell* (an hour, a day) that ended at least [`HOT`] ago is counted and kept.
//! - Before a writer inserts an event into a cell, or deletes one, it *marks* the cell: that drops
//!   the kept count, raises the cell's version and notes the time. Its marks hold for half of [`HOT`].
//! - A count is kept only if the last mark is older than [`HOT`] when counting begins, by when the
//!   marked insert has landed or never will (an operation has seconds), and if the version is still
//!   the same when it ends.
//!
//! So dying at any point leaves a cell without a kept count at worst. Daybooks that share a store
//! need clocks that agree to within [`HOT`] less an operation's time.
//!
//! While a clock is ahead, cells are counted that have not ended. That is why those are marked too: such
//! a count goes with the next mark, unless the clock was put right while the last mark still held.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, RawDocument, doc};
use mongodb::options::WriteConcern;

use super::MongoStore;
use super::commit::DUPLICATE_KEY;
use super::errors::{by_code, store_error};
use super::found::A_PART;
use super::plan::Way;
use crate::store::histogram::{DAY, HOUR};
use crate::store::{Result, StoreError};

/// How long a cell is counted anew each time after it ended or was marked.
const HOT: Duration = Duration::from_secs(5 * 60);

/// Cells that are counted at once, at most: it begins with one, so that something is kept of a count that is cut off.
const CELLS_AT_ONCE: i64 = 32;

/// An hour or a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cell {
    width: i64,
    start: i64,
}

impl Cell {
    /// The hour and the day of a time.
    pub(super) fn around(at: i64) -> [Self; 2] {
        [HOUR, DAY].map(|width| Self {
            width,
            start: at.div_euclid(width) * width,
        })
    }

    /// Those of a width that fill a range between two of its multiples.
    pub(super) fn row((from, to): (i64, i64), width: i64) -> impl Iterator<Item = Self> {
        let starts = (from..to).step_by(usize::try_from(width).unwrap_or(usize::MAX));
        starts.map(move |start| Self { width, start })
    }

    pub(super) fn width(self) -> i64 {
        self.width
    }

    pub(super) fn start(self) -> i64 {
        self.start
    }

    /// Its first millisecond that is none of its own.
    pub(super) fn end(self) -> i64 {
        self.start + self.width
    }

    /// Cells of one width are in the order of their time by it.
    pub(super) fn id(self) -> Document {
        doc! { "width": self.width, "start": self.start }
    }

    pub(super) fn of_id(id: &RawDocument) -> Option<Self> {
        Some(Self {
            width: id.get_i64("width").ok()?,
            start: id.get_i64("start").ok()?,
        })
    }
}

/// What was counted in a cell, and its version before.
struct Counted {
    cell: Cell,
    version: i64,
    counts: Vec<(i64, u64)>,
}

/// What a cell's document says.
struct Kept {
    start: i64,
    version: i64,
    marked: i64,
    counts: Option<Vec<(i64, u64)>>,
}

impl Kept {
    fn read(document: &RawDocument) -> Option<Self> {
        let start = Cell::of_id(document.get_document("_id").ok()?)?.start;
        let marked = document.get_datetime("markedAt").ok();
        let counts = document.get_binary("counts").ok();
        Some(Self {
            start,
            version: document.get_i64("version").ok()?,
            marked: marked.map_or(i64::MIN, |at| at.timestamp_millis()),
            counts: counts.map(|counts| unpack(counts.bytes)),
        })
    }
}

/// Eight bytes of the facet's number and four of the count, one after the other.
fn pack(counts: &[(i64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(counts.len() * 12);
    for (facet, count) in counts {
        let mut rest = *count;
        while rest > 0 {
            let part = u32::try_from(rest).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&facet.to_le_bytes());
            bytes.extend_from_slice(&part.to_le_bytes());
            rest -= u64::from(part);
        }
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Vec<(i64, u64)> {
    let (entries, _) = bytes.as_chunks::<12>();
    let entries = entries.iter().map(|entry| {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
        let facet = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
        (facet, u64::from(u32::from_le_bytes([i, j, k, l])))
    });
    entries.collect()
}

/// What the first of a command's write errors means that is more than a race.
fn failure(errors: &[Bson]) -> Option<StoreError> {
    let mut errors = errors.iter().filter_map(Bson::as_document);
    let failed = errors.find(|error| error.get_i32("code").ok() != Some(DUPLICATE_KEY))?;
    let code = failed.get_i32("code").unwrap_or_default();
    let text = |name: &str| failed.get_str(name).unwrap_or("write error");
    Some(by_code(code, text("codeName"), text("errmsg")))
}

/// [`HOT`] in milliseconds.
pub(super) fn hot() -> i64 {
    i64::try_from(HOT.as_millis()).unwrap_or(i64::MAX)
}

impl MongoStore {
    /// Drops the kept counts of cells that are about to change.
    pub(super) async fn mark(&self, cells: &BTreeSet<Cell>, concern: &WriteConcern) -> Result<()> {
        if cells.is_empty() {
            return Ok(());
        }
        let now = DateTime::from_millis(self.now());
        let mark = doc! {
            "$inc": { "version": 1_i64 },
            "$max": { "markedAt": now },
            "$unset": { "counts": "" },
        };
        // The first event of its hour makes the hour's document.
        let updates: Vec<Document> = cells
            .iter()
            .map(|cell| doc! { "q": { "_id": cell.id() }, "u": &mark, "upsert": true })
            .collect();
        for chunk in updates.chunks(1000) {
            self.update_cells(chunk, concern).await?;
        }
        Ok(())
    }

    async fn update_cells(&self, updates: &[Document], concern: &WriteConcern) -> Result<()> {
        let timeout = self.timeout_millis();
        let is_synced = concern.journal != Some(false);
        let command = doc! {
            "update": self.cells.name(),
            "updates": updates,
            "ordered": false,
            "writeConcern": { "w": "majority", "wtimeout": timeout, "j": is_synced },
            "maxTimeMS": timeout,
        };
        // Two that make one document at once: the later one finds it there when it tries again.
        for _ in 0..3 {
            let answer = self.database.run_command(command.clone()).await;
            let answer = answer.map_err(|error| store_error(&error))?;
            if answer.contains_key("writeConcernError") {
                let message = "marks of counted hours are not on a majority";
                return Err(StoreError::Unavailable(message.to_owned()));
            }
            let Ok(errors) = answer.get_array("writeErrors") else {
                return Ok(());
            };
            if let Some(failure) = failure(errors) {
                return Err(failure);
            }
        }
        let message = "counted hours are being marked by others";
        Err(StoreError::Unavailable(message.to_owned()))
    }

    /// Counts by facet the cells of one width from `from` to `to`, both at its multiples, and keeps
    /// what may be kept. `tell` hears the start of each cell that has events.
    pub(super) async fn count_cells(
        &self,
        (from, to): (i64, i64),
        width: i64,
        tell: &mut (dyn FnMut(i64, i64, u64) + Send),
    ) -> Result<()> {
        let id = |start: i64| doc! { "width": width, "start": start };
        let found = self
            .cells
            .find(doc! { "_id": { "$gte": id(from), "$lt": id(to) } })
            .sort(doc! { "_id": 1 })
            .batch_size(1000)
            .await;
        let mut found = found.map_err(|error| store_error(&error))?;
        let mut unkept = HashMap::new();
        let (mut position, mut at_once) = (from, 1);
        // The counts of years are many megabytes.
        while let Some(document) = found
            .try_next()
            .await
            .map_err(|error| store_error(&error))?
        {
            let Some(cell) = Kept::read(&document) else {
                continue;
            };
            match cell.counts {
                Some(counts) => {
                    let stretch = (position, cell.start);
                    self.count_stretch(stretch, width, &mut at_once, &unkept, tell)
                        .await?;
                    for (facet, count) in counts {
                        tell(cell.start, facet, count);
                    }
                    position = cell.start + width;
                    unkept.clear();
                }
                None => {
                    unkept.insert(cell.start, (cell.version, cell.marked));
                }
            }
        }
        self.count_stretch((position, to), width, &mut at_once, &unkept, tell)
            .await
    }

    /// Counts cells of which none has a kept count, so many at once, and sets how many the next are.
    async fn count_stretch(
        &self,
        (from, to): (i64, i64),
        width: i64,
        at_once: &mut i64,
        unkept: &HashMap<i64, (i64, i64)>,
        tell: &mut (dyn FnMut(i64, i64, u64) + Send),
    ) -> Result<()> {
        let mut position = from;
        while position < to {
            // A stretch of years without an event is passed over in one step.
            let Some(next) = self.first_event(position, to).await? else {
                return Ok(());
            };
            let start = next.div_euclid(width) * width;
            let end = to.min(start + *at_once * width);
            let (begun, since) = (self.now(), Instant::now());
            let mut counts: HashMap<i64, Vec<(i64, u64)>> = HashMap::new();
            let tally = self.tally(&Way::Time, (start, end), (start, width)).await?;
            for ((bar, facet), count) in tally {
                let cell = start + bar * width;
                tell(cell, facet, count);
                counts.entry(cell).or_default().push((facet, count));
            }
            let mut updates = Vec::new();
            for cell in Cell::row((start, end), width) {
                let (version, marked) = unkept.get(&cell.start).copied().unwrap_or((0, i64::MIN));
                let cold = cell.end().max(marked).saturating_add(hot());
                if cold > begun {
                    continue;
                }
                let counts = counts.remove(&cell.start).unwrap_or_default();
                updates.push(Counted {
                    cell,
                    version,
                    counts,
                });
            }
            self.keep(updates).await?;
            *at_once = if since.elapsed() < A_PART {
                (*at_once * 4).min(CELLS_AT_ONCE)
            } else {
                (*at_once / 2).max(1)
            };
            position = end;
        }
        Ok(())
    }

    async fn keep(&self, counted: Vec<Counted>) -> Result<()> {
        if counted.is_empty() {
            return Ok(());
        }
        let updates: Vec<Document> = counted
            .into_iter()
            .map(|counted| {
                let counts = Binary {
                    subtype: BinarySubtype::Generic,
                    bytes: pack(&counted.counts),
                };
                let version = counted.version;
                doc! {
                    "q": { "_id": counted.cell.id(), "version": version },
                    "u": { "$set": { "counts": counts } },
                    // Nobody marked it yet; who does so now makes this a duplicate key, and wins.
                    "upsert": version == 0,
                }
            })
            .collect();
        let command = doc! {
            "update": self.cells.name(),
            "updates": updates,
            "ordered": false,
            "maxTimeMS": self.timeout_millis(),
        };
        // Keeping is for the next time; whether it works does not matter to this one.
        if let Err(error) = self.database.run_command(command).await {
            tracing::debug!(error = %store_error(&error), "counts are not kept");
        }
        Ok(())
    }

    /// The time of the first event from `from` on and before `to`.
    async fn first_event(&self, from: i64, to: i64) -> Result<Option<i64>> {
        let range = doc! { "$gte": DateTime::from_millis(from), "$lt": DateTime::from_millis(to) };
        let found = self
            .events
            .find(doc! { "at": range })
            .projection(doc! { "_id": 0, "at": 1 })
            .sort(doc! { "at": 1, "_id": 1 })
            .limit(1)
            .await;
        let at = |document: &RawDocument| {
            let at = document.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        Ok(super::collect::<i64>(found, at).await?.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_being_packed() {
        let counts = [(i64::MIN, 1), (7, u64::from(u32::MAX))];
        assert_eq!(unpack(&pack(&counts)), counts);
        let large = unpack(&pack(&[(3, 1 << 33)]));
        assert_eq!(large.iter().map(|(_, count)| count).sum::<u64>(), 1 << 33);
    }

    #[test]
    fn writes_that_are_blocked_are_no_fault_of_a_mark() {
        let error = |code: i32| Bson::from(doc! { "index": 0, "code": code, "errmsg": "no" });
        for (codes, reason) in [
            (&[DUPLICATE_KEY, DUPLICATE_KEY][..], None),
            (&[DUPLICATE_KEY, 371][..], Some("unavailable")),
            (&[189, 121][..], Some("unavailable")),
            (&[14031][..], Some("full")),
            (&[121][..], Some("other")),
        ] {
            let errors: Vec<Bson> = codes.iter().map(|code| error(*code)).collect();
            let found = failure(&errors).map(|failure| failure.reason());
            assert_eq!(found, reason, "{codes:?}");
        }
    }

    #[test]
    fn a_time_lies_in_its_hour_and_its_day() {
        let [hour, day] = Cell::around(-1);
        assert_eq!((hour.start, hour.end()), (-HOUR, 0));
        assert_eq!((day.start, day.end()), (-DAY, 0));
    }
}
