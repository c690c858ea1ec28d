//! `outage [--minutes M] [--rate R] [--events N] [--replica-set]`: the store is away for long, or
//! changes its primary, under a steady load of webhooks; a one-page report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use testkit::arguments::Arguments;
use testkit::outage::{self, Fault, Plan};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    let outcome = match arguments.words() {
        [command, config] if command == "child" => {
            outage::child(&PathBuf::from(config)).await.map(|()| true)
        }
        _ => measure(&arguments).await,
    };
    testkit::arguments::exit(outcome)
}

async fn measure(arguments: &Arguments) -> Result<bool, anyhow::Error> {
    let faults = if arguments.has("--replica-set") {
        vec![Fault::StepDown, Fault::KillPrimary]
    } else {
        vec![Fault::Freeze, Fault::Kill]
    };
    let length = Duration::from_secs_f64(arguments.number("--minutes", 1.0)? * 60.0);
    let plan = Plan {
        each: length / faults.len() as u32,
        faults,
        rate: arguments.number("--rate", 200.0)?,
        events: arguments.number("--events", 1.0)? as u64,
        child: (std::env::current_exe()?, vec!["child".to_owned()]),
    };
    let report = outage::run(&plan).await?;
    print!("{}", report.page());
    Ok(report.is_clean())
}
