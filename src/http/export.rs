//! `GET /api/v1/export`: the timeline as a file, streamed.
//!
//! That it began stands on the timeline before the first byte goes out, and how it ended
//! afterwards: an export that nobody knows of does not exist, even if the service is killed in the
//! middle. One that breaks off ends the connection without the end of its body. `HEAD` exports
//! nothing, and nothing is said about it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;

use super::Peer;
use super::auth::Caller;
use super::error::ApiError;
use super::ingest::client_address;
use super::query::{EventQuery, confine, form_pairs, wrong};
use super::router::Edge;
use crate::event::Outcome;
use crate::export::{Export, Format, deed, new_id};
use crate::own_events::{self, Deed};
use crate::store::EventFilter;

/// Exports under way at once; more are refused.
pub const MOST_EXPORTS: u32 = 8;
/// Pieces that wait for a slow client.
const PIECES: usize = 2;

/// `GET /api/v1/export`
pub async fn export(
    State(edge): State<Arc<Edge>>,
    Extension(peer): Extension<Peer>,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.caller(&headers).await?;
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
    let permit = Arc::clone(&edge.exports).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many exports are under way"))?;
    let ip = client_address(&edge.trusted_proxies, peer.0.ip(), &headers).to_string();
    let record = Entered {
        id: new_id(),
        filter: filter.clone(),
        limit,
        format,
        caller,
        ip,
    };
    own_events::enter(&*edge.store, record.deed(None)).await?;

    let (pieces, mut taken) = mpsc::channel::<Result<Bytes, Cut>>(PIECES);
    // A task of its own, so that its end is entered however the connection ends.
    tokio::spawn(async move {
        let export = Export::new(Arc::clone(&edge.store), filter, format, limit);
        let ended = run(export, &pieces).await;
        let outcome = if ended.reason.is_none() {
            Outcome::Success
        } else {
            Outcome::Failure
        };
        edge.metrics.exports(outcome.as_str()).increment(1);
        let mut deed = record.deed(Some((outcome, ended.count)));
        if let Some(reason) = ended.reason {
            deed.metadata.insert("reason".to_owned(), json!(reason));
        }
        if let Err(error) = own_events::enter(&*edge.store, deed).await {
            tracing::error!(error = %error, export = record.id, "the end of an export is not on the timeline");
        }
        drop(permit);
    });
    let body = futures_util::stream::poll_fn(move |context| taken.poll_recv(context));
    Ok((file_headers, Body::from_stream(body)).into_response())
}

/// The rest will not come.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct Cut;

struct Ended {
    count: u64,
    /// Why it broke off.
    reason: Option<&'static str>,
}

/// Sends every piece. What was counted was handed to the connection, not confirmed by the client.
async fn run(mut export: Export, pieces: &mpsc::Sender<Result<Bytes, Cut>>) -> Ended {
    let mut sent = 0;
    let reason = loop {
        let next = tokio::select! {
            next = export.next() => next,
            () = pieces.closed() => break Some("the client has gone"),
        };
        match next {
            Ok(Some(piece)) => {
                if pieces.send(Ok(Bytes::from(piece))).await.is_err() {
                    break Some("the client has gone");
                }
                sent = export.count();
            }
            Ok(None) => {
                // The client has everything when the connection has taken the last piece.
                let taken = pieces.reserve_many(PIECES).await;
                break taken.is_err().then_some("the client has gone");
            }
            Err(error) => {
                tracing::warn!(error = %error, "an export broke off");
                let _gone = pieces.send(Err(Cut)).await;
                break Some("the store does not answer");
            }
        }
    };
    Ended {
        count: sent,
        reason,
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
    let mut format = None;
    let mut limit = None;
    let mut seen = Vec::new();
    for (name, value) in form_pairs(query)? {
        if matches!(&*name, "format" | "limit") && seen.contains(&name) {
            return Err(wrong(&name, "is given twice"));
        }
        match name.as_str() {
            _ if value.is_empty() => {}
            "format" => {
                let known = Format::from_word(&value);
                let known = known.ok_or_else(|| wrong("format", "must be ndjson, csv or ecs"))?;
                format = Some(known);
            }
            "limit" => {
                let most = value.parse().ok().filter(|most| *most > 0);
                limit = Some(most.ok_or_else(|| wrong("limit", "must be a number above 0"))?);
            }
            "before" => return Err(wrong("before", "goes with a list, not with an export")),
            _ => {}
        }
        seen.push(name);
    }
    let of_list: Vec<&str> = query
        .split('&')
        .filter(|pair| !matches!(pair.split('=').next(), Some("format" | "limit")))
        .collect();
    Ok(Wanted {
        filter: EventQuery::parse(&of_list.join("&"))?.filter,
        format: format.unwrap_or(Format::Ndjson),
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
        for nothing in ["", "format=", "limit=&before="] {
            let wanted = parse(nothing).expect(nothing);
            assert_eq!((wanted.format, wanted.limit), (Format::Ndjson, None));
        }
        for (bad, named) in [
            ("format=xlsx", "format"),
            ("format=csv&format=csv", "format"),
            ("format=&format=csv", "format"),
            ("limit=0", "limit"),
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
