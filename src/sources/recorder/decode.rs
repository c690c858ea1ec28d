//! One request of a platform service becomes events, or one error that names what is wrong.
//!
//! Other sources are taken as they are; this one is our own interface, so it is strict: an unknown
//! field is a typing error that would otherwise lose what it was meant to say. Either every event
//! of a request is good, or none is taken. A field that is null counts as left out.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::event::mask::{SECRET_KEYS, mask_value};
use crate::event::{Actor, AuditEvent, Outcome, SourceName, Target, to_millis};
use crate::sources::text::{json_trouble, sha256_hex};

/// The longest action, in characters.
pub const MAX_ACTION: usize = 256;
/// The longest `externalId`, in bytes.
pub const MAX_EXTERNAL_ID: usize = 512;

const EVENT_FIELDS: &[&str] = &[
    "action",
    "at",
    "actor",
    "target",
    "outcome",
    "tenantSlug",
    "externalId",
    "metadata",
];
const ACTOR_FIELDS: &[&str] = &["id", "email", "name", "ip"];
const TARGET_FIELDS: &[&str] = &["type", "id", "name"];

/// Where a request comes from.
pub struct RequestContext<'a> {
    /// The source.
    pub source: &'a SourceName,
    /// When it was received.
    pub received_at: Timestamp,
    /// Random, made for this request: the keys that Daybook makes are derived from it, so that
    /// the same request decoded again has the same ones.
    pub request_id: u128,
}

/// What is wrong with a request; shown as `events[3].at: …`. Holds nothing of what was sent but
/// the names of unknown fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// Which event of `events`; `None` for a single event or the request as a whole.
    pub index: Option<usize>,
    /// Which field, with its path: `actor.email`.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, &self.field) {
            (Some(index), Some(field)) => write!(f, "events[{index}].{field}: ")?,
            (Some(index), None) => write!(f, "events[{index}]: ")?,
            (None, Some(field)) => write!(f, "{field}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for RequestError {}

/// An error that does not know its event yet.
struct Wrong {
    field: Option<String>,
    message: String,
}

impl Wrong {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            message: message.into(),
        }
    }

    fn at(self, index: Option<usize>) -> RequestError {
        RequestError {
            index,
            field: self.field,
            message: self.message,
        }
    }
}

/// Decodes a request: one event, or `{"events":[…]}`.
///
/// An event without an `externalId` gets `idem:<hash of the key>:<index>` when the request bears
/// an idempotency key, and one derived from the request id otherwise.
///
/// # Errors
/// Names the first thing that is wrong; then no event of the request may be taken.
pub fn decode_request(
    body: &[u8],
    idempotency_key: Option<&str>,
    ctx: &RequestContext<'_>,
) -> Result<Vec<AuditEvent>, RequestError> {
    let whole = |message: String| RequestError {
        index: None,
        field: None,
        message,
    };
    if body.trim_ascii().is_empty() {
        return Err(whole("the body is empty".to_owned()));
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| whole(format!("the body is not valid ({})", json_trouble(&error))))?;
    let Value::Object(mut request) = body else {
        let wanted = "the body must be one event or an object with the list `events`";
        return Err(whole(wanted.to_owned()));
    };
    if idempotency_key == Some("") {
        return Err(Wrong::new("Idempotency-Key", "must not be empty").at(None));
    }
    let key_hash = idempotency_key.map(|key| sha256_hex(key.as_bytes()));
    let made_id = |index: usize| match &key_hash {
        Some(hash) => format!("idem:{}:{index}", &hash[..32]),
        None => {
            let seed = format!("{:032x}:{index}", ctx.request_id);
            format!("rnd:{}", &sha256_hex(seed.as_bytes())[..32])
        }
    };
    let Some(events) = request.remove("events") else {
        let event = event(request, ctx, || made_id(0)).map_err(|wrong| wrong.at(None))?;
        return Ok(vec![event]);
    };
    if let Some(other) = request.keys().next() {
        let message = "unknown field: beside `events` nothing may stand";
        return Err(Wrong::new(shown(other), message).at(None));
    }
    let Value::Array(events) = events else {
        return Err(Wrong::new("events", "must be a list").at(None));
    };
    if events.is_empty() {
        return Err(Wrong::new("events", "must not be empty").at(None));
    }
    many(events, ctx, made_id)
}

fn many(
    events: Vec<Value>,
    ctx: &RequestContext<'_>,
    made_id: impl Fn(usize) -> String,
) -> Result<Vec<AuditEvent>, RequestError> {
    let mut ids = HashSet::with_capacity(events.len());
    let mut decoded = Vec::with_capacity(events.len());
    for (index, value) in events.into_iter().enumerate() {
        let Value::Object(map) = value else {
            return Err(RequestError {
                index: Some(index),
                field: None,
                message: "must be an object".to_owned(),
            });
        };
        let event = event(map, ctx, || made_id(index)).map_err(|wrong| wrong.at(Some(index)))?;
        if !ids.insert(event.external_id.clone()) {
            let message = "stands in an earlier event of this request too";
            return Err(Wrong::new("externalId", message).at(Some(index)));
        }
        decoded.push(event);
    }
    Ok(decoded)
}

fn event(
    mut fields: Map<String, Value>,
    ctx: &RequestContext<'_>,
    made_id: impl FnOnce() -> String,
) -> Result<AuditEvent, Wrong> {
    known_fields("", &fields, EVENT_FIELDS)?;
    let action = string("action", fields.remove("action"))?
        .ok_or_else(|| Wrong::new("action", "is required"))?;
    check_action(&action)?;
    let at = match string("at", fields.remove("at"))? {
        Some(at) => at.parse::<Timestamp>().map_err(|_| {
            Wrong::new(
                "at",
                "must be an RFC 3339 time, such as 2026-11-24T04:05:39Z",
            )
        })?,
        None => ctx.received_at,
    };
    let mut actor = part("actor", fields.remove("actor"), ACTOR_FIELDS)?;
    let mut target = part("target", fields.remove("target"), TARGET_FIELDS)?;
    let outcome = match string("outcome", fields.remove("outcome"))?.as_deref() {
        None => None,
        Some("success") => Some(Outcome::Success),
        Some("failure") => Some(Outcome::Failure),
        Some("unknown") => Some(Outcome::Unknown),
        Some(_) => {
            return Err(Wrong::new("outcome", "must be success, failure or unknown"));
        }
    };
    let tenant_slug = filled("tenantSlug", fields.remove("tenantSlug"))?;
    let external_id = filled("externalId", fields.remove("externalId"))?;
    if external_id
        .as_ref()
        .is_some_and(|id| id.len() > MAX_EXTERNAL_ID)
    {
        let message = format!("must not be longer than {MAX_EXTERNAL_ID} bytes");
        return Err(Wrong::new("externalId", message));
    }
    let mut metadata = match fields.remove("metadata") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(metadata @ Value::Object(_)) => metadata,
        Some(_) => return Err(Wrong::new("metadata", "must be an object")),
    };
    mask_value(&mut metadata, SECRET_KEYS);
    let Value::Object(metadata) = metadata else {
        return Err(Wrong::new("metadata", "must be an object"));
    };
    let actor = Actor {
        id: string("actor.id", actor.remove("id"))?,
        email: string("actor.email", actor.remove("email"))?,
        name: string("actor.name", actor.remove("name"))?,
        ip: string("actor.ip", actor.remove("ip"))?,
    };
    let target = Target {
        kind: string("target.type", target.remove("type"))?,
        id: string("target.id", target.remove("id"))?,
        name: string("target.name", target.remove("name"))?,
    };
    Ok(AuditEvent {
        at: to_millis(at),
        source: ctx.source.clone(),
        external_id: external_id.unwrap_or_else(made_id),
        action,
        outcome,
        actor,
        target,
        tenant_slug,
        metadata: metadata.into(),
    })
}

fn check_action(action: &str) -> Result<(), Wrong> {
    if action.trim().is_empty() {
        return Err(Wrong::new("action", "must not be empty"));
    }
    if action.chars().count() > MAX_ACTION {
        let message = format!("must not be longer than {MAX_ACTION} characters");
        return Err(Wrong::new("action", message));
    }
    if action.chars().any(char::is_control) {
        return Err(Wrong::new("action", "must not hold control characters"));
    }
    Ok(())
}

fn known_fields(path: &str, fields: &Map<String, Value>, known: &[&str]) -> Result<(), Wrong> {
    let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let field = format!("{path}{}", shown(unknown));
    let message = format!("unknown field; known are {}", known.join(", "));
    Err(Wrong::new(field, message))
}

/// An unknown field's name, fit for an error text.
fn shown(field: &str) -> String {
    let clean = field.chars().filter(|c| !c.is_control());
    clean.take(64).collect()
}

fn part(name: &str, value: Option<Value>, known: &[&str]) -> Result<Map<String, Value>, Wrong> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(fields)) => {
            known_fields(&format!("{name}."), &fields, known)?;
            Ok(fields)
        }
        Some(_) => Err(Wrong::new(name, "must be an object")),
    }
}

fn string(field: &str, value: Option<Value>) -> Result<Option<String>, Wrong> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Wrong::new(field, "must be a string")),
    }
}

fn filled(field: &str, value: Option<Value>) -> Result<Option<String>, Wrong> {
    match string(field, value)? {
        Some(text) if text.is_empty() => Err(Wrong::new(field, "must not be empty")),
        text => Ok(text),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
