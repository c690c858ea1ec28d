//! Who may send and read: tokens made by a second process beside the running service.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use daybook::http::auth::{hash_token, new_token};
use daybook::store::Role;
use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::World;
use testkit::fail_point::{FailPoint, TEST_COMMANDS};
use testkit::mongod::Mongod;
use testkit::world::{Plan, eventually};

use super::{PATH, RECORDER, post, received};

/// A service that demands tokens, and a second process that makes them.
struct Guarded {
    world: World,
    config: PathBuf,
}

impl Guarded {
    async fn start() -> Self {
        let plan = World::sqlite().await.journal_size("0B");
        Self::start_on(plan, "").await
    }

    /// `store`: more lines of `[store]`.
    async fn start_on(plan: Plan, store: &str) -> Self {
        let config = format!(
            "[store]\nurl = \"{}\"\n[[sources]]\n{RECORDER}\n[[sources]]\nkind = \"recorder\"\nname = \"billing\"\n",
            plan.store_url()
        );
        let config = plan.file("tools.toml", config);
        let plan = plan
            .source(RECORDER)
            .source("kind = \"recorder\"\nname = \"billing\"");
        let world = plan.start_with("auth = \"tokens\"", store).await;
        world.ready().await;
        Self { world, config }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_daybook"))
            .args(["token", "new", "-c"])
            .arg(&self.config)
            .args(arguments)
            .output()
            .unwrap()
    }

    /// `Bearer` and a new token of this role.
    fn token(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).unwrap();
        let token = token.strip_suffix('\n').unwrap();
        assert!(
            token.len() > 40 && !token.contains(char::is_whitespace),
            "the token alone"
        );
        format!("Bearer {token}")
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let request = self.world.client().get(self.world.url(path));
        let answer = request.header("authorization", token).send().await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(),
        )
    }

    async fn record(&self, token: &str, event: Value) -> (u16, Value) {
        post(&self.world, &event, &[("authorization", token)]).await
    }
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (
        answer.0,
        answer.1["error"]["code"].as_str().unwrap_or_default(),
    )
}

/// Two services may count their requests alike; a new token of the same name is the same service.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_its_services_own() {
    let guarded = Guarded::start().await;
    let named = |name| guarded.token(&["--role", "recorder", "--name", name]);
    let unnamed = || guarded.token(&["--role", "recorder"]);
    let [billing, crm, renewed] = ["billing", "crm", "billing"].map(named);
    let [one, other] = [(); 2].map(|()| unnamed());
    let mut nameless = Vec::new();
    for _ in 0..2 {
        let (token, record) = new_token(Role::Recorder(None), Some(String::new()), None);
        let store = guarded.world.daybook().store();
        store.insert_token(&record).await.unwrap();
        nameless.push(format!("Bearer {token}"));
    }
    let send = async |token: &str, action: &str| {
        let headers = [("authorization", token), ("idempotency-key", "req-1")];
        let answer = post(&guarded.world, &json!({ "action": action }), &headers).await;
        assert_eq!(answer, received(1));
    };
    send(&billing, "invoice.paid").await;
    send(&crm, "lead.created").await;
    send(&one, "one.done").await;
    send(&other, "other.done").await;
    send(&nameless[0], "first.done").await;
    send(&nameless[1], "second.done").await;
    for repeat in [&billing, &renewed] {
        send(repeat, "invoice.paid").await;
    }
    let mut actions: Vec<String> = guarded
        .world
        .events()
        .await
        .into_iter()
        .filter(|event| event.source != "daybook")
        .map(|event| event.action)
        .collect();
    actions.sort();
    assert_eq!(
        actions,
        [
            "first.done",
            "invoice.paid",
            "lead.created",
            "one.done",
            "other.done",
            "second.done"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_do_what_it_is_for() {
    let guarded = Guarded::start().await;
    let operator = guarded.token(&["--role", "operator", "--name", "me"]);
    let recorder = guarded.token(&["--role", "recorder"]);
    let billing = guarded.token(&["--role", "recorder", "--source", "billing"]);
    let stray = guarded.token(&["--role", "recorder", "--source", "nowhere"]);
    let tenant = guarded.token(&["--role", "tenant:acme"]);

    let event = |name: &str| json!({"action": "a", "externalId": name});
    assert_eq!(guarded.record(&operator, event("o")).await, received(1));
    assert_eq!(guarded.record(&recorder, event("r")).await, received(1));
    assert_eq!(guarded.record(&billing, event("b")).await, received(1));
    let answer = guarded.record(&stray, event("s")).await;
    assert_eq!(code(&answer), (404, "not_found"));
    let answer = guarded.record(&tenant, event("t")).await;
    assert_eq!(code(&answer), (403, "forbidden"));
    let unknown = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer wrong".to_owned(),
        recorder.replace("Bearer", "Basic"),
        recorder.replace("Bearer ", ""),
        recorder[..recorder.len() - 1].to_owned(),
        recorder.to_uppercase(),
    ];
    for token in &unknown {
        let answer = guarded.record(token, event("u")).await;
        assert_eq!(code(&answer), (401, "unauthorized"), "{token}");
    }
    let answer = post(&guarded.world, &event("n"), &[]).await;
    assert_eq!(code(&answer), (401, "unauthorized"));
    assert_eq!(
        guarded
            .record(&recorder.replace("Bearer ", "bearer  "), event("r"))
            .await,
        received(1)
    );

    let events = guarded.world.events().await;
    let (own, sent): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.source == "daybook");
    let roles: BTreeSet<&str> = own
        .iter()
        .filter(|event| event.action == "daybook.token_created")
        .map(|event| event.metadata["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles,
        BTreeSet::from([
            "operator",
            "recorder",
            "recorder of billing",
            "recorder of nowhere",
            "tenant:acme"
        ]),
        "making a token is an event itself"
    );
    let ids: BTreeSet<&str> = own
        .iter()
        .filter_map(|event| event.target.id.as_deref())
        .collect();
    assert_eq!(ids.len(), 5, "each tells which token: {ids:?}");
    let told = format!("{own:?}");
    for token in [&operator, &recorder, &billing, &stray, &tenant] {
        let token = token.strip_prefix("Bearer ").unwrap();
        assert!(!told.contains(token) && !told.contains(&hash_token(token)));
        assert!(ids.contains(&hash_token(token)[..12]));
    }
    let kept: BTreeSet<(&str, &str)> = sent
        .iter()
        .map(|event| (event.source.as_str(), event.external_id.as_str()))
        .collect();
    assert_eq!(
        kept,
        BTreeSet::from([
            ("platform-api", "o"),
            ("platform-api", "r"),
            ("billing", "b")
        ])
    );

    for path in [PATH, "/api/v1/sources", "/api/v1/events/1"] {
        for token in [&recorder, &billing, &stray] {
            assert_eq!(
                code(&guarded.get(path, token).await),
                (403, "forbidden"),
                "{path}"
            );
        }
        for token in &unknown {
            assert_eq!(
                code(&guarded.get(path, token).await),
                (401, "unauthorized"),
                "{path} {token}"
            );
        }
    }
    assert_eq!(
        guarded.get(&format!("{PATH}?action=a"), &operator).await.1["events"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    guarded.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_events_and_no_trace_of_others() {
    let guarded = Guarded::start().await;
    let operator = guarded.token(&["--role", "operator"]);
    let acme = guarded.token(&["--role", "tenant:acme"]);
    let empty = guarded.token(&["--role", "tenant:ACME"]);
    for (name, slug) in [
        ("1", Some("acme")),
        ("2", Some("globex")),
        ("3", None),
        ("4", Some("acme")),
        ("5", Some("acme-2")),
    ] {
        let event = json!({"action": "a.b", "externalId": name, "tenantSlug": slug, "actor": {"name": "eve"}});
        assert_eq!(guarded.record(&operator, event).await, received(1));
    }
    let names = |answer: &(u16, Value)| -> BTreeSet<String> {
        assert_eq!(answer.0, 200, "{answer:?}");
        let events = answer.1["events"].as_array().unwrap();
        events
            .iter()
            .map(|event| event["externalId"].as_str().unwrap().to_owned())
            .collect()
    };
    let own = BTreeSet::from(["1".to_owned(), "4".to_owned()]);
    for query in [
        "",
        "?tenant=acme",
        "?tenant=",
        "?action=a.*",
        "?text=eve",
        "?actor=eve",
        "?limit=1000",
        "?source=platform-api",
    ] {
        assert_eq!(
            names(&guarded.get(&format!("{PATH}{query}"), &acme).await),
            own,
            "{query}"
        );
        assert!(
            names(
                &guarded
                    .get(
                        &format!("{PATH}{query}").replace("tenant=acme", "tenant=ACME"),
                        &empty
                    )
                    .await
            )
            .is_empty()
        );
    }
    for query in [
        "?tenant=globex",
        "?tenant=acme-2",
        "?tenant=%00",
        "?tenant=acme%20",
        "?tenant=*",
        "?tenant=ac*",
    ] {
        let answer = guarded.get(&format!("{PATH}{query}"), &acme).await;
        assert_eq!(code(&answer), (403, "forbidden"), "{query}");
    }
    for query in [
        "?tenant=acme&tenant=globex",
        "?tenant[$ne]=acme",
        "?Tenant=globex",
    ] {
        let answer = guarded.get(&format!("{PATH}{query}"), &acme).await;
        assert_eq!(code(&answer), (400, "bad_request"), "{query}");
    }
    // A page at a time, too.
    let (_, first) = guarded.get(&format!("{PATH}?limit=1"), &acme).await;
    let next = first["next"].as_str().unwrap();
    let second = guarded
        .get(&format!("{PATH}?limit=1&before={next}"), &acme)
        .await;
    let both = [
        first["events"][0]["externalId"].clone(),
        second.1["events"][0]["externalId"].clone(),
    ];
    assert_eq!(
        both.iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>(),
        own
    );
    assert_eq!(
        second.1["next"],
        Value::Null,
        "no word of what comes after its own"
    );

    // One by one: another's event is not there, exactly like one that never was.
    let never = guarded.get(&format!("{PATH}/0000"), &acme).await;
    for event in guarded.world.events().await {
        let answer = guarded.get(&format!("{PATH}/{}", event.id), &acme).await;
        if event.tenant_slug.as_deref() == Some("acme") {
            assert_eq!(answer.0, 200);
        } else {
            assert_eq!(answer, never, "{event:?}");
        }
        assert_eq!(
            guarded
                .get(&format!("{PATH}/{}", event.id), &operator)
                .await
                .0,
            200
        );
    }
    assert_eq!(
        code(&guarded.get("/api/v1/sources", &acme).await),
        (403, "forbidden")
    );
    guarded.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_wishes_for_a_token_are_told() {
    let guarded = Guarded::start().await;
    for (arguments, told) in [
        (
            &["--role", "admin"][..],
            "operator, recorder or tenant:SLUG",
        ),
        (&["--role", "tenant:"], "operator, recorder or tenant:SLUG"),
        (&["--role", "tenant"], "operator, recorder or tenant:SLUG"),
        (&["--role", ""], "operator, recorder or tenant:SLUG"),
        (
            &["--role", "operator", "--source", "billing"],
            "--source goes with --role recorder",
        ),
        (
            &["--role", "tenant:a", "--source", "billing"],
            "--source goes with --role recorder",
        ),
        (&[], "--role"),
    ] {
        let output = guarded.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
    guarded.world.stop().await;
}

/// Longer than a token is believed without asking, and than the store may take.
const OUTAGE: Duration = Duration::from_secs(9);
/// Events before an outage: of two tokens that were made, and one that was sent.
const BEFORE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_good_is_believed_while_the_store_is_away() {
    let mongod = Mongod::start().await;
    let guarded = Guarded::start_on(World::mongodb(&mongod).await, "timeout = \"2s\"").await;
    let token = guarded.token(&["--role", "recorder"]);
    let never_used = guarded.token(&["--role", "recorder"]);
    assert_eq!(guarded.record(&token, paid(0)).await, received(1));
    guarded.world.events_reach(BEFORE).await;

    mongod.freeze();
    let sent = send_in_outage(&guarded, &token).await;
    // Nobody knows whether these are good.
    for unknown in [&never_used, "Bearer dbk_0000"] {
        let answer = guarded.record(unknown, paid(0)).await;
        assert_eq!(code(&answer), (503, "unavailable"));
    }
    let name = "daybook_recorder_requests_total";
    let refused = guarded.world.metric(name, "code=\"503\"").await;
    assert_eq!(refused, 2.0, "seen by its alert");
    assert_eq!(guarded.get("/api/v1/events", &token).await.0, 403);

    mongod.thaw();
    guarded.world.events_reach(BEFORE + sent).await;
    eventually("the other token is known again", async || {
        guarded.record(&never_used, paid(0)).await == received(1)
    })
    .await;
    guarded.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_good_is_believed_while_the_store_refuses_access() {
    let mongod = Mongod::start_with(TEST_COMMANDS).await;
    let guarded = Guarded::start_on(World::mongodb(&mongod).await, "").await;
    let token = guarded.token(&["--role", "recorder"]);
    let never_used = guarded.token(&["--role", "recorder"]);
    assert_eq!(guarded.record(&token, paid(0)).await, received(1));
    guarded.world.events_reach(BEFORE).await;

    let refusal = doc! { "failCommands": ["find", "insert"], "errorCode": 13 };
    let fail_point = FailPoint::set(&mongod, "alwaysOn", refusal).await;
    let sent = send_in_outage(&guarded, &token).await;
    let answer = guarded.record(&never_used, paid(0)).await;
    assert_eq!(code(&answer), (503, "unavailable"));

    assert!(fail_point.off().await > 0);
    guarded.world.events_reach(BEFORE + sent).await;
    guarded.world.stop().await;
}

fn paid(number: usize) -> Value {
    json!({"action": "invoice.paid", "externalId": number.to_string()})
}

/// Sends one event after the other for as long as an outage lasts; how many, all of them taken.
async fn send_in_outage(guarded: &Guarded, token: &str) -> usize {
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < OUTAGE {
        sent += 1;
        assert_eq!(guarded.record(token, paid(sent)).await, received(1));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let journal = guarded.world.daybook().journal().unwrap();
    assert!(journal.figures().appended > 0);
    sent
}
