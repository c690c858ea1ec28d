//! stalwart.

pub mod decode;
mod masks;
mod parts;
pub mod verbs;
