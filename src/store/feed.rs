//! Following the timeline: events in the order in which they become visible in the store, whoever
//! entered them.
//!
//! That is not the order of `at`, and not always the order of ids either: an insert that began
//! earlier may become visible later. Each store says in its own way what has not been seen yet.

use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;
use regex::{Regex, RegexBuilder};

use super::keys::lower;
use super::{EventFilter, Result, StoredEvent};

/// The most events that one [`Follow::next`] yields, unless it takes more to hand out all that was visible.
pub const MOST_AT_ONCE: usize = 200;

/// How long [`Follow::next`] waits for something when there is nothing.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The longest text that is compared as MongoDB does, in bytes.
const LONGEST_FOLDED: usize = 1024;

/// An event on its way to those who follow the timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The place after it: where to go on. ASCII letters, digits and `-`.
    pub position: String,
    /// The event.
    pub event: StoredEvent,
}

/// What [`Follow::next`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries {
    /// In the order in which they are handed out, seldom more than [`MOST_AT_ONCE`].
    pub entries: Vec<Entry>,
    /// `false`: everything that was visible when this call began has been handed out.
    pub more: bool,
}

/// A reader of the timeline that goes on where it was.
///
/// It never leaves an event out, and may yield one twice after an error or a resumption.
#[async_trait]
pub trait Follow: Send {
    /// What has become visible since the last call; waits up to [`PATIENCE`] when there is nothing.
    /// Cancel-safe: what a cancelled call had read is yielded by the next one, which goes on where it was and
    /// counts as begun with it.
    ///
    /// # Errors
    /// When the store does not answer in time; the next call tries again from the same place.
    async fn next(&mut self) -> Result<Entries>;

    /// The place after everything that was handed out. Two of one follower are equal only when
    /// nothing was handed out between them.
    fn position(&self) -> String;
}

/// How a store compares text in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caseless {
    /// Both sides in lower case.
    Lowercase,
    /// Unicode's simple case folding, letter by letter, as its regular expressions do.
    SimpleFolding,
}

/// An [`EventFilter`] that is asked about one event after the other, and answers as its store does.
#[derive(Debug)]
pub struct Matcher {
    filter: EventFilter,
    actor: Option<Pattern>,
    target: Option<Pattern>,
    text: Option<Pattern>,
}

impl Matcher {
    /// Prepares a filter.
    pub fn new(filter: EventFilter, caseless: Caseless) -> Self {
        let whole = |text: &Option<String>| {
            text.as_deref()
                .map(|text| Pattern::new(text, caseless, true))
        };
        let text = filter.text.as_deref().filter(|text| !text.is_empty());
        Self {
            actor: whole(&filter.actor),
            target: whole(&filter.target),
            text: text.map(|text| Pattern::new(text, caseless, false)),
            filter,
        }
    }

    /// Whether all given conditions hold.
    pub fn matches(&self, event: &StoredEvent) -> bool {
        let filter = &self.filter;
        let (actor, target) = (&event.actor, &event.target);
        let exact = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        exact(&filter.source, Some(&event.source))
            && exact(&filter.tenant, event.tenant_slug.as_deref())
            && exact(&filter.ip, actor.ip.as_deref())
            && filter
                .outcome
                .is_none_or(|wanted| event.outcome == Some(wanted))
            && filter.since.is_none_or(|since| event.at >= since)
            && filter.until.is_none_or(|until| event.at < until)
            && filter
                .action
                .as_deref()
                .is_none_or(|wanted| has_action(wanted, &event.action))
            && is_any(&self.actor, [&actor.id, &actor.email, &actor.name])
            && is_any(&self.target, [&target.id, &target.name])
            && (self
                .text
                .as_ref()
                .is_some_and(|text| text.matches(&event.action))
                || is_any(
                    &self.text,
                    [
                        &actor.id,
                        &actor.email,
                        &actor.name,
                        &actor.ip,
                        &target.kind,
                        &target.id,
                        &target.name,
                    ],
                ))
    }
}

fn has_action(wanted: &str, action: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => action.starts_with(prefix),
        None => action == wanted,
    }
}

fn is_any<const N: usize>(pattern: &Option<Pattern>, texts: [&Option<ByteString>; N]) -> bool {
    let Some(pattern) = pattern else {
        return true;
    };
    texts
        .into_iter()
        .flatten()
        .any(|text| pattern.matches(text))
}

/// A text to be found in any case.
#[derive(Debug)]
enum Pattern {
    Is(String),
    Has(String),
    Folded(Regex),
}

impl Pattern {
    fn new(text: &str, caseless: Caseless, whole: bool) -> Self {
        // A longer one would take megabytes in each stream; it differs in a few letters only.
        if caseless == Caseless::SimpleFolding && text.len() <= LONGEST_FOLDED {
            let literal = regex::escape(text);
            let pattern = if whole {
                format!(r"\A(?:{literal})\z")
            } else {
                literal
            };
            if let Ok(regex) = RegexBuilder::new(&pattern).case_insensitive(true).build() {
                return Self::Folded(regex);
            }
        }
        if whole {
            Self::Is(lower(text))
        } else {
            Self::Has(lower(text))
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Is(wanted) => lower(text) == *wanted,
            Self::Has(wanted) => lower(text).contains(wanted),
            Self::Folded(regex) => regex.is_match(text),
        }
    }
}
