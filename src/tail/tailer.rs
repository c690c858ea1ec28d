//! Which file is read, and where in it.
//!
//! `current` is read to its end; `queue` holds, oldest first, what was written after it, the live file
//! last. The queue grows when another file is seen at the path, and a descriptor is held from then on,
//! so that a rotated file can be deleted without loss once it was seen. `current` is let go when it
//! is drained, something waits in the queue, and it stayed as it was for the grace.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::cursor::{PASSED_LIMIT, Passed, TailCursor, generation};
use super::followed::{Followed, Queued, newest_stat};
use super::forgotten::Forgotten;
use super::gather::Gathered;
use super::identity::{FileStat, PRINT_BYTES, base_key};
use super::marks::add_mark;
use super::reader::{Fill, Taken};
use super::rotation::Sibling;
use super::watch::Absence;
use super::{Chunk, FileEvent, GapReason, Line, Step, TailError, TailOptions};

/// Reads of one step. It may end without a line: the end of an oversized line is looked for, or
/// nobody wants what is read.
const READS_PER_STEP: usize = 256;

/// Bytes of one read: few enough to stay in a processor's cache until they are looked at.
const READ_BYTES: usize = 256 << 10;

/// Follows one path through its rotations. Blocking; `Send`.
#[derive(Debug)]
pub struct Tailer {
    pub(super) options: TailOptions,
    /// Where to go on, until the file it speaks of was looked for.
    pub(super) resume: Option<TailCursor>,
    pub(super) current: Option<Followed>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) passed: Vec<Passed>,
    pub(super) forgotten: Forgotten,
    pub(super) events: Vec<FileEvent>,
    pub(super) missing: bool,
    pub(super) absence: Option<Absence>,
    pub(super) appeared: bool,
    pub(super) moved: bool,
}

impl Tailer {
    /// Prepares to go on at the cursor, or at the beginning of the live file; does no I/O.
    pub fn open(options: TailOptions, cursor: Option<TailCursor>) -> Self {
        let memory = |cursor: &TailCursor| (cursor.passed.clone(), cursor.forgotten.clone());
        let (passed, forgotten) = cursor.as_ref().map(memory).unwrap_or_default();
        Self {
            options,
            resume: cursor,
            current: None,
            queue: VecDeque::new(),
            passed,
            forgotten,
            events: Vec::new(),
            missing: false,
            absence: None,
            appeared: false,
            moved: false,
        }
    }

    /// Looks and reads once. Calling again acknowledges what was handed out before.
    ///
    /// # Errors
    /// When something other than a readable file stands at the path, or reading fails. What is left
    /// of the files already open is handed out first; calling again tries again.
    pub fn step(&mut self) -> Result<Step, TailError> {
        self.step_at(Instant::now())
    }

    /// [`Tailer::step`] at a given time, which only the grace is measured with.
    ///
    /// # Errors
    /// As [`Tailer::step`].
    pub fn step_at(&mut self, now: Instant) -> Result<Step, TailError> {
        let mut trouble = None;
        match &self.current {
            None if self.queue.is_empty() => {
                if let Some(first_look) = self.establish()? {
                    self.moved = false;
                    return Ok(Step::Idle {
                        events: std::mem::take(&mut self.events),
                        cursor_after: Some(first_look),
                    });
                }
            }
            // First the copies of what is gone, then what came after.
            Some(current) if !current.reader.is_intact().unwrap_or(true) => {}
            _ => trouble = self.watch_path().err(),
        }
        let mut gathered = Gathered::default();
        let mut begun: Option<Instant> = None;
        for _ in 0..READS_PER_STEP {
            let Some(current) = &mut self.current else {
                if self.advance()? {
                    continue;
                }
                break;
            };
            if gathered.is_empty() {
                gathered.from = current.reader.offset();
            }
            let room = self.options.max_lines.max(1) - gathered.lines.len();
            // The first lines make the file's key, whoever wants them.
            let skips = current.key.as_ref().and(self.options.skips);
            let taken = current
                .reader
                .take_lines(room, self.options.max_line, skips);
            let begins = current.key.is_none() && !taken.lines.is_empty();
            if begins && self.key_for(&taken.lines).is_none() {
                continue;
            }
            gathered.add(taken);
            let is_late = begun.is_some_and(|begun| begun.elapsed() >= self.options.step_time);
            if is_late || gathered.fills(&self.options, READ_BYTES) {
                break;
            }
            let Some(current) = &mut self.current else {
                continue;
            };
            let unread = (current.reader.position() == 0).then(|| *current.reader.stat());
            begun.get_or_insert_with(Instant::now);
            let fill = current
                .reader
                .fill(self.options.chunk_bytes.clamp(1, READ_BYTES))
                .map_err(|error| TailError::from_io(&self.options.path, "read", error));
            // What is in hand comes first; the next step meets the same again.
            if !gathered.is_empty() && !matches!(fill, Ok(Fill::Read)) {
                break;
            }
            let fill = match fill {
                // A handle that a file server has forgotten does not come back; the file may.
                Err(TailError::Io { source, .. })
                    if source.kind() == ErrorKind::StaleNetworkFileHandle =>
                {
                    self.resume = self.cursor();
                    self.current = None;
                    self.queue.clear();
                    break;
                }
                fill => fill?,
            };
            if let Some(seen) = unread {
                if self.queue_missed_copies(seen)? {
                    continue;
                }
                if let Some(current) = &mut self.current
                    && self.queue.is_empty()
                    && current.reader.is_being_truncated(&seen)
                {
                    current.reader.seen_as(seen);
                    break;
                }
            }
            let Some(current) = &mut self.current else {
                continue;
            };
            if gathered.is_empty()
                && let Some((from, to)) = current.reader.take_cut()
            {
                let stat = *current.reader.stat();
                let file_key = current.key.clone();
                self.events.push(FileEvent::Gap {
                    file_key,
                    inode: stat.inode,
                    modified: stat.modified,
                    from,
                    to: Some(to),
                    why: GapReason::Truncated,
                });
            }
            match fill {
                Fill::Read => current.quiet = None,
                Fill::Changed => {
                    let forgotten = current.reader.forget_unread();
                    if forgotten
                        .map_err(|error| TailError::from_io(&self.options.path, "read", error))?
                    {
                        continue;
                    }
                    self.begin_generation()?;
                    trouble = self.watch_path().err();
                }
                Fill::End => {
                    if self.queue.is_empty() {
                        break;
                    }
                    if current.reader.is_changed_anew() {
                        continue;
                    }
                    if !current.is_finished(now, self.options.grace) {
                        break;
                    }
                    if let Some(line) = current.reader.take_unterminated(self.options.max_line) {
                        let lines = vec![line];
                        if self.key_for(&lines).is_some() {
                            gathered.add(Taken { lines, skipped: 0 });
                            break;
                        }
                        continue;
                    }
                    self.advance()?;
                }
            }
        }
        if !gathered.is_empty()
            && let Some(chunk) = self.chunk(gathered)
        {
            return Ok(Step::Lines(chunk));
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let cursor_after = std::mem::take(&mut self.moved)
            .then(|| self.cursor())
            .flatten();
        Ok(Step::Idle {
            events: std::mem::take(&mut self.events),
            cursor_after,
        })
    }

    /// Looks without reading: what takes the place of the live file is opened and held, and so may be
    /// moved away and deleted before it is read. Trouble is left for the next [`Tailer::step`].
    ///
    /// Acknowledges nothing.
    pub fn watch(&mut self) {
        if let Some(current) = &mut self.current {
            let stat = newest_stat(&current.reader);
            if !current.reader.is_intact().unwrap_or(true) {
                // First the copies of what is gone, then what came after: that is for the next step.
                return;
            }
            // What was seen and is then cut off is a gap; before the first byte the next step compares.
            if current.reader.position() > 0 {
                current.reader.look(stat);
            }
        }
        if self.current.is_some() || !self.queue.is_empty() {
            let _found_again_by_the_next_step = self.watch_path();
        }
    }

    /// Whether no live file was there at the last look.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// After an idle step: how many bytes stand behind the last complete line of the current file.
    pub fn half_line_bytes(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| {
            current.reader.position() - current.reader.offset()
        })
    }

    /// Where the next chunk begins; `None` before the first look.
    pub fn cursor(&self) -> Option<TailCursor> {
        let Some(current) = &self.current else {
            return self.resume.clone();
        };
        let reader = &current.reader;
        let stat = current.named_stat();
        Some(TailCursor {
            device: stat.device,
            inode: stat.inode,
            birth: stat.birth,
            begun: current.begun,
            head: reader.head_print(),
            tail: reader.tail_print(),
            file_key: current.key.as_deref().map(str::to_owned),
            offset: reader.offset(),
            marks: current.marks.clone(),
            size: stat.size,
            modified: stat.modified,
            passed: self.passed.clone(),
            forgotten: self.forgotten.clone(),
            awaited: None,
        })
    }

    pub(super) fn current_file(&self) -> Option<&File> {
        self.current.as_ref().map(|current| current.reader.file())
    }

    /// Inode and offset of the next line; `None` before a file was found.
    pub fn position(&self) -> Option<(u64, u64)> {
        let current = self.current.as_ref()?;
        Some((current.named_stat().inode, current.reader.offset()))
    }

    /// Bytes known to stand unread in the current file and in those after it.
    pub fn bytes_behind(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| {
            let end = current
                .reader
                .known_end()
                .max(newest_stat(&current.reader).size);
            end - current.reader.offset()
        });
        let queued: u64 = self
            .queue
            .iter()
            .map(|queued| queued.fresh_stat().size)
            .sum();
        current + queued
    }

    fn chunk(&mut self, gathered: Gathered) -> Option<Chunk> {
        let file_key = self.current.as_ref()?.key.clone()?;
        self.moved = false;
        let cursor_after = self.cursor()?;
        if let Some(current) = &mut self.current {
            add_mark(&mut current.marks, cursor_after.offset, &cursor_after.tail);
        }
        Some(Chunk {
            lines: gathered.lines,
            skipped: gathered.skipped,
            file_key,
            inode: cursor_after.inode,
            bytes: cursor_after.offset - gathered.from,
            cursor_after,
            events: std::mem::take(&mut self.events),
        })
    }

    /// The current file's key, made from its first line when that comes; `None` when the file turned
    /// out to be one that was read before and the reader went on to the place reached then.
    fn key_for(&mut self, lines: &[Line]) -> Option<Arc<str>> {
        let current = self.current.as_mut()?;
        if let Some(key) = &current.key {
            return Some(key.clone());
        }
        let size = current.reader.stat().size;
        let stat = *current.named_stat();
        let first_line = lines.first().map_or(&[][..], |line| &line.bytes);
        let base = base_key(stat.inode, stat.birth, first_line);
        // What was passed last stood in this file only if that was truncated. Others may be one of the forgotten
        // that comes back; and after a restart `fresh` does not tell.
        let same_inode = format!("{}-", stat.inode);
        let last = self.passed.last();
        let was_truncated = last.is_some_and(|passed| passed.key.starts_with(&same_inode));
        let mut newest = match current.fresh && was_truncated {
            true => self.forgotten.newest_of(&base),
            false => 0,
        };
        for passed in self.passed.iter().rev() {
            let (passed_base, number) = generation(&passed.key);
            if passed_base != base {
                continue;
            }
            newest = newest.max(number);
            // A file that cannot be compared counts as new: a repeat is harmless, a loss is not.
            let comes_back = (!current.fresh || passed.offset >= PRINT_BYTES as u64)
                && passed
                    .stands_in(current.reader.file(), size)
                    .unwrap_or(false);
            if comes_back && current.begin_at(passed.offset, Some(passed.key.as_str().into())) {
                return None;
            }
        }
        let key: Arc<str> = match newest {
            0 => base.into(),
            newest => format!("{base}~{}", newest + 1).into(),
        };
        if current.fresh || newest > 0 {
            self.events.push(FileEvent::NewGeneration {
                inode: stat.inode,
                file_key: key.clone(),
            });
        }
        current.key = Some(key.clone());
        Some(key)
    }

    /// Lets the current file go and turns to the next; whether there was one.
    ///
    /// # Errors
    /// When the next one stands there and cannot be opened; it stays the next.
    fn advance(&mut self) -> Result<bool, TailError> {
        while let Some(queued) = self.queue.pop_front() {
            let mut next = match queued {
                Queued::Open(followed) => *followed,
                Queued::Closed(unopened) => match unopened.open(&self.options.path) {
                    // It could not be compared before.
                    Ok(Some(_))
                        if unopened.copy_of.is_none()
                            && (self.is_copy_of_a_neighbour(&unopened.part)
                                || self.was_read_to_its_end(&unopened.part)) =>
                    {
                        continue;
                    }
                    Ok(Some(followed)) => followed,
                    Ok(None) => {
                        let stat = &unopened.part.stat;
                        self.events.push(FileEvent::Gap {
                            file_key: None,
                            inode: stat.inode,
                            modified: stat.modified,
                            from: 0,
                            to: Some(stat.size),
                            why: GapReason::Vanished,
                        });
                        continue;
                    }
                    Err(error) => {
                        self.queue.push_front(Queued::Closed(unopened));
                        return Err(error);
                    }
                },
            };
            // As an editor or rsync leaves it. What was rotated keeps its lines under a name of its own.
            let is_replaced = self.current.as_ref().is_some_and(|finished| {
                next.holds_all_of(finished) && !self.is_a_part(finished.reader.file())
            });
            let replaced = self
                .current
                .take_if(|finished| is_replaced && next.goes_on_after(finished));
            self.moved |= replaced.is_some();
            if let Some(finished) = self.current.take() {
                let from_inode = finished.reader.stat().inode;
                let to_inode = next.reader.stat().inode;
                if from_inode != to_inode && finished.copy_of.is_none() {
                    self.events.push(FileEvent::Rotated {
                        from_inode,
                        to_inode,
                    });
                }
                self.remember(&finished);
                self.moved = true;
            }
            self.current = Some(next);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether a file has the name of a part now, as far as its directory may be read.
    fn is_a_part(&self, file: &File) -> bool {
        let (Ok(stat), Ok(beside)) = (FileStat::of(file), self.beside_if_permitted()) else {
            return true;
        };
        let is_it = |sibling: &Sibling| sibling.name.is_some() && sibling.stat.is_same_inode(&stat);
        beside.iter().any(is_it)
    }

    /// Whether a part is a copy of the current file or of the next one that is held open.
    fn is_copy_of_a_neighbour(&self, part: &Sibling) -> bool {
        let next = self.queue.iter().find_map(Queued::file);
        [self.current_file(), next]
            .into_iter()
            .any(|file| !self.goes_beyond(part, file))
    }

    pub(super) fn remember(&mut self, finished: &Followed) {
        if let Some(key) = &finished.key {
            self.remember_as(Passed::new(
                key,
                finished.reader.offset(),
                finished.reader.head_print(),
                finished.reader.tail_print(),
            ));
        }
    }

    pub(super) fn remember_as(&mut self, finished: Passed) {
        self.passed.retain(|passed| passed.key != finished.key);
        self.passed.push(finished);
        let excess = self.passed.len().saturating_sub(PASSED_LIMIT);
        for passed in self.passed.drain(..excess) {
            self.forgotten.add(&passed.key);
        }
    }
}
