//! What is found, in which order, and page by page.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::store::feed::Matcher;

/// Ids of the events of a tenant that a filter finds, newest first.
pub(super) async fn found(store: &Subject, filter: &EventFilter) -> Vec<String> {
    let found = store
        .find_events(filter, None, 1000)
        .await
        .expect("find_events");
    found.into_iter().map(|event| event.external_id).collect()
}

pub(super) async fn enter(store: &Subject, tenant: &str, events: &[AuditEvent]) {
    let records = events.iter().map(|event| Record::Event {
        event,
        tenant_slug: Some(tenant),
    });
    let fates = commit_records(store, records.collect()).await;
    assert!(fates.iter().all(|fate| *fate == Fate::Written), "{fates:?}");
}

/// Three events of two sources under one tenant, and one of another tenant.
async fn enter_three(store: &Subject, tenant: &str) {
    let source = |number: i32| format!("{tenant} {number}");
    let mut three: Vec<_> = (1..=3)
        .map(|number: i32| AuditEvent {
            at: at(1_700_000_000_000 + i64::from(number) * 1000),
            ..event(&source(number / 2), &number.to_string())
        })
        .collect();
    three[0].action = "authentik.login".into();
    three[0].outcome = Some(Outcome::Success);
    three[0].actor.email = Some("Ålice@Example.org".into());
    three[0].actor.ip = Some("192.0.2.1".into());
    three[1].action = "authentik.login_failed".into();
    three[1].outcome = Some(Outcome::Failure);
    three[1].actor.id = Some("ålice@example.org".into());
    three[1].target.name = Some("Quarterly Report.odt".into());
    three[2].action = "ocis.file_deleted".into();
    three[2].actor.name = Some("alice@example.org2".into());
    three[2].target.id = Some("quarterly report.ODT".into());
    enter(store, tenant, &three).await;
    let mut hidden = event(&source(9), "9");
    hidden.action = "hidden.\u{10ffff}\u{10ffff}".into();
    enter(store, "somebody else", &[hidden]).await;
}

pub(super) async fn each_condition_selects_what_it_says(store: Subject) {
    enter_three(&store, "conditions").await;
    let base = EventFilter {
        tenant: Some("conditions".to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(found(&store, &base).await, ["3", "2", "1"]);

    let source = EventFilter {
        source: Some("conditions 1".to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(found(&store, &source).await, ["3", "2"]);
    for (action, expected) in [
        ("authentik.login", &["1"][..]),
        ("authentik.*", &["2", "1"]),
        ("authentik.login*", &["2", "1"]),
        ("authentik.login_*", &["2"]),
        ("authentik.log", &[]),
        ("Authentik.*", &[]),
        ("*", &["3", "2", "1"]),
        ("a.thentik.*", &[]),
        ("*.login", &[]),
    ] {
        let filter = EventFilter {
            action: Some(action.to_owned()),
            ..base.clone()
        };
        assert_eq!(found(&store, &filter).await, expected, "action {action}");
    }
    for action in ["hidden.*", "hidden.\u{10ffff}*"] {
        let filter = EventFilter {
            action: Some(action.to_owned()),
            ..EventFilter::default()
        };
        assert_eq!(found(&store, &filter).await, ["9"], "action {action}");
    }
    for (actor, expected) in [
        ("ålice@example.org", &["2", "1"][..]),
        ("ÅLICE@EXAMPLE.ORG", &["2", "1"]),
        ("ALICE@example.org2", &["3"]),
        ("alice", &[]),
        (".*", &[]),
        ("", &[]),
    ] {
        let filter = EventFilter {
            actor: Some(actor.to_owned()),
            ..base.clone()
        };
        assert_eq!(found(&store, &filter).await, expected, "actor {actor}");
    }
    for (target, expected) in [
        ("quarterly report.odt", &["3", "2"][..]),
        ("quarterly report_odt", &[]),
        ("quarterly", &[]),
    ] {
        let filter = EventFilter {
            target: Some(target.to_owned()),
            ..base.clone()
        };
        assert_eq!(found(&store, &filter).await, expected, "target {target}");
    }
    for (ip, expected) in [
        ("192.0.2.1", &["1"][..]),
        ("192.0.2.10", &[]),
        ("192.0.2", &[]),
    ] {
        let filter = EventFilter {
            ip: Some(ip.to_owned()),
            ..base.clone()
        };
        assert_eq!(found(&store, &filter).await, expected, "ip {ip}");
    }
    for (outcome, expected) in [
        (Outcome::Success, &["1"][..]),
        (Outcome::Failure, &["2"]),
        (Outcome::Unknown, &[]),
    ] {
        let filter = EventFilter {
            outcome: Some(outcome),
            ..base.clone()
        };
        assert_eq!(found(&store, &filter).await, expected, "{outcome:?}");
    }
    for (text, expected) in [
        ("LOGIN", &["2", "1"][..]),
        ("report.o", &["3", "2"]),
        ("@example.org", &["3", "2", "1"]),
        ("ÅLICE", &["2", "1"]),
        ("0.2.1", &["1"]),
        ("nowhere", &[]),
        ("", &["3", "2", "1"]),
    ] {
        let filter = EventFilter {
            text: Some(text.to_owned()),
            ..base.clone()
        };
        assert_eq!(found(&store, &filter).await, expected, "text {text}");
    }
}

pub(super) async fn conditions_hold_together(store: Subject) {
    enter_three(&store, "together").await;
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    let filter = |since: Option<Timestamp>, until: Option<Timestamp>| EventFilter {
        tenant: Some("together".to_owned()),
        since,
        until,
        ..EventFilter::default()
    };
    let second = at(1_700_000_002_000);
    assert_eq!(found(&store, &filter(Some(second), None)).await, ["3", "2"]);
    assert_eq!(
        found(&store, &filter(Some(second + nanosecond), None)).await,
        ["3"]
    );
    assert_eq!(found(&store, &filter(None, Some(second))).await, ["1"]);
    assert_eq!(
        found(&store, &filter(None, Some(second + nanosecond))).await,
        ["2", "1"]
    );
    assert_eq!(
        found(&store, &filter(Some(second), Some(second))).await,
        [""; 0]
    );
    let all = EventFilter {
        source: Some("together 1".to_owned()),
        action: Some("authentik.*".to_owned()),
        actor: Some("ålice@example.org".to_owned()),
        target: Some("quarterly report.odt".to_owned()),
        outcome: Some(Outcome::Failure),
        text: Some("login".to_owned()),
        ..filter(Some(at(1_700_000_001_000)), Some(at(1_700_000_003_000)))
    };
    assert_eq!(found(&store, &all).await, ["2"]);
    let other_tenant = EventFilter {
        tenant: Some("Together".to_owned()),
        ..all
    };
    assert_eq!(found(&store, &other_tenant).await, [""; 0]);
    assert_eq!(
        store
            .find_events(&filter(None, None), None, 0)
            .await
            .expect("find_events"),
        [],
        "a limit of none is none"
    );
}

pub(super) async fn text_is_never_a_pattern(store: Subject) {
    let texts = [
        "a",
        "A.",
        "^a$",
        "\\",
        "(",
        "[",
        "%",
        "_",
        "*",
        "a\nb",
        "a\n",
        "nul\0inside",
        "$ne",
        "\\E",
        "#x",
        "(?x)",
        "é|É",
    ];
    let events = texts.iter().enumerate().map(|(number, text)| {
        let mut one = event("patterns", &number.to_string());
        one.actor.name = Some((*text).into());
        one.action = "p".into();
        one
    });
    let events: Vec<_> = events.collect();
    enter(&store, "patterns", &events).await;
    for (number, text) in texts.iter().enumerate() {
        let lower = text.to_lowercase();
        let expect = |matches: &dyn Fn(&str) -> bool| -> HashSet<String> {
            let hits = texts.iter().enumerate();
            let hits = hits.filter(|(_, other)| matches(&other.to_lowercase()));
            hits.map(|(number, _)| number.to_string()).collect()
        };
        let base = EventFilter {
            tenant: Some("patterns".to_owned()),
            ..EventFilter::default()
        };
        let exact = EventFilter {
            actor: Some((*text).to_owned()),
            ..base.clone()
        };
        let hits: HashSet<_> = found(&store, &exact).await.into_iter().collect();
        assert_eq!(
            hits,
            expect(&|other| other == lower),
            "actor {number}: {text:?}"
        );
        let anywhere = EventFilter {
            text: Some((*text).to_owned()),
            ..base
        };
        let hits: HashSet<_> = found(&store, &anywhere).await.into_iter().collect();
        assert_eq!(
            hits,
            expect(&|other| other.contains(&lower)),
            "text {number}: {text:?}"
        );
    }
}

/// A sigma that ends a word looks otherwise in lower case, and is the same letter.
pub(super) async fn a_part_is_found_wherever_it_ends(store: Subject) {
    let mut one = event("sigma", "1");
    one.actor.name = Some("ΚΩΝΣΤΑΝΤΙΝΟΣ".into());
    one.target.name = Some("οδος".into());
    enter(&store, "sigma", &[one]).await;
    for part in [
        "ΚΩΝ", "ΚΩΝΣ", "κωνσ", "κωνς", "ΝΟΣ", "νος", "νοσ", "Σ", "ς", "ΟΔΟΣ", "δοσ",
    ] {
        let filter = EventFilter {
            text: Some(part.to_owned()),
            source: Some("sigma".to_owned()),
            ..EventFilter::default()
        };
        assert_eq!(found(&store, &filter).await, ["1"], "text {part}");
    }
    for actor in ["κωνσταντινος", "ΚΩΝΣΤΑΝΤΙΝΟς"] {
        let filter = EventFilter {
            actor: Some(actor.to_owned()),
            source: Some("sigma".to_owned()),
            ..EventFilter::default()
        };
        assert_eq!(found(&store, &filter).await, ["1"], "actor {actor}");
    }
}

const ODD: [&str; 32] = [
    "a",
    "B",
    "c",
    "report-",
    ".odt",
    "0",
    "1",
    "\0",
    "\"",
    "'",
    "%",
    "_",
    "*",
    "\\",
    " ",
    "\n",
    "é",
    "É",
    "e\u{301}",
    "\u{1f600}",
    "\u{1f468}\u{200d}\u{1f469}",
    "Σ",
    "ς",
    "İ",
    "ß",
    "ẞ",
    "ﬁ",
    "K",
    "\u{212a}",
    "ſ",
    "ΟΔΟΣ",
    "\u{10ffff}",
];

fn odd_text(random: &mut StdRng) -> String {
    let pieces = random.random_range(0..9);
    let text: String = (0..pieces)
        .map(|_| ODD[random.random_range(0..ODD.len())])
        .collect();
    if random.random_bool(0.05) {
        format!("{text}{}{text}", "long ".repeat(300))
    } else {
        text
    }
}

fn odd_event(random: &mut StdRng, number: usize) -> AuditEvent {
    let mut text = || random.random_bool(0.4).then(|| odd_text(random).into());
    let (actor, target) = (
        Actor {
            id: text(),
            email: text(),
            name: text(),
            ip: text(),
        },
        Target {
            kind: None,
            id: text(),
            name: text(),
        },
    );
    let odd_kind = random.random_bool(0.1);
    AuditEvent {
        at: at(1_700_000_000_000 + random.random_range(0..200_000_000)),
        action: ["odd.report-", "odd.é", "odd"][random.random_range(0..3)].into(),
        actor,
        target: Target {
            kind: odd_kind.then(|| odd_text(random).into()),
            ..target
        },
        ..event("odd texts", &number.to_string())
    }
}

/// One to four letters of a text, in any case.
fn odd_part(random: &mut StdRng, text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let start = random.random_range(0..letters.len().max(1));
    let end = letters.len().min(start + random.random_range(1..5));
    let part: String = letters[start.min(end)..end].iter().collect();
    match random.random_range(0..4) {
        0 => part.to_uppercase(),
        1 => part.to_lowercase(),
        2 => format!("{part}{}", ODD[random.random_range(0..ODD.len())]),
        _ => part,
    }
}

pub(super) async fn any_part_of_an_odd_text_is_found_and_counted(store: Subject) {
    const TENANTS: [Option<&str>; 3] = [None, Some("odd one"), Some("odd two")];
    let mut random = StdRng::seed_from_u64(6);
    let events: Vec<_> = (0..240)
        .map(|number| (odd_event(&mut random, number), TENANTS[number % 3]))
        .collect();
    // What is found by is gathered from many commits.
    for some in events.chunks(3) {
        let records = some.iter().map(|(event, tenant)| Record::Event {
            event,
            tenant_slug: *tenant,
        });
        commit_records(&store, records.collect()).await;
    }
    let all = of_source(&store, "odd texts").await;
    assert_eq!(all.len(), events.len());
    let mut found_something = 0;
    for _ in 0..80 {
        let of = &events[random.random_range(0..events.len())].0;
        let (actor, target) = (&of.actor, &of.target);
        let texts = [&actor.id, &actor.name, &actor.ip, &target.id, &target.kind];
        let text = texts[random.random_range(0..texts.len())].as_deref();
        let tenant = TENANTS[random.random_range(0..3)];
        let outcome = random.random_bool(0.1);
        let filter = EventFilter {
            source: Some("odd texts".to_owned()),
            tenant: tenant.map(str::to_owned),
            action: random.random_bool(0.2).then(|| "odd.*".to_owned()),
            outcome: outcome.then_some(Outcome::Failure),
            since: random.random_bool(0.1).then(|| at(1_700_000_050_000)),
            text: Some(odd_part(&mut random, text.unwrap_or("odd.report-"))),
            ..EventFilter::default()
        };
        let matcher = Matcher::new(filter.clone(), store.caseless());
        let expected = all.iter().filter(|event| matcher.matches(event));
        let expected: HashSet<_> = expected.map(|event| event.external_id.clone()).collect();
        let listed: HashSet<_> = found(&store, &filter).await.into_iter().collect();
        for event in &all {
            let id = &event.external_id;
            assert_eq!(
                listed.contains(id),
                expected.contains(id),
                "{filter:?} finds {event:?}"
            );
        }
        let counted = store.histogram(&filter, 20).await.expect("histogram");
        assert_eq!(counted.total, expected.len() as u64, "{filter:?}");
        // Nothing keeps it to this rule's events.
        let anywhere = EventFilter {
            source: None,
            ..filter
        };
        let listed = store.find_events(&anywhere, None, 100_000).await;
        let listed = listed.expect("find_events").into_iter();
        let listed = listed.filter(|event| event.source == "odd texts");
        let listed: HashSet<_> = listed.map(|event| event.external_id).collect();
        assert_eq!(listed, expected, "{anywhere:?}");
        found_something += usize::from(!expected.is_empty());
    }
    assert!(
        found_something > 40,
        "{found_something} filters found anything"
    );
}

pub(super) async fn an_event_is_found_by_its_id_only(store: Subject) {
    let written = full_event("by id", "1");
    enter(&store, "acme", std::slice::from_ref(&written)).await;
    let stored = of_source(&store, "by id").await.remove(0);
    let find = async |id: &str, tenant| store.event(id, tenant).await.expect("event");
    assert_eq!(find(&stored.id, None).await.as_ref(), Some(&stored));
    assert_eq!(find(&stored.id, Some("acme")).await.as_ref(), Some(&stored));
    assert_eq!(find(&stored.id, Some("another")).await, None);
    let upper = stored.id.to_uppercase();
    for id in [
        "",
        "1",
        "nonsense",
        "\0",
        "ffffffffffffffff",
        "ffffffffffffffffffffffff",
        "{\"$ne\":null}",
        &upper,
    ] {
        let found = find(id, None).await;
        assert!(found.is_none() || id == stored.id, "{id:?} finds {found:?}");
    }
}
