//! Pushed events: Stalwart's webhooks and the recorder.
//!
//! A body is read only while there is room for it: the permit for its bytes grows as they come and
//! goes along until it is answered. When too much is in flight, the journal's reserve gives room,
//! and the push goes to the journal. Bodies that grow beside each other must not wait for each
//! other's room: one of them at a time may wait, the others are refused and give way. So does, while
//! a body waits, what hardly comes and nobody has vouched for: a webhook's signature is known at its
//! end only, and a stranger must not keep the room.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, MatchedPath, State};
use axum::http::{HeaderMap, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use daybook_actors::budget::{Permit, Share};
use daybook_actors::delivery::call;
use futures_util::StreamExt;
use ipnet::IpNet;
use serde_json::json;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::Instant;

use crate::sources::push::{self, AcceptorMessage, Job, Pushed, Room};
use crate::sources::{recorder, stalwart};
use crate::store::Role;
use crate::telemetry::metrics::Refusal;

use super::Peer;
use super::auth::Caller;
use super::error::ApiError;
use super::router::{Edge, PushSource};

/// Room is taken for bytes that have come, in doubling steps from here: a client that announces a
/// body, and a thousand that do, must not keep others out.
const FIRST_ROOM: u64 = 4 << 10;
/// From so many bytes on a request to record is large: checking a smaller one takes a millisecond or so.
const LARGE: usize = 64 << 10;
/// How long a request waits for room before it is sent away.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// So long a sender is waited for in all before its body is slow: less than [`ROOM_PATIENCE`].
const SENDER_PATIENCE: Duration = Duration::from_secs(3);
/// What each byte that comes gives back of it: at half a megabyte a second no body is slow, or large
/// ones would push each other out for ever.
const PATIENCE_A_BYTE: Duration = Duration::from_micros(2);
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
    let client = client_address(&edge.trusted_proxies, peer.0.ip(), request.headers());
    let Some(signature) = signature else {
        edge.refuse(source, Refusal::Unsigned, client);
        return Err(ApiError::unauthorized(
            "X-Signature is missing: set the webhook's signature key",
        ));
    };
    let (body, room) = read_body(&edge, source, request, false).await?;
    edge.strike("after_body").await?;
    if !stalwart::signature::is_valid(keys, signature.as_bytes(), &body) {
        edge.refuse(source, Refusal::WrongSignature, client);
        return Err(ApiError::unauthorized(
            "X-Signature does not match the body",
        ));
    }
    let pushed = push(source, stalwart::job(&source.name, body, room)).await?;
    edge.strike("before_answer").await?;
    Ok(answer(pushed))
}

/// `POST /api/v1/events`
pub async fn record(
    State(edge): State<Arc<Edge>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.sender(request.headers()).await?;
    let source = match &caller.role {
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
    let idempotency_key = idempotency_key.map(|key| keyed_by(&caller, key));
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(ApiError::bad_request(
            "Content-Encoding is not supported: send the body as it is",
        ));
    }
    let (body, room) = read_body(&edge, source, request, true).await?;
    edge.strike("after_body").await?;
    let is_large = body.len() >= LARGE;
    let name = source.name.clone();
    let check = move || recorder::job(&name, body, idempotency_key, room);
    let checked = if is_large {
        let probe = edge.probe.clone();
        let check = move || {
            let _struck = probe.hit_blocking("in_check");
            check()
        };
        edge.growth.check_apart(check).await
    } else {
        check()
    };
    let job = checked.map_err(ApiError::bad_request)?;
    let pushed = push(source, job).await?;
    edge.strike("before_answer").await?;
    Ok(answer(pushed))
}

/// What is durable: so many events, and so many dead letters.
fn answer(pushed: (u64, u64)) -> Response {
    let answer = match pushed {
        (received, 0) => json!({ "received": received }),
        (received, quarantined) => json!({ "received": received, "quarantined": quarantined }),
    };
    Json(answer).into_response()
}

/// A service's keys are its own: two may count their requests alike. A token's name outlives its renewal.
fn keyed_by(caller: &Caller, key: String) -> String {
    let name = caller.name.as_ref().filter(|name| !name.is_empty());
    match name.or(caller.token.as_ref()) {
        Some(service) if !key.is_empty() => format!("{service}\n{key}"),
        _ => key,
    }
}

impl Edge {
    fn refuse(&self, source: &PushSource, why: Refusal, client: IpAddr) {
        self.metrics.webhook_refused(&source.name, why).increment(1);
        if let Some(untold) = self.refusals.note(&source.name, why) {
            let reason = why.as_str();
            tracing::warn!(source = %source.name, reason, %client, untold, "webhook is refused for its signature");
        }
    }

    async fn strike(&self, point: &'static str) -> Result<(), ApiError> {
        let passed = self.probe.hit(point).await;
        passed.map_err(|struck| ApiError::unavailable(struck.to_string()))
    }
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

/// Bodies that are being read and checked, and what they wait for.
pub struct Growth {
    /// Held by the one that may wait though it has some room.
    turn: Mutex<()>,
    /// How many wait.
    waiting: watch::Sender<usize>,
    /// One permit a large body that is checked.
    checks: Arc<Semaphore>,
}

impl Default for Growth {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            turn: Mutex::default(),
            waiting: watch::Sender::default(),
            checks: Arc::new(Semaphore::new(processors)),
        }
    }
}

impl Growth {
    /// Checks a large body, for seconds perhaps: not on a thread that others' answers need, and no more at
    /// once than there are processors, because what is decoded of each takes memory.
    async fn check_apart<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        // It is never closed.
        let turn = Arc::clone(&self.checks).acquire_owned().await;
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            check()
        });
        let checked = checked.await;
        checked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Waits for room; slow bodies give way meanwhile.
    async fn wait_for(&self, room: impl Future<Output = Permit>) -> Result<Permit, ApiError> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _until_over = Waiting(&self.waiting);
        let taken = tokio::time::timeout(ROOM_PATIENCE, room).await;
        taken.map_err(|_| no_room())
    }

    /// Returns when this patience is over and somebody waits for room. Cancel-safe.
    async fn wants_after(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
        let mut waiting = self.waiting.subscribe();
        // The sender is there as long as this.
        let _never_closed = waiting.wait_for(|waiting| *waiting > 0).await;
    }
}

/// One that waits.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// Reads a body within its limits of size, time and room. `is_vouched_for`: a token came before it.
async fn read_body(
    edge: &Edge,
    source: &PushSource,
    request: Request<Body>,
    is_vouched_for: bool,
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
    let mut room = Room::InFlight(source.share.try_acquire(0).ok_or_else(no_room)?);
    let deadline = Instant::now() + edge.body_timeout;
    let mut patience = SENDER_PATIENCE;
    let mut body = BytesMut::new();
    let mut chunks = request.into_body().into_data_stream();
    loop {
        let asked = Instant::now();
        let chunk = tokio::select! {
            biased;
            chunk = tokio::time::timeout_at(deadline, chunks.next()) => chunk
                .map_err(|_| ApiError::request_timeout("the body did not come in time"))?,
            () = edge.growth.wants_after(patience), if !is_vouched_for => {
                let slow = "the body comes slowly, and others wait for room";
                return Err(ApiError::request_timeout(slow));
            }
        };
        let Some(chunk) = chunk else {
            return Ok((body.freeze(), room));
        };
        let chunk =
            chunk.map_err(|_| ApiError::bad_request("the body is cut off or badly framed"))?;
        // Not the time in which it waits for room.
        patience = patience.saturating_sub(asked.elapsed());
        patience += PATIENCE_A_BYTE * chunk.len() as u32;
        patience = patience.min(SENDER_PATIENCE);
        if (body.len() + chunk.len()) as u64 > edge.max_body {
            return Err(too_large());
        }
        let length = (body.len() + chunk.len()) as u64;
        let limit = source.limit_of(&room);
        if length > room.bytes() && room.bytes() < limit {
            let wanted = (length * 2).max(FIRST_ROOM);
            let wanted = wanted.min(declared.unwrap_or(edge.max_body)).min(limit);
            let whole = declared.unwrap_or(length);
            room = grow(edge, source, room, wanted, whole).await?;
        }
        body.extend_from_slice(&chunk);
    }
}

/// Room for `wanted` bytes instead: in flight if there is any, else in the journal's reserve, which
/// turns over with the disk and is worth waiting for, where the journal has room for the `whole` body.
async fn grow(
    edge: &Edge,
    source: &PushSource,
    room: Room,
    wanted: u64,
    whole: u64,
) -> Result<Room, ApiError> {
    let journal = edge.journal.as_ref();
    let has_room = journal.is_some_and(|journal| journal.has_room(whole));
    let reserve = source.journal_reserve.as_ref().filter(|_| has_room);
    match (room, reserve) {
        (Room::InFlight(mut permit), None) => {
            let more = wanted.saturating_sub(permit.bytes());
            let is_first = permit.bytes() == 0;
            permit.absorb(more_room(edge, &source.share, more, is_first).await?);
            Ok(Room::InFlight(permit))
        }
        (Room::InFlight(mut permit), Some(reserve)) => {
            let more = wanted.saturating_sub(permit.bytes());
            if let Some(more) = source.share.try_acquire(more) {
                permit.absorb(more);
                return Ok(Room::InFlight(permit));
            }
            let taken = match reserve.try_acquire(wanted) {
                Some(taken) => taken,
                None => edge.growth.wait_for(reserve.acquire(wanted)).await?,
            };
            Ok(Room::Reserve(taken))
        }
        (Room::Reserve(mut permit), reserve) => {
            let more = wanted.saturating_sub(permit.bytes());
            let reserve = reserve.ok_or_else(no_room)?;
            let taken = match reserve.try_acquire(more) {
                Some(taken) => taken,
                None => {
                    let _turn = edge.growth.turn.try_lock().map_err(|_| no_room())?;
                    edge.growth.wait_for(reserve.acquire(more)).await?
                }
            };
            permit.absorb(taken);
            Ok(Room::Reserve(permit))
        }
    }
}

/// Whoever holds nothing yet may wait; of the others only one.
async fn more_room(
    edge: &Edge,
    share: &Share,
    bytes: u64,
    is_first: bool,
) -> Result<Permit, ApiError> {
    if let Some(permit) = share.try_acquire(bytes) {
        return Ok(permit);
    }
    let _turn = if is_first {
        None
    } else {
        Some(edge.growth.turn.try_lock().map_err(|_| no_room())?)
    };
    edge.growth.wait_for(share.acquire(bytes)).await
}

fn no_room() -> ApiError {
    ApiError::unavailable("too much is in flight")
}

/// The client's address: the last one in `X-Forwarded-For` that no trusted proxy added, and the
/// peer's own when the peer is no trusted proxy.
pub(super) fn client_address(
    trusted_proxies: &[IpNet],
    peer: IpAddr,
    headers: &HeaderMap,
) -> IpAddr {
    let trusted = |address: &IpAddr| {
        trusted_proxies
            .iter()
            .any(|network| network.contains(address))
    };
    let mut client = peer.to_canonical();
    let forwarded = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        // A client may have put in anything before what its proxy adds.
        .map(|hop| hop_address(str::from_utf8(hop).ok()?.trim()))
        .collect::<Vec<_>>();
    for hop in forwarded.into_iter().rev() {
        if !trusted(&client) {
            break;
        }
        match hop {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}

/// Some proxies tell the port, too, or write an IPv6 address in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Trusted networks, peer, `X-Forwarded-For` lines, the client.
    const CASES: &[(&[&str], &str, &[&str], &str)] = &[
        (&[], "198.51.100.9", &[], "198.51.100.9"),
        // Nobody is believed who is not trusted.
        (&[], "198.51.100.9", &["203.0.113.5"], "198.51.100.9"),
        (
            &["10.0.0.0/8"],
            "198.51.100.9",
            &["203.0.113.5"],
            "198.51.100.9",
        ),
        (&["10.0.0.0/8"], "10.1.2.3", &["203.0.113.5"], "203.0.113.5"),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["203.0.113.5:4711, 10.9.9.9:80"],
            "203.0.113.5",
        ),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["[2001:db8::1]:443"],
            "2001:db8::1",
        ),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["[2001:db8::1]"],
            "2001:db8::1",
        ),
        (&["10.0.0.0/8"], "10.1.2.3", &[], "10.1.2.3"),
        // What the client itself claims stands before what the proxy saw.
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["127.0.0.1, 203.0.113.5"],
            "203.0.113.5",
        ),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["127.0.0.1", "203.0.113.5"],
            "203.0.113.5",
        ),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["203.0.113.5, 10.9.9.9 ,10.8.8.8"],
            "203.0.113.5",
        ),
        (&["10.0.0.0/8"], "10.1.2.3", &["10.9.9.9"], "10.9.9.9"),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["203.0.113.5, unknown"],
            "10.1.2.3",
        ),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["unknown, 203.0.113.5"],
            "203.0.113.5",
        ),
        (
            &["10.0.0.0/8"],
            "10.1.2.3",
            &["\u{ff}, 203.0.113.5"],
            "203.0.113.5",
        ),
        (&["10.0.0.0/8"], "10.1.2.3", &[""], "10.1.2.3"),
        // One address in two forms.
        (
            &["10.0.0.0/8"],
            "::ffff:10.1.2.3",
            &["::ffff:203.0.113.5"],
            "203.0.113.5",
        ),
        (
            &["2001:db8::/32"],
            "2001:db8::1",
            &["2001:db9::7"],
            "2001:db9::7",
        ),
        (
            &["10.0.0.1/32", "2001:db8::/32"],
            "10.0.0.1",
            &["203.0.113.5, 2001:db8::4"],
            "203.0.113.5",
        ),
    ];

    #[tokio::test]
    async fn a_large_body_has_a_turn_for_as_long_as_it_is_checked() {
        let growth = Arc::new(Growth::default());
        let turns = growth.checks.available_permits();
        let same = Arc::clone(&growth);
        let left = growth.check_apart(move || same.checks.available_permits());
        assert_eq!(left.await, turns - 1);
        assert_eq!(growth.checks.available_permits(), turns);
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        for (trusted, peer, lines, wanted) in CASES {
            let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
            let mut headers = HeaderMap::new();
            for line in *lines {
                let line = axum::http::HeaderValue::from_bytes(line.as_bytes()).unwrap();
                headers.append("x-forwarded-for", line);
            }
            let client = client_address(&trusted, peer.parse().unwrap(), &headers);
            assert_eq!(client.to_string(), *wanted, "{peer} {lines:?}");
        }
    }
}
