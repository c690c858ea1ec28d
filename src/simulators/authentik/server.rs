//! The HTTP side of the fake: connections, routes, authorisation, and the scripted faults.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answer::{Answer, Delivery};
use super::faults::Fault;
use super::state::Shared;
use super::{RequestLog, route};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Accepts until it is aborted; its connections end with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that went away before it was accepted is no reason to stop.
                let Ok((stream, _peer)) = accepted else { continue };
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let reset = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Resettable {
        stream,
        reset: Arc::clone(&reset),
    });
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let reset = Arc::clone(&reset);
        async move { respond(&shared, &request, &reset).await }
    });
    // A broken connection is the client's to notice; faults break them on purpose.
    let _ended = hyper::server::conn::http1::Builder::new()
        .serve_connection(io, service)
        .await;
}

async fn respond(
    shared: &Shared,
    request: &Request<Incoming>,
    reset: &Arc<AtomicBool>,
) -> io::Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let authorization = header(request, "authorization").map(str::to_owned);
    let accept = header(request, "accept").unwrap_or_default().to_owned();
    let asked = route::Asked {
        method: request.method().as_str(),
        path: &path,
        query: &query,
        authorization: authorization.as_deref(),
        accept: &accept,
    };
    let due_hooks = shared.begin_request();
    for hook in due_hooks {
        hook();
    }
    let fault = shared.strike(&path);
    let answer = match fault {
        None => route::answer(shared, &asked, usize::MAX),
        Some(fault) => faulty(shared, &asked, fault),
    };
    let unanswered = matches!(answer.delivery, Delivery::Never | Delivery::Reset);
    shared.log(RequestLog {
        method: asked.method.to_owned(),
        path: path.clone(),
        query: query.clone(),
        status: if unanswered { 0 } else { answer.status },
        authorization: authorization.clone(),
        accept_encoding: header(request, "accept-encoding").map(str::to_owned),
    });
    if let Some(delay) = answer.delay {
        tokio::time::sleep(delay).await;
    }
    match answer.delivery {
        Delivery::Never => std::future::pending::<()>().await,
        Delivery::Reset => {
            reset.store(true, Ordering::Release);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Delivery::Whole | Delivery::HalfThenReset | Delivery::Drip(..) => {}
    }
    Ok(finish(shared, answer, reset))
}

fn header<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn faulty(shared: &Shared, asked: &route::Asked<'_>, fault: Fault) -> Answer {
    let right = || route::answer(shared, asked, usize::MAX);
    let old = shared.profile.starting_status() == 502;
    match fault {
        Fault::Unauthorized => Answer::proxy(401, "Authorization Required")
            .header("www-authenticate", "Basic realm=\"Restricted\""),
        Fault::Forbidden(detail) => Answer::detail(403, detail),
        Fault::InvalidPage => Answer::detail(404, "Invalid page."),
        Fault::NotFoundHtml => Answer::page(404, "Not Found"),
        Fault::TooManyRequests { retry_after, html } => {
            let answer = if html {
                Answer::proxy(429, "Too Many Requests")
            } else {
                Answer::detail(
                    429,
                    &format!("Request was throttled. Expected available in {retry_after} seconds."),
                )
            };
            answer.header("retry-after", retry_after.to_string())
        }
        Fault::ServerError => {
            let mut answer = Answer::page(500, "Server Error");
            answer.by_authentik = false;
            answer
        }
        Fault::BadGateway => Answer::router(
            502,
            asked.accept,
            "failed to connect to authentik backend: dial unix /dev/shm/authentik-core.sock: connect: connection refused",
            false,
        ),
        Fault::Starting => {
            let answer = Answer::router(
                shared.profile.starting_status(),
                asked.accept,
                "authentik starting",
                old,
            );
            if old {
                answer
            } else {
                answer.header("retry-after", "5")
            }
        }
        Fault::GatewayTimeout => Answer::proxy(504, "Gateway Time-out"),
        Fault::ResetMidBody => Answer {
            delivery: Delivery::HalfThenReset,
            ..right()
        },
        Fault::TruncatedJson => {
            let mut answer = right();
            answer.body.truncate(answer.body.len() / 2);
            answer
        }
        Fault::SlowDrip { chunk, pause } => Answer {
            delivery: Delivery::Drip(chunk.max(1), pause),
            ..right()
        },
        Fault::ResetBeforeHeaders => Answer {
            delivery: Delivery::Reset,
            ..Answer::new(200, "text/plain", "")
        },
        Fault::HangBeforeHeaders => Answer {
            delivery: Delivery::Never,
            ..Answer::new(200, "text/plain", "")
        },
        Fault::OkHtml => Answer::page(200, "Welcome to authentik!"),
        Fault::Gzip => Answer {
            // As every such body begins.
            body: b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
            ..right().header("content-encoding", "gzip")
        },
        Fault::OkWithoutPagination => Answer::json(200, &serde_json::json!({"status": "ok"})),
        Fault::RedirectToLogin => Answer::new(302, "text/html; charset=utf-8", "")
            .header("location", "/flows/-/default/authentication/?next=/"),
        Fault::RedirectTo(address) => {
            Answer::new(302, "text/html; charset=utf-8", "").header("location", address)
        }
        Fault::PageSizeClamp(rows) => route::answer(shared, asked, rows.max(1)),
        Fault::Overlong(rows) => {
            let mut answer = right();
            let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let results = page["results"].as_array().into_iter().flatten();
            let large = results.filter(|event| event["context"].get("large").is_some());
            if large.count() > rows {
                answer.body.resize(65 << 20, b' ');
            }
            answer
        }
        Fault::Delay(delay) => Answer {
            delay: Some(delay),
            ..right()
        },
    }
}

fn finish(shared: &Shared, answer: Answer, reset: &Arc<AtomicBool>) -> Response<Body> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type)
        .header("date", shared.http_date());
    if answer.by_authentik {
        response = response
            .header("x-authentik-id", shared.request_id())
            .header("vary", "Accept-Language, Cookie")
            .header("x-frame-options", "DENY")
            .header("x-content-type-options", "nosniff")
            .header("referrer-policy", "same-origin")
            .header("content-language", "en")
            .header("x-powered-by", "authentik");
    }
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let length = answer.body.len();
    let whole = Bytes::from(answer.body);
    let body = match answer.delivery {
        Delivery::Whole | Delivery::Never | Delivery::Reset => Full::new(whole)
            .map_err(|never| match never {})
            .boxed_unsync(),
        Delivery::HalfThenReset => {
            response = response.header("content-length", length);
            half_then_reset(whole.slice(..length / 2), Arc::clone(reset))
        }
        Delivery::Drip(chunk, pause) => {
            response = response.header("content-length", length);
            drip(whole, chunk, pause)
        }
    };
    // Only a header that is no header can fail here, and all of them are written above.
    response.body(body).unwrap_or_else(|_| {
        Response::new(
            Full::new(Bytes::new())
                .map_err(|never| match never {})
                .boxed_unsync(),
        )
    })
}

fn half_then_reset(half: Bytes, reset: Arc<AtomicBool>) -> Body {
    let parts = stream::unfold((Some(half), reset), |(half, reset)| async move {
        if let Some(half) = half {
            return Some((Ok(Frame::data(half)), (None, reset)));
        }
        // Long enough for what was written to leave the buffer.
        tokio::time::sleep(Duration::from_millis(20)).await;
        reset.store(true, Ordering::Release);
        Some((Err(io::ErrorKind::ConnectionReset.into()), (None, reset)))
    });
    StreamBody::new(parts).boxed_unsync()
}

fn drip(whole: Bytes, chunk: usize, pause: Duration) -> Body {
    let parts = stream::unfold(whole, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let next = rest.split_to(chunk.min(rest.len()));
        Some((Ok(Frame::data(next)), rest))
    });
    StreamBody::new(parts).boxed_unsync()
}

/// A stream that, once told to, ends in a reset in place of a proper close.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) {
            // Without it the connection merely closes early, which breaks the answer all the same.
            let _kept = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
