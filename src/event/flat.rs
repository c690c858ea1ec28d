//! The plainest JSON there is, read in one pass: one object on one line, without blanks and without
//! escapes, whose values are texts, whole numbers, truth values and nulls. Most audit lines are so.
//!
//! What is anything else is left to a real parser; nothing is refused here, and nothing is guessed.

use bytes::Bytes;
use bytestring::ByteString;

/// A value that holds no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number of at most 18 digits.
    Int(i64),
    /// Text; no byte of it is escaped.
    Text(&'a str),
}

/// Digits that fit an `i64` whatever they are.
const MOST_DIGITS: usize = 18;

/// The bytes as text, if they may be a flat object: UTF-8 without control characters and backslashes.
pub fn plain_text(bytes: &Bytes) -> Option<ByteString> {
    may_be_plain(bytes).then(|| ByteString::try_from(bytes.clone()).ok())?
}

fn may_be_plain(bytes: &[u8]) -> bool {
    // Whole blocks without an early exit are what the compiler makes vector instructions of.
    let is_plain = |block: &[u8]| {
        block.iter().fold(true, |plain, byte| {
            plain & (*byte >= b' ') & (*byte != b'\\')
        })
    };
    bytes.chunks(128).all(is_plain)
}

/// Whether [`plain_text`] would take the bytes.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    // One pass for what nearly all lines are: printable ASCII without a backslash.
    let is_simple = |block: &[u8]| {
        block.iter().fold(true, |simple, byte| {
            simple & (*byte >= b' ') & (*byte != b'\\') & (*byte < 0x80)
        })
    };
    bytes.chunks(128).all(is_simple) || may_be_plain(bytes) && std::str::from_utf8(bytes).is_ok()
}

/// How long the value is that the bytes begin with, if [`scan`] reads it and it is no text.
pub(crate) fn bare_length(bytes: &[u8]) -> Option<usize> {
    let words: [&[u8]; 3] = [b"true", b"false", b"null"];
    let word = words.iter().find(|word| bytes.starts_with(word));
    word.map(|word| word.len())
        .or_else(|| whole_number_length(bytes))
}

/// Reads the fields of a [plain text](plain_text) in order. Ends early when `field` says `false`;
/// `true` when all of the text was read and it is one flat object. Keys may repeat.
pub fn scan<'a>(text: &'a str, mut field: impl FnMut(&'a str, Scalar<'a>) -> bool) -> bool {
    let bytes = text.as_bytes();
    if !text.starts_with("{\"") {
        return text == "{}";
    }
    let mut at = 1;
    loop {
        if bytes.get(at) != Some(&b'"') {
            return false;
        }
        let Some(key_end) = quote(bytes, at + 1) else {
            return false;
        };
        let key = &text[at + 1..key_end];
        if bytes.get(key_end + 1) != Some(&b':') {
            return false;
        }
        let Some((value, end)) = scalar(text, key_end + 2) else {
            return false;
        };
        if !field(key, value) {
            return false;
        }
        match bytes.get(end) {
            Some(b',') => at = end + 1,
            Some(b'}') => return end + 1 == bytes.len(),
            _ => return false,
        }
    }
}

/// Where the next quote stands.
fn quote(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'"', bytes.get(from..)?).map(|length| from + length)
}

/// The value that begins at `at`, and where it ends.
fn scalar(text: &str, at: usize) -> Option<(Scalar<'_>, usize)> {
    let bytes = text.as_bytes();
    match bytes.get(at)? {
        b'"' => {
            let end = quote(bytes, at + 1)?;
            Some((Scalar::Text(&text[at + 1..end]), end + 1))
        }
        b't' => literal(bytes, at, b"true", Scalar::Bool(true)),
        b'f' => literal(bytes, at, b"false", Scalar::Bool(false)),
        b'n' => literal(bytes, at, b"null", Scalar::Null),
        _ => whole_number(text, at),
    }
}

fn literal<'a>(
    bytes: &[u8],
    at: usize,
    word: &[u8],
    value: Scalar<'a>,
) -> Option<(Scalar<'a>, usize)> {
    bytes[at..]
        .starts_with(word)
        .then(|| (value, at + word.len()))
}

fn whole_number(text: &str, at: usize) -> Option<(Scalar<'_>, usize)> {
    let end = at + whole_number_length(&text.as_bytes()[at..])?;
    Some((Scalar::Int(text[at..end].parse().ok()?), end))
}

fn whole_number_length(bytes: &[u8]) -> Option<usize> {
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let unsigned = &bytes[sign..];
    let digits = unsigned
        .iter()
        .take(MOST_DIGITS + 1)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    // `-0` is no integer, and `01` no JSON.
    let is_odd = unsigned.first() == Some(&b'0') && (digits > 1 || sign > 0);
    (digits > 0 && digits <= MOST_DIGITS && !is_odd).then_some(sign + digits)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn scanned(text: &str) -> Option<Map<String, Value>> {
        let mut map = Map::new();
        let plain = plain_text(&Bytes::copy_from_slice(text.as_bytes()))?;
        let whole = scan(&plain, |key, value| {
            let value = match value {
                Scalar::Null => Value::Null,
                Scalar::Bool(flag) => flag.into(),
                Scalar::Int(number) => number.into(),
                Scalar::Text(text) => text.into(),
            };
            map.insert(key.to_owned(), value);
            true
        });
        whole.then_some(map)
    }

    #[test]
    fn flat_objects_are_read() {
        for text in [
            "{}",
            r#"{"a":""}"#,
            r#"{"a":"ü","b":true,"c":false,"d":null,"e":0,"f":-12,"":"x"}"#,
            r#"{"a":999999999999999999,"a":1}"#,
        ] {
            let real: Map<String, Value> = serde_json::from_str(text).unwrap();
            assert_eq!(scanned(text), Some(real), "{text}");
        }
    }

    #[test]
    fn anything_else_is_left_to_a_parser() {
        for text in [
            "",
            "{",
            "[]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1}}",
            "{\"a\":1} ",
            "{ }",
            "{\"a\":01}",
            "{\"a\":-0}",
            "{\"a\":-}",
            "{\"a\":1.5}",
            "{\"a\":1e3}",
            "{\"a\":[1]}",
            "{\"a\":\"\\n\"}",
            "{\"a\":\"\t\"}",
            "{\"a\":tru}",
            "{\"a\":truely}",
            "{a:1}",
            "{\"a\":1000000000000000000}",
            "{\"a\":\"x}",
            "{\"a\": 1}",
            "null",
            "{\"a\":1",
        ] {
            assert_eq!(scanned(text), None, "{text}");
        }
        let no_text = Bytes::from_static(b"{\"a\":\"\xff\"}");
        assert_eq!(plain_text(&no_text), None);
    }

    proptest! {
        /// What is read is what a real parser reads; what a real parser refuses is not read.
        #[test]
        fn it_never_differs_from_a_parser(text in r#"\{("[a-c]{0,2}":("[a-z{}:,ü ]{0,5}"|true|fals?e|null|-?[0-9]{1,20}|\[\]|1\.0),?){0,4}\}?"#) {
            if let Some(map) = scanned(&text) {
                let real: Result<Map<String, Value>, _> = serde_json::from_str(&text);
                prop_assert_eq!(Some(map), real.ok(), "{}", text);
            }
        }
    }
}
