//! What each known action is called in words, and which icon stands before it.

/// An icon: the name of a drawing in `layout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icon {
    /// Somebody came in.
    Enter,
    /// Somebody left.
    Leave,
    /// Secrets and passwords.
    Key,
    /// Refusals, bans, suspicion.
    Shield,
    /// One account.
    Person,
    /// A group.
    People,
    /// A file.
    File,
    /// A folder or a space.
    Folder,
    /// Something shared.
    Share,
    /// Something gone.
    Trash,
    /// Mail.
    Mail,
    /// An application.
    App,
    /// The machinery.
    Gear,
    /// Something a person should look at.
    Alert,
    /// Anything else.
    Dot,
}

impl Icon {
    /// Every icon.
    pub const ALL: [Self; 15] = [
        Self::Enter,
        Self::Leave,
        Self::Key,
        Self::Shield,
        Self::Person,
        Self::People,
        Self::File,
        Self::Folder,
        Self::Share,
        Self::Trash,
        Self::Mail,
        Self::App,
        Self::Gear,
        Self::Alert,
        Self::Dot,
    ];

    /// Its drawing's id, and the path that draws it in a square of 16.
    pub fn drawing(self) -> (&'static str, &'static str) {
        match self {
            Self::Enter => (
                "i-enter",
                "M9.5 2.5h3a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-3M2.5 8h7M7 5.2 9.8 8 7 10.8",
            ),
            Self::Leave => (
                "i-leave",
                "M6.5 2.5h-3a1 1 0 0 0-1 1v9a1 1 0 0 0 1 1h3M6.5 8h7M10.7 5.2 13.5 8l-2.8 2.8",
            ),
            Self::Key => (
                "i-key",
                "M8.3 7.7l5-5M11.4 4.6l1.9 1.9M8.7 10.4a3 3 0 1 1-6 0 3 3 0 0 1 6 0z",
            ),
            Self::Shield => (
                "i-shield",
                "M8 1.8l5 1.9v3.9c0 3-2 5.3-5 6.6-3-1.3-5-3.6-5-6.6V3.7zM6 6l4 4M10 6l-4 4",
            ),
            Self::Person => (
                "i-person",
                "M10.6 5a2.6 2.6 0 1 1-5.2 0 2.6 2.6 0 0 1 5.2 0zM3 13.6c.5-2.7 2.4-4 5-4s4.5 1.3 5 4",
            ),
            Self::People => (
                "i-people",
                "M8 5.4a2.2 2.2 0 1 1-4.4 0 2.2 2.2 0 0 1 4.4 0zM1.8 13c.4-2.4 1.8-3.6 4-3.6s3.6 1.2 4 3.6M10.3 3.4a2.2 2.2 0 0 1 0 4M11.6 9.7c1.5.4 2.3 1.5 2.6 3.3",
            ),
            Self::File => ("i-file", "M4 1.8h5l3 3v9.4H4zM9 1.8v3h3"),
            Self::Folder => ("i-folder", "M1.8 12.8V3.4h4.4l1.5 1.8h6.5v7.6z"),
            Self::Share => (
                "i-share",
                "M6.6 9.4a2.7 2.7 0 0 0 3.9 0l2.3-2.3a2.7 2.7 0 0 0-3.9-3.9l-.8.8M9.4 6.6a2.7 2.7 0 0 0-3.9 0L3.2 8.9a2.7 2.7 0 0 0 3.9 3.9l.8-.8",
            ),
            Self::Trash => (
                "i-trash",
                "M2.5 4.2h11M6 4V2.3h4V4M4 4.2l.6 9.5h6.8l.6-9.5M6.7 6.8v4.5M9.3 6.8v4.5",
            ),
            Self::Mail => ("i-mail", "M1.8 3.5h12.4v9H1.8zM2 4l6 5 6-5"),
            Self::App => (
                "i-app",
                "M2.3 2.3h4.6v4.6H2.3zM9.1 2.3h4.6v4.6H9.1zM2.3 9.1h4.6v4.6H2.3zM9.1 9.1h4.6v4.6H9.1z",
            ),
            Self::Gear => (
                "i-gear",
                "M10.2 8a2.2 2.2 0 1 1-4.4 0 2.2 2.2 0 0 1 4.4 0zM8 1.7v2.1M8 12.2v2.1M1.7 8h2.1M12.2 8h2.1M3.5 3.5 5 5M11 11l1.5 1.5M12.5 3.5 11 5M5 11l-1.5 1.5",
            ),
            Self::Alert => ("i-alert", "M8 2 14.3 13.5H1.7zM8 6.2v3.6M8 11.4v.3"),
            Self::Dot => ("i-dot", "M10.8 8a2.8 2.8 0 1 1-5.6 0 2.8 2.8 0 0 1 5.6 0z"),
        }
    }
}

/// An action in words.
pub(super) struct Phrase {
    /// Which action.
    pub action: &'static str,
    /// What stands before it.
    pub icon: Icon,
    /// With `{actor}` and `{target|otherwise}`.
    pub sentence: &'static str,
    /// For an event that names no actor.
    pub without_actor: Option<&'static str>,
}

const fn by(action: &'static str, icon: Icon, sentence: &'static str) -> Phrase {
    Phrase {
        action,
        icon,
        sentence,
        without_actor: None,
    }
}

const fn or(
    action: &'static str,
    icon: Icon,
    sentence: &'static str,
    without_actor: &'static str,
) -> Phrase {
    Phrase {
        action,
        icon,
        sentence,
        without_actor: Some(without_actor),
    }
}

/// Sorted by action.
#[rustfmt::skip]
pub(super) const PHRASES: &[Phrase] = &[
    or("authentik.application_authorized", Icon::App, "{actor} opened {target|an application}", "{target|An application} was opened"),
    or("authentik.configuration_error_detected", Icon::Alert, "Authentik found an error in its configuration while serving {actor}", "Authentik found an error in its configuration"),
    or("authentik.configuration_warning_detected", Icon::Alert, "Authentik warned about its configuration while serving {actor}", "Authentik warned about its configuration"),
    or("authentik.email_sent", Icon::Mail, "Authentik sent mail to {target|someone}, caused by {actor}", "Authentik sent mail to {target|someone}"),
    or("authentik.export_completed", Icon::File, "{actor} exported {target|data} from Authentik", "An export of {target|data} from Authentik was completed"),
    or("authentik.flow_executed", Icon::Gear, "{actor} went through the flow {target|of a sign-in}", "The flow {target|of a sign-in} was executed"),
    by("authentik.impersonation_ended", Icon::Person, "{actor} stopped acting as {target|another user}"),
    by("authentik.impersonation_started", Icon::Person, "{actor} began to act as {target|another user}"),
    or("authentik.invitation_created", Icon::Mail, "{actor} created the invitation {target|for someone}", "The invitation {target|for someone} was created"),
    or("authentik.invitation_used", Icon::Enter, "{actor} accepted {target|an invitation}", "{target|An invitation} was used"),
    by("authentik.login", Icon::Enter, "{actor} signed in"),
    or("authentik.login_failed", Icon::Shield, "{actor} failed to sign in", "Someone failed to sign in as {target|an unknown user}"),
    by("authentik.logout", Icon::Leave, "{actor} signed out"),
    or("authentik.password_changed", Icon::Key, "{actor} changed the password of {target|an account}", "The password of {target|an account} was changed"),
    or("authentik.policy_executed", Icon::Gear, "A policy decided about {actor}", "A policy was executed"),
    or("authentik.policy_failed", Icon::Alert, "A policy broke while it decided about {actor}", "A policy broke"),
    or("authentik.property_mapping_failed", Icon::Alert, "A property mapping broke for {actor}", "A property mapping broke"),
    or("authentik.review_attested", Icon::Shield, "{actor} attested the review of {target|an object}", "The review of {target|an object} was attested"),
    by("authentik.review_became_overdue", Icon::Alert, "The review of {target|an object} is overdue"),
    or("authentik.review_completed", Icon::Shield, "{actor} completed the review of {target|an object}", "The review of {target|an object} was completed"),
    or("authentik.review_initiated", Icon::Shield, "{actor} opened the review of {target|an object}", "The review of {target|an object} was opened"),
    or("authentik.secret_rotated", Icon::Key, "{actor} renewed the secret {target|of a token}", "The secret {target|of a token} was renewed"),
    or("authentik.secret_viewed", Icon::Key, "{actor} looked at the secret {target|of a token}", "The secret {target|of a token} was looked at"),
    or("authentik.source_linked", Icon::Share, "{actor} linked an account of {target|another identity source}", "An account of {target|another identity source} was linked"),
    or("authentik.suspicious_request_detected", Icon::Shield, "Authentik refused a suspicious request of {actor}", "Authentik refused a suspicious request"),
    by("authentik.system_failed", Icon::Alert, "Authentik broke"),
    by("authentik.system_task_executed", Icon::Gear, "Authentik ran the task {target|of its own}"),
    by("authentik.system_task_failed", Icon::Alert, "Authentik failed to run the task {target|of its own}"),
    by("authentik.update_announced", Icon::Gear, "Authentik can be updated to {target|a newer version}"),
    or("authentik.user_lockdown_triggered", Icon::Shield, "{actor} locked {target|a user} out", "{target|A user} was locked out"),
    or("authentik.user_written", Icon::Person, "{actor} saved the account of {target|a user}", "The account of {target|a user} was saved"),
    or("daybook.configuration_reloaded", Icon::Gear, "{actor} made Daybook take over a changed configuration", "Daybook took over a changed configuration"),
    or("daybook.export_started", Icon::File, "{actor} began to export events of this timeline", "Someone began to export events of this timeline"),
    or("daybook.exported", Icon::File, "{actor} exported events of this timeline", "Events of this timeline were exported"),
    by("daybook.gap_detected", Icon::Alert, "Part of {target|a source} was gone before it could be read"),
    or("daybook.sign_in_failed", Icon::Shield, "{actor} failed to sign in to this timeline", "Someone failed to sign in to this timeline"),
    or("daybook.signed_in", Icon::Enter, "{actor} signed in to this timeline", "Someone signed in to this timeline"),
    or("daybook.signed_out", Icon::Leave, "{actor} signed out of this timeline", "Someone signed out of this timeline"),
    or("daybook.source_replayed", Icon::Gear, "{actor} had the source {target|of events} read again", "The source {target|of events} is read again"),
    or("daybook.token_created", Icon::Key, "{actor} made the token {target|without a name} for Daybook", "The token {target|without a name} for Daybook was made"),
    by("ocis.container_create", Icon::Folder, "{actor} created the folder {target|somewhere}"),
    or("ocis.file_create", Icon::File, "{actor} uploaded {target|a file}", "{target|A file} was uploaded"),
    by("ocis.file_delete", Icon::Trash, "{actor} moved {target|a file} to the trash"),
    by("ocis.file_read", Icon::File, "{actor} downloaded {target|a file}"),
    by("ocis.file_rename", Icon::File, "{actor} moved or renamed {target|a file}"),
    by("ocis.file_shared", Icon::Share, "{actor} shared {target|a file}"),
    by("ocis.file_tags_add", Icon::File, "{actor} tagged {target|a file}"),
    by("ocis.file_tags_remove", Icon::File, "{actor} removed tags from {target|a file}"),
    // The server names the space only.
    by("ocis.file_trash_delete", Icon::Trash, "{actor} deleted something in the trash for good"),
    by("ocis.file_trash_restore", Icon::File, "{actor} brought {target|a file} back from the trash"),
    by("ocis.file_unshared", Icon::Share, "{actor} stopped sharing {target|a file}"),
    by("ocis.file_version_restore", Icon::File, "{actor} restored an older version of {target|a file}"),
    by("ocis.file_viewed", Icon::File, "{actor} viewed {target|a file}"),
    by("ocis.group_created", Icon::People, "{actor} created the {target|group}"),
    by("ocis.group_deleted", Icon::Trash, "{actor} deleted the {target|group}"),
    by("ocis.group_member_added", Icon::People, "{actor} added a member to the {target|group}"),
    by("ocis.group_member_removed", Icon::People, "{actor} removed a member from the {target|group}"),
    or("ocis.public_link_accessed", Icon::Share, "{actor} opened the public {target|link}", "Someone opened the public {target|link}"),
    by("ocis.science_mesh_invite_token_generated", Icon::Share, "{actor} made an invitation for another installation: {target|without a description}"),
    or("ocis.share_accepted", Icon::Share, "{actor} accepted the {target|share}", "The {target|share} was accepted"),
    or("ocis.share_declined", Icon::Share, "{actor} declined the {target|share}", "The {target|share} was declined"),
    by("ocis.share_expiration_updated", Icon::Share, "{actor} changed when the {target|share} ends"),
    by("ocis.share_name_updated", Icon::Share, "{actor} renamed the {target|share}"),
    by("ocis.share_password_updated", Icon::Key, "{actor} changed the password of the {target|share}"),
    by("ocis.share_permission_updated", Icon::Share, "{actor} changed what the {target|share} allows"),
    or("ocis.share_state_changed", Icon::Share, "{actor} declined the {target|share} or changed its state", "The {target|share} was declined or its state changed"),
    by("ocis.share_updated", Icon::Share, "{actor} changed the {target|share}"),
    by("ocis.space_created", Icon::Folder, "{actor} created the space {target|without a name}"),
    by("ocis.space_deleted", Icon::Trash, "{actor} deleted {target|a space}"),
    by("ocis.space_disabled", Icon::Folder, "{actor} disabled {target|a space}"),
    by("ocis.space_enabled", Icon::Folder, "{actor} enabled {target|a space} again"),
    by("ocis.space_renamed", Icon::Folder, "{actor} renamed a space to {target|another name}"),
    by("ocis.space_shared", Icon::Share, "{actor} added a member to {target|a space}"),
    by("ocis.space_unshared", Icon::Share, "{actor} removed a member from {target|a space}"),
    by("ocis.space_updated", Icon::Folder, "{actor} changed the space {target|settings}"),
    by("ocis.user_created", Icon::Person, "{actor} created the {target|user}"),
    by("ocis.user_deleted", Icon::Trash, "{actor} deleted the {target|user}"),
    by("ocis.user_feature_changed", Icon::Person, "{actor} changed the {target|user}"),
    by("stalwart.account_changed", Icon::Person, "{actor} changed an account"),
    or("stalwart.account_created", Icon::Person, "{actor} created the mail account {target|of someone}", "The mail account {target|of someone} was created"),
    or("stalwart.account_deleted", Icon::Trash, "{actor} deleted the mail account {target|of someone}", "The mail account {target|of someone} was deleted"),
    or("stalwart.auth_banned", Icon::Shield, "{target|An address} was banned after trying {actor}", "{target|An address} was banned"),
    or("stalwart.auth_failed", Icon::Shield, "{actor} failed to sign in", "Someone failed to sign in"),
    or("stalwart.auth_success", Icon::Enter, "{actor} signed in to mail", "Someone signed in to mail"),
    or("stalwart.delivery_delivered", Icon::Mail, "Mail from {actor} was handed over to {target|its recipient}", "Mail was handed over to {target|its recipient}"),
    or("stalwart.dkim_failure", Icon::Shield, "Mail from {actor} to {target|someone} came in with a wrong signature", "Mail with a wrong signature came in"),
    or("stalwart.dmarc_failure", Icon::Shield, "Mail in the name of {target|a domain}, sent by {actor}, did not pass its DMARC check", "Mail in the name of {target|a domain} did not pass its DMARC check"),
    or("stalwart.mail_delivered", Icon::Mail, "Mail from {actor} reached {target|its recipient}", "Mail reached {target|its recipient}"),
    or("stalwart.mail_failed", Icon::Mail, "Mail from {actor} could not be delivered to {target|its recipient}", "Mail could not be delivered to {target|its recipient}"),
    or("stalwart.mail_received", Icon::Mail, "Mail from {actor} came in for {target|someone}", "Mail came in for {target|someone}"),
    or("stalwart.mail_rejected", Icon::Mail, "Mail from {actor} to {target|someone} was rejected", "Mail to {target|someone} was rejected"),
    or("stalwart.password_changed", Icon::Key, "{actor} changed a password of mail", "The mail password of {target|an account} was changed"),
    or("stalwart.policy_rejection", Icon::Shield, "Mail from {actor} to {target|someone} was refused by policy", "Mail to {target|someone} was refused by policy"),
    or("stalwart.queue_authenticated_message_queued", Icon::Mail, "{actor} sent mail to {target|someone}", "Mail to {target|someone} was sent"),
    or("stalwart.queue_dsn_queued", Icon::Mail, "A report about mail to {target|someone} is under way to {actor}", "A delivery report is under way to {target|someone}"),
    // The names that 0.15 gives to these two.
    or("stalwart.queue_queue_dsn", Icon::Mail, "A report about mail to {target|someone} is under way to {actor}", "A delivery report is under way to {target|someone}"),
    or("stalwart.queue_queue_message_authenticated", Icon::Mail, "{actor} sent mail to {target|someone}", "Mail to {target|someone} was sent"),
    by("stalwart.security_ip_blocked", Icon::Shield, "A banned client tried to connect"),
    or("stalwart.spam_detected", Icon::Mail, "Mail from {actor} to {target|someone} was spam", "Mail to {target|someone} was spam"),
];
