//! Parts of texts are found, however many texts there are.

use std::time::Duration;

use daybook::config::Collections;
use daybook::store::feed::Matcher;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{EventFilter, Store};
use futures_util::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{AuditEvent, TIMEOUT, enter, event, find, find_by, mongo_store};

const AT: i64 = 1_700_000_000_000;

/// More than are looked up.
const MANY: usize = 1500;

/// So few that a page looks at no more than some hundred of the newest events before it goes by the texts.
const PAGE: u32 = 5;

/// Events of a tenant that hold nothing: enough that those of the tenant are too many to be looked through.
const FILLERS: usize = 2100;

fn of(text: String, number: usize) -> AuditEvent {
    let mut one = event("ocis", &number.to_string(), AT + number as i64);
    one.target.name = Some(text.into());
    one
}

fn text(text: &str) -> EventFilter {
    EventFilter {
        text: Some(text.to_owned()),
        ..EventFilter::default()
    }
}

async fn found(store: &dyn Store, text_: &str) -> Vec<String> {
    let found = find_by(store, &text(text_), PAGE).await.into_iter();
    let names = found.filter_map(|event| event.target.name);
    let mut names: Vec<String> = names.map(Into::into).collect();
    names.sort();
    names
}

/// Waits until every text has a document of its own.
pub async fn settled(mongod: &Mongod, name: &str) {
    let database = mongod.database(name).await;
    let pending = database.collection::<Document>("auditevents.pendingtexts");
    eventually("texts are settled", async || {
        pending.count_documents(doc! {}).await.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn one_of_many_texts_that_begin_alike_is_found() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("texts_alike")).await;
    let name = |number: usize| format!("storage-users-1${number:04}-end");
    // Two tenants: in the index, the texts of one stand before those of the other.
    for (tenant, numbers) in [("acme", 0..MANY), ("globex", MANY..2 * MANY)] {
        let events: Vec<_> = numbers.map(|number| of(name(number), number)).collect();
        enter(&store, tenant, &events).await.unwrap();
    }
    for step in ["pending", "settled"] {
        for number in [0, 7, 700, MANY - 1, MANY, MANY + 1, 2 * MANY - 1] {
            let whole = name(number);
            let parts = [
                &whole[..], // 24 characters, of which the first 16 are in all
                &whole[..20],
                &whole[3..],
                &whole[10..],
                &whole[14..],
                &whole[15..20],
            ];
            for part in parts {
                let found = found(&store, part).await;
                assert_eq!(found, [whole.as_str()], "{part} while texts are {step}");
            }
        }
        let all = find(&store, &text("storage-users")).await.len();
        assert_eq!(all, 2 * MANY, "while texts are {step}");
        settled(mongod, "texts_alike").await;
    }
}

const ALPHABETS: [&str; 5] = [
    "0123456789abcdef",
    "ab-_.@/ $!",
    ".*+?|^$()[]{}\\/-#\"' \0\n\t\r",
    "aé\u{301}öß漢字李明😀\u{200d}👩\u{10ffff}",
    "sSſßẞΣςİkK\u{212a}ﬁ",
];

fn odd_text(random: &mut StdRng) -> String {
    let alphabet: Vec<char> = ALPHABETS[random.random_range(0..ALPHABETS.len())]
        .chars()
        .collect();
    // Above 1,024 bytes none of it stands in the dictionary.
    let length = match random.random_range(0..50) {
        0 => 1100,
        1..10 => random.random_range(1..4),
        _ => random.random_range(1..40),
    };
    let letters = (0..length).map(|_| alphabet[random.random_range(0..alphabet.len())]);
    letters.collect()
}

fn odd_events(random: &mut StdRng, numbers: std::ops::Range<usize>) -> Vec<AuditEvent> {
    numbers.map(|number| of(odd_text(random), number)).collect()
}

/// A part of a text, mostly of one that is there.
fn odd_part(random: &mut StdRng, events: &[AuditEvent]) -> String {
    let event = &events[random.random_range(0..events.len())];
    let whole: Vec<char> = event.target.name.as_deref().unwrap().chars().collect();
    let start = random.random_range(0..whole.len());
    let length = random.random_range(1..=30);
    let mut part: Vec<char> = whole.into_iter().skip(start).take(length).collect();
    if random.random_bool(0.2) {
        let place = random.random_range(0..part.len());
        part[place] = odd_text(random).chars().next().unwrap();
    }
    let part: String = part.into_iter().collect();
    match random.random_range(0..4) {
        0 => part.to_uppercase(),
        1 => part.to_lowercase(),
        _ => part,
    }
}

/// Newer than all others; no part of a text is in them.
fn fillers(tenant: &str) -> Vec<AuditEvent> {
    let fillers = (0..FILLERS).map(|number| {
        let at = AT + 1_000_000 + i64::try_from(number).unwrap();
        let mut one = event("ocis", &format!("filler {tenant} {number}"), at);
        one.action = "zzz".into();
        one
    });
    fillers.collect()
}

/// Finds what a plain look through all events finds.
async fn compare(
    store: &dyn Store,
    random: &mut StdRng,
    events: &[(&str, Vec<AuditEvent>)],
    step: &str,
) {
    let all = find(store, &EventFilter::default()).await;
    let mut held = 0;
    for _ in 0..50 {
        let (_, some) = &events[random.random_range(0..events.len())];
        let part = odd_part(random, some);
        let mut filter = text(&part);
        if random.random_bool(0.5) {
            filter.tenant = Some(events[0].0.to_owned());
        }
        let matcher = Matcher::new(filter.clone(), store.caseless());
        let expected = all.iter().filter(|event| matcher.matches(event));
        let expected: Vec<&str> = expected.map(|event| &*event.external_id).collect();
        let found = find_by(store, &filter, PAGE).await;
        let found: Vec<&str> = found.iter().map(|event| &*event.external_id).collect();
        held += expected.len();
        assert_eq!(found, expected, "{filter:?} while texts are {step}");
        let counted = store.histogram(&filter, 20).await.unwrap();
        assert_eq!(
            counted.total,
            found.len() as u64,
            "{filter:?} while texts are {step}"
        );
    }
    assert!(held > 80, "most parts are in some text");
}

/// Makes of the dictionary what older versions left: every ending, twelve characters of each.
async fn make_old(texts: &Collection<Document>) {
    let found = texts.find(doc! { "text": { "$exists": true } }).await;
    let found: Vec<Document> = found.unwrap().try_collect().await.unwrap();
    for entry in found {
        let text: Vec<char> = entry.get_str("text").unwrap().chars().collect();
        if text.first() == Some(&'\u{10ffff}') && text.len() == 2 {
            continue;
        }
        let endings = (0..text.len()).map(|start| {
            let ending: String = text[start..].iter().take(12).collect();
            ending
        });
        let endings: Vec<String> = endings.collect();
        let of = doc! { "_id": entry.get("_id").unwrap() };
        let set = doc! { "$set": { "endings": endings } };
        texts.update_one(of, set).await.unwrap();
    }
    let heads = texts.delete_many(doc! { "heads": { "$exists": true } });
    assert_eq!(heads.await.unwrap().deleted_count, 2, "one for each tenant");
}

#[tokio::test]
async fn parts_of_odd_texts_are_found_as_by_looking_at_each() {
    let mongod = Mongod::shared().await;
    let name = "texts_odd";
    let store = mongo_store(&mongod.url(name)).await;
    let texts: Collection<Document> = mongod.database(name).await.collection("auditevents.texts");
    let mut random = StdRng::seed_from_u64(7);
    let mut events = [("acme", Vec::new()), ("globex", Vec::new())];
    for (tenant, _) in &events {
        enter(&store, tenant, &fillers(tenant)).await.unwrap();
    }
    let mut entered = 0;
    for round in ["of this version", "of an older version and this one"] {
        for (tenant, events) in &mut events {
            let new = odd_events(&mut random, entered..entered + 200);
            entered += new.len();
            enter(&store, tenant, &new).await.unwrap();
            events.extend(new);
        }
        compare(&store, &mut random, &events, "pending").await;
        settled(mongod, name).await;
        compare(&store, &mut random, &events, round).await;
        if round == "of this version" {
            make_old(&texts).await;
            compare(&store, &mut random, &events, "of an older version").await;
        }
    }

    // All are forgotten with their events, and entered again by another process.
    let later = jiff::Timestamp::now() + Duration::from_secs(10 * 86_400);
    while store.delete_events_before(later, 10_000).await.unwrap() > 0 {}
    let left = texts.count_documents(doc! { "text": { "$exists": true } });
    assert_eq!(left.await.unwrap(), 0);
    let store = mongo_store(&mongod.url(name)).await;
    for (tenant, events) in &events {
        enter(&store, tenant, events).await.unwrap();
        enter(&store, tenant, &fillers(tenant)).await.unwrap();
    }
    settled(mongod, name).await;
    compare(&store, &mut random, &events, "entered again").await;
}

#[tokio::test]
async fn parts_of_odd_texts_are_found_in_a_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daybook.db");
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default()).unwrap();
    store.prepare().await.unwrap();
    let mut random = StdRng::seed_from_u64(8);
    let events = [("acme", 0..200), ("globex", 200..400)];
    let events = events.map(|(tenant, numbers)| (tenant, odd_events(&mut random, numbers)));
    for (tenant, events) in &events {
        enter(&store, tenant, events).await.unwrap();
        enter(&store, tenant, &fillers(tenant)).await.unwrap();
    }
    compare(&store, &mut random, &events, "packed").await;
}
