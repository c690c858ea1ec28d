//! How the tree reacts to faults.

use std::sync::Arc;
use std::time::Duration;

use daybook_actors::policy::{Backoff, Intensity};
use daybook_actors::supervisor::{ChildSpec, Observer, SupervisorArgs};

use crate::config::{Config, SourceConfig};
use crate::probe::Probes;
use crate::sources::push;

/// A plane gives up only after most of a minute of restarts, so it cannot do so more often than this.
const PLANES_GIVE_UP: Intensity = Intensity {
    max_restarts: 3,
    within: Duration::from_secs(600),
};
const STALL_AFTER: Duration = Duration::from_secs(60);

/// How the tree reacts to faults. The configuration does not offer these: see
/// [`TreeOptions::of`]; tests do.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// The wait before an actor is restarted.
    pub backoff: Backoff,
    /// How many crashes of one actor are too many.
    pub intensity: Intensity,
    /// How many crashes of one plane are too many.
    pub planes_intensity: Intensity,
    /// An actor that shows no progress for so long is killed.
    pub stall_after: Duration,
    /// How long a push may take in all.
    pub push_patience: Duration,
    /// Where tests strike.
    pub probes: Probes,
}

impl TreeOptions {
    /// What fits a configuration: whoever waits for the store, or for Authentik, within the time
    /// that the configuration gives them is not stalled.
    pub fn of(config: &Config) -> Self {
        let upstream = config.sources.iter().filter_map(|source| match source {
            SourceConfig::Authentik(authentik) => Some(authentik.timeout),
            _ => None,
        });
        let longest = upstream.fold(config.store.timeout, Duration::max);
        Self {
            backoff: Backoff::default(),
            intensity: Intensity::default(),
            planes_intensity: PLANES_GIVE_UP,
            stall_after: STALL_AFTER.max(longest * 3),
            push_patience: push::PATIENCE,
            probes: Probes::default(),
        }
    }

    /// Longer than it takes to find and kill an actor that hangs: its end, not a timeout, is what
    /// tells a source who was at fault.
    pub(super) fn ack_timeout(&self) -> Duration {
        self.stall_after * 3 / 2
    }

    pub(super) fn supervisor(
        &self,
        name: &str,
        children: Vec<ChildSpec>,
        observer: &Arc<dyn Observer>,
    ) -> SupervisorArgs {
        SupervisorArgs {
            backoff: self.backoff,
            intensity: self.intensity,
            stall_after: self.stall_after,
            observer: Arc::clone(observer),
            ..SupervisorArgs::new(name, children)
        }
    }
}
