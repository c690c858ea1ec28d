//! tenants.

pub mod file;
