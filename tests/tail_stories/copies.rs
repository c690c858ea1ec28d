//! Copies and truncations: what was copied is read once, and what was cut off is said.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime};

use daybook::tail::{FileEvent, GapReason};

use crate::world::World;
use crate::written;

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
    let inode = world.inode("audit.log");
    assert_eq!(world.cuts(), [(&*world.keys[0].0, inode, 4, Some(17))]);

    // While stopped nobody knows how much there was.
    world.truncate();
    world.restart();
    world.drain();
    assert_eq!(world.cuts(), [(&*world.keys[1].0, inode, 4, None)]);
    // And it is said once.
    world.restart();
    world.drain();
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// Who copies the log, truncates it and compresses the copy, before anybody looks.
#[derive(Clone, Copy, Debug)]
enum Compressor {
    /// Keeps the time of the log.
    Logrotate,
    /// Keeps the time of the copy, as `gzip` does.
    Script,
    /// Keeps none, as `gzip -c` does.
    Pipe,
}

/// All that is looked at of the compressed file is its time and, of `gzip`, the length at its end.
fn copy_truncate_compress(world: &World, part: &str, compressor: Compressor) {
    let time = |name: &str| {
        let metadata = std::fs::metadata(world.path(name)).unwrap();
        (metadata.modified().unwrap(), metadata.len())
    };
    let (of_log, length) = time("audit.log");
    world.await_tick();
    world.copy_truncate("copy");
    let (of_copy, _) = time("copy");
    std::fs::remove_file(world.path("copy")).unwrap();
    world.await_tick();
    std::fs::write(world.path(part), &length.to_le_bytes()[..4]).unwrap();
    match compressor {
        Compressor::Logrotate => written(world, part, of_log),
        Compressor::Script => written(world, part, of_copy),
        Compressor::Pipe => {}
    }
}

/// The names of the compressed files that hold what was not read.
fn compressed(world: &World) -> Vec<&str> {
    let gaps = world.gaps().into_iter();
    gaps.map(|gap| match gap {
        FileEvent::Gap {
            to: None,
            why: GapReason::Compressed { name, .. },
            ..
        } => &**name,
        other => panic!("something else than a compressed file: {other:?}"),
    })
    .collect()
}

#[test]
fn a_compressed_copy_is_a_gap_unless_it_holds_what_was_read() {
    use Compressor::{Logrotate, Pipe, Script};
    for (part, compressor, unread, is_gap) in [
        ("audit.log.1.gz", Logrotate, "", false),
        ("audit.log.1.gz", Logrotate, "unread\n", true),
        ("audit.log.1.gz", Script, "", false),
        ("audit.log.1.gz", Script, "unread\n", true),
        ("audit.log.1.gz", Pipe, "", false),
        ("audit.log.1.gz", Pipe, "unread\n", true),
        ("audit.log.1.zst", Logrotate, "", false),
        ("audit.log.1.zst", Logrotate, "unread\n", true),
        // Nothing tells what such a one holds.
        ("audit.log.1.zst", Pipe, "", false),
        // As by `gzip -k audit.log`.
        ("audit.log.gz", Logrotate, "", false),
        ("audit.log.gz", Logrotate, "unread\n", true),
    ] {
        for is_seen_empty in [false, true] {
            let mut world = World::new();
            world.append("one\n");
            world.drain();
            world.await_tick();
            world.append(unread);
            copy_truncate_compress(&world, part, compressor);
            if is_seen_empty {
                world.drain();
                world.await_tick();
            }
            world.append("two\n");
            world.drain();
            let when = format!("{part} by {compressor:?} with {unread:?}, {is_seen_empty}");
            assert_eq!(world.lines, ["one", "two"], "{when}");
            let parts = if is_gap { vec![part] } else { Vec::new() };
            assert_eq!(compressed(&world), parts, "{when}");
            let truncated = FileEvent::Truncated {
                inode: world.inode("audit.log"),
                read_to: 4,
                lost_bytes: (!is_gap).then_some(0),
            };
            assert!(world.events.contains(&truncated), "{when}");
            world.restart();
            world.drain();
            assert_eq!(world.gaps(), Vec::<&FileEvent>::new(), "{when}");
        }
    }
}

/// Seen empty, it was written, copied and truncated again before anybody looked.
#[test]
fn what_stood_in_an_emptied_log_and_was_compressed_unseen_is_a_gap() {
    let looks = [(false, false), (false, true), (true, false), (true, true)];
    for compressor in [Compressor::Logrotate, Compressor::Script, Compressor::Pipe] {
        for (is_stopped, is_seen_empty) in looks {
            let when = format!("{compressor:?}, {is_stopped}, {is_seen_empty}");
            let mut world = World::new();
            world.append("one\n");
            world.drain();
            world.await_tick();
            copy_truncate_compress(&world, "audit.log.3.gz", compressor);
            world.drain();
            // Once more without a line since.
            world.await_tick();
            copy_truncate_compress(&world, "audit.log.2.gz", compressor);
            world.drain();
            assert_eq!(world.gaps(), Vec::<&FileEvent>::new(), "{when}");
            world.await_tick();
            world.append("unread\n");
            copy_truncate_compress(&world, "audit.log.1.gz", compressor);
            if is_stopped {
                world.restart();
            }
            if is_seen_empty {
                world.drain();
                world.await_tick();
            }
            world.append("two\n");
            world.drain();
            assert_eq!(world.lines, ["one", "two"], "{when}");
            assert_eq!(compressed(&world), ["audit.log.1.gz"], "{when}");
            world.restart();
            world.drain();
            assert_eq!(world.gaps(), Vec::<&FileEvent>::new(), "{when}");
        }
    }
}

/// The clock was ahead when a former copy was compressed.
#[test]
fn a_compressed_copy_with_a_time_to_come_hides_no_later_copy() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append("one\n");
        world.drain();
        world.await_tick();
        copy_truncate_compress(&world, "audit.log.2.gz", Compressor::Pipe);
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        written(&world, "audit.log.2.gz", ahead);
        world.drain();
        world.await_tick();
        world.append("two\n");
        world.copy_truncate("audit.log.1");
        world.append("three\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines, ["one", "two", "three"], "{is_stopped}");
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new(), "{is_stopped}");
    }
}

/// Written after the copy was made, and cut off when it was known and not yet read.
#[test]
fn what_was_seen_to_stand_behind_the_end_of_the_copy_is_a_gap() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append(&content("first"));
        world.drain();
        world.append("in the copy\n");
        let copied = std::fs::copy(world.path("audit.log"), world.path("audit.log-1")).unwrap();
        world.append("not in it\n");
        world.tailer.watch();
        world.cursor = world.tailer.cursor();
        if is_stopped {
            world.restart();
        }
        world.truncate();
        world.append("two\n");
        world.drain();
        let all = content("first") + "in the copy\ntwo\n";
        assert_same(&world.lines, &all, &format!("{is_stopped}"));
        let inode = world.inode("audit.log");
        let end = copied + "not in it\n".len() as u64;
        assert_eq!(
            world.cuts(),
            [(&*world.keys[0].0, inode, copied, Some(end))]
        );
        world.restart();
        world.drain();
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

#[test]
fn a_cut_behind_what_was_handed_out_takes_nothing_else_along() {
    for (kept, more, third, from) in [
        (8, "three\n", "three", 8),
        (13, "ow\n", "and how", 13),
        (
            8,
            "three that is longer than the half\n",
            "three that is longer than the half",
            8,
        ),
    ] {
        let mut world = World::new();
        world.append("one\ntwo\nand half a li");
        world.drain();
        world.truncate_to(kept);
        world.append(more);
        world.drain();
        world.append("four\n");
        world.drain();
        assert_eq!(world.lines, ["one", "two", third, "four"]);
        assert!(world.keys.iter().all(|(key, _)| *key == world.keys[0].0));
        world.is_delivered_once();
        let inode = world.inode("audit.log");
        assert_eq!(world.cuts(), [(&*world.keys[0].0, inode, from, Some(21))]);
        world.restart();
        world.drain();
        assert_eq!(world.lines.len(), 4);
    }
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

/// So many that the first is not remembered any more.
#[test]
fn a_first_line_that_comes_back_after_many_truncations_gets_another_key() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append("the same\none\n");
        world.drain();
        for number in 0..34 {
            world.truncate();
            world.append(&format!("{number}\n"));
            world.drain();
        }
        world.truncate();
        world.append("the same\ntwo\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        assert_eq!(world.lines[36..], ["the same", "two"]);
        assert_eq!(format!("{}~2", world.keys[0].0), world.keys[36].0);
        world.is_delivered_once();
        let passed = &world.cursor.as_ref().unwrap().passed;
        assert!(passed.iter().all(|passed| passed.key != world.keys[0].0));
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

/// As evidence, or unpacked again.
#[test]
fn somebodys_copy_of_a_part_that_was_read_is_not_read_again() {
    // Whether the next log waits to be read when the copy is made, and is rotated afterwards.
    for (waits, is_rotated, is_stopped) in [
        (false, true, false),
        (false, true, true),
        (true, true, false),
        (true, false, false),
    ] {
        let mut world = World::new();
        world.append(&content("first"));
        world.drain();
        world.rename("audit.log", "audit.log.1");
        world.append(&content("second"));
        if waits {
            assert!(!world.step(), "the grace has begun");
        } else {
            world.drain();
        }
        world.await_tick();
        let copy = world.path("audit.log.1.orig");
        std::fs::copy(world.path("audit.log.1"), copy).unwrap();
        world.await_tick();
        if is_rotated {
            world.rename("audit.log.1", "audit.log.2");
            world.rename("audit.log", "audit.log.1");
        }
        world.append("third\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        let all = content("first") + &content("second") + "third\n";
        let when = format!("{waits}, {is_rotated}, {is_stopped}");
        assert_same(&world.lines, &all, &when);
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

/// Encrypted, or sealed, or a mark of how far somebody has read.
#[test]
fn what_was_made_of_a_part_is_not_read_as_one() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append(&content("first"));
        world.drain();
        world.rename("audit.log", "audit.log.1");
        world.append(&content("second"));
        world.drain();
        world.await_tick();
        for ending in ["1.gpg", "1.sha256", "pos"] {
            world.append_to(&format!("audit.log.{ending}"), "made of it\n");
        }
        world.rename("audit.log.1", "audit.log.2");
        world.rename("audit.log", "audit.log.1");
        world.append("third\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        let all = content("first") + &content("second") + "third\n";
        assert_same(&world.lines, &all, &format!("{is_stopped}"));
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

/// As the runbook takes out a person's lines: the part is another file then, as long and as old.
#[test]
fn a_part_in_which_lines_were_blanked_out_is_not_read_again() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append(&content("first"));
        world.drain();
        world.rename("audit.log", "audit.log.1");
        world.await_tick();
        world.append(&content("second"));
        world.drain();
        let part = world.path("audit.log.1");
        let time = std::fs::metadata(&part).unwrap().modified().unwrap();
        let text = std::fs::read_to_string(&part).unwrap();
        world.append_to("edited", &text.replace("line 07", "       "));
        world.rename("edited", "audit.log.1");
        written(&world, "audit.log.1", time);
        world.rename("audit.log.1", "audit.log.2");
        world.rename("audit.log", "audit.log.1");
        world.append("third\n");
        if is_stopped {
            world.restart();
        }
        world.drain();
        let all = content("first") + &content("second") + "third\n";
        assert_same(&world.lines, &all, &format!("{is_stopped}"));
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

#[test]
fn a_part_that_came_unseen_and_its_copy_are_read_once() {
    // A copy that was written over an older one is older than the part, going by its birth.
    for (is_over_another, more) in [(false, ""), (false, "more\n"), (true, ""), (true, "more\n")] {
        let mut world = World::new();
        if is_over_another {
            world.append_to("audit.log.bak", "history\n");
            world.await_tick();
        }
        world.append(&content("first"));
        world.drain();
        world.rename("audit.log", "audit.log.2");
        world.append(&content("second"));
        world.await_tick();
        std::fs::copy(world.path("audit.log"), world.path("audit.log.bak")).unwrap();
        world.append(more);
        world.rename("audit.log", "audit.log.1");
        world.append("third\n");
        world.restart();
        world.drain();
        let all = content("first") + &content("second") + more + "third\n";
        assert_same(&world.lines, &all, &format!("{is_over_another}, {more}"));
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
    }
}

/// Lines of one content, together longer than what a file is recognised by.
fn content(name: &str) -> String {
    (0..40)
        .map(|number| format!("line {number:02} of the {name} content, {:-<40}\n", ""))
        .collect()
}

/// Somebody copies the log, writes to it once more, and truncates it; the tailer looks between the two.
#[test]
fn a_look_between_copy_and_truncation_reads_no_line_twice() {
    // How many looks: none, one that finds the first truncation, and as many as it likes.
    for looks in [0, 1, 2, 100] {
        for is_stopped in [false, true] {
            let mut world = World::new();
            world.append(&content("first"));
            world.drain();
            world.copy_truncate("audit.log-1");
            world.append(&content("second"));
            world.await_tick();
            std::fs::copy(world.path("audit.log"), world.path("audit.log-2")).unwrap();
            world.await_tick();
            // In the log only: lost, should nobody look before the truncation.
            world.append("one more\n");
            for _ in 0..looks {
                world.step();
            }
            if is_stopped {
                world.restart();
            }
            world.truncate();
            world.append(&content("third"));
            world.drain();
            world.lines.retain(|line| line != "one more");
            let all = content("first") + &content("second") + &content("third");
            assert_same(&world.lines, &all, &format!("{looks} looks, {is_stopped}"));
            world.is_delivered_once();
            let keys: BTreeSet<&String> = world.keys.iter().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), 3, "{looks} looks: {keys:?}");
        }
    }
}

/// As a nightly `cp audit.log audit.log.1 && : > audit.log` does it: the copy keeps its first birth.
#[test]
fn a_copy_that_was_written_over_the_one_before_is_read_once() {
    for (is_short, is_stopped) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new();
        let mut all = String::new();
        for night in 1..=3 {
            // Of less than a KiB a copy is told only when all of it was read.
            let (day, unread) = match is_short {
                true => (format!("the only line of day {night}\n"), ""),
                false => (content(&format!("{night}.")), "the last line of the day\n"),
            };
            world.append(&day);
            world.drain();
            world.append(unread);
            world.await_tick();
            if is_stopped {
                world.restart();
            }
            world.copy_truncate("audit.log.1");
            world.drain();
            all += &(day + unread);
            let when = format!("night {night}, {is_short}, {is_stopped}");
            assert_same(&world.lines, &all, &when);
            assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        }
        let keys: BTreeSet<&String> = world.keys.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }
}

/// Puts it in the place of the log, as an editor or rsync does.
fn replace(world: &World, content: &str) {
    world.append_to(".audit.log.new", content);
    world.rename(".audit.log.new", "audit.log");
}

#[test]
fn a_log_replaced_by_its_copy_is_read_on_and_by_one_that_begins_alike_anew() {
    // What follows the first KiB in the file that takes its place.
    let rest = content("first").split_off(1024);
    let other = rest.replace("first", "other");
    for (rest, is_copy) in [(rest, true), (other, false)] {
        for is_stopped in [false, true] {
            let mut world = World::new();
            world.append(&content("first"));
            world.drain();
            if is_stopped {
                world.restart();
            }
            let new = content("first")[..1024].to_owned() + &rest;
            replace(&world, &(new.clone() + "half"));
            world.drain();
            world.append(" a line\n");
            world.drain();
            world.restart();
            world.drain();
            let again = if is_copy { String::new() } else { new };
            let all = content("first") + &again + "half a line\n";
            assert_same(&world.lines, &all, &format!("{is_copy}, {is_stopped}"));
            world.is_delivered_once();
            let keys: BTreeSet<&String> = world.keys.iter().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), if is_copy { 1 } else { 2 });
        }
    }
}

/// By `mv` and `cp -p`, an editor that keeps a backup, or where the old file has a second name.
#[test]
fn a_log_replaced_by_its_copy_is_read_on_though_the_old_file_is_kept() {
    for is_stopped in [false, true] {
        let mut world = World::new();
        world.append(&content("first"));
        world.drain();
        if is_stopped {
            world.restart();
        }
        world.rename("audit.log", "audit.log~");
        let all = content("first") + "one more\n";
        replace(&world, &all);
        world.drain();
        assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        world.append("and another\n");
        world.restart();
        world.drain();
        assert_same(
            &world.lines,
            &(all + "and another\n"),
            &format!("{is_stopped}"),
        );
        let keys: BTreeSet<&String> = world.keys.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
    }
}

/// Its last line is in no other file.
#[test]
fn a_log_that_grew_after_its_copy_was_made_is_read_to_its_end() {
    let mut world = World::new();
    world.append(&content("first"));
    world.drain();
    world.append("one more\n");
    replace(&world, &content("first"));
    world.drain();
    assert!(world.lines.iter().any(|line| line == "one more"));
}

/// The writer has the old file open still.
#[test]
fn a_line_that_is_written_late_to_a_replaced_log_is_read() {
    let mut world = World::new();
    world.append(&content("first"));
    world.drain();
    let log = world.path("audit.log");
    let mut old = OpenOptions::new().append(true).open(log).unwrap();
    replace(&world, &content("first"));
    assert!(!world.step());
    old.write_all(b"late\n").unwrap();
    world.drain();
    assert!(world.lines.iter().any(|line| line == "late"));
}

/// A mirror is synchronised again and again before its log's turn comes.
#[test]
fn a_log_that_is_replaced_in_the_queue_is_read_once() {
    let mut world = World::new();
    world.append(&content("first"));
    world.drain();
    world.rename("audit.log", "audit.log.1");
    let mut second = content("second");
    for number in 0..4 {
        replace(&world, &second);
        world.tailer.watch();
        second += &format!("more {number}\n");
    }
    replace(&world, &second);
    world.drain();
    assert_same(
        &world.lines,
        &(content("first") + &second),
        "all of it, once",
    );
}

/// At the origin of a mirror the log grew and was rotated between two synchronisations.
#[test]
fn a_mirrored_log_that_was_rotated_is_read_to_its_end() {
    let mut world = World::new();
    world.append(&content("first"));
    world.drain();
    replace(&world, &content("second"));
    world.append_to(".part", &(content("first") + "the last line\n"));
    world.rename(".part", "audit.log.1");
    world.drain();
    let all = content("first") + "the last line\n" + &content("second");
    assert_same(&world.lines, &all, "the part's end, once");
    world.is_delivered_once();
}

#[test]
fn a_log_that_was_renamed_is_not_replaced_by_its_copy() {
    let mut world = World::new();
    world.append(&content("first"));
    world.drain();
    world.rename("audit.log", "audit.log.1");
    replace(&world, &content("first"));
    world.drain();
    world.is_delivered_once();
    let keys: BTreeSet<&String> = world.keys.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 2);
}

/// Its time says that the truncation is not over yet; the next file is read all the same.
#[test]
fn a_log_that_comes_back_from_its_copy_is_read_once() {
    let mut world = World::new();
    world.append(&content("one"));
    world.drain();
    let lines = world.lines.len();
    std::fs::copy(world.path("audit.log"), world.path("audit.log.bak")).unwrap();
    std::fs::remove_file(world.path("audit.log")).unwrap();
    world.drain();
    std::fs::copy(world.path("audit.log.bak"), world.path("audit.log")).unwrap();
    world.append("two\n");
    world.drain();
    assert_eq!(world.lines[lines..], ["two"]);
    world.is_delivered_once();
}

#[test]
fn a_copy_that_is_just_being_made_is_no_part_without_a_live_file() {
    for restarts in [false, true] {
        let mut world = World::new();
        world.append(&content("one"));
        world.drain();
        world.rename("audit.log", "audit.log.1");
        world.drain();
        world.append_to("audit.log.1.bak", "");
        if restarts {
            world.restart();
        }
        world.drain();
        world.append_to("audit.log.1.bak", &content("one"));
        world.drain();
        assert_same(&world.lines, &content("one"), &format!("{restarts}"));
        world.is_delivered_once();
    }
}

#[test]
fn a_copy_is_no_part_after_a_restart_without_a_live_file() {
    let mut world = World::new();
    world.append(&content("one"));
    world.drain();
    let lines = world.lines.len();
    std::fs::copy(world.path("audit.log"), world.path("audit.log.saved")).unwrap();
    world.append("two\n");
    world.rename("audit.log", "audit.log.1");
    world.restart();
    world.drain();
    assert_eq!(world.lines[lines..], ["two"]);
    world.is_delivered_once();
}

#[test]
fn a_copy_from_the_future_holds_nothing_up() {
    let mut world = World::new();
    world.append(&content("first"));
    world.drain();
    world.copy_truncate("audit.log-1");
    let copy = OpenOptions::new()
        .write(true)
        .open(world.path("audit.log-1"))
        .unwrap();
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    copy.set_modified(future).unwrap();
    world.drain();
    world.rename("audit.log", "audit.log-2");
    world.append(&content("second"));
    world.drain();
    let all = content("first") + &content("second");
    assert_same(&world.lines, &all, "after a copy from the future");
}

/// Whatever the moment at which the tailer looks: another thread writes, copies and truncates.
#[test]
fn copies_and_truncations_beside_the_reading() {
    const CONTENTS: usize = 150;
    let mut world = World::new();
    world.append(&content("0th"));
    world.drain();
    let log = world.path("audit.log");
    let folder = log.parent().unwrap().to_owned();
    let writer = std::thread::spawn(move || {
        for number in 1..=CONTENTS {
            std::fs::copy(&log, folder.join(format!("audit.log-{number:03}"))).unwrap();
            let mut file = OpenOptions::new().append(true).open(&log).unwrap();
            file.set_len(0).unwrap();
            for line in content(&format!("{number}th")).split_inclusive('\n') {
                file.write_all(line.as_bytes()).unwrap();
            }
        }
    });
    while !writer.is_finished() {
        world.step();
    }
    writer.join().unwrap();
    world.drain();
    let all: String = (0..=CONTENTS).map(|n| content(&format!("{n}th"))).collect();
    assert_same(&world.lines, &all, "in a thread of its own");
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// Says where they part, not all that they are.
fn assert_same(lines: &[String], all: &str, when: &str) {
    let mut all = all.lines();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(Some(line.as_str()), all.next(), "{when}: line {index}");
    }
    assert_eq!(all.next(), None, "{when}: the rest is lost");
}
