//! Two services on one store that ask one Authentik, as a deployment that was made twice.

use std::time::{Duration, Instant};

use daybook::config::Config;
use daybook::probe::{self, Probes};
use daybook::simulators::authentik::{Fault, Scripted, Times};
use daybook::tree::TreeOptions;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use super::{assert_all_once, fake, history, plan_of, ready, source_view, written_reaches};

const FIRST: usize = 80;
const BACKLOG: usize = 400;

/// So long the one whose cursor was taken leaves it to the other.
const WAIT_SECONDS: f64 = 15.0;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_one_waits_while_the_other_reads_and_each_counts_its_own() {
    let fake = fake().await;
    let second = Duration::from_secs(1);
    fake.insert_many(history(FIRST, second * 3600, second));
    let mongod = Mongod::shared().await;
    let probes = Probes::new();
    let in_hand = probes.strike("authentik", "after_read", probe::Fault::Stand, 1);
    let options = TreeOptions {
        probes,
        ..TreeOptions::of(&Config::default())
    };
    let plan = World::mongodb(mongod).await;
    let beside = World::at(plan.store_url());
    let one = plan_of(plan, &fake, "").options(options).start().await;
    in_hand.struck().await;
    // It claims the cursor, and enters what the first one has in hand.
    let other = ready(plan_of(beside, &fake, "").start().await).await;
    written_reaches(&other, FIRST as u64).await;

    // Whoever claims the cursor back at once does so before the other has read a page.
    let slow = Scripted::new(Fault::Delay(Duration::from_millis(1500))).times(Times::Forever);
    fake.script(slow.on("/events/events/"));
    fake.insert_many(history(BACKLOG, second, second * 2));
    let started = Instant::now();
    drop(in_hand);
    one.source_becomes("authentik", "fenced").await;
    eventually("all of it", async || {
        let mut claims = 0.0;
        for world in [&one, &other] {
            let cursor = source_view(world).await["cursor"].take();
            claims = cursor["generation"].as_f64().unwrap().max(claims);
        }
        let most = 2.0 * (1.0 + started.elapsed().as_secs_f64() / WAIT_SECONDS);
        assert!(claims <= most, "claimed {claims} times, wanted {most}");
        other.events().await.len() == FIRST + BACKLOG
    })
    .await;
    assert_all_once(&other, &fake).await;

    // Its turn comes again: what it had in hand was not its own.
    one.source_becomes("authentik", "running").await;
    let mut written = 0.0;
    for world in [&one, &other] {
        written += world.metric("daybook_events_written_total", "").await;
    }
    assert!(written <= (FIRST + BACKLOG) as f64, "{written} written");
    one.stop().await;
    other.stop().await;
}
