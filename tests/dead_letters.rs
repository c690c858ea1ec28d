//! What could not become an event, on the command line; and what retention lets go.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use daybook::config::LoadedConfig;
use daybook::event::{DeadLetter, DeadLetterReason, SourceName};
use daybook::store::{self, Commit, Record, Store, StoredEvent};
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::World;
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::{Plan, eventually};

const TORN_LOG: &str = "tests/data/ocis/torn-line-after-disk-full.log";

fn daybook(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_daybook"))
        .arg("dead-letters")
        .args(arguments)
        .arg("-c")
        .arg(config)
        .output()
        .unwrap()
}

fn succeeds(arguments: &[&str], config: &Path) -> Vec<u8> {
    let output = daybook(arguments, config);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output.stdout
}

fn fails(arguments: &[&str], config: &Path) -> String {
    let output = daybook(arguments, config);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap()
}

fn listed(filters: &[&str], config: &Path) -> Vec<Value> {
    let arguments = [&["list", "--json"], filters].concat();
    let listed = succeeds(&arguments, config);
    serde_json::from_slice::<Value>(&listed)
        .unwrap()
        .as_array()
        .unwrap()
        .clone()
}

fn cli_config(plan: &Plan, sources: &str) -> std::path::PathBuf {
    let text = format!("[store]\nurl = \"{}\"\n{sources}", plan.store_url());
    plan.file("cli.toml", text)
}

async fn put(store: &Arc<dyn Store>, letters: &[DeadLetter]) {
    let commit = Commit {
        records: letters.iter().map(Record::DeadLetter).collect(),
        ..Commit::default()
    };
    store.commit(&commit).await.unwrap();
}

fn letter(position: &str, raw: &[u8]) -> DeadLetter {
    DeadLetter {
        source: SourceName::new("ocis"),
        position: position.to_owned(),
        reason: DeadLetterReason::UnexpectedShape,
        detail: "an older version\u{1b}[2J could not read it".to_owned(),
        raw: Bytes::copy_from_slice(raw),
        raw_length: raw.len() as u64,
        at: "2026-11-24T05:00:00Z".parse().unwrap(),
    }
}

fn id_at<'a>(letters: &'a [Value], position: &str) -> &'a str {
    let found = letters.iter().find(|letter| letter["position"] == position);
    found.unwrap()["id"].as_str().unwrap()
}

/// While a store fails in a way that nobody knows, a letter is no more to blame than anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_oddly_costs_no_letter_its_bytes() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let plan = World::at(&mongod.url("odd"));
    let path = plan.file("audit.log", "");
    let source = format!("kind = \"ocis\"\npath = \"{}\"\n", path.display());
    let config = cli_config(&plan, &format!("[[sources]]\n{source}"));
    let world = plan.source(&source).start().await;
    world.source_becomes("ocis", "running").await;
    let data = doc! {
        "failCommands": ["insert", "update"], "errorCode": 999_999, "appName": "daybook",
    };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", data).await;
    let line = "this is no line of an audit log\n";
    std::fs::write(&path, line).unwrap();
    eventually("the letter fails", async || fail_point.struck().await >= 6).await;
    assert_eq!(world.metric("daybook_store_up", "").await, 1.0);
    fail_point.off().await;
    eventually("the letter is kept", async || {
        world.metric("daybook_events_dead_lettered_total", "").await == 1.0
    })
    .await;
    let letters = listed(&[], &config);
    let id = letters[0]["id"].as_str().unwrap();
    let raw = succeeds(&["show", id, "--raw"], &config);
    assert_eq!(String::from_utf8(raw).unwrap().trim_end(), line.trim_end());
    world.stop().await;
}

/// Writes something else in the place of a table's first page; where it stands, and what stood there.
fn damage(file: &Path, table: &str) -> (u64, Vec<u8>) {
    let connection = rusqlite::Connection::open(file).unwrap();
    // Or the log would have the page.
    let copy = "PRAGMA wal_checkpoint(TRUNCATE)";
    let is_busy: bool = connection.query_row(copy, [], |row| row.get(0)).unwrap();
    assert!(!is_busy);
    let place = "SELECT (rootpage - 1) * page_size, page_size
        FROM sqlite_master, pragma_page_size WHERE name = ?1";
    let place = connection.query_row(place, [table], |row| Ok((row.get(0)?, row.get(1)?)));
    let (offset, length): (i64, i64) = place.unwrap();
    drop(connection);
    let (offset, length) = (offset.unsigned_abs(), length.unsigned_abs());
    let mut page = vec![0; usize::try_from(length).unwrap()];
    let open = File::options().read(true).write(true).open(file).unwrap();
    open.read_exact_at(&mut page, offset).unwrap();
    open.write_all_at(&vec![0xFF; page.len()], offset).unwrap();
    (offset, page)
}

/// Whatever is entered meets the damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_condemns_no_event_and_moves_no_cursor() {
    let plan = World::sqlite().await;
    let file = plan.dir().join("daybook.db");
    let log = plan.file("audit.log", "");
    let ocis = format!("kind = \"ocis\"\npath = \"{}\"\n", log.display());
    let plan = plan.source(&ocis).source("kind = \"recorder\"");
    let mut world = plan.start().await;
    world.ready().await;
    world.halt().await;
    let (offset, page) = damage(&file, "auditevents.terms");
    world.resume().await;
    world.ready().await;
    world.source_becomes("ocis", "running").await;
    let cursors = async |world: &World| {
        let stored = world.daybook().store().cursors().await.unwrap();
        let places = stored.into_iter();
        let places = places.map(|cursor| (cursor.source, cursor.seq));
        places.collect::<Vec<_>>()
    };
    let before = cursors(&world).await;

    for number in 0..3 {
        let event = json!({"action": "invoice.paid", "actor": {"id": format!("actor-{number}")}});
        let answer = world.post("/api/v1/events", event.to_string(), &[]).await;
        assert_eq!(answer, (200, json!({"received": 1})));
    }
    let lines = std::fs::read(TORN_LOG).unwrap();
    let line = lines.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    std::fs::write(&log, line).unwrap();
    // An event that is taken to be at fault is condemned after three.
    eventually("the damage is met", async || {
        world.metric("daybook_store_errors_total", "").await >= 5.0
    })
    .await;
    world.source_becomes("ocis", "blocked").await;
    assert_eq!(world.get("/readyz").await.0, 503);
    assert_eq!(world.metric("daybook_store_up", "").await, 0.0);
    assert_eq!(cursors(&world).await, before);
    assert_eq!(world.events().await, []);
    let letters = world.daybook().store().dead_letters(10).await;
    assert_eq!(letters.unwrap(), []);

    world.halt().await;
    let open = File::options().write(true).open(&file).unwrap();
    open.write_all_at(&page, offset).unwrap();
    world.resume().await;
    world.events_reach(4).await;
    world.ready().await;
    let letters = world.daybook().store().dead_letters(10).await;
    assert_eq!(letters.unwrap(), []);
    world.stop().await;
}

/// No page fails: what is met has no meaning.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_value_of_a_file_condemns_no_event() {
    let plan = World::sqlite().await.source("kind = \"recorder\"");
    let world = plan.start().await;
    world.ready().await;
    let post = async |number: usize| {
        let event = json!({"action": "invoice.paid", "actor": {"id": format!("actor-{number}")}});
        let answer = world.post("/api/v1/events", event.to_string(), &[]).await;
        assert_eq!(answer, (200, json!({"received": 1})));
    };
    post(0).await;
    world.events_reach(1).await;
    // Texts that wait to be packed, and are read again when more of them do.
    let file = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    let queued = "SELECT parts FROM \"auditevents.packs\" WHERE parts IS NOT NULL";
    let parts: String = file.query_row(queued, [], |row| row.get(0)).unwrap();
    let change = "UPDATE \"auditevents.packs\" SET parts = ?1 WHERE parts = ?2";
    let damaged = "\0".repeat(parts.len());
    assert_eq!(file.execute(change, [&damaged, &parts]).unwrap(), 1);

    for number in 1..30 {
        post(number).await;
    }
    // An event that is taken to be at fault is condemned after three.
    eventually("the damage is met", async || {
        world.metric("daybook_store_errors_total", "").await >= 5.0
    })
    .await;
    assert_eq!(world.get("/readyz").await.0, 503);
    assert_eq!(world.metric("daybook_store_up", "").await, 0.0);

    assert_eq!(file.execute(change, [&parts, &damaged]).unwrap(), 1);
    world.events_reach(30).await;
    world.ready().await;
    let letters = world.daybook().store().dead_letters(10).await;
    assert_eq!(letters.unwrap(), []);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_service_letters_are_seen_tried_again_and_dropped() {
    let log = std::fs::read(TORN_LOG).unwrap();
    let plan = World::sqlite().await;
    let path = plan.file("audit.log", &log);
    let source = format!("kind = \"ocis\"\npath = \"{}\"\n", path.display());
    let config = cli_config(&plan, &format!("[[sources]]\n{source}"));
    let world = plan.source(&source).start().await;
    eventually("the log is read", async || {
        world.metric("daybook_events_written_total", "").await > 0.0
            && world.metric("daybook_ocis_bytes_behind", "").await == 0.0
            && world.metric("daybook_ingest_lag_seconds", "").await == 0.0
    })
    .await;
    let dead = world.metric("daybook_events_dead_lettered_total", "").await;
    assert!(dead >= 1.0);

    let letters = listed(&["--source", "ocis", "--reason", "malformed"], &config);
    assert_eq!(letters.len() as f64, dead, "a cut record each");
    assert_eq!(listed(&["--reason", "poison"], &config).len(), 0);
    assert_eq!(listed(&["--until", "2020-01-01"], &config).len(), 0);
    let torn = letters[0]["id"].as_str().unwrap();
    let raw = succeeds(&["show", torn, "--raw"], &config);
    let position = letters[0]["position"].as_str().unwrap();
    let offset: usize = position.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(
        raw,
        log[offset..][..raw.len()],
        "byte for byte as in the file"
    );
    let shown: Value =
        serde_json::from_slice(&succeeds(&["show", torn, "--json"], &config)).unwrap();
    assert_eq!(shown["attempts"], 1);
    assert_eq!(shown["rawLength"], raw.len());
    assert_eq!(shown["raw"].as_str().unwrap().as_bytes(), raw);

    let said = fails(&["retry", torn], &config);
    assert!(said.contains("stays") && said.contains("cut off"), "{said}");
    assert_eq!(listed(&["--limit", "1"], &config)[0]["attempts"], 2);

    // A good line of the file at its own place (its event is there), and one that never was there.
    let entered = world.events().await;
    let known = entered
        .iter()
        .find(|event| event.external_id.ends_with(":0"))
        .unwrap();
    let line = log.split(|byte| *byte == b'\n').next().unwrap();
    let by_hand = [letter(&known.external_id, line), letter("99:ab:1234", line)];
    put(world.daybook().store(), &by_hand).await;
    let table = String::from_utf8(succeeds(&["list"], &config)).unwrap();
    assert!(
        table.contains("99:ab:1234") && table.contains("\\u{1b}[2J"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'));
    let letters = listed(&["--reason", "unexpected_shape"], &config);
    let (there, new) = (
        id_at(&letters, &known.external_id),
        id_at(&letters, "99:ab:1234"),
    );
    let said = String::from_utf8(succeeds(&["retry", there, new], &config)).unwrap();
    assert!(
        said.contains("1 there already") && said.contains("1 entered"),
        "{said}"
    );
    let events = world.events_reach(entered.len() + 1).await;
    let copy = events
        .iter()
        .find(|e| e.external_id == "99:ab:1234")
        .unwrap();
    assert_eq!(
        (copy.action.as_str(), &copy.metadata),
        (known.action.as_str(), &known.metadata)
    );
    assert_eq!(listed(&["--reason", "unexpected_shape"], &config).len(), 0);
    let said = fails(&["show", there], &config);
    assert!(said.contains(there), "it is gone: {said}");
    let said = fails(&["retry", there], &config);
    assert!(said.contains(there), "it is gone: {said}");

    let said = fails(&["drop", torn, "feedfeedfeedfeed"], &config);
    assert!(
        said.contains("feedfeedfeedfeed") && !said.contains(torn),
        "{said}"
    );
    assert_eq!(
        listed(&[], &config).len() as f64,
        dead,
        "nothing was dropped"
    );
    assert_eq!(
        daybook(&["drop"], &config).status.code(),
        Some(2),
        "no id, nothing to do"
    );
    succeeds(&["drop", torn, torn], &config);
    assert_eq!(listed(&[], &config).len() as f64, dead - 1.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_a_letter_in_mongodb_becomes_its_event() {
    let mongod = Mongod::shared().await;
    let plan = World::mongodb(mongod).await;
    let config = cli_config(
        &plan,
        "[[sources]]\nkind = \"ocis\"\npath = \"/not/there.log\"\n",
    );
    let loaded = LoadedConfig::load_for_tools(Some(&config)).unwrap();
    let store = store::open(&loaded.config.store).await.unwrap();
    store.prepare().await.unwrap();
    let log = std::fs::read(TORN_LOG).unwrap();
    let line = log.split(|byte| *byte == b'\n').next().unwrap();
    let not_utf8 = DeadLetter {
        reason: DeadLetterReason::InvalidUtf8,
        ..letter("7:ab:9", b"\xff\x00\x1b[2J")
    };
    put(&store, &[letter("7:ab:0", line), not_utf8]).await;

    let letters = listed(&[], &config);
    assert_eq!(letters.len(), 2);
    let odd = id_at(&letters, "7:ab:9");
    assert_eq!(
        succeeds(&["show", odd, "--raw"], &config),
        b"\xff\x00\x1b[2J"
    );
    let shown = String::from_utf8(succeeds(&["show", odd], &config)).unwrap();
    assert!(
        shown.contains("\\xff\\u{0}\\u{1b}[2J") && shown.contains("invalid_utf8"),
        "{shown}"
    );
    let said = fails(&["retry", id_at(&letters, "7:ab:0"), odd], &config);
    assert!(
        said.contains("1 entered") && said.contains("1 of 2"),
        "{said}"
    );
    let events = store
        .find_events(&daybook::store::EventFilter::default(), None, 10)
        .await;
    let events = events.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].external_id, "7:ab:0");
    let letters = listed(&[], &config);
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["id"], &letters[0]["attempts"]),
        (&json!(odd), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn as_json_a_letter_is_told_whole_and_acts_on_no_terminal() {
    let plan = World::sqlite().await;
    let config = cli_config(&plan, "");
    let loaded = LoadedConfig::load_for_tools(Some(&config)).unwrap();
    let store = store::open(&loaded.config.store).await.unwrap();
    store.prepare().await.unwrap();
    let hostile = "\u{9b}2J\u{202e}cod.exe";
    let odd = DeadLetter {
        detail: hostile.to_owned(),
        ..letter("7:ab:0", hostile.as_bytes())
    };
    put(&store, &[odd]).await;
    let letters = listed(&[], &config);
    assert_eq!(letters[0]["detail"], hostile);
    let id = id_at(&letters, "7:ab:0");
    for arguments in [&["list", "--json"][..], &["show", id, "--json"]] {
        let text = String::from_utf8(succeeds(arguments, &config)).unwrap();
        assert!(text.contains("\\u009b2J\\u202ecod.exe"), "{text}");
        assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text:?}");
    }
    let shown = succeeds(&["show", id, "--json"], &config);
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["raw"], hostile);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_is_no_error() {
    let plan = World::sqlite().await;
    let config = cli_config(
        &plan,
        "[[sources]]\nkind = \"ocis\"\npath = \"/not/there.log\"\n",
    );
    let loaded = LoadedConfig::load_for_tools(Some(&config)).unwrap();
    let store = store::open(&loaded.config.store).await.unwrap();
    store.prepare().await.unwrap();
    put(&store, &[letter("7:ab:0", b"x"), letter("7:ab:9", b"y")]).await;
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    // That there are more is said on standard error.
    let list = Command::new(env!("CARGO_BIN_EXE_daybook"))
        .args(["dead-letters", "list", "--limit", "1", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(gone)
        .status()
        .unwrap();
    assert!(list.success(), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_lets_go_what_is_old_in_sqlite() {
    retention_lets_go_what_is_old(World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_lets_go_what_is_old_in_mongodb() {
    let mongod = Mongod::shared().await;
    retention_lets_go_what_is_old(World::mongodb(mongod).await).await;
}

async fn retention_lets_go_what_is_old(plan: Plan) {
    /// More than two steps of a sweep.
    const OLD: usize = 2100;
    let now = Timestamp::now();
    let old = now - SignedDuration::from_hours(49);
    let young = now - SignedDuration::from_hours(47);
    let mut world = plan
        .settings("[retention]\ndays = 2")
        .source("kind = \"recorder\"")
        // What is answered stands in the store.
        .journal_size("0B")
        .start()
        .await;
    world.ready().await;
    let mut events: Vec<Value> = (0..OLD)
        .map(|number| json!({"action": "a.old", "at": old, "externalId": number.to_string()}))
        .collect();
    events.push(json!({"action": "a.young", "at": young, "externalId": "young"}));
    let enter = async |world: &World| {
        // All of them at once are more than a slow machine makes durable in time.
        for piece in events.chunks(500) {
            let body = json!({ "events": piece }).to_string();
            let (status, _) = world.post("/api/v1/events", body, &[]).await;
            assert_eq!(status, 200);
        }
    };
    enter(&world).await;
    let letters = [
        DeadLetter {
            at: old,
            ..letter("old", b"x")
        },
        DeadLetter {
            at: old,
            ..letter("met again", b"x")
        },
        DeadLetter {
            at: young,
            ..letter("met again", b"x")
        },
    ];
    put(world.daybook().store(), &letters).await;

    let only_young = |events: &[StoredEvent]| events.len() == 1 && events[0].external_id == "young";
    world.restart().await;
    eventually("the sweep at start", async || {
        only_young(&world.events().await)
            && world
                .daybook()
                .store()
                .dead_letters(10)
                .await
                .unwrap()
                .len()
                == 1
    })
    .await;
    let left = world.daybook().store().dead_letters(10).await.unwrap();
    assert_eq!(left[0].letter.position, "met again");

    // What is sent again is entered again, and goes with the next sweep.
    enter(&world).await;
    assert!(world.events().await.len() > 1);
    world.restart().await;
    eventually("another sweep", async || only_young(&world.events().await)).await;
    world.stop().await;
}
