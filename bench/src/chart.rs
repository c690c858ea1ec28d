//! Bars, drawn by hand as SVG that reads on light and dark pages.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::results::{Results, round};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 210.0;
const BAR: f64 = 22.0;
const STEP: f64 = 34.0;

/// One bar; Daybook's own are drawn in another colour.
struct Bar {
    label: String,
    value: f64,
    is_daybook: bool,
}

/// Draws what was measured of the charts of the README.
pub fn write(results: &Results, folder: &Path) -> Result<()> {
    let bar = |label: &str, bench: &str, subject: &str, value: &str| {
        Some(Bar {
            label: label.to_owned(),
            value: results.get(bench, subject, value)?.median,
            is_daybook: label.starts_with("Daybook"),
        })
    };
    let rate = "events_per_second";
    let rates = [
        bar(
            "bare driver, the ceiling",
            "ceiling",
            "the best of them",
            rate,
        ),
        bar("Daybook", "catch-up", "daybook, MongoDB", rate),
        bar("rsyslog", "peers", "rsyslog", rate),
        bar("syslog-ng", "peers", "syslog-ng", rate),
        bar("obvious script", "peers", "obvious script", rate),
    ];
    save(
        folder,
        "catch-up.svg",
        "Events a second from a log into MongoDB",
        rates,
    )?;
    let cpu = "cpu_us_per_event";
    let costs = [
        bar("Daybook", "catch-up", "daybook, MongoDB", cpu),
        bar("rsyslog", "peers", "rsyslog", cpu),
        bar("syslog-ng", "peers", "syslog-ng", cpu),
        bar("obvious script", "peers", "obvious script", cpu),
    ];
    save(
        folder,
        "processor.svg",
        "Microseconds of processor time an event",
        costs,
    )?;
    let megabytes = "mb_per_second";
    let filter = [
        bar("wc -l", "filter", "wc -l", megabytes),
        bar("grep -c", "filter", "grep -c", megabytes),
        bar("Daybook", "filter", "daybook, MongoDB", megabytes),
    ];
    save(
        folder,
        "filter.svg",
        "Megabytes a second of a log of which 95 % are reads",
        filter,
    )
}

fn save<const N: usize>(
    folder: &Path,
    name: &str,
    title: &str,
    bars: [Option<Bar>; N],
) -> Result<()> {
    let bars: Vec<Bar> = bars.into_iter().flatten().collect();
    if bars.len() < N {
        return Ok(());
    }
    std::fs::write(folder.join(name), draw(title, &bars))?;
    Ok(())
}

fn draw(title: &str, bars: &[Bar]) -> String {
    let height = 48.0 + bars.len() as f64 * STEP;
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let room = WIDTH - LABELS - 90.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{title}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <style>text {{ fill: #24292f }} .other {{ fill: #8c959f }} .daybook {{ fill: #0969da }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .other {{ fill: #6e7681 }} \
         .daybook {{ fill: #4493f8 }} }}</style>\n\
         <text x=\"0\" y=\"20\" font-weight=\"bold\">{title}</text>\n"
    );
    for (index, bar) in bars.iter().enumerate() {
        let top = 40.0 + index as f64 * STEP;
        let length = (bar.value / most * room).max(1.0);
        let class = if bar.is_daybook { "daybook" } else { "other" };
        let middle = top + BAR * 0.72;
        let end = LABELS + length + 8.0;
        // Writing into a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{LABELS}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <text x=\"{end:.1}\" y=\"{middle:.1}\">{}</text>",
            LABELS - 10.0,
            bar.label,
            round(bar.value),
        );
    }
    svg + "</svg>\n"
}
