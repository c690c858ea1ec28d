//! The page's scripts and icon: in the binary, under an address that changes with them. The style stands in each page,
//! so that nothing is waited for before the first paint.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::http::error::ApiError;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type and content.
const FILES: [(&str, &str, &str); 11] = [
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("theme.js", JAVASCRIPT, include_str!("assets/theme.js")),
    ("page.js", JAVASCRIPT, include_str!("assets/page.js")),
    ("times.js", JAVASCRIPT, include_str!("assets/times.js")),
    ("fetch.js", JAVASCRIPT, include_str!("assets/fetch.js")),
    ("notes.js", JAVASCRIPT, include_str!("assets/notes.js")),
    ("live.js", JAVASCRIPT, include_str!("assets/live.js")),
    ("list.js", JAVASCRIPT, include_str!("assets/list.js")),
    ("chart.js", JAVASCRIPT, include_str!("assets/chart.js")),
    ("drawer.js", JAVASCRIPT, include_str!("assets/drawer.js")),
    ("keys.js", JAVASCRIPT, include_str!("assets/keys.js")),
];

pub(super) const STYLE: &str = include_str!("assets/page.css");

/// What a policy names the style by: browsers take no other one.
pub(super) static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| format!("sha256-{}", STANDARD.encode(Sha256::digest(STYLE))));

/// One version for all of them: scripts name each other without one.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, content) in FILES {
        hash.update(name);
        hash.update([0]);
        hash.update(content);
        hash.update([0]);
    }
    let mut version = String::new();
    for byte in &hash.finalize()[..8] {
        // Writing into a string cannot fail.
        let _infallible = write!(version, "{byte:02x}");
    }
    version
});

/// Where a file is.
pub(super) fn href(name: &str) -> String {
    format!("/audit/assets/{}/{name}", *VERSION)
}

/// `GET /audit/assets/{version}/{name}`
pub(super) async fn get(
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let asked = path.ok().filter(|Path((version, _))| *version == *VERSION);
    let file = asked.and_then(|Path((_, name))| FILES.iter().find(|(known, ..)| *known == name));
    let Some((_, kind, content)) = file else {
        return ApiError::not_found("no such file in this version").into_response();
    };
    let tag = format!("\"{}\"", *VERSION);
    let known = headers.get(header::IF_NONE_MATCH);
    let is_known = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => (*content).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
