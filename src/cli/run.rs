//! `daybook run`: configuration, start, signal, drain.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::telemetry::log;
use crate::tree::{Daybook, End};

use super::{ConfigArgs, Failure};

pub(super) async fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    let config = &loaded.config;
    log::init(&config.telemetry).context("telemetry.log")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = %config.store.url,
        sources = config.sources.len(),
        "daybook starts"
    );
    if config.ingest.enabled && config.sources.is_empty() {
        tracing::warn!("no source is configured: nothing will be entered");
    }
    let daybook = Daybook::start(config)
        .await
        .context("daybook did not start")?;
    tracing::info!(address = %daybook.address(), "listening");
    serve(daybook).await
}

/// Runs until a signal or until the tree gives up.
pub(super) async fn serve(mut daybook: Daybook) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let end = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        end = daybook.ended() => Some(end),
    };
    let end = match end {
        Some(end) => end,
        None => {
            tracing::info!("draining");
            tokio::select! {
                end = daybook.shutdown() => end,
                // A second signal means now.
                _ = terminate.recv() => End::Cut,
                _ = interrupt.recv() => End::Cut,
            }
        }
    };
    match end {
        End::Drained => {
            tracing::info!("drained");
            Ok(())
        }
        End::Cut => Err(Failure::Cut),
        End::GaveUp(why) => Err(Failure::GaveUp(why)),
    }
}
