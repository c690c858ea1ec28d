//! `GET /api/v1/events/histogram`: how much happened when.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::store::{Bar, Histogram};

use super::error::ApiError;
use super::query::{HistogramQuery, confine};
use super::router::Edge;

/// `GET /api/v1/events/histogram`; sees what the list sees.
pub async fn histogram(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.caller(&headers).await?;
    let HistogramQuery {
        mut filter,
        buckets,
    } = HistogramQuery::parse(query.as_deref().unwrap_or_default())?;
    confine(&caller.role, &mut filter)?;
    let _turn = edge.queries.histogram(&caller.role).await?;
    let histogram = edge.store.histogram(&filter, buckets).await?;
    Ok(Json(view(&histogram)).into_response())
}

fn view(histogram: &Histogram) -> Value {
    let bar = |bar: &Bar| json!({ "at": bar.at, "total": bar.total(), "counts": bar.counts });
    json!({
        "since": histogram.since,
        "until": histogram.until,
        "bucketSeconds": histogram.bucket.as_secs(),
        "total": histogram.total,
        "buckets": histogram.bars.iter().map(bar).collect::<Vec<_>>(),
    })
}
