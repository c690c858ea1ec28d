//! `daybook run`: configuration, start, signals, drain.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::{ConfigError, LoadedConfig};
use crate::event::Outcome;
use crate::http::tls;
use crate::journal::waiting_bytes;
use crate::own_events::{self, Deed};
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::tree::{Daybook, End, Reloaded};

use super::stop::Stop;
use super::{ConfigArgs, Failure, descriptors};

/// So many reloads wait for a store that is away.
const MOST_UNTOLD: usize = 32;
/// How long the end of the service waits for them.
const TELLING: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &ConfigArgs) -> Result<(), Failure> {
    // Before anything can be asked of the service: until then a signal kills it, or, where it is
    // process 1, is lost.
    let mut stop = Stop::listen()?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let (loaded, warning) = tokio::select! {
        biased;
        loaded = load(args) => loaded?,
        () = stop.asked() => return Ok(()),
    };
    let mut config = loaded.config;
    // A reload without the file that this came from would be one to the defaults.
    let args = ConfigArgs {
        config: loaded.file,
    };
    log::init(&config.telemetry).context("telemetry.log")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = %config.store.url,
        sources = config.sources.len(),
        "daybook starts"
    );
    if !config.ingest.enabled {
        tracing::warn!(
            "ingest is switched off (ingest.enabled): no source is read, pushes are answered 404, and what is in the journal stays there"
        );
    } else if config.sources.is_empty() {
        tracing::warn!("no source is configured: nothing will be entered");
    }
    warn_of_certificate(warning);
    descriptors::fit_at_start(&mut config.http);
    let started = tokio::select! {
        biased;
        started = Daybook::start(&config) => started,
        () = stop.asked() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    // It tells its cause itself.
    let daybook = started.map_err(|error| anyhow!("daybook did not start: {error}"))?;
    tracing::info!(address = %daybook.address(), "listening");
    if !config.ingest.enabled {
        let (journal, metrics) = (config.journal.dir, daybook.metrics().clone());
        // Nobody waits for a disk that hangs.
        tokio::task::spawn_blocking(move || show_what_waits(&journal, &metrics));
    }
    serve(daybook, stop, Some((hangup, &args))).await
}

/// Runs until it is asked to stop or until the tree gives up. With `reloads`, that signal takes
/// over what has changed in the configuration.
pub(super) async fn serve(
    mut daybook: Daybook,
    mut stop: Stop,
    mut reloads: Option<(Signal, &ConfigArgs)>,
) -> Result<(), Failure> {
    let mut untold = JoinSet::new();
    let end = loop {
        let changed = async {
            match &mut reloads {
                Some((hangup, args)) => {
                    hangup.recv().await;
                    load(args).await
                }
                None => std::future::pending().await,
            }
        };
        let loaded = tokio::select! {
            () = stop.asked() => break None,
            end = daybook.ended() => break Some(end),
            loaded = changed => loaded,
        };
        tokio::select! {
            () = reload(&mut daybook, loaded, &mut untold) => {}
            // What is half taken over is drained with the rest.
            () = stop.asked() => break None,
        }
    };
    let end = match end {
        Some(end) => end,
        None => {
            tracing::info!("draining");
            let told = async { while untold.join_next().await.is_some() {} };
            let told = tokio::time::timeout(TELLING, told);
            tokio::select! {
                (end, _) = async { tokio::join!(daybook.shutdown(), told) } => end,
                // A second signal means now.
                () = stop.asked() => End::Cut,
            }
        }
    };
    while untold.try_join_next().is_some() {}
    if !untold.is_empty() {
        tracing::warn!(
            reloads = untold.len(),
            "stopped before these reloads were on the timeline"
        );
    }
    match end {
        End::Drained => {
            tracing::info!("drained");
            Ok(())
        }
        End::Cut => Err(Failure::Cut),
        End::GaveUp(why) => Err(Failure::GaveUp(why)),
    }
}

/// A configuration, and what its certificate is to be warned of.
type Loaded = (LoadedConfig, Option<String>);

/// Reads what the arguments name. A file that hangs must not keep a signal from being heard.
async fn load(args: &ConfigArgs) -> Result<Loaded, ConfigError> {
    let args = args.clone();
    let read = move || -> Result<Loaded, ConfigError> {
        let loaded = args.load()?;
        let warning = loaded.config.http.tls.as_ref().and_then(tls::warning);
        Ok((loaded, warning))
    };
    let read = tokio::task::spawn_blocking(read).await;
    // Nobody cancels it: without a result it has panicked.
    read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Takes over what has changed, or says why nothing was; the timeline says so too, later where the
/// store is away.
async fn reload(
    daybook: &mut Daybook,
    loaded: Result<Loaded, ConfigError>,
    untold: &mut JoinSet<()>,
) {
    let loaded = match loaded {
        Ok((LoadedConfig { mut config, .. }, warning)) => {
            let _told_at_start = descriptors::fit(&mut config.http);
            let done = daybook.reload(&config).await;
            if done.is_ok() {
                warn_of_certificate(warning);
            }
            done.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let (outcome, deed) = match &loaded {
        Ok(done) => {
            tracing::info!(
                added = ?done.added,
                removed = ?done.removed,
                changed = ?done.changed,
                certificate = done.certificate,
                "configuration is reloaded"
            );
            if !done.not_applied.is_empty() {
                let keys = done.not_applied.join(", ");
                tracing::warn!(keys, "these changes need a restart and are not applied");
            }
            (Outcome::Success, reloaded(done))
        }
        Err(error) => {
            tracing::error!(
                error,
                "configuration is not reloaded; the former one stays in use"
            );
            (Outcome::Failure, Deed::new(RELOADED, Outcome::Failure))
        }
    };
    let metrics = daybook.metrics();
    metrics.config_reloads(outcome.as_str()).increment(1);
    if loaded.is_ok() {
        metrics.last_reload.set(Timestamp::now().as_second() as f64);
    }
    while untold.try_join_next().is_some() {}
    if untold.len() < MOST_UNTOLD {
        let (store, event) = (Arc::clone(daybook.store()), deed.into_event());
        untold.spawn(async move {
            own_events::enter_at_last(&*store, &event, "the reload").await;
        });
    } else {
        tracing::warn!("the reload is not on the timeline: too many wait for the store");
    }
}

/// Of a journal that nobody opens: its gauge would say that nothing is in it.
fn show_what_waits(journal: &Path, metrics: &Metrics) {
    match waiting_bytes(journal) {
        Ok(bytes) => metrics.journal_bytes.set(bytes as f64),
        Err(error) => {
            let journal = journal.display();
            tracing::warn!(%journal, %error, "cannot look for what is in the journal");
        }
    }
}

/// It is shown all the same: clients decide.
fn warn_of_certificate(warning: Option<String>) {
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
}

const RELOADED: &str = "daybook.configuration_reloaded";

/// Which sources changed, and whether the certificate did; never a key's value.
fn reloaded(done: &Reloaded) -> Deed {
    let mut deed = Deed::new(RELOADED, Outcome::Success);
    for (key, names) in [
        ("added", json!(done.added)),
        ("removed", json!(done.removed)),
        ("changed", json!(done.changed)),
        ("certificate", json!(done.certificate)),
        ("notApplied", json!(done.not_applied)),
    ] {
        deed.metadata.insert(key.to_owned(), names);
    }
    deed
}
