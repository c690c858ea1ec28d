//! `daybook tail`: the newest events, oldest of them first, and with `--follow` those that come.
//!
//! It reads the store itself and needs no running service. Names come from strangers, so nothing
//! in them reaches the terminal that could move its cursor, colour it or turn its text around.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use rustix::termios::tcgetwinsize;

use crate::store::feed::Matcher;
use crate::store::{EventFilter, PageKey, Payloads, Store, StoredEvent};

use super::filters::FilterArgs;
use super::output::{self, is_closed_pipe, is_dumb_terminal, standard_output};
use super::stop::Stop;
use super::{ConfigArgs, Failure, open_existing, tell};

#[path = "tail_line.rs"]
mod line;

use line::Line;

const DEFAULT_LIMIT: u64 = 20;
/// Their lines are held in memory to be turned around.
const MOST: u64 = 100_000;
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Shows the newest events.
#[derive(Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filters: FilterArgs,
    /// Goes on with what is entered, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// A JSON object a line, as the API shows it.
    #[arg(long)]
    json: bool,
    /// When to use colours; NO_COLOR and TERM=dumb are respected.
    #[arg(long, value_enum, default_value_t = When::Auto)]
    color: When,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl When {
    fn is_now(self, terminal: bool) -> bool {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !unwanted && !is_dumb_terminal(),
        }
    }
}

pub(super) async fn tail(args: &TailArgs) -> Result<(), Failure> {
    let filter = args.filters.filter()?;
    let limit = args.filters.limit.unwrap_or(DEFAULT_LIMIT);
    if limit > MOST {
        return Err(anyhow::anyhow!("--limit is above {MOST}; use daybook export").into());
    }
    let loaded = args.config.load_for_tools()?;
    let store = open_existing(&loaded.config.store).await?;
    store.prepare().await.context("cannot prepare the store")?;
    let mut stop = Stop::listen()?;
    let mut printer = Printer::new(args)?;
    let ended = tokio::select! {
        ended = run(args.follow, &*store, filter, limit, &mut printer) => ended,
        () = stop.asked() => Ok(()),
    };
    match ended {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if is_closed_pipe(&error) => Ok(()),
        ended => Ok(ended?),
    }
}

async fn run(
    follows: bool,
    store: &dyn Store,
    filter: EventFilter,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), anyhow::Error> {
    // Before the list is read: what comes in between is in both, and shown once.
    let mut follow = if follows {
        store
            .follow(None)
            .await
            .context("cannot follow the store")?
    } else {
        None
    };
    let newest = newest(store, &filter, limit, printer).await?;
    let mut shown = HashSet::new();
    for page in newest.into_iter().rev() {
        printer.print(&page.lines).await?;
        shown.extend(page.ids);
    }
    let Some(follow) = &mut follow else {
        return Ok(());
    };
    let matcher = Matcher::new(filter, store.caseless());
    let mut failing = false;
    loop {
        match follow.next().await {
            Ok(found) => {
                failing = false;
                let events = found.entries.into_iter().map(|entry| entry.event);
                let new: Vec<_> = events
                    .filter(|event| matcher.matches(event) && !shown.remove(&event.id))
                    .collect();
                let lines = printer.lines(&new)?;
                printer.print(&lines).await?;
            }
            Err(error) => {
                if !failing {
                    tell(format_args!("waiting for the store: {error}"));
                }
                failing = true;
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
}

/// A page of events as text, which takes much less than they do; its oldest line is the first.
struct Page {
    lines: String,
    ids: Vec<String>,
}

/// The newest events, the newest page first.
async fn newest(
    store: &dyn Store,
    filter: &EventFilter,
    limit: u64,
    printer: &mut Printer,
) -> Result<Vec<Page>, anyhow::Error> {
    let payloads = if printer.line.json {
        Payloads::Whole
    } else {
        Payloads::LeftOut
    };
    let mut pages = Vec::new();
    let (mut before, mut left) = (None, limit);
    loop {
        let wanted = u32::try_from(left.min(1000)).unwrap_or(1000);
        let page = store
            .event_page(filter, before.as_ref(), wanted, payloads)
            .await
            .context("cannot read the store")?;
        let events = page.events;
        left -= events.len() as u64;
        let complete = left == 0 || (!page.is_cut && events.len() < wanted as usize);
        before = events.last().map(PageKey::of).or(before);
        pages.push(Page {
            lines: printer.lines(events.iter().rev())?,
            ids: events.into_iter().map(|event| event.id).collect(),
        });
        if complete {
            return Ok(pages);
        }
    }
}

/// Events on their way to standard output.
struct Printer {
    out: tokio::fs::File,
    line: Line,
}

impl Printer {
    fn new(args: &TailArgs) -> Result<Self, anyhow::Error> {
        let terminal = std::io::stdout().is_terminal();
        let line = Line {
            json: args.json,
            color: args.color.is_now(terminal),
            cut: terminal,
            columns: None,
            zone: if args.json { TimeZone::UTC } else { zone() },
        };
        let out = standard_output().context("cannot write to standard output")?;
        Ok(Self { out, line })
    }

    fn lines<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a StoredEvent>,
    ) -> Result<String, anyhow::Error> {
        // Asked each time: a window changes its width.
        if self.line.cut && !self.line.json {
            self.line.columns = columns();
        }
        let mut text = String::new();
        for event in events {
            self.line.write(event, &mut text)?;
        }
        Ok(text)
    }

    async fn print(&mut self, lines: &str) -> Result<(), anyhow::Error> {
        if lines.is_empty() {
            return Ok(());
        }
        Ok(output::write(&mut self.out, lines.as_bytes()).await?)
    }
}

/// The zone of `TZ`, else of the machine; UTC where there is none.
fn zone() -> TimeZone {
    TimeZone::try_system().unwrap_or_else(|_| {
        if let Some(name) = std::env::var_os("TZ") {
            tell(format_args!(
                "warning: TZ: no time zone {name:?} is known here; times are in UTC"
            ));
        }
        TimeZone::UTC
    })
}

/// How wide the terminal is that standard output goes to; `None` where nobody can tell.
fn columns() -> Option<usize> {
    let columns: usize = match std::env::var("COLUMNS") {
        Ok(columns) => columns.trim().parse().ok()?,
        Err(_) => tcgetwinsize(std::io::stdout()).ok()?.ws_col.into(),
    };
    (columns > 0).then_some(columns)
}
