//! One tenant's token tells nothing about another tenant, nor about events without one.
//!
//! The proof is non-interference: every request that a tenant can make is made twice, before and
//! after others' events are entered, and the two answers are the same to the byte. Every route of
//! the server has a row in [`ROUTES`], and a route without one fails the test.

#![allow(clippy::unwrap_used, reason = "tests")]

mod routes;

use std::collections::BTreeSet;
use std::path::Path;

use daybook::event::{Actor, AuditEvent, Outcome, SourceName, Target};
use daybook::http::auth::new_token;
use daybook::http::query::encode_page_key;
use daybook::store::{Commit, EventFilter, PageKey, Record, Role, StoredEvent};
use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::World;
use testkit::world::eventually;

use routes::{Access, ROUTES, Route};

const OURS: &str = "alpha";
const OTHERS: &str = "bravo";

/// A word that stands in every text of every event that is none of ours.
const SECRET: &str = "zulu";

/// A service that demands tokens, with one of each role.
struct Guarded {
    world: World,
    ours: String,
    others: String,
    operator: String,
    recorder: String,
}

/// What came back, to the byte.
#[derive(Debug, PartialEq)]
struct Reply {
    status: u16,
    headers: BTreeSet<(String, String)>,
    body: String,
}

impl Guarded {
    async fn start() -> Self {
        let plan = World::sqlite().await;
        let plan = plan.source("kind = \"recorder\"\nname = \"platform\"");
        let world = plan.start_with("auth = \"tokens\"", "").await;
        world.ready().await;
        let mut tokens = Vec::new();
        for role in [
            Role::Tenant(OURS.to_owned()),
            Role::Tenant(OTHERS.to_owned()),
            Role::Operator,
            Role::Recorder(None),
        ] {
            let (token, record) = new_token(role, None, None);
            world.daybook().store().insert_token(&record).await.unwrap();
            tokens.push(format!("Bearer {token}"));
        }
        let [ours, others, operator, recorder] = tokens.try_into().unwrap();
        Self {
            world,
            ours,
            others,
            operator,
            recorder,
        }
    }

    async fn enter(&self, events: &[(AuditEvent, Option<&str>)]) {
        let records = events.iter().map(|(event, tenant)| Record::Event {
            event,
            tenant_slug: *tenant,
        });
        let commit = Commit {
            records: records.collect(),
            ..Commit::default()
        };
        let store = self.world.daybook().store();
        store.commit(&commit).await.unwrap();
    }

    async fn all_events(&self) -> Vec<StoredEvent> {
        let store = self.world.daybook().store();
        let found = store.find_events(&EventFilter::default(), None, 1000).await;
        found.unwrap()
    }

    /// The answer to a `GET`, and for a stream its head alone.
    async fn get(&self, path: &str, token: Option<&str>, route: &Route) -> Reply {
        self.get_for("empty", path, token, route).await
    }

    /// The same for what a browser names: `empty` is a script, `document` a window.
    async fn get_for(
        &self,
        destination: &str,
        path: &str,
        token: Option<&str>,
        route: &Route,
    ) -> Reply {
        let request = self.world.client().get(self.world.url(path));
        let mut request = request.header("sec-fetch-dest", destination);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().iter();
        let headers = headers.map(|(name, value)| {
            let value = value.to_str().unwrap_or_default().to_owned();
            (name.as_str().to_owned(), value)
        });
        // A file's name holds the time.
        let volatile = ["date", "content-disposition"];
        let headers = headers.filter(|(name, _)| !volatile.contains(&name.as_str()));
        let headers = headers.collect();
        let body = if route.is_endless && status == 200 {
            String::new()
        } else {
            answer.text().await.unwrap()
        };
        // An export stands on the tenant's own timeline, and in its next export.
        let is_ours =
            |line: &&str| route.path != "/api/v1/export" || !line.contains("daybook.export");
        let body = body.lines().filter(is_ours).collect::<Vec<_>>().join("\n");
        // A page says for print when it was made.
        let body = match body.split_once("As of <time") {
            Some((before, rest)) => {
                let (_, behind) = rest.split_once("</time>").unwrap();
                format!("{before}{behind}")
            }
            None => body,
        };
        // A range begins so long before it is asked for.
        let body = match path.contains("range=") {
            true => without_times(&body, "since="),
            false => body,
        };
        Reply {
            status,
            headers,
            body,
        }
    }
}

/// A text without the times that follow these words.
fn without_times(text: &str, before: &str) -> String {
    let is_of_time = |letter: char| letter.is_ascii_digit() || "-T:Z".contains(letter);
    let parts = text.split(before);
    let parts = parts.map(|part| part.trim_start_matches(is_of_time));
    parts.collect::<Vec<_>>().join(before)
}

fn event(source: &str, number: i64, at: i64) -> AuditEvent {
    AuditEvent {
        at: Timestamp::from_millisecond(at).unwrap(),
        source: SourceName::new(source),
        external_id: format!("{source}-{number}-{at}"),
        action: "platform.done".into(),
        outcome: Some(Outcome::Success),
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: serde_json::Map::new().into(),
    }
}

const NOW: i64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;

fn of_ours(number: i64) -> AuditEvent {
    let mut one = event("platform", number, NOW + number * HOUR);
    one.actor.name = Some(format!("Alice {number}").into());
    one.actor.ip = Some("198.51.100.1".into());
    one.target.name = Some("report.odt".into());
    one.action = "platform.report_read".into();
    one
}

/// Events of another tenant and of none: earlier, later and between ours, of our source and another,
/// with texts of ours and texts of their own.
fn of_others() -> Vec<(AuditEvent, Option<&'static str>)> {
    let mut events = Vec::new();
    for (number, tenant) in [(0, Some(OTHERS)), (1, None)] {
        for at in [NOW - 9000 * HOUR, NOW + HOUR, NOW + 9000 * HOUR] {
            let mut like_ours = of_ours(1);
            like_ours.at = Timestamp::from_millisecond(at + number).unwrap();
            like_ours.external_id = format!("{SECRET}-{number}-{at}");
            like_ours.metadata = json!({ "secret": SECRET })
                .as_object()
                .unwrap()
                .clone()
                .into();
            events.push((like_ours, tenant));
            let mut own = event(SECRET, number, at);
            own.action = format!("{SECRET}.deleted").into();
            own.outcome = Some(Outcome::Failure);
            own.actor = Actor {
                id: Some(format!("{SECRET}-id").into()),
                email: Some(format!("{SECRET}@example.org").into()),
                name: Some(format!("{SECRET} person").into()),
                ip: Some("203.0.113.99".into()),
            };
            own.target = Target {
                kind: Some("file".into()),
                id: Some(format!("{SECRET}-target").into()),
                name: Some(format!("{SECRET}.txt").into()),
            };
            events.push((own, tenant));
        }
    }
    events
}

/// Query strings: each parameter alone with values of ours, of others and of nobody, and together.
fn questions(route: &Route, others: &[PageKey]) -> Vec<String> {
    let mut values: Vec<(&str, Vec<String>)> = vec![
        ("source", words(&["platform", SECRET, "nobody"])),
        ("tenant", words(&["", OURS])),
        (
            "action",
            words(&[
                "platform.report_read",
                "platform.*",
                "zulu.*",
                "zulu.deleted",
                "*",
            ]),
        ),
        (
            "actor",
            words(&[
                "alice%201",
                "zulu-id",
                "zulu%40example.org",
                "ZULU%20person",
            ]),
        ),
        ("ip", words(&["198.51.100.1", "203.0.113.99"])),
        ("target", words(&["report.odt", "zulu-target", "zulu.txt"])),
        ("outcome", words(&["success", "failure", "unknown"])),
        (
            "text",
            words(&["report", SECRET, "zul", "203.0", "e", "nobody"]),
        ),
        (
            "since",
            vec![time(NOW - 9999 * HOUR), time(NOW + 5000 * HOUR)],
        ),
        (
            "until",
            vec![time(NOW - 5000 * HOUR), time(NOW + 9999 * HOUR)],
        ),
    ];
    values.retain(|(name, _)| route.takes_filter || *name == "tenant");
    for parameter in route.parameters {
        let values_of = match *parameter {
            "limit" => words(&["1", "2", "1000"]),
            "buckets" => words(&["1", "7", "1000"]),
            "format" => words(&["ndjson", "csv", "ecs"]),
            "before" => others.iter().map(encode_page_key).collect(),
            "beats" => words(&["1"]),
            // How much of ours is in it changes with the time.
            "range" => words(&["15m&source=zulu", "30d&source=zulu"]),
            "tz" => words(&["utc", "local"]),
            "kept" => words(&["source%3Dzulu", "text%3Dreport"]),
            other => panic!("no values for {other}"),
        };
        values.push((parameter, values_of));
    }
    let always = route.always;
    let join = |pairs: &[String]| {
        let mut pairs = pairs.to_vec();
        if !always.is_empty() && !pairs.iter().any(|pair| pair.starts_with("format=")) {
            pairs.push(always.to_owned());
        }
        pairs.join("&")
    };
    let mut questions = vec![join(&[])];
    for (name, values_of) in &values {
        for value in values_of {
            questions.push(join(&[format!("{name}={value}")]));
        }
    }
    if route.takes_filter {
        questions.push(join(&words(&[
            "source=zulu",
            "outcome=failure",
            "text=zulu",
        ])));
        questions.push(join(&words(&[
            "source=platform",
            "text=report",
            "tenant=alpha",
        ])));
        questions.push(join(&words(&["actor=zulu-id", "ip=203.0.113.99"])));
    }
    questions
}

/// Whether an answer may hold their word, because the request does.
fn asks_for_others(request: &str) -> bool {
    request.contains(SECRET) || request.contains("ZULU")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn time(at: i64) -> String {
    Timestamp::from_millisecond(at).unwrap().to_string()
}

/// Every request of a route, with ids of ours, of others and of nobody.
fn requests(route: &Route, ids: &[String], others: &[PageKey]) -> Vec<String> {
    let paths: Vec<String> = if route.path.contains("{id}") {
        ids.iter()
            .map(|id| route.path.replace("{id}", id))
            .collect()
    } else {
        vec![route.example.to_owned()]
    };
    let mut requests = Vec::new();
    for path in paths {
        for question in questions(route, others) {
            requests.push(if question.is_empty() {
                path.clone()
            } else {
                format!("{path}?{question}")
            });
        }
    }
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_a_tenant_depends_on_anothers_events() {
    compare(|route| route.path != "/api/v1/export").await;
}

/// Apart from the others, because an export stands on the tenant's timeline itself.
#[tokio::test(flavor = "multi_thread")]
async fn no_export_of_a_tenant_depends_on_anothers_events() {
    compare(|route| route.path == "/api/v1/export").await;
}

async fn compare(asked: fn(&Route) -> bool) {
    let guarded = Guarded::start().await;
    let ours: Vec<_> = (0..5).map(|number| (of_ours(number), Some(OURS))).collect();
    guarded.enter(&ours).await;
    let first = guarded.all_events().await;
    // Ids are row numbers: the others' will be the next ones.
    let next = first.len() + 1;
    let others = of_others();
    let keys: Vec<PageKey> = others
        .iter()
        .enumerate()
        .map(|(number, (event, _))| PageKey {
            at: event.at,
            id: format!("{:016x}", next + number),
        })
        .collect();
    let mut ids: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
    ids.extend([
        first[0].id.clone(),
        "ffffffffffffffff".to_owned(),
        "x".to_owned(),
    ]);

    let readable = || {
        let is_read = |route: &&Route| matches!(route.access, Access::Tenant | Access::Page);
        let rows = ROUTES.iter().filter(is_read);
        rows.filter(move |route| asked(route))
    };
    let ask_all = async || {
        let mut replies = Vec::new();
        for route in readable() {
            let destinations: &[&str] = match route.path {
                "/audit" => &["empty", "document"],
                _ => &["empty"],
            };
            for request in requests(route, &ids, &keys) {
                for destination in destinations {
                    // A busy machine may show a page before its bars are counted.
                    let mut reply = None;
                    eventually("the whole page", async || {
                        let token = Some(guarded.ours.as_str());
                        let asked = guarded.get_for(destination, &request, token, route).await;
                        let asked = reply.insert(asked);
                        // A window gets the list in parts, of no length that is known before, where the store is up.
                        let mut names = asked.headers.iter().map(|(name, _)| name);
                        let is_in_parts = names.all(|name| name != "content-length");
                        let is_list = *destination == "document" && asked.status == 200;
                        !asked.body.contains("chart pending") && (is_in_parts || !is_list)
                    })
                    .await;
                    replies.push((request.clone(), reply.unwrap()));
                }
            }
        }
        replies
    };
    let before = ask_all().await;
    guarded.enter(&others).await;
    // Exports take ids of their own, but ask for none.
    if readable().any(|route| route.path.contains("{id}")) {
        let entered = guarded.all_events().await;
        for key in &keys {
            let found = entered.iter().find(|event| event.id == key.id).unwrap();
            assert_eq!(found.at, key.at, "the ids are as foreseen");
        }
    }
    let after = ask_all().await;
    let asked = readable().count();
    assert!(before.len() >= asked * 5, "{} requests", before.len());
    for ((request, one), (_, other)) in before.iter().zip(&after) {
        assert_eq!(one, other, "{request}");
        if !asks_for_others(request) {
            assert!(!other.body.contains(SECRET), "{request}: {}", other.body);
        }
    }
    // The requests ask for something: the others' owner sees it, and so does an operator.
    let list = ROUTES.iter().find(|route| route.path == "/api/v1/events");
    for (token, count) in [(&guarded.others, 6), (&guarded.operator, 17)] {
        let mut seen = 0;
        for source in ["platform", SECRET] {
            let request = format!("/api/v1/events?source={source}");
            let reply = guarded.get(&request, Some(token), list.unwrap()).await;
            let answer: Value = serde_json::from_str(&reply.body).unwrap();
            seen += answer["events"].as_array().unwrap().len();
        }
        assert_eq!(seen, count);
    }
    guarded.world.stop().await;
}

/// Whatever it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn each_role_enters_only_where_it_may() {
    let guarded = Guarded::start().await;
    guarded.enter(&of_others()).await;
    let entered = guarded.all_events().await;
    let keys: Vec<_> = entered.iter().map(PageKey::of).collect();
    for route in ROUTES {
        // Whatever takes no filter is asked without one.
        let paths = match route.takes_filter {
            true => requests(route, &[], &keys),
            false => vec![route.example.to_owned()],
        };
        let roles = [
            ("none", None, route.access.to_nobody()),
            ("unknown", Some("Bearer dbk_0000"), route.access.to_nobody()),
            (
                "recorder",
                Some(guarded.recorder.as_str()),
                route.access.to_recorder(),
            ),
            (
                "tenant",
                Some(guarded.ours.as_str()),
                route.access.to_tenant(),
            ),
            (
                "operator",
                Some(guarded.operator.as_str()),
                route.access.to_operator(),
            ),
        ];
        for path in &paths {
            for (role, token, expected) in roles {
                let Reply { status, body, .. } = guarded.get(path, token, route).await;
                let asked = format!("{path} as {role}: {status} {body}");
                assert!(expected.contains(&status), "{asked}");
                if role != "operator" {
                    assert!(asks_for_others(path) || !body.contains(SECRET), "{asked}");
                    assert!(!body.contains(OTHERS), "{asked}");
                }
            }
        }
        if route.access == Access::Tenant && route.takes_filter {
            let of_another = format!("{}?tenant={OTHERS}&{}", route.example, route.always);
            let reply = guarded.get(&of_another, Some(&guarded.ours), route).await;
            assert_eq!(reply.status, 403, "{of_another}: {}", reply.body);
            assert!(!reply.body.contains(SECRET), "{of_another}: {}", reply.body);
        }
    }
    guarded.world.stop().await;
}

/// A stream of ours that asks for just what the others' events are: it tells ours alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_a_tenant_its_own_events_alone() {
    let stream = "/api/v1/events/stream";
    let guarded = Guarded::start().await;
    guarded.enter(&[(of_ours(0), Some(OURS))]).await;
    let mut readers = Vec::new();
    for question in [
        "",
        "?source=zulu",
        "?action=zulu.*",
        "?actor=zulu-id",
        "?ip=203.0.113.99",
        "?target=zulu.txt",
        "?outcome=failure",
        "?text=zulu",
    ] {
        let url = guarded.world.url(&format!("{stream}{question}"));
        let request = guarded.world.client().get(url);
        let request = request.header("authorization", &guarded.ours);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{question}");
        readers.push((question, answer));
    }
    let others = of_others();
    guarded.enter(&others).await;
    // Like the others' in all that the filters ask for, but ours: it ends each stream.
    let (mut sentinel, _) = others
        .iter()
        .find(|(event, _)| event.source.as_str() == SECRET)
        .cloned()
        .unwrap();
    sentinel.external_id = "sentinel".to_owned();
    guarded.enter(&[(sentinel, Some(OURS))]).await;
    for (question, mut answer) in readers {
        let mut told = String::new();
        while !told.contains("\"externalId\":\"sentinel\"") {
            let chunk = answer.chunk().await.unwrap().expect("the stream goes on");
            told.push_str(&String::from_utf8_lossy(&chunk));
        }
        let data = told.lines().filter_map(|line| line.strip_prefix("data:"));
        for event in data {
            let event: Value = serde_json::from_str(event).unwrap();
            assert_eq!(event["tenantSlug"], OURS, "{question}: {event}");
        }
        assert!(!told.contains(OTHERS), "{question}: {told}");
    }
    guarded.world.stop().await;
}

/// The paths that the sources under `src/http` give to the router.
fn present_routes() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(path).unwrap();
                for call in source.split(".route(").skip(1) {
                    if let Some(rest) = call.trim_start().strip_prefix('"') {
                        routes.insert(rest.split('"').next().unwrap().to_owned());
                    }
                }
            }
        }
    }
    routes
}

#[test]
fn every_route_has_a_row_and_every_row_its_route() {
    let rows: BTreeSet<_> = ROUTES.iter().map(|route| route.path.to_owned()).collect();
    assert_eq!(rows.len(), ROUTES.len(), "a path has two rows");
    assert_eq!(present_routes(), rows);
}
