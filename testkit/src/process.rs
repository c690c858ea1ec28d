//! Daybook as a process of its own: signals, memory, exit codes.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::world::{client, eventually};

/// A running `daybook`; killed when dropped.
pub struct Process {
    child: std::process::Child,
    base: String,
    client: reqwest::Client,
    log: std::path::PathBuf,
}

impl Process {
    /// Runs `program ARGUMENTS…`, which will listen on `port` of the loopback address; standard
    /// error goes to `log`, standard output to `log` with `.out` added.
    pub fn spawn(program: &str, arguments: &[&str], port: u16, log: &Path) -> Self {
        let append = |path: &Path| {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .expect("a log file")
        };
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(append(&log.with_extension("out")))
            .stderr(append(log))
            .spawn()
            .expect("the program starts");
        Self {
            child,
            base: format!("http://127.0.0.1:{port}"),
            client: client(),
            log: log.to_owned(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.log.with_extension("out")).unwrap_or_default()
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Gets a path; status and text, or nothing while nobody answers.
    pub async fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let answer = self
            .client
            .get(self.url(path))
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Gets a path as text, asking until somebody answers.
    pub async fn text(&self, path: &str) -> String {
        let mut text = None;
        eventually(&format!("{path} is answered"), async || {
            text = self.try_get(path).await.map(|(_, text)| text);
            text.is_some()
        })
        .await;
        text.expect("it was answered")
    }

    /// The same as JSON.
    pub async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).expect("JSON")
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        let what = format!("{} is ready", self.base);
        eventually(&what, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status}: {}", self.log());
            }
            matches!(self.try_get("/readyz").await, Some((200, _)))
        })
        .await;
    }

    /// Sum of a metric's series whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        crate::world::sum_of(&self.text("/metrics").await, name, labels)
    }

    /// Resident memory now and at its highest, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = |field: &str| {
            status
                .lines()
                .find_map(|line| {
                    line.strip_prefix(field)?
                        .split_whitespace()
                        .next()?
                        .parse::<u64>()
                        .ok()
                })
                .unwrap_or(0)
        };
        (kib("VmRSS:") * 1024, kib("VmHWM:") * 1024)
    }

    /// Sends a signal: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the process ends", async || {
            ended = self.child.try_wait().expect("a child");
            ended.is_some()
        })
        .await;
        ended.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has ended.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Writes `daybook.toml` into a folder: this store, a journal beside the file, and a port that is
/// open to everyone; its path. `rest` comes after the lines of `[journal]`.
pub fn write_config(dir: &Path, port: u16, store: &str, rest: &str) -> String {
    let path = dir.join("daybook.toml");
    let text = format!(
        "[store]\nurl = \"{store}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n\
         [journal]\ndir = \"{}\"\n{rest}",
        dir.join("journal").display()
    );
    std::fs::write(&path, text).expect("a file in the folder");
    path.display().to_string()
}

/// The URL of a SQLite store in a folder.
pub fn sqlite_in(dir: &Path) -> String {
    format!("sqlite:{}", dir.join("daybook.db").display())
}

/// A port that was free a moment ago, and stays so for whoever is to listen on it: the system gives
/// it to no connection, and no program beside this one draws it.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_240;
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let ephemeral = ephemeral.unwrap_or_default();
    let end = ephemeral.split_whitespace().next();
    let end = end.and_then(|end| end.parse::<u16>().ok());
    // Where hardly any are left below them, as if they began where they usually do.
    let end = end.filter(|end| *end > 2 * FIRST).unwrap_or(32_768);
    let count = u64::from(end - FIRST);
    // In steps of the golden ratio, the places of any number of processes are far apart.
    let place = u64::from(std::process::id().wrapping_mul(2_654_435_769));
    let place = (place * count) >> 32;
    let draw = |_| {
        let drawn = u64::from(DRAWN.fetch_add(1, Ordering::Relaxed));
        FIRST + ((place + drawn) % count) as u16
    };
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (0..count).map(draw).find(is_free);
    port.expect("a free port")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::free_port;

    #[test]
    fn no_port_is_drawn_twice() {
        let drawn: HashSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(drawn.len(), 100);
    }
}
