//! Stalwart's webhooks over real HTTP, into a real store.
#![allow(clippy::unwrap_used, reason = "tests")]

mod captures;
mod child;
mod durable;
mod keys;
mod limits;
mod logs;
mod protocol;
mod unreadable;

use testkit::World;
use testkit::http::{self, Answer};
use testkit::world::Plan;

/// Where webhooks go.
const ROUTE: &str = "/ingest/stalwart/webhook";
/// The key of worlds that need no other.
const KEY: &str = "a-key-of-this-test";

/// Adds a Stalwart source that takes these keys. Without a journal, an answer 200 comes from the store,
/// however busy that is.
fn with_keys(plan: Plan, keys: &[&str]) -> Plan {
    let files: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| plan.file(&format!("key-{index}"), key))
        .collect();
    plan.source(&format!("kind = \"stalwart\"\nsecret_files = {files:?}"))
        .journal_size("0B")
}

/// A world on SQLite with one Stalwart source under [`KEY`].
async fn world() -> World {
    let world = with_keys(World::sqlite().await, &[KEY]).start().await;
    world.ready().await;
    world
}

/// Sends a body signed with [`KEY`].
async fn send(world: &World, body: impl AsRef<[u8]>) -> Answer {
    let request = http::signed(ROUTE, KEY, body);
    http::exchange(world.daybook().address(), request).await
}

/// A body with `count` events that differ from each other and from those of another `name`.
fn body(name: &str, count: usize) -> String {
    let events: Vec<String> = (0..count).map(|index| event(name, index)).collect();
    format!("{{\"events\":[{}]}}", events.join(","))
}

/// One event.
fn event(name: &str, index: usize) -> String {
    format!(
        r#"{{"id":"1","createdAt":"2026-11-24T04:00:00Z","type":"auth.failed","data":{{"accountName":"{name}-{index}","remoteIp":"192.0.2.1"}}}}"#
    )
}
