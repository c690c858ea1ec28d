//! The fake against what the real servers answered.

mod faults;
mod lists;
mod shapes;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::simulators::ensure_tls_provider;
use crate::simulators::people::People;

const EVENTS: &str = "/api/v3/events/events/";

fn sample(name: &str) -> Value {
    let path = format!(
        "{}/tests/data/authentik/samples/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn client() -> reqwest::Client {
    ensure_tls_provider();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

struct World {
    fake: FakeAuthentik,
    client: reqwest::Client,
}

impl World {
    async fn start(config: FakeAuthentikConfig) -> Self {
        Self {
            fake: FakeAuthentik::start(config).await,
            client: client(),
        }
    }

    async fn with(profile: Profile, events: usize) -> Self {
        let world = Self::start(FakeAuthentikConfig {
            profile,
            ..FakeAuthentikConfig::default()
        })
        .await;
        world.fake.insert_many((0..events).map(numbered).collect());
        world
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client
            .get(format!("{}{path}", self.fake.url()))
            .bearer_auth(self.fake.token())
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let response = self.get(path).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let (status, body) = self.json(&format!("{EVENTS}?{query}")).await;
        assert_eq!(status, 200, "{body}");
        body["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                event["context"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }
}

/// One event a second, named `e<number>`.
fn numbered(number: usize) -> Value {
    let start: Timestamp = "2026-11-01T00:00:00.25Z".parse().unwrap();
    let at = start + SignedDuration::from_secs(i64::try_from(number).unwrap());
    json!({
        "action": if number.is_multiple_of(2) { "login" } else { "login_failed" },
        "user": {"pk": number % 5, "username": format!("user{}", number % 5), "email": ""},
        "context": {"name": format!("e{number}")},
        "client_ip": format!("192.0.2.{}", number % 7),
        "created": at.to_string(),
    })
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// Keys at every depth that objects of both have, so that shapes and not values are compared.
fn assert_same_shape(found: &Value, wanted: &Value, at: &str) {
    match (found, wanted) {
        (Value::Object(_), Value::Object(fields)) => {
            assert_eq!(keys(found), keys(wanted), "keys at {at}");
            // Attributes are whatever an administrator wrote there.
            for (key, value) in fields.iter().filter(|(key, _)| *key != "attributes") {
                assert_same_shape(&found[key], value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(wanted)) => {
            if let (Some(found), Some(wanted)) = (found.first(), wanted.first()) {
                assert_same_shape(found, wanted, &format!("{at}[0]"));
            }
        }
        _ => {}
    }
}

fn is_html(response: &reqwest::Response) -> bool {
    response.headers()["content-type"]
        .to_str()
        .unwrap()
        .starts_with("text/html")
}
