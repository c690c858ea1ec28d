//! OCIS and OpenCloud: the audit log file.

pub mod actor;
mod backlog;
pub mod decode;
mod gaps;
mod masks;
mod reading;
pub mod record;
pub mod verbs;
