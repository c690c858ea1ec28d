//! Whose an event of the simulators is, told by what it says and by who is who: by nothing that
//! Daybook makes of it.

use std::collections::HashMap;

use daybook::simulators::people::People;
use daybook::store::StoredEvent;

/// By what only one tenant has, its slug: by the ids of its people and spaces, and by its domains. All
/// that happens in the simulated world happens within one tenant, or in none.
#[derive(Clone, Debug)]
pub struct Whose(HashMap<String, String>);

impl Whose {
    /// Who is who.
    pub fn new(people: &People) -> Self {
        let mut slugs = HashMap::new();
        for (number, tenant) in people.tenants.iter().enumerate() {
            let own = people.persons.iter().filter(|own| own.tenant == number);
            let spaces = tenant.spaces.iter().map(|space| &space.id);
            let ids = own.map(|own| &own.uid).chain(spaces);
            for mark in ids.chain(&tenant.domains) {
                slugs.insert(mark.clone(), tenant.slug.clone());
            }
        }
        Self(slugs)
    }

    /// The tenant of which a text names anything.
    ///
    /// # Panics
    /// When it names several.
    pub fn told_by(&self, text: &str) -> Option<&str> {
        let is_between = |c: char| !(c.is_ascii_alphanumeric() || ['-', '.'].contains(&c));
        let mut named = text.split(is_between).filter_map(|word| self.0.get(word));
        let slug = named.next()?;
        assert!(named.all(|other| other == slug), "of two tenants: {text}");
        Some(slug)
    }

    /// What is wrong with the tenant of a stored event, by what the event says.
    ///
    /// # Panics
    /// When it names several.
    pub fn amiss(&self, event: &StoredEvent) -> Option<String> {
        let said = serde_json::to_string(&(&event.actor, &event.metadata));
        amiss(event, self.told_by(&said.expect("an event is JSON")))
    }
}

/// What is wrong with the tenant of a stored event, which should be this one, or none.
pub(crate) fn amiss(event: &StoredEvent, wanted: Option<&str>) -> Option<String> {
    let found = event.tenant_slug.as_deref();
    let (source, id) = (&event.source, &event.external_id);
    (found != wanted)
        .then(|| format!("{source} {id} is entered for {found:?} and not for {wanted:?}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use daybook::event::{Actor, Target};
    use daybook::simulators::stalwart::{StalwartEvent, StalwartProfile};
    use daybook::simulators::{authentik, ocis, platform, stalwart};
    use jiff::Timestamp;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::Map;

    use super::*;

    /// An event of a recorder, by a person of whom only the id is known.
    pub(crate) fn stored(tenant: Option<&str>, actor: &str) -> StoredEvent {
        StoredEvent {
            id: "1".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            ingested_at: Timestamp::UNIX_EPOCH,
            source: "platform-api".to_owned(),
            external_id: "1".to_owned(),
            action: "invoice.paid".to_owned(),
            outcome: None,
            actor: Actor {
                id: Some(actor.into()),
                ..Actor::default()
            },
            target: Target::default(),
            tenant_slug: tenant.map(str::to_owned),
            metadata: Map::new(),
        }
    }

    #[test]
    fn all_that_happens_is_one_tenants_or_nobodys() {
        let (people, mut rng) = (People::new(3), StdRng::seed_from_u64(3));
        let (whose, at) = (Whose::new(&people), Timestamp::now());
        let (mut somebodys, mut nobodys) = (0, 0);
        for _ in 0..500 {
            let mail = stalwart::realistic(&mut rng, &people, at, StalwartProfile::V0_16);
            let mut said: Vec<String> = mail.iter().map(StalwartEvent::fingerprint).collect();
            let line = ocis::realistic(&mut rng, &people, at).to_bytes();
            said.push(String::from_utf8(line).expect("a line is text"));
            said.push(authentik::events::realistic(&mut rng, &people, at).to_string());
            said.push(platform::realistic(&mut rng, &people, at).to_string());
            for said in said {
                match whose.told_by(&said) {
                    Some(_) => somebodys += 1,
                    None => nobodys += 1,
                }
            }
        }
        assert!(
            somebodys > 1000 && nobodys > 50,
            "{somebodys} and {nobodys}"
        );
    }

    #[test]
    fn another_tenant_is_amiss_and_so_is_none() {
        let people = People::new(1);
        let whose = Whose::new(&people);
        let person = &people.persons[0];
        let (own, other) = (&people.tenants[0].slug, &people.tenants[1].slug);
        assert_eq!(person.tenant, 0);
        for (actor, tenant, is_right) in [
            (&person.uid, Some(own), true),
            (&person.uid, Some(other), false),
            (&person.uid, None, false),
            (&people.admin.uid, None, true),
            (&people.admin.uid, Some(own), false),
        ] {
            let event = stored(tenant.map(String::as_str), actor);
            let amiss = whose.amiss(&event);
            assert_eq!(amiss.is_none(), is_right, "{amiss:?}");
        }
    }
}
