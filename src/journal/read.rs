//! Reading what is not drained, in order.

use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use super::frame::{Piece, SEGMENT_HEAD, SegmentBytes, SegmentHead, check_segment_head};
use super::record::PushRecord;
use super::shared::{Position, Shared};

const COPY_CHUNK: u64 = 1 << 20;

/// The next records to drain.
#[derive(Debug)]
pub struct Window {
    /// In order of arrival.
    pub stored: Vec<Stored>,
    /// Bytes of the records.
    pub bytes: u64,
    /// Up to here the window goes.
    pub next: Position,
}

/// What was found at a place.
#[derive(Debug)]
pub enum Stored {
    /// A push.
    Push(PushRecord),
    /// Bytes that are no push any more.
    Damage(Damage),
}

/// Bytes that could not be read. They are kept in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where they begin.
    pub from: Position,
    /// How many there are.
    pub length: u64,
    /// Their CRC-32: another journal may be damaged at the same place. 0 where the bytes are gone:
    /// such damage is told apart by its place alone.
    pub checksum: u32,
    /// What is wrong with them.
    pub what: String,
    /// Where they are kept, if they were there.
    pub kept: Option<PathBuf>,
}

/// Reads from the drained position until the records have `max_bytes` or the end comes; one
/// record at least.
pub(super) fn read(dir: &Path, shared: &Shared, max_bytes: u64) -> io::Result<Window> {
    let drained = shared.drained();
    let mut window = Window {
        stored: Vec::new(),
        bytes: 0,
        next: drained,
    };
    for (segment, end) in shared.undrained_segments() {
        let from = if segment == drained.segment {
            drained.offset
        } else {
            0
        };
        let reading = SegmentReading { dir, segment, end };
        match reading.fill(from, max_bytes, &mut window) {
            Ok(false) => {}
            Ok(true) => break,
            // What stands before goes first; the next read begins at the bad place and fails alone.
            Err(_) if window.next > drained => break,
            Err(error) => return Err(disk::in_segment(dir, segment, &error)),
        }
    }
    let first = window.stored.iter().find_map(|stored| match stored {
        Stored::Push(record) => Some(record.received_at),
        Stored::Damage(_) => None,
    });
    if let Some(received_at) = first {
        shared.note_oldest(received_at);
    }
    Ok(window)
}

struct SegmentReading<'a> {
    dir: &'a Path,
    segment: u64,
    end: u64,
}

impl SegmentReading<'_> {
    /// Whether the window is full.
    fn fill(&self, from: u64, max_bytes: u64, window: &mut Window) -> io::Result<bool> {
        let file = match disk::open_segment(self.dir, self.segment) {
            Ok(file) => file,
            // Somebody deleted it; what came after is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                window.stored.push(Stored::Damage(Damage {
                    from: self.place(from),
                    length: self.end.saturating_sub(from),
                    checksum: 0,
                    what: "its file is gone".to_owned(),
                    kept: None,
                }));
                window.next = self.place(self.end);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let bytes = SegmentBytes {
            file: &file,
            segment: self.segment,
            end: self.end.min(file.metadata()?.len()),
        };
        let mut offset = from;
        if offset < SEGMENT_HEAD {
            self.check_head(&bytes, window)?;
            offset = SEGMENT_HEAD;
        }
        while let Some(piece) = bytes.piece(offset)? {
            offset = match piece {
                Piece::Record(record, after) => {
                    window.bytes += record.len() as u64;
                    let stored = match PushRecord::decode(&record) {
                        Ok(record) => Stored::Push(record),
                        Err(error) => {
                            Stored::Damage(self.keep(&bytes, offset, after, &error.to_string())?)
                        }
                    };
                    window.stored.push(stored);
                    after
                }
                Piece::Damaged(after) => {
                    let damage = self.keep(&bytes, offset, after, "its checksum is wrong")?;
                    window.stored.push(Stored::Damage(damage));
                    after
                }
                Piece::Unfinished => {
                    let damage = self.keep(&bytes, offset, bytes.end, "its end is missing")?;
                    window.stored.push(Stored::Damage(damage));
                    bytes.end
                }
            };
            window.next = self.place(offset);
            if window.bytes >= max_bytes {
                return Ok(true);
            }
        }
        // A file that is shorter than what was durable has lost its end altogether.
        if bytes.end < self.end {
            let lost = self.keep(&bytes, bytes.end, bytes.end, "its end is gone")?;
            window.stored.push(Stored::Damage(lost));
        }
        window.next = self.place(self.end);
        Ok(false)
    }

    fn check_head(&self, bytes: &SegmentBytes<'_>, window: &mut Window) -> io::Result<()> {
        match check_segment_head(bytes.file, self.segment)? {
            SegmentHead::Sound => {}
            SegmentHead::Foreign(version) => {
                let message = format!("of format {version}, which this version cannot read");
                return Err(io::Error::other(message));
            }
            // The frames vouch for themselves.
            SegmentHead::Damaged => {
                let end = SEGMENT_HEAD.min(bytes.end);
                let damage = self.keep(bytes, 0, end, "the segment's head is damaged")?;
                window.stored.push(Stored::Damage(damage));
            }
        }
        Ok(())
    }

    fn keep(&self, bytes: &SegmentBytes<'_>, from: u64, to: u64, what: &str) -> io::Result<Damage> {
        keep(self.dir, bytes, from, to, what)
    }

    fn place(&self, offset: u64) -> Position {
        Position {
            segment: self.segment,
            offset,
        }
    }
}

/// Copies bytes of a segment aside.
pub(super) fn keep(
    dir: &Path,
    bytes: &SegmentBytes<'_>,
    from: u64,
    to: u64,
    what: &str,
) -> io::Result<Damage> {
    let place = Position {
        segment: bytes.segment,
        offset: from,
    };
    let starts = (from..to).step_by(COPY_CHUNK as usize);
    let chunks = starts.map(|start| bytes.bytes(start, (to - start).min(COPY_CHUNK) as usize));
    let mut checksum = crc32fast::Hasher::new();
    for chunk in chunks.clone() {
        checksum.update(&chunk?);
    }
    let checksum = checksum.finalize();
    let kept = disk::keep_aside(dir, place, checksum, chunks)?;
    Ok(Damage {
        from: place,
        length: to - from,
        checksum,
        what: what.to_owned(),
        kept: Some(kept),
    })
}
