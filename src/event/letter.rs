//! Secrets in bytes that become no event, and are kept as a dead letter.
//!
//! - What is not valid JSON (a cut line, a console's noise) is masked textually by the list of keys
//!   ([`super::mask`]); there the whole value goes, up to the end of the input when its end is missing;
//!   and so does what its sentences say of secrets (`prose`), and what the parameters of its URLs are.
//! - What is JSON stays JSON, and its bytes stay but for the strings in which something is masked. A
//!   string is masked as text, or as the JSON that it holds.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::mask::{LONGEST_KEY, MASK, is_secret_key, mask_query};
use super::prose::mask_prose;

/// Parameters of a URL in a dead letter that are secrets, whichever source wrote it, besides the
/// common list.
const QUERY_KEYS: &[&str] = &[
    "code",
    "key",
    "auth",
    "sig",
    "signature",
    "assertion",
    "id_token_hint",
];

/// JSON within strings of JSON, so often: what is deeper is masked whole.
const MAX_JSON_IN_JSON: u32 = 8;

/// Masks bytes that are no event, in the form in which they are kept as a dead letter.
pub fn mask_letter(raw: &[u8], keys: &[&str]) -> Vec<u8> {
    mask_text(raw, keys, MAX_JSON_IN_JSON)
}

fn mask_text(raw: &[u8], keys: &[&str], depth: u32) -> Vec<u8> {
    let is_json =
        std::str::from_utf8(raw).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    if is_json {
        return mask_json(raw, keys, depth);
    }
    mask_queries(&mask_prose(&mask_raw(raw, keys), keys), keys)
}

/// Masks JSON: the values of secret keys, and what the other strings say.
fn mask_json(raw: &[u8], keys: &[&str], depth: u32) -> Vec<u8> {
    let blanks_end = |at: usize| skip(raw, at, |byte| byte.is_ascii_whitespace());
    let mut masked = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'"' {
            masked.push(raw[at]);
            at += 1;
            continue;
        }
        let end = string_end(raw, at + 1) + 1;
        let string = &raw[at..end];
        let colon = blanks_end(end);
        if raw.get(colon) != Some(&b':') {
            masked.extend_from_slice(&mask_string(string, keys, depth));
            at = end;
            continue;
        }
        let value = blanks_end(colon + 1);
        masked.extend_from_slice(&raw[at..value]);
        at = value;
        let is_secret =
            serde_json::from_slice::<String>(string).is_ok_and(|key| is_secret_key(&key, keys));
        if is_secret {
            at = mask_raw_value(raw, value, &mut masked);
            if raw[value] == b'"' {
                masked.push(b'"');
                at += 1;
            }
        }
    }
    masked
}

/// Masks a string of JSON, given with its quotes.
fn mask_string<'a>(string: &'a [u8], keys: &[&str], depth: u32) -> Cow<'a, [u8]> {
    let text = serde_json::from_slice::<String>(string);
    // With half of a surrogate pair in it, what it says cannot be looked through.
    let Some((text, depth)) = text.ok().zip(depth.checked_sub(1)) else {
        return Cow::Borrowed(&b"\"***\""[..]);
    };
    let masked = mask_text(text.as_bytes(), keys, depth);
    if masked == text.as_bytes() {
        return Cow::Borrowed(string);
    }
    let masked = Value::from(String::from_utf8_lossy(&masked));
    Cow::Owned(masked.to_string().into_bytes())
}

/// Masks parameters of URLs.
fn mask_queries(raw: &[u8], keys: &[&str]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        let mut text = Cow::Borrowed(chunk.valid());
        for keys in [keys, QUERY_KEYS] {
            if let Some(without) = mask_query(&text, keys) {
                text = Cow::Owned(without);
            }
        }
        masked.extend_from_slice(text.as_bytes());
        masked.extend_from_slice(chunk.invalid());
    }
    masked
}

/// Masks `"key": value` in bytes that need not be valid JSON, cut-off values and JSON within
/// strings (`\"key\":\"value\"`) included.
fn mask_raw(raw: &[u8], keys: &[&str]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'"'
            && let Some(value) = secret_value_after(raw, at, keys)
        {
            masked.extend_from_slice(&raw[at..value]);
            at = mask_raw_value(raw, value, &mut masked);
            continue;
        }
        masked.push(raw[at]);
        at += 1;
    }
    masked
}

/// Where the value of the key begins that is opened by the quote at `quote`, if that is a secret one.
fn secret_value_after(raw: &[u8], quote: usize, keys: &[&str]) -> Option<usize> {
    let start = quote + 1;
    let window = &raw[start..raw.len().min(start + LONGEST_KEY)];
    let length = window
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\'))?;
    let key = std::str::from_utf8(&window[..length]).ok()?;
    let mut at = start + length;
    at = skip(raw, at, |byte| byte == b'\\');
    if raw.get(at) != Some(&b'"') {
        return None;
    }
    at = skip(raw, at + 1, |byte| byte.is_ascii_whitespace());
    if raw.get(at) != Some(&b':') {
        return None;
    }
    is_secret_key(key, keys).then(|| skip(raw, at + 1, |byte| byte.is_ascii_whitespace()))
}

fn skip(raw: &[u8], mut at: usize, what: impl Fn(u8) -> bool) -> usize {
    while raw.get(at).is_some_and(|byte| what(*byte)) {
        at += 1;
    }
    at
}

/// Writes the mask for the value that begins at `at` and returns where it ends.
fn mask_raw_value(raw: &[u8], at: usize, masked: &mut Vec<u8>) -> usize {
    let quote = skip(raw, at, |byte| byte == b'\\');
    match raw.get(quote) {
        Some(b'"') => {
            masked.extend_from_slice(&raw[at..=quote]);
            let end = if quote > at {
                escaped_string_end(raw, quote + 1)
            } else {
                string_end(raw, quote + 1)
            };
            if end > quote + 1 {
                masked.extend_from_slice(MASK.as_bytes());
            }
            end
        }
        Some(b'{' | b'[') if quote == at => {
            masked.extend_from_slice(b"\"***\"");
            bracket_end(raw, at)
        }
        Some(b'-' | b'0'..=b'9') if quote == at => {
            masked.extend_from_slice(b"\"***\"");
            skip(raw, at, |byte| {
                !matches!(byte, b',' | b'}' | b']') && !byte.is_ascii_whitespace()
            })
        }
        _ => at,
    }
}

/// Where the string ends whose content begins at `at`: at its closing quote, or at the end of the input.
fn string_end(raw: &[u8], mut at: usize) -> usize {
    while at < raw.len() && raw[at] != b'"' {
        at += if raw[at] == b'\\' { 2 } else { 1 };
    }
    at.min(raw.len())
}

/// The same within a string: the closing quote wears backslashes, which belong to it.
fn escaped_string_end(raw: &[u8], start: usize) -> usize {
    let mut end = raw[start..]
        .iter()
        .position(|byte| *byte == b'"')
        .map_or(raw.len(), |length| start + length);
    while end > start && end < raw.len() && raw[end - 1] == b'\\' {
        end -= 1;
    }
    end
}

/// Where the object or array ends that is opened at `at`: behind its closing bracket, or at the end of the input.
fn bracket_end(raw: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < raw.len() {
        match raw[at] {
            b'"' => at = string_end(raw, at + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    raw.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::mask::{SECRET_KEYS, mask_value};
    use super::*;

    fn masked(mut value: Value) -> Value {
        mask_value(&mut value, SECRET_KEYS);
        value
    }

    fn masked_text(raw: &str) -> String {
        String::from_utf8(mask_raw(raw.as_bytes(), SECRET_KEYS)).unwrap()
    }

    #[test]
    fn raw_values_are_masked_wherever_they_are_cut() {
        let cases = [
            (
                r#"{"a":"b","Token":"abc","c":"d"}"#,
                r#"{"a":"b","Token":"***","c":"d"}"#,
            ),
            (
                r#"{"x":"\"","Token" : "a\"b"}"#,
                r#"{"x":"\"","Token" : "***"}"#,
            ),
            (r#"{"Token":"ab"#, r#"{"Token":"***"#),
            (r#"{"Token":"ab\"#, r#"{"Token":"***"#),
            (r#"{"Token":""#, r#"{"Token":""#),
            (r#"{"Token":"","a":1}"#, r#"{"Token":"","a":1}"#),
            (r#"{"otp":123456,"a":1}"#, r#"{"otp":"***","a":1}"#),
            (r#"{"secret":{"a":"}"},"b":1}"#, r#"{"secret":"***","b":1}"#),
            (r#"{"secret":["a","b"#, r#"{"secret":"***""#),
            (r#"{"token":null}"#, r#"{"token":null}"#),
            (
                r#"{"m":"{\"token\":\"abc\",\"b\":1}"}"#,
                r#"{"m":"{\"token\":\"***\",\"b\":1}"}"#,
            ),
        ];
        for (raw, wanted) in cases {
            assert_eq!(masked_text(raw), wanted, "{raw}");
        }
    }

    #[test]
    fn a_letter_that_is_json_stays_so_without_what_its_strings_say_of_secrets() {
        let cases = [
            (
                r#"{"path":"/if/flow/x/?itoken=abc&a=1","n":1.50}"#,
                r#"{"path":"/if/flow/x/?itoken=***&a=1","n":1.50}"#,
            ),
            (
                r#"[ "/?next=%2F%3Ftoken%3Dabc" , "\u00fc" ]"#,
                r#"[ "/?next=%2F%3Ftoken%3D***" , "\u00fc" ]"#,
            ),
            (
                r#"{"url":"/auth?code=abc\u0026x=1"}"#,
                r#"{"url":"/auth?code=***&x=1"}"#,
            ),
            (
                r#"{"url":"https://me:p@ss@host/"}"#,
                r#"{"url":"https://me:***@host/"}"#,
            ),
            (r#"{"said":"token=\"a b\""}"#, r#"{"said":"token=\"***\""}"#),
            (
                r#"{"Token" : "a\"b", "otp":[1,2],"code":5}"#,
                r#"{"Token" : "***", "otp":"***","code":5}"#,
            ),
            (
                r#"{"to\u006ben":"abc","token":"","secret":null}"#,
                r#"{"to\u006ben":"***","token":"","secret":null}"#,
            ),
            (
                r#"{"m":"{\"otp\":123456,\"secret\":{\"a\":1}}","n":2}"#,
                r#"{"m":"{\"otp\":\"***\",\"secret\":\"***\"}","n":2}"#,
            ),
            (r#"{"m":"\ud800 token=abc"}"#, r#"{"m":"***"}"#),
        ];
        for (raw, wanted) in cases {
            let masked = mask_letter(raw.as_bytes(), SECRET_KEYS);
            assert_eq!(String::from_utf8(masked).unwrap(), wanted, "{raw}");
        }
    }

    #[test]
    fn json_within_json_is_masked_to_any_depth() {
        let mut letter = json!({"token": "abc"}).to_string();
        for depth in 0..12 {
            let masked = mask_letter(letter.as_bytes(), SECRET_KEYS);
            let masked = String::from_utf8(masked).unwrap();
            assert!(
                masked.contains("***") && !masked.contains("abc"),
                "{depth}: {masked}"
            );
            letter = json!([letter]).to_string();
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_masked(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            mask_raw(&raw, SECRET_KEYS);
            mask_letter(&raw, SECRET_KEYS);
        }

        #[test]
        fn any_json_like_text_can_be_masked(raw in r#"[{}\[\]":,\\tokenpassword0-9 ]{0,80}"#) {
            mask_raw(raw.as_bytes(), SECRET_KEYS);
            mask_query(&raw, SECRET_KEYS);
        }

        #[test]
        fn a_letter_that_is_json_stays_json(text in r#"[{}\[\]":,=?\\tokenpassword0-9 &]{0,60}"#) {
            let inner = json!({"a": text, "Token": text}).to_string();
            let raw = json!({"m": inner, "t": [text, 1.5], "password": {"a": text}}).to_string();
            let masked = mask_letter(raw.as_bytes(), SECRET_KEYS);
            let masked: Value = serde_json::from_slice(&masked).unwrap();
            prop_assert_eq!(&masked["password"], MASK);
            let inner: Value = serde_json::from_str(masked["m"].as_str().unwrap()).unwrap();
            prop_assert_eq!(&inner["Token"], if text.is_empty() { "" } else { MASK });
        }

        #[test]
        fn a_secret_does_not_survive(secret in "[A-Z]{8}", before in "[a-z\\\\\"{}:, ]{0,20}", cut in 0usize..12) {
            let raw = format!("{before}{{\"ShareToken\":\"{secret}\"}}");
            let raw = &raw[..raw.len() - cut.min(2)];
            let out = masked_text(raw);
            prop_assert!(!out.contains(&secret), "{}", out);
        }

        #[test]
        fn masking_text_equals_masking_values(name in "[a-z\"\\\\é]{0,12}", secret in "[a-z\"\\\\é]{1,12}") {
            let value = json!({"Name": name, "Token": secret, "Z": name});
            let raw = mask_raw(value.to_string().as_bytes(), SECRET_KEYS);
            prop_assert_eq!(serde_json::from_slice::<Value>(&raw).unwrap(), masked(value));
        }
    }
}
