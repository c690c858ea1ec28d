//! A whole workspace, a real MongoDB, and everything that can happen to it or to the way there.
//!
//! In every story the fault is shown to have struck, the service stays alive, cursors only grow,
//! events flow again by themselves, and in the end exactly what was promised stands in the store.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod fail_points;
mod network;
mod replica_set;
mod scene;
mod server;
