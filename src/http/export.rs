//! `GET /api/v1/export`: the timeline as a file, streamed.
//!
//! That it began stands on the timeline before the first byte goes out, and how it ended before the
//! body ends, or when a store that is away is back: an export that nobody knows of does not exist, even
//! if the service is killed in the middle. One that breaks off ends the connection without the end of its
//! body, which HTTP/1.0 has not: there nothing is exported. `HEAD` exports nothing, and nothing is said
//! about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::Peer;
use super::auth::{Authenticator, Caller, credentials};
use super::error::ApiError;
use super::ingest::client_address;
use super::query::{confine, parse_filter, wrong};
use super::router::Edge;
use super::turns::Taken;
use crate::event::Outcome;
use crate::export::{Export, Format, deed, new_id};
use crate::own_events::{self, Deed};
use crate::store::{EventFilter, StoreError};
use crate::telemetry::incident::Incident;
use crate::telemetry::metrics::Metrics;

/// Exports under way at once; more are refused.
pub const MOST_EXPORTS: u32 = 8;
/// Exports of one tenant among them.
pub const MOST_OF_TENANT: usize = 2;
/// Pieces that wait for a slow client.
const PIECES: usize = 2;
/// How often it is asked whether an export may still be read, however slowly it is.
const ASKED_AGAIN: Duration = Duration::from_secs(15);
/// How long a body that is complete waits for its end to stand on the timeline.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// The client has gone, or the server that served it.
const CONNECTION_ENDED: &str = "the connection ended";
const STORE_AWAY: &str = "the store does not answer";

/// `GET /api/v1/export`
pub async fn export(
    State(edge): State<Arc<Edge>>,
    Extension(peer): Extension<Peer>,
    method: Method,
    version: Version,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.caller(&headers).await?;
    if version < Version::HTTP_11 {
        return Ok(too_old());
    }
    let Wanted {
        mut filter,
        format,
        limit,
    } = parse(&query.unwrap_or_default())?;
    confine(&caller.role, &mut filter)?;
    let file_headers = headers_of(&filter, format);
    if method == Method::HEAD {
        // An empty body has a length; that of the file is not known.
        let nothing = futures_util::stream::empty::<Result<Bytes, Cut>>();
        return Ok((file_headers, Body::from_stream(nothing)).into_response());
    }
    let turn = edge.exports.try_take(&caller.role);
    let mut turn = turn.map_err(|taken| {
        ApiError::unavailable(match taken {
            Taken::All => "too many exports are under way",
            Taken::OfTenant => "too many exports of this tenant are under way",
        })
    })?;
    // Each enters two events, with a token that only reads too.
    if let Err(wait) = edge.attempts.begin_export(&caller, Instant::now()) {
        return Ok(too_often(wait));
    }
    let ip = client_address(&edge.trusted_proxies, peer.0.ip(), &headers).to_string();
    let record = Entered {
        id: new_id(),
        filter: filter.clone(),
        limit,
        format,
        caller,
        ip,
    };
    let (pieces, mut taken) = mpsc::channel::<Bytes>(PIECES);
    let credentials = credentials(&headers);
    let [is_whole, is_withheld] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (whole, withheld) = (Arc::clone(&is_whole), Arc::clone(&is_withheld));
    let (start, started) = oneshot::channel::<Result<(), StoreError>>();
    // A task of its own, so that its end is entered however the connection ends.
    tokio::spawn(async move {
        let mut count = 0;
        let entered = own_events::enter(&*edge.store, record.deed(None)).await;
        let reason = match entered {
            Ok(()) => {
                // Who has gone meanwhile takes no pieces either.
                let _gone = start.send(Ok(()));
                let store = Arc::clone(&edge.store);
                let export = Export::new(store, record.id.clone(), filter, format, limit);
                tokio::select! {
                    reason = send(export, &pieces, &mut count, &edge.metrics) => reason,
                    () = refused(&edge.authenticator, &record.caller, &credentials) => {
                        // Not even what waits already goes out.
                        withheld.store(true, Ordering::Release);
                        Some("the token or session is not valid any more")
                    }
                }
            }
            Err(error) => {
                turn.is_over_for_tenant();
                // The start may stand all the same, and then lacks its end.
                let may_stand = error.is_away();
                let _gone = start.send(Err(error));
                if !may_stand {
                    return;
                }
                Some(STORE_AWAY)
            }
        };
        let outcome = if reason.is_none() {
            Outcome::Success
        } else {
            Outcome::Failure
        };
        edge.metrics.exports(outcome.as_str()).increment(1);
        let mut deed = record.deed(Some((outcome, count)));
        if let Some(reason) = reason {
            deed.metadata.insert("reason".to_owned(), json!(reason));
        }
        let end = deed.into_event();
        let mut is_entered = false;
        // Who has read the body to its end finds that on the timeline, unless the store is away.
        if outcome == Outcome::Success {
            let entering = own_events::enter_event(&*edge.store, &end);
            let entered = tokio::time::timeout(END_PATIENCE, entering).await;
            is_entered = matches!(entered, Ok(Ok(())));
            whole.store(true, Ordering::Release);
        }
        // Before the client sees the end: who then asks for the next must not meet this one.
        turn.is_over_for_tenant();
        drop(pieces);
        if !is_entered {
            let what = format!("the end of export {}", record.id);
            own_events::enter_at_last(&*edge.store, &end, &what).await;
        }
        drop(turn);
    });
    let started = started.await;
    started.map_err(|_| ApiError::unavailable("the export fell"))??;
    let body = futures_util::stream::poll_fn(move |context| {
        let piece = ready!(taken.poll_recv(context));
        // Nor does one end well whose task fell.
        let is_cut = piece.is_none() && !is_whole.load(Ordering::Acquire);
        Poll::Ready(if is_cut || is_withheld.load(Ordering::Acquire) {
            Some(Err(Cut))
        } else {
            piece.map(Ok)
        })
    });
    Ok((file_headers, Body::from_stream(body)).into_response())
}

/// The answer where a body of unknown length ends with its connection, whole or not.
fn too_old() -> Response {
    static TOLD: Mutex<Incident> = Mutex::new(Incident::new());
    let message = "over HTTP/1.0 an export that breaks off looks whole: ask over HTTP/1.1, \
         and let a proxy ask so too (nginx: `proxy_http_version 1.1;`)";
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(untold) = told.note() {
        tracing::warn!(untold, "export refused: {message}");
    }
    let error = json!({ "error": { "code": "http_version_not_supported", "message": message } });
    (StatusCode::HTTP_VERSION_NOT_SUPPORTED, Json(error)).into_response()
}

fn too_often(wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let message = format!("too many exports one after the other: wait {seconds} seconds");
    let mut response = ApiError::too_many_requests(message).into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The rest will not come.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct Cut;

/// Sends every piece; why it broke off, if it did. What was counted was handed to the connection, not
/// confirmed by the client.
async fn send(
    mut export: Export,
    pieces: &mpsc::Sender<Bytes>,
    sent: &mut u64,
    metrics: &Metrics,
) -> Option<&'static str> {
    loop {
        let next = tokio::select! {
            next = export.next() => next,
            () = pieces.closed() => return Some(CONNECTION_ENDED),
        };
        match next {
            Ok(Some(piece)) => {
                if pieces.send(Bytes::from(piece)).await.is_err() {
                    return Some(CONNECTION_ENDED);
                }
                *sent = export.count();
            }
            Ok(None) => {
                // The client has everything when the connection has taken the last piece.
                let taken = pieces.reserve_many(PIECES).await;
                return taken.is_err().then_some(CONNECTION_ENDED);
            }
            Err(error) => {
                metrics.store_errors(error.reason()).increment(1);
                tracing::warn!(error = %error, "an export broke off");
                return Some(STORE_AWAY);
            }
        }
    }
}

/// Returns when whoever exports may not read any more.
async fn refused(authenticator: &Authenticator, caller: &Caller, credentials: &HeaderMap) {
    loop {
        tokio::time::sleep(ASKED_AGAIN).await;
        if !authenticator.still_knows(caller, credentials).await {
            return;
        }
    }
}

/// What is said about an export on the timeline.
struct Entered {
    id: String,
    filter: EventFilter,
    limit: Option<u64>,
    format: Format,
    caller: Caller,
    ip: String,
}

impl Entered {
    fn deed(&self, ended: Option<(Outcome, u64)>) -> Deed {
        let mut deed = deed(&self.id, &self.filter, self.limit, self.format, ended);
        deed.ip = Some(self.ip.clone());
        self.caller.sign(&mut deed);
        deed
    }
}

#[derive(Debug)]
struct Wanted {
    filter: EventFilter,
    format: Format,
    limit: Option<u64>,
}

/// The filters of a list, and `format` and `limit` of its own.
fn parse(query: &str) -> Result<Wanted, ApiError> {
    let (mut format, mut limit) = (Format::Ndjson, None);
    let filter = parse_filter(query, |name, value| {
        match (name, value) {
            ("format" | "limit" | "before", None) => {}
            ("format", Some(word)) => {
                let known = Format::from_word(&word);
                format = known.ok_or_else(|| wrong("format", "must be ndjson, csv or ecs"))?;
            }
            ("limit", Some(number)) => {
                let most = number.parse().ok().filter(|most| *most > 0);
                let wanted = format!("must be a number from 1 to {}", u64::MAX);
                limit = Some(most.ok_or_else(|| wrong("limit", &wanted))?);
            }
            ("before", Some(_)) => {
                return Err(wrong("before", "goes with a list, not with an export"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Wanted {
        filter,
        format,
        limit,
    })
}

fn headers_of(filter: &EventFilter, format: Format) -> [(HeaderName, HeaderValue); 4] {
    [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        ),
        (header::CONTENT_DISPOSITION, disposition(filter, format)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ]
}

/// `daybook-acme-20261124T040539Z.csv`
fn disposition(filter: &EventFilter, format: Format) -> HeaderValue {
    let tenant = filter.tenant.as_deref().unwrap_or_default();
    let plain =
        |character: &char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    let tenant: String = tenant.chars().filter(plain).take(64).collect();
    let separator = if tenant.is_empty() { "" } else { "-" };
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = format!("daybook{separator}{tenant}-{now}.{}", format.extension());
    HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_export_takes_the_filters_of_a_list() {
        let wanted = parse("format=csv&actor=a%26b&limit=2000000&since=2026-11-24").unwrap();
        assert_eq!(
            (wanted.format, wanted.limit),
            (Format::Csv, Some(2_000_000))
        );
        assert_eq!(wanted.filter.actor.as_deref(), Some("a&b"));
        let escaped = parse("%66ormat=csv&%6Cimit=5000").unwrap();
        assert_eq!((escaped.format, escaped.limit), (Format::Csv, Some(5000)));
        for nothing in ["", "format=", "limit=&before="] {
            let wanted = parse(nothing).expect(nothing);
            assert_eq!((wanted.format, wanted.limit), (Format::Ndjson, None));
        }
        for (bad, named) in [
            ("format=xlsx", "format"),
            ("format=csv&format=csv", "format"),
            ("format=&format=csv", "format"),
            ("limit=0", "limit"),
            ("limit=18446744073709551616", "1 to 18446744073709551615"),
            ("limit=&limit=", "limit"),
            ("before=x", "before"),
            ("outcome=maybe", "outcome"),
            ("odd=1", "odd"),
        ] {
            let error = format!("{:?}", parse(bad).expect_err(bad));
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    #[test]
    fn a_file_name_holds_nothing_that_acts() {
        let filter = EventFilter {
            tenant: Some("a\"/../\r\nb".to_owned()),
            ..EventFilter::default()
        };
        let name = disposition(&filter, Format::Ecs);
        let name = name.to_str().unwrap();
        assert!(
            name.starts_with("attachment; filename=\"daybook-ab-"),
            "{name}"
        );
        assert!(name.ends_with("Z.ecs.ndjson\""), "{name}");
    }
}
