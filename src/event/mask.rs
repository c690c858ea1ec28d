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
//! - What becomes no event is masked as bytes; see [`super::letter`].

use serde_json::Value;

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
    use serde_json::json;

    use super::*;

    fn masked(mut value: Value) -> Value {
        mask_value(&mut value, SECRET_KEYS);
        value
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
}
