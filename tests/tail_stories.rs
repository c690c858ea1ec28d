//! Stories of real files: what a tailer makes of rotations, truncations, copies and strange things.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daybook::tail::{FileEvent, GapReason, LineKind, Step, TailCursor, TailOptions, Tailer};

struct World {
    directory: tempfile::TempDir,
    options: TailOptions,
    tailer: Tailer,
    now: Instant,
    lines: Vec<String>,
    keys: Vec<(String, u64)>,
    kinds: Vec<LineKind>,
    events: Vec<FileEvent>,
    cursor: Option<TailCursor>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = TailOptions::new(directory.path().join("audit.log"));
        Self {
            tailer: Tailer::open(options.clone(), None),
            options,
            directory,
            now: Instant::now(),
            lines: Vec::new(),
            keys: Vec::new(),
            kinds: Vec::new(),
            events: Vec::new(),
            cursor: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, text: &str) {
        self.append_to("audit.log", text);
    }

    fn append_to(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn truncate(&self) {
        let file = OpenOptions::new()
            .write(true)
            .open(self.path("audit.log"))
            .unwrap();
        file.set_len(0).unwrap();
    }

    fn copy_truncate(&self, copy: &str) {
        std::fs::copy(self.path("audit.log"), self.path(copy)).unwrap();
        self.truncate();
    }

    fn inode(&self, name: &str) -> u64 {
        std::fs::metadata(self.path(name)).unwrap().ino()
    }

    fn step(&mut self) -> bool {
        self.now += Duration::from_millis(1200);
        match self.tailer.step_at(self.now).unwrap() {
            Step::Lines(chunk) => {
                for line in &chunk.lines {
                    self.lines
                        .push(String::from_utf8_lossy(&line.bytes).into_owned());
                    self.keys.push((chunk.file_key.to_string(), line.offset));
                    self.kinds.push(line.kind);
                }
                self.events.extend(chunk.events);
                self.cursor = Some(chunk.cursor_after);
                true
            }
            Step::Idle {
                events,
                cursor_after,
            } => {
                self.events.extend(events);
                self.cursor = cursor_after.or(self.cursor.take());
                false
            }
        }
    }

    fn drain(&mut self) {
        let mut idle = 0;
        while idle < 6 {
            idle = if self.step() { 0 } else { idle + 1 };
        }
    }

    fn stop(&mut self) -> Option<TailCursor> {
        let json = serde_json::to_string(&self.cursor).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    /// As after a crash: only the stored cursor is left.
    fn restart(&mut self) {
        let cursor = self.stop();
        self.events.clear();
        self.tailer = Tailer::open(self.options.clone(), cursor);
    }

    fn gaps(&self) -> Vec<&FileEvent> {
        self.events
            .iter()
            .filter(|event| matches!(event, FileEvent::Gap { .. }))
            .collect()
    }

    fn is_delivered_once(&self) {
        let distinct: BTreeSet<_> = self.keys.iter().collect();
        assert_eq!(distinct.len(), self.keys.len(), "{:?}", self.keys);
    }
}

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

#[test]
fn a_copytruncate_loses_nothing_as_long_as_the_copy_is_there() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.append("two\nthree\n");
        world.copy_truncate("audit.log.1");
        world.append("four, and longer than all that was there before it\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        let last = "four, and longer than all that was there before it";
        assert_eq!(world.lines, ["one", "two", "three", last]);
        assert_eq!(
            world.keys[0].0, world.keys[2].0,
            "the copy has no key of its own"
        );
        assert_ne!(world.keys[0].0, world.keys[3].0);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        let truncated = FileEvent::Truncated {
            inode: world.inode("audit.log"),
            read_to: 4,
            lost_bytes: Some(0),
        };
        assert!(world.events.contains(&truncated), "{:?}", world.events);
        world.restart();
        world.drain();
        world.is_delivered_once();
    }
}

#[test]
fn a_replay_over_two_copies_makes_the_keys_of_the_first_reading() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    let old = world.cursor.clone();
    world.append("two\n");
    world.drain();
    world.copy_truncate("audit.log-1");
    world.append("one\nthree, in a file that begins like the one before\n");
    world.drain();
    world.copy_truncate("audit.log-2");
    world.append("four\n");
    world.drain();
    let first_reading = world.keys.split_off(1);
    world.is_delivered_once();
    assert_eq!(first_reading.len(), 4);
    assert!(first_reading[1].0.ends_with("~2"));

    world.keys.clear();
    world.cursor = old;
    world.restart();
    world.drain();
    assert_eq!(world.keys, first_reading);
    assert_eq!(world.lines[1..5], world.lines[5..]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

#[test]
fn a_truncation_without_a_copy_is_a_gap() {
    let mut world = World::new();
    world.append("one\nand half a li");
    world.drain();
    world.truncate();
    world.append("two\n");
    world.drain();
    assert_eq!(world.lines, ["one", "two"]);
    let key = world.keys[0].0.as_str();
    let gap = FileEvent::Gap {
        file_key: Some(key.into()),
        inode: world.inode("audit.log"),
        from: 4,
        to: Some(17),
        why: GapReason::Truncated,
    };
    assert_eq!(world.gaps(), [&gap]);

    // While stopped nobody knows how much there was.
    world.truncate();
    world.restart();
    world.drain();
    let gap = FileEvent::Gap {
        file_key: Some(world.keys[1].0.as_str().into()),
        inode: world.inode("audit.log"),
        from: 4,
        to: None,
        why: GapReason::Truncated,
    };
    assert_eq!(world.gaps(), [&gap]);
    // And it is said once.
    world.restart();
    world.drain();
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

#[test]
fn truncated_and_grown_past_the_old_offset_with_the_same_first_line() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        let first = format!("{:a<1500}\n", "the same first line, longer than one print");
        world.append(&first);
        world.append("two\n");
        world.drain();
        world.truncate();
        world.append(&first);
        world.append("TWO\nthree\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines[1..], ["two", first.trim_end(), "TWO", "three"]);
        assert_eq!(format!("{}~2", world.keys[0].0), world.keys[2].0);
        world.is_delivered_once();
        let generation = FileEvent::NewGeneration {
            inode: world.inode("audit.log"),
            file_key: world.keys[2].0.as_str().into(),
        };
        assert!(world.events.contains(&generation), "{:?}", world.events);
        world.restart();
        world.append("four\n");
        world.drain();
        assert_eq!(world.keys[5].0, world.keys[2].0);
    }
}

#[test]
fn a_reused_inode_with_the_same_first_line_is_another_file() {
    let mut world = World::new();
    world.append("the same\none\n");
    world.drain();
    let inode = world.inode("audit.log");
    // The tailer's own descriptor would keep the inode from being used again.
    world.restart();
    let mut others = Vec::new();
    std::fs::remove_file(world.path("audit.log")).unwrap();
    let reused = (0..10_000).any(|attempt| {
        let name = format!("attempt-{attempt}");
        world.append_to(&name, "the same\n");
        if world.inode(&name) == inode {
            world.rename(&name, "audit.log");
            return true;
        }
        others.push(name);
        false
    });
    assert!(
        reused,
        "this file system gave the inode to none of 10000 files"
    );
    assert_eq!(world.inode("audit.log"), inode);
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

/// As `gzip` does: another file with the time of the original, which goes away.
fn compress(world: &World, name: &str) {
    let original = world.path(name);
    let modified = std::fs::metadata(&original).unwrap().modified().unwrap();
    let compressed = File::create(world.path(&format!("{name}.gz"))).unwrap();
    compressed.set_modified(modified).unwrap();
    std::fs::remove_file(original).unwrap();
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

#[test]
fn somebodys_copy_of_the_log_is_not_read_as_part_of_it() {
    let mut world = World::new();
    for number in 0..100 {
        world.append(&format!("line {number} of the log\n"));
    }
    world.drain();
    std::fs::copy(world.path("audit.log"), world.path("audit.log.saved")).unwrap();
    world.append("100\n");
    world.rename("audit.log", "audit.log.1");
    world.append("101\n");
    world.restart();
    world.drain();
    assert_eq!(world.lines.len(), 102);
    world.is_delivered_once();
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
fn a_refused_chunk_is_handed_out_again() {
    let mut world = World::new();
    world.append("one\n");
    world.drain();
    let first = world.cursor.clone().unwrap();
    world.append("two\n");
    world.rename("audit.log", "audit.log.1");
    world.append("three\n");
    world.step();
    world.tailer.rewind(&first);
    world.drain();
    assert_eq!(world.lines, ["one", "two", "two", "three"]);
    assert_eq!(world.keys[1], world.keys[2]);

    // Across the rotation, though the rotated file is gone.
    std::fs::remove_file(world.path("audit.log.1")).unwrap();
    world.tailer.rewind(&first);
    world.drain();
    assert_eq!(world.lines[4..], ["two", "three"]);
    assert_eq!(world.keys[2..4], world.keys[4..]);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
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
