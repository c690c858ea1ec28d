//! Events as Authentik answers them, and answers that are none.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{Actor, Outcome, Target, TenantHints};

fn decode_text(raw: &str) -> Decoded {
    let source = SourceName::new("authentik");
    let ctx = EventContext {
        source: &source,
        received_at: "2026-11-24T05:00:00Z".parse().unwrap(),
    };
    decode_event(&RawValue::from_string(raw.to_owned()).unwrap(), &ctx)
}

fn event(action: &str, user: Value, context: Value) -> Value {
    json!({"pk": "c072cfba-cd83-4fb0-a8ca-1fe0000a9f4a", "user": user, "action": action,
        "app": "authentik.events.signals", "context": context, "client_ip": "203.0.113.7",
        "created": "2026-11-24T04:19:00.265079Z", "expires": "2027-11-24T04:19:00.263756Z", "brand": {}})
}

fn one(event: Value) -> (AuditEvent, TenantHints) {
    match decode_text(&event.to_string()) {
        Decoded::Event(event, hints) => (*event, hints),
        other => panic!("{other:?}"),
    }
}

fn alice() -> Value {
    json!({"pk": 4, "email": "alice@acme.test", "username": "alice"})
}

#[test]
fn a_log_in_is_read_in_full() {
    let (event, hints) = one(event("login", alice(), json!({"auth_method": "password"})));
    assert_eq!(event.external_id, "c072cfba-cd83-4fb0-a8ca-1fe0000a9f4a");
    assert_eq!(event.at, "2026-11-24T04:19:00.265Z".parse().unwrap());
    assert_eq!(
        (&*event.action, event.outcome),
        ("authentik.login", Some(Outcome::Success))
    );
    assert_eq!(
        event.actor,
        Actor {
            id: Some("4".into()),
            email: Some("alice@acme.test".into()),
            name: Some("alice".into()),
            ip: Some("203.0.113.7".into()),
        }
    );
    assert_eq!(event.target.name.as_deref(), Some("alice"));
    assert_eq!(hints.emails, ["alice@acme.test"]);
    assert_eq!(event.metadata["created"], "2026-11-24T04:19:00.265079Z");
}

#[test]
fn the_administrator_is_the_actor_of_an_impersonation() {
    let user = json!({"pk": 2, "email": "admin@ops.test", "username": "akadmin",
        "on_behalf_of": {"pk": 5, "email": "bob@globex.test", "username": "bob"}});
    let started = event(
        "impersonation_started",
        user.clone(),
        json!({"reason": "ticket"}),
    );
    let raw = RawValue::from_string(started.to_string()).unwrap();
    let head = EventHead::read(&raw).unwrap();
    assert_eq!(head.user_pks(), [Some(2), Some(5)]);
    let (seen, hints) = one(started);
    assert_eq!(seen.actor.name.as_deref(), Some("akadmin"));
    assert_eq!(seen.target.name.as_deref(), Some("bob"));
    assert_eq!(hints.emails, ["admin@ops.test", "bob@globex.test"]);
    let model = json!({"model": {"pk": "09", "app": "authentik_core", "name": "bob-token", "model_name": "token"}});
    let (seen, _) = one(event("model_created", user, model));
    assert_eq!(seen.action, "authentik.token_created");
    assert_eq!(seen.target.kind.as_deref(), Some("token"));
}

#[test]
fn an_unknown_user_fails_to_log_in_under_the_typed_name() {
    let user = json!({"pk": null, "email": "who@acme.test", "username": "who@acme.test",
        "authenticated_as": {"pk": 1, "email": "", "username": "AnonymousUser", "is_anonymous": true}});
    let failed = event(
        "login_failed",
        user,
        json!({"username": "who@acme.test", "password": "********************"}),
    );
    assert_eq!(user_key(&failed), None);
    let (seen, hints) = one(failed);
    assert_eq!(seen.outcome, Some(Outcome::Failure));
    assert_eq!(
        (seen.actor.id, seen.actor.name.as_deref()),
        (None, Some("who@acme.test"))
    );
    assert_eq!(hints.emails, ["who@acme.test"]);
    assert_eq!(seen.metadata["context"]["password"], "***");
    let typed = json!({"pk": null, "email": "nobody", "username": "nobody"});
    let (seen, hints) = one(event("login_failed", typed, json!({"username": "nobody"})));
    assert_eq!(seen.actor.email, None);
    assert!(hints.emails.is_empty());
}

#[test]
fn a_failed_log_in_that_names_nobody_is_of_the_typed_name() {
    let anonymous = json!({"pk": 1, "email": "", "username": "AnonymousUser"});
    for (user, typed, emails) in [
        (anonymous.clone(), "alice", vec![]),
        (anonymous, "alice@acme.test", vec!["alice@acme.test"]),
        (json!({}), "alice", vec![]),
    ] {
        let failed = event("login_failed", user, json!({"username": typed}));
        let (seen, hints) = one(failed.clone());
        let wanted = Actor {
            name: Some(typed.into()),
            ip: Some("203.0.113.7".into()),
            ..Actor::default()
        };
        assert_eq!(seen.actor, wanted, "{failed}");
        assert_eq!(seen.target.id, None, "{failed}");
        assert_eq!(seen.target.name.as_deref(), Some(typed), "{failed}");
        assert_eq!(hints.emails, emails, "{failed}");
    }
}

#[test]
fn whoever_is_signed_in_to_a_flow_about_another_user_is_its_actor() {
    let signed_in = |as_whom: Value| {
        let mut user = alice();
        user["authenticated_as"] = as_whom;
        user
    };
    let bob = json!({"pk": 5, "email": "bob@globex.test", "username": "bob"});
    let broken = event("policy_exception", signed_in(bob.clone()), json!({}));
    assert_eq!(user_key(&broken), Some(5));
    let raw = RawValue::from_string(broken.to_string()).unwrap();
    let head = EventHead::read(&raw).unwrap();
    assert_eq!(head.user_pks(), [Some(5), Some(4)]);
    let (seen, hints) = one(broken);
    assert_eq!(seen.actor.id.as_deref(), Some("5"));
    assert_eq!(seen.actor.name.as_deref(), Some("bob"));
    assert_eq!(seen.target.id.as_deref(), Some("4"));
    assert_eq!(hints.emails, ["bob@globex.test", "alice@acme.test"]);

    for action in ["password_set", "logout"] {
        let (seen, _) = one(event(action, signed_in(bob.clone()), json!({})));
        assert_eq!(seen.target.id.as_deref(), Some("5"), "{action}");
    }

    let typed = json!({"username": "alice"});
    let (seen, _) = one(event("login_failed", signed_in(bob), typed));
    assert_eq!(seen.actor.name.as_deref(), Some("bob"));
    assert_eq!(seen.target.name.as_deref(), Some("alice"));

    // Nobody is, or the same user.
    for as_whom in [
        json!({"pk": 1, "email": "", "username": "AnonymousUser", "is_anonymous": true}),
        alice(),
    ] {
        let (seen, hints) = one(event("policy_exception", signed_in(as_whom), json!({})));
        assert_eq!(seen.actor.name.as_deref(), Some("alice"));
        assert_eq!(hints.emails, ["alice@acme.test"]);
    }
}

#[test]
fn whom_a_flow_is_about_counts_in_that_flow_only() {
    let admin = json!({"pk": 2, "email": "admin@ops.test", "username": "akadmin"});
    let mut impersonator = admin.clone();
    impersonator["on_behalf_of"] =
        json!({"pk": 6, "email": "carol@initech.test", "username": "carol"});
    let flow = "/auth/api/v3/flows/executor/recovery/";
    let (bob, carol) = ("bob@globex.test", "carol@initech.test");
    for (signed_in, path, other) in [
        (&admin, Some(flow), Some((5_i64, bob))),
        (&admin, None, Some((5, bob))),
        (&admin, Some("/api/v3/core/tokens/x/view_key/"), None),
        (&impersonator, Some(flow), Some((6, carol))),
        (&impersonator, None, Some((6, carol))),
        (
            &impersonator,
            Some("/api/v3/core/users/6/impersonate/"),
            Some((6, carol)),
        ),
    ] {
        let user = json!({"pk": 5, "email": bob, "username": "bob", "authenticated_as": signed_in});
        let context = match path {
            Some(path) => json!({"http_request": {"path": path}}),
            None => json!({}),
        };
        let event = event("impersonation_started", user, context);
        let raw = RawValue::from_string(event.to_string()).unwrap();
        let head = EventHead::read(&raw).unwrap();
        let (pk, email) = other.unzip();
        assert_eq!(head.user_pks(), [Some(2), pk], "{event}");
        let (seen, hints) = one(event.clone());
        assert_eq!(seen.actor.name.as_deref(), Some("akadmin"), "{event}");
        let target = pk.map(|pk| pk.to_string());
        assert_eq!(seen.target.id.as_deref(), target.as_deref(), "{event}");
        let emails: Vec<&str> = ["admin@ops.test"].into_iter().chain(email).collect();
        assert_eq!(hints.emails, emails, "{event}");
    }
}

#[test]
fn the_user_of_a_changed_password_is_its_target() {
    let (seen, hints) = one(event("password_set", alice(), json!({})));
    assert_eq!(seen.action, "authentik.password_changed");
    assert_eq!(seen.actor.name, None);
    assert_eq!(seen.actor.ip.as_deref(), Some("203.0.113.7"));
    assert_eq!(seen.target.id.as_deref(), Some("4"));
    assert_eq!(hints.emails, ["alice@acme.test"]);

    // Under impersonation the one who changed it stands in that place.
    let mut user = alice();
    user["on_behalf_of"] = json!({"pk": 5, "email": "bob@globex.test", "username": "bob"});
    let (seen, hints) = one(event("password_set", user, json!({})));
    assert_eq!(seen.actor.id.as_deref(), Some("4"));
    assert!(seen.target.is_empty());
    assert_eq!(hints.emails, ["alice@acme.test", "bob@globex.test"]);
}

#[test]
fn events_of_the_system_have_no_actor() {
    let mut rotated = event(
        "secret_rotate",
        json!({}),
        json!({"token": {"pk": "dc", "name": "t", "model_name": "token", "app": "core"}}),
    );
    rotated["client_ip"] = Value::Null;
    let (seen, _) = one(rotated);
    assert!(seen.actor.is_empty());
    assert_eq!(seen.target.kind.as_deref(), Some("token"));
    assert_eq!(seen.metadata["context"]["token"]["name"], "t");
}

#[test]
fn an_unknown_address_is_left_out() {
    let mut login = event("login", alice(), json!({}));
    login["client_ip"] = "255.255.255.255".into();
    assert_eq!(one(login).0.actor.ip, None);
}

#[test]
fn targets_are_found_where_each_action_names_them() {
    let model = |name: &str| json!({"pk": "1", "app": "a", "name": "n", "model_name": name});
    for (action, context, kind, name) in [
        (
            "authorize_application",
            json!({"authorized_application": model("application")}),
            "application",
            Some("n"),
        ),
        (
            "secret_view",
            json!({"secret": model("token")}),
            "token",
            Some("n"),
        ),
        (
            "source_linked",
            json!({"source": model("oauthsource")}),
            "oauthsource",
            Some("n"),
        ),
        (
            "review_overdue",
            json!({"target": model("group")}),
            "group",
            Some("n"),
        ),
        (
            "export_ready",
            json!({"export": model("dataexport")}),
            "dataexport",
            Some("n"),
        ),
        (
            "invitation_used",
            json!({"invitation_uuid": "ab"}),
            "invitation",
            None,
        ),
        (
            "user_write",
            json!({"username": "new"}),
            "user",
            Some("new"),
        ),
        (
            "user_write",
            json!({"username": "alice"}),
            "user",
            Some("alice"),
        ),
        (
            "user_lockdown_triggered",
            json!({"affected_user": "eve"}),
            "user",
            Some("eve"),
        ),
        (
            "update_available",
            json!({"new_version": "9"}),
            "version",
            Some("9"),
        ),
        (
            "email_sent",
            json!({"to_email": ["a@b.test"], "body": "x"}),
            "email",
            Some("a@b.test"),
        ),
    ] {
        let target = one(event(action, alice(), context)).0.target;
        assert_eq!(
            (target.kind.as_deref(), target.name.as_deref()),
            (Some(kind), name),
            "{action}"
        );
    }
}

#[test]
fn an_invitation_is_told_by_a_fingerprint_of_its_key_which_is_its_token() {
    let key = "85194b2c8b404b2c878ac0033949e372";
    let dashed = "85194b2c-8b40-4b2c-878a-c0033949e372";
    let model = |key: &str| {
        json!({"model": {"pk": key, "app": "authentik_stages_invitation", "name": "may", "model_name": "invitation"},
            "http_request": {"path": format!("/api/v3/stages/invitation/invitations/{dashed}/")}})
    };
    for (action, context, name) in [
        ("model_created", model(key), Some("may")),
        ("model_updated", model(dashed), Some("may")),
        ("model_deleted", model(key), Some("may")),
        ("invitation_used", json!({"invitation_uuid": key}), None),
    ] {
        let (seen, _) = one(event(action, alice(), context));
        let wanted = Target {
            kind: Some("invitation".into()),
            id: Some("28f68ca544d94eb8".into()),
            name: name.map(Into::into),
        };
        assert_eq!(seen.target, wanted, "{action}");
        assert_eq!(seen.external_id, "c072cfba-cd83-4fb0-a8ca-1fe0000a9f4a");
        let kept = format!("{seen:?} {}", Value::from(seen.metadata.clone()));
        assert!(!kept.contains(key) && !kept.contains(dashed), "{kept}");
    }
}

#[test]
fn mail_belongs_to_the_address_that_it_goes_to_whatever_its_owner_is_called() {
    for (to, wanted) in [
        (json!("alice@acme.test"), vec!["alice@acme.test"]),
        (
            json!(["Alice Example <alice@acme.test>", "bob@globex.test"]),
            vec!["alice@acme.test", "bob@globex.test"],
        ),
        (
            json!([r#""alice@acme.test" <eve@globex.test>"#]),
            vec!["eve@globex.test"],
        ),
        (
            json!([r#""Eve <alice@acme.test>" <eve@globex.test>"#]),
            vec!["eve@globex.test"],
        ),
        (json!(["Eve <alice@acme.test> <>"]), vec![]),
        (json!(["Eve <alice@acme.test> eve@globex.test"]), vec![]),
        (json!(["Eve <alice@acme.test>eve"]), vec![]),
        (json!([]), vec![]),
    ] {
        let sent = event("email_sent", json!({}), json!({"to_email": to}));
        let (_, hints) = one(sent);
        assert_eq!(hints.recipients, wanted, "{to}");
        assert!(hints.emails.is_empty(), "{to}");
    }
    let sent = json!({"to_email": ["Bob <bob@globex.test>"]});
    let (_, hints) = one(event("email_sent", alice(), sent));
    assert_eq!(hints.emails, ["alice@acme.test"]);
    assert_eq!(hints.recipients, ["bob@globex.test"]);
}

#[test]
fn keys_are_whole_numbers_of_real_users() {
    for (pk, wanted) in [
        (json!(4), Some(4)),
        (json!(4.0), Some(4)),
        (json!(0), None),
        (json!(-1), None),
        (json!(null), None),
        (json!("4"), None),
        (json!(4.5), None),
    ] {
        assert_eq!(
            user_key(&json!({"user": {"pk": pk.clone(), "username": "x"}})),
            wanted,
            "{pk}"
        );
    }
    assert_eq!(
        user_key(&json!({"user": {"pk": 1, "username": "AnonymousUser"}})),
        None
    );
    assert_eq!(user_key(&json!({"user": {}})), None);
    assert_eq!(user_key(&json!({})), None);
}

#[test]
fn what_has_no_key_or_time_is_dead() {
    for (raw, word) in [
        ("7", "object"),
        (r#"["a","2026-11-24T04:19:00Z"]"#, "object"),
        ("{}", "`pk`"),
        (r#"{"pk":"","created":"2026-11-24T04:19:00Z"}"#, "`pk`"),
        (r#"{"pk":"a"}"#, "`created`"),
        (
            r#"{"pk":"a","created":"soon","context":{"password":"hunter2"}}"#,
            "RFC 3339",
        ),
        (
            r#"{"created":"2026-11-24T04:19:00Z","context":{"http_request":{"path":"/if/flow/enroll/?itoken=hunter2"}}}"#,
            "`pk`",
        ),
        (
            r#"{"pk":"","context":{"diff":{"kubeconfig":{"new_value":{"a":"hunter2"}}}}}"#,
            "`pk`",
        ),
    ] {
        let Decoded::Dead(letter) = decode_text(raw) else {
            panic!("{raw}")
        };
        assert_eq!(letter.reason, DeadLetterReason::UnexpectedShape);
        assert_eq!(letter.position, sha256_hex(raw.as_bytes()));
        assert!(letter.detail.contains(word), "{raw}: {}", letter.detail);
        assert!(!String::from_utf8_lossy(&letter.raw).contains("hunter2"));
        assert_eq!(
            EventHead::read(&RawValue::from_string(raw.to_owned()).unwrap()),
            None
        );
    }
}

#[test]
fn an_event_of_too_many_values_is_dead_and_keeps_its_place() {
    for part in ["user", "context"] {
        let mut large = event("login", alice(), json!({}));
        large[part]["large"] = vec![0; MAX_VALUES].into();
        let raw = large.to_string();
        let Decoded::Dead(letter) = decode_text(&raw) else {
            panic!("{part}")
        };
        assert_eq!(letter.reason, DeadLetterReason::UnexpectedShape);
        assert_eq!(letter.detail, "an event of more than 100000 values");
        let head = EventHead::read(&RawValue::from_string(raw).unwrap()).unwrap();
        assert_eq!(head.pk, large["pk"]);
        assert_eq!(head.user_pks(), [None; 2]);
    }
}

#[test]
fn odd_shapes_are_kept() {
    for odd in [
        json!({"pk": "a", "created": "2026-11-24T04:19:00Z"}),
        json!({"pk": "a", "created": "2026-11-24T04:19:00Z", "action": 7, "user": [], "context": "x", "client_ip": 1}),
        json!({"pk": "a", "created": "2026-11-24T04:19:00Z", "action": "custom_ü\u{0}", "context": {"a.b": 1, "$c": 18446744073709551616_f64}}),
    ] {
        let (seen, _) = one(odd.clone());
        assert_eq!(seen.external_id, "a");
        assert_eq!(Value::from(seen.metadata), odd);
    }
}

#[test]
fn a_time_has_any_number_of_digits() {
    let mut login = event("login", alice(), json!({}));
    login["created"] = json!("2026-11-24T04:19:00.2650790001Z");
    let raw = RawValue::from_string(login.to_string()).unwrap();
    let head = EventHead::read(&raw).unwrap();
    assert_eq!(
        head.created,
        "2026-11-24T04:19:00.265079001Z".parse().unwrap()
    );
    let (event, _) = one(login);
    assert_eq!(event.at, "2026-11-24T04:19:00.265Z".parse().unwrap());
}

#[test]
fn the_head_is_read_without_the_rest() {
    let raw = RawValue::from_string(event("login", alice(), json!({"x": 1})).to_string()).unwrap();
    assert_eq!(
        EventHead::read(&raw),
        Some(EventHead {
            pk: "c072cfba-cd83-4fb0-a8ca-1fe0000a9f4a".into(),
            created: "2026-11-24T04:19:00.265079Z".parse().unwrap(),
            user_pk: Some(4),
            impersonated_pk: None,
        })
    );
}

proptest! {
    #[test]
    fn any_page_body_is_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_page(&body).map(|page| page.count);
    }

    #[test]
    fn any_action_is_kept(action in ".{0,40}") {
        let (seen, _) = one(event(&action, alice(), json!({})));
        prop_assert!(seen.action.starts_with("authentik."));
        prop_assert!(seen.action.len() > "authentik.".len());
    }
}
