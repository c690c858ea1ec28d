//! Which parts of an Authentik event are secrets.
//!
//! Authentik masks most of them itself. What it lets through: the arguments of a request (an
//! authorization code, an invitation's token), the old and new value of a secret field in a diff, the
//! same field of what was deleted, the text of mail it sent (which holds the links that reset a
//! password), query strings, passwords in addresses, the key of a recovery link or of an invitation
//! (which is its token), and the variables of the functions in which an exception was raised.

use serde_json::{Map, Value};

use super::parts::INVITATION;
use crate::event::letter;
use crate::event::mask::{self, SECRET_KEYS};
use crate::event::prose::mask_addresses;
use crate::sources::text::text;

/// Secrets as arguments of a request and as parameters in a URL, besides the common list.
const ARGUMENT_KEYS: &[&str] = &[
    "code",
    "key",
    "assertion",
    "id_token_hint",
    "login_hint_token",
];

/// Secrets as fields of a changed or deleted model, besides the common list.
const FIELD_KEYS: &[&str] = &[
    "key",
    "*key_data",
    "*keytab",
    "kubeconfig",
    "seed",
    "config_secret",
    "bind_password",
    "auth",
    // A whole blueprint, with the secrets of what it makes.
    "content",
    // Whoever knows it may send.
    "webhook_url",
];

/// Where the key of an invitation stands, besides its model's `pk`.
const INVITATION_KEYS: &[&str] = &["invitation_uuid", "invite_uuid"];

/// What stands in a path before a key that signs a user in, or of an invitation.
const BEFORE_KEY: &[&str] = &["/recovery/use-token/", "/stages/invitation/invitations/"];

/// Masks the event's object; `action` is the raw one.
pub(super) fn mask_event(event: &mut Map<String, Value>, action: &str) {
    let arguments = with_common(ARGUMENT_KEYS);
    let claims = claims_of(event).cloned();
    if let Some(Value::Object(context)) = event.get_mut("context") {
        if action == "email_sent"
            && let Some(body) = context.get_mut("body")
        {
            mask::mask_leaves(body);
        }
        for part in ["diff", "model_state"] {
            if let Some(fields) = context.get_mut(part) {
                mask::mask_value(fields, &with_common(FIELD_KEYS));
            }
        }
        if let Some(exception) = context.get_mut("exception") {
            mask_variables(exception);
        }
        mask_arguments(context, &arguments);
    }
    for (key, value) in event.iter_mut() {
        if mask::is_secret_key(key, SECRET_KEYS) {
            mask::mask_leaves(value);
        } else {
            mask::mask_value(value, SECRET_KEYS);
            mask_queries(value, &arguments);
        }
        mask_invitations(value);
    }
    if let (Some(mut claims), Some(place)) = (claims, claims_of(event)) {
        mask::mask_value(&mut claims, SECRET_KEYS);
        mask_queries(&mut claims, &arguments);
        *place = claims;
    }
}

/// What the token of a federated log-in says: decoded, it is no token any more.
fn claims_of(event: &mut Map<String, Value>) -> Option<&mut Value> {
    let method = event.get_mut("context")?.get_mut("auth_method_args")?;
    method.get_mut("jwt").filter(|jwt| jwt.is_object())
}

/// Masks bytes that are no event.
pub(super) fn mask_letter(raw: &[u8]) -> Vec<u8> {
    let mut keys = with_common(ARGUMENT_KEYS);
    keys.extend(FIELD_KEYS);
    keys.extend(["body", "locals"]);
    keys.extend(INVITATION_KEYS);
    letter::mask_letter(raw, &keys)
}

fn with_common(keys: &[&'static str]) -> Vec<&'static str> {
    SECRET_KEYS.iter().chain(keys).copied().collect()
}

/// Requests stand at several depths: an event's own, and that of a policy's evaluation.
fn mask_arguments(map: &mut Map<String, Value>, keys: &[&str]) {
    for (key, value) in map.iter_mut() {
        if key == "args" {
            mask::mask_value(value, keys);
        }
        if let Value::Object(inner) = value {
            mask_arguments(inner, keys);
        }
    }
}

/// Masks Python's variables, which stand as text in each frame of each exception.
fn mask_variables(exception: &mut Value) {
    match exception {
        Value::Array(items) => items.iter_mut().for_each(mask_variables),
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    value if key != "locals" => mask_variables(value),
                    Value::Object(locals) => locals.values_mut().for_each(mask::mask_leaves),
                    value => mask::mask_leaves(value),
                }
            }
        }
        _ => {}
    }
}

/// Masks the key of each invitation, be it in the model, a diff of it, or what a policy was told of it.
fn mask_invitations(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mask_invitations),
        Value::Object(map) => {
            let is_one = text(map, "model_name") == Some(INVITATION);
            for (key, value) in map.iter_mut() {
                if INVITATION_KEYS.contains(&key.as_str()) || (is_one && key == "pk") {
                    mask::mask_leaves(value);
                } else {
                    mask_invitations(value);
                }
            }
        }
        _ => {}
    }
}

fn mask_key_in_path(text: &str) -> Option<String> {
    let ends = BEFORE_KEY
        .iter()
        .filter_map(|link| Some(text.find(link)? + link.len()));
    let (before, after) = text.split_at(ends.min()?);
    let (key, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
    (!key.is_empty()).then(|| format!("{before}{}{rest}", mask::MASK))
}

fn mask_queries(value: &mut Value, keys: &[&str]) {
    match value {
        Value::String(text) => {
            if let Some(masked) = mask::mask_query(text, keys) {
                *text = masked;
            }
            if let Some(masked) = mask_addresses(text) {
                *text = masked;
            }
            if let Some(masked) = mask_key_in_path(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_queries(item, keys)),
        Value::Object(map) => map.values_mut().for_each(|inner| mask_queries(inner, keys)),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn masked(action: &str, context: Value) -> Value {
        let mut event = Map::from_iter([("context".to_owned(), context)]);
        mask_event(&mut event, action);
        event.remove("context").unwrap()
    }

    #[test]
    fn arguments_and_queries_are_masked() {
        assert_eq!(
            masked(
                "authorize_application",
                json!({
                "http_request": {"path": "/x/?code=1", "args": {"code": "s3", "state": "abc", "itoken": "t", "next": "/?token=abc&a=1"}},
                "geo": {"continent": {"code": "EU"}}})
            ),
            json!({
                "http_request": {"path": "/x/?code=***", "args": {"code": "***", "state": "abc", "itoken": "***", "next": "/?token=***&a=1"}},
                "geo": {"continent": {"code": "EU"}}})
        );
    }

    #[test]
    fn a_key_in_a_path_is_masked() {
        for (path, wanted) in [
            ("/recovery/use-token/abc/", "/recovery/use-token/***/"),
            ("/id/recovery/use-token/abc", "/id/recovery/use-token/***"),
            ("/recovery/use-token/", "/recovery/use-token/"),
            (
                "/api/v3/stages/invitation/invitations/85194b2c-8b40-4b2c/used_by/",
                "/api/v3/stages/invitation/invitations/***/used_by/",
            ),
            (
                "/stages/invitation/invitations/85194b2c?a=1",
                "/stages/invitation/invitations/***?a=1",
            ),
            (
                "/stages/invitation/invitations/?ordering=name",
                "/stages/invitation/invitations/?ordering=name",
            ),
        ] {
            assert_eq!(
                masked("login", json!({"http_request": {"path": path}})),
                json!({"http_request": {"path": wanted}})
            );
        }
    }

    #[test]
    fn the_key_of_an_invitation_is_masked_wherever_it_stands() {
        let context = |key: &str| {
            json!({
                "model": {"pk": key, "app": "authentik_stages_invitation", "name": "may", "model_name": "invitation"},
                "diff": {"invite_uuid": {"previous_value": null, "new_value": key}},
                "request": {"context": {"invitations": [{"pk": key, "model_name": "invitation"}]}},
                "invitation_uuid": key,
                "stage": {"pk": "85194b2c8b404b2c878ac0033949e372", "model_name": "invitationstage"}})
        };
        assert_eq!(
            masked("model_created", context("85194b2c8b404b2c878ac0033949e372")),
            context("***")
        );
    }

    #[test]
    fn the_claims_of_a_federated_log_in_stay() {
        let login = |jwt: Value| masked("login", json!({"auth_method_args": {"jwt": jwt}}));
        let args = |jwt: Value| json!({"auth_method_args": {"jwt": jwt}});
        assert_eq!(
            login(
                json!({"iss": "https://git.example/", "sub": "app", "exp": 7, "api_token": "s3"})
            ),
            args(
                json!({"iss": "https://git.example/", "sub": "app", "exp": 7, "api_token": "***"})
            )
        );
        assert_eq!(login(json!("eyJ0.e30.c2ln")), args(json!("***")));
        assert_eq!(
            masked("login", json!({"jwt": {"sub": "app"}})),
            json!({"jwt": {"sub": "***"}})
        );
    }

    #[test]
    fn an_exception_loses_its_variables_and_nothing_else() {
        let exception = |variable: &str| {
            json!({"message": "boom", "exception": [{
                "exc_type": "KeyError", "exc_value": "'x'", "is_cause": false,
                "frames": [{"filename": "/a.py", "lineno": 12, "name": "get", "locals": {
                    "name": variable, "bind": variable}}],
                "exceptions": [[{"exc_type": "OSError", "frames": [
                    {"lineno": 3, "locals": {"id": variable}}]}]]}]})
        };
        assert_eq!(
            masked("system_exception", exception("{'pw': 'hunter2'}")),
            exception("***")
        );
    }

    #[test]
    fn a_changed_secret_shows_neither_value() {
        assert_eq!(
            masked(
                "model_updated",
                json!({"diff": {
                "key": {"previous_value": "a", "new_value": "b"},
                "client_secret": {"previous_value": "a", "new_value": "b"},
                "spnego_keytab": {"previous_value": "a", "new_value": "b"},
                "kubeconfig": {"previous_value": {}, "new_value": {"users": [{"name": "n", "user": {"client-key-data": "b"}}]}},
                "auth": {"previous_value": "a", "new_value": "b"},
                "webhook_url": {"previous_value": "a", "new_value": "b"},
                "auth_type": {"previous_value": "basic", "new_value": "bearer"},
                "name": {"previous_value": "a", "new_value": "b"}}})
            ),
            json!({"diff": {
                "key": {"previous_value": "***", "new_value": "***"},
                "client_secret": {"previous_value": "***", "new_value": "***"},
                "spnego_keytab": {"previous_value": "***", "new_value": "***"},
                "kubeconfig": {"previous_value": {}, "new_value": {"users": [{"name": "n", "user": {"client-key-data": "***"}}]}},
                "auth": {"previous_value": "***", "new_value": "***"},
                "webhook_url": {"previous_value": "***", "new_value": "***"},
                "auth_type": {"previous_value": "basic", "new_value": "bearer"},
                "name": {"previous_value": "a", "new_value": "b"}}})
        );
    }

    #[test]
    fn what_is_deleted_shows_no_secret_either() {
        assert_eq!(
            masked(
                "model_deleted",
                json!({"model_state": {
                "kubeconfig": {"users": [{"name": "n", "user": {"client-key-data": "b"}}]},
                "webhook_url": "https://hooks.example/b",
                "name": "b"}})
            ),
            json!({"model_state": {
                "kubeconfig": {"users": [{"name": "n", "user": {"client-key-data": "***"}}]},
                "webhook_url": "***",
                "name": "b"}})
        );
    }

    #[test]
    fn a_blueprint_shows_neither_its_content_nor_the_password_in_its_address() {
        let blueprint = |password: &str, content: &str| {
            json!({"diff": {
                "path": {"previous_value": "", "new_value": format!("oci://me:{password}@registry.example/b:latest")},
                "content": {"previous_value": "", "new_value": content},
                "content_type": {"previous_value": 1, "new_value": 2}}})
        };
        assert_eq!(
            masked(
                "model_updated",
                blueprint("hunter2", "client_secret: hunter2")
            ),
            blueprint("***", "***")
        );
        assert_eq!(
            masked(
                "system_exception",
                json!({"message": "cannot connect to redis://:hunter2@cache.example:6379/0"})
            ),
            json!({"message": "cannot connect to redis://:***@cache.example:6379/0"})
        );
    }

    #[test]
    fn mail_loses_its_text() {
        let mail = masked(
            "email_sent",
            json!({"subject": "Reset", "body": "<a href=\"https://id/?x\">"}),
        );
        assert_eq!(mail, json!({"subject": "Reset", "body": "***"}));
    }

    #[test]
    fn the_description_of_a_token_stays() {
        let context =
            json!({"secret": {"pk": "1", "app": "core", "name": "poller", "model_name": "token"}});
        assert_eq!(masked("secret_view", context.clone()), context);
    }
}
