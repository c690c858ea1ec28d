//! Measures Daybook beside what bounds it and beside what people would otherwise use.
//!
//! `cargo run --release -p bench -- all` measures everything and writes `bench/results.json`,
//! `docs/performance.md` and the charts; `-- NAME…` measures what is named and writes nothing.

mod authentik;
mod catch_up;
mod ceiling;
mod chart;
mod data;
mod daybook;
mod filter;
mod http;
mod machine;
mod peers;
mod process;
mod quiet;
mod ratios;
mod report;
mod results;
mod webhook;
mod world;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use machine::Machine;
use peers::Peers;
use results::Results;
use world::World;

/// Measures Daybook.
#[derive(Parser)]
struct Arguments {
    /// What to measure.
    #[arg(required = true)]
    benches: Vec<Bench>,
    /// How often; the runs of all benches are interleaved.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How much of the full amount of data.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The program to measure, in place of the one that is built here.
    #[arg(long)]
    daybook: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    All,
    Ceiling,
    CatchUp,
    Filter,
    Webhook,
    Authentik,
    Latency,
    Idle,
    /// And `recover`.
    Start,
    Peers,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (runs, scale) = (arguments.runs, arguments.scale);
    ensure!(runs > 0, "--runs is at least 1");
    ensure!(
        scale > 0.0 && scale <= 10.0,
        "--scale is above 0 and at most 10"
    );
    let all = arguments.benches.contains(&Bench::All);
    let wanted = |bench| all || arguments.benches.contains(&bench);

    let peers = if wanted(Bench::Peers) {
        Some(Peers::fetch()?)
    } else {
        None
    };
    let world = World::new(scale, arguments.daybook.clone()).await?;
    let machine = Machine::look(&world, peers.as_ref().map(Peers::root));
    let prepared = if wanted(Bench::Ceiling) {
        Some(Arc::new(ceiling::prepare(&world).await?))
    } else {
        None
    };
    let mut results = Results::default();
    for round in 0..runs {
        if let Some(prepared) = &prepared {
            ceiling::run(&world, prepared, &mut results).await?;
        }
        if wanted(Bench::CatchUp) {
            catch_up::run(&world, &mut results).await?;
        }
        if let Some(peers) = &peers {
            peers.run(&world, &mut results).await?;
        }
        if wanted(Bench::Filter) {
            filter::run(&world, &mut results).await?;
        }
        if wanted(Bench::Webhook) {
            webhook::run(&world, round, &mut results).await?;
        }
        if wanted(Bench::Authentik) {
            authentik::run(&world, &mut results).await?;
        }
        if wanted(Bench::Latency) {
            quiet::latency(&world, &mut results).await?;
        }
        if wanted(Bench::Idle) {
            quiet::idle(&world, &mut results).await?;
        }
        if wanted(Bench::Start) {
            quiet::start_and_recover(&world, &mut results).await?;
        }
    }
    report::report(&results, &machine, (runs, scale), all)
}
