//! Server-sent events, as a browser reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::Value;

/// No awaited event takes longer than this.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a stream.
pub struct EventStream {
    chunks: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<Bytes>> + Send>>,
    read: BytesMut,
    last_event_id: String,
    heartbeats: Arc<AtomicU64>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With the end of its body.
    Clean,
    /// In the middle of it.
    Broken,
}

impl EventStream {
    /// Connects; after an event, if one is named.
    ///
    /// # Errors
    /// The status and body of an answer other than 200.
    pub async fn open(
        client: &reqwest::Client,
        url: &str,
        token: Option<&str>,
        last_event_id: Option<&str>,
    ) -> Result<Self, (u16, Value)> {
        let mut request = client.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        if status != 200 {
            return Err((status, response.json().await.unwrap_or(Value::Null)));
        }
        let kind = response.headers()["content-type"].to_str().expect("text");
        assert_eq!(kind, "text/event-stream");
        Ok(Self {
            chunks: Box::pin(response.bytes_stream()),
            read: BytesMut::new(),
            last_event_id: last_event_id.unwrap_or_default().to_owned(),
            heartbeats: Arc::default(),
        })
    }

    /// What a browser would send to resume.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Heartbeats met so far; it goes on counting while somebody else reads the stream.
    pub fn heartbeats(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heartbeats)
    }

    /// The next event's data.
    ///
    /// # Errors
    /// How the stream ended instead.
    ///
    /// # Panics
    /// When neither comes within a minute, and when what comes is no JSON.
    pub async fn next(&mut self) -> Result<Value, StreamEnd> {
        let next = tokio::time::timeout(LIMIT, self.read_event()).await;
        next.expect("an event or an end within a minute")
    }

    /// The external ids of the next so many events.
    ///
    /// # Panics
    /// When the stream ends before.
    pub async fn keys(&mut self, count: usize) -> Vec<String> {
        let mut keys = Vec::with_capacity(count);
        while keys.len() < count {
            let event = self.next().await.expect("the stream goes on");
            keys.push(event["externalId"].as_str().expect("a key").to_owned());
        }
        keys
    }

    async fn read_event(&mut self) -> Result<Value, StreamEnd> {
        loop {
            while let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let block = self.read.split_to(end + 2);
                let block = std::str::from_utf8(&block).expect("UTF-8").to_owned();
                let mut data = String::new();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => id.clone_into(&mut self.last_event_id),
                        Some(("data", text)) => data.push_str(text),
                        Some(("", "heartbeat")) => {
                            self.heartbeats.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {}
                    }
                }
                if !data.is_empty() {
                    return Ok(serde_json::from_str(&data).expect("JSON"));
                }
            }
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.read.extend_from_slice(&chunk),
                Some(Err(_)) => return Err(StreamEnd::Broken),
                None => return Err(StreamEnd::Clean),
            }
        }
    }
}
