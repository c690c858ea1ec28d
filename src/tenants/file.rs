//! A directory in a file, for installations without a platform database.
//!
//! ```toml
//! [[tenants]]
//! slug = "acme"                       # what stands in events
//! name = "Acme Ltd"
//! id = "t-1"                          # default: the slug
//! domains = ["acme.example"]          # of its mail
//! groups = ["acme-staff"]             # of Authentik, beside one named like the slug
//! spaceIds = ["6f1c…"]                # of OCIS; also `space_ids`
//!
//! [[users]]
//! authentikSubjectId = "9b2e…"        # also `subject`
//! email = "alice@acme.example"
//! tenantIds = ["acme"]                # ids or slugs; also `tenants`
//! ```
//!
//! What two tenants claim (a slug, an id, a domain, a group, a space) is an error: the file is
//! written by hand, and a tenant found by chance would show one tenant's events to another.

use std::collections::HashMap;
use std::path::Path;

use crate::config::ConfigError;
use crate::config::load::{parse_file, read_text};
use crate::config::section::{Report, Section};
use crate::config::tree::{Node, Place, quote};
use crate::config::values::{Mismatch, filled_text};
use crate::store::{DirectoryRecords, TenantRecord, UserRecord};

/// Reads a directory file.
///
/// # Errors
/// Every problem found, each with its line and key.
pub fn read_directory_file(path: &Path) -> Result<DirectoryRecords, ConfigError> {
    parse_directory(path, &read_text(path)?)
}

/// Reads the text of a directory file; `path` only names it in errors.
///
/// # Errors
/// Every problem found, each with its line and key.
pub fn parse_directory(path: &Path, text: &str) -> Result<DirectoryRecords, ConfigError> {
    let table = parse_file(path, text)?;
    let mut report = Report::default();
    let place = Place::File(path.display().to_string().into());
    let mut root = Section::root(table, place, &mut report);
    let tenants = root.sections("tenants", |index, section| {
        Some((index, read_tenant(section)))
    });
    let users = root.sections("users", |index, section| Some((index, read_user(section))));
    root.finish();

    check_claims(&tenants, &mut report);
    let mut ids: HashMap<&str, &str> = HashMap::new();
    for (_, tenant) in &tenants {
        ids.entry(&tenant.slug).or_insert(&tenant.id);
    }
    // An id is what the key asks for; a slug that equals another tenant's id gives way.
    for (_, tenant) in &tenants {
        ids.insert(&tenant.id, &tenant.id);
    }
    let users = users
        .into_iter()
        .map(|(index, user)| resolve_tenants(index, user, &ids, &mut report))
        .collect();
    report.into_result()?;
    Ok(DirectoryRecords {
        tenants: tenants.into_iter().map(|(_, tenant)| tenant).collect(),
        users,
        learned: Vec::new(),
    })
}

fn read_tenant(mut section: Section<'_>) -> TenantRecord {
    let slug = section.require(
        "slug",
        "the tenant's slug, as it is to stand in events",
        slug,
    );
    let slug = slug.unwrap_or_default();
    let id = section
        .take("id", filled_text)
        .unwrap_or_else(|| slug.clone());
    let name = section.take("name", filled_text);
    let texts = "a list of texts";
    let domains = section.list("domains", texts, domain).unwrap_or_default();
    let groups = section
        .list("groups", texts, filled_text)
        .unwrap_or_default();
    let space_ids = one_of_two(&mut section, "spaceIds", "space_ids");
    section.finish();
    TenantRecord {
        id,
        slug,
        name,
        domains,
        groups,
        space_ids,
    }
}

struct WrittenUser {
    subject: Option<String>,
    email: Option<String>,
    tenants: Vec<String>,
    tenants_key: &'static str,
}

fn read_user(mut section: Section<'_>) -> WrittenUser {
    let is_named = ["authentikSubjectId", "subject", "email"]
        .iter()
        .any(|key| section.has(key));
    let subject = section.take("authentikSubjectId", filled_text);
    let short = section.take("subject", filled_text);
    if subject.is_some() && short.is_some() {
        section.complain("authentikSubjectId and subject", "one of the two");
    }
    let email = section.take("email", email);
    let tenants_key = if section.has("tenants") {
        "tenants"
    } else {
        "tenantIds"
    };
    let tenants = one_of_two(&mut section, "tenantIds", "tenants");
    let subject = subject.or(short);
    if !is_named {
        section.complain(
            "a user without authentikSubjectId and email",
            "one of the two at least",
        );
    }
    section.finish();
    WrittenUser {
        subject,
        email,
        tenants,
        tenants_key,
    }
}

fn one_of_two(section: &mut Section<'_>, name: &'static str, alias: &'static str) -> Vec<String> {
    let wanted = "a list of texts";
    let named = section.list(name, wanted, filled_text);
    let aliased = section.list(alias, wanted, filled_text);
    if named.is_some() && aliased.is_some() {
        section.complain(
            &format!("{name} and {alias}"),
            "one of the two: they mean the same",
        );
    }
    named.or(aliased).unwrap_or_default()
}

fn slug(node: &Node) -> Result<String, Mismatch> {
    let slug = filled_text(node)?;
    if slug.len() > 128 || slug.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Mismatch::new(
            node.describe(),
            "a slug without blanks, up to 128 bytes",
        ));
    }
    Ok(slug)
}

fn domain(node: &Node) -> Result<String, Mismatch> {
    let domain = filled_text(node)?
        .trim()
        .trim_end_matches('.')
        .to_lowercase();
    let strange = |c: char| c.is_whitespace() || c.is_control() || "@/:*".contains(c);
    if domain.is_empty() || domain.starts_with('.') || domain.contains(strange) {
        return Err(Mismatch::new(
            node.describe(),
            "a bare domain, such as \"acme.example\"",
        ));
    }
    Ok(domain)
}

fn email(node: &Node) -> Result<String, Mismatch> {
    let email = filled_text(node)?;
    match email.rsplit_once('@') {
        Some((local, domain)) if !local.is_empty() && !domain.is_empty() => Ok(email),
        _ => Err(Mismatch::new(node.describe(), "a mail address")),
    }
}

fn check_claims(tenants: &[(usize, TenantRecord)], report: &mut Report) {
    let mut claimed: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, tenant) in tenants {
        let here = format!("tenants[{index}]");
        let spaces = if report.is_set(&format!("{here}.space_ids")) {
            "space_ids"
        } else {
            "spaceIds"
        };
        // An id that was not written is the slug.
        let id_key = if report.is_set(&format!("{here}.id")) {
            "id"
        } else {
            "slug"
        };
        // A group named like a slug belongs to that tenant, so slugs claim groups too.
        let mut claims = vec![
            ("slug", "slug", &tenant.slug),
            ("group", "slug", &tenant.slug),
            ("id", id_key, &tenant.id),
        ];
        claims.extend(
            tenant
                .domains
                .iter()
                .map(|name| ("domain", "domains", name)),
        );
        claims.extend(tenant.groups.iter().map(|name| ("group", "groups", name)));
        claims.extend(tenant.space_ids.iter().map(|id| ("space", spaces, id)));
        for (what, key, value) in claims {
            if value.is_empty() {
                continue;
            }
            let owner = *claimed.entry((what, value.as_str())).or_insert(*index);
            if owner != *index {
                let found = format!(
                    "{what} {}, which tenants[{owner}] has already",
                    quote(value)
                );
                report.add(&format!("{here}.{key}"), found, "each in one tenant only");
            }
        }
    }
}

fn resolve_tenants(
    index: usize,
    user: WrittenUser,
    ids: &HashMap<&str, &str>,
    report: &mut Report,
) -> UserRecord {
    let mut tenant_ids = Vec::with_capacity(user.tenants.len());
    for (at, named) in user.tenants.iter().enumerate() {
        match ids.get(named.as_str()) {
            Some(id) => tenant_ids.push((*id).to_owned()),
            None => {
                let key = format!("users[{index}].{}[{at}]", user.tenants_key);
                report.add(
                    &key,
                    quote(named),
                    "the id or slug of a tenant in this file",
                );
            }
        }
    }
    UserRecord {
        subject: user.subject,
        email: user.email,
        tenant_ids,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DirectoryRecords, ConfigError> {
        parse_directory(Path::new("tenants.toml"), text)
    }

    #[test]
    fn names_and_their_aliases_are_read() {
        let directory = parse(
            r#"
            [[tenants]]
            slug = "acme"
            name = "Acme Ltd"
            id = "t-1"
            domains = ["ACME.example."]
            groups = ["acme-staff"]
            spaceIds = ["space-1"]
            [[tenants]]
            slug = "globex"
            space_ids = ["space-2"]
            [[users]]
            authentikSubjectId = "s-1"
            email = "alice@acme.example"
            tenantIds = ["acme", "globex"]
            [[users]]
            subject = "s-2"
            tenants = ["t-1"]
            "#,
        )
        .unwrap();
        let [acme, globex] = directory.tenants.as_slice() else {
            panic!("{directory:?}")
        };
        assert_eq!((acme.id.as_str(), acme.slug.as_str()), ("t-1", "acme"));
        assert_eq!(acme.domains, ["acme.example"]);
        assert_eq!(
            (globex.id.as_str(), globex.name.as_deref()),
            ("globex", None)
        );
        assert_eq!(globex.space_ids, ["space-2"]);
        let [alice, other] = directory.users.as_slice() else {
            panic!("{directory:?}")
        };
        assert_eq!(alice.tenant_ids, ["t-1", "globex"]);
        assert_eq!(other.subject.as_deref(), Some("s-2"));
        assert_eq!(other.tenant_ids, ["t-1"]);
    }

    #[test]
    fn an_empty_file_is_an_empty_directory() {
        assert_eq!(parse("").unwrap(), DirectoryRecords::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_key() {
        let cases = [
            ("[[tenants]]\nname = \"x\"", "tenants[0].slug", 1, "slug"),
            (
                "[[tenants]]\nslug = \"\"",
                "tenants[0].slug",
                2,
                "not empty",
            ),
            (
                "[[tenants]]\nslug = \"a b\"",
                "tenants[0].slug",
                2,
                "without blanks",
            ),
            ("[[tenants]]\nslug = 1", "tenants[0].slug", 2, "quotes"),
            (
                "[[tenants]]\nslug = \"a\"\ndomain = [\"x\"]",
                "tenants[0].domain",
                3,
                "`domains`",
            ),
            (
                "[[tenants]]\nslug = \"a\"\ndomains = \"x\"",
                "tenants[0].domains",
                3,
                "a list",
            ),
            (
                "[[tenants]]\nslug = \"a\"\ndomains = [\n\"x@y\"]",
                "tenants[0].domains[0]",
                4,
                "bare domain",
            ),
            (
                "[[tenants]]\nslug = \"a\"\n[[tenants]]\nslug = \"a\"",
                "tenants[1].slug",
                4,
                "one tenant only",
            ),
            (
                "[[tenants]]\nslug = \"a\"\ngroups = [\"g\"]\n[[tenants]]\nslug = \"b\"\ngroups = [\"g\"]",
                "tenants[1].groups",
                6,
                "one tenant only",
            ),
            (
                "[[tenants]]\nslug = \"a\"\n[[tenants]]\nslug = \"b\"\nid = \"x\"\ngroups = [\"a\"]",
                "tenants[1].groups",
                6,
                "one tenant only",
            ),
            (
                "[[tenants]]\nslug = \"a\"\nspaceIds = []\nspace_ids = []",
                "tenants[0]",
                1,
                "one of the two",
            ),
            (
                "[[users]]\ntenants = []",
                "users[0]",
                1,
                "one of the two at least",
            ),
            (
                "[[users]]\nemail = \"alice\"",
                "users[0].email",
                2,
                "mail address",
            ),
            (
                "[[users]]\nsubject = \"s\"\ntenants = [\"x\"]",
                "users[0].tenants[0]",
                3,
                "id or slug",
            ),
            (
                "[[users]]\nsubject = \"s\"\ntenantIds = [\"x\"]",
                "users[0].tenantIds[0]",
                3,
                "id or slug",
            ),
            ("[tenants]\nslug = \"a\"", "tenants", 1, "[[tenants]]"),
            ("tenant = 1", "tenant", 1, "`tenants`"),
            ("\n\n[[tenants]\n", "", 3, "TOML"),
        ];
        for (text, key, line, wanted) in cases {
            let error = parse(text).unwrap_err();
            let problem = &error.problems[0];
            assert_eq!(problem.key, key, "{text}: {error}");
            assert_eq!(
                problem.place,
                format!("tenants.toml:{line}"),
                "{text}: {error}"
            );
            assert!(problem.wanted.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn an_id_is_claimed_also_where_it_is_the_slug() {
        let acme = "[[tenants]]\nslug = \"acme\"\nid = \"globex\"\n";
        let globex = "[[tenants]]\nslug = \"globex\"\n";
        for (text, key) in [
            (format!("{acme}{globex}"), "tenants[1].slug"),
            (format!("{globex}{acme}"), "tenants[1].id"),
            (format!("{globex}{globex}"), "tenants[1].slug"),
        ] {
            let error = parse(&text).unwrap_err();
            let [problem] = error.problems.as_slice() else {
                panic!("{text}: {error}")
            };
            assert_eq!(problem.key, key, "{text}: {error}");
            let found = "\"globex\", which tenants[0] has already";
            assert!(problem.found.contains(found), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tenants.toml");
        let error = read_directory_file(&path).unwrap_err();
        assert_eq!(error.problems[0].found, "no such file");
        assert_eq!(error.problems[0].place, path.display().to_string());
    }
}
