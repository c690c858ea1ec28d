//! The stores keep their contract: one suite, run against a SQLite file, a standalone MongoDB and
//! a replica set of three.

use std::sync::Arc;
use std::time::Duration;

use daybook::config::Collections;
use daybook::store::conformance;
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use testkit::mongod::{Mongod, ReplicaSet};

/// Generous: these tests are about what happens, not how soon, on machines that do other things too.
const TIMEOUT: Duration = Duration::from_secs(30);

async fn mongo_store(url: &str) -> MongoStore {
    let store = MongoStore::connect(url, TIMEOUT, &Collections::default()).await;
    store.expect("a store")
}

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("not/there/yet.db");
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default());
    conformance::run(Arc::new(store.expect("a store"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_mongodb_conforms() {
    let mongod = Mongod::shared().await;
    conformance::run(Arc::new(mongo_store(&mongod.url("conformance")).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_conforms() {
    let set = ReplicaSet::start(3).await;
    conformance::run(Arc::new(mongo_store(&set.url("conformance")).await)).await;
}
