//! Signing in with a token, and out again.
//!
//! The token is seen once, in the body of one request; from then on a cookie holds the random id of
//! a session. Nothing but signing in and out is done by the page, and neither when another site's
//! page asks for it (`guard`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use maud::{Markup, html};
use tokio::sync::Semaphore;

use super::guard::{came_from_elsewhere, is_under_tls};
pub(super) use super::layout::Reader;
use super::layout::{answer, notice, page, sentence, trouble};
use super::now;
use super::view::View;
use crate::config::AuthMode;
use crate::event::Outcome;
use crate::http::Peer;
use crate::http::attempts::Attempts;
use crate::http::auth::{
    Caller, HOST_SESSION_COOKIE, SESSION, SESSION_COOKIE, hash_token, session_ids, tenant_scope,
    token_id,
};
use crate::http::error::ApiError;
use crate::http::ingest::client_address;
use crate::http::query::form_pairs;
use crate::http::router::Edge;
use crate::own_events::{self, Deed};

/// A form with a token and an address is shorter: addresses have 64 KiB at most, and each `%` of them is `%25` in a form.
const LONGEST_FORM: usize = 128 << 10;
/// Longer ones are read a few at a time: whoever sends them is not known yet.
const SHORT_FORM: usize = 4 << 10;

/// Whoever may read; or the page that they get instead.
pub(super) async fn reader(
    edge: &Edge,
    headers: &HeaderMap,
    view: &View,
) -> Result<Caller, Response> {
    let caller = edge.authenticator.caller(headers).await;
    let allowed = caller.and_then(|caller| tenant_scope(&caller.role).map(|_| ()).map(|()| caller));
    allowed.map_err(|error| match error.status() {
        StatusCode::UNAUTHORIZED if came_from_elsewhere(headers) => bounce(),
        StatusCode::UNAUTHORIZED => form(StatusCode::UNAUTHORIZED, view, &view.here(), None),
        _ => trouble(&error, view, None),
    })
}

/// A strict cookie stays behind when a link on another site leads here; a page of ours that goes on
/// to the same address brings it along.
fn bounce() -> Response {
    let content = notice(
        "Opening the timeline",
        &html! { p { a.button href="" { "Go on" } } },
    );
    let page = page("Opening", &View::default(), None, &content);
    let mut response = answer(StatusCode::OK, page);
    let headers = response.headers_mut();
    headers.insert("refresh", HeaderValue::from_static("0"));
    response
}

/// `GET /audit/sign-in`
pub(super) async fn ask(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let pairs = form_pairs(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let next = safe_next(value_of(&pairs, "next"));
    if edge.authenticator.caller(&headers).await.is_ok() {
        return see_other(next);
    }
    let out = value_of(&pairs, "signed-out").is_some();
    let said = out.then_some("you are signed out");
    form(
        StatusCode::OK,
        &View::default(),
        next,
        said.map(|said| (false, said)),
    )
}

/// `POST /audit/sign-in`
pub(super) async fn sign_in(
    State(edge): State<Arc<Edge>>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    if edge.authenticator.mode() == AuthMode::None {
        return see_other("/audit");
    }
    let view = View::default();
    let pairs = match read_form(&edge, body).await {
        Ok(pairs) => pairs,
        Err(error) => return trouble(&error, &view, None),
    };
    let next = safe_next(value_of(&pairs, "next")).to_owned();
    let client = client_address(&edge.trusted_proxies, peer.0.ip(), &headers);
    let token = value_of(&pairs, "token").unwrap_or_default().trim();
    // Many good sign-ins at one moment must not pass for guesses until they are done.
    let is_guess = !edge.authenticator.is_known_reader(token);
    if let Err((what, wait)) = begin(&edge.attempts, client, token, is_guess) {
        let seconds = wait.as_secs() + 1;
        let said = format!("too many {what}: wait {seconds} seconds");
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut response = form(status, &view, &next, Some((true, &said)));
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    let opened = open(&edge, &headers, token, client).await;
    let is_refused = |error: &ApiError| error.status() != StatusCode::SERVICE_UNAVAILABLE;
    if is_guess && !opened.as_ref().is_err_and(is_refused) {
        edge.attempts.take_back(client);
    }
    match opened {
        Ok(id) => {
            let mut response = see_other(&next);
            set_cookie(&mut response, &edge, peer, &headers, &id, SESSION.as_secs());
            response
        }
        Err(error) if !is_refused(&error) => {
            let wanted = next.parse().map(|next| View::of(&next, now()).0);
            trouble(&error, &wanted.unwrap_or_default(), None)
        }
        Err(error) => {
            let said = match error.status() {
                StatusCode::FORBIDDEN => error.message(),
                _ => "this token is unknown or has expired",
            };
            form(error.status(), &view, &next, Some((true, said)))
        }
    }
}

/// Counts an attempt; an error: of what there were too many, and how long to wait.
fn begin(
    attempts: &Attempts,
    client: IpAddr,
    token: &str,
    is_guess: bool,
) -> Result<(), (&'static str, Duration)> {
    let now = Instant::now();
    let from_address = match is_guess {
        true => attempts.begin(client, now),
        false => attempts.may_begin(client, now),
    };
    from_address.map_err(|wait| ("attempts from this address", wait))?;
    // Each good one writes into the store, with a token that only reads too.
    let with_token = attempts.begin_with(token_id(&hash_token(token)), now);
    with_token.map_err(|wait| {
        if is_guess {
            attempts.take_back(client);
        }
        ("sign-ins with this token", wait)
    })
}

/// A session, and its entry in the timeline: not one without the other.
async fn open(
    edge: &Edge,
    headers: &HeaderMap,
    token: &str,
    client: IpAddr,
) -> Result<String, ApiError> {
    let opened = match edge.authenticator.open_session(token).await {
        Ok(session) => session,
        Err(error) => {
            let is_refusal = error.status() != StatusCode::SERVICE_UNAVAILABLE;
            if is_refusal && edge.attempts.is_told(Instant::now()) {
                let deed = Deed {
                    ip: Some(client.to_string()),
                    ..Deed::new("daybook.sign_in_failed", Outcome::Failure)
                };
                // Refused and counted all the same: whoever guesses must not gain by a full disk.
                if let Err(error) = own_events::enter(&*edge.store, deed).await {
                    tracing::error!(%error, "a failed sign-in is not on the timeline");
                }
            }
            return Err(error);
        }
    };
    if let Err(error) = take_over(edge, headers, &opened.caller, client).await {
        edge.authenticator.forget_session(&opened.id).await?;
        return Err(error);
    }
    Ok(opened.id)
}

/// Signs out whoever was signed in here before, and enters who is now: in this order no sign-in that
/// fails is on the timeline, though it may have ended the former session.
async fn take_over(
    edge: &Edge,
    headers: &HeaderMap,
    caller: &Caller,
    client: IpAddr,
) -> Result<(), ApiError> {
    match close(edge, headers, client).await {
        Ok(()) => {}
        Err(Unclosed::Untold(error)) => {
            tracing::error!(error = error.message(), "a sign-out is not on the timeline");
        }
        Err(Unclosed::Open(error)) => return Err(error),
    }
    let deed = Deed {
        ip: Some(client.to_string()),
        ..deed_of("daybook.signed_in", caller)
    };
    Ok(own_events::enter(&*edge.store, deed).await?)
}

/// What went wrong when a session was to be closed.
enum Unclosed {
    /// It is open still.
    Open(ApiError),
    /// It is closed, and the timeline does not say so.
    Untold(ApiError),
}

/// Closes the session, if there is one, or several, and says so on the timeline.
async fn close(edge: &Edge, headers: &HeaderMap, client: IpAddr) -> Result<(), Unclosed> {
    let mut told = Ok(());
    for id in session_ids(headers) {
        let closed = edge.authenticator.close_session(id).await;
        let Some(caller) = closed.map_err(Unclosed::Open)? else {
            continue;
        };
        let deed = Deed {
            ip: Some(client.to_string()),
            ..deed_of("daybook.signed_out", &caller)
        };
        if let Err(error) = own_events::enter(&*edge.store, deed).await {
            told = Err(Unclosed::Untold(error.into()));
        }
    }
    told
}

fn deed_of(action: &'static str, caller: &Caller) -> Deed {
    let mut deed = Deed::new(action, Outcome::Success);
    caller.sign(&mut deed);
    deed
}

/// `POST /audit/sign-out`
pub(super) async fn sign_out(
    State(edge): State<Arc<Edge>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let client = client_address(&edge.trusted_proxies, peer.0.ip(), &headers);
    let mut response = match close(&edge, &headers, client).await {
        Ok(()) => see_other("/audit/sign-in?signed-out=1"),
        Err(unclosed) => almost_signed_out(&unclosed),
    };
    set_cookie(&mut response, &edge, peer, &headers, "", 0);
    response
}

fn almost_signed_out(unclosed: &Unclosed) -> Response {
    let (error, left) = match unclosed {
        Unclosed::Open(error) => (
            error,
            "This browser has forgotten your session, but the store does not answer: there the session stands until it expires.",
        ),
        Unclosed::Untold(error) => (
            error,
            "Your session is closed, but the store does not answer: the timeline does not say so.",
        ),
    };
    let said = html! {
        p { (left) }
        p { a.button href="/audit" { "To the timeline" } }
    };
    let notice = notice("Signed out, almost", &said);
    let page = page("Signed out", &View::default(), None, &notice);
    answer(error.status(), page)
}

fn set_cookie(
    response: &mut Response,
    edge: &Edge,
    peer: Peer,
    headers: &HeaderMap,
    value: &str,
    seconds: i64,
) {
    let (name, secure) = match is_under_tls(edge, peer, headers) {
        true => (HOST_SESSION_COOKIE, "; Secure"),
        false => (SESSION_COOKIE, ""),
    };
    let cookie =
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

async fn read_form(edge: &Edge, body: Body) -> Result<Vec<(String, String)>, ApiError> {
    let read = collect(body, &edge.long_forms);
    let read = tokio::time::timeout(edge.body_timeout, read).await;
    let form = read.map_err(|_| ApiError::request_timeout("the form did not come in time"))??;
    let text =
        std::str::from_utf8(&form).map_err(|_| ApiError::bad_request("the form is not UTF-8"))?;
    form_pairs(text)
}

async fn collect(body: Body, long_forms: &Semaphore) -> Result<Vec<u8>, ApiError> {
    let mut frames = body.into_data_stream();
    let (mut form, mut room) = (Vec::new(), None);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| ApiError::bad_request("the form ended early"))?;
        if form.len() + frame.len() > LONGEST_FORM {
            return Err(ApiError::too_large("this is too much for a token"));
        }
        if form.len() + frame.len() > SHORT_FORM && room.is_none() {
            let permit = long_forms.try_acquire();
            room = Some(permit.map_err(|_| ApiError::unavailable("too many long forms at once"))?);
        }
        form.extend_from_slice(&frame);
    }
    Ok(form)
}

fn value_of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(each, _)| each == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// Where to go after signing in: within the page, and nowhere else.
fn safe_next(next: Option<&str>) -> &str {
    const HOME: &str = "/audit";
    let Some(next) = next else {
        return HOME;
    };
    let rest = next.strip_prefix(HOME);
    let is_ours = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['?', '/']));
    let is_plain = next
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let leads_on = !next.starts_with("/audit/sign-");
    // Browsers resolve them, however they are written.
    let path = next.split(['?', '#']).next().unwrap_or_default();
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let has_dots = path.split('/').any(|part| matches!(part, "." | ".."));
    if is_ours && is_plain && leads_on && !has_dots {
        next
    } else {
        HOME
    }
}

fn see_other(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// The sign-in page; `said` is an error or not.
fn form(status: StatusCode, view: &View, next: &str, said: Option<(bool, &str)>) -> Response {
    let said: Markup = html! {
        @if let Some((is_error, said)) = said {
            p #said class=(if is_error { "said error" } else { "said" }) role=(if is_error { "alert" } else { "status" }) { (sentence(said)) }
        }
    };
    let content = html! {
        section.sign-in {
            h1 { "Sign in" }
            (said)
            form method="post" action="/audit/sign-in" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus autocomplete="current-password" spellcheck="false" aria-describedby="token-help";
                button.primary type="submit" { "Sign in" }
            }
            p.hint #token-help { "An operator or a tenant's token, made by " code { "daybook token new" } ". You stay signed in for 12 hours." }
        }
    };
    let mut response = answer(status, page("Sign in", view, None, &content));
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_forms_are_read_a_few_at_a_time() {
        let one = Semaphore::new(1);
        let status = async |length: usize| {
            let form = collect(Body::from(vec![b'a'; length]), &one).await;
            form.map(|form| form.len())
                .map_err(|error| error.status().as_u16())
        };
        assert_eq!(status(LONGEST_FORM).await, Ok(LONGEST_FORM));
        assert_eq!(status(LONGEST_FORM + 1).await, Err(413));
        let held = one.try_acquire();
        assert!(held.is_ok());
        assert_eq!(status(SHORT_FORM + 1).await, Err(503));
        assert_eq!(status(SHORT_FORM).await, Ok(SHORT_FORM));
        drop(held);
        assert_eq!(status(SHORT_FORM + 1).await, Ok(SHORT_FORM + 1));
    }

    #[test]
    fn what_is_no_guess_counts_for_its_token_alone() {
        let attempts = Attempts::default();
        let client = IpAddr::from([192, 0, 2, 7]);
        let what = |token: &str, is_guess| {
            let begun = begin(&attempts, client, token, is_guess);
            begun.err().map(|(what, _)| what)
        };
        let mut begun = 0;
        let refused = loop {
            match what("known", false) {
                None => begun += 1,
                refused => break refused,
            }
        };
        assert_eq!(refused, Some("sign-ins with this token"));
        // One more every half second.
        assert!((600..700).contains(&begun), "{begun}");
        let refused = loop {
            match what("good", true) {
                None => attempts.take_back(client),
                refused => break refused,
            }
        };
        assert_eq!(refused, Some("sign-ins with this token"));
        for _ in 0..10 {
            assert_eq!(what("guess", true), None);
        }
        // Nobody tries tokens that may be known where no guess is free.
        for is_guess in [true, false] {
            let refused = what("another", is_guess);
            assert_eq!(refused, Some("attempts from this address"));
        }
    }

    #[test]
    fn after_signing_in_one_stays_here() {
        for (next, wanted) in [
            (
                Some("/audit?text=a%20b&tz=local"),
                "/audit?text=a%20b&tz=local",
            ),
            (
                Some("/audit/events/1f?source=x"),
                "/audit/events/1f?source=x",
            ),
            (Some("/audit"), "/audit"),
            (None, "/audit"),
            (Some("https://evil.test/audit"), "/audit"),
            (Some("//evil.test"), "/audit"),
            (Some("/auditor"), "/audit"),
            (Some("/audit\\evil"), "/audit"),
            (Some("/audit?x\r\nset-cookie: a=b"), "/audit"),
            (Some("/audit/sign-out"), "/audit"),
            (Some("/metrics"), "/audit"),
            (Some("/audit/../api/v1/export?format=csv"), "/audit"),
            (Some("/audit/events/.%2E/../x"), "/audit"),
            (Some("/audit?text=../.."), "/audit?text=../.."),
        ] {
            assert_eq!(safe_next(next), wanted, "{next:?}");
        }
    }
}
