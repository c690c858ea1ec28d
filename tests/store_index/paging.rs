//! Pages of every kind of filter are stable while events go in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daybook::config::Collections;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{EventFilter, PageKey, Store};
use testkit::mongod::Mongod;
use testkit::world::eventually;
use tokio::sync::Semaphore;

use super::counts::events_examined;
use super::{TIMEOUT, enter, event, filters, full_event, mongo_store};

const START: i64 = 1_700_000_000_000;
const COUNT: i64 = 120;
/// Newer ones, more than a page looks at for a text before it goes by the texts.
const NEWER: i64 = 450;
/// Events go in while pages are read, but not so many that walks become ever longer.
const INSERTS_A_WALK: usize = 8;

/// Everything from before the walk began, once each and in order; nothing twice.
async fn walk(store: &dyn Store, filter: &EventFilter) {
    let mut seen: Vec<(PageKey, String)> = Vec::new();
    loop {
        let before = seen.last().map(|(key, _)| key.clone());
        let page = store.find_events(filter, before.as_ref(), 7).await.unwrap();
        let is_last = page.len() < 7;
        seen.extend(page.into_iter().map(|event| {
            let key = PageKey {
                at: event.at,
                id: event.id,
            };
            (key, event.external_id)
        }));
        if is_last {
            break;
        }
    }
    assert!(
        seen.is_sorted_by(|(one, _), (other, _)| (one.at, &one.id) > (other.at, &other.id)),
        "{filter:?}"
    );
    let old = seen.iter().filter(|(_, key)| key.starts_with("old "));
    assert_eq!(old.count() as i64, COUNT, "{filter:?}");
}

async fn walks_while_events_go_in(store: Arc<dyn Store>) {
    // Many at the same millisecond, so that pages end within one.
    let old: Vec<_> = (0..COUNT)
        .map(|number| full_event(&format!("old {number}"), START + number / 9))
        .collect();
    enter(store.as_ref(), "acme", &old).await.unwrap();
    let newer = (0..NEWER).map(|number| event("other", &number.to_string(), START + 1000 + number));
    let newer: Vec<_> = newer.collect();
    enter(store.as_ref(), "globex", &newer).await.unwrap();
    let (pace, entered) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
    let inserting = {
        let (store, pace, entered) = (Arc::clone(&store), Arc::clone(&pace), Arc::clone(&entered));
        tokio::spawn(async move {
            for number in 0_i64.. {
                let Ok(permit) = pace.acquire().await else {
                    break;
                };
                permit.forget();
                // Newer, older, and of the times that are being walked through.
                let at = START + (number * 7) % 60 - 10;
                let new = [full_event(&format!("new {number}"), at)];
                enter(store.as_ref(), "acme", &new).await.unwrap();
                entered.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for filter in filters() {
        let before = entered.load(Ordering::Relaxed);
        pace.add_permits(INSERTS_A_WALK);
        walk(store.as_ref(), &filter).await;
        eventually("an insert", async || {
            entered.load(Ordering::Relaxed) > before
        })
        .await;
    }
    pace.close();
    inserting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mongodb() {
    let mongod = Mongod::shared().await;
    walks_while_events_go_in(Arc::new(mongo_store(&mongod.url("paging")).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daybook.db");
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default()).unwrap();
    store.prepare().await.unwrap();
    walks_while_events_go_in(Arc::new(store)).await;
}

/// Somebody may enter many events of one time in one request. A page within them begins where it begins, in the
/// index, and a page of a text finds how far to look through by the index alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_no_events_of_its_millisecond_that_came_before_it() {
    let mongod = Mongod::start().await;
    let store = mongo_store(&mongod.url("tie")).await;
    let database = mongod.database("tie").await;
    let of_one_time = |number| full_event(&format!("tie {number}"), START);
    let tie: Vec<_> = (0..3000).map(of_one_time).collect();
    for part in tie.chunks(500) {
        enter(&store, "acme", part).await.unwrap();
    }
    let text = |text: &str| Some(text.to_owned());
    for filter in [
        EventFilter::default(),
        EventFilter {
            source: text("ocis"),
            ..EventFilter::default()
        },
        EventFilter {
            tenant: text("acme"),
            target: text("f-1"),
            ..EventFilter::default()
        },
        EventFilter {
            tenant: text("acme"),
            actor: text("alice"),
            ip: text("2001:db8::1"),
            ..EventFilter::default()
        },
    ] {
        let first = store.find_events(&filter, None, 2900).await.unwrap();
        let before = first.last().map(PageKey::of);
        let mut page = Vec::new();
        let looked_at = events_examined(&database, async {
            page = store.find_events(&filter, before.as_ref(), 50).await?;
            Ok(())
        });
        let looked_at = looked_at.await;
        let seen = first.iter().map(|event| &event.id);
        assert!(
            page.len() == 50 && !seen.clone().any(|id| *id == page[0].id),
            "{filter:?}"
        );
        assert!(looked_at < 500, "{looked_at} of {filter:?}");
    }
}
