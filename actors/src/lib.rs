//! Supervision.

pub mod budget;
pub mod delivery;
pub mod liveness;
pub mod policy;
pub mod slot;
pub mod supervisor;

pub use ractor;
