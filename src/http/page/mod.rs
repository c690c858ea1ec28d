//! The operator's page: `/audit`.
//!
//! Everything is rendered here, by templates that escape by construction, and works without a
//! script: filters are a form, bars and pages are links, an event has an address of its own. The
//! scripts in `assets/` only save ways: they put what the server rendered into a page that is
//! already open.
//!
//! - `view`: what is asked for, and the address that says so
//! - `timeline`, `filters`, `chart`, `event`, `payload`: what is shown
//! - `sentence`, `phrases`, `text`: how it is worded, and how hostile text is shown
//! - `session`, `guard`: who sees it, and what browsers must not do

mod assets;
mod chart;
mod event;
mod filters;
mod guard;
mod layout;
mod payload;
mod phrases;
mod sentence;
mod session;
mod text;
mod timeline;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use jiff::Timestamp;

use super::error::ApiError;
use super::router::Edge;

pub(super) use guard::guard;
pub(super) use layout::no_room;
use view::View;

/// The page's routes.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/", get(home))
        .route("/audit", get(timeline::get))
        .route("/audit/", get(home))
        .route("/audit/histogram", get(chart::get))
        .route("/audit/events/{id}", get(event::get))
        .route("/audit/sign-in", get(session::ask).post(session::sign_in))
        .route("/audit/sign-out", post(session::sign_out))
        .route("/audit/{*path}", get(nothing))
}

/// What its pages are made of; of nobody's events.
pub(super) fn assets() -> Router<Arc<Edge>> {
    Router::new().route("/audit/assets/{version}/{name}", get(assets::get))
}

async fn home() -> Redirect {
    Redirect::to("/audit")
}

async fn nothing(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Response {
    let view = View::default();
    match session::reader(&edge, &headers, &view).await {
        Ok(caller) => {
            let reader = session::Reader {
                caller: &caller,
                mode: edge.authenticator.mode(),
            };
            layout::trouble(&ApiError::not_found("no such page"), &view, Some(&reader))
        }
        Err(response) => response,
    }
}

/// Which of the page's colours a source has: that of its kind.
fn kind_of(edge: &Edge, source: &str, action: &str) -> &'static str {
    const KINDS: [&str; 5] = ["authentik", "ocis", "stalwart", "recorder", "daybook"];
    let configured = edge.board.source(source).map(|source| source.kind);
    // A source of a former configuration is told by its actions.
    let prefix = action.split('.').next().unwrap_or_default();
    configured
        .into_iter()
        .chain([source, prefix])
        .find_map(|name| KINDS.into_iter().find(|kind| *kind == name))
        .unwrap_or("recorder")
}

fn now() -> Timestamp {
    Timestamp::now()
}
