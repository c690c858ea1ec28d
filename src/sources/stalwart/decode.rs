//! The body of a Stalwart webhook becomes events, one at a time.
//!
//! - The key of an event is a hash over its type, its time and its data. Stalwart's own ids are no
//!   keys: older versions give one id to all events of a type in a second, newer ones make new ids
//!   for each retry. Identical twins within one body are told apart by their ordinal.
//! - The hash is taken before masking, so that a better mask does not change a key.
//! - The body is checked to be JSON first; each piece of its list is found and decoded only when the
//!   iterator comes to it. A piece that is no event becomes a dead letter, and the others go on.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::masks::{mask_event, mask_letter};
use super::{parts, verbs};
use crate::event::json;
use crate::event::{
    AuditEvent, DeadLetter, DeadLetterReason, Decoded, SourceName, parse_time, to_millis,
};
use crate::sources::text::{
    Elements, LetterContext, MAX_VALUES, REMARKS, has_too_many_values, hex, json_trouble,
    sha256_hex,
};

/// How much of the hash stands in a key: 128 bits.
const KEY_BYTES: usize = 16;

/// Where a body comes from.
pub struct BodyContext<'a> {
    /// The source.
    pub source: &'a SourceName,
    /// When it was received.
    pub received_at: Timestamp,
}

/// Why a body cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Bytes that are no UTF-8.
    #[error("the body is no UTF-8 at byte {at}")]
    InvalidUtf8 {
        /// The first wrong byte.
        at: usize,
    },
    /// No JSON.
    #[error("the body is no JSON ({0})")]
    Malformed(String),
    /// JSON, but not what Stalwart sends.
    #[error("the body is JSON, but not an object with a list `events`")]
    NoEvents,
}

impl BodyError {
    fn reason(&self) -> DeadLetterReason {
        match self {
            Self::InvalidUtf8 { .. } => DeadLetterReason::InvalidUtf8,
            Self::Malformed(_) => DeadLetterReason::Malformed,
            Self::NoEvents => DeadLetterReason::UnexpectedShape,
        }
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    events: &'a RawValue,
}

/// The events of one body, decoded as they are asked for.
pub struct BodyEvents<'a> {
    pieces: Elements<'a>,
    ctx: &'a BodyContext<'a>,
    /// How often each key was met in this body.
    twins: HashMap<[u8; KEY_BYTES], u32>,
    /// How often each position of a letter was.
    twin_letters: HashMap<String, u32>,
}

/// Finds the events of a body without decoding them.
///
/// # Errors
/// When there is no list of events to be found: see [`quarantine`].
pub fn decode_body<'a>(
    body: &'a [u8],
    ctx: &'a BodyContext<'a>,
) -> Result<BodyEvents<'a>, BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| BodyError::InvalidUtf8 {
        at: error.valid_up_to(),
    })?;
    // A derived reader takes a list for an object with its fields in order.
    let is_object = text.trim_ascii_start().starts_with('{');
    let read = serde_json::from_str::<Body<'_>>(text).ok();
    let Some(body) = read.filter(|_| is_object) else {
        let whole = serde_json::from_str::<&RawValue>(text);
        return Err(whole.map_or_else(
            |error| BodyError::Malformed(json_trouble(&error)),
            |_| BodyError::NoEvents,
        ));
    };
    Ok(BodyEvents {
        pieces: Elements::of(body.events).ok_or(BodyError::NoEvents)?,
        ctx,
        twins: HashMap::new(),
        twin_letters: HashMap::new(),
    })
}

/// The dead letter of a body that cannot be read. Its position is the body's SHA-256.
pub fn quarantine(body: &[u8], ctx: &BodyContext<'_>, error: &BodyError) -> DeadLetter {
    let position = sha256_hex(body);
    letter(position, body, ctx, error.reason(), error.to_string())
}

fn letter(
    position: String,
    raw: &[u8],
    ctx: &BodyContext<'_>,
    reason: DeadLetterReason,
    detail: String,
) -> DeadLetter {
    let letters = LetterContext {
        source: ctx.source,
        at: ctx.received_at,
    };
    letters.letter(position, reason, detail, raw, mask_letter)
}

/// The position of a piece that is no event: its SHA-256 without its `id`, which is another one each
/// time that the same is sent.
fn position_of(piece: &str) -> String {
    let hashed = without_id(piece);
    sha256_hex(hashed.as_deref().unwrap_or(piece.as_bytes()))
}

/// `None` for what has no `id`, and for what has so many members that they are not looked at.
fn without_id(piece: &str) -> Option<Vec<u8>> {
    if has_too_many_values(piece) {
        return None;
    }
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(piece).ok()?;
    members.remove("id")?;
    serde_json::to_vec(&members).ok()
}

impl Iterator for BodyEvents<'_> {
    type Item = Decoded;

    fn next(&mut self) -> Option<Decoded> {
        let piece = self.pieces.next()?;
        Some(self.decode(piece).unwrap_or_else(|mut letter| {
            let seen = self.twin_letters.entry(letter.position.clone());
            letter.position = numbered(letter.position, seen.or_insert(0));
            Decoded::Dead(*letter)
        }))
    }
}

impl BodyEvents<'_> {
    fn decode(&mut self, piece: &RawValue) -> Result<Decoded, Box<DeadLetter>> {
        let raw = piece.get().as_bytes();
        let refuse = |detail: String| {
            Box::new(letter(
                position_of(piece.get()),
                raw,
                self.ctx,
                DeadLetterReason::UnexpectedShape,
                detail,
            ))
        };
        if has_too_many_values(piece.get()) {
            return Err(refuse(format!("an event of more than {MAX_VALUES} values")));
        }
        let value = json::from_str(piece.get()).map_err(|error| refuse(json_trouble(&error)))?;
        let Value::Object(mut event) = value else {
            return Err(refuse("an event is an object".to_owned()));
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let Some(kind) = text("type")
            .filter(|kind| !kind.is_empty())
            .map(str::to_owned)
        else {
            return Err(refuse("an event without `type`".to_owned()));
        };
        let Some(created_at) = text("createdAt") else {
            return Err(refuse("an event without `createdAt`".to_owned()));
        };
        let at = parse_time(created_at)
            .ok_or_else(|| refuse("`createdAt` is no RFC 3339 time".to_owned()))?;
        let no_data = Map::new();
        let data = match event.get("data") {
            Some(Value::Object(data)) => data,
            None | Some(Value::Null) => &no_data,
            Some(_) => return Err(refuse("`data` is no object".to_owned())),
        };
        let key = content_key(&kind, created_at, data);
        let verb = verbs::verb(&kind, data);
        let actor = parts::actor(verb.kind, data);
        let target = parts::target(verb.kind, data);
        let hints = parts::hints(verb.kind, data);
        mask_event(&mut event, &kind);
        if verb.is_proxy {
            event.insert(REMARKS.to_owned(), json!({"proxy": true}));
        }
        let event = AuditEvent {
            at: to_millis(at),
            source: self.ctx.source.clone(),
            external_id: self.external_id(key),
            action: verb.action.into(),
            outcome: verb.outcome,
            actor,
            target,
            tenant_slug: None,
            metadata: event.into(),
        };
        Ok(Decoded::Event(Box::new(event), hints))
    }

    /// The key, with the ordinal of a twin.
    fn external_id(&mut self, key: [u8; KEY_BYTES]) -> String {
        numbered(hex(&key), self.twins.entry(key).or_insert(0))
    }
}

/// With the ordinal of a twin behind it.
fn numbered(mut id: String, seen: &mut u32) -> String {
    let ordinal = *seen;
    *seen += 1;
    if ordinal > 0 {
        id.push('-');
        id.push_str(&ordinal.to_string());
    }
    id
}

/// The hash of an event. Keys are sorted and numbers keep their text, so a body that says the same
/// in another order hashes the same.
fn content_key(kind: &str, created_at: &str, data: &Map<String, Value>) -> [u8; KEY_BYTES] {
    // A list of texts and values, which cannot fail to be written.
    let canonical = serde_json::to_vec(&(kind, created_at, data)).unwrap_or_default();
    let digest = Sha256::digest(&canonical);
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(&digest[..KEY_BYTES]);
    key
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
