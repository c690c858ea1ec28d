//! What SQLite's errors mean for Daybook. Messages keep SQLite's own words, never an event.

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;

/// Classifies SQLite's error.
pub(super) fn store_error(error: &Error) -> StoreError {
    let message = error.to_string();
    if message.starts_with("no such table") {
        // The first start has not made them yet, or is just making them.
        return StoreError::Unavailable(message);
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly) => StoreError::Full(message),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory,
        ) => StoreError::Unavailable(message),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            StoreError::Unauthorized(message)
        }
        _ => StoreError::Other(message),
    }
}
