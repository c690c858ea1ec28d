//! Large answers, until their readers have taken them.
//!
//! An answer is whole in memory before it goes out, and its reader may take it slowly, or nothing of
//! it until the connection is cut off. So the bytes of those that are going out are bounded, of all
//! tenants and of each one; so are those of the few that wait for that, and for a while only. Operators have
//! a room of their own, that no tenant keeps them out. The permit lies with the bytes: it comes back when the
//! connection has none of them any more.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use daybook_actors::budget::{Budget, Permit, Share};
use hyper::body::{Body as _, Frame, SizeHint};

use super::auth::{Authenticator, credentials};
use super::error::ApiError;
use super::page;
use crate::store::Role;

/// What is no larger is not counted: of a page, little beside its style.
const SMALL: u64 = 48 << 10;
/// Bytes of all tenants' that are going out, and twice as many that wait; and as many of operators'.
const MOST_BYTES: u64 = 64 << 20;
const MOST_WAITING: u64 = 2 * MOST_BYTES;
/// A tenant's part of what is going out, and of what waits.
const OF_TENANT: (f64, f64) = (0.25, 0.5);
/// How long an answer waits before its reader is sent away: less than the page's script waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection takes no more at once, so that no copy of a large answer waits in it.
const PIECE: usize = 64 << 10;

/// Room for large answers.
pub struct Answers {
    tenants: Pool,
    operators: Pool,
    /// By tenant; those who see all tenants are one more.
    shares: Mutex<HashMap<Option<String>, Shares>>,
    patience: Duration,
}

struct Pool {
    going_out: Budget,
    waiting: Budget,
}

#[derive(Clone)]
struct Shares {
    going_out: Share,
    waiting: Share,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            going_out: Budget::new(MOST_BYTES),
            waiting: Budget::new(MOST_WAITING),
        }
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            tenants: Pool::default(),
            operators: Pool::default(),
            shares: Mutex::default(),
            patience: PATIENCE,
        }
    }
}

impl Answers {
    /// An answer on its way, once there is room for it; none where there is none soon.
    pub(super) async fn admit(&self, role: &Role, body: Bytes) -> Option<Body> {
        if body.len() as u64 <= SMALL {
            return Some(Body::from(body));
        }
        let permit = self.room(role, body.len() as u64).await?;
        let held = Held {
            body,
            _permit: permit,
        };
        Some(Body::new(Pieces(Bytes::from_owner(held))))
    }

    /// Room for so many bytes, now or soon.
    async fn room(&self, role: &Role, bytes: u64) -> Option<Permit> {
        let Shares { going_out, waiting } = self.shares_of(role);
        if let Some(permit) = going_out.try_acquire(bytes) {
            return Some(permit);
        }
        let _waiting = waiting.try_acquire(bytes)?;
        let room = tokio::time::timeout(self.patience, going_out.acquire(bytes)).await;
        room.ok()
    }

    fn shares_of(&self, role: &Role) -> Shares {
        let (tenant, pool, (going_out, waiting)) = match role {
            Role::Tenant(slug) => (Some(slug.clone()), &self.tenants, OF_TENANT),
            Role::Operator | Role::Recorder(_) => (None, &self.operators, (1.0, 1.0)),
        };
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shares.entry(tenant).or_insert_with(|| Shares {
            going_out: pool.going_out.share("answers going out", going_out),
            waiting: pool.waiting.share("answers that wait", waiting),
        });
        found.clone()
    }
}

/// Lets a large answer go out when there is room for it. Strangers get no events, and none is counted.
pub(super) async fn bound(
    State((answers, authenticator)): State<(Arc<Answers>, Authenticator)>,
    request: Request,
    next: Next,
) -> Response {
    let credentials = credentials(request.headers());
    let is_page = request.uri().path().starts_with("/audit");
    let response = next.run(request).await;
    // A stream has no length, and never much in memory; a page in parts asks for room itself.
    let length = response.body().size_hint().exact();
    if length.is_none_or(|length| length <= SMALL) {
        return response;
    }
    let Ok(caller) = authenticator.caller(&credentials).await else {
        return response;
    };
    let (head, body) = response.into_parts();
    // It is there already, in one piece.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return ApiError::unavailable("the answer is not whole").into_response();
    };
    let Some(body) = answers.admit(&caller.role, body).await else {
        let refused = "too many large answers wait for their readers";
        return match is_page {
            true => page::no_room(),
            false => ApiError::unavailable(refused).into_response(),
        };
    };
    Response::from_parts(head, body)
}

/// An answer's bytes and the permit for them.
struct Held {
    body: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// What has not gone out yet.
struct Pieces(Bytes);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.0.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::Router;
    use axum::http::header;
    use axum::middleware;
    use futures_util::FutureExt;
    use tower_service::Service;

    use super::*;
    use crate::config::{AuthMode, Collections};
    use crate::store::sqlite::SqliteStore;

    const LARGE: u64 = 10 << 20;

    #[tokio::test]
    async fn a_tenant_leaves_room_to_others_and_its_own_answers_wait() {
        let answers = Answers::default();
        let [acme, globex] = ["acme", "globex"].map(|slug| Role::Tenant(slug.to_owned()));
        let now = |role: &Role| answers.room(role, LARGE).now_or_never().flatten();
        let first = now(&acme).unwrap();
        let mut waiting: Vec<_> = (0..MOST_BYTES / LARGE)
            .map(|_| Box::pin(answers.room(&acme, LARGE)))
            .collect();
        for each in &mut waiting {
            assert!(each.as_mut().now_or_never().is_none());
        }
        // Of so many none waits any more; another tenant's do.
        let refused = answers.room(&acme, LARGE).now_or_never();
        assert!(matches!(refused, Some(None)));
        let others = [now(&globex), now(&Role::Operator), now(&Role::Operator)];
        assert!(others.iter().all(Option::is_some));
        assert!(answers.room(&globex, LARGE).now_or_never().is_none());
        drop(first);
        let second = waiting.swap_remove(0).await;
        assert!(second.is_some());
        drop(second);
        drop(waiting);
        drop(others);
        for pool in [&answers.tenants, &answers.operators] {
            assert_eq!(pool.going_out.in_use(), 0);
            assert_eq!(pool.waiting.in_use(), 0);
        }
        // One that is larger than a tenant's part passes alone.
        assert!(answers.room(&acme, 1 << 30).await.is_some());
    }

    #[tokio::test]
    async fn four_tenants_keep_a_fifth_waiting_and_no_operator() {
        let answers = Answers::default();
        let now = |role: &Role| answers.room(role, MOST_BYTES).now_or_never().flatten();
        let tenants = ["a", "b", "c", "d", "e"].map(|slug| Role::Tenant(slug.to_owned()));
        let held: Vec<_> = tenants[..4].iter().map(now).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(answers.tenants.going_out.in_use(), MOST_BYTES);
        assert!(now(&tenants[4]).is_none());
        let operators = now(&Role::Operator);
        assert!(operators.is_some());
        assert!(now(&Role::Operator).is_none());
        drop(held);
        assert!(now(&tenants[4]).is_some());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let answers = Answers {
            patience: Duration::from_millis(1),
            ..Answers::default()
        };
        let _first = answers.room(&Role::Operator, MOST_BYTES).await.unwrap();
        assert!(answers.room(&Role::Operator, LARGE).await.is_none());
        assert_eq!(answers.operators.waiting.in_use(), 0);
    }

    /// A page's reader is told by a page.
    #[tokio::test]
    async fn whoever_is_sent_away_is_told_in_their_own_way() {
        async fn large() -> String {
            "x".repeat(SMALL as usize + 1)
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daybook.db");
        let store = SqliteStore::open(&path, Duration::from_secs(30), &Collections::default());
        let authenticator = Authenticator::new(AuthMode::None, Arc::new(store.unwrap()));
        let answers = Arc::new(Answers::default());
        let state = (Arc::clone(&answers), authenticator);
        let mut routes: Router = Router::new()
            .fallback(large)
            .layer(middleware::from_fn_with_state(state, bound));
        let mut ask = async |path: &str| {
            let request = axum::http::Request::get(path).body(Body::empty());
            routes.call(request.unwrap()).await.unwrap()
        };
        let operators = &answers.operators;
        let going_out = operators.going_out.try_acquire(MOST_BYTES).unwrap();
        let waiting = operators.waiting.try_acquire(MOST_WAITING).unwrap();
        for (path, kind, said) in [
            ("/api/v1/events", "application/json", "too many large"),
            ("/audit", "text/html; charset=utf-8", "Too much at once"),
            ("/audit/events/1", "text/html; charset=utf-8", "Try again"),
        ] {
            let refused = ask(path).await;
            assert_eq!(refused.status().as_u16(), 503, "{path}");
            assert_eq!(refused.headers()[header::CONTENT_TYPE], kind);
            assert!(refused.headers().contains_key(header::RETRY_AFTER));
            let body = to_bytes(refused.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(said), "{path}: {body}");
        }
        drop((going_out, waiting));
        assert_eq!(ask("/audit").await.status().as_u16(), 200);
    }

    #[tokio::test]
    async fn room_comes_back_with_the_last_byte() {
        let answers = Answers::default();
        let permit = answers.room(&Role::Operator, LARGE).await.unwrap();
        let body = Bytes::from(vec![7; PIECE + 1]);
        let held = Held {
            body,
            _permit: permit,
        };
        let mut pieces = Box::pin(Pieces(Bytes::from_owner(held)));
        let mut next = async || {
            let frame = std::future::poll_fn(|context| pieces.as_mut().poll_frame(context)).await;
            frame.map(|frame| frame.unwrap().into_data().unwrap())
        };
        let (first, last) = (next().await.unwrap(), next().await.unwrap());
        assert_eq!((first.len(), last.len()), (PIECE, 1));
        assert!(next().await.is_none());
        drop(first);
        assert_eq!(answers.operators.going_out.in_use(), LARGE);
        drop(last);
        // The body itself has nothing left.
        assert_eq!(answers.operators.going_out.in_use(), 0);
    }
}
