//! Following the table of events. There is one writer at a time and ids only grow, so they become
//! visible in their order: everything after the last id seen is new, and nothing before it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::time::Instant;

use super::query::{event_after, id_text, parse_id};
use super::schema::Tables;
use super::worker::Workers;
use crate::store::feed::{Entries, Entry, Follow, MOST_AT_ONCE, PATIENCE};
use crate::store::{Payloads, Result, StoredEvent};

/// Between two looks while nothing is entered. A look is one descent of the primary key.
const POLL: Duration = Duration::from_millis(200);

/// What the events of one call take, roughly: large ones come a few at a time.
const MOST_BYTES: usize = 8 << 20;

pub(super) struct Follower {
    readers: Arc<Workers>,
    tables: Arc<Tables>,
    last: i64,
}

impl Follower {
    /// `None`: the text is no position, or one that lies beyond all that was ever entered.
    pub(super) async fn start(
        readers: Arc<Workers>,
        tables: Arc<Tables>,
        after: Option<&str>,
    ) -> Result<Option<Self>> {
        let after = match after.map(parse_id) {
            Some(None) => return Ok(None),
            after => after.flatten(),
        };
        let of = Arc::clone(&tables);
        let find = move |connection: &mut Connection| match after {
            Some(id) => greatest(connection, &of).map(|greatest| (id <= greatest).then_some(id)),
            None => newest(connection, &of).map(Some),
        };
        let last = readers.run("a look at the newest event", find).await?;
        Ok(last.map(|last| Self {
            readers,
            tables,
            last,
        }))
    }

    async fn look(&mut self) -> Result<Entries> {
        let (tables, last) = (Arc::clone(&self.tables), self.last);
        let read = move |connection: &mut Connection| entered_after(connection, &tables, last);
        let (events, more) = self.readers.run("a look for new events", read).await?;
        if let Some((id, _)) = events.last() {
            self.last = *id;
        }
        let entries = events.into_iter().map(|(id, event)| Entry {
            position: id_text(id),
            event,
        });
        Ok(Entries {
            entries: entries.collect(),
            more,
        })
    }
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<Entries> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let found = self.look().await?;
            if !found.entries.is_empty() || Instant::now() + POLL > patience {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn position(&self) -> String {
        id_text(self.last)
    }
}

fn newest(connection: &Connection, tables: &Tables) -> rusqlite::Result<i64> {
    let newest = format!("SELECT max(id) FROM {}", tables.events);
    let newest: Option<Option<i64>> = connection
        .prepare_cached(&newest)?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(newest.flatten().unwrap_or(0))
}

/// The greatest id that was ever given; its event may be gone.
fn greatest(connection: &Connection, tables: &Tables) -> rusqlite::Result<i64> {
    // Here the name is a value, not an identifier.
    let quoted = &tables.events;
    let name = quoted[1..quoted.len() - 1].replace("\"\"", "\"");
    let given: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    given.map_or_else(|| newest(connection, tables), Ok)
}

/// With whether there may be more.
fn entered_after(
    connection: &Connection,
    tables: &Tables,
    last: i64,
) -> rusqlite::Result<(Vec<(i64, StoredEvent)>, bool)> {
    let mut events = Vec::new();
    let mut bytes = 0;
    event_after(
        connection,
        tables,
        last,
        MOST_AT_ONCE,
        Payloads::Whole,
        |id, event, length| {
            events.push((id, event));
            bytes += length;
            bytes < MOST_BYTES
        },
    )?;
    let more = events.len() == MOST_AT_ONCE || bytes >= MOST_BYTES;
    Ok((events, more))
}
