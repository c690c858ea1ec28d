//! `daybook check`: is the configuration right; with `--online`, would events flow?

use clap::Args;

use crate::config::SourceConfig;

use super::service::Service;
use super::{ConfigArgs, Failure};

#[path = "check_authentik.rs"]
mod authentik;
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
    /// Also tries the store and every source.
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
    println!("configuration is valid ({place})");
    if !args.online {
        return Ok(());
    }
    let config = &loaded.config;
    let (store, finding) = store::check(config).await;
    let mut all_well = report("store", &finding);
    let service = Service::of(config).map_err(anyhow::Error::from)?;
    for source in &config.sources {
        let finding = match source {
            SourceConfig::Authentik(config) => authentik::check(config).await,
            SourceConfig::Ocis(config) => ocis::check(config).await,
            SourceConfig::Stalwart(stalwart) => {
                push::check_stalwart(stalwart, config, &service, store.as_deref()).await
            }
            SourceConfig::Recorder(_) => {
                push::check_recorder(source.name(), &service, store.as_deref()).await
            }
        };
        all_well &= report(source.name(), &finding);
    }
    if all_well {
        Ok(())
    } else {
        Err(Failure::NotReady)
    }
}

fn report(name: &str, finding: &Finding) -> bool {
    match finding {
        Ok(fine) => {
            println!("ok    {name}: {}", fine.what);
            for advice in &fine.advice {
                println!("      better: {advice}");
            }
        }
        Err(trouble) => {
            println!("FAIL  {name}: {}", trouble.what);
            println!("      remedy: {}", trouble.remedy);
        }
    }
    finding.is_ok()
}
