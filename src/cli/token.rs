//! `daybook token new`: prints a token, once, on standard output; the store keeps its hash.

use std::io::Write as _;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};

use serde_json::json;

use crate::config::{Config, SourceConfig};

use crate::event::{Outcome, Target};
use crate::http::auth::{new_token, token_id};
use crate::own_events::{self, Deed};
use crate::store::{Role, Store, TokenRecord};
use crate::tenants;

use super::{ConfigArgs, Failure, open_or_make, system_user, tell};

#[derive(Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it; it cannot be shown again.
    New(NewArgs),
}

#[derive(Args)]
struct NewArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// operator, recorder or tenant:SLUG.
    #[arg(long)]
    role: String,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// With --role recorder: the recorder source that its events go to.
    #[arg(long)]
    source: Option<String>,
}

pub(super) async fn token(args: &TokenArgs) -> Result<(), Failure> {
    let TokenCommand::New(args) = &args.command;
    let role = parse_role(&args.role, args.source.as_deref())?;
    let loaded = args.config.load_for_tools()?;
    let store = open_or_make(&loaded.config.store, "this token").await?;
    store.prepare().await.context("cannot prepare the store")?;
    if let Some(unknown) = unknown(&role, &loaded.config, &*store).await {
        tell(format_args!(
            "warning: {unknown}; the token is made all the same"
        ));
    }
    let (token, record) = new_token(role, args.name.clone(), None);
    keep(&record, &*store).await?;
    if let Err(error) = print(&token).context("the token cannot be written") {
        return Err(take_back(error, &record, &*store).await.into());
    }
    Ok(())
}

/// Keeps a token and says so on the timeline: not one without the other.
pub(super) async fn keep(token: &TokenRecord, store: &dyn Store) -> Result<(), anyhow::Error> {
    let kept = store.insert_token(token).await;
    kept.context("cannot keep the token")?;
    let entered = own_events::enter(store, created(token)).await;
    if let Err(error) = entered.context("the timeline does not say that a token was made") {
        return Err(take_back(error, token, store).await);
    }
    Ok(())
}

fn print(token: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{token}")?;
    out.flush()
}

/// A token that nobody has seen is of no use to anybody. Gives back what to tell: why first.
async fn take_back(why: anyhow::Error, token: &TokenRecord, store: &dyn Store) -> anyhow::Error {
    match forget(token, store).await {
        Ok(()) => why.context("no token was made: it is deleted again"),
        Err(error) => anyhow!("{why:#}\n{error:#}"),
    }
}

/// Deletes it and says so on the timeline, where it may stand that it was made, even if the store did
/// not answer.
async fn forget(token: &TokenRecord, store: &dyn Store) -> Result<(), anyhow::Error> {
    let deleted = store.delete_token(&token.hash).await;
    deleted.with_context(|| {
        let id = token_id(&token.hash);
        format!("the token {id}, which nobody has seen, cannot be deleted either")
    })?;
    let mut deed = created(token);
    deed.outcome = Outcome::Failure;
    let reason = json!("nobody has seen it, and it was deleted");
    deed.metadata.insert("reason".to_owned(), reason);
    own_events::enter(store, deed)
        .await
        .context("no token was made: it is deleted again, but the timeline does not say so")
}

/// What the role names and nothing here is called, in words.
async fn unknown(role: &Role, config: &Config, store: &dyn Store) -> Option<String> {
    match role {
        Role::Recorder(Some(name)) => {
            let is_it = |source: &SourceConfig| {
                matches!(source, SourceConfig::Recorder(_)) && source.name() == name
            };
            let unknown = !config.sources.iter().any(is_it);
            unknown.then(|| format!("no source of kind \"recorder\" is named {name:?}"))
        }
        Role::Tenant(slug) => {
            let directory = tenants::read(store, config.tenants.file.clone()).await;
            let tenants = directory.ok()?.tenants;
            let unknown = !tenants.iter().any(|tenant| tenant.slug == *slug);
            unknown.then(|| format!("no tenant has the slug {slug:?}"))
        }
        Role::Operator | Role::Recorder(None) => None,
    }
}

/// The role, the name and the short id, never the token or its hash.
fn created(token: &TokenRecord) -> Deed {
    let mut deed = Deed::new("daybook.token_created", Outcome::Success);
    deed.who = system_user();
    deed.target = Target {
        kind: Some("token".into()),
        id: Some(token_id(&token.hash).into()),
        name: token.name.clone().map(Into::into),
    };
    let role = match &token.role {
        Role::Operator => "operator".to_owned(),
        Role::Recorder(None) => "recorder".to_owned(),
        Role::Recorder(Some(source)) => format!("recorder of {source}"),
        Role::Tenant(slug) => format!("tenant:{slug}"),
    };
    deed.metadata.insert("role".to_owned(), json!(role));
    deed
}

fn parse_role(role: &str, source: Option<&str>) -> Result<Role, anyhow::Error> {
    let parsed = match (role, role.split_once(':')) {
        ("operator", _) => Role::Operator,
        ("recorder", _) => return Ok(Role::Recorder(source.map(str::to_owned))),
        (_, Some(("tenant", slug))) if !slug.is_empty() => Role::Tenant(slug.to_owned()),
        _ => bail!("--role is {role:?}; wanted: operator, recorder or tenant:SLUG"),
    };
    if source.is_some() {
        bail!("--source goes with --role recorder only");
    }
    Ok(parsed)
}
