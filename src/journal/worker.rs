//! The thread that owns the files: it appends in groups, drops what is drained, closes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use crate::telemetry::incident::Incident;

use super::disk::{self, DirectoryLock};
use super::frame::{FRAME_HEAD, Piece, SEGMENT_HEAD, SegmentBytes, frame_head, segment_head};
use super::open::SyncFile;
use super::record::PushRecord;
use super::shared::{AppendError, Position, Shared};

/// A group is closed when it has so many bytes, so that its first members need not wait for ever.
const GROUP_BYTES: u64 = 4 << 20;
/// Smaller pieces are written together.
const GATHER_BYTES: usize = 256 << 10;

/// What is appended, with what pays for it in memory.
pub(super) struct Frame {
    pub(super) record: PushRecord,
    pub(super) head: Vec<u8>,
    /// Held for its drop.
    pub(super) _permit: Box<dyn Send + Sync>,
}

impl Frame {
    /// Its length in a segment.
    pub(super) fn bytes(&self) -> u64 {
        (FRAME_HEAD + self.head.len() + self.record.body.len()) as u64
    }
}

/// A frame whose turn comes, and whom to tell.
pub(super) struct Append {
    /// Held by its appender alone, so that nothing is left of one that has given up.
    pub(super) frame: Weak<Frame>,
    pub(super) bytes: u64,
    pub(super) done: oneshot::Sender<Result<(), AppendError>>,
}

/// A frame that is being written.
struct Begun {
    frame: Arc<Frame>,
    done: oneshot::Sender<Result<(), AppendError>>,
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
    pub(super) refusing: Incident,
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
        let mut bytes = 0;
        let mut group = Vec::new();
        let mut next = Some(Command::Append(first));
        while let Some(Command::Append(append)) = next {
            if let Some(begun) = self.begin(append) {
                bytes += begun.frame.bytes();
                group.push(begun);
            }
            next = if bytes < GROUP_BYTES {
                commands.try_recv().ok()
            } else {
                None
            };
        }
        if !group.is_empty() {
            self.commit_together(group);
        }
        next
    }

    /// `None`: its appender has given up, and its sender sends it again.
    fn begin(&self, append: Append) -> Option<Begun> {
        let Some(frame) = append.frame.upgrade() else {
            self.shared.release(append.bytes);
            return None;
        };
        Some(Begun {
            frame,
            done: append.done,
        })
    }

    fn commit_together(&mut self, group: Vec<Begun>) {
        match self.commit(&group) {
            Ok(()) => answer(group, &Ok(())),
            Err(failure) if failure.trustworthy && group.len() > 1 => self.commit_singly(group),
            Err(failure) => self.fail(group, &failure.error),
        }
    }

    /// A disk without room for a group may have room for some of it.
    fn commit_singly(&mut self, group: Vec<Begun>) {
        for begun in group {
            // The disk may have taken long to say no.
            if begun.done.is_closed() {
                self.shared.release(begun.frame.bytes());
                continue;
            }
            let alone = vec![begun];
            match self.commit(&alone) {
                Ok(()) => answer(alone, &Ok(())),
                Err(failure) => self.fail(alone, &failure.error),
            }
        }
    }

    fn fail(&mut self, group: Vec<Begun>, error: &AppendError) {
        let reserved = group.iter().map(|begun| begun.frame.bytes()).sum();
        self.shared.release(reserved);
        if let Some(untold) = self.refusing.note() {
            tracing::warn!(
                error = %error, pushes = group.len(), untold, "journal takes no pushes"
            );
        }
        answer(group, &Err(error.clone()));
    }

    fn commit(&mut self, group: &[Begun]) -> Result<(), Failure> {
        let mut segment = self.writable_segment()?;
        let outcome = write(&segment, group).and_then(|end| {
            (self.sync)(&segment.file).map_err(|error| untrusted("sync a segment", &error))?;
            disk::is_there(&self.dir, segment.number, &segment.file)
                .map_err(|error| untrusted("find a segment", &error))?;
            Ok(end)
        });
        match outcome {
            Ok(end) => {
                segment.durable = end;
                let written = group.iter().map(|begun| begun.frame.bytes()).sum();
                let received = group.iter().map(|begun| begun.frame.record.received_at);
                let oldest = received.min();
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
        let created = self.create_segment();
        let (number, file) = created.map_err(|error| trusted("begin a segment", &error))?;
        self.begin_segment(number, &file).map_err(|error| {
            // What is left of it has no durable byte: recovery passes over it.
            let _left = fs::remove_file(disk::segment_path(&self.dir, number));
            trusted("begin a segment", &error)
        })?;
        Ok(Segment {
            number,
            file,
            durable: SEGMENT_HEAD,
        })
    }

    /// The file of the next number that is free: one that somebody put there is not ours.
    fn create_segment(&mut self) -> io::Result<(u64, File)> {
        loop {
            let number = self.next_segment;
            self.next_segment += 1;
            match disk::create_segment(&self.dir, number) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|file| (number, file)),
            }
        }
    }

    fn begin_segment(&self, number: u64, file: &File) -> io::Result<()> {
        file.write_all_at(&segment_head(number), 0)?;
        (self.sync)(file)?;
        disk::sync_directory(&self.dir, &self.sync)?;
        self.shared.grown(number, SEGMENT_HEAD, 0, 0, None);
        Ok(())
    }

    /// Leaves a segment whose last group is in doubt: cuts that off through a fresh handle, and
    /// reads over what was durable before.
    fn give_up(&self, segment: &Segment) {
        let number = segment.number;
        // Another file in its place is not ours.
        let reopened = disk::is_there(&self.dir, number, &segment.file)
            .and_then(|()| disk::open_segment(&self.dir, number))
            .and_then(|file| {
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
fn write(segment: &Segment, group: &[Begun]) -> Result<u64, Failure> {
    let mut out = Gatherer {
        file: &segment.file,
        at: segment.durable,
        gathered: Vec::new(),
    };
    for Begun { frame, .. } in group {
        let body = &frame.record.body;
        let head = frame_head(segment.number, out.end(), [&frame.head, body])
            .map_err(|_| trusted("write a record", &io::ErrorKind::FileTooLarge.into()))?;
        for part in [&head[..], &frame.head, body] {
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

fn answer(group: Vec<Begun>, outcome: &Result<(), AppendError>) {
    for Begun { frame, done } in group {
        drop(frame);
        // An appender that has gone does not learn of it; its sender will send again.
        let _gone = done.send(outcome.clone());
    }
}
