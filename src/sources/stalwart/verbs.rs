//! Which of Stalwart's event types stand behind which verb, under the names of 0.15 and of 0.16.
//!
//! Some types only mean what their name says when a value of their data agrees; those look at it.
//! Everything else falls through under its own name.

use serde_json::{Map, Value};

use crate::event::Outcome;
use crate::sources::text::lower_snake;

/// What an event says was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verb<'a> {
    /// The type, as Stalwart spells it where it is one of those that always mean the same.
    pub kind: &'a str,
    /// `stalwart.<verb>`.
    pub action: String,
    /// How it ended, where the type tells.
    pub outcome: Option<Outcome>,
    /// Whether the type only hints at the verb: it tells the caller, but no target and no success.
    pub is_proxy: bool,
}

/// Types that always mean the same. Sorted by verb, as in `docs/sources.md`.
pub(super) const PLAIN: &[(&str, &str)] = &[
    ("auth.failed", "auth_failed"),
    ("auth.too-many-attempts", "auth_failed"),
    ("auth.mfa-required", "auth_failed"),
    ("auth.missing-totp", "auth_failed"),
    ("auth.token-expired", "auth_failed"),
    ("auth.credential-expired", "auth_failed"),
    ("auth.error", "auth_failed"),
    ("security.ip-unauthorized", "auth_failed"),
    ("auth.success", "auth_success"),
    ("security.authentication-ban", "auth_banned"),
    ("security.scan-ban", "auth_banned"),
    ("security.abuse-ban", "auth_banned"),
    ("security.loiter-ban", "auth_banned"),
    ("account.created", "account_created"),
    ("account.deleted", "account_deleted"),
    ("account.password-changed", "password_changed"),
    ("auth.password-changed", "password_changed"),
    ("password.changed", "password_changed"),
    ("queue.message-queued", "mail_received"),
    ("queue.queue-message", "mail_received"),
    ("message-ingest.ham", "mail_received"),
    ("delivery.dsn-success", "mail_delivered"),
    ("delivery.dsn-perm-fail", "mail_failed"),
    ("delivery.failed", "mail_failed"),
    ("delivery.double-bounce", "mail_failed"),
    ("message-ingest.error", "mail_failed"),
    ("smtp.mailbox-does-not-exist", "mail_rejected"),
    ("smtp.message-too-large", "mail_rejected"),
    ("smtp.loop-detected", "mail_rejected"),
    ("smtp.message-parse-failed", "mail_rejected"),
    ("smtp.relay-not-allowed", "policy_rejection"),
    ("smtp.mail-from-unauthorized", "policy_rejection"),
    ("smtp.rate-limit-exceeded", "policy_rejection"),
    ("smtp.rcpt-to-greylisted", "policy_rejection"),
    ("milter.action-reject", "policy_rejection"),
    ("milter.action-discard", "policy_rejection"),
    ("mta-hook.action-reject", "policy_rejection"),
    ("mta-hook.action-discard", "policy_rejection"),
    ("sieve.action-reject", "policy_rejection"),
    ("sieve.action-discard", "policy_rejection"),
    ("security.unauthorized", "policy_rejection"),
    ("jmap.forbidden", "policy_rejection"),
    ("queue.quota-exceeded", "policy_rejection"),
    ("smtp.dmarc-fail", "dmarc_failure"),
    ("message-ingest.spam", "spam_detected"),
];

/// Calls of the management interface that stand for a change: the only trace that 0.16 leaves of one.
const PROXIES: &[(&str, &str)] = &[
    ("x:Account/set", "account_changed"),
    ("x:AccountPassword/set", "password_changed"),
    ("x:AppPassword/set", "password_changed"),
];

/// The verb of an event.
pub fn verb<'a>(kind: &'a str, data: &Map<String, Value>) -> Verb<'a> {
    if kind == "jmap.method-call"
        && let Some(id) = data.get("id").and_then(Value::as_str)
        && let Some((_, verb)) = PROXIES.iter().find(|(method, _)| *method == id)
    {
        return Verb {
            kind,
            action: format!("stalwart.{verb}"),
            outcome: Some(Outcome::Unknown),
            is_proxy: true,
        };
    }
    let snake = lower_snake(kind);
    let plain = PLAIN.iter().find(|(known, _)| is_spelled(known, &snake));
    let kind = plain.map_or(kind, |(known, _)| *known);
    let verb = plain
        .map(|(_, verb)| *verb)
        .or_else(|| told_by_data(kind, data));
    match verb {
        Some(verb) => Verb {
            kind,
            action: format!("stalwart.{verb}"),
            outcome: Some(outcome(verb, kind, data)),
            is_proxy: false,
        },
        None => Verb {
            kind,
            action: format!("stalwart.{snake}"),
            outcome: outcome_by_name(kind).filter(|_| !has_nothing_to_check(kind, data)),
            is_proxy: false,
        },
    }
}

/// Whether a type is this one in lower snake case, as others than Stalwart may write it.
fn is_spelled(kind: &str, snake: &str) -> bool {
    let folded = kind.bytes().map(|byte| match byte {
        b'.' | b'-' => b'_',
        byte => byte,
    });
    folded.eq(snake.bytes())
}

/// Types whose name alone does not decide.
fn told_by_data(kind: &str, data: &Map<String, Value>) -> Option<&'static str> {
    match kind {
        // A 4xx answer is a delay: the message stays in the queue.
        "delivery.rcpt-to-rejected"
        | "delivery.mail-from-rejected"
        | "delivery.message-rejected" => (!is_temporary(data)).then_some("mail_rejected"),
        // Written for unsigned mail too, with an empty result.
        "smtp.dkim-fail" => has_content(data.get("result")).then_some("dkim_failure"),
        "spam.classify" => matches!(
            data.get("result").and_then(Value::as_str),
            Some("reject" | "discard")
        )
        .then_some("spam_detected"),
        _ => None,
    }
}

/// Whether the remote server's answer was a temporary one.
fn is_temporary(data: &Map<String, Value>) -> bool {
    let nested = || data.get("causedBy")?.get("data")?.get("code");
    let code = data.get("code").or_else(nested);
    let code = match code {
        Some(Value::Number(code)) => code.to_string(),
        Some(Value::String(code)) => code.clone(),
        _ => return false,
    };
    code.len() == 3 && code.starts_with('4')
}

fn has_content(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    }
}

/// Whether a check of the sender found nothing to check: mail without a signature, a domain without a policy. Its type
/// says that it failed.
fn has_nothing_to_check(kind: &str, data: &Map<String, Value>) -> bool {
    if !kind.starts_with("smtp.") {
        return false;
    }
    match data.get("result") {
        Some(Value::Array(results)) => results.is_empty(),
        Some(Value::Object(result)) => {
            let kind = result.get("type").and_then(Value::as_str);
            kind.is_some_and(|kind| kind.ends_with(".none"))
        }
        _ => false,
    }
}

fn outcome(verb: &str, kind: &str, data: &Map<String, Value>) -> Outcome {
    match verb {
        "auth_success" | "mail_received" | "mail_delivered" | "account_created"
        | "account_deleted" | "password_changed" => Outcome::Success,
        // Without a policy that asks for more, the message went on.
        "dmarc_failure" if data.get("policy").and_then(Value::as_str) == Some("none") => {
            Outcome::Unknown
        }
        // Filed as spam, but filed.
        "spam_detected" if kind == "message-ingest.spam" => Outcome::Success,
        _ => Outcome::Failure,
    }
}

/// What the name of a type that has no verb tells of its end.
fn outcome_by_name(kind: &str) -> Option<Outcome> {
    const FAILURES: &[&str] = &[
        "fail",
        "failed",
        "error",
        "rejected",
        "reject",
        "blocked",
        "unauthorized",
        "forbidden",
        "exceeded",
        "denied",
        "failure",
        "ban",
    ];
    let last_word = kind.rsplit(['-', '.']).next().unwrap_or(kind);
    FAILURES.contains(&last_word).then_some(Outcome::Failure)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn action(kind: &str, data: Value) -> String {
        verb(kind, data.as_object().unwrap()).action
    }

    #[test]
    fn plain_types_have_their_verb() {
        for (kind, wanted) in PLAIN {
            for spelled in [(*kind).to_owned(), kind.replace(['.', '-'], "_")] {
                let found = verb(&spelled, &Map::new());
                assert_eq!(found.kind, *kind, "{spelled}");
                assert_eq!(found.action, format!("stalwart.{wanted}"), "{spelled}");
                let outcome = verb(kind, &Map::new()).outcome;
                assert_eq!(found.outcome, outcome, "{spelled}");
            }
        }
        for kind in ["account_created", "account-deleted", "password_changed"] {
            let found = verb(kind, &Map::new());
            assert_eq!(found.action, format!("stalwart.{}", lower_snake(kind)));
            assert_eq!(found.outcome, Some(Outcome::Success), "{kind}");
        }
    }

    #[test]
    fn nothing_to_check_is_no_failure() {
        for (kind, data, wanted) in [
            ("smtp.dkim-fail", json!({"result": []}), None),
            (
                "smtp.spf-ehlo-fail",
                json!({"result": {"type": "spf.none", "data": {}}}),
                None,
            ),
            (
                "smtp.spf-ehlo-fail",
                json!({"result": {"type": "spf.soft-fail", "data": {}}}),
                Some(Outcome::Failure),
            ),
            ("smtp.spf-from-fail", json!({}), Some(Outcome::Failure)),
            ("store.error", json!({"result": []}), Some(Outcome::Failure)),
        ] {
            let found = verb(kind, data.as_object().unwrap());
            assert_eq!(found.outcome, wanted, "{kind} {data}");
        }
    }

    #[test]
    fn data_decides_where_the_name_does_not() {
        for (kind, data, wanted) in [
            ("smtp.dkim-fail", json!({"result": []}), "smtp_dkim_fail"),
            (
                "smtp.dkim-fail",
                json!({"result": [{"type": "dkim.neutral"}]}),
                "dkim_failure",
            ),
            (
                "smtp.dmarc-fail",
                json!({"policy": "reject", "result": {"type": "dmarc.none"}}),
                "dmarc_failure",
            ),
            (
                "spam.classify",
                json!({"result": "reject"}),
                "spam_detected",
            ),
            (
                "spam.classify",
                json!({"result": "discard"}),
                "spam_detected",
            ),
            (
                "spam.classify",
                json!({"result": [["a@b", 0.9]]}),
                "spam_classify",
            ),
            (
                "delivery.rcpt-to-rejected",
                json!({"code": 550}),
                "mail_rejected",
            ),
            (
                "delivery.rcpt-to-rejected",
                json!({"code": 451}),
                "delivery_rcpt_to_rejected",
            ),
            (
                "delivery.mail-from-rejected",
                json!({"causedBy": {"data": {"code": 450}}}),
                "delivery_mail_from_rejected",
            ),
            (
                "delivery.mail-from-rejected",
                json!({"causedBy": "x"}),
                "mail_rejected",
            ),
            (
                "jmap.method-call",
                json!({"id": "x:Account/set"}),
                "account_changed",
            ),
            (
                "jmap.method-call",
                json!({"id": "x:AppPassword/set"}),
                "password_changed",
            ),
            (
                "jmap.method-call",
                json!({"id": "Email/get"}),
                "jmap_method_call",
            ),
        ] {
            assert_eq!(
                action(kind, data.clone()),
                format!("stalwart.{wanted}"),
                "{kind} {data}"
            );
        }
    }

    #[test]
    fn the_rest_falls_through_under_its_name() {
        assert_eq!(
            action("delivery.delivered", json!({})),
            "stalwart.delivery_delivered"
        );
        assert_eq!(
            action("security.ip-blocked", json!({})),
            "stalwart.security_ip_blocked"
        );
        assert_eq!(
            action("dkim2.brand-new", json!({})),
            "stalwart.dkim2_brand_new"
        );
        assert_eq!(
            verb("security.ip-blocked", &Map::new()).outcome,
            Some(Outcome::Failure)
        );
        assert_eq!(verb("imap.logout", &Map::new()).outcome, None);
    }

    #[test]
    fn proxies_say_that_they_are() {
        let data = json!({"id": "x:AccountPassword/set"});
        let verb = verb("jmap.method-call", data.as_object().unwrap());
        assert!(verb.is_proxy);
        assert_eq!(verb.outcome, Some(Outcome::Unknown));
    }
}
