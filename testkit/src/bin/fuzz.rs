//! `fuzz --target webhook|recorder|ocis|journal|cursors [--minutes M] [--seed N]`: inputs drawn from
//! one seed after the other; prints how many and what they found.

use std::process::ExitCode;
use std::time::Duration;

use testkit::arguments::Arguments;
use testkit::fuzz::{self, TARGETS};

fn main() -> ExitCode {
    testkit::arguments::exit(fuzz(&Arguments::of_process()))
}

fn fuzz(arguments: &Arguments) -> Result<bool, anyhow::Error> {
    let wanted = arguments.text("--target").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == wanted) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        anyhow::bail!("--target wants one of {names}, found {wanted:?}");
    };
    let first = arguments.number("--seed", 1.0)? as u64;
    let length = Duration::from_secs_f64(arguments.number("--minutes", 1.0)? * 60.0);
    let run = fuzz::run(target, first, length);
    println!(
        "{}: {} cases from seed {first}, {} findings",
        target.name,
        run.cases,
        run.findings.len()
    );
    for (seed, what) in &run.findings {
        println!("{} {seed} {what:.300}", target.name);
    }
    Ok(run.findings.is_empty())
}
