//! Remembers every event that a source has promised and tells whether the timeline says the same.
//!
//! Two halves. While a Daybook runs, [`Oracle::watch`] looks at it again and again: bytes in
//! flight within their limit, cursors only forward, generations only up. When faults have stopped,
//! [`Oracle::settled`] waits for everything promised and [`Oracle::judge`] holds the rest against
//! the invariants: each event once, none invented, each saying what was promised and entered for
//! whose it is, the accounts adding up, nothing left in flight, and an older generation still fenced.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daybook::event::SourceName;
use daybook::event::mask::MASK;
use daybook::store::{
    Commit, CursorMove, CursorStep, EventFilter, MoveFate, PageKey, Store, StoredEvent,
};
use daybook::tree::Daybook;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::whose;
use crate::world::sum_of;

/// Between two looks at a running Daybook.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the accounts may take to add up when all is stored.
const BALANCE_LIMIT: Duration = Duration::from_secs(120);
/// Sources write times in whole seconds, and not at once.
const SLACK: SignedDuration = SignedDuration::from_secs(3);

/// Where a stored event shows which promise it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyIn {
    /// The `externalId` itself.
    ExternalId,
    /// What follows the last colon of the `externalId`: a byte offset.
    Offset,
    /// `data.promise` of the payload.
    Payload,
}

/// A promised event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Promise {
    /// Whose.
    pub source: String,
    /// Its key there.
    pub key: String,
}

/// What a promised event says, and whose it is.
struct Said {
    payload: Value,
    tenant: Option<String>,
}

#[derive(Default)]
struct Book {
    promised: HashMap<Promise, Said>,
    pending: HashSet<Promise>,
    /// Pieces of input by source, those left out included.
    said: HashMap<String, u64>,
    violations: BTreeSet<String>,
    looks: u64,
}

/// See the module. Clones share the book.
#[derive(Clone)]
pub struct Oracle {
    keys: Arc<BTreeMap<&'static str, KeyIn>>,
    book: Arc<Mutex<Book>>,
}

/// A running [`Oracle::watch`]; ends when it is dropped.
pub struct Watch {
    _task: JoinSet<()>,
}

impl Oracle {
    /// An oracle for these sources.
    pub fn new(sources: impl IntoIterator<Item = (&'static str, KeyIn)>) -> Self {
        Self {
            keys: Arc::new(sources.into_iter().collect()),
            book: Arc::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the source says this from now on, which is this tenant's or nobody's.
    pub fn promise(
        &self,
        source: &str,
        key: String,
        payload: Value,
        tenant: Option<&str>,
    ) -> Promise {
        let promise = Promise {
            source: source.to_owned(),
            key,
        };
        let mut book = self.book();
        *book.said.entry(source.to_owned()).or_default() += 1;
        book.pending.insert(promise.clone());
        let said = Said {
            payload,
            tenant: tenant.map(str::to_owned),
        };
        let former = book.promised.insert(promise.clone(), said);
        assert!(former.is_none(), "{promise:?} is promised twice");
        promise
    }

    /// How many events were promised.
    pub fn promised(&self) -> usize {
        self.book().promised.len()
    }

    /// Notes that the source says something that is left out on purpose.
    pub fn left_out(&self, source: &str) {
        *self.book().said.entry(source.to_owned()).or_default() += 1;
    }

    fn violated(&self, what: String) {
        self.book().violations.insert(what);
    }

    /// Looks at a running Daybook until the watch is dropped.
    pub fn watch(&self, daybook: &Daybook) -> Watch {
        let mut task = JoinSet::new();
        let (oracle, store) = (self.clone(), Arc::clone(daybook.store()));
        let budget = daybook.budget().clone();
        task.spawn(async move {
            let mut last: HashMap<String, (u64, u64)> = HashMap::new();
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                looks.tick().await;
                let (used, limit) = (budget.in_use(), budget.limit());
                if used > limit {
                    oracle.violated(format!("bounded: {used} bytes in flight of {limit}"));
                }
                let Ok(cursors) = store.cursors().await else {
                    continue;
                };
                oracle.book().looks += 1;
                for cursor in cursors {
                    let now = (cursor.generation, cursor.seq);
                    let before = last.insert(cursor.source.clone(), now).unwrap_or_default();
                    if now.0 < before.0 || now.1 < before.1 {
                        let source = cursor.source;
                        oracle.violated(format!(
                            "no gap: cursor of {source} went from {before:?} back to {now:?}"
                        ));
                    }
                }
            }
        });
        Watch { _task: task }
    }

    /// Which of these events the store holds.
    pub async fn stored(
        &self,
        store: &dyn Store,
        promises: &[Promise],
        since: Timestamp,
    ) -> Vec<Promise> {
        let events = self.read(store, Some(since)).await;
        let held: HashSet<Promise> = events.iter().map(|event| self.promise_of(event)).collect();
        promises
            .iter()
            .filter(|promise| held.contains(promise))
            .cloned()
            .collect()
    }

    /// Whether everything promised is stored and nothing is in flight; checks the events found on
    /// the way. `since`: nothing that is still missing happened before.
    pub async fn settled(&self, daybook: &Daybook, since: Timestamp) -> bool {
        let events = self.read(&**daybook.store(), Some(since)).await;
        self.check(&events);
        let pending = self.book().pending.len();
        pending == 0 && self.unbalanced(daybook).is_empty()
    }

    /// What is still missing or out of balance, for a message.
    pub fn missing(&self, daybook: &Daybook) -> String {
        let pending: BTreeSet<Promise> = self.book().pending.iter().cloned().collect();
        let shown: Vec<&Promise> = pending.iter().take(5).collect();
        let unbalanced = self.unbalanced(daybook);
        let states: Vec<String> = daybook
            .board()
            .sources()
            .iter()
            .map(|source| serde_json::to_string(&source.view()).unwrap_or_default())
            .collect();
        let states = states.join("\n");
        format!(
            "{} missing, such as {shown:?}; {unbalanced:?}\n{states}",
            pending.len()
        )
    }

    /// Every invariant that does not hold now, when everything is settled, or did not hold on the
    /// way. `since: None` reads the whole timeline.
    pub async fn judge(&self, daybook: &Daybook, since: Option<Timestamp>) -> Vec<String> {
        let events = self.read(&**daybook.store(), since).await;
        self.check(&events);
        if since.is_none() && events.len() != self.promised() {
            let (stored, promised) = (events.len(), self.promised());
            self.violated(format!("once: {stored} events stored, {promised} promised"));
        }
        // A source that looks for more holds room for a moment, and an answer may be on its way.
        let balanced = async || self.unbalanced(daybook).is_empty();
        if !within(BALANCE_LIMIT, balanced).await {
            for unbalanced in self.unbalanced(daybook) {
                self.violated(unbalanced);
            }
        }
        self.check_fences(&**daybook.store()).await;
        match daybook.store().dead_letters(10).await {
            Ok(letters) if letters.is_empty() => {}
            letters => self.violated(format!(
                "no alteration: dead letters of good input: {letters:?}"
            )),
        }
        let book = self.book();
        let missing = book.pending.iter();
        let missing = missing.map(|promise| format!("no gap: {promise:?} is not stored"));
        let mut violations: Vec<String> = missing.take(10).collect();
        violations.extend(book.violations.iter().cloned());
        if book.looks == 0 {
            violations.push("nobody watched".to_owned());
        }
        violations
    }

    fn promise_of(&self, event: &StoredEvent) -> Promise {
        let key = match self.keys.get(event.source.as_str()) {
            Some(KeyIn::Offset) => event.external_id.rsplit(':').next().map(str::to_owned),
            Some(KeyIn::Payload) => {
                let promise = event.metadata.get("data").map(|data| &data["promise"]);
                promise.and_then(|promise| promise.as_str().map(str::to_owned))
            }
            Some(KeyIn::ExternalId) | None => Some(event.external_id.clone()),
        };
        Promise {
            source: event.source.clone(),
            key: key.unwrap_or_default(),
        }
    }

    fn check(&self, events: &[StoredEvent]) {
        let mut seen = HashSet::new();
        let mut book = self.book();
        for event in events {
            let promise = self.promise_of(event);
            if !seen.insert(promise.clone()) {
                book.violations
                    .insert(format!("once: {promise:?} is stored twice"));
            }
            let first_seen = book.pending.remove(&promise);
            let wrong = match book.promised.get(&promise) {
                None => Some(format!("no invention: {promise:?} was never promised")),
                Some(_) if !first_seen => None,
                Some(said) if !says(&Value::Object(event.metadata.clone()), &said.payload) => {
                    Some(format!("no alteration: {promise:?} says something else"))
                }
                Some(said) => whose::amiss(event, said.tenant.as_deref())
                    .map(|amiss| format!("isolated: {amiss}")),
            };
            book.violations.extend(wrong);
        }
    }

    /// Conservation per source, nothing in flight or in a mailbox. An input that was received and
    /// whose end was missed must not be made up for by leaving out the next one.
    fn unbalanced(&self, daybook: &Daybook) -> Vec<String> {
        let mut unbalanced = Vec::new();
        // All that is summed below, many times over: a small part of a scrape.
        let scrape = daybook.metrics().render();
        let is_summed = |line: &&str| {
            line.contains("daybook_events_") || line.contains("daybook_actor_mailbox_")
        };
        let metrics: Vec<&str> = scrape.lines().filter(is_summed).collect();
        let metrics = metrics.join("\n");
        for source in daybook.board().sources() {
            let label = format!("source=\"{}\"", source.name);
            let sum =
                |name: &str| sum_of(&metrics, &format!("daybook_events_{name}_total"), &label);
            let became = ["written", "duplicate", "filtered", "dead_lettered"].map(sum);
            let (received, became) = (sum("received"), became.iter().sum::<f64>());
            let said = self.book().said.get(source.name.as_str()).copied();
            let said = said.unwrap_or_default() as f64;
            if received < said {
                let name = &source.name;
                unbalanced.push(format!(
                    "conservation: {name} received {received} of {said}"
                ));
            }
            if received != became {
                let name = &source.name;
                unbalanced.push(format!(
                    "conservation: {name} received {received}, of which became {became}"
                ));
            }
        }
        let in_flight = daybook.budget().in_use();
        if in_flight > 0 {
            unbalanced.push(format!("bounded: {in_flight} bytes in flight when idle"));
        }
        let journal = daybook.journal().map(|journal| journal.figures().bytes);
        if let Some(bytes @ 1..) = journal {
            unbalanced.push(format!(
                "live: {bytes} bytes of the journal are not drained"
            ));
        }
        let waiting = sum_of(&metrics, "daybook_actor_mailbox_messages", "");
        if waiting != 0.0 {
            unbalanced.push(format!("bounded: {waiting} messages wait when idle"));
        }
        unbalanced
    }

    /// An older generation must not move a cursor.
    async fn check_fences(&self, store: &dyn Store) {
        let cursors = store.cursors().await.unwrap_or_default();
        for cursor in cursors.iter().filter(|cursor| cursor.generation > 1) {
            let commit = Commit {
                moves: vec![CursorMove {
                    source: SourceName::new(&cursor.source),
                    generation: cursor.generation - 1,
                    step: CursorStep::Advance {
                        from: cursor.seq,
                        to: cursor.seq + 1,
                        detail: Value::Null,
                    },
                    last_event_at: None,
                    last_event_id: None,
                }],
                ..Commit::default()
            };
            let fate = store.commit(&commit).await.map(|committed| committed.moves);
            if !matches!(fate.as_deref(), Ok([MoveFate::Fenced { .. }])) {
                let source = &cursor.source;
                self.violated(format!(
                    "fenced: an older generation moved the cursor of {source}: {fate:?}"
                ));
            }
        }
    }

    /// All events, or those that happened since.
    async fn read(&self, store: &dyn Store, since: Option<Timestamp>) -> Vec<StoredEvent> {
        let filter = EventFilter {
            since: since.map(|since| since.checked_sub(SLACK).unwrap_or(since)),
            ..EventFilter::default()
        };
        let mut all: Vec<StoredEvent> = Vec::new();
        loop {
            let before = all.last().map(PageKey::of);
            // A store that is struck just now is asked again.
            let Ok(page) = store.find_events(&filter, before.as_ref(), 1000).await else {
                return all;
            };
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

async fn within(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let asked = async {
        while !condition().await {
            tokio::time::sleep(LOOK_EVERY / 4).await;
        }
    };
    tokio::time::timeout(limit, asked).await.is_ok()
}

/// The texts of the simulators that are secrets.
const SECRETS: [&str; 7] = [
    "body",
    "password",
    "InviteLink",
    "RecipientMail",
    "ShareID",
    "ShareToken",
    "Token",
];

/// Whether what is kept says all that was said, but for the secrets in it. More may be kept.
pub(crate) fn says(kept: &Value, said: &Value) -> bool {
    match (kept, said) {
        (Value::Object(kept), Value::Object(said)) => said.iter().all(|(key, said)| {
            kept.get(key)
                .is_some_and(|kept| says(kept, said) || masks(key, kept, said).unwrap_or_default())
        }),
        (Value::Array(kept), Value::Array(said)) => {
            kept.len() == said.len() && kept.iter().zip(said).all(|(kept, said)| says(kept, said))
        }
        (kept, said) => kept == said,
    }
}

/// Whether the text under this key is kept with nothing but a secret masked; `None`: it is no text.
fn masks(key: &str, kept: &Value, said: &Value) -> Option<bool> {
    let (kept, said) = (kept.as_str()?, said.as_str()?);
    if key != "Message" {
        return Some(SECRETS.contains(&key) && kept == MASK && !said.is_empty());
    }
    // A token is a part of a word.
    let agrees = |(kept, said): (&str, &str)| match kept.split_once(MASK) {
        Some((before, after)) => said.starts_with(before) && said.ends_with(after),
        None => kept == said,
    };
    let (kept_words, words) = (kept.split(' '), said.split(' '));
    Some(kept_words.clone().count() == words.clone().count() && kept_words.zip(words).all(agrees))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{KeyIn, Oracle, says};
    use crate::whose::tests::stored;

    #[test]
    fn an_event_that_is_entered_for_another_tenant_is_a_violation() {
        for (tenant, violations) in [(Some("acme"), 0), (Some("globex"), 1), (None, 1)] {
            let oracle = Oracle::new([("platform-api", KeyIn::ExternalId)]);
            let promised = Value::Object(serde_json::Map::new());
            oracle.promise("platform-api", "1".to_owned(), promised, Some("acme"));
            oracle.check(&[stored(tenant, "alice")]);
            let book = oracle.book();
            assert_eq!(book.violations.len(), violations, "{:?}", book.violations);
            let mut told = book.violations.iter();
            assert!(told.all(|told| told.starts_with("isolated")));
        }
    }

    #[test]
    fn what_is_kept_may_be_masked_or_more_but_never_other() {
        let said = json!({ "a": [1, { "b": "text" }], "Token": "x1", "Message": "with 'x1' made" });
        let kept = json!({
            "a": [1, { "b": "text", "c": null }], "Token": "***", "Message": "with '***' made", "more": 1,
        });
        assert!(says(&said, &said));
        assert!(says(&kept, &said));
        for (key, altered) in [
            ("a", json!([1, { "b": "other" }])),
            ("a", json!([1, { "b": "***" }])),
            ("a", json!([1])),
            ("a", json!("***")),
            ("Token", json!("x***")),
            ("Token", json!(null)),
            ("Message", json!("***")),
            ("Message", json!("with '***' gone")),
        ] {
            let mut kept = kept.clone();
            kept[key] = altered;
            assert!(!says(&kept, &said), "{kept}");
        }
    }
}
