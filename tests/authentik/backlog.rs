//! What waits when Daybook comes, and what a poll costs afterwards.

use std::time::{Duration, Instant};

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use serde_json::Value;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{
    Asked, a_poll_passes, asked, assert_all_once, event_at, fake, history, new_event, plan_of,
    ready, source_view, world_of, written_reaches,
};

fn samples() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/authentik/samples/events.json"
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

async fn samples_are_entered_once(mut world: World, fake: &super::FakeAuthentik) {
    let count = samples().len();
    world.events_reach(count).await;
    assert_all_once(&world, fake).await;

    world.restart().await;
    a_poll_passes(&world, fake).await;
    world.events_reach(count).await;
    let view = source_view(&world).await;
    assert_eq!(view["state"], "running");
    assert_eq!(view["lastError"], Value::Null);
    assert_eq!(view["restarts"], 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_entered_once_in_sqlite() {
    let fake = fake().await;
    fake.insert_many(samples());
    let world = world_of(&fake, "").await;
    samples_are_entered_once(world, &fake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_entered_once_in_mongodb() {
    let fake = fake().await;
    fake.insert_many(samples());
    let mongod = Mongod::shared().await;
    let plan = World::mongodb(mongod).await;
    let world = ready(plan_of(plan, &fake, "").start().await).await;
    samples_are_entered_once(world, &fake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cursor_costs_a_second_reading_and_enters_nothing_twice() {
    let fake = fake().await;
    let count = samples().len();
    fake.insert_many(samples());
    let mut world = world_of(&fake, "").await;
    world.events_reach(count).await;

    // While it runs: the next batch finds no cursor, and the source claims another.
    lose_the_one_of(&world, "ingestcursors").await;
    fake.insert(new_event(), Duration::ZERO);
    world.events_reach(count + 1).await;
    the_one_of_stands(&world, "ingestcursors").await;
    world.source_becomes("authentik", "running").await;

    // While it does not run: everything is read again and known.
    world.halt().await;
    lose_the_one_of(&world, "ingestcursors").await;
    world.resume().await;
    eventually("everything is recognised", async || {
        world.metric("daybook_events_duplicate_total", "").await >= (count + 1) as f64
    })
    .await;
    assert_all_once(&world, &fake).await;
    let view = source_view(&world).await;
    assert_eq!(view["state"], "running");
    assert_eq!(view["lastError"], Value::Null);
    world.stop().await;
}

/// The store loses the only row of a table.
async fn lose_the_one_of(world: &World, table: &str) {
    the_one_of_stands(world, table).await;
    let lost = database(world).execute(&format!("DELETE FROM {table}"), []);
    assert_eq!(lost.unwrap(), 1);
}

/// A cursor follows its events, and another a lost one.
async fn the_one_of_stands(world: &World, table: &str) {
    eventually("the row stands", async || {
        let count = format!("SELECT count(*) FROM {table}");
        let count = database(world).query_row(&count, [], |row| row.get::<_, i64>(0));
        count.unwrap() == 1
    })
    .await;
}

fn database(world: &World) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_arrives_once_and_then_polls_are_cheap() {
    const BACKLOG: usize = 3_000;
    let fake = fake().await;
    // Half of it lies within the overlap: the most a poll would have to read again.
    let old = history(
        BACKLOG / 2,
        Duration::from_secs(600),
        Duration::from_secs(30),
    );
    let young = history(
        BACKLOG / 2,
        Duration::from_secs(1),
        Duration::from_millis(5),
    );
    fake.insert_many(old);
    fake.insert_many(young);
    let probes = Probes::new();
    let in_hand = probes.strike("authentik", "after_read", Fault::Stand, 1);
    let options = TreeOptions {
        probes,
        ..TreeOptions::of(&Config::default())
    };
    let started = Instant::now();
    let plan = plan_of(World::sqlite().await, &fake, "");
    let world = plan.options(options).start().await;
    // One batch at a time, of one page; the fake adds to each event.
    let page = 100 * new_event().to_string().len() as u64;
    in_hand.struck().await;
    let in_flight = world.daybook().budget().in_use();
    assert!(in_flight > page, "{in_flight} bytes of {page} and more");
    drop(in_hand);
    let world = ready(world).await;
    // Longer than tests usually wait: it is much work for a busy machine, and no condition hangs.
    let patience = Duration::from_secs(300);
    while world.metric("daybook_events_written_total", "").await < BACKLOG as f64 {
        assert!(started.elapsed() < patience, "still at it");
        assert!(world.daybook().budget().in_use() < 4 << 20);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let requests = asked(&fake).below_the_head();
    eprintln!(
        "{BACKLOG} events in {:?}, {requests} requests",
        started.elapsed()
    );
    assert!(requests < BACKLOG / 100 * 13 / 10, "{requests} requests");
    assert_all_once(&world, &fake).await;

    a_poll_passes(&world, &fake).await;
    let before = asked(&fake);
    eventually("three quiet polls", async || {
        asked(&fake).polls >= before.polls + 3
    })
    .await;
    polls_are_cheap_since(before, &fake);

    let before = asked(&fake);
    fake.insert(new_event(), Duration::ZERO);
    written_reaches(&world, BACKLOG as u64 + 1).await;
    eventually("a poll after it", async || {
        asked(&fake).polls >= before.polls + 2
    })
    .await;
    polls_are_cheap_since(before, &fake);
    // A poll may be under way.
    eventually("all room is given back", async || {
        world.daybook().budget().in_use() == 0
    })
    .await;
    world.stop().await;
}

/// At most two requests each; one poll may have been under way.
fn polls_are_cheap_since(before: Asked, fake: &super::FakeAuthentik) {
    let now = asked(fake);
    let (spent, polls) = (now.list - before.list, now.polls - before.polls);
    assert!(spent <= 2 * polls + 1, "{spent} requests of {polls} polls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_source_sends_nothing_to_the_store_again() {
    let fake = fake().await;
    fake.insert_many(history(
        80,
        Duration::from_secs(3600),
        Duration::from_secs(30),
    ));
    let world = world_of(&fake, "").await;
    written_reaches(&world, 80).await;
    a_poll_passes(&world, &fake).await;
    a_poll_passes(&world, &fake).await;
    let received = world.metric("daybook_events_received_total", "").await;
    assert_eq!(received, 80.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_that_people_see_never_falls() {
    let fake = fake().await;
    fake.insert_many(history(
        350,
        Duration::from_secs(100),
        Duration::from_secs(1),
    ));
    let at = jiff::Timestamp::now() - Duration::from_secs(50);
    let at: jiff::Timestamp = format!("{at:.3}").parse().unwrap();
    let mut event = new_event();
    event["created"] = format!("{at:.3}").into();
    let newest = fake.insert(event, Duration::ZERO);
    let mut world = world_of(&fake, "").await;
    written_reaches(&world, 351).await;
    let stands_there = async |world: &World| {
        let cursor = world.source_becomes("authentik", "running").await["cursor"].take();
        assert_eq!(cursor["lastEventId"], newest.as_str());
        assert_eq!(cursor["lastEventAt"], at.to_string());
        let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
        let (id, milliseconds): (String, i64) = database
            .query_row(
                "SELECT lastEventId, lastEventAt FROM ingestcursors",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!((id, milliseconds), (newest.clone(), at.as_millisecond()));
    };
    stands_there(&world).await;
    // Late, and older than what was read.
    fake.insert(
        event_at(jiff::Timestamp::now() - Duration::from_secs(200)),
        Duration::ZERO,
    );
    written_reaches(&world, 352).await;
    stands_there(&world).await;
    world.restart().await;
    fake.insert(
        event_at(jiff::Timestamp::now() - Duration::from_secs(210)),
        Duration::ZERO,
    );
    world.events_reach(353).await;
    stands_there(&world).await;
    world.stop().await;
}

/// Events that keep their place in the list and tell none.
fn without_place(mut events: Vec<Value>) -> Vec<Value> {
    for (number, event) in events.iter_mut().enumerate() {
        event["pk"] = number.into();
    }
    events
}

const UNREADABLE: &str = "a whole page of its events cannot be read";

async fn letters_reach(world: &World, count: f64) {
    eventually(&format!("{count} dead letters"), async || {
        let letters = world.metric("daybook_events_dead_lettered_total", "").await;
        assert!(letters <= count, "{letters}");
        letters == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_page_without_a_readable_event_hides_nothing_below_it() {
    let fake = fake().await;
    let second = Duration::from_secs(1);
    fake.insert_many(history(250, Duration::from_secs(500), second));
    fake.insert_many(without_place(history(150, second, second)));
    let world = world_of(&fake, "").await;
    written_reaches(&world, 250).await;
    letters_reach(&world, 150.0).await;
    a_warning_stands(&world, &fake).await;
    // Above them, and late below them.
    fake.insert(new_event(), Duration::ZERO);
    let late = jiff::Timestamp::now() - Duration::from_secs(520);
    fake.insert(event_at(late), Duration::ZERO);
    written_reaches(&world, 252).await;
    letters_reach(&world, 150.0).await;
    world.stop().await;
}

async fn a_warning_stands(world: &World, fake: &super::FakeAuthentik) {
    for _ in 0..2 {
        let before = asked(fake).polls;
        eventually("two more polls", async || asked(fake).polls >= before + 2).await;
        let view = source_view(world).await;
        assert_eq!(view["state"], "warning", "{view}");
        assert!(view["reason"].as_str().unwrap().contains(UNREADABLE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_unreadable_rows_are_stepped_over() {
    let fake = fake().await;
    let second = Duration::from_secs(1);
    fake.insert_many(history(180, Duration::from_secs(1), second));
    fake.insert_many(without_place(history(
        250,
        Duration::from_secs(200),
        second,
    )));
    fake.insert_many(history(100, Duration::from_secs(500), second));
    let world = world_of(&fake, "").await;
    written_reaches(&world, 280).await;
    letters_reach(&world, 250.0).await;
    let told = source_view(&world).await["lastError"]["message"].take();
    assert!(told.as_str().unwrap().contains(UNREADABLE), "{told}");
    // The reason goes with the rows.
    world.source_becomes("authentik", "running").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_tell_no_place_are_kept_once_as_dead_letters() {
    let fake = fake().await;
    fake.insert_many(history(250, Duration::from_secs(5), Duration::from_secs(1)));
    let mut broken = event_at(jiff::Timestamp::now());
    broken["created"] = "yesterday".into();
    fake.insert(broken, Duration::ZERO);
    let world = world_of(&fake, "").await;
    written_reaches(&world, 250).await;
    a_poll_passes(&world, &fake).await;
    a_poll_passes(&world, &fake).await;
    let letters = world
        .metric("daybook_events_dead_lettered_total", "source=\"authentik\"")
        .await;
    assert_eq!(letters, 1.0);

    // Lost with the cursor, as where the whole database is: the next event shows it.
    lose_the_one_of(&world, "auditdeadletters").await;
    lose_the_one_of(&world, "ingestcursors").await;
    fake.insert(new_event(), Duration::ZERO);
    eventually("the row is kept again", async || {
        let letters = world.daybook().store().dead_letters(10).await.unwrap();
        letters.len() == 1
    })
    .await;
    world.stop().await;
}
