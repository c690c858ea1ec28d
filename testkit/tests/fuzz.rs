//! What failed once is tried again, and some more.
#![allow(missing_docs, reason = "tests")]

use std::time::Duration;

use testkit::fuzz::{TARGETS, kept, run};

#[test]
fn kept_seeds_hold() {
    for target in &TARGETS {
        for seed in kept(target.name) {
            println!("{} {seed}", target.name);
            (target.case)(seed);
        }
    }
}

#[test]
fn every_target_holds_for_a_moment() {
    for target in &TARGETS {
        let run = run(target, 1, Duration::from_secs(2));
        println!("{}: {} cases", target.name, run.cases);
        assert!(
            run.findings.is_empty(),
            "{}: {:?}",
            target.name,
            run.findings
        );
    }
}
