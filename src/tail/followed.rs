//! A file that is read or waits for its turn.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::TailError;
use super::identity::{FileStat, PRINT_BYTES, nanoseconds};
use super::marks::Mark;
use super::reader::Reader;
use super::rotation::{Sibling, is_copy, open_sibling};

#[derive(Debug)]
pub(super) struct Followed {
    pub reader: Reader,
    pub key: Option<Arc<str>>,
    /// See [`TailCursor::begun`].
    pub begun: Option<i64>,
    /// See [`TailCursor::marks`].
    pub marks: Vec<Mark>,
    /// Its beginning was seen: content that only resembles a remembered generation is a new one,
    /// unless as much of it stands there as tells any content.
    pub fresh: bool,
    /// For a copy, which nobody writes to any more: the file it was made of, as last seen. Cursors
    /// speak of that one, so that a restart finds its truncation again.
    pub copy_of: Option<FileStat>,
    /// What may be its copy and could not be opened, since it was truncated.
    pub awaited_copy: Option<FileStat>,
    /// Since when it was seen not to grow, and at what position.
    pub quiet: Option<(Instant, u64)>,
}

#[derive(Debug)]
pub(super) enum Queued {
    Open(Box<Followed>),
    Closed(Box<Unopened>),
}

/// A part that is opened when its turn comes, be it that it may not be opened now.
#[derive(Debug)]
pub(super) struct Unopened {
    pub part: Sibling,
    /// As in [`Followed`].
    pub begun: Option<i64>,
    pub copy_of: Option<FileStat>,
}

impl Unopened {
    /// Follows it from its beginning; `None` when it is gone.
    pub fn open(&self, live: &Path) -> Result<Option<Followed>, TailError> {
        let Some((file, _)) = open_sibling(live, &self.part)? else {
            return Ok(None);
        };
        let mut followed = Followed::new(file, 0)
            .map_err(|error| TailError::from_io(&self.part.path, "read", error))?;
        followed.begun = self.begun;
        followed.copy_of = self.copy_of;
        followed.fresh = self.copy_of.is_some();
        Ok(Some(followed))
    }
}

impl Followed {
    pub fn new(file: File, offset: u64) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::at(file, offset)?,
            key: None,
            begun: None,
            marks: Vec::new(),
            fresh: false,
            copy_of: None,
            awaited_copy: None,
            quiet: None,
        })
    }

    /// Reads on from there with that key; `false` if the file cannot be read.
    pub fn begin_at(&mut self, offset: u64, key: Option<Arc<str>>) -> bool {
        let Ok(reader) = self.reader.reopened_at(offset) else {
            return false;
        };
        self.reader = reader;
        self.key = key;
        self.quiet = None;
        true
    }

    /// Whether it is a copy of all that stands in that file.
    pub fn holds_all_of(&self, finished: &Self) -> bool {
        let (old, new) = (&finished.reader, &self.reader);
        let size = |file: &File| FileStat::of(file).map(|stat| stat.size);
        let (Ok(old_size), Ok(new_size)) = (size(old.file()), size(new.file())) else {
            return false;
        };
        old_size <= new_size
            && finished.copy_of.is_none()
            && self.copy_of.is_none()
            && new.position() == 0
            && old.position() >= PRINT_BYTES as u64
            && old.stands_in(new.file(), new_size).unwrap_or(false)
            && is_copy(new.file(), old.file()).unwrap_or(false)
    }

    /// Goes on where a file ended of which it is a copy; `false` if it cannot be read.
    pub fn goes_on_after(&mut self, finished: &Self) -> bool {
        if !self.begin_at(finished.reader.offset(), finished.key.clone()) {
            return false;
        }
        self.begun = finished.begun;
        self.marks.clone_from(&finished.marks);
        true
    }

    /// Of the file that it is or is a copy of.
    pub fn named_stat(&self) -> &FileStat {
        self.copy_of.as_ref().unwrap_or(self.reader.stat())
    }

    pub fn is_finished(&mut self, now: Instant, grace: Duration) -> bool {
        if self.copy_of.is_some() {
            return true;
        }
        let stat = self.reader.stat();
        let age = nanoseconds(SystemTime::now()).saturating_sub(stat.changed.max(stat.modified));
        let settled = grace.saturating_mul(2) + Duration::from_secs(1);
        if u64::try_from(age).is_ok_and(|age| Duration::from_nanos(age) > settled) {
            return true;
        }
        let position = self.reader.position();
        match self.quiet {
            Some((since, at)) if at == position => now.saturating_duration_since(since) >= grace,
            _ => {
                self.quiet = Some((now, position));
                grace.is_zero()
            }
        }
    }
}

impl Queued {
    pub fn stat(&self) -> &FileStat {
        match self {
            Self::Open(followed) => followed.reader.stat(),
            Self::Closed(unopened) => &unopened.part.stat,
        }
    }

    pub fn begun(&self) -> Option<i64> {
        match self {
            Self::Open(followed) => followed.begun,
            Self::Closed(unopened) => unopened.begun,
        }
    }

    pub fn file(&self) -> Option<&File> {
        match self {
            Self::Open(followed) => Some(followed.reader.file()),
            Self::Closed(_) => None,
        }
    }

    /// Its newest stat, which a held descriptor gives even of a deleted file.
    pub fn fresh_stat(&self) -> FileStat {
        match self {
            Self::Open(followed) => newest_stat(&followed.reader),
            Self::Closed(unopened) => unopened.part.stat,
        }
    }
}

pub(super) fn newest_stat(reader: &Reader) -> FileStat {
    FileStat::of(reader.file()).unwrap_or(*reader.stat())
}
