//! Dead letters, tried again: what cannot be read today may be readable after an upgrade, and what
//! the store refused it may take after its trouble is over.
//!
//! A letter that became an event leaves only after the event is durable, so dying in between leaves
//! both, and the next try finds the event there already. The event gets the key that it would have
//! had: the letter's position (OCIS), its own `pk` (Authentik), the hash of what it says (Stalwart),
//! or the key it had already (an event that was decoded and refused). A recorder's event has its own
//! `externalId`, or the key that was made for it, which its letter's position ends with; of a whole request
//! those are not known, so an event without its own stays a letter.
//!
//! What a source itself would do first is left out here: nobody's groups are looked up at Authentik,
//! so a tenant is found by the directory alone, and no cursor moves.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::config::{Config, SourceConfig};
use crate::event::{
    AuditEvent, DeadLetter, DeadLetterReason, Decoded, TenantHints, to_millis, whole,
};
use crate::sources::authentik::decode::{EventContext, decode_event};
use crate::sources::drainer;
use crate::sources::ocis::decode::{LineContext, decode_line};
use crate::sources::recorder::decode::{RequestContext, decode_alone, is_made_id, read_request};
use crate::sources::stalwart::decode::{BodyContext, BodyError, decode_body};
use crate::sources::text::MAX_LETTER_BYTES;
use crate::store::{Commit, Fate, LearnedSpace, Record, Store, StoreError, StoredDeadLetter};
use crate::tenants;
use crate::tenants::directory::Directory;

/// What became of a letter that was tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// Everything in it is durable, and it is gone.
    Entered {
        /// Events entered now.
        written: u64,
        /// Events that were there already.
        duplicate: u64,
        /// Parts of it that became letters of their own.
        dead: u64,
    },
    /// It is something that is left out on purpose (a read, say), and it is gone.
    LeftOut,
    /// It stays, counted once more, for this reason.
    Stays(String),
}

/// Why trying letters again cannot even begin.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Without the directory, events would be entered without their tenants for good.
    #[error("directory of tenants cannot be read: {0}")]
    Directory(String),
}

/// Tries letters again, against the directory as it stood when this was made.
pub struct Retrier<'a> {
    store: &'a dyn Store,
    config: &'a Config,
    directory: Directory,
}

impl<'a> Retrier<'a> {
    /// Reads the directory of tenants.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn new(store: &'a dyn Store, config: &'a Config) -> Result<Self, RetryError> {
        let records = tenants::read(store, config.tenants.file.clone())
            .await
            .map_err(RetryError::Directory)?;
        Ok(Self {
            store,
            config,
            directory: Directory::new(records, &config.tenants.ignored_groups),
        })
    }

    /// Tries one letter again. Repeating it is harmless, whatever came of it.
    ///
    /// # Errors
    /// When the store fails; then the letter is still there, and its events may be.
    pub async fn retry(&mut self, stored: &StoredDeadLetter) -> Result<Retried, RetryError> {
        let letter = &stored.letter;
        let source = self
            .config
            .sources
            .iter()
            .find(|source| source.name() == letter.source.as_str());
        let mut decoded = match decode_again(letter, source) {
            Ok(decoded) => decoded,
            Err(why) => return self.stays(letter, why).await,
        };
        if let Some(why) = nothing_but_trouble(&decoded) {
            return self.stays(letter, why).await;
        }
        // A part of its own was first met when the whole was: that is when what is in it happened, if
        // nothing else tells.
        let mut keeps_its_place = false;
        for part in &mut decoded {
            if let Decoded::Dead(part) = part
                && part.position == letter.position
            {
                part.at = to_millis(Timestamp::now());
                keeps_its_place = true;
            }
        }
        let outcome = self.enter(&decoded).await?;
        if let Err(why) = outcome {
            return self.stays(letter, why).await;
        }
        if keeps_its_place {
            let why = "only a part of it can be read; that part is entered".to_owned();
            return Ok(Retried::Stays(why));
        }
        self.store
            .delete_dead_letters(std::slice::from_ref(&stored.id))
            .await?;
        Ok(outcome.unwrap_or_else(Retried::Stays))
    }

    /// Makes the parts durable; the inner error says why the store will never take one of them.
    pub(crate) async fn enter(
        &mut self,
        decoded: &[Decoded],
    ) -> Result<Result<Retried, String>, StoreError> {
        let mut learned: Vec<LearnedSpace> = Vec::new();
        let mut slugs = Vec::with_capacity(decoded.len());
        for part in decoded {
            let Decoded::Event(event, hints) = part else {
                slugs.push(None);
                continue;
            };
            learned.extend(self.directory.learn(hints));
            let given = event.tenant_slug.as_deref().map(Into::into);
            slugs.push(given.or_else(|| self.directory.find(hints)));
        }
        let records: Vec<Record<'_>> = decoded
            .iter()
            .zip(&slugs)
            .filter_map(|(part, slug)| match part {
                Decoded::Event(event, _) => Some(Record::Event {
                    event,
                    tenant_slug: slug.as_deref(),
                }),
                Decoded::Dead(letter) => Some(Record::DeadLetter(letter)),
                Decoded::Filtered => None,
            })
            .collect();
        if records.is_empty() {
            return Ok(Ok(Retried::LeftOut));
        }
        let commit = Commit {
            records,
            learned,
            ..Commit::default()
        };
        let committed = self.store.commit(&commit).await?;
        let (mut written, mut duplicate, mut dead) = (0, 0, 0);
        for (record, fate) in commit.records.iter().zip(&committed.records) {
            match (record, fate) {
                (_, Fate::Rejected(why)) => return Ok(Err(why.clone())),
                (Record::DeadLetter(_), _) => dead += 1,
                (Record::Event { .. }, Fate::Written) => written += 1,
                (Record::Event { .. }, Fate::Duplicate) => duplicate += 1,
            }
        }
        Ok(Ok(Retried::Entered {
            written,
            duplicate,
            dead,
        }))
    }

    /// Met once more: the store counts a repeat of the same position. One that somebody dropped
    /// meanwhile comes back, and whole.
    async fn stays(&self, letter: &DeadLetter, why: String) -> Result<Retried, RetryError> {
        let again = DeadLetter {
            at: to_millis(Timestamp::now()),
            ..letter.clone()
        };
        let commit = Commit {
            records: vec![Record::DeadLetter(&again)],
            ..Commit::default()
        };
        self.store.commit(&commit).await?;
        Ok(Retried::Stays(why))
    }
}

/// Decodes a letter's bytes as its source would have. `source` is that source's configuration; an
/// event that was decoded before needs none.
///
/// # Errors
/// Says why there is nothing to decode, or no way to.
pub fn decode_again(
    letter: &DeadLetter,
    source: Option<&SourceConfig>,
) -> Result<Vec<Decoded>, String> {
    if letter.source.as_str() == drainer::NAME {
        // Damage: it says where it is kept.
        return Err(letter.detail.clone());
    }
    if letter.raw.is_empty() && letter.raw_length > 0 {
        return Err("none of its bytes were kept: they brought down what handled them".to_owned());
    }
    if is_head_only(letter) {
        return Err(format!(
            "only the first {} of its {} bytes were kept",
            letter.raw.len(),
            letter.raw_length
        ));
    }
    if let DeadLetterReason::Rejected | DeadLetterReason::Poison = letter.reason {
        match whole::read(&letter.raw) {
            Ok((event, hints)) => return Ok(vec![Decoded::Event(Box::new(event), hints)]),
            // A former version gave this reason to input over which its decoder panicked.
            Err(_) if letter.reason == DeadLetterReason::Poison => {}
            Err(_) => {
                return Err("its bytes are no whole event, so it cannot be rebuilt".to_owned());
            }
        }
    }
    unless_it_panics(|| decode_as_input(letter, source))
}

/// This version's decoder may panic over it, too.
fn unless_it_panics(
    decode: impl FnOnce() -> Result<Vec<Decoded>, String>,
) -> Result<Vec<Decoded>, String> {
    std::panic::catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("its decoder panicked over it".to_owned()))
}

fn decode_as_input(
    letter: &DeadLetter,
    source: Option<&SourceConfig>,
) -> Result<Vec<Decoded>, String> {
    match source {
        None => Err(format!(
            "no source named {:?} is configured, which would tell how to read it",
            letter.source.as_str()
        )),
        Some(SourceConfig::Ocis(config)) => decode_ocis(letter, config.include_reads),
        Some(SourceConfig::Authentik(_)) => decode_authentik(letter),
        Some(SourceConfig::Stalwart(_)) => decode_stalwart(letter),
        Some(SourceConfig::Recorder(_)) => decode_recorder(letter),
    }
}

/// Whether bytes are missing at the end. Masking changes the length too, so the lengths alone do not tell.
pub fn is_head_only(letter: &DeadLetter) -> bool {
    let may_be_cut =
        letter.reason == DeadLetterReason::Oversized || letter.raw_length > MAX_LETTER_BYTES as u64;
    may_be_cut && (letter.raw.len() as u64) < letter.raw_length
}

fn decode_ocis(letter: &DeadLetter, include_reads: bool) -> Result<Vec<Decoded>, String> {
    let place = letter.position.rsplit_once(':');
    let Some((file_key, Ok(offset))) = place.map(|(key, offset)| (key, offset.parse())) else {
        return Err("its position is no place in a file".to_owned());
    };
    let context = LineContext {
        source: &letter.source,
        file_key,
        offset,
        read_at: letter.at,
        include_reads,
    };
    Ok(decode_line(&letter.raw, &context))
}

fn decode_authentik(letter: &DeadLetter) -> Result<Vec<Decoded>, String> {
    let raw: &RawValue =
        serde_json::from_slice(&letter.raw).map_err(|_| "its bytes are no JSON".to_owned())?;
    let context = EventContext {
        source: &letter.source,
        received_at: letter.at,
    };
    Ok(vec![decode_event(raw, &context)])
}

/// A letter is either a whole body or one event out of a body that could be read.
fn decode_stalwart(letter: &DeadLetter) -> Result<Vec<Decoded>, String> {
    let context = BodyContext {
        source: &letter.source,
        received_at: letter.at,
    };
    match decode_body(&letter.raw, &context) {
        Ok(events) => Ok(events.collect()),
        Err(BodyError::NoEvents) => {
            let body = [b"{\"events\":[", &letter.raw[..], b"]}"].concat();
            let events = decode_body(&body, &context).map_err(|error| error.to_string())?;
            Ok(events.collect())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A letter is a request that was answered from the journal and refused by the version that drained it, or one event of
/// it. Only a request's position has no colon.
fn decode_recorder(letter: &DeadLetter) -> Result<Vec<Decoded>, String> {
    let context = RequestContext {
        source: &letter.source,
        received_at: letter.at,
        // Not known any more; no key is made of it here.
        request_id: 0,
    };
    let entered = |event: AuditEvent| Decoded::Event(Box::new(event), TenantHints::default());
    if let Some((_, key)) = letter.position.split_once(':') {
        let piece: &RawValue =
            serde_json::from_slice(&letter.raw).map_err(|_| "its bytes are no JSON".to_owned())?;
        let made_id = Some(key).filter(|key| is_made_id(key));
        let event = decode_alone(piece, made_id, &context).map_err(|error| error.to_string())?;
        return Ok(vec![entered(event)]);
    }
    let events = read_request(&letter.raw, None, context).map_err(|error| error.to_string())?;
    let decoded = events.pieces().enumerate().map(|(index, (piece, _))| {
        let raw = piece.get().as_bytes();
        decode_alone(piece, None, &context).map_or_else(
            |error| {
                Decoded::Dead(DeadLetter {
                    position: format!("{}:{index}", letter.position),
                    detail: error.to_string(),
                    raw: Bytes::copy_from_slice(raw),
                    raw_length: raw.len() as u64,
                    ..letter.clone()
                })
            },
            entered,
        )
    });
    Ok(decoded.collect())
}

/// The first trouble, when nothing else came of a letter.
fn nothing_but_trouble(decoded: &[Decoded]) -> Option<String> {
    let mut first = None;
    for part in decoded {
        let Decoded::Dead(letter) = part else {
            return None;
        };
        first.get_or_insert_with(|| letter.detail.clone());
    }
    Some(first.unwrap_or_else(|| "there is nothing in it".to_owned()))
}

#[cfg(test)]
#[path = "dead_letters_tests.rs"]
mod tests;
