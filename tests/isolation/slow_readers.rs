//! Readers who ask for much and take nothing of it.

use daybook::event::{Actor, AuditEvent, SourceName, Target};
use daybook::store::{Commit, EventFilter, Record, Role, Store};
use daybook::tree::Daybook;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use testkit::http::{Connection, exchange};
use testkit::world::eventually;

use super::{guarded, is_ready, request, token_of};

/// More than a connection holds that nobody reads, than a tenant may have twice, and than beside those
/// of four tenants finds room.
const LARGE: usize = 14 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_nothing_is_given_one_large_answer_and_others_get_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let config = guarded(dir.path(), "write_timeout = \"10m\"", "");
    let mut daybook = Daybook::start(&config).await.unwrap();
    let address = daybook.address();
    is_ready(&daybook).await;
    let store = &**daybook.store();
    let mut tenants = Vec::new();
    for slug in ["acme", "globex", "initech", "umbrella"] {
        let (token, _) = token_of(store, Role::Tenant(slug.to_owned())).await;
        tenants.push((token, path_of_a_large_event(store, slug).await));
    }
    let (operator, _) = token_of(store, Role::Operator).await;

    let mut idle = Vec::new();
    for (token, path) in &tenants {
        let mut connection = Connection::open(address).await;
        connection.send(request(path, token)).await.unwrap();
        let head = connection.answer_to_head().await.unwrap();
        assert_eq!(head.status, 200);
        idle.push(connection);
    }
    // What is going out goes on to count.
    daybook.reload(&config).await.unwrap();
    let (acme, path) = &tenants[0];
    let waiting = tokio::spawn(exchange(address, request(path, acme)));
    let operators = exchange(address, request(path, &operator)).await;
    assert_eq!(operators.status, 200);
    assert!(!waiting.is_finished());

    // Late, but whole; and then there is room again.
    let mut first = idle.swap_remove(0);
    let late = first.closed().await;
    let mut second = waiting.await.unwrap();
    eventually("there is room again", async || {
        // On a slow machine the reading took longer than it waits.
        if second.status == 503 {
            second = exchange(address, request(path, acme)).await;
        }
        second.status != 503
    })
    .await;
    assert_eq!(second.status, 200);
    for body in [&operators.body, &late, &second.body] {
        assert_eq!(length(body), LARGE);
    }
    drop(idle);
    daybook.shutdown().await;
}

/// Enters one of a tenant; where the API has it.
async fn path_of_a_large_event(store: &dyn Store, tenant: &str) -> String {
    let mut metadata = Map::new();
    metadata.insert("text".to_owned(), json!("x".repeat(LARGE)));
    let event = AuditEvent {
        at: Timestamp::UNIX_EPOCH,
        source: SourceName::new("elsewhere"),
        external_id: tenant.to_owned(),
        action: "large.happened".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: metadata.into(),
    };
    let commit = Commit {
        records: vec![Record::Event {
            event: &event,
            tenant_slug: Some(tenant),
        }],
        ..Commit::default()
    };
    store.commit(&commit).await.unwrap();
    let filter = EventFilter {
        tenant: Some(tenant.to_owned()),
        ..EventFilter::default()
    };
    let found = store.find_events(&filter, None, 1).await.unwrap();
    format!("/api/v1/events/{}", found[0].id)
}

/// Of the text in an event's payload.
fn length(event: &[u8]) -> usize {
    let event: Value = serde_json::from_slice(event).unwrap();
    event["metadata"]["text"].as_str().unwrap().len()
}
