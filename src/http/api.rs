//! Reading the timeline: `/api/v1/events`, `/api/v1/events/{id}`, `/api/v1/sources`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::store::{EventPage, PageKey, Payloads, Role, StoredEvent};

use super::auth::tenant_scope;
use super::error::ApiError;
use super::query::{EventQuery, confine, encode_page_key, form_pairs, wrong};
use super::router::Edge;

/// `GET /api/v1/events`
pub async fn list(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.caller(&headers).await?;
    let EventQuery {
        mut filter,
        before,
        limit,
    } = EventQuery::parse(query.as_deref().unwrap_or_default())?;
    confine(&caller.role, &mut filter)?;
    let _turn = edge.queries.list(&caller.role).await?;
    // One more than asked for tells whether there is a next page.
    let page = edge
        .store
        .event_page(&filter, before.as_ref(), limit + 1, Payloads::Whole);
    let EventPage { mut events, is_cut } = page.await?;
    let more = is_cut || events.len() > limit as usize;
    events.truncate(limit as usize);
    let last = events.last().filter(|_| more);
    let next = last.map(|last| encode_page_key(&PageKey::of(last)));
    Ok(Json(Listed { events, next }).into_response())
}

#[derive(Serialize)]
struct Listed {
    events: Vec<StoredEvent>,
    next: Option<String>,
}

/// `GET /api/v1/events/{id}`; another tenant's event is not found, like one that never was.
pub async fn one(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.caller(&headers).await?;
    let scope = tenant_scope(&caller.role)?;
    let Path(id) = id.map_err(|_| ApiError::bad_request("the id is not UTF-8"))?;
    takes_no_parameters(query.as_deref())?;
    let _turn = edge.queries.event(&caller.role).await?;
    match edge.store.event(&id, scope).await? {
        Some(event) => Ok(Json(event).into_response()),
        None => Err(ApiError::not_found("no such event")),
    }
}

/// `GET /api/v1/sources`; a tenant has no business with them.
pub async fn sources(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    match edge.authenticator.caller(&headers).await?.role {
        Role::Operator => {}
        _ => {
            return Err(ApiError::forbidden(
                "only an operator's token sees the sources",
            ));
        }
    }
    takes_no_parameters(query.as_deref())?;
    let sources: Vec<_> = edge
        .board
        .sources()
        .iter()
        .map(|source| source.view())
        .collect();
    Ok(Json(json!({ "sources": sources })).into_response())
}

/// 400 with the name of the first one that is given.
fn takes_no_parameters(query: Option<&str>) -> Result<(), ApiError> {
    match form_pairs(query.unwrap_or_default())?.first() {
        Some((name, _)) => Err(wrong(name, "is not a parameter of this query")),
        None => Ok(()),
    }
}
