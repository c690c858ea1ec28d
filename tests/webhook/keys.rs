//! Signatures: which are taken, which are not.

use serde_json::json;
use testkit::World;
use testkit::http::{self, exchange, sign};

use super::{KEY, ROUTE, body, with_keys, world};

/// 0.15 signs with the line break at the end of its key's file, 0.16 without.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_break_in_the_key_file_may_be_part_of_the_key() {
    let plan = with_keys(World::sqlite().await, &["k-one\n", "k-two\r\n", "k-three"]);
    let world = plan.start().await;
    world.ready().await;
    let good = ["k-one", "k-one\n", "k-two", "k-two\r\n", "k-three"];
    for (index, key) in good.iter().enumerate() {
        let request = http::signed(ROUTE, key, body(&format!("good-{index}"), 1));
        let answer = exchange(world.daybook().address(), request).await;
        assert_eq!(answer.status, 200, "{key:?}");
    }
    for key in ["", "k-on", "k-one\n\n", "k-three\n", "K-ONE"] {
        let request = http::signed(ROUTE, key, body("bad", 1));
        let answer = exchange(world.daybook().address(), request).await;
        assert_eq!(answer.status, 401, "{key:?}");
    }
    assert_eq!(world.events().await.len(), good.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_and_the_new_key_are_good_at_once() {
    let world = with_keys(World::sqlite().await, &["old", "new-ключ"])
        .start()
        .await;
    world.ready().await;
    for key in ["old", "new-ключ", "old"] {
        let request = http::signed(ROUTE, key, body(key, 2));
        let answer = exchange(world.daybook().address(), request).await;
        assert_eq!(answer.json(), json!({ "received": 2 }), "{key}");
    }
    assert_eq!(world.events().await.len(), 4);
    world.stop().await;
}

/// Two mail servers: each has its route, its key and its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_its_own_route_and_enters_under_its_own_name() {
    const SERVERS: [&str; 2] = ["mail-a", "mail-b"];
    let route = |server: &str| format!("/ingest/{server}");
    let mut plan = World::sqlite().await.journal_size("0B");
    for server in SERVERS {
        // The key is the name.
        let key = plan.file(server, server);
        plan = plan.source(&format!(
            "kind = \"stalwart\"\nname = \"{server}\"\nroute = \"{}\"\nsecret_files = [{key:?}]",
            route(server)
        ));
    }
    let world = plan.start().await;
    world.ready().await;
    let body = body("same", 1);
    let status = async |server: &str, key: &str| {
        let request = http::signed(&route(server), key, &body);
        exchange(world.daybook().address(), request).await.status
    };
    let [a, b] = SERVERS;
    assert_eq!((status(a, b).await, status(b, a).await), (401, 401));
    assert_eq!(world.events().await.len(), 0);
    let letters = world.daybook().store().dead_letters(10).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");

    assert_eq!((status(a, a).await, status(b, b).await), (200, 200));
    let events = world.events_reach(2).await;
    let mut sources: Vec<&str> = events.iter().map(|event| event.source.as_str()).collect();
    sources.sort_unstable();
    assert_eq!(sources, SERVERS);
    assert_eq!(events[0].external_id, events[1].external_id);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_match_to_the_byte_is_refused_and_nothing_is_kept() {
    let world = world().await;
    let body = body("a", 1);
    let right = sign(KEY, body.as_bytes());
    let with_blank = format!("{body} ");
    let refused = [
        (None, body.as_str()),
        (Some(String::new()), &body),
        (Some(sign("other", body.as_bytes())), &body),
        (Some(right.clone()), &with_blank),
        (Some(right.to_lowercase()), &body),
        (Some(right.trim_end_matches('=').to_owned()), &body),
        (Some(right[..20].to_owned()), &body),
        (Some(format!("sha256={right}")), &body),
        (Some(format!("{right},{right}")), &body),
        (Some("!".repeat(44)), &body),
        (Some("A".repeat(40_000)), &body),
    ];
    for (signature, body) in &refused {
        let headers: Vec<(&str, &str)> = signature
            .iter()
            .map(|signature| ("x-signature", signature.as_str()))
            .collect();
        let answer = exchange(world.daybook().address(), http::post(ROUTE, &headers, body)).await;
        assert_eq!(answer.status, 401, "{signature:?}");
        assert!(answer.error().contains("X-Signature"), "{answer:?}");
        assert!(answer.header("www-authenticate").is_some());
    }
    let count = world
        .metric("daybook_webhook_requests_total", "code=\"401\"")
        .await;
    assert_eq!(count, refused.len() as f64);
    assert_eq!(world.events().await.len(), 0);
    assert!(
        world
            .daybook()
            .store()
            .dead_letters(10)
            .await
            .unwrap()
            .is_empty()
    );

    // Blanks around a header's value are no part of it.
    let padded = format!("  {right}  ");
    let request = http::post(ROUTE, &[("X-SIGNATURE", &padded)], &body);
    assert_eq!(
        exchange(world.daybook().address(), request).await.status,
        200
    );
    world.stop().await;
}
