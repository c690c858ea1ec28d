//! The log again, rotated parts first, each from its beginning. Compressed parts are not read.
//!
//! What the service has yet to read is read before that, as the service will: from its cursor on. Of a log that was
//! copied and truncated it gives the copy's lines the log's key, which the copy by itself does not tell. When the copy
//! is then read again, its lines are known by their content.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{Enterer, ReplayError, Replayed, is_timeless};
use crate::config::OcisConfig;
use crate::event::{AuditEvent, Decoded, SourceName};
use crate::sources::ocis::decode::{LineContext, decode_line};
use crate::sources::ocis::verbs::READS;
use crate::sources::text::text;
use crate::tail::{Chunk, Line, LineKind, Step, TailCursor, TailOptions, Tailer};

pub(super) async fn replay(
    config: &OcisConfig,
    enterer: &mut Enterer<'_>,
) -> Result<(), ReplayError> {
    let options = TailOptions {
        max_line: config.max_line.bytes(),
        read_rotated_at_first_start: true,
        // Nobody writes to a rotated part for long enough to wait for.
        grace: Duration::ZERO,
        ..TailOptions::new(config.path.clone())
    };
    let cursor = stored_cursor(enterer).await?;
    let mut place = None;
    if cursor.is_some() {
        let mut tailer = Tailer::open(options.clone(), cursor);
        read(&mut tailer, None, config, enterer).await?;
        place = tailer.cursor();
    }
    // All of it comes again, and is counted then.
    let entered = enterer.replayed.new;
    enterer.replayed = Replayed {
        new: entered,
        ..Replayed::default()
    };
    let mut tailer = Tailer::open(options, None);
    read(&mut tailer, place.as_ref(), config, enterer).await?;
    enterer.replayed.known = enterer.replayed.known.saturating_sub(entered);
    let path = config.path.clone();
    let position = tailer.position();
    position.map(|_| ()).ok_or(ReplayError::Missing { path })
}

/// Where the service goes on; `None` where it never was.
async fn stored_cursor(enterer: &Enterer<'_>) -> Result<Option<TailCursor>, ReplayError> {
    let cursors = enterer.store.cursors().await?;
    let own = cursors
        .into_iter()
        .find(|cursor| cursor.source == enterer.source);
    let detail = own.map_or(Value::Null, |cursor| cursor.detail);
    serde_json::from_value(detail)
        .map_err(|error| ReplayError::Source(format!("stored cursor cannot be read: {error}")))
}

/// Reads to the end of what is there. `place` is the service's in the last file.
async fn read(
    tailer: &mut Tailer,
    place: Option<&TailCursor>,
    config: &OcisConfig,
    enterer: &mut Enterer<'_>,
) -> Result<(), ReplayError> {
    let source = SourceName::new(enterer.source);
    let mut clock = Clock::default();
    let mut rested_at = None;
    loop {
        match tailer.step()? {
            Step::Lines(chunk) => {
                let key = &*chunk.file_key;
                let key = place.map_or(key, |place| place.key_instead_of(key));
                let mut decoded = decode(&chunk, &source, key);
                clock.turn_to(&chunk);
                let is_long = |line: &&Line| matches!(line.kind, LineKind::Oversized { .. });
                enterer.passes_over(chunk.lines.iter().filter(is_long).count() as u64);
                for part in &mut decoded {
                    let Decoded::Event(event, _) = &*part else {
                        continue;
                    };
                    let is_old = clock.time_of(event) < enterer.since;
                    if is_old || (is_read(event) && !config.include_reads) {
                        *part = Decoded::Filtered;
                    }
                }
                enterer.enter(decoded).await?;
                // Where nothing is entered nothing is awaited, and a signal would go unheard.
                tokio::task::yield_now().await;
            }
            // A step may end between two files, or within a huge line: only a second one at the same place
            // is the end.
            Step::Idle { .. } => {
                let (behind, half_line) = (tailer.bytes_behind(), tailer.half_line_bytes());
                let place = Some((tailer.position(), behind, half_line));
                if rested_at == place {
                    return Ok(());
                }
                rested_at = place;
            }
        }
    }
}

/// Reads too: they tell the time.
fn decode(chunk: &Chunk, source: &SourceName, file_key: &str) -> Vec<Decoded> {
    let read_at = Timestamp::now();
    let lines = chunk.lines.iter();
    // What is too long is passed over.
    let lines = lines.filter(|line| !matches!(line.kind, LineKind::Oversized { .. }));
    let decoded = lines.flat_map(|line| {
        let context = LineContext {
            source,
            file_key,
            offset: line.offset,
            read_at,
            include_reads: true,
        };
        decode_line(&line.bytes, &context)
    });
    decoded.collect()
}

fn is_read(event: &AuditEvent) -> bool {
    text(&event.metadata, "Action").is_some_and(|action| READS.contains(&action))
}

/// How late it was in a file.
#[derive(Default)]
struct Clock {
    file_key: Option<Arc<str>>,
    /// The latest time that was told so far.
    told: Option<Timestamp>,
    /// When the file was written last.
    modified: Timestamp,
}

impl Clock {
    fn turn_to(&mut self, chunk: &Chunk) {
        if self.file_key.as_ref() != Some(&chunk.file_key) {
            self.file_key = Some(Arc::clone(&chunk.file_key));
            self.told = None;
        }
        let modified = Timestamp::from_nanosecond(chunk.cursor_after.modified.into());
        self.modified = modified.unwrap_or(Timestamp::MAX);
    }

    /// That of an event which tells none is the latest that was told before it in its file, or as
    /// long as none was, that of the file.
    fn time_of(&mut self, event: &AuditEvent) -> Timestamp {
        if is_timeless(&event.metadata) {
            return self.told.unwrap_or(self.modified);
        }
        self.told = self.told.max(Some(event.at));
        event.at
    }
}
