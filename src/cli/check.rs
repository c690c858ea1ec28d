//! `daybook check`: is the configuration right; with `--online`, would events flow?

use std::path::Path;

use clap::Args;

use crate::config::{Config, SourceConfig};
use crate::http::tls;

use super::output::{say, visible};
use super::service::Service;
use super::{ConfigArgs, Failure, tell};

#[path = "check_authentik.rs"]
mod authentik;
#[path = "check_journal.rs"]
mod journal;
#[path = "check_ocis.rs"]
mod ocis;
#[path = "check_push.rs"]
mod push;
#[path = "check_store.rs"]
mod store;

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also tries the store, the journal and every source.
    #[arg(long)]
    online: bool,
}

/// What is wrong, and what to do about it.
struct Trouble {
    what: String,
    remedy: String,
}

impl Trouble {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// What works, and what would be better.
struct Fine {
    what: String,
    advice: Vec<String>,
}

impl Fine {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            advice: Vec::new(),
        }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

type Finding = Result<Fine, Trouble>;

pub(super) async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    let place = loaded.file.as_ref().map_or_else(
        || "defaults and environment".to_owned(),
        |path| path.display().to_string(),
    );
    say!("configuration is valid ({place})")?;
    let warning = loaded.config.http.tls.as_ref().and_then(tls::warning);
    if let Some(warning) = warning {
        tell(format_args!("warning: {warning}"));
    }
    if !args.online {
        return Ok(());
    }
    let config = &loaded.config;
    let (store, finding) = store::check(config).await;
    let mut all_well = report("store", &finding)?;
    let asked = match &store {
        Some(store) => push::Asked::Store(&**store),
        None if finding.is_ok() => push::Asked::NotMade,
        None => push::Asked::Away,
    };
    if let Some(finding) = journal::check(config) {
        all_well &= report("journal", &finding)?;
    }
    let service = Service::of(config).map_err(anyhow::Error::from)?;
    for source in &config.sources {
        let finding = if config.ingest.enabled {
            check_source(source, config, &service, &asked).await
        } else {
            Ok(Fine::new("switched off (ingest.enabled)"))
        };
        all_well &= report(source.name(), &finding)?;
    }
    if all_well {
        Ok(())
    } else {
        Err(Failure::NotReady)
    }
}

async fn check_source(
    source: &SourceConfig,
    config: &Config,
    service: &Service,
    store: &push::Asked<'_>,
) -> Finding {
    match source {
        SourceConfig::Authentik(authentik) => authentik::check(authentik).await,
        SourceConfig::Ocis(ocis) => ocis::check(ocis).await,
        SourceConfig::Stalwart(stalwart) => {
            push::check_stalwart(stalwart, config, service, store).await
        }
        SourceConfig::Recorder(_) => push::check_recorder(source.name(), service, store).await,
    }
}

/// Whether all is well. What another system says of itself acts on no terminal.
fn report(name: &str, finding: &Finding) -> Result<bool, anyhow::Error> {
    match finding {
        Ok(fine) => {
            say!("ok    {name}: {}", visible(&fine.what))?;
            for advice in &fine.advice {
                say!("      better: {}", visible(advice))?;
            }
        }
        Err(trouble) => {
            say!("FAIL  {name}: {}", visible(&trouble.what))?;
            say!("      remedy: {}", visible(&trouble.remedy))?;
        }
    }
    Ok(finding.is_ok())
}

/// Whether a directory, or what it would be made in, can be written. Makes nothing that stays: a
/// directory made here would belong to whoever checks.
fn try_directory(dir: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = absolute.ancestors().find(|place| place.exists());
    let there = there.unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new();
    match draft.prefix(".daybook-check-").tempfile_in(there) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{} cannot be written: {error}", there.display())),
    }
}
