//! Copying the write-ahead log into the file, on a thread beside the one that writes.
//!
//! A checkpoint beside which commits go on does not reach the log's end, and only a log that was
//! copied to its end is begun anew: a log that has become long is copied by the writer itself, for
//! which little is left then. A checkpoint that fails, or meets another, is tried again after a later
//! commit; until then the log has everything.

use std::ffi::c_int;
use std::io;
use std::sync::mpsc::sync_channel;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

/// Pages of the log that are copied at once.
const PAGES: c_int = 4000;

/// Pages at which the writer copies what is left.
const LONG: c_int = 4 * PAGES;

/// Starts the thread, which ends with `writer`.
pub(super) fn beside(writer: &mut Connection, own: Connection) -> rusqlite::Result<io::Result<()>> {
    let (wake, woken) = sync_channel(0);
    let mut copied = 0;
    writer.wal_hook(Some(move |log: &mut Wal, pages: c_int| {
        if pages < copied {
            copied = 0;
        }
        if pages >= LONG {
            let _tried_again = log.checkpoint();
        } else if pages - copied >= PAGES && wake.try_send(()).is_ok() {
            copied = pages;
        }
        Ok(())
    }))?;
    let thread = std::thread::Builder::new().name("sqlite-checkpoint".to_owned());
    let thread = thread.spawn(move || {
        while woken.recv().is_ok() {
            let copied = own.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            if let Err(error) = copied {
                tracing::warn!(%error, "the write-ahead log is not copied into the file; tried again later");
            }
        }
    });
    Ok(thread.map(|_handle| ()))
}
