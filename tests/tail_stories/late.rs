//! A log that is born after the first look: what was rotated since is read, what stood there is not.

use std::time::{Duration, SystemTime};

use daybook::tail::{FileEvent, GapReason, Tailer};
use serde_json::Value;

use crate::world::World;
use crate::{compress, lead_to, written};

/// Looked at while there was history, but no log.
fn awaited() -> World {
    let mut world = World::new();
    world.append_to("audit.log.1", "history\n");
    world.append_to("audit.log-20261123", "history\n");
    world.append_to("audit-20261123.log", "history\n");
    world.drain();
    assert_eq!(world.events, [FileEvent::Missing]);
    world.await_tick();
    world
}

#[test]
fn born_and_rotated_before_it_was_seen() {
    for restarts in 0..3 {
        let mut world = awaited();
        world.rename("audit.log.1", "audit.log.3");
        world.append("one\n");
        world.rename("audit.log", "audit.log.2");
        world.append("two\n");
        world.rename("audit.log", "audit.log.1");
        world.append("three\n");
        world.append_to("other.log.1", "another log's\n");
        world.append_to("audit-admin.log", "another log's\n");
        for _ in 0..restarts {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines, ["one", "two", "three"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        world.is_delivered_once();
    }
}

/// Looked at with a line in it, of which nothing was read.
fn looked_at() -> World {
    let mut world = World::new();
    world.append_to("audit.log.7", "history\n");
    world.append("one\n");
    // Long before.
    for (name, hours) in [("audit.log.7", 2), ("audit.log", 1)] {
        let ago = Duration::from_secs(hours * 3600);
        written(&world, name, SystemTime::now() - ago);
    }
    assert!(!world.step());
    assert!(world.cursor.is_some());
    world.await_tick();
    world
}

#[test]
fn rotated_between_the_first_look_and_the_first_line() {
    for is_stopped in [false, true] {
        let mut world = looked_at();
        world.rename("audit.log", "audit.log.1");
        world.append("two\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines, ["one", "two"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

#[test]
fn compressed_between_the_first_look_and_the_first_line() {
    let mut world = looked_at();
    world.rename("audit.log", "audit.log.1");
    compress(&world, "audit.log.1");
    world.append("two\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["two"]);
    assert_eq!(world.gaps().len(), 1, "{:?}", world.events);
}

/// After the log was truncated, which nothing was written to since.
#[test]
fn what_was_compressed_before_the_first_look_is_no_gap() {
    let mut world = World::new();
    world.append("");
    world.await_tick();
    world.append_to("audit.log.1.gz", "compressed\n");
    world.drain();
    world.await_tick();
    world.append("one\n");
    world.drain();
    assert_eq!(world.lines, ["one"]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// The file that the link leads to has the name of a part.
#[test]
fn a_link_led_elsewhere_between_the_first_look_and_the_first_line() {
    let mut world = World::new();
    world.append_to("audit-20261124.log", "one\n");
    lead_to(&world, "audit-20261124.log");
    assert!(!world.step());
    let inode = world.inode("audit.log");
    assert_eq!(world.events, [FileEvent::Appeared { inode }]);
    world.append_to("audit-20261125.log", "two\n");
    lead_to(&world, "audit-20261125.log");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
}

/// A look that was begun and is in no cursor: it is known only when that was.
#[test]
fn rotated_since_an_earlier_look_that_left_no_cursor() {
    for is_told in [false, true] {
        let mut world = World::new();
        world.append_to("audit.log.7", "history\n");
        world.append("one\n");
        world.await_tick();
        // The clock may be so much ahead of a file's times.
        let slack = Duration::from_secs(1);
        world.options.earlier_look = is_told.then(|| SystemTime::now() + slack);
        world.await_tick();
        world.rename("audit.log", "audit.log.1");
        world.append("two\n");
        world.restart();
        world.drain();
        let all = ["one", "two"];
        assert_eq!(world.lines, all[usize::from(!is_told)..]);
    }
}

#[test]
fn neither_old_times_hide_a_part_nor_do_new_ones_make_history_one() {
    let mut world = awaited();
    world.append("one\n");
    world.rename("audit.log", "audit.log-20261124");
    let hour = Duration::from_secs(3600);
    written(&world, "audit.log-20261124", SystemTime::now() - hour);
    written(&world, "audit.log-20261123", SystemTime::now() + hour);
    world.append("two\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
}

#[test]
fn a_part_is_read_before_there_is_a_live_file_again() {
    let mut world = awaited();
    world.append("one\n");
    world.rename("audit.log", "audit.log.0");
    world.drain();
    assert_eq!(world.lines, ["one"]);
    assert!(world.tailer.is_missing());
    world.restart();
    world.append("two\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// Born, rotated and perhaps destroyed between two looks, with no live file afterwards.
#[test]
fn parts_that_were_born_and_rotated_unseen_are_read_without_a_live_file() {
    for missing_before in [false, true] {
        for restarts in [false, true] {
            let mut world = World::new();
            world.append("one\n");
            world.drain();
            if missing_before {
                world.rename("audit.log", "audit.log.1");
                world.drain();
                assert!(world.tailer.is_missing());
                world.await_tick();
                world.rename("audit.log.1", "audit.log.3");
            } else {
                world.await_tick();
                world.rename("audit.log", "audit.log.3");
            }
            world.append("two\n");
            world.rename("audit.log", "audit.log.2");
            world.append("three\n");
            world.rename("audit.log", "audit.log.1");
            world.append_to("audit.log.2.part", "under way\n");
            world.drain();
            assert_eq!(world.lines, ["one", "two", "three"]);
            // Nothing is read again, however often it is looked at and in whatever order they stand.
            world.drain();
            world.rename("audit.log.2", "audit.log.5");
            world.drain();
            if restarts {
                world.restart();
                world.drain();
            }
            std::fs::remove_file(world.path("audit.log.1")).unwrap();
            world.append("four\n");
            world.drain();
            assert_eq!(world.lines, ["one", "two", "three", "four"]);
            assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
            world.is_delivered_once();
        }
    }
}

#[test]
fn what_was_read_unseen_and_compressed_is_no_gap() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.await_tick();
    world.rename("audit.log", "audit.log.3");
    for (line, part) in [("two", "audit.log.2"), ("three", "audit.log.1")] {
        world.append(&format!("{line}\n"));
        world.rename("audit.log", part);
        world.drain();
        assert_eq!(world.lines.last().unwrap(), line);
        compress(&world, part);
        world.await_tick();
    }
    world.append("four\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three", "four"]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// Put into place one after the other, the younger first.
#[test]
fn unseen_parts_are_read_in_whatever_order_they_appear() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.await_tick();
    world.rename("audit.log", "audit.log.3");
    world.append("two\n");
    world.rename("audit.log", "second");
    world.await_tick();
    world.append("three\n");
    world.rename("audit.log", "third");
    for (from, to, lines) in [
        ("third", "audit.log.1", &["one", "three"][..]),
        ("second", "audit.log.2", &["one", "three", "two"]),
    ] {
        world.rename(from, to);
        world.drain();
        assert_eq!(world.lines, lines);
    }
    world.append("four\n");
    world.drain();
    assert_eq!(world.lines[3..], ["four"]);
    world.is_delivered_once();
}

#[test]
fn the_copy_of_a_log_that_was_truncated_unseen_is_read_first() {
    let mut world = awaited();
    world.append("one\ntwo\n");
    world.copy_truncate("audit.log.2");
    world.append("three\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three"]);
    world.append("four\n");
    world.drain();
    assert_eq!(world.lines[3..], ["four"]);
    world.is_delivered_once();
}

#[test]
fn a_part_that_was_compressed_unseen_is_a_gap() {
    let mut world = awaited();
    world.append_to("audit.log.2.gz", "compressed\n");
    let later = SystemTime::now() + Duration::from_secs(2);
    written(&world, "audit.log.2.gz", later);
    world.append("two\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["two"]);
    let [FileEvent::Gap { why, .. }] = world.gaps()[..] else {
        panic!("{:?}", world.events);
    };
    assert!(
        matches!(why, GapReason::Compressed { name, .. } if name == "audit.log.2.gz"),
        "{why:?}"
    );
}

#[test]
fn where_there_is_no_identity_to_compare_the_time_decides() {
    // More parts than are remembered.
    let mut world = World::new();
    let before = SystemTime::now() - Duration::from_secs(3600);
    for number in 0..100 {
        let name = format!("audit.log.{number}");
        world.append_to(&name, "history\n");
        written(&world, &name, before);
    }
    world.drain();
    let stored = serde_json::to_string(&world.cursor).unwrap();
    assert!(stored.len() < 6000, "{}", stored.len());
    world.append("one\n");
    world.rename("audit.log", "audit.log.100");
    world.append("two\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);

    // The directory comes later, with what was rotated elsewhere.
    let mut world = World::new();
    world.options.path = world.path("logs/audit.log");
    world.tailer = Tailer::open(world.options.clone(), None);
    world.drain();
    std::fs::create_dir(world.path("logs")).unwrap();
    world.append_to("logs/audit.log.2", "history\n");
    written(&world, "logs/audit.log.2", before);
    world.append_to("logs/audit.log.1", "one\n");
    world.append_to("logs/audit.log", "two\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
}

#[test]
fn an_earlier_version_can_read_the_cursor() {
    let mut world = awaited();
    let hour = Duration::from_secs(3600);
    for name in ["audit.log.1", "audit.log-20261123", "audit-20261123.log"] {
        written(&world, name, SystemTime::now() - hour);
    }
    let mut stored = serde_json::to_value(&world.cursor).unwrap();
    assert!(stored["awaited"].is_object());
    // Which it does not know.
    stored.as_object_mut().unwrap().remove("awaited");
    world.cursor = serde_json::from_value(Value::clone(&stored)).unwrap();
    world.append("one\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one"]);
}

#[test]
fn a_reading_from_the_beginning_needs_no_live_file() {
    let mut world = World::new();
    world.append_to("audit.log.2", "one\n");
    world.append_to("audit.log.1", "two\n");
    world.options.read_rotated_at_first_start = true;
    world.tailer = Tailer::open(world.options.clone(), None);
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
}
