//! Six tenants and the people in them: who acts in the simulated world.
//!
//! Every id is drawn from the seed, so that two runs with one seed tell the same story. A
//! person's OCIS user id is the Authentik `uid`, the subject that OIDC hands out by default, and
//! a personal space carries its owner's id as its own.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::{hex, pick, uuid4};
use crate::store::{DirectoryRecords, TenantRecord, UserRecord};

/// An Authentik group.
#[derive(Clone, Debug)]
pub struct Group {
    /// UUID with dashes.
    pub pk: String,
    /// What Authentik shows, and what a tenant lists.
    pub name: String,
}

/// A space of OCIS that belongs to a tenant as a whole.
#[derive(Clone, Debug)]
pub struct Space {
    /// The space's id, without storage and node.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// One person.
#[derive(Clone, Debug)]
pub struct Person {
    /// Authentik's primary key.
    pub pk: i64,
    /// Log-in name.
    pub username: String,
    /// Full name.
    pub name: String,
    /// Mail address: the mail account, too.
    pub email: String,
    /// Authentik's `uid`: OIDC subject and OCIS user id.
    pub uid: String,
    /// Authentik's `uuid`.
    pub uuid: String,
    /// Index into [`People::tenants`].
    pub tenant: usize,
    /// The address it usually comes from.
    pub ip: String,
    /// Stalwart's number of the mail account.
    pub mail_account: u32,
}

/// One tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The platform's id, as text.
    pub id: String,
    /// What stands in events.
    pub slug: String,
    /// For people.
    pub name: String,
    /// Mail domains; the first is where its people's addresses are.
    pub domains: Vec<String>,
    /// Its group in Authentik, named like its slug or listed by the tenant.
    pub group: Group,
    /// Project spaces.
    pub spaces: Vec<Space>,
}

/// Everybody.
#[derive(Clone, Debug)]
pub struct People {
    /// Six of them.
    pub tenants: Vec<Tenant>,
    /// All people of all tenants.
    pub persons: Vec<Person>,
    /// Who administers Authentik and OCIS; belongs to no tenant's group.
    pub admin: Person,
    /// Groups that say nothing about a tenant.
    pub common_groups: Vec<Group>,
    /// The id of OCIS's storage mount.
    pub storage: String,
    /// Files that people work on, by tenant-neutral name.
    pub file_names: &'static [&'static str],
}

/// Slug, name, domains, group name (empty: the slug itself), names of spaces.
type TenantRow = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
    [&'static str; 2],
);

const TENANTS: [TenantRow; 6] = [
    (
        "birchwood",
        "Birchwood Dental",
        &["birchwood.example.org"],
        "",
        ["Birchwood Practice", "Birchwood X-ray Archive"],
    ),
    (
        "harbour-legal",
        "Harbour & Voss Legal",
        &["harbour-voss.example.com", "hv-law.example.com"],
        "tenant-harbour",
        ["Case Files", "Harbour Templates"],
    ),
    (
        "lumen",
        "Lumen Film Studio",
        &["lumen.example.net"],
        "",
        ["Dailies 2026", "Lumen Contracts"],
    ),
    (
        "ostrava-steel",
        "Ostravské ocelárny",
        &["ostrava-steel.example.cz"],
        "steel-staff",
        ["Výkresy", "Steel Purchasing"],
    ),
    (
        "quill",
        "Quill Press",
        &["quill.example.pub"],
        "",
        ["Manuscripts", "Rights and Royalties"],
    ),
    (
        "solstice",
        "Solstice Travel",
        &["solstice.example.travel", "mail.solstice.example.travel"],
        "Solstice Team",
        ["Itineraries", "Solstice Finance"],
    ),
];

const GIVEN_NAMES: [&str; 40] = [
    "Ada",
    "Amara",
    "Anneli",
    "Beatriz",
    "Chen",
    "Dafydd",
    "Elif",
    "Emeka",
    "Farah",
    "Gustavo",
    "Hanna",
    "Ibrahim",
    "Ines",
    "Jonas",
    "Kaito",
    "Katarína",
    "Lars",
    "Leila",
    "Mateo",
    "Mei",
    "Milan",
    "Nadia",
    "Noor",
    "Olga",
    "Pavel",
    "Priya",
    "Rafael",
    "Rosa",
    "Samir",
    "Sigrid",
    "Soren",
    "Tamar",
    "Thabo",
    "Tomás",
    "Uma",
    "Viktor",
    "Wanjiru",
    "Xenia",
    "Yusuf",
    "Zofia",
];

const FAMILY_NAMES: [&str; 36] = [
    "Abara",
    "Almeida",
    "Bergström",
    "Brandt",
    "Castillo",
    "Demir",
    "Dvořák",
    "Eriksen",
    "Fontaine",
    "Grünwald",
    "Haddad",
    "Horváth",
    "Ito",
    "Jansen",
    "Kamau",
    "Kowalska",
    "Lindqvist",
    "Marchetti",
    "Mbeki",
    "Moreau",
    "Nakamura",
    "Novák",
    "O'Brien",
    "Okafor",
    "Papadakis",
    "Petrov",
    "Quiroga",
    "Rao",
    "Rossi",
    "Saidi",
    "Silva",
    "Tanaka",
    "Ueda",
    "Vargas",
    "Weber",
    "Zhang",
];

const FILE_NAMES: [&str; 16] = [
    "Budget 2026.xlsx",
    "Minutes.md",
    "Offer letter.docx",
    "Invoice 2026-118.pdf",
    "Floor plan.dwg",
    "Übersicht.pdf",
    "Roadmap.pptx",
    "contract (signed).pdf",
    "photo_0412.jpg",
    "Q3 numbers.xlsx",
    "draft v7 FINAL.docx",
    "notes.txt",
    "Price list – spring.ods",
    "interview.mp4",
    "backup.tar.gz",
    "Straße 12.pdf",
];

impl People {
    /// Draws everybody from a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7065_6f70_6c65);
        let tenants: Vec<Tenant> = TENANTS
            .iter()
            .enumerate()
            .map(|(index, (slug, name, domains, group, spaces))| Tenant {
                id: format!("6650{:020x}", index + 1),
                slug: (*slug).to_owned(),
                name: (*name).to_owned(),
                domains: domains.iter().map(|d| (*d).to_owned()).collect(),
                group: Group {
                    pk: uuid4(&mut rng),
                    name: if group.is_empty() { *slug } else { *group }.to_owned(),
                },
                spaces: spaces
                    .iter()
                    .map(|space| Space {
                        id: uuid4(&mut rng),
                        name: (*space).to_owned(),
                    })
                    .collect(),
            })
            .collect();

        let mut persons = Vec::new();
        let mut pk = 10;
        for (index, tenant) in tenants.iter().enumerate() {
            let head_count = rng.random_range(7..=11);
            let mut taken = Vec::new();
            while taken.len() < head_count {
                let given = *pick(&mut rng, &GIVEN_NAMES);
                let family = *pick(&mut rng, &FAMILY_NAMES);
                let local = format!("{}.{}", ascii(given), ascii(family));
                if taken.contains(&local) {
                    continue;
                }
                let email = format!("{local}@{}", tenant.domains[0]);
                let office = rng.random_bool(0.7);
                persons.push(Person {
                    pk,
                    // Log-in names are unique over all tenants, as they must be.
                    username: format!("{local}.{}", initials(&tenant.slug)),
                    name: format!("{given} {family}"),
                    uid: hex(&Sha256::digest(format!("{seed}/{pk}/{email}"))),
                    uuid: uuid4(&mut rng),
                    email,
                    tenant: index,
                    ip: if office {
                        format!("203.0.113.{}", 10 + index)
                    } else {
                        format!("198.51.100.{}", rng.random_range(2..250))
                    },
                    // Each server counts for itself: what is one's number here is another's there.
                    mail_account: u32::try_from(persons.len()).unwrap_or_default() + 2,
                });
                taken.push(local);
                pk += 1;
            }
        }

        let admin = Person {
            pk: 2,
            username: "akadmin".to_owned(),
            name: "authentik Default Admin".to_owned(),
            email: "admin@platform.example".to_owned(),
            uid: hex(&Sha256::digest(format!("{seed}/admin"))),
            uuid: uuid4(&mut rng),
            tenant: usize::MAX,
            ip: "203.0.113.2".to_owned(),
            mail_account: 1,
        };
        let common_groups = ["authentik Admins", "authentik Read-only"]
            .iter()
            .map(|name| Group {
                pk: uuid4(&mut rng),
                name: (*name).to_owned(),
            })
            .collect();
        Self {
            tenants,
            persons,
            admin,
            common_groups,
            storage: uuid4(&mut rng),
            file_names: &FILE_NAMES,
        }
    }

    /// Anyone.
    pub fn anyone(&self, rng: &mut impl Rng) -> &Person {
        pick(rng, &self.persons)
    }

    /// Another person of the same tenant.
    pub fn colleague_of(&self, rng: &mut impl Rng, person: &Person) -> &Person {
        let colleagues: Vec<&Person> = self
            .persons
            .iter()
            .filter(|other| other.tenant == person.tenant && other.pk != person.pk)
            .collect();
        colleagues[rng.random_range(0..colleagues.len())]
    }

    /// The person's tenant; `None` for the administrator.
    pub fn tenant_of(&self, person: &Person) -> Option<&Tenant> {
        self.tenants.get(person.tenant)
    }

    /// The directory as the platform's database would hold it.
    pub fn directory(&self) -> DirectoryRecords {
        let tenants = self
            .tenants
            .iter()
            .map(|tenant| TenantRecord {
                id: tenant.id.clone(),
                slug: tenant.slug.clone(),
                name: Some(tenant.name.clone()),
                domains: tenant.domains.clone(),
                groups: vec![tenant.group.name.clone()],
                space_ids: tenant.spaces.iter().map(|s| s.id.clone()).collect(),
            })
            .collect();
        let users = self
            .persons
            .iter()
            .map(|person| UserRecord {
                subject: Some(person.uid.clone()),
                email: Some(person.email.clone()),
                tenant_ids: self
                    .tenant_of(person)
                    .map(|tenant| tenant.id.clone())
                    .into_iter()
                    .collect(),
            })
            .collect();
        DirectoryRecords {
            tenants,
            users,
            learned: Vec::new(),
        }
    }

    /// The same directory as the text of a `tenants.toml`, with the field names of the database.
    pub fn tenants_toml(&self) -> String {
        let mut text = String::new();
        for tenant in &self.tenants {
            let spaces: Vec<&str> = tenant.spaces.iter().map(|s| s.id.as_str()).collect();
            // Writing into a String cannot fail.
            let _written = writeln!(
                text,
                "[[tenants]]\nid = {}\nslug = {}\nname = {}\ndomains = {}\ngroups = {}\nspaceIds = {}\n",
                quoted(&tenant.id),
                quoted(&tenant.slug),
                quoted(&tenant.name),
                list(&tenant.domains),
                list(&[&tenant.group.name]),
                list(&spaces),
            );
        }
        for person in &self.persons {
            let Some(tenant) = self.tenant_of(person) else {
                continue;
            };
            let _written = writeln!(
                text,
                "[[users]]\nauthentikSubjectId = {}\nemail = {}\ntenantIds = {}\n",
                quoted(&person.uid),
                quoted(&person.email),
                list(&[&tenant.id]),
            );
        }
        text
    }
}

fn quoted(text: &str) -> String {
    // A JSON string is a TOML basic string as long as it holds no DEL, which no name here does.
    serde_json::Value::from(text).to_string()
}

fn list(items: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

fn initials(slug: &str) -> String {
    slug.split('-').filter_map(|part| part.get(..2)).collect()
}

fn ascii(name: &str) -> String {
    name.chars()
        .filter_map(|letter| {
            Some(match letter {
                'á' => 'a',
                'í' => 'i',
                'ö' => 'o',
                'ü' => 'u',
                'ř' => 'r',
                '\'' => return None,
                other => other.to_ascii_lowercase(),
            })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_seed_gives_one_world() {
        let first = People::new(7);
        assert_eq!(first.tenants_toml(), People::new(7).tenants_toml());
        assert_ne!(first.tenants_toml(), People::new(8).tenants_toml());
    }

    #[test]
    fn names_and_ids_are_unique_and_plain() {
        let people = People::new(1);
        assert_eq!(people.tenants.len(), 6);
        for field in [
            people
                .persons
                .iter()
                .map(|p| p.username.clone())
                .collect::<Vec<_>>(),
            people.persons.iter().map(|p| p.email.clone()).collect(),
            people.persons.iter().map(|p| p.uid.clone()).collect(),
        ] {
            let unique: HashSet<&String> = field.iter().collect();
            assert_eq!(unique.len(), people.persons.len());
        }
        assert!(people.persons.iter().all(|p| p.email.is_ascii()));
    }

    #[test]
    fn mail_accounts_have_numbers_of_their_own() {
        let people = People::new(1);
        let everybody = || people.persons.iter().chain([&people.admin]);
        let mail: HashSet<i64> = everybody().map(|p| p.mail_account.into()).collect();
        assert_eq!(mail.len(), people.persons.len() + 1);
        assert!(everybody().all(|p| i64::from(p.mail_account) != p.pk));
        assert!(everybody().any(|p| mail.contains(&p.pk)));
    }

    #[test]
    fn the_file_says_what_the_records_say() {
        let people = People::new(3);
        let file: toml::Table = toml::from_str(&people.tenants_toml()).unwrap();
        let records = people.directory();
        let tenants = file["tenants"].as_array().unwrap();
        assert_eq!(tenants.len(), records.tenants.len());
        for (written, record) in tenants.iter().zip(&records.tenants) {
            assert_eq!(written["slug"].as_str().unwrap(), record.slug);
            assert_eq!(
                written["domains"].as_array().unwrap().len(),
                record.domains.len()
            );
        }
        assert_eq!(file["users"].as_array().unwrap().len(), records.users.len());
    }
}
