//! Builds the actor of each configured source, and what the edge needs to reach it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use daybook_actors::budget::Budget;
use daybook_actors::liveness::Progress;
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{ChildSpec, OnGiveUp};
use tokio::sync::Semaphore;

use crate::config::{Config, Secret, SourceConfig};
use crate::event::SourceName;
use crate::http::router::PushSource;
use crate::journal::{Journal, JournalOptions, OpenError};
use crate::probe::Probe;
use crate::sources::authentik::actor::{Poller, PollerArgs};
use crate::sources::authentik::client::Client;
use crate::sources::courier::Courier;
use crate::sources::drainer::{self, Couriers, Drainer, DrainerArgs};
use crate::sources::ocis::actor::{LogTailer, TailerArgs};
use crate::sources::push::{Acceptor, AcceptorArgs};
use crate::status::{Board, SourceStatus};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

use super::{SUSPENDED_PROBE, StartError, TreeOptions};

const SOURCE_DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// One source may hold this part of the bytes in flight, so that another always finds room.
const FAIR_SHARE: f64 = 0.5;
/// Room for bodies on their way to the journal when too much is in flight: this part of the
/// bytes in flight on top of them, and no more than so much. An append holds it for one sync.
const JOURNAL_RESERVE_PART: u64 = 4;
const JOURNAL_RESERVE_MOST: u64 = 16 << 20;

/// The journal, for pushing sources and for what a former run has left in it.
pub(super) async fn open_journal(config: &Config) -> Result<Option<Journal>, OpenError> {
    let (dir, max_bytes) = (config.journal.dir.clone(), config.journal.max_size.bytes());
    let pushing = config.sources.iter().any(|source| {
        matches!(
            source,
            SourceConfig::Stalwart(_) | SourceConfig::Recorder(_)
        )
    });
    let wanted = (pushing && max_bytes > 0) || dir.is_dir();
    if !config.ingest.enabled || !wanted {
        return Ok(None);
    }
    let options = JournalOptions::new(dir.clone(), max_bytes);
    let opened = tokio::task::spawn_blocking(move || Journal::open(options)).await;
    opened
        .map_err(|error| OpenError::Io {
            dir,
            error: std::io::Error::other(error),
        })?
        .map(Some)
}

/// The reserve that goes with so much in flight.
pub(super) fn journal_reserve(in_flight: &Budget) -> Budget {
    Budget::new((in_flight.limit() / JOURNAL_RESERVE_PART).min(JOURNAL_RESERVE_MOST))
}

/// Builds each source's actor and what the edge needs to reach it.
pub(super) struct Wiring<'a> {
    pub(super) config: &'a Config,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) metrics: &'a Metrics,
    pub(super) budget: &'a Budget,
    pub(super) journal: Option<Journal>,
    pub(super) journal_reserve: Budget,
    /// The ways downstream of sources that push, for the drainer.
    pub(super) pushing: Couriers,
    pub(super) board: &'a Board,
    pub(super) resolver: &'a Slot<crate::tenants::ResolverMessage>,
    pub(super) options: &'a TreeOptions,
    pub(super) children: Vec<ChildSpec>,
    pub(super) webhooks: HashMap<String, (PushSource, Vec<Secret>)>,
    pub(super) recorders: Vec<PushSource>,
    pub(super) acceptors: Vec<(String, Slot<crate::sources::push::AcceptorMessage>)>,
}

impl Wiring<'_> {
    /// A source's entry on the board and its way downstream.
    fn courier(&self, name: &SourceName, kind: &'static str) -> Courier {
        let status = Arc::new(SourceStatus::new(
            name.clone(),
            kind,
            self.metrics.source(name, kind),
        ));
        self.board.add(Arc::clone(&status));
        self.metrics.declare_actor(name.as_str());
        Courier {
            resolver: self.resolver.clone(),
            resolver_mailbox: self.metrics.actor_mailbox("resolver"),
            share: self.budget.share(name.as_str(), FAIR_SHARE),
            status,
            ack_timeout: self.options.ack_timeout(),
            waits_of: None,
        }
    }

    pub(super) fn add(&mut self, source: &SourceConfig) -> Result<(), StartError> {
        let name = SourceName::new(source.name());
        let courier = self.courier(&name, source.kind());
        let probe = self.options.probes.actor(name.as_str());
        let failed = |message: String| StartError::Source {
            name: name.to_string(),
            message,
        };
        let batch_events = self.config.writer.batch_events as usize;
        match source {
            SourceConfig::Authentik(config) => {
                let token = config
                    .load_token()
                    .map_err(|problem| failed(problem.to_string()))?;
                let client = Client::new(&config.url, &token, config.timeout, self.metrics.clone())
                    .map_err(failed)?;
                let progress = Progress::on_demand();
                let args = PollerArgs {
                    config: config.clone(),
                    client,
                    store: Arc::clone(self.store),
                    courier: Courier {
                        waits_of: Some(progress.clone()),
                        ..courier
                    },
                    probe,
                    metrics: self.metrics.clone(),
                    progress: progress.clone(),
                };
                self.child(&name, progress, &Slot::new(), move || {
                    (Poller, args.clone())
                });
            }
            SourceConfig::Ocis(config) => {
                let progress = Progress::on_demand();
                let args = TailerArgs {
                    config: config.clone(),
                    batch_events,
                    store: Arc::clone(self.store),
                    courier: Courier {
                        waits_of: Some(progress.clone()),
                        ..courier
                    },
                    reads: Arc::new(Semaphore::new(1)),
                    place: Arc::default(),
                    probe,
                    progress: progress.clone(),
                };
                self.child(&name, progress, &Slot::new(), move || {
                    (LogTailer, args.clone())
                });
            }
            SourceConfig::Stalwart(config) => {
                let keys = config
                    .load_keys()
                    .map_err(|problem| failed(problem.to_string()))?;
                let push = self.acceptor(&name, courier, probe);
                self.webhooks.insert(config.route.clone(), (push, keys));
            }
            SourceConfig::Recorder(_) => {
                let push = self.acceptor(&name, courier, probe);
                self.recorders.push(push);
            }
        }
        Ok(())
    }

    fn acceptor(&mut self, name: &SourceName, courier: Courier, probe: Probe) -> PushSource {
        let acceptor = Slot::new();
        let progress = Progress::on_demand();
        let share = courier.share.clone();
        self.pushing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), courier.clone());
        let args = AcceptorArgs {
            courier,
            store: Arc::clone(self.store),
            journal: self.journal_to_fill(),
            batch_events: self.config.writer.batch_events as usize,
            patience: self.options.push_patience,
            progress: progress.clone(),
            probe,
        };
        self.child(name, progress, &acceptor, move || (Acceptor, args.clone()));
        self.acceptors.push((name.to_string(), acceptor.clone()));
        PushSource {
            name: name.clone(),
            acceptor,
            share,
            journal_reserve: self.journal_to_fill().map(|_| self.journal_reserve.clone()),
        }
    }

    /// None that is only drained.
    fn journal_to_fill(&self) -> Option<Journal> {
        let is_on = self.config.journal.max_size.bytes() > 0;
        self.journal.clone().filter(|_| is_on)
    }

    pub(super) fn add_drainer(&mut self) {
        let Some(journal) = self.journal.clone() else {
            return;
        };
        let name = SourceName::new(drainer::NAME);
        let progress = Progress::on_demand();
        let args = DrainerArgs {
            journal,
            courier: self.courier(&name, drainer::NAME),
            couriers: self.pushing.clone(),
            metrics: self.metrics.clone(),
            batch_events: self.config.writer.batch_events as usize,
            reads: Arc::new(Semaphore::new(drainer::READS)),
            progress: progress.clone(),
            probe: self.options.probes.actor(name.as_str()),
        };
        self.child(&name, progress, &Slot::new(), move || {
            (Drainer, args.clone())
        });
    }

    fn child<A: ractor::Actor>(
        &mut self,
        name: &SourceName,
        progress: Progress,
        slot: &Slot<A::Msg>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) {
        self.metrics.watch_busy(name.as_str(), &progress);
        let give_up = OnGiveUp::Suspend {
            probe_every: SUSPENDED_PROBE,
        };
        self.children.push(
            ChildSpec::actor(name.as_str(), give_up, slot, make)
                .with_progress(progress)
                .with_drain_limit(SOURCE_DRAIN_LIMIT),
        );
    }
}
