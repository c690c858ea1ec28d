//! Finding the place again: at start, after a truncation, when going back.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::time::SystemTime;

use super::cursor::{Passed, TailCursor};
use super::identity::{FileStat, PRINT_BYTES, nanoseconds, open_regular};
use super::rotation::{
    Anchor, Sibling, all_parts, compressed_at, directory_of, later_compressed, later_parts,
    open_sibling, siblings,
};
use super::tailer::{Followed, Queued, Tailer, newest_stat};
use super::watch::{compressed_gap, file_name};
use super::{FileEvent, GapReason, TailError};

type Opened = (File, FileStat);

impl Tailer {
    /// Finds the file to begin with: the cursor's, or the live one. Nothing found is no error.
    pub(super) fn establish(&mut self) -> Result<(), TailError> {
        let live = open_regular(&self.options.path)?;
        if let Some(cursor) = self.resume.take() {
            let outcome = self.resume_from(&cursor, live);
            if !matches!(outcome, Ok(true)) {
                self.resume = Some(cursor);
                self.current = None;
                self.queue.clear();
            }
            return outcome.map(|_| ());
        }
        let Some((file, stat)) = live else {
            self.note_missing();
            return Ok(());
        };
        // What is there at a first start is read now or never; a clock set back must not make that
        // true of what comes later.
        let mut beside = self.beside_if_permitted()?;
        let now = nanoseconds(SystemTime::now());
        let begun = beside
            .iter()
            .filter_map(|sibling| sibling.stat.birth)
            .filter(|birth| *birth <= now)
            .max();
        if self.options.read_rotated_at_first_start && !self.appeared {
            beside.retain(|sibling| !sibling.stat.is_same_inode(&stat));
            self.queue_parts(all_parts(&beside), None, None);
        }
        self.note_present(&stat);
        self.queue_open(file, false, begun.map(|birth| birth.saturating_add(1)))
    }

    /// Whether the place was found or given up; not as long as no live file says what came after.
    fn resume_from(
        &mut self,
        cursor: &TailCursor,
        live: Option<Opened>,
    ) -> Result<bool, TailError> {
        let path = self.options.path.clone();
        let reading = |error: io::Error| TailError::from_io(&path, "read", error);
        if let Some((file, stat)) = &live
            && cursor.means_inode(stat)
            && cursor.stands_in(file, stat.size).map_err(reading)?
        {
            if cursor.offset == 0 {
                // Nothing was read, so no content can tell whether it was truncated since.
                let beside = self.beside()?;
                let anchor = written_since(cursor.modified).begun(cursor.begun);
                return self
                    .queue_later(anchor, &beside, live, Some(cursor.stat()))
                    .map(|()| true);
            }
            self.note_present(stat);
            let file = file.try_clone().map_err(reading)?;
            self.current = Some(self.go_on(file, cursor)?);
            return Ok(true);
        }
        let beside = self.beside()?;
        let renamed = beside
            .iter()
            .filter(|sibling| cursor.means_inode(&sibling.stat))
            .find_map(|sibling| self.open_if_it_holds(sibling, cursor));
        if let Some((file, stat)) = renamed {
            let anchor = Anchor::new(&stat, &beside).begun(cursor.begun);
            self.declare_compressed(&stat, &beside);
            self.current = Some(self.go_on(file, cursor)?);
            self.queue_later(anchor, &beside, live, None)?;
            return Ok(true);
        }
        let live_was_truncated = live
            .as_ref()
            .is_some_and(|(_, stat)| cursor.means_inode(stat));
        let renamed = match live_was_truncated {
            true => None,
            false => beside
                .iter()
                .find(|sibling| cursor.means_inode(&sibling.stat))
                .and_then(|sibling| open_sibling(&path, sibling)),
        };
        let is_truncated = live_was_truncated || renamed.is_some();
        let truncated_stat = renamed.as_ref().or(live.as_ref()).map(|(_, stat)| *stat);
        if !is_truncated {
            let Some((file, stat)) = &live else {
                self.note_missing();
                return Ok(false);
            };
            if is_unmistakable(cursor) && cursor.stands_in(file, stat.size).map_err(reading)? {
                // The file was moved to another disk or machine, content and all.
                self.note_present(stat);
                let file = file.try_clone().map_err(reading)?;
                self.current = Some(self.go_on(file, cursor)?);
                return Ok(true);
            }
        }
        let copy = beside
            .iter()
            .filter(|sibling| is_readable_part(sibling) && !cursor.means_inode(&sibling.stat))
            .filter(|sibling| match is_truncated {
                true => {
                    cursor.offset > 0
                        && truncated_stat.is_none_or(|stat| was_made_before_end_of(&stat, sibling))
                        && may_be_copy_of(&cursor.stat(), cursor.begun, &sibling.stat)
                }
                false => is_unmistakable(cursor),
            })
            .filter_map(|sibling| self.open_if_it_holds(sibling, cursor))
            .max_by_key(|(_, stat)| likeliest_copy(cursor.offset, stat));
        self.remember_cursor(cursor);
        self.moved = true;
        let anchor = match copy {
            Some((file, stat)) => {
                if is_truncated {
                    self.events.push(truncated(cursor, Some(0)));
                }
                let mut followed = self.go_on(file, cursor)?;
                followed.copy_of = is_truncated.then(|| cursor.stat());
                self.current = Some(followed);
                Anchor::new(&stat, &beside)
            }
            None if is_truncated => {
                self.events.push(truncated(cursor, None));
                self.events.push(gap(cursor, GapReason::Truncated));
                written_since(cursor.modified)
            }
            None => {
                self.declare_gone(cursor, &beside);
                let anchor = Anchor {
                    birth: cursor.birth,
                    modified: cursor.modified,
                    number: None,
                };
                anchor.begun(cursor.begun)
            }
        };
        let Some((file, stat)) = renamed else {
            let copies_of = live_was_truncated.then(|| cursor.stat());
            self.queue_later(anchor, &beside, live, copies_of)?;
            return Ok(true);
        };
        let mut parts = later_parts(anchor, &beside);
        parts.retain(|part| was_made_before_end_of(&stat, part) && !part.stat.is_same_inode(&stat));
        let begun = end_of(anchor, &parts);
        self.queue_parts(parts, Some(anchor), Some(cursor.stat()));
        self.queue_open(file, true, begun)?;
        let anchor = Anchor::new(&stat, &beside).begun(begun);
        self.queue_later(anchor, &beside, live, None)?;
        Ok(true)
    }

    /// Another content stands in the current file: what a copy of it still holds is read from there,
    /// then the file from its beginning.
    pub(super) fn begin_generation(&mut self) -> Result<(), TailError> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let beside = self.beside_if_permitted()?;
        let stat = newest_stat(&current.reader);
        let named = current.copy_of.unwrap_or(*current.reader.stat());
        let (offset, end) = (current.reader.offset(), current.reader.known_end());
        let copy = beside
            .iter()
            .filter(|sibling| is_readable_part(sibling) && !sibling.stat.is_same_inode(&stat))
            .filter(|sibling| {
                was_made_before_end_of(&stat, sibling)
                    && may_be_copy_of(current.reader.stat(), current.begun, &sibling.stat)
            })
            .filter_map(|sibling| open_sibling(&self.options.path, sibling))
            .filter(|(file, stat)| current.reader.stands_in(file, stat.size).unwrap_or(false))
            .max_by_key(|(_, stat)| likeliest_copy(current.reader.position(), stat));
        let anchor = match &copy {
            Some((_, stat)) => Anchor::new(stat, &beside),
            None => written_since(current.reader.stat().modified),
        };
        let copy_inode = copy.as_ref().map(|(_, stat)| *stat);
        let mut parts = later_parts(anchor, &beside);
        parts.retain(|part| {
            was_made_before_end_of(&stat, part)
                && !part.stat.is_same_inode(&stat)
                && !self.is_known(&part.stat)
                && copy_inode.is_none_or(|copy| !copy.is_same_inode(&part.stat))
        });
        let begun = end_of(anchor, &parts).max(current.begun);
        // Whatever can fail comes before the first change.
        let file = current.reader.file().try_clone();
        let file = file.map_err(|error| TailError::from_io(&self.options.path, "read", error))?;
        let mut renewed = self.follow(file, 0)?;
        renewed.fresh = true;
        renewed.begun = begun;
        let rest = match copy {
            Some((file, stat)) if stat.size > offset => {
                let mut rest = self.follow(file, offset)?;
                rest.key.clone_from(&current.key);
                rest.start = (offset, current.key.clone());
                rest.fresh = true;
                rest.copy_of = Some(named);
                rest.begun = current.begun;
                Some(rest)
            }
            _ => None,
        };
        let Some(finished) = std::mem::replace(&mut self.current, rest) else {
            return Ok(());
        };
        let lost = if copy_inode.is_some() {
            0
        } else {
            end - offset
        };
        self.events.push(FileEvent::Truncated {
            inode: stat.inode,
            read_to: offset,
            lost_bytes: Some(lost),
        });
        if lost > 0 {
            self.events.push(FileEvent::Gap {
                file_key: finished.key.clone(),
                inode: stat.inode,
                from: offset,
                to: Some(end),
                why: GapReason::Truncated,
            });
        }
        self.remember(&finished);
        self.moved = true;
        let after = std::mem::take(&mut self.queue);
        self.queue_parts(parts, Some(anchor), Some(named));
        self.queue.push_back(Queued::Open(Box::new(renewed)));
        self.queue.extend(after);
        Ok(())
    }

    /// Before the first byte of a file is read: it may have been copied and truncated since the last
    /// look, which its content cannot tell. Copies made since go first; whether there were any.
    pub(super) fn queue_missed_copies(&mut self) -> Result<bool, TailError> {
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        let seen = *current.reader.stat();
        let now = newest_stat(&current.reader);
        if current.copy_of.is_some() || now.modified == seen.modified {
            return Ok(false);
        }
        let is_live = std::fs::metadata(&self.options.path)
            .is_ok_and(|metadata| FileStat::new(&metadata).is_same_inode(&now));
        if !is_live {
            // It was renamed away: what was created since took its place.
            return Ok(false);
        }
        let anchor = written_since(seen.modified);
        let mut parts = later_parts(anchor, &self.beside_if_permitted()?);
        parts.retain(|part| was_made_before_end_of(&now, part) && !self.is_known(&part.stat));
        let Some(mut current) = self.current.take() else {
            return Ok(false);
        };
        if parts.is_empty() {
            current.reader.look(now);
            self.current = Some(current);
            return Ok(false);
        }
        let begun = end_of(anchor, &parts);
        current.begun = current.begun.max(begun);
        // What it was like before is in a copy, and not cut off.
        current.reader.look(now);
        current.reader.take_cut();
        let after = std::mem::take(&mut self.queue);
        self.queue_parts(parts, Some(anchor), Some(seen));
        self.queue.push_back(Queued::Open(Box::new(current)));
        self.queue.extend(after);
        Ok(true)
    }

    fn queue_later(
        &mut self,
        anchor: Anchor,
        beside: &[Sibling],
        live: Option<Opened>,
        copies_of: Option<FileStat>,
    ) -> Result<(), TailError> {
        let mut parts = later_parts(anchor, beside);
        let Some((file, stat)) = live else {
            self.note_missing();
            self.queue_parts(parts, Some(anchor), None);
            return Ok(());
        };
        let current = self.current.iter().map(|current| current.reader.file());
        let known: Vec<&File> = current.chain([&file]).collect();
        parts.retain(|part| {
            !part.stat.is_same_inode(&stat) && !self.is_copy_of_any(part, known.iter().copied())
        });
        let begun = end_of(anchor, &parts).filter(|begun| Some(*begun) > stat.birth);
        self.queue_parts(parts, Some(anchor), copies_of);
        self.note_present(&stat);
        self.queue_open(file, copies_of.is_some(), begun)
    }

    fn declare_gone(&mut self, cursor: &TailCursor, beside: &[Sibling]) {
        let mut later = later_compressed(cursor.modified, beside);
        later.sort_by_key(|part| part.stat.modified);
        let untouched = compressed_at(cursor.modified, beside);
        let own = match untouched {
            Some(_) if cursor.had_read_all() => None,
            Some(part) => Some(compressed_as(part)),
            None if later.is_empty() => Some(GapReason::Vanished),
            None => Some(compressed_as(later.remove(0))),
        };
        if let Some(why) = own {
            self.events.push(gap(cursor, why));
        }
        for part in later {
            self.events.push(compressed_gap(part));
        }
    }

    fn beside(&self) -> Result<Vec<Sibling>, TailError> {
        siblings(&self.options.path)
            .map_err(|error| TailError::from_io(directory_of(&self.options.path), "read", error))
    }

    /// A live file can be followed without a look at its neighbours.
    pub(super) fn beside_if_permitted(&self) -> Result<Vec<Sibling>, TailError> {
        match self.beside() {
            Err(TailError::PermissionDenied { .. }) => Ok(Vec::new()),
            Err(TailError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            outcome => outcome,
        }
    }

    fn open_if_it_holds(&self, sibling: &Sibling, cursor: &TailCursor) -> Option<Opened> {
        let (file, stat) = open_sibling(&self.options.path, sibling)?;
        cursor
            .stands_in(&file, stat.size)
            .is_ok_and(|holds| holds)
            .then_some((file, stat))
    }

    fn go_on(&self, file: File, cursor: &TailCursor) -> Result<Followed, TailError> {
        let mut followed = self.follow(file, cursor.offset)?;
        followed.key = cursor.file_key.as_deref().map(Into::into);
        followed.start = (cursor.offset, followed.key.clone());
        followed.begun = cursor.begun;
        Ok(followed)
    }

    fn remember_cursor(&mut self, cursor: &TailCursor) {
        if let Some(key) = &cursor.file_key {
            self.remember_as(Passed::new(key, cursor.offset, cursor.tail.clone()));
        }
    }
}

impl Followed {
    /// Goes back to the cursor, if it speaks of this file as it is now.
    pub(super) fn go_back(&mut self, cursor: &TailCursor) -> bool {
        let stat = newest_stat(&self.reader);
        let named = self.copy_of.unwrap_or(stat);
        let other_generation = match (&self.key, &cursor.file_key) {
            (Some(key), Some(cursor_key)) => **key != **cursor_key,
            (Some(_), None) => self.copy_of.is_some(),
            _ => false,
        };
        if other_generation
            || self.begun != cursor.begun
            || !cursor.means_inode(&named)
            || !cursor
                .stands_in(self.reader.file(), stat.size)
                .unwrap_or(false)
        {
            return false;
        }
        let key = cursor.file_key.as_deref().map(Into::into);
        let is_back = self.begin_at(cursor.offset, key);
        if is_back && cursor.offset == 0 {
            // What it was when nothing of it was read: copies made since are still to be found.
            self.reader.look(FileStat {
                size: cursor.size,
                modified: cursor.modified,
                ..named
            });
            self.reader.take_cut();
        }
        is_back
    }

    /// Goes back to where it was begun.
    pub(super) fn restart(&mut self) -> bool {
        let (offset, key) = self.start.clone();
        self.begin_at(offset, key)
    }
}

/// With two full prints the inode is not needed to recognise a file.
fn is_unmistakable(cursor: &TailCursor) -> bool {
    cursor.offset >= PRINT_BYTES as u64
}

fn is_readable_part(sibling: &Sibling) -> bool {
    sibling
        .name
        .as_ref()
        .is_some_and(|name| name.compressed_from.is_none())
}

/// Whatever was created strictly after that: a copy made at the very moment may be of what was read.
fn written_since(modified: i64) -> Anchor {
    let after = modified.saturating_add(1);
    Anchor {
        birth: Some(after),
        modified: after,
        number: None,
    }
}

/// A copy was created after what it is a copy of, and is not older than what was last seen of that.
fn may_be_copy_of(seen: &FileStat, begun: Option<i64>, copy: &FileStat) -> bool {
    let created_after = match (seen.birth.max(begun), copy.birth) {
        (Some(begun), Some(birth)) => birth >= begun,
        _ => true,
    };
    created_after && copy.modified >= seen.modified
}

/// Of several copies the longest; but as long as so little was read that any file may begin alike,
/// the one made first.
fn likeliest_copy(read_to: u64, copy: &FileStat) -> (u64, Reverse<i64>) {
    let made = copy.birth.unwrap_or(copy.modified);
    match read_to >= PRINT_BYTES as u64 {
        true => (copy.size, Reverse(made)),
        false => (0, Reverse(made)),
    }
}

/// Copies of a truncated file were made before it was written or truncated last; a file that took
/// its place was created later.
fn was_made_before_end_of(truncated: &FileStat, part: &Sibling) -> bool {
    part.stat
        .birth
        .is_none_or(|birth| birth <= truncated.modified)
}

/// A content that began after the anchor and all parts found later than it.
pub(super) fn end_of(anchor: Anchor, parts: &[Sibling]) -> Option<i64> {
    let births = parts.iter().filter_map(|part| part.stat.birth);
    let newest = births.chain(anchor.birth).max()?;
    Some(newest.saturating_add(1))
}

fn truncated(cursor: &TailCursor, lost_bytes: Option<u64>) -> FileEvent {
    FileEvent::Truncated {
        inode: cursor.inode,
        read_to: cursor.offset,
        lost_bytes,
    }
}

fn gap(cursor: &TailCursor, why: GapReason) -> FileEvent {
    FileEvent::Gap {
        file_key: cursor.file_key.as_deref().map(Into::into),
        inode: cursor.inode,
        from: cursor.offset,
        to: None,
        why,
    }
}

fn compressed_as(part: &Sibling) -> GapReason {
    GapReason::Compressed {
        name: file_name(part),
    }
}
