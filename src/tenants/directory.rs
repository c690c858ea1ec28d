//! The directory as one immutable snapshot, and how a tenant is found in it. Pure.
//!
//! Signals, best first: a group that is a tenant's slug or listed in its `groups`; a space listed
//! in its `spaceIds`, a user's own, or learned; a user's tenants; the addresses of mail. Of several
//! values of one signal the first that matches wins, but the addresses of mail are equals: those of
//! several tenants tell none of them. Nor does what several tenants claim.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytestring::ByteString;

use crate::event::TenantHints;
use crate::store::{DirectoryRecords, LearnedSpace};

/// A tenant's slug, shared by all events of the tenant.
pub type Slug = Arc<str>;

#[derive(Debug)]
struct Learned {
    slug: Slug,
    /// It came from the store, so it need not be sent there again.
    stored: bool,
}

/// A snapshot of the directory.
#[derive(Debug, Default)]
pub struct Directory {
    slugs: Vec<Slug>,
    groups: HashMap<String, Slug>,
    spaces: HashMap<String, Slug>,
    learned: HashMap<String, Learned>,
    subjects: HashMap<String, Slug>,
    emails: HashMap<String, Slug>,
    domains: HashMap<String, Slug>,
    names: HashMap<String, Slug>,
    ignored_groups: HashSet<String>,
    contested: BTreeSet<String>,
}

impl Directory {
    /// Builds the look-up tables. What two tenants both claim is nobody's: a tenant found by chance would show
    /// one tenant's events to the other.
    pub fn new(records: DirectoryRecords, ignored_groups: &[String]) -> Self {
        let mut directory = Self {
            ignored_groups: ignored_groups.iter().cloned().collect(),
            ..Self::default()
        };
        let mut by_id: HashMap<String, Slug> = HashMap::new();
        let slugs: Vec<Slug> = records
            .tenants
            .iter()
            .map(|tenant| tenant.slug.as_str().into())
            .collect();
        for (tenant, slug) in records.tenants.iter().zip(&slugs) {
            claim(&mut by_id, tenant.id.clone(), slug);
            claim(&mut directory.groups, tenant.slug.clone(), slug);
            claim(&mut directory.names, tenant.slug.to_lowercase(), slug);
        }
        directory.slugs.clone_from(&slugs);
        directory.slugs.sort_unstable();
        directory.slugs.dedup();
        // A slug names its tenant before any alias of another tenant does.
        let mut aliases = Aliases::default();
        for (tenant, slug) in records.tenants.into_iter().zip(&slugs) {
            claim(&mut by_id, tenant.slug, slug);
            for group in tenant.groups {
                aliases.claim("group", group, slug);
            }
            for space in tenant.space_ids {
                aliases.claim("space", bare_space(&space).to_owned(), slug);
            }
            for domain in tenant.domains {
                let domain = domain.trim().trim_start_matches('@').trim_end_matches('.');
                aliases.claim("domain", domain.to_lowercase(), slug);
            }
            if let Some(name) = tenant.name {
                aliases.claim("name", name.to_lowercase(), slug);
            }
        }
        for user in records.users {
            let Some(slug) = user.tenant_ids.iter().find_map(|id| by_id.get(id)) else {
                continue;
            };
            if let Some(subject) = user.subject {
                aliases.claim("user", subject, slug);
            }
            if let Some(email) = user.email {
                aliases.claim("address", email.to_lowercase(), slug);
            }
        }
        for ((kind, key), slug) in aliases.0 {
            let table = match kind {
                "group" => &mut directory.groups,
                "space" => &mut directory.spaces,
                "domain" => &mut directory.domains,
                "name" => &mut directory.names,
                "user" => &mut directory.subjects,
                _ => &mut directory.emails,
            };
            match slug {
                Some(slug) => claim(table, key, &slug),
                None if table.contains_key(&key) => {}
                None => {
                    directory.contested.insert(format!("{kind} {key}"));
                }
            }
        }
        for learned in records.learned {
            let slug = learned.tenant_slug.into();
            if directory.has(&slug) {
                let learned_before = Learned { slug, stored: true };
                directory.learned.insert(learned.space, learned_before);
            }
        }
        directory
    }

    fn has(&self, slug: &Slug) -> bool {
        self.slugs.binary_search(slug).is_ok()
    }

    /// What more than one tenant claims, such as `domain acme.example`.
    pub fn contested(&self) -> &BTreeSet<String> {
        &self.contested
    }

    /// All tenants, in the order of their slugs.
    pub fn slugs(&self) -> &[Slug] {
        &self.slugs
    }

    /// The tenant that the hints point to.
    pub fn find(&self, hints: &TenantHints) -> Option<Slug> {
        self.look_up(hints).flatten().cloned()
    }

    /// Whether it knows somebody to whom the hints point. Several tenants that mail leads to are known,
    /// though it is none of theirs, unless a better signal may tell once it is known.
    pub fn knows(&self, hints: &TenantHints) -> bool {
        let has_better = !hints.groups.is_empty()
            || !hints.spaces.is_empty()
            || !hints.subjects.is_empty()
            || !hints.emails.is_empty();
        match self.look_up(hints) {
            Some(None) => !has_better,
            found => found.is_some(),
        }
    }

    /// As [`Self::agreed`].
    fn look_up(&self, hints: &TenantHints) -> Option<Option<&Slug>> {
        let group = hints
            .groups
            .iter()
            .filter(|group| !self.ignored_groups.contains(&***group))
            .find_map(|group| self.groups.get(&**group));
        group
            .or_else(|| {
                hints
                    .spaces
                    .iter()
                    .find_map(|space| self.tenant_of_space(space))
            })
            .or_else(|| self.of_users(hints))
            .map(Some)
            .or_else(|| self.of_mail(hints))
    }

    fn of_users(&self, hints: &TenantHints) -> Option<&Slug> {
        let mut subjects = hints.subjects.iter();
        let by_subject = subjects.find_map(|subject| self.subjects.get(&**subject));
        by_subject.or_else(|| {
            let mut emails = hints.emails.iter();
            emails.find_map(|email| self.emails.get(&email.to_lowercase()))
        })
    }

    /// As [`Self::agreed`].
    fn of_mail(&self, hints: &TenantHints) -> Option<Option<&Slug>> {
        self.agreed("address", &hints.recipients, &self.emails)
            .or_else(|| self.agreed("domain", &hints.domains, &self.domains))
            .or_else(|| self.agreed("domain", &hints.senders, &self.domains))
    }

    /// The one tenant of those values that are a tenant's; `Some(None)` where they are of several.
    fn agreed<'a>(
        &'a self,
        kind: &str,
        values: &[ByteString],
        table: &'a HashMap<String, Slug>,
    ) -> Option<Option<&'a Slug>> {
        let mut agreed: Option<&Slug> = None;
        for value in values {
            let value = value.to_lowercase();
            match table.get(&value) {
                Some(slug) if agreed.is_none_or(|known| known == slug) => agreed = Some(slug),
                None if !self.contested.contains(&format!("{kind} {value}")) => {}
                _ => return Some(None),
            }
        }
        agreed.map(Some)
    }

    /// A space's tenant. A personal space has its user's id, and is where that user is, whatever
    /// was learned of it before the user was known.
    fn tenant_of_space(&self, space: &str) -> Option<&Slug> {
        self.spaces
            .get(space)
            .or_else(|| self.subjects.get(space))
            .or_else(|| self.learned.get(space).map(|learned| &learned.slug))
    }

    /// Learns a space's tenant from its own line, if it was not known: from its owner, who is in
    /// the directory, before its name. Any user can choose that, so it teaches nothing where the
    /// line's users belong to another tenant, nor of a user's personal space. What is known stays:
    /// a renamed space does not change its tenant. Returns what the store should keep, again and
    /// again until a snapshot shows that it does: the commit that carries it may fail.
    pub fn learn(&mut self, hints: &TenantHints) -> Option<LearnedSpace> {
        let lesson = hints.learn.as_ref()?;
        if self.subjects.contains_key(&*lesson.space) {
            return None;
        }
        if self.tenant_of_space(&lesson.space).is_none() {
            let by_owner = lesson
                .owner
                .as_ref()
                .and_then(|owner| self.subjects.get(&**owner));
            let by_name = || {
                lesson
                    .name
                    .as_ref()
                    .and_then(|name| self.names.get(&name.to_lowercase()))
            };
            let slug = by_owner.or_else(by_name)?.clone();
            if by_owner.is_none() && self.of_users(hints).is_some_and(|own| *own != slug) {
                return None;
            }
            self.learned.insert(
                lesson.space.to_string(),
                Learned {
                    slug,
                    stored: false,
                },
            );
        }
        let learned = self
            .learned
            .get(&*lesson.space)
            .filter(|learned| !learned.stored)?;
        Some(LearnedSpace {
            space: lesson.space.to_string(),
            tenant_slug: learned.slug.to_string(),
        })
    }

    /// Takes over what the former snapshot had learned and the store may not have yet. What the store had and has no
    /// more, somebody has deleted.
    pub fn keep_learned_of(&mut self, former: &Self) {
        for (space, learned) in &former.learned {
            if learned.stored || !self.has(&learned.slug) {
                continue;
            }
            self.learned
                .entry(space.clone())
                .or_insert_with(|| Learned {
                    slug: Arc::clone(&learned.slug),
                    stored: false,
                });
        }
    }
}

/// What tenants and users are called besides; `None` where several claim a name.
#[derive(Default)]
struct Aliases(HashMap<(&'static str, String), Option<Slug>>);

impl Aliases {
    fn claim(&mut self, kind: &'static str, key: String, slug: &Slug) {
        if key.is_empty() {
            return;
        }
        let claimed = self
            .0
            .entry((kind, key))
            .or_insert_with(|| Some(Arc::clone(slug)));
        if claimed.as_ref() != Some(slug) {
            *claimed = None;
        }
    }
}

fn claim(table: &mut HashMap<String, Slug>, key: String, slug: &Slug) {
    if !key.is_empty() {
        table.entry(key).or_insert_with(|| Arc::clone(slug));
    }
}

/// `storage$space!node` → `space`: people paste what they see.
fn bare_space(id: &str) -> &str {
    let after_storage = id.split_once('$').map_or(id, |(_, rest)| rest);
    after_storage
        .split_once('!')
        .map_or(after_storage, |(space, _)| space)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::event::SpaceLesson;
    use crate::store::{TenantRecord, UserRecord};

    fn strings<T: for<'a> From<&'a str>>(values: &[&str]) -> Vec<T> {
        values.iter().map(|value| T::from(value)).collect()
    }

    fn directory() -> Directory {
        Directory::new(
            DirectoryRecords {
                tenants: vec![
                    TenantRecord {
                        id: "1".into(),
                        slug: "acme".into(),
                        name: Some("Acme Inc".into()),
                        domains: strings(&["Acme.example"]),
                        groups: strings(&["acme-staff"]),
                        space_ids: strings(&["storage$space-a!root"]),
                    },
                    TenantRecord {
                        id: "2".into(),
                        slug: "globex".into(),
                        groups: strings(&["acme", "everyone"]),
                        ..TenantRecord::default()
                    },
                ],
                users: vec![
                    UserRecord {
                        subject: Some("u-1".into()),
                        email: Some("Alice@acme.example".into()),
                        tenant_ids: strings(&["gone", "1"]),
                    },
                    UserRecord {
                        subject: Some("u-2".into()),
                        email: None,
                        tenant_ids: strings(&["2"]),
                    },
                ],
                learned: Vec::new(),
            },
            &strings(&["everyone"]),
        )
    }

    #[test]
    fn the_first_group_that_names_a_tenant_wins_and_ignored_ones_do_not_count() {
        let hints = |groups: &[&str]| TenantHints {
            groups: strings(groups),
            ..TenantHints::default()
        };
        let directory = directory();
        assert_eq!(
            directory
                .find(&hints(&["nobody", "acme-staff", "globex"]))
                .as_deref(),
            Some("acme")
        );
        assert_eq!(
            directory.find(&hints(&["everyone", "globex"])).as_deref(),
            Some("globex")
        );
        assert_eq!(directory.find(&hints(&["everyone"])), None);
        // Another tenant lists "acme" among its groups: the slug itself is stronger.
        assert_eq!(directory.find(&hints(&["acme"])).as_deref(), Some("acme"));
    }

    #[test]
    fn spaces_users_and_domains_follow_in_this_order() {
        let directory = directory();
        let hints = TenantHints {
            spaces: strings(&["space-a"]),
            subjects: strings(&["u-2"]),
            ..TenantHints::default()
        };
        assert_eq!(directory.find(&hints).as_deref(), Some("acme"));
        let personal_space = TenantHints {
            spaces: strings(&["u-2"]),
            ..TenantHints::default()
        };
        assert_eq!(directory.find(&personal_space).as_deref(), Some("globex"));
        let email = TenantHints {
            emails: strings(&["ALICE@ACME.example"]),
            ..TenantHints::default()
        };
        assert_eq!(directory.find(&email).as_deref(), Some("acme"));
        let domain = TenantHints {
            domains: strings(&["acme.EXAMPLE"]),
            ..TenantHints::default()
        };
        assert_eq!(directory.find(&domain).as_deref(), Some("acme"));
    }

    #[test]
    fn mail_to_several_tenants_is_none_of_theirs() {
        let tenant = |slug: &str, domains: &[&str]| TenantRecord {
            id: slug.into(),
            slug: slug.into(),
            domains: strings(domains),
            ..TenantRecord::default()
        };
        let user = |email: &str, tenant: &str| UserRecord {
            subject: None,
            email: Some(email.into()),
            tenant_ids: strings(&[tenant]),
        };
        let directory = Directory::new(
            DirectoryRecords {
                tenants: vec![
                    tenant("acme", &["acme.example", "acme.test", "shared.example"]),
                    tenant("globex", &["globex.example", "shared.example"]),
                ],
                users: vec![
                    user("a@acme.example", "acme"),
                    user("b@acme.test", "acme"),
                    user("c@globex.example", "globex"),
                ],
                learned: Vec::new(),
            },
            &[],
        );
        let (acme, globex) = (Some("acme"), Some("globex"));
        for (domains, senders, wanted) in [
            (&["outside.example"][..], &["acme.example"][..], acme),
            (&["acme.example"], &[], acme),
            (&["acme.example", "ACME.test"], &[], acme),
            (&["acme.example", "globex.example"], &[], None),
            (&["globex.example", "acme.example"], &[], None),
            (&["outside.example", "acme.example"], &[], acme),
            (&["acme.example", "shared.example"], &[], None),
            (&["shared.example", "acme.example"], &[], None),
            // The sender is asked only where no other is a tenant's.
            (&["globex.example"], &["acme.example"], globex),
            (&["acme.example", "globex.example"], &["acme.example"], None),
            (&["shared.example"], &["acme.example"], None),
        ] {
            let hints = TenantHints {
                domains: strings(domains),
                senders: strings(senders),
                ..TenantHints::default()
            };
            let found = directory.find(&hints);
            assert_eq!(found.as_deref(), wanted, "{domains:?} {senders:?}");
            // Nobody waits for another directory to tell whose it is.
            assert!(directory.knows(&hints), "{domains:?} {senders:?}");
        }
        for (recipients, wanted, is_known) in [
            (&["A@acme.example", "x@acme.example"][..], acme, true),
            (&["a@acme.example", "b@acme.test"], acme, true),
            (&["a@acme.example", "c@globex.example"], None, true),
            (&["x@acme.example"], None, false),
        ] {
            let mut hints = TenantHints {
                recipients: strings(recipients),
                ..TenantHints::default()
            };
            let found = directory.find(&hints);
            assert_eq!(found.as_deref(), wanted, "{recipients:?}");
            assert_eq!(directory.knows(&hints), is_known, "{recipients:?}");
            hints.emails = strings(&["c@globex.example"]);
            assert_eq!(directory.find(&hints).as_deref(), globex);
        }
    }

    #[test]
    fn a_space_is_learned_once_from_its_owner_before_its_name() {
        let mut directory = directory();
        let lesson = |owner: Option<&str>, name: &str| TenantHints {
            learn: Some(SpaceLesson {
                space: "new-space".into(),
                owner: owner.map(Into::into),
                name: Some(name.into()),
            }),
            ..TenantHints::default()
        };
        // A globex user names a space like another tenant: it stays a globex space.
        let learned = directory
            .learn(&lesson(Some("u-2"), "acme inc"))
            .expect("known owner");
        assert_eq!(learned.tenant_slug, "globex");
        let renamed = directory
            .learn(&lesson(None, "Acme Inc"))
            .expect("not stored yet");
        assert_eq!(renamed.tenant_slug, "globex");
        let hints = TenantHints {
            spaces: strings(&["new-space"]),
            ..TenantHints::default()
        };
        assert_eq!(directory.find(&hints).as_deref(), Some("globex"));
    }

    #[test]
    fn a_name_teaches_nothing_against_the_users_own_tenant() {
        let mut directory = directory();
        let renamed_by = |user: &str| TenantHints {
            spaces: strings(&["a-space"]),
            subjects: strings(&[user]),
            learn: Some(SpaceLesson {
                space: "a-space".into(),
                owner: None,
                name: Some("Acme Inc".into()),
            }),
            ..TenantHints::default()
        };
        let of_globex = renamed_by("u-2");
        assert!(directory.learn(&of_globex).is_none());
        assert_eq!(directory.find(&of_globex).as_deref(), Some("globex"));
        // One of its own, and one that nobody knows.
        assert!(directory.learn(&renamed_by("u-1")).is_some());
        assert_eq!(directory.find(&of_globex).as_deref(), Some("acme"));
    }

    #[test]
    fn a_personal_space_is_where_its_user_is_whatever_was_learned_of_it() {
        let renamed = TenantHints {
            spaces: strings(&["u-2"]),
            learn: Some(SpaceLesson {
                space: "u-2".into(),
                owner: None,
                name: Some("Acme Inc".into()),
            }),
            ..TenantHints::default()
        };
        let mut known = directory();
        assert!(known.learn(&renamed).is_none());
        assert_eq!(known.find(&renamed).as_deref(), Some("globex"));
        // Learned while nobody knew the user, and perhaps not stored yet.
        let mut unknown = directory();
        unknown.subjects.remove("u-2");
        assert!(unknown.learn(&renamed).is_some());
        assert_eq!(unknown.find(&renamed).as_deref(), Some("acme"));
        known.keep_learned_of(&unknown);
        assert!(known.learn(&renamed).is_none());
        assert_eq!(known.find(&renamed).as_deref(), Some("globex"));
    }

    #[test]
    fn what_was_learned_of_a_tenant_that_is_gone_counts_no_more() {
        let records = |slug: &str| DirectoryRecords {
            tenants: vec![TenantRecord {
                id: "1".into(),
                slug: slug.into(),
                ..TenantRecord::default()
            }],
            learned: vec![LearnedSpace {
                space: "s".into(),
                tenant_slug: "acme".into(),
            }],
            ..DirectoryRecords::default()
        };
        let hints = TenantHints {
            spaces: strings(&["s"]),
            ..TenantHints::default()
        };
        let before = Directory::new(records("acme"), &[]);
        assert_eq!(before.find(&hints).as_deref(), Some("acme"));
        let mut renamed = Directory::new(records("acme-group"), &[]);
        renamed.keep_learned_of(&before);
        assert_eq!(renamed.find(&hints), None);
    }

    #[test]
    fn a_learned_space_that_is_deleted_from_the_store_is_learned_anew() {
        let records = |learned: &[&str]| DirectoryRecords {
            tenants: ["acme", "globex"]
                .map(|slug| TenantRecord {
                    id: slug.into(),
                    slug: slug.into(),
                    ..TenantRecord::default()
                })
                .into(),
            learned: learned
                .iter()
                .map(|space| LearnedSpace {
                    space: (*space).into(),
                    tenant_slug: "acme".into(),
                })
                .collect(),
            ..DirectoryRecords::default()
        };
        let lesson = |space: &str, name: &str| TenantHints {
            spaces: strings(&[space]),
            learn: Some(SpaceLesson {
                space: space.into(),
                owner: None,
                name: Some(name.into()),
            }),
            ..TenantHints::default()
        };
        let mut before = Directory::new(records(&["stored"]), &[]);
        assert!(before.learn(&lesson("new", "acme")).is_some());
        let mut after = Directory::new(records(&[]), &[]);
        after.keep_learned_of(&before);
        // The commit that carries it may be under way.
        let new = after.find(&lesson("new", "globex"));
        assert_eq!(new.as_deref(), Some("acme"));
        assert_eq!(after.find(&lesson("stored", "globex")), None);
        let learned = after.learn(&lesson("stored", "globex")).unwrap();
        assert_eq!(learned.tenant_slug, "globex");
    }

    #[test]
    fn what_two_tenants_claim_is_nobodys() {
        let tenant = |id: &str, slug: &str, domains: &[&str], groups: &[&str]| TenantRecord {
            id: id.into(),
            slug: slug.into(),
            domains: strings(domains),
            groups: strings(groups),
            ..TenantRecord::default()
        };
        let directory = Directory::new(
            DirectoryRecords {
                tenants: vec![
                    tenant("1", "acme", &["shared.example", " @A.example."], &["all"]),
                    // Its own slug is no alias of another's.
                    tenant("2", "globex", &["Shared.example"], &["all", "acme", "own"]),
                ],
                users: vec![
                    UserRecord {
                        subject: Some("u".into()),
                        email: None,
                        tenant_ids: strings(&["1"]),
                    },
                    UserRecord {
                        subject: Some("u".into()),
                        email: None,
                        tenant_ids: strings(&["2"]),
                    },
                ],
                learned: Vec::new(),
            },
            &[],
        );
        let hints = |domain: &str, group: &str| TenantHints {
            domains: strings(&[domain]),
            groups: strings(&[group]),
            subjects: strings(&["u"]),
            ..TenantHints::default()
        };
        let find = |domain, group| directory.find(&hints(domain, group));
        assert_eq!(find("shared.example", "all"), None);
        assert_eq!(find("a.example", "all").as_deref(), Some("acme"));
        assert_eq!(find("a.example", "own").as_deref(), Some("globex"));
        assert_eq!(find("shared.example", "acme").as_deref(), Some("acme"));
        let contested: Vec<&str> = directory.contested().iter().map(String::as_str).collect();
        assert_eq!(contested, ["domain shared.example", "group all", "user u"]);
    }
}
