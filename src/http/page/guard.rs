//! What browsers are told about every answer, and which of their requests are not taken.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;
use crate::http::router::Edge;

const HEADERS: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
         magnetometer=(), microphone=(), payment=(), usb=()",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Whatever is worth keeping says so itself.
    (header::CACHE_CONTROL, "no-store"),
];

/// Refuses what another site makes a browser send, and marks every answer.
pub(in crate::http) async fn guard(
    State(edge): State<Arc<Edge>>,
    request: Request,
    next: Next,
) -> Response {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    // An export is entered on the timeline, in the name of whoever asks for it.
    let is_entered = !is_reading || request.uri().path() == "/api/v1/export";
    let mut response = if is_entered && is_foreign(request.headers()) {
        ApiError::forbidden("a request from another site's page is not taken").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    // A proxy that speaks TLS decides for itself.
    if edge.is_tls {
        let a_year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    }
    response
}

/// Whether a browser says that another site's page sends this. Senders that are no browsers say
/// nothing of the kind.
fn is_foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin.to_str().ok();
    let origin = origin.and_then(|origin| origin.split_once("://"));
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    match (origin, host) {
        (Some((_, origin)), Some(host)) => !origin.eq_ignore_ascii_case(host),
        _ => true,
    }
}

/// Whether a link on another site led here: a strict cookie does not come along then.
pub(super) fn came_from_elsewhere(headers: &HeaderMap) -> bool {
    let says = |name: &str, wanted: &str| headers.get(name).is_some_and(|value| value == wanted);
    says("sec-fetch-site", "cross-site") && says("sec-fetch-mode", "navigate")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_other_sites_pages_are_foreign() {
        let host = ("host", "daybook.test:8080");
        for (sent, foreign) in [
            (&[host][..], false),
            (&[host, ("origin", "http://daybook.test:8080")], false),
            (&[host, ("origin", "https://Daybook.Test:8080")], false),
            (&[host, ("origin", "http://daybook.test")], true),
            (&[host, ("origin", "http://evil.test")], true),
            (&[host, ("origin", "null")], true),
            (&[("origin", "http://daybook.test:8080")], true),
            (&[host, ("sec-fetch-site", "same-origin")], false),
            (&[host, ("sec-fetch-site", "none")], false),
            (&[host, ("sec-fetch-site", "same-site")], true),
            (&[host, ("sec-fetch-site", "cross-site")], true),
            // Behind a proxy that gives another host the browser's own word counts.
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "https://daybook.test"),
                    ("sec-fetch-site", "same-origin"),
                ],
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(is_foreign(&headers), foreign, "{sent:?}");
        }
    }
}
