//! `daybook dead-letters`: looks at what could not become an event, tries it again, or drops it.
//! Works on the store alone, so beside a running service or a stopped one.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::config::{Config, JournalConfig, LoadedConfig};
use crate::dead_letters::{Retried, Retrier, is_head_only};
use crate::event::{DeadLetterReason, parse_bound};
use crate::journal::waiting_bytes;
use crate::store::{DeadLetterFilter, DeadLetterHead, Store, StoreError, StoredDeadLetter};

use super::output::{self, pretty, visible};
use super::{ConfigArgs, Failure, open_existing, tell};

#[derive(Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// Lists dead letters, the last met first.
    List(ListArgs),
    /// Shows everything about one dead letter.
    Show(ShowArgs),
    /// Tries to make events of dead letters again; what succeeds is no dead letter any more.
    Retry(IdsArgs),
    /// Deletes dead letters for good.
    Drop(IdsArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only of this source.
    #[arg(long)]
    source: Option<String>,
    /// Only with this reason: malformed, unexpected_shape, oversized, invalid_utf8, rejected, poison.
    #[arg(long, value_parser = parse_reason)]
    reason: Option<DeadLetterReason>,
    /// Only last met at this time or later: 2026-11-24T04:05:39Z, or a date.
    #[arg(long, value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only last met before this time.
    #[arg(long, value_parser = parse_time)]
    until: Option<Timestamp>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Its id, as `list` shows it.
    id: String,
    /// Writes its bytes to standard output, as they are, and nothing else.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct IdsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Their ids, as `list` shows them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) async fn dead_letters(args: &DeadLettersArgs) -> Result<(), Failure> {
    match &args.command {
        DeadLettersCommand::List(args) => list(args).await,
        DeadLettersCommand::Show(args) => show(args).await,
        DeadLettersCommand::Retry(args) => retry(args).await,
        DeadLettersCommand::Drop(args) => drop_letters(args).await,
    }
}

fn parse_reason(word: &str) -> Result<DeadLetterReason, String> {
    DeadLetterReason::from_word(word).ok_or_else(|| {
        let words = DeadLetterReason::ALL.map(DeadLetterReason::as_str);
        format!("wanted: one of {}", words.join(", "))
    })
}

/// RFC 3339, or a date alone (midnight UTC), as the API takes it.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wanted = "wanted: a time like 2026-11-24T04:05:39Z, or a date";
    parse_bound(text).ok_or_else(|| wanted.to_owned())
}

async fn open(args: &ConfigArgs) -> Result<(LoadedConfig, Arc<dyn Store>), Failure> {
    let loaded = args.load_for_tools()?;
    let store = open_existing(&loaded.config.store).await?;
    match store.prepare().await {
        Ok(()) => Ok((loaded, store)),
        Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout { .. })) => {
            Err(anyhow!("{error}\n{}", away(&loaded.config.journal)).into())
        }
        Err(error) => Err(anyhow!(error).context("cannot prepare the store").into()),
    }
}

/// What can be said about dead letters without the store.
fn away(journal: &JournalConfig) -> String {
    let dir = journal.dir.display();
    let waiting = match waiting_bytes(&journal.dir) {
        Ok(0) => format!("no pushes wait in the journal {dir}"),
        Ok(bytes) => format!(
            "{bytes} bytes of pushes wait in the journal {dir}; those that cannot be read become \
             dead letters when the store is back"
        ),
        Err(error) => format!("the journal {dir} cannot be looked at: {error}"),
    };
    format!("the store is away, and the dead letters are in it; {waiting}")
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let (_, store) = open(&args.config).await?;
    let filter = DeadLetterFilter {
        source: args.source.clone(),
        reason: args.reason,
        since: args.since,
        until: args.until,
    };
    let mut heads = store
        .list_dead_letters(&filter, None, args.limit + 1)
        .await
        .context("cannot list dead letters")?;
    let more = heads.len() > args.limit as usize;
    heads.truncate(args.limit as usize);
    if args.json {
        let text = pretty(&heads).context("list")?;
        output::print(format!("{text}\n").as_bytes())?;
    } else {
        output::print(table(&heads).as_bytes())?;
    }
    if more {
        tell(format_args!(
            "there are more than {}: see --limit",
            args.limit
        ));
    }
    Ok(())
}

async fn show(args: &ShowArgs) -> Result<(), Failure> {
    let (_, store) = open(&args.config).await?;
    let found = store
        .dead_letter(&args.id)
        .await
        .context("cannot read a dead letter")?;
    let Some(stored) = found else {
        return Err(anyhow!("no dead letter has the id {}", visible(&args.id)).into());
    };
    if args.raw {
        output::print(&stored.letter.raw)?;
    } else if args.json {
        output::print(as_json(&stored)?.as_bytes())?;
    } else {
        output::print(portrait(&stored).as_bytes())?;
    }
    Ok(())
}

async fn retry(args: &IdsArgs) -> Result<(), Failure> {
    let (loaded, store) = open(&args.config).await?;
    let config: &Config = &loaded.config;
    let ids = without_repeats(&args.ids);
    check_known(&*store, &ids).await?;
    let mut retrier = Retrier::new(&*store, config)
        .await
        .context("nothing was tried")?;
    let mut staying = 0;
    for id in &ids {
        let Some(stored) = store
            .dead_letter(id)
            .await
            .context("cannot read a dead letter")?
        else {
            output::print(format!("{id}  gone meanwhile\n").as_bytes())?;
            continue;
        };
        let retried = retrier
            .retry(&stored)
            .await
            .with_context(|| format!("dead letter {id}"))?;
        if matches!(retried, Retried::Stays(_)) {
            staying += 1;
        }
        output::print(format!("{id}  {}\n", said(&retried)).as_bytes())?;
    }
    if staying > 0 {
        let of = ids.len();
        return Err(anyhow!("{staying} of {of} dead letters stay").into());
    }
    Ok(())
}

async fn drop_letters(args: &IdsArgs) -> Result<(), Failure> {
    let (_, store) = open(&args.config).await?;
    let ids = without_repeats(&args.ids);
    check_known(&*store, &ids)
        .await
        .context("nothing was dropped")?;
    let dropped = store
        .delete_dead_letters(&ids)
        .await
        .context("cannot delete dead letters")?;
    output::print(format!("dropped {dropped}\n").as_bytes())?;
    Ok(())
}

fn without_repeats(ids: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(ids.len());
    for id in ids {
        if !kept.contains(id) {
            kept.push(id.clone());
        }
    }
    kept
}

/// Either all of them are there, or nothing is done to any.
async fn check_known(store: &dyn Store, ids: &[String]) -> Result<(), anyhow::Error> {
    let mut unknown = Vec::new();
    for id in ids {
        let found = store
            .dead_letter(id)
            .await
            .context("cannot read a dead letter")?;
        if found.is_none() {
            unknown.push(visible(id));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    bail!("no dead letter has the id {}", unknown.join(", "))
}

fn said(retried: &Retried) -> String {
    let Retried::Entered {
        written,
        duplicate,
        dead,
    } = retried
    else {
        return match retried {
            Retried::Stays(why) => format!("stays: {}", visible(why)),
            _ => "left out on purpose: it is nothing that is entered".to_owned(),
        };
    };
    let mut parts = Vec::new();
    for (count, what) in [
        (written, "entered"),
        (duplicate, "there already"),
        (dead, "unreadable, now dead letters of their own"),
    ] {
        if *count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

fn table(heads: &[DeadLetterHead]) -> String {
    const TITLES: [&str; 8] = [
        "ID", "LAST MET", "SOURCE", "REASON", "ATTEMPTS", "BYTES", "POSITION", "DETAIL",
    ];
    /// Numbers stand to the right.
    const NUMBERS: [usize; 2] = [4, 5];
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(heads.iter().map(|head| {
        [
            head.id.clone(),
            head.last_at.to_string(),
            visible(&head.source),
            head.reason.as_str().to_owned(),
            head.attempts.to_string(),
            head.raw_length.to_string(),
            visible(&head.position),
            visible(&head.detail),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..TITLES.len()).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, width))| {
                if NUMBERS.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn portrait(stored: &StoredDeadLetter) -> String {
    let letter = &stored.letter;
    let kept = if is_head_only(letter) {
        format!(
            "{} (only the first {} were kept)",
            letter.raw_length,
            letter.raw.len()
        )
    } else if letter.raw.len() as u64 == letter.raw_length {
        letter.raw_length.to_string()
    } else {
        format!(
            "{} ({} as kept, secrets masked)",
            letter.raw_length,
            letter.raw.len()
        )
    };
    let mut text = String::new();
    for (label, value) in [
        ("id", stored.id.clone()),
        ("source", visible(letter.source.as_str())),
        ("position", visible(&letter.position)),
        ("reason", letter.reason.as_str().to_owned()),
        ("detail", visible(&letter.detail)),
        ("attempts", stored.attempts.to_string()),
        ("first met", letter.at.to_string()),
        ("last met", stored.last_at.to_string()),
        ("bytes", kept),
    ] {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{label:<10} {value}");
    }
    text.push('\n');
    text.push_str(&visible_bytes(&letter.raw));
    text.push('\n');
    text
}

fn as_json(stored: &StoredDeadLetter) -> Result<String, anyhow::Error> {
    let letter = &stored.letter;
    let shown = json!({
        "id": stored.id,
        "source": letter.source.as_str(),
        "position": letter.position,
        "reason": letter.reason,
        "detail": letter.detail,
        "rawLength": letter.raw_length,
        "attempts": stored.attempts,
        "firstAt": letter.at,
        "lastAt": stored.last_at,
        "headOnly": is_head_only(letter),
        "raw": std::str::from_utf8(&letter.raw).ok(),
        "rawBase64": BASE64.encode(&letter.raw),
    });
    let text = pretty(&shown).context("a dead letter as JSON")?;
    Ok(text + "\n")
}

/// [`visible`] for bytes: what is no UTF-8 stands as `\xff`.
fn visible_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            let _infallible = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn nothing_shown_acts_on_a_terminal() {
        assert_eq!(
            visible("a\u{1b}[2J\n\u{202e}é\u{0}\u{9b}"),
            "a\\u{1b}[2J\\n\\u{202e}é\\u{0}\\u{9b}"
        );
        assert_eq!(
            visible("ad\u{34f}min\u{3164} ❤\u{fe0f}"),
            "ad\\u{34f}min\\u{3164} ❤\u{fe0f}"
        );
        assert_eq!(
            visible_bytes(b"{\"a\":\"\xff\x00\xc3\xa9\xe2\x82"),
            "{\"a\":\"\\xff\\u{0}é\\xe2\\x82"
        );
    }

    #[test]
    fn a_list_is_aligned_whatever_is_in_it() {
        let at = "2026-11-24T04:05:39Z".parse().unwrap();
        let head = |id: &str, source: &str, attempts| DeadLetterHead {
            id: id.to_owned(),
            source: source.to_owned(),
            position: "7:100".to_owned(),
            reason: DeadLetterReason::Malformed,
            detail: "cut\u{7}".to_owned(),
            raw_length: 12,
            attempts,
            first_at: at,
            last_at: at,
        };
        let text = table(&[head("1", "ocis", 1), head("22", "ö\ncis", 10)]);
        assert_eq!(
            text,
            "ID  LAST MET              SOURCE  REASON     ATTEMPTS  BYTES  POSITION  DETAIL\n\
             1   2026-11-24T04:05:39Z  ocis    malformed         1     12  7:100     cut\\u{7}\n\
             22  2026-11-24T04:05:39Z  ö\\ncis  malformed        10     12  7:100     cut\\u{7}\n"
        );
    }

    #[test]
    fn times_are_moments_or_days() {
        assert_eq!(
            parse_time("2026-11-24").unwrap().to_string(),
            "2026-11-24T00:00:00Z"
        );
        assert!(parse_time("2026-11-24T04:05:39+01:00").is_ok());
        assert_eq!(parse_time("9999-12-31"), Ok(Timestamp::MAX));
        assert!(parse_time("yesterday").is_err());
        assert_eq!(parse_reason("poison"), Ok(DeadLetterReason::Poison));
        assert!(parse_reason("odd").unwrap_err().contains("invalid_utf8"));
    }
}
