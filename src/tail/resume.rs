//! Finding the place again: at start, and when a file server has forgotten a handle.

use std::fs::File;
use std::io;

use super::awaited::Awaited;
use super::copies::{
    after_copy, end_of, is_readable_part, likeliest_copy, may_be_copy_of, truncated_after,
    was_made_before_end_of, written_since,
};
use super::cursor::{Passed, TailCursor};
use super::followed::Followed;
use super::identity::{FileStat, PRINT_BYTES, open_regular};
use super::marks::add_mark;
use super::rotation::{
    Anchor, Sibling, compressed_at, directory_of, later_compressed, later_parts, open_sibling,
    siblings, unpacks_to,
};
use super::tailer::Tailer;
use super::watch::{compressed_as, compressed_gap};
use super::{FileEvent, GapReason, TailError};

pub(super) type Opened = (File, FileStat);

impl Tailer {
    /// Finds the file to begin with: the cursor's, or the live one. Nothing found is no error.
    ///
    /// Gives the first look, when a file was found and no step has told of the look yet.
    pub(super) fn establish(&mut self) -> Result<Option<TailCursor>, TailError> {
        if self.resume.is_none() {
            let path = &self.options.path;
            let awaited = match self.options.read_rotated_at_first_start && !self.appeared {
                true => Awaited::without_history(path),
                false => Awaited::look(path, self.options.earlier_look),
            };
            self.resume = Some(TailCursor::awaiting(awaited));
            self.moved = true;
        }
        let live = open_regular(&self.options.path)?;
        let Some(cursor) = self.resume.take() else {
            return Ok(None);
        };
        let outcome = match &cursor.awaited {
            Some(awaited) => self.begin(awaited, live),
            None => self.resume_from(&cursor, live),
        };
        if matches!(outcome, Ok(true)) {
            // Once: a handle that a file server forgets later leads back to its own place.
            self.options.from_beginning = false;
            let is_untold = self.moved && cursor.awaited.is_some();
            return Ok(is_untold.then_some(cursor));
        }
        self.resume = Some(cursor);
        self.current = None;
        self.queue.clear();
        outcome.map(|_| None)
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
        {
            if cursor.offset == 0 {
                // Nothing was read, so no content can tell whether it was truncated since.
                let beside = self.beside_if_permitted()?;
                let anchor = written_since(cursor.modified).begun(cursor.begun);
                self.queue_later(anchor, &beside, live, Some(cursor.stat()))?;
                self.declare_compressed_since(cursor.modified, &beside);
                return Ok(true);
            }
            if let Some(followed) = self.find_place(file, stat, cursor)? {
                self.note_present(stat);
                self.current = Some(followed);
                return Ok(true);
            }
        }
        let beside = self.beside()?;
        for sibling in beside
            .iter()
            .filter(|sibling| cursor.means_inode(&sibling.stat))
            .filter(|sibling| cursor.offset > 0 || is_told_by_inode(cursor, sibling))
        {
            let Some((file, stat)) = open_sibling(&path, sibling)? else {
                continue;
            };
            if let Some(followed) = self.find_place(&file, &stat, cursor)? {
                let anchor = Anchor::new(&stat, &beside).begun(cursor.begun);
                self.declare_compressed(&stat, &beside);
                self.current = Some(followed);
                self.queue_later(anchor, &beside, live, None)?;
                return Ok(true);
            }
        }
        let live_was_truncated = live
            .as_ref()
            .is_some_and(|(_, stat)| cursor.means_inode(stat));
        let renamed = match live_was_truncated {
            true => None,
            false => beside
                .iter()
                .filter(|sibling| is_told_by_inode(cursor, sibling))
                .find(|sibling| cursor.means_inode(&sibling.stat))
                .map(|sibling| open_sibling(&path, sibling))
                .transpose()?
                .flatten(),
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
        let seen = cursor.stat();
        let mut unopened = None;
        let copy = beside
            .iter()
            .filter(|sibling| is_readable_part(sibling) && !cursor.means_inode(&sibling.stat))
            .filter(|sibling| match is_truncated {
                true => {
                    let is_in_time = |stat: FileStat| was_made_before_end_of(&stat, &sibling.stat);
                    cursor.offset > 0
                        && sibling.stat.size >= cursor.offset
                        && may_be_copy_of(&seen, cursor.begun, cursor.offset, &sibling.stat)
                        && (is_unmistakable(cursor) || truncated_stat.is_none_or(is_in_time))
                }
                false => is_unmistakable(cursor),
            })
            .filter_map(|sibling| {
                let holding = self.open_if_it_holds(sibling, cursor);
                holding.map_err(|error| unopened = Some(error)).ok()?
            })
            .max_by_key(|(_, stat)| likeliest_copy(cursor.offset, cursor.modified, stat));
        if is_truncated
            && copy.is_none()
            && let Some(error) = unopened
        {
            return Err(error);
        }
        let live = match &copy {
            Some((_, copy)) if live_was_truncated => {
                live.map(|(file, stat)| (file, truncated_after(stat, copy)))
            }
            _ => live,
        };
        self.remember_cursor(cursor);
        self.moved = true;
        let anchor = match copy {
            Some((file, stat)) => {
                if is_truncated {
                    let from = stat.size.max(cursor.offset);
                    let lost = cursor.size.saturating_sub(from);
                    self.events.push(truncated(cursor, Some(lost)));
                    if lost > 0 {
                        let (to, why) = (Some(cursor.size), GapReason::Truncated);
                        self.events.push(gap(cursor, from, to, why));
                    }
                }
                let mut followed = self.go_on(file, cursor)?;
                followed.copy_of = is_truncated.then_some(seen);
                self.current = Some(followed);
                match is_truncated {
                    true => after_copy(&seen, cursor.begun, &stat, &beside),
                    false => Anchor::new(&stat, &beside),
                }
            }
            None if is_truncated => {
                self.events.push(truncated(cursor, None));
                let why = GapReason::Truncated;
                self.events.push(gap(cursor, cursor.offset, None, why));
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
            let copies_of = live_was_truncated.then_some(seen);
            self.queue_later(anchor, &beside, live, copies_of)?;
            return Ok(true);
        };
        let mut parts = later_parts(anchor, &beside);
        parts.retain(|part| {
            was_made_before_end_of(&stat, &part.stat) && !part.stat.is_same_inode(&stat)
        });
        let begun = end_of(anchor, &parts);
        self.queue_parts(parts, Some(anchor), Some(seen));
        self.queue_open(file, stat, true, begun)?;
        let anchor = Anchor::new(&stat, &beside).begun(begun);
        self.queue_later(anchor, &beside, live, None)?;
        Ok(true)
    }

    fn queue_later(
        &mut self,
        anchor: Anchor,
        beside: &[Sibling],
        live: Option<Opened>,
        copies_of: Option<FileStat>,
    ) -> Result<(), TailError> {
        self.queue_in_order(later_parts(anchor, beside), anchor, live, copies_of)
    }

    /// Queues the parts that were written after the anchor, oldest first, and the live file.
    pub(super) fn queue_in_order(
        &mut self,
        mut parts: Vec<Sibling>,
        anchor: Anchor,
        live: Option<Opened>,
        copies_of: Option<FileStat>,
    ) -> Result<(), TailError> {
        let current = self.current_file();
        let is_copy = |part: &Sibling| self.is_copy_of(part, current);
        let Some((file, stat)) = live else {
            if let Some(stat) = current.and_then(|file| FileStat::of(file).ok()) {
                // What is longer holds more than a copy; what is empty is at best just being made.
                let is_longer = |part: &Sibling| part.stat.size > stat.size;
                parts.retain(|part| part.stat.size > 0 && (is_longer(part) || !is_copy(part)));
            }
            self.leave_out_copies(&mut parts);
            self.note_missing();
            self.queue_parts(parts, Some(anchor), None);
            return Ok(());
        };
        parts.retain(|part| !part.stat.is_same_inode(&stat) && !is_copy(part));
        let mut seen = self.without_copies_of(&file, stat, anchor, &mut parts);
        self.leave_out_copies(&mut parts);
        if copies_of.is_some()
            && let Some(newest) = parts.last()
        {
            seen = truncated_after(seen, &newest.stat);
        }
        let begun = end_of(anchor, &parts).filter(|begun| Some(*begun) > stat.birth);
        self.queue_parts(parts, Some(anchor), copies_of);
        self.note_present(&stat);
        self.queue_open(file, seen, copies_of.is_some(), begun)
    }

    fn declare_gone(&mut self, cursor: &TailCursor, beside: &[Sibling]) {
        let mut later = later_compressed(&self.options.path, cursor.modified, beside);
        later.sort_by_key(|part| part.stat.modified);
        let untouched = compressed_at(cursor.modified, beside);
        let path = &self.options.path;
        let is_what_was_read =
            |part: &&Sibling| unpacks_to(path, part, cursor.offset) == Some(true);
        let gone = |why| gap(cursor, cursor.offset, None, why);
        let own = match untouched {
            Some(_) if cursor.had_read_all() => None,
            Some(part) => Some(gone(compressed_as(part))),
            None if later.is_empty() => Some(gone(GapReason::Vanished)),
            None => Some(later.remove(0))
                .filter(|part| !(cursor.had_read_all() && is_what_was_read(part)))
                .map(|part| gone(compressed_as(part))),
        };
        self.events.extend(own);
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

    fn open_if_it_holds(
        &self,
        sibling: &Sibling,
        cursor: &TailCursor,
    ) -> Result<Option<Opened>, TailError> {
        let Some((file, stat)) = open_sibling(&self.options.path, sibling)? else {
            return Ok(None);
        };
        let holds = cursor
            .stands_in(&file, stat.size)
            .map_err(|error| TailError::from_io(&sibling.path, "read", error))?;
        Ok(holds.then_some((file, stat)))
    }

    /// Where to go on in the file that the cursor speaks of: behind what was read, or if that end is
    /// lost at the last mark before it.
    fn find_place(
        &mut self,
        file: &File,
        stat: &FileStat,
        cursor: &TailCursor,
    ) -> Result<Option<Followed>, TailError> {
        let reading = |error: io::Error| TailError::from_io(&self.options.path, "read", error);
        if cursor.stands_in(file, stat.size).map_err(reading)? {
            let file = file.try_clone().map_err(reading)?;
            return self.go_on(file, cursor).map(Some);
        }
        let key = cursor.file_key.as_deref();
        let rest = self.follow_from_mark(file, key, &cursor.head, &cursor.marks)?;
        let Some(mut rest) = rest else {
            return Ok(None);
        };
        rest.begun = cursor.begun;
        let why = GapReason::Truncated;
        self.events.push(truncated(cursor, None));
        self.events.push(gap(cursor, cursor.offset, None, why));
        self.remember_cursor(cursor);
        self.note_generation(&rest);
        self.moved = true;
        Ok(Some(rest))
    }

    fn go_on(&self, file: File, cursor: &TailCursor) -> Result<Followed, TailError> {
        let from_beginning = self.options.from_beginning;
        let offset = if from_beginning { 0 } else { cursor.offset };
        let mut followed = self.follow(file, offset)?;
        followed.key = cursor.file_key.as_deref().map(Into::into);
        followed.begun = cursor.begun;
        if !from_beginning {
            followed.marks.clone_from(&cursor.marks);
            add_mark(&mut followed.marks, cursor.offset, &cursor.tail);
        }
        Ok(followed)
    }

    fn remember_cursor(&mut self, cursor: &TailCursor) {
        if let Some(key) = &cursor.file_key {
            let (head, tail) = (cursor.head.clone(), cursor.tail.clone());
            self.remember_as(Passed::new(key, cursor.offset, head, tail));
        }
    }
}

/// Whether a sibling with the cursor's inode is its file, whatever it holds. Without birth times the number
/// may have come to another file by now, but hardly to one with the name of a part.
fn is_told_by_inode(cursor: &TailCursor, sibling: &Sibling) -> bool {
    sibling.name.is_some() || (cursor.birth.is_some() && sibling.stat.birth.is_some())
}

/// With two full prints the inode is not needed to recognise a file.
fn is_unmistakable(cursor: &TailCursor) -> bool {
    cursor.offset >= PRINT_BYTES as u64
}

fn truncated(cursor: &TailCursor, lost_bytes: Option<u64>) -> FileEvent {
    FileEvent::Truncated {
        inode: cursor.inode,
        read_to: cursor.offset,
        lost_bytes,
    }
}

fn gap(cursor: &TailCursor, from: u64, to: Option<u64>, why: GapReason) -> FileEvent {
    FileEvent::Gap {
        file_key: cursor.file_key.as_deref().map(Into::into),
        inode: cursor.inode,
        modified: cursor.modified,
        from,
        to,
        why,
    }
}
