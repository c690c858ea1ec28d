//! Lines put together field by field, with the messages of the original.

use jiff::Timestamp;
use rand::Rng;

use super::line::Json;
use super::shapes::Shape;
use crate::simulators::people::{People, Person, Space};
use crate::simulators::{pick, uuid4, whole_seconds};

/// What the shapes draw on: who did it, to what, when.
pub(super) struct Scene<'a> {
    who: &'a Person,
    other: &'a Person,
    admin: &'a str,
    group: &'a str,
    storage: &'a str,
    space: String,
    space_name: &'a str,
    /// The space as a file id begins: `storage$space!`.
    root: String,
    file: &'a str,
    node: String,
    share: String,
    link: String,
    token: String,
    pub(super) time: String,
}

const LINK_PERMISSIONS: &str =
    "get_path:true initiate_file_download:true list_container:true stat:true";
const SHARE_PERMISSIONS: &str = "create_container:true delete:true get_path:true get_quota:true initiate_file_download:true initiate_file_upload:true list_container:true list_recycle:true move:true stat:true";

impl Shape {
    pub(super) fn file(self, scene: &Scene<'_>) -> Parts {
        let who = &scene.who.uid;
        let root = &scene.root;
        let file = scene.file;
        let named = format!("{root}/{file}");
        let node = format!("{}${}!{}", scene.storage, scene.space, scene.node);
        // Those of a move begin at the root, all others at the space.
        let (moved, old_path) = (format!("/{file}"), format!("/old {file}"));
        let version = format!("{}.REV.{}", scene.node, scene.time);
        let (path, id, message) = match self {
            Self::ContainerCreated => (
                "./Reports".to_owned(),
                format!("{root}/Reports"),
                format!("user '{who}' created folder '{root}/Reports'"),
            ),
            Self::FileUploaded => (
                format!("./{file}"),
                named.clone(),
                format!("user '{who}' created file '{named}'"),
            ),
            Self::FileDownloaded => (
                format!("./{file}"),
                named.clone(),
                format!("user '{who}' read file '{named}'"),
            ),
            Self::ItemMoved => (
                moved.clone(),
                named.clone(),
                format!("user '{who}' moved file '{named}' from '{old_path}' to '{moved}'"),
            ),
            Self::ItemTrashed => (
                format!("./{file}"),
                named.clone(),
                format!("user '{who}' trashed file '{named}'"),
            ),
            Self::ItemPurged => (
                ".".to_owned(),
                root.clone(),
                format!("user '{who}' removed file '{root}' from trashbin"),
            ),
            Self::ItemRestored => (
                format!("./{file}"),
                named.clone(),
                format!("user '{who}' restored file '{named}' from trashbin to './{file}'"),
            ),
            Self::FileVersionRestored => (
                String::new(),
                node.clone(),
                format!("user '{who}' restored file '{node}' in version '{version}'"),
            ),
            Self::TagsAdded => (
                String::new(),
                node.clone(),
                format!("user '{who}' added tags 'final,reviewed' to file '{node}'"),
            ),
            _ => (
                String::new(),
                node.clone(),
                format!("user '{who}' removed tags 'final,reviewed' from file '{node}'"),
            ),
        };
        // Of all file lines only an upload names a user: the space's owner, who need not be the actor.
        let owner = if self == Self::FileUploaded {
            scene.space_owner()
        } else {
            ""
        };
        let mut extra = vec![
            ("Path", path.into()),
            ("Owner", owner.into()),
            ("FileID", id.into()),
        ];
        match self {
            Self::ItemMoved => extra.push(("OldPath", old_path.into())),
            Self::ItemRestored => extra.push(("OldPath", ".".into())),
            Self::FileVersionRestored => extra.push(("Key", version.into())),
            Self::TagsAdded | Self::TagsRemoved => extra.push(("Tags", "final,reviewed".into())),
            _ => {}
        }
        (owner.to_owned(), message, extra)
    }

    pub(super) fn share_created(self, scene: &Scene<'_>) -> Parts {
        let who = &scene.who.uid;
        let node = &scene.node;
        let (message, kind, with) = match self {
            Self::ShareCreated => (
                format!(
                    "user '{who}' shared file '{node}' with '{}'",
                    scene.other.uid
                ),
                "user",
                scene.other.uid.as_str(),
            ),
            Self::ShareCreatedForGroup => (
                format!("user '{who}' shared file '{node}' with '{}'", scene.group),
                "group",
                scene.group,
            ),
            _ => (
                format!(
                    "user '{who}' created a public link to file '{node}' with id '{}'",
                    scene.link
                ),
                "link",
                "",
            ),
        };
        let link = kind == "link";
        let extra = scene.share_fields(
            "",
            if link { "2027-12-31T23:59:59Z" } else { "" },
            link,
            if link { LINK_PERMISSIONS } else { "" },
            kind,
            with,
            if link { &scene.token } else { "" },
        );
        (who.clone(), message, extra)
    }

    pub(super) fn share_updated(self, scene: &Scene<'_>) -> Parts {
        let who = &scene.who.uid;
        if matches!(self, Self::ShareUpdatedUnnamed | Self::ShareUpdated) {
            let extra = scene.share_fields(
                &scene.share,
                "",
                false,
                SHARE_PERMISSIONS,
                "user",
                &scene.other.uid,
                "",
            );
            let message = format!("user '{who}' updated field '' of share '{}'", scene.share);
            return (who.clone(), message, extra);
        }
        let field = match self {
            Self::LinkPermissionUpdated => "TYPE_PERMISSIONS",
            Self::LinkNameUpdated => "TYPE_DISPLAYNAME",
            Self::LinkPasswordUpdated => "TYPE_PASSWORD",
            Self::LinkExpirationUpdated => "TYPE_EXPIRATION",
            _ => "TYPE_INVALID",
        };
        let extra = scene.share_fields(
            &scene.link,
            "2027-12-31T23:59:59Z",
            true,
            LINK_PERMISSIONS,
            "link",
            "",
            &scene.token,
        );
        let message = format!(
            "user '{who}' updated field '{field}' of public link '{}'",
            scene.link
        );
        (who.clone(), message, extra)
    }

    pub(super) fn share_ended_or_answered(self, scene: &Scene<'_>) -> Parts {
        let who = scene.who.uid.as_str();
        let grantee = scene.other.uid.as_str();
        let share = scene.share.as_str();
        let (user, message, file, owner, id, kind, with) = match self {
            Self::ShareRemoved => {
                let message = format!("share id:'{share}' uid:'' item-id:'' was removed");
                ("", message, "", "", share, "", "")
            }
            Self::LinkRemoved => {
                let message = format!("user '{who}' removed public link with id:'{}'", scene.link);
                (who, message, "", who, scene.link.as_str(), "link", "")
            }
            answered => {
                let message = match answered {
                    Self::ShareAccepted => {
                        format!("user '{grantee}' accepted share '{share}' from user '{who}'")
                    }
                    Self::ShareDeclined => {
                        format!("user '{grantee}' declined share '{share}' from user '{who}'")
                    }
                    Self::ShareStateChanged => {
                        format!(
                            "user '{grantee}' changed state of share '{share}' to 'SHARE_STATE_PENDING'"
                        )
                    }
                    _ => String::new(),
                };
                (
                    grantee,
                    message,
                    scene.node.as_str(),
                    who,
                    share,
                    "user",
                    grantee,
                )
            }
        };
        let extra = vec![
            ("FileID", file.into()),
            ("Owner", owner.into()),
            ("Path", "".into()),
            ("ShareID", id.into()),
            ("ItemType", "".into()),
            ("ShareType", kind.into()),
            ("ShareWith", with.into()),
        ];
        (user.to_owned(), message, extra)
    }

    pub(super) fn link_accessed(self, scene: &Scene<'_>) -> Parts {
        let success = self == Self::LinkAccessed;
        // The link's creator, not the visitor, whom nobody knows.
        let creator = if success { scene.who.uid.as_str() } else { "" };
        let extra = vec![
            (
                "FileID",
                if success { scene.node.as_str() } else { "" }.into(),
            ),
            ("Owner", creator.into()),
            ("Path", "".into()),
            (
                "ShareID",
                if success { scene.link.as_str() } else { "" }.into(),
            ),
            ("ShareToken", scene.token.as_str().into()),
            ("Success", success.into()),
            ("ItemType", "".into()),
        ];
        let message = format!(
            "link with token '{}' was accessed. Success: {success}",
            scene.token
        );
        (creator.to_owned(), message, extra)
    }

    pub(super) fn space(self, scene: &Scene<'_>) -> Parts {
        let admin = scene.admin;
        let space = &scene.space;
        let name = scene.space_name;
        let storage = format!("(storage: '{}')", scene.storage);
        let short = format!("{}${space}", scene.storage);
        let grantee = &scene.other.uid;
        let shared = |word: &str| {
            format!("user '{admin}' {word} the space '{space}' with 'user:{grantee}' {storage}")
        };
        let grantees = || {
            vec![
                ("SpaceID", short.as_str().into()),
                ("GranteeUserID", grantee.as_str().into()),
                ("GranteeGroupID", "".into()),
            ]
        };
        let only = |id: &str| vec![("SpaceID", id.into())];
        let (message, extra) = match self {
            Self::SpaceCreated | Self::PersonalSpaceCreated => {
                let personal = self == Self::PersonalSpaceCreated;
                let by = if personal {
                    scene.who.uid.as_str()
                } else {
                    admin
                };
                (
                    format!(
                        "user '{by}' created a space '{space}!{space}' with name '{name}' {storage}"
                    ),
                    vec![
                        ("SpaceID", scene.root.as_str().into()),
                        ("Owner", space.as_str().into()),
                        ("RootItem", scene.root.as_str().into()),
                        ("Name", name.into()),
                        ("Type", if personal { "personal" } else { "project" }.into()),
                    ],
                )
            }
            Self::SpaceRenamed => (
                format!("user '{admin}' renamed space '{space}!{space}' to '{name}' {storage}"),
                vec![
                    ("SpaceID", scene.root.as_str().into()),
                    ("NewName", name.into()),
                ],
            ),
            Self::SpaceUpdated => (
                format!(
                    "user '{admin}' updated space '{space}!{space}'. name: '{name}', quota: '1000000000', opaque: 'map[quota.total:1000000000 quota.used:0 spaceAlias:project/{space}]' {storage}"
                ),
                vec![
                    ("SpaceID", scene.root.as_str().into()),
                    ("Name", name.into()),
                    (
                        "Opaque",
                        Json::Object(vec![
                            ("quota.total".into(), "1000000000".into()),
                            ("quota.used".into(), "0".into()),
                            ("spaceAlias".into(), format!("project/{space}").into()),
                        ]),
                    ),
                    ("QuotaMaxBytes", Json::Number(0)),
                ],
            ),
            Self::SpaceShared => (shared("shared"), grantees()),
            Self::SpaceUnshared => (shared("unshared"), grantees()),
            Self::SpaceDisabled => (
                format!("user '{admin}' disabled the space '{space}' {storage}"),
                only(&short),
            ),
            Self::SpaceEnabled => (
                format!("user '{admin}' (re-) enabled the space '{space}!{space}' {storage}"),
                only(&scene.root),
            ),
            _ => (
                format!("user '{admin}' deleted the space '{space}' {storage}"),
                only(&short),
            ),
        };
        (String::new(), message, extra)
    }

    pub(super) fn directory(self, scene: &Scene<'_>) -> Parts {
        let admin = scene.admin;
        let user = &scene.who.uid;
        let group = scene.group;
        let user_id = ("UserID", Json::from(user.as_str()));
        let group_id = ("GroupID", Json::from(group));
        let feature = |name: &str, value: &str, old: Json| {
            Json::Object(vec![
                ("Name".into(), name.into()),
                ("Value".into(), value.into()),
                ("OldValue".into(), old),
            ])
        };
        let (message, extra) = match self {
            Self::UserCreated => (
                format!("user '{admin}' created the user '{user}'"),
                vec![user_id],
            ),
            Self::UserDeleted => (
                format!("user '{admin}' deleted the user '{user}'"),
                vec![user_id],
            ),
            Self::UserFeatureChanged => (
                format!(
                    "user '{admin}' changed user {user}'s features:email={} ",
                    scene.who.email
                ),
                vec![
                    user_id,
                    (
                        "Features",
                        Json::List(vec![feature(
                            "email",
                            &scene.who.email,
                            "old@example.org".into(),
                        )]),
                    ),
                ],
            ),
            Self::UserPasswordChanged => (
                format!("user '{user}' changed user {user}'s features:password=*** "),
                vec![
                    user_id,
                    (
                        "Features",
                        Json::List(vec![feature("password", "***", Json::Null)]),
                    ),
                ],
            ),
            Self::UserNothingChanged => (
                format!("user '{admin}' changed user {user}'s features:"),
                vec![user_id, ("Features", Json::Null)],
            ),
            Self::GroupCreated => (
                format!("user '{admin}' created group '{group}'"),
                vec![group_id],
            ),
            Self::GroupDeleted => (
                format!("user '{admin}' deleted group '{group}'"),
                vec![group_id],
            ),
            // The message swaps the two ids; the fields do not.
            Self::GroupMemberAdded => (
                format!("user '{admin}' added user '{group}' was added to group '{user}'"),
                vec![group_id, user_id],
            ),
            Self::GroupMemberRemoved => (
                format!("user '{admin}' added user '{group}' was removed from group '{user}'"),
                vec![group_id, user_id],
            ),
            _ => {
                let token = &scene.token;
                let link = format!(
                    "https://files.platform.example/open-cloud-mesh/accept-invite?token={token}"
                );
                return (
                    user.clone(),
                    format!("user '{user}' generated a ScienceMesh invite with token '{token}'"),
                    vec![
                        ("RecipientMail", "guest@partner.example".into()),
                        ("Token", token.as_str().into()),
                        ("Description", "joint project".into()),
                        ("Expiration", Json::Number(1_830_297_599)),
                        ("InviteLink", link.into()),
                    ],
                );
            }
        };
        (String::new(), message, extra)
    }
}

/// `User`, `Message` and the fields of the action.
pub(super) type Parts = (String, String, Vec<(&'static str, Json)>);

impl<'a> Scene<'a> {
    pub(super) fn set(
        rng: &mut impl Rng,
        people: &'a People,
        at: Timestamp,
        personal: bool,
    ) -> Self {
        let who = people.anyone(rng);
        let tenant_space: Option<&Space> = people
            .tenant_of(who)
            .filter(|_| !personal && rng.random_bool(0.6))
            .map(|tenant| pick(rng, &tenant.spaces));
        let space = tenant_space.map_or_else(|| who.uid.clone(), |space| space.id.clone());
        let storage = people.storage.as_str();
        Self {
            who,
            other: people.colleague_of(rng, who),
            admin: &people.admin.uid,
            group: people
                .tenant_of(who)
                .map_or("", |tenant| tenant.group.pk.as_str()),
            storage,
            root: format!("{storage}${space}!{space}"),
            share: format!("{storage}:{space}:{}", uuid4(rng)),
            space,
            space_name: tenant_space.map_or(who.name.as_str(), |space| space.name.as_str()),
            file: people.file_names[rng.random_range(0..people.file_names.len())],
            node: uuid4(rng),
            link: letters(rng),
            token: letters(rng),
            time: whole_seconds(at),
        }
    }

    fn space_owner(&self) -> &str {
        &self.space
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one argument a field of the line"
    )]
    fn share_fields(
        &self,
        share: &str,
        expires: &str,
        password: bool,
        permissions: &str,
        kind: &str,
        with: &str,
        token: &str,
    ) -> Vec<(&'static str, Json)> {
        vec![
            ("FileID", self.node.as_str().into()),
            ("Owner", self.who.uid.as_str().into()),
            ("Path", "".into()),
            ("ShareID", share.into()),
            ("ItemType", "".into()),
            ("ExpirationDate", expires.into()),
            ("SharePass", password.into()),
            ("Permissions", permissions.into()),
            ("ShareType", kind.into()),
            ("ShareWith", with.into()),
            ("ShareOwner", self.who.uid.as_str().into()),
            ("ShareToken", token.into()),
        ]
    }
}

/// Fifteen letters, as links and tokens have them.
fn letters(rng: &mut impl Rng) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    (0..15).map(|_| char::from(*pick(rng, LETTERS))).collect()
}
