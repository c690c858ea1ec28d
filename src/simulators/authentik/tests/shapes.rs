use super::*;

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
    let mut failed = event.clone();
    failed["pk"] = Value::Null;
    failed["action"] = "login_failed".into();
    old.fake.insert(failed, Duration::ZERO);
    let (_, body) = old.json(&format!("{EVENTS}?action=login_failed")).await;
    assert_eq!(
        body["results"][0]["user"],
        json!({"pk": 1, "email": "", "username": "AnonymousUser"})
    );

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
