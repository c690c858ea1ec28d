//! The form of conditions, what is set of them, and the ranges of time.

use jiff::civil::DateTime;
use maud::{Markup, html};

use super::event;
use super::text::{visible, visible_plain};
use super::timeline::Choices;
use super::view::{CONDITIONS, KEPT, RANGES, View, is_bare, pair};
use crate::http::query::LONGEST_NAME;
use crate::store::EventFilter;

/// More to choose from than this is no choice: one types.
const MOST_CHOICES: usize = 500;
/// In characters, of which the name of a hidden one has up to three a byte: of what can be asked for nothing is left out.
/// On a screen the style shortens it.
pub(super) const WHOLE: usize = 3 * 8_192;
/// What a field of a form hands on as something else: it has one line, and no document holds a NUL.
const CHANGED: [char; 3] = ['\r', '\n', '\0'];

/// The form. On a narrow screen, where scripts run, "More conditions" folds a part of it away; what is set there is told
/// by [`chips`], so it stays closed unless something is wrong, maybe there.
pub(super) fn form(view: &View, choices: &Choices, is_wrong: bool) -> Markup {
    html! {
        // Going back would bring what was chosen before the page was left, which does not hold.
        form #filters.filters method="get" action="/audit" role="search" autocomplete="off" aria-label="Conditions" {
            div.common {
                (search(view))
                (choice(view, "source", "Source", "All sources", &choices.sources))
                (outcome(view))
                @if choices.any_tenant { (choice(view, "tenant", "Tenant", "All tenants", &choices.tenants)) }
                button.primary type="submit" { "Apply" }
            }
            details.more open[is_wrong] {
                summary { "More conditions" }
                div.folded {
                    (text(view, "action", "Action", "authentik.*"))
                    (text(view, "actor", "Actor", "name, mail or id"))
                    (text(view, "ip", "Address", "198.51.100.7"))
                    (text(view, "target", "Target", "name or id"))
                    (moment(view, "since", "From"))
                    (moment(view, "until", "Until"))
                }
            }
            @if view.is_local() { input type="hidden" name="tz" value="local"; }
            // Nobody could change what may be wrong in these.
            @if !is_wrong {
                @for kept in ["range", "limit"] {
                    @if let Some(value) = view.get(kept) { input type="hidden" name=(kept) value=(value); }
                }
            }
        }
    }
}

fn search(view: &View) -> Markup {
    if let Some(kept) = kept(view, "text", "Search") {
        return kept;
    }
    html! {
        label.field.search {
            span { "Search" }
            input #text type="search" name="text" value=[view.get("text")] placeholder="A name, an address, an action…" maxlength="512" spellcheck="false";
        }
    }
}

fn text(view: &View, name: &str, label: &str, placeholder: &str) -> Markup {
    if let Some(kept) = kept(view, name, label) {
        return kept;
    }
    // What is cut off when it is pasted finds nothing.
    let most = match name {
        "actor" | "target" => LONGEST_NAME,
        _ => 512,
    };
    html! {
        label.field {
            span { (label) }
            input type="text" name=(name) value=[view.get(name)] placeholder=(placeholder) maxlength=(most) spellcheck="false";
        }
    }
}

/// A condition that a field would change: it stays as it is or is dropped.
fn kept(view: &View, name: &str, label: &str) -> Option<Markup> {
    let value = view.get(name).filter(|value| value.contains(CHANGED))?;
    Some(html! {
        div.field {
            span { (label) }
            p.kept { span.value { (visible(value, 60)) } (drop_link(view, name, label)) }
            input type="hidden" name=(KEPT) value=(pair(name, value));
        }
    })
}

fn drop_link(view: &View, name: &str, label: &str) -> Markup {
    html! {
        a.drop href=(view.with(&[(name, None)]).href()) aria-label={ "Drop the condition " (label) } title="Drop this condition" { "×" }
    }
}

fn moment(view: &View, name: &str, label: &str) -> Markup {
    let given = view.get(name);
    // What the field cannot hold stands in a field for text: nothing that was given is dropped.
    let bare = given.map(|given| given.strip_suffix('Z').unwrap_or(given));
    let fits = bare.is_none_or(|bare| {
        let is_read = |time: DateTime| time.year() > 0 && !bare.contains(":60");
        is_bare(bare) && bare.parse().is_ok_and(is_read)
    });
    html! {
        label.field {
            span { (label) " " em.zone-name { "(UTC)" } }
            @if fits {
                input type="datetime-local" name=(name) value=[bare] data-given=[given] step="any";
            } @else {
                input type="text" name=(name) value=[given];
            }
        }
    }
}

fn choice(view: &View, name: &str, label: &str, all: &str, choices: &[String]) -> Markup {
    if let Some(kept) = kept(view, name, label) {
        return kept;
    }
    let given = view.get(name);
    if choices.is_empty() || choices.len() > MOST_CHOICES {
        return text(view, name, label, all);
    }
    let is_unknown = given.filter(|given| !choices.iter().any(|known| known == given));
    html! {
        label.field {
            span { (label) }
            select name=(name) {
                option value="" { (all) }
                @if let Some(unknown) = is_unknown { option value=(unknown) selected { (visible_plain(unknown, 60)) } }
                @for known in choices {
                    option value=(known) selected[given == Some(known)] { (visible_plain(known, 60)) }
                }
            }
        }
    }
}

fn outcome(view: &View) -> Markup {
    let given = view.get("outcome");
    html! {
        label.field {
            span { "Outcome" }
            select name="outcome" {
                option value="" { "All outcomes" }
                @for (value, name) in [("failure", "Failed"), ("success", "Succeeded"), ("unknown", "Unknown")] {
                    option value=(value) selected[given == Some(value)] { (name) }
                }
            }
        }
    }
}

/// The ranges to choose from.
pub(super) fn ranges(view: &View) -> Markup {
    let is_custom = view.get("since").or(view.get("until")).is_some();
    let all = view.range().is_none() && !is_custom;
    let link = |range: Option<&str>, name: &str, is_current: bool| {
        let target = view.with(&[("range", range), ("since", None), ("until", None)]);
        html! { a href=(target.href()) aria-current=[is_current.then_some("true")] { (name) } }
    };
    html! {
        nav.ranges aria-label="Range of time" {
            @for (range, name, _) in RANGES { (link(Some(range), name, view.range() == Some(range))) }
            (link(None, "All", all))
        }
    }
}

/// The conditions that are set, in words.
pub(super) fn conditions(view: &View) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
    let set = |(name, label)| Some((name, label, view.get(name)?));
    CONDITIONS.into_iter().filter_map(set)
}

/// What is set, each with a way to drop it. A time may have been given without a zone: it is told as all times are.
pub(super) fn chips(view: &View, filter: &EventFilter) -> Markup {
    if conditions(view).next().is_none() {
        return Markup::default();
    }
    let time = |name: &str| match name {
        "since" => filter.since,
        "until" => filter.until,
        _ => None,
    };
    html! {
        ul.chips aria-label="Conditions that are set" {
            @for (name, label, value) in conditions(view) {
                li.moment[time(name).is_some()] {
                    span.label { (label) } " "
                    span.value {
                        @match time(name) {
                            Some(at) => (event::moment(at)),
                            None => (visible(value, WHOLE)),
                        }
                    }
                    (drop_link(view, name, label))
                }
            }
            @if conditions(view).count() > 1 { li.clear { a href=(view.cleared().href()) { "Clear all" } } }
        }
    }
}
