//! Pages: without a repeat or a hole, whatever is entered meanwhile and however large an event is.

use std::collections::HashSet;

use serde_json::{Map, json};

use super::queries::{enter, found};
use super::{Subject, at, event};
use crate::event::AuditEvent;
use crate::store::{EventFilter, PageKey, Payloads};

async fn page(
    store: &Subject,
    tenant: &str,
    before: Option<&PageKey>,
) -> (Vec<String>, Option<PageKey>) {
    let filter = EventFilter {
        tenant: Some(tenant.to_owned()),
        ..EventFilter::default()
    };
    let events = store
        .find_events(&filter, before, 7)
        .await
        .expect("find_events");
    let key = events.last().map(PageKey::of);
    (
        events.into_iter().map(|event| event.external_id).collect(),
        key,
    )
}

pub(super) async fn pages_cover_ties_once_each(store: Subject) {
    let events = (0..40).map(|number: i64| AuditEvent {
        // Ten at one time, four times over.
        at: at(1_700_000_000_000 + number / 10),
        ..event("ties", &number.to_string())
    });
    let events: Vec<_> = events.collect();
    enter(&store, "ties", &events).await;
    let filter = EventFilter {
        tenant: Some("ties".to_owned()),
        ..EventFilter::default()
    };
    let whole = found(&store, &filter).await;
    let (mut paged, mut key) = page(&store, "ties", None).await;
    while let Some(before) = key {
        let (next, next_key) = page(&store, "ties", Some(&before)).await;
        paged.extend(next);
        key = next_key;
    }
    assert_eq!(paged, whole);
    assert_eq!(paged.iter().collect::<HashSet<_>>().len(), 40);
    let events = store
        .find_events(&filter, None, 1000)
        .await
        .expect("find_events");
    assert!(events.is_sorted_by(|a, b| (a.at, &a.id) > (b.at, &b.id)));
}

pub(super) async fn pages_are_stable_under_inserts(store: Subject) {
    let at_time = |number: i64, time: i64| AuditEvent {
        at: at(1_700_000_000_000 + time),
        ..event("stable", &number.to_string())
    };
    let first: Vec<_> = (0..21).map(|number| at_time(number, number)).collect();
    enter(&store, "stable", &first).await;
    let (mut paged, mut key) = page(&store, "stable", None).await;
    let mut number = 100;
    while let Some(before) = key {
        // Newer ones, and one of the very time at which the last page ended.
        let tie = before.at.as_millisecond() - 1_700_000_000_000;
        enter(
            &store,
            "stable",
            &[at_time(number, 1000), at_time(number + 1, tie)],
        )
        .await;
        number += 2;
        let (next, next_key) = page(&store, "stable", Some(&before)).await;
        paged.extend(next);
        key = next_key;
    }
    let unseen_before = (0..21).rev().map(|number: i64| number.to_string());
    assert_eq!(paged, unseen_before.collect::<Vec<_>>());
}

/// More actions than any store reads side by side in one query.
const ACTIONS: i64 = 210;
const LARGE: usize = 1_500_000;

pub(super) async fn a_page_of_large_events_is_cut_and_the_next_goes_on(store: Subject) {
    let events = (0..ACTIONS).map(|number| {
        let mut event = event("heavy", &number.to_string());
        event.at = at(1_700_000_000_000 + number);
        event.action = format!("heavy.kind{number}").into();
        event.actor.id = Some(if number % 2 == 0 { "even" } else { "odd" }.into());
        if number % 20 < 2 {
            event.metadata = Map::from_iter([("note".to_owned(), json!("x".repeat(LARGE)))]).into();
        }
        event
    });
    let events: Vec<AuditEvent> = events.collect();
    for events in events.chunks(20) {
        enter(&store, "heavy", events).await;
    }
    let of_all = EventFilter {
        tenant: Some("heavy".to_owned()),
        ..EventFilter::default()
    };
    let filters = [
        of_all.clone(),
        EventFilter {
            action: Some("heavy.*".to_owned()),
            ..of_all.clone()
        },
        EventFilter {
            actor: Some("EVEN".to_owned()),
            ..of_all.clone()
        },
        EventFilter {
            actor: Some("odd".to_owned()),
            text: Some("heavy.kind".to_owned()),
            ..of_all
        },
    ];
    for filter in &filters {
        let parity = |number: i64| match filter.actor.as_deref() {
            None => true,
            Some(actor) => (number % 2 == 0) == (actor == "EVEN"),
        };
        let wanted: Vec<String> = (0..ACTIONS)
            .rev()
            .filter(|number| parity(*number))
            .map(|number| number.to_string())
            .collect();
        let pages = large_pages(&store, filter, Payloads::Whole).await;
        assert!(pages.len() > 2, "{} pages of {filter:?}", pages.len());
        assert_eq!(pages.concat(), wanted, "{filter:?}");
        assert_eq!(found(&store, filter).await, wanted, "{filter:?}");
        let one = large_pages(&store, filter, Payloads::LeftOut).await;
        assert_eq!(one, [wanted], "{filter:?}");
    }
}

pub(super) async fn a_page_of_long_names_is_cut_and_the_next_goes_on(store: Subject) {
    let events = (0..8).map(|number| {
        let mut event = event("named", &number.to_string());
        event.at = at(1_700_000_000_000 + number);
        event.actor.name = Some("x".repeat(LARGE).into());
        event
    });
    enter(&store, "named", &events.collect::<Vec<_>>()).await;
    let filter = EventFilter {
        tenant: Some("named".to_owned()),
        ..EventFilter::default()
    };
    let wanted: Vec<String> = (0..8).rev().map(|number: i64| number.to_string()).collect();
    for payloads in [Payloads::Whole, Payloads::LeftOut] {
        let pages = large_pages(&store, &filter, payloads).await;
        assert!(pages.len() > 1, "all on one");
        assert_eq!(pages.concat(), wanted);
    }
}

/// What each page names.
async fn large_pages(
    store: &Subject,
    filter: &EventFilter,
    payloads: Payloads,
) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = store
            .event_page(filter, before.as_ref(), 1000, payloads)
            .await
            .expect("event_page");
        let notes = page
            .events
            .iter()
            .filter_map(|event| event.metadata.get("note"));
        let notes = notes.count();
        assert!(notes <= 4 && (payloads == Payloads::Whole || notes == 0));
        before = page.events.last().map(PageKey::of);
        let names = page.events.into_iter().map(|event| event.external_id);
        pages.push(names.collect());
        if !page.is_cut {
            return pages;
        }
    }
}
