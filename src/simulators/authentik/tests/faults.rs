use super::*;

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
    assert!(answer.text().await.unwrap().ends_with("authentik starting"));
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
        .timeout(Duration::from_secs(10))
        .send()
        .await;
    assert!(hung.unwrap_err().is_timeout());
    assert_eq!(world.fake.requests().last().unwrap().status, 0);

    world
        .fake
        .set_fault(Fault::ResetBeforeHeaders, Times::Next(1));
    let error = world
        .get(EVENTS)
        .header("connection", "close")
        .send()
        .await
        .unwrap_err();
    assert!(error.is_request() && !error.is_timeout(), "{error:?}");
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
