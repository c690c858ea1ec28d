//! Events and dead letters to BSON, written straight into bytes.
//!
//! The payload keeps its meaning exactly: integers become Int32 or Int64, a number whose text a
//! double reproduces becomes a double, any other one a Decimal128. What BSON has no exact form for
//! (a NUL in a key, a number beyond Decimal128, nesting beyond [`MAX_METADATA_DEPTH`]) is stored as
//! the nearest BSON, so that it can be searched, and the whole payload stands beside it as JSON text
//! in `metadataJson`, which reading back prefers.

use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytestring::ByteString;
use jiff::Timestamp;
use mongodb::bson::RawDocumentBuf;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::ElementType;
use serde_json::{Map, Number, Value};

use crate::event::flat::{self, Scalar};
use crate::event::{AuditEvent, DeadLetter, Flat};
use crate::store::keys::{EventKeys, MASKED};

/// The largest document that MongoDB stores.
pub(super) const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// Raw bytes of a dead letter that are kept; the rest of the 16 MiB is room for its other fields.
pub(super) const MAX_RAW_BYTES: usize = 15 * 1024 * 1024;

/// Words of a dead letter's position or detail that are kept.
const MAX_TEXT_BYTES: usize = 256 * 1024;

/// Levels of objects and arrays within `metadata` that are stored as such. MongoDB takes documents
/// of 180 levels; the rest is room for what wraps them in commands and aggregations.
pub(super) const MAX_METADATA_DEPTH: usize = 150;

/// Stands for a NUL in a stored key, which BSON ends there.
const NUL_IN_KEY: &str = "\u{2400}";

/// Ids are less than so many seconds ahead of the clock: whoever follows them looks as far.
const SECONDS_AHEAD: u64 = 60;

/// Makes ids that grow within this process, unless the clock is put back by [`SECONDS_AHEAD`].
pub(super) fn next_id() -> ObjectId {
    static IDS: LazyLock<Mutex<Ids>> = LazyLock::new(|| Mutex::new(Ids::new()));

    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    ids.next(u64::try_from(Timestamp::now().as_second()).unwrap_or(0))
}

struct Ids {
    /// A second, and a count of 24 bits.
    last: u64,
    process: [u8; 5],
}

impl Ids {
    fn new() -> Self {
        Self {
            last: 0,
            process: rand::random(),
        }
    }

    fn next(&mut self, second: u64) -> ObjectId {
        if self.last >> 24 >= second + SECONDS_AHEAD {
            // As another process: the ids of this second may be made already.
            *self = Self::new();
        }
        self.last = (second << 24).max(self.last + 1);
        let [_, s0, s1, s2, s3, c0, c1, c2] = self.last.to_be_bytes();
        let second = u32::from_be_bytes([s0, s1, s2, s3]);
        ObjectId::from_parts(second, self.process, [c0, c1, c2])
    }
}

/// One event as its document, or why it can have none.
pub(super) fn event(
    event: &AuditEvent,
    tenant_slug: Option<&str>,
    ingested_at: Timestamp,
    keys: &EventKeys<'_>,
) -> Result<RawDocumentBuf, String> {
    // About what a flat payload of this length becomes, with the fields around it.
    let payload = event.metadata.as_flat();
    let payload = payload.map_or(1024, |kept| kept.text().len());
    let mut buf = Vec::with_capacity(payload + payload / 4 + 512);
    let start = open(&mut buf);
    key(&mut buf, ElementType::ObjectId, "_id");
    buf.extend_from_slice(&next_id().bytes());
    date(&mut buf, "at", event.at);
    date(&mut buf, "ingestedAt", ingested_at);
    text(&mut buf, "source", event.source.as_str());
    text(&mut buf, "externalId", &event.external_id);
    text(&mut buf, "action", &event.action);
    if let Some(outcome) = event.outcome {
        text(&mut buf, "outcome", outcome.as_str());
    }
    if !event.actor.is_empty() {
        let actor = &event.actor;
        let parts = [
            ("id", &actor.id),
            ("email", &actor.email),
            ("name", &actor.name),
            ("ip", &actor.ip),
        ];
        optional_texts(&mut buf, "actor", &parts);
    }
    if !event.target.is_empty() {
        let target = &event.target;
        let parts = [
            ("type", &target.kind),
            ("id", &target.id),
            ("name", &target.name),
        ];
        optional_texts(&mut buf, "target", &parts);
    }
    if let Some(slug) = tenant_slug {
        text(&mut buf, "tenantSlug", slug);
    }
    int64(&mut buf, "facet", keys.facet);
    int64_array(&mut buf, "terms", keys.terms.iter().map(|term| term.key));
    masks(&mut buf, keys.masks);
    key(&mut buf, ElementType::EmbeddedDocument, "metadata");
    let exact = match event.metadata.as_flat() {
        Some(kept) => flat_object(&mut buf, kept),
        None => object(&mut buf, &event.metadata, 1),
    };
    if !exact {
        let json = event
            .metadata
            .to_json()
            .map_err(|error| format!("metadata is no JSON: {error}"))?;
        text(&mut buf, "metadataJson", &json);
    }
    finish(buf, start)
}

/// One dead letter as its document.
pub(super) fn dead_letter(letter: &DeadLetter) -> Result<RawDocumentBuf, String> {
    let raw = &letter.raw[..letter.raw.len().min(MAX_RAW_BYTES)];
    let mut buf = Vec::with_capacity(raw.len() + 512);
    let start = open(&mut buf);
    key(&mut buf, ElementType::ObjectId, "_id");
    buf.extend_from_slice(&next_id().bytes());
    date(&mut buf, "at", letter.at);
    date(&mut buf, "lastAt", letter.at);
    text(&mut buf, "source", letter.source.as_str());
    text(&mut buf, "position", head(&letter.position));
    text(&mut buf, "reason", letter.reason.as_str());
    text(&mut buf, "detail", head(&letter.detail));
    int64(&mut buf, "attempts", 1);
    int64(&mut buf, "rawLength", saturating_i64(letter.raw_length));
    binary(&mut buf, "raw", raw);
    finish(buf, start)
}

/// A dead letter's position as it is stored: the key under which a repeat is found.
pub(super) fn head(text: &str) -> &str {
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    let mut end = MAX_TEXT_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A JSON value as the one field `v` of a document; `false`: only the nearest.
pub(super) fn value_document(value: &Value) -> (RawDocumentBuf, bool) {
    let mut buf = Vec::new();
    let start = open(&mut buf);
    let exact = element(&mut buf, "v", value, 1);
    close(&mut buf, start);
    let document = RawDocumentBuf::from_bytes(buf).expect("open and close frame the bytes");
    (document, exact)
}

/// BSON counts and sequence numbers are signed.
pub(super) fn saturating_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn finish(mut buf: Vec<u8>, start: usize) -> Result<RawDocumentBuf, String> {
    close(&mut buf, start);
    if buf.len() > MAX_DOCUMENT_BYTES {
        return Err(format!(
            "the document has {} bytes, the store takes {MAX_DOCUMENT_BYTES}",
            buf.len()
        ));
    }
    RawDocumentBuf::from_bytes(buf).map_err(|error| format!("the document is no BSON: {error}"))
}

pub(super) fn open(buf: &mut Vec<u8>) -> usize {
    let start = buf.len();
    buf.extend_from_slice(&[0; 4]);
    start
}

pub(super) fn close(buf: &mut Vec<u8>, start: usize) {
    buf.push(0);
    let length = length_i32(buf.len() - start);
    buf[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// A longer document is refused in [`finish`] before anybody reads the wrong length.
fn length_i32(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

pub(super) fn key(buf: &mut Vec<u8>, kind: ElementType, name: &str) {
    buf.push(kind as u8);
    buf.extend_from_slice(name.as_bytes());
    buf.push(0);
}

fn date(buf: &mut Vec<u8>, name: &str, at: Timestamp) {
    key(buf, ElementType::DateTime, name);
    buf.extend_from_slice(&at.as_millisecond().to_le_bytes());
}

pub(super) fn int64(buf: &mut Vec<u8>, name: &str, number: i64) {
    key(buf, ElementType::Int64, name);
    buf.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn binary(buf: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    key(buf, ElementType::Binary, name);
    buf.extend_from_slice(&length_i32(bytes.len()).to_le_bytes());
    buf.push(0);
    buf.extend_from_slice(bytes);
}

/// The name of an array's element.
pub(super) fn with_index<T>(index: usize, then: impl FnOnce(&str) -> T) -> T {
    const SMALL: [&str; 16] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
    ];
    match SMALL.get(index) {
        Some(name) => then(name),
        None => then(&index.to_string()),
    }
}

fn int64_array(buf: &mut Vec<u8>, name: &str, numbers: impl Iterator<Item = i64>) {
    key(buf, ElementType::Array, name);
    let start = open(buf);
    for (index, number) in numbers.enumerate() {
        with_index(index, |name| int64(buf, name, number));
    }
    close(buf, start);
}

fn masks(buf: &mut Vec<u8>, masks: [i32; MASKED.len()]) {
    key(buf, ElementType::EmbeddedDocument, "masks");
    let start = open(buf);
    for ((_, name, _), mask) in MASKED.into_iter().zip(masks) {
        whole_number(buf, name, mask.into());
    }
    close(buf, start);
}

fn boolean(buf: &mut Vec<u8>, name: &str, flag: bool) {
    key(buf, ElementType::Boolean, name);
    buf.push(u8::from(flag));
}

/// As an Int32 if it fits.
fn whole_number(buf: &mut Vec<u8>, name: &str, integer: i64) {
    match i32::try_from(integer) {
        Ok(small) => {
            key(buf, ElementType::Int32, name);
            buf.extend_from_slice(&small.to_le_bytes());
        }
        Err(_) => int64(buf, name, integer),
    }
}

pub(super) fn text(buf: &mut Vec<u8>, name: &str, text: &str) {
    key(buf, ElementType::String, name);
    buf.extend_from_slice(&length_i32(text.len() + 1).to_le_bytes());
    buf.extend_from_slice(text.as_bytes());
    buf.push(0);
}

fn optional_texts(buf: &mut Vec<u8>, name: &str, parts: &[(&str, &Option<ByteString>)]) {
    key(buf, ElementType::EmbeddedDocument, name);
    let start = open(buf);
    for (part, value) in parts {
        if let Some(value) = value {
            text(buf, part, value);
        }
    }
    close(buf, start);
}

/// What is kept as text, without a tree between.
fn flat_object(buf: &mut Vec<u8>, kept: &Flat) -> bool {
    let start = open(buf);
    let mut whole = flat_members(buf, kept.text());
    if let Some((name, nested)) = kept.nested() {
        key(buf, ElementType::EmbeddedDocument, name);
        let start = open(buf);
        whole &= flat_members(buf, nested);
        close(buf, start);
    }
    close(buf, start);
    whole
}

fn flat_members(buf: &mut Vec<u8>, json: &str) -> bool {
    // No control character stands in the text, and so no NUL in a key.
    flat::scan(json, |name, value| {
        match value {
            Scalar::Null => key(buf, ElementType::Null, name),
            Scalar::Bool(flag) => boolean(buf, name, flag),
            Scalar::Int(integer) => whole_number(buf, name, integer),
            Scalar::Text(string) => text(buf, name, string),
        }
        true
    })
}

fn object(buf: &mut Vec<u8>, members: &Map<String, Value>, depth: usize) -> bool {
    let start = open(buf);
    let mut exact = true;
    for (name, value) in members {
        if name.contains('\0') {
            exact = false;
            element(buf, &name.replace('\0', NUL_IN_KEY), value, depth);
        } else {
            exact &= element(buf, name, value, depth);
        }
    }
    close(buf, start);
    exact
}

fn array(buf: &mut Vec<u8>, values: &[Value], depth: usize) -> bool {
    let start = open(buf);
    let mut exact = true;
    let mut index_name = String::new();
    for (index, value) in values.iter().enumerate() {
        index_name.clear();
        // Writing to a String cannot fail.
        let _ = write!(index_name, "{index}");
        exact &= element(buf, &index_name, value, depth);
    }
    close(buf, start);
    exact
}

/// `depth` is that of the object or array that holds the value.
fn element(buf: &mut Vec<u8>, name: &str, value: &Value, depth: usize) -> bool {
    match value {
        Value::Null => {
            key(buf, ElementType::Null, name);
            true
        }
        Value::Bool(flag) => {
            boolean(buf, name, *flag);
            true
        }
        Value::Number(number_value) => number(buf, name, number_value),
        Value::String(string) => {
            text(buf, name, string);
            true
        }
        Value::Array(_) | Value::Object(_) if depth >= MAX_METADATA_DEPTH => {
            text(buf, name, &value.to_string());
            false
        }
        Value::Array(values) => {
            key(buf, ElementType::Array, name);
            array(buf, values, depth + 1)
        }
        Value::Object(members) => {
            key(buf, ElementType::EmbeddedDocument, name);
            object(buf, members, depth + 1)
        }
    }
}

fn number(buf: &mut Vec<u8>, name: &str, number: &Number) -> bool {
    let digits = number.as_str();
    if digits != "-0"
        && let Ok(integer) = digits.parse::<i64>()
    {
        whole_number(buf, name, integer);
        return true;
    }
    let double = number.as_f64().filter(|double| double.is_finite());
    if let Some(double) = double
        && Number::from_f64(double).as_ref() == Some(number)
    {
        key(buf, ElementType::Double, name);
        buf.extend_from_slice(&double.to_le_bytes());
        return true;
    }
    if let Ok(decimal) = digits.parse::<mongodb::bson::Decimal128>()
        && super::decode::decimal(&decimal).as_ref() == Some(number)
    {
        key(buf, ElementType::Decimal128, name);
        buf.extend_from_slice(&decimal.bytes());
        return true;
    }
    match double {
        Some(double) => {
            key(buf, ElementType::Double, name);
            buf.extend_from_slice(&double.to_le_bytes());
        }
        None => text(buf, name, digits),
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "encode_tests.rs"]
mod tests;
