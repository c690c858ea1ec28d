//! A log that is born after the first look, and rotated before the next one.

use std::path::Path;

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::story::{Pen, Story, source};

/// Rotated by hand, the numbered parts moved on.
fn rotate(pen: &Pen, number: u64) {
    let part = |number: u64| {
        let name = format!("audit.log.{number}");
        pen.path().with_file_name(name)
    };
    for older in (1..number).rev() {
        std::fs::rename(part(older), part(older + 1)).unwrap();
    }
    std::fs::rename(pen.path(), part(1)).unwrap();
}

fn leave_history(dir: &Path) {
    std::fs::write(dir.join("audit.log.7"), "rotated before the first look\n").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn born_and_rotated_while_stopped() {
    let mongod = Mongod::shared().await;
    for plan in [World::sqlite().await, World::mongodb(mongod).await] {
        leave_history(plan.dir());
        let mut story = Story::of(plan, "audit.log").await;
        story.has_looked().await;
        assert_eq!(story.last_event_id().await, "");
        // Known after two restarts, too.
        story.world.restart().await;
        story.world.halt().await;
        for number in 1..=3 {
            story.pen.write(4);
            rotate(&story.pen, number);
        }
        story.pen.write(4);
        story.world.resume().await;
        story.settled().await;
        story.holds(&[], 0).await;
        story.world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seen_without_a_line_and_rotated_while_stopped() {
    let plan = World::sqlite().await;
    leave_history(plan.dir());
    std::fs::write(plan.dir().join("audit.log"), "").unwrap();
    let mut story = Story::of(plan, "audit.log").await;
    story.has_looked().await;
    story.world.halt().await;
    story.pen.write(4);
    rotate(&story.pen, 1);
    story.pen.write(4);
    story.world.resume().await;
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

/// Killed when it had claimed its cursor: nothing is durable but that, or the first look too.
#[tokio::test(flavor = "multi_thread")]
async fn rotated_before_the_first_line_was_durable() {
    let mongod = Mongod::shared().await;
    for (actor, point, looks) in [("writer", "before_insert", 0), ("ocis", "after_read", 1)] {
        for plan in [World::sqlite().await, World::mongodb(mongod).await] {
            let path = plan.dir().join("audit.log");
            let pen = Pen::new(&path);
            pen.write(20);
            let probes = Probes::new();
            let strike = probes.strike(actor, point, Fault::Stand, 1);
            let options = TreeOptions {
                probes,
                ..TreeOptions::of(&Config::default())
            };
            let world = plan.source(&source(&path)).options(options);
            let world = world.start().await;
            let story = Story { world, pen };
            strike.struck().await;
            let cursor = story.cursor().await.expect("it is claimed");
            assert_eq!((cursor.generation, cursor.seq), (1, looks));
            rotate(&story.pen, 1);
            story.pen.write(3);
            assert!(story.world.daybook().kill("ocis").await);
            eventually("another generation begins", async || {
                story
                    .cursor()
                    .await
                    .is_some_and(|cursor| cursor.generation > 1)
            })
            .await;
            drop(strike);
            story.settled().await;
            story.holds(&[], 0).await;
            story.world.stop().await;
        }
    }
}

/// A quiet night follows: no live file comes for long, and the parts are kept for a while only.
#[tokio::test(flavor = "multi_thread")]
async fn born_and_rotated_between_two_looks_with_nothing_behind() {
    let mut story = Story::of(World::sqlite().await, "logs/audit.log").await;
    std::fs::create_dir(story.path("logs")).unwrap();
    story.pen.write(4);
    story.settled().await;
    let aside = story.path("aside");
    std::fs::rename(story.path("logs"), &aside).unwrap();
    let unseen = Pen::new(&aside.join("audit.log"));
    rotate(&unseen, 1);
    for _ in 0..4 {
        let line = story.pen.promise();
        unseen.log.append(&line).unwrap();
    }
    rotate(&unseen, 2);
    let end = {
        let last = std::fs::metadata(aside.join("audit.log.1")).unwrap();
        format!(
            "{}:{}",
            std::os::unix::fs::MetadataExt::ino(&last),
            last.len()
        )
    };
    std::fs::rename(&aside, story.path("logs")).unwrap();
    story.settled_at(&end).await;
    std::fs::remove_file(story.path("logs/audit.log.1")).unwrap();
    story.pen.write(4);
    story.settled().await;
    story.world.restart().await;
    story.pen.write(4);
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

/// Moved into place as a whole, so that no look comes in between.
#[tokio::test(flavor = "multi_thread")]
async fn born_and_rotated_between_two_looks() {
    let story = Story::of(World::sqlite().await, "logs/audit.log").await;
    story.has_looked().await;
    let aside = story.path("aside");
    std::fs::create_dir(&aside).unwrap();
    let unseen = Pen::new(&aside.join("audit.log"));
    for number in 1..=2 {
        for _ in 0..4 {
            let line = story.pen.promise();
            unseen.log.append(&line).unwrap();
        }
        rotate(&unseen, number);
    }
    // No live file: it is there with the next event only.
    std::fs::rename(&aside, story.path("logs")).unwrap();
    let last = std::fs::metadata(story.path("logs/audit.log.1")).unwrap();
    let end = format!(
        "{}:{}",
        std::os::unix::fs::MetadataExt::ino(&last),
        last.len()
    );
    story.settled_at(&end).await;
    story.world.source_becomes("ocis", "running").await;
    story.holds(&[], 0).await;
    story.pen.write(4);
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}
