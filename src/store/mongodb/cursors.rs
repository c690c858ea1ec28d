//! Cursors: one document per source, moved by compare-and-set.
//!
//! Claims and moves are synced, so that a cursor which anybody has seen never goes back. A touch is
//! not: it says when a pushed event came last, nothing is read again by it, and the wait for a second
//! sync would double the time of every webhook.

use futures_util::future::try_join_all;
use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::ReturnDocument;
use serde_json::Value;

use super::encode::{saturating_i64, value_document};
use super::errors::store_error;
use super::schema::simple;
use super::{MongoStore, bson_date, collect, decode, unsynced};
use crate::event::SourceName;
use crate::store::{Cursor, CursorMove, CursorStep, MoveFate, Result, StoreError};

/// Rounds of "another one moved it between our write and our read" before the writer hears of it.
const ROUNDS: u32 = 5;

impl MongoStore {
    /// Makes the moves, those of different sources at once; touches of one source become one.
    pub(super) async fn move_cursors(&self, moves: &[CursorMove]) -> Result<Vec<MoveFate>> {
        let mut touches: Vec<CursorMove> = Vec::new();
        for touch in moves.iter().filter(|step| step.step == CursorStep::Touch) {
            match touches.iter_mut().find(|one| one.source == touch.source) {
                Some(one) => {
                    one.last_event_at = one.last_event_at.max(touch.last_event_at);
                    if touch.last_event_id.is_some() {
                        one.last_event_id.clone_from(&touch.last_event_id);
                    }
                }
                None => touches.push(touch.clone()),
            }
        }
        let touched = try_join_all(touches.iter().map(|touch| self.touch(touch)));
        let moved = try_join_all(moves.iter().map(|step| self.advance(step)));
        let (_, fates) = tokio::try_join!(touched, moved)?;
        Ok(fates)
    }

    async fn touch(&self, touch: &CursorMove) -> Result<()> {
        let mut set = doc! { "updatedAt": bson_date(Timestamp::now()) };
        if let Some(id) = &touch.last_event_id {
            set.insert("lastEventId", id);
        }
        let mut update = doc! {
            "$set": set,
            "$setOnInsert": { "generation": 0_i64, "seq": 0_i64, "detail": Bson::Null },
        };
        if let Some(at) = touch.last_event_at {
            update.insert("$max", doc! { "lastEventAt": bson_date(at) });
        }
        let filter = doc! { "source": touch.source.as_str() };
        for _ in 0..ROUNDS {
            let touched = self.cursors.update_one(filter.clone(), update.clone());
            let touched = touched.write_concern(unsynced(self.timeout));
            match touched.collation(simple()).upsert(true).await {
                Ok(touched) if touched.upserted_id.is_some() => {
                    return self.needs_indexes(&touch.source).await;
                }
                Ok(_) => {
                    self.touched(&touch.source);
                    return Ok(());
                }
                Err(error) if is_upsert_race(&error) => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        Err(contended(&touch.source))
    }

    /// There was no cursor. If it was lost, the indexes may be too, and what was entered without them comes again: it
    /// relies on an announcement that was lost as well.
    async fn needs_indexes(&self, source: &SourceName) -> Result<()> {
        let why = match self.create_indexes_anew().await {
            Ok(false) if !self.was_touched(source) => {
                self.touched(source);
                return Ok(());
            }
            Ok(false) => {
                self.lose();
                "somebody else has made them anew".to_owned()
            }
            Ok(true) => "they are made anew".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("it may have lost its indexes: {why}");
        Err(StoreError::Unavailable(message))
    }

    async fn advance(&self, step: &CursorMove) -> Result<MoveFate> {
        let CursorStep::Advance { from, to, detail } = &step.step else {
            return Ok(MoveFate::Moved);
        };
        let filter = doc! {
            "source": step.source.as_str(),
            // Generation 0 belongs to nobody: the cursor was touched, never claimed.
            "generation": { "$eq": signed(step.generation)?, "$gt": 0_i64 },
            "seq": { "$gte": signed(*from)?, "$lt": signed(*to)? },
        };
        let update = advanced(step, *to, detail);
        for _ in 0..ROUNDS {
            let moved = self.cursors.update_one(filter.clone(), update.clone());
            let moved = moved.collation(simple()).await;
            let moved = moved.map_err(|error| store_error(&error))?;
            if moved.matched_count > 0 {
                return Ok(MoveFate::Moved);
            }
            let stored = self.read_cursor(&step.source).await?;
            let (generation, seq) = stored.map_or((0, 0), |cursor| (cursor.generation, cursor.seq));
            if generation != step.generation || generation == 0 {
                return Ok(MoveFate::Fenced { owner: generation });
            }
            if *to <= seq {
                return Ok(MoveFate::Covered);
            }
            if *from > seq {
                return Ok(MoveFate::Gap { stored: seq });
            }
        }
        Err(contended(&step.source))
    }

    /// Raises the generation, making the cursor when there is none.
    pub(super) async fn claim(&self, source: &SourceName) -> Result<Cursor> {
        // Whoever claims anew may have been fenced by a store that was restored.
        self.forget();
        // What has lost it may have lost the indexes too. Before it is made: it is a sign that they stand.
        if self.read_cursor(source).await?.is_none() {
            self.create_indexes_anew().await?;
        }
        let filter = doc! { "source": source.as_str() };
        let update = doc! {
            "$inc": { "generation": 1_i64 },
            // Somebody else's may lack it.
            "$max": { "seq": 0_i64 },
            "$setOnInsert": {
                "detail": Bson::Null,
                "updatedAt": bson_date(Timestamp::now()),
            },
        };
        for _ in 0..ROUNDS {
            let claimed = self
                .cursors
                .find_one_and_update(filter.clone(), update.clone());
            let claimed = claimed.upsert(true).return_document(ReturnDocument::After);
            match claimed.collation(simple()).await {
                Ok(document) => {
                    let cursor = document.and_then(|document| decode::cursor(&document));
                    return cursor.ok_or_else(|| {
                        StoreError::Other(format!("the cursor of {source} is unreadable"))
                    });
                }
                Err(error) if is_upsert_race(&error) => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        Err(contended(source))
    }

    /// All cursors, by source.
    pub(super) async fn all_cursors(&self) -> Result<Vec<Cursor>> {
        let found = self.cursors.find(doc! {}).sort(doc! { "source": 1 }).await;
        collect(found, decode::cursor).await
    }

    async fn read_cursor(&self, source: &SourceName) -> Result<Option<Cursor>> {
        let found = self
            .cursors
            .find_one(doc! { "source": source.as_str() })
            .collation(simple())
            .await;
        let found = found.map_err(|error| store_error(&error))?;
        Ok(found.and_then(|document| decode::cursor(&document)))
    }
}

fn advanced(step: &CursorMove, to: u64, detail: &Value) -> Document {
    let (wrapped, exact) = value_document(detail);
    let nearest = Document::try_from(wrapped).ok();
    let nearest = nearest.and_then(|mut wrapped| wrapped.remove("v"));
    let mut set = doc! {
        "seq": saturating_i64(to),
        "detail": nearest.unwrap_or(Bson::Null),
        "updatedAt": bson_date(Timestamp::now()),
    };
    let mut unset = Document::new();
    if exact {
        unset.insert("detailJson", "");
    } else {
        set.insert("detailJson", detail.to_string());
    }
    if let Some(at) = step.last_event_at {
        set.insert("lastEventAt", bson_date(at));
    }
    if let Some(id) = &step.last_event_id {
        set.insert("lastEventId", id);
    }
    let mut update = doc! { "$set": set };
    if !unset.is_empty() {
        update.insert("$unset", unset);
    }
    update
}

fn signed(count: u64) -> Result<i64> {
    i64::try_from(count)
        .map_err(|_| StoreError::Other(format!("{count} is beyond a signed 64-bit number")))
}

/// Two upserts of one key: one of them meets the other's document and only has to look again.
pub(super) fn is_upsert_race(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => command.code == super::commit::DUPLICATE_KEY,
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            write.code == super::commit::DUPLICATE_KEY
        }
        _ => false,
    }
}

/// This concerns its source alone: the others go on.
fn contended(source: &SourceName) -> StoreError {
    let why = "is being moved by others, or its `seq` is no number";
    StoreError::Refused(format!("the cursor of {source} {why}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mongodb::options::{ReadPreference, SelectionCriteria};

    use super::*;
    use crate::config::Collections;

    #[tokio::test]
    async fn reads_go_to_the_primary_whatever_the_url_says() {
        let url = "mongodb://127.0.0.1:1/d?readPreference=secondary&readConcernLevel=available";
        let timeout = Duration::from_secs(1);
        let store = MongoStore::connect(url, timeout, &Collections::default()).await;
        let store = store.expect("a store that nobody asks");
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        assert_eq!(store.cursors.selection_criteria(), Some(&primary));
        assert_eq!(store.cursors.read_concern(), None);
    }
}
