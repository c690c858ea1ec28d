//! The ratios that count, with what is wanted of each.

use serde::Serialize;

use crate::quiet::DURABLE;
use crate::results::{Results, Spread};
use crate::webhook;

/// One of them.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub name: &'static str,
    pub wanted: f64,
    pub aim: f64,
    /// Whether less is better.
    pub is_cost: bool,
    pub unit: &'static str,
    pub found: Option<Spread>,
}

const RATE: &str = "events_per_second";
const INTO_MONGODB: [&str; 3] = ["catch-up", "daybook, MongoDB", RATE];
const INTO_SQLITE: [&str; 3] = ["catch-up", "daybook, SQLite", RATE];
const CEILING: [&str; 3] = ["ceiling", "the best of them", RATE];

/// All of them, measured or not.
pub fn all(results: &Results) -> Vec<Ratio> {
    let peer = |name| ["peers", name, RATE];
    let over = |name, wanted, aim, over, under| Ratio {
        name,
        wanted,
        aim,
        is_cost: false,
        unit: "×",
        found: results.ratio(over, under),
    };
    let cost = |name, unit, wanted, aim, [bench, subject, value]: [&str; 3]| Ratio {
        name,
        wanted,
        aim,
        is_cost: true,
        unit,
        found: results.get(bench, subject, value),
    };
    let ten_at_sixteen = webhook::subject(10, 16);
    vec![
        over("catch-up ÷ ceiling", 0.75, 0.95, INTO_MONGODB, CEILING),
        over(
            "catch-up ÷ rsyslog",
            8.0,
            12.0,
            INTO_MONGODB,
            peer("rsyslog"),
        ),
        over(
            "catch-up ÷ syslog-ng",
            8.0,
            12.0,
            INTO_MONGODB,
            peer("syslog-ng"),
        ),
        over(
            "catch-up ÷ obvious script",
            30.0,
            50.0,
            INTO_MONGODB,
            peer("obvious script"),
        ),
        over(
            "filter ÷ `grep -c`, bytes a second",
            0.4,
            0.8,
            ["filter", "daybook, MongoDB", "mb_per_second"],
            ["filter", "grep -c", "mb_per_second"],
        ),
        over(
            "webhook, 10 events a body, 16 at once ÷ ceiling",
            0.5,
            0.8,
            ["webhook", &ten_at_sixteen, RATE],
            CEILING,
        ),
        over(
            "catch-up into SQLite ÷ into MongoDB",
            3.0,
            3.0,
            INTO_SQLITE,
            INTO_MONGODB,
        ),
        Ratio {
            name: "or catch-up into SQLite by itself",
            wanted: 60_000.0,
            aim: 60_000.0,
            is_cost: false,
            unit: "events a second",
            found: {
                let [bench, subject, value] = INTO_SQLITE;
                results.get(bench, subject, value)
            },
        },
        cost(
            "processor time an event, catch-up",
            "µs",
            8.0,
            4.0,
            ["catch-up", "daybook, MongoDB", "cpu_us_per_event"],
        ),
        cost(
            "memory at full catch-up",
            "MiB",
            64.0,
            40.0,
            ["catch-up", "daybook, MongoDB", "peak_rss_mib"],
        ),
        cost(
            "memory when idle",
            "MiB",
            24.0,
            12.0,
            ["idle", "four sources", "rss_mib"],
        ),
        cost(
            "processor when idle",
            "% of one",
            0.5,
            0.1,
            ["idle", "four sources", "cpu_percent_of_a_core"],
        ),
        cost(
            "a line until it is durable, p50",
            "ms",
            20.0,
            8.0,
            ["latency", DURABLE, "p50_ms"],
        ),
        cost(
            "a line until it is durable, p99",
            "ms",
            80.0,
            30.0,
            ["latency", DURABLE, "p99_ms"],
        ),
        cost(
            "exec to ready",
            "ms",
            300.0,
            100.0,
            ["start", "exec to ready", "ms"],
        ),
    ]
}

impl Ratio {
    /// `aim`, `yes` or `no`; empty when it was not measured.
    pub fn verdict(&self) -> &'static str {
        let Some(found) = self.found else { return "" };
        let reaches = |mark: f64| {
            if self.is_cost {
                found.median <= mark
            } else {
                found.median >= mark
            }
        };
        match (reaches(self.aim), reaches(self.wanted)) {
            (true, _) => "aim reached",
            (false, true) => "reached",
            (false, false) => "not reached",
        }
    }
}
