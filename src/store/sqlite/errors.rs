//! What SQLite's errors mean for Daybook. Messages keep SQLite's own words, never an event.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

/// SQLite does not tell which right is missing, or on what.
const RIGHTS: &str = "may this user read and write it and its directory?";

/// Classifies SQLite's error.
pub(super) fn store_error(error: &Error) -> StoreError {
    let message = error.to_string();
    if message.starts_with("no such table") {
        // The first start has not made them yet, or is just making them.
        return StoreError::Unavailable(message);
    }
    if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) {
        // The log's index finds no room. SQLite calls that an I/O error, and does not say which.
        return StoreError::Full(format!("{message}; is its disk full?"));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(message),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            // A damaged page is no fault of the event that meets it.
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase,
        ) => StoreError::Unavailable(message),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            StoreError::Unauthorized(message)
        }
        Some(ErrorCode::ReadOnly) => StoreError::Unauthorized(format!("{message}; {RIGHTS}")),
        // Its own message names the file, as whoever opens it does.
        Some(ErrorCode::CannotOpen) => {
            StoreError::Unauthorized(format!("unable to open database file; {RIGHTS}"))
        }
        _ => StoreError::Other(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_the_log_that_finds_no_room_is_a_full_disk() {
        for (code, reason) in [
            (ffi::SQLITE_IOERR_SHMSIZE, "full"),
            (ffi::SQLITE_IOERR_READ, "unavailable"),
        ] {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(store_error(&error).reason(), reason);
        }
    }
}
