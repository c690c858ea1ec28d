//! HTTP/1.1 by hand: requests to the byte, connections that misbehave, captures of real senders.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub use daybook::simulators::stalwart::sign;

/// No answer takes longer than this.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(each, _)| each == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The message of an error answer.
    pub fn error(&self) -> String {
        let message = self.json()["error"]["message"].clone();
        message.as_str().unwrap_or_default().to_owned()
    }
}

/// A connection on which anything can be said.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Says that nothing more will be sent, and goes on listening.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next answer, a `100 Continue` too; `None` when the connection ends before one.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answer_to(true).await
    }

    /// The next answer to a HEAD request, which has no body.
    pub async fn answer_to_head(&mut self) -> Option<Answer> {
        self.answer_to(false).await
    }

    async fn answer_to(&mut self, with_body: bool) -> Option<Answer> {
        let end = loop {
            let end = self.read.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end,
                None => self.fill().await?,
            }
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let length = answer.header("content-length");
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        if with_body && status >= 200 {
            while self.read.len() < length {
                self.fill().await?;
            }
            answer.body = self.read.drain(..length).collect();
        }
        Some(answer)
    }

    /// Waits until the other side closes; what it said until then.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.fill().await.is_some() {}
        std::mem::take(&mut self.read)
    }

    async fn fill(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.read);
        let read = tokio::time::timeout(ANSWER_LIMIT, read).await;
        match read.expect("an answer or an end within a minute") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

/// Sends a whole request on a connection of its own.
///
/// # Panics
/// When no answer comes.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address).await;
    // A refusal may come, and the connection end, before all is written.
    let _refused_early = connection.send(request).await;
    connection.answer().await.expect("an answer")
}

/// A POST with these headers and a declared length.
pub fn post(path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: daybook.test\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// A POST signed as Stalwart signs.
pub fn signed(path: &str, key: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let signature = sign(key, body.as_ref());
    let headers = [
        ("content-type", "application/json"),
        ("x-signature", signature.as_str()),
    ];
    post(path, &headers, body)
}

/// A captured request of a real Stalwart, with what its index says of it.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Its file's name.
    pub name: String,
    /// `POST`, or `GET` after a redirect.
    pub method: String,
    /// The signature key; empty: unsigned.
    pub key: String,
    /// How many events its body holds.
    pub events: usize,
    /// The head's lines after the request line, without line breaks.
    pub headers: Vec<String>,
    /// The body, to the byte.
    pub body: Vec<u8>,
}

impl Capture {
    /// All captured and derived requests, in the order of their indexes.
    ///
    /// # Panics
    /// When a file is missing or is no request.
    pub fn all() -> Vec<Self> {
        let mut all = folder("stalwart/captures", 4);
        all.extend(folder("stalwart/derived", 1));
        all
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn named(name: &str) -> Self {
        let found = Self::all().into_iter().find(|each| each.name == name);
        found.unwrap_or_else(|| panic!("no capture {name}"))
    }

    /// The request with its original head, sent to another path of another host.
    pub fn request(&self, path: &str, host: SocketAddr) -> Vec<u8> {
        let mut request = format!("{} {path} HTTP/1.1\r\n", self.method);
        for line in &self.headers {
            if line.starts_with("host:") {
                request.push_str(&format!("host: {host}\r\n"));
            } else {
                request.push_str(&format!("{line}\r\n"));
            }
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(&self.body);
        request
    }

    fn read(folder: &Path, name: &str, key: &str) -> Self {
        let path = folder.join(name);
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.expect("a head and its end");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = head.split("\r\n").map(str::to_owned);
        let line = lines.next().expect("a request line");
        let body = bytes[end + 4..].to_vec();
        let parsed: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Self {
            name: name.to_owned(),
            method: line.split(' ').next().unwrap_or_default().to_owned(),
            key: key.to_owned(),
            events: parsed["events"].as_array().map_or(0, Vec::len),
            headers: lines.collect(),
            body,
        }
    }
}

fn folder(path: &str, key_column: usize) -> Vec<Capture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(path);
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).expect("an index");
    index
        .lines()
        .skip(1)
        .map(|row| {
            let columns: Vec<&str> = row.split('\t').collect();
            Capture::read(&folder, columns[0], columns[key_column])
        })
        .collect()
}
