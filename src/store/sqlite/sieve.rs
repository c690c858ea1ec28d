//! What the indexes tell of an event before it is read, which costs more.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _};

use super::gathered::Gathered;
use super::plan::Key;
use super::schema::Tables;

/// Holds back most events of a way that its filter does not mean. Those that it lets through may still not be meant.
pub(super) struct Sieve<'a> {
    beside: &'a HashMap<Key, Vec<i64>>,
    gathered: &'a Gathered,
    is_asked: Option<&'a dyn Fn(i64) -> bool>,
    has_term: CachedStatement<'a>,
    facet_of: CachedStatement<'a>,
}

impl<'a> Sieve<'a> {
    /// `beside` are terms that an event of a key must have too, `is_asked` tells the facets that are allowed, if not
    /// all are.
    pub(super) fn new(
        connection: &'a Connection,
        tables: &Tables,
        beside: &'a HashMap<Key, Vec<i64>>,
        gathered: &'a Gathered,
        is_asked: Option<&'a dyn Fn(i64) -> bool>,
    ) -> rusqlite::Result<Self> {
        let has_term = connection.prepare_cached(&format!(
            "SELECT 1 FROM {} WHERE term = ?1 AND at = ?2 AND event = ?3",
            tables.terms
        ))?;
        let facet_of = connection.prepare_cached(&format!(
            "SELECT facet FROM {} INDEXED BY {} WHERE at = ?1 AND id = ?2",
            tables.events, tables.by_time
        ))?;
        Ok(Self {
            beside,
            gathered,
            is_asked,
            has_term,
            facet_of,
        })
    }

    /// Whether an event, told by time and id, that a key led to may be meant.
    pub(super) fn lets_through(&mut self, key: Key, event: (i64, i64)) -> rusqlite::Result<bool> {
        let (at, id) = event;
        for term in self.beside.get(&key).map_or(&[][..], Vec::as_slice) {
            let stands = self.has_term.exists([*term, at, id])?;
            // What is gathered of a term is in order.
            if !stands && self.gathered.events(*term).binary_search(&event).is_err() {
                return Ok(false);
            }
        }
        // A facet that leads to events is one that is allowed.
        let (Some(is_asked), Key::Term(_)) = (self.is_asked, key) else {
            return Ok(true);
        };
        let facet = self.facet_of.query_row([at, id], |row| row.get(0));
        let facet: Option<Option<i64>> = facet.optional()?;
        Ok(facet.flatten().is_some_and(is_asked))
    }
}
