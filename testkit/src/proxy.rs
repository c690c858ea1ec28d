//! A TCP proxy that misbehaves on demand: before a mongod, before an HTTP server.
//!
//! The mode can be switched while connections are open, and counts tell how often a fault really
//! struck. Nothing is known of the protocol: bytes are held, delayed, cut or thrown away.
//!
//! - The port stays ours while nobody listens on it, so that a refused connection is refused by the
//!   kernel and the port is there again afterwards.
//! - A connection of which replies were thrown away is reset when the mode changes: what it would
//!   say next would not fit.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const CHUNK: usize = 64 * 1024;
const BACKLOG: u32 = 1024;

/// What the proxy does to connections, those that are open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: bytes pass.
    Pass,
    /// Nobody listens; open connections are reset.
    Refuse,
    /// Connections are accepted and reset; open ones too.
    Reset,
    /// Connections stay open and nothing passes, either way. What was sent meanwhile arrives when
    /// the mode changes, as after a partition that heals.
    BlackHole,
    /// Every piece passes this much later.
    Delay(Duration),
    /// Of every connection so many bytes more reach the server; then it is reset.
    CutRequestsAfter(u64),
    /// Of every connection so many bytes more reach the client; then it is reset.
    CutRepliesAfter(u64),
    /// Requests arrive and are carried out; what the server answers is thrown away.
    DropReplies,
}

/// What the proxy has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes that reached the server.
    pub request_bytes: u64,
    /// Bytes that reached the client.
    pub reply_bytes: u64,
    /// Connections reset, whatever the reason.
    pub reset: u64,
    /// Connections reset in the middle of a stream by one of the cutting modes.
    pub cut: u64,
    /// Pieces held back by a black hole.
    pub held: u64,
    /// Pieces delayed.
    pub delayed: u64,
    /// Bytes of replies thrown away.
    pub dropped_reply_bytes: u64,
    /// Connections forgotten; see [`Proxy::forget_connections`].
    pub forgotten: u64,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    reset: AtomicU64,
    cut: AtomicU64,
    held: AtomicU64,
    delayed: AtomicU64,
    dropped_reply_bytes: AtomicU64,
    forgotten: AtomicU64,
}

/// The running proxy; its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    target: SocketAddr,
    switch: watch::Sender<Switch>,
    /// The newest epoch that the listener has followed.
    followed: watch::Sender<u64>,
    connections: AtomicU64,
    counters: Counters,
}

/// The mode, and which connections are meant by what was asked once: those numbered below.
#[derive(Clone, Copy)]
struct Switch {
    mode: Mode,
    /// Grows with every change of mode.
    epoch: u64,
    reset_below: u64,
    reset_tainted_below: u64,
    forget_below: u64,
}

impl Proxy {
    /// Starts one before `target`, on a free port of the loopback address.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(target: SocketAddr) -> Self {
        let (reserved, address) = reserve().expect("a free port for the proxy");
        let shared = Arc::new(Shared {
            target,
            switch: watch::Sender::new(Switch {
                mode: Mode::Pass,
                epoch: 0,
                reset_below: 0,
                reset_tainted_below: 0,
                forget_below: 0,
            }),
            followed: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            counters: Counters::default(),
        });
        let listener = listen(address).expect("the reserved port can be listened on");
        let task = tokio::spawn(serve(reserved, listener, address, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of a MongoDB behind it, and of no other member of its set.
    pub fn mongodb_url(&self, database: &str) -> String {
        format!(
            "mongodb://{}/{database}?directConnection=true",
            self.address
        )
    }

    /// Switches, for open connections and for those to come. When it returns the port is listened
    /// on, or is not, as the mode says.
    pub async fn set(&self, mode: Mode) {
        let next = self.shared.connections.load(Ordering::Acquire);
        self.shared.switch.send_modify(|switch| {
            if switch.mode == Mode::DropReplies && mode != Mode::DropReplies {
                switch.reset_tainted_below = next;
            }
            if matches!(mode, Mode::Refuse | Mode::Reset) {
                switch.reset_below = next;
            }
            switch.mode = mode;
            switch.epoch += 1;
        });
        let epoch = self.shared.switch.borrow().epoch;
        let mut followed = self.shared.followed.subscribe();
        // The sender lives as long as self.
        let _followed = followed.wait_for(|followed| *followed >= epoch).await;
    }

    /// Open connections are silent from here on, for ever, and nobody is told: what a firewall
    /// leaves behind that has lost its table. New ones are as the mode says.
    pub fn forget_connections(&self) {
        let next = self.shared.connections.load(Ordering::Acquire);
        self.shared
            .switch
            .send_modify(|switch| switch.forget_below = next);
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let counters = &self.shared.counters;
        Counts {
            accepted: read(&counters.accepted),
            request_bytes: read(&counters.request_bytes),
            reply_bytes: read(&counters.reply_bytes),
            reset: read(&counters.reset),
            cut: read(&counters.cut),
            held: read(&counters.held),
            delayed: read(&counters.delayed),
            dropped_reply_bytes: read(&counters.dropped_reply_bytes),
            forgotten: read(&counters.forgotten),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::AcqRel);
}

/// Takes a port without listening on it.
fn reserve() -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bound(address)?.listen(BACKLOG)
}

/// Sockets of one port, of which at most one listens.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts while the mode allows it. `_reserved` keeps the port while it does not.
async fn serve(
    _reserved: TcpSocket,
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
) {
    let mut switch = shared.switch.subscribe();
    let mut listener = Some(listener);
    let mut open = JoinSet::new();
    loop {
        let Switch { mode, epoch, .. } = *switch.borrow_and_update();
        if mode == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen(address).expect("the reserved port can be listened on"));
        }
        shared.followed.send_replace(epoch);
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        let accepted = tokio::select! {
            biased;
            changed = switch.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = accept => accepted,
        };
        let Ok((client, _)) = accepted else { continue };
        add(&shared.counters.accepted, 1);
        if mode == Mode::Reset {
            reset(&client, &shared);
            continue;
        }
        let number = shared.connections.fetch_add(1, Ordering::AcqRel);
        open.spawn(connection(client, number, Arc::clone(&shared)));
    }
}

fn reset(client: &TcpStream, shared: &Shared) {
    add(&shared.counters.reset, 1);
    // Where it cannot be set the connection is closed instead, which ends it as well.
    let _closed_instead = client.set_zero_linger();
}

enum Verdict {
    Ended,
    Reset,
    Cut,
    Forgotten,
}

async fn connection(mut client: TcpStream, number: u64, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(shared.target).await else {
        reset(&client, &shared);
        return;
    };
    // Small messages must not wait for company: they would look like another fault.
    let _only_slower = (client.set_nodelay(true), server.set_nodelay(true));
    let tainted = AtomicBool::new(false);
    let verdict = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let pump = |is_reply| Pump {
            is_reply,
            tainted: &tainted,
            shared: &shared,
            switch: shared.switch.subscribe(),
            epoch: 0,
            passed: 0,
        };
        let (up, down) = (pump(false), pump(true));
        let both = async {
            tokio::try_join!(
                up.run(client_in, server_out),
                down.run(server_in, client_out)
            )
        };
        let mut switch = shared.switch.subscribe();
        let judged = switch.wait_for(|switch| {
            let tainted = tainted.load(Ordering::Acquire);
            number < switch.forget_below
                || number < switch.reset_below
                || (tainted && number < switch.reset_tainted_below)
        });
        tokio::select! {
            biased;
            judged = judged => match judged {
                Ok(switch) if number < switch.forget_below => Verdict::Forgotten,
                _ => Verdict::Reset,
            },
            ended = both => match ended {
                Ok(_) => Verdict::Ended,
                Err(Broken::Cut) => Verdict::Cut,
                Err(Broken::Lost) => Verdict::Reset,
            },
        }
    };
    match verdict {
        Verdict::Ended => {}
        Verdict::Forgotten => {
            add(&shared.counters.forgotten, 1);
            pending::<()>().await;
        }
        Verdict::Cut => {
            add(&shared.counters.cut, 1);
            reset(&client, &shared);
        }
        Verdict::Reset => reset(&client, &shared),
    }
}

/// Why a connection cannot go on.
enum Broken {
    /// A cutting mode has its bytes.
    Cut,
    /// One side is gone.
    Lost,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// One direction of one connection.
struct Pump<'a> {
    is_reply: bool,
    tainted: &'a AtomicBool,
    shared: &'a Shared,
    switch: watch::Receiver<Switch>,
    epoch: u64,
    /// Bytes passed since the mode changed.
    passed: u64,
}

impl Pump<'_> {
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Broken> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            let mut passes = self.weigh(length).await;
            if let Weighed::Held = passes {
                add(&self.shared.counters.held, 1);
                let heals = self
                    .switch
                    .wait_for(|switch| switch.mode != Mode::BlackHole);
                if heals.await.is_err() {
                    return Err(Broken::Lost);
                }
                passes = self.weigh(length).await;
            }
            if length == 0 {
                to.shutdown().await?;
                return Ok(());
            }
            match passes {
                Weighed::Whole => self.pass(&mut to, &chunk[..length]).await?,
                Weighed::Cut(length) => {
                    self.pass(&mut to, &chunk[..length]).await?;
                    return Err(Broken::Cut);
                }
                Weighed::Dropped | Weighed::Held => {}
            }
        }
    }

    /// What the mode makes of the next `length` bytes.
    async fn weigh(&mut self, length: usize) -> Weighed {
        let switch = *self.switch.borrow_and_update();
        if switch.epoch != self.epoch {
            self.epoch = switch.epoch;
            self.passed = 0;
        }
        match switch.mode {
            Mode::BlackHole => Weighed::Held,
            Mode::Delay(delay) => {
                add(&self.shared.counters.delayed, 1);
                tokio::time::sleep(delay).await;
                Weighed::Whole
            }
            Mode::CutRequestsAfter(limit) if !self.is_reply => self.up_to(limit, length),
            Mode::CutRepliesAfter(limit) if self.is_reply => self.up_to(limit, length),
            Mode::DropReplies if self.is_reply && length > 0 => {
                self.tainted.store(true, Ordering::Release);
                add(&self.shared.counters.dropped_reply_bytes, length as u64);
                Weighed::Dropped
            }
            _ => Weighed::Whole,
        }
    }

    fn up_to(&self, limit: u64, length: usize) -> Weighed {
        let left = limit.saturating_sub(self.passed);
        match usize::try_from(left) {
            Ok(left) if left < length => Weighed::Cut(left),
            _ => Weighed::Whole,
        }
    }

    async fn pass(&mut self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        to.write_all(bytes).await?;
        let length = bytes.len() as u64;
        self.passed += length;
        let counters = &self.shared.counters;
        let counter = if self.is_reply {
            &counters.reply_bytes
        } else {
            &counters.request_bytes
        };
        add(counter, length);
        Ok(())
    }
}

enum Weighed {
    Whole,
    Held,
    Dropped,
    /// So many of them, and then no more.
    Cut(usize),
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
