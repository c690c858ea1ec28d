//! `daybook export`: the timeline as a file, straight from the store, newest first.

use std::ffi::OsStr;
use std::fs::{Metadata, Permissions};
use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::json;
use tempfile::TempPath;

use crate::event::Outcome;
use crate::export::{Export, Format, deed, new_id};
use crate::figures::thousands;
use crate::own_events;
use crate::store::{EventFilter, Store};

use super::filters::FilterArgs;
use super::output::{self, draw, escaped, is_closed_pipe, is_dumb_terminal, standard_output};
use super::stop::Stop;
use super::{ConfigArgs, Failure, open_existing, system_user, tell};

const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How many columns the bar has.
const BAR: usize = 22;

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
    /// Where to; standard output without it, or with -. The file appears when it is complete, also in
    /// the place of an empty one.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replaces the file if there is one, and keeps its mode; that at the end of a symbolic link.
    #[arg(long)]
    force: bool,
}

fn parse_format(word: &str) -> Result<Format, String> {
    Format::from_word(word).ok_or_else(|| "wanted: ndjson, csv or ecs".to_owned())
}

pub(super) async fn export(args: &ExportArgs) -> Result<(), Failure> {
    let filter = args.filters.filter()?;
    if args.filters.limit == Some(0) {
        return Err(anyhow!("--limit is 0; nothing would be exported").into());
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
    let mut export = Export::new(
        Arc::clone(&store),
        id.clone(),
        filter.clone(),
        args.format,
        limit,
    );
    let mut progress = Progress::new(&sink);
    let (is_shown, total) = (progress.is_shown, OnceLock::new());
    // Goes on beside the export, which alone ends.
    let counting = async {
        if let Some(events) = counted(&*store, &filter, limit).await {
            let _once = total.set(events);
        }
        std::future::pending::<Result<(), anyhow::Error>>().await
    };
    let written = tokio::select! {
        written = write(&mut export, args.format, &mut sink, &mut progress, &total) => written,
        () = stop.asked() => Err(anyhow!("interrupted; the export is not complete")),
        never = counting, if is_shown => never,
    };
    let count = export.count();
    let finished = written.and_then(|()| sink.finish());
    progress.end(finished.is_ok().then_some(count));
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
    let entered = enter(Some((Outcome::Failure, count)), Some(reason)).await;
    match entered {
        // A reader that has seen enough (`| head`) is no error.
        Ok(()) if closed => Ok(()),
        Err(untold) if closed => {
            tell(format_args!("warning: {untold:#}"));
            Ok(())
        }
        Ok(()) => Err(error.into()),
        Err(untold) => Err(anyhow!("{error:#}\n{untold:#}").into()),
    }
}

async fn write(
    export: &mut Export,
    format: Format,
    sink: &mut Sink,
    progress: &mut Progress,
    total: &OnceLock<u64>,
) -> Result<(), anyhow::Error> {
    while let Some(mut piece) = export.next().await.context("the store does not answer")? {
        if sink.is_terminal {
            piece = visible(&piece, format);
        }
        output::write(&mut sink.out, &piece)
            .await
            .context("cannot write")?;
        progress.show(export.count(), piece.len() as u64, total.get().copied());
    }
    sink.sync().await.context("cannot write")
}

/// How many events an export is going to have, where the store tells; its own start may be among them.
async fn counted(store: &dyn Store, filter: &EventFilter, limit: Option<u64>) -> Option<u64> {
    let found = store.histogram(filter, 1).await.ok()?.total;
    Some(limit.map_or(found, |limit| limit.min(found)))
}

/// A piece for a terminal: what acts on one stands as escapes, but for the ends of rows.
fn visible(piece: &[u8], format: Format) -> Vec<u8> {
    let mut is_quoted = false;
    let shown = escaped(&String::from_utf8_lossy(piece), |character| {
        is_quoted ^= format == Format::Csv && character == '"';
        matches!(character, '\r' | '\n') && !is_quoted
    });
    shown.into_bytes()
}

/// Where it goes.
struct Sink {
    out: tokio::fs::File,
    is_terminal: bool,
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
            return Ok(Self {
                out,
                is_terminal: std::io::stdout().is_terminal(),
                file: None,
            });
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
            is_terminal: false,
            file: Some(Unnamed {
                written,
                path,
                force,
            }),
        })
    }

    async fn sync(&mut self) -> std::io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        if let Ok(former) = tokio::fs::symlink_metadata(&file.path).await
            && former.is_file()
            && (file.force || is_empty_file(&former))
        {
            keep_access(&self.out, &former).await?;
        }
        self.out.sync_all().await
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
        // One that was empty may not be any more.
        let is_empty = path
            .symlink_metadata()
            .is_ok_and(|found| is_empty_file(&found));
        let named = if force || is_empty {
            written.persist(&path)
        } else {
            written.persist_noclobber(&path)
        };
        named
            .map_err(|error| error.error)
            .with_context(|| format!("cannot name the file {}", path.display()))
    }
}

/// Who had access to the former file has it to the new one, and nobody else.
async fn keep_access(new: &tokio::fs::File, former: &Metadata) -> std::io::Result<()> {
    let group = Some(former.gid());
    let kept = fchown(new, Some(former.uid()), group).or_else(|_| fchown(new, None, group));
    let mode = match kept {
        Ok(()) => former.mode() & 0o777,
        // Of another group others are members.
        Err(_) => former.mode() & 0o707,
    };
    new.set_permissions(Permissions::from_mode(mode)).await
}

/// Nothing is lost with it: `mktemp` makes such files. That of another would hand the events over to its owner.
fn is_empty_file(found: &Metadata) -> bool {
    found.is_file() && found.len() == 0 && super::uid() == Some(found.uid())
}

/// The file that is made or replaced: that at the end of a symbolic link, as with `>` and `cp`.
fn destination(path: &Path, force: bool) -> Result<PathBuf, anyhow::Error> {
    let shown = path.display();
    let found = path.metadata();
    match &found {
        Ok(found) if found.is_dir() => bail!("{shown} is a directory"),
        Ok(found) if !found.is_file() => {
            bail!("{shown} is no regular file; write to standard output: > {shown}")
        }
        _ => {}
    }
    let bytes = path.as_os_str().as_encoded_bytes();
    let name = path.file_name().map(OsStr::as_encoded_bytes);
    if !name.is_some_and(|name| bytes.ends_with(name)) {
        bail!("{shown} is the name of a directory, not of a file");
    }
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path.to_owned()),
        // Too long, say.
        Err(error) => return Err(error).with_context(|| format!("cannot name a file {shown}")),
    }
    if !force && !found.is_ok_and(|found| is_empty_file(&found)) {
        bail!("{shown} is there already; --force replaces it");
    }
    path.canonicalize()
        .with_context(|| format!("{shown} leads nowhere"))
}

/// A line on standard error, if that is a terminal and the events do not go to one.
struct Progress {
    is_shown: bool,
    begun: Instant,
    last: Option<Instant>,
    bytes: u64,
}

impl Progress {
    fn new(sink: &Sink) -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal() && !sink.is_terminal && !is_dumb_terminal(),
            begun: Instant::now(),
            last: None,
            bytes: 0,
        }
    }

    fn show(&mut self, count: u64, bytes: u64, total: Option<u64>) {
        self.bytes += bytes;
        let is_recent = |last: Instant| last.elapsed() < PROGRESS_EVERY;
        if !self.is_shown || self.last.is_some_and(is_recent) {
            return;
        }
        self.last = Some(Instant::now());
        draw(&told(count, total, self.bytes, self.begun.elapsed()));
    }

    /// Of an export that is complete, with so many events, its last state stays.
    fn end(&self, whole: Option<u64>) {
        if self.is_shown {
            let last = |count| told(count, whole, self.bytes, self.begun.elapsed()) + "\n";
            draw(&whole.map_or_else(String::new, last));
        }
    }
}

/// How far an export is; with its share of the whole where that is known.
fn told(count: u64, total: Option<u64>, bytes: u64, elapsed: Duration) -> String {
    let rate = count as f64 / elapsed.as_secs_f64().max(0.001);
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{count} events, {mebibytes:.1} MiB, {rate:.0} events/s");
    };
    // More may have been entered since they were counted.
    let total = total.max(count);
    let percent = count * 100 / total;
    let mut bar = "#".repeat(count as usize * BAR / total as usize);
    if bar.len() < BAR {
        bar.push('>');
    }
    let (count, total, rate) = (thousands(count), thousands(total), thousands(rate as u64));
    format!("{percent:3} % [{bar:BAR$}] {count} of {total} events, {mebibytes:.0} MiB, {rate}/s")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::config::Collections;
    use crate::event::{Actor, Target};
    use crate::own_events::Deed;
    use crate::store::StoredEvent;
    use crate::store::sqlite::SqliteStore;

    fn event(name: &str) -> StoredEvent {
        StoredEvent {
            id: "1".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            ingested_at: Timestamp::UNIX_EPOCH,
            source: "stalwart".to_owned(),
            external_id: "x".to_owned(),
            action: "stalwart.auth_failed".to_owned(),
            outcome: None,
            actor: Actor {
                name: Some(name.into()),
                ..Actor::default()
            },
            target: Target::default(),
            tenant_slug: None,
            metadata: serde_json::Map::new(),
        }
    }

    #[test]
    fn nothing_in_an_event_acts_on_a_terminal() {
        let name = "a\u{1b}[31m\u{9b}2J\u{202e}\r\n\"b\"";
        for (format, line_end, lines) in [
            (Format::Ndjson, "}\n", 1),
            (Format::Csv, ",{}\r\n", 2),
            (Format::Ecs, "}\n", 1),
        ] {
            let mut piece = format.head();
            format.write(&event(name), &mut piece);
            let text = String::from_utf8(visible(&piece, format)).unwrap();
            assert!(text.contains("a\\u001b[31m\\u009b2J\\u202e"), "{text}");
            assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{text:?}");
            assert_eq!(text.matches('\n').count(), lines, "{text:?}");
            assert!(text.ends_with(line_end), "{text:?}");
            if format != Format::Csv {
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                let user = if format == Format::Ecs {
                    "user"
                } else {
                    "actor"
                };
                assert_eq!(json[user]["name"], name);
            }
        }
    }

    #[test]
    fn a_bar_shows_the_share_and_never_more_than_the_whole() {
        for (count, total, line) in [
            (
                430_000,
                Some(1_000_000),
                " 43 % [#########>            ] 430,000 of 1,000,000 events, 210 MiB, 43,000/s",
            ),
            (
                0,
                Some(7),
                "  0 % [>                     ] 0 of 7 events, 210 MiB, 0/s",
            ),
            (
                999,
                Some(1000),
                " 99 % [#####################>] 999 of 1,000 events, 210 MiB, 99/s",
            ),
            (
                1000,
                Some(1000),
                "100 % [######################] 1,000 of 1,000 events, 210 MiB, 100/s",
            ),
            (
                1070,
                Some(1000),
                "100 % [######################] 1,070 of 1,070 events, 210 MiB, 107/s",
            ),
            (1070, Some(0), "1070 events, 210.0 MiB, 107 events/s"),
            (1070, None, "1070 events, 210.0 MiB, 107 events/s"),
        ] {
            let told = told(count, total, 210 << 20, Duration::from_secs(10));
            assert_eq!(told, line);
        }
    }

    #[test]
    fn what_was_empty_is_not_replaced_once_it_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        std::fs::write(&path, "").unwrap();
        let sink = Sink::open(Some(&path), false).unwrap();
        std::fs::write(&path, "another's").unwrap();
        assert!(sink.finish().is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
    }

    #[tokio::test]
    async fn what_is_exported_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.db");
        let store = SqliteStore::open(&path, Duration::from_secs(30), &Collections::default());
        let store = store.unwrap();
        store.prepare().await.unwrap();
        for action in ["daybook.signed_in", "daybook.signed_in", "daybook.exported"] {
            let deed = Deed::new(action, Outcome::Success);
            own_events::enter(&store, deed).await.unwrap();
        }
        let signed_in = EventFilter {
            action: Some("daybook.signed_in".to_owned()),
            ..EventFilter::default()
        };
        for (filter, limit, events) in [
            (EventFilter::default(), None, 3),
            (signed_in.clone(), None, 2),
            (signed_in.clone(), Some(1), 1),
            (signed_in, Some(7), 2),
        ] {
            assert_eq!(counted(&store, &filter, limit).await, Some(events));
        }
    }
}
