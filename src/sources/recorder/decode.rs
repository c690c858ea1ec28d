//! One request of a platform service becomes events, or one error that names what is wrong.
//!
//! Other sources are taken as they are; this one is our own interface, so it is strict: an unknown
//! field is a typing error that would otherwise lose what it was meant to say. Either every event
//! of a request is good, or none is taken. A field that is null counts as left out.
//!
//! A request is gone through twice, event by event: once to check it, once to take it. So of a large
//! one no more than an event is decoded at a time.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::event::json;
use crate::event::mask::{SECRET_KEYS, mask_value};
use crate::event::{
    Actor, AuditEvent, Outcome, SourceName, Target, last_time, parse_time, to_millis,
};
use crate::sources::text::{Elements, MAX_VALUES, has_too_many_values, json_trouble, sha256_hex};

/// The longest action, in characters.
pub const MAX_ACTION: usize = 256;
/// The longest `target.type` or `tenantSlug`, in bytes: each that ever came is kept, and read by every search.
pub const MAX_KIND: usize = 8192;
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

/// The most events in one request.
pub const MAX_EVENTS: usize = 100_000;

/// The longest event, in bytes: with the numbers of [`MAX_VALUES`] list elements it still is a
/// document of MongoDB, which has 16 MiB. (One that BSON cannot hold exactly stands there twice: above
/// half of it, it becomes a dead letter.)
pub const MAX_EVENT_BYTES: usize = 14 << 20;

/// How a key begins that is made of the idempotency key.
const IDEMPOTENT: &str = "idem:";
/// How one begins that is made of the request id.
const RANDOM: &str = "rnd:";
const KEY_UNKNOWN: &str = "is missing, and the key that was made in its place is not known: \
    the event may be in the store already";

/// Where a request comes from.
#[derive(Clone, Copy)]
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
/// the names of fields that are unknown or stand twice.
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

/// The events of a request, decoded as they are asked for.
#[derive(Clone)]
pub struct RequestEvents<'a> {
    pieces: Pieces<'a>,
    index: usize,
    /// Of the idempotency key.
    key_hash: Option<String>,
    ctx: RequestContext<'a>,
}

#[derive(Clone)]
enum Pieces<'a> {
    One(Option<&'a RawValue>),
    Many(Elements<'a>),
}

/// Decodes a request: one event, or `{"events":[…]}`.
///
/// An event without an `externalId` gets `idem:<hash of the key>:<index>` when the request bears
/// an idempotency key, and one derived from the request id otherwise.
///
/// # Errors
/// Names the first thing that is wrong; then no event of the request may be taken.
pub fn decode_request<'a>(
    body: &'a [u8],
    idempotency_key: Option<&str>,
    ctx: RequestContext<'a>,
) -> Result<RequestEvents<'a>, RequestError> {
    let events = read_request(body, idempotency_key, ctx)?;
    events.clone().check()?;
    Ok(events)
}

/// The same for a request that has been checked before.
///
/// # Errors
/// When its outer form is wrong.
pub fn read_request<'a>(
    body: &'a [u8],
    idempotency_key: Option<&str>,
    ctx: RequestContext<'a>,
) -> Result<RequestEvents<'a>, RequestError> {
    let whole = |message: String| RequestError {
        index: None,
        field: None,
        message,
    };
    if body.trim_ascii().is_empty() {
        return Err(whole("the body is empty".to_owned()));
    }
    let invalid = |error| whole(format!("the body is not valid ({})", json_trouble(&error)));
    let request: &RawValue = serde_json::from_slice(body).map_err(invalid)?;
    if !request.get().starts_with('{') {
        let wanted = "the body must be one event or an object with the list `events`";
        return Err(whole(wanted.to_owned()));
    }
    if idempotency_key == Some("") {
        return Err(Wrong::new("Idempotency-Key", "must not be empty").at(None));
    }
    let outline: Outline<'_> = serde_json::from_str(request.get()).map_err(invalid)?;
    let pieces = match outline.events {
        None => Pieces::One(Some(request)),
        Some(events) => {
            if let Some(other) = outline.other {
                let message = "unknown field: beside `events` nothing may stand";
                return Err(Wrong::new(shown(&other), message).at(None));
            }
            let elements = Elements::of(events)
                .ok_or_else(|| Wrong::new("events", "must be a list").at(None))?;
            Pieces::Many(elements)
        }
    };
    Ok(RequestEvents {
        pieces,
        index: 0,
        key_hash: idempotency_key.map(|key| sha256_hex(key.as_bytes())),
        ctx,
    })
}

/// The outermost fields of a request.
struct Outline<'a> {
    events: Option<&'a RawValue>,
    /// The first field that is not `events`.
    other: Option<String>,
}

impl<'de> Deserialize<'de> for Outline<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutlineVisitor)
    }
}

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut outline = Outline {
            events: None,
            other: None,
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == "events" {
                if outline.events.replace(map.next_value()?).is_some() {
                    return Err(json::twice("events"));
                }
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            outline.other.get_or_insert(key);
        }
        Ok(outline)
    }
}

impl<'a> RequestEvents<'a> {
    /// Each event as it stands in the request, with the key that is made for it if it has none of its own.
    pub fn pieces(mut self) -> impl Iterator<Item = (&'a RawValue, String)> {
        std::iter::from_fn(move || {
            let piece = self.next_piece()?;
            let made_id = self.made_id();
            self.index += 1;
            Some((piece, made_id))
        })
    }

    fn check(mut self) -> Result<(), RequestError> {
        // Of each id a part of its hash: ids may be long, and many.
        let mut ids: HashSet<[u8; 16]> = HashSet::new();
        while let Some(event) = self.decode_next(strict_time) {
            let digest = Sha256::digest(event?.external_id.as_bytes());
            let mut id = [0; 16];
            id.copy_from_slice(&digest[..16]);
            let index = self.index - 1;
            if !ids.insert(id) {
                let message = "stands in an earlier event of this request too";
                return Err(Wrong::new("externalId", message).at(Some(index)));
            }
            if index == MAX_EVENTS {
                let message = format!("must not hold more than {MAX_EVENTS} events");
                return Err(Wrong::new("events", message).at(None));
            }
        }
        if self.index == 0 {
            return Err(Wrong::new("events", "must not be empty").at(None));
        }
        Ok(())
    }

    fn next_piece(&mut self) -> Option<&'a RawValue> {
        match &mut self.pieces {
            Pieces::One(piece) => piece.take(),
            Pieces::Many(elements) => elements.next(),
        }
    }

    fn decode_next(&mut self, read_time: ReadTime) -> Option<Result<AuditEvent, RequestError>> {
        let piece = self.next_piece()?;
        let place = matches!(self.pieces, Pieces::Many(_)).then_some(self.index);
        let made_id = || Some(self.made_id());
        let decoded = decode_piece(piece, place.is_none(), &self.ctx, read_time, made_id);
        self.index += 1;
        Some(decoded.map_err(|wrong| wrong.at(place)))
    }

    fn made_id(&self) -> String {
        let index = self.index;
        match &self.key_hash {
            Some(hash) => format!("{IDEMPOTENT}{}:{index}", &hash[..32]),
            None => {
                let seed = format!("{:032x}:{index}", self.ctx.request_id);
                format!("{RANDOM}{}", &sha256_hex(seed.as_bytes())[..32])
            }
        }
    }
}

impl Iterator for RequestEvents<'_> {
    type Item = AuditEvent;

    fn next(&mut self) -> Option<AuditEvent> {
        // It was checked: each event is good.
        self.decode_next(parse_time)?.ok()
    }
}

/// Decodes one event of a request that is good no more as a whole.
///
/// `made_id` becomes its key if it has none of its own. Where that is not known, such an event is
/// refused: it may be in the store already, and under another key it would be there twice.
///
/// # Errors
/// Names what is wrong with it.
pub fn decode_alone(
    piece: &RawValue,
    made_id: Option<&str>,
    ctx: &RequestContext<'_>,
) -> Result<AuditEvent, RequestError> {
    let made_id = || made_id.map(str::to_owned);
    decode_piece(piece, false, ctx, parse_time, made_id).map_err(|wrong| wrong.at(None))
}

/// Whether it is a key that was made for an event.
pub fn is_made_id(id: &str) -> bool {
    id.starts_with(IDEMPOTENT) || id.starts_with(RANDOM)
}

fn decode_piece(
    piece: &RawValue,
    is_body: bool,
    ctx: &RequestContext<'_>,
    read_time: ReadTime,
    made_id: impl FnOnce() -> Option<String>,
) -> Result<AuditEvent, Wrong> {
    let whole = |message: String| Wrong {
        field: None,
        message,
    };
    if !piece.get().starts_with('{') {
        return Err(whole("must be an object".to_owned()));
    }
    if piece.get().len() > MAX_EVENT_BYTES {
        return Err(whole(format!(
            "an event must not be longer than {MAX_EVENT_BYTES} bytes"
        )));
    }
    if has_too_many_values(piece.get()) {
        return Err(whole(format!(
            "an event must not hold more than {MAX_VALUES} values"
        )));
    }
    let (subject, place) = if is_body {
        ("the body is", "")
    } else {
        ("is", " of this event")
    };
    let fields = json::unambiguous_object(piece.get()).map_err(|error| {
        let trouble = json_trouble(&error);
        whole(format!("{subject} not valid ({trouble}{place})"))
    })?;
    event(fields, ctx, read_time, made_id)
}

/// The beginning of the year 1.
const FIRST_YEAR: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// How a time is read: by [`strict_time`] when its request comes in, by [`parse_time`] from then on.
/// What an earlier version accepted stays accepted.
type ReadTime = fn(&str) -> Option<Timestamp>;

/// Reads an RFC 3339 time; [`parse_time`] takes other forms too, and offsets that no clock has. Java
/// leaves seconds out that are zero.
fn strict_time(text: &str) -> Option<Timestamp> {
    let shape = text.replace(|each: char| each.is_ascii_digit(), "0");
    let shape = shape.to_ascii_uppercase();
    let starts = ["0000-00-00T00:00", "0000-00-00 00:00"];
    let rest = starts.iter().find_map(|start| shape.strip_prefix(start))?;
    let zone = match rest.strip_prefix(":00.") {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest.strip_prefix(":00").unwrap_or(rest),
    };
    let is_zone = match zone {
        "Z" => true,
        "+00:00" | "-00:00" => {
            let offset = &text[text.len() - 5..];
            offset < "24"
        }
        _ => false,
    };
    if is_zone { parse_time(text) } else { None }
}

fn event(
    mut fields: Map<String, Value>,
    ctx: &RequestContext<'_>,
    read_time: ReadTime,
    made_id: impl FnOnce() -> Option<String>,
) -> Result<AuditEvent, Wrong> {
    known_fields("", &fields, EVENT_FIELDS)?;
    let action = string("action", fields.remove("action"))?
        .ok_or_else(|| Wrong::new("action", "is required"))?;
    check_action(&action)?;
    let at = match string("at", fields.remove("at"))? {
        // Many a reader of the collection fails at a year before the first.
        Some(at) => read_time(&at)
            .filter(|at| (FIRST_YEAR..=last_time()).contains(at))
            .ok_or_else(|| {
                Wrong::new(
                    "at",
                    "must be an RFC 3339 time, such as 2026-11-24T04:05:39Z, \
                     not before the year 1 nor after 9999-12-30T22:00:00Z",
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
    let tenant_slug = filled("tenantSlug", fields.remove("tenantSlug"), MAX_KIND)?;
    let external_id = filled("externalId", fields.remove("externalId"), MAX_EXTERNAL_ID)?
        .or_else(made_id)
        .ok_or_else(|| Wrong::new("externalId", KEY_UNKNOWN))?;
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
        id: string("actor.id", actor.remove("id"))?.map(Into::into),
        email: string("actor.email", actor.remove("email"))?.map(Into::into),
        name: string("actor.name", actor.remove("name"))?.map(Into::into),
        ip: string("actor.ip", actor.remove("ip"))?.map(Into::into),
    };
    let kind = string("target.type", target.remove("type"))?;
    if kind.as_ref().is_some_and(|kind| kind.len() > MAX_KIND) {
        return Err(too_long("target.type", MAX_KIND));
    }
    let target = Target {
        kind: kind.map(Into::into),
        id: string("target.id", target.remove("id"))?.map(Into::into),
        name: string("target.name", target.remove("name"))?.map(Into::into),
    };
    Ok(AuditEvent {
        at: to_millis(at),
        source: ctx.source.clone(),
        external_id,
        action: action.into(),
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

fn too_long(field: &str, most: usize) -> Wrong {
    Wrong::new(field, format!("must not be longer than {most} bytes"))
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

/// Of so many bytes at most.
fn filled(field: &str, value: Option<Value>, most: usize) -> Result<Option<String>, Wrong> {
    match string(field, value)? {
        Some(text) if text.is_empty() => Err(Wrong::new(field, "must not be empty")),
        Some(text) if text.len() > most => Err(too_long(field, most)),
        text => Ok(text),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
