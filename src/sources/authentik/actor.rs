//! The poller: one request a message, so that it can be stopped or killed between any two, and
//! so that a poll never overlaps itself.
//!
//! The cursor moves with every page: what a page taught the walk is stored in the same step as
//! the page's events (see [`super::walk`]).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use daybook_actors::liveness::Progress;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::Rng;
use std::sync::Arc;
use tokio::task::AbortHandle;

use crate::batch::{Batch, Entry};
use crate::config::AuthentikConfig;
use crate::event::{Decoded, to_millis};
use crate::probe::{Probe, Struck};
use crate::sources::courier::{Attempt, Courier, FENCED_RETRY, Parcel};
use crate::status::{CursorView, SourceState};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

use super::client::{Answer, Client, ClientError};
use super::decode::{EventContext, EventHead, Page, decode_event, decode_page};
use super::people::{People, WAIT, changes_people};
use super::retention;
use super::standing::Standing;
use super::walk::{PageAnswer, RowKey, Walk, WalkCursor};

/// Once in this time a poll reads back [`WIDE_OVERLAP`], for events that became visible later
/// than anybody expects. (Once in every overlap one reads back twice the overlap, for what a
/// removal may have hidden from an ordinary poll.)
const WIDE_EVERY: Duration = Duration::from_secs(3600);
const WIDE_OVERLAP: Duration = Duration::from_secs(24 * 3600);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// While older events are being read, so many of their pages come before the top is looked at again.
const PAGES_BETWEEN_HEADS: u32 = 5;
const UNREADABLE_CAP: usize = 10_000;
/// Where a person must act, asking often only fills the other side's log.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// What the poller is told.
pub enum PollerMessage {
    /// Get the cursor from the store.
    Claim,
    /// Begin a poll.
    Poll,
    /// Go on with the poll: the next request, or the parcel that waits.
    Continue,
}

/// The actor.
pub struct Poller;

/// What the poller works with.
#[derive(Clone)]
pub struct PollerArgs {
    /// Its configuration.
    pub config: AuthentikConfig,
    /// Its client.
    pub client: Client,
    /// Where its cursor is.
    pub store: Arc<dyn Store>,
    /// Its way downstream.
    pub courier: Courier,
    /// For late events.
    pub metrics: Metrics,
    /// Shown while a message is handled.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct PollerState {
    args: PollerArgs,
    walk: Option<Walk>,
    generation: u64,
    seq: u64,
    parcel: Option<Outgoing>,
    people: People,
    failures: u32,
    standing: Standing,
    /// The newest event of all batches so far.
    newest: Option<RowKey>,
    /// Positions of the dead letters made of rows that tell no place.
    unreadable: HashSet<String>,
    probed: bool,
    last_head: Instant,
    /// Of those that brought the walk on.
    pages_since_head: u32,
    /// Since when the older page that is read waits for its people.
    waits_since: Option<Instant>,
    /// How far the present poll reads back, if it is no ordinary one.
    depth: Option<Duration>,
    last_deep: Instant,
    /// By both clocks: the one stands still while the machine is suspended, the other may be put back.
    /// None: one is due.
    last_wide: Option<(Instant, jiff::Timestamp)>,
    backlog_since: Option<Instant>,
    timer: Option<AbortHandle>,
}

/// A parcel on its way, and what is to be noted once it is durable.
struct Outgoing {
    parcel: Parcel,
    rows: Vec<RowKey>,
    late: usize,
}

impl Drop for PollerState {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

impl Actor for Poller {
    type Msg = PollerMessage;
    type State = PollerState;
    type Arguments = PollerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: PollerArgs,
    ) -> Result<PollerState, ActorProcessingErr> {
        Ok(PollerState {
            args,
            walk: None,
            generation: 0,
            seq: 0,
            parcel: None,
            people: People::default(),
            failures: 0,
            standing: Standing::default(),
            newest: None,
            unreadable: HashSet::new(),
            probed: false,
            last_head: Instant::now(),
            pages_since_head: 0,
            waits_since: None,
            depth: None,
            last_deep: Instant::now(),
            last_wide: Some((Instant::now(), jiff::Timestamp::now())),
            backlog_since: None,
            timer: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut PollerState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state
            .args
            .courier
            .status
            .set_state(SourceState::Starting, None);
        state.args.probe.hit("post_start").await?;
        myself.cast(PollerMessage::Claim)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: PollerMessage,
        state: &mut PollerState,
    ) -> Result<(), ActorProcessingErr> {
        let progress = state.args.progress.clone();
        let _working = progress.work();
        let next = match message {
            PollerMessage::Claim => state.claim().await,
            PollerMessage::Poll => state.begin_poll(),
            PollerMessage::Continue => state.step().await?,
        };
        state.arm(next, &myself);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut PollerState,
    ) -> Result<(), ActorProcessingErr> {
        state
            .args
            .courier
            .status
            .set_state(SourceState::Stopped, None);
        Ok(())
    }
}

enum Next {
    Claim(Duration),
    Poll(Duration),
    Continue(Duration),
}

impl PollerState {
    fn arm(&mut self, next: Next, myself: &ActorRef<PollerMessage>) {
        let timer = match next {
            Next::Claim(after) => myself.send_after(after, || PollerMessage::Claim),
            Next::Poll(after) => myself.send_after(after, || PollerMessage::Poll),
            Next::Continue(after) => myself.send_after(after, || PollerMessage::Continue),
        };
        if let Some(former) = self.timer.replace(timer.abort_handle()) {
            former.abort();
        }
    }

    async fn claim(&mut self) -> Next {
        let status = &self.args.courier.status;
        let cursor = match self.args.store.claim_cursor(&status.name).await {
            Ok(cursor) => cursor,
            Err(error) => {
                status.set_state(SourceState::Blocked, Some(error.to_string()));
                return Next::Claim(self.backoff(Duration::from_secs(1)));
            }
        };
        self.failures = 0;
        let is_first = self.generation == 0;
        self.generation = cursor.generation;
        self.seq = cursor.seq;
        self.parcel = None;
        self.waits_since = None;
        self.newest = cursor
            .last_event_at
            .zip(cursor.last_event_id.clone())
            .map(|(created, pk)| RowKey { created, pk });
        status.claimed(cursor.seq);
        let place = if cursor.detail.is_null() {
            // A store that has lost the cursor may have lost the dead letters too.
            self.unreadable.clear();
            WalkCursor::default()
        } else {
            match serde_json::from_value(cursor.detail) {
                Ok(place) => place,
                Err(error) => {
                    let reason = format!(
                        "stored cursor cannot be read ({error}): starting over, known events are recognised"
                    );
                    tracing::warn!(source = %status.name, reason, "cursor");
                    WalkCursor::default()
                }
            }
        };
        // An ordinary poll would raise the high water, and what came late before an absence would lie
        // too far below it.
        let long_ago = jiff::Timestamp::now() - WIDE_EVERY;
        if is_first && place.high_water.is_some_and(|newest| newest < long_ago) {
            self.last_wide = None;
        }
        status.set_cursor(CursorView {
            last_event_at: cursor.last_event_at,
            last_event_id: cursor.last_event_id,
            generation: cursor.generation,
        });
        let interval = self.args.config.interval.as_secs_f64();
        let gauge = self.args.metrics.source_interval(&status.name);
        gauge.set(interval);
        self.walk = Some(Walk::new(
            place,
            self.args.config.overlap,
            self.args.config.page_size,
        ));
        Next::Poll(Duration::ZERO)
    }

    fn begin_poll(&mut self) -> Next {
        let Some(walk) = &mut self.walk else {
            return Next::Claim(Duration::ZERO);
        };
        let overlap = self.args.config.overlap;
        let name = &self.args.courier.status.name;
        self.args.metrics.authentik_polls(name).increment(1);
        self.depth = if walk.has_gaps() {
            None
        } else if self.last_wide.is_none_or(is_long_ago) {
            Some(WIDE_OVERLAP.max(overlap * 2))
        } else {
            (self.last_deep.elapsed() >= overlap).then_some(overlap * 2)
        };
        match self.depth {
            Some(depth) => walk.begin_deep_poll(depth),
            None => walk.begin_poll(),
        }
        self.last_head = Instant::now();
        self.pages_since_head = 0;
        Next::Continue(Duration::ZERO)
    }

    async fn step(&mut self) -> Result<Next, Struck> {
        if self.parcel.is_some() {
            return self.deliver().await;
        }
        if !self.probed {
            self.probe().await;
        }
        let interval = self.args.config.interval;
        let Some(walk) = &mut self.walk else {
            return Ok(Next::Claim(Duration::ZERO));
        };
        // New events do not wait behind a long backlog.
        let head_is_old =
            self.last_head.elapsed() >= interval && self.pages_since_head >= PAGES_BETWEEN_HEADS;
        if walk.has_gaps() && head_is_old && !walk.is_among_placeless_rows() {
            return Ok(self.begin_poll());
        }
        let Some(request) = walk.next_request() else {
            self.rest();
            return Ok(Next::Poll(interval));
        };
        let answer = {
            let _waiting = self.args.progress.long_wait(self.args.config.timeout);
            self.args.client.events(request).await
        };
        let page = match answer {
            Ok(answer) => decode_page(&answer.body)
                .map(|page| (page, answer))
                .map_err(|error| ClientError::Unreadable(error.to_string())),
            Err(ClientError::NoSuchPage) if request.page > 1 => {
                Ok((Page::beyond_the_end(), Answer::empty()))
            }
            Err(ClientError::TooLong) if walk.ask_for_less() => {
                return Ok(Next::Continue(Duration::ZERO));
            }
            Err(ClientError::TooLong) => Err(ClientError::EventTooLong),
            Err(ClientError::NoSuchPage) => Err(ClientError::WrongAddress("404".to_owned())),
            Err(error) => {
                // The first page came: it may be the length of this one.
                if request.page > 1 && error.is_late() {
                    walk.ask_for_less();
                }
                Err(error)
            }
        };
        match page {
            Ok((page, answer)) => self.take(page, answer).await,
            Err(error) => Ok(self.failed(&error)),
        }
    }

    /// Whose token is it? Whatever the answer, the list tells whether events can be read.
    async fn probe(&mut self) {
        let _waiting = self.args.progress.long_wait(self.args.config.timeout);
        let me = self.args.client.me().await;
        self.probed = true;
        self.standing.asked_for_owner(&me);
    }

    async fn take(&mut self, page: Page, answer: Answer) -> Result<Next, Struck> {
        self.args.courier.status.succeeded();
        let name = &self.args.courier.status.name;
        self.args.metrics.authentik_pages(name).increment(1);
        let Some(walk) = &mut self.walk else {
            return Ok(Next::Claim(Duration::ZERO));
        };
        let received_at = Instant::now();
        let context = EventContext {
            source: &self.args.courier.status.name,
            received_at: jiff::Timestamp::now(),
        };
        // A row that tells no place cannot take part in the walk; it goes with the first page
        // that shows it, as a dead letter.
        let mut rows = Vec::with_capacity(page.results.len());
        let mut placeless = Vec::new();
        for raw in &page.results {
            match EventHead::read(raw) {
                Some(head) => rows.push((
                    RowKey {
                        created: head.created,
                        pk: head.pk.clone(),
                    },
                    head.user_pks(),
                    raw,
                )),
                None => placeless.push(raw),
            }
        }
        if rows.is_empty() && !placeless.is_empty() {
            self.standing.met_unreadable_page();
        }
        self.standing.saw(page.count, walk.is_at_head());
        let unknown: Vec<_> = rows
            .iter()
            .filter(|(key, ..)| !walk.is_durable(key))
            .collect();
        let pks: Vec<i64> = unknown
            .iter()
            .flat_map(|(_, user_pks, _)| user_pks.iter().flatten().copied())
            .collect();
        let changes = unknown.iter().filter(|(.., raw)| changes_people(raw));
        let changes: Vec<_> = changes.map(|(key, ..)| key.created).collect();
        if let Some((first, last)) = changes.iter().min().zip(changes.iter().max()) {
            self.people.note_changes(*first, *last, answer.server_time);
        }
        let is_at_head = walk.is_at_head();
        let is_older = walk.has_gaps() && !is_at_head;
        let pause = self.people.look_up(&self.args.client, &pks).await;
        self.args.progress.tick();
        // While the server wants to be left alone, nobody could be told.
        self.waits_since = self.waits_since.filter(|_| pause < Some(WAIT));
        if let Some(pause) = pause.filter(|_| is_older)
            && self.waits_since.get_or_insert_with(Instant::now).elapsed() < WAIT
        {
            // The page is asked for again; new events do not wait with it.
            self.pages_since_head = PAGES_BETWEEN_HEADS;
            // What failed before does so no more.
            self.standing.got_further();
            self.show();
            return Ok(Next::Continue(pause.min(self.args.config.interval)));
        }
        if is_older {
            self.waits_since = None;
        }
        let taken = walk.accept(&PageAnswer {
            rows: rows.iter().map(|(key, ..)| key.clone()).collect(),
            length: page.results.len() as u64,
            has_next: page.next != 0,
            count: page.count,
            server_time: answer.server_time,
        });
        if walk.is_lost() {
            return Ok(self.failed(&ClientError::Contradictory));
        }
        self.pages_since_head += u32::from(taken.onward);
        if walk.has_gaps() {
            self.people.forget_former();
        }
        if is_at_head
            && !walk.is_at_head()
            && !rows.is_empty()
            && let Some(depth) = self.depth
        {
            self.last_deep = Instant::now();
            if depth >= WIDE_OVERLAP {
                self.last_wide = Some((self.last_deep, context.received_at));
            }
        }
        if taken.further {
            self.failures = 0;
            self.standing.got_further();
        }
        let mut entries = Vec::with_capacity(taken.rows.len() + placeless.len());
        let mut keys = Vec::with_capacity(taken.rows.len());
        for index in &taken.rows {
            let (key, user_pks, raw) = &rows[*index];
            keys.push(key.clone());
            entries.extend(self.entry_of(decode_event(raw, &context), *user_pks));
        }
        for raw in placeless {
            let decoded = decode_event(raw, &context);
            // Every poll meets it again; it is no news.
            if matches!(&decoded, Decoded::Dead(letter) if self.unreadable.contains(&letter.position))
            {
                continue;
            }
            entries.extend(self.entry_of(decoded, [None; 2]));
        }
        if let Some(unseen) = taken.unseen {
            let head = rows.iter().map(|(.., raw)| &***raw);
            let gap = retention::gap(unseen, head, context.source, context.received_at);
            if let Some(gap) = gap {
                let (source, since) = (context.source, unseen.since);
                tracing::error!(%source, %since, "Authentik's retention may have removed events before they could be read");
                entries.push(gap);
            }
        }
        if entries.is_empty() && !taken.moved {
            return Ok(Next::Continue(Duration::ZERO));
        }
        let permit = self.args.courier.room(answer.body.len() as u64).await;
        let detail = serde_json::to_value(&taken.cursor).unwrap_or_default();
        let mut batch = Batch::new(
            self.args.courier.status.name.clone(),
            self.generation,
            entries,
            permit,
        )
        .with_step(self.seq, self.seq + 1, detail);
        batch.received_at = received_at;
        // Pages come newest first, and what is late is older than what is known.
        self.newest = self.newest.take().max(keys.iter().max().cloned());
        batch.last_event_at = self.newest.as_ref().map(|row| to_millis(row.created));
        batch.last_event_id = self.newest.as_ref().map(|row| row.pk.clone());
        self.parcel = Some(Outgoing {
            parcel: self.args.courier.parcel(batch, 0),
            rows: keys,
            late: taken.late,
        });
        self.args.probe.hit("after_read").await?;
        self.deliver().await
    }

    fn entry_of(&self, decoded: Decoded, user_pks: [Option<i64>; 2]) -> Option<Entry> {
        match decoded {
            Decoded::Event(event, mut hints) => {
                self.people.tell(user_pks, event.at, &mut hints);
                Some(Entry::Event(event, hints))
            }
            Decoded::Filtered => None,
            Decoded::Dead(letter) => Some(Entry::Dead(letter)),
        }
    }

    async fn deliver(&mut self) -> Result<Next, Struck> {
        let Some(mut outgoing) = self.parcel.take() else {
            return Ok(Next::Continue(Duration::ZERO));
        };
        let attempt = self.args.courier.attempt(&mut outgoing.parcel).await;
        Ok(match attempt {
            Attempt::Durable => {
                self.args.probe.hit("after_ack").await?;
                self.seq += 1;
                self.settle(outgoing);
                self.note_backlog();
                self.show();
                Next::Continue(Duration::ZERO)
            }
            Attempt::Later(pause) => {
                self.args.probe.hit("in_retry").await?;
                self.parcel = Some(outgoing);
                Next::Continue(pause)
            }
            Attempt::Reload(reason) => {
                let status = &self.args.courier.status;
                status.set_state(SourceState::Blocked, Some(reason));
                Next::Claim(self.backoff(Duration::from_secs(1)))
            }
            Attempt::Fenced(reason) => {
                let status = &self.args.courier.status;
                status.set_state(SourceState::Fenced, Some(reason));
                Next::Claim(FENCED_RETRY)
            }
        })
    }

    /// Events that the list is known to hold and that are not read yet are behind, too.
    fn note_backlog(&mut self) {
        let is_behind = self.walk.as_ref().is_some_and(Walk::has_backlog);
        self.backlog_since = is_behind.then(|| self.backlog_since.unwrap_or_else(Instant::now));
        self.args.courier.status.set_known_since(self.backlog_since);
    }

    fn settle(&mut self, outgoing: Outgoing) {
        let Outgoing { parcel, rows, late } = outgoing;
        let letters = parcel
            .batch()
            .entries()
            .iter()
            .filter_map(|entry| match entry {
                Entry::Dead(letter) => Some(letter.position.clone()),
                Entry::Event(..) => None,
            });
        if self.unreadable.len() > UNREADABLE_CAP {
            self.unreadable.clear();
        }
        self.unreadable.extend(letters);
        let in_time = (rows.len() - late) as u64;
        let receipt = self.args.courier.settle(parcel);
        // What was late and is already there was found before: only the rest counts.
        let found = receipt.written.saturating_sub(in_time).min(late as u64);
        if found > 0 {
            let name = &self.args.courier.status.name;
            let counter = self.args.metrics.authentik_late_events(name);
            counter.increment(found);
        }
        if let Some(walk) = &mut self.walk {
            walk.confirm(rows.into_iter());
        }
    }

    fn rest(&mut self) {
        self.failures = 0;
        self.standing.poll_ended();
        // While older events wait, failures go on counting.
        if !self.walk.as_ref().is_some_and(Walk::has_gaps) {
            self.people.poll_ended(self.last_head);
        }
        self.probed = !self.standing.doubts_token();
        self.args.courier.status.succeeded();
        self.show();
    }

    fn show(&self) {
        let limit = self.walk.as_ref().and_then(Walk::limit);
        let looking_up = self.people.trouble();
        let (state, reason) = self.standing.state(limit, looking_up.as_deref());
        self.args.courier.status.set_state(state, reason);
    }

    fn failed(&mut self, error: &ClientError) -> Next {
        let status = Arc::clone(&self.args.courier.status);
        let state = if error.needs_a_person() {
            SourceState::Refused
        } else {
            SourceState::Failing
        };
        status.set_state(state, Some(error.to_string()));
        self.standing.failed(state, error.to_string());
        if let Some(walk) = &mut self.walk {
            walk.abandon_poll();
        }
        self.waits_since = None;
        if error.needs_a_person() {
            self.probed = false;
            self.read_token_again();
        }
        let pause = if error.needs_a_person() {
            REFUSED_RETRY.min(self.args.config.interval)
        } else {
            self.backoff(RETRY_CAP)
        };
        Next::Poll(error.retry_after().unwrap_or(Duration::ZERO).max(pause))
    }

    /// A key that was rotated is refused from then on; its file may hold the new one already.
    fn read_token_again(&mut self) {
        if let Some(client) = self.args.client.with_new_token(&self.args.config) {
            tracing::info!(source = %self.args.courier.status.name, "token has changed");
            self.args.client = client;
            self.people.begin_anew();
        }
    }

    fn backoff(&mut self, cap: Duration) -> Duration {
        let ceiling = (RETRY_FIRST * 2u32.saturating_pow(self.failures)).min(cap);
        self.failures = (self.failures + 1).min(10);
        ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Whether a wide poll at this time is so long ago that the next one is due.
fn is_long_ago((wide, at): (Instant, jiff::Timestamp)) -> bool {
    wide.elapsed() >= WIDE_EVERY || at <= jiff::Timestamp::now() - WIDE_EVERY
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_wide_poll_is_due_when_either_clock_says_so() {
        let (now, at) = (Instant::now(), jiff::Timestamp::now());
        let earlier = now.checked_sub(WIDE_EVERY).unwrap();
        assert!(!is_long_ago((now, at)));
        // As after a night in which the machine was suspended.
        assert!(is_long_ago((now, at - WIDE_EVERY)));
        // As when the clock was put back.
        assert!(is_long_ago((earlier, at + WIDE_EVERY)));
    }
}
