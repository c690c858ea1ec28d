//! The recorder: events that the platform's own services send.

pub mod decode;

use bytes::Bytes;

use crate::batch::Entry;
use crate::event::{AuditEvent, SourceName, TenantHints};
use crate::journal::{PushKind, PushRecord};
use crate::sources::push::{Job, Pushed, Room};

use decode::{RequestContext, RequestError, RequestEvents, decode_request, read_request};

/// The job that delivers a request. The request is checked here: a large one for seconds.
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
    decode_with(&record, decode_request)?;
    Ok(Box::new(move |pusher| {
        Box::pin(async move {
            match decode_with(&record, read_request) {
                Ok(events) => pusher.deliver(&record, events.map(entry), room).await,
                Err(error) => Pushed::Unavailable(error),
            }
        })
    }))
}

fn decode_with<'a>(
    record: &'a PushRecord,
    decode: impl FnOnce(
        &'a [u8],
        Option<&str>,
        RequestContext<'a>,
    ) -> Result<RequestEvents<'a>, RequestError>,
) -> Result<RequestEvents<'a>, String> {
    let PushKind::Recorder {
        request_id,
        idempotency_key,
    } = &record.kind
    else {
        return Err("a webhook is no request of a recorder".to_owned());
    };
    let context = RequestContext {
        source: &record.source,
        received_at: record.received_at,
        request_id: *request_id,
    };
    decode(&record.body, idempotency_key.as_deref(), context).map_err(|error| error.to_string())
}

fn entry(event: AuditEvent) -> Entry {
    Entry::Event(Box::new(event), TenantHints::default())
}
