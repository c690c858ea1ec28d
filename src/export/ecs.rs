//! The Elastic Common Schema: what Elasticsearch, and most that reads security events, expects.
//!
//! Fields that the schema types (`source.ip`) are set only when the value is of that type: one
//! that is not would have its whole document refused.

use std::net::IpAddr;

use bytestring::ByteString;
use serde_json::{Map, Value, json};

use crate::store::StoredEvent;

/// The version whose fields these are.
const VERSION: &str = "8.11.0";

pub(super) fn document(event: &StoredEvent) -> Value {
    let (actor, target) = (&event.actor, &event.target);
    let address = said(&actor.ip).map(|ip| &**ip);
    let ip = address
        .and_then(|ip| ip.parse::<IpAddr>().ok())
        .map(|ip| ip.to_string());

    let mut user = object([
        ("id", &actor.id),
        ("email", &actor.email),
        ("name", &actor.name),
    ]);
    let mut document = json!({
        "@timestamp": event.at,
        "ecs": { "version": VERSION },
        "event": {
            "kind": "event",
            "id": event.id,
            "created": event.ingested_at,
            "ingested": event.ingested_at,
        },
        "labels": {},
        "daybook": { "metadata": event.metadata },
    });
    // Documents of other writers may have none.
    for (group, field, text) in [
        ("event", "action", &event.action),
        ("event", "provider", &event.source),
        ("labels", "source", &event.source),
        ("daybook", "external_id", &event.external_id),
    ] {
        if !text.is_empty() {
            document[group][field] = json!(text);
        }
    }
    if let Some((category, kinds)) = classify(&event.action) {
        document["event"]["category"] = json!([category]);
        document["event"]["type"] = json!(kinds);
    }
    if let Some(outcome) = event.outcome {
        document["event"]["outcome"] = json!(outcome);
    }
    let mut related_users: Vec<&ByteString> = [&actor.id, &actor.email, &actor.name]
        .into_iter()
        .filter_map(said)
        .collect();
    let named = object([("id", &target.id), ("name", &target.name)]);
    match target.kind.as_deref() {
        Some("account" | "user") if !named.is_empty() => {
            related_users.extend([&target.id, &target.name].into_iter().filter_map(said));
            user.insert("target".to_owned(), Value::Object(named));
        }
        Some("group") if !named.is_empty() => document["group"] = Value::Object(named),
        Some("file") => {
            let file = object([("path", &target.name)]);
            if !file.is_empty() {
                document["file"] = Value::Object(file);
            }
        }
        _ => {}
    }
    let target = object([
        ("type", &target.kind),
        ("id", &target.id),
        ("name", &target.name),
    ]);
    if !target.is_empty() {
        document["daybook"]["target"] = Value::Object(target);
    }
    if !user.is_empty() {
        document["user"] = Value::Object(user);
    }
    let mut related = Map::new();
    if let Some(address) = address {
        document["source"] = json!({ "address": address });
    }
    if let Some(ip) = ip {
        document["source"]["ip"] = json!(ip);
        related.insert("ip".to_owned(), json!([ip]));
    }
    related_users.sort();
    related_users.dedup();
    if !related_users.is_empty() {
        related.insert("user".to_owned(), json!(related_users));
    }
    if !related.is_empty() {
        document["related"] = Value::Object(related);
    }
    let tenant = event.tenant_slug.as_deref();
    if let Some(tenant) = tenant.filter(|slug| !slug.is_empty()) {
        document["organization"] = json!({ "id": tenant });
        document["labels"]["tenant"] = json!(tenant);
    }
    document
}

/// A text, unless it is empty.
fn said(text: &Option<ByteString>) -> Option<&ByteString> {
    text.as_ref().filter(|text| !text.is_empty())
}

fn object<const N: usize>(fields: [(&str, &Option<ByteString>); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Value::from(&**said(value)?))))
        .collect()
}

/// Whose actions are `<product>.<subject>_<verb>`.
const PRODUCTS: [&str; 3] = ["authentik", "ocis", "stalwart"];

/// `event.category` and `event.type` by the words of an action; `None` where they do not tell.
fn classify(action: &str) -> Option<(&'static str, Vec<&'static str>)> {
    let known = action
        .split_once('.')
        .filter(|(product, _)| PRODUCTS.contains(product));
    let (product, verb) = known.unwrap_or(("", action));
    let words: Vec<&str> = verb.split(['.', '_']).collect();
    let subject = if product.is_empty() {
        subject_elsewhere(&words)
    } else {
        words.first().copied().unwrap_or_default()
    };
    let last = words.last().copied().unwrap_or_default();
    let category = match subject {
        "auth" if last == "banned" => "intrusion_detection",
        "login" | "logout" | "auth" | "impersonation" => "authentication",
        "user" | "group" | "account" | "password" | "invitation" | "token" | "secret" => "iam",
        "file" => "file",
        "configuration" => "configuration",
        // These mean other things to other services.
        _ if product.is_empty() => return None,
        "suspicious" => "intrusion_detection",
        "container" | "share" | "space" | "public" => "file",
        "mail" | "dmarc" | "dkim" | "spam" | "email" => "email",
        // What a mail server's policy refuses is mail.
        "policy" if product == "stalwart" => "email",
        "policy" => "configuration",
        _ if product == "authentik" && matches!(last, "created" | "updated" | "deleted") => {
            "configuration"
        }
        _ => return None,
    };
    let mut kinds = Vec::new();
    match subject {
        "user" | "account" | "password" => kinds.push("user"),
        "group" => kinds.push("group"),
        _ => {}
    }
    let done = match last {
        // A sign-in that failed was begun.
        "login" | "started" | "success" | "in" | "failed" => "start",
        "logout" | "ended" | "out" => "end",
        "created" | "create" => "creation",
        "deleted" | "delete" => "deletion",
        "banned" => "denied",
        "read" | "accessed" | "viewed" => "access",
        "updated" | "changed" | "written" | "renamed" | "rename" | "restore" | "shared"
        | "unshared" | "added" | "removed" | "add" | "remove" | "set" | "rotated" | "accepted"
        | "declined" | "enabled" | "disabled" => "change",
        _ => "info",
    };
    kinds.push(if expects(category, done) {
        done
    } else {
        "info"
    });
    Some((category, kinds))
}

/// What the action of any other service is about: whatever stands before it, `<subject>_<verb>` or
/// `<subject>.<verb>` is its end.
fn subject_elsewhere<'a>(words: &[&'a str]) -> &'a str {
    match *words {
        [.., subject @ ("login" | "logout")] => subject,
        [.., "sign" | "signed" | "log" | "logged", "in" | "out"]
        | [.., "sign" | "log", "in", "failed"] => "login",
        [.., subject, _] => subject,
        _ => "",
    }
}

/// Whether the schema expects this type of a category. `info` it expects of each that stands here.
fn expects(category: &str, kind: &str) -> bool {
    match category {
        "authentication" => matches!(kind, "start" | "end"),
        "iam" => matches!(kind, "change" | "creation" | "deletion"),
        "file" | "configuration" => {
            matches!(kind, "access" | "change" | "creation" | "deletion")
        }
        "intrusion_detection" => kind == "denied",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Actor, Target};
    use crate::sources::{authentik, ocis, stalwart};

    #[test]
    fn an_empty_text_is_no_field() {
        let empty = || Some(ByteString::new());
        let payload = json!({ "said": "" });
        let document = document(&StoredEvent {
            id: "1".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            ingested_at: Timestamp::UNIX_EPOCH,
            source: String::new(),
            external_id: String::new(),
            action: String::new(),
            outcome: None,
            actor: Actor {
                id: empty(),
                email: empty(),
                name: empty(),
                ip: empty(),
            },
            target: Target {
                kind: empty(),
                id: empty(),
                name: empty(),
            },
            tenant_slug: Some(String::new()),
            metadata: payload.as_object().cloned().unwrap_or_default(),
        });
        assert_eq!(document["daybook"], json!({ "metadata": payload }));
        assert_eq!(document["labels"], json!({}));
        assert_eq!(document["event"]["action"], Value::Null);
        assert_eq!(document["event"]["provider"], Value::Null);
        for part in ["user", "source", "related", "organization"] {
            assert_eq!(document[part], Value::Null, "{part}");
        }
    }

    #[test]
    fn words_tell_category_and_type_where_it_is_clear_what_they_mean() {
        for (action, wanted) in [
            ("user.created", "iam: user creation"),
            ("user.group_added", "iam: group change"),
            ("file.deleted", "file: deletion"),
            ("billing.file_read", "file: access"),
            ("user.login", "authentication: start"),
            ("team.user_login", "authentication: start"),
            ("team.user.logged_in", "authentication: start"),
            ("user.login_failed", "authentication: start"),
            ("invoice.created", ""),
            ("user.invoice_deleted", ""),
            ("public.sale_created", ""),
            ("contract.signed", ""),
            ("odd", ""),
            ("", ""),
            ("daybook.signed_in", "authentication: start"),
            ("daybook.sign_in_failed", "authentication: start"),
            ("daybook.signed_out", "authentication: end"),
            ("daybook.token_created", "iam: creation"),
            ("daybook.exported", ""),
            ("authentik.login_failed", "authentication: start"),
            ("authentik.secret_viewed", "iam: info"),
            ("authentik.application_created", "configuration: creation"),
            ("ocis.link_created", ""),
            ("ocis.file_delete", "file: deletion"),
            ("stalwart.auth_banned", "intrusion_detection: denied"),
            ("stalwart.policy_rejection", "email: info"),
        ] {
            let found = classify(action)
                .map(|(category, kinds)| format!("{category}: {}", kinds.join(" ")));
            assert_eq!(found.unwrap_or_default(), wanted, "{action}");
        }
    }

    /// The types that the reference of the schema names for a category.
    const EXPECTED: &[(&str, &[&str])] = &[
        ("authentication", &["start", "end", "info"]),
        (
            "configuration",
            &["access", "change", "creation", "deletion", "info"],
        ),
        ("email", &["info"]),
        (
            "file",
            &["access", "change", "creation", "deletion", "info"],
        ),
        (
            "iam",
            &[
                "admin", "change", "creation", "deletion", "group", "info", "user",
            ],
        ),
        ("intrusion_detection", &["allowed", "denied", "info"]),
    ];

    fn first_column(table: &str) -> impl Iterator<Item = &str> {
        table
            .lines()
            .skip(1)
            .filter_map(|line| line.split('\t').next())
    }

    fn known_actions() -> Vec<String> {
        let mut actions = Vec::new();
        for model in ["user", "group", "token", "application", "file", "policy"] {
            let model = json!({ "model": { "model_name": model } });
            let context = model.as_object().cloned().unwrap_or_default();
            let table = include_str!("../../tests/data/authentik/actions.tsv");
            actions.extend(first_column(table).map(|raw| authentik::verbs::verb(raw, &context).0));
        }
        let table = include_str!("../../tests/data/stalwart/event_types.tsv");
        actions.extend(
            first_column(table).map(|kind| stalwart::verbs::verb(kind, &Map::new()).action),
        );
        let verbs = ocis::verbs::MUTATIONS.iter().chain(ocis::verbs::READS);
        actions.extend(verbs.map(|verb| format!("ocis.{verb}")));
        actions
    }

    #[test]
    fn every_type_is_one_that_its_category_expects() {
        let actions = known_actions();
        assert!(actions.len() > 600, "{}", actions.len());
        let mut met = std::collections::BTreeSet::new();
        for action in actions {
            let Some((category, kinds)) = classify(&action) else {
                continue;
            };
            let expected = EXPECTED.iter().find(|(name, _)| *name == category);
            for kind in kinds {
                assert!(
                    expected.is_some_and(|(_, expected)| expected.contains(&kind)),
                    "{action}: {category} {kind}"
                );
            }
            met.insert(category);
        }
        assert_eq!(met.len(), EXPECTED.len(), "{met:?}");
    }
}
