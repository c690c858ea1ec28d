//! Which actions ownCloud Infinite Scale and OpenCloud write, and what they mean here.
//!
//! The raw names are good names, so the verb of a known action is the action itself. Only the
//! empty action needs thought: versions before mid 2026 write it for every update of a user or
//! group share and for every change of a received share's state.

use bytestring::ByteString;

use super::record::{Record, key};
use crate::sources::text::lower_snake;

/// What a line says was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verb {
    /// `ocis.<verb>`.
    pub action: ByteString,
    /// How the verb was found.
    pub origin: Origin,
    /// Whether it changes nothing.
    pub is_read: bool,
}

/// How a verb was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The line names a known action.
    Known,
    /// The line names no action; its fields tell.
    Inferred,
    /// The line names an action that no version is known to write.
    Unknown,
}

impl Origin {
    /// The word that marks an event whose verb was not simply read; `None` for a known action.
    pub fn mark(self) -> Option<&'static str> {
        match self {
            Self::Known => None,
            Self::Inferred => Some("inferred"),
            Self::Unknown => Some("unknown"),
        }
    }
}

/// Names as the services write them, and with the prefix that they have here.
macro_rules! actions {
    ($(#[$doc:meta])* $names:ident, $prefixed:ident: $($name:literal,)*) => {
        $(#[$doc])*
        pub const $names: &[&str] = &[$($name),*];
        const $prefixed: &[&str] = &[$(concat!("ocis.", $name)),*];
    };
}

actions! {
    /// Every action that changes something.
    MUTATIONS, PREFIXED_MUTATIONS:
    "container_create",
    "file_create",
    "file_rename",
    "file_delete",
    "file_trash_delete",
    "file_trash_restore",
    "file_version_restore",
    "file_tags_add",
    "file_tags_remove",
    "file_shared",
    "file_unshared",
    "share_permission_updated",
    "share_expiration_updated",
    "share_name_updated",
    "share_password_updated",
    "share_updated",
    "share_accepted",
    "share_declined",
    "share_state_changed",
    "space_created",
    "space_renamed",
    "space_disabled",
    "space_enabled",
    "space_deleted",
    "space_shared",
    "space_unshared",
    "space_updated",
    "user_created",
    "user_deleted",
    "user_feature_changed",
    "group_created",
    "group_deleted",
    "group_member_added",
    "group_member_removed",
    "science_mesh_invite_token_generated",
}

actions! {
    /// Actions that change nothing.
    READS, PREFIXED_READS:
    "file_read",
    "file_viewed",
    "public_link_accessed",
}

/// The verb of a line.
pub fn verb(line: &impl Record, raw_action: &str) -> Verb {
    if raw_action.is_empty() {
        return inferred(line);
    }
    let known = |names: &[&str], prefixed: &[&'static str]| {
        let index = names.iter().position(|name| *name == raw_action)?;
        Some(ByteString::from_static(prefixed[index]))
    };
    let read = known(READS, PREFIXED_READS);
    let is_read = read.is_some();
    if let Some(action) = read.or_else(|| known(MUTATIONS, PREFIXED_MUTATIONS)) {
        return Verb {
            action,
            origin: Origin::Known,
            is_read,
        };
    }
    Verb {
        action: ["ocis.", &lower_snake(raw_action)].concat().into(),
        origin: Origin::Unknown,
        is_read: false,
    }
}

/// Only an update of a share names the share's owner; a received share names none.
fn inferred(line: &impl Record) -> Verb {
    let (action, origin) = if line.has(key!("ShareOwner")) {
        ("ocis.share_updated", Origin::Inferred)
    } else if line.has(key!("ShareID")) {
        ("ocis.share_state_changed", Origin::Inferred)
    } else {
        ("ocis.unknown", Origin::Unknown)
    };
    Verb {
        action: ByteString::from_static(action),
        origin,
        is_read: false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(line: Value, action: &str) -> Verb {
        verb(line.as_object().unwrap(), action)
    }

    #[test]
    fn there_are_thirty_five_mutations() {
        assert_eq!(MUTATIONS.len(), 35);
        for action in MUTATIONS {
            let verb = of(json!({}), action);
            assert_eq!(verb.action, format!("ocis.{action}"));
            assert_eq!((verb.origin, verb.is_read), (Origin::Known, false));
        }
        for action in READS {
            assert!(of(json!({}), action).is_read);
        }
    }

    #[test]
    fn an_empty_action_is_told_by_the_fields() {
        assert_eq!(
            of(json!({"ShareOwner": "", "ShareID": "x"}), "").action,
            "ocis.share_updated"
        );
        assert_eq!(
            of(json!({"ShareID": "x"}), "").action,
            "ocis.share_state_changed"
        );
        assert_eq!(of(json!({}), "").action, "ocis.unknown");
        assert_eq!(of(json!({}), "").origin, Origin::Unknown);
    }

    #[test]
    fn an_unknown_action_is_kept() {
        let verb = of(json!({}), "Lock.Broken");
        assert_eq!(
            (&*verb.action, verb.origin),
            ("ocis.lock_broken", Origin::Unknown)
        );
    }
}
