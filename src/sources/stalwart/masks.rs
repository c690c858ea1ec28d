//! Which parts of a Stalwart event are secrets or content.
//!
//! Some types carry what went over the wire: log-ins in clear, request headers, new passwords,
//! mail. Of those only what describes the connection stays; a new key of such a type is masked
//! until somebody has looked at it.

use serde_json::{Map, Value};

use crate::event::letter;
use crate::event::mask::{self, SECRET_KEYS};

/// What stays of an event that carries content.
const STRUCTURAL_KEYS: &[&str] = &[
    "spanId",
    "queueId",
    "queueName",
    "listenerId",
    "localIp",
    "localPort",
    "remoteIp",
    "remotePort",
    "accountId",
    "accountName",
    "from",
    "to",
    "hostname",
    "domain",
    "size",
    "total",
    "code",
    "elapsed",
    "id",
];

/// Keys that carry content in any type; for text that cannot be read as JSON.
const CONTENT_KEYS: &[&str] = &["contents", "details"];

/// Parameters of a requested URL that are secrets, besides the common list.
const QUERY_KEYS: &[&str] = &["code", "key", "auth", "sig", "signature"];

/// Whether events of this type carry what went over the wire.
pub(super) fn carries_content(kind: &str) -> bool {
    let Some((_, name)) = kind.split_once('.') else {
        return false;
    };
    matches!(kind, "milter.read" | "milter.write")
        || name.starts_with("raw-")
        || name.ends_with("-body")
}

/// Masks the event's object; `kind` is its type.
pub(super) fn mask_event(event: &mut Map<String, Value>, kind: &str) {
    for (key, value) in event.iter_mut() {
        if mask::is_secret_key(key, SECRET_KEYS) {
            mask::mask_leaves(value);
        } else if key != "data" {
            mask::mask_value(value, SECRET_KEYS);
        }
    }
    let Some(data) = event.get_mut("data") else {
        return;
    };
    mask::mask_value(data, SECRET_KEYS);
    let Value::Object(data) = data else {
        return;
    };
    for (key, value) in data.iter_mut() {
        if carries_content(kind) && !STRUCTURAL_KEYS.contains(&key.as_str()) {
            mask::mask_leaves(value);
        }
        if let ("url" | "path", Value::String(text)) = (key.as_str(), &mut *value)
            && let Some(masked) = mask::mask_query(text, &query_keys())
        {
            *text = masked;
        }
    }
}

/// Masks bytes that are no event.
pub(super) fn mask_letter(raw: &[u8]) -> Vec<u8> {
    let keys: Vec<&str> = SECRET_KEYS.iter().chain(CONTENT_KEYS).copied().collect();
    letter::mask_letter(raw, &keys)
}

fn query_keys() -> Vec<&'static str> {
    SECRET_KEYS.iter().chain(QUERY_KEYS).copied().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn masked(kind: &str, data: Value) -> Value {
        let mut event = Map::from_iter([("data".to_owned(), data)]);
        mask_event(&mut event, kind);
        event.remove("data").unwrap()
    }

    #[test]
    fn content_is_masked_and_the_connection_stays() {
        assert_eq!(
            masked(
                "http.request-body",
                json!({"contents": "{\"secret\":1}", "details": ["Authorization", "Basic x"], "newKey": 7, "remoteIp": "192.0.2.1", "size": 9})
            ),
            json!({"contents": "***", "details": ["***", "***"], "newKey": "***", "remoteIp": "192.0.2.1", "size": 9})
        );
        assert_eq!(
            masked(
                "delivery.raw-output",
                json!({"contents": "x", "to": ["a@b"]})
            ),
            json!({"contents": "***", "to": ["a@b"]})
        );
    }

    #[test]
    fn other_types_keep_their_details() {
        let data = json!({"details": "No such user", "contents": "AP8="});
        assert_eq!(masked("delivery.dsn-perm-fail", data.clone()), data);
        assert_eq!(
            masked(
                "http.request-url",
                json!({"url": "/auth/code?code=abc&x=1"})
            ),
            json!({"url": "/auth/code?code=***&x=1"})
        );
    }

    #[test]
    fn text_that_is_no_json_loses_content_too() {
        let raw = br#"{"events":[{"type":"imap.raw-input","data":{"contents":"A LOGIN a \"pw\""#;
        let masked = String::from_utf8(mask_letter(raw)).unwrap();
        assert!(masked.ends_with(r#""contents":"***"#), "{masked}");
    }
}
