//! The janitor: deletes what is older than `retention.days`, at start and then every hour.
//!
//! An event's age counts by `at`, when it happened; a dead letter's by the last time it was met. A
//! sweep goes in steps of [`STEP`] rows, so that the writer's commits find their way in between. It
//! runs as a task of the actor's state and ends with it.
//!
//! What is gone is not known any more: input that is older than `retention.days` and is read or sent
//! again is entered again, and goes with the next sweep.

use std::sync::Arc;
use std::time::Duration;

use daybook_actors::liveness::Progress;
use jiff::{SignedDuration, Timestamp};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// Between the end of one sweep and the next.
pub const EVERY: Duration = Duration::from_secs(3600);
/// Rows deleted at once.
pub const STEP: u32 = 1000;
/// After a sweep that failed.
const RETRY: Duration = Duration::from_secs(60);

/// What the janitor is told.
pub enum JanitorMessage {
    /// Sweep now.
    Sweep,
    /// What a sweep deleted, and how it ended.
    Swept(Swept, Result<(), StoreError>),
}

/// What a sweep deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Events.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// The actor.
pub struct Janitor;

/// What the janitor works with.
#[derive(Clone)]
pub struct JanitorArgs {
    /// Where it sweeps.
    pub store: Arc<dyn Store>,
    /// Days that things are kept; at least 1.
    pub days: u32,
    /// Between two sweeps: [`EVERY`].
    pub every: Duration,
    /// Shown while a sweep is under way.
    pub progress: Progress,
    /// Where what was deleted is counted.
    pub metrics: Metrics,
}

/// The actor's state.
pub struct JanitorState {
    args: JanitorArgs,
    sweeps: JoinSet<()>,
    failing: bool,
}

impl Actor for Janitor {
    type Msg = JanitorMessage;
    type State = JanitorState;
    type Arguments = JanitorArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: JanitorArgs,
    ) -> Result<JanitorState, ActorProcessingErr> {
        Ok(JanitorState {
            args,
            sweeps: JoinSet::new(),
            failing: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        _state: &mut JanitorState,
    ) -> Result<(), ActorProcessingErr> {
        myself.cast(JanitorMessage::Sweep)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: JanitorMessage,
        state: &mut JanitorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            JanitorMessage::Sweep => state.start_sweep(&myself),
            JanitorMessage::Swept(swept, outcome) => {
                let next = state.note(swept, outcome);
                // Detached: a timer that fires after the actor's end reaches nobody.
                let _timer = myself.send_after(next, || JanitorMessage::Sweep);
            }
        }
        while let Some(ended) = state.sweeps.try_join_next() {
            ended?;
        }
        Ok(())
    }
}

impl JanitorState {
    fn start_sweep(&mut self, myself: &ActorRef<JanitorMessage>) {
        let args = self.args.clone();
        let report = ReportOnce(Some(myself.clone()));
        self.sweeps.spawn(async move {
            let working = args.progress.work();
            let kept = SignedDuration::from_hours(24 * i64::from(args.days));
            let mut swept = Swept::default();
            let before = Timestamp::now() - kept;
            let outcome = sweep(&*args.store, before, &args.progress, &mut swept).await;
            drop(working);
            report.send(swept, outcome);
        });
    }

    /// Returns when to sweep next.
    fn note(&mut self, swept: Swept, outcome: Result<(), StoreError>) -> Duration {
        let metrics = &self.args.metrics;
        metrics.retention_deleted_events.increment(swept.events);
        metrics
            .retention_deleted_dead_letters
            .increment(swept.dead_letters);
        match outcome {
            Ok(()) => {
                self.failing = false;
                if swept != Swept::default() {
                    let (events, dead_letters) = (swept.events, swept.dead_letters);
                    tracing::info!(events, dead_letters, "what retention lets go is deleted");
                }
                self.args.every
            }
            Err(error) => {
                if !self.failing {
                    tracing::warn!(error = %error, "what retention lets go cannot be deleted yet");
                }
                self.failing = true;
                RETRY.min(self.args.every)
            }
        }
    }
}

/// Deletes everything from before this time, step by step, and adds to `swept` what is gone.
///
/// # Errors
/// When the store fails; what was deleted until then, or of the other kind, is gone.
pub async fn sweep(
    store: &dyn Store,
    before: Timestamp,
    progress: &Progress,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    // At start the writer may not have made the tables yet. In a large file of an older version it
    // takes many steps, and some of them long.
    let preparing = progress.long_wait(Duration::MAX);
    store.prepare().await?;
    drop(preparing);
    let events = async {
        loop {
            progress.tick();
            match store.delete_events_before(before, STEP).await? {
                0 => return Ok(()),
                deleted => swept.events += deleted,
            }
        }
    };
    // Neither kind stays because the other cannot go.
    let events = events.await;
    loop {
        progress.tick();
        match store.delete_dead_letters_before(before, STEP).await? {
            0 => return events,
            deleted => swept.dead_letters += deleted,
        }
    }
}

/// Tells the janitor how a sweep ended, also when it panicked: then its own end follows.
struct ReportOnce(Option<ActorRef<JanitorMessage>>);

impl ReportOnce {
    fn send(mut self, swept: Swept, outcome: Result<(), StoreError>) {
        if let Some(janitor) = self.0.take() {
            let _ended = janitor.cast(JanitorMessage::Swept(swept, outcome));
        }
    }
}

impl Drop for ReportOnce {
    fn drop(&mut self) {
        if let Some(janitor) = self.0.take() {
            let panicked = StoreError::Other("a sweep panicked".to_owned());
            let _ended = janitor.cast(JanitorMessage::Swept(Swept::default(), Err(panicked)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;
    use crate::config::Collections;
    use crate::event::{
        Actor as EventActor, AuditEvent, DeadLetter, DeadLetterReason, SourceName, Target,
    };
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Commit, EventFilter, Record};

    async fn open(path: &Path) -> Arc<dyn Store> {
        let store = SqliteStore::open(path, Duration::from_secs(30), &Collections::default());
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        store.prepare().await.unwrap();
        store
    }

    fn args(store: &Arc<dyn Store>) -> JanitorArgs {
        JanitorArgs {
            store: Arc::clone(store),
            days: 1,
            every: Duration::from_millis(20),
            progress: Progress::on_demand(),
            metrics: Metrics::new(),
        }
    }

    async fn enter(store: &dyn Store, key: &str, age: SignedDuration) {
        let event = AuditEvent {
            at: crate::event::to_millis(Timestamp::now() - age),
            source: SourceName::new("s"),
            external_id: key.to_owned(),
            action: "a.b".into(),
            outcome: None,
            actor: EventActor::default(),
            target: Target::default(),
            tenant_slug: None,
            metadata: serde_json::Map::new().into(),
        };
        let record = Record::Event {
            event: &event,
            tenant_slug: None,
        };
        let commit = Commit {
            records: vec![record],
            ..Commit::default()
        };
        store.commit(&commit).await.unwrap();
    }

    async fn keys(store: &dyn Store) -> Vec<String> {
        let events = store.find_events(&EventFilter::default(), None, 10).await;
        events
            .unwrap()
            .into_iter()
            .map(|event| event.external_id)
            .collect()
    }

    /// Asks until it is so; the test's own time limit ends what never comes.
    async fn until_kept(store: &dyn Store, wanted: &[&str]) {
        let asking = async {
            while keys(store).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asking)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn it_sweeps_at_start_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("daybook.db")).await;
        let (old, young) = (
            SignedDuration::from_hours(25),
            SignedDuration::from_hours(23),
        );
        enter(&*store, "old", old).await;
        enter(&*store, "young", young).await;
        let spawned = ractor::Actor::spawn(None, Janitor, args(&store)).await;
        let (janitor, ended) = spawned.unwrap();
        until_kept(&*store, &["young"]).await;
        enter(&*store, "old again", old).await;
        until_kept(&*store, &["young"]).await;
        janitor.stop(None);
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_takes_long_to_prepare_is_no_stall() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daybook.db");
        let store = open(&path).await;
        let other = rusqlite::Connection::open(&path).unwrap();
        let lose = "DROP INDEX auditevents_at_facet; BEGIN IMMEDIATE";
        other.execute_batch(lose).unwrap();
        let progress = Progress::on_demand();
        let _working = progress.work();
        let stalls = || {
            let later = tokio::time::Instant::now() + Duration::from_secs(3600);
            progress.stalled_for(later).is_some()
        };
        let mut swept = Swept::default();
        let mut sweeping = Box::pin(sweep(&*store, Timestamp::now(), &progress, &mut swept));
        assert!(sweeping.as_mut().now_or_never().is_none());
        assert!(!stalls());
        other.execute_batch("COMMIT").unwrap();
        sweeping.await.unwrap();
        assert!(stalls());
    }

    #[tokio::test]
    async fn what_was_deleted_counts_when_the_sweep_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daybook.db");
        let store = open(&path).await;
        enter(&*store, "old", SignedDuration::from_hours(25)).await;
        let letter = DeadLetter {
            source: SourceName::new("s"),
            position: "old".to_owned(),
            reason: DeadLetterReason::Malformed,
            detail: String::new(),
            raw: Bytes::new(),
            raw_length: 0,
            at: Timestamp::UNIX_EPOCH,
        };
        let commit = Commit {
            records: vec![Record::DeadLetter(&letter)],
            ..Commit::default()
        };
        store.commit(&commit).await.unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        let keep = |kept: &str| {
            let keep = format!(
                "CREATE TRIGGER keep BEFORE DELETE ON {kept} BEGIN SELECT RAISE(ABORT, 'kept'); END"
            );
            connection.execute_batch(&keep).unwrap();
        };
        keep("auditdeadletters");
        let mut janitor = JanitorState {
            args: args(&store),
            sweeps: JoinSet::new(),
            failing: false,
        };
        let mut swept = Swept::default();
        let progress = janitor.args.progress.clone();
        let outcome = sweep(&*store, Timestamp::now(), &progress, &mut swept).await;
        assert!(outcome.is_err());
        janitor.note(swept, outcome);
        let counts = janitor.args.metrics.render();
        let counted = "daybook_retention_deleted_events_total 1\n";
        assert!(counts.contains(counted), "{counts}");

        // Nor do the letters stay where the events cannot go.
        connection.execute_batch("DROP TRIGGER keep").unwrap();
        enter(&*store, "next", SignedDuration::from_hours(25)).await;
        keep("auditevents");
        let mut swept = Swept::default();
        let outcome = sweep(&*store, Timestamp::now(), &progress, &mut swept).await;
        assert!(outcome.is_err());
        assert_eq!((swept.events, swept.dead_letters), (0, 1));
    }
}
