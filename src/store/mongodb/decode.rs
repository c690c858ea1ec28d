//! BSON back to events, dead letters, cursors and the platform's directory.
//!
//! The collections are shared with a platform that writes to them too, so nothing here trusts a
//! type: what has another one than expected counts as missing.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, Decimal128, RawArray, RawBsonRef, RawDocument};
use serde_json::{Map, Number, Value};

use super::conditions::id_text;
use crate::event::json;
use crate::event::{Actor, DeadLetter, DeadLetterReason, Outcome, SourceName, Target};
use crate::store::{
    Cursor, DeadLetterHead, Role, StoredDeadLetter, StoredEvent, TenantRecord, TokenRecord,
    UserRecord,
};

/// One event; `None` for a document without a date, or with one that no timestamp can be: no query asks for it.
pub(super) fn event(document: &RawDocument) -> Option<StoredEvent> {
    let metadata = exact_metadata(document).unwrap_or_else(|| {
        let nearest = document.get_document("metadata");
        nearest.map(object).unwrap_or_default()
    });
    let at = date(document, "at")?;
    Some(StoredEvent {
        id: id_of(document)?,
        at,
        ingested_at: date(document, "ingestedAt").unwrap_or(at),
        source: text(document, "source").unwrap_or_default(),
        external_id: text(document, "externalId").unwrap_or_default(),
        action: text(document, "action").unwrap_or_default(),
        outcome: document
            .get_str("outcome")
            .ok()
            .and_then(Outcome::from_word),
        actor: document
            .get_document("actor")
            .map(|actor| Actor {
                id: text(actor, "id").map(Into::into),
                email: text(actor, "email").map(Into::into),
                name: text(actor, "name").map(Into::into),
                ip: text(actor, "ip").map(Into::into),
            })
            .unwrap_or_default(),
        target: document
            .get_document("target")
            .map(|target| Target {
                kind: text(target, "type").map(Into::into),
                id: text(target, "id").map(Into::into),
                name: text(target, "name").map(Into::into),
            })
            .unwrap_or_default(),
        tenant_slug: text(document, "tenantSlug"),
        metadata,
    })
}

fn exact_metadata(document: &RawDocument) -> Option<Map<String, Value>> {
    let json = document.get_str("metadataJson").ok()?;
    json::object(json).ok()
}

/// One dead letter; `None` for a document that is none.
pub(super) fn dead_letter(document: &RawDocument) -> Option<StoredDeadLetter> {
    let raw = document.get_binary("raw").ok()?.bytes;
    let head = dead_letter_head(document)?;
    Some(StoredDeadLetter {
        id: head.id,
        letter: DeadLetter {
            source: SourceName::new(&head.source),
            position: head.position,
            reason: head.reason,
            detail: head.detail,
            raw: Bytes::copy_from_slice(raw),
            raw_length: head.raw_length,
            at: head.first_at,
        },
        attempts: head.attempts,
        last_at: head.last_at,
    })
}

/// One dead letter without its bytes; `None` for a document that is none.
pub(super) fn dead_letter_head(document: &RawDocument) -> Option<DeadLetterHead> {
    let first_at = date(document, "at")?;
    Some(DeadLetterHead {
        id: id_of(document)?,
        source: text(document, "source")?,
        position: text(document, "position")?,
        reason: DeadLetterReason::from_word(document.get_str("reason").ok()?)?,
        detail: text(document, "detail").unwrap_or_default(),
        raw_length: count(document, "rawLength").unwrap_or(0),
        attempts: count(document, "attempts").unwrap_or(1),
        first_at,
        last_at: date(document, "lastAt").unwrap_or(first_at),
    })
}

/// One cursor; `None` for a document without a source.
pub(super) fn cursor(document: &RawDocument) -> Option<Cursor> {
    let exact_detail = document.get_str("detailJson").ok();
    let detail = exact_detail
        .and_then(|json| serde_json::from_str(json).ok())
        .or_else(|| document.get("detail").ok().flatten().map(value))
        .unwrap_or(Value::Null);
    Some(Cursor {
        source: text(document, "source")?,
        generation: count(document, "generation").unwrap_or(0),
        seq: count(document, "seq").unwrap_or(0),
        detail,
        last_event_at: date(document, "lastEventAt"),
        last_event_id: text(document, "lastEventId"),
        updated_at: date(document, "updatedAt").unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

/// One tenant; `None` without a usable id and slug.
pub(super) fn tenant(document: &RawDocument) -> Option<TenantRecord> {
    Some(TenantRecord {
        id: platform_id(document.get("_id").ok()??)?,
        slug: text(document, "slug").filter(|slug| !slug.is_empty())?,
        name: text(document, "name"),
        domains: texts(document, "domains"),
        groups: texts(document, "groups"),
        space_ids: texts(document, "spaceIds"),
    })
}

/// One user; `None` when nothing leads to it or from it to a tenant.
pub(super) fn user(document: &RawDocument) -> Option<UserRecord> {
    let tenant_ids = document.get_array("tenantIds").ok()?;
    let user = UserRecord {
        subject: text(document, "authentikSubjectId"),
        email: text(document, "email"),
        tenant_ids: tenant_ids
            .into_iter()
            .flatten()
            .filter_map(platform_id)
            .collect(),
    };
    let reachable = user.subject.is_some() || user.email.is_some();
    (reachable && !user.tenant_ids.is_empty()).then_some(user)
}

/// One token; `None` for a document that is none.
pub(super) fn token(document: &RawDocument) -> Option<TokenRecord> {
    let scope = text(document, "scope");
    let role = match document.get_str("role").ok()? {
        "operator" => Role::Operator,
        "recorder" => Role::Recorder(scope),
        "tenant" => Role::Tenant(scope?),
        _ => return None,
    };
    Some(TokenRecord {
        hash: text(document, "_id")?,
        role,
        name: text(document, "name"),
        created_at: date(document, "createdAt")?,
        expires_at: date(document, "expiresAt"),
        opened_by: text(document, "openedBy"),
    })
}

fn id_of(document: &RawDocument) -> Option<String> {
    let id = Bson::try_from(document.get("_id").ok()??).ok()?;
    Some(id_text(&id))
}

/// A platform's id as text: the same for `_id` and for what refers to it.
fn platform_id(id: RawBsonRef<'_>) -> Option<String> {
    match id {
        RawBsonRef::ObjectId(id) => Some(id.to_hex()),
        RawBsonRef::String(id) => Some(id.to_owned()),
        RawBsonRef::Int32(id) => Some(id.to_string()),
        RawBsonRef::Int64(id) => Some(id.to_string()),
        // Shells and JavaScript drivers write whole numbers as doubles.
        RawBsonRef::Double(id) if id.fract() == 0.0 && id.abs() < 9.0e15 => {
            Some(format!("{id:.0}"))
        }
        RawBsonRef::Binary(binary) => uuid_text(binary.subtype, binary.bytes),
        _ => None,
    }
}

fn uuid_text(subtype: BinarySubtype, bytes: &[u8]) -> Option<String> {
    let is_uuid = matches!(subtype, BinarySubtype::Uuid | BinarySubtype::UuidOld);
    let bytes: [u8; 16] = bytes.try_into().ok().filter(|_| is_uuid)?;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Some(parts.join("-"))
}

pub(super) fn text(document: &RawDocument, name: &str) -> Option<String> {
    document.get_str(name).ok().map(str::to_owned)
}

fn texts(document: &RawDocument, name: &str) -> Vec<String> {
    match document.get(name) {
        Ok(Some(RawBsonRef::Array(values))) => values
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect(),
        Ok(Some(RawBsonRef::String(only))) => vec![only.to_owned()],
        _ => Vec::new(),
    }
}

pub(super) fn date(document: &RawDocument, name: &str) -> Option<Timestamp> {
    let date = document.get_datetime(name).ok()?;
    Timestamp::from_millisecond(date.timestamp_millis()).ok()
}

pub(super) fn count(document: &RawDocument, name: &str) -> Option<u64> {
    match document.get(name).ok()?? {
        RawBsonRef::Int32(count) => u64::try_from(count).ok(),
        RawBsonRef::Int64(count) => u64::try_from(count).ok(),
        RawBsonRef::Double(count) if count >= 0.0 && count.fract() == 0.0 && count < 9.0e15 => {
            format!("{count:.0}").parse().ok()
        }
        _ => None,
    }
}

fn object(document: &RawDocument) -> Map<String, Value> {
    let members = document.iter().filter_map(Result::ok);
    members
        .map(|(name, member)| (name.as_str().to_owned(), value(member)))
        .collect()
}

fn array(values: &RawArray) -> Value {
    Value::Array(
        values
            .into_iter()
            .filter_map(Result::ok)
            .map(value)
            .collect(),
    )
}

/// The nearest JSON; exact for everything that Daybook itself writes.
pub(super) fn value(bson: RawBsonRef<'_>) -> Value {
    match bson {
        RawBsonRef::Null | RawBsonRef::Undefined => Value::Null,
        RawBsonRef::Boolean(flag) => Value::Bool(flag),
        RawBsonRef::Int32(integer) => Value::from(integer),
        RawBsonRef::Int64(integer) => Value::from(integer),
        RawBsonRef::Double(double) => match Number::from_f64(double) {
            Some(number) => Value::Number(number),
            None => Value::String(double.to_string()),
        },
        RawBsonRef::Decimal128(number) => match decimal(&number) {
            Some(number) => Value::Number(number),
            None => Value::String(number.to_string()),
        },
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => Value::String(text.to_owned()),
        RawBsonRef::Document(document) => Value::Object(object(document)),
        RawBsonRef::Array(values) => array(values),
        RawBsonRef::ObjectId(id) => Value::String(id.to_hex()),
        RawBsonRef::DateTime(date) => match Timestamp::from_millisecond(date.timestamp_millis()) {
            Ok(at) => Value::String(at.to_string()),
            Err(_) => Value::from(date.timestamp_millis()),
        },
        RawBsonRef::Binary(binary) => {
            let text = uuid_text(binary.subtype, binary.bytes);
            Value::String(text.unwrap_or_else(|| BASE64.encode(binary.bytes)))
        }
        other => Value::String(
            Bson::try_from(other).map_or_else(|_| String::new(), |other| other.to_string()),
        ),
    }
}

/// A decimal as the JSON number with the same digits; `None` for an infinity or no number.
pub(super) fn decimal(decimal: &Decimal128) -> Option<Number> {
    Number::from_str(&decimal.to_string().to_lowercase()).ok()
}
