//! As little HTTP as a load generator needs, so that it costs next to nothing beside what it measures.

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection that stays open.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    /// Sends a whole request and reads its answer, which has to have a `Content-Length` or close.
    pub async fn send(&mut self, request: &[u8]) -> Result<(u16, String)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut head = None;
        loop {
            if head.is_none() {
                head = self
                    .buffer
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                    .map(|end| parse_head(&self.buffer[..end]).map(|head| (end + 4, head)))
                    .transpose()?;
            }
            if let Some((start, (status, Some(length)))) = head
                && self.buffer.len() >= start + length
            {
                let body = String::from_utf8_lossy(&self.buffer[start..start + length]);
                return Ok((status, body.into_owned()));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                let Some((start, (status, None))) = head else {
                    bail!("the connection was closed in the middle of an answer");
                };
                let body = String::from_utf8_lossy(&self.buffer[start..]);
                return Ok((status, body.into_owned()));
            }
        }
    }
}

fn parse_head(head: &[u8]) -> Result<(u16, Option<usize>)> {
    let text = std::str::from_utf8(head)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().context("a status line")?;
    let status = status.split(' ').nth(1).context("a status")?.parse()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, length)| length.trim().parse())
        .transpose()?;
    Ok((status, length))
}

/// Gets a path over a connection of its own.
pub async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    Connection::open(port).await?.send(request.as_bytes()).await
}
