//! `bigstore [--mongodb N] [--sqlite N] [--url URL --events N] [--runs N] [--only TEXT]`: fills a store with N events
//! as a workspace of fifty tenants makes them, and measures every kind of query on it.
//!
//! `--mongodb` and `--sqlite` bring a server and a file of their own; `--url` uses a store that stays,
//! and fills it up only as far as events are missing. `--only` measures the filters with this in their name.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use daybook::config::Collections;
use daybook::store::Store;
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use testkit::bigstore::{fill, measure};
use testkit::mongod::Mongod;

/// Building an index over many events takes its time.
const TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<()> {
    let known = [
        "--mongodb",
        "--sqlite",
        "--url",
        "--events",
        "--runs",
        "--only",
    ];
    for pair in arguments.chunks(2) {
        if !known.contains(&pair[0].as_str()) || pair.len() < 2 {
            bail!(
                "usage: bigstore [--mongodb N] [--sqlite N] [--url URL --events N] [--runs N] [--only TEXT]"
            );
        }
    }
    let value = |name: &str| {
        let pairs = arguments.chunks(2);
        pairs
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].clone())
            .next_back()
    };
    let number = |name: &str| -> Result<Option<u64>> {
        let number = value(name).map(|text| text.parse());
        number
            .transpose()
            .with_context(|| format!("{name} wants a number"))
    };
    let runs = number("--runs")?.unwrap_or(40);
    let only = value("--only").unwrap_or_default();
    let measured = (runs, only.as_str());
    if let Some(events) = number("--sqlite")? {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("daybook.db");
        let store = SqliteStore::open(&path, TIMEOUT, &Collections::default())?;
        all("SQLite", Arc::new(store), events, measured, None).await?;
    }
    if let Some(events) = number("--mongodb")? {
        let mongod = Mongod::start_as_it_comes().await;
        mongo(&mongod.url("bigstore"), events, measured).await?;
    }
    if let Some(url) = value("--url") {
        let events = number("--events")?.unwrap_or(0);
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let store = SqliteStore::open(path.as_ref(), TIMEOUT, &Collections::default())?;
                all("SQLite", Arc::new(store), events, measured, None).await?;
            }
            None => mongo(&url, events, measured).await?,
        }
    }
    Ok(())
}

async fn mongo(url: &str, events: u64, measured: (u64, &str)) -> Result<()> {
    let store = MongoStore::connect(url, TIMEOUT, &Collections::default()).await?;
    let client = mongodb::Client::with_uri_str(url).await?;
    let database = client
        .default_database()
        .context("the URL names no database")?;
    all("MongoDB", Arc::new(store), events, measured, Some(database)).await
}

async fn all(
    name: &str,
    store: Arc<dyn Store>,
    events: u64,
    measured: (u64, &str),
    server: Option<mongodb::Database>,
) -> Result<()> {
    store.prepare().await?;
    store.begin_upkeep();
    fill(&store, events, name).await?;
    measure(&store, name, measured, server.as_ref()).await
}
