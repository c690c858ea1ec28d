//! Signed bodies, each answered only when all of its events are durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::data::{WEBHOOK_KEY, signed_body};
use crate::daybook::Daybook;
use crate::http::Connection;
use crate::process::usage;
use crate::results::{Results, percentile};
use crate::world::World;

const ROUTE: &str = "/ingest/stalwart/webhook";

pub async fn run(world: &World, round: usize, results: &mut Results) -> Result<()> {
    let database = world.database().await?;
    let folder = world.folder()?;
    let key_file = folder.path().join("webhook.key");
    std::fs::write(&key_file, WEBHOOK_KEY)?;
    let source = format!(
        "[[sources]]\nkind = \"stalwart\"\nroute = \"{ROUTE}\"\nsecret_files = [\"{}\"]\n",
        key_file.display()
    );
    let url = world.mongod.url(database.name());
    let mut daybook = Daybook::start(&world.daybook, folder.path(), &url, &source)?;
    daybook.ready().await?;
    let mut number = round as u64 * 1_000_000;
    for events in [1, 10, 100] {
        for concurrency in [1, 16, 64] {
            let wanted = world.scaled(100_000) as usize / 2 / (events + 4);
            let count = wanted.max(concurrency * 10);
            let requests: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    number += 1;
                    request(number, events)
                })
                .collect();
            let before = daybook.usage()?.cpu_seconds;
            let server_before = usage(world.mongod.pid())?.cpu_seconds;
            let (seconds, mut latencies) = push(daybook.port, requests, concurrency).await?;
            let cpu = daybook.usage()?.cpu_seconds - before;
            let server_cpu = usage(world.mongod.pid())?.cpu_seconds - server_before;
            latencies.sort_by(f64::total_cmp);
            let sent = (count * events) as f64;
            let values = vec![
                ("requests_per_second", count as f64 / seconds),
                ("events_per_second", sent / seconds),
                ("p50_ms", percentile(&latencies, 0.5)),
                ("p99_ms", percentile(&latencies, 0.99)),
                ("p99_9_ms", percentile(&latencies, 0.999)),
                ("cpu_us_per_event", cpu * 1e6 / sent),
                ("server_cpu_us_per_event", server_cpu * 1e6 / sent),
            ];
            results.add("webhook", &subject(events, concurrency), values);
        }
    }
    daybook.stop()?;
    database.drop().await?;
    Ok(())
}

/// What a row is called.
pub fn subject(events: usize, concurrency: usize) -> String {
    format!("{events} events a body, {concurrency} at once")
}

fn request(number: u64, events: usize) -> Vec<u8> {
    let (body, signature) = signed_body(number, events);
    let mut request = format!(
        "POST {ROUTE} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         X-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    request
}

/// Sends them all; returns the seconds it took and the milliseconds of each.
async fn push(port: u16, requests: Vec<Vec<u8>>, concurrency: usize) -> Result<(f64, Vec<f64>)> {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let since = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        senders.spawn(async move {
            let mut connection = Connection::open(port).await?;
            let mut latencies = Vec::new();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                let (status, answer) = connection.send(request).await?;
                ensure!(status == 200, "answered {status}: {answer}");
                latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(sender) = senders.join_next().await {
        latencies.extend(sender??);
    }
    Ok((since.elapsed().as_secs_f64(), latencies))
}
