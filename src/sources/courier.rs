//! How a source gets a batch downstream: it holds the batch until the ack, sends it again when
//! none comes, divides it when it kills its handlers, and keeps the accounts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook_actors::budget::{Permit, Share};
use daybook_actors::delivery::{CallError, Custody, Outbox, Verdict, call_in_custody};
use daybook_actors::liveness::Progress;
use daybook_actors::slot::Slot;
use rand::Rng;

use crate::batch::{Batch, Delivery, Entry, InMailbox, Nack, Receipt, Reply};
use crate::event::DeadLetterReason;
use crate::status::{Intake, SourceState, SourceStatus};
use crate::tenants::ResolverMessage;

/// The pause before a refused batch is sent again: at least what the refuser asks for, doubled
/// with every refusal, jittered.
const RETRY_CAP: Duration = Duration::from_secs(1);
/// For so long a fenced source leaves the cursor to whoever has claimed it: some batches, though they
/// be slow.
pub const FENCED_RETRY: Duration = Duration::from_secs(15);

/// A source's way downstream. Cheap to clone.
#[derive(Clone)]
pub struct Courier {
    /// Whom to send to.
    pub resolver: Slot<ResolverMessage>,
    /// Its mailbox's gauge.
    pub resolver_mailbox: metrics::Gauge,
    /// The source's part of the bytes in flight.
    pub share: Share,
    /// The source's entry.
    pub status: Arc<SourceStatus>,
    /// How long an ack may take, but for the time in which the batch is being handled: a store that
    /// is slow takes it in many parts. Longer than the store's own timeout.
    pub ack_timeout: Duration,
    /// Where an actor that waits here in its own handler declares it: neither a late ack nor a
    /// want of room is its fault.
    pub waits_of: Option<Progress>,
}

/// A batch that is not durable yet, with its accounts.
pub struct Parcel {
    whole: Batch,
    outbox: Outbox<Batch>,
    intake: Intake,
    filtered: u64,
    receipt: Receipt,
    refusals: u32,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    /// All of it is durable and the cursor stands.
    Durable,
    /// Not yet: try again after the pause.
    Later(Duration),
    /// The cursor is not where the source thinks: load it again and start from there.
    Reload(String),
    /// Another generation of the source owns the cursor. Whoever claims it back before
    /// [`FENCED_RETRY`] would take it from each other for ever.
    Fenced(String),
}

/// Why a single attempt has made nothing durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undurable {
    /// Somebody downstream has refused it.
    #[error("the store does not take events")]
    Refused,
    /// No answer came in time.
    #[error("the store is late")]
    Late,
}

impl Courier {
    /// Waits for room in flight.
    pub async fn room(&self, bytes: u64) -> Permit {
        let progress = self.waits_of.as_ref();
        // Permits go back by themselves, so room always comes, however late.
        let _waiting = progress.map(|progress| progress.long_wait(Duration::MAX));
        self.share.acquire(bytes).await
    }

    /// Makes a parcel of a batch. `filtered`: pieces of input left out of it on purpose.
    pub fn parcel(&self, batch: Batch, filtered: u64) -> Parcel {
        let intake = self.status.take_in(&batch, filtered);
        let mut outbox = Outbox::new();
        outbox.push(batch.clone());
        Parcel {
            whole: batch,
            outbox,
            intake,
            filtered,
            receipt: Receipt::default(),
            refusals: 0,
        }
    }

    /// Sends until everything is durable or somebody refuses. Cancel-safe: what was not
    /// acknowledged is sent again by the next attempt, and a repeat is harmless.
    pub async fn attempt(&self, parcel: &mut Parcel) -> Attempt {
        while let Some(part) = parcel.outbox.next() {
            let part = part.clone();
            let suspect = parcel.outbox.is_suspect();
            let is_letter = matches!(part.entries(), [Entry::Dead(_)]);
            let custody = Custody::new();
            let travelling = custody.clone();
            let progress = self.waits_of.as_ref();
            // Whoever handles it is watched too: it answers, or is killed.
            let waiting = progress.map(|progress| progress.long_wait(Duration::MAX));
            let answer: Result<Reply, CallError> =
                call_in_custody(&self.resolver, self.ack_timeout, &custody, |reply| {
                    ResolverMessage::Resolve(Box::new(Delivery {
                        batch: part,
                        custody: travelling,
                        suspect,
                        in_mailbox: Some(InMailbox::new(&self.resolver_mailbox)),
                        reply,
                    }))
                })
                .await;
            drop(waiting);
            match answer {
                Ok(Ok(receipt)) => {
                    parcel.receipt.add(&receipt);
                    parcel.outbox.acked();
                    parcel.refusals = 0;
                }
                Ok(Err(Nack::Unavailable {
                    retry_after,
                    reason,
                })) => {
                    self.status.set_state(SourceState::Blocked, Some(reason));
                    return Attempt::Later(parcel.pause(retry_after));
                }
                Ok(Err(Nack::Failed {
                    reason,
                    refuses_letter,
                })) => {
                    self.status
                        .set_state(SourceState::Blocked, Some(reason.clone()));
                    // There is no way to make less of a letter but to lose what it keeps.
                    if is_letter && !refuses_letter {
                        return Attempt::Later(parcel.pause(Duration::from_millis(50)));
                    }
                    let verdict = parcel.outbox.callee_died(true);
                    condemn(
                        &mut parcel.outbox,
                        verdict,
                        DeadLetterReason::Rejected,
                        &reason,
                    );
                    return Attempt::Later(parcel.pause(Duration::from_millis(50)));
                }
                Ok(Err(Nack::Gap { stored })) => {
                    return Attempt::Reload(format!(
                        "the stored cursor stands at {stored}, before this batch"
                    ));
                }
                Ok(Err(Nack::Fenced { owner: 0 })) => {
                    return Attempt::Reload("the store has lost the cursor".to_owned());
                }
                Ok(Err(Nack::Fenced { owner })) => {
                    parcel.intake.owe();
                    return Attempt::Fenced(format!("generation {owner} owns the cursor"));
                }
                Err(CallError::CalleeDied) => {
                    let verdict = parcel.outbox.callee_fell(custody.fate());
                    let detail = "its handler panicked over it again and again";
                    condemn(
                        &mut parcel.outbox,
                        verdict,
                        DeadLetterReason::Poison,
                        detail,
                    );
                }
                Err(error @ (CallError::NoPeer | CallError::TimedOut)) => {
                    self.status
                        .set_state(SourceState::Blocked, Some(error.to_string()));
                    return Attempt::Later(parcel.pause(Duration::from_millis(50)));
                }
            }
        }
        Attempt::Durable
    }

    /// Closes the accounts of a parcel that is durable.
    pub fn settle(&self, parcel: Parcel) -> Receipt {
        let receipt = parcel.receipt;
        parcel
            .intake
            .settle(&parcel.whole, &receipt, parcel.filtered);
        receipt
    }

    /// One attempt, for so long at most; the parcel is to be settled then. For pushed events that can
    /// go to the journal instead.
    ///
    /// # Errors
    /// Why the parcel is not durable. Part of it may be, or may still become so.
    pub async fn deliver_once(
        &self,
        parcel: &mut Parcel,
        at_most: Duration,
    ) -> Result<(), Undurable> {
        match tokio::time::timeout(at_most, self.attempt(parcel)).await {
            Ok(Attempt::Durable) => Ok(()),
            Ok(Attempt::Later(_) | Attempt::Reload(_) | Attempt::Fenced(_)) => {
                Err(Undurable::Refused)
            }
            Err(_) => Err(Undurable::Late),
        }
    }

    /// Sends again and again until the parcel is durable or the time is over. For pushed events:
    /// their sender waits for the answer and has its own patience.
    pub async fn deliver_within(
        &self,
        mut parcel: Parcel,
        until: Instant,
    ) -> Result<Receipt, String> {
        loop {
            let attempt = tokio::time::timeout_at(until.into(), self.attempt(&mut parcel)).await;
            let Ok(attempt) = attempt else {
                return Err("no acknowledgement in time".to_owned());
            };
            match attempt {
                Attempt::Durable => return Ok(self.settle(parcel)),
                Attempt::Reload(reason) | Attempt::Fenced(reason) => return Err(reason),
                Attempt::Later(pause) => {
                    if Instant::now() + pause >= until {
                        return Err("the store does not take events".to_owned());
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

impl Parcel {
    /// The batch as it was made.
    pub fn batch(&self) -> &Batch {
        &self.whole
    }

    fn pause(&mut self, at_least: Duration) -> Duration {
        let ceiling = (at_least * 2u32.saturating_pow(self.refusals)).min(RETRY_CAP);
        self.refusals = (self.refusals + 1).min(8);
        ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Puts a dead letter in the place of an item that nothing can handle.
fn condemn(
    outbox: &mut Outbox<Batch>,
    verdict: Verdict<Batch>,
    reason: DeadLetterReason,
    detail: &str,
) {
    if let Verdict::Poison(item) = verdict {
        tracing::error!(source = %item.source, reason = reason.as_str(), "an event is kept as a dead letter");
        outbox.push_front(item.into_dead_letter(reason, detail));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use daybook_actors::budget::Budget;
    use ractor::{Actor, ActorProcessingErr, ActorRef};
    use serde_json::Value;

    use super::*;
    use crate::event::SourceName;
    use crate::telemetry::metrics::Metrics;

    const ACK_TIMEOUT: Duration = Duration::from_millis(50);

    /// Handles each batch for much longer than that, and counts them.
    struct Slow;

    impl Actor for Slow {
        type Msg = ResolverMessage;
        type State = Arc<AtomicU64>;
        type Arguments = Arc<AtomicU64>;

        async fn pre_start(
            &self,
            _myself: ActorRef<Self::Msg>,
            batches: Self::Arguments,
        ) -> Result<Self::State, ActorProcessingErr> {
            Ok(batches)
        }

        async fn handle(
            &self,
            _myself: ActorRef<Self::Msg>,
            message: ResolverMessage,
            batches: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            if let ResolverMessage::Resolve(delivery) = message {
                batches.fetch_add(1, Ordering::Relaxed);
                let delivery = *delivery;
                let handling = delivery.custody.begin();
                tokio::time::sleep(ACK_TIMEOUT * 10).await;
                handling.finish();
                let _gone = delivery.reply.send(Ok(Receipt::default()));
            }
            Ok(())
        }
    }

    /// As the writer handles a large one where the store is slow: in parts.
    #[tokio::test]
    async fn a_batch_that_is_handled_for_longer_than_an_ack_may_take_is_sent_once() {
        let batches = Arc::new(AtomicU64::new(0));
        let spawned = Actor::spawn(None, Slow, Arc::clone(&batches)).await;
        let (slow, ended) = spawned.unwrap();
        let metrics = Metrics::new();
        let name = SourceName::new("s");
        let counters = metrics.source(&name, "ocis");
        let courier = Courier {
            resolver: Slot::new(),
            resolver_mailbox: metrics.actor_mailbox("resolver"),
            share: Budget::new(1000).share("s", 1.0),
            status: Arc::new(SourceStatus::new(name.clone(), "ocis", counters)),
            ack_timeout: ACK_TIMEOUT,
            waits_of: None,
        };
        courier.resolver.publish(slow.clone());
        let permit = courier.room(1).await;
        let batch = Batch::new(name, 1, Vec::new(), permit).with_step(0, 10, Value::Null);
        let mut parcel = courier.parcel(batch, 0);
        assert_eq!(courier.attempt(&mut parcel).await, Attempt::Durable);
        assert_eq!(batches.load(Ordering::Relaxed), 1);
        slow.stop(None);
        ended.await.unwrap();
    }
}
