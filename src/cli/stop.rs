//! The signals that end a command.

use anyhow::Context;
use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears signals from when it is made.
pub(super) struct Stop {
    signals: Vec<Signal>,
}

impl Stop {
    /// SIGINT and SIGTERM.
    pub(super) fn listen() -> Result<Self, anyhow::Error> {
        Self::to(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// SIGHUP as well, unless `nohup` has it ignored.
    pub(super) fn listen_to_hangup_too() -> Result<Self, anyhow::Error> {
        let mut stop = Self::listen()?;
        if !is_ignored(SignalKind::hangup()) {
            stop.signals
                .extend(Self::to(&[SignalKind::hangup()])?.signals);
        }
        Ok(stop)
    }

    fn to(kinds: &[SignalKind]) -> Result<Self, anyhow::Error> {
        let signals = kinds.iter().map(|kind| signal(*kind));
        let signals = signals.collect::<Result<_, _>>();
        let signals = signals.context("cannot listen for signals")?;
        Ok(Self { signals })
    }

    /// Waits for one. Cancel-safe.
    pub(super) async fn asked(&mut self) {
        select_all(
            self.signals
                .iter_mut()
                .map(|signal| Box::pin(signal.recv())),
        )
        .await;
    }
}

/// Whether this process was started with the signal ignored.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}
