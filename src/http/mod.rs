//! The one listening socket: ingest, API, the timeline page, health, metrics.
//!
//! hyper serves the connections, because their limits are ours: how many there may be, how long
//! a head and a body may take, how they end at a shutdown. axum routes the requests.
//!
//! The socket belongs to the tree and outlives this actor: a restart finds the same port, and the
//! kernel keeps new connections waiting meanwhile. A tree that stops lets go of it, and so the last
//! of these actors closes it.

mod answers;
pub mod api;
mod attempts;
pub mod auth;
pub mod error;
pub mod export;
pub mod health;
pub mod histogram;
mod hosts;
pub mod ingest;
mod linger;
pub mod page;
pub mod query;
pub mod refusals;
pub mod router;
pub mod stream;
pub mod tls;
pub mod turns;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use daybook_actors::liveness::Progress;
use hyper::body::Incoming;
use hyper::header;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use crate::config::HttpConfig;
use crate::probe::Probe;

use linger::Lingering;
use router::Routes;

/// How long open requests may take to finish at a graceful stop.
const DRAIN: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left, say) the loop breathes instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server is told: nothing; it is only stopped.
pub enum HttpMessage {
    /// The accept loop has ended, which it never should.
    AcceptEnded,
}

/// The actor.
pub struct HttpServer;

/// What the server works with.
#[derive(Clone)]
pub struct HttpArgs {
    /// The tree's, until that stops.
    pub listener: Weak<TcpListener>,
    /// Its limits.
    pub config: HttpConfig,
    /// Does the TLS handshakes; `None`: plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// What it serves.
    pub router: Routes,
    /// Shown by the accept loop, once in every `pulse`.
    pub progress: Progress,
    /// See `progress`.
    pub pulse: Duration,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct HttpState {
    args: HttpArgs,
    accepting: JoinSet<()>,
    stop_accepting: Option<tokio::sync::oneshot::Sender<()>>,
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Actor for HttpServer {
    type Msg = HttpMessage;
    type State = HttpState;
    type Arguments = HttpArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: HttpArgs,
    ) -> Result<HttpState, ActorProcessingErr> {
        Ok(HttpState {
            args,
            accepting: JoinSet::new(),
            stop_accepting: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut HttpState,
    ) -> Result<(), ActorProcessingErr> {
        state.args.probe.hit("post_start").await?;
        let args = state.args.clone();
        let Some(listener) = args.listener.upgrade() else {
            return Err("the listening socket is closed".into());
        };
        let (stop_accepting, stopped) = tokio::sync::oneshot::channel();
        state.stop_accepting = Some(stop_accepting);
        let ended = TellOfEnd(myself);
        state.accepting.spawn(async move {
            let _ended = ended;
            accept(args, listener, stopped).await;
        });
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: HttpMessage,
        _state: &mut HttpState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HttpMessage::AcceptEnded => Err("the accept loop ended".into()),
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut HttpState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop_accepting.take();
        while state.accepting.join_next().await.is_some() {}
        Ok(())
    }
}

/// Tells the actor that its accept loop has ended, also when it panicked.
struct TellOfEnd(ActorRef<HttpMessage>);

impl Drop for TellOfEnd {
    fn drop(&mut self) {
        // An actor that has ended itself has no use for it.
        let _ended = self.0.cast(HttpMessage::AcceptEnded);
    }
}

/// Accepts until `stop` is dropped; then lets open requests finish. Its connections are owned by
/// it: when the actor is killed they are cut, and their senders send again.
async fn accept(
    args: HttpArgs,
    listener: Arc<TcpListener>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) {
    let connections = Arc::new(Semaphore::new(args.config.max_connections as usize));
    let graceful = GracefulShutdown::new();
    let mut open = JoinSet::new();
    let mut failing = false;
    let mut pulse = tokio::time::interval(args.pulse);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stop => break,
            _ = pulse.tick() => {
                args.progress.tick();
                continue;
            }
            accepted = next_connection(&listener, &connections) => accepted,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                if !failing {
                    tracing::error!(error = %error, "no connection can be accepted");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        while open.try_join_next().is_some() {}
        if args.probe.hit("after_accept").await.is_err() {
            return;
        }
        if let Err(error) = set_options(&stream, args.config.write_timeout) {
            tracing::debug!(%peer, error = %error, "socket options");
        }
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(args.config.write_timeout));
        let stream = Box::pin(stream);
        let (args, watcher) = (args.clone(), graceful.watcher());
        open.spawn(async move {
            let _permit = permit;
            let ended = match &args.tls {
                None => watcher
                    .watch(serve(stream, peer, &args))
                    .await
                    .map_err(|error| error.to_string()),
                Some(tls) => match handshake(tls, stream, args.config.header_timeout).await {
                    Ok(stream) => watcher
                        .watch(serve(stream, peer, &args))
                        .await
                        .map_err(|error| error.to_string()),
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error, "connection");
            }
        });
    }
    drop(listener);
    let _late = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    open.shutdown().await;
}

fn set_options(stream: &TcpStream, write_timeout: Duration) -> std::io::Result<()> {
    // Answers are small and complete: no reason to let them wait for company.
    stream.set_nodelay(true)?;
    // Of a client that vanished without a word: the socket has room for many heartbeats, and no write waits.
    // The kernel does so to one that lives and takes nothing, too.
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    Ok(())
}

/// A connection whose client must take its answers in time.
type Patient = Pin<Box<TimeoutStream<TcpStream>>>;

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn next_connection(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<Accepted> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// A client that has gone before it was accepted says nothing about the next one.
fn concerns_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: Patient,
    timeout: Duration,
) -> Result<TlsStream<Patient>, String> {
    match tokio::time::timeout(timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("TLS handshake failed: {error}")),
        Err(_) => Err("TLS handshake took too long".to_owned()),
    }
}

/// One connection, ready to be driven.
fn serve<S>(
    stream: S,
    peer: SocketAddr,
    args: &HttpArgs,
) -> impl GracefulConnection<Error = hyper::Error> + use<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = args.router.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let expects_continue = request.headers().contains_key(header::EXPECT);
        let mut router = router.current();
        router.call(request.map(|body| Lingering::new(body, expects_continue)))
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(args.config.header_timeout)
        // A client may say that it has no more to send and still wait for the answer.
        .half_close(true)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
}
