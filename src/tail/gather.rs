//! A chunk in the making, over several reads of one file.

use super::reader::Taken;
use super::{Line, TailOptions};

/// Lines of the current file on their way into a chunk.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Where the first of them begins, left out or not.
    pub from: u64,
    pub lines: Vec<Line>,
    pub skipped: u64,
    /// Of the lines.
    pub bytes: usize,
}

impl Gathered {
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.skipped == 0
    }

    /// Whether there is no room for one more line, or for another read of so many bytes.
    pub fn fills(&self, options: &TailOptions, read: usize) -> bool {
        let most = options.chunk_bytes.max(1);
        let is_full =
            self.lines.len() >= options.max_lines.max(1) || self.bytes + read.min(most) > most;
        is_full && !self.is_empty()
    }

    pub fn add(&mut self, taken: Taken) {
        self.bytes += taken
            .lines
            .iter()
            .map(|line| line.bytes.len())
            .sum::<usize>();
        self.skipped += taken.skipped;
        if self.lines.is_empty() {
            self.lines = taken.lines;
        } else {
            self.lines.extend(taken.lines);
        }
    }
}
