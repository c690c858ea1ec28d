//! What Daybook tells about itself: metrics and logs.
//!
//! Every metric is declared once, in [`metrics`]. There is no global recorder: each Daybook has
//! its own, so that several can live in one process (tests do that).

#[cfg(test)]
pub(crate) mod captured;
pub mod incident;
pub mod log;
pub mod metrics;
pub mod security;
