//! OCIS and OpenCloud: the audit log file.

pub mod actor;
mod backlog;
pub mod decode;
mod gaps;
mod masks;
mod reading;
pub mod record;
mod skim;
pub mod verbs;
