//! A store that something stands before.

use std::sync::Arc;

use async_trait::async_trait;
use daybook::event::SourceName;
use daybook::probe::Probe;
use daybook::store::feed::{Caseless, Follow};
use daybook::store::{
    Commit, Committed, Cursor, DeadLetterFilter, DeadLetterHead, DirectoryRecords, EventFilter,
    EventPage, Histogram, PageKey, Payloads, Result, Store, StoredDeadLetter, StoredEvent,
    TokenRecord,
};
use jiff::Timestamp;

/// What happens before the store does what it is asked.
#[async_trait]
pub trait Before: Send + Sync + 'static {
    fn commit(&self, _commit: &Commit<'_>) {}

    async fn event_page(&self) {}

    async fn histogram(&self) {}

    async fn event(&self, _tenant: Option<&str>) {}

    async fn token(&self, _hash: &str) {}

    /// And once it has said whose a token is.
    fn told(&self) {}
}

pub struct Behind<B> {
    pub before: Arc<B>,
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl<B: Before> Store for Behind<B> {
    fn set_probe(&self, probe: Probe) {
        self.store.set_probe(probe);
    }

    async fn prepare(&self) -> Result<()> {
        self.store.prepare().await
    }

    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed> {
        self.before.commit(commit);
        self.store.commit(commit).await
    }

    async fn claim_cursor(&self, source: &SourceName) -> Result<Cursor> {
        self.store.claim_cursor(source).await
    }

    async fn cursors(&self) -> Result<Vec<Cursor>> {
        self.store.cursors().await
    }

    async fn directory(&self) -> Result<DirectoryRecords> {
        self.store.directory().await
    }

    async fn event_page(
        &self,
        filter: &EventFilter,
        before: Option<&PageKey>,
        limit: u32,
        payloads: Payloads,
    ) -> Result<EventPage> {
        self.before.event_page().await;
        self.store.event_page(filter, before, limit, payloads).await
    }

    async fn histogram(&self, filter: &EventFilter, buckets: u32) -> Result<Histogram> {
        self.before.histogram().await;
        self.store.histogram(filter, buckets).await
    }

    async fn follow(&self, after: Option<&str>) -> Result<Option<Box<dyn Follow>>> {
        self.store.follow(after).await
    }

    fn caseless(&self) -> Caseless {
        self.store.caseless()
    }

    fn inserts_a_chunk(&self) -> usize {
        self.store.inserts_a_chunk()
    }

    async fn event(&self, id: &str, tenant: Option<&str>) -> Result<Option<StoredEvent>> {
        self.before.event(tenant).await;
        self.store.event(id, tenant).await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<StoredDeadLetter>> {
        self.store.dead_letters(limit).await
    }

    async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        before: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<DeadLetterHead>> {
        self.store.list_dead_letters(filter, before, limit).await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<StoredDeadLetter>> {
        self.store.dead_letter(id).await
    }

    async fn delete_dead_letters(&self, ids: &[String]) -> Result<u64> {
        self.store.delete_dead_letters(ids).await
    }

    async fn delete_events_before(&self, at: Timestamp, limit: u32) -> Result<u64> {
        self.store.delete_events_before(at, limit).await
    }

    async fn delete_dead_letters_before(&self, last_at: Timestamp, limit: u32) -> Result<u64> {
        self.store.delete_dead_letters_before(last_at, limit).await
    }

    async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        self.store.insert_token(token).await
    }

    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        self.before.token(hash).await;
        let found = self.store.token(hash).await;
        self.before.told();
        found
    }

    async fn delete_token(&self, hash: &str) -> Result<()> {
        self.store.delete_token(hash).await
    }
}
