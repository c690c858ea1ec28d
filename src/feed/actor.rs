//! The actor that follows the store for everyone who reads along.

use std::time::Duration;

use daybook_actors::liveness::Progress;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::Feed;
use super::ring::Fed;
use crate::probe::Probe;
use crate::store::StoreError;
use crate::store::feed::Follow;

/// How long the store is followed after the last reader has gone: one that comes back at once
/// finds everything remembered.
const LINGER: Duration = Duration::from_secs(30);

/// Between two tries while the store is away.
const RETRY: Duration = Duration::from_secs(1);

/// What the actor is told.
pub enum FeedMessage {
    /// There is a reader.
    Begin,
    /// Look for new events once, and again.
    Look,
}

/// The actor.
pub struct FeedActor;

/// What the actor works with.
#[derive(Clone)]
pub struct FeedArgs {
    /// Whose events.
    pub feed: Feed,
    /// Shown while the store is followed.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct FeedState {
    args: FeedArgs,
    follow: Option<Box<dyn Follow>>,
    /// A [`FeedMessage::Look`] is on its way.
    looking: bool,
    without_readers: Option<Instant>,
    failing: bool,
}

impl Actor for FeedActor {
    type Msg = FeedMessage;
    type State = FeedState;
    type Arguments = FeedArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: FeedArgs,
    ) -> Result<FeedState, ActorProcessingErr> {
        Ok(FeedState {
            args,
            follow: None,
            looking: false,
            without_readers: None,
            failing: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut FeedState,
    ) -> Result<(), ActorProcessingErr> {
        // Readers of a predecessor wait. Where there are none its place is forgotten: whoever comes
        // later begins then.
        if !state.args.feed.rest() {
            myself.cast(FeedMessage::Begin)?;
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: FeedMessage,
        state: &mut FeedState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FeedMessage::Begin if state.looking => {}
            FeedMessage::Begin => {
                state.looking = true;
                myself.cast(FeedMessage::Look)?;
            }
            FeedMessage::Look if state.may_rest() => {
                state.follow = None;
                state.looking = false;
            }
            FeedMessage::Look => {
                state.args.probe.hit("before_look").await?;
                let working = state.args.progress.work();
                let looked = state.look().await;
                drop(working);
                match looked {
                    Ok(()) => {
                        state.failing = false;
                        myself.cast(FeedMessage::Look)?;
                    }
                    Err(error) => {
                        state
                            .args
                            .feed
                            .shared
                            .metrics
                            .store_errors(error.reason())
                            .increment(1);
                        if !state.failing {
                            tracing::warn!(error = %error, "the live stream waits for the store");
                        }
                        state.failing = true;
                        // Detached: a timer that fires after the actor's end reaches nobody.
                        let _timer = myself.send_after(RETRY, || FeedMessage::Look);
                    }
                }
            }
        }
        Ok(())
    }
}

impl FeedState {
    async fn look(&mut self) -> Result<(), StoreError> {
        let feed = &self.args.feed;
        let follow = match &mut self.follow {
            Some(follow) => follow,
            none => {
                let store = &feed.shared.store;
                let position = feed.position();
                let mut follow = store.follow_live(position.as_deref()).await?;
                if follow.is_none() {
                    follow = store.follow_live(None).await?;
                }
                let Some(follow) = follow else {
                    return Err(StoreError::Other("the store cannot be followed".to_owned()));
                };
                if position.is_none() {
                    feed.publish(Vec::new(), follow.position());
                }
                none.insert(follow)
            }
        };
        let found = follow.next().await?;
        let fed = found.entries.into_iter().map(Fed::new).collect();
        feed.publish(fed, follow.position());
        Ok(())
    }

    /// Whether nobody has read along for a while; then everything is forgotten.
    fn may_rest(&mut self) -> bool {
        if self.args.feed.has_readers() {
            self.without_readers = None;
            return false;
        }
        let since = *self.without_readers.get_or_insert_with(Instant::now);
        since.elapsed() >= LINGER && self.args.feed.rest()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Collections;
    use crate::store::sqlite::SqliteStore;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test]
    async fn a_place_that_nobody_reads_on_from_is_forgotten_at_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daybook.db");
        let store = SqliteStore::open(&path, Duration::from_secs(30), &Collections::default());
        let feed = Feed::new(Arc::new(store.unwrap()), Metrics::new());
        // As one that fell has left it.
        feed.publish(Vec::new(), "a place".to_owned());
        assert!(feed.shared.state.borrow().following);
        let args = FeedArgs {
            feed: feed.clone(),
            progress: Progress::on_demand(),
            probe: Probe::default(),
        };
        let (actor, end) = FeedActor::spawn(None, FeedActor, args).await.unwrap();
        // It stops once it has started.
        actor.stop(None);
        end.await.unwrap();
        assert_eq!(feed.position(), None);
        assert!(!feed.shared.state.borrow().following);
    }
}
