//! recorder.

pub mod decode;
