//! A replay that does not get to its end, or not with every event.

use std::path::Path;
use std::sync::Arc;

use daybook::config::LoadedConfig;
use daybook::event::Outcome;
use daybook::simulators::authentik::{FakeAuthentik, Fault, Scripted, Times};
use daybook::store::{self, EventFilter, Store};
use mongodb::bson::doc;
use serde_json::json;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::process::Process;
use testkit::world::{Plan, eventually};

use super::twins::line;
use super::{fake_authentik, login, replay, with_authentik};

async fn five_pages() -> FakeAuthentik {
    let fake = fake_authentik().await;
    fake.insert_many((1..=100).map(login).collect());
    fake
}

fn start(plan: &Plan, config: &Path) -> Process {
    let config = config.to_str().unwrap();
    let arguments = [
        "replay",
        "--source",
        "authentik",
        "--since",
        "400h",
        "-c",
        config,
    ];
    let log = plan.dir().join("replay.log");
    Process::spawn(env!("CARGO_BIN_EXE_daybook"), &arguments, 0, &log)
}

pub(super) async fn open(config: &Path) -> Arc<dyn Store> {
    let loaded = LoadedConfig::load_for_tools(Some(config)).unwrap();
    let store = store::open(&loaded.config.store).await.unwrap();
    store.prepare().await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_says_what_it_has_entered() {
    let fake = five_pages().await;
    let hangs = Scripted::new(Fault::HangBeforeHeaders).times(Times::Forever);
    fake.script(hangs.after(3).on("events/events"));
    let plan = World::sqlite().await;
    let (_, config) = with_authentik(&plan, &fake);
    let mut replay = start(&plan, &config);
    eventually("it hangs", async || fake.fault_hits() > 0).await;
    replay.signal("TERM");
    assert_eq!(replay.wait().await.code(), Some(1));
    assert!(replay.log().contains("interrupted"), "{}", replay.log());
    let store = open(&config).await;
    let filter = EventFilter::default();
    let events = store.find_events(&filter, None, 1000).await.unwrap();
    let (own, entered): (Vec<_>, Vec<_>) = events
        .iter()
        .partition(|event| event.action == "daybook.source_replayed");
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].outcome, Some(Outcome::Failure));
    assert!(!entered.is_empty());
    assert_eq!(own[0].metadata["counts"]["new"], entered.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_midway_is_what_is_told_first() {
    let mongod = Arc::new(Mongod::start().await);
    let fake = five_pages().await;
    let plan = World::at(&format!(
        "{}&serverSelectionTimeoutMS=10000",
        mongod.url("replay")
    ));
    let (_, config) = with_authentik(&plan, &fake);
    let killed = Arc::clone(&mongod);
    fake.at_request(4, move |_| killed.kill9());
    let mut replay = start(&plan, &config);
    assert_eq!(replay.wait().await.code(), Some(1));
    let said = replay.log();
    let (first, rest) = said.split_once('\n').unwrap();
    let untold = "the timeline does not say that this was replayed";
    assert!(
        first.starts_with("error: ") && !first.contains(untold),
        "{said}"
    );
    assert!(rest.contains(untold), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_entered_beside_a_refused_event_is_new() {
    let mongod = Mongod::shared().await;
    let plan = World::at(&mongod.url("replay_refused"));
    let log = plan.file(
        "audit.log",
        line("file_delete", "2026-01-02T03:04:05Z").repeat(3),
    );
    let text = format!(
        "[store]\nurl = \"{}\"\n[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        plan.store_url(),
        log.display()
    );
    let config = plan.file("cli.toml", text);
    open(&config).await;
    let refuses_first = doc! { "externalId": { "$not": { "$regex": ":0$" } } };
    let command = doc! { "collMod": "auditevents", "validator": refuses_first };
    let database = mongod.database("replay_refused").await;
    database.run_command(command).await.unwrap();
    let counts = replay(&config, "ocis", "2000-01-01");
    assert_eq!(
        counts,
        json!({ "read": 3, "new": 2, "known": 0, "leftOut": 0, "unreadable": 1 })
    );
}
