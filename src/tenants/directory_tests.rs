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
