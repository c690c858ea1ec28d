//! Which parts of a Stalwart event are secrets or content.
//!
//! Some types carry what went over the wire or came out of a store: log-ins in clear, request
//! headers, new passwords, password hashes, mail. Of those only what describes the connection stays;
//! a new key of such a type is masked until somebody has looked at it. A few more carry a secret
//! under one key. Types stand here in lower snake case: they are known in any spelling.

use serde_json::{Map, Value};

use crate::event::letter;
use crate::event::mask::{self, SECRET_KEYS};
use crate::sources::text::lower_snake;

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

/// Keys of single types that may hold a secret: credentials or a password's hash that could not be read,
/// the address of a push subscription, to which anybody may send who knows it (an error of the request
/// names it too), and the bytes that stand in a store for an account or a message.
const SECRETS_OF: &[(&str, &str)] = &[
    ("auth_error", "details"),
    ("auth_error", "id"),
    ("push_subscription_error", "reason"),
    ("push_subscription_error", "url"),
    ("push_subscription_success", "url"),
    ("registry_deserialization_error", "value"),
    ("store_data_corruption", "value"),
    ("store_decompress_error", "value"),
    ("store_deserialize_error", "value"),
];

/// Keys that may carry content, whatever the type; for what becomes no event.
const CONTENT_KEYS: &[&str] = &["contents", "details", "id", "result", "url", "value"];

/// Parameters of a requested URL that are secrets, besides the common list.
const QUERY_KEYS: &[&str] = &["code", "key", "auth", "sig", "signature"];

/// Whether events of this type carry what went over the wire, rows of a directory, or what a model
/// was asked and answered.
fn carries_content(kind: &str) -> bool {
    matches!(
        kind,
        "milter_read" | "milter_write" | "store_sql_query" | "store_ldap_query" | "ai_llm_response"
    ) || kind.contains("_raw_")
        || kind.ends_with("_body")
}

fn is_content(kind: &str, key: &str) -> bool {
    SECRETS_OF.contains(&(kind, key)) || (carries_content(kind) && !STRUCTURAL_KEYS.contains(&key))
}

/// Masks the event's object; `kind` is its type.
pub(super) fn mask_event(event: &mut Map<String, Value>, kind: &str) {
    for (key, value) in event.iter_mut() {
        if mask::is_secret_key(key, SECRET_KEYS) {
            mask::mask_leaves(value);
        } else {
            mask::mask_value(value, SECRET_KEYS);
        }
    }
    if let Some(Value::Object(data)) = event.get_mut("data") {
        mask_data(data, kind);
    }
}

fn mask_data(data: &mut Map<String, Value>, kind: &str) {
    let kind = lower_snake(kind);
    for (key, value) in data.iter_mut() {
        if is_content(&kind, key) {
            mask::mask_leaves(value);
            continue;
        }
        mask_errors(value);
        if let ("url" | "path", Value::String(text)) = (key.as_str(), &mut *value)
            && let Some(masked) = mask::mask_query(text, &query_keys())
        {
            *text = masked;
        }
    }
}

/// An error within an event, or a list of them, is written as an event is: `type` and `data`.
fn mask_errors(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mask_errors),
        Value::Object(error) => {
            let kind = error.get("type").and_then(Value::as_str).map(str::to_owned);
            if let Some(kind) = kind
                && let Some(Value::Object(data)) = error.get_mut("data")
            {
                mask_data(data, &kind);
            }
        }
        _ => {}
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
        for kind in [
            "delivery.raw-output",
            "delivery_raw_output",
            "Delivery.RawOutput",
        ] {
            assert_eq!(
                masked(kind, json!({"contents": "x", "to": ["a@b"]})),
                json!({"contents": "***", "to": ["a@b"]}),
                "{kind}"
            );
        }
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
    fn rows_and_prompts_are_masked() {
        assert_eq!(
            masked(
                "store.sql-query",
                json!({"details": "SELECT secret", "value": ["a"], "result": "Ok([\"$argon2id$x\"])"})
            ),
            json!({"details": "***", "value": ["***"], "result": "***"})
        );
        assert_eq!(
            masked(
                "store.ldap-query",
                json!({"details": "(uid=a)", "result": [["userPassword", "{SSHA}x"], "cn=a"]})
            ),
            json!({"details": "***", "result": [["***", "***"], "***"]})
        );
        assert_eq!(
            masked(
                "ai.llm-response",
                json!({"id": "m", "value": "Subject: x", "details": "HAM,x", "elapsed": 7})
            ),
            json!({"id": "m", "value": "***", "details": "***", "elapsed": 7})
        );
    }

    #[test]
    fn a_secret_in_an_error_is_masked_wherever_the_error_stands() {
        let data =
            json!({"details": "eyJ0", "id": "YWxpY2U6cHc=", "reason": "Failed to decode token"});
        let without = json!({"details": "***", "id": "***", "reason": "Failed to decode token"});
        for kind in ["auth.error", "auth_error", "Auth.Error", "AUTH-ERROR"] {
            assert_eq!(masked(kind, data.clone()), without, "{kind}");
            let caused = |data: &Value| json!({"causedBy": {"type": kind, "data": data}});
            assert_eq!(
                masked("auth.too-many-attempts", caused(&data)),
                caused(&without),
                "{kind}"
            );
        }
        let listed = |value: &str| {
            json!({"details": "Archive integrity compromised", "result": [
                {"type": "store.data-corruption", "data": {"key": "AP8=", "value": value}}]})
        };
        assert_eq!(masked("server.thread-error", listed("c2Vj")), listed("***"));
    }

    #[test]
    fn the_address_of_a_push_subscription_is_masked() {
        let url = "https://push.example/wpush/v2/gAAAAA";
        assert_eq!(
            masked(
                "push-subscription.error",
                json!({"details": "HTTP POST failed", "url": url, "reason": format!("error sending request for url ({url})"), "code": 410})
            ),
            json!({"details": "HTTP POST failed", "url": "***", "reason": "***", "code": 410})
        );
        assert_eq!(
            masked("push-subscription.success", json!({"url": url})),
            json!({"url": "***"})
        );
    }

    #[test]
    fn text_that_is_no_json_loses_content_too() {
        for (raw, wanted) in [
            (
                r#"{"events":[{"type":"imap.raw-input","data":{"contents":"A LOGIN a \"pw\""#,
                r#"{"events":[{"type":"imap.raw-input","data":{"contents":"***"#,
            ),
            (
                r#"{"events":[{"type":"auth.error","data":{"id":"YWxpY2U6cH"#,
                r#"{"events":[{"type":"auth.error","data":{"id":"***"#,
            ),
            (
                r#"{"events":[{"type":"store.sql-query","data":{"value":["a"],"result":"Ok([\"$argon"#,
                r#"{"events":[{"type":"store.sql-query","data":{"value":"***","result":"***"#,
            ),
        ] {
            let masked = mask_letter(raw.as_bytes());
            assert_eq!(String::from_utf8(masked).unwrap(), wanted, "{raw}");
        }
    }
}
