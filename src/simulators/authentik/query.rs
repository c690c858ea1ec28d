//! What a client asks of the events list: filters, order and page, with the server's own ideas
//! of what to ignore, what to clamp and what to refuse.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::Value;
use tokio::time::Instant;

use super::archive::Stored;
use super::profile::{PageSizes, Profile};

/// Decoded pairs of a query string, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(query: &str) -> Self {
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// The last value of a key, as Django takes it.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// The value, where it is not empty: an empty filter filters nothing.
    pub(super) fn filled(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(name, value)| name == key && !value.is_empty())
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'+' => out.push(b' '),
            b'%' => {
                let code = text
                    .get(index + 1..index + 3)
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                match code {
                    Some(byte) => {
                        out.push(byte);
                        index += 2;
                    }
                    None => out.push(b'%'),
                }
            }
            byte => out.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Why a list is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 404 `Invalid page.`
    InvalidPage,
    /// 400: not a known action.
    UnknownAction(String),
    /// 500: the database does not understand the value.
    ServerError,
}

/// The pagination block and which events stand on the page.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    pub(super) count: usize,
    pub(super) current: usize,
    pub(super) total_pages: usize,
    pub(super) start_index: usize,
    pub(super) end_index: usize,
}

impl<T> Page<T> {
    pub(super) fn head(&self) -> String {
        let next = if self.current < self.total_pages {
            self.current + 1
        } else {
            0
        };
        format!(
            "{{\"next\":{next},\"previous\":{},\"count\":{},\"current\":{},\"total_pages\":{},\"start_index\":{},\"end_index\":{}}}",
            self.current - 1,
            self.count,
            self.current,
            self.total_pages,
            self.start_index,
            self.end_index
        )
    }
}

/// Where a page begins and ends among `count` rows.
pub(super) fn page_of(
    params: &Params,
    sizes: PageSizes,
    count: usize,
) -> Result<Page<usize>, Refusal> {
    let size = params
        .get("page_size")
        .and_then(|text| text.trim().parse::<usize>().ok())
        .filter(|size| *size > 0)
        .unwrap_or(sizes.default)
        .min(sizes.max);
    let total_pages = count.div_ceil(size).max(1);
    let current = match params.get("page") {
        None => 1,
        Some("last") => total_pages,
        Some(text) => text.parse::<usize>().map_err(|_| Refusal::InvalidPage)?,
    };
    if current == 0 || current > total_pages {
        return Err(Refusal::InvalidPage);
    }
    let start = (current - 1) * size;
    let end = (start + size).min(count);
    Ok(Page {
        rows: (start..end).collect(),
        count,
        current,
        total_pages,
        start_index: if count == 0 { 0 } else { start + 1 },
        end_index: end,
    })
}

/// A list request, understood.
#[derive(Debug)]
pub(super) struct ListQuery {
    filters: Vec<Filter>,
    order: Vec<Term>,
}

#[derive(Debug)]
enum Filter {
    ActionContains(String),
    ActionIn(Vec<String>),
    Username(String),
    ClientIp(String),
    /// A path inside `context` and the exact text wanted there.
    Context(&'static [&'static str], String),
    BrandName(String),
    Text(String),
    /// `created` compared with microseconds: only by the query language.
    Created(Ordering, bool, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    field: Field,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Pk,
    Created,
    Expires,
    Action,
    /// Any other column, by the name of its key.
    Other(&'static str),
}

const CONTEXT_FILTERS: [(&str, &[&str]); 5] = [
    ("context_model_pk", &["model", "pk"]),
    ("context_model_name", &["model", "model_name"]),
    ("context_model_app", &["model", "app"]),
    ("context_authorized_app", &["authorized_application", "pk"]),
    ("context_device", &["device", "pk"]),
];

impl ListQuery {
    pub(super) fn parse(
        params: &Params,
        profile: Profile,
        known_actions: &[String],
    ) -> Result<Self, Refusal> {
        let mut filters = Vec::new();
        if let Some(text) = params.filled("action") {
            filters.push(Filter::ActionContains(text.to_lowercase()));
        }
        let actions = params.all("actions");
        if profile.has_actions_filter() && !actions.is_empty() {
            for action in &actions {
                if !known_actions.iter().any(|known| known == action) {
                    return Err(Refusal::UnknownAction((*action).to_owned()));
                }
            }
            filters.push(Filter::ActionIn(
                actions.iter().map(|a| (*a).to_owned()).collect(),
            ));
        }
        if let Some(name) = params.filled("username") {
            filters.push(Filter::Username(name.to_owned()));
        }
        if let Some(ip) = params.filled("client_ip") {
            if ip.parse::<std::net::IpAddr>().is_err() {
                return Err(Refusal::ServerError);
            }
            filters.push(Filter::ClientIp(ip.to_owned()));
        }
        for (name, path) in CONTEXT_FILTERS {
            if name == "context_device" && profile != Profile::V2026_5 {
                continue;
            }
            if let Some(value) = params.filled(name) {
                filters.push(Filter::Context(path, value.replace('-', "")));
            }
        }
        if let Some(name) = params.filled(&format!("{}_name", profile.tenant_key())) {
            filters.push(Filter::BrandName(name.to_owned()));
        }
        if let Some(text) = params.filled("search") {
            filters.push(search(text, profile)?);
        }
        Ok(Self {
            filters,
            order: order(params.get("ordering").unwrap_or_default()),
        })
    }

    /// Picks the page out of everything visible (ascending by `created`, `pk`).
    ///
    /// Rows that the asked order does not tell apart come in a new random order each time: the
    /// database promises nothing about them.
    pub(super) fn select(
        &self,
        visible: &[Arc<Stored>],
        lag: Option<(Duration, Instant)>,
        params: &Params,
        sizes: PageSizes,
        rng: &mut impl Rng,
    ) -> Result<Page<Arc<Stored>>, Refusal> {
        if self.filters.is_empty() && lag.is_none() && self.follows_storage() {
            return self.select_from_storage(visible, params, sizes, rng);
        }
        let mut rows: Vec<(Vec<Key>, Arc<Stored>)> = visible
            .iter()
            .filter(|event| lag.is_none_or(|(lag, now)| event.visible_at + lag <= now))
            .filter(|event| self.matches(event))
            .map(|event| (self.keys(event), Arc::clone(event)))
            .collect();
        rows.shuffle(rng);
        rows.sort_by(|(a, _), (b, _)| self.compare(a, b));
        let page = page_of(params, sizes, rows.len())?;
        Ok(fill(page, |index| Arc::clone(&rows[index].1)))
    }

    fn follows_storage(&self) -> bool {
        match self.order.as_slice() {
            [first] => first.field == Field::Created,
            [first, second, ..] => {
                first.field == Field::Created
                    && second.field == Field::Pk
                    && first.descending == second.descending
            }
            [] => false,
        }
    }

    fn select_from_storage(
        &self,
        visible: &[Arc<Stored>],
        params: &Params,
        sizes: PageSizes,
        rng: &mut impl Rng,
    ) -> Result<Page<Arc<Stored>>, Refusal> {
        let count = visible.len();
        let page = page_of(params, sizes, count)?;
        let descending = self.order[0].descending;
        let at = |rank: usize| {
            if descending {
                &visible[count - 1 - rank]
            } else {
                &visible[rank]
            }
        };
        let (Some(&first), Some(&last)) = (page.rows.first(), page.rows.last()) else {
            return Ok(fill(page, |rank| Arc::clone(at(rank))));
        };
        if self.order.len() > 1 {
            return Ok(fill(page, |rank| Arc::clone(at(rank))));
        }
        // The whole of every group of equal times that reaches into the page takes part.
        let mut from = first;
        while from > 0 && at(from - 1).created == at(first).created {
            from -= 1;
        }
        let mut to = last + 1;
        while to < count && at(to).created == at(last).created {
            to += 1;
        }
        let mut ranks: Vec<usize> = (from..to).collect();
        for group in ranks.chunk_by_mut(|a, b| at(*a).created == at(*b).created) {
            group.shuffle(rng);
        }
        Ok(fill(page, |rank| Arc::clone(at(ranks[rank - from]))))
    }

    fn matches(&self, event: &Stored) -> bool {
        if self.filters.is_empty() {
            return true;
        }
        // Parsed at most once, and only when a filter looks further than the head.
        let mut parsed: Option<Value> = None;
        self.filters.iter().all(|filter| match filter {
            Filter::ActionContains(part) => event.action.to_lowercase().contains(part),
            Filter::ActionIn(list) => list.iter().any(|action| **action == *event.action),
            Filter::Created(wanted, or_equal, micros) => {
                let found = event.created.cmp(micros);
                found == *wanted || (*or_equal && found == Ordering::Equal)
            }
            other => other.matches(parsed.get_or_insert_with(|| event.parsed())),
        })
    }

    fn keys(&self, event: &Stored) -> Vec<Key> {
        self.order
            .iter()
            .map(|term| match term.field {
                Field::Pk => Key::Text(event.pk.to_string()),
                Field::Created => Key::Number(event.created),
                Field::Expires => Key::Number(event.expires),
                Field::Action => Key::Text(event.action.to_string()),
                Field::Other(name) => Key::Text(event.parsed()[name].to_string()),
            })
            .collect()
    }

    fn compare(&self, a: &[Key], b: &[Key]) -> Ordering {
        for ((term, a), b) in self.order.iter().zip(a).zip(b) {
            let found = if term.descending { b.cmp(a) } else { a.cmp(b) };
            if found != Ordering::Equal {
                return found;
            }
        }
        Ordering::Equal
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    Text(String),
}

impl Filter {
    fn matches(&self, event: &Value) -> bool {
        match self {
            Self::Username(name) => {
                event["user"]["username"] == **name || event["context"]["username"] == **name
            }
            Self::ClientIp(ip) => event["client_ip"] == **ip,
            Self::Context(path, wanted) => {
                let found = path
                    .iter()
                    .fold(&event["context"], |value, key| &value[*key]);
                match found {
                    Value::String(text) => text.replace('-', "") == *wanted,
                    other => wanted.parse::<Value>().is_ok_and(|wanted| *other == wanted),
                }
            }
            Self::BrandName(name) => {
                event["brand"]["name"] == **name || event["tenant"]["name"] == **name
            }
            Self::Text(text) => ["pk", "user", "action", "app", "context", "client_ip"]
                .iter()
                .any(|key| event[*key].to_string().to_lowercase().contains(text)),
            Self::ActionContains(_) | Self::ActionIn(_) | Self::Created(..) => true,
        }
    }
}

fn fill<T>(page: Page<usize>, row: impl Fn(usize) -> T) -> Page<T> {
    Page {
        rows: page.rows.into_iter().map(row).collect(),
        count: page.count,
        current: page.current,
        total_pages: page.total_pages,
        start_index: page.start_index,
        end_index: page.end_index,
    }
}

/// Unknown terms are dropped; nothing left means newest first.
fn order(text: &str) -> Vec<Term> {
    let terms: Vec<Term> = text
        .split(',')
        .filter_map(|term| {
            let term = term.trim();
            let (descending, name) = match term.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, term),
            };
            let field = match name {
                "pk" | "event_uuid" => Field::Pk,
                "created" => Field::Created,
                "expires" => Field::Expires,
                "action" => Field::Action,
                "user" => Field::Other("user"),
                "app" => Field::Other("app"),
                "context" => Field::Other("context"),
                "client_ip" => Field::Other("client_ip"),
                "brand" => Field::Other("brand"),
                _ => return None,
            };
            Some(Term { field, descending })
        })
        .collect();
    if terms.is_empty() {
        return vec![Term {
            field: Field::Created,
            descending: true,
        }];
    }
    terms
}

/// From 2026.5 on the search understands comparisons of `created`; everything else, and
/// everything that does not parse, is looked for as plain text.
fn search(text: &str, profile: Profile) -> Result<Filter, Refusal> {
    let plain = || Filter::Text(text.to_lowercase());
    if profile != Profile::V2026_5 {
        return Ok(plain());
    }
    let mut words = text.splitn(3, ' ');
    let (Some(field), Some(operator), Some(value)) = (words.next(), words.next(), words.next())
    else {
        return Ok(plain());
    };
    let (wanted, or_equal) = match operator {
        ">" => (Ordering::Greater, false),
        ">=" => (Ordering::Greater, true),
        "<" => (Ordering::Less, false),
        "<=" => (Ordering::Less, true),
        "=" => (Ordering::Equal, true),
        _ => return Ok(plain()),
    };
    if field == "event_uuid" && wanted != Ordering::Equal {
        return Err(Refusal::ServerError);
    }
    let value = value.trim().trim_matches('"');
    if field != "created" || value.contains(['T', 'Z', '.']) {
        return Ok(plain());
    }
    let full = match value.len() {
        10 => format!("{value} 00:00:00Z"),
        16 => format!("{value}:00Z"),
        _ => format!("{value}Z"),
    };
    Ok(full.parse::<jiff::Timestamp>().map_or_else(
        |_| plain(),
        |at| Filter::Created(wanted, or_equal, at.as_microsecond()),
    ))
}
