//! Positional reading of one file: bytes in, complete lines out.
//!
//! A byte is read once and stays in the buffer until the line that holds it is handed out, so a
//! half line that grows is neither read nor searched twice. Over `max_line` the buffer is given up
//! and only the line's length is counted on: memory is bounded by `max_line` + one read.
//!
//! Every read is verified *after* it was made: the head of the file and the bytes just before the
//! read still have to be what they were. If they are, nothing was truncated before the read, and the
//! bytes belong to this generation of the file; if not, the read is dropped.

use std::fs::File;
use std::io;

use bytes::{Buf, Bytes, BytesMut};

use super::identity::{FileStat, PRINT_BYTES, Print, fill_at, read_at, reopened};
use super::{Line, LineKind};

/// What one look at the file brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Bytes came into the buffer.
    Read,
    /// Nothing new.
    End,
    /// What was read so far no longer stands in the file.
    Changed,
}

/// The part of an oversized line that was met so far.
#[derive(Debug)]
struct Skip {
    first: Bytes,
    length: u64,
    tail: Vec<u8>,
}

/// What was taken out of the buffer.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub lines: Vec<Line>,
    /// How many more lines were left out.
    pub skipped: u64,
}

/// One open file and the place in it.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// As of the last look that found nothing wrong.
    stat: FileStat,
    /// Where the first line begins that was not handed out.
    offset: u64,
    /// What was read and not handed out; begins at `offset`, or behind the skipped bytes.
    buffer: BytesMut,
    /// So many bytes at the front of the buffer hold no line end.
    searched: usize,
    skip: Option<Skip>,
    /// The first bytes of the file, as they were read.
    head: Vec<u8>,
    /// The last bytes before `offset`.
    before_offset: Vec<u8>,
    /// The last bytes before the read position.
    before_position: Vec<u8>,
    /// Bytes that stood behind the read position once and were cut off, since last asked.
    cut: Option<(u64, u64)>,
}

impl Reader {
    /// Goes on at `offset`, whose print the caller has compared.
    pub fn at(file: File, offset: u64) -> io::Result<Self> {
        let stat = FileStat::of(&file)?;
        let length = usize::try_from(offset).map_or(PRINT_BYTES, |all| all.min(PRINT_BYTES));
        let head = read_at(&file, 0, length)?;
        let before_offset = read_at(&file, offset - length as u64, length)?;
        Ok(Self {
            file,
            stat,
            offset,
            buffer: BytesMut::new(),
            searched: 0,
            skip: None,
            head,
            before_position: before_offset.clone(),
            before_offset,
            cut: None,
        })
    }

    /// The same file, read on from elsewhere.
    pub fn reopened_at(&self, offset: u64) -> io::Result<Self> {
        Self::at(self.file.try_clone()?, offset)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Up to where the file was read.
    pub fn position(&self) -> u64 {
        self.offset + self.skip.as_ref().map_or(0, |skip| skip.length) + self.buffer.len() as u64
    }

    /// Up to where the file is known to have reached.
    pub fn known_end(&self) -> u64 {
        self.stat.size.max(self.position())
    }

    pub fn head_print(&self) -> Print {
        let length = usize::try_from(self.offset).unwrap_or(usize::MAX);
        Print::of(&self.head[..self.head.len().min(length)])
    }

    pub fn tail_print(&self) -> Print {
        Print::of(&self.before_offset)
    }

    /// Whether another file begins with all that was read of this one.
    pub fn stands_in(&self, other: &File, size: u64) -> io::Result<bool> {
        let position = self.position();
        let length = self.before_position.len();
        Ok(position > 0
            && size >= position
            && read_at(other, 0, self.head.len())? == self.head
            && read_at(other, position - length as u64, length)? == self.before_position)
    }

    /// Takes a newer stat in, and notes when the file became shorter than it was.
    pub fn look(&mut self, stat: FileStat) {
        if stat.size < self.stat.size {
            self.cut = Some((stat.size, self.stat.size));
        }
        self.stat = stat;
    }

    /// Whether, unread as it is, it shows a new length and not yet the time of its truncation.
    pub fn is_being_truncated(&self, seen: &FileStat) -> bool {
        let modified = self.stat.modified;
        self.position() == 0
            && (modified < seen.modified || modified == seen.modified && self.cut.is_some())
    }

    /// Takes the file for what it was like at an earlier look.
    pub fn seen_as(&mut self, stat: FileStat) {
        self.stat = stat;
        self.cut = None;
    }

    /// Forgets what was read, all from the file's beginning and nothing handed out, and takes the
    /// file for what it was like then.
    pub fn unread(&mut self, stat: FileStat) {
        debug_assert_eq!(self.offset, 0, "lines were handed out");
        self.buffer.clear();
        self.searched = 0;
        self.skip = None;
        self.head.clear();
        self.before_position.clear();
        self.seen_as(stat);
    }

    /// A stretch that was seen to exist and was cut off before it was read.
    pub fn take_cut(&mut self) -> Option<(u64, u64)> {
        self.cut.take()
    }

    /// Reads on, at most `budget` bytes.
    pub fn fill(&mut self, budget: usize) -> io::Result<Fill> {
        let stat = FileStat::of(&self.file)?;
        let position = self.position();
        if stat.size < position {
            return Ok(Fill::Changed);
        }
        let wanted = usize::try_from(stat.size - position).map_or(budget, |left| left.min(budget));
        let held = self.buffer.len();
        self.buffer.resize(held + wanted, 0);
        let outcome = fill_at(&self.file, position, &mut self.buffer[held..])
            .and_then(|count| Ok((count, self.is_unchanged(position)?)));
        let (count, unchanged) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.buffer.truncate(held);
                return Err(error);
            }
        };
        if !unchanged {
            self.buffer.truncate(held);
            return Ok(Fill::Changed);
        }
        self.buffer.truncate(held + count);
        self.look(stat);
        let news = &self.buffer[held..];
        let missing = PRINT_BYTES - self.head.len();
        if self.head.len() as u64 == position {
            self.head
                .extend_from_slice(&news[..news.len().min(missing)]);
        }
        keep_tail(&mut self.before_position, news);
        Ok(if count == 0 { Fill::End } else { Fill::Read })
    }

    /// Opens the file anew; whether it has another length than was known. Where it cannot be opened,
    /// what is known has to do.
    pub fn is_changed_anew(&mut self) -> bool {
        let Ok((file, stat)) = reopened(&self.file) else {
            return false;
        };
        self.file = file;
        if stat.size != self.stat.size {
            return true;
        }
        self.stat = stat;
        false
    }

    /// Whether all that was read still stands in the file.
    pub fn is_intact(&self) -> io::Result<bool> {
        let position = self.position();
        Ok(FileStat::of(&self.file)?.size >= position && self.is_unchanged(position)?)
    }

    /// When all that was handed out still stands in the file, and only what was read behind it does not (a half
    /// line that was cut off): forgets that, and notes it as [cut](Self::take_cut). Else `false`.
    pub fn forget_unread(&mut self) -> io::Result<bool> {
        let stat = FileStat::of(&self.file)?;
        let offset = self.offset;
        if offset == 0 || stat.size < offset {
            return Ok(false);
        }
        let known = usize::try_from(offset).map_or(self.head.len(), |all| all.min(self.head.len()));
        let length = self.before_offset.len();
        if read_at(&self.file, 0, known)? != self.head[..known]
            || read_at(&self.file, offset - length as u64, length)? != self.before_offset
        {
            return Ok(false);
        }
        let end = self.known_end();
        let behind = offset + self.skip.as_ref().map_or(0, |skip| skip.length);
        let left = usize::try_from(stat.size.saturating_sub(behind)).unwrap_or(usize::MAX);
        let there = read_at(&self.file, behind, left.min(self.buffer.len()))?;
        let same = there.iter().zip(&self.buffer);
        let same = same.take_while(|(one, other)| one == other).count();
        let from = (behind + same as u64).min(stat.size);
        self.buffer.clear();
        self.searched = 0;
        self.skip = None;
        self.head.truncate(known);
        self.before_position.clone_from(&self.before_offset);
        self.stat = stat;
        self.cut = Some((from, end));
        Ok(true)
    }

    fn is_unchanged(&self, position: u64) -> io::Result<bool> {
        if read_at(&self.file, 0, self.head.len())? != self.head {
            return Ok(false);
        }
        let length = self.before_position.len();
        if length as u64 == position {
            // Short of one print the head is all there is.
            return Ok(true);
        }
        Ok(read_at(&self.file, position - length as u64, length)? == self.before_position)
    }

    /// Hands out the complete lines of the buffer, at most `max_lines`, and leaves out those that
    /// `skips` does not want.
    pub fn take_lines(
        &mut self,
        max_lines: usize,
        max_line: u64,
        skips: Option<fn(&[u8]) -> bool>,
    ) -> Taken {
        let mut taken = Taken::default();
        if self.skip.is_some() && !self.end_skip(&mut taken.lines) {
            return taken;
        }
        let mut ends = Vec::new();
        let mut start = 0;
        while taken.lines.len() + ends.len() < max_lines.max(1) {
            let Some(found) = line_end(&self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                break;
            };
            let end = self.searched + found;
            let is_skipped = skips.is_some_and(|skips| {
                (end - start) as u64 <= max_line && skips(&self.buffer[start..end])
            });
            if is_skipped {
                taken.skipped += 1;
            } else {
                ends.push((start, end));
            }
            start = end + 1;
            self.searched = start;
        }
        self.searched -= start;
        if start > 0 {
            keep_tail(&mut self.before_offset, &self.buffer[..start]);
            let offset = self.offset;
            let line = |start: usize, end: usize, bytes: Bytes| {
                let length = (end - start) as u64;
                let offset = offset + start as u64;
                Line::new(offset, bytes, length, max_line, LineKind::Complete)
            };
            if taken.skipped == 0 {
                let consumed = self.buffer.split_to(start).freeze();
                let lines = ends
                    .iter()
                    .map(|&(start, end)| (start, end, consumed.slice(start..end)));
                taken
                    .lines
                    .extend(lines.map(|(start, end, bytes)| line(start, end, bytes)));
            } else {
                // Few lines of a large buffer: a copy lets the buffer be used again.
                let copy = |&(start, end): &(usize, usize)| {
                    line(start, end, Bytes::copy_from_slice(&self.buffer[start..end]))
                };
                taken.lines.extend(ends.iter().map(copy));
                self.buffer.advance(start);
            }
            self.offset += start as u64;
        }
        // The head that is kept has to be whole: the file's key may be made of it.
        let without_end = self.searched == self.buffer.len();
        if without_end && self.buffer.len() as u64 > max_line.max(PRINT_BYTES as u64) {
            let mut tail = self.before_offset.clone();
            keep_tail(&mut tail, &self.buffer);
            self.skip = Some(Skip {
                first: first_bytes(&self.buffer),
                length: self.buffer.len() as u64,
                tail,
            });
            self.buffer = BytesMut::new();
            self.searched = 0;
        }
        taken
    }

    /// Looks for the end of the oversized line; whether it was found.
    fn end_skip(&mut self, lines: &mut Vec<Line>) -> bool {
        let Some(mut skip) = self.skip.take() else {
            return true;
        };
        let Some(end) = line_end(&self.buffer) else {
            skip.length += self.buffer.len() as u64;
            keep_tail(&mut skip.tail, &self.buffer);
            self.skip = Some(skip);
            self.buffer.clear();
            return false;
        };
        let length = skip.length + end as u64;
        lines.push(Line {
            offset: self.offset,
            bytes: skip.first,
            kind: LineKind::Oversized { length },
        });
        keep_tail(&mut skip.tail, &self.buffer[..=end]);
        self.before_offset = skip.tail;
        self.buffer.advance(end + 1);
        self.offset += length + 1;
        true
    }

    /// The last line of a file that will not grow any more, should it lack its end.
    pub fn take_unterminated(&mut self, max_line: u64) -> Option<Line> {
        let position = self.position();
        let length = position - self.offset;
        if length == 0 {
            return None;
        }
        let line = match self.skip.take() {
            Some(skip) => Line {
                offset: self.offset,
                bytes: skip.first,
                kind: LineKind::Oversized { length },
            },
            None => Line::new(
                self.offset,
                self.buffer.split().freeze(),
                length,
                max_line,
                LineKind::Unterminated,
            ),
        };
        self.buffer.clear();
        self.searched = 0;
        self.offset = position;
        self.before_offset.clone_from(&self.before_position);
        Some(line)
    }
}

impl Line {
    fn new(offset: u64, bytes: Bytes, length: u64, max_line: u64, kind: LineKind) -> Self {
        if length <= max_line {
            return Self {
                offset,
                bytes,
                kind,
            };
        }
        Self {
            offset,
            bytes: first_bytes(&bytes),
            kind: LineKind::Oversized { length },
        }
    }
}

/// A copy, so that the head of a huge line does not keep its buffer alive.
fn first_bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len().min(PRINT_BYTES)])
}

fn keep_tail(tail: &mut Vec<u8>, news: &[u8]) {
    if news.len() >= PRINT_BYTES {
        tail.clear();
        tail.extend_from_slice(&news[news.len() - PRINT_BYTES..]);
        return;
    }
    tail.extend_from_slice(news);
    let excess = tail.len().saturating_sub(PRINT_BYTES);
    tail.drain(..excess);
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "reader_tests.rs"]
mod tests;
