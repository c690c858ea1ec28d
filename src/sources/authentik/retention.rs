//! Events that Authentik's retention may have removed before they could be read.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::batch::Entry;
use crate::event::{SourceName, Target};
use crate::sources::gap::gap_entry;

/// What a head tells: everything up to `known_until` was known before it, and these are its rows.
pub(super) struct HeadRows<'a> {
    pub(super) rows: &'a [&'a RawValue],
    pub(super) known_until: Timestamp,
    /// The server's clock.
    pub(super) now: Timestamp,
}

#[derive(Deserialize)]
struct Kept {
    created: Timestamp,
    expires: Option<Timestamp>,
}

impl HeadRows<'_> {
    /// Until when events may be gone, of those after what was known. An event is kept for as long as
    /// the retention says when it is made, so the new ones tell how long those before them were.
    fn removed_until(&self) -> Option<Timestamp> {
        let kept = self.rows.iter().filter_map(|row| {
            let kept: Kept = serde_json::from_str(row.get()).ok()?;
            let is_new = kept.created > self.known_until;
            let retention = kept.created.duration_until(kept.expires?);
            self.now.checked_sub(retention).ok().filter(|_| is_new)
        });
        kept.max().filter(|removed| *removed > self.known_until)
    }

    /// The entry that says so, if events may be lost.
    pub(super) fn gap(&self, source: &SourceName, found_at: Timestamp) -> Option<Entry> {
        let removed_until = self.removed_until()?;
        let known_until = self.known_until;
        let target = Target {
            kind: Some("source".into()),
            id: Some(source.as_str().into()),
            name: None,
        };
        let details =
            json!({ "reason": "retention", "fromTime": known_until, "toTime": removed_until });
        let external_id = format!("gap:{known_until}");
        Some(gap_entry(source, found_at, external_id, target, details))
    }
}
