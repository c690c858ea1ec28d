//! What makes a file *that* file: opening it safely, its identity, the prints of its content.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TailError;

/// How much of a file's content is looked at to tell it from another, at its head and before the offset.
pub const PRINT_BYTES: usize = 1024;

/// `O_NONBLOCK`: opening a FIFO that took the file's place must not wait for its writer.
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"))
))]
const OPEN_WITHOUT_WAITING: i32 = 0o4000;
#[cfg(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
const OPEN_WITHOUT_WAITING: i32 = 0x4;
#[cfg(not(any(
    all(
        any(target_os = "linux", target_os = "android"),
        not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"))
    ),
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)))]
const OPEN_WITHOUT_WAITING: i32 = 0;

/// What `stat` tells about a file. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStat {
    pub device: u64,
    pub inode: u64,
    pub birth: Option<i64>,
    pub size: u64,
    pub modified: i64,
    pub changed: i64,
}

impl FileStat {
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            birth: metadata.created().ok().map(nanoseconds),
            size: metadata.len(),
            modified: joined(metadata.mtime(), metadata.mtime_nsec()),
            changed: joined(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::new(&file.metadata()?))
    }

    /// Whether both are one inode now. Only for files that exist (or are held open) at the same time.
    pub fn is_same_inode(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }
}

/// A birth time that one side does not know contradicts nothing.
pub(super) fn births_agree(one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// Nanoseconds since 1970, negative before.
pub(super) fn nanoseconds(time: SystemTime) -> i64 {
    let clamp = |nanos: u128| i64::try_from(nanos).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => clamp(after.as_nanos()),
        Err(before) => -clamp(before.duration().as_nanos()),
    }
}

fn joined(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The length of a file that was deleted, or lost its last name to another.
pub(super) fn length_without_name(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok()?;
    (metadata.nlink() == 0).then_some(metadata.len())
}

/// Opens a regular file for reading; `None` when nothing is there.
pub(super) fn open_regular(path: &Path) -> Result<Option<(File, FileStat)>, TailError> {
    match std::fs::metadata(path) {
        Ok(metadata) => refuse_irregular(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TailError::from_io(path, "look at", error)),
    }
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OPEN_WITHOUT_WAITING)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TailError::from_io(path, "open", error)),
    };
    // Another thing may have taken the place between the look and the opening.
    let metadata = file
        .metadata()
        .map_err(|error| TailError::from_io(path, "look at", error))?;
    refuse_irregular(path, &metadata)?;
    Ok(Some((file, FileStat::new(&metadata))))
}

/// The same file opened anew, whatever became of its name: only then a network file system asks its
/// server what others wrote last.
pub(super) fn reopened(file: &File) -> io::Result<(File, FileStat)> {
    let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let stat = FileStat::of(&file)?;
    Ok((file, stat))
}

fn refuse_irregular(path: &Path, metadata: &Metadata) -> Result<(), TailError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let path = path.to_owned();
    if kind.is_dir() {
        return Err(TailError::IsADirectory { path });
    }
    let what = if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    };
    Err(TailError::NotARegularFile { path, what })
}

/// Reads up to `length` bytes at `offset`; fewer only at the end of the file.
pub(super) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let filled = fill_at(file, offset, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Fills `buffer` from `offset` on; returns how much there was.
pub(super) fn fill_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Length and SHA-256 of a stretch of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// How many bytes it covers, at most [`PRINT_BYTES`].
    pub len: u32,
    /// Their SHA-256 in hexadecimal; empty when nothing is covered.
    pub sha256: String,
}

impl Print {
    /// The print of these bytes (of their last [`PRINT_BYTES`], were there more).
    pub fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[bytes.len().saturating_sub(PRINT_BYTES)..];
        if bytes.is_empty() {
            return Self::default();
        }
        Self {
            len: u32::try_from(bytes.len()).expect("at most PRINT_BYTES long"),
            sha256: hexadecimal(&Sha256::digest(bytes)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the file has these bytes at `offset`.
    pub(super) fn stands_at(&self, file: &File, offset: u64) -> io::Result<bool> {
        let length = (self.len as usize).min(PRINT_BYTES);
        let found = Self::of(&read_at(file, offset, length)?);
        Ok(found.len == self.len && found.sha256.starts_with(&self.sha256))
    }

    /// The same with 16 hexadecimal digits, which [`Print::stands_at`] takes as well.
    pub(super) fn abbreviated(mut self) -> Self {
        self.sha256.truncate(16);
        self
    }
}

/// The name of a file's content, before any `~n`: inode and a hash over birth time and the head of its first line.
///
/// All three stay as they are when the file grows, is renamed or is read by another process, so a
/// replay without any cursor makes the same keys. The birth time keeps a reused inode with an
/// identical first line apart; the first line keeps them apart where the file system has no birth time.
pub(super) fn base_key(inode: u64, birth: Option<i64>, first_line: &[u8]) -> String {
    let mut hash = Sha256::new();
    if let Some(birth) = birth {
        hash.update(birth.to_be_bytes());
    }
    hash.update(&first_line[..first_line.len().min(PRINT_BYTES)]);
    let mut digest = hexadecimal(&hash.finalize());
    digest.truncate(12);
    format!("{inode}-{digest}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_print_covers_the_last_kibibyte_and_finds_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let content: Vec<u8> = (0..5000_u32).flat_map(u32::to_be_bytes).collect();
        std::fs::write(&path, &content).unwrap();
        let (file, stat) = open_regular(&path).unwrap().unwrap();
        assert_eq!(stat.size, 20_000);

        let print = Print::of(&content[..3000]);
        assert_eq!(print.len, 1024);
        assert!(print.stands_at(&file, 3000 - 1024).unwrap());
        assert!(!print.stands_at(&file, 3001 - 1024).unwrap());
        assert!(!print.stands_at(&file, 19_990).unwrap());
        assert!(Print::of(b"").stands_at(&file, 0).unwrap());
    }

    #[test]
    fn a_key_tells_inode_birth_and_first_line_apart() {
        let key = base_key(7, Some(1), b"{\"RemoteAddr\":\"\"}");
        assert_eq!(key, base_key(7, Some(1), b"{\"RemoteAddr\":\"\"}"));
        assert!(key.starts_with("7-") && key.len() == 14);
        assert_ne!(key, base_key(8, Some(1), b"{\"RemoteAddr\":\"\"}"));
        assert_ne!(key, base_key(7, Some(2), b"{\"RemoteAddr\":\"\"}"));
        assert_ne!(key, base_key(7, None, b"{\"RemoteAddr\":\"\"}"));
        assert_ne!(key, base_key(7, Some(1), b"{\"RemoteAddr\":\"x\"}"));
        let long = vec![b'a'; 1024];
        let longer = vec![b'a'; 4096];
        assert_eq!(base_key(7, None, &long), base_key(7, None, &longer));
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_waits() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            open_regular(&directory.path().join("absent"))
                .unwrap()
                .is_none()
        );
        let error = open_regular(directory.path()).unwrap_err();
        assert_eq!(error.reason(), "is_a_directory");
        let error = open_regular(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.reason(), "not_a_regular_file");
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = open_regular(&socket).unwrap_err();
        assert!(error.to_string().contains("a socket"), "{error}");
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap();
        assert!(made.success());
        let error = open_regular(&fifo).unwrap_err();
        assert!(error.to_string().contains("a named pipe"), "{error}");
        // And were it to slip in between look and opening, the opening would not wait for a writer.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OPEN_WITHOUT_WAITING)
            .open(&fifo)
            .unwrap();
        assert!(refuse_irregular(&fifo, &opened.metadata().unwrap()).is_err());
    }
}
