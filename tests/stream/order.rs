//! An insert that becomes visible late, under an id that is older than what was seen already.

use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use testkit::World;
use testkit::mongod::Mongod;

use super::{open, recorder, replica_set, resumed, say};

/// As another process writes whose insert took so long.
async fn insert_late(world: &World, database: &mongodb::Database, key: &str, late: Duration) {
    let seconds = jiff::Timestamp::now().as_second() - i64::try_from(late.as_secs()).unwrap();
    let id = ObjectId::from_parts(u32::try_from(seconds).unwrap(), [1; 5], [0, 0, 1]);
    let events = database.collection::<Document>("auditevents");
    let document = doc! {
        "_id": id, "at": DateTime::now(), "ingestedAt": DateTime::now(), "source": "other",
        "externalId": key, "action": "a.b", "metadata": {},
    };
    events.insert_one(document).await.unwrap();
    let found = world.get(&format!("/api/v1/events/{}", id.to_hex())).await;
    assert_eq!(found.0, 200);
}

async fn late_ones_come_too(world: World, database: mongodb::Database) {
    let mut stream = open(&world, "").await;
    say(&world, 0..3, "a.b").await;
    assert_eq!(stream.keys(3).await, ["0", "1", "2"]);
    let place = stream.last_event_id().to_owned();
    insert_late(&world, &database, "late", Duration::from_secs(25)).await;
    assert_eq!(stream.keys(1).await, ["late"]);
    drop(stream);
    // A reader that resumes after the younger ones gets the older one.
    let mut stream = resumed(&world, "", &place).await;
    assert_eq!(stream.keys(1).await, ["late"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_tells_of_late_ones() {
    let mongod = Mongod::shared().await;
    let world = recorder(World::mongodb(mongod).await).start().await;
    world.ready().await;
    let database = mongod.database(&world.database_name()).await;
    late_ones_come_too(world, database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_tells_of_late_ones() {
    let set = replica_set().await;
    let world = recorder(World::at(&set.url("late"))).start().await;
    world.ready().await;
    let database = set.database("late").await;
    late_ones_come_too(world, database).await;
}

/// After a restart the place is looked up in the store, not in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_one_is_not_lost_at_a_restart() {
    let mongod = Mongod::shared().await;
    let mut world = recorder(World::mongodb(mongod).await).start().await;
    world.ready().await;
    let database = mongod.database(&world.database_name()).await;
    let mut stream = open(&world, "").await;
    say(&world, 0..3, "a.b").await;
    assert_eq!(stream.keys(3).await, ["0", "1", "2"]);
    let place = stream.last_event_id().to_owned();
    world.restart().await;
    insert_late(&world, &database, "late", Duration::from_secs(25)).await;
    let mut stream = resumed(&world, "", &place).await;
    while stream.keys(1).await != ["late"] {}
    world.stop().await;
}
