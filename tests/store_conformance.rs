//! The stores keep their contract: one suite, run against a SQLite file, a standalone MongoDB and
//! a replica set of three.

use std::sync::Arc;
use std::time::Duration;

use daybook::config::Collections;
use daybook::event::{Actor, AuditEvent, SourceName, Target};
use daybook::store::mongodb::MongoStore;
use daybook::store::sqlite::SqliteStore;
use daybook::store::{Commit, EventFilter, PageKey, Record, Role, Store, TokenRecord, conformance};
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use rusqlite::Connection;
use testkit::mongod::{Mongod, ReplicaSet};

/// Generous: these tests are about what happens, not how soon, on machines that do other things too.
const TIMEOUT: Duration = Duration::from_secs(30);

async fn mongo_store(url: &str) -> MongoStore {
    let store = MongoStore::connect(url, TIMEOUT, &Collections::default()).await;
    store.expect("a store")
}

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("not/there/yet.db");
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default());
    conformance::run(Arc::new(store.expect("a store"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_mongodb_conforms() {
    let mongod = Mongod::shared().await;
    conformance::run(Arc::new(mongo_store(&mongod.url("conformance")).await)).await;
}

/// In what is written and followed. Pages, queries and counts are read from one server anyway.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_conforms() {
    let set = ReplicaSet::start(3).await;
    let store = mongo_store(&set.url("conformance")).await;
    let modules = ["records", "events", "cursors", "feed"];
    let is_of = |module: &str, rule: &str| rule.split("::").next() == Some(module);
    for module in modules {
        let has_rules = conformance::RULES
            .iter()
            .any(|(rule, _)| is_of(module, rule));
        assert!(has_rules, "{module}");
    }
    let is_wanted = |rule: &str| modules.iter().any(|module| is_of(module, rule));
    conformance::run_where(Arc::new(store), is_wanted).await;
}

/// Pages by tenant, source or action come straight out of an index, the first as the tenth.
#[tokio::test(flavor = "multi_thread")]
async fn no_page_sorts_or_scans_the_collection() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("pages")).await;
    store.prepare().await.expect("prepare");
    let at = |number: i64| Timestamp::from_millisecond(number).expect("a time");
    let events: Vec<_> = (0..900_i64)
        .map(|number| AuditEvent {
            at: at(number),
            source: SourceName::new(["a", "b", "c"][usize::try_from(number % 3).expect("small")]),
            external_id: number.to_string(),
            action: format!("test.action_{}", number % 5).into(),
            outcome: None,
            actor: Actor::default(),
            target: Target::default(),
            tenant_slug: None,
            metadata: serde_json::Map::new().into(),
        })
        .collect();
    let records = events.iter().map(|event| Record::Event {
        event,
        tenant_slug: Some(["acme", "globex"][event.external_id.len() % 2]),
    });
    let commit = Commit {
        records: records.collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.expect("commit");

    let database = mongod.database("pages").await;
    let profile = |level: i32| database.run_command(doc! { "profile": level, "slowms": 0 });
    profile(2).await.expect("profile");
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        EventFilter::default(),
        EventFilter {
            source: text("a"),
            ..EventFilter::default()
        },
        EventFilter {
            tenant: text("acme"),
            ..EventFilter::default()
        },
        EventFilter {
            action: text("test.action_1"),
            ..EventFilter::default()
        },
        EventFilter {
            since: Some(at(100)),
            until: Some(at(800)),
            ..EventFilter::default()
        },
        EventFilter {
            tenant: text("acme"),
            actor: text("nobody"),
            ..EventFilter::default()
        },
    ];
    for filter in &filters {
        let mut page = store
            .find_events(filter, None, 20)
            .await
            .expect("find_events");
        for _ in 0..3 {
            let Some(last) = page.last() else { break };
            let key = PageKey::of(last);
            page = store
                .find_events(filter, Some(&key), 20)
                .await
                .expect("find_events");
        }
    }
    profile(0).await.expect("profile");
    let profiled = database.collection::<Document>("system.profile");
    let ours = doc! { "op": "query", "ns": "pages.auditevents" };
    let queries = profiled
        .count_documents(ours.clone())
        .await
        .expect("a count");
    assert!(queries >= 21, "{queries} queries were profiled");
    let mut bad = ours;
    bad.insert(
        "$or",
        vec![
            doc! { "hasSortStage": true },
            doc! { "planSummary": "COLLSCAN" },
        ],
    );
    let bad = profiled.find_one(bad).await.expect("the profile");
    assert_eq!(bad, None);
}

/// Enters tokens and sessions of which some have ended, and takes one away.
async fn enter_and_withdraw_tokens(store: &dyn Store) {
    store.prepare().await.expect("prepare");
    let now = Timestamp::now().as_second();
    let at = |seconds: i64| Timestamp::from_second(now + seconds).expect("a time");
    for (hash, ends_in, opened_by) in [
        ("forever", None, None),
        ("ended", Some(-1), None),
        ("session of an ended one", Some(-1), Some("ended")),
        ("withdrawn", None, None),
        ("session", Some(3600), Some("forever")),
    ] {
        let token = TokenRecord {
            hash: hash.to_owned(),
            role: Role::Operator,
            name: None,
            created_at: at(-60),
            expires_at: ends_in.map(at),
            opened_by: opened_by.map(str::to_owned),
        };
        store.insert_token(&token).await.expect("insert");
        assert_eq!(
            store.token(hash).await.expect("token"),
            (ends_in != Some(-1)).then_some(token)
        );
    }
    store.delete_token("withdrawn").await.expect("delete");
}

#[tokio::test]
async fn ended_tokens_leave_the_sqlite_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("daybook.db");
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default()).expect("a store");
    enter_and_withdraw_tokens(&store).await;
    let file = Connection::open(&path).expect("the file");
    let mut select = file
        .prepare("SELECT hash FROM daybooktokens ORDER BY hash")
        .expect("a query");
    let left = select.query_map([], |row| row.get::<_, String>(0));
    let left: Vec<_> = left.expect("tokens").map(Result::unwrap).collect();
    assert_eq!(left, ["forever", "session"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_tokens_leave_mongodb() {
    let mongod = Mongod::shared().await;
    let store = mongo_store(&mongod.url("tokens")).await;
    enter_and_withdraw_tokens(&store).await;
    let tokens = mongod.database("tokens").await;
    let tokens = tokens.collection::<Document>("daybooktokens");
    let mut left = tokens.distinct("_id", doc! {}).await.expect("tokens");
    left.sort_by_key(ToString::to_string);
    assert_eq!(left, ["forever", "session"].map(mongodb::bson::Bson::from));
}

/// Nobody keeps a session that says nothing of its token; a token stays what it was.
#[tokio::test]
async fn tokens_of_an_older_file_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("daybook.db");
    let file = Connection::open(&path).expect("the file");
    file.execute_batch(
        "CREATE TABLE daybooktokens (
            hash TEXT PRIMARY KEY, role TEXT NOT NULL, scope TEXT, name TEXT,
            createdAt INTEGER NOT NULL, expiresAt INTEGER
         ) WITHOUT ROWID;
         INSERT INTO daybooktokens VALUES ('old', 'operator', NULL, 'laptop', 1, NULL);",
    )
    .expect("an older table");
    drop(file);
    let store = SqliteStore::open(&path, TIMEOUT, &Collections::default()).expect("a store");
    store.prepare().await.expect("prepare");
    let token = store.token("old").await.expect("token").expect("it stands");
    assert_eq!(
        (token.name.as_deref(), token.opened_by),
        (Some("laptop"), None)
    );
    store.prepare().await.expect("once more is harmless");
}
