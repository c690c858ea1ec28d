//! `soak --seed N --minutes M [--rate R] [--verbose]`: seeded chaos and a one-page report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use testkit::chaos::{self, Plan};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [command, config] if command == "child" => {
            chaos::child(&PathBuf::from(config)).await.map(|()| true)
        }
        _ => soak(&arguments).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(arguments: &[String]) -> Result<bool, anyhow::Error> {
    let value = |name: &str, default: f64| -> Result<f64, anyhow::Error> {
        let Some(at) = arguments.iter().position(|each| each == name) else {
            return Ok(default);
        };
        let text = arguments
            .get(at + 1)
            .map(String::as_str)
            .unwrap_or_default();
        text.parse()
            .map_err(|_| anyhow::anyhow!("{name} wants a number, found {text:?}"))
    };
    let plan = Plan {
        seed: value("--seed", 1.0)? as u64,
        length: Duration::from_secs_f64(value("--minutes", 1.0)? * 60.0),
        events_per_second: value("--rate", 100.0)?,
        child: (std::env::current_exe()?, vec!["child".to_owned()]),
        verbose: arguments.iter().any(|each| each == "--verbose"),
    };
    let report = chaos::run(&plan).await?;
    print!("{}", report.page(&plan));
    Ok(report.is_clean())
}
