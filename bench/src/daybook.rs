//! The release binary in its own process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::http;
use crate::process::{Usage, Watched};

/// How long anything may take before the bench gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// A running Daybook.
pub struct Daybook {
    process: Watched,
    pub port: u16,
    /// When it was started.
    pub since: Instant,
    log: PathBuf,
}

/// The path of the binary, built if need be.
pub fn binary() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--bin",
            "daybook",
        ])
        .current_dir(&root)
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "daybook cannot be built");
    // Beside this program, whatever the target directory is.
    let path = std::env::current_exe()?.with_file_name("daybook");
    ensure!(path.exists(), "no binary at {}", path.display());
    Ok(path)
}

impl Daybook {
    /// Starts it on a store with so many sources; `directory` keeps its configuration and journal.
    pub fn start(binary: &Path, directory: &Path, store: &str, sources: &str) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let shown = directory.display();
        let config = format!(
            "[store]\nurl = \"{store}\"\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n\
             [journal]\ndir = \"{shown}/journal\"\n\
             [telemetry]\nlog = \"warn\"\n\n{sources}"
        );
        let file = directory.join("daybook.toml");
        std::fs::write(&file, config)?;
        let log = directory.join("daybook.log");
        let since = Instant::now();
        let process = Watched::spawn(Command::new(binary).arg("run").arg("-c").arg(file), &log)?;
        Ok(Self {
            process,
            port,
            since,
            log,
        })
    }

    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    /// Waits until it says that it is ready; returns how long that took since its start.
    pub async fn ready(&mut self) -> Result<Duration> {
        loop {
            if let Ok((200, _)) = http::get(self.port, "/readyz").await {
                return Ok(self.since.elapsed());
            }
            self.check()?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Fails when it has ended or takes too long.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.ended()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("daybook ended with {status}: {log}");
        }
        ensure!(self.since.elapsed() < PATIENCE, "daybook takes too long");
        Ok(())
    }

    /// The sum of a metric over all its series.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = http::get(self.port, "/metrics").await?;
        Ok(text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum())
    }

    /// Ends it politely.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }
}

/// An OCIS source.
pub fn ocis_source(log: &Path) -> String {
    format!(
        "[[sources]]\nkind = \"ocis\"\npath = \"{}\"\n",
        log.display()
    )
}
