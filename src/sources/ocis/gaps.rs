//! What was lost is an event of its own: the timeline must say where it is not complete.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::batch::Entry;
use crate::event::{Actor, AuditEvent, Outcome, SourceName, Target, TenantHints, to_millis};
use crate::tail::FileEvent;

/// An event for every gap among these.
pub(super) fn gap_entries(
    events: &[FileEvent],
    source: &SourceName,
    read_at: Timestamp,
) -> Vec<Entry> {
    events
        .iter()
        .filter_map(|event| gap_event(event, source, read_at))
        .map(|event| Entry::Event(Box::new(event), TenantHints::default()))
        .collect()
}

fn gap_event(event: &FileEvent, source: &SourceName, read_at: Timestamp) -> Option<AuditEvent> {
    let FileEvent::Gap {
        file_key,
        inode,
        from,
        to,
        why,
    } = event
    else {
        return None;
    };
    let file = file_key
        .as_deref()
        .map_or_else(|| inode.to_string(), str::to_owned);
    // Without a key an inode's number, which is used again, has to do; the length tells more.
    let external_id = match (file_key, to) {
        (None, Some(to)) => format!("gap:{file}:{from}-{to}"),
        _ => format!("gap:{file}:{from}"),
    };
    let details = json!({ "reason": why.as_str(), "file": file, "inode": inode, "fromByte": from, "toByte": to });
    let metadata = match details {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    };
    Some(AuditEvent {
        at: to_millis(read_at),
        source: source.clone(),
        external_id,
        action: "daybook.gap_detected".into(),
        outcome: Some(Outcome::Unknown),
        actor: Actor::default(),
        target: Target {
            kind: Some("file".into()),
            id: Some(file.into()),
            name: None,
        },
        tenant_slug: None,
        metadata: metadata.into(),
    })
}
