//! A long log from a cold start, into MongoDB and into SQLite.

use std::time::Duration;

use anyhow::Result;

use crate::daybook::{Daybook, ocis_source};
use crate::process::{Usage, usage};
use crate::results::{Results, Values};
use crate::world::{MIB, World, until_stored};

pub async fn run(world: &World, results: &mut Results) -> Result<()> {
    into_mongodb(world, results).await?;
    into_sqlite(world, results).await
}

async fn into_mongodb(world: &World, results: &mut Results) -> Result<()> {
    let (log, lines) = world.catch_up_log()?;
    let database = world.database().await?;
    let folder = world.folder()?;
    let url = world.mongod.url(database.name());
    let server_before = usage(world.mongod.pid())?;
    let mut daybook = Daybook::start(&world.daybook, folder.path(), &url, &ocis_source(&log))?;
    let since = daybook.since;
    let took = until_stored(&database, "auditevents", lines, since, || daybook.check()).await?;
    let used = daybook.usage()?;
    let server = usage(world.mongod.pid())?.cpu_seconds - server_before.cpu_seconds;
    daybook.stop()?;
    let mut values = rates(lines, took, used);
    values.push(("server_cpu_us_per_event", server * 1e6 / lines as f64));
    results.add("catch-up", "daybook, MongoDB", values);
    database.drop().await?;
    Ok(())
}

async fn into_sqlite(world: &World, results: &mut Results) -> Result<()> {
    let (log, lines) = world.catch_up_log()?;
    let folder = world.folder()?;
    let url = format!("sqlite:{}/daybook.db", folder.path().display());
    let mut daybook = Daybook::start(&world.daybook, folder.path(), &url, &ocis_source(&log))?;
    while daybook
        .metric("daybook_events_written_total")
        .await
        .unwrap_or(0.0)
        < lines as f64
    {
        daybook.check()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = daybook.since.elapsed();
    let used = daybook.usage()?;
    daybook.stop()?;
    results.add("catch-up", "daybook, SQLite", rates(lines, took, used));
    Ok(())
}

/// What is said of whoever enters events.
pub fn rates(events: u64, took: Duration, used: Usage) -> Values {
    vec![
        ("events_per_second", events as f64 / took.as_secs_f64()),
        ("cpu_us_per_event", used.cpu_seconds * 1e6 / events as f64),
        ("cpu_seconds", used.cpu_seconds),
        ("peak_rss_mib", used.peak_rss as f64 / MIB),
    ]
}
