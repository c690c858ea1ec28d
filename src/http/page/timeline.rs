//! `GET /audit`: the list of events, newest first.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use daybook_actors::delivery;
use futures_util::future::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use maud::{Markup, PreEscaped, html};

use super::event::moment;
use super::layout::{
    Reader, answer, chosen_theme, framed, icon, page, script, sentence as said, told, told_no_room,
    trouble,
};
use super::text::{visible, visible_plain};
use super::view::{KEPT, RANGES, View};
use super::{chart, filters, kind_of, now, sentence, session};
use crate::event::Outcome;
use crate::http::error::{ApiError, StoreFailed};
use crate::http::query::{EventQuery, check_length, confine, encode_page_key};
use crate::http::router::Edge;
use crate::own_events;
use crate::store::{EventPage, PageKey, Payloads, Role, StoredEvent};
use crate::tenants::ResolverMessage;

/// A longer beginning goes out with the rest, for which there must be room.
const LONGEST_BEGINNING: usize = 96 << 10;
/// About as long as a browser takes for a frame of little.
const FIRST_FRAME: Duration = Duration::from_millis(50);
/// Where a page is divided: nothing that is escaped has it.
const SEAM: &str = "<!---->";
/// The tenants to choose from are nice to have, not worth a wait.
const CHOICES_PATIENCE: Duration = Duration::from_millis(20);
/// What is asked for in more bytes is not said again by each link of each row.
const LONGEST_REPEATED: usize = 8 << 10;

/// What the form can offer.
pub(super) struct Choices {
    pub sources: Vec<String>,
    pub tenants: Vec<String>,
    /// Whether the reader may choose a tenant at all.
    pub any_tenant: bool,
}

/// `GET /audit`
pub(super) async fn get(State(edge): State<Arc<Edge>>, headers: HeaderMap, uri: Uri) -> Response {
    let (view, parsed) = View::of(&uri, now());
    let caller = match session::reader(&edge, &headers, &view).await {
        Ok(caller) => caller,
        Err(instead) => return instead,
    };
    let reader = Reader {
        caller: &caller,
        mode: edge.authenticator.mode(),
    };
    if parsed.is_ok() && is_untidy(&view, uri.query().unwrap_or_default()) {
        return Redirect::to(&view.href()).into_response();
    }
    let choices = choices(&edge, &caller.role).await;
    let mut query = match parsed {
        Ok(query) => query,
        Err(error) => {
            let content = html! {
                h1.sr { "Timeline" }
                p.said.error role="alert" { (said(error.message())) }
                (filters::form(&view, &choices, true))
            };
            let page = page("Timeline", &view, Some(&reader), &content);
            return answer(error.status(), page);
        }
    };
    if let Err(error) = confine(&caller.role, &mut query.filter) {
        return trouble(&error, &view.cleared(), Some(&reader));
    }
    let skip = html! { a.skip href="#timeline" { "Skip to the events" } };
    let begin = html! {
        h1.sr { "Timeline" }
        // Browsers paint what stands before a script that they wait for.
        (chosen_theme())
        (PreEscaped(SEAM))
        (script())
        (filters::form(&view, &choices, false))
        (filters::ranges(&view))
        (PreEscaped(SEAM))
    };
    let page = framed("Timeline", &view, Some(&reader), &[html! {}, skip], &begin);
    let page = page.into_string();
    let mut parts = page.splitn(3, SEAM).map(str::to_owned);
    let [top, form, end] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let any_tenant = choices.any_tenant;
    let is_up = edge.readiness.store_up.load(Ordering::Acquire);
    if is_up && top.len() + form.len() <= LONGEST_BEGINNING && is_for_a_window(&headers) {
        return in_parts([top, form], async move {
            let content = content(&edge, &caller.role, &view, &query, any_tenant).await;
            let content = content.unwrap_or_else(|error| {
                if let Some(StoreFailed(reason)) = error.store_failed() {
                    edge.metrics.store_errors(reason).increment(1);
                }
                told(&error, &view).1
            });
            let rest = Bytes::from(content.0 + &end);
            let admitted = edge.answers.admit(&caller.role, rest).await;
            admitted.unwrap_or_else(|| Body::from(told_no_room().0 + &end))
        });
    }
    match content(&edge, &caller.role, &view, &query, any_tenant).await {
        Ok(content) => answer(StatusCode::OK, PreEscaped(top + &form + &content.0 + &end)),
        Err(error) => trouble(&error, &view, Some(&reader)),
    }
}

/// Whether a browser asks, to show it to its reader.
fn is_for_a_window(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-dest")
        .is_some_and(|destination| destination == "document")
}

/// The top goes out before the events are looked for, so that a browser shows it meanwhile: alone, for with the form its first
/// frame takes half as long again. The form does not wait longer than that for the events. What goes wrong then is
/// told in their place: the status is on its way.
fn in_parts(
    [top, form]: [String; 2],
    rest: impl Future<Output = Body> + Send + 'static,
) -> Response {
    let behind = async move {
        let mut rest = Box::pin(rest);
        let rest = match tokio::time::timeout(FIRST_FRAME, &mut rest).await {
            Ok(rest) => ready(rest).left_future(),
            Err(_) => rest.right_future(),
        };
        let rest = stream::once(rest).flat_map(Body::into_data_stream);
        stream::once(ready(Ok(Bytes::from(form)))).chain(rest)
    };
    let top = stream::once(ready(Ok(Bytes::from(top))));
    let page = top.chain(stream::once(behind).flatten());
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (html, Body::from_stream(page)).into_response()
}

/// A form sends its empty fields too, a range beside the times that go before it, and under another name
/// what no field holds: the address that people pass on should not have them.
fn is_untidy(view: &View, query: &str) -> bool {
    query.split('&').any(|pair| {
        pair.ends_with('=')
            || (!pair.is_empty() && !pair.contains('='))
            || (pair.starts_with("range=") && view.range().is_none())
            || pair.split('=').next() == Some(KEPT)
    })
}

async fn choices(edge: &Edge, role: &Role) -> Choices {
    if *role != Role::Operator {
        return Choices {
            sources: Vec::new(),
            tenants: Vec::new(),
            any_tenant: false,
        };
    }
    let configured = edge.board.sources();
    let mut sources: Vec<String> = configured
        .iter()
        .map(|source| source.name.to_string())
        .filter(|name| name != crate::sources::drainer::NAME)
        .collect();
    sources.push(own_events::SOURCE.to_owned());
    let slugs = delivery::call(
        &edge.readiness.resolver,
        CHOICES_PATIENCE,
        ResolverMessage::Slugs,
    );
    let slugs = slugs.await.unwrap_or_default();
    Choices {
        sources,
        tenants: slugs.iter().map(|slug| slug.to_string()).collect(),
        any_tenant: true,
    }
}

async fn content(
    edge: &Edge,
    role: &Role,
    view: &View,
    query: &EventQuery,
    any_tenant: bool,
) -> Result<Markup, ApiError> {
    let limit = query.limit as usize;
    let listed = async {
        let _turn = edge.queries.list(role).await?;
        // One more than is shown tells whether there is a next page.
        let page = edge.store.event_page(
            &query.filter,
            query.before.as_ref(),
            query.limit + 1,
            Payloads::LeftOut,
        );
        Ok::<_, ApiError>(page.await?)
    };
    let (page, chart) = tokio::join!(listed, chart::in_time(edge, role, view, query));
    let EventPage { mut events, is_cut } = page?;
    let more = is_cut || events.len() > limit;
    events.truncate(limit);
    let next = events.last().filter(|_| more).map(key_of);
    let ends_before = query.filter.until.is_some_and(|until| until <= now());
    let is_live = query.before.is_none() && !ends_before;
    let beats = [("beats", "1")];
    let stream = is_live.then(|| view.api_href("/api/v1/events/stream", query, &beats));
    Ok(html! {
        (chart)
        (filters::chips(view, &query.filter))
        (printed(view, role))
        section #timeline tabindex="-1" aria-label="Events" data-stream=[stream] data-limit=(limit) {
            button #new-events.pill type="button" hidden { }
            @if events.is_empty() {
                (nothing(view))
            } @else {
                ol #events.events { (rows(edge, view, &events, any_tenant)) }
            }
            (pager(view, next.as_deref(), events.is_empty()))
        }
        (exports(view, query))
        p #spoken.sr role="status" {}
        div #state.state role="status" {}
    })
}

/// What a page that begins after this event is asked for with.
fn key_of(event: &StoredEvent) -> String {
    encode_page_key(&PageKey::of(event))
}

fn rows(edge: &Edge, view: &View, events: &[StoredEvent], with_tenant: bool) -> Markup {
    let today = day_of(now());
    let mut former = None;
    let alone = view.cleared();
    let is_repeated = view.query_string().len() <= LONGEST_REPEATED;
    let view = if is_repeated { view } else { &alone };
    html! {
        @for event in events {
            @let day = day_of(event.at);
            @if former.replace(day.clone()).as_ref() != Some(&day) {
                li.day { h2 { (day_name(&day, &today)) } }
            }
            (row(edge, view, event, with_tenant))
        }
    }
}

fn row(edge: &Edge, view: &View, event: &StoredEvent, with_tenant: bool) -> Markup {
    let kind = kind_of(edge, &event.source, &event.action);
    let said = format!("s-{}", event.id);
    let same = |name: &str, value: &str| {
        let is_short = check_length(name, value).is_ok();
        is_short.then(|| view.with(&[(name, Some(value))]).href())
    };
    html! {
        li class={ "event k-" (kind) " " (outcome_class(event.outcome)) } data-id=(event.id) data-at=(event.at.as_millisecond()) data-key=(key_of(event)) {
            a.open href=(view.event_href(&event.id)) aria-describedby=(said) { (time(event.at)) }
            span.mark title=(visible_plain(&event.source, 40)) { (icon(sentence::icon(event))) }
            div.told {
                p.sentence id=(said) { (sentence::sentence(event, view)) }
                p.small {
                    (badge(event.outcome))
                    a.verb href=[same("action", &event.action)] title="Only this action" { (visible(&event.action, 80)) }
                    @if !event.action.starts_with(&format!("{}.", event.source)) {
                        a.source href=[same("source", &event.source)] title="Only this source" { (visible(&event.source, 40)) }
                    }
                    @if with_tenant && let Some(tenant) = &event.tenant_slug {
                        a.tenant href=[same("tenant", tenant)] title="Only this tenant" { (visible(tenant, 40)) }
                    }
                }
            }
        }
    }
}

pub(super) fn outcome_class(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Failure) => "o-failure",
        Some(Outcome::Unknown) => "o-unknown",
        Some(Outcome::Success) | None => "o-success",
    }
}

/// What is not a success, in words.
pub(super) fn badge(outcome: Option<Outcome>) -> Markup {
    match outcome {
        Some(Outcome::Failure) => html! { span.badge { "failed" } },
        Some(Outcome::Unknown) => html! { span.badge.unsure { "outcome unknown" } },
        Some(Outcome::Success) | None => Markup::default(),
    }
}

/// The time of day, UTC; scripts may show another zone's.
pub(super) fn time(at: Timestamp) -> Markup {
    let utc = at.to_zoned(TimeZone::UTC);
    html! {
        time datetime=(at) data-show="time" { (utc.strftime("%H:%M:%S")) }
    }
}

fn day_of(at: Timestamp) -> Zoned {
    let utc = at.to_zoned(TimeZone::UTC);
    utc.start_of_day().unwrap_or(utc)
}

fn day_name(day: &Zoned, today: &Zoned) -> Markup {
    let yesterday = today.yesterday().ok();
    let near = match day.date() {
        date if date == today.date() => Some("Today"),
        date if Some(date) == yesterday.map(|yesterday| yesterday.date()) => Some("Yesterday"),
        _ => None,
    };
    html! {
        @if let Some(near) = near { strong { (near) } " " }
        span { (day.strftime("%A, %-d %B %Y")) }
    }
}

/// Whether it shows less than the whole timeline.
fn is_filtered(view: &View) -> bool {
    filters::conditions(view).next().is_some() || view.range().is_some()
}

fn nothing(view: &View) -> Markup {
    let is_filtered = is_filtered(view);
    html! {
        div.empty {
            @if view.get("before").is_some() && is_filtered {
                h2 { "No older events match" }
                p { "Nothing older on this timeline meets all of the conditions." }
            } @else if view.get("before").is_some() {
                h2 { "Nothing older" }
                p { "The timeline begins with the events on the page before this one." }
            } @else if is_filtered {
                h2 { "No events match" }
                p { "Nothing on this timeline meets all of the conditions above." }
                p { a.button href=(view.cleared().href()) { "Clear all conditions" } }
            } @else {
                h2 { "No events yet" }
                p { "They appear here as soon as a source has something to tell." }
            }
        }
    }
}

fn pager(view: &View, next: Option<&str>, is_empty: bool) -> Markup {
    html! {
        nav.pager aria-label="Pages" {
            @if view.get("before").is_some() { a.button href=(view.with(&[]).href()) { "Newest events" } }
            @match next {
                Some(next) => a #older.button rel="next" href=(view.with(&[("before", Some(next))]).href()) { "Older events" },
                None if is_empty => {}
                None if is_filtered(view) => span.end { "No older events match" },
                None => span.end { "The timeline begins here" },
            }
        }
    }
}

/// What paper does not show of the screen: whose events, the range, when it was, and the zone of all times.
fn printed(view: &View, role: &Role) -> Markup {
    let range = RANGES.iter().find(|(name, ..)| view.range() == Some(*name));
    let now = Timestamp::from_second(now().as_second()).unwrap_or_default();
    html! {
        p #printed.printed {
            @match role {
                Role::Tenant(slug) => { "Tenant: " (visible(slug, filters::WHOLE)) ". " }
                // A condition says which.
                _ if view.get("tenant").is_some() => {}
                _ => { "All tenants. " }
            }
            @if let Some((_, name, _)) = range { "Range: " (name) ". " }
            @if view.get("before").is_some() { "A later page: newer events are left out. " }
            "As of " (moment(now)) ". Times are in " span data-zone { "UTC" } "."
        }
    }
}

fn exports(view: &View, query: &EventQuery) -> Markup {
    html! {
        p.exports {
            "Export these events: "
            @for (format, name) in [("ndjson", "NDJSON"), ("csv", "CSV"), ("ecs", "Elastic Common Schema")] {
                a href=(view.api_href("/api/v1/export", query, &[("format", format)])) download { (name) } " "
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_top_goes_alone_and_the_form_does_not_wait_for_the_events() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let parts = ["top".to_owned(), "form".to_owned()];
        let page = in_parts(parts, async { told.await.unwrap() });
        let mut parts = page.into_body().into_data_stream();
        // Nobody has told the events yet.
        for part in ["top", "form"] {
            assert_eq!(&*parts.next().await.unwrap().unwrap(), part.as_bytes());
        }
        tell.send(Body::from("events")).unwrap();
        assert_eq!(&*parts.next().await.unwrap().unwrap(), b"events");
        assert!(parts.next().await.is_none());
    }
}
