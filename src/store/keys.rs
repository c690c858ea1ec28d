//! What an event is found by, as numbers that one index holds.
//!
//! - Its *facet*: tenant, source, action, outcome and kind of target together. There are few
//!   thousands of them, whatever the number of events, so a condition on any of the five becomes a
//!   list of facets, and an index on (facet, `at`, id) serves them all.
//! - Its *terms*: each text of its actor and target and its address, with the tenant. An index on
//!   (term, `at`, id) finds them within one tenant without a look at another's events.
//!
//! Both are the first eight bytes of a SHA-256. Should two collide, an index yields an event too
//! many: queries compare the fields themselves as well.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::histogram::DAY;
use super::{EventFilter, StoredEvent};
use crate::event::{Actor, AuditEvent, Outcome, Target};

/// A text in one case of letters, character by character. Texts that a store takes for equal in any
/// case fold to one; some that it does not, too.
pub(super) fn fold(text: &str) -> String {
    // Nearly all texts are, and the long way is a large part of what an event costs.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    fold_any(text)
}

fn fold_any(text: &str) -> String {
    let upper = text
        .chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

/// What kind of text a term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Id, mail address or name of the actor.
    Actor = 1,
    /// The actor's address.
    Address = 2,
    /// Id or name of the target.
    Target = 3,
}

/// One text of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// The number in the index.
    pub key: i64,
    /// The same with more digits, for the dictionary: nobody finds two texts with one.
    pub id: [u8; 16],
    /// The text, folded.
    pub text: String,
}

impl Term {
    /// A text of a tenant's events.
    pub(super) fn new(tenant: Option<&str>, role: Role, text: &str) -> Self {
        let folded = fold(text);
        // Addresses are found as written only.
        let compared = if role == Role::Address { text } else { &folded };
        let digest = digest(role as u8, &[tenant, Some(compared)]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self {
            key: leading(&digest),
            id,
            text: folded,
        }
    }
}

/// What an event shares with many others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facet {
    /// Absent when no tenant was found.
    pub tenant: Option<String>,
    /// The source's name.
    pub source: String,
    /// The action.
    pub action: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What kind of thing the target is.
    pub target_kind: Option<String>,
}

impl Facet {
    /// The facet of an event that is being entered.
    pub(super) fn of(event: &AuditEvent, tenant: Option<&str>) -> Self {
        Self {
            tenant: tenant.map(str::to_owned),
            source: event.source.as_str().to_owned(),
            action: event.action.clone(),
            outcome: event.outcome,
            target_kind: event.target.kind.clone(),
        }
    }

    /// The facet of an event that stands in the store.
    pub(super) fn of_stored(event: &StoredEvent) -> Self {
        Self {
            tenant: event.tenant_slug.clone(),
            source: event.source.clone(),
            action: event.action.clone(),
            outcome: event.outcome,
            target_kind: event.target.kind.clone(),
        }
    }

    /// Whether a filter's conditions on facets hold.
    pub(super) fn matches(&self, filter: &EventFilter) -> bool {
        let is = |wanted: &Option<String>, text: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == text
        };
        let action = match filter.action.as_deref() {
            None => true,
            Some(action) => match action.strip_suffix('*') {
                Some(prefix) => self.action.starts_with(prefix),
                None => self.action == action,
            },
        };
        action
            && is(&filter.tenant, self.tenant.as_deref())
            && is(&filter.source, Some(&self.source))
            && (filter.outcome.is_none() || filter.outcome == self.outcome)
    }

    /// Whether the facet itself holds a folded text.
    pub(super) fn has(&self, folded: &str) -> bool {
        let has = |text: &str| fold(text).contains(folded);
        has(&self.action) || self.target_kind.as_deref().is_some_and(has)
    }

    /// The same of a text as it was written, where every store agrees on what letters are the same.
    pub(super) fn surely_has(&self, text: &str) -> bool {
        let has = |own: &str| {
            own.is_ascii()
                && text.is_ascii()
                && own
                    .to_ascii_lowercase()
                    .contains(&text.to_ascii_lowercase())
        };
        has(&self.action) || self.target_kind.as_deref().is_some_and(has)
    }
}

/// Texts that a process remembers at most, in two halves of which the older is forgotten.
const REMEMBERED_TEXTS: usize = 64 * 1024;

/// The texts that this process has seen to stand in the dictionary, and until which day.
#[derive(Debug, Default)]
pub(super) struct KnownTexts {
    halves: [HashMap<i64, i32>; 2],
}

impl KnownTexts {
    /// Whether the text stands there with this day or a later one.
    pub(super) fn has(&self, key: i64, day: i32) -> bool {
        let mut days = self.halves.iter().filter_map(|half| half.get(&key));
        days.any(|known| *known >= day)
    }

    /// Remembers that it does.
    pub(super) fn learn(&mut self, key: i64, day: i32) {
        if self.halves[0].len() >= REMEMBERED_TEXTS / 2 {
            let [young, old] = &mut self.halves;
            std::mem::swap(young, old);
            young.clear();
        }
        self.halves[0].insert(key, day);
    }
}

/// The day, since 1970, of a time in milliseconds.
pub(super) fn day(at: i64) -> i32 {
    i32::try_from(at.div_euclid(DAY)).unwrap_or(i32::MAX)
}

/// Days that a text outlives the last event it was in: clocks differ, and what is known is known for
/// a while.
pub(super) const TEXTS_OUTLIVE: i32 = 3;

/// Everything that one event is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventKeys {
    /// The number of its facet.
    pub facet: i64,
    /// Its terms, each once.
    pub terms: Vec<Term>,
}

impl EventKeys {
    /// The keys of an event that is being entered.
    pub(super) fn of(event: &AuditEvent, tenant: Option<&str>) -> Self {
        let facet = (event.source.as_str(), event.action.as_str(), event.outcome);
        Self::new(tenant, facet, &event.actor, &event.target)
    }

    /// The keys of an event that stands in the store.
    pub(super) fn of_stored(event: &StoredEvent) -> Self {
        let facet = (event.source.as_str(), event.action.as_str(), event.outcome);
        let tenant = event.tenant_slug.as_deref();
        Self::new(tenant, facet, &event.actor, &event.target)
    }

    fn new(
        tenant: Option<&str>,
        (source, action, outcome): (&str, &str, Option<Outcome>),
        actor: &Actor,
        target: &Target,
    ) -> Self {
        let outcome = outcome.map(Outcome::as_str);
        let kind = target.kind.as_deref();
        let facet = digest(0, &[tenant, Some(source), Some(action), outcome, kind]);
        let texts = [
            (Role::Actor, &actor.id),
            (Role::Actor, &actor.email),
            (Role::Actor, &actor.name),
            (Role::Address, &actor.ip),
            (Role::Target, &target.id),
            (Role::Target, &target.name),
        ];
        let mut terms: Vec<Term> = Vec::with_capacity(texts.len());
        for (role, text) in texts {
            let Some(text) = text.as_deref() else {
                continue;
            };
            let term = Term::new(tenant, role, text);
            if terms.iter().all(|known| known.key != term.key) {
                terms.push(term);
            }
        }
        Self {
            facet: leading(&facet),
            terms,
        }
    }
}

/// The lengths keep parts apart, and a missing part from an empty one.
fn digest(kind: u8, parts: &[Option<&str>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([kind]);
    for part in parts {
        let length = part.map_or(u64::MAX, |text| text.len() as u64);
        hash.update(length.to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

fn leading(digest: &[u8; 32]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_fold_one_by_one() {
        assert_eq!(fold("ÅLICE"), "ålice");
        assert_eq!(fold("ΟΔΟΣ"), fold("οδος"));
        assert_eq!(fold("a\0B"), "a\0b");
        let ascii: String = (0..128_u8).map(char::from).collect();
        assert_eq!(fold(&ascii), fold_any(&ascii));
        // Pairs that a caseless pattern takes for equal.
        for (one, other) in [("ſ", "S"), ("ẞ", "ß"), ("\u{212A}", "k"), ("µ", "μ")] {
            assert_eq!(fold(one), fold(other));
        }
    }

    #[test]
    fn terms_belong_to_a_tenant_and_a_role() {
        let key = |tenant, role, text| Term::new(tenant, role, text).key;
        let alice = key(Some("acme"), Role::Actor, "Alice");
        assert_eq!(alice, key(Some("acme"), Role::Actor, "aLICE"));
        assert_ne!(alice, key(Some("globex"), Role::Actor, "alice"));
        assert_ne!(alice, key(Some("acme"), Role::Target, "alice"));
        assert_ne!(alice, key(None, Role::Actor, "alice"));
        assert_ne!(
            key(None, Role::Address, "2001:DB8::1"),
            key(None, Role::Address, "2001:db8::1")
        );
        assert_ne!(key(Some(""), Role::Actor, "a"), key(None, Role::Actor, "a"));
    }
}
