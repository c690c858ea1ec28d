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
#[path = "directory_tests.rs"]
mod tests;
