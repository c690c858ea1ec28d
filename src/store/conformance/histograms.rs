//! Counts by time agree with the list of what is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::store::{Bar, Histogram};

const HOUR: i64 = 3_600_000;
/// A full hour.
const START: i64 = 1_700_000_000_000 / HOUR * HOUR;

fn of_tenant(tenant: &str) -> EventFilter {
    EventFilter {
        tenant: Some(tenant.to_owned()),
        ..EventFilter::default()
    }
}

async fn histogram(store: &Subject, filter: &EventFilter, buckets: u32) -> Histogram {
    let counted = store.histogram(filter, buckets).await;
    counted.expect("histogram")
}

/// Events of two sources over about four days, unevenly.
async fn enter_days(store: &Subject, tenant: &str) {
    let events = (0..200_i64).map(|number| {
        let source = format!("{tenant} {}", number % 2);
        AuditEvent {
            at: at(START + number * number * 9_000 + number % 7),
            action: format!("test.action_{}", number % 3).into(),
            outcome: (number % 5 == 0).then_some(Outcome::Failure),
            actor: Actor {
                name: Some(format!("{tenant} actor {}", number % 11).into()),
                ..Actor::default()
            },
            ..event(&source, &number.to_string())
        }
    });
    let events: Vec<_> = events.collect();
    let records = events.iter().map(|event| Record::Event {
        event,
        tenant_slug: Some(tenant),
    });
    commit_records(store, records.collect()).await;
}

/// What the bars must be, by the list.
async fn counted_by_hand(store: &Subject, filter: &EventFilter, bars: &Histogram) -> Vec<Bar> {
    let width = i64::try_from(bars.bucket.as_millis()).expect("a width");
    let found = store.find_events(filter, None, 10_000).await;
    let mut counts: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
    let start = bars.bars.first().map_or(0, |bar| bar.at.as_millisecond());
    for event in found.expect("find_events") {
        let bar = (event.at.as_millisecond() - start).div_euclid(width);
        let counts = counts.entry(bar).or_default();
        *counts.entry(event.source).or_default() += 1;
    }
    let bar = |number: i64| Bar {
        at: at(start + number * width),
        counts: counts.get(&number).cloned().unwrap_or_default(),
    };
    let bars = i64::try_from(bars.bars.len()).expect("few");
    (0..bars).map(bar).collect()
}

pub(super) async fn bars_count_what_the_list_finds(store: Subject) {
    enter_days(&store, "bars").await;
    enter_days(&store, "bars of others").await;
    let base = of_tenant("bars");
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        base.clone(),
        EventFilter {
            since: Some(at(START + 5_000_001)),
            until: Some(at(START + 300_000_003)),
            ..base.clone()
        },
        EventFilter {
            source: text("bars 1"),
            ..EventFilter::default()
        },
        EventFilter {
            action: text("test.action_1"),
            outcome: Some(Outcome::Failure),
            ..base.clone()
        },
        EventFilter {
            actor: text("BARS actor 3"),
            ..base.clone()
        },
        EventFilter {
            text: text("ACTOR 10"),
            ..base.clone()
        },
        // In some actions, and in some actors of others.
        EventFilter {
            text: text("1"),
            ..base.clone()
        },
        EventFilter {
            text: text("1"),
            since: Some(at(START + 5_000_001)),
            source: text("bars 1"),
            ..EventFilter::default()
        },
        EventFilter {
            text: text("ACTION"),
            until: Some(at(START + 300_000_003)),
            ..base.clone()
        },
        EventFilter {
            text: text("BARS actor"),
            outcome: Some(Outcome::Failure),
            ..base.clone()
        },
        EventFilter {
            source: text("bars 0"),
            tenant: text("bars of others"),
            ..EventFilter::default()
        },
    ];
    for filter in &filters {
        for buckets in [1, 7, 100, 1000] {
            let counted = histogram(&store, filter, buckets).await;
            assert!(counted.bars.len() <= buckets as usize, "{filter:?}");
            let expected = counted_by_hand(&store, filter, &counted).await;
            assert_eq!(counted.bars, expected, "{filter:?} in {buckets}");
            let found = store.find_events(filter, None, 10_000).await;
            let found = found.expect("find_events").len();
            assert_eq!(counted.total, found as u64, "{filter:?} in {buckets}");
        }
    }
}

pub(super) async fn the_range_is_that_of_the_filter(store: Subject) {
    enter_days(&store, "range").await;
    let base = of_tenant("range");
    let whole = histogram(&store, &base, 50).await;
    assert_eq!(whole.since, at(START));
    assert_eq!(whole.until, at(START + 199 * 199 * 9_000 + 199 % 7 + 1));
    assert_eq!(
        (whole.total, whole.bucket),
        (200, Duration::from_secs(7200))
    );

    let later = EventFilter {
        since: Some(at(START + HOUR)),
        ..base.clone()
    };
    let later = histogram(&store, &later, 50).await;
    assert_eq!((later.since, later.until), (at(START + HOUR), whole.until));

    let empty = EventFilter {
        since: Some(at(0)),
        until: Some(at(3 * HOUR)),
        ..base.clone()
    };
    let empty = histogram(&store, &empty, 3).await;
    assert_eq!((empty.since, empty.until), (at(0), at(3 * HOUR)));
    assert_eq!((empty.total, empty.bars.len()), (0, 3));

    let nobody = of_tenant("range of nobody");
    let nothing = histogram(&store, &nobody, 50).await;
    assert_eq!(nothing.since, nothing.until);
    assert_eq!((nothing.total, nothing.bars.len()), (0, 0));
}
