//! The live address of an actor that may be replaced at any time.

use std::fmt;
use std::sync::Arc;

use ractor::{ActorId, ActorRef, ActorStatus, Message};
use tokio::sync::watch;

/// Where the current generation of an actor is found.
///
/// Senders hold the slot and never the actor's reference: while a peer restarts they wait in
/// [`Slot::ready`], and nobody keeps the address of a dead generation. A peer that no longer
/// accepts messages (draining, stopping, dead) counts as absent even before it is withdrawn.
pub struct Slot<M> {
    peer: Arc<watch::Sender<Option<ActorRef<M>>>>,
}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self {
            peer: Arc::clone(&self.peer),
        }
    }
}

impl<M: Message> fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.current()).finish()
    }
}

impl<M: Message> Default for Slot<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message> Slot<M> {
    /// An empty slot.
    pub fn new() -> Self {
        Self {
            peer: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Makes this generation the one that senders find.
    pub fn publish(&self, actor: ActorRef<M>) {
        self.peer.send_replace(Some(actor));
    }

    /// Empties the slot if it holds this very generation: a late call cannot take away a successor.
    pub fn withdraw_if(&self, generation: ActorId) {
        self.withdraw_where(|peer| peer.get_id() == generation);
    }

    /// Empties the slot if its peer no longer accepts messages.
    pub fn withdraw_dead(&self) {
        self.withdraw_where(|peer| !accepts_messages(peer));
    }

    fn withdraw_where(&self, condition: impl FnOnce(&ActorRef<M>) -> bool) {
        self.peer.send_if_modified(|slot| {
            if !slot.as_ref().is_some_and(condition) {
                return false;
            }
            *slot = None;
            true
        });
    }

    /// The peer, if there is one that accepts messages now.
    pub fn current(&self) -> Option<ActorRef<M>> {
        self.peer.borrow().clone().filter(accepts_messages)
    }

    /// Waits for a peer that accepts messages. Cancel-safe.
    pub async fn ready(&self) -> ActorRef<M> {
        self.ready_where(|_| true).await
    }

    /// Waits for a peer other than this generation. Cancel-safe.
    pub async fn ready_after(&self, generation: ActorId) -> ActorRef<M> {
        self.ready_where(|peer| peer.get_id() != generation).await
    }

    async fn ready_where(&self, condition: impl Fn(&ActorRef<M>) -> bool) -> ActorRef<M> {
        let mut peers = self.peer.subscribe();
        loop {
            let peer = peers.borrow_and_update().clone();
            if let Some(peer) = peer.filter(|peer| accepts_messages(peer) && condition(peer)) {
                return peer;
            }
            peers
                .changed()
                .await
                .expect("this slot owns the sender and is borrowed here");
        }
    }
}

fn accepts_messages<M>(peer: &ActorRef<M>) -> bool {
    peer.get_status() < ActorStatus::Draining
}
