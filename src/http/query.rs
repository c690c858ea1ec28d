//! What a client may ask of the timeline, typed: nothing that it sends reaches a store as an operator.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use crate::event::{Outcome, parse_bound};
use crate::sources::recorder::decode::MAX_KIND;
use crate::store::{EventFilter, PageKey, Role};

use super::auth::tenant_scope;
use super::error::ApiError;

const DEFAULT_LIMIT: u32 = 100;
const MOST_EVENTS: u32 = 1000;
const DEFAULT_BUCKETS: u32 = 100;
const MOST_BUCKETS: u32 = 1000;
const LONGEST_VALUE: usize = 1024;
/// In bytes, of who did something and of what it was done to. Some versions of MongoDB take patterns of 16,384 bytes at
/// most: a name with every character escaped, and two more for each of its ends.
pub const LONGEST_NAME: usize = 8190;
/// In bytes, of what is compared as it stands: a recorder may name a tenant of so many.
const LONGEST_EXACT: usize = MAX_KIND;

/// A tenant's token sees its tenant, whatever it asks for.
///
/// # Errors
/// 403 when it asks for another one, and for a role that reads nothing.
pub fn confine(role: &Role, filter: &mut EventFilter) -> Result<(), ApiError> {
    let Some(scope) = tenant_scope(role)? else {
        return Ok(());
    };
    match &filter.tenant {
        Some(asked) if asked != scope => {
            Err(ApiError::forbidden("this token sees one tenant only"))
        }
        _ => {
            filter.tenant = Some(scope.to_owned());
            Ok(())
        }
    }
}

/// The parameters of a query, typed.
#[derive(Debug, PartialEq)]
pub struct EventQuery {
    /// Which events.
    pub filter: EventFilter,
    /// After which place.
    pub before: Option<PageKey>,
    /// How many.
    pub limit: u32,
}

impl EventQuery {
    /// Reads a query string.
    ///
    /// # Errors
    /// 400 with the parameter's name: unknown, given twice, or not of its type.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let (mut before, mut limit) = (None, DEFAULT_LIMIT);
        let filter = parse_filter(query, |name, value| {
            match name {
                "limit" => {
                    limit = value.map_or(Ok(DEFAULT_LIMIT), |text| parse_limit(&text))?;
                }
                "before" => before = value.map(|text| decode_page_key(&text)).transpose()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            filter,
            before,
            limit,
        })
    }
}

/// The parameters of a histogram, typed.
#[derive(Debug, PartialEq)]
pub struct HistogramQuery {
    /// Which events.
    pub filter: EventFilter,
    /// How many bars at most.
    pub buckets: u32,
}

impl HistogramQuery {
    /// Reads a query string.
    ///
    /// # Errors
    /// As [`EventQuery::parse`].
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let mut buckets = DEFAULT_BUCKETS;
        let filter = parse_filter(query, |name, value| {
            match name {
                "buckets" => {
                    buckets = value.map_or(Ok(DEFAULT_BUCKETS), |text| parse_buckets(&text))?;
                }
                // It may be the query of a list; however few that shows, all are counted.
                "limit" => {
                    if let Some(text) = value {
                        parse_limit(&text)?;
                    }
                }
                "before" => return Ok(value.is_none()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self { filter, buckets })
    }
}

/// Reads a filter out of a query string. Other parameters are offered to `own`, which says whether
/// it knows them; an empty value is `None`.
///
/// # Errors
/// 400 with the parameter's name: unknown, given twice, or not of its type.
pub fn parse_filter(
    query: &str,
    mut own: impl FnMut(&str, Option<String>) -> Result<bool, ApiError>,
) -> Result<EventFilter, ApiError> {
    let mut filter = EventFilter::default();
    let mut seen = Vec::new();
    for (name, value) in form_pairs(query)? {
        check_length(&name, &value)
            .map_err(|longest| wrong(&name, &format!("is longer than {longest} bytes")))?;
        if seen.contains(&name) {
            return Err(wrong(&name, "is given twice"));
        }
        // A form sends its empty fields too: they ask for nothing.
        let text = (!value.is_empty()).then_some(value);
        match name.as_str() {
            "source" => filter.source = text,
            "tenant" => filter.tenant = text,
            "action" => filter.action = text,
            "actor" => filter.actor = text,
            "ip" => filter.ip = text,
            "target" => filter.target = text,
            "text" => filter.text = text,
            "outcome" => filter.outcome = text.map(|text| parse_outcome(&text)).transpose()?,
            "since" => filter.since = text.map(|text| parse_time("since", &text)).transpose()?,
            "until" => filter.until = text.map(|text| parse_time("until", &text)).transpose()?,
            other if own(other, text)? => {}
            other => return Err(wrong(other, "is not a parameter of this query")),
        }
        seen.push(name);
    }
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since > until
    {
        return Err(wrong("until", "is before since"));
    }
    Ok(filter)
}

/// Whether a value is short enough to be asked for.
///
/// # Errors
/// With the most bytes that it may have.
pub fn check_length(name: &str, value: &str) -> Result<(), usize> {
    let (length, longest) = match name {
        // A NUL is escaped with twice as much as anything else.
        "actor" | "target" => (value.len() + value.matches('\0').count(), LONGEST_NAME),
        "tenant" | "ip" => (value.len(), LONGEST_EXACT),
        // It holds an id, and those of others are of any length: the request's head is bounded.
        "before" => return Ok(()),
        _ => (value.len(), LONGEST_VALUE),
    };
    (length <= longest).then_some(()).ok_or(longest)
}

/// 400 that names the parameter.
pub fn wrong(name: &str, what: &str) -> ApiError {
    let name: String = name.chars().take(64).collect();
    ApiError::bad_request(format!("parameter {name:?} {what}"))
}

fn parse_outcome(text: &str) -> Result<Outcome, ApiError> {
    [Outcome::Success, Outcome::Failure, Outcome::Unknown]
        .into_iter()
        .find(|outcome| outcome.as_str() == text)
        .ok_or_else(|| wrong("outcome", "must be success, failure or unknown"))
}

fn parse_time(name: &str, text: &str) -> Result<Timestamp, ApiError> {
    parse_bound(text).ok_or_else(|| {
        wrong(
            name,
            "must be a time like 2026-11-24T04:05:39Z (an unescaped + is a space)",
        )
    })
}

pub(super) fn parse_limit(text: &str) -> Result<u32, ApiError> {
    text.parse()
        .ok()
        .filter(|limit| (1..=MOST_EVENTS).contains(limit))
        .ok_or_else(|| wrong("limit", "must be a number from 1 to 1000"))
}

fn parse_buckets(text: &str) -> Result<u32, ApiError> {
    text.parse()
        .ok()
        .filter(|buckets| (1..=MOST_BUCKETS).contains(buckets))
        .ok_or_else(|| wrong("buckets", "must be a number from 1 to 1000"))
}

/// The `next` of a page that ends at this event.
pub fn encode_page_key(key: &PageKey) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{}", key.at.as_millisecond(), key.id))
}

fn decode_page_key(text: &str) -> Result<PageKey, ApiError> {
    let decode = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (millis, id) = text.split_once(':')?;
        let at = Timestamp::from_millisecond(millis.parse().ok()?).ok()?;
        // Whoever else writes into the collection has ids of any text; they are only ever compared.
        let id = id.to_owned();
        Some(PageKey { at, id })
    };
    decode().ok_or_else(|| wrong("before", "must be the `next` of an earlier answer"))
}

/// `a=1&b=2`, percent-decoded.
///
/// # Errors
/// 400 when it is not percent-encoded UTF-8.
pub fn form_pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let of_query = |what| ApiError::bad_request(format!("the query {what}"));
            let name = percent_decode(name).map_err(of_query)?;
            let value = percent_decode(value).map_err(|what| wrong(&name, what))?;
            Ok((name, value))
        })
        .collect()
}

/// What is wrong with it, else.
fn percent_decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                    return Err("holds a % without two hexadecimal digits");
                };
                bytes.push((high * 16 + low) as u8);
            }
            plain => bytes.push(plain),
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_page_key_survives_the_way_to_the_client_and_back() {
        for id in [
            "65f0c0ffee",
            "9b2f-4c:ü.7_x@y/z",
            "order 17 | (Nº 4)!",
            "it's *",
            "{\"$gt\":\"\"}",
            "",
            "a\nb",
            &"L".repeat(800),
        ] {
            let key = PageKey {
                at: "2026-11-24T04:05:39.123Z".parse().unwrap(),
                id: id.to_owned(),
            };
            let next = format!("before={}", encode_page_key(&key));
            let query = EventQuery::parse(&next).expect(id);
            assert_eq!(query.before, Some(key));
        }
    }

    #[test]
    fn parameters_are_typed() {
        let query = EventQuery::parse(
            "source=stalwart&action=stalwart.*&since=2026-11-24&limit=5&text=a%20b%2Bc",
        )
        .unwrap();
        assert_eq!(query.limit, 5);
        assert_eq!(query.filter.text.as_deref(), Some("a b+c"));
        assert_eq!(
            query.filter.since,
            Some("2026-11-24T00:00:00Z".parse().unwrap())
        );
        for (bad, named) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("since=yesterday", "since"),
            ("until=2026-13-01T00:00:00Z", "until"),
            ("since=2026-11-25&until=2026-11-24", "until"),
            ("until=9999-12-31T25:00:00Z", "until"),
            ("until=9999-12-32", "until"),
            ("until=10000-01-01T00:00:00Z", "until"),
            ("outcome=maybe", "outcome"),
            ("before=!!", "before"),
            ("before=YWJj", "before"),
            ("source=a&source=b", "source"),
            ("$where=1", "$where"),
            ("actor[$ne]=x", "actor[$ne]"),
            ("text=%zz", "\"text\\\" holds a %"),
            ("text=%ff", "\"text\\\" is not UTF-8"),
            ("%ff=1", "the query is not UTF-8"),
        ] {
            let error = format!("{:?}", EventQuery::parse(bad).expect_err(bad));
            assert!(error.contains(named), "{bad}: {error}");
        }
    }

    #[test]
    fn names_may_be_longer_than_other_values() {
        for (name, longest) in [
            ("actor", 8190),
            ("target", 8190),
            ("tenant", 8192),
            ("ip", 8192),
            ("text", 1024),
        ] {
            assert_eq!(check_length(name, &"x".repeat(longest)), Ok(()), "{name}");
            let error = check_length(name, &"x".repeat(longest + 1));
            assert_eq!(error, Err(longest), "{name}");
        }
        assert_eq!(check_length("actor", &"\0".repeat(4095)), Ok(()));
        assert_eq!(check_length("actor", &"\0".repeat(4096)), Err(8190));
        assert_eq!(check_length("text", &"\0".repeat(1024)), Ok(()));
    }

    #[test]
    fn a_bound_is_exact_however_many_digits_it_has() {
        for (given, kept) in [
            ("39.1230000000000Z", "39.123Z"),
            // What happened in that very millisecond was before it.
            ("39.1230000000001Z", "39.123000001Z"),
            ("39.1234567891-00:30", "39.123456789-00:30"),
        ] {
            let [given, kept] = [given, kept].map(|rest| format!("2026-11-24T04:05:{rest}"));
            let kept: Timestamp = kept.parse().unwrap();
            let query = EventQuery::parse(&format!("since={given}&until={given}")).unwrap();
            let bounds = (query.filter.since, query.filter.until);
            assert_eq!(bounds, (Some(kept), Some(kept)), "{given}");
        }
    }

    #[test]
    fn for_ever_is_a_time() {
        for end in [
            "9999-12-31",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.9999999999Z",
            "9999-12-30T23:00:00-05:00",
        ] {
            let query = EventQuery::parse(&format!("until={end}")).unwrap();
            assert_eq!(query.filter.until, Some(Timestamp::MAX), "{end}");
        }
    }

    #[test]
    fn a_histogram_takes_a_filter_and_a_number_of_bars() {
        let query = HistogramQuery::parse("source=a&buckets=7&limit=5").unwrap();
        assert_eq!(query.filter.source.as_deref(), Some("a"));
        assert_eq!(query.buckets, 7);
        let default = HistogramQuery::parse("buckets=&limit=&before=").unwrap();
        assert_eq!(default.buckets, DEFAULT_BUCKETS);
        for bad in [
            "buckets=0",
            "buckets=1001",
            "limit=0",
            "limit=1001",
            "before=x",
            "before=MTph",
            "bar=1",
        ] {
            let error = format!("{:?}", HistogramQuery::parse(bad).expect_err(bad));
            let name = bad.split('=').next().unwrap();
            assert!(error.contains(name), "{bad}: {error}");
        }
    }
}
