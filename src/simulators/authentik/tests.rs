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
        .timeout(Duration::from_secs(5))
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

#[tokio::test]
async fn pages_follow_one_another_newest_first_and_say_where_they_are() {
    let world = World::with(Profile::V2025_12, 54).await;
    let (_, first) = world.json(&format!("{EVENTS}?page_size=20")).await;
    assert_eq!(
        first["pagination"],
        sample("page_first_desc.json")["pagination"]
    );
    assert_eq!(first["results"][0]["context"]["name"], "e53");

    let (_, last) = world
        .json(&format!("{EVENTS}?page_size=20&page=last"))
        .await;
    assert_eq!(
        last["pagination"],
        json!({"next": 0, "previous": 2, "count": 54, "current": 3, "total_pages": 3, "start_index": 41, "end_index": 54})
    );
    assert_eq!(last["results"][13]["context"]["name"], "e0");
    assert_eq!(
        world.names("ordering=created&page_size=3").await,
        ["e0", "e1", "e2"]
    );
    for beyond in ["4", "0", "-1", "x"] {
        let (status, body) = world
            .json(&format!("{EVENTS}?page_size=20&page={beyond}"))
            .await;
        assert_eq!((status, body), (404, json!({"detail": "Invalid page."})));
    }
}

#[tokio::test]
async fn an_empty_set_has_one_empty_page() {
    let world = World::with(Profile::V2025_12, 0).await;
    let (status, body) = world.json(&format!("{EVENTS}?page=1")).await;
    let real = sample("page_empty_filter_no_match.json");
    assert_eq!(status, 200);
    assert_eq!(body["pagination"], real["pagination"]);
    assert_eq!(keys(&body), keys(&real));
}

#[tokio::test]
async fn page_sizes_are_clamped_by_version_without_a_word() {
    let world = World::with(Profile::V2025_12, 250).await;
    for (asked, granted) in [("500", 100), ("0", 20), ("-3", 20), ("many", 20), ("7", 7)] {
        assert_eq!(
            world.names(&format!("page_size={asked}")).await.len(),
            granted
        );
    }
    assert_eq!(world.names("").await.len(), 20);
    let old = World::with(Profile::V2024, 250).await;
    assert_eq!(old.names("").await.len(), 100);
    assert_eq!(old.names("page_size=240").await.len(), 240);
}

#[tokio::test]
async fn time_filters_and_other_unknown_parameters_change_nothing() {
    let world = World::with(Profile::V2025_12, 30).await;
    let plain = world.names("page_size=30").await;
    for ignored in [
        "created__gt=2026-11-01T00:00:20Z",
        "created__gte=2030-01-01T00:00:00Z",
        "created=1999-01-01",
        "colour=red",
        "ordering=colour",
        "search=",
    ] {
        assert_eq!(
            world.names(&format!("page_size=30&{ignored}")).await,
            plain,
            "{ignored}"
        );
    }
}

#[tokio::test]
async fn real_filters_filter() {
    let world = World::with(Profile::V2025_12, 40).await;
    assert_eq!(world.names("action=login&page_size=100").await.len(), 40);
    assert_eq!(
        world.names("action=login_failed&page_size=100").await.len(),
        20
    );
    assert_eq!(world.names("actions=login&page_size=100").await.len(), 20);
    assert_eq!(
        world
            .names("actions=login&actions=login_failed&page_size=100")
            .await
            .len(),
        40
    );
    assert_eq!(world.names("username=user3&page_size=100").await.len(), 8);
    assert_eq!(
        world.names("client_ip=192.0.2.6&page_size=100").await.len(),
        5
    );
    assert_eq!(world.names("search=%22E39%22").await, ["e39"]);
    assert!(world.names("username=nobody").await.is_empty());

    let (status, body) = world.json(&format!("{EVENTS}?actions=nope")).await;
    assert_eq!(
        (status, body),
        (400, sample("err_400_actions_invalid.json"))
    );

    let before = world.fake.event_count();
    let broken = world
        .get(&format!("{EVENTS}?client_ip=zz"))
        .send()
        .await
        .unwrap();
    assert_eq!(broken.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(is_html(&broken));
    assert_eq!(world.fake.event_count(), before + 1);
    assert_eq!(world.fake.promised().of("system_exception"), 1);
}

#[tokio::test]
async fn only_the_newest_version_compares_times_and_only_in_its_own_spelling() {
    let world = World::with(Profile::V2026_5, 40).await;
    let from = |time: &str| format!("page_size=100&search=created%20%3E%3D%20%22{time}%22");
    assert_eq!(world.names(&from("2026-11-01%2000:00:30")).await.len(), 10);
    assert!(world.names(&from("2026-11-01T00:00:30Z")).await.is_empty());
    let broken = world
        .get(&format!("{EVENTS}?search=event_uuid%20%3E%20%220%22"))
        .send()
        .await
        .unwrap();
    assert_eq!(broken.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn an_event_can_become_visible_behind_newer_ones() {
    let world = World::with(Profile::V2025_12, 5).await;
    let mut late = numbered(2);
    late["context"]["name"] = "late".into();
    late["created"] = "2026-11-01T00:00:02.5Z".into();
    let pk = world.fake.insert(late, Duration::from_millis(150));
    assert_eq!(world.fake.event_count(), 6);
    assert_eq!(world.names("").await, ["e4", "e3", "e2", "e1", "e0"]);
    assert_eq!(
        world
            .get(&format!("{EVENTS}{pk}/"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );

    let seen = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let names = world.names("").await;
            if names.len() == 6 {
                return names;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(seen, ["e4", "e3", "late", "e2", "e1", "e0"]);
}

#[tokio::test]
async fn equal_times_come_in_any_order_unless_the_key_decides() {
    let world = World::with(Profile::V2025_12, 0).await;
    let mut twin = numbered(1);
    let twins: Vec<Value> = (0..60)
        .map(|number| {
            twin["context"]["name"] = format!("t{number}").into();
            twin.clone()
        })
        .collect();
    world.fake.insert_many(twins);
    let orders: HashSet<Vec<String>> = {
        let mut orders = HashSet::new();
        for _ in 0..4 {
            orders.insert(world.names("ordering=-created&page_size=60").await);
        }
        orders
    };
    assert!(orders.len() > 1, "ties must not come in one fixed order");
    assert!(
        orders
            .iter()
            .all(|o| o.iter().collect::<HashSet<_>>().len() == 60)
    );

    let mut walked = Vec::new();
    for page in 1..=3 {
        walked.extend(
            world
                .names(&format!("ordering=-created,-pk&page_size=20&page={page}"))
                .await,
        );
    }
    assert_eq!(walked.iter().collect::<HashSet<_>>().len(), 60);
    assert_eq!(
        walked,
        world.names("ordering=-created,-pk&page_size=60").await
    );
    let mut up = world.names("ordering=created,pk&page_size=60").await;
    up.reverse();
    assert_eq!(up, walked);
}

#[tokio::test]
async fn refusals_are_403_in_three_wordings() {
    let world = World::with(Profile::V2025_12, 3).await;
    world.fake.add_token("no-rights", Permissions::NONE);
    world.fake.add_token("outpost", Permissions::OUTPOST);
    let token = world.fake.token();
    let ask = |header: Option<String>| {
        let mut request = world.client.get(format!("{}{EVENTS}", world.fake.url()));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        async move {
            let response = request.send().await.unwrap();
            (
                response.status().as_u16(),
                response.json::<Value>().await.unwrap(),
            )
        }
    };
    let not_provided = (
        403,
        json!({"detail": "Authentication credentials were not provided."}),
    );
    let invalid = (403, json!({"detail": "Token invalid/expired"}));
    for header in [
        None,
        Some("Bearer".to_owned()),
        Some(format!("Token {token}")),
        Some("Basic eDp5".to_owned()),
        Some(token.clone()),
    ] {
        assert_eq!(ask(header).await, not_provided);
    }
    assert_eq!(ask(Some("Bearer wrong".to_owned())).await, invalid);
    assert_eq!(ask(Some(format!("Bearer  {token}"))).await, invalid);
    assert_eq!(
        ask(Some("Bearer no-rights".to_owned())).await,
        (
            403,
            json!({"detail": "You do not have permission to perform this action."})
        )
    );
    assert_eq!(ask(Some(format!("bEARER {token}"))).await.0, 200);
    let (status, blind) = ask(Some("Bearer outpost".to_owned())).await;
    assert_eq!((status, &blind["pagination"]["count"]), (200, &json!(0)));

    let renewed = world.fake.rotate_token();
    assert_eq!(ask(Some(format!("Bearer {token}"))).await, invalid);
    assert_eq!(ask(Some(format!("Bearer {renewed}"))).await.0, 200);
}

#[tokio::test]
async fn rights_to_look_people_up_are_separate() {
    let world = World::start(FakeAuthentikConfig {
        permissions: Permissions::EVENTS_ONLY,
        ..FakeAuthentikConfig::default()
    })
    .await;
    world.fake.add_people(&People::new(1));
    for path in [
        "/api/v3/core/users/",
        "/api/v3/core/users/10/",
        "/api/v3/core/groups/",
    ] {
        assert_eq!(world.json(path).await.0, 403, "{path}");
    }
    let (status, me) = world.json("/api/v3/core/users/me/").await;
    assert_eq!(status, 200);
    assert_same_shape(&me, &sample("core_users_me.json"), "me");
}

#[tokio::test]
async fn people_and_groups_have_the_real_shapes() {
    let world = World::with(Profile::V2025_12, 0).await;
    let people = People::new(1);
    world.fake.add_people(&people);
    let person = &people.persons[0];
    let (_, user) = world
        .json(&format!("/api/v3/core/users/{}/", person.pk))
        .await;
    assert_same_shape(&user, &sample("core_user_by_pk.json"), "user");
    assert_eq!(user["uid"], *person.uid);
    assert_eq!(
        user["groups_obj"][0]["name"],
        *people.tenant_of(person).unwrap().group.name
    );
    let (_, groups) = world
        .json(&format!("/api/v3/core/groups/?members_by_pk={}", person.pk))
        .await;
    assert_eq!(groups["pagination"]["count"], 1);
    assert_same_shape(&groups, &sample("core_groups_list.json"), "groups");
    let (_, users) = world
        .json("/api/v3/core/users/?page_size=5&include_groups=false")
        .await;
    assert_eq!(users["results"].as_array().unwrap().len(), 5);
    assert_eq!(users["results"][0]["groups_obj"], Value::Null);
    assert_eq!(keys(&users), keys(&sample("core_users_list.json")));

    world.fake.remove_user(person.pk);
    let gone = world
        .json(&format!("/api/v3/core/users/{}/", person.pk))
        .await;
    assert_eq!(
        gone,
        (404, json!({"detail": "No User matches the given query."}))
    );
}

#[tokio::test]
async fn versions_differ_as_the_real_ones_do() {
    let people = People::new(1);
    let mut rng = StdRng::seed_from_u64(3);
    let event = events::realistic(&mut rng, &people, Timestamp::now());
    let old = World::with(Profile::V2023, 0).await;
    old.fake.insert(event.clone(), Duration::ZERO);
    let (_, body) = old.json(EVENTS).await;
    let real = sample("page_first_desc_v2023_tenant_field.json");
    assert_eq!(keys(&body), keys(&real));
    assert_eq!(keys(&body["results"][0]), keys(&real["results"][0]));
    assert_eq!(
        keys(&body["results"][0]["tenant"]),
        keys(&real["results"][0]["tenant"])
    );
    assert!(!body.to_string().contains("request_id"));

    let new = World::with(Profile::V2025_12, 0).await;
    new.fake.insert(event, Duration::ZERO);
    let (_, body) = new.json(EVENTS).await;
    let real = sample("page_first_desc.json");
    assert_eq!(keys(&body), keys(&real));
    assert_eq!(keys(&body["results"][0]), keys(&real["results"][0]));
    assert_eq!(body["autocomplete"], real["autocomplete"]);
    assert_eq!(
        new.json("/api/v3/admin/version/").await.1["version_current"],
        "2025.12.4"
    );
    assert!(
        new.json(&format!("{EVENTS}actions/"))
            .await
            .1
            .as_array()
            .unwrap()
            .len()
            > 20
    );
}

fn is_html(response: &reqwest::Response) -> bool {
    response.headers()["content-type"]
        .to_str()
        .unwrap()
        .starts_with("text/html")
}

#[tokio::test]
async fn routes_and_headers_are_strict() {
    let world = World::with(Profile::V2025_12, 1).await;
    for path in ["/api/v3/events/events", "/api/v3/events/nope/", "/"] {
        let response = world.get(path).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert!(is_html(&response), "{path}");
    }
    let refused = world
        .get(EVENTS)
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 406);
    let response = world.get(EVENTS).send().await.unwrap();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("vary", "Accept-Language, Cookie"),
        ("allow", "GET, POST, HEAD, OPTIONS"),
        ("x-frame-options", "DENY"),
        ("x-powered-by", "authentik"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    assert_eq!(response.headers()["x-authentik-id"].len(), 32);
    assert!(!response.headers().contains_key("etag"));
    let unknown = world
        .json(&format!("{EVENTS}00000000-0000-0000-0000-000000000000/"))
        .await;
    assert_eq!(
        unknown,
        (404, json!({"detail": "No Event matches the given query."}))
    );
    assert_eq!(
        world.json(&format!("{EVENTS}nonsense/")).await,
        (404, json!({"detail": "Not found."}))
    );
    let token = world.fake.token();
    let put = world
        .client
        .put(format!("{}{EVENTS}", world.fake.url()))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 405);
    let post = world
        .client
        .post(format!("{}{EVENTS}", world.fake.url()))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(post.status(), 403);
}

#[tokio::test]
async fn faults_with_an_answer_answer_as_the_original() {
    let world = World::with(Profile::V2025_12, 30).await;
    let cases = [
        (Fault::Unauthorized, 401, "text/html", "nginx"),
        (
            Fault::Forbidden("Token invalid/expired"),
            403,
            "application/json",
            "Token invalid",
        ),
        (Fault::InvalidPage, 404, "application/json", "Invalid page."),
        (Fault::NotFoundHtml, 404, "text/html", "Not Found"),
        (
            Fault::TooManyRequests {
                retry_after: 37,
                html: false,
            },
            429,
            "application/json",
            "Expected available in 37 seconds.",
        ),
        (
            Fault::TooManyRequests {
                retry_after: 10,
                html: true,
            },
            429,
            "text/html",
            "429 Too Many Requests",
        ),
        (Fault::ServerError, 500, "text/html", "Server Error"),
        (
            Fault::BadGateway,
            502,
            "text/plain",
            "failed to connect to authentik backend",
        ),
        (Fault::Starting, 503, "text/plain", "authentik starting"),
        (
            Fault::GatewayTimeout,
            504,
            "text/html",
            "504 Gateway Time-out",
        ),
        (Fault::OkHtml, 200, "text/html", "<!DOCTYPE html>"),
        (
            Fault::OkWithoutPagination,
            200,
            "application/json",
            "status",
        ),
        (Fault::RedirectToLogin, 302, "text/html", ""),
    ];
    let count = cases.len();
    for (fault, status, content_type, text) in cases {
        world.fake.set_fault(fault.clone(), Times::Next(1));
        let response = world.get(EVENTS).send().await.unwrap();
        assert_eq!(response.status(), status, "{fault:?}");
        let headers = response.headers().clone();
        assert!(
            headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with(content_type),
            "{fault:?}"
        );
        if let Fault::TooManyRequests { retry_after, .. } = fault {
            assert_eq!(headers["retry-after"], retry_after.to_string().as_str());
        }
        if fault == Fault::Starting {
            assert_eq!(headers["retry-after"], "5");
        }
        if fault == Fault::ServerError {
            assert!(!headers.contains_key("x-authentik-id"));
        }
        assert!(response.text().await.unwrap().contains(text), "{fault:?}");
    }
    assert_eq!(world.fake.fault_hits(), count as u64);
    assert_eq!(
        world.names("").await.len(),
        20,
        "a fault ends with its count"
    );
    let statuses: Vec<u16> = world.fake.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses[..4], [401, 403, 404, 404]);
    assert_eq!(world.fake.request_count(), count as u64 + 1);
}

#[tokio::test]
async fn starting_depends_on_version_and_accept() {
    let new = World::with(Profile::V2025_12, 0).await;
    new.fake.set_fault(Fault::Starting, Times::Forever);
    let json = new
        .get(EVENTS)
        .header("accept", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(
        json.text().await.unwrap(),
        "{\"error\":\"authentik starting\"}\n"
    );
    let html = new
        .get(EVENTS)
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    assert!(is_html(&html));
    new.fake.clear_faults();
    assert_eq!(new.json(EVENTS).await.0, 200);

    let old = World::with(Profile::V2024, 0).await;
    old.fake.set_fault(Fault::Starting, Times::Next(1));
    let answer = old.get(EVENTS).send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .ends_with("authentik starting\n")
    );
}

#[tokio::test]
async fn faults_of_the_connection_break_the_answer() {
    let world = World::with(Profile::V2025_12, 100).await;
    let path = format!("{EVENTS}?page_size=100");

    world.fake.set_fault(Fault::ResetMidBody, Times::Next(1));
    let response = world.get(&path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let error = response.bytes().await.unwrap_err();
    assert!(error.is_body() || error.is_decode(), "{error:?}");

    world.fake.set_fault(Fault::TruncatedJson, Times::Next(1));
    let body = world
        .get(&path)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert!(body.starts_with(b"{\"pagination\""));
    assert!(serde_json::from_slice::<Value>(&body).is_err());

    let drip = Fault::SlowDrip {
        chunk: 40_000,
        pause: Duration::from_millis(5),
    };
    world.fake.set_fault(drip, Times::Next(1));
    assert_eq!(world.names("page_size=100").await.len(), 100);

    world
        .fake
        .set_fault(Fault::HangBeforeHeaders, Times::Next(1));
    let hung = world
        .get(&path)
        .timeout(Duration::from_millis(200))
        .send()
        .await;
    assert!(hung.unwrap_err().is_timeout());
    assert_eq!(world.fake.requests().last().unwrap().status, 0);

    world
        .fake
        .set_fault(Fault::PageSizeClamp(7), Times::Forever);
    assert_eq!(world.names("page_size=100").await.len(), 7);
    assert_eq!(world.names("page_size=3").await.len(), 3);
}

#[tokio::test]
async fn a_fault_can_wait_for_its_turn_and_its_path() {
    let world = World::with(Profile::V2025_12, 3).await;
    world.fake.script(
        Scripted::new(Fault::ServerError)
            .after(2)
            .on("/events/events/"),
    );
    let mut statuses = Vec::new();
    for path in [EVENTS, "/api/v3/core/users/me/", EVENTS, EVENTS, EVENTS] {
        statuses.push(world.get(path).send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 500, 200]);
}

#[tokio::test]
async fn a_redirect_leads_to_a_page_that_is_no_json() {
    let world = World::with(Profile::V2025_12, 3).await;
    world.fake.set_fault(Fault::RedirectToLogin, Times::Next(1));
    ensure_tls_provider();
    let following = reqwest::Client::new()
        .get(format!("{}{EVENTS}", world.fake.url()))
        .bearer_auth(world.fake.token())
        .send()
        .await
        .unwrap();
    assert_eq!(following.status(), 200);
    assert!(is_html(&following));
    assert_eq!(world.fake.request_count(), 2);
}

#[tokio::test]
async fn events_disappear_in_the_middle_of_a_walk() {
    let world = World::with(Profile::V2025_12, 60).await;
    world.fake.at_request(2, |fake| {
        assert_eq!(fake.delete_user_events(3), 12);
    });
    let first = world.names("page_size=20").await;
    let second = world.names("page_size=20&page=2").await;
    assert_eq!(first.len(), 20);
    // Four of the twelve stood on the first page, so four others moved up onto it, unseen.
    assert_eq!(second[0], "e34");
    let missed: Vec<&str> = ["e39", "e37", "e36", "e35"]
        .into_iter()
        .filter(|name| !first.iter().chain(&second).any(|seen| seen == name))
        .collect();
    assert_eq!(missed.len(), 4);
    assert_eq!(world.fake.event_count(), 48);
    assert_eq!(world.fake.promised().total, 60);
}

#[tokio::test]
async fn deletion_expiry_and_trimming_remove_events() {
    let world = World::start(FakeAuthentikConfig {
        keep_last: Some(100),
        ..FakeAuthentikConfig::default()
    })
    .await;
    let pk = world
        .fake
        .insert(json!({"action": "logout"}), Duration::ZERO);
    assert_eq!(
        world.json(&format!("{EVENTS}{pk}/")).await.1["action"],
        "logout"
    );
    assert!(world.fake.delete(&pk));
    assert!(!world.fake.delete(&pk));
    let mut short = numbered(1);
    short["expires"] = "2026-11-02T00:00:00Z".into();
    world.fake.insert(short, Duration::ZERO);
    assert_eq!(
        world.fake.expire("2026-11-03T00:00:00Z".parse().unwrap()),
        1
    );
    for number in 0..500 {
        world.fake.insert(numbered(number), Duration::ZERO);
    }
    assert!(world.fake.event_count() <= 110);
    assert_eq!(world.names("page_size=1").await, ["e499"]);
}

#[tokio::test]
async fn times_lose_their_fraction_when_it_is_zero() {
    let whole: Timestamp = "2026-11-24T01:49:26Z".parse().unwrap();
    assert_eq!(archive::django_time(whole), "2026-11-24T01:49:26Z");
    let fraction: Timestamp = "2026-11-24T01:49:26.5Z".parse().unwrap();
    assert_eq!(
        archive::django_time(fraction),
        "2026-11-24T01:49:26.500000Z"
    );
}

#[tokio::test]
async fn skewed_clocks_show_in_created() {
    let world = World::start(FakeAuthentikConfig {
        clock_skews: vec![SignedDuration::from_secs(-90)],
        ..FakeAuthentikConfig::default()
    })
    .await;
    world
        .fake
        .insert(json!({"action": "login"}), Duration::ZERO);
    let (_, body) = world.json(EVENTS).await;
    let created: Timestamp = body["results"][0]["created"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let behind = Timestamp::now().duration_since(created);
    assert!(behind >= SignedDuration::from_secs(89), "{behind}");
}

#[tokio::test]
async fn a_lagging_replica_does_not_know_the_newest() {
    let world = World::start(FakeAuthentikConfig {
        replica_lags: vec![Duration::ZERO, Duration::from_secs(600)],
        ..FakeAuthentikConfig::default()
    })
    .await;
    world.fake.insert(numbered(1), Duration::ZERO);
    let mut counts = HashSet::new();
    for _ in 0..20 {
        counts.insert(world.names("").await.len());
    }
    assert_eq!(counts, HashSet::from([0, 1]));
}

#[tokio::test]
async fn realistic_events_have_the_shapes_of_real_ones() {
    let real = sample("events.json");
    let real = real.as_array().unwrap();
    let people = People::new(5);
    let mut rng = StdRng::seed_from_u64(5);
    let mut met = BTreeSet::new();
    for _ in 0..2_000 {
        let mut event = events::realistic(&mut rng, &people, Timestamp::now());
        let action = event["action"].as_str().unwrap().to_owned();
        event["brand"] = json!({});
        let twins: Vec<&Value> = real.iter().filter(|r| r["action"] == *action).collect();
        // Not every action was captured; those that were share their context with some capture.
        if action != "user_write" && action != "email_sent" && !twins.is_empty() {
            assert!(
                twins
                    .iter()
                    .any(|twin| keys(&twin["context"]) == keys(&event["context"])),
                "{action}: {}",
                event["context"]
            );
        }
        assert_eq!(keys(&event), keys(&real[0]));
        met.insert(action);
    }
    for action in [
        "login",
        "login_failed",
        "password_set",
        "authorize_application",
        "impersonation_started",
        "model_updated",
    ] {
        assert!(met.contains(action), "{action}");
    }
}

#[tokio::test]
async fn a_hundred_thousand_events_are_served_quickly() {
    let world = World::with(Profile::V2025_12, 100_000).await;
    let started = std::time::Instant::now();
    for page in [1, 2, 500, 999, 1000] {
        let names = world
            .names(&format!("ordering=-created,-pk&page_size=100&page={page}"))
            .await;
        assert_eq!(names.len(), 100);
    }
    // Generous: what matters is that no page sorts or parses the whole store.
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(world.fake.event_count(), 100_000);
}

#[tokio::test]
async fn a_stopped_fake_frees_its_port() {
    let first = FakeAuthentik::start(FakeAuthentikConfig::default()).await;
    let address = first.address();
    first.stop().await;
    let second = FakeAuthentik::try_start(FakeAuthentikConfig {
        listen: address,
        ..FakeAuthentikConfig::default()
    })
    .await
    .unwrap();
    assert_eq!(second.address(), address);
}
