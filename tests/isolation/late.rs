//! Look-ups of tokens that take longer than is waited for them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use daybook::http::auth::hash_token;
use daybook::store::{self, Role};
use daybook::tree::Daybook;
use testkit::http::{exchange, post};
use testkit::world::eventually;
use tokio::sync::Semaphore;

use super::behind::{Before, Behind};
use super::{guarded, is_ready, request, token_of};

/// An operator is told without the store.
const PATH: &str = "/api/v1/sources";
const ASKED: usize = 20;
/// So many believed tokens are looked up at once, at most.
const AT_ONCE: usize = 4;

/// Holds the look-ups of some tokens until they are let go.
struct Holding {
    /// Those of this hash; `None`: all.
    holds: OnceLock<Option<String>>,
    held: AtomicUsize,
    let_go: Semaphore,
    told: AtomicUsize,
}

impl Holding {
    fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }
}

#[async_trait]
impl Before for Holding {
    async fn token(&self, hash: &str) {
        let holds = self.holds.get();
        if holds.is_some_and(|only| only.as_deref().is_none_or(|only| only == hash)) {
            self.held.fetch_add(1, Ordering::AcqRel);
            let _closed = self.let_go.acquire().await;
        }
    }

    fn told(&self) {
        self.told.fetch_add(1, Ordering::AcqRel);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_look_ups_are_one_a_token_and_few_in_all() {
    let dir = tempfile::tempdir().unwrap();
    let (daybook, before) = start(dir.path()).await;
    let address = daybook.address();
    let mut tokens = Vec::new();
    for _ in 0..ASKED {
        tokens.push(token_of(&**daybook.store(), Role::Operator).await.0);
    }
    are_let_in(address, &tokens).await;
    // Asked after the others: when it is asked again, so are they.
    let last = [token_of(&**daybook.store(), Role::Operator).await.0];
    are_let_in(address, &last).await;
    before.holds.set(None).unwrap();
    eventually("what was believed is asked again", async || {
        are_let_in(address, &last).await;
        before.held() == 1
    })
    .await;

    let (busy, others) = tokens.split_first().unwrap();
    are_let_in(address, &vec![busy.clone(); ASKED]).await;
    assert_eq!(before.held(), 2, "one look-up for all that show a token");
    are_let_in(address, others).await;
    assert_eq!(before.held(), AT_ONCE);
    before.let_go.close();
    daybook.shutdown().await;
}

/// A session is two look-ups: of itself, and of the token that opened it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_signed_out_stays_out_whatever_a_late_look_up_says() {
    let dir = tempfile::tempdir().unwrap();
    let (daybook, before) = start(dir.path()).await;
    let address = daybook.address();
    let (token, opener) = token_of(&**daybook.store(), Role::Operator).await;
    let cookie = sign_in(address, &token).await;
    let read = async || read_with(address, &format!("cookie: {cookie}\r\n")).await;
    assert_eq!(read().await, 200);
    before.holds.set(Some(opener)).unwrap();
    eventually("its token is asked for again", async || {
        assert_eq!(read().await, 200);
        before.held() == 1
    })
    .await;

    let out = post("/audit/sign-out", &[("cookie", &cookie)], "");
    assert_eq!(exchange(address, out).await.status, 303);
    assert_eq!(read().await, 401);
    let told = before.told.load(Ordering::Acquire);
    before.let_go.close();
    eventually("the late look-up is answered", async || {
        before.told.load(Ordering::Acquire) > told
    })
    .await;
    assert_eq!(read().await, 401);
    daybook.shutdown().await;
}

/// A proxy that signs its users in may add a token of its own to whatever they ask for.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_look_up_of_a_foreign_token_hides_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let (daybook, before) = start(dir.path()).await;
    let address = daybook.address();
    let (token, _) = token_of(&**daybook.store(), Role::Operator).await;
    let cookie = sign_in(address, &token).await;
    let own = format!("cookie: {cookie}\r\n");
    assert_eq!(read_with(address, &own).await, 200);
    let foreign = "of.another.service";
    before.holds.set(Some(hash_token(foreign))).unwrap();
    let both = format!("{own}authorization: Bearer {foreign}\r\n");
    assert_eq!(read_with(address, &both).await, 200);
    assert_eq!(before.held(), 1);
    before.let_go.close();
    daybook.shutdown().await;
}

/// The cookie of a new session.
async fn sign_in(address: SocketAddr, token: &str) -> String {
    let form = post("/audit/sign-in", &[], format!("token={token}"));
    let signed_in = exchange(address, form).await;
    let cookie = signed_in.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn read_with(address: SocketAddr, headers: &str) -> u16 {
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: daybook.test\r\n{headers}\r\n");
    exchange(address, request).await.status
}

async fn start(dir: &Path) -> (Daybook, Arc<Holding>) {
    let config = guarded(dir, "", "");
    let before = Arc::new(Holding {
        holds: OnceLock::new(),
        held: AtomicUsize::new(0),
        let_go: Semaphore::new(0),
        told: AtomicUsize::new(0),
    });
    let behind = Behind {
        before: Arc::clone(&before),
        store: store::open(&config.store).await.unwrap(),
    };
    let daybook = Daybook::start_with(&config, Arc::new(behind)).await;
    let daybook = daybook.unwrap();
    is_ready(&daybook).await;
    (daybook, before)
}

/// Each shows its token, all at once.
async fn are_let_in(address: SocketAddr, tokens: &[String]) {
    let asked: Vec<_> = tokens
        .iter()
        .map(|token| tokio::spawn(exchange(address, request(PATH, token))))
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}
