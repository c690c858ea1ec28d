//! The recorder: events that the platform's own services send.

pub mod decode;

use daybook_actors::budget::Permit;
use jiff::Timestamp;

use crate::batch::Entry;
use crate::event::{SourceName, TenantHints};
use crate::sources::push::Job;

use decode::{RequestContext, decode_request};

/// The job that delivers a request.
///
/// # Errors
/// When any event of it is wrong, with its index and field; then none is delivered.
pub fn job(
    source: &SourceName,
    body: &[u8],
    idempotency_key: Option<&str>,
    permit: Permit,
) -> Result<Job, String> {
    let context = RequestContext {
        source,
        received_at: Timestamp::now(),
    };
    let events =
        decode_request(body, idempotency_key, &context).map_err(|error| error.to_string())?;
    let entries: Vec<Entry> = events
        .into_iter()
        .map(|event| Entry::Event(Box::new(event), TenantHints::default()))
        .collect();
    Ok(Box::new(move |pusher| {
        Box::pin(pusher.deliver(entries.into_iter(), permit.into()))
    }))
}
