//! The files that SQLite has open. What goes into one that was deleted, moved away or replaced is lost with the process.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{in_file, io_error};
use crate::store::{Result, StoreError};

/// The file, its write-ahead log and that one's index, each of which stays the same one as long as it is open.
pub(super) struct OpenFiles([OpenFile; 3]);

impl OpenFiles {
    pub(super) fn at(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| io_error(path, &error);
        let file = OpenFile::new(path.to_owned()).map_err(failed)?;
        // They stand beside the file itself, whatever link leads there.
        let itself = path.canonicalize().map_err(failed)?;
        let beside = |ending: &str| {
            let mut path = itself.clone().into_os_string();
            path.push(ending);
            let path = PathBuf::from(path);
            OpenFile::new(path.clone()).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    let message = "SQLite has not made it; is its disk full?";
                    in_file(&path, StoreError::Full(message.to_owned()))
                }
                _ => io_error(&path, &error),
            })
        };
        Ok(Self([file, beside("-wal")?, beside("-shm")?]))
    }

    pub(super) fn path(&self) -> &Path {
        let [file, ..] = &self.0;
        &file.path
    }

    /// Whether each of them is still there.
    pub(super) fn check(&self) -> Result<()> {
        let Some(gone) = self.0.iter().find(|file| !file.is_there()) else {
            return Ok(());
        };
        let message =
            "the file was deleted, moved or replaced; restart Daybook to go on with what is there";
        let moved = StoreError::Unavailable(message.to_owned());
        Err(in_file(&gone.path, moved))
    }
}

/// A file that is open, by its device and inode.
struct OpenFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl OpenFile {
    fn new(path: PathBuf) -> std::io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
