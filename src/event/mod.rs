//! The event as the timeline knows it, whatever source said it.
//!
//! Nothing here knows an actor, a store or a network: plain data and pure functions.

pub mod flat;
pub mod hidden;
pub mod json;
pub mod letter;
pub mod mask;
mod payload;
pub mod prose;
mod time;
pub mod whole;

pub use payload::{Flat, Payload};
pub use time::{parse_bound, parse_time};

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The configured name of a source; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// Names a source.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Borrow<str> for SourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SourceName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// One entry of the timeline. The key is (`source`, `external_id`).
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEvent {
    /// When it happened, as the source says; whole milliseconds.
    pub at: Timestamp,
    /// Which configured source said it.
    pub source: SourceName,
    /// The source's key of this event: deterministic, so that a repeat is recognised.
    pub external_id: String,
    /// `<kind>.<verb>`; a recorder's stands as sent.
    pub action: ByteString,
    /// How it ended, where the source tells.
    pub outcome: Option<Outcome>,
    /// Who did it.
    pub actor: Actor,
    /// What it was done to.
    pub target: Target,
    /// The tenant as *given* by the source (recorder only); the resolver finds the others.
    pub tenant_slug: Option<String>,
    /// The whole payload, secrets masked.
    pub metadata: Payload,
}

/// How an action ended (the vocabulary of the Elastic Common Schema's `event.outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused or failed.
    Failure,
    /// The source cannot tell.
    Unknown,
}

impl Outcome {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }

    /// The outcome of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Success, Self::Failure, Self::Unknown]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }
}

/// Who acted. Every part is optional; an actor without any part is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The source's id of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<ByteString>,
    /// Mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<ByteString>,
    /// User name or display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ByteString>,
    /// Network address it came from, as the source wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<ByteString>,
}

impl Actor {
    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What was acted on. Every part is optional; a target without any part is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What kind of thing: `account`, `file`, `share`, `group`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ByteString>,
    /// The source's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<ByteString>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ByteString>,
}

impl Target {
    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What an event tells about its tenant; the resolver tries them in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantHints {
    /// Names of the groups of the acting user, and then of an impersonated one (Authentik).
    pub groups: Vec<ByteString>,
    /// Space ids, without storage id and node (OCIS).
    pub spaces: Vec<ByteString>,
    /// Ids of users, looked up as `authentikSubjectId` (an OCIS user id, an Authentik `uid`).
    pub subjects: Vec<ByteString>,
    /// Mail addresses of users, looked up as a user's `email`.
    pub emails: Vec<ByteString>,
    /// Addresses that mail went to, looked up the same way (Authentik). Those that are tenants' must
    /// all be of one.
    pub recipients: Vec<ByteString>,
    /// Mail domains, lower case (Stalwart). Those that are tenants' must all be of one.
    pub domains: Vec<ByteString>,
    /// Mail domains of the sender, lower case, asked where none of `domains` is a tenant's (Stalwart).
    pub senders: Vec<ByteString>,
    /// A space whose name or owner this event tells, to be learned from (OCIS `space_*` lines).
    pub learn: Option<SpaceLesson>,
}

/// What a `space_*` line teaches about a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceLesson {
    /// The space's id, without storage id and node.
    pub space: ByteString,
    /// Its owner's user id, if told.
    pub owner: Option<ByteString>,
    /// Its name, if told.
    pub name: Option<ByteString>,
}

/// Why something could not become an event. The label of `daybook_events_dead_lettered_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// Not JSON, or cut off.
    Malformed,
    /// JSON, but not the shape that the source writes.
    UnexpectedShape,
    /// Longer than a line, an event or a stored document may be.
    Oversized,
    /// Bytes that are no UTF-8.
    #[serde(rename = "invalid_utf8")]
    InvalidUtf8,
    /// Decoded, but the store refuses it for good.
    Rejected,
    /// Killed what handled it, three times over.
    Poison,
}

impl DeadLetterReason {
    /// The stored word and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnexpectedShape => "unexpected_shape",
            Self::Oversized => "oversized",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Rejected => "rejected",
            Self::Poison => "poison",
        }
    }

    /// The reason of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Every reason, to declare the metric's series.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::UnexpectedShape,
        Self::Oversized,
        Self::InvalidUtf8,
        Self::Rejected,
        Self::Poison,
    ];
}

/// Raw input that could not become an event, kept for a person to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The source it came through.
    pub source: SourceName,
    /// Where it stood: `<file identity>:<offset>`, a content hash, …; with `source` its key.
    pub position: String,
    /// Which kind of trouble.
    pub reason: DeadLetterReason,
    /// The trouble in words; never the content.
    pub detail: String,
    /// The bytes, secrets masked; may be the head only, see `raw_length`. Of an event that was
    /// decoded ([`DeadLetterReason::Rejected`], [`DeadLetterReason::Poison`]) its [`whole`] form.
    pub raw: Bytes,
    /// How long the original was, in bytes.
    pub raw_length: u64,
    /// When Daybook met it.
    pub at: Timestamp,
}

/// What decoding one piece of input yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// An event, with what it tells about its tenant.
    Event(Box<AuditEvent>, TenantHints),
    /// Input that is left out on purpose (a read, say).
    Filtered,
    /// Input that cannot become an event.
    Dead(DeadLetter),
}

/// Rounds down to whole milliseconds: what both stores keep, so that an event reads back as it was written.
pub fn to_millis(at: Timestamp) -> Timestamp {
    let milliseconds = at.as_nanosecond().div_euclid(1_000_000);
    from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}

/// The time so many milliseconds after 1970, or the first or last that can be counted in them.
pub fn from_millis(milliseconds: i64) -> Timestamp {
    let end = if milliseconds < 0 {
        Timestamp::MIN
    } else {
        last_time()
    };
    Timestamp::from_millisecond(milliseconds).unwrap_or(end)
}

/// The last time that can be counted in milliseconds: 9999-12-30T22:00:00Z.
pub fn last_time() -> Timestamp {
    Timestamp::from_second(Timestamp::MAX.as_second()).unwrap_or(Timestamp::MAX)
}
