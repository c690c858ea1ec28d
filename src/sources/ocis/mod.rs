//! ocis.

pub mod decode;
pub mod verbs;
