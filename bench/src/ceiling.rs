//! What bounds Daybook: the very documents that it stores, under the same indexes and the same write
//! concern, pushed by the bare driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{Acknowledgment, CollectionOptions, WriteConcern};

use crate::daybook::{Daybook, ocis_source};
use crate::process::usage;
use crate::results::Results;
use crate::world::{World, until_stored};

const BATCH: usize = 1000;
const EVENTS: &str = "auditevents";

/// Documents and indexes as Daybook makes them.
pub struct Prepared {
    documents: Vec<RawDocumentBuf>,
    indexes: Vec<Document>,
}

/// Lets Daybook enter the log once, and reads back what it made.
pub async fn prepare(world: &World) -> Result<Prepared> {
    let (log, lines) = world.catch_up_log()?;
    let database = world.database().await?;
    let folder = world.folder()?;
    let url = world.mongod.url(database.name());
    let mut daybook = Daybook::start(&world.daybook, folder.path(), &url, &ocis_source(&log))?;
    let since = daybook.since;
    until_stored(&database, EVENTS, lines, since, || daybook.check()).await?;
    daybook.stop()?;
    let events = database.collection::<RawDocumentBuf>(EVENTS);
    let documents = events.find(doc! {}).await?.try_collect().await?;
    let listed = database
        .run_command(doc! { "listIndexes": EVENTS, "cursor": { "batchSize": 100 } })
        .await?;
    let indexes = listed
        .get_document("cursor")?
        .get_array("firstBatch")?
        .iter()
        .filter_map(|index| index.as_document())
        .filter(|index| index.get_str("name").is_ok_and(|name| name != "_id_"))
        .cloned()
        .collect();
    database.drop().await?;
    Ok(Prepared { documents, indexes })
}

/// One run at each concurrency, and the best of them as the ceiling.
pub async fn run(world: &World, prepared: &Arc<Prepared>, results: &mut Results) -> Result<()> {
    let mut best: f64 = 0.0;
    for concurrency in [1, 2, 4] {
        let server_before = usage(world.mongod.pid())?;
        let rate = push(world, prepared, concurrency).await?;
        best = best.max(rate);
        let server = usage(world.mongod.pid())?.cpu_seconds - server_before.cpu_seconds;
        let events = prepared.documents.len() as f64;
        results.add(
            "ceiling",
            &format!("insert_many, {concurrency} at once"),
            vec![
                ("events_per_second", rate),
                ("server_cpu_us_per_event", server * 1e6 / events),
            ],
        );
    }
    results.add(
        "ceiling",
        "the best of them",
        vec![("events_per_second", best)],
    );
    Ok(())
}

async fn push(world: &World, prepared: &Arc<Prepared>, concurrency: usize) -> Result<f64> {
    let database = world.database().await?;
    database
        .run_command(doc! { "createIndexes": EVENTS, "indexes": prepared.indexes.clone() })
        .await
        .context("the same indexes")?;
    let events: Collection<RawDocumentBuf> = database.collection_with_options(EVENTS, durable());
    let next = Arc::new(AtomicUsize::new(0));
    let since = Instant::now();
    let mut pushers = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (events, next, prepared) = (events.clone(), Arc::clone(&next), Arc::clone(prepared));
        pushers.spawn(async move {
            loop {
                let start = next.fetch_add(BATCH, Ordering::Relaxed);
                let Some(rest) = prepared.documents.get(start..) else {
                    return anyhow::Ok(());
                };
                if rest.is_empty() {
                    return Ok(());
                }
                let batch = &rest[..rest.len().min(BATCH)];
                events.insert_many(batch).ordered(false).await?;
            }
        });
    }
    while let Some(pushed) = pushers.join_next().await {
        pushed??;
    }
    let rate = prepared.documents.len() as f64 / since.elapsed().as_secs_f64();
    database.drop().await?;
    Ok(rate)
}

/// Daybook's write concern.
pub fn durable() -> CollectionOptions {
    let durable = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .w_timeout(Duration::from_secs(10))
        .build();
    CollectionOptions::builder().write_concern(durable).build()
}
