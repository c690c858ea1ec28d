//! Stalwart's webhooks: signed bodies of events, answered 200 when all of them are durable.

pub mod decode;
mod masks;
mod parts;
pub mod signature;
pub mod verbs;

use std::iter;

use bytes::Bytes;

use crate::batch::Entry;
use crate::event::{Decoded, SourceName};
use crate::journal::{PushKind, PushRecord};
use crate::sources::push::{Job, Room};

use decode::{BodyContext, decode_body, quarantine};

/// The job that delivers a body whose signature was checked.
pub fn job(source: &SourceName, body: Bytes, room: Room) -> Job {
    let record = PushRecord::new(source.clone(), PushKind::Stalwart, body);
    Box::new(move |pusher| {
        Box::pin(async move {
            let context = context(&record);
            let entries = entries(&record, &context);
            pusher.deliver(&record, entries, room).await
        })
    })
}

/// Where a body comes from.
pub fn context(record: &PushRecord) -> BodyContext<'_> {
    BodyContext {
        source: &record.source,
        received_at: record.received_at,
    }
}

/// Decodes a body, one entry after the other: the same each time.
///
/// What cannot be read is quarantined and acknowledged all the same: it would be no better the
/// next time, and Stalwart would send it, and all that follows, again and again.
pub fn entries<'a>(
    record: &'a PushRecord,
    context: &'a BodyContext<'a>,
) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
    // Not before the first is asked for: reading the body may panic, too, and who asks is on guard.
    Box::new(iter::once_with(move || of_body(record, context)).flatten())
}

fn of_body<'a>(
    record: &'a PushRecord,
    context: &'a BodyContext<'a>,
) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
    match decode_body(&record.body, context) {
        Ok(events) => Box::new(events.filter_map(entry_of)),
        Err(error) => {
            let letter = Entry::Dead(quarantine(&record.body, context, &error));
            Box::new(iter::once(letter))
        }
    }
}

fn entry_of(decoded: Decoded) -> Option<Entry> {
    match decoded {
        Decoded::Event(event, hints) => Some(Entry::Event(event, hints)),
        Decoded::Dead(letter) => Some(Entry::Dead(letter)),
        Decoded::Filtered => None,
    }
}
