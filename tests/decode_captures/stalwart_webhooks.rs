//! Webhook bodies of Stalwart.

use std::collections::{BTreeMap, BTreeSet};

use daybook::event::{AuditEvent, Decoded, SourceName, TenantHints};
use daybook::sources::stalwart;
use daybook::store::{DirectoryRecords, TenantRecord};
use daybook::tenants::directory::Directory;
use serde_json::{Value, json};

use super::{assert_unaltered, events, files, shown, table};

fn decode(body: &[u8]) -> Vec<Decoded> {
    let source = SourceName::new("stalwart");
    let ctx = stalwart::decode::BodyContext {
        source: &source,
        received_at: "2026-11-24T05:00:00Z".parse().unwrap(),
    };
    stalwart::decode::decode_body(body, &ctx).unwrap().collect()
}

fn bodies() -> Vec<(String, Vec<u8>)> {
    let mut all = files("stalwart/captures");
    all.extend(files("stalwart/derived"));
    all.retain(|(_, body)| !body.is_empty());
    all
}

fn capture(name: &str) -> Vec<(AuditEvent, TenantHints)> {
    events(decode(
        &files("stalwart/captures")
            .into_iter()
            .find(|file| file.0 == name)
            .unwrap()
            .1,
    ))
}

fn ids(name: &str) -> Vec<String> {
    capture(name)
        .into_iter()
        .map(|(event, _)| event.external_id)
        .collect()
}

#[test]
fn every_event_of_every_body_decodes_unaltered() {
    let counts: BTreeMap<String, usize> = table("stalwart/captures/INDEX.tsv")
        .into_iter()
        .map(|row| (row[0].clone(), row[7].parse().unwrap()))
        .collect();
    let bodies = bodies();
    assert_eq!(bodies.len(), 20 + 10);
    for (name, body) in bodies {
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let sent = sent["events"].as_array().unwrap();
        let decoded = events(decode(&body));
        assert_eq!(decoded.len(), sent.len(), "{name}");
        if let Some(count) = counts.get(&name) {
            assert_eq!(decoded.len(), *count, "{name}");
        }
        let keys: BTreeSet<_> = decoded
            .iter()
            .map(|(event, _)| &event.external_id)
            .collect();
        assert_eq!(keys.len(), sent.len(), "{name}");
        for ((event, _), sent) in decoded.iter().zip(sent) {
            assert_unaltered(sent, &event.metadata.clone().into());
        }
    }
}

#[test]
fn retries_of_an_event_have_one_key() {
    assert_eq!(
        ids("v016_retry_1_of_4_same_event_new_id.http"),
        ids("v016_retry_2_of_4_same_event_new_id.http")
    );
    assert_eq!(
        ids("v016_timeout_duplicate_a.http"),
        ids("v016_timeout_duplicate_b.http")
    );
}

#[test]
fn keys_survive_another_way_of_writing_the_same() {
    for (name, body) in bodies() {
        let mut again: Value = serde_json::from_slice(&body).unwrap();
        for event in again["events"].as_array_mut().unwrap() {
            event["id"] = "0".into();
        }
        let again = serde_json::to_vec_pretty(&again).unwrap();
        let keys = |body: &[u8]| -> Vec<String> {
            let events = events(decode(body));
            events
                .into_iter()
                .map(|(event, _)| event.external_id)
                .collect()
        };
        assert_eq!(keys(&body), keys(&again), "{name}");
    }
}

#[test]
fn log_ins_that_share_an_id_stay_apart() {
    let failed: BTreeSet<String> = capture("v015_same_second_id_collisions.http")
        .into_iter()
        .filter(|(event, _)| event.action == "stalwart.auth_failed")
        .map(|(event, _)| event.external_id)
        .collect();
    assert_eq!(failed.len(), 7);
}

#[test]
fn the_verbs_of_the_captures_are_these() {
    let mut verbs: BTreeMap<String, usize> = BTreeMap::new();
    for (name, body) in bodies() {
        if name.contains("all_events") {
            continue;
        }
        for (event, _) in events(decode(&body)) {
            *verbs.entry(event.action.to_string()).or_default() += 1;
        }
    }
    let count = |verb: &str| verbs.get(&format!("stalwart.{verb}")).copied().unwrap_or(0);
    for (verb, at_least) in [
        ("auth_failed", 20),
        ("auth_success", 15),
        ("auth_banned", 1),
        ("password_changed", 1),
        ("mail_received", 5),
        ("mail_delivered", 10),
        ("mail_failed", 2),
        ("mail_rejected", 2),
        ("policy_rejection", 2),
        ("dkim_failure", 2),
        ("dmarc_failure", 3),
        ("spam_detected", 2),
        ("smtp_dkim_fail", 2),
        ("auth_failure", 1),
        ("message_rejected", 1),
        ("dkim2_brand_new", 1),
    ] {
        assert!(
            count(verb) >= at_least,
            "{verb}: {} in {verbs:#?}",
            count(verb)
        );
    }
}

/// A directory of tenants that are called like their mail's domain.
fn directory(domains: &[&str]) -> Directory {
    let tenants = domains.iter().map(|domain| TenantRecord {
        id: (*domain).to_owned(),
        slug: (*domain).to_owned(),
        domains: vec![(*domain).to_owned()],
        ..TenantRecord::default()
    });
    let records = DirectoryRecords {
        tenants: tenants.collect(),
        ..DirectoryRecords::default()
    };
    Directory::new(records, &[])
}

#[test]
fn mail_to_two_tenants_stands_on_neithers_timeline() {
    let directory = directory(&["acme.example", "globex.example"]);
    let (_, body) = bodies()
        .into_iter()
        .find(|file| file.0 == "v015_same_second_id_collisions.http")
        .unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let mut kinds = BTreeSet::new();
    for event in sent["events"].as_array().unwrap() {
        let kind = event["type"].as_str().unwrap();
        if !["message-ingest.ham", "queue.queue-message"].contains(&kind) {
            continue;
        }
        kinds.insert(kind);
        for (to, wanted) in [
            (json!(["a@acme.example"]), Some("acme.example")),
            (
                json!(["x@outside.example", "a@acme.example"]),
                Some("acme.example"),
            ),
            (json!(["a@acme.example", "c@globex.example"]), None),
            (json!(["c@globex.example", "a@acme.example"]), None),
        ] {
            let mut event = event.clone();
            event["data"]["to"] = to;
            let body = json!({ "events": [event] }).to_string();
            let (event, hints) = events(decode(body.as_bytes())).remove(0);
            assert_eq!(directory.find(&hints).as_deref(), wanted, "{event:?}");
        }
    }
    assert_eq!(kinds.len(), 2);
}

#[test]
fn one_recipients_delivery_that_names_them_all_is_the_senders_alone() {
    let (_, body) = bodies()
        .into_iter()
        .find(|file| file.0 == "to_is_array_on_delivered_pre_0_11_7.http")
        .unwrap();
    let find = |body: &[u8], domains: &[&str]| {
        let (_, hints) = events(decode(body)).remove(0);
        directory(domains).find(&hints)
    };
    let [sender, recipients] = ["example.org", "example.com"];
    assert_eq!(find(&body, &[sender]).as_deref(), Some(sender));
    assert_eq!(find(&body, &[sender, recipients]), None);

    // What is about all of them is theirs, whoever claims to have sent it.
    let mut sent: Value = serde_json::from_slice(&body).unwrap();
    sent["events"][0]["type"] = "delivery.connect".into();
    let body = sent.to_string().into_bytes();
    assert_eq!(find(&body, &[sender]).as_deref(), Some(sender));
    let found = find(&body, &[sender, recipients]);
    assert_eq!(found.as_deref(), Some(recipients));
}

#[test]
fn mail_that_goes_out_is_its_senders_until_it_has_gone() {
    let mut waiting = 0;
    for (event, hints) in capture("v016_submission_local_remote_bounce.http") {
        if event.metadata["data"]["queueName"] == "remote" {
            // The notice that it failed bears the queue's name too, and goes to the sender.
            assert_eq!(hints.domains, ["example.org"], "{event:?}");
            waiting += usize::from(event.metadata["type"] == "queue.rescheduled");
        }
    }
    assert_eq!(waiting, 1);
}

#[test]
fn who_claims_anothers_address_is_not_its_owner() {
    let (event, hints) = capture("v016_submission_local_remote_bounce.http")
        .into_iter()
        .find(|(event, _)| event.metadata["type"] == "smtp.mail-from-unauthorized")
        .unwrap();
    assert_eq!(event.actor.email.as_deref(), Some("alice@example.org"));
    assert_eq!(event.actor.ip.as_deref(), Some("198.51.100.7"));
    assert_eq!(event.target.kind.as_deref(), Some("account"));
    assert_eq!(event.target.name.as_deref(), Some("bob@example.org"));
    assert_eq!(hints.domains, ["example.org"]);
}

#[test]
fn hostile_names_stay_as_they_are() {
    let names: Vec<_> = capture("v016_odd_username_nul_byte.http")
        .into_iter()
        .filter_map(|(event, _)| event.actor.name.or(event.actor.email))
        .collect();
    assert!(names.iter().any(|name| name.contains('\0')), "{names:?}");
}

#[test]
fn numbers_keep_every_digit() {
    let body = files("stalwart/derived")
        .into_iter()
        .find(|file| file.0 == "u64_above_2pow53.http")
        .unwrap()
        .1;
    let decoded = events(decode(&body));
    assert_eq!(
        decoded[0].0.metadata["data"]["spanId"].to_string(),
        "18446744073709551615"
    );
}

#[test]
fn every_type_that_carries_content_is_masked() {
    let sensitive: BTreeSet<String> = table("stalwart/event_types.tsv")
        .into_iter()
        .filter(|row| row[3] == "sensitive")
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(sensitive.len(), 14);
    let of_directory_or_model = ["ai.llm-response", "store.ldap-query", "store.sql-query"];
    let sensitive = sensitive.iter().map(String::as_str);
    for kind in sensitive.chain(of_directory_or_model) {
        let body = format!(
            r#"{{"events":[{{"type":"{kind}","createdAt":"2026-11-24T04:00:00Z","data":{{"contents":"hunter2","details":["hunter2"],"value":"hunter2","result":[["a","hunter2"]],"new":{{"k":"hunter2"}},"size":7}}}}]}}"#
        );
        let decoded = decode(body.as_bytes());
        assert!(!shown(&decoded[0]).contains("hunter2"), "{kind}");
        assert_eq!(events(decoded)[0].0.metadata["data"]["size"], 7);
    }
}

#[test]
fn no_content_that_went_over_the_wire_appears_in_what_comes_of_it() {
    let (_, body) = bodies()
        .into_iter()
        .find(|file| file.0.contains("all_events"))
        .unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let contents: Vec<&str> = sent["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["data"]["contents"].as_str())
        .filter(|contents| contents.len() > 12)
        .collect();
    assert!(
        contents
            .iter()
            .any(|contents| contents.contains("Correct-Horse"))
    );
    let texts: Vec<String> = decode(&body).iter().map(shown).collect();
    let all = texts.join("\n");
    assert!(!all.contains("Correct-Horse"));
    for contents in contents {
        let escaped = Value::from(contents).to_string();
        assert!(!all.contains(&escaped), "{escaped}");
    }

    // Cut anywhere, the body is no JSON, and goes to the dead letters as a whole.
    let source = SourceName::new("stalwart");
    let ctx = stalwart::decode::BodyContext {
        source: &source,
        received_at: "2026-11-24T05:00:00Z".parse().unwrap(),
    };
    for end in (1..body.len()).step_by(4999) {
        let error = stalwart::decode::decode_body(&body[..end], &ctx)
            .err()
            .unwrap();
        let letter = stalwart::decode::quarantine(&body[..end], &ctx, &error);
        assert_eq!(letter.raw_length, end as u64);
        assert!(!String::from_utf8_lossy(&letter.raw).contains("Correct-Horse"));
    }
}

#[test]
fn every_known_type_has_an_action() {
    let mut kinds: Vec<String> = table("stalwart/event_types.tsv")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    kinds.extend(
        table("stalwart/event_types_only_in_0.15.tsv")
            .into_iter()
            .map(|row| row[0].clone()),
    );
    assert_eq!(kinds.len(), 637 + 51);
    for kind in kinds {
        let action = stalwart::verbs::verb(&kind, &serde_json::Map::new()).action;
        let verb = action.strip_prefix("stalwart.").unwrap();
        assert!(!verb.is_empty());
        assert!(
            verb.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{action}"
        );
    }
}
