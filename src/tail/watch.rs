//! Watching the path: what is there now, and what was there since the last look.

use std::cmp::Reverse;
use std::fs::File;
use std::io;

use super::copies::end_of;
use super::followed::{Followed, Queued, Unopened, newest_stat};
use super::identity::{FileStat, PRINT_BYTES, length_without_name, open_regular, read_at};
use super::rotation::{
    Anchor, Sibling, compressed_at, is_copy, later_compressed, later_parts, open_sibling,
    try_open_sibling, unpacks_to,
};
use super::tailer::Tailer;
use super::{FileEvent, GapReason, TailError};

/// Queued files held open; more are opened when their turn comes.
const HELD_OPEN: usize = 64;
/// How often a path is looked at again that changes while its directory is read.
const LOOKS_AT_A_CHANGING_PATH: usize = 4;

/// While no file stands at the path.
#[derive(Debug)]
pub(super) struct Absence {
    /// Of the newest file known when that began: what is later is looked for, in whatever order it appears.
    anchor: Anchor,
    /// The parts that the last look saw.
    seen: Vec<FileStat>,
}

impl Absence {
    fn has_seen(&self, part: &FileStat) -> bool {
        let told = |stat: &FileStat| (stat.birth, stat.modified, stat.size);
        let is_it = |seen: &FileStat| seen.is_same_inode(part) && told(seen) == told(part);
        self.seen.iter().any(is_it)
    }
}

impl Tailer {
    pub(super) fn is_known(&self, stat: &FileStat) -> bool {
        let current = self.current.iter().map(|current| current.reader.stat());
        let queued = self.queue.iter().map(Queued::stat);
        current.chain(queued).any(|known| known.is_same_inode(stat))
    }

    pub(super) fn is_live(&self, stat: &FileStat) -> bool {
        std::fs::metadata(&self.options.path)
            .is_ok_and(|metadata| FileStat::new(&metadata).is_same_inode(stat))
    }

    pub(super) fn note_missing(&mut self) {
        if !std::mem::replace(&mut self.missing, true) {
            self.events.push(FileEvent::Missing);
        }
    }

    pub(super) fn note_present(&mut self, stat: &FileStat) {
        let was_missing = std::mem::take(&mut self.missing);
        self.absence = None;
        let was_known = std::mem::replace(&mut self.appeared, true);
        if was_missing || !was_known {
            self.events.push(FileEvent::Appeared { inode: stat.inode });
        }
    }

    /// Queues what is at the path now, and the parts between it and the newest file known.
    pub(super) fn watch_path(&mut self) -> Result<(), TailError> {
        let path = self.options.path.clone();
        for look in 1..=LOOKS_AT_A_CHANGING_PATH {
            match std::fs::metadata(&path) {
                Ok(metadata) => {
                    let stat = FileStat::new(&metadata);
                    if self.is_known(&stat) {
                        self.note_present(&stat);
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.note_missing();
                    return self.queue_unseen();
                }
                Err(error) => return Err(TailError::from_io(&path, "look at", error)),
            }
            let Some((file, stat)) = open_regular(&path)? else {
                continue;
            };
            if self.is_known(&stat) {
                return Ok(());
            }
            let beside = self.beside_if_permitted()?;
            let still_there = std::fs::metadata(&path)
                .is_ok_and(|metadata| FileStat::new(&metadata).is_same_inode(&stat));
            if !still_there && look < LOOKS_AT_A_CHANGING_PATH {
                continue;
            }
            let mut begun = None;
            let mut seen = stat;
            if let Some((newest, anchor, known)) = self.newest_known(&beside) {
                let mut parts = later_parts(anchor, &beside);
                parts.retain(|part| {
                    !part.stat.is_same_inode(&stat) && self.goes_beyond(part, known)
                });
                seen = self.without_copies_of(&file, stat, anchor, &mut parts);
                self.leave_out_copies(&mut parts);
                self.declare_compressed(&newest, &beside);
                begun = end_of(anchor, &parts).filter(|begun| Some(*begun) > stat.birth);
                self.queue_parts(parts, Some(anchor), None);
            }
            self.note_present(&stat);
            return self.queue_open(file, seen, false, begun);
        }
        Ok(())
    }

    /// Queues what was born and rotated between two looks while no file stands at the path: none may
    /// come for long, and nobody keeps these parts until then.
    fn queue_unseen(&mut self) -> Result<(), TailError> {
        let beside = self.beside_if_permitted()?;
        let former = self.absence.take();
        let Some((newest, anchor, file)) = self.newest_known(&beside) else {
            return Ok(());
        };
        let absence = former.unwrap_or_else(|| Absence {
            anchor,
            seen: Vec::new(),
        });
        let mut parts = later_parts(absence.anchor, &beside);
        // Looked into once, unless it changes. An empty one is at best just being made: a copy, perhaps.
        parts.retain(|part| {
            part.stat.size > 0
                && !absence.has_seen(&part.stat)
                && !self.is_known(&part.stat)
                && self.goes_beyond(part, file)
        });
        self.leave_out_copies(&mut parts);
        if !parts.is_empty() {
            self.declare_compressed(&newest, &beside);
            self.queue_parts(parts, Some(absence.anchor), None);
        }
        let named = beside.iter().filter(|part| part.name.is_some());
        self.absence = Some(Absence {
            seen: named.map(|part| part.stat).collect(),
            ..absence
        });
        Ok(())
    }

    /// The newest file known; `None` when none is.
    fn newest_known(&self, beside: &[Sibling]) -> Option<(FileStat, Anchor, Option<&File>)> {
        let (newest, begun, file) = match (self.queue.back(), &self.current) {
            (Some(queued), _) => (queued.fresh_stat(), queued.begun(), queued.file()),
            (None, Some(current)) => (
                newest_stat(&current.reader),
                current.begun,
                Some(current.reader.file()),
            ),
            (None, None) => return None,
        };
        let anchor = Anchor::new(&newest, beside).begun(begun);
        Some((newest, anchor, file))
    }

    /// Whether a part is no copy of this file; or, of one that has no name any more, whether it goes
    /// on where that ended.
    pub(super) fn goes_beyond(&self, part: &Sibling, file: Option<&File>) -> bool {
        let ended = file.and_then(length_without_name);
        ended.is_some_and(|length| length < part.stat.size) || !self.is_copy_of(part, file)
    }

    /// Leaves out parts of which every line was read, or is read in another file: somebody's copies.
    pub(super) fn leave_out_copies(&self, parts: &mut Vec<Sibling>) {
        let open = |part: &Sibling| Some(try_open_sibling(&self.options.path, part)?.0);
        // Only what begins alike is opened again.
        let heads: Vec<Option<Vec<u8>>> = parts
            .iter()
            .map(|part| read_at(&open(part)?, 0, PRINT_BYTES).ok())
            .collect();
        let reach = |index: usize| (parts[index].stat.size, Reverse(index));
        let is_in_another = |index: usize| {
            (0..parts.len()).any(|other| {
                reach(index) < reach(other)
                    && heads[index] == heads[other]
                    && open(&parts[index])
                        .zip(open(&parts[other]))
                        .is_some_and(|(part, other)| is_copy(&part, &other).unwrap_or(false))
            })
        };
        let is_left_out: Vec<bool> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                self.was_read_to_its_end(part) || self.is_in_a_known(part) || is_in_another(index)
            })
            .collect();
        let mut is_left_out = is_left_out.into_iter();
        parts.retain(|_| is_left_out.next() == Some(false));
    }

    /// Whether all of a part stands in a file that is held open.
    fn is_in_a_known(&self, part: &Sibling) -> bool {
        let Some((part, stat)) = try_open_sibling(&self.options.path, part) else {
            return false;
        };
        let queued = self.queue.iter().filter_map(Queued::file);
        self.current_file().into_iter().chain(queued).any(|known| {
            let is_as_long = FileStat::of(known).is_ok_and(|known| known.size >= stat.size);
            is_as_long && is_copy(&part, known).unwrap_or(false)
        })
    }

    pub(super) fn declare_compressed(&mut self, newest: &FileStat, beside: &[Sibling]) {
        let mut later = later_compressed(&self.options.path, newest.modified, beside);
        later.sort_by_key(|part| part.stat.modified);
        let newest_is_gone = !beside.iter().any(|part| part.stat.is_same_inode(newest));
        // A compression that does not keep the time: the first is that of the file read here.
        if newest_is_gone
            && compressed_at(newest.modified, beside).is_none()
            && (later.first()).is_some_and(|part| !self.is_unread(part, newest.size))
        {
            later.remove(0);
        }
        // Nor is one lost that was read before this file, and compressed after this one was seen.
        let read_before = self.passed.last().map(|passed| passed.offset);
        later.retain(|part| {
            read_before
                .is_none_or(|length| unpacks_to(&self.options.path, part, length) != Some(true))
        });
        for part in later {
            self.events.push(compressed_gap(part));
        }
    }

    /// Of a log of which nothing was read: what stood in it since then and is only there compressed.
    pub(super) fn declare_compressed_since(&mut self, modified: i64, beside: &[Sibling]) {
        let read_to = self.passed.last().map_or(0, |passed| passed.offset);
        let mut later = later_compressed(&self.options.path, modified, beside);
        later.retain(|part| self.is_unread(part, read_to));
        self.moved |= !later.is_empty();
        self.events.extend(later.into_iter().map(compressed_gap));
    }

    /// Whether a later compressed part holds something else than the file that was read up to there.
    /// Its length tells; where that is not known its time does, unless it is that of the compression.
    pub(super) fn is_unread(&self, part: &Sibling, read_to: u64) -> bool {
        match unpacks_to(&self.options.path, part, read_to) {
            Some(is_all) => !is_all,
            None => !part.has_own_time(),
        }
    }

    /// Whether a part is somebody's copy of the file that it would come after. Of one that may not be
    /// opened only the times tell: the log itself went on in what was written later.
    pub(super) fn is_copy_of(&self, part: &Sibling, file: Option<&File>) -> bool {
        let Some(file) = file else { return false };
        match open_sibling(&self.options.path, part) {
            Ok(Some((part, _))) => is_copy(&part, file).unwrap_or(false),
            Err(TailError::PermissionDenied { .. }) => {
                FileStat::of(file).is_ok_and(|stat| part.stat.modified < stat.modified)
            }
            _ => false,
        }
    }

    /// Parts that are copies of a truncated file go under its identity: their lines have the keys that
    /// they would have had in the file itself.
    pub(super) fn queue_parts(
        &mut self,
        parts: Vec<Sibling>,
        after: Option<Anchor>,
        copies_of: Option<FileStat>,
    ) {
        let after = after.and_then(|anchor| anchor.birth);
        for part in parts {
            if self.is_known(&part.stat) {
                continue;
            }
            // Older than what it comes after: it may have been read as a copy.
            let begun = after.filter(|after| part.stat.birth.is_some_and(|birth| birth < *after));
            if begun.is_some() && self.was_read_to_its_end(&part) {
                continue;
            }
            // What it was made of ended where it ends.
            let copy_of = copies_of.filter(|_| begun.is_none());
            let copy_of = copy_of.map(|of| FileStat {
                size: part.stat.size,
                ..of
            });
            let unopened = Unopened {
                part,
                // If it was not, it was truncated since, and what it holds began later.
                begun: begun.map(|after| after.saturating_add(1)),
                copy_of,
            };
            let opened = match self.queue.len() < HELD_OPEN {
                true => unopened.open(&self.options.path).ok().flatten(),
                false => None,
            };
            self.queue.push_back(match opened {
                Some(followed) => Queued::Open(Box::new(followed)),
                None => Queued::Closed(Box::new(unopened)),
            });
        }
    }

    /// Whether all of the part, and nothing else, was read under some key.
    pub(super) fn was_read_to_its_end(&self, part: &Sibling) -> bool {
        let Some((file, stat)) = try_open_sibling(&self.options.path, part) else {
            return false;
        };
        let same_inode = format!("{}-", stat.inode);
        self.passed.iter().any(|passed| {
            // Another short one may be only alike.
            let is_told =
                passed.offset >= PRINT_BYTES as u64 || passed.key.starts_with(&same_inode);
            is_told
                && passed.offset == stat.size
                && passed.stands_in(&file, stat.size).unwrap_or(false)
        })
    }

    pub(super) fn queue_open(
        &mut self,
        file: File,
        seen: FileStat,
        fresh: bool,
        begun: Option<i64>,
    ) -> Result<(), TailError> {
        let mut followed = self.follow(file, 0)?;
        followed.reader.seen_as(seen);
        followed.fresh = fresh;
        followed.begun = begun;
        self.queue.push_back(Queued::Open(Box::new(followed)));
        Ok(())
    }

    pub(super) fn follow(&self, file: File, offset: u64) -> Result<Followed, TailError> {
        Followed::new(file, offset)
            .map_err(|error| TailError::from_io(&self.options.path, "read", error))
    }
}

pub(super) fn compressed_gap(part: &Sibling) -> FileEvent {
    FileEvent::Gap {
        file_key: None,
        inode: part.stat.inode,
        modified: part.stat.modified,
        from: 0,
        to: None,
        why: compressed_as(part),
    }
}

pub(super) fn compressed_as(part: &Sibling) -> GapReason {
    let name = part.path.file_name().unwrap_or_default();
    GapReason::Compressed {
        name: name.to_string_lossy().into_owned(),
        inode: part.stat.inode,
        modified: part.stat.modified,
    }
}
