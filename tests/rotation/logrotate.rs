//! The real logrotate in its modes, forced again and again while lines are written.

use std::time::Duration;

use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::story::{Logrotate, Story};

const ROTATIONS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn create_under_load() {
    let story = Story::mongodb(Mongod::shared().await).await;
    let logrotate = Logrotate::new(&story, "create 0644");
    let load = story.pen.load();
    story.has_looked().await;
    for _ in 0..ROTATIONS {
        eventually("there is a line", async || story.pen.path().exists()).await;
        // No waiting for the reader: several rotations may come between two of its looks.
        tokio::time::sleep(Duration::from_millis(60)).await;
        logrotate.force();
        logrotate.keep_collision();
    }
    load.end();
    story.pen.write(1);
    story.settled().await;
    story.holds(&[], 0).await;
    assert_eq!(logrotate.rotated().len(), ROTATIONS);
    story.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copytruncate_under_load() {
    let story = Story::sqlite().await;
    let logrotate = Logrotate::new(&story, "copytruncate");
    let load = story.pen.load();
    story.has_looked().await;
    for _ in 0..ROTATIONS {
        eventually("there are lines", async || {
            story.pen.path().exists() && story.pen.metadata().len() > 20_000
        })
        .await;
        // What is written between copy and truncation is lost by the mode: so nothing is.
        story.pen.while_idle(|| logrotate.force());
    }
    load.end();
    story.pen.write(1);
    story.settled().await;
    story.holds(&[], 0).await;
    assert_eq!(logrotate.rotated().len(), ROTATIONS);
    story.world.stop().await;
}

/// Compressed as soon as it is rotated: what is unread then is read from the descriptor held.
#[tokio::test(flavor = "multi_thread")]
async fn dateext_and_compress_under_load() {
    dated("compress", 3, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dateext_and_delaycompress_under_load() {
    dated("compress\ndelaycompress", 3, 2).await;
}

async fn dated(how: &str, rotations: usize, compressed: usize) {
    let story = Story::sqlite().await;
    let directives = format!("dateext\ndateformat -%Y%m%d-%s\ncreate 0644\n{how}");
    let logrotate = Logrotate::new(&story, &directives);
    let load = story.pen.load();
    for _ in 0..rotations {
        eventually("there is a line", async || story.pen.path().exists()).await;
        story.live_is_read().await;
        // Two rotations within a second would have one name.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        logrotate.force();
        logrotate.keep_collision();
    }
    load.end();
    story.pen.write(1);
    story.settled().await;
    story.holds(&[], 0).await;
    let parts = logrotate.rotated();
    assert_eq!(parts.len(), rotations);
    let gz = parts.iter().filter(|name| name.ends_with(".gz")).count();
    assert_eq!(gz, compressed, "{parts:?}");
    story.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rotations_while_stopped_with_a_copytruncate_among_them() {
    let mut story = Story::sqlite().await;
    let create = Logrotate::new(&story, "create 0644");
    story.pen.write(120);
    story.settled().await;
    story.world.halt().await;
    for lines in [40, 1, 70] {
        story.pen.write(lines);
        create.force();
    }
    story.pen.write(5);
    story.world.resume().await;
    story.settled().await;
    story.holds(&[], 0).await;

    story.world.halt().await;
    story.pen.write(30);
    Logrotate::new(&story, "copytruncate").force();
    story.pen.write(30);
    story.world.resume().await;
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

/// The one rotation that destroys: compressed while nobody was there to read. It is said, once.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_while_stopped_is_a_gap_only_if_it_was_not_read() {
    let mut story = Story::sqlite().await;
    let logrotate = Logrotate::new(&story, "create 0644\ncompress");
    story.pen.write(10);
    story.settled().await;
    story.world.halt().await;
    logrotate.force();
    story.pen.write(10);
    story.world.resume().await;
    story.settled().await;
    story.holds(&[], 0).await;

    let read = story.pen.metadata().len();
    let inode = std::os::unix::fs::MetadataExt::ino(&story.pen.metadata());
    story.world.halt().await;
    story.pen.write(7);
    logrotate.force();
    let destroyed =
        |promise: &crate::story::Promise| promise.inode == inode && promise.start >= read;
    assert_eq!(story.pen.take_back(destroyed), 7);
    story.pen.write(3);
    story.world.resume().await;
    story.settled().await;
    let gaps = story.holds(&[(read, None)], 0).await;
    assert_eq!(gaps[0].metadata["reason"], "compressed");
    assert_eq!(gaps[0].metadata["name"], "audit.log.1.gz");
    assert_eq!(gaps[0].metadata["inode"], inode);

    // It is not declared again.
    story.world.restart().await;
    story.pen.write(1);
    story.settled().await;
    story.holds(&[(read, None)], 0).await;
    story.world.stop().await;
}
