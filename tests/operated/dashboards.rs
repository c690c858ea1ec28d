//! The dashboards are what their script makes, and every query of theirs and of the rules finds
//! series in a Daybook at work.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use daybook::simulators::authentik::{Fault, Times};
use serde_json::Value;
use testkit::World;
use testkit::prometheus::{Prometheus, Setup};
use testkit::world::eventually;

use crate::metrics::busy_workspace;
use crate::{root, text};

const DASHBOARDS: [&str; 4] = ["ingest", "sources", "actors", "security"];

fn read(name: &str) -> Value {
    serde_json::from_str(&text(&format!("grafana/dashboards/{name}.json"))).unwrap()
}

/// Dashboard, panel and query, with the variables as a person with one Daybook has them.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for name in DASHBOARDS {
        for panel in read(name)["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let id = target["refId"].as_str().unwrap();
                let expr = target["expr"].as_str().unwrap();
                queries.push((format!("{name} / {title} / {id}"), substituted(expr)));
            }
        }
    }
    queries
}

/// Four scrapes, as Grafana makes `$__rate_interval`.
fn substituted(expr: &str) -> String {
    let expr = expr
        .replace("$__rate_interval", "5s")
        .replace("$job", "daybook")
        .replace("$instance", ".*")
        .replace("$source", ".*");
    assert!(!expr.contains('$'), "an unknown variable: {expr}");
    expr
}

#[test]
fn the_json_is_what_the_script_makes() {
    let checked = Command::new("python3")
        .args(["grafana/generate.py", "--check"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let mut uids = BTreeSet::new();
    for name in DASHBOARDS {
        let dashboard = read(name);
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()));
        assert!(
            dashboard["schemaVersion"].as_u64().unwrap() >= 39,
            "Grafana 11"
        );
        let mut ids = BTreeSet::new();
        let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap().to_owned();
            assert!(ids.insert(panel["id"].as_u64()), "{name}: {title}");
            let grid = &panel["gridPos"];
            let place = |key: &str| grid[key].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    let other = taken.insert((x, y), title.clone());
                    assert_eq!(other, None, "{name}: {title} lies over another");
                }
            }
            assert!(place("x") + place("w") <= 24);
            if panel["type"] == "row" {
                continue;
            }
            assert!(
                panel["description"].as_str().unwrap().ends_with('.'),
                "{name}: {title}"
            );
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(defaults["unit"].is_string() && defaults["thresholds"].is_object());
        }
    }
    // Links to the runbook lead to panels with the alert's section.
    let runbook = read("runbook");
    let sections: BTreeMap<u64, &str> = runbook["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|panel| {
            (
                panel["id"].as_u64().unwrap(),
                panel["title"].as_str().unwrap(),
            )
        })
        .collect();
    let mut links = 0;
    for name in DASHBOARDS {
        for panel in read(name)["panels"].as_array().unwrap() {
            for link in panel["links"].as_array().into_iter().flatten() {
                let title = link["title"].as_str().unwrap();
                let url = link["url"].as_str().unwrap();
                // An action of the metric, which no event has.
                assert!(!url.ends_with("action=ocis.link_shared"), "{name}: {url}");
                let Some(alert) = title.strip_prefix("Runbook: ") else {
                    continue;
                };
                let number = url.rsplit('=').next().unwrap();
                assert_eq!(sections[&number.parse().unwrap()], alert);
                links += 1;
            }
        }
    }
    assert!(links > 20, "{links} links to the runbook");
}

/// The metrics with their matchers that a rule's query asks for.
fn selectors(query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_name = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    let mut rest = query;
    while let Some(start) = rest.find("daybook") {
        let word = &rest[start..];
        let end = word
            .find(|character| !is_name(character))
            .unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        // A name, not a value in quotes.
        let is_metric = name.len() > "daybook_".len() && !after.starts_with(['.', '"']);
        let matchers = match after.strip_prefix('{') {
            Some(matchers) => &after[..matchers.find('}').unwrap() + 2],
            None => "",
        };
        if is_metric {
            found.push(format!("{name}{matchers}"));
        }
        rest = &after[matchers.len()..];
    }
    found
}

#[test]
fn selectors_are_found_in_a_query() {
    let query = "sum(rate(daybook_a_total{x=\"daybook.y\"}[5m])) / up{job=\"daybook\"} > scalar(daybook:b:c) unless daybook_d == 0";
    let wanted = [
        "daybook_a_total{x=\"daybook.y\"}",
        "daybook:b:c",
        "daybook_d",
    ];
    assert_eq!(selectors(query), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_finds_series_in_a_daybook_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = busy_workspace(dir.path(), 100.0).await;
    let plan = World::sqlite().await.workspace(&workspace);
    let world = plan.settings("[retention]\ndays = 30").start().await;
    workspace.connect(&world.url(""));
    let rules = ["prometheus/recording.yml", "prometheus/alerts.yml"];
    let prometheus = Prometheus::start(&Setup {
        targets: vec![("daybook".to_owned(), world.daybook().address().port())],
        rules: rules.iter().map(|path| root().join(path)).collect(),
        interval: "500ms".to_owned(),
    })
    .await;
    prometheus.all_up(1).await;

    // Faults: what a quiet service would not show.
    eventually("ocis is up, to be killed", async || {
        world.daybook().kill("ocis").await
    })
    .await;
    workspace.ocis().append_raw(b"no record\n").unwrap();
    let (refused, _) = world.post("/ingest/stalwart/webhook", "{}", &[]).await;
    assert_eq!(refused, 401);
    workspace
        .authentik()
        .set_fault(Fault::ServerError, Times::Next(2));

    let mut missing = queries();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    eventually("every panel's query has found series", async || {
        let mut still = Vec::new();
        for (place, expr) in missing.drain(..) {
            let found = prometheus.query(&expr).await;
            let found = found.unwrap_or_else(|error| panic!("{place}: {error}\n{expr}"));
            if found.iter().any(|sample| !sample.value.is_nan()) {
                counts.insert(place, found.len());
            } else {
                still.push((place, expr));
            }
        }
        missing = still;
        missing.is_empty()
    })
    .await;
    println!("{:>6}  dashboard / panel / query", "series");
    for (place, count) in &counts {
        println!("{count:>6}  {place}");
    }

    let groups = prometheus.api("rules", &[]).await.unwrap();
    let mut rules = 0;
    for group in groups["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["name"].as_str().unwrap();
            assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
            let query = rule["query"].as_str().unwrap();
            prometheus.query(query).await.unwrap();
            let mut asked = selectors(query);
            if rule["type"] == "recording" {
                asked.push(name.to_owned());
            }
            for selector in asked {
                eventually(&format!("{name}: {selector} has series"), async || {
                    !prometheus.query(&selector).await.unwrap().is_empty()
                })
                .await;
                rules += 1;
            }
        }
    }
    println!(
        "{} queries of panels, {rules} selectors of rules",
        counts.len()
    );
    assert!(counts.len() > 60 && rules > 60);
    world.stop().await;
}
