//! Tokens that are taken away while the store is slow, but answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use daybook::store::{self, Role};
use daybook::tree::Daybook;
use testkit::http::{exchange, post};

use super::behind::{Before, Behind};
use super::{guarded, is_ready, request, token_of};

/// Longer than is waited for what the store says of a token that would be believed without it.
const LATE: Duration = Duration::from_millis(1500);
/// "Within seconds", on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Slow {
    asked: AtomicUsize,
}

#[async_trait]
impl Before for Slow {
    async fn token(&self, _hash: &str) {
        self.asked.fetch_add(1, Ordering::AcqRel);
        tokio::time::sleep(LATE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_within_seconds_though_the_store_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    let config = guarded(dir.path(), "", "[[sources]]\nkind = \"recorder\"");
    let before = Arc::new(Slow::default());
    let behind = Behind {
        before: Arc::clone(&before),
        store: store::open(&config.store).await.unwrap(),
    };
    let daybook = Daybook::start_with(&config, Arc::new(behind)).await;
    let daybook = daybook.unwrap();
    is_ready(&daybook).await;
    let address = daybook.address();
    let store = &**daybook.store();
    let (reader, of_reader) = token_of(store, Role::Tenant("acme".to_owned())).await;
    let (sender, of_sender) = token_of(store, Role::Recorder(None)).await;
    let read = async || {
        let answer = exchange(address, request("/api/v1/events", &reader)).await;
        answer.status
    };
    let send = async || {
        let bearer = format!("Bearer {sender}");
        let headers = [("authorization", bearer.as_str())];
        let event = post("/api/v1/events", &headers, "{\"action\":\"a\"}");
        exchange(address, event).await.status
    };
    assert_eq!((read().await, send().await), (200, 200));
    for revoked in [of_reader, of_sender] {
        store.delete_token(&revoked).await.unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    tokio::join!(
        ends("reading", deadline, read),
        ends("sending", deadline, send)
    );
    // Each was asked about once before and once after, and answered late.
    assert!(before.asked.load(Ordering::Acquire) >= 4);
    daybook.shutdown().await;
}

/// What was believed a moment ago is asked again soon.
async fn ends(what: &str, deadline: Instant, ask: impl AsyncFn() -> u16) {
    loop {
        match ask().await {
            401 => return,
            status => assert_eq!(status, 200, "{what}"),
        }
        assert!(Instant::now() < deadline, "{what} outlives its token");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
