//! `GET /audit/events/{id}`: one event, whole. The same article is what the drawer shows.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::layout::{Reader, answer, icon, page, trouble};
use super::text::visible;
use super::timeline::{badge, outcome_class};
use super::view::View;
use super::{kind_of, now, payload, sentence, session};
use crate::event::Outcome;
use crate::http::auth::tenant_scope;
use crate::http::error::ApiError;
use crate::http::query::check_length;
use crate::http::router::Edge;
use crate::store::StoredEvent;

/// "Around this time" reaches so far to both sides.
const AROUND: SignedDuration = SignedDuration::from_mins(5);
/// Whole enough for a name; the payload has the rest.
const VALUE: usize = 4096;

/// `GET /audit/events/{id}`; another tenant's event is not found, like one that never was.
pub(super) async fn get(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    // The rest of the address is only the way back: a wrong one leads to the whole timeline.
    let (view, parsed) = View::of(&uri, now());
    let view = parsed.map_or_else(|_| View::default().at(uri.path()), |_| view);
    let caller = match session::reader(&edge, &headers, &view).await {
        Ok(caller) => caller,
        Err(instead) => return instead,
    };
    let reader = Reader {
        caller: &caller,
        mode: edge.authenticator.mode(),
    };
    let found = async {
        let scope = tenant_scope(&caller.role)?;
        let Path(id) = id.map_err(|_| ApiError::bad_request("the id is not UTF-8"))?;
        let turn = edge.queries.event(&caller.role).await?;
        let event = edge.store.event(&id, scope).await?;
        let event = event.ok_or_else(|| ApiError::not_found("no such event"))?;
        Ok::<_, ApiError>((event, turn))
    };
    match found.await {
        Ok((event, _turn)) => {
            let title = sentence::plain_sentence(&event);
            let content = html! {
                p.back { a href=(view.href()) { "← Timeline" } }
                (article(&edge, &view, &event))
            };
            answer(StatusCode::OK, page(&title, &view, Some(&reader), &content))
        }
        Err(error) => trouble(&error, &view, Some(&reader)),
    }
}

fn article(edge: &Edge, view: &View, event: &StoredEvent) -> Markup {
    let kind = kind_of(edge, &event.source, &event.action);
    let outcome = event.outcome.map(Outcome::as_str);
    let back = view;
    let view = &view.cleared();
    // A number is known to its source only.
    let at_source = view.with(&[("source", Some(event.source.as_str()))]);
    let of = |id: Option<&str>| match id.is_some_and(sentence::is_counted) {
        true => &at_source,
        false => view,
    };
    html! {
        article #event class={ "whole k-" (kind) " " (outcome_class(event.outcome)) } data-id=(event.id) {
            header {
                span.mark { (icon(sentence::icon(event))) }
                h1 #event-title { (sentence::sentence(event, back)) " " (badge(event.outcome)) }
                p.when { (moment(event.at)) }
            }
            (related(back, event))
            dl.facts {
                (fact("Action", Some(&event.action), Some("action"), view))
                @if let Some(outcome) = outcome { (fact("Outcome", Some(outcome), None, view)) }
                (fact("Actor", event.actor.name.as_deref(), Some("actor"), view))
                (fact("Actor's mail", event.actor.email.as_deref(), Some("actor"), view))
                (fact("Actor's id", event.actor.id.as_deref(), Some("actor"), of(event.actor.id.as_deref())))
                (fact("Address", event.actor.ip.as_deref(), Some("ip"), view))
                (fact("Target", event.target.name.as_deref(), Some("target"), view))
                (fact("Target's kind", event.target.kind.as_deref(), None, view))
                (fact("Target's id", event.target.id.as_deref(), Some("target"), of(event.target.id.as_deref())))
                (fact("Tenant", event.tenant_slug.as_deref(), Some("tenant"), view))
                (fact("Source", Some(&event.source), Some("source"), view))
                dt { "Entered" } dd { (moment(event.ingested_at)) }
                (fact("Key at the source", Some(&event.external_id), None, view))
                (fact("Event id", Some(&event.id), None, view))
            }
            section.payload aria-labelledby="payload-title" {
                h2 #payload-title { "Payload" }
                p.hint { "As the source wrote it; secrets are masked." }
                (payload::tree(&event.metadata))
            }
            p.links {
                a href={ "/api/v1/events/" (super::view::encode(&event.id)) } { "As JSON" }
                button.quiet.needs-js data-copy-link type="button" { "Copy link" }
            }
        }
    }
}

/// A time to its last digit, UTC; scripts may show it in another zone.
pub(super) fn moment(at: Timestamp) -> Markup {
    let utc = at.to_zoned(TimeZone::UTC);
    html! {
        time datetime=(at) data-show="moment" { (utc.strftime("%A, %-d %B %Y, %H:%M:%S%.f UTC")) }
    }
}

/// A row of the table; nothing for what is not known.
fn fact(label: &str, value: Option<&str>, filter: Option<&str>, view: &View) -> Markup {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Markup::default();
    };
    let href = filter
        .filter(|name| check_length(name, value).is_ok())
        .map(|name| view.with(&[(name, Some(value))]).href());
    html! {
        dt { (label) }
        dd {
            @match &href {
                Some(href) => a href=(href) { (visible(value, VALUE)) },
                None => (visible(value, VALUE)),
            }
        }
    }
}

/// One step to what belongs to it.
fn related(view: &View, event: &StoredEvent) -> Markup {
    let link = |asked: &[(&str, Option<&str>)], label: &str| {
        html! {
            @if !asked.is_empty() { a.button href=(view.cleared().with(asked).href()) { (label) } }
        }
    };
    let since = event.at.checked_sub(AROUND).ok().map(|at| at.to_string());
    let until = event.at.checked_add(AROUND).ok().map(|at| at.to_string());
    let around = view.cleared().with(&[
        (
            "tenant",
            event
                .tenant_slug
                .as_deref()
                .filter(|_| view.get("tenant").is_some()),
        ),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
    ]);
    html! {
        nav.related aria-label="Related events" {
            (link(&sentence::same_actor(event), "Same actor"))
            (link(&sentence::same_address(event), "Same IP address"))
            (link(&sentence::same_target(event), "Same target"))
            a.button href=(around.href()) { "Around this time ± 5 min" }
        }
    }
}
