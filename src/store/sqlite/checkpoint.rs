//! Copying the write-ahead log into the file, on a thread beside the one that writes.
//!
//! A checkpoint beside which commits go on does not reach the log's end, and only a log that was
//! copied to its end is begun anew: a log that has become long is copied by the writer itself, for
//! which little is left then. Reads that overlap keep that from the end too: one that has become twice
//! as long is copied while commits wait, and no longer than the reads that need it. A checkpoint that
//! fails, or meets another, is tried again after a later commit; until then the log has everything.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::files::OpenFiles;

/// Pages of the log that are copied at once.
const PAGES: c_int = 4000;

/// Pages at which the writer copies what is left.
const LONG: c_int = 4 * PAGES;

/// Pages at which commits wait until nobody reads in the log any more.
const TOO_LONG: c_int = 2 * LONG;

/// How long they wait for that.
const PATIENCE: Duration = Duration::from_millis(300);

/// Starts the thread, which ends with `writer`.
pub(super) fn beside(
    writer: &mut Connection,
    mut own: Connection,
    files: Arc<OpenFiles>,
) -> rusqlite::Result<io::Result<()>> {
    super::wait_for_locks(&mut own, PATIENCE)?;
    let (wake, woken) = sync_channel(0);
    let mut copied = 0;
    writer.wal_hook(Some(move |log: &mut Wal, pages: c_int| {
        if pages < copied {
            copied = 0;
        }
        if pages >= LONG {
            let _tried_again = log.checkpoint();
        }
        if pages - copied >= PAGES && wake.try_send(pages).is_ok() {
            copied = pages;
        }
        Ok(())
    }))?;
    let thread = std::thread::Builder::new().name("sqlite-checkpoint".to_owned());
    let thread = thread.spawn(move || {
        while let Ok(pages) = woken.recv() {
            let copy = match pages < TOO_LONG {
                true => "PRAGMA wal_checkpoint(PASSIVE)",
                false => "PRAGMA wal_checkpoint(RESTART)",
            };
            let copied = own.query_row(copy, [], |_| Ok(()));
            if let Err(error) = copied {
                tracing::warn!(%error, "the write-ahead log is not copied into the file; tried again later");
            }
        }
        files.close(own);
    });
    Ok(thread.map(|_handle| ()))
}
