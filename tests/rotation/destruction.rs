//! Files cut, deleted, replaced and moved, read or unread.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;

use daybook::status::SourceState;
use testkit::World;
use testkit::mongod::Mongod;
use testkit::world::eventually;

use crate::story::Story;

fn cut_to_nothing(story: &Story) {
    let file = OpenOptions::new().write(true).open(story.pen.path());
    file.unwrap().set_len(0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_grown_past_the_old_size() {
    let mut story = Story::sqlite().await;
    story.pen.write(50);
    story.settled().await;
    let before = story.pen.metadata();
    cut_to_nothing(&story);
    story.pen.write(200);
    assert!(story.pen.metadata().len() > before.len());
    assert_eq!(story.pen.metadata().ino(), before.ino());
    story.settled().await;
    story.holds(&[], 0).await;

    // While stopped nobody can know that nothing was written before the cut: so that is said.
    let read = story.pen.metadata().len();
    story.world.halt().await;
    cut_to_nothing(&story);
    story.pen.write(400);
    assert!(story.pen.metadata().len() > read);
    story.world.resume().await;
    story.settled().await;
    let gaps = story.holds(&[(read, None)], 0).await;
    assert_eq!(gaps[0].metadata["reason"], "truncated");
    story.world.stop().await;
}

/// As an editor or rsync does: each event stands there once.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_by_a_copy_of_itself() {
    let mut story = Story::sqlite().await;
    for is_stopped in [false, true] {
        story.pen.write(20);
        story.settled().await;
        let before = story.pen.metadata().ino();
        if is_stopped {
            story.world.halt().await;
        }
        let copy = story.path(".audit.log.copy");
        std::fs::copy(story.pen.path(), &copy).unwrap();
        std::fs::rename(&copy, story.pen.path()).unwrap();
        assert_ne!(story.pen.metadata().ino(), before);
        story.pen.write(1);
        if is_stopped {
            story.world.resume().await;
        }
        story.settled().await;
        story.holds(&[], 0).await;
    }
    story.world.stop().await;
}

/// Makes files, each held until the story ends, until one gets one of the inodes: that is the log then.
fn log_gets_one_of(inodes: &HashSet<u64>, story: &Story, turn: u32, files: u32) -> bool {
    (0..files).any(|attempt| {
        let other = story.path(&format!("attempt-{turn}-{attempt}"));
        std::fs::write(&other, "").unwrap();
        let is_one = inodes.contains(&std::fs::metadata(&other).unwrap().ino());
        if is_one {
            std::fs::rename(&other, story.pen.path()).unwrap();
        }
        is_one
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inode_used_again_is_another_file() {
    // Whoever runs beside this may be given the freed inode first: then the story is told again.
    for turn in 0..10 {
        let mut story = Story::sqlite().await;
        story.pen.write(20);
        story.settled().await;
        let (read, inode) = (story.pen.metadata().len(), story.pen.metadata().ino());
        story.world.halt().await;
        std::fs::remove_file(story.pen.path()).unwrap();
        if !log_gets_one_of(&HashSet::from([inode]), &story, turn, 10_000) {
            continue;
        }
        story.pen.write(40);
        assert_eq!(story.pen.metadata().ino(), inode);
        story.world.resume().await;
        story.settled().await;
        story.holds(&[(read, None)], 0).await;
        story.world.stop().await;
        return;
    }
    panic!("this file system used none of ten inodes again");
}

/// Rotated and deleted so often that the log gets the inode of a file that it was before.
#[tokio::test(flavor = "multi_thread")]
async fn an_inode_comes_back_while_running() {
    let story = Story::sqlite().await;
    let mut seen = HashSet::new();
    let mut came_back = false;
    for turn in 0..10 {
        story.pen.write(3);
        story.live_is_read().await;
        if came_back {
            break;
        }
        seen.insert(story.pen.metadata().ino());
        std::fs::rename(story.pen.path(), story.path("audit.log.1")).unwrap();
        // The reader holds the last one: of those before, one is free unless somebody else took it.
        came_back = log_gets_one_of(&seen, &story, turn, 500);
    }
    assert!(came_back, "no inode was used again in {seen:?}");
    assert!(seen.contains(&story.pen.metadata().ino()));
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_moved_to_another_directory_and_swapped_by_a_link() {
    let story = Story::sqlite().await;
    story.pen.write(10);
    story.settled().await;
    let old = story.pen.end();
    std::fs::remove_file(story.pen.path()).unwrap();
    eventually("its absence is told, and is no alarm", async || {
        let view = story.world.daybook().board().source("ocis").unwrap().view();
        let reason = view.reason.unwrap_or_default();
        view.state == SourceState::Running && reason.contains("the next event makes it")
    })
    .await;
    story.settled_at(&old).await;
    story.pen.write(10);
    story.live_is_read().await;

    // With lines that nobody may have read yet.
    std::fs::create_dir(story.path("archive")).unwrap();
    story.pen.write(300);
    std::fs::rename(story.pen.path(), story.path("archive/old.log")).unwrap();
    story.pen.write(10);
    story.settled().await;
    story.holds(&[], 0).await;

    // The path becomes a link, and the link another's.
    for target in ["a.log", "b.log", "c.log"] {
        std::fs::write(story.path(target), "").unwrap();
        std::os::unix::fs::symlink(story.path(target), story.path("link")).unwrap();
        std::fs::rename(story.path("link"), story.pen.path()).unwrap();
        story.pen.write(100);
        story.live_is_read().await;
    }
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

async fn behind(story: &Story) -> u64 {
    let metric = story.world.metric("daybook_ocis_bytes_behind", "").await;
    metric as u64
}

/// The store is away, and nothing can be delivered: files that come and go meanwhile are held.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_and_go_while_the_store_is_away_are_not_lost() {
    let mongod = Mongod::start().await;
    let story = Story::of(World::mongodb(&mongod).await, "audit.log").await;
    story.pen.write(100);
    story.settled().await;
    mongod.freeze();
    story.pen.write(1_000);
    let mut unread = story.pen.metadata().len() - old_offset(&story).await;
    eventually("the rest is known", async || behind(&story).await == unread).await;
    assert!(story.world.metric("daybook_ingest_lag_seconds", "").await > 0.0);
    for turn in 0..3 {
        let rotated = story.path("audit.log.1");
        std::fs::rename(story.pen.path(), &rotated).unwrap();
        story.pen.write(50 + turn);
        unread += story.pen.metadata().len();
        eventually("the next file is held", async || {
            behind(&story).await == unread
        })
        .await;
        std::fs::remove_file(&rotated).unwrap();
    }
    mongod.thaw();
    story.settled().await;
    story.holds(&[], 0).await;
    story.world.stop().await;
}

/// What the cursor says while the store cannot be asked.
async fn old_offset(story: &Story) -> u64 {
    let source = story.world.daybook().board().source("ocis").unwrap();
    let id = source.view().cursor.unwrap().last_event_id.unwrap();
    id.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Cut while its lines could not be delivered: exactly what was not read is lost, and said.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_of_unread_lines_is_a_gap_with_its_bytes() {
    let mongod = Mongod::start().await;
    let story = Story::of(World::mongodb(&mongod).await, "audit.log").await;
    story.pen.write(100);
    story.settled().await;
    mongod.freeze();
    story.pen.write(2_500);
    let end = story.pen.metadata().len();
    let unread = end - old_offset(&story).await;
    eventually("all of it is known", async || {
        behind(&story).await == unread
    })
    .await;
    cut_to_nothing(&story);
    story.pen.write(10);
    mongod.thaw();
    story.settled().await;
    let gap = story.world.events().await;
    let gap = gap.iter().find(|event| event.action == crate::story::GAP);
    let from = gap.expect("a gap").metadata["fromByte"].as_u64().unwrap();
    let lost = story.pen.take_back(|promise| promise.start >= from);
    assert!((1..2_500).contains(&lost), "{lost} lines");
    story.holds(&[(from, Some(end))], 0).await;
    story.world.stop().await;
}
