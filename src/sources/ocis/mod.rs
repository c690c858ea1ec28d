//! OCIS and OpenCloud: the audit log file.

pub mod actor;
pub mod decode;
mod masks;
pub mod verbs;
