//! The journal: where pushed events are durable while the store is away.
//!
//! A sender that pushes (Stalwart, a platform service) is answered 200 only for what is durable.
//! When the store does not take its events in time, the push is appended here, as it was received,
//! and answered from here. The journal's drainer (`sources::drainer`) reads it back in the order
//! of arrival, decodes it with the same decoders and delivers it like any other input.
//!
//! # Invariants
//!
//! 1. An append that was answered is in the journal after any crash, until it is drained.
//! 2. Nothing comes out that was not put in: every byte stands under a checksum that is bound to
//!    its place.
//! 3. What is drained goes only after its events are durable in the store. After a crash some of
//!    it may come out again: its events have the same keys and are recognised.
//! 4. What cannot be read any more is kept aside and reported, never passed over in silence.
//!
//! # Files
//!
//! The directory is Daybook's alone: mode 0700, its files 0600. A push stands there raw, secrets
//! included, for as long as it is not drained: masking comes with decoding.
//!
//! | name | content |
//! | --- | --- |
//! | `NNNNNNNNNNNNNNNN.journal` | a segment; its number, counted up and never used again |
//! | `drained` | up to where everything is in the store |
//! | `lock` | locked by the one process that has the journal open |
//! | `NNNNNNNNNNNNNNNN.OFFSET.CRC.corrupt` | bytes of a segment that could not be read, for a person |
//!
//! All numbers are little-endian; every checksum is a CRC-32 (see `docs/decisions/0003-journal.md`).
//!
//! ```text
//! segment   magic "daybookj" (8)  version (4)  segment (8)  checksum of these (4)   then frames
//! frame     length n (4)  checksum of the record (4)  checksum of head and place (4)  record (n)
//! record    kind (1)  received at, ms since 1970 (8)  source: length (2), name
//!           kind 1, Stalwart:  nothing more
//!           kind 2, recorder:  request id (16)  has key (1)  key: length (4), text
//!           then the body as received, up to the end
//! drained   magic "daybookd" (8)  segment (8)  offset (8)  checksum of these (4)
//! ```
//!
//! The head of a frame is checked for itself, together with its segment and offset: a damaged
//! record does not hide where the next one begins, and bytes that a sender put into a body, or
//! that stem from elsewhere, are never taken for a frame.
//!
//! # Writing
//!
//! One thread owns the files. It takes all appends that wait, writes them, syncs once and answers
//! them all: while it syncs, the next group gathers. What an appender has given up before its turn
//! is passed over: its sender was told so and sends it again.
//!
//! Every process run begins a segment of its own with its first append; a new one follows when it
//! has grown to its size. A segment that cannot be written is cut back to its last durable byte.
//! One that cannot be *synced* is given up: what the kernel has of it afterwards says nothing about
//! the disk. Its durable part is opened again and read over, and appends go on in a new segment. So
//! they do when a segment is not in its place any more: nobody would drain what is written to it.
//!
//! # Recovery
//!
//! Only the last segment can end in an unfinished group, and the end of one that was never
//! answered is cut off. Damage is told from that by what it looks like: something sound follows
//! it, or it has the full length, or it is no beginning of a frame. Damage is copied aside first.
//!
//! A segment that the disk does not give out is no damage: it is read again and again, and holds up
//! what stands behind it, until it can be read or its file is gone.
//!
//! # Order
//!
//! Pushes are drained in the order in which they came; while the journal is drained, new ones may
//! go straight to the store. That is deliberate: the timeline is ordered by when events happened,
//! never by when they were entered, so nobody waits behind a backlog that changes nothing for him.

mod disk;
mod frame;
mod open;
mod read;
mod record;
mod shared;
mod worker;

pub use disk::{REMEDY, try_closing};
pub use open::{Journal, JournalOptions, OpenError, SyncFile, waiting_bytes};
pub use read::{Damage, Stored, Window};
pub use record::{PushKind, PushRecord, RecordError};
pub use shared::{AppendError, Figures, Position};
