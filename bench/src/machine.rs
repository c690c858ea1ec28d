//! On what it was measured.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::world::World;

/// The machine and the versions of everything that was measured.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Of the last minute before the first run: how many others wanted a processor.
    pub load_before: f64,
    pub versions: Vec<(String, String)>,
}

impl Machine {
    pub fn look(world: &World, peers: Option<&Path>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after_colon = |text: &str, key: &str| {
            text.lines()
                .find(|line| line.starts_with(key))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
        let kibibytes: u64 = memory
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let mut versions = vec![
            ("Daybook".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            first_line(
                Command::new(world.mongod.binary()).arg("--version"),
                "mongod",
            ),
            first_line(Command::new("rustc").arg("--version"), "rustc"),
            first_line(Command::new("grep").arg("--version"), "grep"),
        ];
        if let Some(root) = peers {
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            let own = root.join("usr/lib/syslog-ng");
            let path = format!("{}:{}", libraries.display(), own.display());
            let programs = [
                ("rsyslogd", "rsyslog", "-v"),
                ("syslog-ng", "syslog-ng", "--version"),
            ];
            for (program, name, argument) in programs {
                let mut command = Command::new(root.join("usr/sbin").join(program));
                command.arg(argument).env("LD_LIBRARY_PATH", &path);
                versions.push(first_line(&mut command, name));
            }
            versions.push(first_line(Command::new("node").arg("--version"), "Node.js"));
        }
        Self {
            processor: after_colon(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kibibytes.div_ceil(1 << 20),
            kernel: major_minor(&read("/proc/sys/kernel/osrelease")),
            load_before: load(),
            versions,
        }
    }
}

/// `6.18` of `6.18.44-distribution`.
fn major_minor(release: &str) -> String {
    let parts: Vec<&str> = release.trim().splitn(3, '.').take(2).collect();
    parts.join(".")
}

/// How many processes wanted a processor in the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0.0)
}

fn first_line(command: &mut Command, name: &str) -> (String, String) {
    let output = command.output().map(|output| output.stdout);
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    let line = text.lines().next().unwrap_or("unknown");
    // rsyslogd begins the list of its parts on the same line.
    let line = line.split(" compiled with").next().unwrap_or(line).trim();
    (name.to_owned(), line.to_owned())
}
