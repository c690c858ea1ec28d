//! `daybook demo`: six tenants at work, without any server but this process.
//!
//! The simulated Authentik, OCIS log and Stalwart sender feed the real sources over real HTTP and
//! a real file; nothing takes a shortcut into the store.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::time::MissedTickBehavior;

use crate::config::{
    AuthMode, AuthentikConfig, Config, OcisConfig, RecorderConfig, SourceConfig, StalwartConfig,
    StoreUrl,
};
use crate::http::auth::{new_token, token_id};
use crate::simulators::workspace::{Workspace, WorkspaceConfig};
use crate::status::{Board, Counts};
use crate::store::{self, Role, Store, TokenRecord};
use crate::telemetry::log;
use crate::tree::Daybook;

use super::output::say;
use super::stop::Stop;
use super::{Failure, descriptors, run, token};

/// So much of the past stands in Authentik and the log when the demo begins.
const HISTORY: Duration = Duration::from_secs(600);

#[derive(Args)]
pub(super) struct DemoArgs {
    /// Where to listen; open to everyone on loopback, with tokens elsewhere.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Events a second, over all sources.
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = parse_rate)]
    rate: f64,
    /// Keeps everything in this directory, so that the demo goes on where it was; else a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Another store: sqlite:PATH or mongodb://…. With --dir if it is used again: a demo without the
    /// files of the one before it enters a gap.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// For other people; the events are others at every start.
    #[arg(long, default_value_t = 2026)]
    seed: u64,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| (0.1..=5000.0).contains(rate))
        .ok_or_else(|| "wanted: a number from 0.1 to 5000".to_owned())
}

pub(super) async fn demo(args: DemoArgs) -> Result<(), Failure> {
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(TempDir::new().context("cannot make a temporary directory")?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => PathBuf::new(),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut config = Config::default();
    config.telemetry.log = "warn".to_owned();
    log::init(&config.telemetry).context("log")?;
    let url = args.store.clone();
    let url = url.unwrap_or_else(|| format!("sqlite:{}", dir.join("daybook.db").display()));
    config.store.url = StoreUrl(url);
    config.http.listen = args.listen;
    descriptors::fit_at_start(&mut config.http);
    let store = store::open(&config.store).await;
    let store = store.with_context(|| match &args.store {
        Some(_) => "cannot open the store (--store)".to_owned(),
        None => format!("cannot open the store in {} (--dir)", dir.display()),
    })?;
    let mut tokens = Vec::new();
    let end = show(&args, &dir, config, Arc::clone(&store), &mut tokens).await;
    // The store may be one that stays.
    for token in tokens {
        if let Err(error) = store.delete_token(&token.hash).await {
            let id = token_id(&token.hash);
            tracing::warn!(error = %error, id, "a token of the demo is in the store still");
        }
    }
    end
}

/// Shows it until it is to end, with the tokens that it makes.
async fn show(
    args: &DemoArgs,
    dir: &Path,
    mut config: Config,
    store: Arc<dyn Store>,
    tokens: &mut Vec<TokenRecord>,
) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let (operator, recorder) = if args.listen.ip().is_loopback() {
        config.http.auth = AuthMode::None;
        (None, None)
    } else {
        (
            Some(make_token(&*store, Role::Operator, tokens).await?),
            Some(make_token(&*store, Role::Recorder(None), tokens).await?),
        )
    };

    let workspace = Workspace::start(WorkspaceConfig {
        // Other events at every start: those of the last one are known to the store.
        events_seed: args.seed ^ Timestamp::now().as_millisecond().unsigned_abs(),
        events_per_second: args.rate,
        recorder_token: recorder,
        history: HISTORY,
        ..WorkspaceConfig::new(dir, args.seed)
    })
    .await
    .context("cannot start the simulated workspace")?;
    config.tenants.file = Some(workspace.tenants_file());
    config.journal.dir = dir.join("journal");
    config.sources = sources(&workspace);
    let daybook = Daybook::start_with(&config, store)
        .await
        .context("daybook did not start")?;
    let base = format!("http://{}", daybook.address());
    workspace.connect(&base);
    announce(
        &base,
        operator.as_deref(),
        &config,
        &dir.display().to_string(),
    )?;
    let status = tokio::spawn(tell(daybook.board().clone()));
    let end = run::serve(daybook, stop, None).await;
    status.abort();
    end
}

async fn make_token(
    store: &dyn Store,
    role: Role,
    made: &mut Vec<TokenRecord>,
) -> Result<String, Failure> {
    store.prepare().await.context("cannot prepare the store")?;
    let (secret, record) = new_token(role, Some("daybook demo".to_owned()), None);
    token::keep(&record, store).await?;
    made.push(record);
    Ok(secret)
}

fn sources(workspace: &Workspace) -> Vec<SourceConfig> {
    vec![
        SourceConfig::Authentik(AuthentikConfig {
            url: workspace.authentik().url(),
            token_file: Some(workspace.authentik_token_file()),
            interval: Duration::from_secs(2),
            ..AuthentikConfig::default()
        }),
        SourceConfig::Ocis(OcisConfig {
            path: workspace.ocis_log_path().to_owned(),
            ..OcisConfig::default()
        }),
        SourceConfig::Stalwart(StalwartConfig {
            secret_files: vec![workspace.stalwart_key_file()],
            ..StalwartConfig::default()
        }),
        SourceConfig::Recorder(RecorderConfig {
            name: Some("platform-api".to_owned()),
        }),
    ]
}

fn announce(
    base: &str,
    operator: Option<&str>,
    config: &Config,
    dir: &str,
) -> Result<(), anyhow::Error> {
    say!("daybook demo: six tenants at work (Ctrl-C ends it)\n")?;
    for (what, path) in [
        ("timeline", "/audit"),
        ("events", "/api/v1/events"),
        (
            "failed sign-ins",
            "/api/v1/events?action=authentik.login_failed",
        ),
        ("sources", "/api/v1/sources"),
        ("metrics", "/metrics"),
        ("ready", "/readyz"),
    ] {
        say!("  {what:<16} {base}{path}")?;
    }
    say!("  {:<16} {}", "store", config.store.url)?;
    say!("  {:<16} {dir}", "files")?;
    if let Some(token) = operator {
        say!("  {:<16} {token}", "operator's token")?;
    }
    say!("")
}

/// One line a second: what came in, and how each source is.
async fn tell(board: Board) -> Result<(), anyhow::Error> {
    let started = Instant::now();
    let mut timer = tokio::time::interval(Duration::from_secs(1));
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    timer.tick().await;
    loop {
        timer.tick().await;
        let views: Vec<_> = board.sources().iter().map(|source| source.view()).collect();
        let sum =
            |count: fn(&Counts) -> u64| views.iter().map(|view| count(&view.counts)).sum::<u64>();
        let lag = views
            .iter()
            .map(|view| view.lag_seconds)
            .fold(0.0, f64::max);
        let each: Vec<String> = views
            .iter()
            .map(|view| {
                let state = format!("{:?}", view.state).to_lowercase();
                let trouble = if state == "running" {
                    String::new()
                } else {
                    format!(" {state}")
                };
                format!(
                    "{} {} ({:.1}s){trouble}",
                    view.name, view.counts.written, view.lag_seconds
                )
            })
            .collect();
        say!(
            "{:>5}s  in {:>7}  entered {:>7}  repeats {:>5}  reads {:>6}  dead {:>3}  lag {lag:>4.1}s | {}",
            started.elapsed().as_secs(),
            sum(|counts| counts.received),
            sum(|counts| counts.written),
            sum(|counts| counts.duplicate),
            sum(|counts| counts.filtered),
            sum(|counts| counts.dead_lettered),
            each.join("  "),
        )?;
    }
}
