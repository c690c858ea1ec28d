//! `daybook replay`: reads a source again and enters what is missing.

use std::io::IsTerminal as _;

use anyhow::{Context, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::event::{Outcome, Target};
use crate::own_events::{self, Deed};
use crate::replay::{self, Replayed};
use crate::store;

use super::filters::parse_when;
use super::output::say;
use super::{ConfigArgs, Failure, system_user};

/// Reads a source again and enters what is missing.
#[derive(Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Which source.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// From when on, by the events' own time: a time, a date (UTC), or how long ago, like 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
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
    let store = store::open(&config.store)
        .await
        .context("cannot open the store")?;
    store.prepare().await.context("cannot prepare the store")?;
    let shown = std::io::stderr().is_terminal();
    let mut last = Replayed::default();
    let mut progress = |replayed: &Replayed| {
        last = *replayed;
        if shown {
            eprint!("\r\u{1b}[K{}", told(replayed));
        }
    };
    let ended = replay::replay(&store, config, source, args.since, &mut progress).await;
    if shown {
        eprint!("\r\u{1b}[K");
    }
    let (outcome, replayed) = match &ended {
        Ok(replayed) => (Outcome::Success, *replayed),
        Err(_) => (Outcome::Failure, last),
    };
    if replayed.read > 0 || ended.is_ok() {
        let mut deed = Deed::new("daybook.source_replayed", outcome);
        deed.who = system_user();
        deed.target = Target {
            kind: Some("source".into()),
            id: None,
            name: Some(args.source.clone().into()),
        };
        deed.metadata.insert("since".to_owned(), json!(args.since));
        deed.metadata.insert("counts".to_owned(), json!(replayed));
        own_events::enter(&*store, deed)
            .await
            .context("the timeline does not say that this was replayed")?;
    }
    let replayed = ended.map_err(anyhow::Error::new)?;
    if args.json {
        say!("{}", json!(replayed));
    } else {
        say!("{}", told(&replayed));
    }
    Ok(())
}

fn told(replayed: &Replayed) -> String {
    format!(
        "read {}, new {}, known {}, left out {}, unreadable {}",
        replayed.read, replayed.new, replayed.known, replayed.left_out, replayed.unreadable
    )
}
