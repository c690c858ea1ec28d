//! Secrets are masked before anything is stored or logged.
//!
//! Masking is by key, not by guessing at values: a list names the keys whose values are secrets.
//! Keys are compared without regard to case, `_`, `-`, `.` and spaces; a list entry that begins
//! with `*` stands for every key that ends so (`*token` covers `ShareToken` and `refresh_token`).
//!
//! - A secret string or number becomes `"***"`. Null, booleans and empty strings stay: they tell
//!   whether a secret was there, never which.
//! - Under a secret key an object or an array keeps its shape; its leaves are masked, but for those
//!   that only describe the secret (`pk`, `name`, `model_name`, …), so that an event about a token
//!   still says which token.
//! - What is not valid JSON (a cut line, a console's noise) is masked textually by the same list;
//!   there the whole value goes, up to the end of the input when its end is missing; and so does
//!   what its sentences say of secrets (`prose`), and what the parameters of its URLs are.
//! - A dead letter that is JSON stays JSON, and its bytes stay but for the values that are masked. A
//!   string in it is masked as text, or as the JSON that it holds.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::prose::mask_prose;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Keys whose values are secrets, whichever source wrote them.
pub const SECRET_KEYS: &[&str] = &[
    "*password",
    "*passwd",
    "*passphrase",
    "*password_repeat",
    "*password_hash",
    "pwd",
    "*secret",
    "*token",
    "*token_key",
    "authorization",
    "proxy_authorization",
    "*authorization_header",
    "cookie",
    "cookies",
    "set_cookie",
    "*api_key",
    "*private_key",
    "*signing_key",
    "*signature_key",
    "*encryption_key",
    "*secret_key",
    "session_key",
    "session_id",
    "credentials",
    "otp",
    "otp_code",
    "totp",
    "totp_code",
    "one_time_code",
    "recovery_code",
    "recovery_codes",
    "backup_codes",
    "auth_code",
    "authorization_code",
    "code_verifier",
    "client_assertion",
    "bearer",
    "jwt",
    "saml_response",
];

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

/// Leaves under a secret key that describe the secret without giving it away.
const DESCRIBING_KEYS: &[&str] = &[
    "id",
    "pk",
    "app",
    "name",
    "model_name",
    "type",
    "kind",
    "uuid",
    "identifier",
    "expires",
    "expiring",
    "created",
    "count",
    "length",
];

/// No key of a secret is longer; keeps the textual search linear.
pub(super) const LONGEST_KEY: usize = 96;

/// Masks in place every value that stands under one of `keys`, however deep.
pub fn mask_value(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mask_value(item, keys)),
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                if is_secret_key(key, keys) {
                    mask_leaves(inner);
                } else {
                    mask_value(inner, keys);
                }
            }
        }
        _ => {}
    }
}

/// Masks the value itself: a leaf is replaced, an object or array keeps its shape.
pub fn mask_leaves(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(_) | Value::Number(_) => *value = Value::String(MASK.to_owned()),
        Value::Array(items) => items.iter_mut().for_each(mask_leaves),
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                if !is_secret_key(key, DESCRIBING_KEYS) || inner.is_object() || inner.is_array() {
                    mask_leaves(inner);
                }
            }
        }
    }
}

/// Whether `key` is on the list, in the way of comparing that the module describes.
pub fn is_secret_key(key: &str, keys: &[&str]) -> bool {
    let last = significant(key).next();
    // Few do, and it is asked of every key of every event.
    let ends_so = |pattern: &str| {
        let end = pattern.as_bytes().last();
        debug_assert!(end.is_some_and(u8::is_ascii_alphanumeric), "{pattern}");
        end.map(u8::to_ascii_lowercase) == last
    };
    keys.iter()
        .any(|pattern| ends_so(pattern) && key_matches(key, pattern))
}

fn key_matches(key: &str, pattern: &str) -> bool {
    let (any_prefix, wanted) = match pattern.strip_prefix('*') {
        Some(suffix) => (true, suffix),
        None => (false, pattern),
    };
    let mut key = significant(key);
    for wanted in significant(wanted) {
        if key.next() != Some(wanted) {
            return false;
        }
    }
    any_prefix || key.next().is_none()
}

/// The bytes that count in a key, last first.
fn significant(key: &str) -> impl Iterator<Item = u8> {
    key.bytes()
        .rev()
        .filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' '))
        .map(|byte| byte.to_ascii_lowercase())
}

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

/// Masks `key=value` parameters of a URL or query string, percent-encoded separators included.
/// `None` when there is nothing to mask.
pub fn mask_query(text: &str, keys: &[&str]) -> Option<String> {
    if !text.contains('=') && !text.contains("%3D") && !text.contains("%3d") {
        return None;
    }
    let bytes = text.as_bytes();
    let mut masked: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    let mut parameter = Some(0);
    while at < bytes.len() {
        if let Some(width) = separator_width(&bytes[at..], b"?&#;", &["3f", "26", "23", "3b"]) {
            at += width;
            parameter = Some(at);
            continue;
        }
        let Some(equals) = separator_width(&bytes[at..], b"=", &["3d"]) else {
            at += 1;
            continue;
        };
        let key = parameter.take().and_then(|start| text.get(start..at));
        at += equals;
        if !key.is_some_and(|key| is_secret_key(key, keys)) {
            continue;
        }
        let encoded = equals > 1;
        let end = parameter_end(bytes, at, encoded);
        if end > at {
            let out = masked.get_or_insert_default();
            out.push_str(&text[copied..at]);
            out.push_str(MASK);
            copied = end;
            at = end;
        }
    }
    let mut masked = masked?;
    masked.push_str(&text[copied..]);
    Some(masked)
}

/// The length of a separator at the head of `bytes`: a plain one, or one percent-encoded any number of times.
fn separator_width(bytes: &[u8], plain: &[u8], encoded: &[&str]) -> Option<usize> {
    let first = *bytes.first()?;
    if plain.contains(&first) {
        return Some(1);
    }
    if first != b'%' {
        return None;
    }
    let mut at = 1;
    while bytes[at..].starts_with(b"25") {
        at += 2;
    }
    let code = bytes.get(at..at + 2)?;
    encoded
        .iter()
        .any(|wanted| code.eq_ignore_ascii_case(wanted.as_bytes()))
        .then_some(at + 2)
}

fn parameter_end(bytes: &[u8], mut at: usize, encoded: bool) -> usize {
    while at < bytes.len() {
        let byte = bytes[at];
        let ends = byte.is_ascii_whitespace()
            || matches!(byte, b'&' | b'#' | b'"' | b'\'' | b'<' | b'>')
            || (encoded && separator_width(&bytes[at..], b"&#", &["26", "23"]).is_some());
        if ends {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn masked(mut value: Value) -> Value {
        mask_value(&mut value, SECRET_KEYS);
        value
    }

    fn masked_text(raw: &str) -> String {
        String::from_utf8(mask_raw(raw.as_bytes(), SECRET_KEYS)).unwrap()
    }

    #[test]
    fn keys_are_compared_without_case_and_separators() {
        for key in [
            "password",
            "Password",
            "PASS-WORD",
            "new_password",
            "ShareToken",
            "client-secret",
            "attributes.api_token",
        ] {
            assert!(is_secret_key(key, SECRET_KEYS), "{key}");
        }
        for key in [
            "password_change_date",
            "tokens_total",
            "SharePass",
            "secret_view",
            "key",
            "code",
            "",
            "***",
        ] {
            assert!(!is_secret_key(key, SECRET_KEYS), "{key}");
        }
    }

    #[test]
    fn leaves_are_masked_and_presence_stays() {
        assert_eq!(
            masked(
                json!({"password": "x", "otp": 123456, "token": null, "cookie": "", "secret": true})
            ),
            json!({"password": "***", "otp": "***", "token": null, "cookie": "", "secret": true})
        );
    }

    #[test]
    fn a_dict_that_describes_a_secret_stays_readable() {
        let described = json!({"secret": {"pk": "0b2f", "app": "core", "name": "poller", "model_name": "token"}});
        assert_eq!(masked(described.clone()), described);
        assert_eq!(
            masked(json!({"client_secret": {"previous_value": "a", "new_value": ["b", 3]}})),
            json!({"client_secret": {"previous_value": "***", "new_value": ["***", "***"]}})
        );
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

    #[test]
    fn query_parameters_are_masked() {
        let keys = &["*token", "code"];
        let cases = [
            (
                "/if/flow/x/?itoken=abc&next=/",
                Some("/if/flow/x/?itoken=***&next=/"),
            ),
            ("token=abc", Some("token=***")),
            (
                "next=%2F%3Ftoken%3Dabc%26a%3Db",
                Some("next=%2F%3Ftoken%3D***%26a%3Db"),
            ),
            (
                "see https://a/?code=1 now",
                Some("see https://a/?code=*** now"),
            ),
            ("a=b", None),
            ("token=", None),
            ("no query", None),
            ("ü?token=ü&ü=ü", Some("ü?token=***&ü=ü")),
        ];
        for (text, wanted) in cases {
            assert_eq!(mask_query(text, keys).as_deref(), wanted, "{text}");
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
