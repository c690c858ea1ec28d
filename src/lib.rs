//! Daybook.

pub mod cli;
pub mod config;
pub mod event;
pub mod http;
pub mod simulators;
pub mod sources;
pub mod store;
pub mod tail;
pub mod telemetry;
pub mod tenants;
pub mod writer;
