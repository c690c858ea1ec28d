//! Random histories of a file, on a real file system, against a model of what must come out.

mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use world::World;

#[derive(Clone, Debug)]
enum Op {
    Lines {
        count: usize,
        shape: Shape,
    },
    Half,
    Rename {
        late: bool,
        step_between: bool,
    },
    CopyTruncate {
        written_between: bool,
        steps_between: usize,
    },
    Truncate {
        regrow: usize,
    },
    Delete,
    Steps {
        count: usize,
        quick: bool,
    },
    Restart,
    RestartOlder {
        back: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Plain,
    Crlf,
    Nul,
    Huge,
    Long,
    Twin,
}

/// Half of the logs are looked for before they are born.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let shape = prop_oneof![
        6 => Just(Shape::Plain), 1 => Just(Shape::Crlf), 1 => Just(Shape::Nul),
        1 => Just(Shape::Huge), 2 => Just(Shape::Long), 2 => Just(Shape::Twin),
    ];
    let op = prop_oneof![
        10 => (1_usize..12, shape).prop_map(|(count, shape)| Op::Lines { count, shape }),
        2 => Just(Op::Half),
        4 => (any::<bool>(), any::<bool>())
            .prop_map(|(late, step_between)| Op::Rename { late, step_between }),
        2 => (any::<bool>(), 0_usize..4).prop_map(|(written_between, steps_between)| {
            Op::CopyTruncate { written_between, steps_between }
        }),
        1 => (0_usize..20).prop_map(|regrow| Op::Truncate { regrow }),
        1 => Just(Op::Delete),
        8 => (1_usize..6, any::<bool>()).prop_map(|(count, quick)| Op::Steps { count, quick }),
        3 => Just(Op::Restart),
        1 => (1_usize..6).prop_map(|back| Op::RestartOlder { back }),
    ];
    (any::<bool>(), prop::collection::vec(op, 1..40)).prop_map(|(is_awaited, mut ops)| {
        if is_awaited {
            ops.insert(
                0,
                Op::Steps {
                    count: 1,
                    quick: false,
                },
            );
        }
        ops
    })
}

static ROTATIONS: AtomicU64 = AtomicU64::new(0);
static SUFFIXES: AtomicU64 = AtomicU64::new(0);
static ROTATED_UNSEEN: AtomicU64 = AtomicU64::new(0);

#[test]
fn every_line_that_could_be_read_comes_once_and_in_order() {
    // The same histories in every run, unless new ones are searched for: so many, and others each time.
    let search: Option<u32> = std::env::var("TAIL_CASES")
        .ok()
        .map(|cases| cases.parse().unwrap());
    let config = ProptestConfig {
        cases: search.unwrap_or(300),
        rng_seed: search.map_or(RngSeed::Fixed(1), |_| RngSeed::Random),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ops in ops(), dated in any::<bool>())| holds(&ops, dated));
    assert!(ROTATIONS.load(Ordering::Relaxed) > 50);
    assert!(SUFFIXES.load(Ordering::Relaxed) > 0);
    assert!(ROTATED_UNSEEN.load(Ordering::Relaxed) > 10);
}

fn holds(ops: &[Op], dated: bool) {
    let mut world = World::new(dated);
    for op in ops {
        world.apply(op);
    }
    // What came after a vanished file is told once there is a live one again.
    world.append_lines(1, Shape::Plain);
    world.drain();
    world.check();
    ROTATIONS.fetch_add(world.rotations, Ordering::Relaxed);
    ROTATED_UNSEEN.fetch_add(world.rotated_unseen, Ordering::Relaxed);
    let keys = world.delivered.keys();
    let suffixed = keys.filter(|key| key.0.contains('~')).count();
    SUFFIXES.fetch_add(suffixed as u64, Ordering::Relaxed);
    world.check_replay_without_cursor();
}

/// Histories that a search found to break what was there then.
#[test]
fn kept_histories_hold() {
    let lines = |count, shape| Op::Lines { count, shape };
    let steps = |count| Op::Steps {
        count,
        quick: false,
    };
    holds(
        &[
            lines(7, Shape::Plain),
            steps(2),
            Op::CopyTruncate {
                written_between: false,
                steps_between: 0,
            },
            lines(2, Shape::Twin),
            steps(3),
            Op::Truncate { regrow: 1 },
            Op::RestartOlder { back: 1 },
            lines(1, Shape::Plain),
            lines(1, Shape::Plain),
        ],
        false,
    );
    holds(
        &[
            lines(1, Shape::Plain),
            steps(2),
            Op::Delete,
            Op::Half,
            lines(1, Shape::Plain),
            Op::CopyTruncate {
                written_between: false,
                steps_between: 0,
            },
            lines(1, Shape::Plain),
            steps(1),
            lines(1, Shape::Huge),
            Op::CopyTruncate {
                written_between: false,
                steps_between: 0,
            },
            steps(5),
            Op::RestartOlder { back: 3 },
        ],
        false,
    );
    holds(
        &[
            lines(6, Shape::Long),
            steps(7),
            Op::Rename {
                late: false,
                step_between: false,
            },
            lines(2, Shape::Plain),
            Op::CopyTruncate {
                written_between: false,
                steps_between: 0,
            },
            lines(6, Shape::Long),
            Op::CopyTruncate {
                written_between: true,
                steps_between: 1,
            },
        ],
        false,
    );
    // Looked at, and not read before it was rotated.
    for dated in [false, true] {
        holds(
            &[
                lines(7, Shape::Plain),
                steps(1),
                Op::Rename {
                    late: false,
                    step_between: false,
                },
                Op::Restart,
                steps(1),
                Op::RestartOlder { back: 1 },
            ],
            dated,
        );
    }
}
