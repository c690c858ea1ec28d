//! The recorder: events that the platform's own services send.

pub mod decode;

use bytes::Bytes;

use crate::batch::Entry;
use crate::event::SourceName;
use crate::event::TenantHints;
use crate::journal::{PushKind, PushRecord};
use crate::sources::push::{Job, Room};

use decode::{RequestContext, decode_request};

/// The job that delivers a request.
///
/// # Errors
/// When any event of it is wrong, with its index and field; then none is delivered.
pub fn job(
    source: &SourceName,
    body: Bytes,
    idempotency_key: Option<String>,
    room: Room,
) -> Result<Job, String> {
    let request_id = rand::random();
    let kind = PushKind::Recorder {
        request_id,
        idempotency_key,
    };
    let record = PushRecord::new(source.clone(), kind, body);
    let entries = entries(&record)?;
    Ok(Box::new(move |pusher| {
        Box::pin(async move { pusher.deliver(&record, entries.into_iter(), room).await })
    }))
}

/// Decodes a request: the same each time.
///
/// # Errors
/// What is wrong with it, with the event's index and field.
pub fn entries(record: &PushRecord) -> Result<Vec<Entry>, String> {
    let (request_id, idempotency_key) = match &record.kind {
        PushKind::Recorder {
            request_id,
            idempotency_key,
        } => (*request_id, idempotency_key.as_deref()),
        PushKind::Stalwart => return Err("a webhook is no request of a recorder".to_owned()),
    };
    let context = RequestContext {
        source: &record.source,
        received_at: record.received_at,
        request_id,
    };
    let events = decode_request(&record.body, idempotency_key, &context)
        .map_err(|error| error.to_string())?;
    let entries = events
        .into_iter()
        .map(|event| Entry::Event(Box::new(event), TenantHints::default()));
    Ok(entries.collect())
}
