//! Who may export, for how long, how much at once, and how often.

use std::time::Instant;

use daybook::event::Outcome;
use daybook::http::auth::new_token;
use daybook::store::Role;
use futures_util::StreamExt as _;
use testkit::World;
use testkit::http::exchange;
use testkit::world::eventually;

use super::{deeds, enter, event};

/// A world that demands tokens, with more events of `acme` than a connection holds that nobody reads.
async fn world() -> World {
    let http = "auth = \"tokens\"\nwrite_timeout = \"10m\"";
    let world = World::sqlite().await.start_with(http, "").await;
    world.ready().await;
    let events: Vec<_> = (0..30_000)
        .map(|key| event(key, &"x".repeat(500)))
        .collect();
    enter(&**world.daybook().store(), &events).await;
    world
}

/// A new token and its hash.
async fn token(world: &World, role: Role) -> (String, String) {
    let (token, record) = new_token(role, None, None);
    world.daybook().store().insert_token(&record).await.unwrap();
    (token, record.hash)
}

async fn export(world: &World, token: &str) -> reqwest::Response {
    let request = world.client().get(world.url("/api/v1/export"));
    request.bearer_auth(token).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_token_also_while_nobody_reads_it() {
    let world = world().await;
    let store = &**world.daybook().store();
    let (token, hash) = token(&world, Role::Tenant("acme".to_owned())).await;
    let mut body = export(&world, &token).await.bytes_stream();
    body.next().await.unwrap().unwrap();
    store.delete_token(&hash).await.unwrap();
    eventually("its end is entered", async || deeds(store).await.len() == 2).await;
    let deeds = deeds(store).await;
    let ended = deeds.iter().find(|deed| deed.action == "daybook.exported");
    let ended = ended.unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Failure));
    assert_eq!(
        ended.metadata["reason"],
        "the token or session is not valid any more"
    );
    let mut broken = false;
    while let Some(chunk) = body.next().await {
        broken |= chunk.is_err();
    }
    assert!(broken, "the body ended as if it were complete");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_leaves_exports_to_others() {
    let world = world().await;
    let (acme, _) = token(&world, Role::Tenant("acme".to_owned())).await;
    let (globex, _) = token(&world, Role::Tenant("globex".to_owned())).await;
    let (operator, _) = token(&world, Role::Operator).await;
    // Another token of the tenant is no other tenant.
    let (renewed, _) = token(&world, Role::Tenant("acme".to_owned())).await;
    let held = [export(&world, &acme).await, export(&world, &renewed).await];
    assert!(held.iter().all(|answer| answer.status() == 200));
    let refused = export(&world, &acme).await;
    assert_eq!(refused.status(), 503);
    let told = refused.text().await.unwrap();
    assert!(told.contains("of this tenant"), "{told}");
    assert_eq!(export(&world, &globex).await.status(), 200);
    let of_operator = [(); 3].map(|()| export(&world, &operator));
    for answer in futures_util::future::join_all(of_operator).await {
        assert_eq!(answer.status(), 200);
    }
    drop(held);
    eventually("a place is free", async || {
        export(&world, &acme).await.status() == 200
    })
    .await;
    world.stop().await;
}

/// Each export is entered twice, with a token that only reads too.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_exports_without_end_is_told_to_wait() {
    let plan = World::sqlite().await;
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let (acme, _) = token(&world, Role::Tenant("acme".to_owned())).await;
    // Another token of the tenant is no other tenant.
    let (renewed, _) = token(&world, Role::Tenant("acme".to_owned())).await;
    let (globex, _) = token(&world, Role::Tenant("globex".to_owned())).await;
    let (operator, _) = token(&world, Role::Operator).await;
    let nothing = "/api/v1/export?source=nobody";
    let ask = async |token: &str| {
        let request = world.client().get(world.url(nothing));
        request.bearer_auth(token).send().await.unwrap()
    };
    let started = Instant::now();
    let (mut exported, mut refused) = (0, None);
    while refused.is_none() {
        // As many as a tenant may have under way.
        let (one, other) = tokio::join!(ask(&acme), ask(&renewed));
        for answer in [one, other] {
            if answer.status() == 429 {
                refused = Some(answer);
                continue;
            }
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            exported += 1;
        }
        let more = started.elapsed().as_secs() + 1;
        assert!(exported <= 600 + more, "{exported}");
        assert!(exported < 1200, "never refused, at a second each");
    }
    let refused = refused.unwrap();
    assert!(exported >= 600, "{exported}");
    let wait = refused.headers()["retry-after"].to_str().unwrap();
    assert!(matches!(wait, "1" | "2"), "{wait}");
    let told = refused.text().await.unwrap();
    assert!(told.contains("too many exports"), "{told}");
    let head = world.client().head(world.url(nothing)).bearer_auth(&acme);
    assert_eq!(head.send().await.unwrap().status(), 200);
    for other in [&globex, &operator] {
        assert_eq!(ask(other).await.status(), 200);
    }
    eventually("one more may begin", async || {
        ask(&acme).await.status() == 200
    })
    .await;
    world.stop().await;
}

/// With `auth = "none"` every website can make a browser ask this machine.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_sites_page_exports_in_somebodys_name() {
    let world = World::sqlite().await.start().await;
    world.ready().await;
    let store = &**world.daybook().store();
    let ask = async |path: &str, header: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n");
        exchange(world.daybook().address(), request).await.status
    };
    for foreign in [
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
        "origin: http://evil.test",
    ] {
        assert_eq!(ask("/api/v1/export", foreign).await, 403, "{foreign}");
        assert_eq!(ask("/api/v1/events", foreign).await, 200, "{foreign}");
    }
    assert!(deeds(store).await.is_empty());
    for own in [
        "sec-fetch-site: same-origin",
        "sec-fetch-site: none",
        "accept: */*",
    ] {
        assert_eq!(ask("/api/v1/export", own).await, 200, "{own}");
    }
    eventually("each is entered", async || deeds(store).await.len() == 6).await;
    world.stop().await;
}
