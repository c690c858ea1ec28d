//! Measures Daybook beside what bounds it and beside what people would otherwise use.
//!
//! `cargo run --release -p bench -- all` runs everything, `-- NAME…` what is named.

mod catch_up;
mod ceiling;
mod data;
mod daybook;
mod filter;
mod http;
mod process;
mod results;
mod world;

use std::sync::Arc;

use anyhow::Result;
use clap::{Parser, ValueEnum};

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
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    All,
    Ceiling,
    CatchUp,
    Filter,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |bench| {
        arguments
            .benches
            .iter()
            .any(|given| *given == bench || *given == Bench::All)
    };
    let world = World::new(arguments.scale).await?;
    let prepared = if wanted(Bench::Ceiling) {
        Some(Arc::new(ceiling::prepare(&world).await?))
    } else {
        None
    };
    let mut results = Results::default();
    for _ in 0..arguments.runs {
        if let Some(prepared) = &prepared {
            ceiling::run(&world, prepared, &mut results).await?;
        }
        if wanted(Bench::CatchUp) {
            catch_up::run(&world, &mut results).await?;
        }
        if wanted(Bench::Filter) {
            filter::run(&world, &mut results).await?;
        }
    }
    Ok(())
}
