//! Who sees what, and what a filter lets through.

use daybook::http::auth::new_token;
use daybook::store::Role;
use serde_json::json;
use testkit::World;
use testkit::sse::{EventStream, StreamEnd};

use super::{STREAM, enter, open, recorder, say};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_what_its_filter_lets_through() {
    let world = recorder(World::sqlite().await).start().await;
    let mut all = open(&world, "").await;
    let mut paid = open(&world, "?action=invoice.*&source=platform-api&limit=1").await;
    let mut other = open(&world, "?tenant=globex").await;
    say(&world, 0..2, "invoice.paid").await;
    say(&world, 2..3, "user.seen").await;
    say(&world, 3..4, "invoice.sent").await;
    enter(
        &**world.daybook().store(),
        "elsewhere",
        Some("globex"),
        4..5,
    )
    .await;
    assert_eq!(all.keys(5).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(paid.keys(3).await, ["0", "1", "3"]);
    assert_eq!(other.keys(1).await, ["4"]);

    // What the stream says is what the API says.
    say(&world, 5..6, "invoice.paid").await;
    let streamed = paid.next().await.unwrap();
    let id = streamed["id"].as_str().unwrap();
    let (_, listed) = world.get(&format!("/api/v1/events/{id}")).await;
    assert_eq!(streamed, listed);
    world.stop().await;
}

/// A browser's scripts see no comments, and so no heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_beats_hears_that_the_stream_lives() {
    let world = World::sqlite().await.start().await;
    world.ready().await;
    let mut stream = open(&world, "?beats=1").await;
    assert_eq!(stream.next().await, Ok(json!({ "storeUp": true })));
    assert!(!stream.last_event_id().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_told_what_is_wrong() {
    let world = World::sqlite().await.start().await;
    for (query, last, named) in [
        ("?limit=0", None, "limit"),
        ("?before=x", None, "before"),
        ("?outcome=maybe", None, "outcome"),
        ("?beats=maybe", None, "beats"),
        ("", Some("not-ours"), "Last-Event-ID"),
    ] {
        let url = world.url(&format!("{STREAM}{query}"));
        let Err((status, body)) = EventStream::open(world.client(), &url, None, last).await else {
            panic!("{query} was answered");
        };
        assert_eq!(status, 400, "{query}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(named), "{query}: {message}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_token_sees_its_tenant_for_as_long_as_it_lasts() {
    let plan = World::sqlite().await;
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let store = world.daybook().store();
    let (token, record) = new_token(Role::Tenant("acme".to_owned()), None, None);
    store.insert_token(&record).await.unwrap();
    let (recorder, recorder_record) = new_token(Role::Recorder(None), None, None);
    store.insert_token(&recorder_record).await.unwrap();

    let client = world.client();
    let url = world.url(STREAM);
    let refused = |opened: Result<EventStream, _>| opened.err().map(|(status, _)| status);
    assert_eq!(
        refused(EventStream::open(client, &url, None, None).await),
        Some(401)
    );
    let of_recorder = EventStream::open(client, &url, Some(&recorder), None).await;
    assert_eq!(refused(of_recorder), Some(403));
    let of_other = format!("{url}?tenant=globex");
    let of_other = EventStream::open(client, &of_other, Some(&token), None).await;
    assert_eq!(refused(of_other), Some(403));

    let mut stream = EventStream::open(client, &url, Some(&token), None)
        .await
        .ok()
        .unwrap();
    for (tenant, key) in [(Some("globex"), 0), (None, 1), (Some("acme"), 2)] {
        enter(&**store, "somewhere", tenant, key..key + 1).await;
    }
    assert_eq!(stream.keys(1).await, ["2"]);

    // It lives on heartbeats until the token is taken away.
    store.delete_token(&record.hash).await.unwrap();
    assert_eq!(stream.next().await, Err(StreamEnd::Broken));
    assert_eq!(
        world.metric("daybook_streams_cut_total", "refused").await,
        1.0
    );
    world.stop().await;
}
