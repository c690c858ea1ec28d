//! The tailer: one chunk of lines a message, each delivered before the next is read.
//!
//! The doorbell (see [`crate::tail::Doorbell`]) only says "look"; everything else is in the file and
//! in the cursor. File access runs on the blocking pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daybook_actors::budget::Permit;
use daybook_actors::liveness::Progress;
use jiff::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::{Map, Value, json};
use tokio::task::{AbortHandle, JoinSet};

use crate::batch::{Batch, Entry};
use crate::config::OcisConfig;
use crate::event::{
    Actor as EventActor, AuditEvent, DeadLetter, DeadLetterReason, Decoded, Outcome, SourceName,
    Target, TenantHints, to_millis,
};
use crate::probe::{Probe, Struck};
use crate::sources::courier::{Attempt, Courier, Parcel};
use crate::status::{CursorView, SourceState};
use crate::store::{CursorStep, Store};
use crate::tail::{
    Chunk, Doorbell, FileEvent, Line, LineKind, Step, TailCursor, TailOptions, Tailer,
};

use super::decode::{LineContext, decode_line};
use super::masks::mask_letter;

/// Bytes read at once, and so the most this source has in flight.
const CHUNK_BYTES: usize = 1 << 20;
/// While a doorbell works the timer is only its understudy.
const QUICK_POLL: Duration = Duration::from_millis(250);
const CLAIM_RETRY: Duration = Duration::from_millis(500);
const FENCED_RETRY: Duration = Duration::from_secs(15);

/// What the tailer is told.
pub enum TailerMessage {
    /// Get the cursor from the store.
    Claim,
    /// Something may have happened at the file.
    Look,
    /// Send the waiting parcel again.
    Resume,
}

/// The actor.
pub struct LogTailer;

/// What the tailer works with.
#[derive(Clone)]
pub struct TailerArgs {
    /// Its configuration.
    pub config: OcisConfig,
    /// Lines a batch.
    pub batch_events: usize,
    /// Where its cursor is.
    pub store: Arc<dyn Store>,
    /// Its way downstream.
    pub courier: Courier,
    /// Shown while a message is handled.
    pub progress: Progress,
    /// Where tests strike.
    pub probe: Probe,
}

/// The actor's state.
pub struct TailerState {
    args: TailerArgs,
    tailer: Option<Tailer>,
    generation: u64,
    seq: u64,
    parcel: Option<(Parcel, u64)>,
    look_pending: Arc<AtomicBool>,
    doorbell: JoinSet<()>,
    timer: Option<AbortHandle>,
    backlog: Backlog,
    /// Bytes of the file that this actor has made durable.
    consumed: u64,
    missing: bool,
}

impl Drop for TailerState {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

impl Actor for LogTailer {
    type Msg = TailerMessage;
    type State = TailerState;
    type Arguments = TailerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        args: TailerArgs,
    ) -> Result<TailerState, ActorProcessingErr> {
        Ok(TailerState {
            args,
            tailer: None,
            generation: 0,
            seq: 0,
            parcel: None,
            look_pending: Arc::new(AtomicBool::new(false)),
            doorbell: JoinSet::new(),
            timer: None,
            backlog: Backlog::default(),
            consumed: 0,
            missing: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut TailerState,
    ) -> Result<(), ActorProcessingErr> {
        let _working = state.args.progress.work();
        state
            .args
            .courier
            .status
            .set_state(SourceState::Starting, None);
        state.args.probe.hit("post_start").await?;
        state.hang_doorbell(&myself);
        myself.cast(TailerMessage::Claim)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: TailerMessage,
        state: &mut TailerState,
    ) -> Result<(), ActorProcessingErr> {
        let progress = state.args.progress.clone();
        let _working = progress.work();
        match message {
            TailerMessage::Claim => state.claim(&myself).await,
            TailerMessage::Look => {
                state.look_pending.store(false, Ordering::Release);
                if state.parcel.is_none() {
                    state.look(&myself).await?;
                }
                Ok(())
            }
            TailerMessage::Resume => {
                state.deliver(&myself).await?;
                Ok(())
            }
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut TailerState,
    ) -> Result<(), ActorProcessingErr> {
        state
            .args
            .courier
            .status
            .set_state(SourceState::Stopped, None);
        Ok(())
    }
}

impl TailerState {
    fn hang_doorbell(&mut self, myself: &ActorRef<TailerMessage>) {
        let path = self.args.config.path.clone();
        let poll = self.args.config.poll;
        let pending = Arc::clone(&self.look_pending);
        let tailer = myself.clone();
        self.doorbell.spawn(async move {
            let mut doorbell = Doorbell::new(path, poll, QUICK_POLL.min(poll));
            loop {
                doorbell.rang().await;
                // One waiting look sees everything that has happened until it is handled.
                if !pending.swap(true, Ordering::AcqRel)
                    && tailer.cast(TailerMessage::Look).is_err()
                {
                    return;
                }
            }
        });
    }

    fn look_again(&self, myself: &ActorRef<TailerMessage>) {
        if !self.look_pending.swap(true, Ordering::AcqRel) {
            // An actor that has ended meanwhile looks no more.
            let _ended = myself.cast(TailerMessage::Look);
        }
    }

    fn arm(
        &mut self,
        after: Duration,
        myself: &ActorRef<TailerMessage>,
        message: fn() -> TailerMessage,
    ) {
        let timer = myself.send_after(after, message).abort_handle();
        if let Some(former) = self.timer.replace(timer) {
            former.abort();
        }
    }

    async fn claim(&mut self, myself: &ActorRef<TailerMessage>) -> Result<(), ActorProcessingErr> {
        let status = Arc::clone(&self.args.courier.status);
        let cursor = match self.args.store.claim_cursor(&status.name).await {
            Ok(cursor) => cursor,
            Err(error) => {
                status.set_state(SourceState::Blocked, Some(error.to_string()));
                self.arm(CLAIM_RETRY, myself, || TailerMessage::Claim);
                return Ok(());
            }
        };
        self.generation = cursor.generation;
        self.seq = cursor.seq;
        self.parcel = None;
        status.claimed(cursor.seq);
        let place: Option<TailCursor> = if cursor.detail.is_null() {
            None
        } else {
            // Starting over would be safe (the keys are the same) but must not happen unnoticed:
            // a cursor that cannot be read is a crash, seen in restarts and status.
            Some(
                serde_json::from_value(cursor.detail)
                    .map_err(|error| format!("stored cursor cannot be read: {error}"))?,
            )
        };
        status.set_cursor(CursorView {
            last_event_at: cursor.last_event_at,
            last_event_id: cursor.last_event_id,
            generation: cursor.generation,
        });
        let options = TailOptions {
            max_line: self.args.config.max_line.bytes(),
            chunk_bytes: CHUNK_BYTES,
            max_lines: self.args.batch_events,
            ..TailOptions::new(self.args.config.path.clone())
        };
        self.tailer = Some(Tailer::open(options, place));
        self.look_again(myself);
        Ok(())
    }

    async fn look(&mut self, myself: &ActorRef<TailerMessage>) -> Result<(), ActorProcessingErr> {
        let Some(mut tailer) = self.tailer.take() else {
            return Ok(());
        };
        let permit = self.args.courier.room(CHUNK_BYTES as u64).await;
        let (tailer, step, behind) = tokio::task::spawn_blocking(move || {
            let step = tailer.step();
            let behind = tailer.bytes_behind();
            (tailer, step, behind)
        })
        .await?;
        self.tailer = Some(tailer);
        match step {
            Ok(Step::Lines(chunk)) => {
                self.backlog.grew_to(self.consumed + chunk.bytes + behind);
                self.take_lines(chunk, permit);
                self.args.probe.hit("after_read").await?;
                self.deliver(myself).await?;
            }
            Ok(Step::Idle {
                events,
                cursor_after,
            }) => {
                self.backlog.grew_to(self.consumed + behind);
                self.take_silence(&events, cursor_after, permit);
                if self.parcel.is_some() {
                    self.deliver(myself).await?;
                } else {
                    if behind == 0 {
                        self.backlog.clear();
                    }
                    self.at_rest();
                }
            }
            Err(error) => self
                .args
                .courier
                .status
                .set_state(SourceState::Failing, Some(error.to_string())),
        }
        self.args.courier.status.set_bytes_behind(behind);
        self.args
            .courier
            .status
            .set_known_since(self.backlog.oldest());
        Ok(())
    }

    fn take_lines(&mut self, chunk: Chunk, permit: Permit) {
        self.note_events(&chunk.events);
        let source = self.args.courier.status.name.clone();
        let read_at = Timestamp::now();
        let mut entries = gap_entries(&chunk.events, &source, read_at);
        let mut filtered = 0;
        for line in &chunk.lines {
            for decoded in decode_any(
                line,
                &chunk,
                &source,
                read_at,
                self.args.config.include_reads,
            ) {
                match decoded {
                    Decoded::Event(event, hints) => entries.push(Entry::Event(event, hints)),
                    Decoded::Filtered => filtered += 1,
                    Decoded::Dead(letter) => entries.push(Entry::Dead(letter)),
                }
            }
        }
        self.pack(entries, filtered, chunk.bytes, &chunk.cursor_after, permit);
    }

    fn take_silence(
        &mut self,
        events: &[FileEvent],
        cursor_after: Option<TailCursor>,
        permit: Permit,
    ) {
        self.note_events(events);
        let entries = gap_entries(events, &self.args.courier.status.name, Timestamp::now());
        let place = cursor_after.or_else(|| {
            let tailer = self.tailer.as_ref()?;
            (!entries.is_empty()).then(|| tailer.cursor()).flatten()
        });
        match place {
            Some(place) => self.pack(entries, 0, 0, &place, permit),
            // A gap before any file is there again: nothing to move, the event goes alone.
            None if !entries.is_empty() => {
                let batch = Batch::new(
                    self.args.courier.status.name.clone(),
                    self.generation,
                    entries,
                    permit,
                );
                self.parcel = Some((self.args.courier.parcel(batch, 0), 0));
            }
            None => {}
        }
    }

    fn pack(
        &mut self,
        entries: Vec<Entry>,
        filtered: u64,
        bytes: u64,
        place: &TailCursor,
        permit: Permit,
    ) {
        let detail = serde_json::to_value(place).unwrap_or(Value::Null);
        // A place that moved without a line (a rotation) still is a step.
        let step = bytes.max(1);
        let batch = Batch::new(
            self.args.courier.status.name.clone(),
            self.generation,
            entries,
            permit,
        )
        .with_step(self.seq, self.seq + step, detail)
        .with_last_event_id(place.last_event_id());
        self.parcel = Some((self.args.courier.parcel(batch, filtered), bytes));
    }

    async fn deliver(&mut self, myself: &ActorRef<TailerMessage>) -> Result<(), Struck> {
        let Some((mut parcel, bytes)) = self.parcel.take() else {
            return Ok(());
        };
        let attempt = self.args.courier.attempt(&mut parcel).await;
        match attempt {
            Attempt::Durable => {
                self.args.probe.hit("after_ack").await?;
                if let CursorStep::Advance { to, .. } = parcel.batch().step {
                    self.seq = to;
                }
                self.consumed += bytes;
                self.backlog.durable_up_to(self.consumed);
                self.args.courier.settle(parcel);
                self.args
                    .courier
                    .status
                    .set_known_since(self.backlog.oldest());
                self.at_rest();
                self.look_again(myself);
            }
            Attempt::Later(pause) => {
                self.parcel = Some((parcel, bytes));
                self.arm(pause, myself, || TailerMessage::Resume);
            }
            Attempt::Reload(reason) => {
                self.tailer = None;
                self.args
                    .courier
                    .status
                    .set_state(SourceState::Fenced, Some(reason));
                self.arm(FENCED_RETRY, myself, || TailerMessage::Claim);
            }
        }
        Ok(())
    }

    fn at_rest(&self) {
        let status = &self.args.courier.status;
        status.succeeded();
        if self.missing {
            let path = self.args.config.path.display();
            let reason = format!(
                "no file at {path}: it appears with the first event, if AUDIT_LOG_TO_FILE=true and AUDIT_FILEPATH are set"
            );
            status.set_state(SourceState::Warning, Some(reason));
        } else {
            status.set_state(SourceState::Running, None);
        }
    }

    fn note_events(&mut self, events: &[FileEvent]) {
        for event in events {
            match event {
                FileEvent::Missing => self.missing = true,
                _ => self.missing = false,
            }
            match event {
                FileEvent::Gap { .. } => {
                    tracing::error!(source = %self.args.courier.status.name, ?event, "lines were destroyed before they could be read");
                }
                _ => tracing::info!(source = %self.args.courier.status.name, ?event, "file"),
            }
        }
    }
}

fn decode_any(
    line: &Line,
    chunk: &Chunk,
    source: &SourceName,
    read_at: Timestamp,
    include_reads: bool,
) -> Vec<Decoded> {
    if let LineKind::Oversized { length } = line.kind {
        return vec![Decoded::Dead(DeadLetter {
            source: source.clone(),
            position: format!("{}:{}", chunk.file_key, line.offset),
            reason: DeadLetterReason::Oversized,
            detail: format!("a line of {length} bytes is longer than max_line"),
            raw: mask_letter(&line.bytes).into(),
            raw_length: length,
            at: to_millis(read_at),
        })];
    }
    let context = LineContext {
        source,
        file_key: &chunk.file_key,
        offset: line.offset,
        read_at,
        include_reads,
    };
    decode_line(&line.bytes, &context)
}

/// What was lost is an event of its own: the timeline must say where it is not complete.
fn gap_entries(events: &[FileEvent], source: &SourceName, read_at: Timestamp) -> Vec<Entry> {
    events
        .iter()
        .filter_map(|event| match event {
            FileEvent::Gap {
                file_key,
                inode,
                from,
                to,
                why,
            } => Some(gap_event(
                source,
                file_key.as_deref(),
                *inode,
                *from,
                *to,
                why.as_str(),
                read_at,
            )),
            _ => None,
        })
        .collect()
}

fn gap_event(
    source: &SourceName,
    file_key: Option<&str>,
    inode: u64,
    from: u64,
    to: Option<u64>,
    why: &str,
    read_at: Timestamp,
) -> Entry {
    let file = file_key.map_or_else(|| inode.to_string(), str::to_owned);
    let details =
        json!({ "reason": why, "file": file, "inode": inode, "fromByte": from, "toByte": to });
    let metadata = match details {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    };
    let event = AuditEvent {
        at: to_millis(read_at),
        source: source.clone(),
        external_id: format!("gap:{file}:{from}"),
        action: "daybook.gap_detected".to_owned(),
        outcome: Some(Outcome::Unknown),
        actor: EventActor::default(),
        target: Target {
            kind: Some("file".to_owned()),
            id: Some(file),
            name: None,
        },
        tenant_slug: None,
        metadata,
    };
    Entry::Event(Box::new(event), TenantHints::default())
}

/// When which part of the file became known: the oldest unread byte's age is the lag.
#[derive(Default)]
struct Backlog {
    /// Ends of the known part and when they were first seen, oldest first.
    seen: VecDeque<(u64, Instant)>,
    durable: u64,
}

impl Backlog {
    const SAMPLES: usize = 1024;

    fn grew_to(&mut self, end: u64) {
        let known = self.seen.back().map_or(self.durable, |(known, _)| *known);
        if known >= end {
            return;
        }
        if self.seen.len() < Self::SAMPLES {
            self.seen.push_back((end, Instant::now()));
        } else if let Some(newest) = self.seen.back_mut() {
            // Counting the newest bytes as older than they are errs on the safe side.
            newest.0 = end;
        }
    }

    /// Nothing is left to read; what was known and is not durable was destroyed.
    fn clear(&mut self) {
        self.seen.clear();
    }

    fn durable_up_to(&mut self, end: u64) {
        self.durable = end;
        while self.seen.front().is_some_and(|(known, _)| *known <= end) {
            self.seen.pop_front();
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.seen.front().map(|(_, since)| *since)
    }
}
