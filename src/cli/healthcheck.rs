//! `daybook healthcheck`: for containers without a shell. Exit code 0 while the service answers.

use anyhow::{Context, anyhow};
use clap::Args;
use reqwest::Url;

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
    /// The service's address, `http://HOST:PORT` or `https://HOST:PORT`; then no configuration is read, which may have
    /// changed since its start.
    #[arg(long, conflicts_with = "config")]
    url: Option<Url>,
}

pub(super) async fn healthcheck(args: &HealthcheckArgs) -> Result<(), Failure> {
    let service = match &args.url {
        Some(url) => Service::at(url.as_str().trim_end_matches('/').to_owned()),
        None => Service::of(&args.config.load_for_asking()?.config),
    };
    let service = service.context("HTTP client")?;
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
