//! `daybook check`: is the configuration right; with `--online`, would events flow?

use clap::Args;
use serde_json::Value;

use crate::config::{AuthentikConfig, Config, OcisConfig, SourceConfig};
use crate::sources::authentik::client::{Client, ClientError};
use crate::sources::authentik::decode::decode_page;
use crate::sources::authentik::walk::PageRequest;
use crate::store;
use crate::telemetry::metrics::Metrics;
use crate::tenants;

use super::{ConfigArgs, Failure};

#[path = "check_ocis.rs"]
mod probe;

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also tries the store and every source.
    #[arg(long)]
    online: bool,
}

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
    let mut all_well = report("store", &try_store(&loaded.config).await);
    for source in &loaded.config.sources {
        let outcome = match source {
            SourceConfig::Authentik(config) => try_authentik(config).await,
            SourceConfig::Ocis(config) => try_ocis(config).await,
            SourceConfig::Stalwart(config) => {
                Ok(format!("accepts signed webhooks at {}", config.route))
            }
            SourceConfig::Recorder(_) => Ok("accepts events at /api/v1/events".to_owned()),
        };
        all_well &= report(source.name(), &outcome);
    }
    if all_well {
        Ok(())
    } else {
        Err(Failure::NotReady)
    }
}

fn report(name: &str, outcome: &Result<String, String>) -> bool {
    match outcome {
        Ok(what) => println!("ok    {name}: {what}"),
        Err(what) => println!("FAIL  {name}: {what}"),
    }
    outcome.is_ok()
}

async fn try_store(config: &Config) -> Result<String, String> {
    let store = store::open(&config.store)
        .await
        .map_err(|error| error.to_string())?;
    store.prepare().await.map_err(|error| error.to_string())?;
    store.ping().await.map_err(|error| error.to_string())?;
    let records = tenants::read(&*store, config.tenants.file.clone()).await?;
    Ok(format!(
        "takes writes; {} tenants and {} users in the directory",
        records.tenants.len(),
        records.users.len()
    ))
}

async fn try_authentik(config: &AuthentikConfig) -> Result<String, String> {
    let token = config.load_token().map_err(|problem| problem.to_string())?;
    let client = Client::new(&config.url, &token, config.timeout, Metrics::new())?;
    let me = client.me().await.map_err(|error| match error {
        ClientError::Refused { .. } => format!(
            "reached, but the token is refused ({error}): make an API token that does not expire for a service account"
        ),
        ClientError::Transport(_) => format!("not reached: {error}"),
        _ => error.to_string(),
    })?;
    let user = me.get("user").unwrap_or(&Value::Null);
    let username = user
        .get("username")
        .and_then(Value::as_str)
        .unwrap_or("somebody without a name");
    let request = PageRequest {
        page: 1,
        page_size: 20,
    };
    let answer = client.events(request).await.map_err(|error| match error {
        ClientError::Refused { .. } => format!(
            "reached as {username}, but not permitted to read events ({error}): its role needs authentik_events.view_event"
        ),
        _ => format!("reached as {username}, but the list of events is not: {error}"),
    })?;
    let page = decode_page(&answer.body).map_err(|error| error.to_string())?;
    let visible = match page.count {
        0 => {
            return Err(format!(
                "reached as {username}, but it sees no event at all: an outpost's token, or a role without authentik_events.view_event"
            ));
        }
        1 => "1 event is visible".to_owned(),
        count => format!("{count} events are visible"),
    };
    let pk = user.get("pk").and_then(Value::as_i64).unwrap_or_default();
    let people = match client.user(pk).await {
        Ok(_) => "users and their groups can be looked up".to_owned(),
        Err(error) => format!(
            "users cannot be looked up ({error}; grant view_user and view_group): tenants come from the directory alone"
        ),
    };
    Ok(format!(
        "reached as {username}; {visible}, events would flow; {people}"
    ))
}

async fn try_ocis(config: &OcisConfig) -> Result<String, String> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || probe::probe(&config))
        .await
        .map_err(|error| error.to_string())?
}
