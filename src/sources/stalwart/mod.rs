//! Stalwart's webhooks: signed bodies of events, answered 200 when all of them are durable.

pub mod decode;
mod masks;
mod parts;
pub mod signature;
pub mod verbs;

use bytes::Bytes;
use daybook_actors::budget::Permit;
use jiff::Timestamp;

use crate::batch::Entry;
use crate::event::Decoded;
use crate::sources::push::Job;

use decode::{BodyContext, decode_body, quarantine};

/// The job that delivers a body whose signature was checked.
///
/// What cannot be read is quarantined and acknowledged all the same: it would be no better the
/// next time, and Stalwart would send it, and all that follows, again and again.
pub fn job(body: Bytes, permit: Permit) -> Job {
    Box::new(move |pusher| {
        Box::pin(async move {
            let source = pusher.source().clone();
            let context = BodyContext {
                source: &source,
                received_at: Timestamp::now(),
            };
            match decode_body(&body, &context) {
                Ok(events) => {
                    pusher
                        .deliver(events.filter_map(entry_of), permit.into())
                        .await
                }
                Err(error) => {
                    let letter = Entry::Dead(quarantine(&body, &context, &error));
                    pusher.deliver(std::iter::once(letter), permit.into()).await
                }
            }
        })
    })
}

fn entry_of(decoded: Decoded) -> Option<Entry> {
    match decoded {
        Decoded::Event(event, hints) => Some(Entry::Event(event, hints)),
        Decoded::Dead(letter) => Some(Entry::Dead(letter)),
        Decoded::Filtered => None,
    }
}
