//! Answers that are not what was asked for: told as what they are, and nothing lost by them.

use daybook::simulators::authentik::events::realistic;
use daybook::simulators::authentik::{FakeAuthentik, FakeAuthentikConfig, Fault, Times};
use daybook::simulators::people::People;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use testkit::World;
use testkit::world::eventually;

/// Fault, state, a piece of the reason.
#[rustfmt::skip]
pub const CASES: &[(Fault, &str, &str)] = &[
    (Fault::Unauthorized, "refused", "refused with 401: an HTML page"),
    (Fault::Forbidden("Token invalid/expired"), "refused", "refused with 403: Token invalid/expired"),
    (Fault::NotFoundHtml, "refused", "no events API at this address: 404 an HTML page; check the url"),
    (Fault::RedirectToLogin, "refused", "redirected (302) to "),
    (Fault::TooManyRequests { retry_after: 1, html: false }, "failing", "asked to slow down (429)"),
    (Fault::TooManyRequests { retry_after: 1, html: true }, "failing", "asked to slow down (429)"),
    (Fault::ServerError, "failing", "server error 500"),
    (Fault::BadGateway, "failing", "server error 502"),
    (Fault::GatewayTimeout, "failing", "server error 504: an HTML page"),
    (Fault::Gzip, "failing", "compressed it (gzip)"),
    (Fault::ResetMidBody, "failing", "answer was cut off"),
    (Fault::TruncatedJson, "failing", "answer is not authentik's: "),
    (Fault::OkHtml, "failing", "answer is not authentik's: an HTML page"),
    (Fault::OkWithoutPagination, "failing", "answer is not authentik's: "),
    (Fault::HangBeforeHeaders, "failing", "no answer in time"),
];

async fn one(fault: Fault, state: &str, reason: &str) {
    let fake = FakeAuthentik::start(FakeAuthentikConfig::default()).await;
    let mut rng = StdRng::seed_from_u64(7);
    let people = People::new(7);
    let events = (0..5)
        .map(|_| realistic(&mut rng, &people, Timestamp::now()))
        .collect();
    let keys = fake.controls().insert_many(events);
    fake.controls().set_fault(fault.clone(), Times::Forever);
    let plan = World::sqlite().await;
    let token = plan.file("token", fake.controls().token());
    let source = format!(
        "kind = \"authentik\"\nurl = \"{}\"\ntoken_file = {token:?}\ninterval = \"1s\"\noverlap = \"1s\"\ntimeout = \"3s\"",
        fake.url()
    );
    let world = plan.source(&source).start().await;
    // A busy machine may first be told that no answer came in time.
    eventually(&format!("{fault:?}: {state} with {reason:?}"), async || {
        let view = world.source_becomes("authentik", state).await;
        let told = view["reason"].as_str().unwrap_or_default();
        told.contains(reason)
    })
    .await;
    assert!(fake.controls().fault_hits() > 0, "{fault:?}");
    fake.controls().clear_faults();
    world.events_reach(keys.len()).await;
    eventually("an upright state", async || {
        let source = world.daybook().board().source("authentik").unwrap();
        source.view().state.is_up()
    })
    .await;
    assert!(
        world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap()
            .is_empty(),
        "{fault:?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_answer_is_told_as_what_it_is_and_loses_nothing() {
    let all = CASES
        .iter()
        .map(|(fault, state, reason)| one(fault.clone(), state, reason));
    futures_util::future::join_all(all).await;
}
