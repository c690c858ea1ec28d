//! One look at the file: what it brings, decoded. Blocking, and away from the actor.

use jiff::Timestamp;

use crate::batch::Entry;
use crate::event::{DeadLetter, DeadLetterReason, Decoded, SourceName, to_millis};
use crate::tail::{Chunk, FileEvent, Line, LineKind, Step, TailCursor, TailError, Tailer};

use super::decode::{LineContext, decode_each};
use super::gaps::gap_entries;
use super::masks::mask_letter;

/// What a gap's event is charged.
pub(super) const GAP_BYTES: u64 = 512;

/// What decoding has to know.
pub(super) struct Decoding {
    pub source: SourceName,
    pub include_reads: bool,
}

/// What one look brought, and what is left.
pub(super) struct Reading {
    pub read: Result<Read, TailError>,
    /// Bytes that stand unread behind it.
    pub behind: u64,
    /// How many of them stand behind the last complete line.
    pub half_line: u64,
}

/// What one look brought.
pub(super) enum Read {
    /// Lines, decoded.
    Lines(ReadChunk),
    /// See [`Step::Idle`].
    Nothing {
        events: Vec<FileEvent>,
        cursor_after: Option<TailCursor>,
    },
}

/// A chunk whose lines are decoded.
pub(super) struct ReadChunk {
    pub entries: Vec<Entry>,
    pub filtered: u64,
    /// As in [`Chunk::bytes`].
    pub bytes: u64,
    pub cursor_after: TailCursor,
    pub events: Vec<FileEvent>,
    /// Of the lines that were decoded.
    line_bytes: u64,
}

impl Reading {
    /// Looks once; the tailer comes back with what it brought.
    pub fn make(mut tailer: Tailer, decoding: &Decoding) -> (Tailer, Self) {
        let step = tailer.step();
        let reading = Self {
            behind: tailer.bytes_behind(),
            half_line: tailer.half_line_bytes(),
            read: step.map(|step| match step {
                Step::Lines(chunk) => Read::Lines(ReadChunk::decode(chunk, decoding)),
                Step::Idle {
                    events,
                    cursor_after,
                } => Read::Nothing {
                    events,
                    cursor_after,
                },
            }),
        };
        (tailer, reading)
    }

    /// How many bytes of the file it takes.
    pub fn bytes(&self) -> u64 {
        match &self.read {
            Ok(Read::Lines(chunk)) => chunk.bytes,
            _ => 0,
        }
    }
}

impl ReadChunk {
    fn decode(chunk: Chunk, decoding: &Decoding) -> Self {
        let read_at = Timestamp::now();
        let mut entries = gap_entries(&chunk.events, &decoding.source, read_at);
        entries.reserve(chunk.lines.len());
        let mut filtered = chunk.skipped;
        for line in &chunk.lines {
            decode_any(line, &chunk, decoding, read_at, |decoded| match decoded {
                Decoded::Event(event, hints) => entries.push(Entry::Event(event, hints)),
                Decoded::Filtered => filtered += 1,
                Decoded::Dead(letter) => entries.push(Entry::Dead(letter)),
            });
        }
        Self {
            entries,
            filtered,
            bytes: chunk.bytes,
            line_bytes: chunk.lines.iter().map(|line| line.bytes.len() as u64).sum(),
            cursor_after: chunk.cursor_after,
            events: chunk.events,
        }
    }

    /// What its payload takes in flight; of an oversized line that is its head.
    pub fn charge(&self) -> u64 {
        self.line_bytes + GAP_BYTES * self.events.len() as u64
    }
}

fn decode_any(
    line: &Line,
    chunk: &Chunk,
    decoding: &Decoding,
    read_at: Timestamp,
    mut take: impl FnMut(Decoded),
) {
    let source = &decoding.source;
    if let LineKind::Oversized { length } = line.kind {
        return take(Decoded::Dead(DeadLetter {
            source: source.clone(),
            position: format!("{}:{}", chunk.file_key, line.offset),
            reason: DeadLetterReason::Oversized,
            detail: format!("a line of {length} bytes is longer than max_line"),
            raw: mask_letter(&line.bytes).into(),
            raw_length: length,
            at: to_millis(read_at),
        }));
    }
    let context = LineContext {
        source,
        file_key: &chunk.file_key,
        offset: line.offset,
        read_at,
        include_reads: decoding.include_reads,
    };
    decode_each(&line.bytes, &context, take);
}
