//! tenants.
