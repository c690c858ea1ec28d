//! What was measured: runs by bench and subject, their medians and spreads.

use std::collections::BTreeMap;

use serde::Serialize;

/// The values of one measurement, by name and unit (`events_per_second`, `rss_mib`, …).
pub type Values = Vec<(&'static str, f64)>;

/// All runs of everything.
#[derive(Default)]
pub struct Results {
    /// In the order of their first appearance.
    order: Vec<(String, String)>,
    runs: BTreeMap<(String, String), BTreeMap<&'static str, Vec<f64>>>,
}

/// The middle one of the runs, and how far they lie apart.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// One subject of one bench.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    pub bench: &'a str,
    pub subject: &'a str,
    pub values: BTreeMap<&'a str, Spread>,
}

impl Results {
    pub fn add(&mut self, bench: &str, subject: &str, values: Values) {
        let shown: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{name} {}", round(*value)))
            .collect();
        eprintln!("{bench:>10}  {subject:<32}  {}", shown.join(", "));
        let key = (bench.to_owned(), subject.to_owned());
        if !self.order.contains(&key) {
            self.order.push(key.clone());
        }
        let runs = self.runs.entry(key).or_default();
        for (name, value) in values {
            runs.entry(name).or_default().push(value);
        }
    }

    pub fn rows(&self) -> Vec<Row<'_>> {
        self.order
            .iter()
            .map(|key| Row {
                bench: &key.0,
                subject: &key.1,
                values: self.runs[key]
                    .iter()
                    .map(|(name, runs)| (*name, spread(runs)))
                    .collect(),
            })
            .collect()
    }

    /// One value's spread; `None` when it was not measured.
    pub fn get(&self, bench: &str, subject: &str, value: &str) -> Option<Spread> {
        let key = (bench.to_owned(), subject.to_owned());
        Some(spread(self.runs.get(&key)?.get(value)?))
    }

    /// The ratio of two values, run by run: both sides of each were measured within minutes.
    pub fn ratio(&self, over: [&str; 3], under: [&str; 3]) -> Option<Spread> {
        let of = |[bench, subject, value]: [&str; 3]| {
            let key = (bench.to_owned(), subject.to_owned());
            self.runs.get(&key)?.get(value)
        };
        let ratios: Vec<f64> = of(over)?
            .iter()
            .zip(of(under)?)
            .map(|(over, under)| over / under)
            .collect();
        (!ratios.is_empty()).then(|| spread(&ratios))
    }
}

fn spread(runs: &[f64]) -> Spread {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    Spread {
        median,
        min: sorted[0],
        max: sorted[sorted.len() - 1],
    }
}

/// The value at this share of the sorted list, 0.99 say.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// A number with the digits that mean something.
pub fn round(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 1000.0 => thousands(value),
        middle if middle >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
