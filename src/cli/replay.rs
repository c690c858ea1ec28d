//! `daybook replay`: reads a source again and enters what is missing.

use std::io::IsTerminal as _;

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::config::SourceConfig;
use crate::event::{Outcome, Target};
use crate::own_events::{self, Deed};
use crate::replay::{self, ReplayError, Replayed};
use crate::store::Store;

use super::filters::parse_when;
use super::output::{draw, is_dumb_terminal, say};
use super::stop::Stop;
use super::{ConfigArgs, Failure, open_or_make, system_user};

/// Reads a source again and enters what is missing.
#[derive(Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Which source.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// From when on, by the events' own time: a time, a date (UTC), or how long ago, like 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Timestamp,
    /// The counts as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    crate::install_crypto_provider();
    let loaded = args.config.load_for_tools()?;
    let config = &loaded.config;
    let found = config
        .sources
        .iter()
        .find(|source| source.name() == args.source);
    let Some(source) = found else {
        let names: Vec<_> = config.sources.iter().map(|source| source.name()).collect();
        let names = names.join(", ");
        return Err(anyhow!("no source is named {:?}; there are: {names}", args.source).into());
    };
    if matches!(
        source,
        SourceConfig::Stalwart(_) | SourceConfig::Recorder(_)
    ) {
        // Before a store is made in vain.
        return Err(anyhow::Error::new(ReplayError::Pushed(source.kind())).into());
    }
    let store = open_or_make(&config.store, "what is entered").await?;
    store.prepare().await.context("cannot prepare the store")?;
    let mut stop = Stop::listen_to_hangup_too()?;
    let shown = std::io::stderr().is_terminal() && !is_dumb_terminal();
    let mut last = Replayed::default();
    let mut progress = |replayed: &Replayed| {
        last = *replayed;
        if shown {
            draw(&told(replayed));
        }
    };
    let ended = tokio::select! {
        ended = replay::replay(&store, config, source, args.since, &mut progress) => {
            ended.map_err(anyhow::Error::new)
        }
        () = stop.asked() => {
            Err(anyhow!("interrupted; what was entered stays, and is known the next time"))
        }
    };
    if shown {
        draw("");
    }
    let (outcome, replayed) = match &ended {
        Ok(replayed) => (Outcome::Success, *replayed),
        Err(_) => (Outcome::Failure, last),
    };
    let noted = if replayed.read > 0 || ended.is_ok() {
        note(&*store, args, outcome, &replayed).await
    } else {
        Ok(())
    };
    match (ended, noted) {
        (Err(error), Err(unnoted)) => return Err(anyhow!("{error:#}\n{unnoted:#}").into()),
        (Err(error), Ok(())) | (Ok(_), Err(error)) => return Err(error.into()),
        (Ok(_), Ok(())) => {}
    }
    if args.json {
        say!("{}", json!(replayed))?;
    } else {
        say!("{}", told(&replayed))?;
    }
    Ok(())
}

/// Says on the timeline who replayed what.
async fn note(
    store: &dyn Store,
    args: &ReplayArgs,
    outcome: Outcome,
    replayed: &Replayed,
) -> Result<(), anyhow::Error> {
    let mut deed = Deed::new("daybook.source_replayed", outcome);
    deed.who = system_user();
    deed.target = Target {
        kind: Some("source".into()),
        id: None,
        name: Some(args.source.clone().into()),
    };
    deed.metadata.insert("since".to_owned(), json!(args.since));
    deed.metadata.insert("counts".to_owned(), json!(replayed));
    own_events::enter(store, deed)
        .await
        .context("the timeline does not say that this was replayed")
}

fn parse_past(text: &str) -> Result<Timestamp, String> {
    let since = parse_when(text)?;
    if since > Timestamp::now() {
        return Err("wanted: a time that has passed".to_owned());
    }
    Ok(since)
}

fn told(replayed: &Replayed) -> String {
    format!(
        "read {}, new {}, known {}, left out {}, unreadable {}",
        replayed.read, replayed.new, replayed.known, replayed.left_out, replayed.unreadable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_yet_to_come_is_not_read_again() {
        assert!(parse_past("7d").is_ok());
        for (wrong, said) in [("9999-12-31", "has passed"), ("yesterday", "7d")] {
            let refused = parse_past(wrong).expect_err(wrong);
            assert!(refused.contains(said), "{wrong}: {refused}");
        }
    }
}
