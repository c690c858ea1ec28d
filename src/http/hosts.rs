//! By which names a Daybook that asks nobody for a token is called.
//!
//! A site can let its own name lead to this machine's loopback address once its page is open (DNS
//! rebinding). The browser then takes Daybook for that site, and its page may read every answer. It
//! does not get rid of the name, though.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Ends of names that no website has: RFC 6761, RFC 6762 and ICANN's resolution of 2024-07-29.
const NEVER_PUBLIC: [&str; 6] = [
    "example",
    "internal",
    "invalid",
    "local",
    "localhost",
    "test",
];

/// Answers nothing that was asked of a host that may be somebody's website, unless it is one of `hosts`.
pub(super) async fn guard(
    State(hosts): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    if is_expected(request.headers(), &hosts) {
        return next.run(request).await;
    }
    let refused = "with auth = \"none\" public names are answered only if http.hosts has them; \
         ask by address or as localhost";
    ApiError::misdirected(refused).into_response()
}

fn is_expected(headers: &HeaderMap, hosts: &[String]) -> bool {
    // Every browser tells it.
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let authority = host.to_str().ok().map(str::parse::<Authority>);
    let Some(Ok(authority)) = authority else {
        return false;
    };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_public = match name.rsplit_once('.') {
        Some((_, end)) => !NEVER_PUBLIC.contains(&end),
        None => false,
    };
    !name.is_empty() && !is_public || address.parse::<IpAddr>().is_ok() || hosts.contains(&name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_and_configured_ones_are_expected() {
        let hosts = ["audit.example.net".to_owned()];
        for (host, expected) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("localhost", true),
            ("LocalHost.:8080", true),
            ("daybook.localhost:8080", true),
            ("daybook:8080", true),
            ("daybook.internal", true),
            ("audit.example.net", true),
            ("Audit.Example.Net:443", true),
            ("rebound.example.com:8080", false),
            ("127.0.0.1.example.com:8080", false),
            ("localhost.example.com", false),
            ("daybook.test.example.com", false),
            ("not.audit.example.net", false),
            ("", false),
            (".", false),
            ("a b", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_expected(&headers, &hosts), expected, "{host}");
        }
        assert!(is_expected(&HeaderMap::new(), &hosts));
    }
}
