//! What stands beside the events in a store: it makes queries fast and never wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod clock;
mod counts;
mod crash;
mod following;
mod guards;
mod histograms;
mod older;
mod pages;
mod paging;
mod readers;
mod texts;
mod upkeep;

use std::time::Duration;

use daybook::config::Collections;
use daybook::event::{Actor, AuditEvent, Outcome, SourceName, Target};
use daybook::store::mongodb::MongoStore;
use daybook::store::{Commit, EventFilter, PageKey, Record, Result, Store, StoredEvent};
use jiff::Timestamp;

/// Generous: these tests are about what happens, not how soon.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A store as a command has it.
async fn prepared(url: &str) -> MongoStore {
    let store = MongoStore::connect(url, TIMEOUT, &Collections::default()).await;
    let store = store.unwrap();
    store.prepare().await.unwrap();
    store
}

/// A store as the service has it.
async fn mongo_store(url: &str) -> MongoStore {
    let store = prepared(url).await;
    store.begin_upkeep();
    store
}

fn event(source: &str, key: &str, at: i64) -> AuditEvent {
    AuditEvent {
        at: Timestamp::from_millisecond(at).unwrap(),
        source: SourceName::new(source),
        external_id: key.to_owned(),
        action: "test.done".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: serde_json::Map::new().into(),
    }
}

/// An event with everything that a filter can ask for.
fn full_event(key: &str, at: i64) -> AuditEvent {
    AuditEvent {
        action: "ocis.file_moved".into(),
        outcome: Some(Outcome::Failure),
        actor: Actor {
            id: Some("A-1".into()),
            email: Some("Ålice@example.org".into()),
            name: Some("Alice".into()),
            ip: Some("2001:db8::1".into()),
        },
        target: Target {
            kind: Some("file".into()),
            id: Some("F-1".into()),
            name: Some("Quarterly Report.odt".into()),
        },
        ..event("ocis", key, at)
    }
}

async fn enter(store: &dyn Store, tenant: &str, events: &[AuditEvent]) -> Result<()> {
    let records = events.iter().map(|event| Record::Event {
        event,
        tenant_slug: Some(tenant),
    });
    let commit = Commit {
        records: records.collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.map(|_| ())
}

async fn find(store: &dyn Store, filter: &EventFilter) -> Vec<StoredEvent> {
    store.find_events(filter, None, 10_000).await.unwrap()
}

/// The same page by page: what is new enough for a page's own look at the newest events depends on its size.
async fn find_by(store: &dyn Store, filter: &EventFilter, limit: u32) -> Vec<StoredEvent> {
    let mut found: Vec<StoredEvent> = Vec::new();
    loop {
        let before = found.last().map(PageKey::of);
        let page = store.find_events(filter, before.as_ref(), limit).await;
        let page = page.unwrap();
        let is_last = page.len() < limit as usize;
        found.extend(page);
        if is_last {
            return found;
        }
    }
}

/// Filters that each find [`full_event`] of the tenant `acme`, by one condition or several.
fn filters() -> Vec<EventFilter> {
    let text = |text: &str| Some(text.to_owned());
    let mut filters = Vec::new();
    let mut add = |change: &dyn Fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        change(&mut filter);
        filters.push(filter.clone());
        filter.tenant = text("acme");
        filters.push(filter);
    };
    add(&|_| {});
    add(&|f| f.source = text("ocis"));
    add(&|f| f.action = text("ocis.file_moved"));
    add(&|f| f.action = text("ocis.*"));
    add(&|f| f.outcome = Some(Outcome::Failure));
    add(&|f| f.actor = text("a-1"));
    add(&|f| f.actor = text("ÅLICE@example.org"));
    add(&|f| f.ip = text("2001:db8::1"));
    add(&|f| f.target = text("f-1"));
    add(&|f| f.target = text("quarterly report.ODT"));
    add(&|f| f.text = text("REPORT.o"));
    add(&|f| f.text = text("file_mov"));
    add(&|f| f.text = text("b8::1"));
    add(&|f| f.text = text("Å"));
    add(&|f| (f.actor, f.outcome) = (text("alice"), Some(Outcome::Failure)));
    add(&|f| (f.text, f.target) = (text("alice"), text("f-1")));
    add(&|f| (f.actor, f.ip, f.target) = (text("alice"), text("2001:db8::1"), text("f-1")));
    filters
}
