//! Which of several ways a filter goes.

use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::StatementStatus;
use rusqlite::functions::FunctionFlags;

use super::plan::{Key, Plan, Way};
use super::*;
use crate::store::keys;

/// Three of a rare action, then many of Bob and as many newer ones of Alice, all with one target.
fn shared(number: usize) -> AuditEvent {
    let (actor, action) = match number {
        0..3 => ("Alice", "test.rare"),
        3..2_103 => ("Bob", "test.done"),
        _ => ("Alice", "test.done"),
    };
    AuditEvent {
        at: jiff::Timestamp::from_second(i64::try_from(number).unwrap()).unwrap(),
        action: action.into(),
        actor: Actor {
            name: Some(actor.into()),
            ..Actor::default()
        },
        target: Target {
            name: Some("App".into()),
            ..Target::default()
        },
        metadata: serde_json::Map::new().into(),
        ..event(number)
    }
}

async fn plan_of(store: &SqliteStore, filter: EventFilter, most_texts: usize) -> Plan {
    let planned = store.read("a plan", move |connection, tables| {
        plan::plan(connection, tables, &filter, most_texts)
    });
    planned.await.unwrap()
}

fn keys_of(plan: &Plan) -> &[Key] {
    match &plan.way {
        Way::Time => panic!("by time"),
        Way::Keys(keys) => keys,
    }
}

#[tokio::test]
async fn the_rarest_of_several_conditions_leads() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let events: Vec<AuditEvent> = (0..4_200).map(shared).collect();
    enter(&store, &events).await.unwrap();
    let some = |text: &str| Some(text.to_owned());
    let term = |role, text| Key::Term(keys::Term::new(None, role, text).key);

    let of_text = |action: &str| EventFilter {
        action: some(action),
        text: some("LIC"),
        ..EventFilter::default()
    };
    let rare = plan_of(&store, of_text("test.rare"), 10).await;
    assert!(matches!(keys_of(&rare), [Key::Facet(_)]), "{rare:?}");
    let common = plan_of(&store, of_text("test.done"), 10).await;
    assert_eq!(keys_of(&common), [term(keys::Role::Actor, "alice")]);
    let unknown = plan_of(&store, of_text("test.done"), 0).await;
    assert!(matches!(keys_of(&unknown), [Key::Facet(_)]), "{unknown:?}");
    assert_eq!(
        [&rare, &common, &unknown].map(|plan| plan.is_walk),
        [false, false, true]
    );

    // Each more often than is counted: the target is in all newer events.
    let both = EventFilter {
        actor: some("BOB"),
        target: some("app"),
        ..EventFilter::default()
    };
    let plan = plan_of(&store, both, 10).await;
    assert_eq!(keys_of(&plan), [term(keys::Role::Actor, "bob")]);
}

/// Alice and Bob by turns, each at their own target, but for some of Alice's at Bob's.
fn in_turns(number: usize) -> AuditEvent {
    let is_odd = number % 2 == 1;
    let is_strange = number % 500 == 100;
    let mut event = shared(number);
    event.actor.name = Some(if is_odd { "Bob" } else { "Alice" }.into());
    event.target.name = Some(if is_odd || is_strange { "Site" } else { "App" }.into());
    event.action = "test.done".into();
    event
}

/// Runs queries and tells how often an event's actor was looked at.
async fn looks_of(
    store: &SqliteStore,
    queries: impl FnOnce(&Connection, &Tables) -> rusqlite::Result<()> + Send + 'static,
) -> usize {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let read = store.read("counted queries", move |connection, tables| {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        connection.create_scalar_function("daybook_is", 2, flags, move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            let text: Option<String> = context.get(0)?;
            let wanted: String = context.get(1)?;
            Ok(text.is_some_and(|text| keys::lower(&text) == wanted))
        })?;
        queries(connection, tables)
    });
    read.await.unwrap();
    looks.load(Ordering::Relaxed)
}

/// What the indexes can tell of an event is not asked of the event itself.
#[tokio::test]
async fn events_that_lack_another_condition_are_not_read() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let events: Vec<AuditEvent> = (0..5_000).map(in_turns).collect();
    enter(&store, &events).await.unwrap();
    let some = |text: &str| Some(text.to_owned());
    let both = EventFilter {
        actor: some("alice"),
        target: some("site"),
        ..EventFilter::default()
    };
    let late = EventFilter {
        since: Some(jiff::Timestamp::from_second(4_980).unwrap()),
        target: None,
        ..both.clone()
    };
    // An event is asked for three names of its actor and two of its target.
    for (filter, wanted) in [(both, 10), (late, 10)] {
        let looks = looks_of(&store, move |connection, tables| {
            let page = query::events(connection, tables, &filter, None, 100, Payloads::Whole)?;
            assert_eq!(page.events.len(), wanted);
            let histogram = histogram::count_by_time(connection, tables, &filter, 10)?;
            assert_eq!(histogram.total, 10);
            Ok(())
        });
        let looks = looks.await;
        assert!((20..=120).contains(&looks), "{looks}");
    }
}

/// The newest of any that are looked at for many facets may be all that there are.
#[tokio::test]
async fn a_look_at_a_whole_range_is_enough() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let events = (0..5_040).map(|number| {
        let mut event = shared(number);
        if number < 40 {
            event.action = format!("test.kind{number}").into();
        }
        event
    });
    enter(&store, &events.collect::<Vec<_>>()).await.unwrap();
    let kinds = EventFilter {
        action: Some("test.kind*".to_owned()),
        ..EventFilter::default()
    };
    let at = |second| Some(jiff::Timestamp::from_second(second).unwrap());
    let last = EventFilter {
        since: at(37),
        until: at(50),
        ..kinds.clone()
    };
    for (filter, wanted) in [(kinds, None), (last, Some(3))] {
        let keys = keys_of(&plan_of(&store, filter.clone(), 10).await).to_vec();
        let found = store.read("a look", move |connection, tables| {
            plan::among_newest(connection, tables, &filter, None, &keys, 100)
        });
        let found = found.await.unwrap();
        assert_eq!(found.map(|ids| ids.len()), wanted);
    }
}

/// A bound number of rows does not make a statement a new one each time.
#[tokio::test]
async fn a_statement_is_planned_once() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let planned_anew = store.read("statements", |connection, tables| {
        let limited = format!("SELECT id FROM {} LIMIT ?1", tables.events);
        let mut statement = connection.prepare(&limited)?;
        for limit in [1, 16, 1] {
            statement.query([limit])?.next()?;
        }
        Ok(statement.get_status(StatementStatus::RePrepare))
    });
    assert_eq!(planned_anew.await.unwrap(), 0);
}
