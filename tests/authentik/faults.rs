//! Every way in which the other side does not answer: told apart, shown, and over when it is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daybook::simulators::authentik::{
    AuthentikControls, FakeAuthentik, FakeAuthentikConfig, Fault, Permissions, Scripted, Times,
};
use serde_json::Value;
use testkit::World;
use testkit::world::eventually;

use super::{
    asked, assert_all_once, assert_token_is_nowhere, fake, fake_with, history, new_event, plan_at,
    plan_of, ready, source_view, world_of, written_reaches,
};

const KNOWN: u64 = 3;

/// What `/api/v1/sources` and the metrics show while something is wrong.
async fn shows(world: &World, what: &str, state: &str, reason: &str) -> Value {
    let mut view = Value::Null;
    eventually(&format!("{what}: {state} with {reason:?}"), async || {
        view = source_view(world).await;
        let shown = view["reason"].as_str().unwrap_or_default();
        view["state"] == state && shown.contains(reason)
    })
    .await;
    let up = f64::from(u8::from(state == "warning"));
    let shown = world.metric("daybook_source_up", "authentik").await;
    assert_eq!(shown, up, "{what}");
    assert!(!view["lastError"]["message"].is_null(), "{what}");
    view
}

/// The source is well again, by itself, and has entered what came meanwhile.
async fn recovers(world: &World, fake: &FakeAuthentik, what: &str, last_success: &Value) {
    let count = fake.promised_total();
    eventually(&format!("{what}: {count} events"), async || {
        world.metric("daybook_events_written_total", "").await == count as f64
    })
    .await;
    let view = world.source_becomes("authentik", "running").await;
    assert_eq!(view["reason"], Value::Null, "{what}");
    eventually(&format!("{what}: up"), async || {
        world.metric("daybook_source_up", "authentik").await == 1.0
    })
    .await;
    assert!(
        view["lastSuccessAt"].as_str() > last_success.as_str(),
        "{what}"
    );
    assert_eq!(view["restarts"], 0, "{what}");
    assert_all_once(world, fake).await;
}

struct Case {
    fault: Fault,
    state: &'static str,
    reason: &'static str,
    /// The metric's label.
    code: &'static str,
}

const fn case(fault: Fault, state: &'static str, reason: &'static str, code: &'static str) -> Case {
    Case {
        fault,
        state,
        reason,
        code,
    }
}

async fn is_told_and_over(case: Case) {
    let what = format!("{:?}", case.fault);
    let fake = fake().await;
    fake.insert_many(history(3, Duration::from_secs(10), Duration::from_secs(1)));
    let world = world_of(&fake, "timeout = \"3s\"").await;
    written_reaches(&world, KNOWN).await;
    let well = world.source_becomes("authentik", "running").await;

    fake.insert(new_event(), Duration::from_millis(1));
    fake.set_fault(case.fault, Times::Forever);
    let view = shows(&world, &what, case.state, case.reason).await;
    assert!(fake.fault_hits() > 0, "{what}");
    assert!(view["lastSuccessAt"].as_str() >= well["lastSuccessAt"].as_str());
    let label = format!("code=\"{}\"", case.code);
    let counted = world
        .metric("daybook_authentik_requests_total", &label)
        .await;
    assert!(counted >= 1.0, "{what}: {label}");
    assert_token_is_nowhere(&world, &fake.token()).await;

    fake.clear_faults();
    recovers(&world, &fake, &what, &view["lastSuccessAt"]).await;
    world.stop().await;
}

async fn all(cases: Vec<Case>) {
    futures_util::future::join_all(cases.into_iter().map(is_told_and_over)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let refused = |detail, reason| case(Fault::Forbidden(detail), "refused", reason, "403");
    all(vec![
        refused(
            "Authentication credentials were not provided.",
            "refused with 403: Authentication credentials were not provided.",
        ),
        refused(
            "Token invalid/expired",
            "refused with 403: Token invalid/expired",
        ),
        refused(
            "You do not have permission to perform this action.",
            "You do not have permission",
        ),
        case(Fault::Unauthorized, "refused", "refused with 401", "401"),
        case(
            Fault::NotFoundHtml,
            "refused",
            "no events API at this address",
            "404",
        ),
        case(
            Fault::InvalidPage,
            "refused",
            "no events API at this address",
            "404",
        ),
        case(Fault::RedirectToLogin, "refused", "redirected (302)", "302"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_fail() {
    let slow_down = |html| Fault::TooManyRequests {
        retry_after: 1,
        html,
    };
    all(vec![
        case(slow_down(false), "failing", "slow down (429)", "429"),
        case(slow_down(true), "failing", "slow down (429)", "429"),
        case(Fault::ServerError, "failing", "500: an HTML page", "500"),
        case(
            Fault::BadGateway,
            "failing",
            "502: failed to connect",
            "502",
        ),
        case(Fault::Starting, "failing", "503: authentik starting", "503"),
        case(Fault::GatewayTimeout, "failing", "504: an HTML page", "504"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none() {
    let drip = Fault::SlowDrip {
        chunk: 16,
        pause: Duration::from_millis(100),
    };
    all(vec![
        case(Fault::ResetMidBody, "failing", "cut off", "200"),
        case(Fault::TruncatedJson, "failing", "not authentik's", "200"),
        case(drip, "failing", "no answer in time", "200"),
        case(
            Fault::HangBeforeHeaders,
            "failing",
            "no answer in time",
            "000",
        ),
        case(Fault::OkHtml, "failing", "HTML page", "200"),
        case(Fault::Gzip, "failing", "compressed it (gzip)", "200"),
        case(
            Fault::OkWithoutPagination,
            "failing",
            "`pagination` is missing",
            "200",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_answers_are_asked_for() {
    let fake = fake().await;
    let world = world_of(&fake, "").await;
    eventually("a poll", async || asked(&fake).polls > 0).await;
    for request in fake.requests() {
        let encoding = request.accept_encoding.as_deref();
        assert_eq!(encoding, Some("identity"), "{}", request.path);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_is_known_in_every_version_and_form() {
    use daybook::simulators::authentik::Profile;
    let stories = [Profile::V2023, Profile::V2025_8].map(|profile| async move {
        let fake = fake_with(FakeAuthentikConfig {
            profile,
            ..FakeAuthentikConfig::default()
        })
        .await;
        fake.set_fault(Fault::Starting, Times::Forever);
        fake.insert(new_event(), Duration::ZERO);
        let world = world_of(&fake, "").await;
        let view = shows(&world, "starting", "failing", "502").await;
        fake.clear_faults();
        recovers(&world, &fake, "starting", &view["lastSuccessAt"]).await;
        world.stop().await;
    });
    futures_util::future::join_all(stories).await;
}

/// When requests arrived, by their number.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<BTreeMap<u64, Instant>>>);

impl Arrivals {
    /// Notes the next request and, before that one is answered, the one after it.
    fn note_next(&self, fake: &AuthentikControls) {
        let arrivals = self.clone();
        fake.at_request(1, move |fake| {
            let number = fake.request_count();
            arrivals.0.lock().unwrap().insert(number, Instant::now());
            arrivals.note_next(fake);
        });
    }

    fn pause_after(&self, number: u64) -> Option<Duration> {
        let arrivals = self.0.lock().unwrap();
        Some(*arrivals.get(&(number + 1))? - *arrivals.get(&number)?)
    }

    fn longest_pause(&self) -> Duration {
        let arrivals: Vec<Instant> = self.0.lock().unwrap().values().copied().collect();
        let pauses = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_pause_gets_it() {
    let stories = [false, true].map(|html| async move {
        let fake = fake().await;
        fake.insert(new_event(), Duration::ZERO);
        let world = world_of(&fake, "").await;
        written_reaches(&world, 1).await;
        let arrivals = Arrivals::default();
        arrivals.note_next(&fake);
        let pause = Fault::TooManyRequests {
            retry_after: 4,
            html,
        };
        fake.set_fault(pause, Times::Next(1));
        let mut pause = Duration::ZERO;
        eventually("the request after", async || {
            let answers = fake.requests();
            let refused = answers.iter().position(|answer| answer.status == 429);
            let Some(after) = refused.and_then(|index| arrivals.pause_after(index as u64 + 1))
            else {
                return false;
            };
            pause = after;
            true
        })
        .await;
        assert!(pause >= Duration::from_millis(3990), "{pause:?}");
        assert!(pause < Duration::from_secs(30), "{pause:?}");
        assert_eq!(fake.fault_hits(), 1);
        world.source_becomes("authentik", "running").await;
        world.stop().await;
    });
    futures_util::future::join_all(stories).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_gets_no_token() {
    let (fake, other) = (fake().await, fake().await);
    let world = world_of(&fake, "").await;
    eventually("a poll", async || fake.request_count() >= 2).await;
    let elsewhere = format!("{}/login?token={}", other.url(), fake.token());
    fake.set_fault(Fault::RedirectTo(elsewhere), Times::Forever);
    let view = shows(&world, "redirect", "refused", "redirected (302)").await;
    assert!(view["reason"].as_str().unwrap().contains(&other.url()));
    assert_eq!(other.request_count(), 0);
    assert_token_is_nowhere(&world, &fake.token()).await;
    fake.clear_faults();
    fake.insert(new_event(), Duration::ZERO);
    recovers(&world, &fake, "redirect", &view["lastSuccessAt"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_and_then_somebody_does() {
    let gone = fake().await;
    let address = gone.address();
    let plan = plan_of(World::sqlite().await, &gone, "");
    let token = gone.token();
    gone.stop().await;
    // Bound and not listening: nobody else is given the port.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind(address).unwrap();
    let world = ready(plan.start().await).await;
    let view = shows(&world, "refused connection", "failing", "cannot connect").await;
    assert_eq!(view["lastSuccessAt"], Value::Null);
    let code = "code=\"000\"";
    assert!(world.metric("daybook_authentik_requests_total", code).await >= 1.0);

    let fake = FakeAuthentik::start(FakeAuthentikConfig {
        listen: address,
        token,
        ..FakeAuthentikConfig::default()
    })
    .await;
    drop(reserved);
    fake.insert(new_event(), Duration::ZERO);
    recovers(&world, &fake, "refused connection", &view["lastSuccessAt"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_told_as_one() {
    let fake = fake().await;
    let url = format!("{}/authentik", fake.url());
    let plan = plan_at(World::sqlite().await, &fake, &url, "");
    let world = ready(plan.start().await).await;
    shows(
        &world,
        "wrong path",
        "refused",
        "no events API at this address",
    )
    .await;
    world.stop().await;

    let fake = fake_with(FakeAuthentikConfig {
        path_prefix: "/auth".to_owned(),
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.insert(new_event(), Duration::ZERO);
    let url = format!("{}/", fake.url());
    let plan = plan_at(World::sqlite().await, &fake, &url, "");
    let world = ready(plan.start().await).await;
    world.events_reach(1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_refused_until_its_file_holds_the_new_one() {
    let fake = fake().await;
    fake.insert(new_event(), Duration::ZERO);
    let world = world_of(&fake, "").await;
    written_reaches(&world, 1).await;
    let old = fake.token();
    let new = fake.rotate_token();
    fake.insert(new_event(), Duration::ZERO);
    let view = shows(&world, "rotated", "refused", "Token invalid/expired").await;
    assert_token_is_nowhere(&world, &old).await;
    std::fs::write(world.dir().join("token"), &new).unwrap();
    recovers(&world, &fake, "rotated", &view["lastSuccessAt"]).await;
    assert_token_is_nowhere(&world, &new).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_right_waits_for_it() {
    let fake = fake_with(FakeAuthentikConfig {
        permissions: Permissions::NONE,
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.insert(new_event(), Duration::ZERO);
    let world = world_of(&fake, "").await;
    let view = shows(&world, "no right", "refused", "do not have permission").await;
    fake.add_token(&fake.token(), Permissions::READER);
    recovers(&world, &fake, "no right", &view["lastSuccessAt"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blind_token_is_told_apart_from_quiet() {
    let fake = fake_with(FakeAuthentikConfig {
        permissions: Permissions::OUTPOST,
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.insert_many(history(250, Duration::from_secs(5), Duration::from_secs(1)));
    let world = world_of(&fake, "").await;
    let view = shows(&world, "blind", "warning", "sees no event").await;
    fake.add_token(&fake.token(), Permissions::READER);
    recovers(&world, &fake, "blind", &view["lastSuccessAt"]).await;

    // And again in the middle of its life: what comes meanwhile is read afterwards.
    fake.add_token(&fake.token(), Permissions::OUTPOST);
    let view = shows(&world, "blind again", "warning", "sees no event").await;
    fake.insert_many(history(150, Duration::ZERO, Duration::from_millis(10)));
    fake.add_token(&fake.token(), Permissions::READER);
    recovers(&world, &fake, "blind again", &view["lastSuccessAt"]).await;
    world.stop().await;
}

/// As behind a proxy that lets the list of events through and nothing else, or where Authentik fails there.
#[tokio::test(flavor = "multi_thread")]
async fn whose_the_token_is_need_not_be_told() {
    let slow_down = Fault::TooManyRequests {
        retry_after: 1,
        html: true,
    };
    let hidden = [
        (slow_down, "(asked to slow down (429))"),
        (Fault::ServerError, "(server error 500: an HTML page)"),
        (Fault::BadGateway, "(server error 502: failed to connect"),
        (Fault::HangBeforeHeaders, "(no answer in time)"),
        (Fault::NotFoundHtml, "(404 an HTML page)"),
        (Fault::Unauthorized, "(refused with 401: an HTML page)"),
        (
            Fault::Forbidden("You do not have permission to perform this action."),
            "(refused with 403: You do not",
        ),
    ];
    let stories = hidden.map(|(fault, reason)| async move {
        let what = format!("{fault:?}");
        let fake = fake().await;
        let hidden = Scripted::new(fault).times(Times::Forever);
        fake.script(hidden.on("/core/users/me/"));
        let world = world_of(&fake, "timeout = \"3s\"").await;
        let view = shows(&world, &what, "warning", reason).await;
        assert!(fake.fault_hits() > 0, "{what}");
        fake.insert_many(history(350, Duration::from_secs(5), Duration::from_secs(1)));
        recovers(&world, &fake, &what, &view["lastSuccessAt"]).await;
        world.stop().await;
    });
    futures_util::future::join_all(stories).await;
}

fn large(mut event: Value) -> Value {
    event["context"]["large"] = true.into();
    event
}

fn too_long_with_more_than(events: usize) -> Scripted {
    Scripted::new(Fault::Overlong(events))
        .on("/events/events/")
        .times(Times::Forever)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_too_long_is_read_in_smaller_ones() {
    let fake = fake().await;
    let events = history(60, Duration::from_secs(5), Duration::from_secs(1));
    fake.insert_many(events.into_iter().map(large).collect());
    fake.script(too_long_with_more_than(15));
    let world = world_of(&fake, "page_size = 20").await;
    written_reaches(&world, 60).await;
    let what = "long pages";
    let view = shows(&world, what, "warning", "pages are longer than 64 MiB").await;
    assert_all_once(&world, &fake).await;

    fake.clear_faults();
    recovers(&world, &fake, what, &view["lastSuccessAt"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_does_not_come_in_time_is_read_in_smaller_ones() {
    let stories = [Fault::GatewayTimeout, Fault::HangBeforeHeaders].map(|fault| async move {
        let what = format!("{fault:?}");
        let fake = fake().await;
        fake.insert_many(history(300, Duration::from_secs(5), Duration::from_secs(1)));
        // The first page comes, and the one below it does not.
        fake.script(Scripted::new(fault).on("/events/events/").after(1));
        let world = world_of(&fake, "timeout = \"3s\"").await;
        written_reaches(&world, 300).await;
        assert_eq!(fake.fault_hits(), 1, "{what}");
        let requests = fake.requests();
        let below = requests.iter().filter(|request| {
            request.path.ends_with("/events/events/") && !request.query.contains("page=1&")
        });
        let sizes: Vec<u64> = below
            .map(|request| request.query.rsplit_once('=').unwrap().1.parse().unwrap())
            .collect();
        assert!(sizes[0] > 50 && sizes[1] <= 50, "{what}: {sizes:?}");
        assert_all_once(&world, &fake).await;
        world.stop().await;
    });
    futures_util::future::join_all(stories).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_long_is_told_and_asked_for_ever_more_seldom() {
    let fake = fake().await;
    let second = Duration::from_secs(1);
    fake.insert_many(history(30, Duration::from_secs(5), second));
    let event = history(1, Duration::from_secs(400), second).remove(0);
    let long = fake.insert(large(event), Duration::ZERO);
    fake.insert_many(history(30, Duration::from_secs(500), second));
    fake.script(too_long_with_more_than(0));
    let world = world_of(&fake, "").await;
    let what = "a long event";
    let view = shows(&world, what, "failing", "an event is longer than 64 MiB").await;

    fake.insert(new_event(), Duration::ZERO);
    written_reaches(&world, 31).await;
    // Pauses that did not grow would be half a second each.
    let arrivals = Arrivals::default();
    arrivals.note_next(&fake);
    eventually("a pause of three seconds", async || {
        arrivals.longest_pause() > Duration::from_secs(3)
    })
    .await;
    shows(&world, what, "failing", "an event is longer than 64 MiB").await;

    assert!(fake.delete(&long));
    // For some polls only.
    let well = shows(&world, what, "warning", "pages are longer than 64 MiB").await;
    assert!(well["lastSuccessAt"].as_str() > view["lastSuccessAt"].as_str());
    written_reaches(&world, 61).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_repeats_the_token_does_not_bring_it_into_the_log() {
    let fake = fake().await;
    let leak: &'static str = Box::leak(format!("no right for {}", fake.token()).into_boxed_str());
    fake.insert(new_event(), Duration::ZERO);
    fake.script(Scripted::new(Fault::Forbidden(leak)).times(Times::Forever));
    let world = world_of(&fake, "").await;
    shows(&world, "echo", "refused", "no right for ***").await;
    assert_token_is_nowhere(&world, &fake.token()).await;
    world.stop().await;
}
