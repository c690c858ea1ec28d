//! Stories of real files: what a tailer makes of rotations, truncations, copies and strange things.

#![allow(clippy::unwrap_used, reason = "tests")]

mod copies;
mod cuts;
mod late;
mod world;

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use daybook::tail::{FileEvent, GapReason, LineKind, Step, Tailer};

use world::World;

#[test]
fn the_file_comes_later_and_its_half_lines_are_waited_for() {
    fn may_change_threads<T: Send>(_: &T) {}
    let mut world = World::new();
    may_change_threads(&world.tailer);
    world.drain();
    assert_eq!(world.events, [FileEvent::Missing]);
    assert_eq!(world.tailer.position(), None);
    world.append("one\ntw");
    world.drain();
    assert_eq!(world.lines, ["one"]);
    let inode = world.inode("audit.log");
    assert_eq!(world.events[1], FileEvent::Appeared { inode });
    assert_eq!(world.tailer.position(), Some((inode, 4)));
    assert_eq!(world.tailer.bytes_behind(), 2);
    assert_eq!(
        world.cursor.as_ref().unwrap().last_event_id(),
        format!("{inode}:4")
    );
    world.append("o\nthree\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three"]);
    assert_eq!(world.tailer.bytes_behind(), 0);
}

#[test]
fn a_renamed_file_is_drained_with_the_write_that_came_late() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    let mut late = OpenOptions::new()
        .append(true)
        .open(world.path("audit.log"))
        .unwrap();
    world.append("two\n");
    world.rename("audit.log", "audit.log.1");
    world.append("four\n");
    world.step();
    assert_eq!(world.lines, ["one", "two"]);
    assert!(!world.step(), "the grace has begun");
    late.write_all(b"three\n").unwrap();
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three", "four"]);
    let rotated = FileEvent::Rotated {
        from_inode: world.inode("audit.log.1"),
        to_inode: world.inode("audit.log"),
    };
    assert!(world.events.contains(&rotated), "{:?}", world.events);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    world.is_delivered_once();
}

#[test]
fn a_rotated_file_may_be_deleted_once_it_was_seen() {
    let mut world = World::new();
    world.options.max_lines = 1;
    world.tailer = Tailer::open(world.options.clone(), None);
    world.append("one\ntwo\nthree\n");
    world.step();
    world.rename("audit.log", "audit.log.1");
    world.append("four\nfive\n");
    world.step();
    std::fs::remove_file(world.path("audit.log.1")).unwrap();
    world.rename("audit.log", "audit.log.1");
    world.append("six\n");
    world.step();
    std::fs::remove_file(world.path("audit.log.1")).unwrap();
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three", "four", "five", "six"]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

#[test]
fn three_rotations_between_two_looks_and_three_while_stopped() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.append("two\n");
        for (number, line) in [(3, "three\n"), (2, "four\n"), (1, "five\n")] {
            world.rename("audit.log", &format!("audit.log.{number}"));
            world.append(line);
        }
        world.append_to("audit.log.bak~", "an editor's\n");
        world.append_to("other.log.1", "another log's\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines, ["one", "two", "three", "four", "five"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        world.is_delivered_once();
    }
}

#[test]
fn the_last_line_of_a_rotated_file_without_its_end_is_handed_out() {
    let mut world = World::new();
    world.append("one\ncut o");
    world.drain();
    world.rename("audit.log", "audit.log-20261124");
    world.append("two\n");
    world.drain();
    assert_eq!(world.lines, ["one", "cut o", "two"]);
    assert_eq!(world.kinds[1], LineKind::Unterminated);
    world.restart();
    world.drain();
    assert_eq!(world.lines.len(), 3);
}

/// A log that was read, and deleted; another one with the same first line has got its inode, unless
/// somebody else has.
fn reused() -> Option<World> {
    let mut world = World::new();
    world.append("the same\none\n");
    world.drain();
    let inode = world.inode("audit.log");
    // The tailer's own descriptor would keep the inode from being used again.
    world.restart();
    std::fs::remove_file(world.path("audit.log")).unwrap();
    let mut names = (0..10_000).map(|attempt| format!("attempt-{attempt}"));
    let name = names.find(|name| {
        world.append_to(name, "the same\n");
        world.inode(name) == inode
    })?;
    world.rename(&name, "audit.log");
    Some(world)
}

#[test]
fn a_reused_inode_with_the_same_first_line_is_another_file() {
    let mut world = (0..10)
        .find_map(|_| reused())
        .expect("this file system used none of ten inodes again");
    world.append("two and more than there was\n");
    world.drain();
    assert_eq!(
        world.lines,
        ["the same", "one", "the same", "two and more than there was"]
    );
    world.is_delivered_once();
    assert_ne!(world.keys[0].0, world.keys[2].0);
    assert!(matches!(
        world.gaps()[..],
        [FileEvent::Gap {
            why: GapReason::Vanished,
            from: 13,
            to: None,
            ..
        }]
    ));
}

#[test]
fn keys_survive_restarts_renaming_and_the_loss_of_the_cursor() {
    let mut world = World::new();
    world.append("one\ntwo\n");
    world.drain();
    let keys = world.keys.clone();

    world.cursor = None;
    world.restart();
    world.drain();
    assert_eq!(world.keys[2..], keys[..]);

    world.rename("audit.log", "audit.log.1");
    world.append("three\n");
    world.options.read_rotated_at_first_start = true;
    world.cursor = None;
    world.restart();
    world.drain();
    assert_eq!(world.keys[4..6], keys[..]);
    assert_eq!(world.lines[4..], ["one", "two", "three"]);
}

#[test]
fn a_first_start_leaves_older_files_alone() {
    let mut world = World::new();
    world.append_to("audit.log.1", "old\n");
    world.append("new\n");
    world.drain();
    assert_eq!(world.lines, ["new"]);
    world.rename("audit.log.1", "audit.log.2");
    world.rename("audit.log", "audit.log.1");
    world.append("newer\n");
    world.drain();
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["new", "newer"]);
}

#[test]
fn a_file_gone_while_stopped_is_a_gap_and_the_ones_after_it_are_read() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.append("never read\n");
    world.rename("audit.log", "audit.log.2");
    world.append("two\n");
    world.rename("audit.log", "audit.log.1");
    world.append("three\n");
    std::fs::remove_file(world.path("audit.log.2")).unwrap();
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three"]);
    assert!(matches!(
        world.gaps()[..],
        [FileEvent::Gap {
            why: GapReason::Vanished,
            from: 4,
            to: None,
            ..
        }]
    ));
}

/// It was written last when lines of the next one stood there already, in truth or by a clock that was ahead.
#[test]
fn the_file_after_a_short_one_is_read_though_it_was_rotated_before_it_was_durable() {
    for late in ["late\n", ""] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.rename("audit.log", "audit.log.1");
        world.append("two\n");
        assert!(!world.step(), "the grace has begun");
        world.await_tick();
        world.append("three\n");
        world.await_tick();
        world.append_to("audit.log.1", late);
        if late.is_empty() {
            let hour = Duration::from_secs(3600);
            written(&world, "audit.log.1", SystemTime::now() + hour);
        } else {
            assert!(world.step(), "it is read");
        }
        let known = world.lines.clone();
        let mut durable = world.cursor.clone();
        while !world.step() {
            durable.clone_from(&world.cursor);
        }
        // The store goes away before these lines are in it.
        world.lines.clone_from(&known);
        world.cursor = durable;
        world.rename("audit.log.1", "audit.log.2");
        world.rename("audit.log", "audit.log.1");
        world.append("four\n");
        world.restart();
        world.drain();
        assert_eq!(world.lines[known.len()..], ["two", "three", "four"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

/// As `gzip` does: another file with the time of the original, which goes away.
fn compress(world: &World, name: &str) {
    let original = world.path(name);
    let modified = std::fs::metadata(&original).unwrap().modified().unwrap();
    let compressed = File::create(world.path(&format!("{name}.gz"))).unwrap();
    compressed.set_modified(modified).unwrap();
    std::fs::remove_file(original).unwrap();
}

/// As `gzip -c` leaves a file of that length: with a time of its own.
fn ends_with_length(world: &World, part: &str, length: u32) {
    std::fs::write(world.path(part), length.to_le_bytes()).unwrap();
}

#[test]
fn a_compressed_file_is_a_gap_unless_it_was_read_to_its_end() {
    for (unread, is_stopped) in [("", true), ("unread\n", true), ("", false)] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        // Its last cursor was stored when all of it had been read.
        world.append(unread);
        world.rename("audit.log", "audit.log.1");
        world.append("two\n");
        if is_stopped {
            world.restart();
        } else {
            world.step();
        }
        compress(&world, "audit.log.1");
        world.drain();
        assert_eq!(world.lines, ["one", "two"]);
        match unread {
            "" => assert_eq!(world.gaps(), Vec::<&FileEvent>::new()),
            _ => assert!(
                matches!(
                    world.gaps()[..],
                    [FileEvent::Gap {
                        why: GapReason::Compressed { .. },
                        from: 4,
                        ..
                    }]
                ),
                "{:?}",
                world.events
            ),
        }
    }
}

/// The one before it, which was read, is deleted by then, as with `rotate 1`.
#[test]
fn a_file_that_was_rotated_and_compressed_unseen_is_a_gap() {
    for keeps_time in [true, false] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.await_tick();
        std::fs::remove_file(world.path("audit.log")).unwrap();
        world.append("unread\n");
        world.rename("audit.log", "audit.log.1");
        world.append("");
        world.await_tick();
        compress(&world, "audit.log.1");
        if !keeps_time {
            ends_with_length(&world, "audit.log.1.gz", 7);
        }
        world.drain();
        world.append("two\n");
        world.drain();
        assert_eq!(world.lines, ["one", "two"]);
        let [FileEvent::Gap { why, .. }] = world.gaps()[..] else {
            panic!("{keeps_time}: {:?}", world.events);
        };
        assert!(
            matches!(why, GapReason::Compressed { name, .. } if name == "audit.log.1.gz"),
            "{why:?}"
        );
    }
}

/// As after a night without an event.
#[test]
fn an_empty_file_that_was_compressed_unseen_is_no_gap() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.await_tick();
    world.rename("audit.log", "audit.log.2");
    compress(&world, "audit.log.2");
    ends_with_length(&world, "audit.log.1.gz", 0);
    world.append("two\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

#[test]
fn a_file_that_was_read_and_compressed_without_keeping_its_time_is_no_gap() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        if is_stopped {
            world.restart();
        }
        world.await_tick();
        ends_with_length(&world, "audit.log.1.gz", 4);
        std::fs::remove_file(world.path("audit.log")).unwrap();
        world.append("two\n");
        world.drain();
        assert_eq!(world.lines, ["one", "two"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new(), "{is_stopped}");
    }
}

/// It is compressed when the next one is there already, and that one stays empty until the next night.
#[test]
fn a_file_that_was_read_before_an_empty_one_and_compressed_late_is_no_gap() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.rename("audit.log", "audit.log.1");
    world.append("");
    world.drain();
    world.await_tick();
    ends_with_length(&world, "audit.log.2.gz", 4);
    std::fs::remove_file(world.path("audit.log.1")).unwrap();
    world.drain();
    world.rename("audit.log", "audit.log.1");
    world.append("two\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// `gzip audit.log` leaves nothing else of it.
#[test]
fn a_log_that_was_compressed_where_it_stood_is_a_gap_unless_it_was_read_to_its_end() {
    for unread in ["", "unread\n"] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.await_tick();
        world.append(unread);
        world.restart();
        compress(&world, "audit.log");
        world.append("two\n");
        world.drain();
        assert_eq!(world.lines, ["one", "two"]);
        let gaps = usize::from(!unread.is_empty());
        assert_eq!(world.gaps().len(), gaps, "{:?}", world.events);
    }
}

/// `gzip -c` leaves the log itself where it is.
#[test]
fn a_compressed_copy_of_the_log_is_no_gap() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.await_tick();
        world.append_to("audit.log.gz", "compressed\n");
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
fn a_file_that_comes_back_is_read_on_where_it_was_left() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.rename("audit.log", "aside");
    world.append("two\n");
    world.drain();
    std::fs::remove_file(world.path("audit.log")).unwrap();
    world.rename("aside", "audit.log");
    world.append("three\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three"]);
    assert_eq!(world.keys[0].0, world.keys[2].0);
}

#[test]
fn a_log_that_was_given_any_name_while_stopped_is_read_to_its_end() {
    for has_birth in [true, false] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.append("two\n");
        world.rename("audit.log", "aside");
        world.append("three\n");
        if !has_birth {
            world.cursor.as_mut().unwrap().birth = None;
        }
        world.restart();
        world.drain();
        assert_eq!(world.lines, ["one", "two", "three"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

/// Where a file system has no birth times, and whether or not a line of the log was read.
#[test]
fn another_file_with_the_inode_of_the_log_is_not_read() {
    for read_to in [4, 0] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        if read_to == 0 {
            world.rename("audit.log", "audit.log.1");
            world.append("");
            world.drain();
        }
        std::fs::remove_file(world.path("audit.log")).unwrap();
        world.append_to("notes", "somebody's\n");
        world.append("two\n");
        let inode = world.inode("notes");
        let cursor = world.cursor.as_mut().unwrap();
        assert_eq!(cursor.offset, read_to);
        (cursor.inode, cursor.birth) = (inode, None);
        world.restart();
        world.drain();
        assert_eq!(world.lines, ["one", "two"]);
        assert_eq!(world.gaps().len(), 1, "{:?}", world.events);
    }
}

/// In another directory, where the files are named after the link.
#[test]
fn a_file_that_a_link_was_led_past_is_read() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        std::fs::create_dir(world.path("logs")).unwrap();
        world.append_to("logs/audit-20261123.log", "history\n");
        world.await_tick();
        world.append_to("logs/audit-20261124.log", "one\n");
        lead_to(&world, "logs/audit-20261124.log");
        world.drain();
        world.append("two\n");
        for (day, line) in [(25, "three\n"), (26, "four\n")] {
            let target = format!("logs/audit-202611{day}.log");
            world.append_to(&target, line);
            lead_to(&world, &target);
        }
        if is_stopped {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines, ["one", "two", "three", "four"]);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        world.is_delivered_once();

        // A reading from the beginning finds them all.
        world.lines.clear();
        world.options.read_rotated_at_first_start = true;
        world.cursor = None;
        world.restart();
        world.drain();
        assert_eq!(world.lines, ["history", "one", "two", "three", "four"]);
    }
}

#[test]
fn strange_things_at_the_path_are_named_and_survived() {
    let mut world = World::new();
    let path = world.path("audit.log");
    std::fs::create_dir(&path).unwrap();
    let error = world.tailer.step().unwrap_err();
    assert_eq!(error.reason(), "is_a_directory");
    assert!(error.to_string().contains("is a directory"), "{error}");
    std::fs::remove_dir(&path).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(fifo.unwrap().success());
    let error = world.tailer.step().unwrap_err();
    assert_eq!(error.reason(), "not_a_regular_file");
    std::fs::remove_file(&path).unwrap();
    world.append("one\n");
    world.drain();
    assert_eq!(world.lines, ["one"]);

    // What was already open is read to its end first.
    world.append("two\n");
    world.rename("audit.log", "audit.log.1");
    std::fs::create_dir(&path).unwrap();
    assert!(world.step());
    assert_eq!(world.lines, ["one", "two"]);
    let error = world.tailer.step().unwrap_err();
    assert_eq!(error.reason(), "is_a_directory");
    std::fs::remove_dir(&path).unwrap();
    world.append("three\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three"]);
}

#[test]
fn refused_chunks_are_handed_out_again_across_a_rotation() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    let first = world.cursor.clone();
    world.append("two\n");
    world.rename("audit.log", "audit.log.1");
    world.append("three\n");
    world.drain();
    world.cursor = first;
    world.restart();
    world.drain();
    assert_eq!(world.lines, ["one", "two", "three", "two", "three"]);
    assert_eq!(world.keys[1..3], world.keys[3..]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

fn written(world: &World, part: &str, time: SystemTime) {
    let file = File::options().append(true).open(world.path(part)).unwrap();
    file.set_modified(time).unwrap();
}

/// The log, which is a link.
fn lead_to(world: &World, target: &str) {
    symlink(target, world.path("link")).unwrap();
    world.rename("link", "audit.log");
}

fn is_open(path: &Path) -> bool {
    let held = std::fs::read_dir("/proc/self/fd").unwrap();
    // Other tests open and close theirs meanwhile.
    let mut targets = held.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| target == path)
}

/// Else the disk had no room for what is deleted, for as long as the next file lasts.
#[test]
fn a_finished_file_is_closed() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    world.rename("audit.log", "audit.log.1");
    let rotated = std::fs::canonicalize(world.path("audit.log.1")).unwrap();
    world.append("two\n");
    world.step();
    assert!(is_open(&rotated));
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
    assert!(!is_open(&rotated));
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// As on a mount that hardly answers: whoever waits for all of it would wait for minutes.
#[test]
fn a_slow_file_is_read_piece_by_piece() {
    let mut world = World::new();
    for _ in 0..60 {
        world.append(&format!("{:x<65000}\n", ""));
    }
    world.options.step_time = Duration::ZERO;
    world.tailer = Tailer::open(world.options.clone(), None);
    assert!(!world.step(), "the first look reads nothing");
    assert!(world.step());
    let behind = world.tailer.bytes_behind();
    assert!(behind > 2 << 20, "{behind} bytes are left of 3.9 million");
    world.drain();
    assert_eq!(world.lines.len(), 60);

    // Nor is the end of a huge line waited for.
    world.append(&"h".repeat(3 << 20));
    world.append("\nlast\n");
    let mut read = 0;
    while !world.step() {
        let before = std::mem::replace(&mut read, world.tailer.half_line_bytes());
        assert!(read > before, "it goes on where it was");
        assert!(read < before + (1 << 20), "{read} bytes after {before}");
    }
    assert!(read > 2 << 20, "{read} bytes of 3 MiB");
    assert_eq!(world.kinds[60], LineKind::Oversized { length: 3 << 20 });
    assert_eq!(world.lines[61..], ["last"]);
}

#[test]
fn half_a_million_lines_and_a_huge_one_in_bounded_memory() {
    let mut world = World::new();
    let mut writer = BufWriter::new(File::create(world.path("audit.log")).unwrap());
    for number in 0..500_000 {
        writeln!(writer, "{{\"line\":{number},\"filler\":\"{:x<80}\"}}", "").unwrap();
    }
    for _ in 0..10 {
        writer.write_all(&[b'h'; 1 << 20]).unwrap();
    }
    writer.write_all(b"\nlast\n").unwrap();
    writer.flush().unwrap();
    // However slow the machine is.
    world.options.step_time = Duration::MAX;
    world.tailer = Tailer::open(world.options.clone(), None);
    assert!(!world.step(), "the first look reads nothing");
    let before = resident_bytes();
    let size = std::fs::metadata(world.path("audit.log")).unwrap().len();

    let (mut lines, mut bytes, mut last) = (0, 0, None);
    let mut huge = Vec::new();
    while let Step::Lines(chunk) = world.tailer.step().unwrap() {
        for line in &chunk.lines {
            if lines < 500_000 {
                let start = format!("{{\"line\":{lines},");
                assert!(line.bytes.starts_with(start.as_bytes()));
            }
            lines += 1;
            if line.kind != LineKind::Complete {
                huge.push((line.kind, line.bytes.len()));
            }
        }
        bytes += chunk.bytes;
        last = chunk.lines.last().map(|line| line.bytes.clone());
        assert!(
            resident_bytes() < before + (48 << 20),
            "after {lines} lines"
        );
    }
    assert_eq!((lines, bytes), (500_002, size));
    assert_eq!(last.as_deref(), Some(&b"last"[..]));
    assert_eq!(huge, [(LineKind::Oversized { length: 10 << 20 }, 1024)]);
    assert_eq!(world.tailer.bytes_behind(), 0);
}
