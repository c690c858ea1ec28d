//! Following: everything once, in full, from now or from a place on; and the filter in memory that
//! agrees with the store's own.

use std::collections::HashSet;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::store::feed::{Entry, Follow, Matcher};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

async fn enter(store: &Subject, source: &str, ids: std::ops::Range<usize>) {
    let events: Vec<_> = ids
        .map(|number| AuditEvent {
            // Backwards: the order of entry is not that of `at`.
            at: at(1_700_000_000_000 - i64::try_from(number).expect("small")),
            ..full_event(source, &number.to_string())
        })
        .collect();
    let fates = commit_records(store, records(&events)).await;
    assert!(fates.iter().all(|fate| *fate == Fate::Written), "{fates:?}");
}

async fn following(store: &Subject, after: Option<&str>) -> Box<dyn Follow> {
    let follow = store.follow(after).await.expect("follow");
    follow.expect("a position of this store")
}

/// Reads on until so many events of a source have come, and a little further.
async fn read(follow: &mut Box<dyn Follow>, source: &str, count: usize) -> Vec<Entry> {
    let mut read = Vec::new();
    let begun = Instant::now();
    loop {
        let found = follow.next().await.expect("next");
        let nothing = found.entries.is_empty();
        read.extend(
            found
                .entries
                .into_iter()
                .filter(|entry| entry.event.source == source),
        );
        if read.len() >= count && nothing {
            return read;
        }
        assert!(begun.elapsed() < LIMIT, "{} of {count}", read.len());
    }
}

fn keys(entries: &[Entry]) -> Vec<String> {
    let keys = entries.iter().map(|entry| entry.event.external_id.clone());
    keys.collect()
}

pub(super) async fn following_tells_what_is_entered_from_now_on(store: Subject) {
    let source = "followed";
    enter(&store, source, 0..3).await;
    let mut follow = following(&store, None).await;
    enter(&store, source, 3..6).await;
    let entries = read(&mut follow, source, 3).await;
    assert_eq!(
        keys(&entries).into_iter().collect::<HashSet<_>>(),
        set(3..6)
    );
    for entry in &entries {
        let stored = store.event(&entry.event.id, None).await.expect("event");
        assert_eq!(stored.as_ref(), Some(&entry.event));
    }
    enter(&store, source, 6..7).await;
    assert_eq!(keys(&read(&mut follow, source, 1).await), ["6"]);
}

pub(super) async fn following_goes_on_after_any_place(store: Subject) {
    let source = "resumed";
    let mut follow = following(&store, None).await;
    for first in [0, 4, 8] {
        enter(&store, source, first..first + 4).await;
    }
    let entries = read(&mut follow, source, 12).await;
    assert_eq!(entries.len(), 12);
    for (index, entry) in entries.iter().enumerate() {
        assert!(
            entry
                .position
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "{}",
            entry.position
        );
        let mut follow = following(&store, Some(&entry.position)).await;
        let rest = keys(&entries[index + 1..]);
        let read = keys(&read(&mut follow, source, rest.len()).await);
        for key in rest {
            assert!(read.contains(&key), "{key} after place {index}");
        }
    }
}

/// "Nothing more" is said of what was visible when the call began, not of what an earlier one had read.
pub(super) async fn following_says_when_it_has_met_everything(store: Subject) {
    let source = "met";
    let mut follow = following(&store, None).await;
    enter(&store, source, 0..450).await;
    let mut entered = 450;
    let mut met = HashSet::new();
    let begun = Instant::now();
    loop {
        if entered < 460 {
            enter(&store, source, entered..entered + 1).await;
            entered += 1;
        }
        let found = follow.next().await.expect("next");
        let of_source = |entry: &&Entry| entry.event.source == source;
        let ids = found.entries.iter().filter(of_source);
        met.extend(ids.map(|entry| entry.event.external_id.clone()));
        if !found.more {
            assert_eq!(met.len(), entered);
            if entered == 460 {
                return;
            }
        }
        assert!(begun.elapsed() < LIMIT, "{} of {entered}", met.len());
    }
}

pub(super) async fn following_takes_no_foreign_place(store: Subject) {
    for text in [
        "",
        "x",
        "0",
        "-",
        "5-x",
        "\u{1F4D6}",
        "1 OR 1",
        "{\"$gt\":0}",
    ] {
        let follow = store.follow(Some(text)).await.expect("an answer");
        assert!(follow.is_none(), "{text:?}");
    }
}

pub(super) async fn following_tells_each_of_many_racing_events_once(store: Subject) {
    let source = "raced";
    let mut follow = following(&store, None).await;
    let writers = (0..4).map(|writer: usize| {
        let store = Arc::clone(&store);
        async move {
            for step in 0..10 {
                let first = (writer * 10 + step) * 25;
                enter(&store, source, first..first + 25).await;
            }
        }
    });
    let writing = tokio::spawn(futures_util::future::join_all(writers));
    let read = keys(&read(&mut follow, source, 1000).await);
    writing.await.expect("the writers");
    assert_eq!(read.len(), 1000);
    assert_eq!(read.into_iter().collect::<HashSet<_>>(), set(0..1000));
}

fn set(numbers: std::ops::Range<usize>) -> HashSet<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// Words that meet each other in odd cases: `ſ`, `K` (Kelvin), sigmas, dotted and dotless i.
const WORDS: &[&str] = &[
    "alice",
    "ALICE",
    "Alice@Example.org",
    "straße",
    "STRASSE",
    "Straẞe",
    "kelvin",
    "\u{212A}elvin",
    "ſecret",
    "SECRET",
    "ΣΊΣΥΦΟΣ",
    "σίσυφος",
    "Σ",
    "ς",
    "İstanbul",
    "istanbul",
    "ı",
    "I",
    "Å",
    "\u{212B}",
    "µ",
    "μ",
    "a*b",
    "a.b",
    "a\0b",
    "a\nb",
    "",
    " ",
    "x'OR'1",
    "(a",
    "ﬁle",
    "FILE",
    "10.0.0.1",
    "2001:DB8::1",
    "\u{202e}evil",
    "é",
    "e\u{301}",
    "É",
    "ǆ",
    "ǅ",
    "Ǆ",
];
const ACTIONS: &[&str] = &[
    "test.done",
    "test.done_twice",
    "TEST.done",
    "other.done",
    "test.",
];

fn random_event(random: &mut StdRng, number: usize) -> (AuditEvent, Option<&'static str>) {
    let word = |random: &mut StdRng| {
        random
            .random_bool(0.6)
            .then(|| WORDS[random.random_range(0..WORDS.len())].into())
    };
    let event = AuditEvent {
        at: at(1_700_000_000_000 + random.random_range(0..5)),
        action: ACTIONS[random.random_range(0..ACTIONS.len())].into(),
        outcome: [None, Some(Outcome::Success), Some(Outcome::Failure)][random.random_range(0..3)],
        actor: Actor {
            id: word(random),
            email: word(random),
            name: word(random),
            ip: word(random),
        },
        target: Target {
            kind: word(random),
            id: word(random),
            name: word(random),
        },
        ..event(["filter a", "filter b"][number % 2], &number.to_string())
    };
    let tenant = [None, Some("filter one"), Some("filter two")][random.random_range(0..3)];
    (event, tenant)
}

fn random_filter(random: &mut StdRng) -> EventFilter {
    let word = |random: &mut StdRng, odds: f64| {
        random.random_bool(odds).then(|| {
            let word = WORDS[random.random_range(0..WORDS.len())];
            let length = word.chars().count();
            let skip = if random.random_bool(0.2) {
                length / 2
            } else {
                0
            };
            word.chars().skip(skip).collect::<String>()
        })
    };
    let time = |random: &mut StdRng| {
        random.random_bool(0.15).then(|| {
            let nanos = 1_700_000_000_000_000_000 + random.random_range(0..5_000_000_i128);
            Timestamp::from_nanosecond(nanos).expect("a time within range")
        })
    };
    EventFilter {
        source: Some(["filter a", "filter b"][random.random_range(0..2)].to_owned()),
        tenant: random.random_bool(0.2).then(|| "filter one".to_owned()),
        action: random.random_bool(0.3).then(|| {
            let action = ACTIONS[random.random_range(0..ACTIONS.len())];
            let cut = random.random_range(0..=action.len());
            if random.random_bool(0.5) {
                format!("{}*", &action[..cut])
            } else {
                action.to_owned()
            }
        }),
        actor: word(random, 0.35),
        ip: word(random, 0.1),
        target: word(random, 0.25),
        outcome: random.random_bool(0.2).then_some(Outcome::Success),
        text: word(random, 0.4),
        since: time(random),
        until: time(random),
    }
}

pub(super) async fn the_filter_in_memory_agrees_with_the_store(store: Subject) {
    let mut random = StdRng::seed_from_u64(7);
    let events: Vec<_> = (0..300)
        .map(|number| random_event(&mut random, number))
        .collect();
    let records = events.iter().map(|(event, tenant)| Record::Event {
        event,
        tenant_slug: *tenant,
    });
    commit_records(&store, records.collect()).await;
    let mut all = of_source(&store, "filter a").await;
    all.extend(of_source(&store, "filter b").await);
    assert_eq!(all.len(), 300);
    let mut found_something = 0;
    for _ in 0..500 {
        let filter = random_filter(&mut random);
        let found = store.find_events(&filter, None, 1000).await;
        let found: HashSet<_> = found
            .expect("find_events")
            .into_iter()
            .map(|event| event.id)
            .collect();
        let matcher = Matcher::new(filter.clone(), store.caseless());
        for event in &all {
            assert_eq!(
                matcher.matches(event),
                found.contains(&event.id),
                "{filter:?} on {event:?}"
            );
        }
        found_something += usize::from(!found.is_empty());
    }
    assert!(
        found_something > 60,
        "{found_something} filters found anything"
    );
}
