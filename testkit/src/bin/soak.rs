//! `soak --seed N --minutes M [--rate R] [--verbose]`: seeded chaos and a one-page report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use testkit::arguments::Arguments;
use testkit::chaos::{self, Length, Plan};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    let outcome = match arguments.words() {
        [command, config] if command == "child" => {
            chaos::child(&PathBuf::from(config)).await.map(|()| true)
        }
        _ => soak(&arguments).await,
    };
    testkit::arguments::exit(outcome)
}

async fn soak(arguments: &Arguments) -> Result<bool, anyhow::Error> {
    let plan = Plan {
        seed: arguments.number("--seed", 1.0)? as u64,
        length: Length::Time(Duration::from_secs_f64(
            arguments.number("--minutes", 1.0)? * 60.0,
        )),
        events_per_second: arguments.number("--rate", 100.0)?,
        child: (std::env::current_exe()?, vec!["child".to_owned()]),
        verbose: arguments.has("--verbose"),
    };
    let report = chaos::run(&plan).await?;
    print!("{}", report.page(&plan));
    Ok(report.is_clean())
}
