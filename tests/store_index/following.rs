//! Following takes no more into memory at once than it says.

use daybook::store::Store as _;
use testkit::mongod::Mongod;

use super::{enter, event, mongo_store};

const AT: i64 = 1_700_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn large_events_come_a_few_at_a_time() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("large")).await;
    let large = |number: i64| {
        let mut one = event("ocis", &number.to_string(), AT + number);
        let text = "x".repeat(3 << 20);
        one.metadata.insert("text".to_owned(), text.into());
        one
    };
    let events: Vec<_> = (0..7).map(large).collect();
    enter(&store, "acme", &events).await.unwrap();
    let mut follow = store.follow(Some("0-i")).await.unwrap().unwrap();
    let mut keys = Vec::new();
    while keys.len() < events.len() {
        let entries = follow.next().await.unwrap().entries;
        assert!(entries.len() <= 3, "{} at once", entries.len());
        keys.extend(entries.into_iter().map(|entry| entry.event.external_id));
    }
    keys.sort();
    assert_eq!(keys, ["0", "1", "2", "3", "4", "5", "6"]);
}
