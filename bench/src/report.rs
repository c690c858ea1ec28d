//! The table, `results.json` and `docs/performance.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use crate::chart;
use crate::machine::{Machine, load};
use crate::ratios::{self, Ratio};
use crate::results::{Results, Spread, round};

/// What stands around the measured part of the page is written by hand.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Prints everything; writes the files when `publish`.
pub fn report(
    results: &Results,
    machine: &Machine,
    (runs, scale): (usize, f64),
    publish: bool,
) -> Result<()> {
    let ratios = ratios::all(results);
    let text = measured(results, machine, &ratios, runs, scale);
    println!("{text}");
    if !publish {
        return Ok(());
    }
    let root = root();
    let json = json!({
        "runs": runs,
        "scale": scale,
        "machine": machine,
        "results": results.rows(),
        "ratios": ratios,
    });
    std::fs::write(
        root.join("bench/results.json"),
        serde_json::to_string_pretty(&json)? + "\n",
    )?;
    let page = root.join("docs/performance.md");
    let old = std::fs::read_to_string(&page).unwrap_or_else(|_| format!("{BEGIN}\n{END}\n"));
    std::fs::write(page, replaced(&old, &text))?;
    chart::write(results, &root.join("docs"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn replaced(page: &str, measured: &str) -> String {
    let before = page.split(BEGIN).next().unwrap_or_default();
    let after = page.rsplit(END).next().unwrap_or_default();
    format!("{before}{BEGIN}\n\n{measured}\n{END}{after}")
}

fn measured(
    results: &Results,
    machine: &Machine,
    ratios: &[Ratio],
    runs: usize,
    scale: f64,
) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "Measured on {} × {}, {} GiB, Linux {}; medians of {runs} interleaved runs, in brackets the \
         least and the most; {} % of the full amount of data. Load of the machine before the first \
         run {}, after the last {}: more than {} means that others were at work too.\n",
        machine.processors,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        round(scale * 100.0),
        round(machine.load_before),
        round(load()),
        machine.processors,
    );
    for (name, version) in &machine.versions {
        let _ = writeln!(text, "- {name}: {version}");
    }
    let _ = writeln!(
        text,
        "\n| | found | wanted | aim | |\n| --- | ---: | ---: | ---: | --- |"
    );
    for ratio in ratios {
        let Some(found) = ratio.found else { continue };
        let _ = writeln!(
            text,
            "| {} ({}) | {} | {} {} | {} | {} |",
            ratio.name,
            ratio.unit,
            shown(found),
            if ratio.is_cost { "≤" } else { "≥" },
            ratio.wanted,
            ratio.aim,
            ratio.verdict(),
        );
    }
    let mut bench = "";
    let mut names = Vec::new();
    let rows = results.rows();
    for row in &rows {
        if row.bench != bench {
            bench = row.bench;
            // Not every subject has every value: a tool that only reads has no memory worth telling.
            let of_bench = rows.iter().filter(|row| row.bench == bench);
            let all: BTreeSet<&str> = of_bench
                .flat_map(|row| row.values.keys().copied())
                .collect();
            names = all.into_iter().collect();
            let titles: Vec<String> = names.iter().map(|name| name.replace('_', " ")).collect();
            let _ = writeln!(text, "\n### {bench}\n\n| | {} |", titles.join(" | "));
            let _ = writeln!(text, "| --- |{}", " ---: |".repeat(names.len()));
        }
        let value = |name: &&str| {
            row.values
                .get(name)
                .map_or_else(String::new, |it| shown(*it))
        };
        let values: Vec<String> = names.iter().map(value).collect();
        let _ = writeln!(text, "| {} | {} |", row.subject, values.join(" | "));
    }
    text
}

fn shown(value: Spread) -> String {
    if value.min == value.max {
        return round(value.median);
    }
    format!(
        "{} ({}–{})",
        round(value.median),
        round(value.min),
        round(value.max)
    )
}
