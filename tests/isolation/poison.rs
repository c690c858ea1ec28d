//! An event over which the writer's handling panics, every time: it is found by dividing its batch,
//! and only it is kept aside.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use daybook::config::Config;
use daybook::event::{DeadLetterReason, SourceName};
use daybook::probe::Probe;
use daybook::store::feed::{Caseless, Follow};
use daybook::store::{
    Commit, Committed, Cursor, DeadLetterFilter, DeadLetterHead, DirectoryRecords, EventFilter,
    EventPage, Histogram, PageKey, Payloads, Record, Result, Store, StoredDeadLetter, StoredEvent,
    TokenRecord,
};
use daybook::tree::TreeOptions;
use daybook_actors::policy::{Backoff, Intensity};
use jiff::Timestamp;
use serde_json::json;
use testkit::World;
use testkit::world::eventually;

use super::{append_line, log_is_read, with_log};

const POISON: &str = "poisonous";
const EVENTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_event_is_found_among_the_good_ones_and_the_rest_goes_on() {
    quiet_panics();
    let (plan, log) = with_log(World::sqlite().await);
    let world = plan
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .store_through(|inner| Arc::new(Allergic { inner }))
        .options(soon_up_again())
        .start()
        .await;
    log_is_read(&world).await;

    for number in 0..EVENTS {
        let name = if number == EVENTS / 3 { POISON } else { "good" };
        append_line(&log, &format!("{name}-{number}.txt"));
    }
    let events: Vec<_> = (0..EVENTS)
        .map(|number| {
            let name = if number == EVENTS / 2 { POISON } else { "good" };
            json!({"action": "a", "externalId": number.to_string(), "metadata": {"name": name}})
        })
        .collect();
    let body = json!({ "events": events }).to_string();
    // In the store or, if finding the poison takes longer than a push may, in the journal.
    let (status, answer) = world.post("/api/v1/events", body, &[]).await;
    assert_eq!(status, 200, "{answer}");

    let stored = world.events_reach(2 * (EVENTS - 1)).await;
    assert!(!stored.iter().any(|event| is_poisonous(&event.metadata)));
    let mut letters = Vec::new();
    eventually("both poisonous events are dead letters", async || {
        letters = world.daybook().store().dead_letters(10).await.unwrap();
        letters.len() == 2
    })
    .await;
    for source in ["ocis", "platform-api"] {
        let letter = letters
            .iter()
            .map(|stored| &stored.letter)
            .find(|letter| letter.source.as_str() == source)
            .unwrap();
        assert_eq!(letter.reason, DeadLetterReason::Poison, "{source}");
        let kept = String::from_utf8(letter.raw.to_vec()).unwrap();
        assert!(kept.contains(POISON), "{source}: it is kept whole: {kept}");
    }
    // It did kill its handler, and again.
    let deaths = "actor=\"writer\",reason=\"error\"";
    assert!(world.metric("daybook_actor_restarts_total", deaths).await >= 3.0);

    append_line(&log, "afterwards.txt");
    world.events_reach(2 * (EVENTS - 1) + 1).await;
    world.stop().await;
}

/// The service's own reactions, but for the pauses: a poisonous event costs a dozen of them.
fn soon_up_again() -> TreeOptions {
    let often = Intensity {
        max_restarts: 1000,
        within: Duration::from_secs(60),
    };
    TreeOptions {
        backoff: Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(100),
            reset_after: Duration::from_secs(60),
        },
        intensity: often,
        ..TreeOptions::of(&Config::default())
    }
}

/// Planned panics are no news.
fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if !message.starts_with("struck at") {
            loud(panic);
        }
    }));
}

fn is_poisonous(metadata: &serde_json::Map<String, serde_json::Value>) -> bool {
    metadata
        .values()
        .any(|value| value.as_str().is_some_and(|text| text.contains(POISON)))
}

/// A store that panics over poisonous events.
struct Allergic {
    inner: Arc<dyn Store>,
}

#[async_trait]
impl Store for Allergic {
    fn set_probe(&self, probe: Probe) {
        self.inner.set_probe(probe);
    }

    async fn prepare(&self) -> Result<()> {
        self.inner.prepare().await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed> {
        let poisonous = commit.records.iter().any(|record| match record {
            Record::Event { event, .. } => is_poisonous(&event.metadata),
            Record::DeadLetter(_) => false,
        });
        assert!(!poisonous, "struck at a poisonous event");
        self.inner.commit(commit).await
    }

    async fn claim_cursor(&self, source: &SourceName) -> Result<Cursor> {
        self.inner.claim_cursor(source).await
    }

    async fn cursors(&self) -> Result<Vec<Cursor>> {
        self.inner.cursors().await
    }

    async fn directory(&self) -> Result<DirectoryRecords> {
        self.inner.directory().await
    }

    async fn event_page(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
        payloads: Payloads,
    ) -> Result<EventPage> {
        self.inner.event_page(filter, before, limit, payloads).await
    }

    async fn histogram(&self, filter: &EventFilter, buckets: u32) -> Result<Histogram> {
        self.inner.histogram(filter, buckets).await
    }

    async fn follow(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>> {
        self.inner.follow(after).await
    }

    fn caseless(&self) -> Caseless {
        self.inner.caseless()
    }

    fn inserts_a_chunk(&self) -> usize {
        self.inner.inserts_a_chunk()
    }

    async fn event(&self, id: &str, tenant: Option<&str>) -> Result<Option<StoredEvent>> {
        self.inner.event(id, tenant).await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<StoredDeadLetter>> {
        self.inner.dead_letters(limit).await
    }

    async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<DeadLetterHead>> {
        self.inner.list_dead_letters(filter, before, limit).await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>> {
        self.inner.dead_letter(id).await
    }

    async fn delete_dead_letters(&self, ids: &[String]) -> Result<u64> {
        self.inner.delete_dead_letters(ids).await
    }

    async fn delete_events_before(&self, at: Timestamp, limit: u32) -> Result<u64> {
        self.inner.delete_events_before(at, limit).await
    }

    async fn delete_dead_letters_before(&self, last_at: Timestamp, limit: u32) -> Result<u64> {
        self.inner.delete_dead_letters_before(last_at, limit).await
    }

    async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        self.inner.insert_token(token).await
    }

    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        self.inner.token(hash).await
    }

    async fn delete_token(&self, hash: &str) -> Result<()> {
        self.inner.delete_token(hash).await
    }
}
