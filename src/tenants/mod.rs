//! The tenant resolver: finds whose timeline each event belongs to, and passes the batch on.
//!
//! It works on a snapshot of the directory and never asks the store on an event's behalf. The
//! snapshot is read again every `refresh`, and sooner when events point to somebody it does not
//! know: a batch with such events waits for that reading, but never longer than
//! `PATIENCE` and only if the last reading is older than `EARLY_REFRESH`. So neither a slow
//! directory nor a stranger knocking all day holds the pipeline up.
//!
//! Before the directory has been read once, batches wait: an event entered without its tenant
//! stays without. When it cannot be read at all they are refused, so that nothing piles up here.

pub mod directory;
pub mod file;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_actors::liveness::Progress;
use daybook_actors::slot::Slot;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::batch::{Delivery, Entry, InMailbox, Nack};
use crate::config::{ConfigError, TenantsConfig};
use crate::probe::Probe;
use crate::store::{DirectoryRecords, Store};
use crate::writer::{Resolved, WriterMessage};

use directory::{Directory, Slug};

/// The longest a batch waits for a fresh directory because of an unknown user.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same of one that was pushed, whose sender waits.
pub(crate) const PATIENCE_OF_PUSHES: Duration = Duration::from_millis(750);
/// A directory younger than this is not read again for an unknown user.
const EARLY_REFRESH: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// Readings of a file at once. One that hangs keeps its thread, perhaps for ever, and those after it
/// may find another disk there.
pub const READINGS: usize = 3;
/// One reading of the directory: the store has its own timeout, a file has none.
const READING_LIMIT: Duration = Duration::from_secs(45);

/// What the resolver is told.
pub enum ResolverMessage {
    /// Find the tenants and pass it on to the writer.
    Resolve(Box<Delivery>),
    /// Read the directory again.
    Refresh,
    /// What reading it brought.
    Refreshed(Result<Box<Directory>, String>),
    /// Somebody's patience is over.
    PatienceOver,
    /// Tell which tenants there are.
    Slugs(RpcReplyPort<Vec<Slug>>),
}

/// The actor.
pub struct Resolver;

/// What the resolver works with.
#[derive(Clone)]
pub struct ResolverArgs {
    /// Where the directory is.
    pub store: Arc<dyn Store>,
    /// How it is read.
    pub config: TenantsConfig,
    /// Where batches go.
    pub writer: Slot<WriterMessage>,
    /// Its mailbox's gauge.
    pub writer_mailbox: metrics::Gauge,
    /// One reading of the directory at a time. A disk that hangs keeps the thread that reads the
    /// file, whoever is killed meanwhile, and the next reading must not spend another on it.
    pub readings: Arc<Semaphore>,
    /// Shown while a message is handled.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct ResolverState {
    args: ResolverArgs,
    directory: Option<Directory>,
    read_at: Instant,
    reading: bool,
    failed_readings: u32,
    patient: VecDeque<(Delivery, Option<Instant>)>,
    tasks: JoinSet<()>,
    /// The one timer for it; gone with the state, for it holds the actor's address.
    next_reading: JoinSet<()>,
}

impl Actor for Resolver {
    type Msg = ResolverMessage;
    type State = ResolverState;
    type Arguments = ResolverArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: ResolverArgs,
    ) -> Result<ResolverState, ActorProcessingErr> {
        Ok(ResolverState {
            args,
            directory: None,
            read_at: Instant::now(),
            reading: false,
            failed_readings: 0,
            patient: VecDeque::new(),
            tasks: JoinSet::new(),
            next_reading: JoinSet::new(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut ResolverState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state.args.probe.hit("post_start").await?;
        state.read_directory(&myself);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: ResolverMessage,
        state: &mut ResolverState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        match message {
            ResolverMessage::Resolve(delivery) => {
                state.args.probe.hit("after_read").await?;
                state.resolve(*delivery, &myself);
                state.args.probe.hit("after_send").await?;
            }
            ResolverMessage::Refresh => state.read_directory(&myself),
            ResolverMessage::Refreshed(outcome) => state.refreshed(outcome, &myself),
            ResolverMessage::PatienceOver => state.release(false),
            ResolverMessage::Slugs(reply) => {
                let directory = state.directory.as_ref();
                let slugs = directory.map_or_else(Vec::new, |directory| directory.slugs().to_vec());
                // Whoever asked may have gone.
                let _gone = reply.send(slugs);
            }
        }
        while state.tasks.try_join_next().is_some() {}
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut ResolverState,
    ) -> Result<(), ActorProcessingErr> {
        state.release(true);
        Ok(())
    }
}

impl ResolverState {
    fn resolve(&mut self, mut delivery: Delivery, myself: &ActorRef<ResolverMessage>) {
        delivery.in_mailbox = None;
        if delivery.reply.is_closed() {
            return;
        }
        let Some(directory) = &self.directory else {
            if self.failed_readings > 0 {
                unavailable(delivery, UNREAD);
            } else {
                self.patient.push_back((delivery, None));
            }
            return;
        };
        let stale = self.read_at.elapsed() >= EARLY_REFRESH || self.reading;
        if stale && names_a_stranger(directory, &delivery) {
            let patience = match delivery.batch.is_pushed() {
                true => PATIENCE_OF_PUSHES,
                false => PATIENCE,
            };
            self.patient
                .push_back((delivery, Some(Instant::now() + patience)));
            let _timer = myself.send_after(patience, || ResolverMessage::PatienceOver);
            self.read_directory(myself);
            return;
        }
        self.pass_on(delivery);
    }

    fn pass_on(&mut self, mut delivery: Delivery) {
        if delivery.reply.is_closed() {
            return;
        }
        let Some(directory) = &mut self.directory else {
            unavailable(delivery, UNREAD);
            return;
        };
        let handling = delivery.custody.begin();
        let mut learned = Vec::new();
        let mut tenants = Vec::with_capacity(delivery.batch.entries().len());
        for entry in delivery.batch.entries() {
            let Entry::Event(event, hints) = entry else {
                tenants.push(None);
                continue;
            };
            learned.extend(directory.learn(hints));
            let given = event.tenant_slug.as_deref().map(Arc::from);
            tenants.push(given.or_else(|| directory.find(hints)));
        }
        handling.finish();
        let Some(writer) = self.args.writer.current() else {
            unavailable(delivery, "the writer restarts");
            return;
        };
        delivery.in_mailbox = Some(InMailbox::new(&self.args.writer_mailbox));
        // A writer that has just died drops the message, and with it the reply port: the source
        // hears of it and sends again.
        let _died = writer.cast(WriterMessage::Deliver(Box::new(Resolved {
            delivery,
            tenants,
            learned,
        })));
    }

    /// Lets those go whose patience is over; all of them when `everyone`.
    fn release(&mut self, everyone: bool) {
        let now = Instant::now();
        for (delivery, until) in std::mem::take(&mut self.patient) {
            let over = everyone || until.is_some_and(|until| until <= now);
            if over {
                self.pass_on(delivery);
            } else {
                self.patient.push_back((delivery, until));
            }
        }
    }

    fn read_directory(&mut self, myself: &ActorRef<ResolverMessage>) {
        if self.reading {
            return;
        }
        self.reading = true;
        let store = Arc::clone(&self.args.store);
        let file = self.args.config.file.clone();
        let ignored_groups = self.args.config.ignored_groups.clone();
        let readings = Arc::clone(&self.args.readings);
        let probe = self.args.probe.clone();
        let report = TellOnce(Some(myself.clone()));
        self.tasks.spawn(async move {
            let reading = async {
                let turn = readings.acquire_owned().await;
                let turn = turn.map_err(|error| error.to_string())?;
                let read_file = move |path: &Path| {
                    let _turn = turn;
                    let _struck = probe.hit_blocking("in_read");
                    file::read_directory_file(path)
                };
                read_with(&*store, file, read_file).await
            };
            let reading = tokio::time::timeout(READING_LIMIT, reading).await;
            let outcome =
                reading.unwrap_or_else(|_| Err(format!("not read within {READING_LIMIT:?}")));
            report.tell(outcome.map(|records| Box::new(Directory::new(records, &ignored_groups))));
        });
    }

    fn refreshed(
        &mut self,
        outcome: Result<Box<Directory>, String>,
        myself: &ActorRef<ResolverMessage>,
    ) {
        self.reading = false;
        self.read_at = Instant::now();
        let next = match outcome {
            Ok(mut directory) => {
                if let Some(former) = &self.directory {
                    directory.keep_learned_of(former);
                }
                if self.failed_readings > 0 {
                    tracing::info!("directory of tenants can be read again");
                }
                let former = self.directory.as_ref().map(Directory::contested);
                let contested = directory.contested();
                if !contested.is_empty() && former != Some(contested) {
                    tracing::warn!(
                        ?contested,
                        "several tenants claim the same: it tells none of them"
                    );
                }
                self.directory = Some(*directory);
                self.failed_readings = 0;
                self.release(true);
                self.args.config.refresh
            }
            Err(error) => {
                if self.failed_readings == 0 {
                    tracing::warn!(
                        error,
                        "directory of tenants cannot be read; the last one stays in use"
                    );
                }
                self.failed_readings += 1;
                // Without any directory this refuses them.
                self.release(true);
                (RETRY_FIRST * 2u32.saturating_pow(self.failed_readings.min(4)))
                    .min(self.args.config.refresh)
            }
        };
        let resolver = myself.clone();
        self.next_reading = JoinSet::new();
        self.next_reading.spawn(async move {
            tokio::time::sleep(next).await;
            let _ended = resolver.cast(ResolverMessage::Refresh);
        });
    }
}

/// Tells the resolver what a reading brought, also when it panicked.
struct TellOnce(Option<ActorRef<ResolverMessage>>);

impl TellOnce {
    fn tell(mut self, outcome: Result<Box<Directory>, String>) {
        if let Some(resolver) = self.0.take() {
            let _ended = resolver.cast(ResolverMessage::Refreshed(outcome));
        }
    }
}

impl Drop for TellOnce {
    fn drop(&mut self) {
        if let Some(resolver) = self.0.take() {
            let panicked = Err("its reading panicked".to_owned());
            let _ended = resolver.cast(ResolverMessage::Refreshed(panicked));
        }
    }
}

/// The directory as it stands now; the file, if one is configured, takes the place of the platform's
/// tenants and users.
pub(crate) async fn read(
    store: &dyn Store,
    file: Option<PathBuf>,
) -> Result<DirectoryRecords, String> {
    read_with(store, file, file::read_directory_file).await
}

async fn read_with(
    store: &dyn Store,
    file: Option<PathBuf>,
    read_file: impl FnOnce(&Path) -> Result<DirectoryRecords, ConfigError> + Send + 'static,
) -> Result<DirectoryRecords, String> {
    let mut records = store.directory().await.map_err(|error| error.to_string())?;
    if let Some(path) = file {
        let from_file = tokio::task::spawn_blocking(move || read_file(&path))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        records.tenants = from_file.tenants;
        records.users = from_file.users;
    }
    Ok(records)
}

fn names_a_stranger(directory: &Directory, delivery: &Delivery) -> bool {
    delivery.batch.entries().iter().any(|entry| match entry {
        Entry::Event(event, hints) => {
            let points_somewhere = !(hints.groups.is_empty()
                && hints.spaces.is_empty()
                && hints.subjects.is_empty()
                && hints.emails.is_empty()
                && hints.recipients.is_empty()
                && hints.domains.is_empty()
                && hints.senders.is_empty());
            event.tenant_slug.is_none() && points_somewhere && !directory.knows(hints)
        }
        Entry::Dead(_) => false,
    })
}

const UNREAD: &str = "the directory of tenants has not been read yet";

fn unavailable(delivery: Delivery, reason: &str) {
    let _gone = delivery.reply.send(Err(Nack::Unavailable {
        retry_after: Duration::from_millis(100),
        reason: reason.to_owned(),
    }));
}
