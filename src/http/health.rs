//! Alive, ready, and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use daybook_actors::slot::Slot;
use jiff::Timestamp;
use serde_json::json;

use crate::sources::push::AcceptorMessage;
use crate::status::SourceState;
use crate::tenants::ResolverMessage;
use crate::writer::WriterMessage;

use super::router::Edge;

/// Whether events can flow.
#[derive(Clone)]
pub struct Readiness {
    /// Set when the shutdown begins.
    pub stopping: Arc<AtomicBool>,
    /// Set by the writer: the store takes writes.
    pub store_up: Arc<AtomicBool>,
    /// The store plane.
    pub writer: Slot<WriterMessage>,
    /// The store plane.
    pub resolver: Slot<ResolverMessage>,
    /// Pushing sources.
    pub acceptors: Vec<(String, Slot<AcceptorMessage>)>,
}

impl Readiness {
    fn obstacles(&self, edge: &Edge) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.stopping.load(Ordering::Acquire) {
            obstacles.push("stopping".to_owned());
        }
        if self.writer.current().is_none() {
            obstacles.push("the writer is not up".to_owned());
        }
        if self.resolver.current().is_none() {
            obstacles.push("the resolver is not up".to_owned());
        }
        if !self.store_up.load(Ordering::Acquire) {
            obstacles.push("the store does not take writes".to_owned());
        }
        for (name, acceptor) in &self.acceptors {
            if acceptor.current().is_none() {
                obstacles.push(format!("source {name} is not up"));
            }
        }
        for source in edge.board.sources() {
            if source.view().state == SourceState::Suspended {
                obstacles.push(format!("source {} is suspended", source.name));
            }
        }
        obstacles
    }
}

/// The process answers.
pub async fn alive() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// Every plane is up and the store takes writes.
pub async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    let obstacles = edge.readiness.obstacles(&edge);
    if obstacles.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let body = Json(json!({ "status": "not_ready", "reasons": obstacles }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// What Prometheus scrapes.
pub async fn metrics(State(edge): State<Arc<Edge>>) -> Response {
    for source in edge.board.sources() {
        source.publish();
    }
    edge.metrics
        .in_flight_bytes
        .set(edge.budget.in_use() as f64);
    edge.metrics
        .in_flight_limit_bytes
        .set(edge.budget.limit() as f64);
    edge.metrics
        .backpressure_seconds
        .absolute(edge.budget.waited().as_secs());
    if let Some(journal) = &edge.journal {
        let figures = journal.figures();
        edge.metrics.journal_bytes.set(figures.bytes as f64);
        let age = figures.oldest.map_or(0.0, |oldest| {
            let now = Timestamp::now().as_millisecond();
            now.saturating_sub(oldest.as_millisecond()).max(0) as f64 / 1000.0
        });
        edge.metrics.journal_oldest_seconds.set(age);
    }
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, edge.metrics.render()).into_response()
}
