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

/// The actor.
pub(super) fn actor(kind: &str, data: &Data) -> Actor {
    let impersonator = impersonator(kind, data);
    let account = impersonator.map(Into::into).or_else(|| account(data));
    let named = account.or_else(|| sender(data));
    // Mail that was put into an account has that account's id, and its sender is somebody else.
    let is_delivery = kind.starts_with("message-ingest.") && data.contains_key("from");
    let mut actor = Actor {
        id: (impersonator.is_none() && !is_delivery)
            .then(|| of_account(data, "accountId"))
            .flatten(),
        ip: client_ip(kind, data),
        ..Actor::default()
    };
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
    if let Some(mailbox) = text(data, "mailboxName") {
        return of(
            "mailbox",
            scalar(data.get("mailboxId")),
            Some(mailbox.into()),
        );
    }
    if let Some(name) = account(data) {
        return of("account", of_account(data, "accountId"), Some(name));
    }
    let recipients = recipients(data);
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

fn recipients(data: &Data) -> Vec<&str> {
    match data.get("to") {
        Some(Value::String(to)) if !to.is_empty() => vec![to],
        Some(Value::Array(to)) => to.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whose timeline the event may belong to.
pub(super) fn hints(kind: &str, data: &Data) -> TenantHints {
    let mut hints = TenantHints::default();
    if let Some(account) = account(data) {
        add(&mut hints.domains, &account);
        return hints;
    }
    let family = kind.split('.').next().unwrap_or(kind);
    let is_submission = kind.contains("authenticated") && family == "queue";
    // Other types of the queue bear its name too: a bounce that of the delivery that failed.
    let is_delivery = family == "delivery" || kind == "queue.rescheduled";
    let queue = text(data, "queueName");
    let sender = sender(data);
    if is_submission || (is_delivery && queue == Some("remote")) {
        sender.iter().for_each(|from| add(&mut hints.domains, from));
    } else if kind == "smtp.mail-from-unauthorized" {
        // The claimed sender is refused because it is none of the account's own addresses: these.
        if let Some(Value::Array(own)) = data.get("details") {
            let own = own.iter().filter_map(Value::as_str);
            own.for_each(|address| add(&mut hints.domains, address));
        }
    } else {
        let recipients = recipients(data);
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
