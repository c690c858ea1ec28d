//! Links keep what they are not about: the page one wanted, its place in the list, the zone of times.

use serde_json::json;

use super::*;

/// The address of the link with this text.
fn link(page: &str, text: &str) -> String {
    let (before, _) = page.split_once(&format!(">{text}</a>")).expect(text);
    let (_, tag) = before.rsplit_once("<a ").unwrap();
    let (_, href) = tag.split_once("href=\"").unwrap();
    href.split('"').next().unwrap().replace("&amp;", "&")
}

/// What the fields of the form send, but for those to choose from.
fn sent(page: &str) -> String {
    let (_, form) = page.split_once("id=\"filters\"").unwrap();
    let (form, _) = form.split_once("</form>").unwrap();
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    let fields = form.split("<input").skip(1).filter_map(|tag| {
        let (tag, _) = tag.split_once('>')?;
        let value = attribute(tag, "value").unwrap_or_default();
        Some(format!("{}={value}", attribute(tag, "name")?))
    });
    fields.collect::<Vec<_>>().join("&")
}

fn paid(number: u32) -> Value {
    json!({
        "action": "invoice.paid", "externalId": number.to_string(),
        "at": format!("2026-11-24T04:05:{number:02}Z"), "tenantSlug": "acme",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_wanted_is_shown_after_signing_in() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let recorder = token(&world, Role::Recorder(None), "billing").await;
    enter(&world, Some(&recorder), &[paid(1)]).await;
    let path = format!("/audit/events/{}?source=x", world.events().await[0].id);
    let refused = get(&world, &path, &[]).await;
    assert_eq!(refused.status, 401);
    let field = format!("name=\"next\" value=\"{path}\"");
    let page = text(&refused);
    assert!(page.contains(&field), "{page}");
    let form = format!("token={operator}&next={path}");
    let answer = send(&world, "/audit/sign-in", &[], &form).await;
    assert_eq!(answer.header("location"), Some(path.as_str()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_name_that_was_wanted_is_asked_for_after_signing_in() {
    let world = guarded("").await;
    let operator = token(&world, Role::Operator, "op").await;
    let path = format!("/audit?actor={}", "%F0%9D%92%B3".repeat(2000));
    let refused = get(&world, &path, &[]).await;
    let field = format!("name=\"next\" value=\"{path}\"");
    assert!(text(&refused).contains(&field));
    let form = format!("token={operator}&next={}", path.replace('%', "%25"));
    let answer = send(&world, "/audit/sign-in", &[], &form).await;
    assert_eq!(answer.header("location"), Some(path.as_str()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_condition_is_not_said_again_in_every_row() {
    let world = open().await;
    let names = ["N", "𝒳"].map(|letter| letter.repeat(2000));
    let by = |name: &String| json!({"action": "invoice.paid", "actor": {"name": name}});
    let events: Vec<Value> = names.iter().map(by).collect();
    enter(&world, None, &events).await;
    let [short, long] = ["N", "%F0%9D%92%B3"].map(|letter| letter.repeat(2000));
    for (name, kept) in [
        (&short, format!("&amp;actor={short}")),
        (&long, String::new()),
    ] {
        let page = text(&get(&world, &format!("/audit?actor={name}"), &[]).await);
        let (_, row) = page.split_once("<li class=\"event").unwrap();
        for link in [
            format!("class=\"who\" href=\"/audit?actor={name}\""),
            format!("class=\"verb\" href=\"/audit?action=invoice.paid{kept}\""),
        ] {
            assert!(row.contains(&link), "{link}: {row}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_again_where_it_was() {
    let plan = World::at("mongodb://127.0.0.1:9/daybook?serverSelectionTimeoutMS=300");
    let world = plan
        .start_with("auth = \"tokens\"", "timeout = \"1s\"")
        .await;
    let path = "/audit/events/65f0c0ffee65f0c0ffee65f0?source=x";
    let cookie = [("cookie", "daybook_session=dbk_0")];
    let form = format!("token=x&next={path}");
    for answer in [
        get(&world, path, &cookie).await,
        send(&world, "/audit/sign-in", &[], &form).await,
    ] {
        assert_eq!(answer.status, 503);
        assert_eq!(link(&text(&answer), "Try again"), path);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zone_of_times_is_changed_in_place_and_kept() {
    let world = open().await;
    enter(&world, None, &[paid(1), paid(2), paid(3)]).await;
    let id = world.events().await[0].id.clone();
    let path = format!("/audit/events/{id}?tenant=acme");
    let page = text(&get(&world, &path, &[]).await);
    assert_eq!(link(&page, "Local"), format!("{path}&tz=local"));

    let list = text(&get(&world, "/audit?limit=1&tz=local", &[]).await);
    let older = link(&list, "Older events");
    let page = text(&get(&world, &older, &[]).await);
    assert_eq!(link(&page, "UTC"), older.replace("tz=local&", ""));
    assert_eq!(link(&page, "Local"), older);

    let path = "/audit?outcome=failure&action=none&tz=local";
    let page = text(&get(&world, path, &[]).await);
    for name in ["Clear all", "Clear all conditions"] {
        assert_eq!(link(&page, name), "/audit?tz=local");
    }
    assert!(page.contains("<a class=\"brand\" href=\"/audit?tz=local\""));
    // A zone that is none leads nowhere.
    let page = text(&get(&world, "/audit?tz=mars", &[]).await);
    assert!(page.contains("<a class=\"brand\" href=\"/audit\""));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_are_typed_take_the_place_of_a_range() {
    let world = open().await;
    let answer = get(&world, "/audit?since=2026-10-01T00:00&range=15m", &[]).await;
    let tidy = "/audit?since=2026-10-01T00:00";
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some(tidy))
    );
    let page = text(&get(&world, tidy, &[]).await);
    assert_eq!(link(&page, "×"), "/audit");
    assert_eq!(get(&world, "/audit?range=15m", &[]).await.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_field_can_hold_is_kept_as_it_is() {
    let world = open().await;
    for (name, given, shown) in [
        ("text", "a%0Ab", "LF"),
        ("source", "a%00", "NUL"),
        ("tenant", "%0D", "CR"),
        ("actor", "a%0D%0Ab%25", "LF"),
    ] {
        let address = format!("/audit?{name}={given}");
        let page = text(&get(&world, &address, &[]).await);
        let (_, form) = page.split_once("id=\"filters\"").unwrap();
        let (form, _) = form.split_once("</form>").unwrap();
        let kept = format!("name=\"kept\" value=\"{name}={given}\"");
        assert!(form.contains(&kept), "{kept}: {form}");
        assert!(!form.contains(&format!("name=\"{name}\"")), "{form}");
        assert!(form.contains(&format!(">{shown}</span>")), "{form}");
        assert_eq!(link(form, "×"), "/audit");

        let sent: String = format!("{name}={given}")
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let answer = get(&world, &format!("/audit?ip=&kept={sent}"), &[]).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(address.as_str()))
        );
    }
    // What is wrong beside it leaves it as it is.
    let page = text(&get(&world, "/audit?actor=%0A&since=yesterday", &[]).await);
    assert!(page.contains("name=\"kept\" value=\"actor=%0A\""), "{page}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_for_a_time_holds_what_it_can() {
    let world = open().await;
    for (given, shown) in [
        (
            "2026-10-25T01:30:00.123Z",
            "type=\"datetime-local\" name=\"since\" value=\"2026-10-25T01:30:00.123\" data-given=\"2026-10-25T01:30:00.123Z\"",
        ),
        (
            "2026-10-25T01:30:00.1234Z",
            "type=\"text\" name=\"since\" value=\"2026-10-25T01:30:00.1234Z\"",
        ),
        (
            "2026-10-25",
            "type=\"text\" name=\"since\" value=\"2026-10-25\"",
        ),
    ] {
        let page = text(&get(&world, &format!("/audit?since={given}"), &[]).await);
        assert!(page.contains(shown), "{shown}: {page}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_shown_for_a_mistake_does_not_repeat_it() {
    let world = open().await;
    for mistake in ["limit=5000", "range=2h", "tz=mars"] {
        let answer = get(&world, &format!("/audit?actor=alice&{mistake}"), &[]).await;
        assert_eq!(answer.status, 400, "{mistake}");
        let sent = sent(&text(&answer));
        let answer = get(&world, &format!("/audit?{sent}"), &[]).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("/audit?actor=alice")),
            "{mistake}: {sent}"
        );
    }
    let kept = "limit=5&range=1h&tz=local";
    let page = text(&get(&world, &format!("/audit?{kept}"), &[]).await);
    for field in kept.split('&') {
        assert!(sent(&page).contains(field), "{field}: {page}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_too_many_leads_to_the_timeline() {
    let world = open().await;
    let answer = get(&world, "/audit/", &[]).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/audit"))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_actor_is_nobody_else_of_that_number() {
    let plan = plan()
        .await
        .source("kind = \"recorder\"\nname = \"billing\"");
    let world = plan.start_with("auth = \"tokens\"", "").await;
    world.ready().await;
    let platform = token(&world, Role::Recorder(None), "platform").await;
    let named = Role::Recorder(Some("billing".to_owned()));
    let billing = token(&world, named, "billing").await;
    let by = |action: &str, actor: Value| json!({"action": action, "actor": actor});
    let alice = "alice@example.org";
    let of_platform = [
        by("mail.opened", json!({"id": "2", "email": alice})),
        by("mail.refused", json!({"email": alice})),
        by("mail.appended", json!({"id": "2"})),
    ];
    enter(&world, Some(&platform), &of_platform).await;
    let of_billing = [by("invoice.paid", json!({"id": "2"}))];
    enter(&world, Some(&billing), &of_billing).await;

    let operator = token(&world, Role::Operator, "op").await;
    let bearer = format!("Bearer {operator}");
    let header = [("authorization", bearer.as_str())];
    let events = world.events().await;
    for (action, leads, finds) in [
        ("mail.opened", "/audit?actor=alice@example.org", 2),
        ("mail.refused", "/audit?actor=alice@example.org", 2),
        ("mail.appended", "/audit?source=platform-api&actor=2", 2),
        ("invoice.paid", "/audit?source=billing&actor=2", 1),
    ] {
        let event = events.iter().find(|event| event.action == action).unwrap();
        let path = format!("/audit/events/{}", event.id);
        let page = text(&get(&world, &path, &header).await);
        assert_eq!(link(&page, "Same actor"), leads);
        let list = text(&get(&world, leads, &header).await);
        assert_eq!(list.matches("<li class=\"event").count(), finds, "{list}");
        let by_row = format!("class=\"who\" href=\"{}\"", leads.replace('&', "&amp;"));
        assert!(list.contains(&by_row), "{by_row}: {list}");
    }
    world.stop().await;
}
