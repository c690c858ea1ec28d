//! What browsers are told about every answer, and which of their requests are not taken.

use std::sync::{Arc, LazyLock};

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::assets::STYLE_HASH;
use crate::http::Peer;
use crate::http::auth::keep_host_session;
use crate::http::error::ApiError;
use crate::http::router::Edge;

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = &*STYLE_HASH;
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src '{style}'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("a hash in base64 fits a header")
});

const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
         magnetometer=(), microphone=(), payment=(), usb=()",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Whatever is worth keeping says so itself.
    (header::CACHE_CONTROL, "no-store"),
];

/// Lets no other site's page that opened this one keep a hold on it. With this browsers begin another process only when the
/// answer comes, which takes a third of the time until they paint: so readers who type the address, or follow a link of
/// Daybook's own, do not get it.
const APART: (HeaderName, &str) = (
    HeaderName::from_static("cross-origin-opener-policy"),
    "same-origin",
);

/// Refuses what another site makes a browser send, and marks every answer.
pub(in crate::http) async fn guard(
    State(edge): State<Arc<Edge>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    // A neighbouring site, or whoever is on the way to it, may have set a cookie of the other name.
    if is_under_tls(&edge, peer, request.headers()) {
        keep_host_session(request.headers_mut());
    }
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    // An export is entered on the timeline, in the name of whoever asks for it.
    let is_entered = !is_reading || request.uri().path() == "/api/v1/export";
    let is_foreign = is_entered.then(|| foreign(request.headers(), is_trusted(&edge, peer)));
    let is_opened_here = request
        .headers()
        .get("sec-fetch-site")
        .is_some_and(is_no_other_site);
    let mut response = match is_foreign.flatten() {
        Some(site) => {
            let refused = format!("a request from another site's page is not taken: {site}");
            ApiError::forbidden(refused).into_response()
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert_with(|| POLICY.clone());
    let apart = (!is_opened_here).then_some(APART);
    for (name, value) in HEADERS.into_iter().chain(apart) {
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

/// What a browser says of another site whose page sends this, if it says so. Senders that are no
/// browsers say nothing of the kind.
fn foreign(headers: &HeaderMap, is_trusted_proxy: bool) -> Option<String> {
    if let Some(site) = headers.get("sec-fetch-site") {
        let is_own = is_no_other_site(site);
        return (!is_own).then(|| format!("Sec-Fetch-Site is {:?}", shown(Some(site))));
    }
    let origin = headers.get(header::ORIGIN)?;
    let host = headers.get(header::HOST);
    // What the browser asked for, where a proxy asks for something else.
    let forwarded = headers.get_all("x-forwarded-host").iter();
    let mut hosts = host
        .into_iter()
        .chain(forwarded.filter(|_| is_trusted_proxy))
        .filter_map(|hosts| hosts.to_str().ok())
        .flat_map(|hosts| hosts.split(','));
    let named = origin.to_str().ok();
    let named = named.and_then(|origin| origin.split_once("://"));
    let is_own =
        named.is_some_and(|(_, origin)| hosts.any(|host| host.trim().eq_ignore_ascii_case(origin)));
    (!is_own).then(|| {
        let [origin, host] = [Some(origin), host].map(shown);
        format!(
            "Origin is {origin:?} and Host {host:?}; a proxy has to pass Host on as it came \
             (nginx: `proxy_set_header Host $http_host;`)"
        )
    })
}

/// Whether a browser says that its reader came by themselves, or from a page of this very site.
fn is_no_other_site(site: &HeaderValue) -> bool {
    site == "same-origin" || site == "none"
}

/// A header's value as a message may repeat it.
fn shown(value: Option<&HeaderValue>) -> String {
    let bytes = value.map(HeaderValue::as_bytes).unwrap_or_default();
    let plain = |byte: &u8| match byte.is_ascii_graphic() {
        true => char::from(*byte),
        false => '?',
    };
    bytes.iter().take(100).map(plain).collect()
}

/// Whether the browser, or whatever else asks, came by TLS: to Daybook itself or to its proxy.
pub(super) fn is_under_tls(edge: &Edge, peer: Peer, headers: &HeaderMap) -> bool {
    edge.is_tls || (is_forwarded_by_tls(headers) && is_trusted(edge, peer))
}

/// Of proxies one behind the other the first tells what the browser spoke.
fn is_forwarded_by_tls(headers: &HeaderMap) -> bool {
    let protocols = headers.get("x-forwarded-proto").map(HeaderValue::as_bytes);
    let first = protocols.and_then(|protocols| protocols.split(|byte| *byte == b',').next());
    first.is_some_and(|first| first.trim_ascii().eq_ignore_ascii_case(b"https"))
}

fn is_trusted(edge: &Edge, peer: Peer) -> bool {
    let peer = peer.0.ip().to_canonical();
    edge.trusted_proxies.iter().any(|net| net.contains(&peer))
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
    fn the_first_of_several_proxies_tells_what_the_browser_spoke() {
        for (sent, is_tls) in [
            ("https", true),
            ("HTTPS , http", true),
            ("http, https", false),
            ("http", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(sent);
            let headers = HeaderMap::from_iter([("x-forwarded-proto".parse().unwrap(), value)]);
            assert_eq!(is_forwarded_by_tls(&headers), is_tls, "{sent}");
        }
        assert!(!is_forwarded_by_tls(&HeaderMap::new()));
    }

    #[test]
    fn only_other_sites_pages_are_foreign() {
        let host = ("host", "daybook.test:8080");
        for (sent, is_foreign) in [
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
            let said = foreign(&headers_of(sent), false);
            assert_eq!(said.is_some(), is_foreign, "{sent:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_tells_which_host_was_asked() {
        let asked = [
            ("host", "daybook:8080"),
            ("origin", "http://audit.test:8443"),
        ];
        for (forwarded, is_foreign) in [
            ("audit.test:8443", false),
            ("Audit.Test:8443", false),
            ("audit.test:8443, inner.test", false),
            ("audit.test", true),
            ("evil.test", true),
        ] {
            let mut headers = headers_of(&asked);
            headers.insert("x-forwarded-host", forwarded.parse().unwrap());
            let said = foreign(&headers, true);
            assert_eq!(said.is_some(), is_foreign, "{forwarded}");
            assert!(foreign(&headers, false).is_some(), "{forwarded}");
        }
    }

    #[test]
    fn a_refusal_names_both_and_nothing_that_acts() {
        let mut headers = HeaderMap::new();
        let origin = format!("http://\u{e9}\"<{}", "x".repeat(1000));
        let origin = HeaderValue::from_bytes(origin.as_bytes()).unwrap();
        headers.insert("origin", origin);
        headers.insert("host", "daybook.test".parse().unwrap());
        let said = foreign(&headers, false).unwrap();
        assert!(said.contains("Origin is \"http://??\\\"<xx"), "{said}");
        assert!(said.contains("Host \"daybook.test\""), "{said}");
        assert!(said.is_ascii() && said.len() < 400, "{said}");
    }

    fn headers_of(sent: &[(&'static str, &str)]) -> HeaderMap {
        let sent = sent.iter();
        sent.map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }
}
