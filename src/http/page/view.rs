//! What the page shows, as its address says it: a view can be sent to somebody else.
//!
//! The parameters are those of `GET /api/v1/events`; beside them the page knows `range` (the last
//! hour, say, counted from when the page is asked for) and `tz` (`local`: times are shown in the
//! reader's zone, which only the browser knows).

use axum::http::Uri;
use jiff::Timestamp;

use crate::http::error::ApiError;
use crate::http::query::{EventQuery, form_pairs, wrong};

const HOME: &str = "/audit";
/// Every parameter, in the order in which links carry them.
const NAMES: [&str; 14] = [
    "text", "source", "tenant", "outcome", "action", "actor", "ip", "target", "range", "since",
    "until", "tz", "limit", "before",
];
/// Those that belong to the page alone.
const OWN: [&str; 2] = ["range", "tz"];
/// Parameters that no field of the form can hold, as a query string.
pub(super) const KEPT: &str = "kept";
/// Those that choose events, with what people call them.
pub(super) const CONDITIONS: [(&str, &str); 10] = [
    ("text", "Text"),
    ("source", "Source"),
    ("tenant", "Tenant"),
    ("outcome", "Outcome"),
    ("action", "Action"),
    ("actor", "Actor"),
    ("ip", "Address"),
    ("target", "Target"),
    ("since", "From"),
    ("until", "Until"),
];
/// Ranges with their names and seconds.
pub(super) const RANGES: [(&str, &str, i64); 5] = [
    ("15m", "15 min", 900),
    ("1h", "1 hour", 3_600),
    ("24h", "24 hours", 86_400),
    ("7d", "7 days", 604_800),
    ("30d", "30 days", 2_592_000),
];

/// The parameters that are given, as they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    values: [Option<String>; NAMES.len()],
    /// Where it is shown, percent-encoded; the timeline when it is not known.
    path: Option<String>,
}

impl View {
    /// Reads a query string, and what it asks for. A view comes back even when it asks for
    /// something wrong, so that the form can show it again.
    pub fn parse(query: &str, now: Timestamp) -> (Self, Result<EventQuery, ApiError>) {
        let mut view = Self::default();
        let read = view.read(query).and_then(|()| view.query(now));
        // A range that goes after times is not asked for.
        if view.range().is_none() {
            view.set("range", None);
        }
        (view, read)
    }

    /// Reads a whole address of the page.
    pub fn of(address: &Uri, now: Timestamp) -> (Self, Result<EventQuery, ApiError>) {
        let (view, query) = Self::parse(address.query().unwrap_or_default(), now);
        (view.at(address.path()), query)
    }

    /// The same view on another page.
    pub fn at(self, path: &str) -> Self {
        Self {
            path: Some(path.to_owned()),
            ..self
        }
    }

    fn read(&mut self, query: &str) -> Result<(), ApiError> {
        let mut pairs = Vec::new();
        for (name, value) in form_pairs(query)? {
            if name == KEPT {
                pairs.extend(form_pairs(&value)?);
            } else {
                pairs.push((name, value));
            }
        }
        let mut trouble = None;
        for (name, value) in pairs {
            let Some(index) = NAMES.iter().position(|known| *known == name) else {
                trouble = Some(wrong(&name, "is not a parameter of this page"));
                continue;
            };
            if value.is_empty() {
                continue;
            }
            if self.values[index].is_some() {
                trouble = Some(wrong(&name, "is given twice"));
            }
            self.values[index] = Some(value);
        }
        trouble.map_or(Ok(()), Err)
    }

    /// What it asks the store for.
    fn query(&self, now: Timestamp) -> Result<EventQuery, ApiError> {
        let mut asked = self.clone();
        for name in ["since", "until"] {
            asked.set(name, self.get(name).map(with_zone).as_deref());
        }
        for name in OWN {
            asked.set(name, None);
        }
        let mut query = EventQuery::parse(&asked.query_string())?;
        if let Some(seconds) = self.range_seconds()? {
            // To the second, as bars tell their times.
            query.filter.since = Timestamp::from_second(now.as_second() - seconds).ok();
        }
        if !matches!(self.get("tz"), None | Some("utc" | "local")) {
            return Err(wrong("tz", "must be utc or local"));
        }
        Ok(query)
    }

    fn range_seconds(&self) -> Result<Option<i64>, ApiError> {
        let Some(range) = self.range() else {
            return Ok(None);
        };
        let known = RANGES.iter().find(|(name, ..)| *name == range);
        known
            .map(|(.., seconds)| Some(*seconds))
            .ok_or_else(|| wrong("range", "must be 15m, 1h, 24h, 7d or 30d"))
    }

    /// The range; times that are given outright go before it.
    pub fn range(&self) -> Option<&str> {
        let has_times = self.get("since").or(self.get("until")).is_some();
        self.get("range").filter(|_| !has_times)
    }

    /// Whether times are to be shown in the reader's zone.
    pub fn is_local(&self) -> bool {
        self.get("tz") == Some("local")
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let index = NAMES.iter().position(|known| *known == name)?;
        self.values[index].as_deref()
    }

    /// The same view with a parameter changed or left out; at its newest page.
    pub fn with(&self, changes: &[(&str, Option<&str>)]) -> Self {
        let mut view = self.clone();
        view.set("before", None);
        for (name, value) in changes {
            view.set(name, *value);
        }
        view
    }

    fn set(&mut self, name: &str, value: Option<&str>) {
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            self.values[index] = value.map(str::to_owned);
        }
    }

    /// A view that keeps nothing of this one but how times are shown.
    pub fn cleared(&self) -> Self {
        Self::default().with(&[("tz", self.is_local().then_some("local"))])
    }

    /// The address of the timeline with this view.
    pub fn href(&self) -> String {
        under(HOME, &self.query_string())
    }

    /// The address of the page that is shown.
    pub fn here(&self) -> String {
        let path = self.path.as_deref().unwrap_or(HOME);
        under(path, &self.query_string())
    }

    /// The same page with its times in the reader's zone, or in UTC.
    pub fn here_in(&self, zone: Option<&str>) -> String {
        let mut view = self.clone();
        view.set("tz", zone);
        view.here()
    }

    /// The address of one event; its way back leads to this view.
    pub fn event_href(&self, id: &str) -> String {
        under(
            &format!("/audit/events/{}", encode(id)),
            &self.query_string(),
        )
    }

    /// The address of a part of the API that takes the same filters. A range becomes the time at
    /// which it begins.
    pub fn api_href(&self, path: &str, query: &EventQuery, more: &[(&str, &str)]) -> String {
        let mut asked = self.with(&[("limit", None), ("range", None), ("tz", None)]);
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        asked.set("since", time(query.filter.since).as_deref());
        asked.set("until", time(query.filter.until).as_deref());
        let mut pairs: Vec<String> = more.iter().map(|(name, value)| pair(name, value)).collect();
        let rest = asked.query_string();
        if !rest.is_empty() {
            pairs.push(rest);
        }
        under(path, &pairs.join("&"))
    }

    /// `a=1&b=2`.
    pub fn query_string(&self) -> String {
        let given = NAMES.iter().zip(&self.values);
        let pairs: Vec<String> = given
            .filter_map(|(name, value)| Some(pair(name, value.as_deref()?)))
            .collect();
        pairs.join("&")
    }
}

fn under(path: &str, query: &str) -> String {
    match query {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// `a=1`.
pub(super) fn pair(name: &str, value: &str) -> String {
    format!("{name}={}", encode(value))
}

/// Percent-encodes all but what no place of an address gives a meaning to.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Whether a form's field for a time can hold it: to the millisecond, and without a zone.
pub(super) fn is_bare(time: &str) -> bool {
    matches!(time.len(), 16 | 19 | 21..=23)
        && time.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            19 => byte == b'.',
            _ => byte.is_ascii_digit(),
        })
}

/// A form's field for a time names no zone: the form says UTC.
fn with_zone(time: &str) -> String {
    match (is_bare(time), time.len()) {
        (true, 16) => format!("{time}:00Z"),
        (true, _) => format!("{time}Z"),
        (false, _) => time.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_view_survives_its_own_address() {
        let query = "text=a%20b%2B%00&actor=alice%40example.org&outcome=failure&range=1h&tz=local";
        let (view, parsed) = View::parse(query, now());
        let parsed = parsed.unwrap();
        assert_eq!(parsed.filter.text.as_deref(), Some("a b+\0"));
        assert_eq!(
            parsed.filter.since,
            Some("2026-11-24T11:00:00Z".parse().unwrap())
        );
        let href = view.href();
        let (_, query) = href.split_once('?').unwrap();
        assert_eq!(View::parse(query, now()).0, view);
    }

    #[test]
    fn a_range_begins_with_a_second() {
        let (_, parsed) = View::parse("range=1h", "2026-11-24T12:00:31.987Z".parse().unwrap());
        let since = "2026-11-24T11:00:31Z".parse().unwrap();
        assert_eq!(parsed.unwrap().filter.since, Some(since));
    }

    #[test]
    fn what_no_field_holds_is_read_like_the_rest() {
        let form = "kept=actor%3Da%250Ab%2500&kept=text%3D%250D&outcome=failure";
        let (view, parsed) = View::parse(form, now());
        assert!(parsed.is_ok());
        let tidy = "/audit?text=%0D&outcome=failure&actor=a%0Ab%00";
        assert_eq!(view.href(), tidy);
    }

    #[test]
    fn the_times_of_a_form_are_utc_and_go_before_a_range() {
        let (view, parsed) = View::parse("since=2026-11-24T04:05&range=1h", now());
        assert_eq!(view.get("range"), None);
        assert_eq!(
            parsed.unwrap().filter.since,
            Some("2026-11-24T04:05:00Z".parse().unwrap())
        );
        for whole in [
            "2026-11-24",
            "2026-11-24T04:05:06Z",
            "2026-11-24T04:05:06+02:00",
            "2026-11-24T04:05:06.",
            "2026-11-24T04:05:06.1234",
        ] {
            assert_eq!(with_zone(whole), whole);
        }
        assert_eq!(
            with_zone("2026-11-24T04:05:06.789"),
            "2026-11-24T04:05:06.789Z"
        );
        assert_eq!(with_zone("ünd mehr Text als so"), "ünd mehr Text als so");
    }

    #[test]
    fn a_view_knows_the_page_that_shows_it() {
        let address = Uri::from_static("/audit/events/1f?source=x&tz=local&before=MTox");
        let (view, _) = View::of(&address, now());
        assert_eq!(view.here(), address.to_string());
        assert_eq!(view.here_in(None), "/audit/events/1f?source=x&before=MTox");
        assert_eq!(view.cleared().here(), "/audit?tz=local");
    }

    #[test]
    fn what_is_wrong_is_named_and_kept_for_the_form() {
        for (query, named) in [
            ("since=yesterday&text=x", "since"),
            ("range=2h&text=x", "range"),
            ("tz=mars&text=x", "tz"),
            ("text=x&colour=red", "colour"),
            ("text=x&source=a&source=b", "source"),
            ("text=x&source=a&kept=source%3Db", "source"),
            ("text=x&kept=kept%3Dsource", "kept"),
            ("limit=0&text=x", "limit"),
        ] {
            let (view, parsed) = View::parse(query, now());
            assert_eq!(view.get("text"), Some("x"), "{query}");
            let error = format!("{:?}", parsed.expect_err(query));
            assert!(error.contains(named), "{query}: {error}");
        }
    }

    #[test]
    fn the_api_is_asked_for_the_same_events() {
        let (view, query) = View::parse("range=1h&tz=local&limit=5&text=x&before=", now());
        let href = view.api_href("/api/v1/export", &query.unwrap(), &[("format", "csv")]);
        assert_eq!(
            href,
            "/api/v1/export?format=csv&text=x&since=2026-11-24T11:00:00Z"
        );
    }
}
