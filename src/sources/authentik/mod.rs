//! authentik.

pub mod decode;
pub mod verbs;
