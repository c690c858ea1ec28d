//! One event of Authentik's API becomes an event of the timeline.
//!
//! - The key is the event's `pk`, a random UUID: nothing can be read from its order.
//! - `created` is set before the event becomes visible and loses its fraction when that is zero:
//!   it is parsed, never compared as text.
//! - Groups and the subject id stand in no event; [`EventHead::user_pks`] tells whom to look up.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::masks::{mask_event, mask_letter};
pub use super::page::{Page, PageError, decode_page};
use super::parts::{Parts, acting, is_in_flow, other, real_user_key};
use super::verbs;
use crate::event::json;
use crate::event::{
    AuditEvent, DeadLetter, DeadLetterReason, Decoded, SourceName, parse_time, to_millis,
};
use crate::sources::text::{
    LetterContext, MAX_VALUES, has_too_many_values, json_trouble, sha256_hex, text,
};

/// Where an event comes from.
pub struct EventContext<'a> {
    /// The source.
    pub source: &'a SourceName,
    /// When it was received.
    pub received_at: Timestamp,
}

/// What a walk over the pages needs of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// The key.
    pub pk: String,
    /// When it was made, to the microsecond.
    pub created: Timestamp,
    /// The acting user's key, if that is a user who can be looked up.
    pub user_pk: Option<i64>,
    /// The key of the user whom an administrator impersonates, or whom a flow is about while somebody
    /// else is signed in.
    pub impersonated_pk: Option<i64>,
}

#[derive(Deserialize)]
struct RawHead<'a> {
    pk: String,
    created: String,
    #[serde(borrow, default)]
    user: Option<&'a RawValue>,
    /// Read only where it matters whether there was a flow.
    #[serde(borrow, default)]
    context: Option<&'a RawValue>,
}

impl EventHead {
    /// Reads the head; `None` for what tells no place.
    pub fn read(event: &RawValue) -> Option<Self> {
        // A derived reader takes a list for an object with its fields in order.
        if !event.get().starts_with('{') {
            return None;
        }
        let head: RawHead<'_> = serde_json::from_str(event.get()).ok()?;
        // What becomes a dead letter is nobody's.
        let user = head.user.filter(|_| !has_too_many_values(event.get()));
        let user = user.and_then(|raw| json::object(raw.get()).ok());
        let user = user.as_ref();
        let comes_of_flow = || {
            let context = head.context.and_then(|raw| json::object(raw.get()).ok());
            context.is_none_or(|context| is_in_flow(&context))
        };
        Some(Self {
            pk: Some(head.pk).filter(|pk| !pk.is_empty())?,
            created: parse_time(&head.created)?,
            user_pk: user.map(acting).and_then(real_user_key),
            impersonated_pk: user
                .and_then(|user| other(user, comes_of_flow))
                .and_then(real_user_key),
        })
    }

    /// Whom to look up: the acting user first.
    pub fn user_pks(&self) -> [Option<i64>; 2] {
        [self.user_pk, self.impersonated_pk]
    }
}

/// The key of the acting user, to look groups and subject id up by. `None` for events of the
/// system, of anonymous callers and of users that never existed.
pub fn user_key(event: &Value) -> Option<i64> {
    real_user_key(acting(event.get("user")?.as_object()?))
}

/// Decodes one event.
pub fn decode_event(event: &RawValue, ctx: &EventContext<'_>) -> Decoded {
    decode(event, ctx).unwrap_or_else(|letter| Decoded::Dead(*letter))
}

fn decode(raw: &RawValue, ctx: &EventContext<'_>) -> Result<Decoded, Box<DeadLetter>> {
    let bytes = raw.get().as_bytes();
    let letters = LetterContext {
        source: ctx.source,
        at: ctx.received_at,
    };
    let refuse = |detail: String| {
        Box::new(letters.letter(
            sha256_hex(bytes),
            DeadLetterReason::UnexpectedShape,
            detail,
            bytes,
            mask_letter,
        ))
    };
    if has_too_many_values(raw.get()) {
        return Err(refuse(format!("an event of more than {MAX_VALUES} values")));
    }
    let value = json::from_str(raw.get()).map_err(|error| refuse(json_trouble(&error)))?;
    let Value::Object(mut event) = value else {
        return Err(refuse("an event is an object".to_owned()));
    };
    let Some(pk) = text(&event, "pk").map(str::to_owned) else {
        return Err(refuse("an event without `pk`".to_owned()));
    };
    let Some(created) = text(&event, "created") else {
        return Err(refuse("an event without `created`".to_owned()));
    };
    let created =
        parse_time(created).ok_or_else(|| refuse("`created` is no RFC 3339 time".to_owned()))?;

    let no_context = Map::new();
    let raw_action = text(&event, "action").unwrap_or_default().to_owned();
    let parts = Parts {
        action: &raw_action,
        user: event
            .get("user")
            .and_then(Value::as_object)
            .filter(|user| !user.is_empty()),
        context: event
            .get("context")
            .and_then(Value::as_object)
            .unwrap_or(&no_context),
        client_ip: text(&event, "client_ip"),
    };
    let (action, outcome) = verbs::verb(&raw_action, parts.context);
    let (actor, target, hints) = (parts.actor(), parts.target(), parts.hints());
    mask_event(&mut event, &raw_action);
    let event = AuditEvent {
        at: to_millis(created),
        source: ctx.source.clone(),
        external_id: pk,
        action: action.into(),
        outcome,
        actor,
        target,
        tenant_slug: None,
        metadata: event.into(),
    };
    Ok(Decoded::Event(Box::new(event), hints))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
