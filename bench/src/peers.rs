//! What people would otherwise use, on the same file and the same server, each as its shortest sensible
//! configuration has it: none of them waits for the journal, keeps an index or a cursor in the store.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use mongodb::Database;

use crate::catch_up::rates;
use crate::process::{Usage, Watched};
use crate::results::Results;
use crate::world::{World, until_stored};

/// Where the peers are unpacked.
pub struct Peers {
    root: PathBuf,
}

impl Peers {
    /// Fetches what is missing.
    pub fn fetch() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.join("../.cache/peers");
        std::fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let status = Command::new(here.join("peers/fetch.sh"))
            .arg(&root)
            .stdin(Stdio::null())
            .status()
            .context("run peers/fetch.sh")?;
        ensure!(status.success(), "the peers cannot be fetched");
        Ok(Self { root })
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// One run of each.
    pub async fn run(&self, world: &World, results: &mut Results) -> Result<()> {
        self.measure(world, results, "rsyslog", 10, |scene| self.rsyslog(scene))
            .await?;
        self.measure(world, results, "syslog-ng", 10, |scene| {
            self.syslog_ng(scene)
        })
        .await?;
        self.measure(world, results, "obvious script", 50, |scene| {
            Ok(self.script(scene))
        })
        .await
    }

    /// Lets a peer enter one of `part` lines of the log of `catch-up`.
    async fn measure(
        &self,
        world: &World,
        results: &mut Results,
        name: &str,
        part: u64,
        command: impl Fn(&Scene<'_>) -> Result<Command>,
    ) -> Result<()> {
        let (log, lines) = head(world, part)?;
        let database = world.database().await?;
        let folder = world.folder()?;
        let scene = Scene {
            database: &database,
            url: world.mongod.url(database.name()),
            port: world.mongod.port(),
            folder: folder.path(),
            log: &log,
        };
        let mut command = command(&scene)?;
        let since = Instant::now();
        let output = folder.path().join("output");
        let mut process = Watched::spawn(&mut command, &output)?;
        let mut used = Usage::default();
        let took = until_stored(&database, "auditevents", lines, since, || {
            // A script ends when all is done, and has no figures any more then.
            used = process.usage().unwrap_or(used);
            match process.ended()? {
                Some(status) if !status.success() => {
                    let said = std::fs::read_to_string(&output).unwrap_or_default();
                    anyhow::bail!("{name} ended with {status}: {said}")
                }
                _ => Ok(()),
            }
        })
        .await?;
        drop(process);
        results.add("peers", name, rates(lines, took, used));
        database.drop().await?;
        Ok(())
    }

    fn rsyslog(&self, scene: &Scene<'_>) -> Result<Command> {
        let config = scene.config(include_str!("../peers/rsyslog.conf"), "rsyslog.conf")?;
        let mut command = Command::new(self.root.join("usr/sbin/rsyslogd"));
        command
            .arg("-n")
            .arg("-f")
            .arg(config)
            .arg("-i")
            .arg(scene.folder.join("pid"))
            .arg("-M")
            .arg(self.libraries().join("rsyslog"))
            .env("LD_LIBRARY_PATH", self.libraries());
        Ok(command)
    }

    fn syslog_ng(&self, scene: &Scene<'_>) -> Result<Command> {
        let config = scene.config(include_str!("../peers/syslog-ng.conf"), "syslog-ng.conf")?;
        let libraries = self.libraries();
        let modules = self.root.join("usr/lib/syslog-ng/3.38");
        let own = self.root.join("usr/lib/syslog-ng");
        let mut command = Command::new(self.root.join("usr/sbin/syslog-ng"));
        command
            .args(["--foreground", "--no-caps", "--stderr"])
            .arg("--cfgfile")
            .arg(config)
            .arg("--module-path")
            .arg(modules)
            .arg("--persist-file")
            .arg(scene.folder.join("persist"))
            .arg("--pidfile")
            .arg(scene.folder.join("pid"))
            .arg("--control")
            .arg(scene.folder.join("control"))
            .env(
                "LD_LIBRARY_PATH",
                format!("{}:{}", libraries.display(), own.display()),
            );
        Ok(command)
    }

    fn script(&self, scene: &Scene<'_>) -> Command {
        let mut command = Command::new("node");
        command
            .arg(self.root.join("script/script.mjs"))
            .arg(&scene.url)
            .arg(scene.log);
        command
    }

    fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib/x86_64-linux-gnu")
    }
}

struct Scene<'a> {
    database: &'a Database,
    url: String,
    port: u16,
    folder: &'a Path,
    log: &'a Path,
}

impl Scene<'_> {
    fn config(&self, template: &str, name: &str) -> Result<PathBuf> {
        let text = template
            .replace("@FOLDER@", &self.folder.display().to_string())
            .replace("@LOG@", &self.log.display().to_string())
            .replace("@PORT@", &self.port.to_string())
            .replace("@DATABASE@", self.database.name());
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// The first part of the log of `catch-up`, as a file, and its lines.
fn head(world: &World, part: u64) -> Result<(PathBuf, u64)> {
    let (log, lines) = world.catch_up_log()?;
    let lines = (lines / part).max(1000);
    let path = world.path().join(format!("mutations-{part}.log"));
    if !path.exists() {
        let mut all = BufReader::new(File::open(log)?);
        let mut some = BufWriter::new(File::create(&path)?);
        let mut line = Vec::new();
        for _ in 0..lines {
            line.clear();
            all.read_until(b'\n', &mut line)?;
            some.write_all(&line)?;
        }
        some.flush()?;
    }
    Ok((path, lines))
}
