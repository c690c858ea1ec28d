//! A process seen from outside: what `/proc` says of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Ticks a second in `/proc/PID/stat`; Linux shows user space 100 on every architecture.
const TICKS: f64 = 100.0;

/// A child that is killed when it is dropped.
pub struct Watched {
    child: Child,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory now, in bytes.
    pub rss: u64,
    /// The most resident memory so far, in bytes.
    pub peak_rss: u64,
}

impl Watched {
    /// Starts it; what it says goes to `log`.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let output =
            std::fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn usage(&self) -> Result<Usage> {
        usage(self.pid())
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-s", "TERM", &pid]).status()?;
        for _ in 0..300 {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("process {pid} does not end")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // One that has ended already is all that is wanted.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// What the process has used so far.
pub fn usage(pid: u32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks; user and system time are the 14th and 15th field.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("a name in brackets")?
        .1
        .split_ascii_whitespace()
        .collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kibibytes = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"))
            .and_then(|number| number.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Usage {
        cpu_seconds: ticks / TICKS,
        rss: kibibytes("VmRSS:") * 1024,
        peak_rss: kibibytes("VmHWM:") * 1024,
    })
}
