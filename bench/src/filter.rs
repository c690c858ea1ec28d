//! A log of reads with few changes in it, beside the tools that only look for a word or for line ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::data;
use crate::daybook::{Daybook, ocis_source};
use crate::results::Results;
use crate::world::{MIB, World};

/// One of so many lines changes something.
const ONE_IN: u64 = 20;

pub async fn run(world: &World, results: &mut Results) -> Result<()> {
    let path = world.path().join("reads.log");
    let lines = world.scaled(10_000_000);
    if !path.exists() {
        data::write_log(&path, lines, ONE_IN, 20_000)?;
    }
    let megabytes = std::fs::metadata(&path)?.len() as f64 / 1e6;
    let tool = |command: &mut Command| -> Result<f64> {
        let since = Instant::now();
        // Its output is read: grep stops at the first match when nobody does.
        ensure!(
            command.stdin(Stdio::null()).output()?.status.success(),
            "it fails"
        );
        Ok(megabytes / since.elapsed().as_secs_f64())
    };
    // The first reading warms the file.
    tool(Command::new("wc").arg("-l").arg(&path))?;
    let counted = tool(Command::new("wc").arg("-l").arg(&path))?;
    results.add("filter", "wc -l", vec![("mb_per_second", counted)]);
    let mut grep = Command::new("grep");
    grep.args(["-c", "\"Action\":\"file_read\""]).arg(&path);
    let found = tool(&mut grep)?;
    results.add("filter", "grep -c", vec![("mb_per_second", found)]);
    through_daybook(world, &path, lines, "daybook, MongoDB", results).await?;

    // What the five of a hundred cost that are entered is seen beside a log without them.
    let path = world.path().join("reads-only.log");
    let lines = lines / 4;
    if !path.exists() {
        data::write_log(&path, lines, u64::MAX, 20_000)?;
    }
    tool(Command::new("wc").arg("-l").arg(&path))?;
    through_daybook(world, &path, lines, "daybook, reads alone", results).await
}

async fn through_daybook(
    world: &World,
    path: &Path,
    lines: u64,
    subject: &str,
    results: &mut Results,
) -> Result<()> {
    let megabytes = std::fs::metadata(path)?.len() as f64 / 1e6;
    let database = world.database().await?;
    let folder = world.folder()?;
    let url = world.mongod.url(database.name());
    let mut daybook = Daybook::start(&world.daybook, folder.path(), &url, &ocis_source(path))?;
    loop {
        let received = daybook.metric("daybook_events_written_total").await;
        let filtered = daybook.metric("daybook_events_filtered_total").await;
        if received.unwrap_or(0.0) + filtered.unwrap_or(0.0) >= lines as f64 {
            break;
        }
        daybook.check()?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let took = daybook.since.elapsed().as_secs_f64();
    let used = daybook.usage()?;
    daybook.stop()?;
    let values = vec![
        ("mb_per_second", megabytes / took),
        ("lines_per_second", lines as f64 / took),
        ("cpu_seconds", used.cpu_seconds),
        ("mb_per_cpu_second", megabytes / used.cpu_seconds),
        ("peak_rss_mib", used.peak_rss as f64 / MIB),
    ];
    results.add("filter", subject, values);
    database.drop().await?;
    Ok(())
}
