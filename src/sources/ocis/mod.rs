//! ocis.

pub mod decode;
mod masks;
pub mod verbs;
