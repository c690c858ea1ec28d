//! Authentik's actions and their verbs.
//!
//! The set is open: custom actions have names of their own, and versions add some. What has no
//! verb falls through under its own name.

use serde_json::{Map, Value};

use crate::event::Outcome;
use crate::sources::text::{lower_snake, text};

/// Actions with a verb of their own, and how they end; `None` where it does not end at all.
const VERBS: &[(&str, &str, Option<Outcome>)] = &[
    ("login", "login", SUCCESS),
    ("login_failed", "login_failed", FAILURE),
    ("logout", "logout", SUCCESS),
    ("user_write", "user_written", SUCCESS),
    ("suspicious_request", "suspicious_request_detected", FAILURE),
    ("password_set", "password_changed", SUCCESS),
    ("secret_view", "secret_viewed", SUCCESS),
    ("token_view", "secret_viewed", SUCCESS),
    ("secret_rotate", "secret_rotated", SUCCESS),
    ("invitation_created", "invitation_created", SUCCESS),
    ("invitation_used", "invitation_used", SUCCESS),
    ("authorize_application", "application_authorized", SUCCESS),
    ("source_linked", "source_linked", SUCCESS),
    ("impersonation_started", "impersonation_started", SUCCESS),
    ("impersonation_ended", "impersonation_ended", SUCCESS),
    ("flow_execution", "flow_executed", SUCCESS),
    ("policy_execution", "policy_executed", None),
    ("policy_exception", "policy_failed", FAILURE),
    (
        "property_mapping_exception",
        "property_mapping_failed",
        FAILURE,
    ),
    ("system_task_execution", "system_task_executed", SUCCESS),
    ("system_task_exception", "system_task_failed", FAILURE),
    ("system_exception", "system_failed", FAILURE),
    (
        "configuration_error",
        "configuration_error_detected",
        FAILURE,
    ),
    (
        "configuration_warning",
        "configuration_warning_detected",
        None,
    ),
    ("email_sent", "email_sent", SUCCESS),
    ("update_available", "update_announced", None),
    ("export_ready", "export_completed", SUCCESS),
    ("review_initiated", "review_initiated", None),
    ("review_overdue", "review_became_overdue", None),
    ("review_attested", "review_attested", SUCCESS),
    ("review_completed", "review_completed", SUCCESS),
    (
        "user_lockdown_triggered",
        "user_lockdown_triggered",
        SUCCESS,
    ),
];

const SUCCESS: Option<Outcome> = Some(Outcome::Success);
const FAILURE: Option<Outcome> = Some(Outcome::Failure);

/// `model_created` and its like become what they are about: `user_created`.
const MODEL_VERBS: &[(&str, &str)] = &[
    ("model_created", "created"),
    ("model_updated", "updated"),
    ("model_deleted", "deleted"),
];

/// The verb of an event and how it ended.
pub fn verb(raw_action: &str, context: &Map<String, Value>) -> (String, Option<Outcome>) {
    if let Some((_, verb)) = MODEL_VERBS.iter().find(|(known, _)| *known == raw_action) {
        let model = context.get("model").and_then(Value::as_object);
        let name = model
            .and_then(|model| text(model, "model_name"))
            .map_or_else(|| "model".to_owned(), lower_snake);
        return (format!("authentik.{name}_{verb}"), SUCCESS);
    }
    if let Some((_, verb, outcome)) = VERBS.iter().find(|(known, ..)| *known == raw_action) {
        let outcome = match raw_action {
            "policy_execution" => passing(context),
            _ => *outcome,
        };
        return (format!("authentik.{verb}"), outcome);
    }
    if raw_action.is_empty() {
        return ("authentik.unknown".to_owned(), None);
    }
    (format!("authentik.{}", lower_snake(raw_action)), None)
}

/// Whether the policy let the request pass.
fn passing(context: &Map<String, Value>) -> Option<Outcome> {
    match context.get("result")?.get("passing")? {
        Value::Bool(true) => SUCCESS,
        Value::Bool(false) => FAILURE,
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(action: &str, context: Value) -> (String, Option<Outcome>) {
        verb(action, context.as_object().unwrap())
    }

    #[test]
    fn models_become_what_they_are_about() {
        for (model, wanted) in [
            (json!({"model_name": "user"}), "user_deleted"),
            (
                json!({"model_name": "oauth2provider"}),
                "oauth2provider_deleted",
            ),
            (json!({"model_name": "File"}), "file_deleted"),
            (json!({"model_name": ""}), "model_deleted"),
            (json!(null), "model_deleted"),
        ] {
            assert_eq!(
                of("model_deleted", json!({ "model": model })).0,
                format!("authentik.{wanted}")
            );
        }
    }

    #[test]
    fn what_is_unknown_keeps_its_name() {
        for (action, wanted) in [
            ("custom_", "custom_"),
            (
                "custom_static_authenticator_disable",
                "custom_static_authenticator_disable",
            ),
            ("brand-new thing", "brand_new_thing"),
            ("", "unknown"),
        ] {
            assert_eq!(of(action, json!({})), (format!("authentik.{wanted}"), None));
        }
    }

    #[test]
    fn a_policy_ends_as_it_decides() {
        assert_eq!(
            of("policy_execution", json!({"result": {"passing": false}})).1,
            FAILURE
        );
        assert_eq!(
            of("policy_execution", json!({"result": {"passing": true}})).1,
            SUCCESS
        );
        assert_eq!(of("policy_execution", json!({})).1, None);
    }
}
