//! What SQLite's errors mean for Daybook. Messages keep SQLite's own words, never an event.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

/// SQLite does not tell which right is missing, or on what.
const RIGHTS: &str = "may this user read and write it and its directory?";

/// Classifies SQLite's error.
pub(super) fn store_error(error: &Error) -> StoreError {
    let message = error.to_string();
    match error {
        Error::ToSqlConversionFailure(_) => return StoreError::Other(message),
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..) => {
            return StoreError::Unavailable(format!("the file holds a damaged value: {message}"));
        }
        _ => {}
    }
    if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) {
        // The log's index finds no room. SQLite calls that an I/O error, and does not say which.
        return StoreError::Full(format!("{message}; is its disk full?"));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(message),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            StoreError::Unauthorized(message)
        }
        Some(ErrorCode::ReadOnly) => StoreError::Unauthorized(format!("{message}; {RIGHTS}")),
        // Its own message names the file, as whoever opens it does.
        Some(ErrorCode::CannotOpen) => {
            StoreError::Unauthorized(format!("unable to open database file; {RIGHTS}"))
        }
        // Only these may an event have brought about.
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            StoreError::Other(message)
        }
        // A lock, a damaged page, a table that the first start has not made yet or that is none of ours.
        _ => StoreError::Unavailable(message),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rusqlite::types::Type;

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

    #[test]
    fn no_event_is_at_fault_for_what_it_cannot_bring_about() {
        let failure = |code| Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [
            ffi::SQLITE_CONSTRAINT_TRIGGER,
            ffi::SQLITE_MISMATCH,
            ffi::SQLITE_TOOBIG,
        ] {
            assert_eq!(store_error(&failure(code)).reason(), "other");
        }
        let unreadable = String::from_utf8(vec![0xFF]).unwrap_err().utf8_error();
        for error in [
            failure(ffi::SQLITE_ERROR),
            failure(ffi::SQLITE_CORRUPT),
            Error::Utf8Error(0, unreadable),
            Error::InvalidColumnType(0, "at".to_owned(), Type::Text),
            Error::IntegralValueOutOfRange(0, i64::MAX),
            Error::FromSqlConversionFailure(0, Type::Text, "no list".into()),
        ] {
            assert_eq!(store_error(&error).reason(), "unavailable", "{error}");
        }
    }
}
