//! Authentik: its events API, polled.

pub mod actor;
pub mod client;
mod cursor;
pub mod decode;
mod durable;
pub mod list;
mod masks;
pub mod page;
mod parts;
pub mod people;
mod retention;
mod search;
mod sizes;
mod standing;
pub mod verbs;
pub mod walk;
