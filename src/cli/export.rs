//! `daybook export`: the timeline as a file, straight from the store, newest first.

use std::io::{ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

use crate::event::Outcome;
use crate::export::{Export, Format, deed, new_id};
use crate::own_events;
use crate::store::{self, EventFilter, Store};

use super::filters::FilterArgs;
use super::{ConfigArgs, Failure, system_user};

const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Writes events as ndjson, CSV or ECS.
#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filters: FilterArgs,
    /// ndjson, csv or ecs (Elastic Common Schema, a JSON object a line).
    #[arg(long, value_parser = parse_format)]
    format: Format,
    /// Where to; standard output without it. The file appears when it is complete.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replaces the file if there is one.
    #[arg(long)]
    force: bool,
}

fn parse_format(word: &str) -> Result<Format, String> {
    Format::from_word(word).ok_or_else(|| "wanted: ndjson, csv or ecs".to_owned())
}

pub(super) async fn export(args: &ExportArgs) -> Result<(), Failure> {
    let filter = args.filters.filter()?;
    if args.filters.limit == Some(0) {
        return Err(anyhow::anyhow!("--limit is 0; nothing would be exported").into());
    }
    let loaded = args.config.load_for_tools()?;
    let store = store::open(&loaded.config.store)
        .await
        .context("cannot open the store")?;
    store.prepare().await.context("cannot prepare the store")?;
    let mut sink = Sink::open(args.output.as_deref(), args.force)?;

    let id = new_id();
    let enter = async |ended: Option<(Outcome, u64)>, reason: Option<&str>| {
        let mut deed = deed(&id, &filter, args.filters.limit, args.format, ended);
        deed.who = system_user();
        if let Some(reason) = reason {
            deed.metadata.insert("reason".to_owned(), json!(reason));
        }
        own_events::enter(&*store, deed)
            .await
            .context("the timeline does not say that this was exported")
    };
    enter(None, None).await?;
    let written = write(args, &filter, &store, &mut sink).await;
    let (count, failed) = match written {
        Ok(count) => match sink.finish() {
            Ok(()) => (count, None),
            Err(error) => (count, Some(error)),
        },
        Err((count, error)) => (count, Some(error)),
    };
    let Some(error) = failed else {
        enter(Some((Outcome::Success, count)), None).await?;
        if let Some(path) = &args.output {
            eprintln!("{count} events in {}", path.display());
        }
        return Ok(());
    };
    let closed = is_closed_pipe(&error);
    let reason = if closed {
        "the reader has gone"
    } else {
        "it broke off"
    };
    enter(Some((Outcome::Failure, count)), Some(reason)).await?;
    // A reader that has seen enough (`| head`) is no error.
    if closed { Ok(()) } else { Err(error.into()) }
}

async fn write(
    args: &ExportArgs,
    filter: &EventFilter,
    store: &Arc<dyn Store>,
    sink: &mut Sink,
) -> Result<u64, (u64, anyhow::Error)> {
    let limit = args.filters.limit;
    let mut export = Export::new(Arc::clone(store), filter.clone(), args.format, limit);
    let mut progress = Progress::new();
    let signals = async || {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok::<(), std::io::Error>(())
    };
    let mut interrupted = Box::pin(signals());
    let outcome = loop {
        let next = tokio::select! {
            next = export.next() => next,
            _ = &mut interrupted => break Err(anyhow::anyhow!("interrupted; no file was written")),
        };
        match next.context("the store does not answer") {
            Ok(Some(piece)) => {
                if let Err(error) = sink.out().write_all(&piece) {
                    break Err(anyhow::Error::new(error).context("cannot write"));
                }
                progress.show(export.count(), piece.len() as u64);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    progress.end();
    match outcome {
        Ok(()) => Ok(export.count()),
        Err(error) => Err((export.count(), error)),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Where it goes: a file gets its name when it is complete.
enum Sink {
    Out(std::io::Stdout),
    File {
        file: Option<NamedTempFile>,
        path: PathBuf,
        force: bool,
    },
}

impl Sink {
    fn open(path: Option<&Path>, force: bool) -> Result<Self, anyhow::Error> {
        let Some(path) = path else {
            return Ok(Self::Out(std::io::stdout()));
        };
        if !force && path.symlink_metadata().is_ok() {
            bail!("{} is there already; --force replaces it", path.display());
        }
        if path.is_dir() {
            bail!("{} is a directory", path.display());
        }
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".daybook-export-")
            .tempfile_in(directory)
            .with_context(|| format!("cannot write in {}", directory.display()))?;
        Ok(Self::File {
            file: Some(file),
            path: path.to_owned(),
            force,
        })
    }

    fn out(&mut self) -> &mut dyn Write {
        match self {
            Self::File {
                file: Some(file), ..
            } => file,
            Self::Out(out) => out,
            Self::File { file: None, .. } => unreachable!("a finished export is not written to"),
        }
    }

    fn finish(&mut self) -> Result<(), anyhow::Error> {
        match self {
            Self::Out(out) => out.flush().context("cannot write"),
            Self::File { file, path, force } => {
                let Some(file) = file.take() else {
                    return Ok(());
                };
                file.as_file().sync_all().context("cannot write")?;
                let named = if *force {
                    file.persist(&*path)
                } else {
                    file.persist_noclobber(&*path)
                };
                named
                    .map(|_| ())
                    .map_err(|error| error.error)
                    .with_context(|| format!("cannot name the file {}", path.display()))
            }
        }
    }
}

/// A line on standard error, if that is a terminal and standard output is not.
struct Progress {
    shown: bool,
    begun: Instant,
    last: Instant,
    bytes: u64,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            shown: std::io::stderr().is_terminal(),
            begun: now,
            last: now,
            bytes: 0,
        }
    }

    fn show(&mut self, count: u64, bytes: u64) {
        self.bytes += bytes;
        if !self.shown || self.last.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.last = Instant::now();
        let rate = count as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let mebibytes = self.bytes as f64 / f64::from(1 << 20);
        eprint!("\r\u{1b}[K{count} events, {mebibytes:.1} MiB, {rate:.0} events/s");
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\u{1b}[K");
        }
    }
}
