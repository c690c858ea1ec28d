//! Who acted, on what, from where, and whose domain it concerns: read from an event's `data`.
//!
//! The domains decide whose timeline an event is entered in, so only a side that Stalwart vouches
//! for is asked: the account that logged in, the recipient of mail that came in, the sender of
//! mail that goes out. The sender of incoming mail is whatever the sender claims.

use bytestring::ByteString;
use serde_json::{Map, Value};

use crate::event::{Actor, Target, TenantHints};
use crate::sources::text::{is_address, scalar, text};

type Data = Map<String, Value>;

/// The claimed sender is none of the account's own addresses.
const REFUSED_SENDER: &str = "smtp.mail-from-unauthorized";

/// The actor.
pub(super) fn actor(kind: &str, data: &Data) -> Actor {
    let mut actor = Actor {
        ip: client_ip(kind, data),
        ..Actor::default()
    };
    if names_the_changed_account(kind) {
        return actor;
    }
    let impersonator = impersonator(kind, data);
    // What came in for an account has that account's id, and its sender is somebody else.
    let is_incoming = data.contains_key("from")
        && (kind.starts_with("message-ingest.")
            || (is_invitation(kind) && !data.contains_key("documentId")));
    if impersonator.is_none() && !is_incoming {
        actor.id = of_account(data, "accountId");
    }
    let account = impersonator.map(Into::into).or_else(|| account(data));
    let named = account.or_else(|| {
        if kind == REFUSED_SENDER {
            own_names(data).next().map(Into::into)
        } else {
            sender(data)
        }
    });
    match named {
        Some(name) if is_address(&name) => actor.email = Some(name),
        name => actor.name = name,
    }
    actor
}

/// The acting administrator when the log-in is into somebody else's account.
fn impersonator<'a>(kind: &str, data: &'a Data) -> Option<&'a str> {
    (kind == "auth.success")
        .then(|| text(data, "details"))
        .flatten()
}

/// The account's name: the event's own, or that of the event which caused it.
fn account(data: &Data) -> Option<ByteString> {
    // `login` is the name of 0.8.
    of_account(data, "accountName").or_else(|| text(data, "login").map(Into::into))
}

fn of_account(data: &Data, key: &str) -> Option<ByteString> {
    scalar(data.get(key)).or_else(|| {
        let cause = data.get("causedBy")?.get("data")?.as_object()?;
        of_account(cause, key)
    })
}

/// Whether the account is the one that was changed. By whom is not told.
fn names_the_changed_account(kind: &str) -> bool {
    matches!(
        kind,
        "account.created"
            | "account.deleted"
            | "account.password-changed"
            | "auth.password-changed"
            | "password.changed"
    )
}

/// Of invitations and the answers to them those that an account sends name the entry in its calendar
/// (`documentId`). Those that come in do not, but have the `to` of the delivery that brought them.
fn is_invitation(kind: &str) -> bool {
    kind.starts_with("calendar.itip-message-")
}

/// The name of the account of a [`REFUSED_SENDER`], and then its addresses.
fn own_names(data: &Data) -> impl Iterator<Item = &str> {
    let own = data.get("details").and_then(Value::as_array);
    let own = own.into_iter().flatten().filter_map(Value::as_str);
    own.filter(|name| !name.is_empty())
}

/// The envelope's sender; `<>` and nothing mean a bounce.
fn sender(data: &Data) -> Option<ByteString> {
    text(data, "from")
        .filter(|from| *from != "<>")
        .map(Into::into)
}

/// The other end of the connection, where it is a client. In deliveries it is the receiving server.
fn client_ip(kind: &str, data: &Data) -> Option<ByteString> {
    if kind.starts_with("delivery.") {
        return None;
    }
    of_account(data, "remoteIp")
}

/// The target.
pub(super) fn target(kind: &str, data: &Data) -> Target {
    let of = |kind: &'static str, id: Option<ByteString>, name: Option<ByteString>| Target {
        kind: (id.is_some() || name.is_some()).then(|| ByteString::from_static(kind)),
        id,
        name,
    };
    let family = kind.split('.').next().unwrap_or(kind);
    if kind.starts_with("security.") && kind.ends_with("-ban") {
        return of("ip", None, scalar(data.get("remoteIp")));
    }
    if kind == REFUSED_SENDER {
        return of("account", None, sender(data));
    }
    if let Some(mailbox) = text(data, "mailboxName") {
        return of(
            "mailbox",
            scalar(data.get("mailboxId")),
            Some(mailbox.into()),
        );
    }
    let account = account(data);
    if account.is_some() || names_the_changed_account(kind) {
        return of("account", of_account(data, "accountId"), account);
    }
    let recipients = recipients(kind, data);
    if !recipients.is_empty() {
        let names = Some(recipients.join(", ").into());
        return match family {
            "queue" | "message-ingest" => of("message", scalar(data.get("queueId")), names),
            _ => of("recipient", None, names),
        };
    }
    if matches!(family, "queue" | "delivery" | "message-ingest") {
        return of("message", scalar(data.get("queueId")), None);
    }
    of("domain", None, text(data, "domain").map(Into::into))
}

fn recipients<'a>(kind: &str, data: &'a Data) -> Vec<&'a str> {
    match data.get("to") {
        Some(Value::String(to)) if !to.is_empty() => vec![to],
        Some(Value::Array(to)) => {
            let to = to.iter().filter_map(Value::as_str);
            if kind == "delivery.double-bounce" {
                return to.filter_map(bounced).collect();
            }
            to.collect()
        }
        _ => Vec::new(),
    }
}

/// The address in `<address> (why it failed)`. In quotes it may hold a `>` of its own: then nothing
/// tells where it ends.
fn bounced(sentence: &str) -> Option<&str> {
    let (address, _) = sentence.strip_prefix('<')?.split_once('>')?;
    (!address.contains('"')).then_some(address)
}

/// Whose timeline the event may belong to.
pub(super) fn hints(kind: &str, data: &Data) -> TenantHints {
    let mut hints = TenantHints::default();
    if let Some(account) = account(data) {
        add(&mut hints.domains, &account);
        return hints;
    }
    let family = kind.split('.').next().unwrap_or(kind);
    let is_submission = (kind.contains("authenticated") && family == "queue")
        || (is_invitation(kind) && data.contains_key("documentId"));
    // Other types of the queue bear its name too: a bounce that of the delivery that failed.
    let is_delivery = family == "delivery" || kind == "queue.rescheduled";
    let queue = text(data, "queueName");
    let sender = sender(data);
    if is_submission || (is_delivery && queue == Some("remote")) {
        sender.iter().for_each(|from| add(&mut hints.domains, from));
    } else if kind == REFUSED_SENDER {
        own_names(data).for_each(|own| add(&mut hints.domains, own));
    } else {
        let recipients = recipients(kind, data);
        for recipient in &recipients {
            add(&mut hints.domains, recipient);
        }
        // Which way it goes is not told: other queues are named as their administrator likes. A
        // recipient that is ours settles it: mail for one of our domains never leaves, whoever
        // claims to have sent it. Where one of several is meant, it may be another one.
        if is_delivery && queue != Some("local") && goes_to_another_server(kind, data) {
            let side = if is_about_one_recipient(kind) && recipients.len() > 1 {
                &mut hints.domains
            } else {
                &mut hints.senders
            };
            sender.iter().for_each(|from| add(side, from));
        }
    }
    if matches!(kind, "smtp.dkim-fail" | "smtp.dmarc-fail") {
        for domain in signing_domains(data) {
            add(&mut hints.domains, &format!("@{domain}"));
        }
    }
    hints
}

fn add(domains: &mut Vec<ByteString>, address: &str) {
    if let Some(domain) = domain_of(address)
        && !domains.contains(&domain)
    {
        domains.push(domain);
    }
}

/// Only mail that goes out is handed to another server; the sender of any other may be forged.
fn goes_to_another_server(kind: &str, data: &Data) -> bool {
    match text(data, "hostname") {
        Some(hostname) => hostname != "localhost",
        // It is not written of local mailboxes.
        None if kind == "delivery.delivered" => true,
        // Versions without `queueName` leave it out at the end of a delivery that reached no server;
        // the end of a local one says `localhost`.
        None => kind.starts_with("delivery.dsn-") && !data.contains_key("queueName"),
    }
}

/// Before 0.11.7 these name all recipients, too.
fn is_about_one_recipient(kind: &str) -> bool {
    kind == "delivery.delivered"
        || kind.starts_with("delivery.dsn-")
        || kind.starts_with("delivery.rcpt-to")
}

/// The domains in whose name the failing message claims to come.
fn signing_domains(data: &Data) -> Vec<&str> {
    let own = text(data, "domain");
    let results = data.get("result").and_then(Value::as_array);
    let signed = results
        .into_iter()
        .flatten()
        .filter_map(|result| result.get("data")?.get("domain")?.as_str())
        .filter(|domain| !domain.is_empty());
    own.into_iter().chain(signed).collect()
}

fn domain_of(address: &str) -> Option<ByteString> {
    let (_, domain) = address.rsplit_once('@')?;
    let domain = domain.trim_end_matches(['>', '.']).to_lowercase();
    (!domain.is_empty()).then(|| domain.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts(kind: &str, data: &Value) -> (Actor, Target) {
        let data = data.as_object().unwrap();
        (actor(kind, data), target(kind, data))
    }

    #[test]
    fn an_account_that_was_changed_is_not_who_changed_it() {
        let data = json!({"accountName": "new@x.example", "accountId": 7, "remoteIp": "192.0.2.1"});
        for kind in [
            "account.created",
            "account.deleted",
            "account.password-changed",
            "auth.password-changed",
            "password.changed",
        ] {
            let (actor, target) = parts(kind, &data);
            let only_the_address = Actor {
                ip: Some("192.0.2.1".into()),
                ..Actor::default()
            };
            assert_eq!(actor, only_the_address, "{kind}");
            assert_eq!(target.kind.as_deref(), Some("account"), "{kind}");
            assert_eq!(target.id.as_deref(), Some("7"), "{kind}");
            assert_eq!(target.name.as_deref(), Some("new@x.example"), "{kind}");
        }
    }

    #[test]
    fn an_invitation_that_comes_in_is_not_its_receivers_deed() {
        let (to, own, other) = (
            Some("a@b.example"),
            Some("x@acme.example"),
            Some("x@outside.example"),
        );
        for (kind, to, from, is_sent) in [
            ("sent", to, own, true),
            ("error", to, own, true),
            ("error", None, None, true),
            ("error", to, other, false),
            ("received", to, other, false),
        ] {
            let kind = format!("calendar.itip-message-{kind}");
            let place = if is_sent { "documentId" } else { "spanId" };
            let mut data = json!({"accountId": 2, place: 1});
            for (key, value) in [("to", to), ("from", from)] {
                if let Some(value) = value {
                    data[key] = value.into();
                }
            }
            let (actor, target) = parts(&kind, &data);
            assert_eq!(actor.id.is_some(), is_sent, "{kind} {data}");
            assert_eq!(actor.email.as_deref(), from, "{kind} {data}");
            assert_eq!(target.name.as_deref(), to, "{kind} {data}");
        }
    }

    #[test]
    fn who_claims_anothers_address_is_the_account_under_its_own_name() {
        for (details, email, name) in [
            (
                json!(["alice@a.example", "a@a.example"]),
                Some("alice@a.example"),
                None,
            ),
            (json!(["alice", "@a.example"]), None, Some("alice")),
            (json!([]), None, None),
            (json!("alice"), None, None),
        ] {
            let data = json!({"from": "bob@b.example", "details": details});
            let (actor, target) = parts(REFUSED_SENDER, &data);
            assert_eq!(actor.email.as_deref(), email, "{data}");
            assert_eq!(actor.name.as_deref(), name, "{data}");
            assert_eq!(target.kind.as_deref(), Some("account"), "{data}");
            assert_eq!(target.name.as_deref(), Some("bob@b.example"), "{data}");
        }
    }

    #[test]
    fn a_double_bounce_names_its_recipients_in_sentences() {
        let data = json!({"spanId": 1, "to": [
            "<bob@b.example> (host 'mx' rejected transaction with code 550 (5.1.1) 'no <bob>')\r\n",
            "<eve@e.example> (rate limited)\r\n"]});
        let (_, target) = parts("delivery.double-bounce", &data);
        assert_eq!(target.kind.as_deref(), Some("recipient"));
        assert_eq!(target.name.as_deref(), Some("bob@b.example, eve@e.example"));
    }
}
