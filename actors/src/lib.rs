//! Supervision and backpressure on [ractor].
//!
//! Ractor gives actors, links and events; it does not restart anything, and its mailboxes are
//! unbounded and die with their actors. This crate adds what a pipeline needs on top, and knows
//! nothing of what flows through it.
//!
//! | module | gives | against |
//! | --- | --- | --- |
//! | [`supervisor`] | one-for-one restarts, suspension, escalation, orderly drain | a crash that stays, a crash loop, children killed by their parent's end |
//! | [`policy`] | backoff with full jitter, restart intensity | restarts in step, restarts without end |
//! | [`liveness`] | a sign of life that the supervisor watches | an actor that waits for ever |
//! | [`slot`] | the live address of a peer | the address of a dead generation |
//! | [`budget`] | permits for bytes in flight, inside the messages | unbounded mailboxes |
//! | [`delivery`] | call and await, resend, divide, find the poison | mailboxes that die with their actor, batches that kill |
//!
//! # How they work together
//!
//! ```text
//!            Outbox: held until acknowledged
//!   sender ──────────────────────────────────────────▶ receiver
//!     │  1 acquire a Permit        Message {           ▲   │ 4 skip it if the reply port is closed
//!     │  2 wait for the Slot         batch, permit,    │   │ 5 custody.begin()
//!     │  3 call, await the answer    custody, reply }  │   ▼ 6 answer
//!     ◀── answered: acked · refused: resend later · died: was it in custody? ──┘
//!                                                      │
//!                        supervisor: restarts it, empties and refills the Slot
//! ```
//!
//! Whatever ends the receiver drops the message with everything in it: the permit goes back, the
//! reply port closes, and the sender, which still holds the batch, sends it to the successor.
//!
//! # Example
//!
//! A counter that dies of the number 13, a supervisor that brings it back, and a sender that
//! loses nothing but the 13.
//!
//! ```
//! use std::time::Duration;
//! use daybook_actors::delivery::{CallError, Custody, Divisible, Outbox, Verdict, call};
//! use daybook_actors::ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
//! use daybook_actors::slot::Slot;
//! use daybook_actors::supervisor::{
//!     ChildSpec, OnGiveUp, RootEnd, SupervisorArgs, SupervisorMessage, spawn_root,
//! };
//!
//! struct Add { numbers: Numbers, custody: Custody, reply: RpcReplyPort<()> }
//!
//! #[derive(Clone)]
//! struct Numbers(Vec<u32>);
//!
//! impl Divisible for Numbers {
//!     fn len(&self) -> usize { self.0.len() }
//!     fn split(mut self) -> (Self, Self) {
//!         let back = self.0.split_off(self.0.len() / 2);
//!         (self, Self(back))
//!     }
//! }
//!
//! struct Counter;
//!
//! impl Actor for Counter {
//!     type Msg = Add;
//!     type State = tokio::sync::watch::Sender<u32>;
//!     type Arguments = tokio::sync::watch::Sender<u32>;
//!
//!     async fn pre_start(&self, _: ActorRef<Add>, sum: Self::Arguments)
//!         -> Result<Self::State, ActorProcessingErr> { Ok(sum) }
//!
//!     async fn handle(&self, _: ActorRef<Add>, message: Add, sum: &mut Self::State)
//!         -> Result<(), ActorProcessingErr> {
//!         if message.reply.is_closed() {
//!             return Ok(()); // nobody waits any more: it will come again
//!         }
//!         let handling = message.custody.begin();
//!         if message.numbers.0.contains(&13) {
//!             panic!("unlucky");
//!         }
//!         sum.send_modify(|sum| *sum += message.numbers.0.iter().sum::<u32>());
//!         handling.finish();
//!         let _ = message.reply.send(());
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::panic::set_hook(Box::new(|_| ()));
//! # tokio::time::pause();
//! let sum = tokio::sync::watch::Sender::new(0);
//! let counter: Slot<Add> = Slot::new();
//! let suspend = OnGiveUp::Suspend { probe_every: Duration::from_secs(300) };
//! let child = ChildSpec::actor("counter", suspend, &counter, {
//!     let sum = sum.clone();
//!     move || (Counter, sum.clone())
//! });
//! let (root, end) = spawn_root(SupervisorArgs::new("root", vec![child])).await?;
//!
//! let mut outbox = Outbox::new();
//! outbox.push(Numbers((0..=20).collect()));
//! let mut poison = Vec::new();
//! while let Some(numbers) = outbox.next().cloned() {
//!     let custody = Custody::new();
//!     let travelling = custody.clone();
//!     let answer = call(&counter, Duration::from_secs(60), move |reply| Add {
//!         numbers, custody: travelling, reply,
//!     }).await;
//!     match answer {
//!         Ok(()) => drop(outbox.acked()),
//!         Err(CallError::CalleeDied) => {
//!             if let Verdict::Poison(item) = outbox.callee_fell(custody.fate()) {
//!                 poison.extend(item.0);
//!             }
//!         }
//!         Err(CallError::NoPeer | CallError::TimedOut) => outbox.refused(),
//!     }
//! }
//! assert_eq!(poison, [13]);
//! assert_eq!(*sum.borrow(), (0..=20).sum::<u32>() - 13);
//!
//! let drained = root.call(SupervisorMessage::Drain, None).await?;
//! assert!(drained.is_success());
//! assert_eq!(end.await?, RootEnd::Stopped);
//! # Ok(())
//! # }
//! ```
//!
//! # What ractor really does
//!
//! The version is pinned, and `tests/ractor_facts.rs` pins what this crate relies on. The facts
//! that shape the supervisor most:
//!
//! - A killed actor arrives as `ActorTerminated` *with* its state and the reason `killed` (without
//!   a state only in `post_start` and `post_stop`); a cancelled task arrives without a state. So
//!   neither the state nor the event alone tells a crash from a graceful end.
//! - A panic and a returned error arrive alike; [`supervisor::spawn_child`] marks the latter.
//! - The end of a parent, however graceful, kills its children without their `post_stop`, except
//!   those that are draining, which it leaves running.
//! - A message sent in the very moment of a death can escape the flush of the mailbox. It is dropped
//!   with the last address of the dead actor, so nobody keeps one: not while waiting for an answer.
//! - A death is reported before the dead state is dropped; only the join handle tells that.
//! - A failing `pre_start` sends no event, a slow one blocks whoever spawns.
//!
//! # Rules for actors under a supervisor
//!
//! - `pre_start` is pure; what can fail or take long is done in `post_start` or later.
//! - Tasks that an actor spawns are held in its state such that they are aborted when it is dropped.
//! - Timers are re-armed with `send_after`; `send_interval` fills the mailbox of a stuck actor.
//! - A handler that blocks its thread cannot be killed, by anybody.
//! - Profiles keep `panic = "unwind"`.

pub mod budget;
pub mod delivery;
pub mod liveness;
pub mod policy;
pub mod slot;
pub mod supervisor;

pub use ractor;
