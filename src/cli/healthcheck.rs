//! `daybook healthcheck`: for containers without a shell. Exit code 0 while the service answers.

use anyhow::{Context, anyhow};
use clap::Args;

use super::output::say;
use super::service::Service;
use super::{ConfigArgs, Failure};

#[derive(Args)]
pub(super) struct HealthcheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also that it is ready: every plane is up and the store takes writes.
    #[arg(long)]
    ready: bool,
}

pub(super) async fn healthcheck(args: &HealthcheckArgs) -> Result<(), Failure> {
    let loaded = args.config.load_for_tools()?;
    let service = Service::of(&loaded.config).context("HTTP client")?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = service.client.get(service.url(path)).send().await;
    let answer = answer
        .map_err(reqwest::Error::without_url)
        .context("the service does not answer")?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    if status.is_success() {
        say!("{text}")?;
        return Ok(());
    }
    Err(Failure::Other(anyhow!("{status}: {text}")))
}
