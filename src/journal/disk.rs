//! The files of a journal's directory: their names, how they are made, and the drained position.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::open::SyncFile;
use super::shared::Position;

const SEGMENT_EXTENSION: &str = "journal";
const DRAINED: &str = "drained";
const LOCK: &str = "lock";
const DRAINED_MAGIC: &[u8; 8] = b"daybookd";
const DRAINED_LENGTH: usize = 28;

/// The bits of a mode that are others'.
const OTHERS: u32 = 0o077;
/// What to do about a directory that cannot be closed to others.
pub const REMEDY: &str =
    "name a directory below it, which Daybook makes, or let the user that Daybook runs as own it";

/// Makes the directory, if it is not there, durably, and closes it to others, who could delete segments.
pub(super) fn make_directory(dir: &Path, sync: &SyncFile) -> io::Result<()> {
    let whole = std::path::absolute(dir)?;
    let missing = whole.ancestors().take_while(|dir| !dir.exists());
    let parents: Vec<_> = missing.filter_map(Path::parent).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for parent in parents {
        sync_directory(parent, sync)?;
    }
    if fs::metadata(dir)?.permissions().mode() & OTHERS != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|error| {
            let told = format!("it is open to others and cannot be closed: {error}; {REMEDY}");
            io::Error::new(error.kind(), told)
        })?;
    }
    Ok(())
}

/// Whether this user may close a journal's directory to others, if it is there and open to them. It keeps its mode.
///
/// # Errors
/// When the system refuses that, as to everybody but its owner.
pub fn try_closing(dir: &Path) -> io::Result<()> {
    match fs::metadata(dir) {
        Ok(found) if found.mode() & OTHERS != 0 => fs::set_permissions(dir, found.permissions()),
        _ => Ok(()),
    }
}

/// The directory is locked for as long as this lives.
pub(super) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Said aloud, because closing is not enough: a child process that is just being started
        // shares the descriptor, and with it the lock, until it has become another program.
        let _unlocked_by_closing = self.0.unlock();
    }
}

/// Locks the directory; `None` when another process, or another journal of this one, has it.
pub(super) fn lock(dir: &Path) -> io::Result<Option<DirectoryLock>> {
    let file = private()
        .truncate(false)
        .create(true)
        .open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(DirectoryLock(file))),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes what was created, renamed or deleted in the directory durable.
pub(super) fn sync_directory(dir: &Path, sync: &SyncFile) -> io::Result<()> {
    sync(&File::open(dir)?)
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016}.{SEGMENT_EXTENSION}"))
}

/// The error of a segment, with its path.
pub(super) fn in_segment(dir: &Path, segment: u64, error: &io::Error) -> io::Error {
    let path = segment_path(dir, segment);
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

pub(super) fn create_segment(dir: &Path, segment: u64) -> io::Result<File> {
    private().create_new(true).open(segment_path(dir, segment))
}

pub(super) fn open_segment(dir: &Path, segment: u64) -> io::Result<File> {
    private().open(segment_path(dir, segment))
}

/// An error for a segment whose file was deleted, moved or replaced while it was open: whoever drains the journal does
/// not find what is written to it.
pub(super) fn is_there(dir: &Path, segment: u64, file: &File) -> io::Result<()> {
    let (found, open) = (fs::metadata(segment_path(dir, segment))?, file.metadata()?);
    if (found.dev(), found.ino()) == (open.dev(), open.ino()) {
        Ok(())
    } else {
        Err(io::Error::other("another file is in its place"))
    }
}

/// The segments of a directory with their lengths, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(segment) = segment_of(&entry.path()) {
            segments.push((segment, entry.metadata()?.len()));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn segment_of(path: &Path) -> Option<u64> {
    let digits = path.file_stem()?.to_str()?;
    let is_segment = path.extension()? == SEGMENT_EXTENSION
        && digits.len() == 16
        && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_segment.then(|| digits.parse().ok())?
}

/// Keeps damaged bytes of a segment for a person to look at. The same ones have the same name, so
/// that keeping them again changes nothing.
pub(super) fn keep_aside(
    dir: &Path,
    place: Position,
    checksum: u32,
    bytes: impl Iterator<Item = io::Result<bytes::Bytes>>,
) -> io::Result<PathBuf> {
    let (segment, offset) = (place.segment, place.offset);
    let name = format!("{segment:016}.{offset}.{checksum:08x}.corrupt");
    let path = dir.join(name);
    let mut file = private().create(true).truncate(true).open(&path)?;
    for chunk in bytes {
        file.write_all(&chunk?)?;
    }
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(path)
}

/// Where draining stood; `None` when there is no position, or none that can be read: then
/// everything there is comes out again, which is harmless.
pub(super) fn read_drained(dir: &Path) -> io::Result<Option<Position>> {
    let bytes = match fs::read(dir.join(DRAINED)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(decode_drained(&bytes))
}

fn decode_drained(bytes: &[u8]) -> Option<Position> {
    let bytes: &[u8; DRAINED_LENGTH] = bytes.try_into().ok()?;
    let (content, checksum) = bytes.split_last_chunk::<4>()?;
    let (magic, numbers) = content.split_first_chunk::<8>()?;
    let (segment, offset) = numbers.split_first_chunk::<8>()?;
    let sound = magic == DRAINED_MAGIC && crc32fast::hash(content).to_le_bytes() == *checksum;
    sound.then(|| Position {
        segment: u64::from_le_bytes(*segment),
        offset: u64::from_le_bytes(offset.try_into().unwrap_or_default()),
    })
}

/// Replaces the position. Not synced: an older one that comes back after a crash only lets some
/// records come out again.
pub(super) fn write_drained(dir: &Path, drained: Position) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(DRAINED_LENGTH);
    bytes.extend(DRAINED_MAGIC);
    bytes.extend(drained.segment.to_le_bytes());
    bytes.extend(drained.offset.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let draft = dir.join("drained.new");
    let mut file = private().create(true).truncate(true).open(&draft)?;
    file.write_all(&bytes)?;
    fs::rename(draft, dir.join(DRAINED))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_drained_position_survives_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_drained(dir.path()).unwrap(), None);
        let position = Position {
            segment: 7,
            offset: 1 << 40,
        };
        write_drained(dir.path(), position).unwrap();
        assert_eq!(read_drained(dir.path()).unwrap(), Some(position));
        let path = dir.path().join(DRAINED);
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(read_drained(dir.path()).unwrap(), None, "byte {at}");
            fs::write(&path, &sound[..at]).unwrap();
            assert_eq!(read_drained(dir.path()).unwrap(), None, "cut at {at}");
        }
    }

    #[test]
    fn only_segments_are_taken_for_segments() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "0000000000000002.journal",
            "0000000000000010.journal",
            "2.journal",
            "000000000000000x.journal",
            "+000000000000003.journal",
            "0000000000000002.40.0badcafe.corrupt",
            "lock",
        ] {
            fs::write(dir.path().join(name), b"abc").unwrap();
        }
        assert_eq!(segments(dir.path()).unwrap(), [(2, 3), (10, 3)]);
    }
}
