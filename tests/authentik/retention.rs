//! What Authentik's retention removes while Daybook is down is lost, and the timeline says so.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use testkit::World;

use super::{a_poll_passes, event_at, fake, world_of};

/// An event that Authentik keeps for an hour.
fn kept_an_hour(minutes_ago: i64) -> Value {
    let created = Timestamp::now() - SignedDuration::from_mins(minutes_ago);
    let mut event = event_at(created);
    event["expires"] = (created + SignedDuration::from_hours(1)).to_string().into();
    event
}

async fn gaps(world: &World) -> Vec<Value> {
    let (_, found) = world
        .get("/api/v1/events?action=daybook.gap_detected")
        .await;
    found["events"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_retention_removed_while_daybook_was_down_is_declared_once() {
    let fake = fake().await;
    // Of a time when events were kept for long: it is there all the time.
    let hours_ago = Timestamp::now() - SignedDuration::from_hours(4);
    fake.insert(event_at(hours_ago), Duration::ZERO);
    let known = fake.insert(kept_an_hour(180), Duration::ZERO);
    let mut world = world_of(&fake, "page_size = 3").await;
    world.events_reach(2).await;

    world.halt().await;
    assert!(fake.expire(Timestamp::now()) == 1, "{known} is still there");
    fake.insert_many((0..5).map(|number| kept_an_hour(10 + number)).collect());
    world.resume().await;
    world.events_reach(2 + 5 + 1).await;

    let [gap] = &gaps(&world).await[..] else {
        panic!("one gap");
    };
    assert_eq!(gap["source"], "authentik");
    assert_eq!(gap["target"]["id"], "authentik");
    assert_eq!(gap["metadata"]["reason"], "retention");
    let minutes_ago = |field: &str| {
        let time: Timestamp = gap["metadata"][field].as_str().unwrap().parse().unwrap();
        time.duration_until(Timestamp::now()).as_mins()
    };
    assert!((180..190).contains(&minutes_ago("fromTime")));
    assert!((60..70).contains(&minutes_ago("toTime")));

    // It is told once, and what comes afterwards is none.
    fake.insert(kept_an_hour(0), Duration::ZERO);
    world.restart().await;
    world.events_reach(2 + 5 + 1 + 1).await;
    a_poll_passes(&world, &fake).await;
    assert_eq!(gaps(&world).await.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deleted_or_what_was_polled_meanwhile_is_no_gap() {
    let fake = fake().await;
    let known = fake.insert(kept_an_hour(30), Duration::ZERO);
    let mut world = world_of(&fake, "").await;
    world.events_reach(1).await;

    // Deleted before its time: nothing that came later can have expired.
    world.halt().await;
    assert!(fake.delete(&known));
    fake.insert(kept_an_hour(10), Duration::ZERO);
    world.resume().await;
    world.events_reach(2).await;

    // A quiet time: the last event expires, polls go on, and only then another comes.
    a_poll_passes(&world, &fake).await;
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(fake.expire(in_an_hour), 1);
    fake.insert(kept_half_a_minute(), Duration::ZERO);
    world.events_reach(3).await;
    a_poll_passes(&world, &fake).await;
    assert_eq!(gaps(&world).await, Vec::<Value>::new());
    world.stop().await;
}

fn kept_half_a_minute() -> Value {
    let now = Timestamp::now();
    let mut event = event_at(now);
    event["expires"] = (now + SignedDuration::from_secs(30)).to_string().into();
    event
}
