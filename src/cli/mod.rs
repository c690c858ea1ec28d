//! The command line: parses it, runs one command, turns its end into an exit code.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done, or drained after SIGTERM |
//! | 1 | the command failed |
//! | 2 | the command line is wrong |
//! | 70 | an actor crashed again and again, and the service gave up |
//! | 75 | the service did not drain in time; nothing is lost |
//! | 78 | the configuration is wrong, or `check --online` found something missing |

mod check;
mod dead_letters;
mod demo;
mod descriptors;
mod export;
mod filters;
mod healthcheck;
mod output;
mod replay;
mod run;
mod service;
mod status;
mod stop;
mod tail;
mod token;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, LoadedConfig, StoreConfig, StoreTarget};
use crate::store::{self, Store};
use crate::telemetry::log::{LastLines, tell};

/// sysexits.h: internal software error.
pub const EX_SOFTWARE: u8 = 70;
/// sysexits.h: temporary failure.
pub const EX_TEMPFAIL: u8 = 75;
/// sysexits.h: configuration error.
pub const EX_CONFIG: u8 = 78;

const IS_THIS_THE_SERVICES: &str =
    "is this the configuration, and the working directory, of the service?";

/// One audit timeline per tenant, from Authentik, ownCloud Infinite Scale, Stalwart and the
/// platform's own services.
#[derive(Parser)]
#[command(name = "daybook", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service; SIGTERM or SIGINT drains it.
    Run(ConfigArgs),
    /// Shows everything in one process: simulated servers feed the real pipeline.
    Demo(demo::DemoArgs),
    /// Validates the configuration; exit code 78 when it is wrong.
    Check(check::CheckArgs),
    /// Shows cursors, lag, state and restarts of every source.
    Status(status::StatusArgs),
    /// Asks the running service whether it is alive; for containers.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Shows the newest events, and with --follow those that come.
    Tail(tail::TailArgs),
    /// Writes events as ndjson, CSV or ECS.
    Export(export::ExportArgs),
    /// Reads a source again and enters what is missing.
    Replay(replay::ReplayArgs),
    /// Looks at what could not become an event, tries it again, or drops it.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Manages access tokens.
    Token(token::TokenArgs),
}

/// `-c FILE`
#[derive(Args, Clone)]
struct ConfigArgs {
    /// The configuration file; else $DAYBOOK_CONFIG, else ./daybook.toml, else the defaults.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command ended without success.
enum Failure {
    /// 78.
    Config(ConfigError),
    /// 78, with the report already printed.
    NotReady,
    /// 70.
    GaveUp(String),
    /// 75.
    Cut,
    /// 1.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl ConfigArgs {
    /// With everything that running needs: secrets, files.
    fn load(&self) -> Result<LoadedConfig, ConfigError> {
        LoadedConfig::load(self.config.as_deref())
    }

    /// Without the service's secrets, which a person at a terminal need not be able to read.
    fn load_for_tools(&self) -> Result<LoadedConfig, ConfigError> {
        LoadedConfig::load_for_tools(self.config.as_deref())
    }

    /// Without the store's address either: the service alone is asked.
    fn load_for_asking(&self) -> Result<LoadedConfig, ConfigError> {
        LoadedConfig::load_for_asking(self.config.as_deref())
    }
}

/// Opens the store for a command that only reads it. SQLite would make a file that is not there, and
/// a command in the wrong directory would find an empty timeline in it.
async fn open_existing(config: &StoreConfig) -> Result<Arc<dyn Store>, anyhow::Error> {
    if let Some(file) = missing_file(config)? {
        anyhow::bail!(
            "there is no store at {} (store.url); {IS_THIS_THE_SERVICES}",
            file.display()
        );
    }
    store::open(config).await.context("cannot open the store")
}

/// Opens the store for a command that enters something, and warns where that makes the file: perhaps
/// it was sought in the wrong directory, and the service will not know `what`.
async fn open_or_make(config: &StoreConfig, what: &str) -> Result<Arc<dyn Store>, anyhow::Error> {
    if let Some(file) = missing_file(config)? {
        tell(format_args!(
            "warning: the store {} was not there and is made now; a service that uses another does not know {what}",
            file.display()
        ));
    }
    store::open(config).await.context("cannot open the store")
}

/// SQLite's file, where it is not there yet.
fn missing_file(config: &StoreConfig) -> Result<Option<PathBuf>, anyhow::Error> {
    let Ok(StoreTarget::Sqlite(path)) = config.url.target() else {
        return Ok(None);
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let is_there = path.try_exists().with_context(|| {
        let path = path.display();
        format!("this user cannot look at the store at {path} (store.url)")
    })?;
    Ok((!is_there).then_some(path))
}

/// Whose deed a command is: the user of this process, or whoever became root by `sudo`. Anybody may write
/// anything into `USER`, so that is asked only where there is no `/proc`.
fn system_user() -> Option<String> {
    let said = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    let Some(uid) = uid() else {
        return said("USER");
    };
    let by_sudo = said("SUDO_USER").filter(|_| uid == 0);
    by_sudo.or_else(|| {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Some(name.unwrap_or_else(|| format!("uid {uid}")))
    })
}

/// The user of this process, where there is a `/proc`.
fn uid() -> Option<u32> {
    let process = std::fs::metadata("/proc/self").ok()?;
    Some(process.uid())
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Until the very end, and that of a panic too.
    let _last_lines = LastLines;
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(&args).await,
            Command::Demo(args) => demo::demo(args).await,
            Command::Check(args) => check::check(&args).await,
            Command::Status(args) => status::status(&args).await,
            Command::Healthcheck(args) => healthcheck::healthcheck(&args).await,
            Command::Tail(args) => tail::tail(&args).await,
            Command::Export(args) => export::export(&args).await,
            Command::Replay(args) => replay::replay(&args).await,
            Command::DeadLetters(args) => dead_letters::dead_letters(&args).await,
            Command::Token(args) => token::token(&args).await,
        }
    });
    // A blocked file access (a hung network mount) must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Config(error) => {
            tell(error);
            ExitCode::from(EX_CONFIG)
        }
        Failure::NotReady => ExitCode::from(EX_CONFIG),
        Failure::GaveUp(why) => {
            tell(format_args!("error: {why}"));
            ExitCode::from(EX_SOFTWARE)
        }
        Failure::Cut => {
            tell(
                "error: not drained in time; what was in flight is read or sent again at the next start",
            );
            ExitCode::from(EX_TEMPFAIL)
        }
        Failure::Other(error) => {
            tell(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_exit_code() {
        for (failure, code) in [
            (Failure::Other(anyhow::anyhow!("x")), 1),
            (Failure::GaveUp("x".to_owned()), 70),
            (Failure::Cut, 75),
            (Failure::NotReady, 78),
        ] {
            // An exit code tells its number in this form only.
            let reported = format!("{:?}", report(&failure));
            assert_eq!(reported, format!("{:?}", ExitCode::from(code)));
        }
    }
}
