//! What a driver's error means for Daybook. Messages keep the server's own words, never an event.

use mongodb::error::{Error, ErrorKind, WriteConcernError, WriteFailure};

use crate::store::StoreError;

/// `UserNotFound`, `Unauthorized`, `AuthenticationFailed`, and a hosted service's own refusal.
const ACCESS_CODES: [i32; 4] = [11, 13, 18, 8000];

/// `OutOfDiskSpace`.
const FULL_CODE: i32 = 14031;

/// The server or its connections are the trouble, not the request: unreachable hosts and lost
/// sockets, not primary, recovering, shutting down, stepped down, time or lock limits, write
/// conflicts, a majority that does not answer, writes blocked by an administrator or a migration.
const UNAVAILABLE_CODES: [i32; 31] = [
    6, 7, 24, 50, 64, 75, 79, 89, 91, 94, 100, 112, 133, 134, 189, 202, 211, 251, 262, 290, 365,
    371, 462, 9001, 10058, 10107, 11600, 11601, 11602, 13435, 13436,
];

/// Of a message that the driver composes.
const MAX_MESSAGE_CHARACTERS: usize = 500;

/// Classifies a driver's error.
pub(super) fn store_error(error: &Error) -> StoreError {
    match error.kind.as_ref() {
        ErrorKind::Authentication { message, .. } | ErrorKind::InvalidTlsConfig { message, .. } => {
            StoreError::Unauthorized(message.clone())
        }
        ErrorKind::Command(command) => by_code(command.code, &command.code_name, &command.message),
        ErrorKind::Write(WriteFailure::WriteError(write)) => by_code(
            write.code,
            write.code_name.as_deref().unwrap_or("write error"),
            &write.message,
        ),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => write_concern(concern),
        ErrorKind::InsertMany(insert) => {
            match (&insert.write_concern_error, &insert.write_errors) {
                (Some(concern), _) => write_concern(concern),
                (None, Some(errors)) if !errors.is_empty() => by_code(
                    errors[0].code,
                    errors[0].code_name.as_deref().unwrap_or("write error"),
                    &errors[0].message,
                ),
                _ => StoreError::Other(error.kind.to_string()),
            }
        }
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => unavailable(&error.kind),
        other => StoreError::Other(other.to_string()),
    }
}

/// Whether the server has answered a command with one of these.
pub(super) fn has_code(error: &Error, codes: &[i32]) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if codes.contains(&command.code))
}

/// Selection wraps the reason for which no server would do: a wrong password looks like an outage otherwise.
fn unavailable(kind: &ErrorKind) -> StoreError {
    let mut message = kind.to_string();
    let access = [
        "Authentication failed",
        "SCRAM failure",
        "AuthenticationFailed",
    ];
    let refused = access.iter().any(|words| message.contains(words));
    // It quotes every server's last answer, bytes and all.
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARACTERS) {
        message.truncate(end);
        message.push('…');
    }
    if refused {
        StoreError::Unauthorized(message)
    } else {
        StoreError::Unavailable(message)
    }
}

/// The write may stand on one server only: nothing is known until it is repeated.
fn write_concern(error: &WriteConcernError) -> StoreError {
    match by_code(error.code, &error.code_name, &error.message) {
        StoreError::Other(message) => StoreError::Unavailable(message),
        known => known,
    }
}

/// Classifies a server's error code.
pub(super) fn by_code(code: i32, name: &str, message: &str) -> StoreError {
    // Of a query that it cannot plan, the server tells everything that was asked for before it tells why.
    let message = match message.starts_with("error processing query") {
        true => message.lines().next_back().unwrap_or_default(),
        false => message,
    };
    let text = format!("{name} ({code}): {message}");
    if ACCESS_CODES.contains(&code) {
        StoreError::Unauthorized(text)
    } else if code == FULL_CODE || message.contains("No space left on device") {
        StoreError::Full(text)
    } else if UNAVAILABLE_CODES.contains(&code) {
        StoreError::Unavailable(text)
    } else {
        StoreError::Other(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_what_a_person_or_the_writer_can_act_on() {
        let reason = |code, message| by_code(code, "Name", message).reason();
        assert_eq!(reason(13, "not authorized"), "unauthorized");
        assert_eq!(reason(18, "Authentication failed."), "unauthorized");
        assert_eq!(reason(14031, "available disk space"), "full");
        assert_eq!(reason(8, "No space left on device"), "full");
        assert_eq!(reason(10107, "not primary"), "unavailable");
        assert_eq!(reason(371, "User writes blocked"), "unavailable");
        assert_eq!(
            reason(64, "waiting for replication timed out"),
            "unavailable"
        );
        assert_eq!(reason(9, "failed to parse"), "other");
        let told = by_code(
            2,
            "BadValue",
            "error processing query: ns=a.b\nactor == alice\n hint provided",
        );
        assert_eq!(told.to_string().lines().count(), 1);
        assert!(told.to_string().ends_with("hint provided"), "{told}");
    }
}
