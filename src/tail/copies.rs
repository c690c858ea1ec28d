//! Copied and truncated: which of the files beside are copies of what stood in a file before.
//!
//! Content tells a copy as soon as [`PRINT_BYTES`] of it were read; before that the times have to do.
//! Nothing here relies on looking at a quiet moment: a copy may be just being made, of what still
//! stands in the file, and a truncation may be half done.

use std::cmp::Reverse;
use std::fs::File;

use super::followed::{Followed, Queued, newest_stat};
use super::identity::{FileStat, PRINT_BYTES};
use super::rotation::{
    Anchor, Sibling, compressed_at, is_copy, later_compressed_or_copied, later_parts, open_sibling,
    try_open_sibling, unpacks_to,
};
use super::tailer::Tailer;
use super::watch::{compressed_as, compressed_gap};
use super::{FileEvent, GapReason, TailError};

impl Tailer {
    /// Another content stands in the current file: what a copy of it still holds is read from there,
    /// then the file from its beginning.
    pub(super) fn begin_generation(&mut self) -> Result<(), TailError> {
        if self.go_on_at_mark()? {
            return Ok(());
        }
        let Some(current) = &self.current else {
            return Ok(());
        };
        // What happens after this look is found when the file is read.
        let stat = newest_stat(&current.reader);
        let beside = self.beside_if_permitted()?;
        let last_seen = current.reader.stat();
        let named = current.copy_of.unwrap_or(*last_seen);
        let offset = current.reader.offset();
        let position = current.reader.position();
        let is_unmistakable = position >= PRINT_BYTES as u64;
        // What stands in nothing was not copied from it.
        let is_empty = stat.size < position && self.is_live(&stat);
        let mut unopened: Option<(FileStat, TailError)> = None;
        let copy = beside
            .iter()
            .filter(|sibling| is_readable_part(sibling) && !sibling.stat.is_same_inode(&stat))
            .filter(|sibling| {
                sibling.stat.size >= position
                    && may_be_copy_of(last_seen, current.begun, position, &sibling.stat)
                    && (is_unmistakable || is_empty || was_made_before_end_of(&stat, &sibling.stat))
            })
            .filter_map(|sibling| {
                match open_sibling(&self.options.path, sibling) {
                    Ok(opened) => opened,
                    Err(error) => {
                        // The first that was made is the likeliest.
                        let is_first =
                            |(other, _): &(FileStat, _)| sibling.stat.birth < other.birth;
                        if unopened.as_ref().is_none_or(is_first) {
                            unopened = Some((sibling.stat, error));
                        }
                        None
                    }
                }
            })
            .filter(|(file, stat)| current.reader.stands_in(file, stat.size).unwrap_or(false))
            .max_by_key(|(_, copy)| likeliest_copy(position, last_seen.modified, copy));
        // That may be the copy: who may open it can tell.
        if copy.is_none()
            && let Some((awaited, error)) = unopened
        {
            if let Some(current) = &mut self.current {
                current.awaited_copy.get_or_insert(awaited);
            }
            return Err(error);
        }
        let is_there = |awaited: &FileStat| {
            (beside.iter()).any(|sibling| {
                sibling.stat.is_same_inode(awaited) && sibling.stat.birth == awaited.birth
            })
        };
        let awaited = current.awaited_copy.filter(|_| copy.is_none());
        let awaited_is_gone = awaited.is_some_and(|awaited| !is_there(&awaited));
        let anchor = match &copy {
            Some((_, copy)) => after_copy(last_seen, current.begun, copy, &beside),
            None => written_since(last_seen.modified),
        };
        let copy_stat = copy.as_ref().map(|(_, stat)| *stat);
        let mut parts = later_parts(anchor, &beside);
        parts.retain(|part| {
            was_made_before_end_of(&stat, &part.stat)
                && !part.stat.is_same_inode(&stat)
                && !self.is_known(&part.stat)
                && copy_stat.is_none_or(|copy| !copy.is_same_inode(&part.stat))
        });
        let seen = self.without_copies_of(current.reader.file(), stat, anchor, &mut parts);
        let newest = parts.last().map(|part| part.stat).or(copy_stat);
        let seen = newest.map_or(seen, |copy| truncated_after(seen, &copy));
        let begun = end_of(anchor, &parts).max(current.begun);
        // Whatever can fail comes before the first change.
        let file = current.reader.file().try_clone();
        let file = file.map_err(|error| TailError::from_io(&self.options.path, "read", error))?;
        let mut renewed = self.follow(file, 0)?;
        renewed.reader.seen_as(seen);
        renewed.fresh = true;
        renewed.begun = begun;
        let rest = match copy {
            Some((file, stat)) if stat.size > offset => {
                let mut rest = self.follow(file, offset)?;
                rest.key.clone_from(&current.key);
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
        // What was seen to stand in the file and is behind the copy's end is in neither. What stood in
        // a copy that nobody could open and that is gone, nobody knows.
        let from = copy_stat.map_or(offset, |copy| copy.size.max(offset));
        let to = (!awaited_is_gone).then(|| finished.reader.known_end());
        match copy_stat {
            Some(_) => self.declare_cut(&finished, from, to, None),
            None => self.declare_cut_or_compressed(&finished, to, &beside),
        }
        self.remember(&finished);
        self.moved = true;
        let after = std::mem::take(&mut self.queue);
        self.queue_parts(parts, Some(anchor), Some(named));
        self.queue.push_back(Queued::Open(Box::new(renewed)));
        self.queue.extend(after);
        Ok(())
    }

    /// A file was cut off of which no copy can be read: what nobody saw of it stands in a compressed one,
    /// if there is any.
    fn declare_cut_or_compressed(
        &mut self,
        finished: &Followed,
        to: Option<u64>,
        beside: &[Sibling],
    ) {
        let (offset, modified) = (finished.reader.offset(), finished.reader.stat().modified);
        let path = &self.options.path;
        let mut later = later_compressed_or_copied(path, modified, beside);
        later.sort_by_key(|part| part.stat.modified);
        let copy = match compressed_at(modified, beside) {
            // As it was last seen, unless it was written once more just before it was copied.
            Some(copy) => (unpacks_to(path, copy, offset) == Some(false)).then_some(copy),
            None if later.is_empty() => None,
            None => Some(later.remove(0)).filter(|copy| self.is_unread(copy, offset)),
        };
        self.declare_cut(finished, offset, to, copy);
        later.retain(|part| self.is_unread(part, offset));
        self.events.extend(later.into_iter().map(compressed_gap));
    }

    /// A file was cut off; what stood in it from there on is lost, up to its end where that is known, or stands in a
    /// compressed copy.
    pub(super) fn declare_cut(
        &mut self,
        finished: &Followed,
        from: u64,
        to: Option<u64>,
        copy: Option<&Sibling>,
    ) {
        let stat = newest_stat(&finished.reader);
        let (to, why) = match copy {
            Some(copy) => (None, compressed_as(copy)),
            None => (to, GapReason::Truncated),
        };
        let lost = to.map(|to| to.saturating_sub(from));
        self.events.push(FileEvent::Truncated {
            inode: stat.inode,
            read_to: finished.reader.offset(),
            lost_bytes: lost,
        });
        if lost != Some(0) {
            self.events.push(FileEvent::Gap {
                file_key: finished.key.clone(),
                inode: stat.inode,
                modified: stat.modified,
                from,
                to,
                why,
            });
        }
    }

    /// After the first read of a file: it may have been copied and truncated since it was `seen`,
    /// which its content cannot tell. Copies made since go first, and the file is read again after
    /// them; whether there were any.
    ///
    /// Asked after the read and not before, so that nothing can happen in between.
    pub(super) fn queue_missed_copies(&mut self, seen: FileStat) -> Result<bool, TailError> {
        let Some(current) = &self.current else {
            return Ok(false);
        };
        let now = newest_stat(&current.reader);
        if current.copy_of.is_some() || now.modified <= seen.modified {
            return Ok(false);
        }
        if !self.is_live(&now) {
            // It was renamed away: what was created since took its place.
            return Ok(false);
        }
        let beside = self.beside_if_permitted();
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        let beside = beside.inspect_err(|_| current.reader.unread(seen))?;
        self.declare_compressed_since(seen.modified, &beside);
        let anchor = written_since(seen.modified);
        let mut parts = later_parts(anchor, &beside);
        parts.retain(|part| {
            // Of an empty file nothing can have been copied that still stands in it.
            (now.size == 0 || was_made_before_end_of(&now, &part.stat))
                && !self.is_known(&part.stat)
                && !self.was_read_to_its_end(part)
        });
        let Some(mut current) = self.current.take() else {
            return Ok(false);
        };
        let older = self.without_copies_of(current.reader.file(), now, anchor, &mut parts);
        let Some(newest) = parts.last() else {
            if current.reader.position() == 0 && now.size > 0 && older != now {
                // Something came after the read, of which there is a copy.
                current.reader.seen_as(seen);
            }
            self.current = Some(current);
            return Ok(false);
        };
        // What it was like before is in a copy, and not cut off.
        current.reader.unread(truncated_after(older, &newest.stat));
        let begun = end_of(anchor, &parts);
        current.begun = current.begun.max(begun);
        let after = std::mem::take(&mut self.queue);
        self.queue_parts(parts, Some(anchor), Some(seen));
        self.queue.push_back(Queued::Open(Box::new(current)));
        self.queue.extend(after);
        Ok(true)
    }

    /// Leaves out copies of what still stands in an unread file: they are none of what stood there
    /// before. Should the file be truncated before it is read, they become that, so this gives what
    /// to take it as seen as for them to be found then.
    pub(super) fn without_copies_of(
        &self,
        unread: &File,
        mut seen: FileStat,
        after: Anchor,
        parts: &mut Vec<Sibling>,
    ) -> FileStat {
        let mut made = None;
        parts.retain(|part| {
            // An empty one is at best just being made.
            let is_copy = part.stat.size == 0
                || try_open_sibling(&self.options.path, part)
                    .is_some_and(|(part, _)| is_copy(&part, unread).unwrap_or(false));
            if is_copy {
                let birth = part.stat.birth.unwrap_or(part.stat.modified);
                made = Some(made.map_or(birth, |made: i64| made.min(birth)));
            }
            !is_copy
        });
        if let Some(made) = made {
            // And nothing that stood before it again.
            let kept = parts.iter().map(|part| part.stat.modified).max();
            let known = [kept, after.birth, Some(after.modified), seen.birth];
            let before = known.into_iter().flatten().fold(made - 1, i64::max);
            seen.modified = seen.modified.min(before);
        }
        seen
    }
}

pub(super) fn is_readable_part(sibling: &Sibling) -> bool {
    sibling
        .name
        .as_ref()
        .is_some_and(|name| name.compressed_from.is_none())
}

/// Whatever was created strictly after that: a copy made at the very moment may be of what was read.
pub(super) fn written_since(modified: i64) -> Anchor {
    let after = modified.saturating_add(1);
    Anchor {
        birth: Some(after),
        modified: after,
        number: None,
    }
}

/// A copy was created after the content it is a copy of began. Where nobody knows when that was, it is
/// not older than what was last seen of it; nor is one that was written over an earlier copy, which
/// only content can tell then: enough of it, or all of the copy.
pub(super) fn may_be_copy_of(
    seen: &FileStat,
    begun: Option<i64>,
    read_to: u64,
    copy: &FileStat,
) -> bool {
    match is_older_than_content(seen, begun, copy) {
        Some(false) => true,
        Some(true) if read_to < PRINT_BYTES as u64 && copy.size != read_to => false,
        _ => copy.modified >= seen.modified,
    }
}

fn is_older_than_content(seen: &FileStat, begun: Option<i64>, copy: &FileStat) -> Option<bool> {
    let begun = seen.birth.max(begun)?;
    Some(copy.birth? < begun)
}

/// What is later than a copy. The birth of one that was written over an earlier one tells nothing.
pub(super) fn after_copy(
    seen: &FileStat,
    begun: Option<i64>,
    copy: &FileStat,
    beside: &[Sibling],
) -> Anchor {
    let anchor = Anchor::new(copy, beside);
    match is_older_than_content(seen, begun, copy) {
        Some(true) => anchor.begun(Some(seen.modified)),
        _ => anchor,
    }
}

/// Of several copies the longest; but as long as so little was read that any file may begin alike,
/// the one made first, unless the file was seen to be written after that.
pub(super) fn likeliest_copy(
    read_to: u64,
    seen: i64,
    copy: &FileStat,
) -> (u64, bool, Reverse<i64>) {
    let made = copy.birth.unwrap_or(copy.modified);
    let size = match read_to >= PRINT_BYTES as u64 {
        true => copy.size,
        false => 0,
    };
    (size, copy.modified >= seen, Reverse(made))
}

/// Copies of a truncated file were made before it was written or truncated last; a file that took
/// its place was created later.
pub(super) fn was_made_before_end_of(truncated: &FileStat, part: &FileStat) -> bool {
    part.birth.is_none_or(|birth| birth <= truncated.modified)
}

/// A file was truncated after its copy was made, though what was `seen` of it may be from just before
/// or, as a file system may show the new length before the new time (ext4 does), from the midst of it.
pub(super) fn truncated_after(seen: FileStat, copy: &FileStat) -> FileStat {
    let made = copy.modified.max(copy.birth.unwrap_or(copy.modified));
    if made <= seen.modified {
        return seen;
    }
    FileStat {
        modified: made,
        size: 0,
        ..seen
    }
}

/// A content that began after the anchor and all parts found later than it.
pub(super) fn end_of(anchor: Anchor, parts: &[Sibling]) -> Option<i64> {
    let births = parts.iter().filter_map(|part| part.stat.birth);
    let newest = births.chain(anchor.birth).max()?;
    Some(newest.saturating_add(1))
}
