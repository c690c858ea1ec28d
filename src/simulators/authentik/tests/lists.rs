use super::*;

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
    let pk = world.fake.insert(late, Duration::from_secs(10));
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

    let seen = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let names = world.names("").await;
            if names.len() == 6 {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
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
async fn events_are_edited_deleted_expired_and_trimmed() {
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
    let edit = json!({"action": "custom_edited", "pk": "another"});
    assert!(world.fake.edit(&pk, &edit));
    let edited = world.json(&format!("{EVENTS}{pk}/")).await.1;
    assert_eq!(edited["action"], "custom_edited");
    assert!(world.fake.delete(&pk));
    assert!(!world.fake.edit(&pk, &edit));
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
async fn a_page_of_many_events_is_served_about_as_soon_as_one_of_few() {
    let with_few = World::with(Profile::V2025_12, 1_000).await;
    let with_many = World::with(Profile::V2025_12, 20_000).await;
    let five_pages = async |world: &World| {
        let last = world.fake.event_count() / 100;
        let started = std::time::Instant::now();
        for page in [1, 2, last / 2, last - 1, last] {
            let names = world
                .names(&format!("ordering=-created,-pk&page_size=100&page={page}"))
                .await;
            assert_eq!(names.len(), 100);
        }
        started.elapsed()
    };
    // A machine that stands still for a moment does not do so each time.
    for _ in 0..10 {
        let (few, many) = (five_pages(&with_few).await, five_pages(&with_many).await);
        println!("five pages took {few:?} and {many:?}");
        // No page sorts or parses the whole store.
        if many <= 10 * few + Duration::from_secs(1) {
            return;
        }
    }
    panic!("the more events there are, the later each page comes");
}

#[tokio::test]
async fn a_backlog_ends_at_its_newest_event() {
    let world = World::with(Profile::V2025_12, 0).await;
    let newest: Timestamp = "2026-11-24T01:49:26Z".parse().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let backlog = events::backlog(
        &mut rng,
        &People::new(1),
        newest,
        Duration::from_millis(250),
        500,
    );
    let pks = world.fake.insert_many(backlog);
    let (_, body) = world.json(&format!("{EVENTS}?page_size=100")).await;
    assert_eq!(body["pagination"]["count"], 500);
    let first = &body["results"][0];
    assert_eq!(
        (&first["pk"], &first["created"]),
        (&json!(pks[499]), &json!("2026-11-24T01:49:26Z"))
    );
    assert_eq!(body["results"][99]["pk"], *pks[400]);
}
