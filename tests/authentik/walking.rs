//! What changes while pages are read.

use std::time::{Duration, Instant};

use daybook::simulators::authentik::{
    AuthentikControls, FakeAuthentikConfig, Fault, Profile, Scripted, Times,
};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use testkit::world::eventually;

use super::{
    asked, assert_all_once, event_at, fake, fake_with, history, new_event, source_view, world_of,
    written_reaches,
};

/// At each of the next requests something happens to the list. Events that are deleted stood at
/// the far end and have been read, or are told in `gone`.
fn stir(fake: &AuthentikControls, requests: u64, seed: u64) {
    for nth in 1..=requests {
        fake.at_request(nth, move |fake| {
            let mut rng = StdRng::seed_from_u64(seed * 1000 + nth);
            let now = Timestamp::now();
            match rng.random_range(0..4) {
                0 => {
                    fake.insert(event_at(now), Duration::ZERO);
                }
                1 => {
                    // Late, behind what has been read already.
                    let back = Duration::from_secs(rng.random_range(1..200));
                    let after = Duration::from_millis(rng.random_range(50..1500));
                    fake.insert(event_at(now - back), after);
                }
                2 => {
                    // A burst that pushes everything down by more than a page.
                    let burst = history(120, Duration::ZERO, Duration::from_millis(1));
                    fake.insert_many(burst);
                }
                _ => {
                    // Rows vanish anywhere, so that those below move up.
                    let keys = fake.promised().keys;
                    for _ in 0..3 {
                        if let Some(key) = keys.choose(&mut rng) {
                            fake.delete(key);
                        }
                    }
                }
            }
        });
    }
}

/// All that is still in the fake is in the store, and nothing twice.
async fn converges(world: &testkit::World, fake: &AuthentikControls) {
    let (mut written, mut since) = (0.0, Instant::now());
    eventually("what is left in the fake is in the store", async || {
        // A look takes far longer than what it looks for: only when nothing is being written.
        let now = world.metric("daybook_events_written_total", "").await;
        if now != written {
            (written, since) = (now, Instant::now());
        }
        if since.elapsed() < Duration::from_millis(500) {
            return false;
        }
        since = Instant::now();
        let stored = world.events().await;
        let mut found: Vec<&str> = stored.iter().map(|e| e.external_id.as_str()).collect();
        found.sort_unstable();
        let length = found.len();
        found.dedup();
        assert_eq!(found.len(), length, "something is there twice");
        let client = testkit::world::client();
        visible(fake, &client)
            .await
            .iter()
            .all(|key| found.binary_search(&key.as_str()).is_ok())
    })
    .await;
}

/// The keys that a reader of all pages finds when nothing moves.
async fn visible(fake: &AuthentikControls, client: &reqwest::Client) -> Vec<String> {
    let mut keys = Vec::new();
    let mut page = 1;
    while page != 0 {
        let url = format!(
            "{}/api/v3/events/events/?ordering=created,pk&page={page}&page_size=1000",
            fake.url()
        );
        let answer = client.get(url).bearer_auth(fake.token()).send().await;
        let body: Value = answer.unwrap().json().await.unwrap();
        let Some(rows) = body["results"].as_array() else {
            // It has become shorter meanwhile.
            (keys, page) = (Vec::new(), 1);
            continue;
        };
        keys.extend(
            rows.iter()
                .map(|row| row["pk"].as_str().unwrap().to_owned()),
        );
        page = body["pagination"]["next"].as_u64().unwrap();
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_while_the_list_moves_under_the_reader() {
    let stories = (1..=2).map(|seed| async move {
        let fake = fake().await;
        fake.insert_many(history(
            1_500,
            Duration::from_secs(2),
            Duration::from_millis(400),
        ));
        stir(&fake.controls(), 40, seed);
        let world = world_of(&fake, "overlap = \"4m\"").await;
        eventually("the list has moved", async || fake.request_count() > 41).await;
        converges(&world, &fake.controls()).await;
        assert_eq!(source_view(&world).await["restarts"], 0);
        world.stop().await;
    });
    futures_util::future::join_all(stories).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_expire_during_the_walk_take_nothing_with_them() {
    let fake = fake().await;
    let mut events = history(1_000, Duration::from_secs(2), Duration::from_secs(60));
    // Every third is old enough to go: below and above wherever the reader is.
    for event in events.iter_mut().step_by(3) {
        event["expires"] = format!("{:.6}", Timestamp::now() + Duration::from_secs(3600)).into();
    }
    let keys = fake.insert_many(events);
    fake.at_request(6, |fake| {
        let gone = fake.expire(Timestamp::now() + Duration::from_secs(7200));
        assert!(gone >= 300, "{gone}");
    });
    let world = world_of(&fake, "").await;
    converges(&world, &fake.controls()).await;
    let stored = world.events().await;
    let kept = keys.iter().enumerate().filter(|(index, _)| index % 3 != 0);
    for (_, key) in kept {
        assert!(stored.iter().any(|event| event.external_id == *key));
    }
    assert!(stored.len() < keys.len(), "some went before they were read");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_becomes_visible_late_is_found_by_a_later_poll() {
    let fake = fake().await;
    fake.insert_many(history(
        400,
        Duration::from_secs(1),
        Duration::from_millis(500),
    ));
    let world = world_of(&fake, "").await;
    written_reaches(&world, 400).await;
    // Behind 300 newer ones, and an old one goes at the same moment: the count stays.
    let oldest = fake.promised().keys[399].clone();
    fake.at_request(1, move |fake| {
        fake.insert(
            event_at(Timestamp::now() - Duration::from_secs(160)),
            Duration::ZERO,
        );
        assert!(fake.delete(&oldest));
    });
    written_reaches(&world, 401).await;
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_became_visible_during_an_absence_is_found_after_it() {
    let fake = fake().await;
    let two_hours = Duration::from_secs(2 * 3600);
    fake.insert_many(history(300, two_hours, Duration::from_secs(10)));
    let mut world = world_of(&fake, "").await;
    written_reaches(&world, 300).await;
    world.halt().await;
    // Behind 240 newer ones, and before all that an ordinary poll or a deep one reads again.
    let late = Timestamp::now() - two_hours - Duration::from_secs(2400);
    fake.insert(event_at(late), Duration::ZERO);
    fake.insert(new_event(), Duration::ZERO);
    world.resume().await;
    world.events_reach(302).await;
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_do_not_wait_behind_a_long_backlog() {
    let fake = fake().await;
    fake.insert_many(history(
        2_000,
        Duration::from_secs(1),
        Duration::from_secs(1),
    ));
    // Twenty pages of 300 ms: some six seconds.
    let slow = Scripted::new(Fault::Delay(Duration::from_millis(300))).times(Times::Forever);
    fake.script(slow.on("/events/events/"));
    let world = world_of(&fake, "").await;
    eventually("the walk is under way", async || asked(&fake).list >= 4).await;
    let new = fake.insert(new_event(), Duration::ZERO);
    eventually("the new event", async || {
        let stored = world.events().await;
        stored.iter().any(|event| event.external_id == new)
    })
    .await;
    fake.clear_faults();
    written_reaches(&world, 2_001).await;
    // The polls between did not begin the walk again.
    let requests = asked(&fake).below_the_head();
    assert!(requests < 46, "{requests} requests");
    assert_all_once(&world, &fake).await;
    // SQLite numbers events in the order in which they are entered.
    let stored = world.events().await;
    let place = stored.iter().find(|event| event.external_id == new);
    let place = &place.unwrap().id;
    let later = stored.iter().filter(|event| event.id > *place).count();
    println!("{later} of the backlog were entered after the new event");
    assert!(later > 100, "the backlog was read first");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_below_many_events_of_one_time_is_read() {
    let fake = fake().await;
    let at = Timestamp::now();
    fake.insert_many((0..600).map(|_| event_at(at)).collect());
    fake.insert_many(history(
        100,
        Duration::from_secs(3600),
        Duration::from_secs(1),
    ));
    // Five pages take longer than the interval, and those of that time are more.
    let slow = Scripted::new(Fault::Delay(Duration::from_millis(300))).times(Times::Forever);
    fake.script(slow.on("/events/events/"));
    let world = world_of(&fake, "").await;
    written_reaches(&world, 700).await;
    let polls = asked(&fake).polls;
    assert!(polls > 1, "the top was not looked at meanwhile");
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_slower_than_the_interval_is_asked_one_thing_at_a_time() {
    let fake = fake().await;
    fake.insert_many(history(
        350,
        Duration::from_secs(1),
        Duration::from_millis(100),
    ));
    fake.set_fault(Fault::Delay(Duration::from_millis(1300)), Times::Forever);
    let started = Instant::now();
    let world = world_of(&fake, "").await;
    written_reaches(&world, 350).await;
    eventually("more polls", async || asked(&fake).list >= 8).await;
    // One after the other: each takes its 1.3 s.
    let took = started.elapsed();
    let most = 2 + (took.as_millis() / 1300) as usize;
    let made = usize::try_from(fake.request_count()).unwrap();
    assert!(made <= most, "{made} requests in {took:?}");
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_grants_seven_rows_is_read_to_its_end() {
    let fake = fake_with(FakeAuthentikConfig {
        page_size_default: Some(5),
        page_size_max: Some(7),
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.insert_many(history(
        1_000,
        Duration::from_secs(1),
        Duration::from_secs(10),
    ));
    let world = world_of(&fake, "").await;
    written_reaches(&world, 1_000).await;
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_size_that_shrinks_midway_is_no_hole() {
    let fake = fake().await;
    fake.insert_many(history(
        1_200,
        Duration::from_secs(1),
        Duration::from_secs(10),
    ));
    fake.script(
        Scripted::new(Fault::PageSizeClamp(7))
            .after(6)
            .times(Times::Next(30)),
    );
    let world = world_of(&fake, "").await;
    written_reaches(&world, 1_200).await;
    assert_eq!(fake.fault_hits(), 30);
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_read() {
    let stories = [
        Profile::V2023,
        Profile::V2024,
        Profile::V2025_8,
        Profile::V2026_5,
    ]
    .map(|profile| async move {
        let fake = fake_with(FakeAuthentikConfig {
            profile,
            ..FakeAuthentikConfig::default()
        })
        .await;
        fake.insert_many(history(450, Duration::from_secs(1), Duration::from_secs(9)));
        let world = world_of(&fake, "page_size = 150").await;
        written_reaches(&world, 450).await;
        assert_all_once(&world, &fake).await;
        let events = world.events().await;
        let key = profile.tenant_key();
        assert!(events.iter().all(|event| event.metadata.contains_key(key)));
        world.stop().await;
    });
    futures_util::future::join_all(stories).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_times_over_a_page_boundary_are_all_read() {
    let fake = fake().await;
    let at = Timestamp::now() - Duration::from_secs(3600);
    for group in 0..4 {
        let created = at - Duration::from_secs(group);
        fake.insert_many((0..250).map(|_| event_at(created)).collect());
    }
    let world = world_of(&fake, "").await;
    written_reaches(&world, 1_000).await;
    // More of them, above and below what is known.
    fake.insert_many((0..250).map(|_| event_at(at)).collect());
    written_reaches(&world, 1_250).await;
    assert_all_once(&world, &fake).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_and_clocks_that_disagree_hide_nothing() {
    let fake = fake_with(FakeAuthentikConfig {
        replica_lags: vec![Duration::ZERO, Duration::from_millis(1500)],
        clock_skews: vec![
            jiff::SignedDuration::from_secs(-3),
            jiff::SignedDuration::from_secs(3),
        ],
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.insert_many(history(500, Duration::from_secs(1), Duration::from_secs(1)));
    let world = world_of(&fake, "").await;
    for _ in 0..60 {
        let before = fake.request_count();
        let mut event = new_event();
        event.as_object_mut().unwrap().remove("created");
        fake.insert(event, Duration::ZERO);
        eventually("a request", async || fake.request_count() > before).await;
        if asked(&fake).polls > 8 {
            break;
        }
    }
    let count = fake.promised_total();
    written_reaches(&world, count).await;
    assert_all_once(&world, &fake).await;
    world.stop().await;
}
