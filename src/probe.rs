//! Named points at which a test can strike an actor.
//!
//! An actor says where it is (`probe.hit("before_insert").await?`); a test that holds the registry
//! says what happens there ([`Probes::strike`]). Registries are given to a Daybook at its start, so
//! tests beside each other do not meet, and a Daybook without one passes every point.
//!
//! In builds without debug assertions the points are compiled to nothing, unless the feature
//! `probes` is on: a [`Probe`] then has no size and a hit no code.

/// Whether this build has probe points.
pub const ENABLED: bool = cfg!(any(debug_assertions, feature = "probes"));

const _: () = assert!(ENABLED || size_of::<Probe>() == 0);

/// The error that a point returns when a test wants one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("struck at {0}")]
pub struct Struck(pub String);

#[cfg(any(debug_assertions, feature = "probes"))]
pub use armed::{Fault, Probe, Probes, Strike};
#[cfg(not(any(debug_assertions, feature = "probes")))]
pub use void::{Probe, Probes};

#[cfg(any(debug_assertions, feature = "probes"))]
mod armed {
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

    use tokio::sync::watch;

    use super::Struck;

    /// What happens at a point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// Nothing; the hit is only counted.
        Nothing,
        /// It panics.
        Panic,
        /// It returns [`Struck`].
        Error,
        /// It stands still until the strike is dropped: to be killed there, or to be found hanging.
        Stand,
    }

    #[derive(Debug)]
    struct Planned {
        actor: String,
        point: &'static str,
        fault: Fault,
        nth: u64,
        state: Mutex<State>,
        released: Condvar,
        changed: watch::Sender<()>,
    }

    #[derive(Debug, Default)]
    struct State {
        passes: u64,
        struck: bool,
        over: bool,
    }

    impl Planned {
        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Whether this pass is the one to strike.
        fn passes(&self, actor: &str, point: &str) -> bool {
            if self.actor != actor || self.point != point {
                return false;
            }
            let mut state = self.state();
            state.passes += 1;
            let strikes = state.passes == self.nth;
            state.struck |= strikes;
            drop(state);
            self.changed.send_replace(());
            strikes
        }

        fn name(&self) -> String {
            format!("{}.{}", self.actor, self.point)
        }
    }

    /// The strikes planned for one Daybook; clones are the same registry.
    #[derive(Clone, Debug, Default)]
    pub struct Probes {
        planned: Option<Arc<Mutex<Vec<Arc<Planned>>>>>,
    }

    impl Probes {
        /// A registry; the default is none.
        pub fn new() -> Self {
            Self {
                planned: Some(Arc::default()),
            }
        }

        /// The points of this actor.
        pub fn actor(&self, name: &str) -> Probe {
            Probe {
                probes: self.clone(),
                actor: name.into(),
            }
        }

        /// At the `nth` pass (from 1) of this point from now on the fault happens, once.
        pub fn strike(&self, actor: &str, point: &'static str, fault: Fault, nth: u64) -> Strike {
            let planned = Arc::new(Planned {
                actor: actor.to_owned(),
                point,
                fault,
                nth,
                state: Mutex::default(),
                released: Condvar::new(),
                changed: watch::Sender::new(()),
            });
            if let Some(all) = &self.planned {
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Arc::clone(&planned));
            }
            Strike {
                probes: self.clone(),
                planned,
            }
        }

        fn due(&self, actor: &str, point: &str) -> Option<Arc<Planned>> {
            let all = self.planned.as_ref()?;
            let all = all.lock().unwrap_or_else(PoisonError::into_inner).clone();
            all.into_iter().find(|one| one.passes(actor, point))
        }
    }

    /// The points of one actor.
    #[derive(Clone, Debug)]
    pub struct Probe {
        probes: Probes,
        actor: Arc<str>,
    }

    impl Default for Probe {
        fn default() -> Self {
            Probes::default().actor("")
        }
    }

    impl Probe {
        /// Passes a point.
        ///
        /// # Errors
        /// When a test wants one here.
        ///
        /// # Panics
        /// When a test wants it here.
        pub async fn hit(&self, point: &'static str) -> Result<(), Struck> {
            let Some(planned) = self.probes.due(&self.actor, point) else {
                return Ok(());
            };
            if planned.fault != Fault::Stand {
                return happen(&planned);
            }
            let mut changed = planned.changed.subscribe();
            // The plan owns the sender, so this ends only when it is over.
            let _over = changed.wait_for(|()| planned.state().over).await;
            Ok(())
        }

        /// Passes a point on a thread that may block.
        ///
        /// # Errors
        /// When a test wants one here.
        ///
        /// # Panics
        /// When a test wants it here.
        pub fn hit_blocking(&self, point: &'static str) -> Result<(), Struck> {
            let Some(planned) = self.probes.due(&self.actor, point) else {
                return Ok(());
            };
            if planned.fault != Fault::Stand {
                return happen(&planned);
            }
            let standing = planned.state();
            let _over = planned
                .released
                .wait_while(standing, |state| !state.over)
                .unwrap_or_else(PoisonError::into_inner);
            Ok(())
        }
    }

    fn happen(planned: &Planned) -> Result<(), Struck> {
        match planned.fault {
            Fault::Nothing | Fault::Stand => Ok(()),
            Fault::Error => Err(Struck(planned.name())),
            Fault::Panic => panic!("struck at {}", planned.name()),
        }
    }

    /// A planned strike; dropping it lets go whoever stands at the point, and withdraws the plan.
    #[derive(Debug)]
    pub struct Strike {
        probes: Probes,
        planned: Arc<Planned>,
    }

    impl Strike {
        /// Waits until it has struck. Cancel-safe.
        pub async fn struck(&self) {
            let mut changed = self.planned.changed.subscribe();
            let _struck = changed.wait_for(|()| self.planned.state().struck).await;
        }

        /// Whether it has struck.
        pub fn has_struck(&self) -> bool {
            self.planned.state().struck
        }

        /// How often the point was passed since the plan was made.
        pub fn passes(&self) -> u64 {
            self.planned.state().passes
        }
    }

    impl Drop for Strike {
        fn drop(&mut self) {
            if let Some(all) = &self.probes.planned {
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|one| !Arc::ptr_eq(one, &self.planned));
            }
            self.planned.state().over = true;
            self.planned.released.notify_all();
            self.planned.changed.send_replace(());
        }
    }
}

#[cfg(not(any(debug_assertions, feature = "probes")))]
mod void {
    use super::Struck;

    /// No registry.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Probes;

    impl Probes {
        /// Nothing.
        #[inline(always)]
        pub fn actor(&self, _name: &str) -> Probe {
            Probe
        }
    }

    /// No points.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Probe;

    impl Probe {
        /// Passes.
        ///
        /// # Errors
        /// Never.
        #[inline(always)]
        pub async fn hit(&self, _point: &'static str) -> Result<(), Struck> {
            Ok(())
        }

        /// Passes.
        ///
        /// # Errors
        /// Never.
        #[inline(always)]
        pub fn hit_blocking(&self, _point: &'static str) -> Result<(), Struck> {
            Ok(())
        }
    }
}

#[cfg(all(test, any(debug_assertions, feature = "probes")))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_point_strikes_at_its_nth_pass_and_only_there() {
        const { assert!(ENABLED) };
        let probes = Probes::new();
        let writer = probes.actor("writer");
        let strike = probes.strike("writer", "here", Fault::Error, 2);
        assert_eq!(probes.actor("resolver").hit("here").await, Ok(()));
        assert_eq!(writer.hit("there").await, Ok(()));
        assert_eq!(writer.hit("here").await, Ok(()));
        assert!(!strike.has_struck());
        let struck = writer.hit_blocking("here").unwrap_err();
        assert_eq!(struck.to_string(), "struck at writer.here");
        assert_eq!(writer.hit("here").await, Ok(()));
        assert_eq!((strike.has_struck(), strike.passes()), (true, 3));
        drop(strike);
        let panicking = probes.strike("writer", "here", Fault::Panic, 1);
        let panicked = tokio::spawn(async move { writer.hit("here").await }).await;
        assert!(panicked.unwrap_err().is_panic());
        panicking.struck().await;
    }

    #[tokio::test]
    async fn whoever_stands_at_a_point_goes_on_when_the_strike_is_over() {
        let probes = Probes::new();
        let (one, other) = (probes.actor("a"), probes.actor("b"));
        let strikes = [
            probes.strike("a", "here", Fault::Stand, 1),
            probes.strike("b", "here", Fault::Stand, 1),
        ];
        let stands = tokio::spawn(async move { one.hit("here").await });
        let blocks = tokio::task::spawn_blocking(move || other.hit_blocking("here"));
        for strike in &strikes {
            strike.struck().await;
        }
        assert!(!stands.is_finished() && !blocks.is_finished());
        drop(strikes);
        assert_eq!(stands.await.unwrap(), Ok(()));
        assert_eq!(blocks.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn without_a_registry_every_point_is_passed() {
        let probe = Probe::default();
        let strike = Probes::default().strike("", "here", Fault::Panic, 1);
        assert_eq!(probe.hit("here").await, Ok(()));
        assert_eq!(strike.passes(), 0);
    }
}
