//! One cell of the matrix, and a world in which several are struck one after the other.

use std::fmt;
use std::time::{Duration, Instant};

use daybook::config::{Config, SourceConfig};
use daybook::probe::{Fault, Probes, Strike};
use daybook::sources::drainer;
use daybook::tree::{ChildState, TreeOptions};
use daybook_actors::policy::{Backoff, Intensity};
use jiff::Timestamp;
use testkit::World;
use testkit::load::{Load, SOURCES, Sources};
use testkit::mongod::Mongod;
use testkit::world::{pause_after, sum_of};

/// Per source and second. Enough that every point is passed within moments.
const LOAD: f64 = 15.0;
/// From the end of a fault until everything promised is stored and accounted for: moments, of which
/// the slowest are printed. A busy machine needs room.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(120);
/// The store is asked again every 100 ms at most: so many outlast every wait.
const REFUSALS: usize = 500;
/// Without hangs nobody should be taken for hanging, however busy the machine.
pub const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_secs(2);
/// Where a hang must be taken for none: longer than a busy machine stands still, and short enough to
/// be outlasted.
const WATCHFUL: Duration = Duration::from_secs(10);

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Panic,
    Error,
    /// From outside, while it stands at the point.
    Kill,
    /// The cancellation of its task, while it stands at the point.
    Abort,
    /// It stands at the point until somebody ends that.
    Hang,
}

/// What must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// This actor or plane is restarted for this reason.
    Restarts(&'static str, &'static str),
    /// Nobody is restarted for it.
    GoesOn,
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    actor: &'static str,
    point: &'static str,
    blow: Blow,
    then: Then,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} × {:?}", self.actor, self.point, self.blow)
    }
}

impl Cell {
    pub fn new(actor: &'static str, point: &'static str, blow: Blow, then: Then) -> Self {
        Self {
            actor,
            point,
            blow,
            then,
        }
    }

    fn fault(&self) -> Fault {
        match self.blow {
            Blow::Panic => Fault::Panic,
            Blow::Error => Fault::Error,
            // The supervisor is struck there, not whoever passes.
            Blow::Kill | Blow::Abort if self.point == "in_backoff" => Fault::Nothing,
            Blow::Kill | Blow::Abort | Blow::Hang => Fault::Stand,
        }
    }

    /// Whether a supervisor has to find that it hangs.
    fn needs_impatience(&self) -> bool {
        self.blow == Blow::Hang && matches!(self.then, Then::Restarts(..))
    }

    /// Whether a supervisor must not take it for hanging.
    fn needs_watching(&self) -> bool {
        self.blow == Blow::Hang && self.then == Then::GoesOn
    }

    /// Whether the store must refuse for the point to be reached.
    fn needs_refusals(&self) -> bool {
        self.actor == drainer::NAME || self.point == "in_retry"
    }

    /// Sources that do not need what is struck: they must not notice.
    fn bystanders(&self) -> Vec<&'static str> {
        let all = SOURCES.into_iter();
        match self.actor {
            "writer" | "resolver" | "store" | "sources" => Vec::new(),
            _ if self.point == "in_backoff" => Vec::new(),
            "http" | "edge" => vec!["authentik", "ocis"],
            drainer::NAME => SOURCES.into(),
            source => all.filter(|other| *other != source).collect(),
        }
    }
}

/// Where the timeline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    MongoDb,
}

/// The cells of one actor.
pub struct Group {
    name: &'static str,
    cells: Vec<Cell>,
    store: Store,
}

impl Group {
    pub fn new(name: &'static str, cells: Vec<Cell>) -> Self {
        Self {
            name,
            cells,
            store: Store::Sqlite,
        }
    }

    pub fn on(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// Strikes every cell: hangs that are to be found in one world, whose supervisors are impatient,
    /// hangs that are to be left alone in another, and the rest in a third beside them.
    pub async fn run(self) {
        let _matrix = super::recovery::MATRIX.read().await;
        quiet_panics();
        let started = Instant::now();
        let cells = self.cells.len();
        let (hangs, others): (Vec<Cell>, Vec<Cell>) =
            self.cells.into_iter().partition(Cell::needs_impatience);
        let (waits, others): (Vec<Cell>, Vec<Cell>) =
            others.into_iter().partition(Cell::needs_watching);
        let (first, second, third) = tokio::join!(
            run_in_one_world(others, self.store, PATIENT),
            run_in_one_world(hangs, self.store, IMPATIENT),
            run_in_one_world(waits, self.store, WATCHFUL),
        );
        println!(
            "{}: {cells} cells struck, {} events, slowest convergence {:?}, {:?} in all",
            self.name,
            first.0 + second.0 + third.0,
            first.1.max(second.1).max(third.1),
            started.elapsed()
        );
    }
}

/// A world as the matrix needs it; the load is connected and paused.
pub async fn world(store: Store, options: TreeOptions, seed: u64) -> (World, Load) {
    let plan = match store {
        Store::Sqlite => World::sqlite().await,
        Store::MongoDb => World::mongodb(Mongod::shared().await).await,
    };
    let (sources, plan) = Sources::add_to(plan, seed).await;
    let world = plan.adjust(poll_often).options(options).start().await;
    let load = sources.connect(&world, seed, LOAD);
    world.ready().await;
    (world, load)
}

/// More often than a configuration may ask for.
fn poll_often(config: &mut Config) {
    for source in &mut config.sources {
        if let SourceConfig::Authentik(authentik) = source {
            authentik.interval = Duration::from_millis(100);
        }
    }
}

/// Restarts come soon, and as many as there are cells.
pub fn eager(stall_after: Duration, probes: &Probes) -> TreeOptions {
    let often = Intensity {
        max_restarts: 10_000,
        within: Duration::from_secs(60),
    };
    TreeOptions {
        backoff: Backoff {
            base: Duration::from_millis(60),
            cap: Duration::from_millis(200),
            reset_after: Duration::from_millis(100),
        },
        intensity: often,
        planes_intensity: often,
        stall_after,
        push_patience: Duration::from_millis(1500),
        probes: probes.clone(),
    }
}

async fn run_in_one_world(
    cells: Vec<Cell>,
    store: Store,
    stall_after: Duration,
) -> (usize, Duration) {
    if cells.is_empty() {
        return (0, Duration::ZERO);
    }
    let probes = Probes::new();
    let seed = 7 + cells.len() as u64;
    let mut options = eager(stall_after, &probes);
    if stall_after == WATCHFUL {
        // Else a push would be given up before anybody could take it for hanging.
        options.push_patience = 3 * WATCHFUL;
    }
    let (world, load) = world(store, options, seed).await;
    let watch = load.oracle().watch(world.daybook());
    let mut slowest = Duration::ZERO;
    for cell in cells {
        let stage = Stage {
            world: &world,
            load: &load,
            probes: &probes,
            cell,
            since: Timestamp::now(),
        };
        slowest = slowest.max(stage.play().await);
    }
    let violations = load.oracle().judge(world.daybook(), None).await;
    assert!(violations.is_empty(), "{violations:#?}");
    drop(watch);
    let promised = load.oracle().promised();
    world.stop().await;
    (promised, slowest)
}

struct Stage<'a> {
    world: &'a World,
    load: &'a Load,
    probes: &'a Probes,
    cell: Cell,
    since: Timestamp,
}

impl Stage<'_> {
    /// The whole cell; how long the world took to converge.
    async fn play(&self) -> Duration {
        let cell = self.cell;
        let before = self.restarts();
        self.load.resume();
        match (cell.point, cell.blow) {
            ("busy", _) => {
                self.bystanders_flow().await;
                self.fell(cell.actor).await;
            }
            ("in_backoff", Blow::Kill | Blow::Abort) => self.fell_plane_in_backoff().await,
            _ => self.strike().await,
        }
        self.until("the restart is seen", async || {
            matches!(cell.then, Then::GoesOn) || self.restarts() > before
        })
        .await;
        let faults_over = Instant::now();
        // Everybody says something after the fault, so that "flows again" is more than "is idle".
        for source in SOURCES {
            self.load.say(source);
        }
        self.load.pause();
        self.until("the senders are rid of their events", async || {
            tokio::time::timeout(Duration::from_millis(20), self.load.drained())
                .await
                .is_ok()
        })
        .await;
        self.until(
            "everything promised is stored and accounted for",
            async || {
                self.load
                    .oracle()
                    .settled(self.world.daybook(), self.since)
                    .await
            },
        )
        .await;
        let converged = faults_over.elapsed();
        let oracle = self.load.oracle();
        let violations = oracle.judge(self.world.daybook(), Some(self.since)).await;
        assert!(violations.is_empty(), "{cell}: {violations:#?}");
        if cell.then == Then::GoesOn {
            let restarts = self.restarts();
            assert_eq!(restarts, before, "{cell}: somebody was restarted");
        }
        converged
    }

    /// Strikes at the point, and makes sure that it struck.
    async fn strike(&self) {
        let cell = self.cell;
        let mut restarts = self.restarts();
        let strike = self.probes.strike(cell.actor, cell.point, cell.fault(), 1);
        let mut refusals = Vec::new();
        if cell.needs_refusals() {
            refusals = self.refuse_writes().await;
        }
        if cell.point == "after_ack" {
            refusals.clear();
        }
        if ["post_start", "in_backoff"].contains(&cell.point) {
            // It must be down to come up again. One that was down already is met when it comes.
            self.until("it is down to come up again", async || {
                strike.has_struck()
                    || self.is(ChildState::Running).await
                        && self.world.daybook().kill(cell.actor).await
            })
            .await;
        }
        self.until("the point is struck", async || {
            if cell.point == "after_accept" {
                // The senders keep their connections; this one is new.
                let address = self.world.daybook().address();
                let _refused = tokio::net::TcpStream::connect(address).await;
            }
            // Read before the look: a strike that it misses may be found at once.
            let until_now = self.restarts();
            let struck = strike.has_struck();
            if !struck {
                restarts = until_now;
            }
            struck
        })
        .await;
        drop(refusals);
        if cell.needs_refusals() {
            // A push that comes before the store takes writes again would go to the journal.
            let pulls = ["authentik", "ocis"];
            let witness = pulls.iter().find(|source| **source != cell.actor);
            self.flow(witness.map(std::slice::from_ref).unwrap_or_default())
                .await;
        }
        if cell.fault() == Fault::Stand {
            self.bystanders_flow().await;
        }
        match cell.blow {
            Blow::Kill | Blow::Abort => self.fell(cell.actor).await,
            Blow::Hang if cell.needs_impatience() => {
                self.until("the hang is found", async || self.restarts() > restarts)
                    .await;
            }
            Blow::Hang => tokio::time::sleep(2 * WATCHFUL).await,
            _ => {}
        }
        drop(strike);
    }

    /// From now on the store refuses every write, and pushes stand in the journal.
    async fn refuse_writes(&self) -> Vec<Strike> {
        let journal = self.world.daybook().journal().unwrap();
        let appended = journal.figures().appended;
        let refusal = || {
            self.probes
                .strike("writer", "before_insert", Fault::Error, 1)
        };
        let refusals = std::iter::repeat_with(refusal).take(REFUSALS).collect();
        self.until("pushes go to the journal", async || {
            journal.figures().appended > appended
        })
        .await;
        refusals
    }

    /// The plane falls while one of its actors waits for its restart.
    async fn fell_plane_in_backoff(&self) {
        let Then::Restarts(plane, _) = self.cell.then else {
            panic!("{}: a plane is restarted", self.cell);
        };
        let mut proven = false;
        // The backoff is drawn at random and may be over in no time; then it is tried again.
        for _ in 0..20 {
            let strike = self
                .probes
                .strike(self.cell.actor, "in_backoff", Fault::Nothing, 1);
            self.fell_by(self.cell.actor, Blow::Kill).await;
            self.until("the backoff has begun", async || strike.has_struck())
                .await;
            proven = self.is(ChildState::Restarting).await;
            if proven {
                break;
            }
            self.until("the actor is up again", async || {
                self.is(ChildState::Running).await
            })
            .await;
        }
        assert!(proven, "{}: the actor was never in backoff", self.cell);
        self.fell(plane).await;
    }

    /// Whether the cell's actor stands there.
    async fn is(&self, state: ChildState) -> bool {
        let actors = self.world.daybook().actors().await;
        actors.get(self.cell.actor) == Some(&state)
    }

    async fn fell(&self, actor: &str) {
        self.fell_by(actor, self.cell.blow).await;
    }

    async fn fell_by(&self, actor: &str, blow: Blow) {
        self.until("somebody is up to be felled", async || match blow {
            Blow::Abort => self.world.daybook().abort(actor).await,
            _ => self.world.daybook().kill(actor).await,
        })
        .await;
    }

    /// While the struck one stands, the others' events arrive.
    async fn bystanders_flow(&self) {
        self.flow(&self.cell.bystanders()).await;
    }

    async fn flow(&self, sources: &[&'static str]) {
        let said: Vec<_> = sources.iter().map(|source| self.load.say(source)).collect();
        let store = self.world.daybook().store();
        self.until("the other sources flow", async || {
            let oracle = self.load.oracle();
            oracle.stored(&**store, &said, self.since).await.len() == said.len()
        })
        .await;
    }

    fn restarts(&self) -> f64 {
        let metrics = self.world.daybook().metrics().render();
        let of = |labels: &str| sum_of(&metrics, "daybook_actor_restarts_total", labels);
        match self.cell.then {
            Then::Restarts(actor, reason) => of(&format!("actor=\"{actor}\",reason=\"{reason}\"")),
            // Whoever else stands still for so long may be taken for hanging as well.
            Then::GoesOn if self.cell.needs_watching() => {
                let own = format!("actor=\"{}\",reason=\"stalled\"", self.cell.actor);
                of("") - of("reason=\"stalled\"") + of(&own)
            }
            Then::GoesOn => of(""),
        }
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let pauses = [10, 100].map(Duration::from_millis);
        let started = Instant::now();
        let mut look = started;
        while !condition().await {
            assert!(
                started.elapsed() < CONVERGENCE_LIMIT,
                "{}: waited in vain until {what}\n{}",
                self.cell,
                self.load.oracle().missing(self.world.daybook())
            );
            tokio::time::sleep(pause_after(look, pauses)).await;
            look = Instant::now();
        }
    }
}

/// Planned panics are no news.
pub fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let planned = panic
                .payload_as_str()
                .is_some_and(|message| message.starts_with("struck at"));
            if !planned {
                loud(panic);
            }
        }));
    });
}
