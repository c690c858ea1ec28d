//! Delivery that survives the receiver: send, await the acknowledgement, resend, divide.
//!
//! A mailbox dies with its actor, so what was sent is not yet delivered. The sender keeps a batch
//! in its [`Outbox`] until it is acknowledged and sends it again when the receiver dies. A batch
//! that *kills* its receiver must not be resent for ever: after three such deaths it is divided,
//! and the single item that still kills is given to the caller as [`Verdict::Poison`].
//!
//! Only a batch that was being handled is suspected. The receiver says so through the
//! [`Custody`] that travels in the message; what merely sat in a dead mailbox is innocent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ractor::{Message, MessagingErr, RpcReplyPort};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::slot::Slot;

/// Why a call brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no one to call within the time; nothing was sent.
    #[error("no peer to call")]
    NoPeer,
    /// The receiver dropped the reply port: it died, or its mailbox was flushed.
    #[error("the callee died before it answered")]
    CalleeDied,
    /// The answer is late. The message is *not* withdrawn; its reply port is closed, and a
    /// receiver should skip a message whose port is closed.
    #[error("the callee did not answer in time")]
    TimedOut,
}

/// Calls whoever is in the slot and awaits the answer, `timeout` in all.
///
/// With nobody there it waits for a peer. A message that the peer refuses because it has just
/// ended goes to its successor. A timeout longer than one and a quarter of the supervisor's stall
/// limit lets a hanging receiver be killed first, so that the call ends in
/// [`CallError::CalleeDied`] and the batch it hangs on is suspected. Cancel-safe in the sense of [`CallError::TimedOut`].
pub async fn call<M: Message, R>(
    slot: &Slot<M>,
    timeout: Duration,
    build: impl FnOnce(RpcReplyPort<R>) -> M,
) -> Result<R, CallError> {
    call_in_custody(slot, timeout, &Custody::new(), build).await
}

/// The same for a message whose handling may take longer than the time: whenever that is over while
/// its custody says that it is being handled, it begins anew. Somebody must watch the receiver: one
/// that hangs in its handling is waited for until it is killed.
pub async fn call_in_custody<M: Message, R>(
    slot: &Slot<M>,
    timeout: Duration,
    custody: &Custody,
    build: impl FnOnce(RpcReplyPort<R>) -> M,
) -> Result<R, CallError> {
    let mut deadline = Instant::now() + timeout;
    let mut peer = timeout_at(deadline, slot.ready())
        .await
        .map_err(|_| CallError::NoPeer)?;
    let (reply, mut answer) = oneshot::channel();
    let remaining = deadline.saturating_duration_since(Instant::now());
    let mut message = build(RpcReplyPort::from((reply, remaining)));
    loop {
        message = match peer.send_message(message) {
            Ok(()) => break,
            Err(MessagingErr::SendErr(unsent)) => unsent,
            Err(MessagingErr::ChannelClosed | MessagingErr::InvalidActorType) => {
                return Err(CallError::CalleeDied);
            }
        };
        peer = timeout_at(deadline, slot.ready_after(peer.get_id()))
            .await
            .map_err(|_| CallError::NoPeer)?;
    }
    // A message sent in the very moment of its receiver's death can lie in the dead mailbox, port and
    // all, for as long as anybody holds the receiver's address.
    drop(peer);
    loop {
        match timeout_at(deadline, &mut answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) => return Err(CallError::CalleeDied),
            Err(_) if custody.fate() == Fate::Interrupted => deadline = Instant::now() + timeout,
            Err(_) => return Err(CallError::TimedOut),
        }
    }
}

/// What became of a message in its receiver's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The receiver never began.
    Untouched,
    /// It began and did not finish: killed, cancelled, stalled, or failed with an error.
    Interrupted,
    /// It panicked while at it.
    Panicked,
    /// It finished; a later death of the receiver is not this message's doing.
    Finished,
}

/// The marker that travels in a message and tells the sender how far the receiver came.
#[derive(Clone, Debug, Default)]
pub struct Custody(Arc<AtomicU8>);

impl Custody {
    const UNTOUCHED: u8 = 0;
    const INTERRUPTED: u8 = 1;
    const PANICKED: u8 = 2;
    const FINISHED: u8 = 3;

    /// A message that nobody has touched.
    pub fn new() -> Self {
        Self::default()
    }

    /// Called by the receiver when it begins with the message.
    pub fn taken(&self) {
        self.0.store(Self::INTERRUPTED, Ordering::Release);
    }

    /// Like [`Custody::taken`], with a guard that also tells a panic from a kill. Hold it in the
    /// handler's frame: a panic unwinds the frame, but not the actor's state.
    pub fn begin(&self) -> Handling {
        self.taken();
        Handling(self.clone())
    }

    /// Whether the receiver had begun and not finished.
    pub fn was_taken(&self) -> bool {
        matches!(self.fate(), Fate::Interrupted | Fate::Panicked)
    }

    /// How far the receiver came.
    pub fn fate(&self) -> Fate {
        match self.0.load(Ordering::Acquire) {
            Self::UNTOUCHED => Fate::Untouched,
            Self::PANICKED => Fate::Panicked,
            Self::FINISHED => Fate::Finished,
            _ => Fate::Interrupted,
        }
    }
}

/// Held by a receiver while it handles a message.
#[derive(Debug)]
#[must_use = "the handling is interrupted when this is dropped"]
pub struct Handling(Custody);

impl Handling {
    /// The message was dealt with.
    pub fn finish(self) {
        (self.0).0.store(Custody::FINISHED, Ordering::Release);
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0).0.store(Custody::PANICKED, Ordering::Release);
        }
    }
}

/// A batch that can be cut in two.
pub trait Divisible: Sized + Clone {
    /// How many items.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The front and the back, together the same items in the same order. Asked only of two items
    /// or more; neither part may be empty.
    fn split(self) -> (Self, Self);
}

/// How many deaths make a suspect, and how many a culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Deaths after which a fresh batch is divided. A part of a divided batch is divided again
    /// after one.
    pub deaths_to_divide: u32,
    /// Deaths, surely caused, after which a single item is poison.
    pub deaths_to_condemn: u32,
    /// Deaths with any cause (kills included) after which a single item is poison all the same.
    pub interruptions_to_condemn: u32,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self {
            deaths_to_divide: 3,
            deaths_to_condemn: 3,
            interruptions_to_condemn: 10,
        }
    }
}

/// What follows from a death of the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<B> {
    /// Send again what [`Outbox::next`] gives.
    Resend,
    /// The batch was divided; send what [`Outbox::next`] gives, which is its front.
    Divided,
    /// This single item kills its receiver. It is no longer in the outbox, and everything before
    /// it has been acknowledged. Deal with it before sending the rest.
    Poison(B),
}

/// Holds batches until they are acknowledged, in order. Pure: it sends nothing itself.
///
/// A batch is divided into parts of about the square root of its size, and the part that kills
/// again into single items (all by repeated [`Divisible::split`]), not into halves: finding one poison among *n* items then takes seven
/// deaths of the receiver however large *n* is, where halving takes log₂ *n* more, and the
/// receiver's other senders suffer each of them.
#[derive(Clone, Debug)]
pub struct Outbox<B> {
    suspicion: Suspicion,
    parts: VecDeque<Part<B>>,
}

#[derive(Clone, Debug)]
struct Part<B> {
    batch: B,
    inherited_suspicion: bool,
    deaths: u32,
    interruptions: u32,
}

impl<B> Part<B> {
    fn fresh(batch: B, inherited_suspicion: bool) -> Self {
        Self {
            batch,
            inherited_suspicion,
            deaths: 0,
            interruptions: 0,
        }
    }
}

impl<B: Divisible> Default for Outbox<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Divisible> Outbox<B> {
    /// An empty outbox with the default [`Suspicion`].
    pub fn new() -> Self {
        Self::with_suspicion(Suspicion::default())
    }

    /// An empty outbox.
    pub fn with_suspicion(suspicion: Suspicion) -> Self {
        Self {
            suspicion,
            parts: VecDeque::new(),
        }
    }

    /// Puts a batch behind all others.
    pub fn push(&mut self, batch: B) {
        self.parts.push_back(Part::fresh(batch, false));
    }

    /// Puts a batch before all others: what takes the place of a poison item.
    pub fn push_front(&mut self, batch: B) {
        self.parts.push_front(Part::fresh(batch, false));
    }

    /// What to send now: the front part, until it is acknowledged.
    pub fn next(&self) -> Option<&B> {
        self.parts.front().map(|part| &part.batch)
    }

    /// Whether the front part may be a killer. A receiver that puts several senders' batches
    /// together should handle such a one alone, or the innocent fall with the guilty.
    pub fn is_suspect(&self) -> bool {
        self.parts.front().is_some_and(|part| {
            part.inherited_suspicion || part.deaths > 0 || part.interruptions > 0
        })
    }

    /// Whether everything has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Items not yet acknowledged.
    pub fn pending_items(&self) -> usize {
        self.parts.iter().map(|part| part.batch.len()).sum()
    }

    /// The front part is delivered; gives it back.
    pub fn acked(&mut self) -> Option<B> {
        self.parts.pop_front().map(|part| part.batch)
    }

    /// The receiver declined for now (a nack). Nothing changes: the same part is next.
    pub fn refused(&mut self) {}

    /// The receiver died. `handled`: while it was at the front part ([`Custody::was_taken`]).
    pub fn callee_died(&mut self, handled: bool) -> Verdict<B> {
        self.callee_fell(if handled {
            Fate::Panicked
        } else {
            Fate::Untouched
        })
    }

    /// The receiver died; like [`Outbox::callee_died`] with the exact [`Custody::fate`], so that
    /// an item is not condemned for kills that came from elsewhere.
    pub fn callee_fell(&mut self, fate: Fate) -> Verdict<B> {
        let Some(part) = self.parts.front_mut() else {
            return Verdict::Resend;
        };
        match fate {
            Fate::Untouched | Fate::Finished => return Verdict::Resend,
            Fate::Interrupted => part.interruptions += 1,
            Fate::Panicked => part.deaths += 1,
        }
        let all_deaths = part.deaths + part.interruptions;
        if part.batch.len() <= 1 {
            let condemned = part.deaths >= self.suspicion.deaths_to_condemn
                || all_deaths >= self.suspicion.interruptions_to_condemn;
            return match self.parts.pop_front_if(|_| condemned) {
                Some(part) => Verdict::Poison(part.batch),
                None => Verdict::Resend,
            };
        }
        if !part.inherited_suspicion && all_deaths < self.suspicion.deaths_to_divide {
            return Verdict::Resend;
        }
        self.divide_front();
        Verdict::Divided
    }

    fn divide_front(&mut self) {
        let Some(part) = self.parts.pop_front() else {
            return;
        };
        let part_size = if part.inherited_suspicion {
            1
        } else {
            part.batch.len().isqrt().max(1)
        };
        let mut cut = Vec::new();
        cut_into(part.batch, part_size, &mut cut);
        for batch in cut.into_iter().rev() {
            self.parts.push_front(Part::fresh(batch, true));
        }
    }
}

fn cut_into<B: Divisible>(batch: B, part_size: usize, parts: &mut Vec<B>) {
    let items = batch.len();
    if items <= part_size || items < 2 {
        parts.push(batch);
        return;
    }
    let (front, back) = batch.split();
    debug_assert!(front.len() < items && back.len() < items, "an empty part");
    for part in [front, back] {
        cut_into(part, part_size, parts);
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
