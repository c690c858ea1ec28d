//! The thread that owns the files: it appends in groups, drops what is drained, closes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::disk::{self, DirectoryLock};
use super::frame::{FRAME_HEAD, Piece, SEGMENT_HEAD, SegmentBytes, frame_head, segment_head};
use super::open::SyncFile;
use super::record::PushRecord;
use super::shared::{AppendError, Position, Shared};

/// A group is closed when it has so many bytes, so that its first members need not wait for ever.
const GROUP_BYTES: u64 = 4 << 20;
/// Smaller pieces are written together.
const GATHER_BYTES: usize = 256 << 10;

/// A record to append, and whom to tell.
pub(super) struct Append {
    pub(super) record: PushRecord,
    pub(super) head: Vec<u8>,
    pub(super) done: oneshot::Sender<Result<(), AppendError>>,
}

impl Append {
    /// Bytes of its frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        (FRAME_HEAD + self.head.len() + self.record.body.len()) as u64
    }
}

pub(super) enum Command {
    Append(Append),
    Drained(Position, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

pub(super) struct Worker {
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) sync: SyncFile,
    pub(super) shared: Arc<Shared>,
    pub(super) next_segment: u64,
    pub(super) current: Option<Segment>,
    /// Held until the thread ends.
    pub(super) lock: DirectoryLock,
}

/// The segment that is appended to.
pub(super) struct Segment {
    number: u64,
    file: File,
    durable: u64,
}

/// A failure, and whether the kernel can still be believed about the file.
struct Failure {
    error: AppendError,
    trustworthy: bool,
}

impl Worker {
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut next = commands.recv().ok();
        while let Some(command) = next.take() {
            match command {
                Command::Append(first) => next = self.append_group(first, commands),
                Command::Drained(position, done) => {
                    self.drained(position);
                    // Whoever does not wait any longer needs no answer.
                    let _gone = done.send(());
                }
                Command::Close(done) => {
                    drop(self.lock);
                    let _gone = done.send(());
                    return;
                }
            }
            next = next.or_else(|| commands.recv().ok());
        }
    }

    /// Appends all that waits; gives back the command that ended the group.
    fn append_group(&mut self, first: Append, commands: &Receiver<Command>) -> Option<Command> {
        let mut bytes = first.frame_bytes();
        let mut group = vec![first];
        let mut interruption = None;
        while bytes < GROUP_BYTES {
            match commands.try_recv() {
                Ok(Command::Append(append)) => {
                    bytes += append.frame_bytes();
                    group.push(append);
                }
                Ok(other) => {
                    interruption = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        match self.commit(&group) {
            Ok(()) => answer(group, &Ok(())),
            Err(failure) if failure.trustworthy && group.len() > 1 => self.commit_singly(group),
            Err(failure) => self.fail(group, &failure.error),
        }
        interruption
    }

    /// A disk without room for a group may have room for some of it.
    fn commit_singly(&mut self, group: Vec<Append>) {
        for append in group {
            let alone = vec![append];
            match self.commit(&alone) {
                Ok(()) => answer(alone, &Ok(())),
                Err(failure) => self.fail(alone, &failure.error),
            }
        }
    }

    fn fail(&mut self, group: Vec<Append>, error: &AppendError) {
        let reserved = group.iter().map(Append::frame_bytes).sum();
        self.shared.release(reserved);
        tracing::warn!(error = %error, pushes = group.len(), "journal takes no pushes");
        answer(group, &Err(error.clone()));
    }

    fn commit(&mut self, group: &[Append]) -> Result<(), Failure> {
        let mut segment = self.writable_segment()?;
        let outcome = write(&segment, group).and_then(|end| {
            (self.sync)(&segment.file).map_err(|error| untrusted("sync a segment", &error))?;
            disk::is_there(&segment.file).map_err(|error| untrusted("find a segment", &error))?;
            Ok(end)
        });
        match outcome {
            Ok(end) => {
                segment.durable = end;
                let written = group.iter().map(Append::frame_bytes).sum();
                let oldest = group.iter().map(|append| append.record.received_at).min();
                let records = group.len() as u64;
                self.shared
                    .grown(segment.number, end, written, records, oldest);
                self.current = Some(segment);
                Ok(())
            }
            Err(mut failure) => {
                failure.trustworthy &= segment.file.set_len(segment.durable).is_ok();
                if failure.trustworthy {
                    self.current = Some(segment);
                } else {
                    self.give_up(&segment);
                }
                Err(failure)
            }
        }
    }

    fn writable_segment(&mut self) -> Result<Segment, Failure> {
        if let Some(current) = self
            .current
            .take_if(|segment| segment.durable < self.segment_bytes)
        {
            return Ok(current);
        }
        self.current = None;
        let number = self.next_segment;
        self.next_segment += 1;
        let created = self.create(number);
        created.map_err(|error| {
            // What is left of it has no durable byte: recovery passes over it.
            let _not_there = fs::remove_file(disk::segment_path(&self.dir, number));
            trusted("begin a segment", &error)
        })
    }

    fn create(&self, number: u64) -> io::Result<Segment> {
        let file = disk::create_segment(&self.dir, number)?;
        file.write_all_at(&segment_head(number), 0)?;
        (self.sync)(&file)?;
        disk::sync_directory(&self.dir)?;
        self.shared.grown(number, SEGMENT_HEAD, 0, 0, None);
        Ok(Segment {
            number,
            file,
            durable: SEGMENT_HEAD,
        })
    }

    /// Leaves a segment whose last group is in doubt: cuts that off through a fresh handle, and
    /// reads over what was durable before.
    fn give_up(&self, segment: &Segment) {
        let number = segment.number;
        let reopened = disk::open_segment(&self.dir, number).and_then(|file| {
            file.set_len(segment.durable)?;
            file.sync_all()?;
            is_sound(&file, number, segment.durable)
        });
        match reopened {
            Ok(true) => tracing::warn!(segment = number, "journal segment is given up for writing"),
            Ok(false) => {
                tracing::error!(segment = number, "journal segment is damaged");
            }
            Err(error) => {
                tracing::error!(segment = number, error = %error, "journal segment is given up and cannot be verified");
            }
        }
    }

    fn drained(&mut self, position: Position) {
        self.shared.drained_to(position);
        if let Err(error) = disk::write_drained(&self.dir, position) {
            // Without it some records come out again after a restart.
            tracing::warn!(error = %error, "journal cannot note how far it is drained");
        }
        for segment in self.shared.segments() {
            if segment >= position.segment && !self.is_drained(segment, position) {
                break;
            }
            self.current.take_if(|current| current.number == segment);
            match fs::remove_file(disk::segment_path(&self.dir, segment)) {
                Ok(()) => self.shared.removed(segment),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.shared.removed(segment);
                }
                Err(error) => {
                    tracing::warn!(segment, error = %error, "journal cannot delete a drained segment");
                }
            }
        }
    }

    fn is_drained(&self, segment: u64, position: Position) -> bool {
        let end = self.shared.end_of(segment);
        segment == position.segment && end.is_none_or(|end| position.offset >= end)
    }
}

/// Writes the group behind the durable end; where it ends.
fn write(segment: &Segment, group: &[Append]) -> Result<u64, Failure> {
    let mut out = Gatherer {
        file: &segment.file,
        at: segment.durable,
        gathered: Vec::new(),
    };
    for append in group {
        let body = &append.record.body;
        let head = frame_head(segment.number, out.end(), [&append.head, body])
            .map_err(|_| trusted("write a record", &io::ErrorKind::FileTooLarge.into()))?;
        for part in [&head[..], &append.head, body] {
            out.put(part)
                .map_err(|error| trusted("write a record", &error))?;
        }
    }
    out.flush()
        .map_err(|error| trusted("write a record", &error))?;
    Ok(out.at)
}

/// Writes small pieces together and large ones as they are.
struct Gatherer<'a> {
    file: &'a File,
    at: u64,
    gathered: Vec<u8>,
}

impl Gatherer<'_> {
    fn end(&self) -> u64 {
        self.at + self.gathered.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gathered.len() + bytes.len() > GATHER_BYTES {
            self.flush()?;
        }
        if bytes.len() > GATHER_BYTES {
            self.file.write_all_at(bytes, self.at)?;
            self.at += bytes.len() as u64;
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.gathered, self.at)?;
        self.at = self.end();
        self.gathered.clear();
        Ok(())
    }
}

fn is_sound(file: &File, segment: u64, end: u64) -> io::Result<bool> {
    let bytes = SegmentBytes { file, segment, end };
    let mut offset = SEGMENT_HEAD;
    while let Some(piece) = bytes.piece(offset)? {
        match piece {
            Piece::Record(_, after) => offset = after,
            Piece::Damaged(_) | Piece::Unfinished => return Ok(false),
        }
    }
    Ok(true)
}

fn trusted(what: &'static str, error: &io::Error) -> Failure {
    Failure {
        error: AppendError::Disk {
            what,
            reason: error.to_string(),
        },
        trustworthy: true,
    }
}

fn untrusted(what: &'static str, error: &io::Error) -> Failure {
    Failure {
        trustworthy: false,
        ..trusted(what, error)
    }
}

fn answer(group: Vec<Append>, outcome: &Result<(), AppendError>) {
    for append in group {
        // An appender that has gone does not learn of it; its sender will send again.
        let _gone = append.done.send(outcome.clone());
    }
}
