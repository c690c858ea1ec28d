//! What the decoders of all kinds share: names, hashes and dead letters. Pure functions.

use bytes::Bytes;
use bytestring::ByteString;
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::event::{DeadLetter, DeadLetterReason, SourceName, json};

/// The key of `metadata` under which Daybook's own remarks on an event stand.
pub const REMARKS: &str = "daybook";

/// A dead letter keeps at most this many bytes of its input, the first ones.
pub const MAX_LETTER_BYTES: usize = 12 << 20;

/// `model_name` of `BrandNew.thing-x`: `brand_new_thing_x`. Letters and digits of any script stay.
pub fn lower_snake(raw: &str) -> String {
    let mut snake = String::with_capacity(raw.len() + 4);
    let mut after_lower = false;
    for character in raw.chars() {
        if !character.is_alphanumeric() {
            snake.push('_');
            after_lower = false;
            continue;
        }
        if character.is_uppercase() {
            if after_lower {
                snake.push('_');
            }
            snake.extend(character.to_lowercase());
            after_lower = false;
            continue;
        }
        snake.push(character);
        after_lower = true;
    }
    snake
}

/// The string under `key`, unless it is missing or empty.
pub fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// A string or number as text, unless it is empty.
pub fn scalar(value: Option<&Value>) -> Option<ByteString> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
        Value::Number(number) => Some(number.as_str().into()),
        _ => None,
    }
}

/// Whether the text looks like a mail address (one `@`, something on both sides, no blanks).
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    !local.is_empty()
        && !domain.is_empty()
        && !domain.contains('@')
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// SHA-256 in lower-case hexadecimal, 64 characters.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The first 16 digits of a secret's SHA-256: enough to find its other events, useless to use it.
pub fn fingerprint(secret: &str) -> String {
    let mut digits = sha256_hex(secret.as_bytes());
    digits.truncate(16);
    digits
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Where a decoder stands when it has to give something up.
pub struct LetterContext<'a> {
    /// The source.
    pub source: &'a SourceName,
    /// When Daybook met the input.
    pub at: Timestamp,
}

impl LetterContext<'_> {
    /// Writes a dead letter. `mask` gets the head of the input that is kept.
    pub fn letter(
        &self,
        position: String,
        reason: DeadLetterReason,
        detail: impl Into<String>,
        raw: &[u8],
        mask: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> DeadLetter {
        let head = &raw[..raw.len().min(MAX_LETTER_BYTES)];
        DeadLetter {
            source: self.source.clone(),
            position,
            reason,
            detail: detail.into(),
            raw: Bytes::from(mask(head)),
            raw_length: raw.len() as u64,
            at: self.at,
        }
    }
}

/// No event holds more values than this, lists, objects and keys counted in. Decoded, a value takes
/// some twenty times the two bytes that it may have had.
pub const MAX_VALUES: usize = 100_000;

/// Whether a JSON text holds more than [`MAX_VALUES`] values.
pub fn has_too_many_values(json: &str) -> bool {
    // Each takes a byte at least.
    if json.len() < MAX_VALUES {
        return false;
    }
    let mut in_string = false;
    let mut escaped = false;
    let values = json.bytes().filter(|byte| {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            return false;
        }
        in_string = *byte == b'"';
        matches!(byte, b',' | b':' | b'[' | b'{')
    });
    values.take(MAX_VALUES).count() == MAX_VALUES
}

/// The elements of a JSON list, one at a time and not decoded: a list of a million tiny values
/// takes no more memory than its text. Ends where the text is no list any more.
#[derive(Clone)]
pub struct Elements<'a> {
    rest: &'a str,
}

impl<'a> Elements<'a> {
    /// `None` when the value is no list. A [`RawValue`] was read as JSON, so a list has its end.
    pub fn of(list: &'a RawValue) -> Option<Self> {
        let rest = list.get().strip_prefix('[')?;
        Some(Self { rest })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a RawValue;

    fn next(&mut self) -> Option<&'a RawValue> {
        let rest = self.rest.trim_start_matches([',', ' ', '\n', '\r', '\t']);
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let element = values.next()?.ok();
        self.rest = element.map_or("", |_| &rest[values.byte_offset()..]);
        element
    }
}

/// Says where JSON broke, without a word of its content but for a name that must not stand twice.
pub fn json_trouble(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    if error.is_eof() {
        return format!("JSON is cut off at {place}");
    }
    if error.to_string().starts_with("recursion limit") {
        return format!("JSON is nested deeper than 128 levels at {place}");
    }
    if error.to_string().starts_with(json::TWICE) {
        return error.to_string();
    }
    format!("not JSON at {place}")
}

/// Whether the trouble is depth, so that the input may well be JSON.
pub fn is_too_deep(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("recursion limit")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        let zeros = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(!has_too_many_values(&zeros(MAX_VALUES - 1)));
        assert!(has_too_many_values(&zeros(MAX_VALUES)));
        let quoted = serde_json::to_string(&"\\\",[{:".repeat(MAX_VALUES)).unwrap();
        assert!(!has_too_many_values(&quoted));
        assert!(has_too_many_values(&format!(
            "[{quoted},{}]",
            zeros(MAX_VALUES)
        )));
    }

    #[test]
    fn elements_of_a_list_come_one_by_one() {
        for text in [
            "[]",
            " [ ] ",
            "[1]",
            "[1,2 ,\n3]",
            r#"["a,]",{"b":[1,{}]},[[]],null,true,-1.5e3,"\"" ]"#,
        ] {
            let list: &RawValue = serde_json::from_str(text).unwrap();
            let found: Vec<&str> = Elements::of(list).unwrap().map(RawValue::get).collect();
            let wanted: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            let wanted: Vec<&str> = wanted.into_iter().map(RawValue::get).collect();
            assert_eq!(found, wanted, "{text}");
        }
        let object: &RawValue = serde_json::from_str("{}").unwrap();
        assert!(Elements::of(object).is_none());
    }

    #[test]
    fn raw_names_become_lower_snake() {
        for (raw, wanted) in [
            ("auth.success", "auth_success"),
            ("dkim2.brand-new", "dkim2_brand_new"),
            ("BrandNew", "brand_new"),
            ("File", "file"),
            ("oauth2provider", "oauth2provider"),
            ("custom_", "custom_"),
            ("HTTPServer", "httpserver"),
            ("ä b\u{0}", "ä_b_"),
            ("", ""),
        ] {
            assert_eq!(lower_snake(raw), wanted, "{raw:?}");
        }
    }

    #[test]
    fn hashes_are_lower_case_hexadecimal() {
        assert_eq!(
            sha256_hex(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn trouble_with_depth_is_told_apart() {
        let error = serde_json::from_str::<Value>(&"[".repeat(200)).unwrap_err();
        assert!(is_too_deep(&error));
        assert!(json_trouble(&error).contains("nested"));
        let error = serde_json::from_str::<Value>("[").unwrap_err();
        assert!(!is_too_deep(&error) && json_trouble(&error).contains("cut off"));
    }

    #[test]
    fn addresses_are_recognised() {
        assert!(is_address("a@b"));
        for no in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\u{0}"] {
            assert!(!is_address(no), "{no:?}");
        }
    }
}
