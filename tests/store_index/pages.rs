//! A page is what a look at every event would find, whether what it asks for is common, rare or hardly to be looked
//! up, and it takes a look at few.

use std::sync::Arc;

use daybook::config::Collections;
use daybook::probe::{Fault, Probes};
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{Commit, EventFilter, PageKey, Payloads, Record, Store};
use jiff::Timestamp;
use mongodb::Database;
use mongodb::bson::{Document, doc};
use tempfile::TempDir;
use testkit::mongod::Mongod;

use super::counts::{events_examined, reads_of};
use super::texts::settled;
use super::{AuditEvent, Outcome, TIMEOUT, enter, event, find, find_by, mongo_store, prepared};

const AT: i64 = 1_700_000_000_000;

/// More texts than a page looks up at first, in either store.
const MANY: usize = 2_100;

/// Events that a page does not look through for a text, however many texts hold that.
const NEWER: usize = 2_000;

/// Both stores with the same events, of one tenant.
struct Both {
    server: MongoStore,
    database: Database,
    file: SqliteStore,
    _directory: TempDir,
}

impl Both {
    async fn with(name: &str, events: &[AuditEvent]) -> Self {
        let mongod = Mongod::shared().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daybook.db");
        let file = SqliteStore::open(&path, TIMEOUT, &Collections::default()).unwrap();
        file.prepare().await.unwrap();
        let both = Self {
            server: mongo_store(&mongod.url(name)).await,
            database: mongod.database(name).await,
            file,
            _directory: directory,
        };
        both.enter(events).await;
        settled(mongod, name).await;
        both
    }

    async fn enter(&self, events: &[AuditEvent]) {
        for some in events.chunks(1000) {
            enter(&self.server, "acme", some).await.unwrap();
            enter(&self.file, "acme", some).await.unwrap();
        }
    }

    /// Both stores have these events on the first pages of so many, and the server looks at few for the first of them.
    async fn assert_pages(
        &self,
        filter: &EventFilter,
        limit: u32,
        expected: &[String],
        most_examined: i64,
    ) {
        let first = self.server.find_events(filter, None, limit);
        let examined = events_examined(&self.database, first).await;
        assert!(
            examined <= most_examined,
            "{examined} were looked at: {filter:?}"
        );
        let stores: [&dyn Store; 2] = [&self.server, &self.file];
        for store in stores {
            let mut found = Vec::new();
            let mut before = None;
            while found.len() < expected.len() {
                let page = store.find_events(filter, before.as_ref(), limit).await;
                let page = page.unwrap();
                assert!(!page.is_empty(), "{filter:?} found no more than {found:?}");
                before = page.last().map(PageKey::of);
                found.extend(page.into_iter().map(|event| event.external_id));
            }
            found.truncate(expected.len());
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}

fn numbered(number: usize) -> AuditEvent {
    event("s", &number.to_string(), AT + number as i64)
}

/// With a target of this name.
fn named(number: usize, name: String) -> AuditEvent {
    let mut one = numbered(number);
    one.target.name = Some(name.into());
    one
}

fn text(text: &str) -> EventFilter {
    EventFilter {
        text: Some(text.to_owned()),
        ..EventFilter::default()
    }
}

fn keys(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let numbers = numbers.into_iter();
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_many_old_ones_is_found_without_a_look_at_all_newer_events() {
    let old = (0..MANY).map(|number| named(number, format!("report-{number}.odt")));
    let newer = (MANY..MANY + NEWER).map(numbered);
    let both = Both::with("pages_old", &old.chain(newer).collect::<Vec<_>>()).await;
    let expected = keys((MANY - 4..MANY).rev());
    both.assert_pages(&text("REPORT-"), 1, &expected, 1_200)
        .await;
    // One of them is on the page before anything is looked up.
    let last = MANY + NEWER;
    both.enter(&[named(last, "report-new.odt".to_owned())])
        .await;
    let expected = keys([last].into_iter().chain((MANY - 4..MANY).rev()));
    both.assert_pages(&text("REPORT-"), 2, &expected, 1_700)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_do_not_hinder_the_look_up_of_others() {
    let long = |number: usize| {
        let own = if number == 50 { "needle-7" } else { "hay" };
        named(number, format!("{number} {}{own}", "long ".repeat(250)))
    };
    let mut events = vec![named(0, "Needle-7".to_owned())];
    events.extend((1..=MANY).map(long));
    events.extend((MANY + 1..MANY + NEWER).map(numbered));
    let both = Both::with("pages_long", &events).await;
    let expected = keys([50, 0]);
    both.assert_pages(&text("needle-7"), 2, &expected, 2_500)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rarest_condition_leads() {
    // Five that are rare, three of a common action, which Bob has in all others, and newer ones of Alice.
    let event = |number: usize| {
        let (actor, action) = match number {
            0..5 => ("Alice", "test.rare"),
            5..8 => ("Alice", "test.second"),
            8..2_108 => ("Bob", "test.second"),
            _ => ("Alice", "test.done"),
        };
        let mut one = named(number, "App".to_owned());
        one.actor.name = Some(actor.into());
        one.action = action.into();
        one.outcome = (number < 5).then_some(Outcome::Failure);
        one
    };
    let events: Vec<AuditEvent> = (0..MANY + NEWER).map(event).collect();
    let both = Both::with("pages_rare", &events).await;
    let rare = EventFilter {
        action: Some("test.rare".to_owned()),
        ..text("LIC")
    };
    let failures = EventFilter {
        outcome: Some(Outcome::Failure),
        ..text("LIC")
    };
    for filter in [rare, failures] {
        both.assert_pages(&filter, 2, &keys((0..5).rev()), 50).await;
    }
    let second = EventFilter {
        action: Some("test.second".to_owned()),
        ..text("LIC")
    };
    both.assert_pages(&second, 1, &keys((5..8).rev()), 300)
        .await;
    // Each more often than is counted. All newer events have the one that is asked for first.
    let of_bob = EventFilter {
        target: Some("app".to_owned()),
        actor: Some("bob".to_owned()),
        ..EventFilter::default()
    };
    let expected = keys((2_090..2_108).rev());
    both.assert_pages(&of_bob, 5, &expected, 300).await;
}

/// Each character that stands before another in the texts of a tenant is a place in the index.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_looked_up_in_the_texts_of_many_tenants() {
    const TENANTS: usize = 210;
    let mongod = Mongod::shared().await;
    let name = "pages_tenants";
    let store = mongo_store(&mongod.url(name)).await;
    let characters = (' '..='~').filter(|c| !c.is_ascii_uppercase() && *c != 'q');
    let all: String = characters.flat_map(|c| [c, 'x']).collect();
    let events = (0..TENANTS).map(|number| {
        let name = if number == 7 { "xq" } else { all.as_str() };
        named(number, name.to_owned())
    });
    let events: Vec<AuditEvent> = events.collect();
    let tenants: Vec<String> = (0..TENANTS).map(|number| format!("t{number}")).collect();
    let records = events.iter().zip(&tenants).map(|(event, tenant)| {
        let tenant_slug = Some(tenant.as_str());
        Record::Event { event, tenant_slug }
    });
    let commit = Commit {
        records: records.collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.unwrap();
    let newer: Vec<AuditEvent> = (TENANTS..TENANTS + 1_000).map(numbered).collect();
    enter(&store, "t0", &newer).await.unwrap();
    settled(mongod, name).await;
    let database = mongod.database(name).await;
    let mut found = Vec::new();
    let page = async {
        found = store.find_events(&text("Q"), None, 1).await?;
        Ok(())
    };
    let examined = events_examined(&database, page).await;
    let found: Vec<&str> = found.iter().map(|event| &*event.external_id).collect();
    assert_eq!(found, ["7"]);
    assert!(examined < 200, "{examined} were looked at");
}

/// Alice and Bob have an address and a target each, and but one event has what the other's have.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_with_hardly_an_event_in_common_are_told_apart_by_the_index() {
    const EVENTS: usize = 600;
    let of = |person: usize| {
        let name = ["Alice", "Bob"][person];
        let id = format!("https://id.example.org/{person}");
        (name, id, format!("192.0.2.{person}"))
    };
    let events = (0..EVENTS).map(|number| {
        let person = number % 2;
        let (name, id, _) = of(person);
        let (.., ip) = of(if number == 300 { 1 } else { person });
        let mut one = named(number, format!("Report of {ip}"));
        one.actor.id = Some(id.into());
        one.actor.email = Some(format!("{name}@example.org").into());
        one.actor.name = Some(name.into());
        one.actor.ip = Some(ip.into());
        one
    });
    let name = "pages_apart";
    let both = Both::with(name, &events.collect::<Vec<_>>()).await;
    let asked = |actor: Option<&str>, target: Option<&str>, ip: Option<&str>| EventFilter {
        actor: actor.map(str::to_owned),
        target: target.map(str::to_owned),
        ip: ip.map(str::to_owned),
        ..EventFilter::default()
    };
    let filters = [
        asked(Some("ALICE"), None, Some("192.0.2.1")),
        asked(Some("alice@example.org"), Some("report OF 192.0.2.1"), None),
        asked(
            Some("https://id.example.org/0"),
            Some("report of 192.0.2.1"),
            Some("192.0.2.1"),
        ),
    ];
    let expected = keys([300]);
    for filter in &filters {
        both.assert_pages(filter, 5, &expected, 2).await;
    }
    // As an older version leaves them.
    let stored = both.database.collection::<Document>("auditevents");
    let no_masks = doc! { "$unset": { "masks": "" } };
    let updated = stored.update_many(doc! {}, no_masks).await.unwrap();
    assert_eq!(updated.modified_count, EVENTS as u64);
    for filter in &filters {
        both.assert_pages(filter, 5, &expected, 310).await;
    }
}

/// The platform may have made a collection whose texts have another order, and are the same in any case.
#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_actions_is_one_whatever_the_collation() {
    let mongod = Mongod::shared().await;
    let name = "pages_prefix";
    let database = mongod.database(name).await;
    let collation = doc! { "locale": "en", "strength": 2 };
    let command = doc! { "create": "auditevents", "collation": collation };
    database.run_command(command).await.unwrap();
    let store = prepared(&mongod.url(name)).await;
    let actions = [
        "learning.quiz",
        "learning.quiz_done",
        "learning.v9",
        "learning.v95",
        "Learning.quiz",
    ];
    let events = actions.iter().zip(0..).map(|(action, number)| {
        let mut one = numbered(number);
        one.action = (*action).into();
        one
    });
    let events: Vec<AuditEvent> = events.collect();
    enter(&store, "acme", &events).await.unwrap();
    let assert_found = async |when: &str| {
        for (action, numbers) in [
            ("learning.quiz*", 0..2),
            ("learning.v9*", 2..4),
            ("learning.*", 0..4),
        ] {
            let filter = EventFilter {
                action: Some(action.to_owned()),
                ..EventFilter::default()
            };
            let found = find(&store, &filter).await.into_iter();
            let found: Vec<String> = found.map(|event| event.external_id).collect();
            assert_eq!(found, keys(numbers.rev()), "{action} {when}");
            let counted = store.histogram(&filter, 10).await.unwrap();
            assert_eq!(counted.total, found.len() as u64, "{action} {when}");
        }
    };
    assert_found("with keys").await;
    let stored = database.collection::<Document>("auditevents");
    let no_keys = doc! { "$unset": { "facet": "", "terms": "" } };
    stored.update_many(doc! {}, no_keys).await.unwrap();
    assert_found("without keys").await;
}

/// Numbers of terms are parts of hashes, which may be the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_shares_but_the_number_of_a_term_is_not_found() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("pages_shared")).await;
    let mut only_alice = event("s", "only", AT);
    only_alice.actor.name = Some("Alice".into());
    let events = (0..40).map(|number| {
        let mut one = numbered(number);
        one.actor.name = Some(["Alice", "Bob"][number % 2].into());
        one.actor.ip = Some("192.0.2.1".into());
        one
    });
    let events: Vec<AuditEvent> = events.chain([only_alice]).collect();
    enter(&store, "acme", &events).await.unwrap();
    let database = mongod.database("pages_shared").await;
    let stored = database.collection::<Document>("auditevents");
    let only = stored.find_one(doc! { "externalId": "only" }).await;
    let only = only.unwrap().unwrap();
    let key = only.get_array("terms").unwrap()[0].as_i64().unwrap();
    let bobs = doc! { "externalId": { "$in": ["13", "35", "39"] } };
    let shares = doc! { "$push": { "terms": key } };
    let updated = stored.update_many(bobs, shares).await.unwrap();
    assert_eq!(updated.modified_count, 3);
    let filter = EventFilter {
        actor: Some("alice".to_owned()),
        ip: Some("192.0.2.1".to_owned()),
        ..EventFilter::default()
    };
    let found = find_by(&store, &filter, 3).await;
    let found: Vec<String> = found.into_iter().map(|event| event.external_id).collect();
    assert_eq!(found, keys((0..40).step_by(2).rev()));
}

/// Pages of several conditions are put together of parts of the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_several_conditions_ends_for_its_size() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("pages_large")).await;
    let large = |number: usize| {
        let mut one = numbered(number);
        one.actor.name = Some("Alice".into());
        one.actor.ip = Some("192.0.2.1".into());
        let note = "x".repeat(1_500_000);
        one.metadata.insert("note".to_owned(), note.into());
        one
    };
    let events: Vec<AuditEvent> = (0..8).map(large).collect();
    enter(&store, "acme", &events).await.unwrap();
    let filter = EventFilter {
        actor: Some("alice".to_owned()),
        ip: Some("192.0.2.1".to_owned()),
        ..EventFilter::default()
    };
    let mut sizes = Vec::new();
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let page = store
            .event_page(&filter, before.as_ref(), 100, Payloads::Whole)
            .await
            .unwrap();
        before = page.events.last().map(PageKey::of);
        sizes.push(page.events.len());
        found.extend(page.events.into_iter().map(|event| event.external_id));
        if !page.is_cut {
            break;
        }
    }
    assert_eq!((sizes, found), (vec![3, 3, 2], keys((0..8).rev())));
}

/// The newest of any that are looked at for many facets may be all that there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_whole_range_is_enough() {
    let mongod = Mongod::shared().await;
    let name = "pages_range";
    let store = mongo_store(&mongod.url(name)).await;
    let events = (0..300).map(|number| {
        let mut one = numbered(number);
        one.action = format!("test.kind{number}").into();
        one
    });
    let events: Vec<AuditEvent> = events.collect();
    enter(&store, "acme", &events).await.unwrap();
    settled(mongod, name).await;
    let last = EventFilter {
        source: Some("s".to_owned()),
        since: Timestamp::from_millisecond(AT + 297).ok(),
        ..EventFilter::default()
    };
    let mut found = Vec::new();
    let page = async {
        found = store.find_events(&last, None, 10).await?;
        Ok(())
    };
    let reads = reads_of(&mongod.database(name).await, page).await;
    let found: Vec<String> = found.into_iter().map(|event| event.external_id).collect();
    assert_eq!(found, keys((297..300).rev()));
    // Events without keys are asked for besides, by no facet.
    let asks_facets = |read: &&Document| {
        let filter = read.get_document("command");
        let filter = filter.and_then(|command| command.get_document("filter"));
        filter.is_ok_and(|filter| filter.get_document("facet").is_ok())
    };
    assert_eq!(reads.iter().find(asks_facets), None);
}

/// Where there are many facets, the ids are read before the events.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_which_events_are_deleted_meanwhile_is_not_the_last() {
    let mongod = Mongod::shared().await;
    let name = "pages_deleted";
    let store = Arc::new(mongo_store(&mongod.url(name)).await);
    let probes = Probes::new();
    store.set_probe(probes.actor("store"));
    let events = (0..300).map(|number| {
        let mut one = numbered(number);
        one.action = format!("test.kind{number}").into();
        one
    });
    let events: Vec<AuditEvent> = events.collect();
    enter(&*store, "acme", &events).await.unwrap();
    let database = mongod.database(name).await;
    let stored = database.collection::<Document>("auditevents");
    let of_source = EventFilter {
        source: Some("s".to_owned()),
        ..EventFilter::default()
    };
    let page_while_deleting = async |keys: Vec<String>| {
        let strike = probes.strike("store", "between_ids_and_events", Fault::Stand, 1);
        let page = tokio::spawn({
            let (store, filter) = (Arc::clone(&store), of_source.clone());
            async move {
                let page = store.event_page(&filter, None, 10, Payloads::Whole);
                page.await
            }
        });
        strike.struck().await;
        let count = keys.len() as u64;
        let these = doc! { "externalId": { "$in": keys } };
        let deleted = stored.delete_many(these).await.unwrap();
        assert_eq!(deleted.deleted_count, count);
        drop(strike);
        let page = page.await.unwrap().unwrap();
        let found = page.events.into_iter().map(|event| event.external_id);
        (found.collect::<Vec<_>>(), page.is_cut)
    };
    let some = page_while_deleting(keys(295..300)).await;
    assert_eq!(some, (keys((290..295).rev()), true));
    let all = page_while_deleting(keys(285..295)).await;
    assert_eq!(all, (keys((275..285).rev()), false));
}
