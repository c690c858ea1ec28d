//! Every shape of line that the audit service writes.
//!
//! Where versions differ, the older way is followed that the measured servers show (an empty
//! `User` on most lines, swapped ids in group messages); actions that only newer ones write have
//! shapes of their own.

use jiff::{SignedDuration, Timestamp};
use rand::Rng;

use super::compose::Scene;
use super::line::OcisLine;
use crate::simulators::people::People;
use crate::simulators::whole_seconds;

/// Which thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "the names are those of the bus events behind the lines"
)]
pub enum Shape {
    ContainerCreated,
    FileUploaded,
    FileDownloaded,
    ItemMoved,
    ItemTrashed,
    ItemPurged,
    ItemRestored,
    FileVersionRestored,
    TagsAdded,
    TagsRemoved,
    ShareCreated,
    ShareCreatedForGroup,
    LinkCreated,
    /// Up to mid 2026: an empty `Action`.
    ShareUpdatedUnnamed,
    ShareUpdated,
    LinkPermissionUpdated,
    LinkNameUpdated,
    LinkPasswordUpdated,
    LinkExpirationUpdated,
    /// An unknown field, up to mid 2026: an empty `Action`.
    LinkUpdatedUnnamed,
    ShareRemoved,
    LinkRemoved,
    ShareAccepted,
    /// Up to mid 2026: an empty `Action` and an empty `Message`.
    ShareStateUnnamed,
    ShareDeclined,
    ShareStateChanged,
    LinkAccessed,
    LinkAccessFailed,
    SpaceCreated,
    PersonalSpaceCreated,
    SpaceRenamed,
    SpaceDisabled,
    SpaceEnabled,
    SpaceDeleted,
    SpaceShared,
    SpaceUnshared,
    SpaceUpdated,
    UserCreated,
    UserDeleted,
    UserFeatureChanged,
    UserPasswordChanged,
    /// `Features` is null.
    UserNothingChanged,
    GroupCreated,
    GroupDeleted,
    GroupMemberAdded,
    GroupMemberRemoved,
    InviteGenerated,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 47] = [
        Self::ContainerCreated,
        Self::FileUploaded,
        Self::FileDownloaded,
        Self::ItemMoved,
        Self::ItemTrashed,
        Self::ItemPurged,
        Self::ItemRestored,
        Self::FileVersionRestored,
        Self::TagsAdded,
        Self::TagsRemoved,
        Self::ShareCreated,
        Self::ShareCreatedForGroup,
        Self::LinkCreated,
        Self::ShareUpdatedUnnamed,
        Self::ShareUpdated,
        Self::LinkPermissionUpdated,
        Self::LinkNameUpdated,
        Self::LinkPasswordUpdated,
        Self::LinkExpirationUpdated,
        Self::LinkUpdatedUnnamed,
        Self::ShareRemoved,
        Self::LinkRemoved,
        Self::ShareAccepted,
        Self::ShareStateUnnamed,
        Self::ShareDeclined,
        Self::ShareStateChanged,
        Self::LinkAccessed,
        Self::LinkAccessFailed,
        Self::SpaceCreated,
        Self::PersonalSpaceCreated,
        Self::SpaceRenamed,
        Self::SpaceDisabled,
        Self::SpaceEnabled,
        Self::SpaceDeleted,
        Self::SpaceShared,
        Self::SpaceUnshared,
        Self::SpaceUpdated,
        Self::UserCreated,
        Self::UserDeleted,
        Self::UserFeatureChanged,
        Self::UserPasswordChanged,
        Self::UserNothingChanged,
        Self::GroupCreated,
        Self::GroupDeleted,
        Self::GroupMemberAdded,
        Self::GroupMemberRemoved,
        Self::InviteGenerated,
    ];

    /// Its `Action`, empty where the original leaves it so.
    pub fn action(self) -> &'static str {
        match self {
            Self::ContainerCreated => "container_create",
            Self::FileUploaded => "file_create",
            Self::FileDownloaded => "file_read",
            Self::ItemMoved => "file_rename",
            Self::ItemTrashed => "file_delete",
            Self::ItemPurged => "file_trash_delete",
            Self::ItemRestored => "file_trash_restore",
            Self::FileVersionRestored => "file_version_restore",
            Self::TagsAdded => "file_tags_add",
            Self::TagsRemoved => "file_tags_remove",
            Self::ShareCreated | Self::ShareCreatedForGroup | Self::LinkCreated => "file_shared",
            Self::ShareUpdatedUnnamed | Self::LinkUpdatedUnnamed | Self::ShareStateUnnamed => "",
            Self::ShareUpdated => "share_updated",
            Self::LinkPermissionUpdated => "share_permission_updated",
            Self::LinkNameUpdated => "share_name_updated",
            Self::LinkPasswordUpdated => "share_password_updated",
            Self::LinkExpirationUpdated => "share_expiration_updated",
            Self::ShareRemoved | Self::LinkRemoved => "file_unshared",
            Self::ShareAccepted => "share_accepted",
            Self::ShareDeclined => "share_declined",
            Self::ShareStateChanged => "share_state_changed",
            Self::LinkAccessed | Self::LinkAccessFailed => "public_link_accessed",
            Self::SpaceCreated | Self::PersonalSpaceCreated => "space_created",
            Self::SpaceRenamed => "space_renamed",
            Self::SpaceDisabled => "space_disabled",
            Self::SpaceEnabled => "space_enabled",
            Self::SpaceDeleted => "space_deleted",
            Self::SpaceShared => "space_shared",
            Self::SpaceUnshared => "space_unshared",
            Self::SpaceUpdated => "space_updated",
            Self::UserCreated => "user_created",
            Self::UserDeleted => "user_deleted",
            Self::UserFeatureChanged | Self::UserPasswordChanged | Self::UserNothingChanged => {
                "user_feature_changed"
            }
            Self::GroupCreated => "group_created",
            Self::GroupDeleted => "group_deleted",
            Self::GroupMemberAdded => "group_member_added",
            Self::GroupMemberRemoved => "group_member_removed",
            Self::InviteGenerated => "science_mesh_invite_token_generated",
        }
    }

    /// Whether it only reads.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::FileDownloaded | Self::LinkAccessed | Self::LinkAccessFailed
        )
    }

    /// A line of this shape about somebody.
    pub fn line(self, rng: &mut impl Rng, people: &People, at: Timestamp) -> OcisLine {
        let scene = Scene::set(rng, people, at, self == Self::PersonalSpaceCreated);
        let (user, message, extra) = match self {
            Self::ContainerCreated
            | Self::FileUploaded
            | Self::FileDownloaded
            | Self::ItemMoved
            | Self::ItemTrashed
            | Self::ItemPurged
            | Self::ItemRestored
            | Self::FileVersionRestored
            | Self::TagsAdded
            | Self::TagsRemoved => self.file(&scene),
            Self::ShareCreated | Self::ShareCreatedForGroup | Self::LinkCreated => {
                self.share_created(&scene)
            }
            Self::ShareUpdatedUnnamed
            | Self::ShareUpdated
            | Self::LinkPermissionUpdated
            | Self::LinkNameUpdated
            | Self::LinkPasswordUpdated
            | Self::LinkExpirationUpdated
            | Self::LinkUpdatedUnnamed => self.share_updated(&scene),
            Self::ShareRemoved
            | Self::LinkRemoved
            | Self::ShareAccepted
            | Self::ShareStateUnnamed
            | Self::ShareDeclined
            | Self::ShareStateChanged => self.share_ended_or_answered(&scene),
            Self::LinkAccessed | Self::LinkAccessFailed => self.link_accessed(&scene),
            Self::SpaceCreated
            | Self::PersonalSpaceCreated
            | Self::SpaceRenamed
            | Self::SpaceDisabled
            | Self::SpaceEnabled
            | Self::SpaceDeleted
            | Self::SpaceShared
            | Self::SpaceUnshared
            | Self::SpaceUpdated => self.space(&scene),
            _ => self.directory(&scene),
        };
        let time = match self {
            _ if self.has_no_time() => String::new(),
            // That of the link, made the day before.
            Self::LinkAccessed => whole_seconds(at - SignedDuration::from_hours(24)),
            _ => scene.time,
        };
        OcisLine::new(self.action(), &user, &time, message, extra)
    }

    fn has_no_time(self) -> bool {
        matches!(
            self,
            Self::SpaceShared
                | Self::UserCreated
                | Self::UserDeleted
                | Self::UserPasswordChanged
                | Self::GroupCreated
                | Self::GroupDeleted
                | Self::GroupMemberAdded
                | Self::GroupMemberRemoved
        )
    }
}
