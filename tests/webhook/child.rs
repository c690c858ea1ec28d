//! The service as a process of its own, to see what it takes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use testkit::http::{exchange, signed};

use super::{KEY, ROUTE};

struct Service {
    process: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Service {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("key"), KEY).unwrap();
        let config = format!(
            "[store]\nurl = \"sqlite:{}\"\n[http]\nlisten = \"127.0.0.1:0\"\nauth = \"none\"\n\
             [journal]\ndir = \"{}\"\n[telemetry]\nlog_format = \"json\"\n\
             [[sources]]\nkind = \"stalwart\"\nsecret_files = [\"{}\"]\n",
            path("daybook.db"),
            path("journal"),
            path("key"),
        );
        std::fs::write(path("daybook.toml"), config).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_daybook"))
            .args(["run", "-c", &path("daybook.toml")])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                line["fields"]["address"].as_str()?.parse().ok()
            })
            .unwrap();
        // Its later words must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address,
            _dir: dir,
        }
    }

    /// The most memory that it ever had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib >> 10
    }
}

/// After an outage Stalwart sends all that waited in one body.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_megabytes_in_one_body_are_taken_in_little_memory() {
    let service = Service::start();
    let text = "x".repeat(9_950);
    let events: Vec<String> = (0..3_000)
        .map(|index| {
            format!(
                r#"{{"id":"1","createdAt":"2026-11-24T04:00:00Z","type":"server.panic","data":{{"reason":"{text}","total":{index}}}}}"#
            )
        })
        .collect();
    let body = format!("{{\"events\":[{}]}}", events.join(","));
    assert!(body.len() > 30_000_000, "{}", body.len());
    let request = signed(ROUTE, KEY, &body);
    let before = service.peak_mib();
    for _ in 0..3 {
        let answer = exchange(service.address, &request).await;
        assert_eq!(answer.json(), json!({ "received": 3_000 }), "{answer:?}");
    }
    let peak = service.peak_mib();
    println!("peak {peak} MiB, before {before} MiB");
    assert!(
        peak < before + 5 * 30,
        "peak {peak} MiB, before {before} MiB"
    );
}
