//! Believable mail events, with the keys that the real server gives them.

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde_json::{Value, json};

use super::{StalwartEvent, StalwartProfile};
use crate::simulators::people::{People, Person};
use crate::simulators::{hex_token, pick, whole_seconds};

/// What happened at one moment: one event, or a few that belong together, sometimes twins that
/// nothing but their id tells apart.
pub fn realistic(
    rng: &mut impl Rng,
    people: &People,
    at: Timestamp,
    profile: StalwartProfile,
) -> Vec<StalwartEvent> {
    let person = people.anyone(rng);
    match rng.random_range(0..100) {
        0..34 => vec![StalwartEvent::new(at, "auth.success", login(rng, person))],
        34..48 => vec![StalwartEvent::new(
            at,
            "auth.failed",
            failed_login(rng, person, profile),
        )],
        48..52 => too_many_attempts(rng, person, at, profile),
        52..56 => ban(rng, person, at),
        56..76 => delivered(rng, people, person, at, profile),
        76..84 => bounced(rng, person, at, profile),
        84..90 => forged(rng, person, at),
        90..94 => spam(rng, person, at),
        94..97 => twins(rng, person, at, profile),
        97..99 => vec![StalwartEvent::new(
            at,
            "smtp.relay-not-allowed",
            refused(rng),
        )],
        _ => vec![StalwartEvent::new(
            at,
            "smtp.mailbox-does-not-exist",
            nobody(rng, person),
        )],
    }
}

/// Above 2⁵³, as span and queue ids are.
fn span(rng: &mut impl Rng) -> u64 {
    342_282_700_000_000_000 + rng.random_range(0..9_000_000_000_000_u64)
}

fn connection(rng: &mut impl Rng, ip: &str) -> Value {
    let (listener, port) = *pick(
        rng,
        &[
            ("imaps", 993),
            ("submissions", 465),
            ("http", 8080),
            ("imap", 143),
        ],
    );
    json!({
        "spanId": span(rng),
        "listenerId": listener,
        "localPort": port,
        "remoteIp": ip,
        "remotePort": rng.random_range(32_768..61_000),
    })
}

fn smtp_from_outside(rng: &mut impl Rng) -> Value {
    json!({
        "spanId": span(rng),
        "listenerId": "smtp",
        "localPort": 25,
        "remoteIp": format!("198.51.100.{}", rng.random_range(1..255)),
        "remotePort": rng.random_range(32_768..61_000),
    })
}

fn with(mut data: Value, more: Value) -> Value {
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    data
}

fn login(rng: &mut impl Rng, person: &Person) -> Value {
    with(
        connection(rng, &person.ip),
        json!({"accountName": person.email, "accountId": person.mail_account}),
    )
}

fn failed_login(rng: &mut impl Rng, person: &Person, profile: StalwartProfile) -> Value {
    let unknown = rng.random_bool(0.25);
    let account = if unknown {
        format!("ghost.{}", person.email)
    } else {
        person.email.clone()
    };
    let ip = if rng.random_bool(0.4) {
        person.ip.clone()
    } else {
        format!("192.0.2.{}", rng.random_range(1..255))
    };
    let mut data = with(
        connection(rng, &ip),
        json!({"accountName": account, "id": hex_token(rng, 4).to_uppercase()}),
    );
    if profile == StalwartProfile::V0_16 {
        let reason = if unknown {
            "Account not found"
        } else {
            "Authentication failed"
        };
        data = with(data, json!({ "reason": reason }));
        if !unknown {
            data = with(data, json!({"accountId": person.mail_account}));
        }
    }
    data
}

fn too_many_attempts(
    rng: &mut impl Rng,
    person: &Person,
    at: Timestamp,
    profile: StalwartProfile,
) -> Vec<StalwartEvent> {
    let cause = json!({
        "type": "auth.failed",
        "data": {
            "accountName": person.email,
            "accountId": person.mail_account,
            "spanId": span(rng),
            "reason": "Authentication failed",
            "remoteIp": "192.0.2.77",
        },
    });
    let last = with(connection(rng, "192.0.2.77"), json!({ "causedBy": cause }));
    let mut events: Vec<StalwartEvent> = (0..rng.random_range(2..5))
        .map(|_| StalwartEvent::new(at, "auth.failed", failed_login(rng, person, profile)))
        .collect();
    events.push(StalwartEvent::new(at, "auth.too-many-attempts", last));
    events
}

fn ban(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Vec<StalwartEvent> {
    let ip = format!("192.0.2.{}", rng.random_range(1..255));
    let id = hex_token(rng, 4).to_uppercase();
    let mut events = vec![StalwartEvent::new(
        at,
        "security.authentication-ban",
        json!({"remoteIp": ip, "accountName": person.email, "id": id}),
    )];
    for _ in 0..rng.random_range(0..3) {
        let mut blocked = connection(rng, &ip);
        if let Some(blocked) = blocked.as_object_mut() {
            blocked.remove("spanId");
        }
        events.push(StalwartEvent::new(at, "security.ip-blocked", blocked));
    }
    events
}

fn queued(rng: &mut impl Rng, at: Timestamp, from: &str, to: &str) -> Value {
    let later = |hours: i64| {
        whole_seconds(
            at.checked_add(SignedDuration::from_hours(hours))
                .unwrap_or(at),
        )
    };
    json!({
        "queueId": span(rng),
        "from": from,
        "to": [to],
        "size": rng.random_range(180..80_000),
        "nextRetry": later(0),
        "nextDsn": later(24),
        "expires": later(72),
    })
}

fn delivery(queued: &Value, span: u64, queue: &str, to: &str, more: Value) -> Value {
    with(
        json!({
            "spanId": span,
            "queueId": queued["queueId"],
            "queueName": queue,
            "from": queued["from"],
            "to": to,
            "size": queued["size"],
            "total": 1,
        }),
        more,
    )
}

fn delivered(
    rng: &mut impl Rng,
    people: &People,
    person: &Person,
    at: Timestamp,
    profile: StalwartProfile,
) -> Vec<StalwartEvent> {
    let other = people.colleague_of(rng, person);
    let message = queued(rng, at, &person.email, &other.email);
    let submission = with(connection(rng, &person.ip), message.clone());
    let kind = if profile == StalwartProfile::V0_15 {
        "queue.queue-message-authenticated"
    } else {
        "queue.authenticated-message-queued"
    };
    let span = span(rng);
    let ok = json!({"hostname": "localhost", "code": 250, "details": "OK"});
    let stored = json!({
        "accountId": other.mail_account,
        "documentId": rng.random_range(1..9_000),
        "mailboxId": [0],
        "blobId": hex_token(rng, 64),
        "changeId": rng.random_range(1..9_000),
        "messageId": format!("{}@{}", hex_token(rng, 12), "mail.platform.example"),
        "elapsed": 1,
        "to": [other.email],
    });
    vec![
        StalwartEvent::new(at, kind, submission),
        StalwartEvent::new(
            at,
            "message-ingest.ham",
            delivery(&message, span, "local", &other.email, stored),
        ),
        StalwartEvent::new(
            at,
            "delivery.dsn-success",
            delivery(&message, span, "local", &other.email, ok),
        ),
    ]
}

fn bounced(
    rng: &mut impl Rng,
    person: &Person,
    at: Timestamp,
    profile: StalwartProfile,
) -> Vec<StalwartEvent> {
    let to = "nobody@partner.example";
    let message = queued(rng, at, &person.email, to);
    let span = span(rng);
    let rejected = json!({
        "hostname": "mx.partner.example",
        "code": 550,
        "details": "No such user here",
        "elapsed": 0,
    });
    let failed = json!({
        "hostname": "mx.partner.example",
        "details": format!("Unexpected response for RCPT TO:<{to}>: Code: 550, Enhanced code: 5.1.1, Message: No such user here"),
        "total": 0,
    });
    let mut events = vec![
        StalwartEvent::new(
            at,
            "delivery.rcpt-to-rejected",
            delivery(&message, span, "remote", to, rejected),
        ),
        StalwartEvent::new(
            at,
            "delivery.dsn-perm-fail",
            delivery(&message, span, "remote", to, failed),
        ),
    ];
    if profile == StalwartProfile::V0_16 {
        let notice = queued(rng, at, "<>", &person.email);
        events.push(StalwartEvent::new(
            at,
            "queue.dsn-queued",
            with(notice, json!({ "spanId": span })),
        ));
    }
    events
}

fn forged(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Vec<StalwartEvent> {
    let domain = person.email.split('@').nth(1).unwrap_or_default();
    let outside = smtp_from_outside(rng);
    let dkim = json!({
        "strict": false,
        "result": [{
            "type": "dkim.neutral",
            "data": {
                "causedBy": {"type": "dkim.failed-body-hash-match", "data": {}},
                "domain": domain,
            },
        }],
        "elapsed": 0,
    });
    let dmarc = json!({
        "strict": false,
        "domain": domain,
        "policy": "reject",
        "result": {"type": "dmarc.none", "data": {}},
        "elapsed": 2,
    });
    vec![
        StalwartEvent::new(at, "smtp.dkim-fail", with(outside.clone(), dkim)),
        StalwartEvent::new(at, "smtp.dmarc-fail", with(outside, dmarc)),
    ]
}

fn spam(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Vec<StalwartEvent> {
    let message = queued(rng, at, "win@lottery.example", &person.email);
    let span = span(rng);
    let stored = json!({
        "accountId": person.mail_account,
        "documentId": rng.random_range(1..9_000),
        "mailboxId": [2],
        "blobId": hex_token(rng, 64),
        "messageId": format!("{}@lottery.example", hex_token(rng, 12)),
        "elapsed": 1,
        "to": [person.email],
    });
    vec![StalwartEvent::new(
        at,
        "message-ingest.spam",
        delivery(&message, span, "local", &person.email, stored),
    )]
}

/// Two real events in one second that differ in nothing but their id.
fn twins(
    rng: &mut impl Rng,
    person: &Person,
    at: Timestamp,
    profile: StalwartProfile,
) -> Vec<StalwartEvent> {
    let twin = if profile == StalwartProfile::V0_16 {
        StalwartEvent::new(
            at,
            "auth.warning",
            json!({"accountName": person.username, "reason": "No domain in username"}),
        )
    } else {
        StalwartEvent::new(at, "auth.failed", failed_login(rng, person, profile))
    };
    vec![twin.clone(), twin]
}

fn refused(rng: &mut impl Rng) -> Value {
    with(smtp_from_outside(rng), json!({"to": "x@relay.example.com"}))
}

fn nobody(rng: &mut impl Rng, person: &Person) -> Value {
    let domain = person.email.split('@').nth(1).unwrap_or_default();
    with(
        smtp_from_outside(rng),
        json!({"to": format!("nosuch@{domain}")}),
    )
}
