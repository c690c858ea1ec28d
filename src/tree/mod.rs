//! Wires the supervision tree, and the order in which it ends.
//!
//! ```text
//! root ─┬─ store plane ─┬─ writer          too many crashes: the plane is restarted
//!       │               ├─ resolver
//!       │               └─ janitor         with retention only; suspended alone
//!       ├─ source plane ── one actor a source, the journal's drainer   too many crashes: that source is suspended
//!       └─ edge plane ──┬─ http
//!                       └─ feed            for the live stream; suspended alone
//! ```
//! It ends in the reverse order: no new requests, then no new input, then the resolver passes on
//! what it has, then the writer enters it. Correctness does not rest on that order: what was not
//! acknowledged is read, or sent, again.

mod options;
mod reload;
mod sources;
mod wiring;
mod witness;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daybook_actors::budget::Budget;
use daybook_actors::delivery;
use daybook_actors::liveness::Progress;
use daybook_actors::slot::Slot;
use daybook_actors::supervisor::{
    ChildSpec, EndOrder, Observer, OnGiveUp, RootEnd, Supervisor, SupervisorArgs,
    SupervisorMessage, spawn_root,
};
use jiff::Timestamp;
use ractor::concurrency::JoinHandle;
use ractor::{ActorRef, RpcReplyPort};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::{Config, OWN_ACTORS};
use crate::feed::{Feed, FeedActor, FeedArgs};
use crate::http::auth::Authenticator;
use crate::http::export::{MOST_EXPORTS, MOST_OF_TENANT};
use crate::http::health::Readiness;
use crate::http::router::{Edge, Routes, router};
use crate::http::stream::{CATCHING_UP, CATCHING_UP_OF_TENANT, readers};
use crate::http::turns::{Queries, Turns};
use crate::http::{HttpArgs, HttpServer, tls};
use crate::janitor::{self, Janitor, JanitorArgs};
use crate::journal::{Journal, OpenError};
use crate::sources::drainer::Couriers;
use crate::status::{Board, SourceStatus};
use crate::store::{self, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::tenants::{READINGS, Resolver, ResolverArgs};
use crate::writer::{Writer, WriterArgs};

pub use daybook_actors::supervisor::ChildState;
pub use options::TreeOptions;

pub use reload::{ReloadError, Reloaded};
use sources::{Parts, Running, Specs, edge_of};
use wiring::{journal_reserve, open_journal};
use witness::Witness;

/// A shutdown takes no longer than this.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(25);
const SUSPENDED_PROBE: Duration = Duration::from_secs(300);
const FELL_LIMIT: Duration = Duration::from_secs(5);
const EXPORTS_LIMIT: Duration = Duration::from_secs(5);
const UPKEEP: Duration = Duration::from_secs(5);
/// Long forms that strangers may send at once.
const LONG_FORMS: usize = 32;

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
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The tree's root did not come up.
    #[error("supervision tree did not start: {0}")]
    Tree(String),
}

/// A running Daybook.
pub struct Daybook {
    root: ActorRef<SupervisorMessage>,
    end: JoinHandle<RootEnd>,
    address: SocketAddr,
    /// For the next http actor.
    listener: Arc<TcpListener>,
    board: Board,
    store: Arc<dyn Store>,
    journal: Option<Journal>,
    stopping: Arc<AtomicBool>,
    budget: Budget,
    metrics: Metrics,
    planes: Planes,
    upkeep: tokio::task::JoinHandle<()>,
    feed: Feed,
    exports: Turns,
    config: Config,
    parts: Parts,
    running: Vec<Running>,
    /// What sources that are gone were doing, for one that comes back under the name.
    former: Vec<Arc<SourceStatus>>,
    drainer: Option<(ChildSpec, Arc<SourceStatus>)>,
    /// The source plane's children.
    specs: Specs,
    /// As it stands now; [`Daybook::reload`] makes the next one of it.
    edge: Edge,
    routes: Routes,
    certificate: Option<Arc<tls::Shown>>,
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
        let listener = Arc::new(listener);
        let metrics = Metrics::new();
        metrics.last_reload.set(Timestamp::now().as_second() as f64);
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
            readings: Arc::new(Semaphore::new(READINGS)),
            progress: Progress::on_demand(),
            probe: options.probes.actor("resolver"),
        };
        metrics.watch_busy("writer", &writer_args.progress);
        metrics.watch_busy("resolver", &resolver_args.progress);
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
            store_children.push(janitor(&store, config.retention.days, &metrics));
        }

        let journal = open_journal(config).await?;
        let journal_limit = journal
            .as_ref()
            .map_or(0, |_| config.journal.max_size.bytes());
        metrics.journal_limit_bytes.set(journal_limit as f64);
        let parts = Parts {
            store: Arc::clone(&store),
            metrics: metrics.clone(),
            budget: budget.clone(),
            resolver: resolver.clone(),
            options: options.clone(),
            journal: journal.clone(),
            journal_reserve: journal_reserve(&budget),
            couriers: Couriers::default(),
        };
        let mut running = Vec::new();
        let mut drainer = None;
        if config.ingest.enabled {
            for source in &config.sources {
                running.push(parts.wire(config, source)?);
            }
            drainer = parts.wire_drainer(config);
        }
        let statuses = running.iter().map(|source| source.status.clone());
        let of_drainer = drainer.iter().map(|(_, status)| status.clone());
        board.replace(statuses.chain(of_drainer).collect());
        let specs = running.iter().map(|source| source.spec.clone());
        let of_drainer = drainer.iter().map(|(spec, _)| spec.clone());
        let specs = Specs::new(specs.chain(of_drainer).collect());

        let feed = Feed::new(Arc::clone(&store), metrics.clone());
        let exports = Turns::new(MOST_EXPORTS, MOST_OF_TENANT);
        let edge = Edge {
            store: Arc::clone(&store),
            feed: feed.clone(),
            streams: readers(config.http.max_streams),
            long_forms: Arc::new(Semaphore::new(LONG_FORMS)),
            catching_up: Turns::new(CATCHING_UP, CATCHING_UP_OF_TENANT),
            exports: exports.clone(),
            queries: Queries::default(),
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
                acceptors: Vec::new(),
            },
            webhooks: HashMap::new(),
            recorders: Vec::new(),
            trusted_proxies: config.http.trusted_proxies.clone(),
            hosts: config.http.hosts.clone().into(),
            max_body: config.http.max_body.bytes(),
            body_timeout: config.http.body_timeout,
            growth: Arc::default(),
            refusals: Arc::default(),
            is_tls: config.http.tls.is_some(),
            attempts: Arc::default(),
            answers: Arc::default(),
            probe: options.probes.actor("http"),
        };
        let edge = edge_of(&edge, &running);
        let routes = Routes::new(router(edge.clone()));
        let certificate = config.http.tls.as_ref().map(tls::Shown::new).transpose()?;
        let http_args = HttpArgs {
            listener: Arc::downgrade(&listener),
            config: config.http.clone(),
            tls: certificate.as_ref().map(tls::Shown::acceptor),
            router: routes.clone(),
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
            live_feed(&feed, &options),
        ];

        for actor in OWN_ACTORS {
            if actor != "janitor" || config.retention.days > 0 {
                metrics.declare_actor(actor);
            }
        }
        for actor in ["writer", "resolver"] {
            metrics.actor_mailbox(actor).set(0.0);
        }
        let planes = Planes::default();
        let plane = |name, slot, children, end_order| {
            plane(
                name,
                slot,
                children,
                end_order,
                Arc::clone(&witness),
                &options,
            )
        };
        let (store_children, edge_children) =
            (Specs::new(store_children), Specs::new(edge_children));
        let planes_of_root = vec![
            plane("store", &planes.store, store_children, EndOrder::Reversed),
            // However many wait for an answer, the others need not wait for them.
            plane("sources", &planes.sources, specs.clone(), EndOrder::AtOnce),
            plane("edge", &planes.edge, edge_children, EndOrder::Reversed),
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
            listener,
            board,
            store,
            journal,
            stopping,
            budget,
            metrics,
            planes,
            upkeep,
            feed,
            exports,
            config: config.clone(),
            parts,
            running,
            former: Vec::new(),
            drainer,
            specs,
            edge,
            routes,
            certificate,
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
        self.shutdown_within(SHUTDOWN_LIMIT).await
    }

    async fn shutdown_within(self, limit: Duration) -> End {
        let deadline = tokio::time::Instant::now() + limit;
        self.stopping.store(true, Ordering::Release);
        // There will be no other accept loop: the one that runs closes it.
        drop(self.listener);
        // Those who read along would never finish.
        self.feed.close();
        let drained = tokio::time::timeout_at(deadline, async {
            let asked = ractor::call!(self.root, SupervisorMessage::Drain);
            asked.is_ok() && self.end.await.is_ok()
        })
        .await;
        self.upkeep.abort();
        // The ends of exports, finished or cut, are entered without the tree.
        let entered = tokio::time::timeout(EXPORTS_LIMIT, self.exports.are_over());
        let _late = tokio::time::timeout_at(deadline, entered).await;
        let closed = match &self.journal {
            // A disk that hangs keeps it open; what was answered 200 is synced already.
            Some(journal) => tokio::time::timeout_at(deadline, journal.close()).await,
            None => Ok(()),
        };
        match drained {
            Ok(true) if closed.is_ok() => End::Drained,
            Ok(false) => End::GaveUp("the root supervisor was gone".to_owned()),
            Ok(true) | Err(_) => {
                self.root.kill();
                End::Cut
            }
        }
    }
}

fn janitor(store: &Arc<dyn Store>, days: u32, metrics: &Metrics) -> ChildSpec {
    let args = JanitorArgs {
        store: Arc::clone(store),
        days,
        every: janitor::EVERY,
        progress: Progress::on_demand(),
        metrics: metrics.clone(),
    };
    metrics.watch_busy("janitor", &args.progress);
    let progress = args.progress.clone();
    let give_up = OnGiveUp::Suspend {
        probe_every: SUSPENDED_PROBE,
    };
    ChildSpec::actor("janitor", give_up, &Slot::new(), move || {
        (Janitor, args.clone())
    })
    .with_progress(progress)
}

fn live_feed(feed: &Feed, options: &TreeOptions) -> ChildSpec {
    let args = FeedArgs {
        feed: feed.clone(),
        progress: Progress::on_demand(),
        probe: options.probes.actor("feed"),
    };
    let progress = args.progress.clone();
    let give_up = OnGiveUp::Suspend {
        probe_every: SUSPENDED_PROBE,
    };
    ChildSpec::actor("feed", give_up, feed.actor(), move || {
        (FeedActor, args.clone())
    })
    .with_progress(progress)
}

fn plane(
    name: &'static str,
    slot: &Slot<SupervisorMessage>,
    children: Specs,
    end_order: EndOrder,
    witness: Arc<Witness>,
    options: &TreeOptions,
) -> ChildSpec {
    let options = options.clone();
    Supervisor::child_spec(name, OnGiveUp::Escalate, slot, move || {
        // A plane begins with a clean slate, and so must what people see of it.
        let children = children.get();
        for child in &children {
            witness.is_suspended(&child.name, false);
        }
        let observer: Arc<dyn Observer> = witness.clone();
        SupervisorArgs {
            end_order,
            ..options.supervisor(name, children, &observer)
        }
    })
}

/// Histograms keep their samples until somebody looks; when nobody scrapes, this does.
async fn keep_up(metrics: Metrics) {
    let mut timer = tokio::time::interval(UPKEEP);
    loop {
        timer.tick().await;
        metrics.upkeep();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::File;
    use std::io;

    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;
    use crate::config::StoreUrl;
    use crate::journal::{JournalOptions, PushKind, PushRecord};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_journal_that_does_not_close_is_left_when_the_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        let file = dir.path().join("daybook.db");
        config.store.url = StoreUrl(format!("sqlite:{}", file.display()));
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.ingest.enabled = false;
        let mut daybook = Daybook::start(&config).await.unwrap();
        let hangs = |_: &File| -> io::Result<()> {
            loop {
                std::thread::park();
            }
        };
        // There already: to make it would hang, too.
        let place = dir.path().join("journal");
        std::fs::create_dir(&place).unwrap();
        let journal = Journal::open(JournalOptions {
            sync: Arc::new(hangs),
            ..JournalOptions::new(place, 1 << 20)
        })
        .unwrap();
        daybook.journal = Some(journal.clone());
        let push = PushRecord::new("mail".into(), PushKind::Stalwart, Bytes::new());
        let mut append = Box::pin(journal.append(push));
        assert_eq!(append.as_mut().now_or_never(), None);
        let ended = daybook.shutdown_within(Duration::from_secs(1));
        let ended = tokio::time::timeout(SHUTDOWN_LIMIT, ended).await;
        assert_eq!(ended.unwrap(), End::Cut);
    }
}
