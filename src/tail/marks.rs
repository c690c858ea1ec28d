//! Places before the offset at which content is known again that has lost its end.
//!
//! Nobody syncs a log: after a power cut it is shorter than what was read of it, or other lines stand
//! there by now. Marks are earlier ends of chunks, the fewer the farther from the end, so that no more
//! comes twice than a few times what was lost.

use std::fs::File;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cursor::{generation, stands_before};
use super::followed::Followed;
use super::identity::{PRINT_BYTES, Print};
use super::tailer::Tailer;
use super::{FileEvent, TailError};

/// How many marks are kept.
pub(super) const MARKS_LIMIT: usize = 16;
/// A mark is at most so many times as far from the end as the next one, if the chunks are alike.
const SPREAD: u64 = 4;

/// An earlier end of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Where it was.
    pub offset: u64,
    /// Print of the bytes before it, abbreviated.
    pub print: Print,
}

/// Adds the end of a chunk to marks, the farthest from it first, and leaves out what can be spared.
pub(super) fn add_mark(marks: &mut Vec<Mark>, end: u64, tail: &Print) {
    if (tail.len as usize) < PRINT_BYTES {
        return;
    }
    marks.retain(|mark| mark.offset < end);
    marks.push(Mark {
        offset: end,
        print: tail.clone().abbreviated(),
    });
    for index in (1..marks.len() - 1).rev() {
        let distance = |index: usize| end - marks[index].offset;
        if distance(index - 1) <= SPREAD * distance(index + 1) {
            marks.remove(index);
        }
    }
    let excess = marks.len().saturating_sub(MARKS_LIMIT);
    marks.drain(..excess);
}

/// How many of the marks stand in the file.
fn count_standing(file: &File, head: &Print, marks: &[Mark]) -> io::Result<usize> {
    if !head.stands_at(file, 0)? {
        return Ok(0);
    }
    for (index, mark) in marks.iter().enumerate().rev() {
        if stands_before(&mark.print, file, mark.offset)? {
            return Ok(index + 1);
        }
    }
    Ok(0)
}

impl Tailer {
    /// Where the current file has lost its end, goes on at the last mark before; whether there is one.
    pub(super) fn go_on_at_mark(&mut self) -> Result<bool, TailError> {
        let Some(current) = &self.current else {
            return Ok(false);
        };
        if current.copy_of.is_some() {
            return Ok(false);
        }
        let (reader, key) = (&current.reader, current.key.as_deref());
        let head = reader.head_print();
        let rest = self.follow_from_mark(reader.file(), key, &head, &current.marks)?;
        let Some(mut rest) = rest else {
            return Ok(false);
        };
        rest.begun = current.begun;
        let Some(finished) = self.current.take() else {
            return Ok(false);
        };
        let (from, to) = (finished.reader.offset(), finished.reader.known_end());
        self.declare_cut(&finished, from, Some(to), None);
        self.remember(&finished);
        self.note_generation(&rest);
        self.current = Some(rest);
        self.moved = true;
        Ok(true)
    }

    /// Follows a file from the last mark that stands in it. What comes there gets the next key: at the
    /// same offsets other lines may have stood.
    pub(super) fn follow_from_mark(
        &self,
        file: &File,
        key: Option<&str>,
        head: &Print,
        marks: &[Mark],
    ) -> Result<Option<Followed>, TailError> {
        let reading = |error: io::Error| TailError::from_io(&self.options.path, "read", error);
        let standing = count_standing(file, head, marks).map_err(reading)?;
        let (Some(mark), Some(key)) = (marks[..standing].last(), key) else {
            return Ok(None);
        };
        let file = file.try_clone().map_err(reading)?;
        let mut followed = self.follow(file, mark.offset)?;
        followed.key = Some(self.next_key(key));
        followed.marks = marks[..standing].to_vec();
        Ok(Some(followed))
    }

    fn next_key(&self, key: &str) -> Arc<str> {
        let (base, own) = generation(key);
        let forgotten = self.forgotten.newest_of(base);
        let known = self.passed.iter().map(|passed| generation(&passed.key));
        let newest = known
            .filter(|(other, _)| *other == base)
            .fold(own.max(forgotten), |newest, (_, number)| newest.max(number));
        format!("{base}~{}", newest + 1).into()
    }

    pub(super) fn note_generation(&mut self, followed: &Followed) {
        if let Some(file_key) = followed.key.clone() {
            let inode = followed.reader.stat().inode;
            self.events
                .push(FileEvent::NewGeneration { inode, file_key });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_the_sparser_the_farther_they_are() {
        let tail = Print::of(&[7; PRINT_BYTES]);
        let mut marks = Vec::new();
        add_mark(&mut marks, 600, &Print::of(&[7; 600]));
        assert!(marks.is_empty(), "less tells no content from another");
        let mut end = 0;
        for _ in 0..100_000 {
            end += 600;
            add_mark(&mut marks, end, &tail);
            assert!(marks.len() <= MARKS_LIMIT);
        }
        let distances: Vec<u64> = marks.iter().rev().map(|mark| end - mark.offset).collect();
        assert_eq!(distances[..2], [0, 600]);
        for pair in distances[1..].windows(2) {
            assert!(pair[1] <= SPREAD * pair[0], "{distances:?}");
        }
        assert!(distances.last() > Some(&(5 << 20)), "{distances:?}");
        // Where it goes on before the end, what was behind is forgotten.
        let middle = marks[8].offset + 1;
        add_mark(&mut marks, middle, &tail);
        assert_eq!(marks.last().map(|mark| mark.offset), Some(middle));
        assert!(marks.is_sorted_by_key(|mark| mark.offset));
    }
}
