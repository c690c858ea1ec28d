//! Scripted faults: which one, after how many requests, how often, on which path.

use std::time::Duration;

/// One way in which an answer goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 401 HTML of a proxy; Authentik itself never says it.
    Unauthorized,
    /// 403 JSON with this `detail`.
    Forbidden(&'static str),
    /// 404 JSON `Invalid page.`: the set shrank during a walk.
    InvalidPage,
    /// 404 HTML: wrong address.
    NotFoundHtml,
    /// 429 with `Retry-After` in seconds, as JSON or as a proxy's HTML.
    TooManyRequests {
        /// Seconds.
        retry_after: u32,
        /// A proxy's page in place of JSON.
        html: bool,
    },
    /// 500 HTML, as with its database down.
    ServerError,
    /// 502 of the router: the server behind it is not there.
    BadGateway,
    /// 502 or 503 (with `Retry-After: 5`), by version and `Accept`: still starting.
    Starting,
    /// 504 HTML of a proxy.
    GatewayTimeout,
    /// The right head, half of the body, then a connection reset.
    ResetMidBody,
    /// 200 whose JSON ends in the middle.
    TruncatedJson,
    /// The right answer, a few bytes at a time.
    SlowDrip {
        /// Bytes at a time.
        chunk: usize,
        /// Between two chunks.
        pause: Duration,
    },
    /// A connection reset in place of an answer, as by a server that went down.
    ResetBeforeHeaders,
    /// No answer at all: the connection stays open.
    HangBeforeHeaders,
    /// 200 with an HTML page: a captive proxy, a login page.
    OkHtml,
    /// 200 with a compressed body, which a proxy made without being asked.
    Gzip,
    /// 200 with JSON that is no list.
    OkWithoutPagination,
    /// 302 to the login page of the same host.
    RedirectToLogin,
    /// 302 to any other address.
    RedirectTo(String),
    /// The right answer, but never more than this many rows a page.
    PageSizeClamp(usize),
    /// The right answer, blown up to 65 MiB where it holds more than this many events with `large`
    /// in their context.
    Overlong(usize),
    /// The right answer, but later.
    Delay(Duration),
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// For the next so many requests.
    Next(u64),
    /// Until it is cleared.
    Forever,
}

/// A fault and when it strikes.
#[derive(Clone, Debug)]
pub struct Scripted {
    fault: Fault,
    skip: u64,
    left: Option<u64>,
    path_part: Option<String>,
}

impl Scripted {
    /// Strikes the next request, once.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            skip: 0,
            left: Some(1),
            path_part: None,
        }
    }

    /// How often it strikes.
    #[must_use]
    pub fn times(mut self, times: Times) -> Self {
        self.left = match times {
            Times::Next(count) => Some(count),
            Times::Forever => None,
        };
        self
    }

    /// Lets so many requests through first; those that an earlier fault strikes do not count.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Only for requests with this in their path; others are not counted either.
    #[must_use]
    pub fn on(mut self, path_part: &str) -> Self {
        self.path_part = Some(path_part.to_owned());
        self
    }
}

/// The script: the first fault that fits a request strikes it.
#[derive(Debug, Default)]
pub(super) struct Script {
    faults: Vec<Scripted>,
    pub(super) hits: u64,
}

impl Script {
    pub(super) fn add(&mut self, fault: Scripted) {
        self.faults.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(super) fn strike(&mut self, path: &str) -> Option<Fault> {
        let index = self.faults.iter_mut().position(|scripted| {
            let fits = scripted
                .path_part
                .as_deref()
                .is_none_or(|part| path.contains(part));
            if fits && scripted.skip > 0 {
                scripted.skip -= 1;
                return false;
            }
            fits && scripted.left != Some(0)
        })?;
        self.hits += 1;
        let scripted = &mut self.faults[index];
        let fault = scripted.fault.clone();
        scripted.left = scripted.left.map(|left| left - 1);
        if scripted.left == Some(0) {
            self.faults.remove(index);
        }
        Some(fault)
    }
}
