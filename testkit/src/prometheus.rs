//! A real Prometheus: scrapes, evaluates rules, answers queries. It dies with the test process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::free_port;
use crate::world::{client, eventually};

/// What is scraped and evaluated, and how often.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Job and port on the loopback address.
    pub targets: Vec<(String, u16)>,
    /// Rule files.
    pub rules: Vec<PathBuf>,
    /// Between two scrapes, and between two evaluations: `500ms`.
    pub interval: String,
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    shell: Child,
    directory: TempDir,
    base: String,
    client: reqwest::Client,
}

impl Prometheus {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When there is none to start, or it refuses its configuration.
    pub async fn start(setup: &Setup) -> Self {
        // The shell kills it as soon as this process is gone, which closes the pipe.
        const SCRIPT: &str = r#"trap '' INT HUP TERM; "$@" & read -r _; kill -KILL $! ; wait"#;
        let directory = TempDir::new().expect("a temporary folder");
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, yaml(setup)).expect("a configuration file");
        let port = free_port();
        let log = File::create(directory.path().join("log")).expect("a log file");
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", "prometheus"])
            .arg(flag("config.file", &config))
            .arg(flag("storage.tsdb.path", &directory.path().join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let prometheus = Self {
            shell,
            directory,
            base: format!("http://127.0.0.1:{port}"),
            client: client(),
        };
        eventually("Prometheus is ready", async || {
            let log = prometheus.log();
            assert!(
                !log.contains("level=error") && !log.contains("not found"),
                "{log}"
            );
            let answer = prometheus.client.get(prometheus.url("/-/ready")).send();
            answer
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        prometheus
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The `data` of an answer of its API.
    ///
    /// # Errors
    /// What it says when it refuses.
    pub async fn api(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let url = self.url(&format!("/api/v1/{path}?{}", query.join("&")));
        let answer = self.client.get(url).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let mut body: Value = answer.json().await.map_err(|error| error.to_string())?;
        if body["status"] != "success" {
            return Err(body["error"].to_string());
        }
        Ok(body["data"].take())
    }

    /// The samples of an instant query: labels and value.
    ///
    /// # Errors
    /// When the query does not parse or cannot be evaluated.
    pub async fn query(&self, expr: &str) -> Result<Vec<Sample>, String> {
        let data = self.api("query", &[("query", expr)]).await?;
        let results = match data["resultType"].as_str() {
            Some("vector") => data["result"].as_array().cloned().unwrap_or_default(),
            other => return Err(format!("{expr}: a {other:?}, no vector")),
        };
        Ok(results
            .into_iter()
            .map(|result| Sample {
                value: result["value"][1]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(f64::NAN),
                labels: result["metric"].clone(),
            })
            .collect())
    }

    /// The names and labels of what fires, sorted: `DaybookDown{…}`, only the labels that tell
    /// which.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn firing(&self) -> Vec<String> {
        let fires = self.query("ALERTS{alertstate=\"firing\"}").await;
        let mut names: Vec<String> = fires
            .expect("an answer")
            .iter()
            .map(|sample| {
                let label = |name: &str| sample.labels[name].as_str().unwrap_or_default();
                let which = ["source", "actor", "reason"].map(label);
                let which = which.iter().filter(|label| !label.is_empty());
                let which: Vec<&str> = which.copied().collect();
                format!("{}{{{}}}", label("alertname"), which.join(","))
            })
            .collect();
        names.sort();
        names
    }

    /// Waits until every target is up.
    pub async fn all_up(&self, targets: usize) {
        eventually("every target is up", async || {
            let up = self.query("up == 1").await;
            up.is_ok_and(|up| up.len() == targets)
        })
        .await;
    }
}

/// One sample of an instant query.
#[derive(Clone, Debug)]
pub struct Sample {
    /// All labels, `__name__` too.
    pub labels: Value,
    /// Its value.
    pub value: f64,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Fails only for a shell that has ended.
        let _gone = self.shell.wait();
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn yaml(setup: &Setup) -> String {
    let interval = &setup.interval;
    let mut text = format!(
        "global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}\nrule_files:\n"
    );
    for file in &setup.rules {
        text.push_str(&format!("  - {}\n", file.display()));
    }
    text.push_str("scrape_configs:\n");
    for (job, port) in &setup.targets {
        text.push_str(&format!(
            "  - job_name: {job}\n    static_configs:\n      - targets: [\"127.0.0.1:{port}\"]\n"
        ));
    }
    text
}

/// Runs promtool in the project's folder.
///
/// # Panics
/// When there is none.
pub fn promtool(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(folder);
    command.output().expect("promtool can be run")
}
