//! Authentik: its events API, polled.

pub mod actor;
pub mod client;
pub mod decode;
mod masks;
pub mod page;
mod parts;
pub mod people;
mod search;
pub mod verbs;
pub mod walk;
