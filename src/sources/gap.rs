//! What was lost is an event of its own: the timeline must say where it is not complete.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::batch::Entry;
use crate::event::{Actor, AuditEvent, Outcome, SourceName, Target, TenantHints, to_millis};

/// The entry that says so. `details` is an object.
pub(super) fn gap_entry(
    source: &SourceName,
    found_at: Timestamp,
    external_id: String,
    target: Target,
    details: Value,
) -> Entry {
    let metadata = match details {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    };
    let event = AuditEvent {
        at: to_millis(found_at),
        source: source.clone(),
        external_id,
        action: "daybook.gap_detected".into(),
        outcome: Some(Outcome::Unknown),
        actor: Actor::default(),
        target,
        tenant_slug: None,
        metadata: metadata.into(),
    };
    Entry::Event(Box::new(event), TenantHints::default())
}
