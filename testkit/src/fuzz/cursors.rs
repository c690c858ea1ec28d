//! The compare-and-set of cursors in SQLite against a model.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use daybook::config::Collections;
use daybook::store::conformance::{Subject, random_steps};
use daybook::store::sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// One store for all cases: each has a cursor of its own.
static STAGE: LazyLock<(Runtime, Subject, TempDir)> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("cursors.db");
    let store = SqliteStore::open(&path, Duration::from_secs(30), &Collections::default());
    let store: Subject = Arc::new(store.expect("a store"));
    runtime.block_on(store.prepare()).expect("prepare");
    (runtime, store, dir)
});

pub(super) fn case(seed: u64) {
    let (runtime, store, _) = &*STAGE;
    runtime.block_on(random_steps(store, seed));
}
