//! The frame around every page, and pages that only say something.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::assets;
use super::phrases::Icon;
use super::text::visible;
use super::view::View;
use crate::config::AuthMode;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::store::Role;

/// Who looks, and how they came in.
pub(super) struct Reader<'a> {
    pub caller: &'a Caller,
    pub mode: AuthMode,
}

/// A whole page. `reader` is missing where nobody is signed in.
pub(super) fn page(
    title: &str,
    view: &View,
    reader: Option<&Reader<'_>>,
    content: &Markup,
) -> Markup {
    let skip = html! { a.skip href="#main" { "Skip to the content" } };
    let head = html! { (chosen_theme()) (script()) };
    framed(title, view, reader, &[head, skip], content)
}

/// What follows it is painted in the theme that its reader chose; what stands before it may be painted in the system's.
pub(super) fn chosen_theme() -> Markup {
    html! { script src=(assets::href("theme.js")) {} }
}

/// What makes the page live. Wherever it stands, it runs when all of the page is there.
pub(super) fn script() -> Markup {
    html! { script type="module" src=(assets::href("page.js")) {} }
}

/// A whole page with more in its head, and a link of its own past what stands first on it. [`chosen_theme`] and [`script`]
/// are in some of its parts.
pub(super) fn framed(
    title: &str,
    view: &View,
    reader: Option<&Reader<'_>>,
    [head, skip]: &[Markup; 2],
    content: &Markup,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-tz=(if view.is_local() { "local" } else { "utc" }) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Daybook" }
                link rel="icon" href=(assets::href("icon.svg"));
                style { (PreEscaped(assets::STYLE)) }
                (head)
            }
            body {
                (skip)
                (sprite())
                header.top {
                    // Where it is narrow the drawing stands alone.
                    a.brand href=(view.cleared().href()) aria-label="Daybook" { (PreEscaped(BRAND)) span { "Daybook" } }
                    @if let Some(reader) = reader { (whose(reader)) }
                    div.tools {
                        @if reader.is_some() { (zone_switch(view)) }
                        button.tool.needs-js #theme type="button" aria-label="Dark or light" title="Dark or light (t)" { (PreEscaped(HALF)) }
                        @if reader.is_some() {
                            button.tool.needs-js #help-open type="button" aria-label="Keys" title="Keys (?)" { "?" }
                        }
                        @if let Some(reader) = reader && reader.mode == AuthMode::Tokens {
                            form.sign-out method="post" action="/audit/sign-out" {
                                button.quiet type="submit" { "Sign out" }
                            }
                        }
                    }
                }
                main #main tabindex="-1" { (content) }
                @if reader.is_some() { (help()) }
            }
        }
    }
}

fn whose(reader: &Reader<'_>) -> Markup {
    let name = reader
        .caller
        .name
        .as_deref()
        .filter(|name| !name.is_empty());
    // A browser that translates the page leaves this as it is: scripts tell readers by it.
    let token = reader.caller.token.as_deref().unwrap_or_default();
    html! {
        span.whose translate="no" data-reader=(token) {
            @match &reader.caller.role {
                Role::Tenant(slug) => { span.tenant { (visible(slug, 40)) } }
                _ => { span.tenant.all { "all tenants" } }
            }
            @if let Some(name) = name { span.name { (visible(name, 40)) } }
        }
    }
}

fn zone_switch(view: &View) -> Markup {
    let link = |value: Option<&str>, name: &str| {
        let is_current = view.is_local() == value.is_some();
        html! {
            a href=(view.here_in(value)) data-tz=(value.unwrap_or("utc")) aria-current=[is_current.then_some("true")] { (name) }
        }
    };
    html! {
        nav.zone.needs-js aria-label="Time zone" { (link(None, "UTC")) (link(Some("local"), "Local")) }
    }
}

fn help() -> Markup {
    html! {
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keys" }
            dl.keys {
                @for (keys, what) in [
                    ("j k", "next and previous event"),
                    ("Enter", "open the event"),
                    ("Esc", "close, or leave the field"),
                    ("/", "search"),
                    ("n", "show new events"),
                    ("← →", "earlier and later bar, once one is reached"),
                    ("t", "dark or light"),
                    ("?", "this help"),
                ] {
                    dt { @for key in keys.split(' ') { kbd { (key) } " " } }
                    dd { (what) }
                }
            }
            form method="dialog" {
                label.switch {
                    input #keys-on type="checkbox" role="switch" autocomplete="off" checked aria-describedby="keys-off";
                    "Keys on"
                }
                p #keys-off.hint { "When off, only Enter, Esc and the arrows act. The button “?” at the top opens this help." }
                button type="submit" autofocus { "Close" }
            }
        }
    }
}

/// The icons, drawn once and used by name.
fn sprite() -> Markup {
    html! {
        svg.sprite aria-hidden="true" width="0" height="0" {
            @for icon in Icon::ALL {
                @let (id, path) = icon.drawing();
                symbol id=(id) viewBox="0 0 16 16" { path d=(path) {} }
            }
        }
    }
}

/// An icon; what it says stands beside it in words.
pub(super) fn icon(icon: Icon) -> Markup {
    html! {
        svg.icon aria-hidden="true" { use href=(format!("#{}", icon.drawing().0)) {} }
    }
}

/// A page that only says something.
pub(super) fn notice(heading: &str, said: &Markup) -> Markup {
    html! {
        section.notice { h1 { (heading) } (said) }
    }
}

/// An answer with a page.
pub(super) fn answer(status: StatusCode, page: Markup) -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let mut response = (status, page.into_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// An error as a page.
pub(super) fn trouble(error: &ApiError, view: &View, reader: Option<&Reader<'_>>) -> Response {
    let (heading, content) = told(error, view);
    let mut response = answer(error.status(), page(heading, view, reader, &content));
    error.mark(&mut response);
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        // The same question at once would take as long again.
        let seconds = if error.is_timeout() { "10" } else { "5" };
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    response
}

/// An error as people are told of it, and its heading.
pub(super) fn told(error: &ApiError, view: &View) -> (&'static str, Markup) {
    let again = html! { p { a.button href=(view.here()) { "Try again" } } };
    let (heading, said) = match error.status() {
        StatusCode::SERVICE_UNAVAILABLE if error.is_timeout() => (
            "That took too long",
            html! {
                p { (sentence(error.message())) }
                p { "The events are safe: sources keep what they have, and what is sent is journaled." }
                (again)
            },
        ),
        StatusCode::SERVICE_UNAVAILABLE if !error.is_of_store() => (
            "Too much at once",
            html! {
                p { (sentence(error.message())) }
                (again)
            },
        ),
        StatusCode::SERVICE_UNAVAILABLE => (
            "The store does not answer",
            html! {
                p { "The events are safe: sources keep what they have, and what is sent is journaled. They cannot be shown until the store is back." }
                (again)
            },
        ),
        StatusCode::NOT_FOUND => (
            "Nothing here",
            html! {
                p { "There is no such page or event, or it is not on your timeline." }
                p { a.button href=(view.href()) { "To the timeline" } }
            },
        ),
        StatusCode::FORBIDDEN => (
            "Not yours to see",
            html! {
                p { (sentence(error.message())) }
                p { a.button href=(view.cleared().href()) { "To the timeline" } }
            },
        ),
        _ => (
            "That did not work",
            html! {
                p { (sentence(error.message())) }
                p { a.button href=(view.cleared().href()) { "To the timeline" } }
            },
        ),
    };
    (heading, notice(heading, &said))
}

/// What a reader gets while there is no room for the page.
pub(in crate::http) fn no_room() -> Response {
    let page = page(NO_ROOM, &View::default(), None, &told_no_room());
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, page);
    let soon = HeaderValue::from_static("5");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

const NO_ROOM: &str = "Too much at once";

pub(super) fn told_no_room() -> Markup {
    let said = html! {
        p { "Many large pages are on their way to their readers, and this one found no room beside them." }
        // The address that is shown.
        p { a.button href="" { "Try again" } }
    };
    notice(NO_ROOM, &said)
}

/// An error's message as people write sentences.
pub(super) fn sentence(message: &str) -> Markup {
    let mut characters = message.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string());
    let whole = first.unwrap_or_default() + characters.as_str() + ".";
    visible(&whole, 400)
}

const BRAND: &str = r##"<svg viewBox="0 0 24 24" aria-hidden="true"><path class="cover" d="M5 2.5h13a1.5 1.5 0 0 1 1.5 1.5v16a1.5 1.5 0 0 1-1.5 1.5H5z"/><path class="rule" d="M5 2.5v19M9 8h7M9 12h7M9 16h4"/></svg>"##;
const HALF: &str = r##"<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2z"/><path class="filled" d="M8 2.2a5.8 5.8 0 0 1 0 11.6z"/></svg>"##;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::StoreError;

    #[tokio::test]
    async fn a_page_that_does_not_come_says_why() {
        let late = StoreError::Timeout {
            what: "a query",
            after: Duration::from_secs(7),
        };
        // Of a kind whose telling no other test watches.
        let broken = StoreError::Other("a cursor broke".to_owned());
        for (error, seconds, said) in [
            (
                late.into(),
                "10",
                [
                    "That took too long",
                    "The store did not answer within 7s",
                    "range of time",
                ],
            ),
            (
                broken.into(),
                "5",
                [
                    "The store does not answer",
                    "events are safe",
                    "store is back",
                ],
            ),
            (
                ApiError::unavailable("too many queries are under way"),
                "5",
                ["Too much at once", "Too many queries", "Try again"],
            ),
        ] {
            let response = trouble(&error, &View::default(), None);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
            let page = axum::body::to_bytes(response.into_body(), usize::MAX).await;
            let page = String::from_utf8(page.unwrap().into()).unwrap();
            for said in said {
                assert!(page.contains(said), "{said}: {page}");
            }
        }
    }
}
