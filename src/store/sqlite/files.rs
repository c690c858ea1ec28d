//! The files that SQLite has open. What goes into one that was deleted, moved away or replaced is lost with the process.
//!
//! Another process that opens what is there by then makes the missing ones anew and shares the others, so that the log's
//! index tells of one log and SQLite has another: nothing is read, written or copied any more.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{in_file, io_error};
use crate::store::{Result, StoreError};

/// The file, its write-ahead log and that one's index, each of which stays the same one as long as it is open.
pub(super) struct OpenFiles {
    files: [OpenFile; 3],
    /// Whether others may have written what this process does not know of, whatever comes back.
    is_lost: AtomicBool,
    /// Whether nothing is copied any more: what the log had is in the file, or others may have written there.
    is_settled: AtomicBool,
}

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
                ErrorKind::NotFound => {
                    let message = "SQLite has not made it; is its disk full?";
                    in_file(&path, StoreError::Full(message.to_owned()))
                }
                _ => io_error(&path, &error),
            })
        };
        Ok(Self {
            files: [file, beside("-wal")?, beside("-shm")?],
            is_lost: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        let [file, ..] = &self.files;
        &file.path
    }

    /// Whether each of them is still there. What the log has was answered: once one is gone, it is copied into the file,
    /// where nobody else can have opened what is left.
    pub(super) fn check(&self, connection: &Connection) -> Result<()> {
        use Found::{Another, Itself, Nothing};

        let [file, log, index] = &self.files;
        let found = [file.look()?, log.look()?, index.look()?];
        let is_lost = self.is_lost.load(Ordering::Acquire);
        match found {
            [Itself, Itself, Itself] if !is_lost => return Ok(()),
            // They may come back: who opens another file there leaves it, and takes away the log that stands beside.
            [Nothing, Itself, Itself] if !is_lost => {
                let _again_at_the_next_look = copy_log(connection);
            }
            [Nothing, Itself, Itself] | [Nothing, Nothing, Nothing] => {}
            // The log stands where a restart plays it.
            [Itself, Itself, Nothing] => self.is_lost.store(true, Ordering::Release),
            [Itself, Nothing, Itself | Nothing] => {
                self.is_lost.store(true, Ordering::Release);
                if !self.is_settled.load(Ordering::Acquire) && copy_log(connection) {
                    self.is_settled.store(true, Ordering::Release);
                }
            }
            _ => {
                self.is_lost.store(true, Ordering::Release);
                self.is_settled.store(true, Ordering::Release);
            }
        }
        let gone = found.iter().position(|found| *found != Itself);
        let gone = &self.files[gone.unwrap_or_default()].path;
        // Over another file a restart would play the log of this one, and beside none it would delete it.
        let message = if matches!(found, [Another | Nothing, Itself, _]) {
            "the file was moved or replaced; before a restart see DaybookStoreDown in the runbook"
        } else {
            "the file was deleted, moved or replaced; restart Daybook to go on with what is there"
        };
        Err(in_file(gone, StoreError::Unavailable(message.to_owned())))
    }

    /// Closes a connection. The last one would copy the log and delete what has its name, which may be another's by now.
    pub(super) fn close(&self, connection: Connection) {
        if self.check(&connection).is_err() {
            let leave = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let _ = connection.set_db_config(leave, true);
        }
        drop(connection);
    }
}

/// Copies the log into the file; `false`: some of it stays behind, as where another copies or reads. That is no error to
/// SQLite, but told.
fn copy_log(connection: &Connection) -> bool {
    // It waits for nobody: the names were looked at just now, and would have to be once more.
    let copy = "PRAGMA wal_checkpoint(PASSIVE)";
    let copied = connection.query_row(copy, [], |row| {
        let (is_hindered, frames, copied): (bool, i64, i64) = row.try_into()?;
        Ok(!is_hindered && frames == copied)
    });
    copied.unwrap_or(false)
}

/// A file that is open, by its device and inode.
struct OpenFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// What has the name of a file that is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Itself,
    Another,
    Nothing,
}

impl OpenFile {
    fn new(path: PathBuf) -> std::io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    fn look(&self) -> Result<Found> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(Found::Itself),
            Ok(_) => Ok(Found::Another),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
            // It may be there all the same, as in a directory that may not be searched.
            Err(error) => {
                let unseen = StoreError::Unavailable(error.to_string());
                Err(in_file(&self.path, unseen))
            }
        }
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
