//! The log again, rotated parts first, each from its beginning. Compressed parts are not read.

use jiff::Timestamp;

use super::{Enterer, ReplayError};
use crate::config::OcisConfig;
use crate::event::{Decoded, SourceName};
use crate::sources::ocis::decode::{LineContext, decode_line};
use crate::tail::{Chunk, LineKind, Step, TailOptions, Tailer};

pub(super) async fn replay(
    config: &OcisConfig,
    enterer: &mut Enterer<'_>,
) -> Result<(), ReplayError> {
    let options = TailOptions {
        max_line: config.max_line.bytes(),
        read_rotated_at_first_start: true,
        ..TailOptions::new(config.path.clone())
    };
    let source = SourceName::new(enterer.source);
    let mut tailer = Tailer::open(options, None);
    loop {
        match tailer.step()? {
            Step::Lines(chunk) => {
                let decoded = decode(&chunk, &source, config.include_reads);
                enterer.enter(decoded).await?;
            }
            // A finished file is let go, and another may follow.
            Step::Idle {
                cursor_after: Some(_),
                ..
            } => {}
            Step::Idle { .. } => return Ok(()),
        }
    }
}

fn decode(chunk: &Chunk, source: &SourceName, include_reads: bool) -> Vec<Decoded> {
    let read_at = Timestamp::now();
    let lines = chunk.lines.iter();
    // A line that is too long is a dead letter of the source itself.
    let lines = lines.filter(|line| !matches!(line.kind, LineKind::Oversized { .. }));
    let decoded = lines.flat_map(|line| {
        let context = LineContext {
            source,
            file_key: &chunk.file_key,
            offset: line.offset,
            read_at,
            include_reads,
        };
        decode_line(&line.bytes, &context)
    });
    decoded.collect()
}
