//! The four kinds of source.

pub mod authentik;
pub mod ocis;
pub mod recorder;
pub mod stalwart;
pub mod text;
