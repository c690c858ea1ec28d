//! One page of Authentik's event list, without decoding its events.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::sources::text::json_trouble;

/// A page: where it stands, and its events as they came.
#[derive(Debug)]
pub struct Page {
    /// The number of the next page; 0 on the last one.
    pub next: u64,
    /// How many events the whole walk has.
    pub count: u64,
    /// The number of this page, from 1.
    pub current: u64,
    /// How many pages there are.
    pub total_pages: u64,
    /// The events, in the order of the answer.
    pub results: Vec<Box<RawValue>>,
}

impl Page {
    /// What stands for a page beyond the end.
    pub(super) fn beyond_the_end() -> Self {
        Self {
            next: 0,
            count: 0,
            current: 0,
            total_pages: 0,
            results: Vec::new(),
        }
    }
}

/// Why an answer is no page of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Nothing at all.
    #[error("the answer is empty")]
    Empty,
    /// A web page: a proxy, a log-in page, or an address without its trailing slash.
    #[error("the answer is HTML, not JSON: something other than the events API answered")]
    Html,
    /// Bytes that are no UTF-8.
    #[error("the answer is no UTF-8 at byte {0}")]
    InvalidUtf8(usize),
    /// No JSON.
    #[error("the answer is no JSON ({0})")]
    Malformed(String),
    /// JSON without what a page has.
    #[error("the answer is JSON, but no page of events: {0}")]
    Shape(&'static str),
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    pagination: Option<&'a RawValue>,
    #[serde(borrow, default)]
    results: Option<&'a RawValue>,
}

/// Reads a page.
///
/// # Errors
/// When the body is anything else; the text of the error holds nothing of the body.
pub fn decode_page(body: &[u8]) -> Result<Page, PageError> {
    let head = body
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii();
    if head.is_empty() {
        return Err(PageError::Empty);
    }
    if head[0] == b'<' {
        return Err(PageError::Html);
    }
    let text =
        std::str::from_utf8(head).map_err(|error| PageError::InvalidUtf8(error.valid_up_to()))?;
    let whole: &RawValue =
        serde_json::from_str(text).map_err(|error| PageError::Malformed(json_trouble(&error)))?;
    // A derived reader takes a list for an object with its fields in order.
    if !whole.get().starts_with('{') {
        return Err(PageError::Shape("it is not one object"));
    }
    let page: RawPage<'_> = serde_json::from_str(whole.get())
        .map_err(|_| PageError::Shape("`pagination` or `results` stands in it twice"))?;
    let pagination: Value = page
        .pagination
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .filter(Value::is_object)
        .ok_or(PageError::Shape("`pagination` is missing"))?;
    let results = page
        .results
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .ok_or(PageError::Shape("the list `results` is missing"))?;
    let number = |key: &str| {
        pagination
            .get(key)
            .and_then(Value::as_number)
            .and_then(whole_number)
    };
    let next = match pagination.get("next") {
        // Django's own paging writes null where there is no next page.
        Some(Value::Null) => 0,
        _ => number("next").ok_or(PageError::Shape("`pagination.next` is no number"))?,
    };
    let count = number("count").ok_or(PageError::Shape("`pagination.count` is no number"))?;
    Ok(Page {
        next,
        count,
        current: number("current").unwrap_or(0),
        total_pages: number("total_pages").unwrap_or(0),
        results,
    })
}

/// A number that may be written as a float: the API's own description promises no more.
pub(super) fn whole_number(number: &Number) -> Option<u64> {
    if let Some(whole) = number.as_u64() {
        return Some(whole);
    }
    let float = number.as_f64()?;
    let fits = float.fract() == 0.0 && (0.0..9e15).contains(&float);
    fits.then_some(float as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_floats_and_next_may_be_null() {
        let page = decode_page(
            br#"{"pagination":{"next":3.0,"count":54,"current":2e0,"total_pages":3},"results":[{"pk":"a"},7]}"#,
        )
        .unwrap();
        assert_eq!(
            (page.next, page.count, page.current, page.total_pages),
            (3, 54, 2, 3)
        );
        assert_eq!(page.results[0].get(), r#"{"pk":"a"}"#);
        let last = decode_page(br#"{"results":[],"pagination":{"next":null,"count":0}}"#).unwrap();
        assert_eq!(last.next, 0);
    }

    #[test]
    fn anything_else_is_told_apart() {
        for (body, wanted) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"<!DOCTYPE html>", "HTML"),
            (b"authentik starting", "no JSON"),
            (b"{\"pagination\":{\"next\":0", "cut off"),
            (
                b"{\"pagination\":{\"next\":0,\"count\":1},\"results\":[1]} x",
                "no JSON",
            ),
            (b"[]", "not one object"),
            (b"[{\"next\":0,\"count\":0},[]]", "not one object"),
            (b"{}", "`pagination`"),
            (b"{\"results\":[],\"results\":[]}", "twice"),
            (b"{\"detail\":\"hunter2\"}", "`pagination`"),
            (b"{\"pagination\":7,\"results\":[]}", "`pagination`"),
            (
                b"{\"pagination\":{\"count\":1},\"results\":[]}",
                "`pagination.next`",
            ),
            (
                b"{\"pagination\":{\"next\":-1,\"count\":1},\"results\":[]}",
                "`pagination.next`",
            ),
            (
                b"{\"pagination\":{\"next\":0.5,\"count\":1},\"results\":[]}",
                "`pagination.next`",
            ),
            (
                b"{\"pagination\":{\"next\":\"http://x\",\"count\":1},\"results\":[]}",
                "`pagination.next`",
            ),
            (
                b"{\"pagination\":{\"next\":0},\"results\":[]}",
                "`pagination.count`",
            ),
            (b"{\"pagination\":{\"next\":0,\"count\":1}}", "`results`"),
            (
                b"{\"pagination\":{\"next\":0,\"count\":1},\"results\":{}}",
                "`results`",
            ),
            (b"\"\xff\"", "UTF-8"),
        ] {
            let error = decode_page(body).unwrap_err().to_string();
            assert!(
                error.contains(wanted),
                "{}: {error}",
                String::from_utf8_lossy(body)
            );
            assert!(!error.contains("hunter2"));
        }
    }
}
