#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::Collections;
use crate::store::sqlite::SqliteStore;

/// As many as there are while the store is away, or while nothing is to be written.
const PROBES: usize = 20;

#[tokio::test]
async fn probes_that_have_ended_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daybook.db");
    let collections = Collections::default();
    let store = SqliteStore::open(&path, Duration::from_secs(30), &collections).unwrap();
    let args = WriterArgs {
        store: Arc::new(store),
        config: WriterConfig::default(),
        metrics: Metrics::new(),
        store_up: Arc::default(),
        progress: Progress::on_demand(),
        probe: Probe::default(),
    };
    // Hears the answers.
    let spawned = ractor::Actor::spawn(None, Writer, args.clone()).await;
    let (other, _end) = spawned.unwrap();
    let writer = Writer;
    let mut state = writer.pre_start(other.clone(), args).await.unwrap();
    for _ in 0..PROBES {
        let probe = writer.handle(other.clone(), WriterMessage::Probe, &mut state);
        probe.await.unwrap();
    }
    let forgotten = async {
        while !state.flushes.is_empty() {
            tokio::task::yield_now().await;
            let message = writer.handle(other.clone(), WriterMessage::Due, &mut state);
            message.await.unwrap();
        }
    };
    let forgotten = tokio::time::timeout(Duration::from_secs(30), forgotten).await;
    assert!(forgotten.is_ok(), "{} are left", state.flushes.len());
}
