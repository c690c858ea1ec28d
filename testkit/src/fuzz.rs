//! Inputs drawn from seeds, against the parts that read what others wrote. A case is its seed: what
//! once failed is kept in `fuzz-seeds.txt` and tried in every test run.

mod cursors;
mod journal;
mod mutate;
mod requests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// One kind of input and what must hold for each.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Tries one case; panics when something does not hold.
    pub case: fn(u64),
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "webhook",
        case: requests::webhook,
    },
    Target {
        name: "recorder",
        case: requests::recorder,
    },
    Target {
        name: "ocis",
        case: requests::ocis,
    },
    Target {
        name: "journal",
        case: journal::case,
    },
    Target {
        name: "cursors",
        case: cursors::case,
    },
];

/// Seeds that failed once, with the name of their target, one a line.
pub const KEPT: &str = include_str!("../fuzz-seeds.txt");

/// The kept seeds of a target.
pub fn kept(target: &str) -> Vec<u64> {
    KEPT.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| *name == target)
        .filter_map(|(_, seed)| seed.split_whitespace().next()?.parse().ok())
        .collect()
}

/// What a run has tried and found.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Cases tried.
    pub cases: u64,
    /// Seeds that failed, and how.
    pub findings: Vec<(u64, String)>,
}

/// Tries seeds one after the other, from `first` on, for so long, and some however slow the machine.
/// Ends early after ten findings.
pub fn run(target: &Target, first: u64, length: Duration) -> Run {
    let started = Instant::now();
    let mut run = Run::default();
    for seed in first.. {
        let is_over = run.cases > 5 && started.elapsed() >= length;
        if is_over || run.findings.len() >= 10 {
            break;
        }
        run.cases += 1;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.case)(seed))) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
            let text = text.unwrap_or_else(|| "it panicked".to_owned());
            run.findings.push((seed, text));
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_fails_is_found_with_its_seed() {
        let target = Target {
            name: "odd",
            case: |seed| assert!(seed.is_multiple_of(2), "odd: {seed}"),
        };
        let run = run(&target, 4, Duration::from_secs(5));
        assert_eq!(run.findings.len(), 10);
        assert_eq!(run.findings[0], (5, "odd: 5".to_owned()));
    }
}
