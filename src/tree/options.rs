//! How the tree reacts to faults.

use std::sync::Arc;
use std::time::Duration;

use daybook_actors::policy::{Backoff, Intensity};
use daybook_actors::supervisor::{ChildSpec, Observer, SupervisorArgs};

use crate::config::Config;
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
    /// What fits a configuration: whoever waits for the store within the time that the configuration
    /// gives it is not stalled. (Longer waits are declared.)
    pub fn of(config: &Config) -> Self {
        Self {
            backoff: Backoff::default(),
            intensity: Intensity::default(),
            planes_intensity: PLANES_GIVE_UP,
            stall_after: STALL_AFTER.max(config.store.timeout * 3),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::SUSPENDED_PROBE;

    #[test]
    fn the_tree_is_as_patient_as_the_architecture_says() {
        let mut config = Config::default();
        let options = TreeOptions::of(&config);
        let seconds = Duration::from_secs;
        assert_eq!(options.backoff.base, Duration::from_millis(200));
        assert_eq!(options.backoff.cap, seconds(30));
        let (one, plane) = (options.intensity, options.planes_intensity);
        assert_eq!((one.max_restarts, one.within), (10, seconds(60)));
        assert_eq!((plane.max_restarts, plane.within), (3, seconds(600)));
        assert_eq!(SUSPENDED_PROBE, seconds(5 * 60));
        assert_eq!(options.stall_after, seconds(60));
        config.store.timeout = seconds(40);
        assert_eq!(TreeOptions::of(&config).stall_after, seconds(3 * 40));
        // The acceptor adds a quarter.
        assert_eq!(options.push_patience * 5 / 4, seconds(25));
    }
}
