//! `readers [--readers N] [--rate N] [--seconds N] [--store URL]`: that many readers of the live
//! stream of a Daybook in a process of its own, at so many events a second; whether all of them
//! got all, how late, and what memory that took. `cargo run --release -p testkit --bin readers`.

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use daybook::config::{AuthMode, Config, RecorderConfig, SourceConfig, StoreUrl};
use daybook::tree::Daybook;
use jiff::Timestamp;
use serde_json::json;
use testkit::sse::EventStream;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.as_slice() {
        [command, store, dir] if command == "child" => child(store, Path::new(dir)).await,
        _ => measure(&arguments).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The Daybook that is measured; ends with its standard input.
async fn child(store: &str, dir: &Path) -> Result<(), anyhow::Error> {
    let mut config = Config::default();
    config.store.url = StoreUrl(store.to_owned());
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config.http.auth = AuthMode::None;
    config.journal.dir = dir.join("journal");
    config.sources = vec![SourceConfig::Recorder(RecorderConfig {
        name: Some("readers".to_owned()),
    })];
    let daybook = Daybook::start(&config).await?;
    println!("{}", daybook.address());
    std::io::stdout().flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    daybook.shutdown().await;
    Ok(())
}

async fn measure(arguments: &[String]) -> Result<(), anyhow::Error> {
    let value = |name: &str| {
        let at = arguments.iter().position(|each| each == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, default: usize| -> Result<usize, anyhow::Error> {
        match value(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .with_context(|| format!("{name} wants a number")),
        }
    };
    let readers = number("--readers", 500)?;
    let rate = number("--rate", 200)?;
    let seconds = number("--seconds", 30)?;
    let dir = tempfile::tempdir()?;
    let store = value("--store")
        .unwrap_or_else(|| format!("sqlite:{}", dir.path().join("daybook.db").display()));

    let mut daybook = tokio::process::Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(&store)
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = daybook.stdout.take().context("its standard output")?;
    let address = BufReader::new(out)
        .lines()
        .next_line()
        .await?
        .context("no address")?;
    let pid = daybook.id().context("it has ended")?;
    let client = testkit::world::client();
    let before = memory(pid)?;

    let total = rate * seconds;
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..readers {
        let url = format!("http://{address}/api/v1/events/stream");
        let opened = EventStream::open(&client, &url, None, None).await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err((status, body)) => bail!("a reader was answered {status}: {body}"),
        };
        reading.spawn(async move {
            let mut latest = Duration::ZERO;
            for number in 0..total {
                let event = stream.next().await.map_err(|end| format!("{end:?}"))?;
                let expected = number.to_string();
                if event["externalId"].as_str() != Some(expected.as_str()) {
                    return Err(format!(
                        "{} in the place of {expected}",
                        event["externalId"]
                    ));
                }
                let said = event["at"]
                    .as_str()
                    .and_then(|at| at.parse::<Timestamp>().ok());
                let late = said.map(|said| Timestamp::now().duration_since(said).unsigned_abs());
                latest = latest.max(late.unwrap_or_default());
            }
            Ok(latest)
        });
    }
    let with_readers = memory(pid)?;
    let begun = Instant::now();
    let step = (rate / 10).max(1);
    let mut timer =
        tokio::time::interval(Duration::from_secs(1) * u32::try_from(step)? / u32::try_from(rate)?);
    let mut next = 0;
    while next < total {
        timer.tick().await;
        let events: Vec<_> = (next..total.min(next + step))
            .map(|number| {
                json!({
                    "action": "invoice.paid", "externalId": number.to_string(),
                    "at": Timestamp::now(), "actor": { "email": "alice@example.org", "ip": "192.0.2.1" },
                    "metadata": { "number": number, "text": "x".repeat(300) },
                })
            })
            .collect();
        next += events.len();
        let post = client.post(format!("http://{address}/api/v1/events"));
        let answer = post
            .body(json!({ "events": events }).to_string())
            .send()
            .await?;
        if answer.status() != 200 {
            bail!("the events were answered {}", answer.status());
        }
    }
    let said = begun.elapsed();
    let mut worst = Duration::ZERO;
    while let Some(ended) = reading.join_next().await {
        match ended? {
            Ok(latest) => worst = worst.max(latest),
            Err(why) => bail!("a reader did not get everything: {why}"),
        }
    }
    let after = memory(pid)?;
    println!(
        "{readers} readers got all of {total} events, said within {said:.1?}; the latest came {worst:.1?} after it was said"
    );
    println!(
        "resident memory: {} MiB before, {} MiB with readers, {} MiB at the end, {} MiB at its highest",
        before.0, with_readers.0, after.0, after.1
    );
    drop(daybook.stdin.take());
    daybook.wait().await?;
    if after.1 > 200 {
        bail!("more than 200 MiB");
    }
    Ok(())
}

/// Resident memory now and at its highest, in MiB.
fn memory(pid: u32) -> Result<(u64, u64), anyhow::Error> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Ok((
        of("VmRSS:").unwrap_or(0) / 1024,
        of("VmHWM:").unwrap_or(0) / 1024,
    ))
}
