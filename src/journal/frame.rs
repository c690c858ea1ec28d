//! Segments and frames as bytes: how they are written and how they are found again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};

const SEGMENT_MAGIC: &[u8; 8] = b"daybookj";
const VERSION: u32 = 1;
/// The first frame's offset.
pub(super) const SEGMENT_HEAD: u64 = 24;
/// Bytes of a frame before its record.
pub(super) const FRAME_HEAD: usize = 12;
const SEARCH_CHUNK: usize = 1 << 20;

/// The head of a segment file.
pub(super) fn segment_head(segment: u64) -> [u8; SEGMENT_HEAD as usize] {
    let mut head = [0; SEGMENT_HEAD as usize];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..20].copy_from_slice(&segment.to_le_bytes());
    let checksum = crc32fast::hash(&head[..20]);
    head[20..].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// What the first bytes of a segment file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SegmentHead {
    /// This segment, in this version's format.
    Sound,
    /// Written by another version.
    Foreign(u32),
    /// Damaged, or not written yet.
    Damaged,
}

pub(super) fn check_segment_head(file: &File, segment: u64) -> io::Result<SegmentHead> {
    let mut head = [0; SEGMENT_HEAD as usize];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(SegmentHead::Damaged);
        }
        Err(error) => return Err(error),
    }
    if head == segment_head(segment) {
        return Ok(SegmentHead::Sound);
    }
    let whole = crc32fast::hash(&head[..20]) == u32_at(&head, 20);
    let version = u32_at(&head, 8);
    if whole && head.starts_with(SEGMENT_MAGIC) && version != VERSION {
        return Ok(SegmentHead::Foreign(version));
    }
    Ok(SegmentHead::Damaged)
}

/// The head of the frame at this place of a record in parts.
///
/// # Errors
/// When the record is longer than a frame can say.
pub(super) fn frame_head(
    segment: u64,
    offset: u64,
    parts: [&[u8]; 2],
) -> Result<[u8; FRAME_HEAD], usize> {
    let whole = parts[0].len() + parts[1].len();
    let length = u32::try_from(whole).map_err(|_| whole)?;
    let mut record = crc32fast::Hasher::new();
    record.update(parts[0]);
    record.update(parts[1]);
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&record.finalize().to_le_bytes());
    let checksum = head_checksum(segment, offset, &head[..8]);
    head[8..].copy_from_slice(&checksum.to_le_bytes());
    Ok(head)
}

fn head_checksum(segment: u64, offset: u64, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(head);
    hasher.finalize()
}

/// `(length, checksum of the record)`, if this is the head of a frame at this place.
fn sound_head(segment: u64, offset: u64, head: &[u8]) -> Option<(u32, u32)> {
    let (length, checksum) = (u32_at(head, 0), u32_at(head, 4));
    let sound = length > 0 && head_checksum(segment, offset, &head[..8]) == u32_at(head, 8);
    sound.then_some((length, checksum))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// What stands at an offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole record, and where the next frame begins.
    Record(Bytes, u64),
    /// Bytes that are no sound frame, up to the next sound one or to the end.
    Damaged(u64),
    /// The beginning of a frame that was never finished, up to the end.
    Unfinished,
}

/// A segment up to its end, which may be before the file's.
pub(super) struct SegmentBytes<'a> {
    pub(super) file: &'a File,
    pub(super) segment: u64,
    pub(super) end: u64,
}

impl SegmentBytes<'_> {
    /// What stands at `offset`; `None` at the end.
    pub(super) fn piece(&self, offset: u64) -> io::Result<Option<Piece>> {
        if offset >= self.end {
            return Ok(None);
        }
        let left = self.end - offset;
        if left < FRAME_HEAD as u64 {
            return Ok(Some(Piece::Unfinished));
        }
        let mut head = [0; FRAME_HEAD];
        self.file.read_exact_at(&mut head, offset)?;
        let Some((length, checksum)) = sound_head(self.segment, offset, &head) else {
            return self.search(offset).map(Some);
        };
        let after = offset + FRAME_HEAD as u64 + u64::from(length);
        if after > self.end {
            return Ok(Some(Piece::Unfinished));
        }
        let record = self.bytes(offset + FRAME_HEAD as u64, length as usize)?;
        if crc32fast::hash(&record) != checksum {
            return Ok(Some(Piece::Damaged(after)));
        }
        Ok(Some(Piece::Record(record, after)))
    }

    /// So many bytes from an offset.
    pub(super) fn bytes(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.freeze())
    }

    /// Looks for the next sound frame behind a damaged head.
    fn search(&self, damaged: u64) -> io::Result<Piece> {
        let mut only_zeros = true;
        let mut from = damaged;
        while from < self.end {
            let length = (self.end - from).min((SEARCH_CHUNK + FRAME_HEAD) as u64) as usize;
            let chunk = self.bytes(from, length)?;
            only_zeros &= chunk.iter().all(|byte| *byte == 0);
            for (at, head) in chunk.windows(FRAME_HEAD).take(SEARCH_CHUNK).enumerate() {
                let offset = from + at as u64;
                if offset > damaged && self.is_sound_frame(offset, head)? {
                    return Ok(Piece::Damaged(offset));
                }
            }
            from += SEARCH_CHUNK as u64;
        }
        // A file system may have grown the file and not written the bytes yet.
        if only_zeros {
            return Ok(Piece::Unfinished);
        }
        Ok(Piece::Damaged(self.end))
    }

    fn is_sound_frame(&self, offset: u64, head: &[u8]) -> io::Result<bool> {
        let Some((length, checksum)) = sound_head(self.segment, offset, head) else {
            return Ok(false);
        };
        let start = offset + FRAME_HEAD as u64;
        if start + u64::from(length) > self.end {
            return Ok(false);
        }
        Ok(crc32fast::hash(&self.bytes(start, length as usize)?) == checksum)
    }
}
