//! An event as one JSON object, and back: what a dead letter holds of an event that was decoded and
//! could not be entered, so that nothing is missing when it is tried again.
//!
//! The payload is read apart from the rest: standing within another object it would be one level
//! deeper than when it came, and a parser that took it then might not take it now.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Actor, AuditEvent, Outcome, Payload, SourceName, Target, TenantHints};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    at: Timestamp,
    source: &'a str,
    external_id: &'a str,
    action: &'a str,
    outcome: Option<Outcome>,
    actor: &'a Actor,
    target: &'a Target,
    tenant_slug: Option<&'a str>,
    hints: &'a TenantHints,
    metadata: &'a Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read<'a> {
    at: Timestamp,
    source: String,
    external_id: String,
    action: String,
    outcome: Option<Outcome>,
    actor: Actor,
    target: Target,
    tenant_slug: Option<String>,
    hints: TenantHints,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The event and what it tells about its tenant, as JSON.
///
/// # Errors
/// When the payload is no JSON, which no decoder makes.
pub fn write(event: &AuditEvent, hints: &TenantHints) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Written {
        at: event.at,
        source: event.source.as_str(),
        external_id: &event.external_id,
        action: &event.action,
        outcome: event.outcome,
        actor: &event.actor,
        target: &event.target,
        tenant_slug: event.tenant_slug.as_deref(),
        hints,
        metadata: &event.metadata,
    })
}

/// What [`write()`] wrote.
///
/// # Errors
/// When it is anything else.
pub fn read(json: &[u8]) -> serde_json::Result<(AuditEvent, TenantHints)> {
    let read: Read<'_> = serde_json::from_slice(json)?;
    let event = AuditEvent {
        at: read.at,
        source: SourceName::new(&read.source),
        external_id: read.external_id,
        action: read.action.into(),
        outcome: read.outcome,
        actor: read.actor,
        target: read.target,
        tenant_slug: read.tenant_slug,
        metadata: super::json::object(read.metadata.get())?.into(),
    };
    Ok((event, read.hints))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::SpaceLesson;

    fn event(metadata: Value) -> AuditEvent {
        AuditEvent {
            at: "2026-11-24T04:05:39.123Z".parse().unwrap(),
            source: SourceName::new("mail \u{202e}"),
            external_id: "a-1".to_owned(),
            action: "stalwart.auth_failed".into(),
            outcome: Some(Outcome::Failure),
            actor: Actor {
                email: Some("alice@example.org".into()),
                ..Actor::default()
            },
            target: Target::default(),
            tenant_slug: Some("acme".to_owned()),
            metadata: metadata.as_object().unwrap().clone().into(),
        }
    }

    #[test]
    fn everything_comes_back() {
        let hints = TenantHints {
            groups: vec!["acme".into()],
            spaces: vec!["s".into()],
            learn: Some(SpaceLesson {
                space: "s".into(),
                owner: None,
                name: Some("S".into()),
            }),
            ..TenantHints::default()
        };
        let payload = r#"{"big":18446744073709551616,"exact":1.10,"$key.x":"a\u0000b","n":null}"#;
        let event = event(serde_json::from_str(payload).unwrap());
        let json = write(&event, &hints).unwrap();
        assert_eq!(read(&json).unwrap(), (event, hints));
    }

    #[test]
    fn the_deepest_payload_a_decoder_takes_comes_back() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(126), "]".repeat(126));
        let event = event(serde_json::from_str(&deep).unwrap());
        let json = write(&event, &TenantHints::default()).unwrap();
        assert_eq!(read(&json).unwrap().0, event);
    }

    #[test]
    fn anything_else_is_refused() {
        let whole = write(&event(json!({})), &TenantHints::default()).unwrap();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(read(br#"{"type":"auth.failed","createdAt":"2026-11-24T04:05:39Z"}"#).is_err());
    }
}
