//! Tells metrics and status what happens in the tree.

use std::time::Duration;

use daybook_actors::supervisor::{Exit, Observer};

use crate::probe::Probes;
use crate::status::{Board, SourceState};
use crate::telemetry::metrics::Metrics;

/// The observer of every supervisor.
pub(super) struct Witness {
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    pub(super) probes: Probes,
}

impl Witness {
    pub(super) fn is_suspended(&self, child: &str, suspended: bool) {
        let value = if suspended { 1.0 } else { 0.0 };
        self.metrics.actor_suspended(child).set(value);
        if let Some(source) = self.board.source(child) {
            source.set_suspended(suspended);
        }
    }
}

impl Observer for Witness {
    fn restarted(&self, child: &str, exit: &Exit, delay: Duration) {
        tracing::warn!(actor = child, %exit, ?delay, "actor restarts");
        self.metrics
            .actor_restarts(child, exit.reason())
            .increment(1);
        if let Some(source) = self.board.source(child) {
            source.restarted(&exit.to_string());
        }
        // Here a test strikes the supervisor; it has no error to return.
        let _passed = self.probes.actor(child).hit_blocking("in_backoff");
    }

    fn suspended(&self, child: &str, exit: &Exit) {
        tracing::error!(actor = child, %exit, "actor crashed too often and is suspended");
        self.metrics
            .actor_restarts(child, exit.reason())
            .increment(1);
        self.is_suspended(child, true);
        if let Some(source) = self.board.source(child) {
            source.set_state(SourceState::Suspended, Some(exit.to_string()));
        }
    }

    fn resumed(&self, child: &str) {
        tracing::info!(actor = child, "actor has recovered");
        self.is_suspended(child, false);
    }

    fn gave_up(&self, supervisor: &str, child: &str) {
        tracing::error!(supervisor, actor = child, "supervisor gave up");
    }
}
