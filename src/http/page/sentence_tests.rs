use serde_json::Map;

use super::*;
use crate::event::{Actor, AuditEvent, Decoded, SourceName, Target};
use crate::sources::ocis::decode::{LineContext, decode_line};

fn event(action: &str) -> StoredEvent {
    let at = jiff::Timestamp::UNIX_EPOCH;
    StoredEvent {
        id: "1".to_owned(),
        at,
        ingested_at: at,
        source: "authentik".to_owned(),
        external_id: "1".to_owned(),
        action: action.to_owned(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: Map::new(),
    }
}

fn with(action: &str, actor: Option<&str>, ip: Option<&str>, target: Option<&str>) -> StoredEvent {
    let text = |text: Option<&str>| text.map(Into::into);
    StoredEvent {
        actor: Actor {
            name: text(actor),
            ip: text(ip),
            ..Actor::default()
        },
        target: Target {
            name: text(target),
            ..Target::default()
        },
        ..event(action)
    }
}

/// What becomes of a line, counted from 1, that a real server wrote.
fn of_line(number: usize) -> StoredEvent {
    let log = include_str!("../../../tests/data/ocis/audit-full-server.log");
    let line = log.lines().nth(number - 1).unwrap_or_default();
    let context = LineContext {
        source: &SourceName::new("ocis"),
        file_key: "77",
        offset: 0,
        read_at: jiff::Timestamp::UNIX_EPOCH,
        include_reads: true,
    };
    let decoded = decode_line(line.as_bytes(), &context).pop();
    let Some(Decoded::Event(decoded, _)) = decoded else {
        panic!("line {number} is no event");
    };
    let AuditEvent {
        action,
        outcome,
        actor,
        target,
        ..
    } = *decoded;
    StoredEvent {
        outcome,
        actor,
        target,
        ..event(&action)
    }
}

#[test]
fn events_read_like_sentences() {
    let (alice, ip) = (Some("Alice Example"), Some("198.51.100.7"));
    for (event, wanted) in [
        (
            with("authentik.login_failed", alice, ip, Some("alice")),
            "Alice Example failed to sign in from 198.51.100.7",
        ),
        (
            with("stalwart.auth_failed", alice, ip, Some("alice")),
            "Alice Example failed to sign in from 198.51.100.7",
        ),
        (
            with("stalwart.auth_failed", None, ip, None),
            "Someone failed to sign in from 198.51.100.7",
        ),
        (
            with("authentik.login_failed", None, ip, Some("root")),
            "Someone failed to sign in as root from 198.51.100.7",
        ),
        (
            with("authentik.password_changed", None, None, Some("bob")),
            "The password of bob was changed",
        ),
        (
            with("stalwart.auth_banned", None, ip, ip),
            "198.51.100.7 was banned",
        ),
        (
            with("ocis.file_delete", alice, None, Some("./Plan.odt")),
            "Alice Example moved Plan.odt to the trash",
        ),
        (
            with("ocis.file_delete", None, None, None),
            "Someone moved a file to the trash",
        ),
        // Names stand as they are.
        (
            with("authentik.login", Some("user smith"), None, None),
            "user smith signed in",
        ),
        (
            with("document.deleted", alice, None, Some("./Plan.odt")),
            "Alice Example deleted the document ./Plan.odt",
        ),
        // Without a sentence of their own.
        (
            with(
                "authentik.oauth2provider_updated",
                alice,
                None,
                Some("Files"),
            ),
            "Alice Example updated the oauth2provider Files",
        ),
        (
            with("invoice.paid", alice, None, None),
            "Alice Example paid the invoice",
        ),
        (
            with("stalwart.security_ip_blocked", None, ip, None),
            "A banned client tried to connect from 198.51.100.7",
        ),
        (
            with("stalwart.dmarc_failure", None, None, None),
            "Mail in the name of a domain did not pass its DMARC check",
        ),
        // By whom is not told.
        (
            with("stalwart.account_created", None, ip, Some("bob@b.example")),
            "The mail account bob@b.example was created from 198.51.100.7",
        ),
        (
            with("stalwart.account_deleted", None, ip, None),
            "The mail account of someone was deleted from 198.51.100.7",
        ),
        (
            with("stalwart.password_changed", None, ip, Some("bob@b.example")),
            "The mail password of bob@b.example was changed from 198.51.100.7",
        ),
        (
            with("member.joined", Some("Zoë"), None, None),
            "Member joined, Zoë",
        ),
        (
            with("tenant.member_invited", None, None, Some("Zoë")),
            "The tenant member Zoë was invited",
        ),
        (
            with("stalwart.queue_rate_limit_exceeded", None, None, None),
            "Stalwart: queue rate limit exceeded",
        ),
        (
            with("stalwart.auth_warning", alice, None, alice),
            "Stalwart: auth warning, Alice Example",
        ),
        // What a word may say of the actor, or of nobody, is not said to be the actor's deed.
        (
            with("access.denied", alice, None, Some("T1")),
            "Access denied, Alice Example, T1",
        ),
        (
            with("backup.succeeded", alice, None, None),
            "Backup succeeded, Alice Example",
        ),
        (
            with("stalwart.delivery_completed", alice, None, Some("bob")),
            "Stalwart: delivery completed, Alice Example, bob",
        ),
        (
            with("settings.updated", None, None, None),
            "The settings were updated",
        ),
        (
            with("user.updated", alice, None, alice),
            "Alice Example updated the user Alice Example",
        ),
        (
            with("stalwart.auth_success", alice, None, Some("bob")),
            "Alice Example signed in to mail as bob",
        ),
        (
            with("stalwart.auth_success", alice, None, alice),
            "Alice Example signed in to mail",
        ),
        (
            with("stalwart.policy_rejection", alice, None, None),
            "Alice Example was refused by a policy of mail",
        ),
        (
            with("stalwart.policy_rejection", None, ip, None),
            "Mail was refused by policy from 198.51.100.7",
        ),
        (
            with("stalwart.queue_queue_dsn", None, None, Some("bob")),
            "A delivery report is under way to bob",
        ),
        (with("restart", alice, None, None), "Restart, Alice Example"),
        (with("", None, None, None), ""),
        (with(".", alice, None, None), ", Alice Example"),
    ] {
        assert_eq!(plain_sentence(&event), wanted, "{}", event.action);
    }
}

#[test]
fn whoever_could_not_sign_in_is_told_of_alike() {
    let told = |action, actor| plain_sentence(&with(action, actor, Some("::1"), Some("portal")));
    for action in [
        "login_failed",
        "login.failed",
        "auth.failed",
        "portal.auth_failed",
        "portal.signin_failed",
        "portal.sign_in_failed",
        "portal.sign-in-failed",
    ] {
        let wanted = "Alice failed to sign in from ::1";
        assert_eq!(told(action, Some("Alice")), wanted, "{action}");
        let wanted = "Someone failed to sign in from ::1";
        assert_eq!(told(action, None), wanted, "{action}");
        let event = with(action, None, None, None);
        assert_eq!(icon(&event), Icon::Shield, "{action}");
    }
    for (action, wanted) in [
        (
            "portal.preauth_failed",
            "Portal preauth failed, portal from ::1",
        ),
        (
            "stalwart.delivery_auth_failed",
            "Stalwart: delivery auth failed, portal from ::1",
        ),
    ] {
        assert_eq!(told(action, None), wanted);
    }
}

#[test]
fn the_kind_of_a_target_tells_the_sense_of_an_action() {
    let (alice, bob) = (Some("alice@a.example"), Some("bob@b.example"));
    let refused = "stalwart.policy_rejection";
    for (mut event, kind, wanted) in [
        (
            with(refused, alice, None, bob),
            "account",
            "alice@a.example was not allowed to send mail as bob@b.example",
        ),
        (
            with(refused, None, None, bob),
            "account",
            "Someone was not allowed to send mail as bob@b.example",
        ),
        (
            with(refused, alice, None, alice),
            "account",
            "alice@a.example was refused by a policy of mail",
        ),
        (
            with(refused, alice, None, bob),
            "message",
            "Mail from alice@a.example to bob@b.example was refused by policy",
        ),
        (
            with("daybook.gap_detected", None, None, None),
            "source",
            "Part of source x1 may have been gone before it could be read",
        ),
        (
            with("daybook.gap_detected", None, None, None),
            "file",
            "Part of file x1 was gone before it could be read",
        ),
    ] {
        event.target.kind = Some(kind.into());
        event.target.id = Some("x1".into());
        assert_eq!(plain_sentence(&event), wanted);
    }
}

#[test]
fn what_happens_to_a_share_is_told_as_the_server_means_it() {
    for (line, wanted) in [
        (
            // A share that is declined: its line names no action.
            45,
            "User 60708dda… declined the share 8a9718a2… or changed its state",
        ),
        (
            // The id is the file's.
            74,
            "User b1f74ec4… made a public link to file 5caf618a…",
        ),
    ] {
        assert_eq!(plain_sentence(&of_line(line)), wanted);
    }
}

#[test]
fn ids_are_shortened_and_only_where_nothing_else_is_known() {
    let mut event = event("ocis.group_member_added");
    event.actor.id = Some("25782a316bd363ee422db27b3ef9e361".into());
    event.target.kind = Some("group".into());
    event.target.id = Some("storage$space!682b0d86-1d30-41e2-a57a-9b393859c46d".into());
    assert_eq!(
        plain_sentence(&event),
        "User 25782a31… added a member to the group 682b0d86…"
    );
    event.actor.email = Some("alice@example.org".into());
    assert!(plain_sentence(&event).starts_with("alice@example.org added"));
}

#[test]
fn a_failure_is_told() {
    let mut event = with("ocis.public_link_accessed", None, None, None);
    event.outcome = Some(Outcome::Failure);
    assert_eq!(
        plain_sentence(&event),
        "Someone opened the public link, without success"
    );
    for (action, wanted) in [
        ("authentik.login_failed", "Alice failed to sign in"),
        ("key.rotated", "Key rotated, Alice, without success"),
        ("member.joined", "Member joined, Alice, without success"),
        ("access.denied", "Access denied, Alice"),
        ("stalwart.store_error", "Stalwart: store error, Alice"),
    ] {
        let mut event = with(action, Some("Alice"), None, None);
        event.outcome = Some(Outcome::Failure);
        assert_eq!(plain_sentence(&event), wanted);
    }
}

#[test]
fn a_kind_is_not_said_twice() {
    let mut event = with("authentik.invitation_deleted", Some("Alice"), None, None);
    event.target.kind = Some("invitation".into());
    event.target.id = Some("85194b2c-0000-4000".into());
    assert_eq!(
        plain_sentence(&event),
        "Alice deleted the invitation 85194b2c…"
    );
    event.target.name = Some("invitation of May".into());
    assert_eq!(
        plain_sentence(&event),
        "Alice deleted the invitation invitation of May"
    );
    let mut event = with("stalwart.account_created", None, None, None);
    event.target.kind = Some("account".into());
    event.target.id = Some("7".into());
    assert_eq!(plain_sentence(&event), "The mail account 7 was created");
    let mut event = with("api_key.created", Some("Alice"), None, None);
    event.target.kind = Some("api_key".into());
    event.target.id = Some("abc".into());
    assert_eq!(plain_sentence(&event), "Alice created the api key abc");
}

#[test]
fn whoever_is_signed_in_fails_to_sign_in_as_another_user() {
    let mut event = with("authentik.login_failed", Some("bob"), None, Some("alice"));
    event.actor.id = Some("5".into());
    for target in [Some("4"), None] {
        event.target.id = target.map(Into::into);
        assert_eq!(plain_sentence(&event), "bob failed to sign in as alice");
    }
    event.target.id = Some("5".into());
    assert_eq!(plain_sentence(&event), "bob failed to sign in");
}

#[test]
fn deeds_are_sorted() {
    assert!(DEEDS.is_sorted());
}

#[test]
fn phrases_are_sorted_and_whole() {
    assert!(PHRASES.is_sorted_by(|a, b| a.action < b.action));
    for phrase in PHRASES {
        for sentence in [Some(phrase.sentence), phrase.without_actor]
            .into_iter()
            .flatten()
        {
            assert_eq!(
                sentence.matches('{').count(),
                sentence.matches('}').count(),
                "{}",
                phrase.action
            );
            for place in sentence.split('{').skip(1) {
                let known = place.starts_with("actor}") || place.starts_with("target|");
                assert!(known, "{}: {sentence}", phrase.action);
            }
        }
        let without = phrase.without_actor.unwrap_or_default();
        assert!(!without.contains("{actor}"), "{}", phrase.action);
    }
}

#[test]
fn every_known_action_has_a_sentence() {
    let ocis = crate::sources::ocis::verbs::MUTATIONS.iter();
    let ocis = ocis.chain(crate::sources::ocis::verbs::READS);
    for action in ocis.map(|action| format!("ocis.{action}")) {
        assert!(phrase(&action).is_some(), "{action}");
    }
    // The tables of what the sources write become what their own pages promise.
    let documented = include_str!("../../../docs/sources.md");
    let mut found = 0;
    for word in documented.split('`') {
        let is_action = ["authentik.", "stalwart."]
            .iter()
            .any(|kind| word.starts_with(kind))
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
        let is_model = ["_created", "_updated", "_deleted"]
            .iter()
            .any(|end| word.ends_with(end));
        if is_action && !is_model {
            found += 1;
            assert!(phrase(word).is_some(), "{word}");
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn hostile_names_stay_names() {
    let event = with("authentik.login", Some("<b>root</b>\u{202e}"), None, None);
    let shown = sentence(&event, &View::default()).into_string();
    assert!(shown.contains("&lt;b&gt;root&lt;/b&gt;"), "{shown}");
    assert!(!shown.contains('\u{202e}'), "{shown}");
    let event = with(&"<i>.".repeat(200), None, None, None);
    let shown = sentence(&event, &View::default()).into_string();
    assert!(!shown.contains("<i>"), "{shown}");
}

#[test]
fn names_lead_to_what_else_they_did() {
    let event = with("authentik.login", Some("a&b \"c\""), Some("::1"), None);
    let shown = sentence(&event, &View::default()).into_string();
    assert!(
        shown.contains("href=\"/audit?actor=a%26b%20%22c%22\""),
        "{shown}"
    );
    assert!(shown.contains("href=\"/audit?ip=::1\""), "{shown}");
    // Of what is shown, not of everything.
    let view = View::default().with(&[("outcome", Some("failure"))]);
    let shown = sentence(&event, &view).into_string();
    let wanted = "href=\"/audit?outcome=failure&amp;ip=::1\" title=\"Only this address\"";
    assert!(shown.contains(wanted), "{shown}");
    for (length, is_link) in [(8190, true), (8191, false)] {
        let name = "x".repeat(length);
        let event = with("authentik.login", Some(&name), None, None);
        let shown = sentence(&event, &View::default()).into_string();
        let href = format!("href=\"/audit?actor={name}\"");
        assert_eq!(shown.contains(&href), is_link, "{shown}");
        assert!(shown.len() < href.len() + 1000, "{shown}");
    }
}

#[test]
fn a_number_is_asked_of_its_source_and_only_where_nothing_else_is_known() {
    let mut event = event("stalwart.imap_append");
    event.actor.id = Some("2".into());
    event.target.id = Some("0".into());
    let source = ("source", Some("authentik"));
    assert_eq!(same_actor(&event), [("actor", Some("2")), source]);
    assert_eq!(same_target(&event), [("target", Some("0")), source]);
    let shown = sentence(&with("login", None, Some("::1"), None), &View::default());
    assert!(!shown.into_string().contains("source="));

    event.actor.name = Some("alice".into());
    event.target.name = Some("INBOX".into());
    assert_eq!(same_actor(&event), [("actor", Some("alice"))]);
    assert_eq!(same_target(&event), [("target", Some("INBOX"))]);

    // Of a message in a queue.
    let long = "342282797089554945";
    event.actor.id = Some("60708dda-e897".into());
    event.target.id = Some(long.into());
    assert_eq!(same_actor(&event), [("actor", Some("60708dda-e897"))]);
    assert_eq!(same_target(&event), [("target", Some(long))]);

    event.actor.email = Some("alice@example.org".into());
    assert_eq!(same_actor(&event), [("actor", Some("alice@example.org"))]);
}
