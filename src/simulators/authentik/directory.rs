//! Users and groups of the fake, in the shapes of the real look-ups.

use serde_json::{Value, json};

use super::profile::{PageSizes, Profile};
use super::query::{Page, Params, Refusal, page_of};

/// A user of the fake.
#[derive(Clone, Debug)]
pub struct FakeUser {
    /// Primary key.
    pub pk: i64,
    /// Log-in name.
    pub username: String,
    /// Full name.
    pub name: String,
    /// Mail address.
    pub email: String,
    /// OIDC subject.
    pub uid: String,
    /// UUID with dashes.
    pub uuid: String,
    /// Primary keys of groups; direct membership only.
    pub groups: Vec<String>,
    /// May log in.
    pub is_active: bool,
}

/// A group of the fake.
#[derive(Clone, Debug)]
pub struct FakeGroup {
    /// UUID with dashes.
    pub pk: String,
    /// Name.
    pub name: String,
    /// Its members are superusers.
    pub is_superuser: bool,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) users: Vec<FakeUser>,
    pub(super) groups: Vec<FakeGroup>,
}

/// Larger than everything else in a user object, as the real one is.
const AVATAR: &str = concat!(
    "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHdpZHRoPSI2NHB4",
    "IiBoZWlnaHQ9IjY0cHgiIHZpZXdCb3g9IjAgMCA2NCA2NCI+PHJlY3QgZmlsbD0iIzNmYzhiMiIgY3g9IjMyIiBjeT0iMzIi",
    "IHdpZHRoPSI2NCIgaGVpZ2h0PSI2NCIgcj0iMzIiLz48L3N2Zz4="
);

const JOINED: &str = "2026-01-12T08:00:00.144138Z";

impl Directory {
    pub(super) fn user(&self, pk: i64) -> Option<&FakeUser> {
        self.users.iter().find(|user| user.pk == pk)
    }

    fn groups_of<'a>(&'a self, user: &'a FakeUser) -> impl Iterator<Item = &'a FakeGroup> {
        self.groups
            .iter()
            .filter(|group| user.groups.contains(&group.pk))
    }

    pub(super) fn user_json(&self, user: &FakeUser, profile: Profile, with_groups: bool) -> Value {
        let groups_obj: Vec<Value> = self
            .groups_of(user)
            .map(|group| {
                json!({
                    "pk": group.pk,
                    "num_pk": number_of(&group.pk),
                    "name": group.name,
                    "is_superuser": group.is_superuser,
                    "attributes": {},
                })
            })
            .collect();
        let mut object = json!({
            "pk": user.pk,
            "username": user.username,
            "name": user.name,
            "is_active": user.is_active,
            "last_login": JOINED,
            "date_joined": JOINED,
            "is_superuser": self.groups_of(user).any(|group| group.is_superuser),
            "groups": user.groups,
            "groups_obj": if with_groups { Value::from(groups_obj) } else { Value::Null },
            "email": user.email,
            "avatar": AVATAR,
            "attributes": {},
            "uid": user.uid,
            "path": "users",
        });
        if profile > Profile::V2023 {
            object["type"] = "internal".into();
            object["uuid"] = user.uuid.as_str().into();
            object["password_change_date"] = JOINED.into();
            object["last_updated"] = JOINED.into();
        }
        if profile >= Profile::V2025_12 {
            object["roles"] = json!([]);
            object["roles_obj"] = json!([]);
        }
        object
    }

    pub(super) fn me_json(&self, user: &FakeUser) -> Value {
        let groups: Vec<Value> = self
            .groups_of(user)
            .map(|group| json!({"name": group.name, "pk": group.pk}))
            .collect();
        json!({"user": {
            "pk": user.pk,
            "username": user.username,
            "name": user.name,
            "is_active": user.is_active,
            "is_superuser": self.groups_of(user).any(|group| group.is_superuser),
            "groups": groups,
            "roles": [],
            "email": user.email,
            "avatar": AVATAR,
            "uid": user.uid,
            "settings": {},
            "type": "service_account",
            "system_permissions": [],
        }})
    }

    pub(super) fn users_page(
        &self,
        params: &Params,
        profile: Profile,
        sizes: PageSizes,
    ) -> Result<Page<Value>, Refusal> {
        let wanted = |key: &str, value: &str| params.filled(key).is_none_or(|want| want == value);
        let mut rows: Vec<&FakeUser> = self
            .users
            .iter()
            .filter(|user| {
                wanted("username", &user.username)
                    && wanted("email", &user.email)
                    && wanted("name", &user.name)
                    && wanted("uuid", &user.uuid)
                    && wanted("is_active", if user.is_active { "true" } else { "false" })
                    && params
                        .filled("groups_by_name")
                        .is_none_or(|name| self.groups_of(user).any(|group| group.name == name))
                    && params
                        .filled("groups_by_pk")
                        .is_none_or(|pk| user.groups.iter().any(|group| group == pk))
                    && params.filled("search").is_none_or(|part| {
                        let part = part.to_lowercase();
                        [&user.username, &user.name, &user.email, &user.uuid]
                            .iter()
                            .any(|text| text.to_lowercase().contains(&part))
                    })
            })
            .collect();
        match params.get("ordering").unwrap_or_default() {
            "pk" => rows.sort_by_key(|user| user.pk),
            "-pk" => rows.sort_by_key(|user| std::cmp::Reverse(user.pk)),
            _ => rows.sort_by(|a, b| a.username.cmp(&b.username)),
        }
        let with_groups = params.get("include_groups") != Some("false");
        let page = page_of(params, sizes, rows.len())?;
        Ok(map(page, |index| {
            self.user_json(rows[index], profile, with_groups)
        }))
    }

    pub(super) fn groups_page(
        &self,
        params: &Params,
        profile: Profile,
        sizes: PageSizes,
    ) -> Result<Page<Value>, Refusal> {
        let mut rows: Vec<&FakeGroup> = self
            .groups
            .iter()
            .filter(|group| params.filled("name").is_none_or(|name| group.name == name))
            .filter(|group| {
                params
                    .filled("members_by_pk")
                    .is_none_or(|pk| self.members(group).any(|user| user.pk.to_string() == pk))
            })
            .filter(|group| {
                params
                    .filled("members_by_username")
                    .is_none_or(|name| self.members(group).any(|user| user.username == name))
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let with_users = params.get("include_users") != Some("false");
        let page = page_of(params, sizes, rows.len())?;
        Ok(map(page, |index| {
            self.group_json(rows[index], profile, with_users)
        }))
    }

    pub(super) fn group_json(
        &self,
        group: &FakeGroup,
        profile: Profile,
        with_users: bool,
    ) -> Value {
        let users: Vec<i64> = self.members(group).map(|user| user.pk).collect();
        let users_obj: Vec<Value> = self
            .members(group)
            .map(|user| {
                json!({
                    "pk": user.pk,
                    "username": user.username,
                    "name": user.name,
                    "is_active": user.is_active,
                    "last_login": JOINED,
                    "email": user.email,
                    "attributes": {},
                    "uid": user.uid,
                })
            })
            .collect();
        let mut object = json!({
            "pk": group.pk,
            "num_pk": number_of(&group.pk),
            "name": group.name,
            "is_superuser": group.is_superuser,
            "users": users,
            "users_obj": if with_users { Value::from(users_obj) } else { Value::Null },
            "attributes": {},
            "roles": [],
            "roles_obj": [],
        });
        if profile >= Profile::V2025_12 {
            for key in ["parents_obj", "inherited_roles_obj", "children_obj"] {
                object[key] = Value::Null;
            }
            object["parents"] = json!([]);
            object["children"] = json!([]);
        } else {
            object["parent"] = Value::Null;
            object["parent_name"] = Value::Null;
        }
        object
    }

    fn members<'a>(&'a self, group: &'a FakeGroup) -> impl Iterator<Item = &'a FakeUser> {
        self.users
            .iter()
            .filter(|user| user.groups.contains(&group.pk))
    }
}

/// A small number made of the UUID, as the real one is.
fn number_of(uuid: &str) -> u64 {
    uuid.get(..4)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_default()
}

fn map(page: Page<usize>, row: impl Fn(usize) -> Value) -> Page<Value> {
    Page {
        rows: page.rows.iter().map(|index| row(*index)).collect(),
        count: page.count,
        current: page.current,
        total_pages: page.total_pages,
        start_index: page.start_index,
        end_index: page.end_index,
    }
}
