//! Testkit.

pub mod mongod;
