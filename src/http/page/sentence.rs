//! An event in words: "Alice Example failed to sign in from 198.51.100.7".
//!
//! A sentence names `{actor}` and `{target|what to say when it is not known}`. Of two sentences the
//! second is for an event without an actor. What has no sentence of its own gets one made of its
//! verb; the verb itself stands beside every sentence, so nothing is hidden by the words.

use bytestring::ByteString;
use maud::{Markup, html};

use super::phrases::{Icon, PHRASES, Phrase};
use super::text::{visible, visible_plain};
use super::view::View;
use crate::event::Outcome;
use crate::http::query::check_length;
use crate::store::StoredEvent;

/// The most characters of a name in a sentence.
const NAME: usize = 80;
/// Numbers of at most so many digits are counted, by each server for itself; a longer one, like that
/// of a message in a queue, is nobody else's.
const COUNTED_DIGITS: usize = 10;

/// What a view is asked for.
pub(super) type Conditions<'a> = Vec<(&'static str, Option<&'a str>)>;

/// A part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Words(String),
    Actor(String),
    Target(String),
    Address(String),
}

/// The icon of an event.
pub(super) fn icon(event: &StoredEvent) -> Icon {
    if let Some(phrase) = phrase(&event.action) {
        return phrase.icon;
    }
    let (kind, verb) = event.action.split_once('.').unwrap_or(("", &event.action));
    let has = |word: &str| verb.contains(word);
    match (event.target.kind.as_deref(), kind) {
        _ if is_failed_sign_in(&event.action) => Icon::Shield,
        _ if has("delete") || has("removed") => Icon::Trash,
        (Some("user" | "account"), _) => Icon::Person,
        (Some("group"), _) => Icon::People,
        (Some("token" | "api_key"), _) => Icon::Key,
        (Some("application"), _) => Icon::App,
        (Some("message" | "recipient" | "mailbox" | "email"), _) => Icon::Mail,
        (Some("file"), _) => Icon::File,
        (Some("folder" | "space"), _) => Icon::Folder,
        (Some("share" | "link"), _) => Icon::Share,
        (_, "stalwart") if has("mail") || has("queue") || has("delivery") => Icon::Mail,
        (_, "authentik" | "stalwart" | "ocis") => Icon::Gear,
        _ => Icon::Dot,
    }
}

/// The sentence, its names as links to what else of the view they did.
pub(super) fn sentence(event: &StoredEvent, view: &View) -> Markup {
    let link = |asked: &[(&str, Option<&str>)], shown: &str, class: &str, title: &str| {
        let href = (!asked.is_empty()).then(|| view.with(asked).href());
        html! {
            @match &href {
                Some(href) => a class=(class) href=(href) title=(title) { (visible(shown, NAME)) },
                None => span class=(class) { (visible(shown, NAME)) },
            }
        }
    };
    html! {
        @for part in parts(event) {
            @match &part {
                Part::Words(words) => (words),
                Part::Actor(shown) => (link(&same_actor(event), shown, "who", "Only this actor")),
                Part::Target(shown) => (link(&same_target(event), shown, "what", "Only this target")),
                Part::Address(shown) => (link(&same_address(event), shown, "where", "Only this address")),
            }
        }
    }
}

/// The sentence as plain text.
pub(super) fn plain_sentence(event: &StoredEvent) -> String {
    let mut plain = String::new();
    for part in parts(event) {
        match part {
            Part::Words(words) => plain.push_str(&words),
            Part::Actor(name) | Part::Target(name) | Part::Address(name) => {
                plain.push_str(&visible_plain(&name, NAME));
            }
        }
    }
    plain
}

/// What finds everything by this actor: what other sources call it too. Nothing where nothing names it.
pub(super) fn same_actor(event: &StoredEvent) -> Conditions<'_> {
    let actor = &event.actor;
    let id = told(&actor.id);
    let known = told(&actor.email)
        .or(id.filter(|id| !is_counted(id)))
        .or(told(&actor.name));
    same("actor", known, id, event)
}

/// What finds everything about this target.
pub(super) fn same_target(event: &StoredEvent) -> Conditions<'_> {
    let id = told(&event.target.id);
    let known = id.filter(|id| !is_counted(id)).or(told(&event.target.name));
    same("target", known, id, event)
}

/// What finds everything from this address.
pub(super) fn same_address(event: &StoredEvent) -> Conditions<'_> {
    same("ip", told(&event.actor.ip), None, event)
}

/// What is known finds it everywhere; an id alone may be a number, which is asked of its source.
fn same<'a>(
    name: &'static str,
    known: Option<&'a str>,
    id: Option<&'a str>,
    event: &'a StoredEvent,
) -> Conditions<'a> {
    let asked = match known.or(id) {
        Some(value) if check_length(name, value).is_ok() => (name, Some(value)),
        _ => return Vec::new(),
    };
    match known {
        Some(_) => vec![asked],
        None => vec![asked, ("source", Some(event.source.as_str()))],
    }
}

/// Whether an id is a number that something else has at another source.
pub(super) fn is_counted(id: &str) -> bool {
    id.len() <= COUNTED_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit())
}

fn told(value: &Option<ByteString>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

/// The name or mail address of the actor.
fn own_name(event: &StoredEvent) -> Option<&str> {
    told(&event.actor.name).or_else(|| told(&event.actor.email))
}

fn actor_name(event: &StoredEvent) -> Option<String> {
    let by_id = || told(&event.actor.id).map(|id| format!("user {}", short_id(id)));
    own_name(event).map(str::to_owned).or_else(by_id)
}

fn target_name(event: &StoredEvent) -> Option<String> {
    let target = &event.target;
    let is_of_ocis = event.action.starts_with("ocis.");
    told(&target.name)
        .map(|name| match name.strip_prefix("./") {
            // OCIS writes paths relative to their space.
            Some(path) if is_of_ocis => path.to_owned(),
            _ => name.to_owned(),
        })
        .or_else(|| {
            let id = told(&target.id)?;
            Some(match target_kind(event) {
                Some(kind) => format!("{kind} {}", short_id(id)),
                None => short_id(id),
            })
        })
}

/// What stands before the id of a target without a name.
fn target_kind(event: &StoredEvent) -> Option<String> {
    match event.action.as_str() {
        // A new link has the id of what it leads to.
        "ocis.file_shared" => Some("file".to_owned()),
        _ => told(&event.target.kind).map(|kind| kind.replace('_', " ")),
    }
}

/// Enough of a long id to tell it from its neighbours.
fn short_id(id: &str) -> String {
    // The last part of a compound id is the thing itself.
    let last = id.rsplit(['!', ':', '/']).next().unwrap_or(id);
    let last = if last.is_empty() { id } else { last };
    match last.char_indices().nth(12) {
        Some(_) => last.chars().take(8).chain(['…']).collect(),
        None => last.to_owned(),
    }
}

fn phrase(action: &str) -> Option<&'static Phrase> {
    PHRASES
        .binary_search_by(|phrase| phrase.action.cmp(action))
        .ok()
        .map(|index| &PHRASES[index])
}

fn parts(event: &StoredEvent) -> Vec<Part> {
    let actor = actor_name(event);
    let target = target_name(event);
    let mut parts = match phrase(&event.action) {
        Some(phrase) => {
            let without_actor = phrase.without_actor.filter(|_| actor.is_none());
            let sentence = special(event).or(without_actor).unwrap_or(phrase.sentence);
            let target = said_once(event, target.as_deref(), |kind| {
                sentence.contains(&format!("{kind} {{target|"))
            });
            fill(sentence, actor.as_deref(), target)
        }
        None if is_failed_sign_in(&event.action) => {
            fill("{actor} failed to sign in", actor.as_deref(), None)
        }
        None => made_up(event, actor.as_deref(), target.as_deref()),
    };
    if event.outcome == Some(Outcome::Failure) && !tells_failure(&event.action) {
        parts.push(Part::Words(", without success".to_owned()));
    }
    if let Some(Part::Actor(first)) = parts.first_mut()
        && own_name(event).is_none()
    {
        *first = capitalised(first);
    }
    if let Some(ip) = event.actor.ip.as_deref().filter(|ip| !ip.is_empty())
        && !parts
            .iter()
            .any(|part| matches!(part, Part::Target(said) if said == ip))
    {
        parts.push(Part::Words(" from ".to_owned()));
        parts.push(Part::Address(ip.to_owned()));
    }
    parts
}

/// What stands in the place of an action's phrase where the rest of the event gives it another sense.
fn special(event: &StoredEvent) -> Option<&'static str> {
    let kind = event.target.kind.as_deref();
    let is_another = || {
        told(&event.target.name).is_some_and(|target| actor_name(event).as_deref() != Some(target))
    };
    let sentence = match (event.action.as_str(), kind) {
        // A file's bytes are known to be gone; what expired at a server is not.
        ("daybook.gap_detected", Some("source")) => {
            "Part of {target|a source} may have been gone before it could be read"
        }
        ("ocis.file_shared", Some("link")) => "{actor} made a public link to {target|a file}",
        ("stalwart.policy_rejection", Some("message" | "recipient")) => return None,
        ("stalwart.policy_rejection", Some("account")) if is_another() => {
            "{actor} was not allowed to send mail as {target|someone}"
        }
        // By a filter, which names nobody.
        ("stalwart.policy_rejection", None) if actor_name(event).is_none() => {
            "Mail was refused by policy"
        }
        ("stalwart.policy_rejection", _) => "{actor} was refused by a policy of mail",
        // Somebody else is signed in there.
        ("authentik.login_failed", _)
            if event.actor.id != event.target.id && target_name(event).is_some() =>
        {
            "{actor} failed to sign in as {target|another user}"
        }
        // An administrator, into somebody else's account.
        ("stalwart.auth_success", _) if is_another() => {
            "{actor} signed in to mail as {target|someone}"
        }
        _ => return None,
    };
    Some(sentence)
}

/// Whether a service says that somebody could not sign in: `login.failed`, `portal.sign_in_failed`.
fn is_failed_sign_in(action: &str) -> bool {
    const ENDS: [&[&str]; 4] = [
        &["login", "failed"],
        &["signin", "failed"],
        &["sign", "in", "failed"],
        &["auth", "failed"],
    ];
    let words: Vec<&str> = action.split(['.', '_', '-', ' ']).collect();
    // Of the servers' own actions, some are about other servers.
    let is_server = SERVERS.iter().any(|(server, _)| *server == words[0]);
    !is_server && ENDS.iter().any(|end| words.ends_with(end))
}

/// Whether the words of an action say themselves that it went wrong.
fn tells_failure(action: &str) -> bool {
    const WORDS: [&str; 17] = [
        "failed",
        "failure",
        "fail",
        "error",
        "rejected",
        "rejection",
        "reject",
        "refused",
        "denied",
        "forbidden",
        "unauthorized",
        "exceeded",
        "banned",
        "ban",
        "blocked",
        "detected",
        "declined",
    ];
    let last = action.rsplit(['.', '_', '-', ' ']).next();
    last.is_some_and(|last| WORDS.contains(&last))
}

/// The target without its kind where that stands before it: "the token token 85194b2c…" says it twice.
fn said_once<'a>(
    event: &StoredEvent,
    target: Option<&'a str>,
    is_said: impl FnOnce(&str) -> bool,
) -> Option<&'a str> {
    let target = target?;
    let is_named = told(&event.target.name).is_some();
    let kind = target_kind(event).filter(|kind| !is_named && is_said(kind));
    kind.and_then(|kind| target.strip_prefix(&*kind)?.strip_prefix(' '))
        .or(Some(target))
}

fn fill(sentence: &str, actor: Option<&str>, target: Option<&str>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = sentence;
    while let Some((words, after)) = rest.split_once('{') {
        if !words.is_empty() {
            parts.push(Part::Words(words.to_owned()));
        }
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        let (name, otherwise) = place.split_once('|').unwrap_or((place, "someone"));
        let known = if name == "actor" { actor } else { target };
        parts.push(match known {
            Some(known) if name == "actor" => Part::Actor(known.to_owned()),
            Some(known) => Part::Target(known.to_owned()),
            None if parts.is_empty() => Part::Words(capitalised(otherwise)),
            None => Part::Words(otherwise.to_owned()),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Words(rest.to_owned()));
    }
    parts
}

/// A sentence for an action without one: "Viktor invited the tenant member Zoë" from
/// `tenant.member_invited`, "Stalwart: queue dsn queued" where no deed is seen.
fn made_up(event: &StoredEvent, actor: Option<&str>, target: Option<&str>) -> Vec<Part> {
    let (kind, verb) = event.action.split_once('.').unwrap_or(("", &event.action));
    let is_server = SERVERS.iter().any(|(server, _)| *server == kind);
    let split = |text: &'_ str| -> Vec<String> {
        let words = text.split(['_', '-', '.', ' ']);
        words
            .filter(|word| !word.is_empty())
            .map(|word| visible_plain(word, NAME))
            .collect()
    };
    let mut noun = if is_server { Vec::new() } else { split(kind) };
    noun.extend(split(verb));
    // Who acts for a mail server, and whether a deed was done at all, its words do not tell.
    let tells_deed = kind != "stalwart" && event.outcome != Some(Outcome::Failure);
    let deed = noun.pop_if(|last| tells_deed && is_deed(last));
    let noun = noun.join(" ");
    let target = said_once(event, target, |kind| kind == noun);
    let words = |text: String| Part::Words(text);
    let mut parts = Vec::new();
    let thing = |parts: &mut Vec<Part>, before: &str| {
        if let Some(target) = target {
            parts.push(words(before.to_owned()));
            parts.push(Part::Target(target.to_owned()));
        }
    };
    match (deed, actor) {
        (Some(deed), Some(actor)) => {
            parts.push(Part::Actor(actor.to_owned()));
            parts.push(words(match noun.as_str() {
                "" => format!(" {deed}"),
                noun => format!(" {deed} the {noun}"),
            }));
            thing(&mut parts, " ");
        }
        (Some(deed), None) if !noun.is_empty() => {
            parts.push(words(format!("The {noun}")));
            thing(&mut parts, " ");
            let is_plural = noun.ends_with('s') && target.is_none() && !noun.ends_with("ss");
            let was = if is_plural { "were" } else { "was" };
            parts.push(words(format!(" {was} {deed}")));
        }
        (deed, actor) => {
            let said = [noun, deed.unwrap_or_default()].join(" ");
            let server = SERVERS.iter().find(|(server, _)| *server == kind);
            let speaker = server.map_or("", |(_, name)| name);
            parts.push(words(match speaker {
                "" => capitalised(said.trim()),
                speaker => format!("{speaker}: {}", said.trim()),
            }));
            if let Some(actor) = actor {
                parts.push(words(", ".to_owned()));
                parts.push(Part::Actor(actor.to_owned()));
            }
            if target != actor {
                thing(&mut parts, ", ");
            }
        }
    }
    parts
}

/// The kinds that speak for themselves, and their names.
const SERVERS: [(&str, &str); 4] = [
    ("authentik", "Authentik"),
    ("ocis", "Files"),
    ("stalwart", "Stalwart"),
    ("daybook", "Daybook"),
];

/// Words that say what somebody did to something, sorted. Others may say what was done to the actor (`denied`) or
/// what happened (`succeeded`).
#[rustfmt::skip]
const DEEDS: &[&str] = &[
    "accepted", "activated", "added", "adjusted", "allocated", "approved", "archived", "assigned", "attached",
    "cancelled", "changed", "checked", "cleared", "closed", "confirmed", "connected", "copied", "created",
    "deactivated", "deleted", "deployed", "detached", "disabled", "downloaded", "duplicated", "edited", "emptied",
    "enabled", "exported", "extended", "generated", "given", "granted", "imported", "installed", "invited",
    "issued", "linked", "made", "merged", "modified", "moved", "opened", "ordered", "paid", "paused",
    "posted", "printed", "promoted", "published", "purged", "read", "regenerated", "registered", "released",
    "removed", "renamed", "renewed", "reopened", "replaced", "requested", "reset", "restored", "resumed", "revoked",
    "rotated", "saved", "scheduled", "sent", "set", "shared", "signed", "submitted", "suspended", "taken",
    "terminated", "transferred", "triggered", "unassigned", "uninstalled", "unlinked", "unlocked", "unpublished",
    "unshared", "updated", "upgraded", "uploaded", "used", "verified", "viewed", "withdrawn", "written",
];

fn is_deed(word: &str) -> bool {
    DEEDS.binary_search(&word).is_ok()
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
#[path = "sentence_tests.rs"]
mod tests;
