//! MongoDB in trouble: frozen, killed, stepped down, losing connections or majorities. Whatever
//! happens, the store answers in its time, says what it is, and a repeated commit loses and doubles
//! nothing.

use std::time::{Duration, Instant};

use daybook::config::Collections;
use daybook::event::{Actor, AuditEvent, SourceName, Target};
use daybook::http::auth::new_token;
use daybook::store::feed::Follow;
use daybook::store::mongodb::MongoStore;
use daybook::store::{
    Commit, Committed, CursorMove, CursorStep, EventFilter, Fate, MoveFate, Record, Role, Store,
    StoreError,
};
use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use testkit::World;
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::{Mongod, ReplicaSet};
use testkit::world::{PATIENCE, eventually};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// What a healthy operation is given.
const AMPLE: Duration = Duration::from_secs(30);

/// What an operation is given that is expected to fail.
const SHORT: Duration = Duration::from_secs(2);

async fn store(url: &str, timeout: Duration) -> MongoStore {
    let store = MongoStore::connect(url, timeout, &Collections::default()).await;
    store.expect("a store")
}

/// One that is prepared, and that has ample time for whatever is no fault.
async fn prepared(url: &str) -> MongoStore {
    let store = store(url, AMPLE).await;
    store.prepare().await.expect("prepare");
    store
}

/// The server whose commands are made to fail, for one test at a time; each takes a database of its
/// own.
async fn failing() -> MutexGuard<'static, Mongod> {
    static SERVER: OnceCell<Mutex<Mongod>> = OnceCell::const_new();
    let start = || async { Mutex::new(Mongod::start_with(TEST_COMMANDS).await) };
    let mongod = SERVER.get_or_init(start).await.lock().await;
    // Whoever was here before may have failed itself.
    FailPoint::set(&mongod, "off", doc! {}).await;
    mongod
}

fn events(count: usize) -> Vec<AuditEvent> {
    let event = |number: usize| AuditEvent {
        at: jiff::Timestamp::UNIX_EPOCH,
        source: SourceName::new("trouble"),
        external_id: number.to_string(),
        action: "test.done".into(),
        outcome: None,
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: serde_json::Map::new().into(),
    };
    (0..count).map(event).collect()
}

fn commit_of(events: &[AuditEvent], generation: u64) -> Commit<'_> {
    let record = |event| Record::Event {
        event,
        tenant_slug: None,
    };
    Commit {
        records: events.iter().map(record).collect(),
        moves: vec![CursorMove {
            source: SourceName::new("trouble"),
            generation,
            step: CursorStep::Advance {
                from: 0,
                to: 10,
                detail: serde_json::Value::Null,
            },
            last_event_at: None,
            last_event_id: None,
        }],
        ..Commit::default()
    }
}

async fn claim(store: &MongoStore) -> u64 {
    let claimed = store.claim_cursor(&SourceName::new("trouble")).await;
    claimed.expect("claim").generation
}

async fn stored(store: &MongoStore) -> usize {
    let found = store
        .find_events(&EventFilter::default(), None, 1_000_000)
        .await;
    found.expect("find_events").len()
}

/// Repeats a commit until the store answers, as the writer does.
async fn commit_at_last(store: &MongoStore, commit: &Commit<'_>) -> Committed {
    let limit = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(committed) = store.commit(commit).await {
                return committed;
            }
        }
    });
    limit.await.expect("the store comes back")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_is_no_error_until_it_is_needed() {
    let mongod = Mongod::start().await;
    mongod.kill9();
    let store = store(&mongod.url("d"), SHORT).await;
    let error = store.ping().await.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    mongod.restart().await;
    prepared(&mongod.url("d")).await;
    eventually("it is prepared", async || store.prepare().await.is_ok()).await;
    eventually("it answers", async || store.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_gone_is_told_from_one_that_is_slow() {
    let mongod = Mongod::start().await;
    let world = World::mongodb(&mongod).await.start().await;
    world.ready().await;
    let found_nobody = async || {
        let reason = "reason=\"unavailable\"";
        world.metric("daybook_store_errors_total", reason).await
    };
    let before = found_nobody().await;
    mongod.kill9();
    let more = async || found_nobody().await > before;
    eventually("the writer has found nobody", more).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_a_timeout_in_time_and_goes_on_when_it_thaws() {
    let mongod = Mongod::start().await;
    let patient = prepared(&mongod.url("d")).await;
    let generation = claim(&patient).await;
    // The driver notices by itself in so long a time, and not before the first operation ends.
    let url = mongod.url("d") + "&connectTimeoutMS=60000";
    let store = store(&url, SHORT).await;
    eventually("it is connected", async || store.ping().await.is_ok()).await;
    let events = events(500);
    let commit = commit_of(&events, generation);

    mongod.freeze();
    for round in 0..3 {
        let started = Instant::now();
        let error = store.commit(&commit).await.expect_err("nobody answers");
        let took = started.elapsed();
        println!("a frozen server is given up in {took:?}");
        assert!(took < AMPLE, "{took:?}");
        match (round, error) {
            (0, error) => assert_eq!(error.reason(), "timeout", "{error}"),
            // By now the driver may have noticed by itself.
            (_, error) => assert!(
                matches!(error.reason(), "timeout" | "unavailable"),
                "{error}"
            ),
        }
    }
    mongod.thaw();
    let committed = commit_at_last(&store, &commit).await;
    assert!(
        !committed
            .records
            .iter()
            .any(|fate| matches!(fate, Fate::Rejected(_)))
    );
    assert!(matches!(
        committed.moves[..],
        [MoveFate::Moved | MoveFate::Covered]
    ));
    assert_eq!(stored(&patient).await, events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_unavailable_and_keeps_what_was_answered() {
    let mongod = Mongod::start().await;
    let patient = prepared(&mongod.url("d")).await;
    let generation = claim(&patient).await;
    let store = store(&mongod.url("d"), SHORT).await;
    let events = events(500);
    let commit = commit_of(&events, generation);
    commit_at_last(&store, &commit).await;

    mongod.kill9();
    let error = store.commit(&commit).await.expect_err("nobody is there");
    let reason = error.reason();
    assert!(matches!(reason, "unavailable" | "timeout"), "{error}");
    mongod.restart().await;
    let again = commit_at_last(&store, &commit).await;
    assert!(again.records.iter().all(|fate| *fate == Fate::Duplicate));
    assert_eq!(again.moves, [MoveFate::Covered]);
    assert_eq!(stored(&patient).await, events.len());
}

/// Then what has to stand before events of this kind does, and a fault meets the events or the cursor.
async fn enter_one_before(store: &MongoStore, generation: u64) {
    let first = events(11).split_off(10);
    let first = Commit {
        moves: Vec::new(),
        ..commit_of(&first, generation)
    };
    store.commit(&first).await.expect("commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_concern_error_is_never_success() {
    let mongod = failing().await;
    let store = store(&mongod.url("concern"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let generation = claim(&store).await;
    enter_one_before(&store, generation).await;
    let events = events(10);
    let commit = commit_of(&events, generation);
    for (command, expected) in [("insert", 0), ("update", 10)] {
        let data = doc! {
            "failCommands": [command],
            "writeConcernError": { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" },
        };
        let fail_point = FailPoint::set(&mongod, doc! { "times": 1 }, data).await;
        let error = store.commit(&commit).await.expect_err(command);
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert_eq!(fail_point.off().await, 1, "{command} was hit");
        let cursors = store.cursors().await.expect("cursors");
        assert_eq!(cursors[0].seq, expected, "after a failed {command}");
    }
    let again = store.commit(&commit).await.expect("commit");
    assert!(again.records.iter().all(|fate| *fate == Fate::Duplicate));
    assert_eq!(again.moves, [MoveFate::Covered]);
    assert_eq!(stored(&store).await, events.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_full_disks_are_told_apart() {
    let mongod = failing().await;
    let store = store(&mongod.url("refusals"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let generation = claim(&store).await;
    let events = events(10);
    let commit = commit_of(&events, generation);
    for (code, reason) in [
        (13, "unauthorized"),
        (14031, "full"),
        (8, "other"),
        (11600, "unavailable"),
    ] {
        let data = doc! { "failCommands": ["insert"], "errorCode": code };
        let fail_point = FailPoint::set(&mongod, "alwaysOn", data).await;
        let error = store.commit(&commit).await.expect_err("a failed insert");
        assert!(fail_point.off().await >= 1, "{code} was hit");
        assert_eq!(error.reason(), reason, "{code}: {error}");
    }
    // The driver believes "shutting down" until its next look at the server.
    let committed = commit_at_last(&store, &commit).await;
    assert_eq!(committed.moves, [MoveFate::Moved]);
    assert_eq!(stored(&store).await, events.len());
}

/// The events stand when a cursor is refused: none of them may be condemned for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_cursor_is_no_events_fault() {
    let mongod = failing().await;
    let store = store(&mongod.url("cursor"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let generation = claim(&store).await;
    enter_one_before(&store, generation).await;
    let events = events(10);
    let commit = commit_of(&events, generation);
    for code in [8, 9, 2] {
        let data = doc! { "failCommands": ["update"], "errorCode": code };
        let fail_point = FailPoint::set(&mongod, "alwaysOn", data).await;
        let error = store.commit(&commit).await.expect_err("a failed update");
        assert!(fail_point.off().await >= 1, "{code} was hit");
        assert!(matches!(error, StoreError::Refused(_)), "{code}: {error}");
        assert_eq!(stored(&store).await, events.len() + 1);
    }
    let again = store.commit(&commit).await.expect("commit");
    assert!(again.records.iter().all(|fate| *fate == Fate::Duplicate));
    assert_eq!(again.moves, [MoveFate::Moved]);
}

/// Nor when the mark of their hour is, which holds nothing of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mark_of_an_hour_is_no_events_fault() {
    let mongod = failing().await;
    let store = store(&mongod.url("mark"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let generation = claim(&store).await;
    let events = events(10);
    let commit = commit_of(&events, generation);
    for code in [8, 9, 2] {
        let data = doc! {
            "failCommands": ["update"], "namespace": "mark.auditevents.counts", "errorCode": code,
        };
        let fail_point = FailPoint::set(&mongod, "alwaysOn", data).await;
        let error = store.commit(&commit).await.expect_err("a failed mark");
        assert!(fail_point.off().await >= 1, "{code} was hit");
        assert!(matches!(error, StoreError::Refused(_)), "{code}: {error}");
    }
    let again = store.commit(&commit).await.expect("commit");
    assert_eq!(again.moves, [MoveFate::Moved]);
    assert_eq!(stored(&store).await, events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_no_outage_and_stay_secret() {
    let mongod = Mongod::start_with(&["--auth"]).await;
    let port = mongod.port();
    let nobody = store(&mongod.url("d"), AMPLE).await;
    let error = nobody.prepare().await.expect_err("no credentials");
    assert_eq!(error.reason(), "unauthorized", "{error}");

    let url = format!("mongodb://daybook:s3cr3t-w0rd@127.0.0.1:{port}/d?directConnection=true");
    let stranger = store(&url, AMPLE).await;
    assert!(!format!("{stranger:?}").contains("s3cr3t"));
    let events = events(1);
    for error in [
        stranger.ping().await.expect_err("wrong credentials"),
        stranger.prepare().await.expect_err("wrong credentials"),
        stranger
            .commit(&commit_of(&events, 1))
            .await
            .expect_err("wrong credentials"),
    ] {
        assert_eq!(error.reason(), "unauthorized", "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    }

    let malformed = "mongodb://daybook:s3cr3t-w0rd@127.0.0.1:port/d";
    let error = MongoStore::connect(malformed, SHORT, &Collections::default()).await;
    let error = error.expect_err("no port");
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_on_a_standalone_is_repeated_without_doubles() {
    let mongod = failing().await;
    let store = store(&mongod.url("connection"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let generation = claim(&store).await;
    let events = events(10);
    let commit = commit_of(&events, generation);
    let data = doc! { "failCommands": ["insert"], "closeConnection": true };
    let fail_point = FailPoint::set(&mongod, doc! { "times": 1 }, data).await;
    let error = store.commit(&commit).await.expect_err("a lost connection");
    assert_eq!(error.reason(), "unavailable", "{error}");
    assert_eq!(fail_point.off().await, 1);
    let committed = store.commit(&commit).await.expect("commit");
    assert_eq!(committed.moves, [MoveFate::Moved]);
    assert_eq!(stored(&store).await, events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_unique_index_is_no_duplicate_of_ours() {
    let mongod = Mongod::shared().await;
    let store = store(&mongod.url("other_unique"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let generation = claim(&store).await;
    let database = mongod.database("other_unique").await;
    let index = doc! { "key": { "action": 1 }, "name": "one_per_action", "unique": true };
    let command = doc! { "createIndexes": "auditevents", "indexes": [index] };
    database
        .run_command(command)
        .await
        .expect("an index of somebody");

    let events = events(2);
    let commit = commit_of(&events, generation);
    let error = store
        .commit(&commit)
        .await
        .expect_err("the second event is not stored");
    assert!(matches!(error, StoreError::Other(_)), "{error}");
    assert_eq!(store.cursors().await.expect("cursors")[0].seq, 0);

    let command = doc! { "dropIndexes": "auditevents", "index": "one_per_action" };
    database.run_command(command).await.expect("the index goes");
    let committed = store.commit(&commit).await.expect("commit");
    assert_eq!(committed.moves, [MoveFate::Moved]);
    assert_eq!(stored(&store).await, 2);
}

/// A validator of somebody's refuses Daybook's own events: what cannot be entered is not done.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_timeline_does_not_take_is_not_done() {
    let mongod = Mongod::shared().await;
    let plan = World::at(&mongod.url("own_events"));
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let (token, record) = new_token(Role::Operator, None, None);
    let store = world.daybook().store();
    store.insert_token(&record).await.expect("a token");
    let database = mongod.database("own_events").await;
    let validator = doc! { "$jsonSchema": { "properties": { "source": { "enum": ["ocis"] } } } };
    let command = doc! { "collMod": "auditevents", "validator": validator };
    database.run_command(command).await.expect("a validator");

    let url = world.url("/api/v1/export?format=ndjson");
    let export = world.client().get(url).bearer_auth(&token);
    let answer = export.send().await.expect("an answer");
    assert_eq!(answer.status(), 503);
    let form = format!("token={token}");
    let is_form = ("content-type", "application/x-www-form-urlencoded");
    let (status, _) = world.post("/audit/sign-in", form, &[is_form]).await;
    assert_eq!(status, 503);
    let tokens = database.collection::<Document>("daybooktokens");
    let tokens = tokens.count_documents(doc! {}).await.expect("a count");
    assert_eq!(tokens, 1, "no session is left");
    assert_eq!(world.events().await.len(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_loses_its_primary_its_connections_and_its_majority() {
    let set = ReplicaSet::start_with(3, TEST_COMMANDS).await;
    // Three servers take their time to make an index.
    let patient = prepared(&set.url("d")).await;
    let generation = claim(&patient).await;
    let store = store(&set.url("d"), SHORT).await;
    eventually("it is connected", async || store.ping().await.is_ok()).await;
    let events = events(300);
    let commit = commit_of(&events, generation);

    // The driver itself repeats an insert whose connection was lost.
    let data = doc! { "failCommands": ["insert"], "closeConnection": true };
    let fail_point = FailPoint::set(set.primary().await, doc! { "times": 1 }, data).await;
    let committed = commit_at_last(&store, &commit).await;
    // Several are on the wire at once, and the server counts the one time a little late.
    assert!(fail_point.off().await >= 1);
    assert!(matches!(
        committed.moves[..],
        [MoveFate::Moved | MoveFate::Covered]
    ));

    set.step_down().await;
    let again = commit_at_last(&store, &commit).await;
    assert!(again.records.iter().all(|fate| *fate == Fate::Duplicate));
    assert_eq!(stored(&patient).await, events.len());

    // Without a majority nothing is durable, whatever the primary says.
    let primary = set.primary().await.port();
    let others = || set.members.iter().filter(|member| member.port() != primary);
    others().for_each(Mongod::freeze);
    let more = self::events(301);
    let more = commit_of(&more[300..], generation);
    let started = Instant::now();
    let error = store.commit(&more).await.expect_err("no majority");
    let took = started.elapsed();
    println!("a lost majority is noticed in {took:?}");
    assert!(took < AMPLE, "{took:?}");
    assert!(
        matches!(error.reason(), "timeout" | "unavailable"),
        "{error}"
    );
    // The primary has it, for as long as it is one. Nobody is shown what it may have to take back.
    let shown = store.find_events(&EventFilter::default(), None, 1000).await;
    assert!(shown.is_err() || shown.is_ok_and(|shown| shown.len() == events.len()));
    others().for_each(Mongod::thaw);
    commit_at_last(&store, &more).await;
    assert_eq!(stored(&patient).await, events.len() + 1);
}

/// Sets a fail point of the members that are not primary.
async fn at_secondaries(set: &ReplicaSet, fail_point: &str, mode: &str) {
    let primary = set.primary().await.port();
    for member in set.members.iter().filter(|one| one.port() != primary) {
        let admin = member.database("admin").await;
        let command = doc! { "configureFailPoint": fail_point, "mode": mode };
        admin.run_command(command).await.expect("a fail point");
    }
}

async fn is_behind(hasty: &MongoStore) -> bool {
    let claimed = hasty.claim_cursor(&SourceName::new("trouble")).await;
    claimed.is_err()
}

/// The secondaries take nothing more; yields a store that finds it out soon.
async fn hold_majority_back(set: &ReplicaSet) -> MongoStore {
    let hasty = store(&set.url("d"), SHORT).await;
    eventually("it is connected", async || hasty.ping().await.is_ok()).await;
    at_secondaries(set, "stopReplProducer", "alwaysOn").await;
    // They take what was on its way.
    eventually("the majority stays behind", async || {
        is_behind(&hasty).await
    })
    .await;
    assert!(is_behind(&hasty).await, "once more");
    hasty
}

/// Commits that are slow are no reason to take the store for away: it is prepared without a write.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_stand_do_not_wait_for_a_majority_that_is_behind() {
    let set = ReplicaSet::start_with(3, TEST_COMMANDS).await;
    let patient = prepared(&set.url("d")).await;
    claim(&patient).await;
    let hasty = hold_majority_back(&set).await;
    patient.prepare().await.expect("nothing to create");
    assert!(is_behind(&hasty).await, "all the while");
}

/// Another process enters an event, and waits until so many members have it.
async fn enter_late(set: &ReplicaSet, members: impl Into<Bson>) {
    let event = doc! { "at": mongodb::bson::DateTime::now(), "action": "test.late" };
    let insert = doc! {
        "insert": "auditevents", "documents": [event], "writeConcern": { "w": members.into() },
    };
    let database = set.database("d").await;
    let answer = database.run_command(insert).await.expect("an answer");
    assert_eq!(answer.get_i32("n").ok(), Some(1), "{answer}");
}

async fn following(store: &MongoStore, place: Option<&str>) -> Box<dyn Follow> {
    let follow = store.follow(place).await.expect("an answer");
    follow.expect("a place")
}

/// Reads on until everything is met.
async fn met(follow: &mut Box<dyn Follow>) -> Vec<String> {
    let mut met = Vec::new();
    loop {
        let found = follow.next().await.expect("next");
        met.extend(found.entries.into_iter().map(|entry| entry.event.action));
        if !found.more {
            return met;
        }
    }
}

/// What begins with a page, or with a look from a place without a token, goes on with what was not in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_majority_is_told_when_it_has_it() {
    let set = ReplicaSet::start_with(3, TEST_COMMANDS).await;
    let store = prepared(&set.url("d")).await;
    hold_majority_back(&set).await;
    enter_late(&set, 1).await;
    let mut follows = Vec::new();
    for place in [None, Some("0-i")] {
        let mut follow = following(&store, place).await;
        assert!(met(&mut follow).await.is_empty(), "{place:?}");
        follows.push(follow);
    }
    assert_eq!(stored(&store).await, 0, "no majority has it");

    at_secondaries(&set, "stopReplProducer", "off").await;
    for mut follow in follows {
        let is_told = async || met(&mut follow).await == ["test.late"];
        eventually("it is told", is_told).await;
    }
}

/// The new one does not know yet that a majority has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_primary_told_of_is_read_from_the_new_one() {
    let set = ReplicaSet::start_with(3, TEST_COMMANDS).await;
    let store = prepared(&set.url("d")).await;
    let mut follow = following(&store, Some("0-i")).await;
    assert!(met(&mut follow).await.is_empty());
    at_secondaries(&set, "disableSnapshotting", "alwaysOn").await;
    enter_late(&set, "majority").await;
    let refused = doc! {
        "failCommands": ["find"], "namespace": "d.auditevents", "errorCode": 8,
    };
    let fail_point = FailPoint::set(set.primary().await, "alwaysOn", refused).await;
    let is_refused = async || follow.next().await.is_err();
    eventually("it is told of, and not read", is_refused).await;
    assert!(fail_point.off().await > 0, "the read was refused");

    set.step_down().await;
    let filter = EventFilter::default();
    eventually("the new primary does not know", async || {
        let shown = store.find_events(&filter, None, 10).await;
        shown.is_ok_and(|shown| shown.is_empty())
    })
    .await;
    eventually("it is read", async || {
        let found = follow.next().await;
        found.is_ok_and(|found| !found.entries.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_keeps_beside_ours_is_read_as_far_as_it_goes() {
    let mongod = Mongod::shared().await;
    let database = mongod.database("platform").await;
    let id = mongodb::bson::oid::ObjectId::new();
    let uuid = mongodb::bson::Uuid::from_bytes(*b"0123456789abcdef");
    let tenants = [
        doc! { "_id": id, "slug": "acme", "name": "Acme", "domains": ["acme.example", 7], "groups": ["acme-users"], "spaceIds": [] },
        doc! { "_id": "text-id", "slug": "globex" },
        doc! { "_id": uuid, "slug": "initech", "domains": "initech.example", "groups": null },
        doc! { "_id": 4, "slug": "hooli" },
        doc! { "_id": 5, "name": "no slug" },
        doc! { "_id": 6, "slug": ["wrong"] },
    ];
    database
        .collection("tenants")
        .insert_many(tenants)
        .await
        .expect("tenants");
    let users = [
        doc! { "authentikSubjectId": "s1", "email": "a@acme.example", "tenantIds": [id, "text-id", uuid, 4_i64, 4.0, {}] },
        doc! { "email": "b@acme.example", "tenantIds": [id] },
        doc! { "authentikSubjectId": 7, "tenantIds": [id] },
        doc! { "authentikSubjectId": "s4" },
        doc! { "authentikSubjectId": "s5", "tenantIds": "none" },
    ];
    database
        .collection("users")
        .insert_many(users)
        .await
        .expect("users");
    let theirs = [
        doc! { "at": mongodb::bson::DateTime::from_millis(1000), "action": "platform.login", "metadata": { "when": mongodb::bson::DateTime::from_millis(0), "id": id } },
        doc! { "at": "yesterday", "action": "no date" },
        doc! { "_id": "own id", "at": mongodb::bson::DateTime::from_millis(1000), "externalId": null },
    ];
    database
        .collection("auditevents")
        .insert_many(theirs)
        .await
        .expect("events of others");

    let store = store(&mongod.url("platform"), AMPLE).await;
    store.prepare().await.expect("prepare");
    let directory = store.directory().await.expect("directory");
    let uuid_text = uuid.to_string();
    let slugs: Vec<_> = directory
        .tenants
        .iter()
        .map(|t| (t.id.as_str(), t.slug.as_str()))
        .collect();
    let id_text = id.to_hex();
    assert_eq!(slugs.len(), 4);
    for expected in [
        (&*id_text, "acme"),
        ("text-id", "globex"),
        (&*uuid_text, "initech"),
        ("4", "hooli"),
    ] {
        assert!(slugs.contains(&expected), "{expected:?} in {slugs:?}");
    }
    let acme = directory
        .tenants
        .iter()
        .find(|tenant| tenant.slug == "acme")
        .expect("acme");
    assert_eq!(
        (acme.name.as_deref(), &acme.domains[..]),
        (Some("Acme"), &["acme.example".to_owned()][..])
    );
    assert_eq!(directory.users.len(), 2);
    assert_eq!(directory.users[0].subject.as_deref(), Some("s1"));
    assert_eq!(
        directory.users[0].tenant_ids,
        [&*id_text, "text-id", &*uuid_text, "4", "4"]
    );
    assert_eq!(directory.users[1].email.as_deref(), Some("b@acme.example"));

    let events = store
        .find_events(&EventFilter::default(), None, 10)
        .await
        .expect("find_events");
    let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["platform.login", ""]);
    assert_eq!(events[0].metadata["when"], "1970-01-01T00:00:00Z");
    assert_eq!(events[0].metadata["id"], *id_text);
    let by_id = store.event("own id", None).await.expect("event");
    assert_eq!(by_id.as_ref(), Some(&events[1]));
    for (index, expected) in [(0, 1), (1, 0)] {
        let key = daybook::store::PageKey {
            at: events[index].at,
            id: events[index].id.clone(),
        };
        let rest = store
            .find_events(&EventFilter::default(), Some(&key), 10)
            .await
            .expect("find_events");
        assert_eq!(rest.len(), expected);
    }
}

/// With the fields that the platform knows of, as its own reader or a hand leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_lacks_its_seq_is_taken_over() {
    let mongod = Mongod::shared().await;
    for (name, seq) in [
        ("seq_lacks", None),
        ("seq_null", Some(Bson::Null)),
        ("seq_text", Some("7".into())),
    ] {
        let mut theirs = doc! { "source": "trouble", "lastEventId": "7:42" };
        theirs.extend(seq.map(|seq| ("seq".to_owned(), seq)));
        let database = mongod.database(name).await;
        let cursors = database.collection::<Document>("ingestcursors");
        cursors.insert_one(theirs).await.expect("a cursor");
        let store = prepared(&mongod.url(name)).await;
        let generation = claim(&store).await;
        let committed = store.commit(&commit_of(&[], generation)).await;
        if name == "seq_text" {
            let error = committed.expect_err("it cannot be moved");
            assert!(!error.is_away(), "the other sources wait: {error}");
            continue;
        }
        let committed = committed.expect("commit");
        assert_eq!(committed.moves, [MoveFate::Moved], "{name}");
        let cursor = store.cursors().await.expect("cursors").remove(0);
        assert_eq!((cursor.generation, cursor.seq), (1, 10), "{name}");
        assert_eq!(cursor.last_event_id.as_deref(), Some("7:42"));
    }
}

#[tokio::test]
async fn records_whose_order_matters_are_entered_in_it() {
    let mongod = failing().await;
    assert!(stand_as_sent(&mongod, "ordered", true).await);
    // Proves that the fault puts others out of order; not where the second insert came first and was late.
    for round in 0..20 {
        if !stand_as_sent(&mongod, &format!("at_once_{round}"), false).await {
            return;
        }
    }
    panic!("nothing was put out of order");
}

/// Enters events in a database of their own while the server lets the insert that comes first wait; whether they
/// stand there as they were sent.
async fn stand_as_sent(mongod: &Mongod, database: &str, in_order: bool) -> bool {
    let store = store(&mongod.url(database), AMPLE).await;
    let events = events(1_200);
    let commit = Commit {
        moves: Vec::new(),
        in_order,
        ..commit_of(&events, 0)
    };
    let slow = doc! {
        "failCommands": ["insert"], "namespace": format!("{database}.auditevents"),
        "blockConnection": true, "blockTimeMS": 1_000,
    };
    let fail_point = FailPoint::set(mongod, doc! { "times": 1 }, slow).await;
    let committed = store.commit(&commit).await.expect("commit");
    assert_eq!(fail_point.off().await, 1, "the first insert was late");
    assert_eq!(committed.records, vec![Fate::Written; events.len()]);

    let stored = mongod.database(database).await;
    let stored = stored.collection::<Document>("auditevents");
    let found = stored.find(doc! {}).sort(doc! { "$natural": 1 }).await;
    let found: Vec<Document> = found.expect("find").try_collect().await.expect("documents");
    let entered = found
        .iter()
        .map(|event| event.get_str("externalId").expect("a key"));
    entered.eq(events.iter().map(|event| event.external_id.as_str()))
}
