//! Operated: what Prometheus scrapes, what the rules say, what the dashboards ask, how it is
//! packaged.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod alerts;
mod dashboards;
mod metrics;
mod packaging;
mod rules;

use std::path::PathBuf;

/// The project's folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
