//! `daybook status`: asks the running service; without one, shows the stored cursors.

use anyhow::Context;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::config::{AuthMode, Config};
use crate::http::auth::new_token;
use crate::store::{Role, Store};

use super::output::{pretty, say, visible};
use super::service::Service;
use super::{ConfigArgs, Failure, open_existing};

#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(args: &StatusArgs) -> Result<(), Failure> {
    let loaded = args.config.load_for_tools()?;
    let config = &loaded.config;
    let store = open_existing(&config.store).await?;
    let report = match ask_service(config, &*store).await {
        Ok(sources) => json!({ "running": true, "sources": sources }),
        Err(why) => without_sources(config, &*store, &why).await?,
    };
    if args.json {
        say!("{}", pretty(&report).context("report")?)?;
    } else {
        say!("{}", table(&report).trim_end())?;
    }
    Ok(())
}

/// Asks over HTTP, with a token that lives for a minute and is forgotten at once.
async fn ask_service(config: &Config, store: &dyn Store) -> Result<Value, anyhow::Error> {
    let service = Service::of(config)?;
    let mut request = service.client.get(service.url("/api/v1/sources"));
    let mut made = None;
    if config.http.auth == AuthMode::Tokens {
        let expires_at = Timestamp::now() + SignedDuration::from_secs(60);
        let (token, record) = new_token(
            Role::Operator,
            Some("daybook status".to_owned()),
            Some(expires_at),
        );
        store.prepare().await?;
        store.insert_token(&record).await?;
        request = request.bearer_auth(&token);
        made = Some(record.hash);
    }
    let answer = async {
        request
            .send()
            .await?
            .error_for_status()?
            .json::<Value>()
            .await
    }
    .await;
    if let Some(hash) = made {
        store.delete_token(&hash).await?;
    }
    let mut answer = answer
        .map_err(reqwest::Error::without_url)
        .context("the service does not answer")?;
    let sources = answer["sources"].take();
    let reads_none = sources.as_array().is_some_and(Vec::is_empty);
    anyhow::ensure!(
        !reads_none || config.sources.is_empty(),
        "it reads no source: ingest is switched off, or it runs with another configuration"
    );
    Ok(sources)
}

/// What can be told when the service did not tell of its sources, and why not.
async fn without_sources(
    config: &Config,
    store: &dyn Store,
    why: &anyhow::Error,
) -> Result<Value, anyhow::Error> {
    let said = readiness(config).await;
    let state = said.is_err().then_some("not_running");
    match (stored_cursors(config, store, state).await, said) {
        (Ok(sources), Ok(said)) => {
            let reason = format!("{said}; /api/v1/sources: {}", why.root_cause());
            Ok(json!({ "running": true, "reason": reason, "sources": sources }))
        }
        (Ok(sources), Err(_)) => {
            Ok(json!({ "running": false, "reason": why.to_string(), "sources": sources }))
        }
        (Err(error), Ok(said)) => anyhow::bail!(
            "the service runs; it will tell how its sources are once its store answers ({said}): {}",
            error.root_cause()
        ),
        (Err(error), Err(_)) => Err(error),
    }
}

/// What the service says to everybody.
async fn readiness(config: &Config) -> Result<String, anyhow::Error> {
    let obstacles = Service::of(config)?.obstacles().await?;
    Ok(match obstacles.as_slice() {
        [] => "ready".to_owned(),
        obstacles => obstacles.join("; "),
    })
}

async fn stored_cursors(
    config: &Config,
    store: &dyn Store,
    state: Option<&str>,
) -> Result<Value, anyhow::Error> {
    let cursors = async {
        store.prepare().await?;
        store.cursors().await
    };
    let cursors = cursors
        .await
        .context("neither the service nor the store answers")?;
    let sources = config.sources.iter().map(|source| {
        let cursor = cursors.iter().find(|cursor| cursor.source == source.name());
        json!({
            "name": source.name(),
            "kind": source.kind(),
            "state": state,
            "cursor": cursor.map(|cursor| json!({
                "lastEventAt": cursor.last_event_at,
                "lastEventId": cursor.last_event_id,
                "generation": cursor.generation,
                "updatedAt": cursor.updated_at,
            })),
        })
    });
    Ok(Value::Array(sources.collect()))
}

fn table(report: &Value) -> String {
    let mut text = String::new();
    if let Some(reason) = report["reason"].as_str() {
        let service = if report["running"] == Value::Bool(true) {
            "service is running, but tells nothing of its sources"
        } else {
            "service is not running"
        };
        let reason = visible(reason);
        text.push_str(&format!("{service} ({reason}); stored cursors:\n"));
    }
    text.push_str(&format!(
        "{:<20} {:<10} {:<11} {:>8} {:>8}  {:<24} {}\n",
        "SOURCE", "KIND", "STATE", "LAG", "RESTARTS", "LAST EVENT", "POSITION"
    ));
    for source in report["sources"].as_array().into_iter().flatten() {
        let lag = source["lagSeconds"]
            .as_f64()
            .map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1}s"));
        text.push_str(&format!(
            "{:<20} {:<10} {:<11} {:>8} {:>8}  {:<24} {}\n",
            word(&source["name"]),
            word(&source["kind"]),
            word(&source["state"]),
            lag,
            source["restarts"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            word(&source["cursor"]["lastEventAt"]),
            word(&source["cursor"]["lastEventId"]),
        ));
        for (label, value) in [
            ("reason", &source["reason"]),
            ("last error", &source["lastError"]["message"]),
        ] {
            if let Some(what) = value.as_str() {
                text.push_str(&format!("    {label}: {}\n", visible(what)));
            }
        }
    }
    text
}

fn word(value: &Value) -> String {
    visible(value.as_str().unwrap_or("-"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::event::hidden::told_apart;

    /// A position may be a sender's own words, an error those of the system that is asked.
    #[test]
    fn nothing_in_a_status_acts_on_a_terminal() {
        let hostile = "7\u{1b}[2J\u{9b}31m\n\u{202e}x";
        let report = json!({
            "running": false,
            "reason": hostile,
            "sources": [{
                "name": "platform-api",
                "cursor": { "lastEventId": hostile },
                "lastError": { "message": hostile },
            }],
        });
        let (table, json) = (table(&report), pretty(&report).unwrap());
        let shown = "7\\u{1b}[2J\\u{9b}31m\\n\\u{202e}x";
        assert_eq!(table.matches(shown).count(), 3, "{table}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read, report);
        for line in table.lines().chain(json.lines()) {
            let is_hidden = told_apart(line).any(|(_, is_hidden)| is_hidden);
            assert!(!is_hidden, "{line:?}");
        }
    }
}
