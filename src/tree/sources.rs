//! The sources that run, each with what reaches it; the same at start and at a reload.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use daybook_actors::budget::Budget;
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::ChildSpec;

use crate::config::{Config, Secret, SourceConfig};
use crate::http::router::{Edge, PushSource};
use crate::journal::Journal;
use crate::sources::drainer::Couriers;
use crate::status::{Board, SourceStatus};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::tenants::ResolverMessage;

use super::wiring::Wiring;
use super::{StartError, TreeOptions};

/// The children of a plane, which may change while it runs; a plane that is restarted begins with
/// those that there are then.
#[derive(Clone, Default)]
pub(super) struct Specs(Arc<Mutex<Vec<ChildSpec>>>);

impl Specs {
    pub(super) fn new(specs: Vec<ChildSpec>) -> Self {
        Self(Arc::new(Mutex::new(specs)))
    }

    pub(super) fn get(&self) -> Vec<ChildSpec> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, specs: Vec<ChildSpec>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = specs;
    }
}

/// What every source is wired to.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Metrics,
    pub(super) budget: Budget,
    pub(super) resolver: Slot<ResolverMessage>,
    pub(super) options: TreeOptions,
    pub(super) journal: Option<Journal>,
    pub(super) journal_reserve: Budget,
    /// The ways downstream of sources that push, for the journal's drainer; those of sources that
    /// are gone stay, for what the journal still holds of them.
    pub(super) couriers: Couriers,
}

/// A source that runs, or will.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) config: SourceConfig,
    /// Its keys or token, as they are used.
    pub(super) secrets: Vec<Secret>,
    pub(super) spec: ChildSpec,
    pub(super) status: Arc<SourceStatus>,
    /// How the edge reaches it, if its events are pushed.
    pub(super) push: Option<PushSource>,
}

impl Parts {
    fn wiring<'a>(&'a self, config: &'a Config, board: &'a Board) -> Wiring<'a> {
        Wiring {
            journal: self.journal.clone(),
            journal_reserve: self.journal_reserve.clone(),
            pushing: self.couriers.clone(),
            config,
            store: &self.store,
            metrics: &self.metrics,
            budget: &self.budget,
            board,
            resolver: &self.resolver,
            options: &self.options,
            children: Vec::new(),
            webhooks: HashMap::new(),
            recorders: Vec::new(),
            acceptors: Vec::new(),
        }
    }

    /// Builds a source's actor; nothing starts yet.
    pub(super) fn wire(
        &self,
        config: &Config,
        source: &SourceConfig,
    ) -> Result<Running, StartError> {
        let board = Board::default();
        let mut wiring = self.wiring(config, &board);
        wiring.add(source)?;
        let mut secrets = secrets_of(source)?;
        let mut push = wiring.recorders.pop();
        if let Some((source, keys)) = wiring.webhooks.into_values().next() {
            push = Some(source);
            secrets = keys;
        }
        let (Some(spec), Some(status)) = (wiring.children.pop(), board.sources().pop()) else {
            return Err(StartError::Source {
                name: source.name().to_owned(),
                message: "it has no actor".to_owned(),
            });
        };
        Ok(Running {
            config: source.clone(),
            secrets,
            spec,
            status,
            push,
        })
    }

    /// The actor that empties the journal, if there is one.
    pub(super) fn wire_drainer(&self, config: &Config) -> Option<(ChildSpec, Arc<SourceStatus>)> {
        let board = Board::default();
        let mut wiring = self.wiring(config, &board);
        wiring.add_drainer();
        wiring.children.pop().zip(board.sources().pop())
    }
}

/// A source's secrets, read now.
pub(super) fn secrets_of(source: &SourceConfig) -> Result<Vec<Secret>, StartError> {
    let read = match source {
        SourceConfig::Authentik(config) => config.load_token().map(|token| vec![token]),
        SourceConfig::Stalwart(config) => config.load_keys(),
        SourceConfig::Ocis(_) | SourceConfig::Recorder(_) => Ok(Vec::new()),
    };
    read.map_err(|problem| StartError::Source {
        name: source.name().to_owned(),
        message: problem.to_string(),
    })
}

/// The same edge with these sources behind it.
pub(super) fn edge_of(edge: &Edge, running: &[Running]) -> Edge {
    let mut edge = edge.clone();
    edge.webhooks.clear();
    edge.recorders.clear();
    edge.readiness.acceptors.clear();
    for source in running {
        let Some(push) = &source.push else { continue };
        let acceptor = (push.name.to_string(), push.acceptor.clone());
        edge.readiness.acceptors.push(acceptor);
        match &source.config {
            SourceConfig::Stalwart(config) => {
                let reached = (push.clone(), source.secrets.clone());
                edge.webhooks.insert(config.route.clone(), reached);
            }
            _ => edge.recorders.push(push.clone()),
        }
    }
    edge
}
