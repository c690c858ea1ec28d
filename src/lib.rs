//! Daybook brings the audit events of a self-hosted workspace onto one timeline per tenant.
//!
//! ```text
//!  Authentik poller ─┐                                  ┌─ cursor (same store, moved by the writer only)
//!  OCIS tailer ──────┼─ batch ─▶ tenant resolver ─▶ batching writer ─▶ MongoDB | SQLite
//!  Stalwart acceptor ┤    ▲                              │
//!  recorder (API) ───┘    └────────── ack ◀──────────────┘
//! ```
//!
//! An event meets the folders in this order: [`sources`] (with [`tail`] for files) take it in and
//! [`sources::courier`] sends it as a [`batch`]; [`tenants`] finds whose it is; [`writer`] enters
//! it into the [`store`]; [`http`] shows it, [`feed`] as it is entered, and [`mod@export`] as a file. [`tree`] wires the actors, [`status`] and
//! [`telemetry`] tell how they are.
//!
//! # Invariants
//!
//! 1. **Conservation**: received = written + duplicate + filtered + dead-lettered + in flight.
//! 2. **No gap**: a cursor never moves past an event that is not durable.
//! 3. **No invention, no alteration**: a stored event says what its source said, secrets masked.
//! 4. **Once**: (source, externalId) is unique; a repeat is counted, not stored.
//! 5. **Bounded**: bytes in flight never exceed the budget.
//! 6. **Fenced**: a killed or superseded actor generation cannot move a cursor.
//! 7. **Isolated**: one source's trouble stops no other; one tenant's reader sees no other's events.
//! 8. **Live**: once faults stop, everything converges without a person.

pub mod batch;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod event;
pub mod export;
pub mod feed;
mod figures;
pub mod http;
pub mod janitor;
pub mod journal;
pub mod own_events;
pub mod probe;
pub mod replay;
pub mod simulators;
pub mod sources;
pub mod status;
pub mod store;
pub mod tail;
pub mod telemetry;
pub mod tenants;
pub mod tree;
pub mod writer;

/// Gives rustls its one cryptography provider, once per process.
pub fn install_crypto_provider() {
    // An error says that there is one already.
    let _already = rustls::crypto::ring::default_provider().install_default();
}
