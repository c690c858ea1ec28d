//! stalwart.

pub mod decode;
pub mod verbs;
