//! What stands in a record: one accepted push, with all that it takes to decode it again to the
//! very same events.

use bytes::Bytes;
use jiff::Timestamp;

use crate::event::{SourceName, to_millis};

const STALWART: u8 = 1;
const RECORDER: u8 = 2;

/// One accepted push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRecord {
    /// The source it was pushed to.
    pub source: SourceName,
    /// When; whole milliseconds. An event without a time of its own has this one.
    pub received_at: Timestamp,
    /// Whose decoder reads it, and what that needs beside the body.
    pub kind: PushKind,
    /// The body as received. Holds secrets.
    pub body: Bytes,
}

/// Which decoder reads a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushKind {
    /// A webhook whose signature was checked. Its events' keys are hashes of what they say.
    Stalwart,
    /// A platform service's request, which was found good.
    Recorder {
        /// Made for this request: the keys of its events without one are derived from it.
        request_id: u128,
        /// The request's `Idempotency-Key`.
        idempotency_key: Option<String>,
    },
}

/// Why a sound record means nothing to this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a version that knows more kinds.
    #[error("record is of unknown kind {0}")]
    UnknownKind(u8),
    /// Shorter than its kind needs, or with a time or text that is none.
    #[error("record has no readable {0}")]
    Unreadable(&'static str),
    /// Lengths that do not fit their fields.
    #[error("record has a {0} that is too long")]
    TooLong(&'static str),
}

impl PushRecord {
    /// A push received now.
    pub fn new(source: SourceName, kind: PushKind, body: Bytes) -> Self {
        Self {
            source,
            received_at: to_millis(Timestamp::now()),
            kind,
            body,
        }
    }

    /// Everything before the body.
    pub(super) fn head(&self) -> Result<Vec<u8>, RecordError> {
        let source = self.source.as_str().as_bytes();
        let source_length =
            u16::try_from(source.len()).map_err(|_| RecordError::TooLong("source name"))?;
        let kind = match self.kind {
            PushKind::Stalwart => STALWART,
            PushKind::Recorder { .. } => RECORDER,
        };
        let mut head = vec![kind];
        head.extend(self.received_at.as_millisecond().to_le_bytes());
        head.extend(source_length.to_le_bytes());
        head.extend(source);
        if let PushKind::Recorder {
            request_id,
            idempotency_key,
        } = &self.kind
        {
            let key = idempotency_key.as_deref().unwrap_or_default();
            let key_length =
                u32::try_from(key.len()).map_err(|_| RecordError::TooLong("idempotency key"))?;
            head.extend(request_id.to_le_bytes());
            head.push(u8::from(idempotency_key.is_some()));
            head.extend(key_length.to_le_bytes());
            head.extend(key.as_bytes());
        }
        Ok(head)
    }

    /// Reads a record whose checksum is right.
    ///
    /// # Errors
    /// When another version wrote it.
    pub(super) fn decode(record: &Bytes) -> Result<Self, RecordError> {
        let mut rest = &record[..];
        let [kind] = take(&mut rest, "kind")?;
        let received_at = Timestamp::from_millisecond(i64::from_le_bytes(take(&mut rest, "time")?))
            .map_err(|_| RecordError::Unreadable("time"))?;
        let source_length = u16::from_le_bytes(take(&mut rest, "source name")?);
        let source = text(&mut rest, usize::from(source_length), "source name")?;
        let kind = match kind {
            STALWART => PushKind::Stalwart,
            RECORDER => {
                let request_id = u128::from_le_bytes(take(&mut rest, "request id")?);
                let [has_key] = take(&mut rest, "idempotency key")?;
                let key_length = u32::from_le_bytes(take(&mut rest, "idempotency key")?);
                let key = text(&mut rest, key_length as usize, "idempotency key")?;
                PushKind::Recorder {
                    request_id,
                    idempotency_key: (has_key != 0).then(|| key.to_owned()),
                }
            }
            unknown => return Err(RecordError::UnknownKind(unknown)),
        };
        Ok(Self {
            source: SourceName::new(source),
            received_at,
            kind,
            body: record.slice(record.len() - rest.len()..),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], RecordError> {
    let (taken, after) = rest
        .split_first_chunk::<N>()
        .ok_or(RecordError::Unreadable(what))?;
    *rest = after;
    Ok(*taken)
}

fn text<'a>(
    rest: &mut &'a [u8],
    length: usize,
    what: &'static str,
) -> Result<&'a str, RecordError> {
    let (taken, after) = rest
        .split_at_checked(length)
        .ok_or(RecordError::Unreadable(what))?;
    *rest = after;
    std::str::from_utf8(taken).map_err(|_| RecordError::Unreadable(what))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = PushRecord> {
        let kind = prop_oneof![
            Just(PushKind::Stalwart),
            (any::<u128>(), proptest::option::of(".*")).prop_map(|(request_id, key)| {
                PushKind::Recorder {
                    request_id,
                    idempotency_key: key,
                }
            }),
        ];
        let body = proptest::collection::vec(any::<u8>(), 0..200);
        (".{0,40}", 0..=253_402_207_200_000_i64, kind, body).prop_map(
            |(source, received_at, kind, body)| PushRecord {
                source: SourceName::new(&source),
                received_at: Timestamp::from_millisecond(received_at).unwrap(),
                kind,
                body: body.into(),
            },
        )
    }

    fn encode(record: &PushRecord) -> Bytes {
        let mut bytes = record.head().unwrap();
        bytes.extend(&record.body);
        bytes.into()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(record in records()) {
            prop_assert_eq!(PushRecord::decode(&encode(&record)).unwrap(), record);
        }

        #[test]
        fn nothing_readable_or_not_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = Bytes::from(bytes);
            if let Ok(record) = PushRecord::decode(&bytes) {
                prop_assert!(bytes.ends_with(&record.body));
            }
        }
    }

    #[test]
    fn an_unknown_kind_says_so() {
        let record = PushRecord::new("s".into(), PushKind::Stalwart, Bytes::from_static(b"{}"));
        let mut bytes = encode(&record).to_vec();
        bytes[0] = 9;
        let error = PushRecord::decode(&bytes.into()).unwrap_err();
        assert_eq!(error, RecordError::UnknownKind(9));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let name = "n".repeat(70_000);
        let record = PushRecord::new(name.as_str().into(), PushKind::Stalwart, Bytes::new());
        assert_eq!(record.head(), Err(RecordError::TooLong("source name")));
    }
}
