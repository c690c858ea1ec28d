//! `GET /api/v1/events/stream`: the timeline as it is entered, as server-sent events.
//!
//! Every event bears its place as `id:`, and so does every heartbeat, so that a client whose
//! filter lets little through resumes near the end too. A place that the feed remembers is gone on
//! from exactly; from an older one the store is read until the reader has caught up.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::auth::{Caller, credentials};
use super::error::ApiError;
use super::query::{confine, parse_filter, parse_limit, wrong};
use super::router::Edge;
use super::turns::{self, Turn, Turns};
use crate::feed::ring::Fed;
use crate::feed::{PIECE, Reader, Taken};
use crate::store::feed::{Follow, Matcher};
use crate::store::{EventFilter, Role};

/// Keeps proxies from thinking that the connection is dead, and finds clients that are.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long after a heartbeat something is written again: a client that has gone answers the first
/// with a reset, and only the next write fails.
const AFTERBEAT: Duration = Duration::from_secs(1);
/// What a client is told to wait before it connects again, in milliseconds.
const RETRY_MILLIS: u32 = 2000;
/// Between two tries of a catching-up reader while the store is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long a request may wait for the store before it is answered 503.
const START_LIMIT: Duration = Duration::from_secs(15);
/// Readers that catch up from the store at once; each reads on its own.
pub const CATCHING_UP: u32 = 8;
/// Readers of one tenant among them.
pub const CATCHING_UP_OF_TENANT: usize = 4;
/// Ids remembered of what a reader caught up with, because the feed may tell it again.
const REMEMBERED: usize = 5000;

/// Turns for so many readers, half of them for one tenant.
pub fn readers(most: u32) -> Turns {
    Turns::new(most, (most as usize / 2).max(1))
}

/// `GET /api/v1/events/stream`
pub async fn stream(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let caller = edge.authenticator.caller(&headers).await?;
    let Wanted { mut filter, beats } = parse(query.as_deref().unwrap_or_default())?;
    confine(&caller.role, &mut filter)?;
    let last = headers.get("last-event-id").map(HeaderValue::to_str);
    let last = last.transpose().map_err(|_| foreign_place())?;
    let last = last.map(str::trim).filter(|last| !last.is_empty());

    let turn = edge.streams.try_take(&caller.role);
    let turn = turn.map_err(|taken| {
        ApiError::unavailable(match taken {
            turns::Taken::All => "too many readers of the live stream",
            turns::Taken::OfTenant => "too many readers of this tenant follow the live stream",
        })
    })?;
    let mut reader = edge.feed.reader();
    if !reader.following(START_LIMIT).await {
        return Err(ApiError::unavailable("the store does not answer"));
    }
    let mut catch_up = None;
    if let Some(last) = last
        && !reader.resume(last)
    {
        catch_up = Some(CatchUp::start(&edge, &caller.role, last).await?);
    }
    let rest = HEARTBEAT.saturating_sub(AFTERBEAT);
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, rest);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let streaming = Streaming {
        matcher: Matcher::new(filter, edge.store.caseless()),
        edge,
        headers: credentials(&headers),
        caller,
        reader,
        catch_up,
        caught: Caught::default(),
        passed: last.map(str::to_owned),
        heartbeat,
        has_beaten: false,
        beats,
        begun: false,
        _turn: turn,
    };
    let body = futures_util::stream::unfold(streaming, |mut streaming| async move {
        let chunk = streaming.next().await?;
        Some((chunk, streaming))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that gather answers would hold the events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

#[derive(Debug, PartialEq)]
struct Wanted {
    filter: EventFilter,
    beats: bool,
}

/// It may be the query of a list, whose `limit` ends no stream; a place in the list is another matter.
fn parse(query: &str) -> Result<Wanted, ApiError> {
    let mut beats = false;
    let filter = parse_filter(query, |name, value| {
        match (name, value.as_deref()) {
            ("limit" | "before" | "beats", None) => {}
            ("limit", Some(text)) => {
                parse_limit(text)?;
            }
            ("before", Some(_)) => {
                return Err(wrong("before", "goes with a list, not with a stream"));
            }
            ("beats", Some("1")) => beats = true,
            ("beats", Some(_)) => return Err(wrong("beats", "must be 1")),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Wanted { filter, beats })
}

fn foreign_place() -> ApiError {
    ApiError::bad_request("Last-Event-ID is none of this stream's; leave it out to begin now")
}

/// Why a stream breaks off; its client sees the connection end without an end of the body.
#[derive(Debug, thiserror::Error)]
enum CutOff {
    #[error("the reader is too slow")]
    Slow,
    #[error("the reader may not read any more")]
    Refused,
}

/// One reader's connection.
struct Streaming {
    edge: Arc<Edge>,
    headers: HeaderMap,
    caller: Caller,
    matcher: Matcher,
    reader: Reader,
    catch_up: Option<CatchUp>,
    caught: Caught,
    /// The last place passed, whether or not its event was let through.
    passed: Option<String>,
    heartbeat: Interval,
    /// What comes next is the afterbeat.
    has_beaten: bool,
    /// Whether heartbeats are events too: a browser's scripts see no comments.
    beats: bool,
    begun: bool,
    _turn: Turn,
}

/// Reading from the store what was entered before the feed remembers.
struct CatchUp {
    follow: Box<dyn Follow>,
    /// A call that was cancelled goes on with the next one.
    is_looking: bool,
    /// Read and not sent yet: the place after each event and its frame, empty if it is not wanted.
    waiting: VecDeque<(String, Bytes)>,
    /// There is no more to read.
    is_read: bool,
    /// Dropped when the reader has caught up.
    _turn: Turn,
}

impl CatchUp {
    async fn start(edge: &Edge, role: &Role, last: &str) -> Result<Self, ApiError> {
        let waiting = edge.catching_up.take(role);
        let turn = tokio::time::timeout(START_LIMIT, waiting).await;
        let Ok(Ok(turn)) = turn else {
            return Err(ApiError::unavailable("too many readers are catching up"));
        };
        let follow = edge.store.follow(Some(last)).await?;
        Ok(Self {
            follow: follow.ok_or_else(foreign_place)?,
            is_looking: false,
            waiting: VecDeque::new(),
            is_read: false,
            _turn: turn,
        })
    }
}

impl Streaming {
    /// The next bytes; `None`: the stream ends well.
    async fn next(&mut self) -> Option<Result<Bytes, CutOff>> {
        if !std::mem::replace(&mut self.begun, true) {
            let mut hello = format!("retry: {RETRY_MILLIS}\n\n");
            hello.push_str(&self.beat_at_place());
            return Some(Ok(Bytes::from(hello)));
        }
        loop {
            let chunk = if self.catch_up.is_some() {
                tokio::select! {
                    biased;
                    () = self.reader.closed() => return None,
                    _ = self.heartbeat.tick() => Some(self.beat().await),
                    chunk = catch_up(
                        &mut self.catch_up, &mut self.reader, &mut self.caught, &mut self.passed, &self.matcher,
                    ) => chunk.map(Ok),
                }
            } else {
                tokio::select! {
                    biased;
                    _ = self.heartbeat.tick() => Some(self.beat().await),
                    taken = self.reader.take() => match taken {
                        Taken::Closed => return None,
                        Taken::Behind => {
                            self.edge.metrics.streams_cut("slow").increment(1);
                            Some(Err(CutOff::Slow))
                        }
                        Taken::Events(events) => self.let_through(&events).map(Ok),
                    },
                }
            };
            if chunk.is_some() {
                return chunk;
            }
        }
    }

    fn let_through(&mut self, events: &[Arc<Fed>]) -> Option<Bytes> {
        self.passed = events.last().map(|fed| fed.position.clone());
        let wanted = events
            .iter()
            .filter(|fed| self.matcher.matches(&fed.event) && !self.caught.has(&fed.event.id));
        joined(wanted.map(|fed| fed.frame.clone()).collect())
    }

    /// Shows that the connection lives, and finds out whether it still may.
    async fn beat(&mut self) -> Result<Bytes, CutOff> {
        if std::mem::replace(&mut self.has_beaten, false) {
            return Ok(Bytes::from_static(b":\n\n"));
        }
        let authenticator = &self.edge.authenticator;
        if !authenticator.still_knows(&self.caller, &self.headers).await {
            self.edge.metrics.streams_cut("refused").increment(1);
            return Err(CutOff::Refused);
        }
        self.has_beaten = true;
        if self.catch_up.is_none() {
            // The feed has told by now what it had not when this reader caught up.
            self.caught.age();
        }
        self.heartbeat.reset_after(AFTERBEAT);
        let beat = self.beat_at_place();
        Ok(Bytes::from(format!(": heartbeat\n{beat}")))
    }

    /// What tells a script that the stream lives, and whether anything can come.
    fn beat_at_place(&mut self) -> String {
        let place = self.place();
        if !self.beats {
            return place;
        }
        let store_up = self.edge.readiness.store_up.load(Ordering::Acquire);
        format!("event: beat\ndata: {{\"storeUp\":{store_up}}}\n{place}")
    }

    /// An `id:` of its own sets the place without being an event.
    fn place(&mut self) -> String {
        if self.catch_up.is_none() {
            self.passed = self.reader.position().or(self.passed.take());
        }
        match &self.passed {
            Some(place) => format!("id: {place}\n\n"),
            None => "\n".to_owned(),
        }
    }
}

/// Cancel-safe, as [`Follow::next`] is; nothing is awaited after it but the pause.
async fn catch_up(
    catching_up: &mut Option<CatchUp>,
    reader: &mut Reader,
    caught: &mut Caught,
    passed: &mut Option<String>,
    matcher: &Matcher,
) -> Option<Bytes> {
    let source = catching_up.as_mut()?;
    if !source.waiting.is_empty() {
        return piece(&mut source.waiting, passed);
    }
    // Not before the reader has taken everything: the turn bounds what waits.
    if source.is_read {
        *catching_up = None;
        return None;
    }
    // Whatever the feed hands out from here on comes from the feed; what it has handed out before
    // was visible, and is found by this look or was by an earlier one.
    if !std::mem::replace(&mut source.is_looking, true) {
        reader.skip_to_end();
    }
    let found = source.follow.next().await;
    source.is_looking = false;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(error = %error, "a reader waits for the store");
            tokio::time::sleep(STORE_PAUSE).await;
            return None;
        }
    };
    source.is_read = !found.more;
    for entry in found.entries {
        caught.note(&entry.event.id);
        let place = entry.position.clone();
        let is_wanted = matcher.matches(&entry.event);
        let frame = is_wanted.then(|| Fed::new(entry).frame);
        source.waiting.push_back((place, frame.unwrap_or_default()));
    }
    None
}

/// What goes out next, some small ones or a large one; and the place after it.
fn piece(waiting: &mut VecDeque<(String, Bytes)>, passed: &mut Option<String>) -> Option<Bytes> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut taken = 0;
    while let Some((place, frame)) = waiting.pop_front() {
        taken += frame.len();
        if taken > PIECE && !frames.is_empty() {
            waiting.push_front((place, frame));
            break;
        }
        *passed = Some(place);
        if !frame.is_empty() {
            frames.push(frame);
        }
    }
    joined(frames)
}

/// Several as one piece; a single one is not copied.
fn joined(mut frames: Vec<Bytes>) -> Option<Bytes> {
    match frames.len() {
        0 => None,
        1 => frames.pop(),
        _ => {
            let mut chunk = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
            frames
                .iter()
                .for_each(|frame| chunk.extend_from_slice(frame));
            Some(chunk.freeze())
        }
    }
}

/// Ids of the newest events that a reader caught up with.
#[derive(Default)]
struct Caught {
    current: HashSet<String>,
    former: HashSet<String>,
}

impl Caught {
    fn note(&mut self, id: &str) {
        if self.current.len() >= REMEMBERED {
            self.age();
        }
        self.current.insert(id.to_owned());
    }

    fn age(&mut self) {
        self.former = std::mem::take(&mut self.current);
    }

    fn has(&self, id: &str) -> bool {
        self.current.contains(id) || self.former.contains(id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A heartbeat between two pieces tells the place after the first, whatever was read.
    #[test]
    fn what_was_read_goes_out_piece_by_piece() {
        let large = Bytes::from(vec![b'x'; 250 << 10]);
        let small = Bytes::from(vec![b'y'; 1000]);
        let frames = [&small, &Bytes::new(), &small, &large, &large];
        let mut waiting: VecDeque<_> = (1..)
            .zip(frames)
            .map(|(number, frame)| (format!("p{number}"), frame.clone()))
            .collect();
        let mut passed = None;
        let mut next = || {
            let piece = piece(&mut waiting, &mut passed);
            (piece.unwrap(), passed.clone().unwrap())
        };
        let (first, place) = next();
        assert_eq!((first.len(), place.as_str()), (2000, "p3"));
        for after in ["p4", "p5"] {
            let (piece, place) = next();
            assert_eq!((piece.as_ptr(), place.as_str()), (large.as_ptr(), after));
        }
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_stream_takes_the_filters_of_a_list() {
        let wanted = parse("source=a&limit=&before=&beats=").unwrap();
        assert_eq!(wanted.filter.source.as_deref(), Some("a"));
        assert!(!wanted.beats && parse("beats=1").unwrap().beats);
        assert_eq!(parse("source=a&limit=5").unwrap(), wanted);
        for bad in [
            "limit=0",
            "before=x",
            "before=MTph",
            "beats=0",
            "outcome=maybe",
            "odd=",
        ] {
            let error = format!("{:?}", parse(bad).expect_err(bad));
            let name = bad.split('=').next().unwrap();
            assert!(error.contains(name), "{bad}: {error}");
        }
    }
}
