//! The reads. A filter's values are bound, never part of a statement.

use std::borrow::Cow;

use bytestring::ByteString;
use jiff::Timestamp;
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params_from_iter};
use serde_json::{Map, Value};

use super::lost;
use super::plan::{self, Asks, Found, Key, MOST_TEXTS, Merged, Plan, Way};
use super::schema::Tables;
use super::sieve::Sieve;
use crate::event::json;
use crate::event::{Actor, Outcome, Target, from_millis};
use crate::store::keys::{asks_facets, first_behind, lower};
use crate::store::page::{Filling, tree_bytes};
use crate::store::{EventFilter, EventPage, PageKey, Payloads, StoredEvent};

/// Events that are looked through, for each one wanted, for a text that too many texts hold to be looked up, ...
const LOOKED_AT: i64 = 200;

/// ... and at most.
const MOST_LOOKED_AT: i64 = 100_000;

/// Texts that are looked up where the newest events have too few of them.
const FAR_MORE_TEXTS: usize = 50_000;

const HEAD_COLUMNS: &str = "id, at, ingestedAt, source, externalId, action, outcome, actorId, \
     actorEmail, actorName, actorIp, targetType, targetId, targetName, tenantSlug";

/// The column behind them.
const METADATA: usize = 15;

fn columns(payloads: Payloads) -> String {
    match payloads {
        Payloads::Whole => format!("{HEAD_COLUMNS}, metadata"),
        Payloads::LeftOut => format!("{HEAD_COLUMNS}, '{{}}' AS metadata"),
    }
}

/// An event's id as text.
pub(super) fn id_text(id: i64) -> String {
    format!("{id:016x}")
}

/// The id that [`id_text`] made this text of.
pub(super) fn parse_id(id: &str) -> Option<i64> {
    let parsed = i64::from_str_radix(id, 16).ok()?;
    (id_text(parsed) == id).then_some(parsed)
}

pub(super) fn events(
    connection: &Connection,
    tables: &Tables,
    filter: &EventFilter,
    before: Option<&PageKey>,
    limit: u32,
    payloads: Payloads,
) -> rusqlite::Result<EventPage> {
    if limit == 0 {
        return Ok(EventPage::default());
    }
    // One view of the file for all that is looked up.
    let view = connection.unchecked_transaction()?;
    let asked = Asked {
        connection: &view,
        tables,
        filter,
        before,
        limit,
        payloads,
    };
    if plan::asks_nothing(filter) || lost::lacks_keys(&view, tables)? {
        return Ok(asked.by_time(None)?.unwrap_or_default());
    }
    let mut plan = plan::plan(&view, tables, filter, MOST_TEXTS)?;
    if plan.is_walk {
        let near = (LOOKED_AT * i64::from(limit)).min(MOST_LOOKED_AT);
        if let Some(page) = asked.page(&plan, Some(near))? {
            return Ok(page);
        }
        plan = plan::plan(&view, tables, filter, FAR_MORE_TEXTS)?;
    }
    let page = asked.page(&plan, None)?;
    Ok(page.unwrap_or_default())
}

/// What a page is asked for.
struct Asked<'a> {
    connection: &'a Connection,
    tables: &'a Tables,
    filter: &'a EventFilter,
    before: Option<&'a PageKey>,
    limit: u32,
    payloads: Payloads,
}

impl Asked<'_> {
    /// `None`: it is not full with what stands among so many of the newest events of the way, and there are more.
    fn page(&self, plan: &Plan, most: Option<i64>) -> rusqlite::Result<Option<EventPage>> {
        match &plan.way {
            Way::Time => self.by_time(most),
            Way::Keys(keys) => self.by_keys(plan, keys, most),
        }
    }

    fn by_keys(
        &self,
        plan: &Plan,
        keys: &[Key],
        most: Option<i64>,
    ) -> rusqlite::Result<Option<EventPage>> {
        let (connection, tables) = (self.connection, self.tables);
        let (filter, before, limit) = (self.filter, self.before, self.limit);
        let newest = match plan.asks {
            Asks::Facets => plan::among_newest(connection, tables, filter, before, keys, limit)?,
            Asks::Text | Asks::Terms => None,
        };
        let (conditions, mut values) = conditions(filter, before);
        let mut select = connection.prepare_cached(&format!(
            "SELECT {} FROM {} WHERE id = ?{} AND {conditions}",
            columns(self.payloads),
            tables.events,
            values.len() + 1
        ))?;
        values.push(Sql::Null);
        let mut page = Filling::new(limit);
        let mut look = |id: i64| -> rusqlite::Result<bool> {
            if let Some(last) = values.last_mut() {
                *last = Sql::Integer(id);
            }
            let read = select.query_row(params_from_iter(&values), event_and_bytes);
            if let Some((event, bytes)) = read.optional()? {
                page.add(event, bytes);
            }
            Ok(!page.is_full())
        };
        if let Some(ids) = newest {
            for id in ids {
                if !look(id)? {
                    break;
                }
            }
            return Ok(Some(page.finish()));
        }
        let keys = keys.to_vec();
        let gathered = &plan.gathered;
        let is_allowed = |facet: i64| plan.facets.contains_key(&facet);
        let is_asked = asks_facets(filter).then_some(&is_allowed as &dyn Fn(i64) -> bool);
        let mut sieve = Sieve::new(connection, tables, &plan.beside, gathered, is_asked)?;
        let mut merged = Merged::new(connection, tables, filter, before, keys, gathered)?;
        let mut looked_at = 0;
        while let Some(Found { event, key }) = merged.next()? {
            if most.is_some_and(|most| looked_at >= most) {
                return Ok(None);
            }
            looked_at += 1;
            if !sieve.lets_through(key, event)? {
                continue;
            }
            if !look(event.1)? {
                break;
            }
        }
        Ok(Some(page.finish()))
    }

    fn by_time(&self, most: Option<i64>) -> rusqlite::Result<Option<EventPage>> {
        let border = match most {
            Some(most) => self.behind(most)?,
            None => None,
        };
        let mut filter = self.filter.clone();
        if let Some((at, _)) = border {
            // One bound of the index, so that no other is chosen.
            filter.since = Some(from_millis(at));
        }
        let (mut conditions, mut values) = conditions(&filter, self.before);
        if let Some((at, id)) = border {
            values.extend([Sql::Integer(at), Sql::Integer(id)]);
            let last = values.len();
            conditions = format!("{conditions} AND (at, id) > (?{}, ?{last})", last - 1);
        }
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT {} FROM {} INDEXED BY {} WHERE {conditions}
             ORDER BY at DESC, id DESC LIMIT {}",
            columns(self.payloads),
            self.tables.events,
            self.tables.by_time,
            self.limit
        ))?;
        let page = filled(select.query(params_from_iter(values))?, self.limit)?;
        let is_whole = border.is_none() || page.is_full();
        Ok(is_whole.then(|| page.finish()))
    }

    /// Where the event stands that comes behind so many of the newest of the range.
    fn behind(&self, events: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let range = EventFilter {
            since: self.filter.since,
            until: self.filter.until,
            ..EventFilter::default()
        };
        let (conditions, mut values) = conditions(&range, self.before);
        values.push(Sql::Integer(events));
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT at, id FROM {} INDEXED BY {} WHERE {conditions}
             ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?{}",
            self.tables.events,
            self.tables.by_time,
            values.len()
        ))?;
        let found = select.query_row(params_from_iter(values), |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        found.optional()
    }
}

/// Some of the events that an older version entered, without keys: fewer than so many where their names are long.
/// Their payloads are left out.
pub(super) fn keyless(
    connection: &Connection,
    tables: &Tables,
    limit: u32,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {} FROM {} WHERE facet IS NULL LIMIT {limit}",
        columns(Payloads::LeftOut),
        tables.events
    ))?;
    Ok(filled(select.query([])?, limit)?.finish().events)
}

/// The oldest events from before a time: fewer than so many where their names are long. Their payloads are left out.
pub(super) fn oldest(
    connection: &Connection,
    tables: &Tables,
    before: i64,
    limit: u32,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {} FROM {} WHERE at < ?1 ORDER BY at, id LIMIT {limit}",
        columns(Payloads::LeftOut),
        tables.events
    ))?;
    Ok(filled(select.query([before])?, limit)?.finish().events)
}

pub(super) fn event_by_id(
    connection: &Connection,
    tables: &Tables,
    id: i64,
    tenant: Option<&str>,
) -> rusqlite::Result<Option<StoredEvent>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {HEAD_COLUMNS}, metadata FROM {} WHERE id = ?1 AND (?2 IS NULL OR tenantSlug = ?2)",
        tables.events
    ))?;
    select.query_row((id, tenant), event).optional()
}

/// Events by id from after this one on, until `take` (id, event, its bytes) has enough.
pub(super) fn event_after(
    connection: &Connection,
    tables: &Tables,
    last: i64,
    limit: usize,
    payloads: Payloads,
    mut take: impl FnMut(i64, StoredEvent, usize) -> bool,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {} FROM {} WHERE id > ?1 ORDER BY id LIMIT {limit}",
        columns(payloads),
        tables.events
    ))?;
    let mut rows = select.query([last])?;
    while let Some(row) = rows.next()? {
        let (event, bytes) = event_and_bytes(row)?;
        if !take(row.get(0)?, event, bytes) {
            break;
        }
    }
    Ok(())
}

pub(super) fn conditions(filter: &EventFilter, before: Option<&PageKey>) -> (String, Vec<Sql>) {
    let mut conditions = vec!["1".to_owned()];
    let mut values = Vec::new();
    let mut add = |condition: &str, value: Sql| {
        values.push(value);
        // Every `?` of a condition is its one value.
        conditions.push(condition.replace('?', &format!("?{}", values.len())));
    };
    for (condition, exact) in [
        ("source = ?", &filter.source),
        ("tenantSlug = ?", &filter.tenant),
        ("actorIp = ?", &filter.ip),
    ] {
        if let Some(exact) = exact {
            add(condition, Sql::Text(exact.clone()));
        }
    }
    if let Some(action) = &filter.action {
        match action.strip_suffix('*') {
            Some("") => {}
            Some(prefix) => {
                add("action >= ?", Sql::Text(prefix.to_owned()));
                if let Some(behind) = first_behind(prefix) {
                    add("action < ?", Sql::Text(behind));
                }
            }
            None => add("action = ?", Sql::Text(action.clone())),
        }
    }
    if let Some(actor) = &filter.actor {
        let any =
            "(daybook_is(actorId, ?) OR daybook_is(actorEmail, ?) OR daybook_is(actorName, ?))";
        add(any, Sql::Text(lower(actor)));
    }
    if let Some(target) = &filter.target {
        let any = "(daybook_is(targetId, ?) OR daybook_is(targetName, ?))";
        add(any, Sql::Text(lower(target)));
    }
    if let Some(outcome) = filter.outcome {
        add("outcome = ?", Sql::Text(outcome.as_str().to_owned()));
    }
    if let Some(text) = filter.text.as_deref().filter(|text| !text.is_empty()) {
        let columns = [
            "action",
            "actorId",
            "actorEmail",
            "actorName",
            "actorIp",
            "targetType",
            "targetId",
            "targetName",
        ];
        let any = columns.map(|column| format!("daybook_has({column}, ?)"));
        let any = format!("({})", any.join(" OR "));
        add(&any, Sql::Text(lower(text)));
    }
    if let Some(since) = filter.since {
        add("at >= ?", Sql::Integer(ceiling(since)));
    }
    if let Some(until) = filter.until {
        add("at < ?", Sql::Integer(ceiling(until)));
    }
    if let Some(before) = before {
        let at = before.at.as_millisecond();
        // Ids count from 1: before a foreign id there is nothing of the same millisecond.
        let id = parse_id(&before.id).unwrap_or(0);
        values.extend([Sql::Integer(at), Sql::Integer(id)]);
        let last = values.len();
        conditions.push(format!("(at, id) < (?{}, ?{last})", last - 1));
    }
    (conditions.join(" AND "), values)
}

/// The first whole millisecond not before: stored dates have no finer part.
pub(super) fn ceiling(at: Timestamp) -> i64 {
    let floor = at.as_nanosecond().div_euclid(1_000_000);
    let rest = i128::from(at.as_nanosecond().rem_euclid(1_000_000) != 0);
    i64::try_from(floor + rest).unwrap_or(i64::MAX)
}

/// The events of these rows, until they are so many or take some MiB.
fn filled(mut rows: Rows<'_>, limit: u32) -> rusqlite::Result<Filling> {
    let mut page = Filling::new(limit);
    while let Some(row) = rows.next()? {
        let (event, bytes) = event_and_bytes(row)?;
        if !page.add(event, bytes) {
            break;
        }
    }
    Ok(page)
}

fn event_and_bytes(row: &Row<'_>) -> rusqlite::Result<(StoredEvent, usize)> {
    let payload = shown(row.get_ref(METADATA)?);
    let payload = payload.as_deref().map_or(0, tree_bytes);
    Ok((event(row)?, payload + head_bytes(row)?))
}

/// What an event takes beside its payload: names may be as long.
fn head_bytes(row: &Row<'_>) -> rusqlite::Result<usize> {
    let mut bytes = 0;
    for column in 0..METADATA {
        if let ValueRef::Text(text) = row.get_ref(column)? {
            bytes += text.len();
        }
    }
    Ok(bytes)
}

/// A text as it can be shown: damage is seen at its event, and holds up no other.
pub(super) fn shown(value: ValueRef<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueRef::Text(text) | ValueRef::Blob(text) => Some(String::from_utf8_lossy(text)),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let text = |column: usize| -> rusqlite::Result<Option<String>> {
        Ok(shown(row.get_ref(column)?).map(Cow::into_owned))
    };
    let part = |column: usize| -> rusqlite::Result<Option<ByteString>> {
        Ok(text(column)?.map(Into::into))
    };
    Ok(StoredEvent {
        id: id_text(row.get(0)?),
        at: from_millis(row.get(1)?),
        ingested_at: from_millis(row.get(2)?),
        source: text(3)?.unwrap_or_default(),
        external_id: text(4)?.unwrap_or_default(),
        action: text(5)?.unwrap_or_default(),
        outcome: text(6)?.as_deref().and_then(Outcome::from_word),
        actor: Actor {
            id: part(7)?,
            email: part(8)?,
            name: part(9)?,
            ip: part(10)?,
        },
        target: Target {
            kind: part(11)?,
            id: part(12)?,
            name: part(13)?,
        },
        tenant_slug: text(14)?,
        metadata: parsed(&shown(row.get_ref(METADATA)?).unwrap_or_default()),
    })
}

/// A payload nested deeper than the parser goes is shown as its text.
fn parsed(metadata: &str) -> Map<String, Value> {
    json::object(metadata).unwrap_or_else(|_| {
        let text = Value::String(metadata.to_owned());
        Map::from_iter([("unparsed".to_owned(), text)])
    })
}
