//! What an event is found by, as numbers that one index holds.
//!
//! - Its *facet*: tenant, source, action, outcome and kind of target together. There are few
//!   thousands of them, whatever the number of events, so a condition on any of the five becomes a
//!   list of facets, and an index on (facet, `at`, id) serves them all.
//! - Its *terms*: each text of its actor and target and its address, with the tenant. An index on
//!   (term, `at`, id) finds them within one tenant without a look at another's events.
//! - Its *masks*: of the actor, the address and the target one bit of sixteen for each text. In the index by
//!   terms they tell which events of one condition can have another.
//!
//! The first two are the first eight bytes of a SHA-256. Should two collide, an index yields an event too
//! many: queries compare the fields themselves as well.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use sha2::{Digest as _, Sha256};

use super::histogram::DAY;
use super::{EventFilter, StoredEvent};
use crate::event::{Actor, AuditEvent, Outcome, Target};

/// A text in one case of letters, character by character. Texts that a store takes for equal in any
/// case fold to one; some that it does not, too.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    // Nearly all texts are, and the long way is a large part of what an event costs.
    if !text.is_ascii() {
        return fold_any(text).into();
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return text.to_ascii_lowercase().into();
    }
    text.into()
}

/// A text in lower case, letter by letter. Unlike `str::to_lowercase` a sigma has one form wherever it
/// stands, so that a part of a text is a part of it in lower case too.
pub(super) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let letters = text.chars().flat_map(char::to_lowercase);
    letters
        .map(|letter| if letter == 'ς' { 'σ' } else { letter })
        .collect()
}

fn fold_any(text: &str) -> String {
    let mut folded = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter.is_ascii() {
            true => folded.push(letter.to_ascii_lowercase()),
            false => folded.extend(fold_letter(letter)),
        }
    }
    folded
}

fn fold_letter(letter: char) -> impl Iterator<Item = char> {
    let upper = letter.to_lowercase().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase)
}

/// Whether a text may fold to one with another that some store does not take for the same: `straße`
/// and `strasse`, dotted and dotless i. Scripts that got a case of letters lately count as odd, for
/// a server may not know it.
pub(super) fn is_odd(text: &str) -> bool {
    const LONG_KNOWN: char = '\u{530}';
    let is_plain = |letter: char| {
        let mut lower = letter.to_lowercase();
        let (first, more) = (lower.next(), lower.next());
        let has_case = || first != Some(letter) || letter.to_uppercase().ne([letter]);
        let folds_to_lower = || fold_letter(letter).eq(first);
        more.is_none() && folds_to_lower() && (letter < LONG_KNOWN || !has_case())
    };
    !text.is_ascii()
        && !text
            .chars()
            .all(|letter| letter.is_ascii() || is_plain(letter))
}

/// The first text, in the order of bytes, behind all that begin with this one. There is none behind the
/// last character repeated.
pub(super) fn first_behind(start: &str) -> Option<String> {
    let kept = start.trim_end_matches(char::MAX);
    let last = kept.chars().next_back()?;
    let next = (last..=char::MAX).nth(1)?;
    let mut behind = kept[..kept.len() - last.len_utf8()].to_owned();
    behind.push(next);
    Some(behind)
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
    /// An odd text of the actor, besides: where there is none, the term alone tells who the actor is.
    OddActor = 4,
    /// An odd text of the target, besides.
    OddTarget = 5,
}

impl Role {
    /// What odd texts of this kind are entered as, besides.
    pub(super) fn odd(self) -> Option<Self> {
        match self {
            Self::Actor => Some(Self::OddActor),
            Self::Target => Some(Self::OddTarget),
            _ => None,
        }
    }
}

/// Of which texts an event has masks, in their order: the role, a name, and how many texts an event has at most.
pub(super) const MASKED: [(Role, &str, usize); 3] = [
    (Role::Actor, "actor", 3),
    (Role::Address, "address", 1),
    (Role::Target, "target", 2),
];

/// The bits of a mask.
const MASK_BITS: u64 = 16;

/// The bit that stands for a folded text. It is stored with events, so a text has the same for ever.
fn mask_bit(folded: &str) -> i32 {
    // FNV-1a. A byte tells most in the bits that the prime lifts it to.
    let hash = folded
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    1 << ((hash >> 40) % MASK_BITS)
}

/// All masks of a role that an event with this text can have.
pub(super) fn masks_with(role: Role, text: &str) -> BTreeSet<i32> {
    let own = mask_bit(&fold(text));
    let texts = MASKED.into_iter().find(|(masked, ..)| *masked == role);
    let others = texts.map_or(0, |(.., texts)| texts - 1);
    (0..others).fold(BTreeSet::from([own]), |masks, _| {
        let with_any = masks
            .iter()
            .flat_map(|mask| (0..MASK_BITS).map(move |bit| mask | 1 << bit));
        with_any.collect()
    })
}

/// What tells the texts of the dictionary apart: nobody finds two with one.
pub(super) type TextId = [u8; 16];

/// One text of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term<'a> {
    /// The number in the index.
    pub key: i64,
    /// The same with more digits, for the dictionary.
    pub id: TextId,
    /// The text, folded.
    pub text: Cow<'a, str>,
}

impl<'a> Term<'a> {
    /// A text of a tenant's events.
    pub(super) fn new(tenant: Option<&str>, role: Role, text: &'a str) -> Self {
        Self::of_folded(tenant, role, text, fold(text))
    }

    fn of_folded(tenant: Option<&str>, role: Role, text: &str, folded: Cow<'a, str>) -> Self {
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

    /// The same for as long as one likes.
    pub(super) fn into_owned(self) -> Term<'static> {
        Term {
            text: self.text.into_owned().into(),
            ..self
        }
    }
}

/// The number of a text's term in each of several tenants.
pub(super) fn terms_in_each<'a>(
    tenants: impl Iterator<Item = Option<&'a str>>,
    role: Role,
    text: &str,
) -> Vec<i64> {
    // Once for all: to fold a long text takes far longer than to hash it.
    let folded = fold(text);
    let key = |tenant| Term::of_folded(tenant, role, text, Cow::Borrowed(&*folded)).key;
    tenants.map(key).collect()
}

/// What a filter asks for that terms tell.
pub(super) fn asked_terms(filter: &EventFilter) -> Vec<(Role, &str)> {
    let asked = [
        (Role::Target, &filter.target),
        (Role::Address, &filter.ip),
        (Role::Actor, &filter.actor),
    ];
    let asked = asked.into_iter();
    let asked = asked.filter_map(|(role, text)| Some((role, text.as_deref()?)));
    asked.collect()
}

/// Whether a filter asks for anything that facets tell.
pub(super) fn asks_facets(filter: &EventFilter) -> bool {
    filter.source.is_some()
        || filter.tenant.is_some()
        || filter.outcome.is_some()
        || filter.action.as_deref().is_some_and(|action| action != "*")
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
            action: event.action.to_string(),
            outcome: event.outcome,
            target_kind: event.target.kind.as_deref().map(str::to_owned),
        }
    }

    /// The facet of an event that stands in the store.
    pub(super) fn of_stored(event: &StoredEvent) -> Self {
        Self {
            tenant: event.tenant_slug.clone(),
            source: event.source.clone(),
            action: event.action.clone(),
            outcome: event.outcome,
            target_kind: event.target.kind.as_deref().map(str::to_owned),
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
    halves: [HashMap<TextId, i32, BuildHasherDefault<AsItIs>>; 2],
}

/// Numbers that are hashes.
pub(super) type KeySet = HashSet<i64, BuildHasherDefault<AsItIs>>;

/// Takes a number for its own hash.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_i64(&mut self, number: i64) {
        self.0 = number.cast_unsigned();
    }
}

impl KnownTexts {
    /// Whether the text stands there with this day or a later one.
    pub(super) fn has(&self, id: &TextId, day: i32) -> bool {
        let mut days = self.halves.iter().filter_map(|half| half.get(id));
        days.any(|known| *known >= day)
    }

    /// Remembers that it does.
    pub(super) fn learn(&mut self, id: TextId, day: i32) {
        if self.halves[0].len() >= REMEMBERED_TEXTS / 2 {
            let [young, old] = &mut self.halves;
            std::mem::swap(young, old);
            young.clear();
        }
        self.halves[0].insert(id, day);
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
pub(super) struct EventKeys<'a> {
    /// The number of its facet.
    pub facet: i64,
    /// Its terms, each once.
    pub terms: Vec<Term<'a>>,
    /// Its masks, in the order of [`MASKED`].
    pub masks: [i32; MASKED.len()],
}

impl<'a> EventKeys<'a> {
    /// The keys of an event that is being entered.
    pub(super) fn of(event: &'a AuditEvent, tenant: Option<&str>) -> Self {
        let facet = (event.source.as_str(), &*event.action, event.outcome);
        Self::new(tenant, facet, &event.actor, &event.target)
    }

    /// The keys of an event that stands in the store.
    pub(super) fn of_stored(event: &'a StoredEvent) -> Self {
        let facet = (event.source.as_str(), event.action.as_str(), event.outcome);
        let tenant = event.tenant_slug.as_deref();
        Self::new(tenant, facet, &event.actor, &event.target)
    }

    fn new(
        tenant: Option<&str>,
        (source, action, outcome): (&str, &str, Option<Outcome>),
        actor: &'a Actor,
        target: &'a Target,
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
        let mut terms: Vec<Term<'a>> = Vec::with_capacity(texts.len());
        let mut masks = [0; MASKED.len()];
        for (role, text) in texts {
            let Some(text) = text.as_deref() else {
                continue;
            };
            let odd = role.odd().filter(|_| is_odd(text));
            for role in [Some(role), odd].into_iter().flatten() {
                let term = Term::new(tenant, role, text);
                for (mask, (masked, ..)) in masks.iter_mut().zip(MASKED) {
                    if masked == role {
                        *mask |= mask_bit(&term.text);
                    }
                }
                if terms.iter().all(|known| known.key != term.key) {
                    terms.push(term);
                }
            }
        }
        Self {
            facet: leading(&facet),
            terms,
            masks,
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

    /// A number of 64 bits can be had twice on purpose; the second text would be in no dictionary.
    #[test]
    fn a_text_with_the_number_of_another_is_not_known() {
        let one = Term::new(None, Role::Actor, "one");
        let other = Term {
            key: one.key,
            ..Term::new(None, Role::Actor, "other")
        };
        let mut known = KnownTexts::default();
        known.learn(one.id, 7);
        assert!(known.has(&one.id, 7) && !known.has(&other.id, 7));
    }

    #[test]
    fn a_bound_lies_just_behind_all_that_begin_so() {
        assert_eq!(first_behind("ocis.").as_deref(), Some("ocis/"));
        assert_eq!(first_behind("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(first_behind("a\u{10ffff}\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(first_behind("\u{10ffff}"), None);
        assert_eq!(first_behind(""), None);
    }

    #[test]
    fn letters_fold_one_by_one() {
        assert_eq!(fold("ÅLICE"), "ålice");
        assert_eq!(fold("ΟΔΟΣ"), fold("οδος"));
        assert_eq!(fold("a\0B"), "a\0b");
        let ascii: String = (0..128_u8).map(char::from).collect();
        let one_by_one: String = ascii.chars().flat_map(fold_letter).collect();
        assert_eq!(
            (&*fold(&ascii), &fold_any(&ascii)),
            (&*one_by_one, &one_by_one)
        );
        // Pairs that a caseless pattern takes for equal.
        for (one, other) in [("ſ", "S"), ("ẞ", "ß"), ("\u{212A}", "k"), ("µ", "μ")] {
            assert_eq!(fold(one), fold(other));
        }
    }

    #[test]
    fn texts_that_others_may_fold_to_are_odd() {
        for plain in ["strasse", "Åse", "ПЁТР", "漢字", "🦀", "é"] {
            assert!(!is_odd(plain), "{plain}");
        }
        for odd in ["straße", "ı", "İ", "ſ", "\u{212A}", "ﬁ", "µ", "ς", "ᲐᲑ"] {
            assert!(is_odd(odd), "{odd}");
        }
        let actor = Actor {
            name: Some("Groß".into()),
            ..Actor::default()
        };
        let target = Target::default();
        let keys = EventKeys::new(Some("acme"), ("s", "a", None), &actor, &target);
        let term = |role, text| Term::new(Some("acme"), role, text);
        let wanted = [term(Role::Actor, "gross"), term(Role::OddActor, "GROSS")];
        assert_eq!(keys.terms, wanted);
    }

    #[test]
    fn masks_tell_which_events_can_have_a_text() {
        let actor = Actor {
            id: Some("7".into()),
            email: Some("Straße@example.org".into()),
            name: Some("Alice".into()),
            ip: Some("2001:DB8::1".into()),
        };
        let target = Target {
            id: Some("9".into()),
            ..Target::default()
        };
        let of = |actor: &Actor| EventKeys::new(None, ("s", "a", None), actor, &target).masks;
        // Stored events have these.
        let masks = of(&actor);
        assert_eq!(masks, [1280, 8192, 16]);
        assert_eq!(of(&Actor::default()), [0, 0, masks[2]]);
        for (place, text) in [
            (0, "7"),
            (0, "STRASSE@example.org"),
            (0, "aLICE"),
            (1, "2001:db8::1"),
            (2, "9"),
        ] {
            let (role, ..) = MASKED[place];
            assert!(masks_with(role, text).contains(&masks[place]), "{text}");
        }
        assert!(!masks_with(Role::Actor, "bob").contains(&masks[0]));

        let counts = MASKED.map(|(role, ..)| masks_with(role, "x").len());
        assert_eq!(counts, [121, 1, 16]);
        let mut texts = [0; 16];
        for number in 0..16_000 {
            texts[mask_bit(&format!("user-{number}")).trailing_zeros() as usize] += 1;
        }
        assert!(
            texts.iter().all(|count| (800..1_200).contains(count)),
            "{texts:?}"
        );
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

        let tenants = [Some("acme"), None, Some("globex")];
        for (role, text) in [(Role::OddActor, "GROẞ"), (Role::Address, "2001:DB8::1")] {
            let each = terms_in_each(tenants.into_iter(), role, text);
            assert_eq!(each, tenants.map(|tenant| key(tenant, role, text)));
        }
    }
}
