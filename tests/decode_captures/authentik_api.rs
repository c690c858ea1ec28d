//! Answers of Authentik's API.

use std::collections::BTreeSet;
use std::path::PathBuf;

use daybook::event::{Decoded, SourceName};
use daybook::sources::authentik;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{assert_unaltered, data, events, shown, table};

fn source() -> SourceName {
    SourceName::new("authentik")
}

fn decode(raw: &RawValue) -> Decoded {
    let source = source();
    let ctx = authentik::decode::EventContext {
        source: &source,
        received_at: "2026-11-24T05:00:00Z".parse().unwrap(),
    };
    authentik::decode::decode_event(raw, &ctx)
}

fn samples() -> Vec<Box<RawValue>> {
    serde_json::from_slice(&data("authentik/samples/events.json")).unwrap()
}

/// Where what is kept is not what was sent.
fn altered(sent: &Value, kept: &Value, path: &str, found: &mut BTreeSet<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (key, sent) in sent {
                altered(sent, &kept[key], &format!("{path}/{key}"), found);
            }
        }
        (Value::Array(sent), Value::Array(kept)) => {
            for (sent, kept) in sent.iter().zip(kept) {
                altered(sent, kept, path, found);
            }
        }
        _ if sent == kept => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_sample_decodes_unaltered() {
    let samples = samples();
    assert_eq!(samples.len(), 89);
    let mut masked = BTreeSet::new();
    for raw in samples {
        let sent: Value = serde_json::from_str(raw.get()).unwrap();
        let (event, _) = events(vec![decode(&raw)]).remove(0);
        assert_eq!(event.external_id, sent["pk"]);
        let kept = Value::from(event.metadata.clone());
        assert_unaltered(&sent, &kept);
        altered(&sent, &kept, "", &mut masked);
        let head = authentik::decode::EventHead::read(&raw).unwrap();
        assert_eq!(head.pk, event.external_id);
        assert_eq!(daybook::event::to_millis(head.created), event.at);
        assert_eq!(head.user_pk, authentik::decode::user_key(&sent));
        let impersonated = sent["user"]["on_behalf_of"]["pk"].as_i64();
        assert_eq!(head.impersonated_pk, impersonated);
        assert_ne!(event.actor.ip.as_deref(), Some("255.255.255.255"));
    }
    let masked: Vec<&str> = masked.iter().map(String::as_str).collect();
    let secrets = [
        "/context/http_request/args/itoken",
        "/context/http_request/args/token",
        "/context/invitation_uuid",
        "/context/model/pk",
        "/context/password",
    ];
    assert_eq!(masked, secrets);
}

#[test]
fn the_claims_of_a_federated_log_in_are_legible() {
    let claims = |event: &Value| event["context"]["auth_method_args"]["jwt"].clone();
    let federated: Vec<Value> = samples()
        .iter()
        .map(|raw| events(vec![decode(raw)]).remove(0).0)
        .map(|event| claims(&Value::from(event.metadata)))
        .filter(|claims| !claims.is_null())
        .collect();
    assert_eq!(federated, [json!({"sub": "foo", "exp": 1_795_501_857})]);
}

#[test]
fn the_table_of_actions_is_covered() {
    let rows = table("authentik/actions.tsv");
    assert!(rows.len() >= 34);
    for row in rows {
        let (action, wanted) = (row[0].as_str(), row[1].as_str());
        let (action, wanted) = match (action, wanted.split_once("<model_name>")) {
            (action, Some((before, after))) => (action.to_owned(), format!("{before}user{after}")),
            ("custom_", None) => (
                "custom_thing".to_owned(),
                "authentik.custom_thing".to_owned(),
            ),
            (action, None) => (action.to_owned(), wanted.to_owned()),
        };
        let context = serde_json::json!({"model": {"model_name": "user"}});
        let (seen, _) = authentik::verbs::verb(&action, context.as_object().unwrap());
        assert_eq!(seen, wanted, "{action}");
    }
}

#[test]
fn every_action_that_the_server_lists_has_an_action() {
    let listed: Value =
        serde_json::from_slice(&data("authentik/samples/events_actions.json")).unwrap();
    let listed = listed.as_array().unwrap();
    assert!(listed.len() >= 28);
    let known: Vec<String> = table("authentik/actions.tsv")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    for action in listed {
        let action = action["component"].as_str().unwrap().to_owned();
        assert!(known.contains(&action), "{action}");
    }
}

#[test]
fn pages_are_read_and_everything_else_is_refused() {
    let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/authentik/samples");
    let (mut pages, mut refused) = (0, 0);
    for entry in std::fs::read_dir(samples).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let body = data(&format!("authentik/samples/{name}"));
        let is_page = ["page_", "ok_", "outpost_"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_page {
            let page = authentik::decode::decode_page(&body).unwrap();
            assert!(page.results.len() as u64 <= page.count, "{name}");
            assert!(page.next == 0 || page.next == page.current + 1, "{name}");
            for raw in &page.results {
                events(vec![decode(raw)]);
            }
            pages += 1;
        } else if name.starts_with("err_") {
            let error = authentik::decode::decode_page(&body).unwrap_err();
            assert!(!error.to_string().is_empty());
            refused += 1;
        }
    }
    assert!(pages >= 8 && refused >= 20, "{pages} {refused}");
}

/// The key of an invitation is its token.
#[test]
fn what_was_done_with_an_invitation_is_found_by_a_fingerprint() {
    let used = "85194b2c8b404b2c878ac0033949e372";
    let decoded: Vec<Decoded> = samples().iter().map(|raw| decode(raw)).collect();
    for decoded in &decoded {
        assert!(!shown(decoded).contains(used));
    }
    let events = events(decoded).into_iter().map(|(event, _)| event);
    let mut done: Vec<String> = events
        .filter(|event| event.target.id.as_deref() == Some("28f68ca544d94eb8"))
        .map(|event| event.action.to_string())
        .collect();
    done.sort();
    let wanted = ["authentik.invitation_deleted", "authentik.invitation_used"];
    assert_eq!(done, wanted);
}

#[test]
fn tokens_in_requests_do_not_appear_in_what_comes_of_them() {
    for raw in samples() {
        let text = shown(&decode(&raw));
        assert!(!text.contains("********"), "{text}");
    }
}
