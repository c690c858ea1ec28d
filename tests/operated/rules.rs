//! The rules are valid, tested, and lead to the runbook.

use std::collections::BTreeMap;
use std::path::PathBuf;

use testkit::prometheus::promtool;

use crate::{root, text};

fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yml"));
    let mut names: Vec<String> = yaml
        .map(|path: PathBuf| path.display().to_string())
        .collect();
    names.sort();
    names
}

fn passes(arguments: &[&str]) {
    let output = promtool(&root(), arguments);
    assert!(
        output.status.success(),
        "promtool {arguments:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn configuration_and_rules_are_valid() {
    passes(&["check", "config", "prometheus.yml"]);
    let rules = files("prometheus");
    assert_eq!(rules.len(), 2);
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    passes(&[&["check", "rules"], rules.as_slice()].concat());
}

#[test]
fn the_rules_pass_their_unit_tests() {
    let tests = files("prometheus/tests");
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    passes(&[&["test", "rules"], tests.as_slice()].concat());
}

/// What stands in `alerts.yml` under the name of each alert.
fn alerts() -> BTreeMap<String, String> {
    let text = text("prometheus/alerts.yml");
    let blocks = text.split("- alert: ").skip(1);
    blocks
        .map(|block| {
            let (name, body) = block.split_once('\n').unwrap();
            (name.trim().to_owned(), body.to_owned())
        })
        .collect()
}

#[test]
fn every_alert_is_explained_and_tested() {
    let runbook = text("docs/runbook.md");
    let tests: String = files("prometheus/tests")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let alerts = alerts();
    assert!(alerts.len() > 15);
    for (name, body) in &alerts {
        for part in ["expr: ", "summary: ", "description: "] {
            assert!(body.contains(part), "{name} has no {part}");
        }
        assert!(
            body.contains("severity: page") || body.contains("severity: ticket"),
            "{name} has no severity"
        );
        let link = format!("runbook_url: docs/runbook.md#{}", name.to_lowercase());
        assert!(body.contains(&link), "{name} does not lead to {link}");
        let section = runbook
            .split(&format!("\n## {name}\n"))
            .nth(1)
            .unwrap_or_else(|| panic!("{name} has no section in the runbook"));
        let section = section.split("\n## ").next().unwrap();
        let severity = if body.contains("severity: page") {
            "*page.*"
        } else {
            "*ticket.*"
        };
        for part in [severity, "**Over when**", "**Do:**"] {
            assert!(section.contains(part), "{name}: no {part} in the runbook");
        }
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} is never seen firing"
        );
    }
    // Every file of tests asks at least once that nothing fires.
    for path in files("prometheus/tests") {
        let test = std::fs::read_to_string(&path).unwrap();
        assert!(test.contains("exp_samples: []"), "{path}");
    }
}
