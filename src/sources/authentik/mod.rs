//! authentik.

pub mod decode;
mod masks;
pub mod page;
mod parts;
pub mod verbs;
