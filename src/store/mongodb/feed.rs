//! Following the collection of events.
//!
//! - On a replica set a change stream tells what was inserted, in the order of the oplog, and its
//!   token finds the place again exactly, for as long as the oplog reaches.
//! - On a standalone server, which has no oplog, ids are read. Their order is that of the clocks
//!   that made them, and an insert may become visible after younger ones: so every look goes back
//!   a little, now and then by [`OVERLAP`], and what was seen already is known by its id. A clock may
//!   have been far ahead: only the looks that go back by [`OVERLAP`] read beyond it on the other side.
//! - When the oplog no longer reaches back to a token, the ids tell what was missed meanwhile.
//!
//! Both yield ids only; the events are then fetched by them. A change event that holds a large
//! document exceeds the server's limit, and would end the stream for good.

mod changes;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, doc};
use mongodb::options::ReadConcern;
use tokio::time::Instant;

use super::conditions::id_text;
use super::errors::store_error;
use super::{MongoStore, collect, decode};
use crate::store::feed::{Entries, Entry, Follow, MOST_AT_ONCE, PATIENCE};
use crate::store::{Result, StoredEvent};
use changes::{Changes, Opened};

/// How much later than its id says an event may become visible: the time of a slow insert, and
/// what the clocks of several writers differ. That is a minute, and what lies between two looks that go back so far.
const OVERLAP: Duration = Duration::from_secs(60 + DEEP_EVERY.as_secs());
/// How far a usual look goes back, between those that go back by [`OVERLAP`].
const SHORT_OVERLAP: Duration = Duration::from_secs(3);
/// Between two looks while nothing is entered.
const POLL: Duration = Duration::from_millis(250);
/// Between two looks that go back by [`OVERLAP`].
const DEEP_EVERY: Duration = Duration::from_secs(5);
/// Ids read at once.
const PAGE: usize = 1000;
/// How long the server waits for a change before it tells a reader who catches up that there is none: few catch up at
/// once, and after a restart all of them want to.
const BRIEFLY: Duration = Duration::from_millis(200);
/// The longest position, which goes into a header: a token holds the id of its event, and others give long ones.
const LONGEST_POSITION: usize = 4096;
/// About so many bytes of events are read at once: large ones come a few at a time.
const MOST_BYTES: usize = 8 << 20;
/// Events that one call hands out of a look that meets whatever is visible: fewer than a reader of the stream
/// remembers.
const MOST_OF_A_LOOK: usize = 20 * MOST_AT_ONCE;

/// An id met, and the place after it.
type Met = (Bson, Place);

/// Where to go on: from this second of ids on, or, exactly, after this change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    second: i64,
    token: Option<String>,
}

pub(super) struct Follower {
    store: MongoStore,
    /// How long the server waits for a change before it tells that there is none.
    awaits: Duration,
    reading: Reading,
    /// Where to go on when the change stream has to be opened again.
    place: Place,
    /// The same for those outside.
    position: String,
    /// A look under way: ids after this one.
    scan: Option<ObjectId>,
    /// And before this one.
    until: Option<ObjectId>,
    /// The second in which the last look began: it has met, or will meet, whatever was visible then.
    begun: i64,
    /// Nothing was read yet of a look that goes back by [`OVERLAP`], or from a place: it will meet whatever is visible.
    meets_all: bool,
    /// Ids met by looks, as far back as the next look may go.
    seen: BTreeSet<ObjectId>,
    /// Met and not yet fetched.
    pending: VecDeque<Met>,
}

enum Reading {
    /// `None`: to be opened again.
    Changes(Option<Box<Changes>>),
    /// When to go back by [`OVERLAP`] next.
    Ids { deep_at: Instant },
}

impl Follower {
    /// `None`: the text is no position, or one that only time tells and that lies ahead: the clock was put back, and the
    /// ids of what was entered since come before it.
    async fn start(
        store: MongoStore,
        after: Option<&str>,
        awaits: Duration,
        is_live: bool,
    ) -> Result<Option<Self>> {
        let place = match after.map(parse) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => return Ok(None),
        };
        let from = place.clone().unwrap_or(Place {
            second: earliest(OVERLAP),
            token: None,
        });
        let mut follower = Self {
            store,
            awaits,
            reading: Reading::Changes(None),
            scan: None,
            until: None,
            begun: earliest(Duration::ZERO),
            meets_all: false,
            seen: BTreeSet::new(),
            pending: VecDeque::new(),
            position: another(&from),
            place: from,
        };
        let opened = follower.open().await?;
        if opened == Opened::NoPlace {
            return Ok(None);
        }
        let mut exact = opened == Opened::AtPlace;
        // Every place lay back by [`OVERLAP`] when it was handed out.
        let is_ahead = follower.place.second > earliest(Duration::ZERO);
        if exact && is_ahead && !is_live {
            // The first reply holds nothing, and the next one tells whether the token is lost.
            for _ in 0..2 {
                follower.changes_on().await?;
            }
            exact = follower.place.token.is_some();
        }
        if !exact && is_ahead {
            if !is_live {
                return Ok(None);
            }
            // Its readers stay, and are not told again what they know.
            follower.place.second = earliest(OVERLAP);
            follower.position = another(&follower.place);
        }
        let reads_ids = matches!(follower.reading, Reading::Ids { .. });
        if place.is_some() && !exact || reads_ids {
            follower.look_from(follower.place.second, true);
        }
        if place.is_none() && reads_ids {
            // From now on: what is there already has been.
            while follower.scan.is_some() {
                follower.scan_on().await?;
            }
            follower.pending.clear();
        }
        Ok(Some(follower))
    }

    /// Begins a look.
    fn look_from(&mut self, second: i64, meets_all: bool) {
        self.scan = Some(first_of(second));
        self.begun = earliest(Duration::ZERO);
        let ahead = first_of(self.begun.saturating_add(seconds(OVERLAP)));
        self.until = (!meets_all).then_some(ahead);
        self.meets_all = meets_all;
    }

    /// One page of ids; ends the look when it is the last one. Whether it was the first of a look that meets whatever was
    /// visible before.
    async fn scan_on(&mut self) -> Result<bool> {
        let Some(after) = self.scan else {
            return Ok(false);
        };
        let mut sought = doc! { "$gt": after };
        if let Some(until) = self.until {
            sought.insert("$lt", until);
        }
        let read = async {
            let ids = self.store.events.find(doc! { "_id": sought });
            let ids = ids.projection(doc! { "_id": 1 }).sort(doc! { "_id": 1 });
            let ids = ids.limit(i64::try_from(PAGE).unwrap_or(i64::MAX)).await;
            collect(ids, |document| document.get_object_id("_id").ok()).await
        };
        let ids = self.store.within("a look for new events", read).await?;
        self.scan = ids.last().copied().filter(|_| ids.len() == PAGE);
        self.meet(ids);
        Ok(std::mem::take(&mut self.meets_all))
    }

    /// Takes in what a look read and no earlier one met. One look meets each id once; what the next
    /// one may meet again is remembered, and changes are not followed by looks.
    fn meet(&mut self, ids: Vec<ObjectId>) {
        let overlap = self.begun.saturating_sub(seconds(OVERLAP));
        let next_look = match self.reading {
            Reading::Ids { .. } => Some(first_of(overlap)),
            Reading::Changes(_) => None,
        };
        for id in ids {
            if self.seen.contains(&id) {
                continue;
            }
            if next_look.is_some_and(|first| id >= first) {
                self.seen.insert(id);
            }
            let place = Place {
                // Still to come are younger ones of this look, and what becomes visible after its beginning.
                second: made(&id).min(overlap),
                token: None,
            };
            self.pending.push_back((Bson::ObjectId(id), place));
        }
    }

    /// The events that are pending, so many at most.
    async fn fetch(&mut self, most: usize) -> Result<Vec<Entry>> {
        let mut taken = self.pending.len().min(most);
        let mut events = loop {
            let ids = self.pending.iter().take(taken);
            let ids: Vec<Bson> = ids.map(|(id, _)| id.clone()).collect();
            let read = read_some(&self.store, ids);
            let (events, fitting) = self.store.within("a read of new events", read).await?;
            if fitting == taken {
                break events;
            }
            // Those read are any of them; it is the first that are handed out.
            taken = fitting;
        };
        let mut entries = Vec::with_capacity(taken);
        for (id, place) in self.pending.drain(..taken) {
            let text = id_text(&id);
            self.position = position(&place, &text);
            self.place = place;
            // What was deleted meanwhile is not there any more.
            if let Some(event) = events.remove(&text) {
                entries.push(Entry {
                    position: self.position.clone(),
                    event,
                });
            }
        }
        Ok(entries)
    }

    /// Waits until it is time for another look, and begins it.
    async fn next_scan(&mut self) {
        tokio::time::sleep(POLL).await;
        let Reading::Ids { deep_at } = &mut self.reading else {
            return;
        };
        // Where the clock was put back: the next ids come before it.
        let latest = earliest(OVERLAP);
        if self.place.second > latest {
            self.place.second = latest;
            self.position = another(&self.place);
        }
        // The former look may have begun long ago: its events were taken slowly, or the store was away.
        let former = self.begun.min(earliest(Duration::ZERO));
        let before = |back: Duration| former.saturating_sub(seconds(back));
        if Instant::now() >= *deep_at {
            *deep_at = Instant::now() + DEEP_EVERY;
            let second = before(OVERLAP);
            self.seen = self.seen.split_off(&first_of(second));
            self.look_from(second, true);
        } else {
            self.look_from(before(SHORT_OVERLAP), false);
        }
    }
}

/// Reads events, in no order, until they have [`MOST_BYTES`]; with the number of ids to ask for at
/// once.
async fn read_some(
    store: &MongoStore,
    ids: Vec<Bson>,
) -> Result<(HashMap<String, StoredEvent>, usize)> {
    let asked = ids.len();
    let found = store.events.find(doc! { "_id": { "$in": ids } });
    // Whoever told of the ids vouches for them. A new primary has them, and may not know yet that a majority does.
    let found = found.read_concern(ReadConcern::local()).await;
    let mut found = found.map_err(|error| store_error(&error))?;
    let mut events = HashMap::new();
    let (mut read, mut bytes) = (0, 0);
    while let Some(document) = found
        .try_next()
        .await
        .map_err(|error| store_error(&error))?
    {
        read += 1;
        bytes += document.as_bytes().len();
        if let Some(event) = decode::event(&document) {
            events.insert(event.id.clone(), event);
        }
        if bytes >= MOST_BYTES && read < asked {
            return Ok((events, read));
        }
    }
    Ok((events, asked))
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<Entries> {
        let patience = Instant::now() + PATIENCE;
        // Whether what was visible when this call began is met: what an earlier one had read does not tell.
        let mut all_met = false;
        loop {
            // Handed out by several calls, such a look lets none of them say so; while much is entered, each look
            // would be.
            let most = if all_met {
                MOST_OF_A_LOOK
            } else {
                MOST_AT_ONCE
            };
            let reads_on = all_met && self.scan.is_some() && self.pending.len() < most;
            if !self.pending.is_empty() && !reads_on {
                let entries = self.fetch(most).await?;
                let more = !all_met || self.scan.is_some() || !self.pending.is_empty();
                return Ok(Entries { entries, more });
            }
            let reads_ids = matches!(self.reading, Reading::Ids { .. });
            if self.scan.is_some() {
                let meets_all = self.scan_on().await?;
                // A stream that was opened before has its own word to say.
                all_met |= meets_all && reads_ids;
                let is_nothing = self.pending.is_empty() && self.scan.is_none();
                if is_nothing && reads_ids && Instant::now() + POLL > patience {
                    return Ok(Entries {
                        entries: Vec::new(),
                        more: !all_met,
                    });
                }
                continue;
            }
            if !reads_ids {
                all_met = !self.changes_on().await?;
                if self.pending.is_empty() && all_met {
                    return Ok(Entries::default());
                }
            } else {
                self.next_scan().await;
            }
        }
    }

    fn position(&self) -> String {
        self.position.clone()
    }
}

impl MongoStore {
    /// Whoever is not live catches up: a reader of what is there, like others.
    pub(super) async fn start_following(
        &self,
        after: Option<&str>,
        is_live: bool,
    ) -> Result<Option<Box<dyn Follow>>> {
        let (store, awaits) = if is_live {
            (self, PATIENCE)
        } else {
            (self.for_reads(), BRIEFLY)
        };
        // The answer comes within the time of an operation.
        let awaits = awaits.min(self.timeout / 2);
        let follower = Follower::start(store.clone(), after, awaits, is_live).await?;
        Ok(follower.map(|follower| Box::new(follower) as Box<dyn Follow>))
    }
}

/// The second before which every id has been seen, by now.
fn earliest(back: Duration) -> i64 {
    Timestamp::now().as_second().saturating_sub(seconds(back))
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// The second that an id names.
fn made(id: &ObjectId) -> i64 {
    id.timestamp().timestamp_millis().div_euclid(1000)
}

/// Before every id of this second.
fn first_of(second: i64) -> ObjectId {
    let second = u32::try_from(second.max(0)).unwrap_or(u32::MAX);
    ObjectId::from_parts(second, [0; 5], [0; 3])
}

/// `<second>-t<token>`, or `<second>-i<id>`: the id only makes positions differ.
fn position(place: &Place, id: &str) -> String {
    let second = place.second;
    if let Some(token) = &place.token {
        let exact = format!("{second:x}-t{token}");
        if exact.len() <= LONGEST_POSITION {
            return exact;
        }
    }
    // A token begins with the time of its change.
    let id = place.token.as_deref().unwrap_or(id);
    let id = id.chars().filter(char::is_ascii_alphanumeric);
    let id: String = id.take(64).collect();
    format!("{second:x}-i{id}")
}

/// One that no event has.
fn another(place: &Place) -> String {
    position(place, &format!("{:016x}", rand::random::<u64>()))
}

fn parse(position: &str) -> Option<Place> {
    let (second, rest) = position.split_once('-')?;
    let second = i64::from_str_radix(second, 16)
        .ok()
        .filter(|second| *second >= 0)?;
    let alphanumeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if position.len() > LONGEST_POSITION || !alphanumeric(rest) {
        return None;
    }
    let token = match rest.split_at_checked(1)? {
        ("t", token) if !token.is_empty() => Some(token.to_owned()),
        ("i", _) => None,
        _ => return None,
    };
    Some(Place { second, token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Collections;

    async fn follower(reading: Reading, begun: i64) -> Follower {
        let (url, timeout) = ("mongodb://127.0.0.1:1/d", Duration::from_secs(1));
        let store = MongoStore::connect(url, timeout, &Collections::default()).await;
        Follower {
            store: store.expect("a store that nobody asks"),
            awaits: PATIENCE,
            reading,
            place: Place {
                second: 0,
                token: None,
            },
            position: String::new(),
            scan: None,
            until: None,
            begun,
            meets_all: false,
            seen: BTreeSet::new(),
            pending: VecDeque::new(),
        }
    }

    #[tokio::test]
    async fn a_look_remembers_only_what_the_next_one_may_meet() {
        let now = 1_700_000_000;
        let made = |ages: &[i64]| -> Vec<ObjectId> {
            let ids = ages.iter().map(|age| first_of(now - age));
            ids.collect()
        };
        let by_ids = Reading::Ids {
            deep_at: Instant::now(),
        };
        for (reading, remembered) in [(by_ids, 2), (Reading::Changes(None), 0)] {
            let mut follower = follower(reading, now).await;
            follower.meet(made(&[100_000, 66, 65, 0]));
            assert_eq!(follower.pending.len(), 4);
            assert_eq!(follower.seen.len(), remembered);
            let places = follower.pending.iter();
            let ages: Vec<_> = places.map(|(_, place)| now - place.second).collect();
            assert_eq!(ages, [100_000, 66, 65, 65]);
            if remembered > 0 {
                follower.meet(made(&[65, 30, 0]));
                let last = follower.pending.pop_back().map(|(id, _)| id);
                assert_eq!(last, Some(Bson::ObjectId(first_of(now - 30))));
                assert_eq!(follower.pending.len(), 4);
            }
        }
    }

    #[tokio::test]
    async fn no_place_is_left_ahead_of_a_clock_that_was_put_back() {
        let now = earliest(Duration::ZERO);
        for (second, is_ahead) in [(now + 7200, true), (now - 7200, false)] {
            let by_ids = Reading::Ids {
                deep_at: Instant::now(),
            };
            let mut follower = follower(by_ids, now + 7200).await;
            follower.place.second = second;
            follower.position = position(&follower.place, "65f0c0ffee");
            let former = follower.position.clone();
            follower.next_scan().await;
            assert!(follower.place.second <= earliest(OVERLAP), "{second}");
            assert_eq!(follower.position != former, is_ahead);
            assert_eq!(parse(&follower.position), Some(follower.place));
        }
    }

    #[test]
    fn a_position_reads_back() {
        let second = 1_700_000_000;
        let token = |length: usize| Some("8".repeat(length));
        let longest = LONGEST_POSITION - format!("{second:x}-t").len();
        for (token, read) in [
            (None, None),
            (token(82), token(82)),
            // Of events with long ids.
            (token(longest), token(longest)),
            (token(longest + 1), None),
        ] {
            let text = position(&Place { second, token }, "65f0c0ffee");
            let place = Place {
                second,
                token: read,
            };
            assert_eq!(parse(&text), Some(place), "{text}");
        }
        for bad in [
            "",
            "x",
            "5-",
            "5-t",
            "5-x1",
            "-5-i1",
            "5-t1\n2",
            "5-té",
            "0000000000000012",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
