//! Which events the security dashboard counts: a closed list, so that no source and no sender can
//! make new series.

use crate::event::AuditEvent;

/// A file or folder shared by a public link, which is the action `ocis.file_shared` for OCIS.
const LINK_SHARED: &str = "ocis.link_shared";

/// The values of the label `action` of `daybook_security_events_total`, all of them.
pub const ACTIONS: &[&str] = &[
    "authentik.application_authorized",
    "authentik.configuration_error_detected",
    "authentik.group_updated",
    "authentik.impersonation_started",
    "authentik.login",
    "authentik.login_failed",
    "authentik.password_changed",
    "authentik.policy_failed",
    "authentik.secret_rotated",
    "authentik.secret_viewed",
    "authentik.suspicious_request_detected",
    "authentik.user_created",
    "authentik.user_deleted",
    "authentik.user_lockdown_triggered",
    "daybook.gap_detected",
    "ocis.file_shared",
    "ocis.file_trash_delete",
    "ocis.group_member_added",
    LINK_SHARED,
    "ocis.share_password_updated",
    "ocis.share_permission_updated",
    "ocis.space_deleted",
    "ocis.space_shared",
    "ocis.user_created",
    "ocis.user_deleted",
    "stalwart.account_changed",
    "stalwart.auth_banned",
    "stalwart.auth_failed",
    "stalwart.auth_success",
    "stalwart.dkim_failure",
    "stalwart.dmarc_failure",
    "stalwart.password_changed",
    "stalwart.policy_rejection",
    "stalwart.spam_detected",
];

/// The label of an event, if it is one that is counted.
pub fn action_of(event: &AuditEvent) -> Option<&'static str> {
    let is_link = event.action == "ocis.file_shared"
        && event
            .target
            .kind
            .as_deref()
            .is_some_and(|kind| kind == "link");
    if is_link {
        return Some(LINK_SHARED);
    }
    let index = ACTIONS.binary_search(&&*event.action).ok()?;
    Some(ACTIONS[index])
}

/// The actions that a source of this kind may have, to declare their series.
pub(super) fn actions_of_kind(kind: &str) -> impl Iterator<Item = &'static str> {
    // What is pushed cannot tell that something was missed.
    let gaps = matches!(kind, "authentik" | "ocis").then_some("daybook.gap_detected");
    let own = ACTIONS.iter().copied().filter(move |action| {
        action
            .strip_prefix(kind)
            .is_some_and(|rest| rest.starts_with('.'))
    });
    own.chain(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_searched() {
        assert!(ACTIONS.is_sorted());
    }

    #[test]
    fn every_kind_that_says_such_things_has_series() {
        for kind in ["authentik", "ocis", "stalwart"] {
            assert!(actions_of_kind(kind).count() > 8, "{kind}");
        }
        assert_eq!(actions_of_kind("recorder").count(), 0);
        assert_eq!(actions_of_kind("journal").count(), 0);
    }
}
