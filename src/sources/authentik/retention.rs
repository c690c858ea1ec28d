//! Events that Authentik's retention may have removed before they could be read.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::batch::Entry;
use crate::event::{SourceName, Target};
use crate::sources::gap::gap_entry;

use super::walk::Unseen;

#[derive(Deserialize)]
struct Kept {
    created: Timestamp,
    expires: Option<Timestamp>,
}

/// Until when events may be gone, of those of a time in which none was seen. An event is kept for as
/// long as the retention says when it is made, so the new ones tell how long those before them were.
fn removed_until<'a>(
    unseen: Unseen,
    rows: impl Iterator<Item = &'a RawValue>,
) -> Option<Timestamp> {
    let removed = rows.filter_map(|row| {
        let kept: Kept = serde_json::from_str(row.get()).ok()?;
        let is_new = kept.created > unseen.since;
        let retention = kept.created.duration_until(kept.expires?);
        unseen.until.checked_sub(retention).ok().filter(|_| is_new)
    });
    removed.max().filter(|removed| *removed > unseen.since)
}

/// The entry that says so, if events may be lost. `rows` are those of the head that showed something
/// new.
pub(super) fn gap<'a>(
    unseen: Unseen,
    rows: impl Iterator<Item = &'a RawValue>,
    source: &SourceName,
    found_at: Timestamp,
) -> Option<Entry> {
    let removed_until = removed_until(unseen, rows)?;
    let target = Target {
        kind: Some("source".into()),
        id: Some(source.as_str().into()),
        name: None,
    };
    let details =
        json!({ "reason": "retention", "fromTime": unseen.since, "toTime": removed_until });
    let external_id = format!("gap:{}", unseen.since);
    Some(gap_entry(source, found_at, external_id, target, details))
}
