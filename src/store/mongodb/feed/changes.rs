//! The change stream of a replica set: it tells what was inserted, in the order of the oplog.

use std::time::Duration;

use futures_util::StreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::raw_batch_cursor::RawBatchCursor;
use tokio::time::Instant;

use super::{Follower, OVERLAP, Place, Reading, earliest, made, position, seconds};
use crate::store::feed::MOST_AT_ONCE;
use crate::store::mongodb::MongoStore;
use crate::store::mongodb::errors::{has_code, store_error};
use crate::store::{Result, StoreError};

/// What a server without oplog, without the command, or without the right to it answers:
/// `Unauthorized`, `CommandNotFound`, `Unrecognized pipeline stage`, `only supported on replica sets`.
const NO_CHANGE_STREAMS: [i32; 4] = [13, 59, 40324, 40573];
/// `InvalidResumeToken`, `ChangeStreamFatalError`, `ChangeStreamHistoryLost`: the token leads nowhere
/// any more.
const TOKEN_LOST: [i32; 3] = [260, 280, 286];
/// So long one member is read from: after an election the former primary goes on answering, however late it is itself.
const REOPENED_AFTER: Duration = Duration::from_secs(60);

/// Where a change stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Exactly behind the place, unless the first reply tells that its token is lost.
    AtPlace,
    /// Where lists end, or nowhere because the server has none: ids tell what came since the place.
    AtEnd,
    /// Not at all: the place is none.
    NoPlace,
}

pub(super) struct Changes {
    replies: RawBatchCursor,
    /// The next reply was asked for by an earlier call, or is the first, which holds nothing: it may end before what is
    /// visible by now.
    is_early: bool,
    /// The token that it was opened at.
    opened_at: Option<String>,
    /// When it was opened, by the store's clock.
    since: i64,
}

impl Follower {
    /// Opens the change stream at the place, or else where lists end. Where there are no change streams,
    /// ids will be read.
    pub(super) async fn open(&mut self) -> Result<Opened> {
        if let Some(token) = self.place.token.clone() {
            match watch(&self.store, Some(token), self.awaits).await? {
                Ok(changes) => {
                    self.reading = Reading::Changes(Some(changes));
                    return Ok(Opened::AtPlace);
                }
                Err(error) if has_code(&error, &TOKEN_LOST) => self.lose_token(),
                Err(error) if has_code(&error, &NO_CHANGE_STREAMS) => {}
                Err(error) if is_refused(&error) => {
                    // A server in trouble refuses it without the token too.
                    let without = watch(&self.store, None, self.awaits).await?;
                    without.map_err(|error| store_error(&error))?;
                    return Ok(Opened::NoPlace);
                }
                Err(error) => return Err(store_error(&error)),
            }
        }
        // Opened before the ids are read: what comes in between is told by both.
        self.reading = match watch(&self.store, None, self.awaits).await? {
            Ok(changes) => Reading::Changes(Some(changes)),
            // The first look may take many calls; with the next one it can be said that all is met.
            Err(error) if has_code(&error, &NO_CHANGE_STREAMS) => Reading::Ids {
                deep_at: Instant::now(),
            },
            Err(error) => return Err(store_error(&error)),
        };
        Ok(Opened::AtEnd)
    }

    fn lose_token(&mut self) {
        tracing::info!("the oplog no longer reaches back; ids tell what was missed");
        self.place.token = None;
    }

    /// One reply of the change stream; whether there may be more.
    pub(super) async fn changes_on(&mut self) -> Result<bool> {
        let Reading::Changes(changes) = &mut self.reading else {
            return Ok(false);
        };
        let Some(open) = changes else {
            match self.open().await? {
                Opened::AtPlace => {}
                // The clock may have been put back since.
                Opened::AtEnd => self.look_from(self.place.second.min(earliest(OVERLAP)), true),
                Opened::NoPlace => self.place.token = None,
            }
            return Ok(true);
        };
        let reply = match tokio::time::timeout(self.store.timeout, open.replies.next()).await {
            Ok(reply) => reply,
            Err(_) => {
                // The server reads on, and the next call gets its reply.
                open.is_early = true;
                return Err(StoreError::Timeout {
                    what: "a look for new events",
                    after: self.store.timeout,
                });
            }
        };
        let reply = match reply {
            Some(Ok(reply)) => reply,
            Some(Err(error)) => {
                *changes = None;
                if !has_code(&error, &TOKEN_LOST) {
                    return Err(store_error(&error));
                }
                self.lose_token();
                return Ok(true);
            }
            None => {
                *changes = None;
                return Ok(true);
            }
        };
        let mut count = 0;
        for change in reply.doc_slices().map_err(|error| store_error(&error))? {
            let change = change.map_err(|error| StoreError::Other(error.to_string()))?;
            count += 1;
            let Some((id, token)) = change.as_document().and_then(told) else {
                continue;
            };
            let second = second_of(&id);
            let token = Some(token);
            self.pending.push_back((id, Place { second, token }));
        }
        let is_early = std::mem::replace(&mut open.is_early, false);
        let age = Duration::from_millis(self.store.now().abs_diff(open.since));
        if count == 0
            && !is_early
            && let Ok(cursor) = reply.as_raw_document().get_document("cursor")
            && let Ok(token) = cursor.get_document("postBatchResumeToken")
            && let Ok(token) = token.get_str("_data")
        {
            self.place = Place {
                second: earliest(OVERLAP),
                token: Some(token.to_owned()),
            };
            self.position = position(&self.place, "");
        }
        // Where the place is still that of the opening, as behind an early reply, or a router that has not reached the
        // end, the oplog would be read again from there each time.
        if !is_early && age > REOPENED_AFTER && self.place.token != open.opened_at {
            *changes = None;
        }
        Ok(is_early || count == MOST_AT_ONCE)
    }
}

async fn watch(
    store: &MongoStore,
    after: Option<String>,
    awaits: Duration,
) -> Result<mongodb::error::Result<Box<Changes>>> {
    let open = async || -> mongodb::error::Result<RawBatchCursor> {
        let stream = match after.as_deref() {
            // Other than `resumeAfter`, it goes on after the collection was dropped, too.
            Some(token) => doc! { "startAfter": { "_data": token } },
            None => behind_the_lists(store).await?,
        };
        let command = doc! {
            "aggregate": store.events.name(),
            "pipeline": [
                { "$changeStream": stream },
                { "$match": { "operationType": "insert" } },
                { "$project": { "documentKey._id": 1 } }
            ],
            // Nothing is read yet: the oplog may take longer than an operation, and what is cut off here begins anew. A
            // later reply outlasts the call that asked for it.
            "cursor": { "batchSize": 0 },
        };
        let watch = store.database.run_cursor_command(command);
        let watch = watch
            .batch_size(u32::try_from(MOST_AT_ONCE).unwrap_or(u32::MAX))
            .max_time(awaits);
        watch.batch().await
    };
    let opening = async {
        // After an election or a lost connection the driver repeats its own reads, but no command such as this one.
        Ok(match open().await {
            Err(error) if matches!(store_error(&error), StoreError::Unavailable(_)) => open().await,
            opened => opened,
        })
    };
    let opened = store
        .within("an opening of the change stream", opening)
        .await?;
    Ok(opened.map(|replies| {
        Box::new(Changes {
            replies,
            is_early: true,
            opened_at: after,
            since: store.now(),
        })
    }))
}

/// Behind what lists show, which is what a majority has: by itself a change stream begins behind what this server has.
/// Routers do not tell how far a majority is.
async fn behind_the_lists(store: &MongoStore) -> mongodb::error::Result<Document> {
    let hello = store.database.run_command(doc! { "hello": 1 }).await?;
    let mut stream = Document::new();
    if let Ok(last) = hello.get_document("lastWrite")
        && let Ok(listed) = last.get_document("majorityOpTime")
        && let Ok(mut time) = listed.get_timestamp("ts")
    {
        // What was entered at the time itself would be told, too.
        time.increment = time.increment.saturating_add(1);
        stream.insert("startAtOperationTime", time);
    }
    Ok(stream)
}

/// The id of what was inserted, and the change's token.
fn told(change: &mongodb::bson::RawDocument) -> Option<(Bson, String)> {
    let token = change.get_document("_id").ok()?.get_str("_data").ok()?;
    let id = change.get_document("documentKey").ok()?.get("_id").ok()??;
    Some((Bson::try_from(id).ok()?, token.to_owned()))
}

/// The server has understood the question and does not answer it.
fn is_refused(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(_))
        && matches!(store_error(error), StoreError::Other(_))
}

/// The second before which every id has been seen when a change has told of this one.
fn second_of(id: &Bson) -> i64 {
    let now = earliest(OVERLAP);
    match id {
        Bson::ObjectId(id) => now.min(made(id).saturating_sub(seconds(OVERLAP))),
        _ => now,
    }
}
