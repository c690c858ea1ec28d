//! Tailing a file: bytes to complete lines, each with a key that stays.
//!
//! Nothing here knows an actor or an event, and nothing here is asynchronous but the doorbell:
//! [`Tailer::step`] does blocking file reads and is called where blocking is allowed.
//!
//! - [`Tailer`] decides *which* file is read and where in it: the live file, a rotated one held open
//!   until it is drained, a copy that `copytruncate` left, a new generation in the same inode.
//!   `watch` queues what takes the place of the live file; `resume` finds the place again at start;
//!   `awaited` tells what belongs to a log that is not there yet from what stood beside it before;
//!   `copies` finds what stood in a file before it was truncated, whenever it is looked at; `marks`
//!   where to go on in one that has lost its end.
//! - `reader` turns one file into lines; it reads every byte once and never hands out bytes that were
//!   not there, verified, after they were read.
//! - `identity` tells files apart; `rotation` finds the rotated ones; [`Doorbell`] says when to look.
//!
//! # Which file is which
//!
//! A file is the one the cursor speaks of when inode and birth time (where the file system has one)
//! agree and two prints of its content do: its first bytes, and the bytes just before the offset.
//! The device number is only a hint, it may change over a reboot. The print before the offset finds
//! a file that was truncated and grew past the old offset with the same first lines.
//!
//! # Keys
//!
//! A line's key is `<file_key>:<offset>`. The file key is `<inode>-<hash>` over the birth time and
//! the head of the first line, see `identity`: the same after a restart, a renaming, or a replay
//! without any cursor. A new generation that would get the key of a remembered one (truncated, and
//! the same first line again) gets `~2`, `~3`, … The memory, the last 32 files with the place that was
//! reached in each, travels in the cursor. It also recognises a file that comes back. Of the files before
//! them it keeps which keys they had, see `forgotten`.
//!
//! # Invariants
//!
//! 1. Within a file lines come in order, each once, none left out; files come in the order written.
//! 2. A line is handed out, or left out, when its end is there, and a cursor stands between lines.
//! 3. What was destroyed before it could be read is said, as [`FileEvent::Gap`].
//! 4. Memory is bounded by `max_line` + 2 × `chunk_bytes`, whatever the file holds.
//!
//! The first look at a log is where all this begins: what was rotated before it is left alone, and
//! what is rotated after it is read, though no file of the log was there to be seen. It is a step of
//! its own, which reads nothing, so that it is durable before the first line is.
//!
//! What no reader can see: a file that was created, rotated *and* deleted between two looks; a file
//! truncated and rewritten with the very same bytes; one truncated, written and deleted between two
//! looks, when it has to go back in what was truncated; two generations of a truncated file with the
//! same inode and first line, when the cursor that remembered the first is lost; whether a copy of less
//! than [`PRINT_BYTES`], made after an unread file was written, is of that content or of one before; that
//! a file beside the log is a copy of one that was read, when it is as short, or no memory of that is left;
//! what a compressed copy holds, when it tells neither its length nor the time of what it was made of.

mod awaited;
mod copies;
mod cursor;
mod followed;
mod forgotten;
mod gather;
mod identity;
mod marks;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod model;
mod reader;
mod resume;
mod rotation;
mod tailer;
mod wake;
mod watch;

pub use awaited::Awaited;
pub use cursor::{Passed, TailCursor};
pub use forgotten::Forgotten;
pub use identity::{PRINT_BYTES, Print};
pub use marks::Mark;
pub use rotation::{is_part_of, rotated_part};
pub use tailer::Tailer;
pub use wake::Doorbell;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

/// What to tail, and in what bites.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// The live file. It need not exist yet.
    pub path: PathBuf,
    /// Bytes of a line, its end not counted; a longer one comes as [`LineKind::Oversized`].
    pub max_line: u64,
    /// The most bytes of the lines of one chunk, give or take one line.
    pub chunk_bytes: usize,
    /// The most lines of one chunk.
    pub max_lines: usize,
    /// Says of a complete line that nobody wants it: it is not handed out, only counted.
    pub skips: Option<fn(&[u8]) -> bool>,
    /// How long a rotated file has to stay as it is before it is let go: a writer may have opened it
    /// before it was renamed.
    pub grace: Duration,
    /// How long a step reads, give or take one read: a mount may be so slow that more would take minutes.
    pub step_time: Duration,
    /// Whether the very first start, without a cursor, reads the rotated files too. Off by default:
    /// the live file only, from its beginning, and what is rotated after that look.
    pub read_rotated_at_first_start: bool,
    /// When a first look was begun that left no cursor, if one was: what was rotated since is read.
    pub earlier_look: Option<SystemTime>,
    /// Whether the file that the cursor speaks of is read from its beginning again, once it is found.
    pub from_beginning: bool,
}

impl TailOptions {
    /// The defaults: lines up to 1 MiB, 1000 lines or 1 MiB a chunk, none left out, one second of grace
    /// and one of reading a step.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_line: 1 << 20,
            chunk_bytes: 1 << 20,
            max_lines: 1000,
            skips: None,
            grace: Duration::from_secs(1),
            step_time: Duration::from_secs(1),
            read_rotated_at_first_start: false,
            earlier_look: None,
            from_beginning: false,
        }
    }
}

/// What one step brought.
#[derive(Clone, Debug)]
pub enum Step {
    /// Lines, and where the cursor stands once they are durable.
    Lines(Chunk),
    /// Nothing complete to read now, or within the step's time.
    Idle {
        /// What happened to the file.
        events: Vec<FileEvent>,
        /// Set when the place changed though no line was read (the log was looked at for the first time,
        /// a rotated file is finished, a truncated one begins again): worth storing, so that a restart
        /// knows what was there and does not look for what is gone.
        cursor_after: Option<TailCursor>,
    },
}

/// Consecutive lines of one file.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// In order; empty only when all were left out.
    pub lines: Vec<Line>,
    /// How many lines were left out because nobody wants them.
    pub skipped: u64,
    /// Of the file (generation) that they stand in.
    pub file_key: Arc<str>,
    /// Of the file that they were read from.
    pub inode: u64,
    /// Where to go on once all of them are durable.
    pub cursor_after: TailCursor,
    /// How many bytes of the file they take, line ends included.
    pub bytes: u64,
    /// What happened to the file before these lines.
    pub events: Vec<FileEvent>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins in its file.
    pub offset: u64,
    /// Its bytes without the `\n`; a `\r` stays. Of an oversized line the first KiB.
    pub bytes: Bytes,
    /// Whether this is all of it.
    pub kind: LineKind,
}

/// Whether a line is what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// All of it.
    Complete,
    /// Longer than allowed; its head only.
    Oversized {
        /// Its length in bytes, without its end.
        length: u64,
    },
    /// The last bytes of a finished file: their line end will never come.
    Unterminated,
}

/// What happened to the file, for logs and, for a [`FileEvent::Gap`], for the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// The live file is there (for the first time, or again).
    Appeared {
        /// Its inode.
        inode: u64,
    },
    /// No live file is there.
    Missing,
    /// A rotated file is drained and the next one is read.
    Rotated {
        /// The finished file's.
        from_inode: u64,
        /// The next one's.
        to_inode: u64,
    },
    /// The file was cut to a length below what was read, or holds other content now.
    Truncated {
        /// Its inode.
        inode: u64,
        /// Up to where its lines had been handed out.
        read_to: u64,
        /// Bytes known to have stood there unread and to be in no copy; `None` if that cannot be known.
        lost_bytes: Option<u64>,
    },
    /// A key was made for content that begins anew in an inode that was read before.
    NewGeneration {
        /// The inode.
        inode: u64,
        /// The key of its lines from here on.
        file_key: Arc<str>,
    },
    /// Something was destroyed before it could be read.
    Gap {
        /// The file's key, when it had one.
        file_key: Option<Arc<str>>,
        /// The file's inode.
        inode: u64,
        /// When the file was last written, nanoseconds since 1970: inodes are used again.
        modified: i64,
        /// The first byte that was not read.
        from: u64,
        /// The end of what was not read, if it can be known.
        to: Option<u64>,
        /// What destroyed it.
        why: GapReason,
    },
}

/// What destroyed unread lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The file was truncated, and no copy of it is there.
    Truncated,
    /// The file is gone, and not among the rotated ones.
    Vanished,
    /// It was compressed before it was read to its end.
    Compressed {
        /// The compressed file's name.
        name: String,
        /// Its inode.
        inode: u64,
        /// Its modification time, nanoseconds since 1970.
        modified: i64,
    },
}

impl GapReason {
    /// The word for logs and events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Vanished => "vanished",
            Self::Compressed { .. } => "compressed",
        }
    }
}

/// Why the file cannot be read now. All are worth a retry: a person may put it right.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// A directory stands in its place.
    #[error("{} is a directory, not a file", path.display())]
    IsADirectory {
        /// Its place.
        path: PathBuf,
    },
    /// Neither file nor directory.
    #[error("{} is {what}, not a regular file", path.display())]
    NotARegularFile {
        /// Its place.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file or its directory may not be read.
    #[error("no permission to {attempt} {}", path.display())]
    PermissionDenied {
        /// Its place.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
    },
    /// The system refused otherwise.
    #[error("could not {attempt} {}: {source}", path.display())]
    Io {
        /// Its place.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl TailError {
    fn from_io(path: &Path, attempt: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::PermissionDenied { path, attempt };
        }
        Self::Io {
            path,
            attempt,
            source,
        }
    }

    /// The word for logs, metrics and `status`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::IsADirectory { .. } => "is_a_directory",
            Self::NotARegularFile { .. } => "not_a_regular_file",
            Self::PermissionDenied { .. } => "permission_denied",
            Self::Io { .. } => "io_error",
        }
    }
}
