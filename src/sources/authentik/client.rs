//! Authentik's API over HTTP, and every way in which it does not answer.
//!
//! Facts behind the cases: authentik refuses with 403 (never 401) and tells in `detail` which of
//! three reasons it has; while it starts it answers 502 or 503, in JSON, HTML or plain text; a
//! path without its trailing slash is a 404 HTML page; redirects come only from what stands before
//! it. The token is sent to the configured address alone: redirects are not followed.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use jiff::Timestamp;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap,
    HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{StatusCode, Url, redirect};
use serde_json::Value;

use crate::config::{AuthentikConfig, Secret};
use crate::event::json;
use crate::telemetry::metrics::Metrics;

use super::list::PageRequest;

/// What is longer is not taken into memory.
const MAX_ANSWER: usize = 64 << 20;

/// What is told of an HTML page; authentik's API says what it refuses in JSON.
pub(crate) const HTML_PAGE: &str = "an HTML page";

/// What is told of a token that reads an empty list.
pub(crate) const BLIND: &str = "the token sees no event at all: it may be an outpost's, or lack view_event (a server of 2023.8 or older does not say so)";

/// A way to one Authentik.
#[derive(Clone)]
pub struct Client {
    /// Or why there is none: told at every request, so that it stops nothing but what asks here.
    http: Result<reqwest::Client, String>,
    base: String,
    /// To strike it out of what the other side says.
    token: Secret,
    metrics: Metrics,
}

/// An answer with status 200 and the server's clock.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body.
    pub body: Bytes,
    /// From the `Date` header; our own clock without one.
    pub server_time: Timestamp,
}

impl Answer {
    /// What stands for a page beyond the end.
    pub(super) fn empty() -> Self {
        Self {
            body: Bytes::new(),
            server_time: Timestamp::now(),
        }
    }
}

/// Why there is no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// 401 or 403: a person must look at the token. `detail` is authentik's own word.
    #[error("refused with {status}: {detail}")]
    Refused {
        /// 401 or 403.
        status: u16,
        /// What authentik says about it.
        detail: String,
    },
    /// A page beyond the end of the list.
    #[error("page is beyond the end of the list")]
    NoSuchPage,
    /// 404 and the like: not authentik's API at this address.
    #[error("no events API at this address: {0}; check the url, without /api/v3")]
    WrongAddress(String),
    /// 429.
    #[error("asked to slow down (429)")]
    Throttled {
        /// How long to wait, if told.
        retry_after: Option<Duration>,
    },
    /// 5xx: it starts, its database is away, or the proxy before it does not reach it. 408: a proxy
    /// waits no longer.
    #[error("server error {status}: {detail}")]
    ServerError {
        /// 5xx or 408.
        status: u16,
        /// The first words of the answer, if they are text.
        detail: String,
        /// How long to wait, if told.
        retry_after: Option<Duration>,
    },
    /// Longer than 64 MiB.
    #[error("an answer of authentik's is longer than 64 MiB")]
    TooLong,
    /// A page of one event, longer than 64 MiB.
    #[error(
        "an event is longer than 64 MiB and cannot be read: what is older waits until it is deleted in authentik"
    )]
    EventTooLong,
    /// 200, and every page alone is one.
    #[error("its pages contradict each other: the event that was read last is not found again")]
    Contradictory,
    /// 200, but not what authentik answers.
    #[error("answer is not authentik's: {0}")]
    Unreadable(String),
    /// No answer within the timeout, or not all of it.
    #[error("no answer in time")]
    Late,
    /// No answer, or not all of it.
    #[error("{0}")]
    Transport(String),
}

impl ClientError {
    /// Whether a person must change something before it can work.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::WrongAddress(_))
    }

    /// Whether the answer took too long, for us or for a proxy: a shorter one may come.
    pub fn is_late(&self) -> bool {
        match self {
            Self::Late => true,
            // The last one is Cloudflare's.
            Self::ServerError { status, .. } => matches!(status, 408 | 504 | 524),
            _ => false,
        }
    }

    /// What is told of it where the list of events is read all the same.
    pub fn beside_the_list(&self) -> String {
        match self {
            Self::WrongAddress(what) => what.clone(),
            error => error.to_string(),
        }
    }

    /// How long the other side wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::ServerError { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Client {
    /// A client for `url` (with any path prefix, without `/api/v3`).
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn new(
        url: &str,
        token: &Secret,
        timeout: Duration,
        metrics: Metrics,
    ) -> Result<Self, String> {
        crate::install_crypto_provider();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose().trim()))
            .map_err(|_| "token holds characters that cannot stand in a header".to_owned())?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, bearer),
            (ACCEPT, HeaderValue::from_static("application/json")),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        ]);
        let mut http = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .timeout(timeout)
            .pool_max_idle_per_host(4)
            .user_agent(concat!("daybook/", env!("CARGO_PKG_VERSION")));
        if let Ok(address) = Url::parse(url) {
            if is_this_host(&address) {
                http = http.no_proxy();
            }
            if address.scheme() == "http" {
                // No certificate is shown: none of the machine's is read, and it need not have any.
                http = http.tls_certs_only([]);
            }
        }
        let http = http.build();
        Ok(Self {
            http: http.map_err(|error| format!("cannot set up TLS: {}", describe(&error))),
            base: format!("{}/api/v3", url.trim_end_matches('/')),
            token: token.clone(),
            metrics,
        })
    }

    /// The same with the token that its file holds now; `None` when that is no other, or no token.
    pub(super) fn with_new_token(&self, config: &AuthentikConfig) -> Option<Self> {
        let token = config.load_token().ok()?;
        if token == self.token {
            return None;
        }
        Self::new(&config.url, &token, config.timeout, self.metrics.clone()).ok()
    }

    /// One page of events, newest first.
    pub async fn events(&self, request: PageRequest) -> Result<Answer, ClientError> {
        let PageRequest { page, page_size } = request;
        let path =
            format!("/events/events/?ordering=-created,-pk&page={page}&page_size={page_size}");
        self.get(&path).await
    }

    /// Who the token belongs to.
    pub async fn me(&self) -> Result<Value, ClientError> {
        match self.get("/core/users/me/").await {
            Ok(answer) => parse(&answer),
            // Whoever may ask at all is somebody: this is another program's API.
            Err(ClientError::NoSuchPage) => Err(ClientError::WrongAddress("404".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// A user by number; `None` when there is none (deleted).
    pub async fn user(&self, pk: i64) -> Result<Option<Value>, ClientError> {
        match self.get(&format!("/core/users/{pk}/")).await {
            Ok(answer) => parse(&answer).map(Some),
            Err(ClientError::NoSuchPage) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, path_and_query: &str) -> Result<Answer, ClientError> {
        let http = self.http.as_ref();
        let http = http.map_err(|why| ClientError::Transport(why.clone()))?;
        let url = format!("{}{path_and_query}", self.base);
        let response = match http.get(url).send().await {
            Ok(response) => response,
            Err(error) => {
                self.metrics.authentik_requests(None).increment(1);
                return Err(transport(&error, ""));
            }
        };
        let status = response.status();
        self.metrics
            .authentik_requests(Some(status.as_u16()))
            .increment(1);
        let headers = response.headers().clone();
        let body = read_body(response).await;
        if status == StatusCode::OK {
            let body = body?;
            if let Some(encoding) = encoding(&headers) {
                return Err(ClientError::Unreadable(format!(
                    "a proxy has compressed it ({}), which was not asked for",
                    self.strike_token_out(encoding)
                )));
            }
            refuse_html(&headers, &body)?;
            return Ok(Answer {
                body,
                server_time: server_time(&headers),
            });
        }
        let body = self.strike_token_out(&String::from_utf8_lossy(&body.unwrap_or_default()));
        let location = headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("nowhere");
        let location = self.strike_token_out(location);
        Err(classify(status, &headers, body.as_bytes(), &location))
    }

    /// Some proxies repeat in their pages what they were sent.
    fn strike_token_out(&self, text: &str) -> String {
        match self.token.expose().trim() {
            "" => text.to_owned(),
            token => text.replace(token, "***"),
        }
    }
}

/// Whether it leads to the machine that this runs on, where no proxy has to be asked for the way.
fn is_this_host(address: &Url) -> bool {
    let host = address.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

async fn read_body(response: reqwest::Response) -> Result<Bytes, ClientError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > MAX_ANSWER as u64 {
        return Err(ClientError::TooLong);
    }
    let mut body = BytesMut::with_capacity(announced.min(1 << 20) as usize);
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| transport(&error, "answer was cut off: "))?;
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(ClientError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// How the body is encoded, unless it is plain.
fn encoding(headers: &HeaderMap) -> Option<&str> {
    let encoding = headers.get(CONTENT_ENCODING)?.to_str().ok()?.trim();
    (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")).then_some(encoding)
}

fn refuse_html(headers: &HeaderMap, body: &[u8]) -> Result<(), ClientError> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if content_type.starts_with("text/html") || body.trim_ascii_start().starts_with(b"<") {
        return Err(ClientError::Unreadable(
            "an HTML page (a login page or a proxy's) with status 200".to_owned(),
        ));
    }
    Ok(())
}

fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8], location: &str) -> ClientError {
    let detail = detail_of(body);
    let code = status.as_u16();
    match code {
        401 | 403 => ClientError::Refused {
            status: code,
            detail,
        },
        404 if json::from_slice(body).is_ok_and(|body| body.get("detail").is_some()) => {
            ClientError::NoSuchPage
        }
        429 => ClientError::Throttled {
            retry_after: retry_after(headers),
        },
        300..=399 => {
            let target = location.split('?').next().unwrap_or_default();
            ClientError::WrongAddress(format!("redirected ({code}) to {target}"))
        }
        408 | 500.. => ClientError::ServerError {
            status: code,
            detail,
            retry_after: retry_after(headers),
        },
        _ => ClientError::WrongAddress(format!("{code} {detail}")),
    }
}

/// authentik's `detail` or `error`, else the first words; an HTML page only by name.
fn detail_of(body: &[u8]) -> String {
    if let Ok(Value::Object(object)) = json::from_slice(body) {
        for key in ["detail", "error"] {
            if let Some(Value::String(text)) = object.get(key) {
                return text.chars().take(200).collect();
            }
        }
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let text = text.trim();
    if text.is_empty() {
        return "no detail".to_owned();
    }
    if text.starts_with('<') {
        return HTML_PAGE.to_owned();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

/// Seconds or an HTTP date, at most an hour.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = http_date(text)?;
            Duration::from_millis(
                u64::try_from(until.as_millisecond() - Timestamp::now().as_millisecond()).ok()?,
            )
        }
    };
    Some(wait.min(Duration::from_secs(3600)))
}

fn server_time(headers: &HeaderMap) -> Timestamp {
    headers
        .get(DATE)
        .and_then(|value| http_date(value.to_str().ok()?))
        .unwrap_or_else(Timestamp::now)
}

fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
}

fn parse(answer: &Answer) -> Result<Value, ClientError> {
    json::from_slice(&answer.body)
        .map_err(|error| ClientError::Unreadable(format!("not JSON: {error}")))
}

fn transport(error: &reqwest::Error, what: &str) -> ClientError {
    if error.is_timeout() {
        return ClientError::Late;
    }
    ClientError::Transport(format!("{what}{}", describe(error)))
}

/// The innermost cause in words, without the address: it is in the configuration.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_connect() {
        format!("cannot connect: {cause}")
    } else {
        cause.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_waits_no_longer_makes_an_answer_late_and_no_address_wrong() {
        for (code, is_late) in [(408, true), (504, true), (524, true), (502, false)] {
            let status = StatusCode::from_u16(code).unwrap();
            let error = classify(status, &HeaderMap::new(), b"<html>", "nowhere");
            assert_eq!(error.is_late(), is_late, "{error}");
            assert!(!error.needs_a_person(), "{error}");
        }
    }

    #[test]
    fn a_proxy_is_asked_for_the_way_to_other_machines_only() {
        for here in [
            "http://localhost:9000",
            "https://LOCALHOST/sso",
            "http://127.0.0.1",
            "http://127.1.2.3:9000",
            "http://[::1]:9000",
        ] {
            assert!(is_this_host(&Url::parse(here).unwrap()), "{here}");
        }
        for elsewhere in [
            "https://id.example.net",
            "http://localhost.example.net",
            "http://10.0.0.1:9000",
            "http://[2001:db8::1]",
        ] {
            assert!(
                !is_this_host(&Url::parse(elsewhere).unwrap()),
                "{elsewhere}"
            );
        }
    }
}
