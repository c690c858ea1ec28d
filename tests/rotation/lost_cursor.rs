//! A store that has lost the source's cursor, while Daybook knows the place.

use std::fs::File;

use daybook::config::Config;
use daybook::probe::{Fault, Probes};
use daybook::tree::TreeOptions;
use mongodb::bson::{Document, doc};
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::story::{Pen, Story, source};

/// How it came to that.
#[derive(Clone, Copy)]
enum Loss {
    /// As a restore that had neither leaves it: events are gone with the cursor.
    Documents,
    /// The indexes are gone too.
    Database,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_unread_before_the_cursor_was_lost_is_read() {
    is_read_once_after(Loss::Documents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_entered_twice_after_a_database_was_dropped() {
    is_read_once_after(Loss::Database).await;
}

async fn is_read_once_after(loss: Loss) {
    let mongod = Mongod::shared().await;
    for (is_killed, is_copied) in [(false, false), (true, false), (false, true)] {
        let plan = World::mongodb(mongod).await;
        let path = plan.dir().join("audit.log");
        let probes = Probes::new();
        let options = TreeOptions {
            probes: probes.clone(),
            ..TreeOptions::of(&Config::default())
        };
        let world = plan.source(&source(&path)).options(options).start().await;
        let story = Story {
            world,
            pen: Pen::new(&path),
        };
        story.pen.write(20);
        story.settled().await;

        let in_hand = probes.strike("ocis", "after_read", Fault::Stand, 1);
        story.pen.write(3);
        in_hand.struck().await;
        story.pen.write(20);
        let rotated = story.path("audit.log.1");
        if is_copied {
            std::fs::copy(&path, &rotated).unwrap();
            let log = File::options().write(true).open(&path).unwrap();
            log.set_len(0).unwrap();
        } else {
            std::fs::rename(&path, &rotated).unwrap();
        }
        story.pen.write(10);
        let database = mongod.database(&story.world.database_name()).await;
        let collection = |name| database.collection::<Document>(name);
        match loss {
            Loss::Documents => {
                for (name, count) in [("ingestcursors", 1), ("auditevents", 20)] {
                    let lost = collection(name).delete_many(doc! {}).await.unwrap();
                    assert_eq!(lost.deleted_count, count);
                }
            }
            Loss::Database => {
                database.drop().await.unwrap();
                let left = database.list_collection_names().await.unwrap();
                assert!(!left.iter().any(|name| name == "auditevents"), "{left:?}");
            }
        }
        if is_killed {
            assert!(story.world.daybook().kill("ocis").await);
            eventually("another incarnation claims a cursor", async || {
                story.cursor().await.is_some()
            })
            .await;
        }
        drop(in_hand);
        story.settled().await;
        story.holds(&[], 0).await;
        for (name, index) in [
            ("ingestcursors", "source_1"),
            ("auditevents", "source_1_externalId_1"),
        ] {
            let indexes = collection(name).list_index_names().await.unwrap();
            assert!(indexes.iter().any(|name| name == index), "{indexes:?}");
        }
        story.world.stop().await;
    }
}
