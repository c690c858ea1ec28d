//! Which path leads where.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use daybook_actors::budget::{Budget, Share};
use daybook_actors::slot::Slot;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use crate::config::{AuthMode, Secret};
use crate::event::SourceName;
use crate::feed::Feed;
use crate::journal::Journal;
use crate::probe::Probe;
use crate::sources::push::{AcceptorMessage, Room};
use crate::status::Board;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

use super::answers::{self, Answers};
use super::attempts::Attempts;
use super::auth::Authenticator;
use super::error::{ApiError, StoreFailed};
use super::ingest::Growth;
use super::page;
use super::refusals::Refusals;
use super::turns::{Queries, Turns};
use super::{api, export, health, histogram, hosts, ingest, stream};

/// A pushing source as the edge sees it.
#[derive(Clone)]
pub struct PushSource {
    /// Its name.
    pub name: SourceName,
    /// Its acceptor.
    pub acceptor: Slot<AcceptorMessage>,
    /// Its part of the bytes in flight.
    pub share: Share,
    /// Room for bodies on their way to the journal, if there is one.
    pub journal_reserve: Option<Budget>,
}

impl PushSource {
    /// The most that such room can have.
    pub fn limit_of(&self, room: &Room) -> u64 {
        match (room, &self.journal_reserve) {
            (Room::Reserve(_), Some(reserve)) => reserve.limit(),
            _ => self.share.limit(),
        }
    }
}

/// What the handlers share; the parts that change are shared between clones.
#[derive(Clone)]
pub struct Edge {
    /// For queries and tokens.
    pub store: Arc<dyn Store>,
    /// For the live stream.
    pub feed: Feed,
    /// Of readers of the live stream.
    pub streams: Turns,
    /// One permit a long form that is read.
    pub long_forms: Arc<Semaphore>,
    /// Of readers that catch up from the store.
    pub catching_up: Turns,
    /// Of exports, until their end is on the timeline.
    pub exports: Turns,
    /// Of lists, single events and histograms.
    pub queries: Queries,
    /// For status.
    pub board: Board,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// Bytes in flight.
    pub budget: Budget,
    /// For metrics, and whether it has room.
    pub journal: Option<Journal>,
    /// Who may do what.
    pub authenticator: Authenticator,
    /// Whether the planes are up.
    pub readiness: health::Readiness,
    /// Stalwart sources by route.
    pub webhooks: HashMap<String, (PushSource, Vec<Secret>)>,
    /// Recorder sources, in the order of the configuration.
    pub recorders: Vec<PushSource>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Public names by which it is called where nobody is asked for a token.
    pub hosts: Arc<[String]>,
    /// The longest body, in bytes.
    pub max_body: u64,
    /// The longest a body may take.
    pub body_timeout: Duration,
    /// Of bodies that are being read and checked.
    pub growth: Arc<Growth>,
    /// When refused webhooks were last told.
    pub refusals: Arc<Refusals>,
    /// Whether the socket speaks TLS.
    pub is_tls: bool,
    /// Of signing in to the page, and of exporting.
    pub attempts: Arc<Attempts>,
    /// Room for large ones, until their readers have taken them.
    pub answers: Arc<Answers>,
    /// Where tests strike.
    pub probe: Probe,
}

/// The routes that are served now; a change of configuration puts others in their place, and a
/// request that has begun goes on with those it began with. Clones are the same ones.
#[derive(Clone)]
pub struct Routes(Arc<RwLock<Router>>);

impl Routes {
    /// Serves these.
    pub fn new(router: Router) -> Self {
        Self(Arc::new(RwLock::new(router)))
    }

    /// What is served now.
    pub fn current(&self) -> Router {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Serves these from now on.
    pub fn replace(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }
}

/// All routes.
pub fn router(edge: Edge) -> Router {
    let edge = Arc::new(edge);
    let large = (Arc::clone(&edge.answers), edge.authenticator.clone());
    let mut timeline = Router::new()
        .route("/api/v1/events", get(api::list).post(ingest::record))
        .route("/api/v1/events/stream", get(stream::stream))
        .route("/api/v1/events/histogram", get(histogram::histogram))
        .route("/api/v1/events/{id}", get(api::one))
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/sources", get(api::sources))
        .merge(page::routes())
        .layer(middleware::from_fn_with_state(large, answers::bound))
        .merge(page::assets());
    if edge.authenticator.mode() == AuthMode::None {
        let hosts = Arc::clone(&edge.hosts);
        timeline = timeline.layer(middleware::from_fn_with_state(hosts, hosts::guard));
    }
    let mut router = timeline
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics));
    for route in edge.webhooks.keys() {
        router = router.route(route, post(ingest::webhook));
    }
    router
        .fallback(|| async { ApiError::not_found("no such path") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(middleware::from_fn_with_state(
            Arc::clone(&edge),
            page::guard,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(&edge), count))
        .with_state(edge)
}

async fn count(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |matched| matched.as_str().to_owned());
    let is_push = request.method() == Method::POST;
    let response = next.run(request).await;
    let code = response.status().as_u16();
    if is_push && edge.webhooks.contains_key(&route) {
        edge.metrics.webhook_requests(code).increment(1);
    } else if is_push && route == "/api/v1/events" {
        edge.metrics.recorder_requests(code).increment(1);
    }
    edge.metrics.http_requests(&route, code).increment(1);
    if let Some(StoreFailed(reason)) = response.extensions().get() {
        edge.metrics.store_errors(reason).increment(1);
    }
    response
}
