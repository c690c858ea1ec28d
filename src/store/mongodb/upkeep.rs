//! What is done beside the commits: keys for events that lack them, texts settled, hours and days
//! counted. All of it may stop at any point and is done again by the next service.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mongodb::action::Action as _;
use mongodb::bson::{Bson, DateTime, Document, doc};
use tokio::task::JoinHandle;

use super::announce::News;
use super::cells::Cell;
use super::conditions::ceiling;
use super::errors::store_error;
use super::schema::{by_facet, by_time};
use super::{MongoStore, collect, decode, durable};
use crate::store::keys::{EventKeys, Facet, MASKED, TEXTS_OUTLIVE, day};
use crate::store::{EventFilter, Result, StoredEvent};

/// How often hours and days are counted that have become countable, and events without keys looked for.
const ROUND: Duration = Duration::from_secs(60);

/// How often it is looked whether an index is known to be missing.
const LOOK: Duration = Duration::from_secs(5);

/// A commit this long ago leaves the server free for other work.
const QUIET: Duration = Duration::from_secs(1);

/// Texts are settled in one part of so many of the time while commits are going on.
const SHARE: u32 = 5;

/// The same while there is hardly a moment without a commit, as during an import: it brings more
/// texts than could be settled meanwhile, and every commit would wait for those that are.
const SHARE_OF_IMPORT: u32 = 20;

/// So much of the time is hardly a moment without.
const MOSTLY: f64 = 0.8;

/// So long a new facet stands before events get it: a page reads the dictionary of facets and the events without keys
/// side by side, and an event must not leave these before its facet is seen in that.
pub(super) const A_LOOK: Duration = Duration::from_secs(1);

/// Events that get their keys at once.
const EVENTS_AT_ONCE: i64 = 500;

/// The background task of a store; ends with it.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    task: OnceLock<AbortOnDrop>,
    /// When the last commit began, in milliseconds since 1970.
    last_commit: AtomicI64,
    /// How long all commits took together, in microseconds.
    busy: AtomicU64,
}

/// A commit under way.
#[derive(Debug)]
pub(super) struct Committing<'a> {
    upkeep: &'a Upkeep,
    since: Instant,
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.upkeep.busy.fetch_add(took, Ordering::Relaxed);
    }
}

/// What commits do to the server.
#[derive(Clone, Copy, Debug)]
struct Load {
    is_quiet: bool,
    busy: Duration,
}

impl Load {
    const NONE: Self = Self {
        is_quiet: true,
        busy: Duration::ZERO,
    };
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upkeep {
    /// Notes that a commit is under way, until what comes back is dropped.
    pub(super) fn committing(&self) -> Committing<'_> {
        let now = Timestamp::now().as_millisecond();
        self.last_commit.store(now, Ordering::Relaxed);
        Committing {
            upkeep: self,
            since: Instant::now(),
        }
    }

    fn load(&self) -> Load {
        let since = Timestamp::now().as_millisecond() - self.last_commit.load(Ordering::Relaxed);
        Load {
            is_quiet: since > i64::try_from(QUIET.as_millis()).unwrap_or(i64::MAX),
            busy: Duration::from_micros(self.busy.load(Ordering::Relaxed)),
        }
    }
}

impl MongoStore {
    /// Starts the background task, once.
    pub(super) fn start_upkeep(&self) {
        self.upkeep.task.get_or_init(|| {
            let upkeep = std::sync::Arc::downgrade(&self.upkeep);
            // A store of its own would keep itself alive.
            let store = Self {
                upkeep: std::sync::Arc::default(),
                ..self.clone()
            };
            AbortOnDrop(tokio::spawn(async move {
                let load = || upkeep.upgrade().map_or(Load::NONE, |upkeep| upkeep.load());
                tokio::join!(store.keep_up(load), store.keep_indexed());
            }))
        });
    }

    async fn keep_up(&self, load: impl Fn() -> Load) {
        loop {
            let done = async || -> Result<()> {
                self.give_keys().await?;
                self.settle(&load).await?;
                if load().is_quiet {
                    self.count_ahead().await?;
                }
                Ok(())
            };
            if let Err(error) = done().await {
                tracing::debug!(error = %error, "upkeep of the store waits");
            }
            let rest = tokio::time::sleep(ROUND);
            tokio::select! {
                () = rest => {}
                // New texts wait a little for company.
                () = self.work.notified() => tokio::time::sleep(QUIET).await,
            }
        }
    }

    /// Builds indexes for queries where some are missing, beside everything else: it may take minutes, or fail.
    async fn keep_indexed(&self) {
        let mut is_told = false;
        loop {
            // A build takes a connection for as long: none of the commits'.
            let rest = match self.for_reads().index_for_queries().await {
                Ok(()) => {
                    is_told = false;
                    LOOK
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "an index for queries cannot be built: they are slower until it stands");
                    }
                    ROUND
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Settles pending texts: as fast as the server goes while it is quiet, else in a share of the time.
    /// More than a round's have to wait for the rest of the work.
    async fn settle(&self, load: &impl Fn() -> Load) -> Result<()> {
        let end = self.now() + i64::try_from(ROUND.as_millis()).unwrap_or(i64::MAX);
        let round = Instant::now();
        // The clock may be put back meanwhile.
        while self.now() < end && round.elapsed() < ROUND {
            let (begun, busy) = (Instant::now(), load().busy);
            if !self.settle_some().await? {
                return Ok(());
            }
            let took = begun.elapsed();
            rest(took * (SHARE - 1), load).await;
            let busy = load().busy.saturating_sub(busy);
            if busy > begun.elapsed().mul_f64(MOSTLY) {
                rest(took * (SHARE_OF_IMPORT - SHARE), load).await;
            }
        }
        self.work.notify_one();
        Ok(())
    }

    /// Counts what a histogram of everything would have to.
    async fn count_ahead(&self) -> Result<()> {
        let everything = EventFilter::default();
        let unbounded = Self {
            timeout: ROUND * 60,
            ..self.for_reads().clone()
        };
        unbounded.count_by_time(&everything, 1).await.map(|_| ())
    }

    /// Gives keys to the events without: entered by an older version, or by somebody else. To all of
    /// them while the dictionary is made anew.
    async fn give_keys(&self) -> Result<()> {
        if self.lacks_entries().await? {
            self.forget();
            self.give_keys_to(doc! {}, by_time()).await?;
            return self.has_all_entries().await;
        }
        self.give_keys_to(doc! { "facet": null }, by_facet()).await
    }

    async fn give_keys_to(&self, which: Document, index: Document) -> Result<()> {
        let keyed = doc! {
            "at": 1, "source": 1, "action": 1, "outcome": 1, "actor": 1, "target": 1, "tenantSlug": 1,
        };
        // What is older is no event's time: none of it would be passed.
        let mut passed = (ceiling(Timestamp::MIN), Bson::MinKey);
        loop {
            let mut query = which.clone();
            let (at, id) = passed.clone();
            query.insert("at", doc! { "$gte": at });
            // Other than `$lte` by itself, this compares ids of any types, as the sort does.
            let seen = doc! { "$lte": ["$_id", { "$literal": id }] };
            query.insert("$nor", [doc! { "at": at, "$expr": seen }]);
            let found = self
                .events
                .find(query)
                .projection(keyed.clone())
                .sort(doc! { "at": 1, "_id": 1 })
                .limit(EVENTS_AT_ONCE)
                .optional(self.hint(index.clone()), |find, hint| find.hint(hint))
                .await;
            // Somebody else's id may be of a type that its text does not tell, and a time be none of ours.
            let events: Vec<((DateTime, Bson), StoredEvent)> = collect(found, |document| {
                let at = document.get_datetime("at").ok()?;
                let id = Bson::try_from(document.get("_id").ok()??).ok()?;
                Some(((at, id), decode::event(document)?))
            })
            .await?;
            let Some((last, _)) = events.last() else {
                return Ok(());
            };
            passed = last.clone();
            let mut news = News::new(self);
            let mut updates = Vec::new();
            for ((_, id), event) in events {
                let keys = EventKeys::of_stored(&event);
                let tenant = event.tenant_slug.as_deref();
                let facet = || Facet::of_stored(&event);
                news.add(self, event.at.as_millisecond(), tenant, &keys, facet);
                let terms: Vec<Bson> = keys.terms.iter().map(|term| term.key.into()).collect();
                let masks = MASKED.into_iter().zip(keys.masks);
                let masks: Document = masks
                    .map(|((_, name, _), mask)| (name.to_owned(), mask.into()))
                    .collect();
                updates.push(doc! {
                    "q": { "_id": id },
                    "u": { "$set": { "facet": keys.facet, "terms": terms, "masks": masks } },
                });
            }
            self.announce(&news, &durable(self.timeout)).await?;
            // While all are walked through, no filter finds everything anyway.
            if news.has_facets() && which.contains_key("facet") {
                tokio::time::sleep(A_LOOK).await;
            }
            self.remember(news);
            self.update_events(updates).await?;
        }
    }

    async fn update_events(&self, updates: Vec<Document>) -> Result<()> {
        let command = doc! {
            "update": self.events.name(),
            "updates": updates,
            "ordered": false,
            "writeConcern": { "w": "majority" },
            // As counts suppose: long behind its mark it does not come any more.
            "maxTimeMS": self.timeout_millis(),
        };
        let answer = self.database.run_command(command).await;
        answer.map(|_| ()).map_err(|error| store_error(&error))
    }

    /// Deletes the oldest events, at most `limit`, and in the end the texts of none but such.
    pub(super) async fn delete_old_events(&self, before: Timestamp, limit: u32) -> Result<u64> {
        if limit == 0 {
            return Ok(0);
        }
        let is_old = doc! { "$gte": DateTime::MIN, "$lt": ceiling(before) };
        let found = self
            .events
            .find(doc! { "at": &is_old })
            .projection(doc! { "_id": 1, "at": 1 })
            .sort(doc! { "at": 1, "_id": 1 })
            .limit(i64::from(limit))
            .await;
        let old: Vec<(Bson, i64)> = collect(found, |document| {
            let id = Bson::try_from(document.get("_id").ok()??).ok()?;
            Some((id, document.get_datetime("at").ok()?.timestamp_millis()))
        })
        .await?;
        if old.is_empty() {
            let day = day(before.as_millisecond()) - TEXTS_OUTLIVE;
            self.forget_texts_before(day).await?;
            return Ok(0);
        }
        let cells = old.iter().flat_map(|(_, at)| Cell::around(*at));
        let cells: std::collections::BTreeSet<Cell> = cells.collect();
        self.mark(&cells, &durable(self.timeout)).await?;
        let ids: Vec<Bson> = old.into_iter().map(|(id, _)| id).collect();
        let matching = doc! { "_id": { "$in": ids }, "at": is_old };
        let deleted = self.events.delete_many(matching).await;
        Ok(deleted.map_err(|error| store_error(&error))?.deleted_count)
    }
}

/// Leaves the server to the commits for so long, or until there are none.
async fn rest(time: Duration, load: &impl Fn() -> Load) {
    let end = Instant::now() + time;
    while !load().is_quiet {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(QUIET)).await;
    }
}
