//! From a request to the right answer: routes, content negotiation, authorisation, in that order.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Answer, JSON};
use super::archive::Stored;
use super::directory::Directory;
use super::profile::{PageSizes, Permissions};
use super::query::{ListQuery, Page, Params, Refusal};
use super::state::{Shared, State};

const EVENTS_AUTOCOMPLETE: &str = include_str!("bodies/events_autocomplete.json");
const USERS_AUTOCOMPLETE: &str = include_str!("bodies/users_autocomplete.json");
const GROUPS_AUTOCOMPLETE: &str = include_str!("bodies/groups_autocomplete.json");
pub(super) const ACTIONS: &str = include_str!("bodies/actions.json");

const NOT_PERMITTED: &str = "You do not have permission to perform this action.";

/// A request as far as the answer depends on it.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) authorization: Option<&'a str>,
    pub(super) accept: &'a str,
}

enum Route<'a> {
    Events,
    Event(&'a str),
    Actions,
    Users,
    User(i64),
    Me,
    Groups,
    Group(&'a str),
    Version,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        // The trailing slash is part of every route; nothing redirects to it.
        let path = path.strip_suffix('/')?;
        Some(match path.split('/').collect::<Vec<_>>().as_slice() {
            ["events", "events"] => Self::Events,
            ["events", "events", "actions"] => Self::Actions,
            ["events", "events", pk] => Self::Event(pk),
            ["core", "users"] => Self::Users,
            ["core", "users", "me"] => Self::Me,
            ["core", "users", pk] => Self::User(pk.parse().ok()?),
            ["core", "groups"] => Self::Groups,
            ["core", "groups", pk] => Self::Group(pk),
            ["admin", "version"] => Self::Version,
            _ => return None,
        })
    }

    fn allow(&self) -> &'static str {
        match self {
            Self::Events | Self::Users | Self::Groups => "GET, POST, HEAD, OPTIONS",
            Self::Event(_) | Self::User(_) | Self::Group(_) => {
                "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"
            }
            Self::Actions | Self::Me | Self::Version => "GET, HEAD, OPTIONS",
        }
    }
}

/// The right answer, with at most `clamp` rows a page.
pub(super) fn answer(shared: &Shared, asked: &Asked<'_>, clamp: usize) -> Answer {
    let Some(path) = asked.path.strip_prefix(shared.path_prefix.as_str()) else {
        return Answer::page(404, "Not Found");
    };
    if matches!(path, "/-/health/live/" | "/-/health/ready/") {
        return Answer::new(200, "text/html; charset=utf-8", "");
    }
    if path.starts_with("/flows/") || path.starts_with("/if/") {
        return Answer::page(200, "Welcome to authentik!");
    }
    let Some(route) = path.strip_prefix("/api/v3/").and_then(Route::of) else {
        return Answer::page(404, "Not Found");
    };
    let allow = route.allow();
    let answer = negotiated(shared, asked, &route, clamp);
    // A page of the web interface has none.
    if answer.content_type == JSON {
        return answer.header("allow", allow);
    }
    answer
}

fn negotiated(shared: &Shared, asked: &Asked<'_>, route: &Route<'_>, clamp: usize) -> Answer {
    if !accepts_json(asked.accept) {
        return Answer::detail(406, "Could not satisfy the request Accept header.");
    }
    let mut state = shared.state();
    let permissions = match authorised(&state, asked.authorization) {
        Ok(permissions) => permissions,
        Err(detail) => return Answer::detail(403, detail),
    };
    let sizes = PageSizes {
        default: shared.page_sizes.default.min(clamp),
        max: shared.page_sizes.max.min(clamp),
    };
    let params = Params::parse(asked.query);
    match (asked.method, route) {
        ("GET" | "HEAD", Route::Events) => events(shared, &mut state, permissions, &params, sizes),
        ("GET" | "HEAD", Route::Event(pk)) => event(&mut state, permissions, pk),
        ("DELETE", Route::Event(pk)) => delete(&mut state, permissions, pk),
        ("GET" | "HEAD", Route::Actions) => Answer::new(200, JSON, ACTIONS),
        ("GET" | "HEAD", Route::Me) => me(&state.directory),
        ("GET" | "HEAD", Route::Version) => {
            let version = shared.profile.version();
            Answer::json(
                200,
                &json!({
                    "version_current": version,
                    "version_latest": version,
                    "version_latest_valid": true,
                    "build_hash": "",
                    "outdated": false,
                    "outpost_outdated": false,
                }),
            )
        }
        ("GET" | "HEAD", Route::Users | Route::User(_)) if !permissions.view_user => {
            Answer::detail(403, NOT_PERMITTED)
        }
        ("GET" | "HEAD", Route::Groups | Route::Group(_)) if !permissions.view_group => {
            Answer::detail(403, NOT_PERMITTED)
        }
        ("GET" | "HEAD", Route::Users) => listed(
            state.directory.users_page(&params, shared.profile, sizes),
            USERS_AUTOCOMPLETE,
            shared,
        ),
        ("GET" | "HEAD", Route::Groups) => listed(
            state.directory.groups_page(&params, shared.profile, sizes),
            GROUPS_AUTOCOMPLETE,
            shared,
        ),
        ("GET" | "HEAD", Route::User(pk)) => match state.directory.user(*pk) {
            Some(user) => Answer::json(200, &state.directory.user_json(user, shared.profile, true)),
            None => Answer::detail(404, "No User matches the given query."),
        },
        ("GET" | "HEAD", Route::Group(pk)) => {
            match state.directory.groups.iter().find(|group| group.pk == *pk) {
                Some(group) => Answer::json(
                    200,
                    &state.directory.group_json(group, shared.profile, true),
                ),
                None => Answer::detail(404, "No Group matches the given query."),
            }
        }
        (method, route) if route.allow().split(", ").any(|allowed| allowed == method) => {
            Answer::detail(403, NOT_PERMITTED)
        }
        (method, _) => Answer::detail(405, &format!("Method \"{method}\" not allowed.")),
    }
}

fn accepts_json(accept: &str) -> bool {
    accept.is_empty()
        || accept.split(',').any(|range| {
            matches!(
                range.split(';').next().unwrap_or_default().trim(),
                "*/*" | "application/*" | "application/json"
            )
        })
}

/// The scheme in any case, then exactly one space: with two, the second belongs to the key.
fn authorised(state: &State, header: Option<&str>) -> Result<Permissions, &'static str> {
    const NOT_PROVIDED: &str = "Authentication credentials were not provided.";
    let (scheme, key) = header
        .and_then(|header| header.split_once(' '))
        .ok_or(NOT_PROVIDED)?;
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(NOT_PROVIDED);
    }
    state
        .tokens
        .get(key)
        .copied()
        .ok_or("Token invalid/expired")
}

fn events(
    shared: &Shared,
    state: &mut State,
    permissions: Permissions,
    params: &Params,
    sizes: PageSizes,
) -> Answer {
    if !permissions.view_event && !permissions.silently_blind {
        return Answer::detail(403, NOT_PERMITTED);
    }
    let known = state.known_actions.clone();
    let query = match ListQuery::parse(params, shared.profile, &known) {
        Ok(query) => query,
        Err(refusal) => {
            if refusal == Refusal::ServerError {
                shared.record_exception(state);
            }
            return refused(refusal);
        }
    };
    let now = tokio::time::Instant::now();
    let lag = shared.replica_lag(state).map(|lag| (lag, now));
    let State { archive, rng, .. } = state;
    let visible: &[Arc<Stored>] = if permissions.view_event {
        archive.visible(now)
    } else {
        &[]
    };
    let page = match query.select(visible, lag, params, sizes, rng) {
        Ok(page) => page,
        Err(refusal) => return refused(refusal),
    };
    let size: usize = page.rows.iter().map(|event| event.json.len() + 1).sum();
    let mut body = Vec::with_capacity(size + EVENTS_AUTOCOMPLETE.len() + 256);
    write_list(
        &mut body,
        &page,
        |event, body| body.extend_from_slice(&event.json),
        shared
            .profile
            .has_autocomplete()
            .then_some(EVENTS_AUTOCOMPLETE),
    );
    Answer::new(200, JSON, body)
}

fn event(state: &mut State, permissions: Permissions, pk: &str) -> Answer {
    if !permissions.view_event && !permissions.silently_blind {
        return Answer::detail(403, NOT_PERMITTED);
    }
    if !is_uuid(pk) {
        return Answer::detail(404, "Not found.");
    }
    let found = state
        .archive
        .find(pk, tokio::time::Instant::now())
        .filter(|_| permissions.view_event);
    match found {
        Some(event) => Answer::new(200, JSON, event.json.to_vec()),
        None => Answer::detail(404, "No Event matches the given query."),
    }
}

fn delete(state: &mut State, permissions: Permissions, pk: &str) -> Answer {
    if !permissions.delete_event {
        return Answer::detail(403, NOT_PERMITTED);
    }
    if state.archive.remove(|event| *event.pk == *pk) == 0 {
        return Answer::detail(404, "No Event matches the given query.");
    }
    Answer::new(204, JSON, "")
}

fn me(directory: &Directory) -> Answer {
    directory
        .users
        .iter()
        .find(|user| user.pk == super::POLLER_PK)
        .map_or_else(
            || Answer::detail(403, "Token invalid/expired"),
            |user| Answer::json(200, &directory.me_json(user)),
        )
}

fn listed(page: Result<Page<Value>, Refusal>, autocomplete: &str, shared: &Shared) -> Answer {
    let page = match page {
        Ok(page) => page,
        Err(refusal) => return refused(refusal),
    };
    let mut body = Vec::new();
    write_list(
        &mut body,
        &page,
        |row, body| body.extend_from_slice(row.to_string().as_bytes()),
        shared.profile.has_autocomplete().then_some(autocomplete),
    );
    Answer::new(200, JSON, body)
}

fn write_list<T>(
    body: &mut Vec<u8>,
    page: &Page<T>,
    write: impl Fn(&T, &mut Vec<u8>),
    autocomplete: Option<&str>,
) {
    body.extend_from_slice(b"{\"pagination\":");
    body.extend_from_slice(page.head().as_bytes());
    body.extend_from_slice(b",\"results\":[");
    for (index, row) in page.rows.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(row, body);
    }
    body.push(b']');
    if let Some(autocomplete) = autocomplete {
        body.extend_from_slice(b",\"autocomplete\":");
        body.extend_from_slice(autocomplete.trim_end().as_bytes());
    }
    body.push(b'}');
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::InvalidPage => Answer::detail(404, "Invalid page."),
        Refusal::UnknownAction(action) => Answer::json(
            400,
            &json!({"actions": [format!(
                "Select a valid choice. {action} is not one of the available choices."
            )]}),
        ),
        Refusal::ServerError => Answer::page(500, "Server Error"),
    }
}

fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits == 32 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}
