//! One flush: several batches, one commit, an answer for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Delivery, Entry, Nack, Receipt, Reply, dead_letter_of};
use crate::event::{DeadLetter, DeadLetterReason};
use crate::probe::Probe;
use crate::store::{
    Commit, Committed, CursorMove, CursorStep, Fate, MoveFate, Record, Store, StoreError,
};
use crate::telemetry::metrics::Metrics;

use super::Resolved;

/// What the reason for a failure over a dead letter begins with.
const LETTER_REFUSED: &str = "store refuses a dead letter";

/// Commits the batches together and answers each; whether the store took any.
///
/// # Errors
/// When the store is away: then every batch has been refused.
pub(super) async fn flush(
    store: Arc<dyn Store>,
    batches: Vec<Resolved>,
    metrics: &Metrics,
    probe: &Probe,
) -> Result<bool, StoreError> {
    let started = Instant::now();
    let handlings: Vec<_> = batches
        .iter()
        .map(|resolved| resolved.delivery.custody.begin())
        .collect();
    let outcome = match probe.hit("before_insert").await {
        Ok(()) => commit(&*store, &batches, metrics).await,
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
            for (resolved, reply) in batches.into_iter().zip(replies) {
                answer(resolved.delivery, reply);
            }
            Ok(true)
        }
        Err(error @ StoreError::Other(_)) if batches.len() > 1 => {
            metrics.store_errors(error.reason()).increment(1);
            one_by_one(&*store, batches, metrics).await
        }
        Err(error) => {
            metrics.store_errors(error.reason()).increment(1);
            let nack = nack_of(&error);
            for resolved in batches {
                answer(resolved.delivery, Err(nack.clone()));
            }
            match error {
                StoreError::Other(_) => Ok(false),
                away => Err(away),
            }
        }
    }
}

/// The store failed at something in the flush: find out in which batch, so that the others go on.
async fn one_by_one(
    store: &dyn Store,
    batches: Vec<Resolved>,
    metrics: &Metrics,
) -> Result<bool, StoreError> {
    let mut away = None;
    let mut took = false;
    for resolved in batches {
        let reply = match &away {
            None => commit(store, std::slice::from_ref(&resolved), metrics).await,
            Some(error) => Err(StoreError::Unavailable(format!("{error}"))),
        };
        match reply {
            Ok(replies) => {
                took = true;
                let reply = replies
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| Ok(Receipt::default()));
                answer(resolved.delivery, reply);
            }
            Err(error) => {
                metrics.store_errors(error.reason()).increment(1);
                answer(resolved.delivery, Err(nack_of(&error)));
                if !matches!(error, StoreError::Other(_)) {
                    away = Some(error);
                }
            }
        }
    }
    away.map_or(Ok(took), Err)
}

fn nack_of(error: &StoreError) -> Nack {
    match error {
        StoreError::Other(reason) => Nack::Failed {
            reason: reason.clone(),
            refuses_letter: reason.starts_with(LETTER_REFUSED),
        },
        away => Nack::Unavailable {
            retry_after: Duration::from_millis(200),
            reason: away.to_string(),
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
    metrics: &Metrics,
) -> Result<Vec<Reply>, StoreError> {
    let mut rejected: Vec<Option<DeadLetter>> =
        vec![None; batches.iter().map(|b| b.tenants.len()).sum()];
    let mut first_fates: Option<Vec<Fate>> = None;
    loop {
        let committed = store.commit(&commit_of(batches, &rejected)).await?;
        let refused = refused_records(&committed);
        let any_refused = !refused.is_empty();
        let fates = merge(first_fates.take(), committed.records);
        if !any_refused {
            return Ok(replies(
                batches,
                &fates,
                &committed.moves,
                &rejected,
                metrics,
            ));
        }
        replace_refused(batches, &mut rejected, refused)?;
        first_fates = Some(fates);
    }
}

fn commit_of<'a>(batches: &'a [Resolved], rejected: &'a [Option<DeadLetter>]) -> Commit<'a> {
    let mut commit = Commit::default();
    let mut letters = rejected.iter();
    for resolved in batches {
        let batch = &resolved.delivery.batch;
        for (entry, tenant) in batch.entries().iter().zip(&resolved.tenants) {
            let letter = letters.next().and_then(Option::as_ref);
            commit.records.push(match (letter, entry) {
                (Some(letter), _) | (None, Entry::Dead(letter)) => Record::DeadLetter(letter),
                (None, Entry::Event(event, _)) => Record::Event {
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

fn refused_records(committed: &Committed) -> Vec<(usize, String)> {
    committed
        .records
        .iter()
        .enumerate()
        .filter_map(|(index, fate)| match fate {
            Fate::Rejected(why) => Some((index, why.clone())),
            Fate::Written | Fate::Duplicate => None,
        })
        .collect()
}

/// What was written in the first round comes back as a duplicate in the second: keep the first word.
fn merge(first: Option<Vec<Fate>>, now: Vec<Fate>) -> Vec<Fate> {
    let Some(first) = first else { return now };
    first
        .into_iter()
        .zip(now)
        .map(|(first, now)| match first {
            Fate::Rejected(_) => now,
            known => known,
        })
        .collect()
}

fn replace_refused(
    batches: &[Resolved],
    rejected: &mut [Option<DeadLetter>],
    refused: Vec<(usize, String)>,
) -> Result<(), StoreError> {
    let entries: Vec<&Entry> = batches
        .iter()
        .flat_map(|b| b.delivery.batch.entries())
        .collect();
    for (index, why) in refused {
        let letter = match (&rejected[index], entries[index]) {
            (None, Entry::Event(event, hints)) => {
                dead_letter_of(event, hints, DeadLetterReason::Rejected, &why)
            }
            // Even the dead letter is refused: no way to keep it, so nothing may be acknowledged.
            _ => {
                return Err(StoreError::Other(format!("{LETTER_REFUSED}: {why}")));
            }
        };
        rejected[index] = Some(letter);
    }
    Ok(())
}

fn replies(
    batches: &[Resolved],
    fates: &[Fate],
    moves: &[MoveFate],
    rejected: &[Option<DeadLetter>],
    metrics: &Metrics,
) -> Vec<Reply> {
    let mut offset = 0;
    batches
        .iter()
        .zip(moves)
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
                &fates[from..offset],
                &rejected[from..offset],
                metrics,
            ))
        })
        .collect()
}

fn receipt(
    resolved: &Resolved,
    fates: &[Fate],
    rejected: &[Option<DeadLetter>],
    metrics: &Metrics,
) -> Receipt {
    let mut receipt = Receipt::default();
    let entries = resolved.delivery.batch.entries();
    for (index, (entry, fate)) in entries.iter().zip(fates).enumerate() {
        let dead = rejected[index].as_ref().or(match entry {
            Entry::Dead(letter) => Some(letter),
            Entry::Event(..) => None,
        });
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
