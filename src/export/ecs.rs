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
    let (category, kinds) = classify(event);
    let (actor, target) = (&event.actor, &event.target);
    let address = actor.ip.as_deref();
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
            "action": event.action,
            "provider": event.source,
            "created": event.ingested_at,
            "ingested": event.ingested_at,
        },
        "labels": { "source": event.source },
        "daybook": {
            "external_id": event.external_id,
            "metadata": event.metadata,
        },
    });
    if !category.is_empty() {
        document["event"]["category"] = json!(category);
        document["event"]["type"] = json!(kinds);
    }
    if let Some(outcome) = event.outcome {
        document["event"]["outcome"] = json!(outcome);
    }
    let mut related_users: Vec<&ByteString> = [&actor.id, &actor.email, &actor.name]
        .into_iter()
        .flatten()
        .collect();
    let named = object([("id", &target.id), ("name", &target.name)]);
    match target.kind.as_deref() {
        Some("account" | "user") if !named.is_empty() => {
            related_users.extend([&target.id, &target.name].into_iter().flatten());
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
    if !target.is_empty() {
        document["daybook"]["target"] = json!(target);
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
    if let Some(tenant) = &event.tenant_slug {
        document["organization"] = json!({ "id": tenant });
        document["labels"]["tenant"] = json!(tenant);
    }
    document
}

fn object<const N: usize>(fields: [(&str, &Option<ByteString>); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Value::from(&**value.as_ref()?))))
        .collect()
}

/// `event.category` and `event.type` by the words of the verb; both empty where they do not tell.
fn classify(event: &StoredEvent) -> (Vec<&'static str>, Vec<&'static str>) {
    let verb = event
        .action
        .split_once('.')
        .map_or(event.action.as_str(), |(_, verb)| verb);
    let mut words = verb.split('_');
    let subject = words.next().unwrap_or_default();
    let last = verb.rsplit('_').next().unwrap_or_default();
    let category = match subject {
        _ if verb.starts_with("auth_banned") => vec!["authentication", "intrusion_detection"],
        "login" | "logout" | "auth" | "impersonation" => vec!["authentication"],
        "suspicious" => vec!["intrusion_detection"],
        "file" | "container" | "share" | "space" | "public" => vec!["file"],
        "user" | "group" | "account" | "password" | "invitation" | "token" | "secret" => {
            vec!["iam"]
        }
        "mail" | "dmarc" | "dkim" | "spam" | "email" => vec!["email"],
        // What a mail server's policy refuses is mail.
        "policy" if event.action.starts_with("stalwart.") => vec!["email"],
        "policy" | "configuration" => vec!["configuration"],
        _ if matches!(last, "created" | "updated" | "deleted") => vec!["configuration"],
        _ => return (Vec::new(), Vec::new()),
    };
    let mut kinds = Vec::new();
    match subject {
        "user" | "account" | "password" => kinds.push("user"),
        "group" => kinds.push("group"),
        _ => {}
    }
    kinds.push(match last {
        "login" | "started" | "success" => "start",
        "logout" | "ended" => "end",
        "created" | "create" | "queued" => "creation",
        "deleted" | "delete" => "deletion",
        "banned" => "denied",
        // Identities have no such type.
        "read" | "accessed" | "viewed" if category != ["iam"] => "access",
        "updated" | "changed" | "written" | "renamed" | "rename" | "restore" | "shared"
        | "unshared" | "added" | "removed" | "add" | "remove" | "set" | "rotated" | "accepted"
        | "declined" | "enabled" | "disabled" => "change",
        _ => "info",
    });
    (category, kinds)
}
