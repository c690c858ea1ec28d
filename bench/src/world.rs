//! What all benches share: one server, a folder for large files, how often and how much.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mongodb::Database;
use mongodb::bson::Document;
use tempfile::TempDir;
use testkit::mongod::Mongod;

use crate::data;
use crate::daybook::{self, PATIENCE};

pub struct World {
    pub mongod: Mongod,
    pub daybook: PathBuf,
    pub scale: f64,
    directory: TempDir,
    databases: std::cell::Cell<u32>,
}

impl World {
    /// Builds Daybook unless a program is given.
    pub async fn new(scale: f64, program: Option<PathBuf>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("daybook-bench-")
            .tempdir()?;
        Ok(Self {
            mongod: Mongod::start_as_it_comes().await,
            daybook: program.map_or_else(daybook::binary, Ok)?,
            scale,
            directory,
            databases: std::cell::Cell::new(0),
        })
    }

    /// So many, scaled.
    pub fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(1000)
    }

    /// Where files go that all runs use.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// An empty folder for one run.
    pub fn folder(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(self.path())?)
    }

    /// A database nobody has used, with the platform's directory in it.
    pub async fn database(&self) -> Result<Database> {
        let number = self.databases.get() + 1;
        self.databases.set(number);
        let database = self.mongod.database(&format!("bench{number}")).await;
        data::write_directory(&database).await?;
        Ok(database)
    }

    /// The log of `catch-up` and how many events it holds.
    pub fn catch_up_log(&self) -> Result<(PathBuf, u64)> {
        let path = self.path().join("mutations.log");
        let lines = self.scaled(1_000_000);
        if !path.exists() {
            data::write_log(&path, lines, 1, 100_000)?;
        }
        Ok((path, lines))
    }
}

/// Waits until the collection holds so many documents; returns the time since `since`.
pub async fn until_stored(
    database: &Database,
    collection: &str,
    count: u64,
    since: Instant,
    mut check: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let collection = database.collection::<Document>(collection);
    loop {
        if collection.estimated_document_count().await? >= count {
            return Ok(since.elapsed());
        }
        check()?;
        ensure!(since.elapsed() < PATIENCE, "not stored in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub const MIB: f64 = 1024.0 * 1024.0;
