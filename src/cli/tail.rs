//! `daybook tail`: the newest events, oldest of them first, and with `--follow` those that come.
//!
//! It reads the store itself and needs no running service. Names come from strangers, so nothing
//! in them reaches the terminal that could move its cursor, colour it or turn its text around.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use unicode_width::UnicodeWidthStr as _;

use crate::event::Outcome;
use crate::store::feed::Matcher;
use crate::store::{self, EventFilter, PageKey, Store, StoredEvent};

use super::dead_letters::{acts_on_a_terminal, visible};
use super::filters::FilterArgs;
use super::{ConfigArgs, Failure};

const DEFAULT_LIMIT: u64 = 20;
/// They are held in memory to be turned around.
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
    /// When to use colours; NO_COLOR is respected.
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
            Self::Auto => terminal && !unwanted,
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
    let store = store::open(&loaded.config.store)
        .await
        .context("cannot open the store")?;
    store.prepare().await.context("cannot prepare the store")?;
    let terminal = std::io::stdout().is_terminal();
    let line = Line {
        json: args.json,
        color: args.color.is_now(terminal),
        cut: terminal,
        zone: TimeZone::system(),
    };
    match run(args.follow, &*store, filter, limit, &line).await {
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
    line: &Line,
) -> Result<(), anyhow::Error> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    // Before the list is read: what comes in between is in both, and shown once.
    let mut follow = if follows {
        store
            .follow(None)
            .await
            .context("cannot follow the store")?
    } else {
        None
    };
    let mut newest = newest(store, &filter, limit)
        .await
        .context("cannot read the store")?;
    newest.reverse();
    print(&newest, line)?;
    let Some(follow) = &mut follow else {
        return Ok(());
    };
    let mut shown: HashSet<String> = newest.into_iter().map(|event| event.id).collect();
    let matcher = Matcher::new(filter, store.caseless());
    let mut failing = false;
    loop {
        let next = tokio::select! {
            next = follow.next() => next,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        match next {
            Ok(found) => {
                failing = false;
                let events = found.entries.into_iter().map(|entry| entry.event);
                let new: Vec<_> = events
                    .filter(|event| matcher.matches(event) && !shown.remove(&event.id))
                    .collect();
                print(&new, line)?;
            }
            Err(error) => {
                if !failing {
                    eprintln!("waiting for the store: {error}");
                }
                failing = true;
                tokio::select! {
                    () = tokio::time::sleep(STORE_PAUSE) => {}
                    _ = interrupt.recv() => return Ok(()),
                    _ = terminate.recv() => return Ok(()),
                }
            }
        }
    }
}

async fn newest(
    store: &dyn Store,
    filter: &EventFilter,
    limit: u64,
) -> Result<Vec<StoredEvent>, store::StoreError> {
    let mut events: Vec<StoredEvent> = Vec::new();
    loop {
        let left = limit - events.len() as u64;
        let wanted = u32::try_from(left.min(1000)).unwrap_or(1000);
        let before = events.last().map(|last| PageKey {
            at: last.at,
            id: last.id.clone(),
        });
        let page = store.find_events(filter, before.as_ref(), wanted).await?;
        let complete = page.len() < wanted as usize || page.len() as u64 == left;
        events.extend(page);
        if complete {
            return Ok(events);
        }
    }
}

fn print(events: &[StoredEvent], line: &Line) -> Result<(), anyhow::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for event in events {
        line.write(event, &mut text)?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// How one event looks.
struct Line {
    json: bool,
    color: bool,
    /// Whether a cell may be cut: on a terminal, never in a pipe.
    cut: bool,
    zone: TimeZone,
}

/// Columns and how wide they are; the last one is as wide as it has to be.
const WIDTHS: [usize; 6] = [19, 10, 10, 7, 28, 30];
const LAST_WIDTH: usize = 60;

impl Line {
    fn write(&self, event: &StoredEvent, text: &mut String) -> Result<(), anyhow::Error> {
        if self.json {
            let json = serde_json::to_string(event).context("an event as JSON")?;
            text.push_str(&escaped(&json));
            text.push('\n');
            return Ok(());
        }
        let at = event.at.to_zoned(self.zone.clone());
        let (actor, target) = (&event.actor, &event.target);
        let who = actor
            .email
            .as_ref()
            .or(actor.name.as_ref())
            .or(actor.id.as_ref());
        let what = target.name.as_ref().or(target.id.as_ref());
        let mut last = String::new();
        if let Some(what) = what {
            match &target.kind {
                Some(kind) => last = format!("{} {}", visible(kind), visible(what)),
                None => last = visible(what),
            }
        }
        let outcome = event.outcome.map_or("-", |outcome| outcome.as_str());
        let cells = [
            at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            visible(event.tenant_slug.as_deref().unwrap_or("-")),
            visible(&event.source),
            outcome.to_owned(),
            visible(&event.action),
            visible(who.map_or("-", |who| who)),
        ];
        let red = "31";
        let colors = [
            "2",
            "35",
            "34",
            if event.outcome == Some(Outcome::Failure) {
                red
            } else {
                "32"
            },
            "1",
            "36",
        ];
        for ((cell, width), color) in cells.iter().zip(WIDTHS).zip(colors) {
            let cell = self.fitted(cell, width);
            let padding = width.saturating_sub(cell.width()) + 1;
            self.colored(&cell, color, text);
            text.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(&self.fitted(&last, LAST_WIDTH));
        if let Some(ip) = &actor.ip {
            if !last.is_empty() {
                text.push(' ');
            }
            let from = self.fitted(&format!("from {}", visible(ip)), LAST_WIDTH);
            self.colored(&from, "2", text);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
        Ok(())
    }

    /// Cut to a width, with an ellipsis, where cells may be cut.
    fn fitted(&self, cell: &str, width: usize) -> String {
        if !self.cut || cell.width() <= width {
            return cell.to_owned();
        }
        let mut fitted = String::new();
        let mut used = 0;
        for character in cell.chars() {
            let wide = unicode_width::UnicodeWidthChar::width(character).unwrap_or(0);
            // The ellipsis takes a column.
            if used + wide >= width {
                break;
            }
            used += wide;
            fitted.push(character);
        }
        fitted.push('…');
        fitted
    }

    fn colored(&self, cell: &str, color: &str, text: &mut String) {
        if self.color && !cell.is_empty() {
            let _infallible = write!(text, "\u{1b}[{color}m{cell}\u{1b}[0m");
        } else {
            text.push_str(cell);
        }
    }
}

/// The same JSON, with everything that acts on a terminal as `\u` escapes.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if acts_on_a_terminal(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _infallible = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Actor, Target};

    fn event(name: &str) -> StoredEvent {
        StoredEvent {
            id: "1".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            ingested_at: Timestamp::UNIX_EPOCH,
            source: "stalwart".to_owned(),
            external_id: "x".to_owned(),
            action: "stalwart.auth_failed".to_owned(),
            outcome: Some(Outcome::Failure),
            actor: Actor {
                name: Some(name.into()),
                ip: Some("192.0.2.1".into()),
                ..Actor::default()
            },
            target: Target {
                kind: Some("account".into()),
                name: Some(name.into()),
                id: None,
            },
            tenant_slug: None,
            metadata: serde_json::Map::new(),
        }
    }

    fn line(json: bool, color: bool, cut: bool) -> Line {
        Line {
            json,
            color,
            cut,
            zone: TimeZone::UTC,
        }
    }

    fn shown(line: &Line, name: &str) -> String {
        let mut text = String::new();
        line.write(&event(name), &mut text).unwrap();
        text
    }

    const HOSTILE: &[&str] = &[
        "a\u{1b}[31mred",
        "a\rb",
        "a\nb",
        "\u{9b}2J",
        "\u{202e}txt.exe",
        "\u{7}\u{8}",
        "e\u{200b}vil",
        "<script>alert(1)</script>",
        "=1+1",
        "\u{e0041}tag",
        "\u{2066}iso\u{2069}",
    ];

    #[test]
    fn nothing_hostile_acts_on_the_terminal() {
        for name in HOSTILE {
            for json in [false, true] {
                let text = shown(&line(json, false, true), name);
                assert_eq!(text.matches('\n').count(), 1, "{text:?}");
                let bare = text.trim_end_matches('\n');
                assert!(!bare.chars().any(acts_on_a_terminal), "{text:?}");
            }
            let json = shown(&line(true, false, true), name);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["actor"]["name"], **name);
        }
    }

    #[test]
    fn columns_stand_under_each_other_and_cells_are_cut_on_a_terminal_only() {
        let long = "长".repeat(2000);
        let cut = shown(&line(false, false, true), &long);
        assert!(cut.width() < 250, "{cut}");
        assert!(shown(&line(false, false, false), &long).contains(&long));
        let place = |text: &str| text.find("account").map(|at| text[..at].width());
        assert_eq!(place(&cut), place(&shown(&line(false, false, true), "bob")));
        assert!(shown(&line(false, true, true), "bob").contains("\u{1b}[31mfailure\u{1b}[0m"));
        assert!(!shown(&line(false, false, true), "bob").contains('\u{1b}'));
    }
}
