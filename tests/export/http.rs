//! `GET /api/v1/export`.

use std::time::{Duration, Instant};

use daybook::config::{StoreConfig, StoreUrl};
use daybook::event::Outcome;
use daybook::http::auth::new_token;
use daybook::store::{Role, Store, StoredEvent};
use futures_util::StreamExt as _;
use serde_json::Value;
use testkit::World;
use testkit::http::exchange;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{Place, deeds, enter, event, hostile_events, lines};

/// The ends of exports that stand on the timeline.
async fn ends(store: &dyn Store) -> Vec<StoredEvent> {
    let mut ends = deeds(store).await;
    ends.retain(|deed| deed.action == "daybook.exported");
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_complete_named_and_on_the_timeline() {
    let world = World::mongodb(Mongod::shared().await).await.start().await;
    world.ready().await;
    let store = &**world.daybook().store();
    let events: Vec<_> = (0..3000).map(|key| event(key, "alice")).collect();
    enter(store, &events).await;
    let url = world.url("/api/v1/export?format=ndjson&actor=alice");
    let response = world.client().get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let name = response.headers()["content-disposition"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        name.starts_with("attachment; filename=\"daybook-2") && name.ends_with("Z.ndjson\""),
        "{name}"
    );
    let exported = lines(&response.text().await.unwrap());
    let keys: Vec<_> = exported
        .iter()
        .map(|line| line["externalId"].clone())
        .collect();
    let wanted: Vec<_> = (0..3000).rev().map(|key| key.to_string()).collect();
    assert_eq!(keys, wanted);

    // Before the body ended.
    let (_, found) = world.get("/api/v1/events?action=daybook.exported").await;
    assert_eq!(found["events"].as_array().unwrap().len(), 1);
    let deeds = deeds(store).await;
    assert_eq!(deeds.len(), 2);
    let ended = deeds
        .iter()
        .find(|deed| deed.action == "daybook.exported")
        .unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Success));
    assert_eq!(ended.metadata["count"], 3000);
    assert_eq!(ended.actor.ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(world.metric("daybook_exports_total", "success").await, 1.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_what_was_listed_before_it() {
    let place = Place::new().await;
    let url = format!("sqlite:{}", place.path("d.db").display());
    let world = World::at(&url).start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let store = &**world.daybook().store();
    enter(store, &hostile_events()).await;
    let (operator, record) = new_token(Role::Operator, None, None);
    store.insert_token(&record).await.unwrap();
    let (tenant, record) = new_token(Role::Tenant("acme".to_owned()), None, None);
    store.insert_token(&record).await.unwrap();
    let get = async |path: &str, token: &str| {
        let request = world.client().get(world.url(path)).bearer_auth(token);
        request.send().await.unwrap().text().await.unwrap()
    };
    let list = async |condition: &str, token: &str| {
        let answer = get(&format!("/api/v1/events?limit=1000{condition}"), token).await;
        let list: Value = serde_json::from_str(&answer).unwrap();
        list["events"].as_array().unwrap().clone()
    };
    for (token, filter) in [(&operator, &[][..]), (&tenant, &["--tenant", "acme"])] {
        for (limit, is_command) in [
            ("", false),
            ("", true),
            ("1", false),
            ("1", true),
            ("7", false),
            ("7", true),
        ] {
            let mut wanted = list("", token).await;
            if let Ok(limit) = limit.parse() {
                wanted.truncate(limit);
            }
            let exported = if is_command {
                let mut arguments = vec!["--format", "ndjson"];
                arguments.extend(filter);
                if !limit.is_empty() {
                    arguments.extend(["--limit", limit]);
                }
                place.succeeds("export", &arguments)
            } else {
                get(&format!("/api/v1/export?limit={limit}"), token).await
            };
            assert_eq!(lines(&exported), wanted);
            let ends = list("&action=daybook.exported", &operator).await;
            assert_eq!(ends[0]["metadata"]["count"], wanted.len());
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_entered_meanwhile_shift_nothing() {
    let world = World::sqlite().await.start().await;
    world.ready().await;
    let store = world.daybook().store().clone();
    let events: Vec<_> = (0..4_000)
        .map(|key| event(key, &"x".repeat(1_500)))
        .collect();
    enter(&*store, &events).await;
    let url = world.url("/api/v1/export?source=stalwart");
    let mut body = world.client().get(url).send().await.unwrap().bytes_stream();
    let mut text = body.next().await.unwrap().unwrap().to_vec();
    // Newer ones, while the first page is on its way.
    let newer: Vec<_> = (4_000..5_000).map(|key| event(key, "new")).collect();
    enter(&*store, &newer).await;
    while let Some(chunk) = body.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let exported = lines(std::str::from_utf8(&text).unwrap());
    let keys: Vec<_> = exported
        .iter()
        .map(|line| line["externalId"].clone())
        .collect();
    let wanted: Vec<_> = (0..4_000).rev().map(|key| key.to_string()).collect();
    assert_eq!(keys, wanted);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_exports_its_own_and_that_stands_on_its_timeline() {
    let plan = World::sqlite().await;
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let store = &**world.daybook().store();
    enter(store, &hostile_events()).await;
    let (token, record) = new_token(
        Role::Tenant("acme".to_owned()),
        Some("auditor".to_owned()),
        None,
    );
    store.insert_token(&record).await.unwrap();
    let (other, other_record) = new_token(Role::Tenant("globex".to_owned()), None, None);
    store.insert_token(&other_record).await.unwrap();
    let get = async |path: &str, token: &str| {
        let request = world.client().get(world.url(path)).bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, text) = get("/api/v1/export?format=csv&source=stalwart", &token).await;
    assert_eq!(status, 200);
    assert_eq!(
        csv::Reader::from_reader(text.as_bytes()).records().count(),
        hostile_events().len()
    );
    let (_, text) = get("/api/v1/export?format=ndjson&source=stalwart", &other).await;
    assert_eq!(text, "");
    assert_eq!(get("/api/v1/export?tenant=acme", &other).await.0, 403);
    let (status, text) = get("/api/v1/export?format=xlsx", &token).await;
    assert!(status == 400 && text.contains("format"), "{text}");
    assert_eq!(world.get("/api/v1/export").await.0, 401);
    let deeds = deeds(store).await;
    assert_eq!(deeds.len(), 4);
    for deed in deeds {
        let auditor = deed.actor.name.as_deref() == Some("auditor");
        let wanted = if auditor { "acme" } else { "globex" };
        assert_eq!(deed.tenant_slug.as_deref(), Some(wanted));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_the_headers_alone_exports_nothing() {
    let plan = World::sqlite().await;
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let store = &**world.daybook().store();
    let (token, record) = new_token(Role::Tenant("acme".to_owned()), None, None);
    store.insert_token(&record).await.unwrap();
    let head = async |query: &str, token: &str| {
        let url = world.url(&format!("/api/v1/export?{query}"));
        let request = world.client().head(url).bearer_auth(token);
        request.send().await.unwrap()
    };
    for (query, token, status) in [
        ("format=xlsx", token.as_str(), 400),
        ("tenant=globex", token.as_str(), 403),
        ("format=csv", "dbk_unknown", 401),
    ] {
        assert_eq!(
            head(query, token).await.status().as_u16(),
            status,
            "{query}"
        );
    }
    let answer = head("format=csv", &token).await;
    assert_eq!(answer.status(), 200);
    let headers = answer.headers();
    assert_eq!(
        headers["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    let name = headers["content-disposition"].to_str().unwrap();
    assert!(name.contains("daybook-acme-"), "{name}");
    assert!(!headers.contains_key("content-length"), "{headers:?}");
    // A start would be entered before the answer.
    assert!(deeds(store).await.is_empty());
    world.stop().await;
}

/// As nginx asks that was not told otherwise: a body ends with its connection, whole or not.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_broken_export_would_look_whole_there_is_none() {
    let world = World::sqlite().await.start().await;
    world.ready().await;
    let ask = async |request: &str| {
        let request = format!("{request}\r\nhost: 127.0.0.1\r\n\r\n");
        exchange(world.daybook().address(), request).await
    };
    let refused = ask("GET /api/v1/export HTTP/1.0").await;
    assert_eq!(refused.status, 505);
    assert_eq!(
        refused.json()["error"]["code"],
        "http_version_not_supported"
    );
    let said = refused.error();
    assert!(said.contains("proxy_http_version 1.1;"), "{said}");
    assert_eq!(ask("GET /api/v1/events HTTP/1.0").await.status, 200);
    // A start would be entered before the answer.
    assert!(deeds(&**world.daybook().store()).await.is_empty());
    assert_eq!(ask("GET /api/v1/export HTTP/1.1").await.status, 200);
    world.stop().await;
}

/// The client sees that something is missing, and the timeline says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_breaks_off_is_known_to_both() {
    let mongod = Mongod::start().await;
    let plan = World::mongodb(&mongod).await;
    let world = plan
        .start_with("auth = \"none\"", "timeout = \"10s\"")
        .await;
    world.ready().await;
    // So short a time is meant for the export alone.
    let config = StoreConfig {
        url: StoreUrl(world.store_url().to_owned()),
        timeout: Duration::from_secs(30),
        ..StoreConfig::default()
    };
    let patient = daybook::store::open(&config).await.unwrap();
    let store = &*patient;
    let events: Vec<_> = (0..5_000)
        .map(|key| event(key, &"x".repeat(3_000)))
        .collect();
    enter(store, &events).await;

    // The client goes away.
    let url = world.url("/api/v1/export?source=stalwart");
    let mut body = world
        .client()
        .get(&url)
        .send()
        .await
        .unwrap()
        .bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    eventually("its end is entered", async || deeds(store).await.len() == 2).await;
    let all = deeds(store).await;
    let ended = all
        .iter()
        .find(|deed| deed.action == "daybook.exported")
        .unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Failure));
    assert!(ended.metadata["count"].as_u64().unwrap() < 5_000);
    assert_eq!(ended.metadata["reason"], "the connection ended");

    // The store goes away.
    let mut body = world
        .client()
        .get(&url)
        .send()
        .await
        .unwrap()
        .bytes_stream();
    body.next().await.unwrap().unwrap();
    mongod.freeze();
    let mut broken = false;
    while let Some(chunk) = body.next().await {
        broken |= chunk.is_err();
    }
    assert!(broken, "the body ended as if it were complete");
    mongod.thaw();
    eventually("both ends are entered", async || {
        ends(store).await.len() == 2
    })
    .await;
    assert_eq!(world.metric("daybook_exports_total", "failure").await, 2.0);
    world.stop().await;
}

/// Another process has locked the store.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_entered_when_the_store_is_back() {
    let plan = World::sqlite().await;
    let world = plan
        .start_with("auth = \"none\"", "timeout = \"10s\"")
        .await;
    world.ready().await;
    let config = StoreConfig {
        url: StoreUrl(world.store_url().to_owned()),
        timeout: Duration::from_secs(30),
        ..StoreConfig::default()
    };
    let patient = daybook::store::open(&config).await.unwrap();
    let store = &*patient;
    let events: Vec<_> = (0..5_000)
        .map(|key| event(key, &"x".repeat(3_000)))
        .collect();
    enter(store, &events).await;
    let other = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    other.busy_timeout(Duration::from_secs(30)).unwrap();

    let url = world.url("/api/v1/export?source=stalwart");
    let mut body = world.client().get(url).send().await.unwrap().bytes_stream();
    body.next().await.unwrap().unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = Instant::now();
    while let Some(chunk) = body.next().await {
        chunk.unwrap();
    }
    // The body waited for its end to be entered, and then no longer.
    assert!(locked.elapsed() > Duration::from_secs(2));
    eventually("it is counted", async || {
        world.metric("daybook_exports_total", "success").await == 1.0
    })
    .await;
    // The start of another one waits behind that end, and is given up after it; it may stand all the same.
    assert_eq!(world.get("/api/v1/export").await.0, 503);
    assert!(ends(store).await.is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    eventually("both ends are entered", async || {
        ends(store).await.len() == 2
    })
    .await;
    let ends = ends(store).await;
    for (outcome, count) in [(Outcome::Success, 5_000), (Outcome::Failure, 0)] {
        let end = ends.iter().find(|end| end.outcome == Some(outcome));
        assert_eq!(end.unwrap().metadata["count"], count);
    }

    // One that cannot be entered keeps no stop from its end.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(world.get("/api/v1/export").await.0, 503);
    world.stop().await;
}
