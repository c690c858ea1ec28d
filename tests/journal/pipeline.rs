//! A whole Daybook whose store goes away: pushes are answered from the journal and are in the
//! store afterwards, each once, in the order of arrival.

use std::time::Duration;

use daybook::config::{Config, LoadedConfig};
use daybook::probe::{Fault, Probes};
use daybook::sources::text::sha256_hex;
use daybook::store::StoredEvent;
use daybook::tree::{Daybook, End, TreeOptions};
use serde_json::{Value, json};
use testkit::http::sign;
use testkit::mongod::Mongod;
use testkit::world::{Plan, World, eventually};

use super::*;

const KEY: &str = "hook-key";
const ROUTE: &str = "/ingest/stalwart/webhook";

fn plan(plan: Plan) -> Plan {
    plan.file("hook.key", KEY);
    let key = plan.dir().join("hook.key");
    let stalwart = format!(
        "kind = \"stalwart\"\nname = \"mail\"\nroute = \"{ROUTE}\"\nsecret_files = [\"{}\"]",
        key.display()
    );
    plan.source(&stalwart)
        .source("kind = \"recorder\"\nname = \"platform\"")
}

/// With a store that is believed to be away sooner than by default.
async fn started(plan: Plan) -> World {
    plan.start_with("auth = \"none\"", "timeout = \"3s\"").await
}

/// A webhook of so many events, told apart by `batch` and their place.
fn webhook(batch: usize, events: usize) -> String {
    let events: Vec<Value> = (0..events)
        .map(|event| {
            json!({
                "id": "1", "type": "auth.failed",
                "createdAt": "2026-11-24T04:05:39Z",
                "data": {"accountName": format!("{batch}-{event}@example.org"), "remoteIp": "192.0.2.1"},
            })
        })
        .collect();
    json!({ "events": events }).to_string()
}

async fn send(world: &World, batch: usize, events: usize) -> (u16, Value) {
    send_raw(world, &webhook(batch, events)).await
}

async fn send_raw(world: &World, body: &str) -> (u16, Value) {
    let signature = sign(KEY, body.as_bytes());
    world
        .post(ROUTE, body.to_owned(), &[("x-signature", &signature)])
        .await
}

fn account(event: &StoredEvent) -> String {
    event.metadata["data"]["accountName"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn not_ready(world: &World) {
    eventually("the store is known to be away", async || {
        world.get("/readyz").await.0 == 503
    })
    .await;
}

async fn ready(world: &World) {
    eventually("the store takes writes", async || {
        world.get("/readyz").await.0 == 200
    })
    .await;
}

async fn drained(world: &World) {
    eventually("the journal is drained", async || {
        world.daybook().journal().unwrap().is_empty()
    })
    .await;
}

/// The first push, while the store may be slow yet; how many the journal has taken by then.
async fn begun(world: &World, events: usize) -> u64 {
    ready(world).await;
    let wanted = (200, json!({"received": events}));
    assert_eq!(send(world, 0, events).await, wanted);
    world.events_reach(events).await;
    drained(world).await;
    world.daybook().journal().unwrap().figures().appended
}

/// received = written + duplicate + filtered + dead-lettered, nothing being in flight.
async fn accounts_balance(world: &World, source: &str) {
    let label = format!("source=\"{source}\"");
    let received = world.metric("daybook_events_received_total", &label).await;
    let mut settled = 0.0;
    for name in ["written", "duplicate", "filtered", "dead_lettered"] {
        settled += world
            .metric(&format!("daybook_events_{name}_total"), &label)
            .await;
    }
    assert_eq!(received, settled, "accounts of {source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_while_mongod_is_gone_are_answered_and_entered_afterwards_once_and_in_order() {
    let mongod = Mongod::start().await;
    let world = started(plan(World::mongodb(&mongod).await)).await;
    let before = begun(&world, 2).await;
    mongod.kill9();

    for batch in 1..=60 {
        let wanted = (200, json!({"received": 3}));
        assert_eq!(send(&world, batch, 3).await, wanted, "batch {batch}");
        if batch % 10 == 0 {
            let event = json!({"action": "invoice.paid", "target": {"id": batch.to_string()}});
            let answer = world.post("/api/v1/events", event.to_string(), &[]).await;
            assert_eq!(answer, (200, json!({"received": 1})));
        }
    }
    not_ready(&world).await;
    let figures = world.daybook().journal().unwrap().figures();
    assert_eq!(figures.appended - before, 66);
    assert!(world.metric("daybook_journal_bytes", "").await > 10_000.0);
    assert!(world.metric("daybook_journal_oldest_seconds", "").await > 0.0);
    let (_, sources) = world.get("/api/v1/sources").await;
    let states: Vec<&Value> = sources["sources"].as_array().unwrap().iter().collect();
    let state =
        |name: &str| states.iter().find(|each| each["name"] == name).unwrap()["state"].clone();
    assert_eq!(state("mail"), "blocked");
    world.source_becomes("journal", "blocked").await;
    // Those that the drainer has on their way are as durable as the others.
    eventually("nothing lags", async || {
        let lag = world.metric("daybook_ingest_lag_seconds", "source=\"mail\"");
        lag.await == 0.0
    })
    .await;

    mongod.restart().await;
    let events = world.events_reach(2 + 60 * 3 + 6).await;
    drained(&world).await;
    let mut mails: Vec<_> = events
        .iter()
        .filter(|event| event.source == "mail")
        .collect();
    // The store's ids grow as events are entered.
    mails.sort_by(|a, b| a.id.cmp(&b.id));
    let entered: Vec<_> = mails.iter().map(|event| account(event)).collect();
    let sent = (0..=60).flat_map(|batch| {
        let events = if batch == 0 { 2 } else { 3 };
        (0..events).map(move |event| format!("{batch}-{event}@example.org"))
    });
    assert_eq!(entered, sent.collect::<Vec<_>>());
    world.source_becomes("mail", "running").await;
    world.source_becomes("platform", "running").await;
    world.source_becomes("journal", "running").await;
    assert_eq!(world.metric("daybook_journal_bytes", "").await, 0.0);
    assert_eq!(
        world.metric("daybook_journal_oldest_seconds", "").await,
        0.0
    );
    accounts_balance(&world, "mail").await;
    accounts_balance(&world, "platform").await;
    let latency = world
        .metric("daybook_ingest_latency_seconds_count", "source=\"mail\"")
        .await;
    assert_eq!(latency, 182.0);
    assert_eq!(send(&world, 99, 1).await, (200, json!({"received": 1})));
    world.events_reach(189).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_while_mongod_is_gone_is_a_dead_letter_afterwards() {
    let mongod = Mongod::start().await;
    let plan = plan(World::mongodb(&mongod).await);
    let log = plan.file("audit.log", "");
    let tools = plan.file(
        "tools.toml",
        format!(
            "[store]\nurl = \"{}\"\ntimeout = \"1s\"\n[journal]\ndir = \"{}\"\n",
            plan.store_url(),
            plan.dir().join("journal").display()
        ),
    );
    let world =
        started(plan.source(&format!("kind = \"ocis\"\npath = \"{}\"", log.display()))).await;
    ready(&world).await;
    world.source_becomes("ocis", "running").await;
    mongod.kill9();

    let before = Timestamp::now();
    let quarantined = (200, json!({"received": 0, "quarantined": 1}));
    assert_eq!(send_raw(&world, "no json").await, quarantined);
    std::fs::write(&log, "no line of an audit log\n").unwrap();
    world.source_becomes("ocis", "blocked").await;
    let list = std::process::Command::new(env!("CARGO_BIN_EXE_daybook"))
        .args(["dead-letters", "list", "-c"])
        .arg(&tools)
        .output()
        .unwrap();
    let told = String::from_utf8(list.stderr).unwrap();
    assert!(!list.status.success(), "{told}");
    assert!(told.contains("the store is away"), "{told}");
    assert!(
        told.contains("bytes of pushes wait in the journal"),
        "{told}"
    );
    assert!(!told.contains(" 0 bytes"), "{told}");
    let away = Timestamp::now();

    mongod.restart().await;
    let mut letters = Vec::new();
    eventually("both are dead letters", async || {
        letters = world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap_or_default();
        letters.len() == 2
    })
    .await;
    for (source, raw) in [("mail", "no json"), ("ocis", "no line of an audit log")] {
        let stored = letters
            .iter()
            .find(|stored| stored.letter.source.as_str() == source)
            .unwrap();
        assert_eq!(stored.letter.raw, raw.as_bytes(), "{source}");
        let at = stored.letter.at;
        assert!(
            at.as_millisecond() >= before.as_millisecond() && at <= away,
            "{source}: {at}"
        );
    }
    drained(&world).await;
    assert!(
        send(&world, 1, 1).await.0 == 200,
        "nothing is blocked by them"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mongod_sends_pushes_to_the_journal_within_seconds() {
    let mongod = Mongod::start().await;
    let world = started(plan(World::mongodb(&mongod).await)).await;
    let before = begun(&world, 1).await;
    mongod.freeze();
    let started = std::time::Instant::now();
    let pushes = (1..=20).map(|batch| send(&world, batch, 2));
    for answer in futures_util::future::join_all(pushes).await {
        assert_eq!(answer, (200, json!({"received": 2})));
    }
    let took = started.elapsed();
    println!("twenty pushes were answered from the journal in {took:?}");
    assert!(
        took > Duration::from_secs(1),
        "the store was given a chance: {took:?}"
    );
    let figures = world.daybook().journal().unwrap().figures();
    assert_eq!(figures.appended - before, 20);
    mongod.thaw();
    world.events_reach(41).await;
    drained(&world).await;
    accounts_balance(&world, "mail").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_journal_outlives_a_restart_and_every_kill_of_the_drainer() {
    let mongod = Mongod::start().await;
    let probes = Probes::new();
    let options = TreeOptions {
        probes: probes.clone(),
        ..TreeOptions::of(&Config::default())
    };
    let plan = plan(World::mongodb(&mongod).await).options(options);
    let mut world = started(plan).await;
    begun(&world, 1).await;
    mongod.kill9();
    for batch in 1..=10 {
        assert_eq!(send(&world, batch, 1).await.0, 200);
    }
    let event = json!({"action": "made.key"}).to_string();
    assert_eq!(world.post("/api/v1/events", event, &[]).await.0, 200);
    world.restart().await;
    let figures = world.daybook().journal().unwrap().figures();
    assert!(figures.bytes > 0 && figures.oldest.is_some());
    for batch in 11..=20 {
        assert_eq!(send(&world, batch, 1).await.0, 200, "batch {batch}");
    }
    // Killed while the store is away, twice with a window in hand that it has just read, and once
    // when the window is in the store and the journal does not know it.
    let kill = async || world.daybook().kill("journal").await;
    let mut strike = probes.strike("journal", "after_read", Fault::Stand, 1);
    eventually("the drainer is up, to be killed", async || {
        world.daybook().kill("journal").await
    })
    .await;
    for next in ["after_read", "after_ack"] {
        strike.struck().await;
        let then = probes.strike("journal", next, Fault::Stand, 1);
        assert!(kill().await, "it stands with a window in hand");
        strike = then;
    }
    mongod.restart().await;
    strike.struck().await;
    let restarts = async || {
        let killed = "actor=\"journal\",reason=\"killed\"";
        world.metric("daybook_actor_restarts_total", killed).await
    };
    let before = restarts().await;
    assert!(kill().await, "it stands before the journal knows");
    // It stands until the kill has reached it.
    eventually("it is restarted", async || restarts().await > before).await;
    drop(strike);
    world.events_reach(22).await;
    drained(&world).await;
    let duplicates = world.metric("daybook_events_duplicate_total", "").await;
    assert!(duplicates >= 21.0, "{duplicates} came out again");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_answers_503_and_takes_pushes_again_when_it_is_drained() {
    let mongod = Mongod::start().await;
    let plan = plan(World::mongodb(&mongod).await);
    // Stands behind the world's own lines of `[journal]`.
    let world = started(plan.journal_size("8KiB")).await;
    begun(&world, 1).await;
    mongod.kill9();
    let mut kept = 0;
    let refused = loop {
        let answer = send(&world, kept + 1, 1).await;
        if answer.0 != 200 {
            break answer;
        }
        kept += 1;
        assert!(kept < 100);
    };
    assert_eq!(refused.0, 503);
    assert!(
        refused.1["error"]["message"]
            .as_str()
            .unwrap()
            .contains("journal is full"),
        "{refused:?}"
    );
    assert!(kept > 5, "{kept}");
    mongod.restart().await;
    world.events_reach(kept + 1).await;
    drained(&world).await;
    assert_eq!(send(&world, kept + 1, 1).await.0, 200);
    world.events_reach(kept + 2).await;
    world.stop().await;
}

/// It has the time that it has without a journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_takes_a_push_for_which_the_journal_has_no_room() {
    let probes = Probes::new();
    let options = TreeOptions {
        probes: probes.clone(),
        ..TreeOptions::of(&Config::default())
    };
    let plan = plan(World::sqlite().await).journal_size("64B");
    let world = plan.options(options).start().await;
    ready(&world).await;
    // A pass at which the first is struck is none to the second.
    let commits = [1, 1].map(|nth| probes.strike("writer", "before_insert", Fault::Stand, nth));
    let event = json!({"action": "invoice.paid"}).to_string();
    let mut answer = Box::pin(world.post("/api/v1/events", event, &[]));
    // The journal is asked in between, and the push is sent to the store once more.
    for commit in &commits {
        tokio::select! {
            answer = &mut answer => panic!("{answer:?}"),
            () = commit.struck() => {}
        }
    }
    drop(commits);
    assert_eq!(answer.await, (200, json!({"received": 1})));
    world.events_reach(1).await;
    accounts_balance(&world, "platform").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_for_which_the_journal_has_no_room_waits_for_room_in_flight() {
    let plan = plan(World::sqlite().await).journal_size("64B");
    let world = plan.start().await;
    ready(&world).await;
    let budget = world.daybook().budget();
    let everything = budget.acquire(budget.limit()).await;
    let before = budget.waited();
    let longer_than_the_journal = json!({"note": "x".repeat(64)});
    let event = json!({"action": "invoice.paid", "metadata": longer_than_the_journal});
    let event = event.to_string();
    let mut answer = Box::pin(world.post("/api/v1/events", event, &[]));
    let waits = eventually("it waits", async || budget.waited() > before);
    tokio::select! {
        answer = &mut answer => panic!("{answer:?}"),
        () = waits => {}
    }
    drop(everything);
    assert_eq!(answer.await, (200, json!({"received": 1})));
    world.events_reach(1).await;
    world.stop().await;
}

/// Its sender gives up, and nobody else sends anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_nothing_takes_leaves_neither_a_blocked_source_nor_a_debt() {
    let mongod = Mongod::start().await;
    let options = TreeOptions {
        push_patience: Duration::from_secs(5),
        ..TreeOptions::of(&Config::default())
    };
    let plan = plan(World::mongodb(&mongod).await).journal_size("0B");
    let world = started(plan.options(options)).await;
    ready(&world).await;
    mongod.kill9();
    not_ready(&world).await;
    assert_eq!(send(&world, 1, 5).await.0, 503);
    world.source_becomes("mail", "blocked").await;

    mongod.restart().await;
    world.source_becomes("mail", "running").await;
    // The first commits after an outage may outlast a sender's patience.
    eventually("another push is taken", async || {
        send(&world, 2, 1).await.0 == 200
    })
    .await;
    world.events_reach(1).await;
    let mails = "source=\"mail\"";
    let received = world.metric("daybook_events_received_total", mails).await;
    assert_eq!(received, 1.0);
    accounts_balance(&world, "mail").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_too_much_is_in_flight_pushes_go_to_the_journal() {
    let world = plan(World::sqlite().await).start().await;
    assert_eq!(send(&world, 0, 1).await.0, 200);
    let budget = world.daybook().budget();
    let everything = budget.acquire(budget.limit()).await;
    let before = world.daybook().journal().unwrap().figures().appended;
    for batch in 1..=5 {
        assert_eq!(send(&world, batch, 2).await, (200, json!({"received": 2})));
    }
    let quarantined = send_raw(&world, "no json").await;
    assert_eq!(quarantined, (200, json!({"received": 0, "quarantined": 1})));
    let journal = world.daybook().journal().unwrap();
    assert_eq!(journal.figures().appended - before, 6);
    assert!(!journal.is_empty(), "there is no room to drain either");
    drop(everything);
    world.events_reach(11).await;
    drained(&world).await;
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    accounts_balance(&world, "mail").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_the_journal_enters_nothing_twice() {
    let plan = plan(World::sqlite().await);
    let dir = plan.dir().join("journal");
    let journal = open(&dir);
    let record = |kind, body: String| PushRecord {
        source: SourceName::new(if kind == PushKind::Stalwart {
            "mail"
        } else {
            "platform"
        }),
        received_at: Timestamp::now(),
        kind,
        body: body.into(),
    };
    let recorder = PushKind::Recorder {
        request_id: 5,
        idempotency_key: None,
    };
    let event = json!({"events": [{"action": "a"}, {"action": "b"}]}).to_string();
    journal
        .append(record(PushKind::Stalwart, webhook(1, 3)))
        .await
        .unwrap();
    journal.append(record(recorder, event)).await.unwrap();
    let unknown = PushRecord {
        source: SourceName::new("gone"),
        ..record(PushKind::Stalwart, webhook(2, 1))
    };
    journal.append(unknown).await.unwrap();
    journal.close().await;
    let copy = copy_dir(&dir);

    let mut world = plan.start().await;
    ready(&world).await;
    let first = world.events_reach(6).await;
    assert!(first.iter().any(|event| event.source == "gone"));
    drained(&world).await;
    for (source, configured) in [("mail", 1.0), ("gone", 0.0)] {
        let label = format!("source=\"{source}\"");
        let info = world.metric("daybook_source_info", &label).await;
        assert_eq!(info, configured, "{source}");
    }
    for segment in segments(copy.path()) {
        std::fs::copy(&segment, dir.join(segment.file_name().unwrap())).unwrap();
    }
    // As after a power cut that undid the last changes to the directory.
    std::fs::remove_file(dir.join("drained")).unwrap();
    world.restart().await;
    drained(&world).await;
    assert_eq!(world.events_reach(6).await, first);
    let duplicates = world.metric("daybook_events_duplicate_total", "").await;
    assert_eq!(duplicates, 6.0, "they did come out again");
    world.stop().await;
}

/// As where the version that drains it has a rule that the one which took it had not. The letter names the key
/// that the event may have in the store.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_request_that_is_good_no_more_only_the_refused_event_is_a_dead_letter() {
    let plan = plan(World::sqlite().await);
    let journal = open(&plan.dir().join("journal"));
    let refused = json!({"action": "b", "externalId": "x".repeat(600)});
    let alone = json!({"action": " "});
    let request = json!({"events": [{"action": "a"}, refused, {"action": "c"}]});
    let keyed = Some("key".to_owned());
    for (request_id, idempotency_key, body) in [(5, keyed, &request), (6, None, &alone)] {
        let record = PushRecord {
            source: SourceName::new("platform"),
            received_at: Timestamp::now(),
            kind: PushKind::Recorder {
                request_id,
                idempotency_key,
            },
            body: body.to_string().into(),
        };
        journal.append(record).await.unwrap();
    }
    journal.close().await;
    let world = plan.start().await;
    ready(&world).await;
    let events = world.events_reach(2).await;
    let mut keys: Vec<String> = events.into_iter().map(|event| event.external_id).collect();
    keys.sort();
    let key = &sha256_hex(b"key")[..32];
    assert_eq!(keys, [0, 2].map(|index| format!("idem:{key}:{index}")));
    drained(&world).await;
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 2, "{letters:?}");
    let random = &sha256_hex(format!("{:032x}:0", 6_u128).as_bytes())[..32];
    for (position, raw, trouble) in [
        (
            format!("{:032x}:idem:{key}:1", 5_u128),
            refused,
            "externalId: ",
        ),
        (format!("{:032x}:rnd:{random}", 6_u128), alone, "action: "),
    ] {
        let mut kept = letters.iter().map(|stored| &stored.letter);
        let kept = kept.find(|letter| letter.position == position);
        let kept = kept.unwrap_or_else(|| panic!("{position}: {letters:?}"));
        assert_eq!(kept.raw, raw.to_string().as_bytes());
        assert!(kept.detail.starts_with(trouble), "{}", kept.detail);
    }
    accounts_balance(&world, "platform").await;
    world.stop().await;
}

/// It is refused when it comes; the version that took it was less strict.
#[tokio::test(flavor = "multi_thread")]
async fn an_odd_time_that_stands_in_the_journal_is_entered() {
    let plan = plan(World::sqlite().await);
    let journal = open(&plan.dir().join("journal"));
    let odd = json!({"action": "a", "at": "2026-11-25T06:04:39+25:59"}).to_string();
    let record = PushRecord {
        source: SourceName::new("platform"),
        received_at: Timestamp::now(),
        kind: PushKind::Recorder {
            request_id: 5,
            idempotency_key: Some("key".to_owned()),
        },
        body: odd.clone().into(),
    };
    journal.append(record).await.unwrap();
    journal.close().await;
    let world = plan.start().await;
    ready(&world).await;
    let entered = world.events_reach(1).await.remove(0);
    assert_eq!(entered.at, "2026-11-24T04:05:39Z".parse().unwrap());
    let key = &sha256_hex(b"key")[..32];
    assert_eq!(entered.external_id, format!("idem:{key}:0"));
    assert_eq!(world.post("/api/v1/events", odd, &[]).await.0, 400);
    drained(&world).await;
    accounts_balance(&world, "platform").await;
    world.stop().await;
}

/// A push of one event.
fn of_mail(batch: usize) -> PushRecord {
    let body = webhook(batch, 1).into();
    PushRecord::new(SourceName::new("mail"), PushKind::Stalwart, body)
}

/// Writes three pushes into the journal, and damages the second.
async fn damage(dir: &Path, first: usize) {
    let journal = open(dir);
    for batch in first..first + 3 {
        journal.append(of_mail(batch)).await.unwrap();
    }
    journal.close().await;
    let segment = segments(dir).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_a_dead_letter_and_what_stands_around_it_is_entered() {
    let plan = plan(World::sqlite().await);
    damage(&plan.dir().join("journal"), 0).await;
    let world = plan.start().await;
    ready(&world).await;
    let events = world.events_reach(2).await;
    let mut accounts: Vec<_> = events.iter().map(account).collect();
    accounts.sort();
    assert_eq!(accounts, ["0-0@example.org", "2-0@example.org"]);
    drained(&world).await;
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].letter.source.as_str(), "journal");
    assert!(letters[0].letter.detail.contains(".corrupt"), "{letters:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_same_place_of_another_journal_is_another_dead_letter() {
    let plan = plan(World::sqlite().await);
    let dir = plan.dir().join("journal");
    damage(&dir, 0).await;
    let mut world = plan.start().await;
    ready(&world).await;
    world.events_reach(2).await;
    drained(&world).await;
    world.halt().await;
    std::fs::remove_dir_all(&dir).unwrap();
    damage(&dir, 3).await;
    world.resume().await;
    ready(&world).await;
    world.events_reach(4).await;
    drained(&world).await;
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    let places = letters.iter().map(|stored| &stored.letter.position);
    let places = places.map(|place| place.rsplit_once(':').unwrap().0);
    let places: Vec<&str> = places.collect();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert_eq!(places[0], places[1]);
    world.stop().await;
}

/// Until its file is moved away, as the runbook says.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_read_holds_up_only_what_stands_behind_it() {
    let plan = plan(World::sqlite().await);
    let dir = plan.dir().join("journal");
    for batch in 0..3 {
        let journal = open(&dir);
        journal.append(of_mail(batch)).await.unwrap();
        journal.close().await;
    }
    let segment = segments(&dir).remove(1);
    std::fs::remove_file(&segment).unwrap();
    // Longer than the head of a segment, in every file system.
    std::fs::create_dir_all(segment.join("a directory in the place of a segment")).unwrap();
    let world = plan.start().await;
    ready(&world).await;
    let failing = world.source_becomes("journal", "failing").await;
    let reason = failing["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&segment.display().to_string()), "{reason}");
    let events = world.events_reach(1).await;
    assert_eq!(account(&events[0]), "0-0@example.org");

    std::fs::rename(&segment, dir.join("moved")).unwrap();
    world.events_reach(2).await;
    drained(&world).await;
    world.source_becomes("journal", "running").await;
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let detail = &letters[0].letter.detail;
    assert!(detail.ends_with("its file is gone"), "{detail}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daybook_on_the_same_journal_does_not_start() {
    let plan = plan(World::sqlite().await);
    let journal = open(&plan.dir().join("journal"));
    let toml = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\nauth = \"none\"\n[store]\nurl = \"{}\"\n[journal]\ndir = \"{}\"\n\
         [[sources]]\nkind = \"recorder\"\n",
        plan.store_url(),
        plan.dir().join("journal").display(),
    );
    let file = Some((PathBuf::from("second.toml"), toml));
    let config = LoadedConfig::from_parts(file, Vec::new()).unwrap().config;
    let Err(error) = Daybook::start(&config).await else {
        panic!("two of them");
    };
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    journal.close().await;
    let daybook = Daybook::start(&config).await.unwrap();
    assert_eq!(daybook.shutdown().await, End::Drained);
}
