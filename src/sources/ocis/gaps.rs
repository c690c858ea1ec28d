//! Bytes of the log that were destroyed before they could be read.

use jiff::Timestamp;
use serde_json::json;

use crate::batch::Entry;
use crate::event::{SourceName, Target};
use crate::sources::gap::gap_entry;
use crate::tail::{FileEvent, GapReason};

/// An entry for every gap among these.
pub(super) fn gap_entries(
    events: &[FileEvent],
    source: &SourceName,
    read_at: Timestamp,
) -> Vec<Entry> {
    events
        .iter()
        .filter_map(|event| entry_of(event, source, read_at))
        .collect()
}

fn entry_of(event: &FileEvent, source: &SourceName, read_at: Timestamp) -> Option<Entry> {
    let FileEvent::Gap {
        file_key,
        inode,
        modified,
        from,
        to,
        why,
    } = event
    else {
        return None;
    };
    // Without a key an inode's number has to do, which is used again.
    let file = file_key
        .as_deref()
        .map_or_else(|| format!("{inode}-{modified}"), str::to_owned);
    let external_id = match (why, file_key, to) {
        // The next line or a restart may find it once more.
        (
            GapReason::Compressed {
                inode, modified, ..
            },
            ..,
        ) => format!("gap:{inode}-{modified}:0"),
        (_, None, Some(to)) => format!("gap:{file}:{from}-{to}"),
        _ => format!("gap:{file}:{from}"),
    };
    let mut details = json!({ "reason": why.as_str(), "file": file, "inode": inode, "fromByte": from, "toByte": to });
    if let GapReason::Compressed { name, .. } = why {
        details["name"] = json!(name);
    }
    let target = Target {
        kind: Some("file".into()),
        id: Some(file.into()),
        name: None,
    };
    Some(gap_entry(source, read_at, external_id, target, details))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::event::AuditEvent;

    fn event(gap: FileEvent) -> AuditEvent {
        let source = SourceName::new("ocis");
        let entry = entry_of(&gap, &source, Timestamp::UNIX_EPOCH).unwrap();
        let Entry::Event(event, _) = entry else {
            panic!("a gap is an event");
        };
        *event
    }

    #[test]
    fn gaps_without_a_key_are_told_apart_though_they_have_one_inode() {
        let gap = |modified, to, why| FileEvent::Gap {
            file_key: None,
            inode: 7,
            modified,
            from: 0,
            to,
            why,
        };
        let compressed = |modified| {
            let name = "audit.log.2.gz".into();
            let why = GapReason::Compressed {
                name,
                inode: 7,
                modified,
            };
            gap(modified, None, why)
        };
        let vanished = |modified| gap(modified, Some(100), GapReason::Vanished);
        for [first, again, other] in [
            [compressed(1), compressed(1), compressed(2)],
            [vanished(1), vanished(1), vanished(2)],
        ] {
            let [first, again, other] = [first, again, other].map(event);
            assert_eq!(first.external_id, again.external_id);
            assert_ne!(first.external_id, other.external_id);
        }
        let named = event(compressed(1));
        assert_eq!(named.metadata["name"], "audit.log.2.gz");
        assert_eq!(named.metadata["inode"], 7);
    }

    #[test]
    fn a_compressed_file_that_is_found_again_is_one_gap() {
        let gap = |file_key: Option<&str>, inode, from| {
            event(FileEvent::Gap {
                file_key: file_key.map(Into::into),
                inode,
                modified: 1,
                from,
                to: None,
                why: GapReason::Compressed {
                    name: "audit.log.1.gz".into(),
                    inode: 7,
                    modified: 1,
                },
            })
        };
        let [first, again] = [gap(Some("5-aa"), 5, 4), gap(None, 7, 0)];
        assert_eq!(first.external_id, again.external_id);
        assert_eq!(first.metadata["file"], "5-aa");
        assert_eq!(first.metadata["fromByte"], 4);
    }
}
