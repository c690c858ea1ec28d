//! Authentik: its events API, polled.

pub mod actor;
pub mod client;
pub mod decode;
pub mod people;
pub mod verbs;
pub mod walk;
