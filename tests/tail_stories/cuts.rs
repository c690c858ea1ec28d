//! Logs that have lost their end, as after a power cut: nobody syncs them. And which cut is a gap.

use daybook::tail::{FileEvent, Tailer};

use crate::world::World;

const LINE: u64 = 61;

fn line(number: u64) -> String {
    format!("line {number:03}, {:-<50}\n", "")
}

/// So many lines stand in the log and were read, three at a time.
fn read(lines: u64) -> World {
    let mut world = World::new();
    world.options.max_lines = 3;
    world.tailer = Tailer::open(world.options.clone(), None);
    for number in 0..lines {
        world.append(&line(number));
    }
    world.drain();
    assert_eq!(world.lines.len() as u64, lines);
    world
}

#[test]
fn a_log_that_has_lost_its_end_is_read_on_from_shortly_before_that() {
    for is_stopped in [false, true] {
        // It stays shorter than it was, or becomes longer before anybody looks.
        for more in [2, 100] {
            let mut world = read(300);
            let read_to = 300 * LINE;
            world.truncate_to(read_to - 10 * LINE - 7);
            for number in 300..300 + more {
                world.append(&line(number));
            }
            if is_stopped {
                world.restart();
            }
            world.drain();
            let log = std::fs::read_to_string(world.path("audit.log")).unwrap();
            let all: Vec<&str> = log.lines().collect();
            let again = &world.lines[300..];
            assert_eq!(again, &all[all.len() - again.len()..]);
            // With the cut one, to whose half the next was glued.
            let new = more as usize;
            assert!((new..=new + 30).contains(&again.len()), "{again:?}");
            let key = format!("{}~2", world.keys[0].0);
            assert!(world.keys[300..].iter().all(|(other, _)| *other == key));
            world.is_delivered_once();
            if is_stopped {
                let inode = world.inode("audit.log");
                let known = (&*world.keys[0].0, inode, read_to, None);
                assert_eq!(world.cuts(), [known]);
            } else {
                assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
            }
            let before = world.lines.len();
            world.append("the last\n");
            world.restart();
            world.drain();
            assert_eq!(world.lines[before..], ["the last"]);
            assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
        }
    }
}

#[test]
fn a_log_that_was_rotated_after_it_had_lost_its_end_is_read_first() {
    let mut world = read(300);
    world.truncate_to(290 * LINE);
    world.rename("audit.log", "audit.log.1");
    world.append("next\n");
    world.restart();
    world.drain();
    let (next, again) = world.lines[300..].split_last().unwrap();
    assert_eq!(next, "next");
    assert!((1..=30).contains(&again.len()), "{again:?}");
    let kept = 290 - again.len() as u64..290;
    let kept: Vec<String> = kept.map(|n| line(n).trim_end().to_owned()).collect();
    assert_eq!(again, kept);
    world.is_delivered_once();
}

/// The second copy is shorter than the log was when it was copied first.
#[test]
fn a_restart_within_the_second_of_two_copies_is_no_gap() {
    let mut world = read(60);
    world.copy_truncate("audit.log-1");
    world.await_tick();
    for number in 60..90 {
        world.append(&line(number));
    }
    world.copy_truncate("audit.log-2");
    world.append("the last\n");
    while world.lines.len() < 80 {
        world.step();
    }
    world.restart();
    world.drain();
    assert_eq!(world.lines.len(), 91);
    assert_eq!(world.lines[90], "the last");
    world.is_delivered_once();
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}

/// As `cp backup audit.log` does, and somebody looks before its first byte. Of half of it nobody could
/// tell that the rest will be the same.
#[test]
fn a_log_that_is_written_anew_with_the_same_bytes_at_once_is_read_on_where_it_was_left() {
    let mut world = read(60);
    let log = std::fs::read_to_string(world.path("audit.log")).unwrap();
    world.truncate();
    assert!(!world.step());
    world.append(&log);
    world.append("more\n");
    world.drain();
    assert_eq!(world.lines[60..], ["more"]);
    assert_eq!(world.keys[60].0, world.keys[0].0);
    assert_eq!(world.gaps(), Vec::<&FileEvent>::new());
}
