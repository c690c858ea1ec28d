//! Opening a journal, with what a crash has left; and the handle that everyone holds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use crate::telemetry::incident::Incident;

use super::disk::{self, DirectoryLock};
use super::frame::{
    FRAME_HEAD, Piece, SEGMENT_HEAD, SegmentBytes, SegmentHead, check_segment_head,
};
use super::read::{self, Window};
use super::record::PushRecord;
use super::shared::{AppendError, Figures, Position, Shared};
use super::worker::{Append, Command, Frame, Worker};

const SEGMENT_BYTES: u64 = 16 << 20;
const SMALLEST_SEGMENT_BYTES: u64 = 64 << 10;

/// How a file or a directory is made durable.
pub type SyncFile = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// Where a journal is and how large it may be.
#[derive(Clone)]
pub struct JournalOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// The most bytes its segments may have in all; 0: nothing is appended, only drained.
    pub max_bytes: u64,
    /// A segment that has so many bytes is followed by another.
    pub segment_bytes: u64,
    /// As the system does it, unless a test counts it or lets it fail.
    pub sync: SyncFile,
}

impl JournalOptions {
    /// The usual options: segments of 16 MiB, smaller in a small journal so that its drained part
    /// can be deleted.
    pub fn new(dir: PathBuf, max_bytes: u64) -> Self {
        Self {
            dir,
            max_bytes,
            segment_bytes: (max_bytes / 8).clamp(SMALLEST_SEGMENT_BYTES, SEGMENT_BYTES),
            sync: Arc::new(sync),
        }
    }
}

/// Of a directory all of it: which part of one is its data is nowhere said.
fn sync(file: &File) -> io::Result<()> {
    if file.metadata()?.is_dir() {
        file.sync_all()
    } else {
        file.sync_data()
    }
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two writers would overwrite each other.
    #[error("journal {} is in use by another process", dir.display())]
    InUse {
        /// Its directory.
        dir: PathBuf,
    },
    /// No directory, no right, a failing disk.
    #[error("journal {} cannot be opened: {error}", dir.display())]
    Io {
        /// Its directory.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// An open journal. Clones are the same journal; it closes with the last of them.
#[derive(Clone)]
pub struct Journal {
    dir: Arc<Path>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the journal of a directory, which is made if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// When another process has it open, or the directory cannot be used.
    pub fn open(options: JournalOptions) -> Result<Self, OpenError> {
        let dir = options.dir.clone();
        let failed = |error| OpenError::Io {
            dir: dir.clone(),
            error,
        };
        disk::make_directory(&dir, &options.sync).map_err(failed)?;
        let Some(lock) = disk::lock(&dir).map_err(failed)? else {
            return Err(OpenError::InUse { dir });
        };
        Self::recover(options, lock).map_err(failed)
    }

    fn recover(options: JournalOptions, lock: DirectoryLock) -> io::Result<Self> {
        let dir = &options.dir;
        let drained = disk::read_drained(dir)?;
        let segments = disk::segments(dir)?;
        let last = segments.last().map(|(segment, _)| *segment);
        let mut ends = BTreeMap::new();
        for (segment, length) in segments {
            let named = |error: io::Error| disk::in_segment(dir, segment, &error);
            // Also one that a lying disk has cut before the drained place: what is left of it may be torn.
            let whole = Position {
                segment,
                offset: length,
            };
            if drained.is_some_and(|drained| whole <= drained) {
                fs::remove_file(disk::segment_path(dir, segment)).map_err(named)?;
                continue;
            }
            let end = if Some(segment) == last {
                cut_unfinished(dir, segment, length, drained).map_err(named)?
            } else {
                length
            };
            if end <= SEGMENT_HEAD {
                fs::remove_file(disk::segment_path(dir, segment)).map_err(named)?;
                continue;
            }
            ends.insert(segment, end);
        }
        let first = ends.keys().next().copied();
        let begin = Position {
            segment: first.unwrap_or_default(),
            offset: 0,
        };
        let highest = last
            .max(drained.map(|drained| drained.segment))
            .unwrap_or_default();
        let shared = Arc::new(Shared::new(
            options.max_bytes,
            ends,
            drained.unwrap_or_default().max(begin),
        ));
        let (commands, received) = mpsc::channel();
        let worker = Worker {
            dir: dir.clone(),
            segment_bytes: options.segment_bytes,
            sync: options.sync,
            shared: Arc::clone(&shared),
            next_segment: highest + 1,
            current: None,
            refusing: Incident::new(),
            lock,
        };
        std::thread::Builder::new()
            .name("daybook-journal".to_owned())
            .spawn(move || worker.run(&received))?;
        let journal = Self {
            dir: options.dir.into(),
            commands,
            shared,
        };
        if !journal.is_empty() {
            let figures = journal.figures();
            tracing::info!(
                bytes = figures.bytes,
                segments = figures.segments,
                "journal holds pushes that are not in the store yet"
            );
            // For the age of the oldest record. What cannot be read is reported by who drains.
            let _read_again_later = journal.read(1);
        }
        Ok(journal)
    }

    /// Whether it is not too full now for a record of so many bytes.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.shared.has_room(FRAME_HEAD as u64 + bytes)
    }

    /// Appends a push; returns when it is durable. Cancel-safe in this sense: a cancelled append
    /// takes effect only if it is being written already.
    ///
    /// # Errors
    /// Then nothing of it counts.
    pub async fn append(&self, record: PushRecord) -> Result<(), AppendError> {
        self.append_paid(record, ()).await
    }

    /// The same with what pays for the record's bytes in memory. It is held until they are let go:
    /// by a cancelled append at once, or when the disk has answered if they are being written.
    ///
    /// # Errors
    /// Then nothing of it counts.
    pub async fn append_paid(
        &self,
        record: PushRecord,
        permit: impl Send + Sync + 'static,
    ) -> Result<(), AppendError> {
        let frame = Arc::new(Frame {
            head: record.head()?,
            record,
            _permit: Box::new(permit),
        });
        let (done, outcome) = oneshot::channel();
        let bytes = frame.bytes();
        let append = Append {
            frame: Arc::downgrade(&frame),
            bytes,
            done,
        };
        self.shared.reserve(bytes)?;
        if self.commands.send(Command::Append(append)).is_err() {
            self.shared.release(bytes);
            return Err(AppendError::Closed);
        }
        let outcome = outcome.await;
        // Not before: the writing thread finds it only here.
        drop(frame);
        outcome.unwrap_or(Err(AppendError::Closed))
    }

    /// Reads what is not drained, from its beginning: until the records have `max_bytes`, and one
    /// at least. Blocks on the disk. For one reader.
    ///
    /// # Errors
    /// When the disk fails at the drained place, or a later version wrote what stands there.
    pub fn read(&self, max_bytes: u64) -> io::Result<Window> {
        read::read(&self.dir, &self.shared, max_bytes)
    }

    /// Everything before `position`, which a [`Window`] has named, is in the store: what is not
    /// needed any more is deleted. Cancel-safe.
    pub async fn drained(&self, position: Position) {
        let (done, noted) = oneshot::channel();
        if self.commands.send(Command::Drained(position, done)).is_ok() {
            // A journal that is closed meanwhile lets it come out again: harmless.
            let _closed = noted.await;
        }
    }

    /// Waits until there is something to drain. Cancel-safe.
    pub async fn filled(&self) {
        self.shared.until_filled().await;
    }

    /// Whether nothing is left to drain.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty()
    }

    /// How it is doing.
    pub fn figures(&self) -> Figures {
        self.shared.figures()
    }

    /// Finishes the appends before and lets the next process have the directory, whoever still
    /// holds a clone.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            let _already = closed.await;
        }
    }
}

/// How many bytes wait in the journal of a directory, as another process sees them: the one that
/// has it open may be ahead. Nothing is locked or changed.
///
/// # Errors
/// When the directory cannot be read; one that is not there holds nothing.
pub fn waiting_bytes(dir: &Path) -> io::Result<u64> {
    let segments = match disk::segments(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        segments => segments?,
    };
    let drained = disk::read_drained(dir)?.unwrap_or_default();
    let undrained = segments.into_iter().map(|(segment, length)| {
        let from = match segment.cmp(&drained.segment) {
            Ordering::Less => length,
            Ordering::Equal => drained.offset.max(SEGMENT_HEAD),
            Ordering::Greater => SEGMENT_HEAD,
        };
        length.saturating_sub(from)
    });
    Ok(undrained.sum())
}

/// Cuts off what a crash has left unfinished at the end of the last segment; where it ends now.
fn cut_unfinished(
    dir: &Path,
    segment: u64,
    length: u64,
    drained: Option<Position>,
) -> io::Result<u64> {
    let file = disk::open_segment(dir, segment)?;
    let bytes = SegmentBytes {
        file: &file,
        segment,
        end: length,
    };
    if length < SEGMENT_HEAD {
        return Ok(length);
    }
    if let SegmentHead::Foreign(_) = check_segment_head(&file, segment)? {
        return Ok(length);
    }
    let mut offset = match drained {
        Some(drained) if drained.segment == segment => drained.offset.max(SEGMENT_HEAD),
        _ => SEGMENT_HEAD,
    };
    while let Some(piece) = bytes.piece(offset)? {
        match piece {
            Piece::Record(_, after) => offset = after,
            // Kept aside and reported by who drains it, in its turn.
            Piece::Damaged(after) => offset = after,
            Piece::Unfinished => {
                tracing::warn!(
                    segment,
                    offset,
                    bytes = length - offset,
                    "journal ends in a push that was never answered: cut off"
                );
                file.set_len(offset)?;
                file.sync_all()?;
                return Ok(offset);
            }
        }
    }
    Ok(length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    /// Neither a pipe's end nor a directory that was opened as a mere path can be synced.
    #[test]
    fn the_usual_sync_asks_the_system() {
        const O_PATH: i32 = 0o10_000_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"").unwrap();
        let sync = JournalOptions::new(dir.path().to_owned(), 1).sync;
        for path in [dir.path(), path.as_path()] {
            sync(&File::open(path).unwrap()).unwrap();
        }
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(OwnedFd::from(writer));
        let mut mere_path = File::options();
        mere_path.read(true).custom_flags(O_PATH);
        for unsyncable in [pipe, mere_path.open(dir.path()).unwrap()] {
            sync(&unsyncable).unwrap_err();
        }
    }
}
