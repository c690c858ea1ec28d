//! One flush: several batches, one commit, an answer for each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daybook_actors::liveness::Progress;

use crate::batch::{Delivery, Entry, Nack, Receipt, Reply, dead_letter_of};
use crate::event::{DeadLetter, DeadLetterReason};
use crate::probe::Probe;
use crate::store::{
    Commit, Committed, CursorMove, CursorStep, Fate, MoveFate, Record, Store, StoreError,
};
use crate::telemetry::incident::Incident;
use crate::telemetry::metrics::Metrics;

use super::Resolved;

/// What the reason for a failure over a dead letter begins with.
const LETTER_REFUSED: &str = "store refuses a dead letter";

/// Divides a commit that is larger than the store is believed to have time for.
pub(super) struct Divider {
    /// Entries of a part at most.
    pub most: usize,
    /// Shown between two commits.
    pub progress: Progress,
}

impl Divider {
    /// Commits, in parts where it must. The cursors move with the last, unless a record was refused: that is kept first.
    /// Of one that fails earlier parts stay; when it comes again, their records are duplicates.
    async fn commit(
        &self,
        store: &dyn Store,
        mut commit: Commit<'_>,
    ) -> Result<Committed, StoreError> {
        let mut fates = Vec::new();
        while commit.records.len() > self.most {
            let rest = commit.records.split_off(self.most);
            let part = Commit {
                records: std::mem::replace(&mut commit.records, rest),
                in_order: commit.in_order,
                ..Commit::default()
            };
            fates.extend(store.commit(&part).await?.records);
            self.progress.tick();
        }
        if fates.iter().any(is_refused) {
            commit.moves.clear();
        }
        let mut committed = store.commit(&commit).await?;
        fates.append(&mut committed.records);
        committed.records = fates;
        Ok(committed)
    }
}

/// Commits the batches together and answers each; whether the store took any.
///
/// # Errors
/// When the store is away: then every batch has been refused. Or when it has lost a cursor.
pub(super) async fn flush(
    store: Arc<dyn Store>,
    batches: Vec<Resolved>,
    divider: &Divider,
    metrics: &Metrics,
    probe: &Probe,
) -> Result<bool, StoreError> {
    let started = Instant::now();
    let handlings: Vec<_> = batches
        .iter()
        .map(|resolved| resolved.delivery.custody.begin())
        .collect();
    let outcome = match probe.hit("before_insert").await {
        Ok(()) => commit(&*store, &batches, divider, metrics).await,
        Err(struck) => Err(StoreError::Unavailable(struck.to_string())),
    };
    for handling in handlings {
        handling.finish();
    }
    metrics
        .writer_flush_seconds
        .record(started.elapsed().as_secs_f64());
    match outcome {
        Ok(replies) => {
            let entries: usize = batches.iter().map(|resolved| resolved.tenants.len()).sum();
            metrics.writer_batch_events.record(entries as f64);
            if let Err(struck) = probe.hit("between_cursor_and_ack").await {
                return Err(StoreError::Unavailable(struck.to_string()));
            }
            let lost = lost_cursor(&batches, &replies);
            for (resolved, reply) in batches.into_iter().zip(replies) {
                answer(resolved.delivery, reply);
            }
            lost.map_or(Ok(true), Err)
        }
        Err(error) if !error.is_away() && batches.len() > 1 => {
            note(&error, metrics);
            one_by_one(&*store, batches, divider, metrics).await
        }
        Err(error) => {
            note(&error, metrics);
            let nack = nack_of(&error);
            for resolved in batches {
                answer(resolved.delivery, Err(nack.clone()));
            }
            if error.is_away() {
                Err(error)
            } else {
                Ok(false)
            }
        }
    }
}

/// The store failed at something in the flush: find out in which batch, so that the others go on.
async fn one_by_one(
    store: &dyn Store,
    batches: Vec<Resolved>,
    divider: &Divider,
    metrics: &Metrics,
) -> Result<bool, StoreError> {
    let mut away = None;
    let mut took = false;
    for resolved in batches {
        divider.progress.tick();
        // It took a while to come to this one, and who has given up sends it again.
        if resolved.delivery.reply.is_closed() {
            continue;
        }
        let reply = match &away {
            None => {
                let handling = resolved.delivery.custody.begin();
                let alone = std::slice::from_ref(&resolved);
                let reply = commit(store, alone, divider, metrics).await;
                handling.finish();
                reply
            }
            Some(error) => Err(StoreError::Unavailable(format!("{error}"))),
        };
        match reply {
            Ok(replies) => {
                took = true;
                away = lost_cursor(std::slice::from_ref(&resolved), &replies);
                let reply = replies
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| Ok(Receipt::default()));
                answer(resolved.delivery, reply);
            }
            Err(error) => {
                note(&error, metrics);
                answer(resolved.delivery, Err(nack_of(&error)));
                if error.is_away() {
                    away = Some(error);
                }
            }
        }
    }
    away.map_or(Ok(took), Err)
}

/// A store that has lost a cursor may have lost its indexes too: what comes again waits until they stand.
fn lost_cursor(batches: &[Resolved], replies: &[Reply]) -> Option<StoreError> {
    let is_lost = |reply: &Reply| matches!(reply, Err(Nack::Fenced { owner: 0 }));
    let (resolved, _) = batches
        .iter()
        .zip(replies)
        .find(|(_, reply)| is_lost(reply))?;
    let source = &resolved.delivery.batch.source;
    let reason = format!("it has lost the cursor of {source}");
    Some(StoreError::Unavailable(reason))
}

/// Counts a failure, and tells of one that opens no breaker: nobody else does.
fn note(error: &StoreError, metrics: &Metrics) {
    static FAILING: Mutex<Incident> = Mutex::new(Incident::new());
    metrics.store_errors(error.reason()).increment(1);
    if error.is_away() {
        return;
    }
    let failing = FAILING.lock();
    let untold = failing.unwrap_or_else(PoisonError::into_inner).note();
    if let Some(untold) = untold {
        tracing::warn!(error = %error, untold, "store fails at a batch");
    }
}

fn nack_of(error: &StoreError) -> Nack {
    match error {
        StoreError::Other(reason) => Nack::Failed {
            reason: reason.clone(),
            refuses_letter: reason.starts_with(LETTER_REFUSED),
        },
        error => Nack::Unavailable {
            retry_after: Duration::from_millis(200),
            reason: error.to_string(),
        },
    }
}

/// Answers; a source that has given up waiting has its batch still and will send it again.
pub(super) fn answer(delivery: Delivery, reply: Reply) {
    // A closed port means that the source is gone or has stopped waiting.
    let _gone = delivery.reply.send(reply);
}

async fn commit(
    store: &dyn Store,
    batches: &[Resolved],
    divider: &Divider,
    metrics: &Metrics,
) -> Result<Vec<Reply>, StoreError> {
    let mut committed = divider.commit(store, commit_of(batches)).await?;
    let letters = letters_instead(batches, &committed.records)?;
    if letters.iter().any(Option::is_some) {
        // All others are durable and nothing has moved. A dead letter that is sent again counts again.
        let mut rest = commit_of(batches);
        rest.records = letters.iter().flatten().map(Record::DeadLetter).collect();
        let entered = divider.commit(store, rest).await?;
        let refused = committed.records.iter_mut().filter(|fate| is_refused(fate));
        for (fate, entered) in refused.zip(entered.records) {
            if let Fate::Rejected(why) = &entered {
                return Err(letter_refused(why));
            }
            *fate = entered;
        }
        committed.moves = entered.moves;
    }
    Ok(replies(batches, &committed, &letters, metrics))
}

fn commit_of(batches: &[Resolved]) -> Commit<'_> {
    let mut commit = Commit::default();
    for resolved in batches {
        let batch = &resolved.delivery.batch;
        for (entry, tenant) in batch.entries().iter().zip(&resolved.tenants) {
            commit.records.push(match entry {
                Entry::Dead(letter) => Record::DeadLetter(letter),
                Entry::Event(event, _) => Record::Event {
                    event,
                    tenant_slug: tenant.as_deref(),
                },
            });
        }
        commit.moves.push(CursorMove {
            source: batch.source.clone(),
            generation: batch.generation,
            step: batch.step.clone(),
            last_event_at: batch.newest_at(),
            last_event_id: batch.last_event_id.clone(),
        });
        commit.learned.extend(resolved.learned.iter().cloned());
        commit.in_order |= batch.in_order;
    }
    commit
}

/// One per entry: the dead letter that is kept in the place of a refused event.
fn letters_instead(
    batches: &[Resolved],
    fates: &[Fate],
) -> Result<Vec<Option<DeadLetter>>, StoreError> {
    let entries = batches
        .iter()
        .flat_map(|resolved| resolved.delivery.batch.entries());
    let letters = entries.zip(fates).map(|(entry, fate)| match (fate, entry) {
        (Fate::Written | Fate::Duplicate, _) => Ok(None),
        (Fate::Rejected(why), Entry::Event(event, hints)) => {
            let reason = DeadLetterReason::Rejected;
            Ok(Some(dead_letter_of(event, hints, reason, why)))
        }
        (Fate::Rejected(why), Entry::Dead(_)) => Err(letter_refused(why)),
    });
    letters.collect()
}

fn is_refused(fate: &Fate) -> bool {
    matches!(fate, Fate::Rejected(_))
}

/// No way to keep it, so nothing may be acknowledged.
fn letter_refused(why: &str) -> StoreError {
    StoreError::Other(format!("{LETTER_REFUSED}: {why}"))
}

fn replies(
    batches: &[Resolved],
    committed: &Committed,
    instead: &[Option<DeadLetter>],
    metrics: &Metrics,
) -> Vec<Reply> {
    let mut offset = 0;
    batches
        .iter()
        .zip(&committed.moves)
        .map(|(resolved, moved)| {
            let from = offset;
            offset += resolved.tenants.len();
            let is_touch = matches!(resolved.delivery.batch.step, CursorStep::Touch);
            match moved {
                MoveFate::Gap { stored } if !is_touch => return Err(Nack::Gap { stored: *stored }),
                MoveFate::Fenced { owner } if !is_touch => {
                    return Err(Nack::Fenced { owner: *owner });
                }
                _ => {}
            }
            Ok(receipt(
                resolved,
                &committed.records[from..offset],
                &instead[from..offset],
                metrics,
            ))
        })
        .collect()
}

fn receipt(
    resolved: &Resolved,
    fates: &[Fate],
    instead: &[Option<DeadLetter>],
    metrics: &Metrics,
) -> Receipt {
    let mut receipt = Receipt::default();
    let entries = resolved.delivery.batch.entries();
    for (index, (entry, fate)) in entries.iter().zip(fates).enumerate() {
        let dead = instead[index].as_ref().or(match entry {
            Entry::Dead(letter) => Some(letter),
            Entry::Event(..) => None,
        });
        // No decoder gives these reasons.
        if let Some(DeadLetterReason::Rejected | DeadLetterReason::Poison) =
            dead.map(|letter| letter.reason)
        {
            receipt.kept_aside += 1;
        }
        match (dead, fate) {
            (Some(letter), Fate::Written) => receipt.count_dead(letter.reason),
            (_, Fate::Written) => {
                receipt.written += 1;
                if let Entry::Event(event, _) = entry {
                    metrics.count_security(event);
                }
                if resolved.tenants[index].is_none() {
                    receipt.unresolved += 1;
                }
            }
            _ => receipt.duplicate += 1,
        }
    }
    receipt
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use daybook_actors::budget::Budget;
    use daybook_actors::delivery::{Custody, Fate as Handled};
    use futures_util::FutureExt;
    use jiff::Timestamp;
    use serde_json::Value;
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::batch::Batch;
    use crate::config::Collections;
    use crate::event::{Actor, AuditEvent, SourceName, Target, TenantHints};
    use crate::store::EventFilter;
    use crate::store::sqlite::SqliteStore;
    use crate::telemetry::captured::Captured;

    /// A store whose events meet this trigger.
    async fn store_with(trigger: &str, dir: &Path) -> SqliteStore {
        let path = dir.join("daybook.db");
        let collections = Collections::default();
        let store = SqliteStore::open(&path, Duration::from_secs(30), &collections).unwrap();
        store.prepare().await.unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(trigger).unwrap();
        store
    }

    fn event(key: &str) -> Entry {
        let event = AuditEvent {
            at: Timestamp::UNIX_EPOCH,
            source: SourceName::new("s"),
            external_id: key.to_owned(),
            action: "a.b".into(),
            outcome: None,
            actor: Actor::default(),
            target: Target::default(),
            tenant_slug: None,
            metadata: serde_json::Map::new().into(),
        };
        Entry::Event(Box::new(event), TenantHints::default())
    }

    fn letter(position: &str, reason: DeadLetterReason) -> Entry {
        Entry::Dead(DeadLetter {
            source: SourceName::new("s"),
            position: position.to_owned(),
            reason,
            detail: String::new(),
            raw: Bytes::new(),
            raw_length: 0,
            at: Timestamp::UNIX_EPOCH,
        })
    }

    fn resolved(generation: u64, entries: Vec<Entry>) -> (Resolved, Receiver<Reply>) {
        let permit = Budget::new(1).try_acquire(1).unwrap();
        let tenants = vec![None; entries.len()];
        let batch = Batch::new(SourceName::new("s"), generation, entries, permit);
        let (reply, answer) = tokio::sync::oneshot::channel::<Reply>();
        let resolved = Resolved {
            delivery: Delivery {
                batch: batch.with_step(0, 10, Value::Null),
                custody: Custody::new(),
                in_mailbox: None,
                suspect: false,
                reply: reply.into(),
            },
            tenants,
            learned: Vec::new(),
        };
        (resolved, answer)
    }

    fn divider(most: usize) -> Divider {
        Divider {
            most,
            progress: Progress::on_demand(),
        }
    }

    #[tokio::test]
    async fn a_dead_letter_beside_a_refused_event_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        // It is refused as a row is that is too large.
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON auditevents
            WHEN NEW.externalId = 'huge' BEGIN SELECT zeroblob(2000000000); END";
        let store = store_with(refuse, dir.path()).await;
        let cursor = store.claim_cursor(&SourceName::new("s")).await.unwrap();

        // A repeat enters nothing, and is told of the same events that they are kept aside.
        for (time, [written, duplicate, dead]) in [(1, [1, 0, 3]), (2, [0, 4, 0])] {
            let entries = vec![
                letter("unreadable", DeadLetterReason::Malformed),
                letter("poisonous", DeadLetterReason::Poison),
                event("huge"),
                event("good"),
            ];
            let batches = [resolved(cursor.generation, entries).0];
            let whole = divider(usize::MAX);
            let replies = commit(&store, &batches, &whole, &Metrics::new()).await;
            let replies = replies.unwrap();
            let receipt = replies[0].clone().unwrap();
            assert_eq!((receipt.written, receipt.duplicate), (written, duplicate));
            assert_eq!(receipt.dead.iter().sum::<u64>(), dead);
            assert_eq!(receipt.kept_aside, 2);
            let letters = store.dead_letters(10).await.unwrap();
            let attempts: Vec<u64> = letters.iter().map(|letter| letter.attempts).collect();
            assert_eq!(attempts, [time; 3]);
            assert_eq!(store.cursors().await.unwrap()[0].seq, 10);
        }
    }

    /// Or its sender would take it for one that waits, and for innocent where its handler dies over it.
    #[tokio::test]
    async fn a_batch_that_is_committed_alone_is_being_handled() {
        let dir = tempfile::tempdir().unwrap();
        let store = store_with("", dir.path()).await;
        let cursor = store.claim_cursor(&SourceName::new("s")).await.unwrap();
        let lock = rusqlite::Connection::open(dir.path().join("daybook.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (batch, _answer) = resolved(cursor.generation, vec![event("a")]);
        let custody = batch.delivery.custody.clone();
        let (whole, metrics) = (divider(usize::MAX), Metrics::new());
        let flush = one_by_one(&store, vec![batch], &whole, &metrics);
        assert!(flush.now_or_never().is_none());
        assert_eq!(custody.fate(), Handled::Interrupted);
        lock.execute_batch("COMMIT").unwrap();
    }

    /// Its letter may never be kept.
    #[tokio::test]
    async fn a_cursor_stands_while_an_event_of_an_earlier_part_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON auditevents
            WHEN NEW.externalId = 'huge' BEGIN SELECT zeroblob(2000000000); END;
            CREATE TRIGGER fail BEFORE INSERT ON auditdeadletters
            BEGIN SELECT RAISE(ABORT, 'an odd failure'); END";
        let store = store_with(refuse, dir.path()).await;
        let cursor = store.claim_cursor(&SourceName::new("s")).await.unwrap();
        let entries = vec![event("huge"), event("a"), event("b")];
        let batches = [resolved(cursor.generation, entries).0];
        let replies = commit(&store, &batches, &divider(2), &Metrics::new()).await;
        assert!(replies.is_err(), "{replies:?}");
        assert_eq!(store.cursors().await.unwrap()[0].seq, 0);
    }

    /// And each is progress: many slow ones would be taken for one that hangs.
    #[tokio::test]
    async fn what_a_store_says_that_fails_at_batches_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let fail = "CREATE TRIGGER fail BEFORE INSERT ON auditevents
            BEGIN SELECT RAISE(ABORT, 'an odd failure'); END";
        let store: Arc<dyn Store> = Arc::new(store_with(fail, dir.path()).await);
        let (whole, metrics, probe) = (divider(usize::MAX), Metrics::new(), Probe::default());
        let (captured, _guard) = Captured::begin();
        let _working = whole.progress.work();
        let begun = tokio::time::Instant::now();
        assert!(whole.progress.stalled_for(begun).is_some());
        for _ in 0..10 {
            let batches = ["a", "b"].map(|key| resolved(1, vec![event(key)]));
            let (batches, _answers): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
            let taken = flush(Arc::clone(&store), batches, &whole, &metrics, &probe).await;
            assert!(matches!(taken, Ok(false)), "{taken:?}");
        }
        assert_eq!(whole.progress.stalled_for(begun), None);
        let told = captured.lines_with("store fails at a batch");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("an odd failure"), "{told:?}");
        a_batch_whose_sender_gives_up_while_another_fails_is_not_entered().await;
    }

    /// Not beside the test that calls it: what a store says is told once in the whole process.
    async fn a_batch_whose_sender_gives_up_while_another_fails_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let fail = "CREATE TRIGGER fail BEFORE INSERT ON auditevents
            WHEN NEW.externalId = 'odd' BEGIN SELECT RAISE(ABORT, 'an odd failure'); END";
        let store: Arc<dyn Store> = Arc::new(store_with(fail, dir.path()).await);
        let cursor = store.claim_cursor(&SourceName::new("s")).await.unwrap();
        let batch = |key| resolved(cursor.generation, vec![event(key)]);
        let [(odd, failed), (abandoned, given_up), (kept, answer)] =
            ["odd", "abandoned", "kept"].map(batch);
        drop(given_up);
        let (whole, metrics, probe) = (divider(usize::MAX), Metrics::new(), Probe::default());
        let batches = vec![odd, abandoned, kept];
        let taken = flush(Arc::clone(&store), batches, &whole, &metrics, &probe).await;
        assert!(matches!(taken, Ok(true)), "{taken:?}");
        let reply = failed.await.unwrap();
        assert!(matches!(reply, Err(Nack::Failed { .. })), "{reply:?}");
        assert_eq!(answer.await.unwrap().unwrap().written, 1);
        let entered = store.find_events(&EventFilter::default(), None, 10).await;
        let entered = entered.unwrap().into_iter().map(|event| event.external_id);
        assert_eq!(entered.collect::<Vec<_>>(), ["kept"]);
    }
}
