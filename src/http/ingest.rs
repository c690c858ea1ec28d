//! Pushed events: Stalwart's webhooks and the recorder.
//!
//! A body is read only while there is room in flight for it: the permit for its bytes is taken
//! before the first of them and goes along until it is answered. When too much is in flight, the
//! journal's reserve gives room, and the push goes to the journal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, MatchedPath, State};
use axum::http::{HeaderMap, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use daybook_actors::delivery::call;
use futures_util::StreamExt;
use serde_json::json;

use crate::sources::push::{self, AcceptorMessage, Job, Pushed, Room};
use crate::sources::{recorder, stalwart};
use crate::store::Role;

use super::Peer;
use super::error::ApiError;
use super::router::{Edge, PushSource};

/// Room is taken as the bytes come, in doubling steps from here: a client that only announces a
/// large body must not keep others out.
const FIRST_ROOM: u64 = 64 << 10;
/// A little longer than a push may take, so that the acceptor's own answer comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(push::PATIENCE.as_secs() + 5);

/// `POST` to a Stalwart source's route.
pub async fn webhook(
    State(edge): State<Arc<Edge>>,
    Extension(peer): Extension<Peer>,
    route: MatchedPath,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let Some((source, keys)) = edge.webhooks.get(route.as_str()) else {
        return Err(ApiError::not_found("no such path"));
    };
    let signature = request.headers().get("x-signature").cloned();
    let client = client_address(&edge, &peer, request.headers());
    let Some(signature) = signature else {
        tracing::warn!(source = %source.name, %client, "webhook without a signature refused");
        return Err(ApiError::unauthorized(
            "X-Signature is missing: set the webhook's signature key",
        ));
    };
    let (body, room) = read_body(&edge, source, request).await?;
    if !stalwart::signature::is_valid(keys, signature.as_bytes(), &body) {
        tracing::warn!(source = %source.name, %client, bytes = body.len(), "webhook with a wrong signature refused");
        return Err(ApiError::unauthorized(
            "X-Signature does not match the body",
        ));
    }
    let pushed = push(source, stalwart::job(&source.name, body, room)).await?;
    Ok(match pushed {
        (received, 0) => Json(json!({ "received": received })),
        (received, quarantined) => {
            Json(json!({ "received": received, "quarantined": quarantined }))
        }
    }
    .into_response())
}

/// `POST /api/v1/events`
pub async fn record(
    State(edge): State<Arc<Edge>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let role = edge.authenticator.role(request.headers()).await?;
    let source = match &role {
        Role::Recorder(Some(name)) => edge
            .recorders
            .iter()
            .find(|each| each.name.as_str() == name),
        Role::Recorder(None) | Role::Operator => edge.recorders.first(),
        Role::Tenant(_) => return Err(ApiError::forbidden("a tenant's token records nothing")),
    };
    let Some(source) = source else {
        return Err(ApiError::not_found(
            "no recorder source is configured for this token",
        ));
    };
    let idempotency_key = request
        .headers()
        .get("idempotency-key")
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| ApiError::bad_request("Idempotency-Key holds characters that are not text"))?;
    let (body, room) = read_body(&edge, source, request).await?;
    let job =
        recorder::job(&source.name, body, idempotency_key, room).map_err(ApiError::bad_request)?;
    let (received, _) = push(source, job).await?;
    Ok(Json(json!({ "received": received })).into_response())
}

async fn push(source: &PushSource, job: Job) -> Result<(u64, u64), ApiError> {
    let answer = call(&source.acceptor, ANSWER_TIMEOUT, |reply| {
        AcceptorMessage::Push(job, reply)
    })
    .await;
    match answer {
        Ok(Pushed::Durable {
            received,
            quarantined,
        }) => Ok((received, quarantined)),
        Ok(Pushed::Unavailable(reason)) => Err(ApiError::unavailable(format!(
            "nothing durable can be had: {reason}"
        ))),
        Err(error) => Err(ApiError::unavailable(format!(
            "nothing durable can be had: {error}"
        ))),
    }
}

/// Reads a body within its limits of size, time and room.
async fn read_body(
    edge: &Edge,
    source: &PushSource,
    request: Request<Body>,
) -> Result<(Bytes, Room), ApiError> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        ApiError::too_large(format!(
            "the body is longer than max_body ({} bytes)",
            edge.max_body
        ))
    };
    if declared.is_some_and(|declared| declared > edge.max_body) {
        return Err(too_large());
    }
    let first = declared.unwrap_or(FIRST_ROOM).min(FIRST_ROOM);
    let deadline = tokio::time::Instant::now() + edge.body_timeout;
    let mut room = room(source, first, deadline).await?;
    let mut body = BytesMut::with_capacity(declared.unwrap_or(0).min(FIRST_ROOM) as usize);
    let mut chunks = request.into_body().into_data_stream();
    loop {
        let chunk = tokio::time::timeout_at(deadline, chunks.next())
            .await
            .map_err(|_| ApiError::request_timeout("the body did not come in time"))?;
        let Some(chunk) = chunk else {
            return Ok((body.freeze(), room));
        };
        let chunk = chunk.map_err(|_| ApiError::bad_request("the body was cut off"))?;
        if (body.len() + chunk.len()) as u64 > edge.max_body {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
        if body.len() as u64 > room.bytes() && room.bytes() < source.limit_of(&room) {
            let more = (body.len() as u64 * 2).min(declared.unwrap_or(edge.max_body));
            drop(room);
            room = self::room(source, more, deadline).await?;
        }
    }
}

/// Room for so many bytes: in flight if there is any, else in the journal's reserve, which turns
/// over with the disk and is worth waiting for.
async fn room(
    source: &PushSource,
    bytes: u64,
    deadline: tokio::time::Instant,
) -> Result<Room, ApiError> {
    if let Some(permit) = source.share.try_acquire(bytes) {
        return Ok(Room::InFlight(permit));
    }
    let no_room = || ApiError::unavailable("too much is in flight");
    let reserve = source.journal_reserve.as_ref().ok_or_else(no_room)?;
    let permit = tokio::time::timeout_at(deadline, reserve.acquire(bytes));
    permit.await.map(Room::Reserve).map_err(|_| no_room())
}

/// The client's address: the last one in `X-Forwarded-For` that no trusted proxy added, and the
/// peer's own when the peer is no trusted proxy.
fn client_address(edge: &Edge, peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let trusted = |address: &IpAddr| {
        edge.trusted_proxies
            .iter()
            .any(|network| network.contains(address))
    };
    let mut client = peer.0.ip().to_canonical();
    let forwarded = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|address| address.trim().parse::<IpAddr>())
        .collect::<Vec<_>>();
    for hop in forwarded.into_iter().rev() {
        if !trusted(&client) {
            break;
        }
        match hop {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}
