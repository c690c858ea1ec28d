//! `daybook export`: the timeline as a file, straight from the store, newest first.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tempfile::TempPath;

use crate::event::Outcome;
use crate::export::{Export, Format, deed, new_id};
use crate::own_events;

use super::filters::FilterArgs;
use super::output::{self, draw, is_closed_pipe, is_dumb_terminal, standard_output};
use super::stop::Stop;
use super::{ConfigArgs, Failure, open_existing, system_user, tell};

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
    /// Where to; standard output without it, or with -. The file appears when it is complete.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replaces the file if there is one; that at the end of a symbolic link.
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
    let path = args
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    let loaded = args.config.load_for_tools()?;
    let store = open_existing(&loaded.config.store).await?;
    store.prepare().await.context("cannot prepare the store")?;
    let mut stop = Stop::listen_to_hangup_too()?;
    let mut sink = Sink::open(path, args.force)?;

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
    let limit = args.filters.limit;
    let mut export = Export::new(Arc::clone(&store), filter.clone(), args.format, limit);
    let mut progress = Progress::new(path.is_some());
    let written = tokio::select! {
        written = write(&mut export, &mut sink, &mut progress) => written,
        () = stop.asked() => Err(anyhow::anyhow!("interrupted; the export is not complete")),
    };
    progress.end();
    let count = export.count();
    let finished = written.and_then(|()| sink.finish());
    let Err(error) = finished else {
        enter(Some((Outcome::Success, count)), None).await?;
        if let Some(path) = path {
            tell(format_args!("{count} events in {}", path.display()));
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
    export: &mut Export,
    sink: &mut Sink,
    progress: &mut Progress,
) -> Result<(), anyhow::Error> {
    while let Some(piece) = export.next().await.context("the store does not answer")? {
        output::write(&mut sink.out, &piece)
            .await
            .context("cannot write")?;
        progress.show(export.count(), piece.len() as u64);
    }
    sink.sync().await.context("cannot write")
}

/// Where it goes.
struct Sink {
    out: tokio::fs::File,
    /// `None`: standard output.
    file: Option<Unnamed>,
}

/// A file that gets its name when it is complete, and is removed when it is dropped before.
struct Unnamed {
    written: TempPath,
    path: PathBuf,
    force: bool,
}

impl Sink {
    fn open(path: Option<&Path>, force: bool) -> Result<Self, anyhow::Error> {
        let Some(path) = path else {
            let out = standard_output().context("cannot write to standard output")?;
            return Ok(Self { out, file: None });
        };
        let path = destination(path, force)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".daybook-export-")
            .tempfile_in(directory)
            .with_context(|| format!("cannot write in {}", directory.display()))?;
        let (out, written) = file.into_parts();
        Ok(Self {
            out: out.into(),
            file: Some(Unnamed {
                written,
                path,
                force,
            }),
        })
    }

    async fn sync(&mut self) -> std::io::Result<()> {
        match self.file {
            Some(_) => self.out.sync_all().await,
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<(), anyhow::Error> {
        let Some(Unnamed {
            written,
            path,
            force,
        }) = self.file
        else {
            return Ok(());
        };
        let named = if force {
            written.persist(&path)
        } else {
            written.persist_noclobber(&path)
        };
        named
            .map_err(|error| error.error)
            .with_context(|| format!("cannot name the file {}", path.display()))
    }
}

/// The file that is made or replaced: that at the end of a symbolic link, as with `>` and `cp`.
fn destination(path: &Path, force: bool) -> Result<PathBuf, anyhow::Error> {
    let shown = path.display();
    match path.metadata() {
        Ok(found) if found.is_dir() => bail!("{shown} is a directory"),
        Ok(found) if !found.is_file() => {
            bail!("{shown} is no regular file; write to standard output: > {shown}")
        }
        _ => {}
    }
    if path.symlink_metadata().is_err() {
        return Ok(path.to_owned());
    }
    if !force {
        bail!("{shown} is there already; --force replaces it");
    }
    path.canonicalize()
        .with_context(|| format!("{shown} leads nowhere"))
}

/// A line on standard error, if that is a terminal and the events do not go to one.
struct Progress {
    shown: bool,
    begun: Instant,
    last: Instant,
    bytes: u64,
}

impl Progress {
    fn new(to_file: bool) -> Self {
        let now = Instant::now();
        let events_are_shown = !to_file && std::io::stdout().is_terminal();
        Self {
            shown: std::io::stderr().is_terminal() && !events_are_shown && !is_dumb_terminal(),
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
        draw(&format!(
            "{count} events, {mebibytes:.1} MiB, {rate:.0} events/s"
        ));
    }

    fn end(&self) {
        if self.shown {
            draw("");
        }
    }
}
