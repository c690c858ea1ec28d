//! The first look at a log, whether or not it is there: what stands beside it then is history and left
//! alone, what is rotated after it is part of the log, also after a restart. So the look is made durable
//! before a line is read.
//!
//! Files are told by identity. Times decide only where there is none to compare: the directory is
//! another one than at the look, it could not be read, or too many parts stood in it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::TailError;
use super::cursor::TailCursor;
use super::forgotten::Forgotten;
use super::identity::{FileStat, Print, nanoseconds};
use super::resume::Opened;
use super::rotation::{Anchor, Sibling, all_parts, directory_of, later_compressed, siblings};
use super::tailer::Tailer;
use super::watch::compressed_gap;

/// Of so many files beside the log the identities are remembered.
const HISTORY_LIMIT: usize = 64;
/// A file's times may be so much behind the clock.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// What a look found beside a log of which no file was ever read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The path, and the directory that it led to.
    place: String,
    /// What was written after that is no history, as far as times tell; nanoseconds since 1970.
    since: i64,
    /// The identities of the parts that stood there; `None` where only times can tell.
    history: Option<Vec<String>>,
}

impl Awaited {
    /// Looks beside the log. To be asked before the look at its path: what is rotated in between is
    /// not history. Nor is what was renamed or written since an earlier look that left no cursor.
    pub(super) fn look(path: &Path, earlier: Option<SystemTime>) -> Self {
        let earlier = earlier.map_or(i64::MAX, |earlier| nanoseconds(earlier - CLOCK_SLACK));
        let live = std::fs::metadata(path).ok();
        let live = live.map(|metadata| FileStat::new(&metadata));
        let mut awaited = Self::without_history(path);
        // By the times, too, the live file is no history, however long ago it was written.
        let written = live.map_or(i64::MAX, |live| live.modified.saturating_sub(1));
        awaited.since = awaited.since.min(earlier).min(written);
        awaited.history = siblings(path).ok().and_then(|beside| {
            let parts = beside.iter().filter(|part| {
                // Where the path is a link, the live file may have the name of a part.
                let is_live = live.is_some_and(|live| part.stat.is_same_inode(&live));
                part.name.is_some() && !is_live && part.stat.changed <= earlier
            });
            let history: Vec<String> = parts.map(|part| identity(&part.stat)).collect();
            (history.len() <= HISTORY_LIMIT).then_some(history)
        });
        awaited
    }

    /// For a log whose every part is to be read.
    pub(super) fn without_history(path: &Path) -> Self {
        Self {
            place: place(path),
            since: nanoseconds(SystemTime::now() - CLOCK_SLACK),
            history: Some(Vec::new()),
        }
    }

    /// The parts that came after the look, and those that did not.
    fn divide(&self, path: &Path, beside: Vec<Sibling>) -> (Vec<Sibling>, Vec<Sibling>) {
        let is_same_place = self.place == place(path);
        let history = self.history.as_ref().filter(|_| is_same_place);
        let parts = beside.into_iter().filter(|sibling| sibling.name.is_some());
        parts.partition(|part| match history {
            Some(history) => !history.contains(&identity(&part.stat)),
            None => part.stat.modified > self.since,
        })
    }
}

impl TailCursor {
    /// The place before the first line of a log that was not read yet.
    pub(super) fn awaiting(awaited: Awaited) -> Self {
        Self {
            device: 0,
            inode: 0,
            birth: None,
            begun: None,
            head: Print::default(),
            tail: Print::default(),
            file_key: None,
            offset: 0,
            marks: Vec::new(),
            size: 0,
            // An earlier version reads the parts written after that.
            modified: awaited.since,
            passed: Vec::new(),
            forgotten: Forgotten::default(),
            awaited: Some(awaited),
        }
    }
}

/// An empty log that stands there at the first look, as if it had been written after the compressed parts beside it: they
/// are history, also one that was completed after the log was truncated.
fn after_history(seen: FileStat, beside: &[Sibling]) -> FileStat {
    if seen.size > 0 {
        return seen;
    }
    // A clock that was ahead must not hide what comes later.
    let now = nanoseconds(SystemTime::now());
    let is_history = |part: &&Sibling| {
        let name = part.name.as_ref();
        name.is_some_and(|name| name.compressed_from.is_some())
            && part.stat.modified > seen.modified
            && part.stat.modified <= now
    };
    let history = beside.iter().filter(is_history);
    let newest = history.map(|part| part.stat.modified).max();
    FileStat {
        modified: newest.map_or(seen.modified, |newest| newest + 1),
        ..seen
    }
}

impl Tailer {
    /// Begins with the parts that came since the look, oldest first, and the live file. Whether there
    /// was any.
    pub(super) fn begin(
        &mut self,
        awaited: &Awaited,
        live: Option<Opened>,
    ) -> Result<bool, TailError> {
        let beside = self.beside_if_permitted()?;
        let live = live.map(|(file, stat)| (file, after_history(stat, &beside)));
        let (new, history) = awaited.divide(&self.options.path, beside);
        let parts = all_parts(&new);
        if live.is_none() && parts.is_empty() {
            self.note_missing();
            return Ok(false);
        }
        // What is there at a first start is read now or never; a clock set back must not make that
        // true of what comes later.
        let now = nanoseconds(SystemTime::now());
        let births = history.iter().filter_map(|part| part.stat.birth);
        let after = Anchor {
            birth: births.filter(|birth| *birth <= now).max(),
            modified: i64::MIN,
            number: None,
        };
        // Renamed since it was opened: then it is one of the parts. What a link leads to is not.
        let live = live.filter(|(_, stat)| {
            self.is_live(stat) || !parts.iter().any(|part| part.stat.is_same_inode(stat))
        });
        self.queue_in_order(parts, after, live, None)?;
        let compressed = later_compressed(&self.options.path, awaited.since, &new);
        self.events
            .extend(compressed.into_iter().map(compressed_gap));
        Ok(true)
    }
}

/// The number of a file without a birth time may be used again, which its last writing tells.
fn identity(stat: &FileStat) -> String {
    format!("{}:{}", stat.inode, stat.birth.unwrap_or(stat.modified))
}

fn place(path: &Path) -> String {
    let directory = std::fs::metadata(directory_of(path)).map(|metadata| FileStat::new(&metadata));
    let directory = directory.map_or_else(
        |_| "nowhere".to_owned(),
        |stat| format!("{}:{}", stat.inode, stat.birth.unwrap_or_default()),
    );
    format!("{directory} {}", path.display())
}
