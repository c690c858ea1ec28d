//! Signing in and out, and what other sites cannot make a browser do.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daybook::config::{AuthMode, Config};
use daybook::http::auth::{Authenticator, hash_token, new_token};
use daybook::probe::{Fault, Probes};
use daybook::store::Role;
use daybook::tree::TreeOptions;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use testkit::World;
use testkit::world::eventually;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_becomes_a_session_and_the_timeline_says_so() {
    let mut world = guarded("").await;
    let operator = token(&world, Role::Operator, "alice's laptop").await;

    let refused = get(&world, "/audit?outcome=failure", &[]).await;
    assert_eq!(refused.status, 401);
    let page = text(&refused);
    assert!(page.contains("name=\"token\"") && page.contains("value=\"/audit?outcome=failure\""));

    let form = format!("token={operator}&next=%2Faudit%3Foutcome%3Dfailure");
    let answer = send(&world, "/audit/sign-in", &[], &form).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/audit?outcome=failure"));
    let set = answer.header("set-cookie").unwrap().to_owned();
    for wanted in ["Path=/;", "HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(set.contains(wanted), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains(&operator), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();

    let page = text(&get(&world, "/audit", &[("cookie", &cookie)]).await);
    assert!(
        page.contains("Sign out") && page.contains("alice's laptop"),
        "{page}"
    );
    assert!(page.contains("signed in to this timeline"), "{page}");

    // A session outlives a restart; and it reads the API as well.
    world.restart().await;
    world.ready().await;
    let answer = get(&world, "/api/v1/events", &[("cookie", &cookie)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let out = send(&world, "/audit/sign-out", &[("cookie", &cookie)], "").await;
    assert_eq!(
        (out.status, out.header("location")),
        (303, Some("/audit/sign-in?signed-out=1"))
    );
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    for path in ["/audit", "/api/v1/events"] {
        assert_eq!(get(&world, path, &[("cookie", &cookie)]).await.status, 401);
    }
    let said = text(&get(&world, "/audit/sign-in?signed-out=1", &[]).await);
    assert!(said.contains("You are signed out"), "{said}");

    let events = world.events().await;
    let told: Vec<_> = events
        .iter()
        .rev()
        .map(|event| event.action.as_str())
        .collect();
    assert_eq!(told, ["daybook.signed_in", "daybook.signed_out"]);
    assert!(events.iter().all(|event| {
        event.actor.name.as_deref() == Some("alice's laptop")
            && event.actor.ip.as_deref() == Some("127.0.0.1")
            && event.metadata["role"] == "operator"
            && event.metadata["tokenId"] == hash_token(&operator)[..12]
    }));
    let whole = serde_json::to_string(&events).unwrap();
    assert!(!whole.contains(&operator) && !whole.contains(&hash_token(&operator)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_no_token_and_a_token_is_no_session() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let cookie = sign_in(&world, &operator).await;
    let (_, id) = cookie.split_once('=').unwrap();
    assert_ne!(id, operator);

    let bearer = format!("Bearer {id}");
    let answer = get(&world, "/api/v1/events", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 401);
    // What the store knows a session by is made of this.
    let disguised = format!("session {id}");
    let bearer = format!("Bearer {disguised}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(get(&world, "/api/v1/events", &headers).await.status, 401);
    let body = json!({"action": "forged.event"}).to_string();
    let answer = send(&world, "/api/v1/events", &headers, &body).await;
    assert_eq!(answer.status, 401);
    let form = format!("token={}", disguised.replace(' ', "+"));
    assert_eq!(send(&world, "/audit/sign-in", &[], &form).await.status, 401);

    let forged = format!("daybook_session={operator}");
    assert_eq!(
        get(&world, "/audit", &[("cookie", &forged)]).await.status,
        401
    );
    // Nothing is changed with a cookie: a browser sends it along, whoever asks.
    let body = json!({"action": "forged.event"}).to_string();
    let answer = send(&world, "/api/v1/events", &[("cookie", &cookie)], &body).await;
    assert_eq!(answer.status, 401);
    let bearer = format!("Bearer {operator}");
    let headers = [
        ("cookie", cookie.as_str()),
        ("authorization", bearer.as_str()),
    ];
    assert_eq!(
        send(&world, "/api/v1/events", &headers, &body).await.status,
        200
    );
    // Signing in again replaces the session.
    let answer = send(
        &world,
        "/audit/sign-in",
        &[("cookie", &cookie)],
        &format!("token={operator}"),
    )
    .await;
    assert_eq!(answer.status, 303);
    assert_eq!(
        get(&world, "/audit", &[("cookie", &cookie)]).await.status,
        401
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_does_not_sign_in() {
    let world = guarded("").await;
    let recorder = token(&world, Role::Recorder(None), "billing").await;
    let bearer = format!("Bearer {recorder}");
    assert_eq!(
        get(&world, "/audit", &[("authorization", &bearer)])
            .await
            .status,
        403
    );
    for (form, status, said) in [
        (
            format!("token={recorder}"),
            403,
            "A recorder&#39;s token reads nothing.",
        ),
        (
            format!("token={}", "x".repeat(70)),
            401,
            "This token is unknown or has expired.",
        ),
        ("token=".to_owned(), 401, "unknown"),
        ("".to_owned(), 401, "unknown"),
        ("token=%ff".to_owned(), 400, "UTF-8"),
        (format!("token={}", "x".repeat(200_000)), 413, "too much"),
    ] {
        let answer = send(&world, "/audit/sign-in", &[], &form).await;
        let page = text(&answer).replace('\'', "&#39;");
        assert_eq!(answer.status, status, "{page}");
        assert!(page.contains(said), "{said}: {page}");
        assert!(answer.header("set-cookie").is_none());
        assert!(!page.contains(&recorder));
    }
    let events = world.events().await;
    assert_eq!(events.len(), 4);
    for event in events {
        assert_eq!(event.action, "daybook.sign_in_failed");
        assert_eq!(event.outcome, Some(daybook::event::Outcome::Failure));
        assert_eq!(event.actor.ip.as_deref(), Some("127.0.0.1"));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() {
    let plan = World::sqlite().await;
    let world = plan.start().await;
    world.ready().await;
    let store = Arc::clone(world.daybook().store());
    let soon = Timestamp::now()
        .checked_add(SignedDuration::from_hours(1))
        .unwrap();
    let soon = Timestamp::from_millisecond(soon.as_millisecond()).unwrap();
    let authenticator = Authenticator::new(AuthMode::Tokens, Arc::clone(&store));
    for (ends, longest) in [(Some(soon), 3_600), (None, 12 * 3_600)] {
        let (token, record) = new_token(Role::Operator, None, ends);
        store.insert_token(&record).await.unwrap();
        let session = authenticator.open_session(&token).await.unwrap();
        let lasts = session.expires_at.as_second() - Timestamp::now().as_second();
        assert!((longest - 60..=longest).contains(&lasts), "{lasts}");
    }
    let past = Timestamp::now()
        .checked_sub(SignedDuration::from_secs(1))
        .unwrap();
    let (token, record) = new_token(Role::Operator, None, Some(past));
    store.insert_token(&record).await.unwrap();
    assert!(authenticator.open_session(&token).await.is_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_over_when_its_token_is_withdrawn() {
    let world = guarded("").await;
    let store = Arc::clone(world.daybook().store());
    let withdrawn = token(&world, Role::Operator, "lost laptop").await;
    let narrowed = token(&world, Role::Operator, "op").await;
    let kept = token(&world, Role::Operator, "op").await;
    let mut cookies = Vec::new();
    for token in [&withdrawn, &narrowed, &kept] {
        cookies.push(sign_in(&world, token).await);
    }
    let reads = async |cookie: &str| {
        let answer = get(&world, "/audit", &[("cookie", cookie)]).await;
        answer.status == 200
    };
    for cookie in &cookies {
        assert!(reads(cookie).await);
    }
    store.delete_token(&hash_token(&withdrawn)).await.unwrap();
    let mut less = store.token(&hash_token(&narrowed)).await.unwrap().unwrap();
    less.role = Role::Tenant("acme".to_owned());
    store.insert_token(&less).await.unwrap();

    // What was believed a moment ago is asked again soon.
    let deadline = Instant::now() + Duration::from_secs(30);
    for cookie in &cookies[..2] {
        while reads(cookie).await {
            assert!(Instant::now() < deadline, "the session outlives its token");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(reads(&cookies[2]).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_names_no_token_is_none() {
    let world = guarded("").await;
    let (id, mut record) = new_token(Role::Operator, None, None);
    record.hash = hash_token(&format!("session {id}"));
    let store = world.daybook().store();
    store.insert_token(&record).await.unwrap();
    let cookie = format!("daybook_session={id}");
    let answer = get(&world, "/audit", &[("cookie", &cookie)]).await;
    assert_eq!(answer.status, 401);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_pages_are_refused() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let cookie = sign_in(&world, &operator).await;
    let form = format!("token={operator}");
    for foreign in [
        ("origin", "https://evil.test"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (path, body) in [
            ("/audit/sign-in", form.as_str()),
            ("/audit/sign-out", ""),
            ("/api/v1/events", "{}"),
        ] {
            let answer = send(&world, path, &[foreign, ("cookie", &cookie)], body).await;
            assert_eq!(answer.status, 403, "{foreign:?} {path}");
            assert!(answer.header("set-cookie").is_none());
        }
    }
    assert_eq!(
        get(&world, "/audit", &[("cookie", &cookie)]).await.status,
        200
    );
    let own = [("origin", "http://daybook.test"), ("cookie", &cookie)];
    assert_eq!(send(&world, "/audit/sign-out", &own, "").await.status, 303);
    // Neither signs anybody out by a link.
    assert_eq!(
        get(&world, "/audit/sign-out", &[("cookie", &cookie)])
            .await
            .status,
        405
    );

    // A link in somebody's mail: the strict cookie comes along only at the second step.
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
    ];
    let answer = get(&world, "/audit?text=x", &link).await;
    assert_eq!((answer.status, answer.header("refresh")), (200, Some("0")));
    assert!(!text(&answer).contains("name=\"token\""));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_by_address() {
    let world = guarded("trusted_proxies = [\"127.0.0.1\"]").await;
    let operator = token(&world, Role::Operator, "op").await;
    let right = format!("token={operator}");
    let from = |address: &'static str| [("x-forwarded-for", address)];
    let mut guesses = guesses_until_refused(async |_| {
        let headers = from("198.51.100.7");
        send(&world, "/audit/sign-in", &headers, "token=wrong").await
    })
    .await;
    eventually("wrong and right are refused", async || {
        let mut refused = 0;
        for form in ["token=wrong", right.as_str()] {
            let answer = send(&world, "/audit/sign-in", &from("198.51.100.7"), form).await;
            if answer.status != 429 {
                // On a slow machine one more may be looked at by now.
                guesses += usize::from(answer.status == 401);
                continue;
            }
            refused += 1;
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=16).contains(&wait), "{wait}");
            assert!(text(&answer).contains("Too many attempts"));
        }
        refused == 2
    })
    .await;
    let answer = send(&world, "/audit/sign-in", &from("198.51.100.8"), &right).await;
    assert_eq!(answer.status, 303);
    let events = world.events().await;
    let failed = events
        .iter()
        .filter(|event| event.action == "daybook.sign_in_failed");
    let ips: Vec<_> = failed
        .map(|event| event.actor.ip.clone().unwrap())
        .collect();
    assert_eq!(ips, vec!["198.51.100.7"; guesses]);
    world.stop().await;
}

/// Guesses until one is refused; how many were looked at.
async fn guesses_until_refused(mut guess: impl AsyncFnMut(usize) -> Answer) -> usize {
    let started = Instant::now();
    let mut guesses = 0;
    loop {
        match guess(guesses).await.status {
            401 => guesses += 1,
            status => {
                assert_eq!(status, 429);
                break;
            }
        }
    }
    assert!(may_be_looked_at(started).contains(&guesses), "{guesses}");
    guesses
}

/// How many guesses are looked at from this moment on: ten, and one more every fifteen seconds.
fn may_be_looked_at(since: Instant) -> RangeInclusive<usize> {
    let more = since.elapsed().as_secs() as usize / 15 + 1;
    10..=10 + more
}

/// Whoever fills the disk does not guess the faster.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_counts_while_nothing_can_be_written() {
    let probes = Probes::new();
    let options = TreeOptions {
        probes: probes.clone(),
        ..TreeOptions::of(&Config::default())
    };
    let plan = World::sqlite().await.source(RECORDER).options(options);
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    // More than there are guesses. The store's points are the writer's, whoever writes.
    let unwritten: Vec<_> = (0..100)
        .map(|_| probes.strike("writer", "between_insert_and_cursor", Fault::Error, 1))
        .collect();
    let guesses =
        guesses_until_refused(async |_| send(&world, "/audit/sign-in", &[], "token=wrong").await)
            .await;
    let struck = unwritten.iter().filter(|strike| strike.has_struck());
    assert_eq!(struck.count(), guesses);
    assert!(world.events().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_again_is_signed_out_before() {
    let world = guarded("").await;
    let [former, next] = ["op", "other"].map(|name| token(&world, Role::Operator, name));
    let (former, next) = (former.await, next.await);
    let cookie = sign_in(&world, &former).await;
    let form = format!("token={next}");
    let answer = send(&world, "/audit/sign-in", &[("cookie", &cookie)], &form).await;
    assert_eq!(answer.status, 303);
    assert_eq!(
        get(&world, "/audit", &[("cookie", &cookie)]).await.status,
        401
    );
    let events = world.events().await;
    let said = |action: &str| {
        let mut names = events.iter().filter(|event| event.action == action);
        let name = names.next().and_then(|event| event.actor.name.clone());
        assert!(names.all(|_| action == "daybook.signed_in"));
        name
    };
    assert_eq!(said("daybook.signed_in").as_deref(), Some("other"));
    assert_eq!(said("daybook.signed_out").as_deref(), Some("op"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_one_moment_is_no_faster() {
    let world = guarded("").await;
    let started = Instant::now();
    let guesses = (0..60).map(|_| send(&world, "/audit/sign-in", &[], "token=wrong"));
    let answers = futures_util::future::join_all(guesses).await;
    let tried = answers.iter().filter(|answer| answer.status == 401).count();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert!(may_be_looked_at(started).contains(&tried), "{tried}");
    assert_eq!(tried + refused, 60);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_chooses_the_address_that_is_counted() {
    let world = guarded("").await;
    guesses_until_refused(async |last| {
        let claimed = format!("203.0.113.{last}");
        let headers = [("x-forwarded-for", claimed.as_str())];
        send(&world, "/audit/sign-in", &headers, "token=wrong").await
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_speaks_tls_makes_the_cookie_secure() {
    let world = guarded("trusted_proxies = [\"127.0.0.1\"]").await;
    let operator = token(&world, Role::Operator, "op").await;
    let form = format!("token={operator}");
    for (protocol, name, is_secure) in [
        ("https", "__Host-daybook_session", true),
        ("http", "daybook_session", false),
    ] {
        let proxied = ("x-forwarded-proto", protocol);
        let answer = send(&world, "/audit/sign-in", &[proxied], &form).await;
        let set = answer.header("set-cookie").unwrap();
        assert_eq!(set.ends_with("; Secure"), is_secure, "{set}");
        assert_eq!(set.split('=').next(), Some(name), "{set}");
        let cookie = set.split(';').next().unwrap();
        let headers = [proxied, ("cookie", cookie)];
        assert_eq!(get(&world, "/audit", &headers).await.status, 200);
        let out = send(&world, "/audit/sign-out", &headers, "").await;
        let unset = out.header("set-cookie").unwrap();
        assert!(unset.starts_with(&format!("{name}=;")), "{unset}");
        assert_eq!(get(&world, "/audit", &headers).await.status, 401);
    }
    world.stop().await;
}

/// Another host below the same domain can set a cookie of any name for it, but for those of `__Host-`.
#[tokio::test(flavor = "multi_thread")]
async fn under_tls_no_neighbour_chooses_the_session() {
    let world = guarded("trusted_proxies = [\"127.0.0.1\"]").await;
    let operator = token(&world, Role::Operator, "op").await;
    let tenant = token(&world, Role::Tenant("acme".to_owned()), "neighbour").await;
    let planted = sign_in(&world, &tenant).await;
    let proxied = ("x-forwarded-proto", "https");
    let form = format!("token={operator}");
    let answer = send(&world, "/audit/sign-in", &[proxied], &form).await;
    let own = answer.header("set-cookie").unwrap();
    let (own, _) = own.split_once(';').unwrap();

    assert_eq!(
        get(&world, "/audit", &[("cookie", &planted)]).await.status,
        200
    );
    let alone = [proxied, ("cookie", &planted)];
    assert_eq!(get(&world, "/audit", &alone).await.status, 401);
    let both = format!("{planted}; {own}; other=1");
    let page = text(&get(&world, "/audit", &[proxied, ("cookie", &both)]).await);
    assert!(page.contains("all tenants"), "{page}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_was_planted_locks_nobody_out_and_hides_no_session_at_the_end() {
    let world = guarded("").await;
    let [op, other] = ["op", "other"].map(|name| token(&world, Role::Operator, name));
    let [own, another] = [
        sign_in(&world, &op.await).await,
        sign_in(&world, &other.await).await,
    ];
    let cookies = format!("theme=\u{e9}; daybook_session=planted; {own}; {another}");
    let headers = [("cookie", cookies.as_str())];
    let page = text(&get(&world, "/audit", &headers).await);
    assert!(page.contains("all tenants"), "{page}");
    assert_eq!(
        send(&world, "/audit/sign-out", &headers, "").await.status,
        303
    );
    for cookie in [&own, &another] {
        assert_eq!(
            get(&world, "/audit", &[("cookie", cookie)]).await.status,
            401
        );
    }
    let events = world.events().await;
    let out = events
        .iter()
        .filter(|event| event.action == "daybook.signed_out");
    let mut names: Vec<_> = out
        .map(|event| event.actor.name.as_deref().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["op", "other"]);
    world.stop().await;
}

/// Any stranger can ask for it.
#[tokio::test(flavor = "multi_thread")]
async fn signing_out_of_nothing_does_not_wait_to_write() {
    let world = guarded("").await;
    let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let planted = ["daybook_session=planted"; 4].join("; ");
    let out = send(&world, "/audit/sign-out", &[("cookie", &planted)], "").await;
    assert_eq!(out.status, 303, "{}", text(&out));
    database.execute_batch("COMMIT").unwrap();
    world.stop().await;
}

/// Over plain HTTP browsers send no `Sec-Fetch-Site`, and nginx passes its own name on unless told otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_asks_by_another_name_says_by_which_it_was_asked() {
    let world = guarded("trusted_proxies = [\"127.0.0.1\"]").await;
    let operator = token(&world, Role::Operator, "op").await;
    let form = format!("token={operator}");
    let origin = ("origin", "http://audit.test:8443");
    let refused = send(&world, "/audit/sign-in", &[origin], &form).await;
    assert_eq!(refused.status, 403);
    let said = refused.error();
    for wanted in ["http://audit.test:8443", "daybook.test", "$http_host"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let headers = [origin, ("x-forwarded-host", "audit.test:8443")];
    let answer = send(&world, "/audit/sign-in", &headers, &form).await;
    assert_eq!(answer.status, 303);
    world.stop().await;
}

/// Each is an attempt until it is entered, and an address may have ten.
#[tokio::test(flavor = "multi_thread")]
async fn many_good_sign_ins_at_one_moment_are_no_guesses() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    sign_in(&world, &operator).await;
    let form = format!("token={operator}");
    let tries = (0..20).map(|_| send(&world, "/audit/sign-in", &[], &form));
    for answer in futures_util::future::join_all(tries).await {
        assert_eq!(answer.status, 303, "{}", text(&answer));
    }
    world.stop().await;
}

/// A proxy that signs its users in may add a token of its own to whatever they ask for.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_locks_nobody_out_who_is_signed_in() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let tenant = token(&world, Role::Tenant("acme".to_owned()), "auditor").await;
    let session = sign_in(&world, &operator).await;
    let (own, good) = (session.as_str(), tenant.as_str());
    let (foreign, planted) = ("of.another.service", "daybook_session=planted");
    let asked_with = async |token: &str, cookie: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("cookie", cookie)];
        let page = get(&world, "/audit", &headers).await;
        let listed = get(&world, "/api/v1/events", &headers).await;
        assert_eq!(page.status, listed.status, "{token} {cookie}");
        (page.status, text(&page).contains("all tenants"))
    };
    for (token, cookie, wanted) in [
        (foreign, own, (200, true)),
        (foreign, planted, (401, false)),
        // One that is good goes before.
        (good, own, (200, false)),
        (good, planted, (200, false)),
    ] {
        assert_eq!(asked_with(token, cookie).await, wanted, "{token} {cookie}");
    }
    // Still nothing is changed with a cookie.
    let bearer = format!("Bearer {foreign}");
    let headers = [("authorization", bearer.as_str()), ("cookie", own)];
    let body = json!({"action": "forged.event"}).to_string();
    let answer = send(&world, "/api/v1/events", &headers, &body).await;
    assert_eq!(answer.status, 401);
    world.stop().await;
}

/// The store goes away in the midst of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_cannot_end_the_former_session_is_not_on_the_timeline() {
    let world = guarded("").await;
    let [former, next] = ["op", "other"].map(|name| token(&world, Role::Operator, name));
    let (former, next) = (former.await, next.await);
    let cookie = sign_in(&world, &former).await;
    let form = format!("token={next}");
    let try_again = async || send(&world, "/audit/sign-in", &[("cookie", &cookie)], &form).await;
    let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    let refuse = "CREATE TRIGGER kept BEFORE DELETE ON daybooktokens \
                  BEGIN SELECT RAISE(ABORT, 'kept'); END";
    database.execute_batch(refuse).unwrap();
    let refused = try_again().await;
    assert_eq!(refused.status, 503, "{}", text(&refused));
    assert!(refused.header("set-cookie").is_none());
    let page = get(&world, "/audit", &[("cookie", &cookie)]).await;
    assert_eq!(page.status, 200);
    let told = async || {
        let events = world.events().await.into_iter().rev();
        let told = events.map(|event| (event.action, event.actor.name.unwrap().to_string()));
        told.collect::<Vec<_>>()
    };
    let said = |action: &str, who: &str| (action.to_owned(), who.to_owned());
    let first = said("daybook.signed_in", "op");
    assert_eq!(told().await, std::slice::from_ref(&first));

    database.execute_batch("DROP TRIGGER kept").unwrap();
    assert_eq!(try_again().await.status, 303);
    let out = said("daybook.signed_out", "op");
    let next = said("daybook.signed_in", "other");
    assert_eq!(told().await, [first, out, next]);
    world.stop().await;
}

/// Nobody knows it, and the store cannot be asked about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_hides_no_session_while_the_store_is_away() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let own = sign_in(&world, &operator).await;
    // That is told without the store.
    let asked_with = async |headers: &[(&str, &str)]| {
        let answer = get(&world, "/api/v1/sources", headers).await;
        answer.status
    };
    assert_eq!(asked_with(&[("cookie", own.as_str())]).await, 200);
    let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    database.execute_batch("DROP TABLE daybooktokens").unwrap();
    let planted = "daybook_session=planted";
    let both = format!("{planted}; {own}");
    // Nor does a token that a proxy adds.
    let foreign = ("authorization", "Bearer of.another.service");
    for (cookies, status) in [(planted, 503), (both.as_str(), 200)] {
        let cookies = ("cookie", cookies);
        assert_eq!(asked_with(&[cookies]).await, status);
        assert_eq!(asked_with(&[foreign, cookies]).await, status);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_nobody_signs_in() {
    let world = open().await;
    let page = get(&world, "/audit", &[]).await;
    assert_eq!(page.status, 200);
    assert!(!text(&page).contains("Sign out"));
    for answer in [
        get(&world, "/audit/sign-in", &[]).await,
        send(&world, "/audit/sign-in", &[], "token=x").await,
        get(&world, "/", &[]).await,
    ] {
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("/audit"))
        );
    }
    assert!(world.events().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_cookie_is_secure() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    let tls = format!("tls = {{ cert = \"{data}/cert.pem\", key = \"{data}/key.pem\" }}");
    let plan = World::sqlite().await.source(RECORDER);
    let world = plan
        .start_with(&format!("auth = \"tokens\"\n{tls}"), "")
        .await;
    let operator = token(&world, Role::Operator, "op").await;
    let authority = std::fs::read(format!("{data}/ca.pem")).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()])
        .build()
        .unwrap();
    let port = world.daybook().address().port();
    let answer = client
        .post(format!("https://localhost:{port}/audit/sign-in"))
        .body(format!("token={operator}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 303);
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(set.ends_with("; Secure"), "{set}");
    let (cookie, _) = set.split_once(';').unwrap();
    let plain = cookie.strip_prefix("__Host-").unwrap();
    for (cookie, status) in [(cookie, 200), (plain, 401)] {
        let page = client
            .get(format!("https://localhost:{port}/audit"))
            .header("cookie", cookie)
            .send();
        assert_eq!(page.await.unwrap().status(), status, "{cookie}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_a_website_whose_name_leads_here_reads_nothing() {
    let plan = World::sqlite().await.source(RECORDER);
    let http = "auth = \"none\"\nhosts = [\"audit.example.net.\"]";
    let world = plan.start_with(http, "").await;
    world.ready().await;
    let ask = async |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        exchange(world.daybook().address(), request).await.status
    };
    for path in [
        "/audit",
        "/audit/histogram",
        "/api/v1/events",
        "/api/v1/events/stream",
        "/api/v1/events/histogram",
        "/api/v1/export?format=ndjson",
        "/api/v1/sources",
    ] {
        assert_eq!(ask("rebound.example.com", path).await, 421, "{path}");
    }
    for host in ["127.0.0.1:8080", "localhost", "audit.example.net"] {
        assert_eq!(ask(host, "/audit").await, 200, "{host}");
    }
    // Nothing of a tenant is told there.
    assert_eq!(ask("rebound.example.com", "/readyz").await, 200);

    let event = json!({"action": "forged.event"}).to_string();
    let request = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: rebound.example.com\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{event}",
        event.len()
    );
    let answer = exchange(world.daybook().address(), request).await;
    assert_eq!(answer.status, 421);

    // A token is what makes the difference: no other site's page has one.
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let bearer = format!("Bearer {operator}");
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: audit.example.com\r\nauthorization: {bearer}\r\n\r\n"
    );
    assert_eq!(
        exchange(world.daybook().address(), request).await.status,
        200
    );
}
