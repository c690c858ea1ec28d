//! Writes an audit log as OCIS does: opened, appended to and closed for every line.
//!
//! Like the original it writes a line in one call, never syncs, never rotates by itself, and may
//! leave half a line behind when the disk is full, to which the next record is then glued.

mod compose;
mod line;
mod shapes;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use line::{Json, OcisLine};
pub use shapes::Shape;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rand::Rng;

use super::Tally;
use super::people::People;

/// How a log is rotated from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// `audit.log` becomes `audit.log.1`, that one `audit.log.2`, …; the next line makes a new file.
    Rename {
        /// How many rotated files stay.
        keep: usize,
    },
    /// The same, but the content is copied and the file cut to nothing.
    CopyTruncate {
        /// How many rotated files stay.
        keep: usize,
    },
}

/// The writer of one log.
#[derive(Debug)]
pub struct OcisLog {
    path: PathBuf,
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    tally: Tally,
    bytes: u64,
    cut_lines: u64,
    rotations: u64,
}

impl OcisLog {
    /// A writer to `path`; the file comes into being with the first line.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            state: Mutex::new(LogState {
                // A line has no id of its own: its key is where it stands in the file.
                tally: Tally::counting_only(),
                ..LogState::default()
            }),
        }
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn append(&self, line: &OcisLine) -> io::Result<()> {
        let mut state = self.state();
        let bytes = line.to_bytes();
        self.write(&mut state, &bytes)?;
        state.tally.note(line.action(), "");
        Ok(())
    }

    /// Appends bytes as they are; they count as bytes only.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn append_raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        self.write(&mut state, bytes)
    }

    /// Writes a line in two calls with `between` in the middle: what a reader that looks just
    /// then must cope with.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn append_in_halves(&self, line: &OcisLine, between: impl FnOnce()) -> io::Result<()> {
        let bytes = line.to_bytes();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.append_raw(first)?;
        between();
        let mut state = self.state();
        self.write(&mut state, second)?;
        state.tally.note(line.action(), "");
        Ok(())
    }

    /// What a full disk leaves: the first `keep` bytes of a line and no newline. The line is lost
    /// and not promised; whatever is appended next is glued to it.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn append_cut(&self, line: &OcisLine, keep: usize) -> io::Result<()> {
        let mut state = self.state();
        let bytes = line.to_bytes();
        // Never the newline: a cut that keeps the whole line would be no cut.
        self.write(&mut state, &bytes[..keep.min(bytes.len() - 2)])?;
        state.cut_lines += 1;
        Ok(())
    }

    /// Appends `count` believable lines through one open file, as fast as the disk takes them.
    ///
    /// They are drawn from a pool of two thousand, so lines repeat, as real ones do.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn append_bulk(
        &self,
        count: u64,
        rng: &mut impl Rng,
        people: &People,
        at: Timestamp,
    ) -> io::Result<()> {
        let pool: Vec<(String, Vec<u8>)> = (0..count.min(2_000))
            .map(|_| {
                let line = realistic(rng, people, at);
                (line.action().to_owned(), line.to_bytes())
            })
            .collect();
        let mut state = self.state();
        let mut file = BufWriter::with_capacity(1 << 20, self.open()?);
        for (action, bytes) in pool
            .iter()
            .cycle()
            .take(usize::try_from(count).unwrap_or(usize::MAX))
        {
            file.write_all(bytes)?;
            state.bytes += bytes.len() as u64;
            state.tally.note(action, "");
        }
        file.flush()
    }

    /// Rotates the log from outside, between two lines.
    ///
    /// # Errors
    /// When a file cannot be moved or copied; a missing log is no error.
    pub fn rotate(&self, rotation: Rotation) -> io::Result<()> {
        let mut state = self.state();
        let (Rotation::Rename { keep } | Rotation::CopyTruncate { keep }) = rotation;
        if !self.path.exists() {
            return Ok(());
        }
        for number in (1..keep).rev() {
            let from = self.rotated(number);
            if from.exists() {
                std::fs::rename(from, self.rotated(number + 1))?;
            }
        }
        match (rotation, keep) {
            (Rotation::Rename { .. }, 0) => std::fs::remove_file(&self.path)?,
            (Rotation::Rename { .. }, _) => std::fs::rename(&self.path, self.rotated(1))?,
            (Rotation::CopyTruncate { .. }, keep) => {
                if keep > 0 {
                    std::fs::copy(&self.path, self.rotated(1))?;
                }
                OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(&self.path)?;
            }
        }
        state.rotations += 1;
        Ok(())
    }

    /// The path of the `number`th rotated file.
    pub fn rotated(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// How many whole lines were promised.
    pub fn lines_written(&self) -> u64 {
        self.state().tally.total
    }

    /// How many bytes were written, through all rotations.
    pub fn bytes_written(&self) -> u64 {
        self.state().bytes
    }

    /// How many lines were cut off by a full disk.
    pub fn cut_lines(&self) -> u64 {
        self.state().cut_lines
    }

    /// How often the log was rotated.
    pub fn rotations(&self) -> u64 {
        self.state().rotations
    }

    /// The whole lines by `Action`; those without one count under the empty string.
    pub fn promised(&self) -> Tally {
        self.state().tally.clone()
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
    }

    fn write(&self, state: &mut LogState, bytes: &[u8]) -> io::Result<()> {
        self.open()?.write_all(bytes)?;
        state.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// One line of a believable kind: mostly files read and written, some shares, few spaces.
pub fn realistic(rng: &mut impl Rng, people: &People, at: Timestamp) -> OcisLine {
    let shape = match rng.random_range(0..100) {
        0..32 => Shape::FileDownloaded,
        32..56 => Shape::FileUploaded,
        56..61 => Shape::ItemMoved,
        61..66 => Shape::ItemTrashed,
        66..70 => Shape::ContainerCreated,
        70..75 => Shape::ShareCreated,
        75..78 => Shape::ShareAccepted,
        78..82 => Shape::LinkCreated,
        82..87 => Shape::LinkAccessed,
        _ => *super::pick(rng, &Shape::ALL),
    };
    shape.line(rng, people, at)
}
