//! Wires the supervision tree, and the order in which it ends.
//!
//! ```text
//! root ─┬─ store plane ─┬─ writer          too many crashes: the plane is restarted
//!       │               ├─ resolver
//!       │               └─ janitor         with retention only; suspended alone
//!       ├─ source plane ── one actor a source, the journal's drainer   too many crashes: that source is suspended
//!       └─ edge plane ──── http
//! ```
//! It ends in the reverse order: no new requests, then no new input, then the resolver passes on
//! what it has, then the writer enters it. Correctness does not rest on that order: what was not
//! acknowledged is read, or sent, again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daybook_actors::budget::Budget;
use daybook_actors::delivery;
use daybook_actors::liveness::Progress;
use daybook_actors::policy::{Backoff, Intensity};
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{
    ChildSpec, Exit, Observer, OnGiveUp, RootEnd, Supervisor, SupervisorArgs, SupervisorMessage,
    spawn_root,
};
use ractor::concurrency::JoinHandle;
use ractor::{ActorRef, RpcReplyPort};
use tokio::net::TcpListener;

use crate::config::{Config, Secret, SourceConfig};
use crate::event::SourceName;
use crate::http::auth::Authenticator;
use crate::http::health::Readiness;
use crate::http::refusals::Refusals;
use crate::http::router::{Edge, PushSource, router};
use crate::http::{HttpArgs, HttpServer, tls};
use crate::janitor::{self, Janitor, JanitorArgs};
use crate::journal::{Journal, JournalOptions, OpenError};
use crate::probe::{Probe, Probes};
use crate::sources::authentik::actor::{Poller, PollerArgs};
use crate::sources::authentik::client::Client;
use crate::sources::courier::Courier;
use crate::sources::drainer::{self, Drainer, DrainerArgs};
use crate::sources::ocis::actor::{LogTailer, TailerArgs};
use crate::sources::push::{self, Acceptor, AcceptorArgs};
use crate::status::{Board, SourceState, SourceStatus};
use crate::store::{self, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::tenants::{Resolver, ResolverArgs};
use crate::writer::{Writer, WriterArgs};

pub use daybook_actors::supervisor::ChildState;

/// A shutdown takes no longer than this.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(25);
const SUSPENDED_PROBE: Duration = Duration::from_secs(300);
const SOURCE_DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// One source may hold this part of the bytes in flight, so that another always finds room.
const FAIR_SHARE: f64 = 0.5;
/// A plane gives up only after most of a minute of restarts, so it cannot do so more often than this.
const PLANES_GIVE_UP: Intensity = Intensity {
    max_restarts: 3,
    within: Duration::from_secs(600),
};
/// Room for bodies on their way to the journal when too much is in flight: this part of the
/// bytes in flight on top of them, and no more than so much. An append holds it for one sync.
const JOURNAL_RESERVE_PART: u64 = 4;
const JOURNAL_RESERVE_MOST: u64 = 16 << 20;
const STALL_AFTER: Duration = Duration::from_secs(60);
const FELL_LIMIT: Duration = Duration::from_secs(5);
const UPKEEP: Duration = Duration::from_secs(5);

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
    fn ack_timeout(&self) -> Duration {
        self.stall_after * 3 / 2
    }

    fn supervisor(
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

/// Why a Daybook did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store's address is wrong, or its file cannot be opened.
    #[error("cannot open the store: {0}")]
    Store(#[from] StoreError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// `http.listen`.
        listen: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The journal is in use elsewhere, or its directory cannot be used.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// A secret cannot be read, or a client cannot be built.
    #[error("source {name}: {message}")]
    Source {
        /// Which.
        name: String,
        /// Why.
        message: String,
    },
    /// Certificate or key cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The tree's root did not come up.
    #[error("supervision tree did not start: {0}")]
    Tree(String),
}

/// A running Daybook.
pub struct Daybook {
    root: ActorRef<SupervisorMessage>,
    end: JoinHandle<RootEnd>,
    address: SocketAddr,
    board: Board,
    store: Arc<dyn Store>,
    journal: Option<Journal>,
    stopping: Arc<AtomicBool>,
    budget: Budget,
    metrics: Metrics,
    planes: Planes,
    upkeep: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Planes {
    store: Slot<SupervisorMessage>,
    sources: Slot<SupervisorMessage>,
    edge: Slot<SupervisorMessage>,
}

/// How a Daybook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to, and everything in flight was finished.
    Drained,
    /// It was told to, and did not finish in time.
    Cut,
    /// Its root gave up.
    GaveUp(String),
}

impl Daybook {
    /// Opens the store, binds the socket and starts every actor. The store may be away: then it
    /// is waited for, and `/readyz` says so.
    ///
    /// # Errors
    /// When something is wrong that waiting does not mend.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let store = store::open(&config.store).await?;
        Self::start_with(config, store).await
    }

    /// The same with a store of one's own.
    ///
    /// # Errors
    /// As [`Daybook::start`].
    pub async fn start_with(config: &Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        Self::start_with_options(config, store, TreeOptions::of(config)).await
    }

    /// The same with reactions to faults of one's own.
    ///
    /// # Errors
    /// As [`Daybook::start`].
    pub async fn start_with_options(
        config: &Config,
        store: Arc<dyn Store>,
        options: TreeOptions,
    ) -> Result<Self, StartError> {
        crate::install_crypto_provider();
        store.set_probe(options.probes.actor("writer"));
        let listen = config.http.listen;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| StartError::Listen { listen, error })?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen { listen, error })?;
        let metrics = Metrics::new();
        let budget = Budget::new(config.ingest.in_flight.bytes());
        let board = Board::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let store_up = Arc::new(AtomicBool::new(false));
        let writer = Slot::new();
        let resolver = Slot::new();
        let witness = Arc::new(Witness {
            board: board.clone(),
            metrics: metrics.clone(),
            probes: options.probes.clone(),
        });

        let writer_args = WriterArgs {
            store: Arc::clone(&store),
            config: config.writer.clone(),
            metrics: metrics.clone(),
            store_up: Arc::clone(&store_up),
            progress: Progress::on_demand(),
            probe: options.probes.actor("writer"),
        };
        let resolver_args = ResolverArgs {
            store: Arc::clone(&store),
            config: config.tenants.clone(),
            writer: writer.clone(),
            writer_mailbox: metrics.actor_mailbox("writer"),
            progress: Progress::on_demand(),
            probe: options.probes.actor("resolver"),
        };
        let mut store_children = vec![
            ChildSpec::actor("writer", OnGiveUp::Escalate, &writer, {
                let args = writer_args.clone();
                move || (Writer, args.clone())
            })
            .with_progress(writer_args.progress),
            ChildSpec::actor("resolver", OnGiveUp::Escalate, &resolver, {
                let args = resolver_args.clone();
                move || (Resolver, args.clone())
            })
            .with_progress(resolver_args.progress),
        ];
        if config.retention.days > 0 {
            store_children.push(janitor(&store, config.retention.days));
            metrics.actor_mailbox("janitor").set(0.0);
            metrics.actor_suspended("janitor").set(0.0);
        }

        let journal = open_journal(config).await?;
        let reserve = (budget.limit() / JOURNAL_RESERVE_PART).min(JOURNAL_RESERVE_MOST);
        let mut wiring = Wiring {
            journal: journal.clone(),
            journal_reserve: Budget::new(reserve),
            pushing: HashMap::new(),
            config,
            store: &store,
            metrics: &metrics,
            budget: &budget,
            board: &board,
            resolver: &resolver,
            options: &options,
            children: Vec::new(),
            webhooks: HashMap::new(),
            recorders: Vec::new(),
            acceptors: Vec::new(),
        };
        if config.ingest.enabled {
            for source in &config.sources {
                wiring.add(source)?;
            }
            wiring.add_drainer();
        }
        let source_children = std::mem::take(&mut wiring.children);

        let edge = Edge {
            store: Arc::clone(&store),
            board: board.clone(),
            metrics: metrics.clone(),
            budget: budget.clone(),
            journal: journal.clone(),
            authenticator: Authenticator::new(config.http.auth, Arc::clone(&store)),
            readiness: Readiness {
                stopping: Arc::clone(&stopping),
                store_up,
                writer,
                resolver: resolver.clone(),
                acceptors: wiring.acceptors,
            },
            webhooks: wiring.webhooks,
            recorders: wiring.recorders,
            trusted_proxies: config.http.trusted_proxies.clone(),
            max_body: config.http.max_body.bytes(),
            body_timeout: config.http.body_timeout,
            growth: tokio::sync::Mutex::default(),
            refusals: Refusals::default(),
            probe: options.probes.actor("http"),
        };
        let http_args = HttpArgs {
            listener: Arc::new(listener),
            config: config.http.clone(),
            tls: config
                .http
                .tls
                .as_ref()
                .map(tls::acceptor)
                .transpose()
                .map_err(StartError::Tls)?,
            router: router(edge),
            progress: Progress::new(),
            pulse: (options.stall_after / 8).max(Duration::from_millis(10)),
            probe: options.probes.actor("http"),
        };
        let http_progress = http_args.progress.clone();
        let edge_children = vec![
            ChildSpec::actor("http", OnGiveUp::Escalate, &Slot::new(), move || {
                (HttpServer, http_args.clone())
            })
            .with_progress(http_progress),
        ];

        for child in ["writer", "resolver", "http"] {
            metrics.actor_mailbox(child).set(0.0);
            metrics.actor_suspended(child).set(0.0);
        }
        let planes = Planes::default();
        let plane =
            |name, slot, children| plane(name, slot, children, Arc::clone(&witness), &options);
        let planes_of_root = vec![
            plane("store", &planes.store, store_children),
            plane("sources", &planes.sources, source_children),
            plane("edge", &planes.edge, edge_children),
        ];
        let observer: Arc<dyn Observer> = witness.clone();
        let root = SupervisorArgs {
            intensity: options.planes_intensity,
            ..options.supervisor("root", planes_of_root, &observer)
        };
        let (root, end) = spawn_root(root)
            .await
            .map_err(|error| StartError::Tree(error.to_string()))?;
        let upkeep = tokio::spawn(keep_up(metrics.clone()));
        Ok(Self {
            root,
            end,
            address,
            board,
            store,
            journal,
            stopping,
            budget,
            metrics,
            planes,
            upkeep,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its sources are doing.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Its store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Its bytes in flight.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Its journal, if it has one.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Kills an actor, or a plane with all its actors, by name, as a fault would; whether it was
    /// up. For tests.
    pub async fn kill(&self, actor: &str) -> bool {
        self.fell(actor, SupervisorMessage::KillChild).await
    }

    /// Cancels the task of an actor or a plane by name, as a runtime that goes down would; whether
    /// it was up. For tests.
    pub async fn abort(&self, actor: &str) -> bool {
        self.fell(actor, SupervisorMessage::AbortChild).await
    }

    async fn fell(
        &self,
        actor: &str,
        order: fn(String, RpcReplyPort<bool>) -> SupervisorMessage,
    ) -> bool {
        let root = Slot::new();
        root.publish(self.root.clone());
        let planes = &self.planes;
        for supervisor in [&planes.store, &planes.sources, &planes.edge, &root] {
            let felled = delivery::call(supervisor, FELL_LIMIT, |reply| {
                order(actor.to_owned(), reply)
            });
            if felled.await == Ok(true) {
                return true;
            }
        }
        false
    }

    /// Where every actor of every plane stands, as `name: state`; a plane that is down has none.
    /// For tests.
    pub async fn actors(&self) -> HashMap<String, ChildState> {
        let mut actors = HashMap::new();
        let planes = &self.planes;
        for plane in [&planes.store, &planes.sources, &planes.edge] {
            let Some(plane) = plane.current() else {
                continue;
            };
            if let Ok(children) = ractor::call!(plane, SupervisorMessage::Status) {
                actors.extend(children.into_iter().map(|child| (child.name, child.state)));
            }
        }
        actors
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(&mut self) -> End {
        match (&mut self.end).await {
            Ok(RootEnd::GaveUp(gave_up)) => End::GaveUp(gave_up.to_string()),
            Ok(RootEnd::Stopped) => End::Drained,
            Ok(RootEnd::Died) | Err(_) => End::GaveUp("the root supervisor died".to_owned()),
        }
    }

    /// Stops taking input, finishes what is in flight, and ends. Takes [`SHUTDOWN_LIMIT`] at most.
    pub async fn shutdown(self) -> End {
        self.stopping.store(true, Ordering::Release);
        let drained = tokio::time::timeout(SHUTDOWN_LIMIT, async {
            let asked = ractor::call!(self.root, SupervisorMessage::Drain);
            asked.is_ok() && self.end.await.is_ok()
        })
        .await;
        self.upkeep.abort();
        if let Some(journal) = &self.journal {
            journal.close().await;
        }
        match drained {
            Ok(true) => End::Drained,
            Ok(false) => End::GaveUp("the root supervisor was gone".to_owned()),
            Err(_) => {
                self.root.kill();
                End::Cut
            }
        }
    }
}

fn janitor(store: &Arc<dyn Store>, days: u32) -> ChildSpec {
    let args = JanitorArgs {
        store: Arc::clone(store),
        days,
        every: janitor::EVERY,
        progress: Progress::on_demand(),
    };
    let progress = args.progress.clone();
    let give_up = OnGiveUp::Suspend {
        probe_every: SUSPENDED_PROBE,
    };
    ChildSpec::actor("janitor", give_up, &Slot::new(), move || {
        (Janitor, args.clone())
    })
    .with_progress(progress)
}

/// The journal, for pushing sources and for what a former run has left in it.
async fn open_journal(config: &Config) -> Result<Option<Journal>, OpenError> {
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

fn plane(
    name: &'static str,
    slot: &Slot<SupervisorMessage>,
    children: Vec<ChildSpec>,
    witness: Arc<Witness>,
    options: &TreeOptions,
) -> ChildSpec {
    let options = options.clone();
    Supervisor::child_spec(name, OnGiveUp::Escalate, slot, move || {
        // A plane begins with a clean slate, and so must what people see of it.
        for child in &children {
            witness.is_suspended(&child.name, false);
        }
        let observer: Arc<dyn Observer> = witness.clone();
        options.supervisor(name, children.clone(), &observer)
    })
}

/// Builds each source's actor and what the edge needs to reach it.
struct Wiring<'a> {
    config: &'a Config,
    store: &'a Arc<dyn Store>,
    metrics: &'a Metrics,
    budget: &'a Budget,
    journal: Option<Journal>,
    journal_reserve: Budget,
    /// The ways downstream of sources that push, for the drainer.
    pushing: HashMap<SourceName, Courier>,
    board: &'a Board,
    resolver: &'a Slot<crate::tenants::ResolverMessage>,
    options: &'a TreeOptions,
    children: Vec<ChildSpec>,
    webhooks: HashMap<String, (PushSource, Vec<Secret>)>,
    recorders: Vec<PushSource>,
    acceptors: Vec<(String, Slot<crate::sources::push::AcceptorMessage>)>,
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
        self.metrics.actor_suspended(name.as_str()).set(0.0);
        self.metrics.actor_mailbox(name.as_str()).set(0.0);
        Courier {
            resolver: self.resolver.clone(),
            resolver_mailbox: self.metrics.actor_mailbox("resolver"),
            share: self.budget.share(name.as_str(), FAIR_SHARE),
            status,
            ack_timeout: self.options.ack_timeout(),
            waits_of: None,
        }
    }

    fn add(&mut self, source: &SourceConfig) -> Result<(), StartError> {
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
        self.pushing.insert(name.clone(), courier.clone());
        let args = AcceptorArgs {
            courier,
            journal: self.journal.clone(),
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
            journal_reserve: self.journal.as_ref().map(|_| self.journal_reserve.clone()),
        }
    }

    fn add_drainer(&mut self) {
        let Some(journal) = self.journal.clone() else {
            return;
        };
        let name = SourceName::new(drainer::NAME);
        let progress = Progress::on_demand();
        let args = DrainerArgs {
            journal,
            courier: self.courier(&name, drainer::NAME),
            couriers: std::mem::take(&mut self.pushing),
            metrics: self.metrics.clone(),
            batch_events: self.config.writer.batch_events as usize,
            progress: progress.clone(),
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

/// Tells metrics and status what happens in the tree.
struct Witness {
    board: Board,
    metrics: Metrics,
    probes: Probes,
}

impl Witness {
    fn is_suspended(&self, child: &str, suspended: bool) {
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

/// Histograms keep their samples until somebody looks; when nobody scrapes, this does.
async fn keep_up(metrics: Metrics) {
    let mut timer = tokio::time::interval(UPKEEP);
    loop {
        timer.tick().await;
        metrics.upkeep();
    }
}
