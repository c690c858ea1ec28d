//! One tenant that asks for more than the store can do at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use daybook::store::{self, Role};
use daybook::tree::Daybook;
use testkit::http::exchange;
use testkit::world::eventually;
use tokio::sync::Semaphore;

use super::behind::{Before, Behind};
use super::{guarded, is_ready, request, token_of};

/// As many as SQLite has.
const READERS: usize = 2;
const ASKED: usize = 20;

/// Few readers, and whoever counts holds one until all are let go.
struct FewReaders {
    readers: Semaphore,
    let_go: Semaphore,
    tokens: AtomicUsize,
    counting: AtomicUsize,
    most_counting: AtomicUsize,
}

#[async_trait]
impl Before for FewReaders {
    async fn event_page(&self) {
        let _reader = self.readers.acquire().await;
    }

    async fn histogram(&self) {
        let _reader = self.readers.acquire().await;
        let counting = self.counting.fetch_add(1, Ordering::AcqRel) + 1;
        self.most_counting.fetch_max(counting, Ordering::AcqRel);
        let _closed = self.let_go.acquire().await;
        self.counting.fetch_sub(1, Ordering::AcqRel);
    }

    async fn token(&self, _hash: &str) {
        self.tokens.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whoever looks at an event of `acme` is held until all are let go.
struct HeldLooks {
    let_go: Semaphore,
    tokens: AtomicUsize,
    looking: AtomicUsize,
    most_looking: AtomicUsize,
}

#[async_trait]
impl Before for HeldLooks {
    async fn event(&self, tenant: Option<&str>) {
        if tenant != Some("acme") {
            return;
        }
        let looking = self.looking.fetch_add(1, Ordering::AcqRel) + 1;
        self.most_looking.fetch_max(looking, Ordering::AcqRel);
        let _closed = self.let_go.acquire().await;
        self.looking.fetch_sub(1, Ordering::AcqRel);
    }

    async fn token(&self, _hash: &str) {
        self.tokens.fetch_add(1, Ordering::AcqRel);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_a_tenant_has_counted_everybody_gets_their_lists() {
    let dir = tempfile::tempdir().unwrap();
    let config = guarded(dir.path(), "", "");
    let before = Arc::new(FewReaders {
        readers: Semaphore::new(READERS),
        let_go: Semaphore::new(0),
        tokens: AtomicUsize::new(0),
        counting: AtomicUsize::new(0),
        most_counting: AtomicUsize::new(0),
    });
    let behind = Behind {
        before: Arc::clone(&before),
        store: store::open(&config.store).await.unwrap(),
    };
    let daybook = Daybook::start_with(&config, Arc::new(behind)).await;
    let daybook = daybook.unwrap();
    is_ready(&daybook).await;
    let address = daybook.address();
    let of = async |tenant: &str| {
        let role = Role::Tenant(tenant.to_owned());
        token_of(&**daybook.store(), role).await.0
    };
    let globex = of("globex").await;
    let mut acme = Vec::new();
    for _ in 0..ASKED {
        acme.push(of("acme").await);
    }

    let paths = ["/api/v1/events/histogram", "/audit/histogram"];
    let asked = acme.iter().zip(paths.into_iter().cycle());
    let asked: Vec<_> = asked
        .map(|(token, path)| tokio::spawn(exchange(address, request(path, token))))
        .collect();
    eventually("all have come, and one is counted for", async || {
        before.tokens.load(Ordering::Acquire) >= ASKED
            && before.counting.load(Ordering::Acquire) > 0
    })
    .await;
    for (path, token) in [
        ("/api/v1/events", &globex),
        ("/api/v1/events", &acme[0]),
        // Its bars come later.
        ("/audit", &acme[0]),
    ] {
        let answer = exchange(address, request(path, token)).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    before.let_go.close();
    for answer in asked {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(before.most_counting.load(Ordering::Acquire), 1);
    daybook.shutdown().await;
}

/// Each is whole in memory, however large it is.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_a_tenant_looks_at_events_it_has_few_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = guarded(dir.path(), "", "");
    let before = Arc::new(HeldLooks {
        let_go: Semaphore::new(0),
        tokens: AtomicUsize::new(0),
        looking: AtomicUsize::new(0),
        most_looking: AtomicUsize::new(0),
    });
    let behind = Behind {
        before: Arc::clone(&before),
        store: store::open(&config.store).await.unwrap(),
    };
    let daybook = Daybook::start_with(&config, Arc::new(behind)).await;
    let daybook = daybook.unwrap();
    is_ready(&daybook).await;
    let address = daybook.address();
    let of = async |role: Role| token_of(&**daybook.store(), role).await.0;
    let globex = of(Role::Tenant("globex".to_owned())).await;
    let operator = of(Role::Operator).await;
    let mut acme = Vec::new();
    for _ in 0..ASKED {
        acme.push(of(Role::Tenant("acme".to_owned())).await);
    }

    let paths = [
        "/api/v1/events/0000000000000001",
        "/audit/events/0000000000000001",
    ];
    let asked = acme.iter().zip(paths.into_iter().cycle());
    let asked: Vec<_> = asked
        .map(|(token, path)| tokio::spawn(exchange(address, request(path, token))))
        .collect();
    eventually("all have come, and some look", async || {
        before.tokens.load(Ordering::Acquire) >= ASKED && before.looking.load(Ordering::Acquire) > 1
    })
    .await;
    for (path, token, status) in [
        (paths[0], &globex, 404),
        (paths[1], &operator, 404),
        ("/api/v1/events", &acme[0], 200),
    ] {
        let answer = exchange(address, request(path, token)).await;
        assert_eq!(answer.status, status, "{path}");
    }
    before.let_go.close();
    for answer in asked {
        // On a slow machine some have waited for too long.
        let status = answer.await.unwrap().status;
        assert!(matches!(status, 404 | 503), "{status}");
    }
    assert_eq!(before.most_looking.load(Ordering::Acquire), 2);
    daybook.shutdown().await;
}
