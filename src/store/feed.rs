//! Following the timeline: events in the order in which they become visible in the store, whoever
//! entered them.
//!
//! That is not the order of `at`, and not always the order of ids either: an insert that began
//! earlier may become visible later. Each store says in its own way what has not been seen yet.

use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;

use super::keys::lower;
use super::{EventFilter, Result, StoredEvent};

/// The most events that one [`Follow::next`] yields, unless it takes more to hand out all that was visible.
pub const MOST_AT_ONCE: usize = 200;

/// How long [`Follow::next`] waits for something when there is nothing.
pub const PATIENCE: Duration = Duration::from_secs(1);

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

impl Caseless {
    /// A text in the one case in which texts are compared.
    fn fold(self, text: &str) -> String {
        match self {
            _ if text.is_ascii() => text.to_ascii_lowercase(),
            Self::Lowercase => lower(text),
            Self::SimpleFolding => text.chars().map(simply_folded).collect(),
        }
    }
}

/// One of the letters that simple case folding takes for the same as this one. Where a letter has several in
/// the place of one (`SS` for `ß`, `i` and a dot for `İ`), it does without.
fn simply_folded(letter: char) -> char {
    // Its capital is that of `i`, and it is the same as neither.
    if letter == 'ı' {
        return letter;
    }
    let upper = only(letter.to_uppercase()).unwrap_or(letter);
    only(upper.to_lowercase()).unwrap_or(upper)
}

fn only(mut letters: impl Iterator<Item = char>) -> Option<char> {
    letters.next().filter(|_| letters.next().is_none())
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

/// A text to be found in any case. There may be three in each of hundreds of streams: it takes little more than
/// its length.
#[derive(Debug)]
struct Pattern {
    caseless: Caseless,
    wanted: String,
    is_whole: bool,
}

impl Pattern {
    fn new(text: &str, caseless: Caseless, is_whole: bool) -> Self {
        Self {
            caseless,
            wanted: caseless.fold(text),
            is_whole,
        }
    }

    fn matches(&self, text: &str) -> bool {
        let text = self.caseless.fold(text);
        match self.is_whole {
            true => text == self.wanted,
            false => text.contains(&self.wanted),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use regex::RegexBuilder;

    use super::*;

    /// As regular expressions do, in scripts that have had two cases for long.
    #[test]
    fn letters_are_the_same_where_simple_folding_says_so() {
        let more = ['ẞ', '\u{212A}', '\u{212B}', 'ﬁ', 'ᾳ', 'ᾼ', 'ẛ', 'ṡ'];
        let letters = ('\0'..'\u{530}').chain(more);
        let letters: Vec<_> = letters
            .map(|letter| (letter.to_string(), simply_folded(letter)))
            .collect();
        for (one, folded) in &letters {
            let pattern = format!(r"\A{}\z", regex::escape(one));
            let pattern = RegexBuilder::new(&pattern).case_insensitive(true).build();
            let pattern = pattern.unwrap();
            for (other, also_folded) in &letters {
                let is_same = folded == also_folded;
                assert_eq!(pattern.is_match(other), is_same, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_text_of_any_length_is_compared_as_its_store_does() {
        let long = "ſ".repeat(4095);
        for (caseless, is_same) in [
            (Caseless::SimpleFolding, true),
            (Caseless::Lowercase, false),
        ] {
            let whole = Pattern::new(&long, caseless, true);
            assert_eq!(whole.matches(&"S".repeat(4095)), is_same, "{caseless:?}");
            assert!(!whole.matches("S"), "{caseless:?}");
            let part = Pattern::new("ΣΥΦΟΣ", caseless, false);
            assert!(part.matches("ο σίσυφος"), "{caseless:?}");
            assert!(!part.matches("ο σίσυφο"), "{caseless:?}");
        }
    }
}
