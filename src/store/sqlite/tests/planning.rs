//! Which of several ways a filter goes.

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
