//! The live stream, as its readers see it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod access;
mod faults;
mod limits;
mod order;
mod places;
mod resume;

use std::ops::Range;

use daybook::event::{Actor, AuditEvent, SourceName, Target};
use daybook::store::{Commit, Record, Store};
use jiff::Timestamp;
use serde_json::Map;
use testkit::World;
use testkit::mongod::ReplicaSet;
use testkit::sse::EventStream;
use testkit::world::Plan;
use tokio::sync::OnceCell;

const RECORDER: &str = "kind = \"recorder\"\nname = \"platform-api\"";
const STREAM: &str = "/api/v1/events/stream";

/// Adds a recorder. Without a journal what is said comes in its order.
fn recorder(plan: Plan) -> Plan {
    plan.journal_size("0B").source(RECORDER)
}

/// Of one server, for those that do nothing to it; each takes a database of its own.
async fn replica_set() -> &'static ReplicaSet {
    static SHARED: OnceCell<ReplicaSet> = OnceCell::const_new();
    SHARED.get_or_init(|| ReplicaSet::start(1)).await
}

async fn open(world: &World, query: &str) -> EventStream {
    let url = world.url(&format!("{STREAM}{query}"));
    let opened = EventStream::open(world.client(), &url, None, None).await;
    opened.unwrap_or_else(|(status, body)| panic!("{status}: {body}"))
}

async fn resumed(world: &World, query: &str, last_event_id: &str) -> EventStream {
    let url = world.url(&format!("{STREAM}{query}"));
    let opened = EventStream::open(world.client(), &url, None, Some(last_event_id)).await;
    opened.unwrap_or_else(|(status, body)| panic!("{status}: {body}"))
}

/// Sends events through the service, one after the other.
async fn say(world: &World, keys: Range<usize>, action: &str) {
    for key in keys {
        let body = format!(r#"{{"action":"{action}","externalId":"{key}","tenantSlug":"acme"}}"#);
        let (status, answer) = world.post("/api/v1/events", body, &[]).await;
        assert_eq!(status, 200, "{answer}");
    }
}

fn event(source: &str, key: usize) -> AuditEvent {
    AuditEvent {
        at: Timestamp::from_millisecond(1_700_000_000_000).unwrap(),
        source: SourceName::new(source),
        external_id: key.to_string(),
        action: "test.done".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: Map::new().into(),
    }
}

/// With a payload of so many bytes.
fn large(key: usize, bytes: usize) -> AuditEvent {
    let mut event = event("large", key);
    let text = "x".repeat(bytes);
    event.metadata.insert("text".to_owned(), text.into());
    event
}

/// Enters events past the service, as another process does.
async fn enter(store: &dyn Store, source: &str, tenant: Option<&str>, keys: Range<usize>) {
    let events: Vec<_> = keys.map(|key| event(source, key)).collect();
    commit(store, tenant, &events).await;
}

async fn commit(store: &dyn Store, tenant: Option<&str>, events: &[AuditEvent]) {
    let records = events.iter().map(|event| Record::Event {
        event,
        tenant_slug: tenant,
    });
    let commit = Commit {
        records: records.collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.unwrap();
}

fn texts(keys: Range<usize>) -> Vec<String> {
    keys.map(|key| key.to_string()).collect()
}
