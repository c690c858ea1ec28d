//! What every store must do, as one suite that each of them passes.
//!
//! Not part of the product: it stands here, hidden, so that a new store's tests can run it. Each
//! rule is a function of its own that panics when the store breaks it; each keeps to sources and
//! tenants of its own, so that all can run in one fresh store.

mod cursors;
mod events;
mod feed;
mod histograms;
mod hostile;
mod pages;
mod queries;
mod records;

pub use cursors::random_steps;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Commit, Committed, Cursor, CursorMove, CursorStep, EventFilter, Fate, MoveFate, Record, Store,
    StoredEvent,
};
use crate::event::{Actor, AuditEvent, DeadLetter, DeadLetterReason, Outcome, SourceName, Target};

/// A store under test.
pub type Subject = Arc<dyn Store>;

/// A rule at work.
pub type Check = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A rule: its name and how to check it.
pub type Rule = (&'static str, fn(Subject) -> Check);

macro_rules! rules {
    ($($module:ident :: $rule:ident),* $(,)?) => {
        /// Every rule, by module and name.
        pub const RULES: &[Rule] = &[$((
            concat!(stringify!($module), "::", stringify!($rule)),
            |store| Box::pin($module::$rule(store)),
        )),*];
    };
}

rules![
    records::preparing_again_changes_nothing,
    records::it_answers_a_ping,
    records::an_empty_commit_does_nothing,
    records::dead_letters_are_kept_once_and_counted,
    records::a_dead_letter_keeps_its_bytes,
    records::an_oversized_dead_letter_keeps_its_head,
    records::dead_letters_are_listed_by_what_they_are,
    records::a_dead_letter_is_found_and_deleted_by_its_id,
    records::what_is_old_is_deleted_oldest_first_in_bounded_steps,
    records::learned_spaces_are_remembered_and_corrected,
    records::tokens_are_found_until_they_end,
    events::an_event_reads_back_as_it_was_written,
    events::what_an_event_lacks_stays_absent,
    events::a_repeat_is_a_duplicate_and_changes_nothing,
    events::twins_in_one_commit_are_one_event,
    events::the_same_key_of_two_sources_is_two_events,
    events::a_large_commit_reports_each_record_at_its_index,
    events::a_rejected_record_moves_no_cursor,
    events::racing_commits_write_each_event_once,
    hostile::every_payload_reads_back_equal,
    hostile::hostile_texts_read_back_equal,
    hostile::random_payloads_read_back_equal,
    hostile::deeper_payloads_than_a_parser_reads_are_not_lost,
    cursors::a_claim_makes_a_cursor_and_fences_older_ones,
    cursors::an_advance_moves_covers_or_finds_a_gap,
    cursors::nobody_moves_an_unclaimed_cursor,
    cursors::what_a_move_leaves_out_stays,
    cursors::a_touch_needs_no_claim_and_moves_nothing,
    cursors::cursors_move_with_their_records,
    cursors::racing_claims_have_generations_of_their_own,
    cursors::one_of_many_racing_advances_wins,
    cursors::random_steps_agree_with_a_model,
    queries::each_condition_selects_what_it_says,
    queries::conditions_hold_together,
    queries::text_is_never_a_pattern,
    queries::a_part_is_found_wherever_it_ends,
    queries::any_part_of_an_odd_text_is_found_and_counted,
    queries::an_event_is_found_by_its_id_only,
    pages::pages_cover_ties_once_each,
    pages::pages_are_stable_under_inserts,
    pages::a_page_of_large_events_is_cut_and_the_next_goes_on,
    pages::a_page_of_long_names_is_cut_and_the_next_goes_on,
    feed::following_tells_what_is_entered_from_now_on,
    feed::following_goes_on_after_any_place,
    feed::following_says_when_it_has_met_everything,
    feed::following_takes_no_foreign_place,
    feed::following_tells_each_of_many_racing_events_once,
    feed::the_filter_in_memory_agrees_with_the_store,
    histograms::bars_count_what_the_list_finds,
    histograms::the_range_is_that_of_the_filter,
];

/// Runs every rule, one after the other, on a store that is fresh and prepared by nobody.
///
/// # Panics
/// At the first rule that the store breaks, after printing its name.
pub async fn run(store: Subject) {
    run_where(store, |_| true).await;
}

/// As [`run`], with only the rules whose name is wanted.
///
/// # Panics
/// At the first of them that the store breaks, after printing its name.
pub async fn run_where(store: Subject, is_wanted: impl Fn(&str) -> bool) {
    store.prepare().await.expect("prepare");
    store.begin_upkeep();
    for (name, check) in RULES.iter().filter(|(name, _)| is_wanted(name)) {
        println!("rule: {name}");
        check(Arc::clone(&store)).await;
    }
}

/// An event with little in it.
fn event(source: &str, external_id: &str) -> AuditEvent {
    AuditEvent {
        at: at(1_700_000_000_000),
        source: SourceName::new(source),
        external_id: external_id.to_owned(),
        action: "test.done".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: Map::new().into(),
    }
}

/// An event with everything in it.
fn full_event(source: &str, external_id: &str) -> AuditEvent {
    AuditEvent {
        outcome: Some(Outcome::Failure),
        actor: Actor {
            id: Some("4d1f".into()),
            email: Some("alice@example.org".into()),
            name: Some("Alice Ångström".into()),
            ip: Some("2001:db8::1".into()),
        },
        target: Target {
            kind: Some("account".into()),
            id: Some("t-1".into()),
            name: Some("bob".into()),
        },
        metadata: object(json!({
            "type": "auth.failed", "data": { "spanId": 14_234_234_234_234_234_234_u64, "list": [1, 2.5, null, true, "x"] },
        }))
        .into(),
        ..event(source, external_id)
    }
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).expect("a time within range")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

fn letter(source: &str, position: &str) -> DeadLetter {
    DeadLetter {
        source: SourceName::new(source),
        position: position.to_owned(),
        reason: DeadLetterReason::Malformed,
        detail: "expected a value".to_owned(),
        raw: bytes::Bytes::from_static(b"{\"a\":"),
        raw_length: 5,
        at: at(1_700_000_000_000),
    }
}

fn records<'a>(events: impl IntoIterator<Item = &'a AuditEvent>) -> Vec<Record<'a>> {
    let events = events.into_iter();
    events
        .map(|event| Record::Event {
            event,
            tenant_slug: None,
        })
        .collect()
}

async fn commit_records(store: &Subject, records: Vec<Record<'_>>) -> Vec<Fate> {
    let commit = Commit {
        records,
        ..Commit::default()
    };
    store.commit(&commit).await.expect("commit").records
}

async fn commit_moves(store: &Subject, moves: Vec<CursorMove>) -> Vec<MoveFate> {
    let commit = Commit {
        moves,
        ..Commit::default()
    };
    let Committed { records, moves } = store.commit(&commit).await.expect("commit");
    assert_eq!(records, []);
    moves
}

fn advance(source: &str, generation: u64, from: u64, to: u64) -> CursorMove {
    CursorMove {
        source: SourceName::new(source),
        generation,
        step: CursorStep::Advance {
            from,
            to,
            detail: json!({ "offset": to }),
        },
        last_event_at: None,
        last_event_id: None,
    }
}

async fn cursor(store: &Subject, source: &str) -> Option<Cursor> {
    let cursors = store.cursors().await.expect("cursors");
    cursors.into_iter().find(|cursor| cursor.source == source)
}

async fn of_source(store: &Subject, source: &str) -> Vec<StoredEvent> {
    let filter = EventFilter {
        source: Some(source.to_owned()),
        ..EventFilter::default()
    };
    let found = store.find_events(&filter, None, 100_000).await;
    found.expect("find_events")
}

fn assert_same(stored: &StoredEvent, event: &AuditEvent, tenant_slug: Option<&str>) {
    assert_eq!(stored.at, event.at);
    assert_eq!(stored.source, event.source.as_str());
    assert_eq!(stored.external_id, event.external_id);
    assert_eq!(stored.action, *event.action);
    assert_eq!(stored.outcome, event.outcome);
    assert_eq!(stored.actor, event.actor);
    assert_eq!(stored.target, event.target);
    assert_eq!(stored.tenant_slug.as_deref(), tenant_slug);
    assert_eq!(event.metadata, stored.metadata.clone().into());
}
