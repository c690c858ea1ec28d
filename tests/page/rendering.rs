//! What the page shows, and what it tells browsers.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use testkit::world::eventually;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reads_like_a_sentence_and_has_a_page_of_its_own() {
    let world = open().await;
    enter(&world, None, &[json!({
        "action": "invoice.paid", "at": "2026-11-24T04:05:39.120Z", "externalId": "inv-1", "tenantSlug": "acme",
        "actor": {"name": "Alice Example", "email": "alice@acme.example", "ip": "198.51.100.7"},
        "target": {"type": "invoice", "id": "17", "name": "Nº 17"}, "outcome": "success",
        "metadata": {"amount": 12.25, "lines": [{"of": "beans"}]},
    })]).await;
    let list = text(&get(&world, "/audit", &[]).await);
    for wanted in [
        "04:05:39",
        "Tuesday, 24 November 2026",
        "<bdi>Alice Example</bdi>",
        " paid the invoice",
        "Nº 17",
        "198.51.100.7",
        "href=\"/audit?actor=alice@acme.example\"",
        "href=\"/audit?ip=198.51.100.7\"",
        "href=\"/audit?target=N%C2%BA%2017\"",
        "href=\"/audit?action=invoice.paid\"",
        "href=\"/audit?tenant=acme\"",
        "<svg",
        "/api/v1/export?format=csv",
        "data-stream=\"/api/v1/events/stream?beats=1\"",
        "All tenants. As of <time",
        "The timeline begins here",
    ] {
        assert!(list.contains(wanted), "{wanted}: {list}");
    }
    let id = world.events().await[0].id.clone();
    let whole = text(&get(&world, &format!("/audit/events/{id}?outcome=failure"), &[]).await);
    for wanted in [
        "<title>Alice Example paid the invoice Nº 17 from 198.51.100.7 · Daybook</title>",
        "alice@acme.example",
        "inv-1",
        "12.25",
        "beans",
        "href=\"/audit?outcome=failure\"",
        // A number is somebody else's at another source.
        "href=\"/audit?source=platform-api&amp;target=17\"",
        "since=2026-11-24T04:00:39.12Z&amp;until=2026-11-24T04:10:39.12Z",
    ] {
        assert!(whole.contains(wanted), "{wanted}: {whole}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_differ_in_spaces_look_different() {
    let world = open().await;
    let names = ["admin", "admin ", " admin", "ad min", "ad  min"];
    let events = names.map(|name| json!({"action": "n.counted", "actor": {"name": name}}));
    enter(&world, None, &events).await;
    let list = text(&get(&world, "/audit", &[]).await);
    let rows = list.split("class=\"who\"").skip(1);
    let shown = rows.filter_map(|row| row.split_once("<bdi>")?.1.split_once("</bdi>"));
    let shown: BTreeSet<String> = shown
        .map(|(name, _)| name.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(shown.len(), names.len(), "{shown:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_success_is_said_in_words() {
    let world = open().await;
    for (outcome, badge) in [
        ("failure", "<span class=\"badge\">failed</span>"),
        (
            "unknown",
            "<span class=\"badge unsure\">outcome unknown</span>",
        ),
    ] {
        let event = json!({"action": "door.opened", "outcome": outcome});
        enter(&world, None, &[event]).await;
        let list = text(&get(&world, &format!("/audit?outcome={outcome}"), &[]).await);
        assert!(list.contains(badge), "{list}");
        let id = &world.events().await[0].id;
        let whole = text(&get(&world, &format!("/audit/events/{id}"), &[]).await);
        let (_, heading) = whole.split_once("<article").unwrap();
        let (heading, _) = heading.split_once("</h1>").unwrap();
        assert!(heading.contains(badge), "{heading}");
    }
    world.stop().await;
}

/// A browser's window gets the same page, in parts.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_gets_the_same_page() {
    let world = open().await;
    enter(&world, None, &[json!({"action": "n.shown"})]).await;
    let mut pages = Vec::new();
    for destination in ["empty", "document"] {
        // A busy machine may show a page before its bars are counted.
        let mut page = String::new();
        eventually("the whole page", async || {
            let request = world.client().get(world.url("/audit?action=n.shown"));
            let answer = request.header("sec-fetch-dest", destination).send();
            let answer = answer.await.unwrap();
            let is_in_parts = !answer.headers().contains_key("content-length");
            assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
            page = answer.text().await.unwrap();
            is_in_parts == (destination == "document") && !page.contains("chart pending")
        })
        .await;
        let (before, rest) = page.split_once("As of <time").unwrap();
        let (_, behind) = rest.split_once("</time>").unwrap();
        pages.push(format!("{before}{behind}"));
    }
    assert!(pages[0].contains("n.shown") && pages[0].ends_with("</html>"));
    assert_eq!(pages[0], pages[1]);
    world.stop().await;
}

/// The status is on its way before the store fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_told_in_the_events_place_that_they_do_not_come() {
    let world = open().await;
    let database = rusqlite::Connection::open(world.dir().join("daybook.db")).unwrap();
    let failed = async || world.metric("daybook_store_errors_total", "").await;
    let before = failed().await;
    let rename = database.execute_batch("ALTER TABLE auditevents RENAME TO away");
    rename.unwrap();
    for (destination, status) in [("document", 200), ("empty", 503)] {
        let request = world.client().get(world.url("/audit"));
        let answer = request.header("sec-fetch-dest", destination).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let page = answer.text().await.unwrap();
        assert!(page.contains("The store does not answer"), "{page}");
        assert!(page.ends_with("</html>"), "{page}");
    }
    assert!(failed().await >= before + 2.0);
    let back = database.execute_batch("ALTER TABLE away RENAME TO auditevents");
    back.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bar_is_reached_by_tab_without_scripts() {
    let world = open().await;
    let days = ["2026-08-03", "2026-09-04", "2026-10-05"];
    let events = days.map(|day| json!({"action": "n.counted", "at": format!("{day}T05:06:07Z")}));
    enter(&world, None, &events).await;
    // However long counting takes.
    let page = text(&get(&world, "/audit/histogram", &[]).await);
    let (_, bars) = page.split_once("<svg viewBox=\"0 0 960").unwrap();
    let (bars, _) = bars.split_once("</svg>").unwrap();
    assert_eq!(bars.matches("<a href=").count(), days.len());
    assert!(!bars.contains("tabindex"), "{bars}");
    // Few shapes, and each name once.
    assert_eq!(bars.matches("<path").count(), 1, "{bars}");
    assert_eq!(bars.matches("<rect").count(), days.len(), "{bars}");
    assert_eq!(bars.matches("aria-label").count(), 1, "{bars}");
    assert!(bars.contains("3 Aug 2026 00:00 – "), "{bars}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_at_an_end_tells_and_leads_to_what_it_counts() {
    let world = open().await;
    let times = ["11:00:20", "11:00:40", "11:30:00", "12:00:10", "12:00:20"];
    let events = times.map(|time| {
        let at = format!("2026-11-24T{time}Z");
        json!({"action": "n.counted", "at": at})
    });
    enter(&world, None, &events).await;
    let path = "/audit/histogram?since=2026-11-24T11:00:31Z&until=2026-11-24T12:00:15Z";
    let page = text(&get(&world, path, &[]).await);
    for wanted in [
        "11:00:31 – 11:01:00 UTC: 1 (",
        "since=2026-11-24T11:00:31Z&amp;until=2026-11-24T11:01:00Z",
        "11:30:00 – 11:31:00 UTC: 1 (",
        "since=2026-11-24T11:30:00Z&amp;until=2026-11-24T11:31:00Z",
        "12:00:00 – 12:00:15 UTC: 1 (",
        "since=2026-11-24T12:00:00Z&amp;until=2026-11-24T12:00:15Z",
    ] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    world.stop().await;
}

/// No time is left for its end.
#[tokio::test(flavor = "multi_thread")]
async fn the_bar_at_the_end_of_time_leads_to_what_it_counts() {
    let world = open().await;
    let last = json!({ "action": "b.last", "at": "9999-12-30T21:59:59Z" });
    let first = json!({ "action": "b.last", "at": "2026-11-24T04:00:00Z" });
    enter(&world, None, &[first, last]).await;
    let bars = text(&get(&world, "/audit/histogram?action=b.last", &[]).await);
    let links = bars
        .split("href=\"")
        .filter_map(|rest| rest.split('"').next());
    let links: Vec<&str> = links.filter(|link| link.contains("until=")).collect();
    assert_eq!(links.len(), 2, "{bars}");
    for link in links {
        let list = text(&get(&world, &link.replace("&amp;", "&"), &[]).await);
        assert!(!list.contains("No events match"), "{link}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_past_the_top_leads_to_the_events_where_there_are_any() {
    let world = open().await;
    for (path, place, name) in [
        ("/audit", "#timeline", "events"),
        ("/audit?since=yesterday", "#main", "content"),
        ("/audit/events/ffff", "#main", "content"),
    ] {
        let page = text(&get(&world, path, &[]).await);
        let way = format!("<a class=\"skip\" href=\"{place}\">Skip to the {name}</a>");
        assert!(page.contains(&way), "{path}: {page}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_events_are_only_text() {
    let world = open().await;
    let hostile = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'-alert(1)-'",
        "javascript:alert(1)",
        "</textarea></title><script>1</script>",
        "\u{202e}txt.exe",
        "a\u{0}b\u{1b}[31m\r\n",
        "&lt;b&gt;",
        "{{7*7}}",
    ];
    let long = "long ".repeat(400);
    let events: Vec<Value> = hostile.into_iter().chain([long.as_str()]).map(|evil| {
        let action: String = evil.chars().filter(|each| !each.is_control()).take(200).collect();
        json!({
            "action": action, "actor": {"id": evil, "email": evil, "name": evil, "ip": evil},
            "target": {"type": evil, "id": evil, "name": evil}, "tenantSlug": evil, "metadata": {evil: [evil, {evil: null}]},
        })
    }).collect();
    enter(&world, None, &events).await;
    let mut pages = vec![get(&world, "/audit", &[]).await];
    for event in world.events().await {
        pages.push(get(&world, &format!("/audit/events/{}", event.id), &[]).await);
    }
    // What is asked for is shown again, in the form and as a condition.
    for evil in hostile {
        let asked: String = evil.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for name in ["text", "actor", "since", "range", "nonsense", "limit"] {
            pages.push(get(&world, &format!("/audit?{name}={asked}"), &[]).await);
        }
        pages.push(get(&world, &format!("/audit/sign-in?next={asked}"), &[]).await);
        pages.push(get(&world, &format!("/audit/{asked}"), &[]).await);
    }
    let mut chips = 0;
    for page in pages {
        let page = text(&page);
        assert!(
            !page.contains("<script>")
                && !page.contains("<img")
                && !page.contains("onerror=alert(1)>"),
            "{page}"
        );
        assert!(
            !page.contains("href=\"javascript") && !page.contains("&amp;amp;lt;"),
            "{page}"
        );
        // Attributes are another matter: a field has to hold the text as it was given.
        let shown: String = page
            .split('<')
            .filter_map(|part| part.split_once('>'))
            .map(|(_, text)| text)
            .collect();
        assert!(
            !shown.contains(['\u{202e}', '\0', '\u{1b}', '\r']),
            "{shown:?}"
        );
        chips += page.matches("class=\"chip\"").count();
    }
    assert!(chips > 10, "{chips}");
    let list = text(&get(&world, "/audit", &[]).await);
    assert!(!list.contains(&long), "a long name is clipped in the list");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_to_the_end_without_a_repeat_or_a_hole() {
    let world = open().await;
    let event = |number: u32| json!({"action": "n.counted", "externalId": number.to_string(), "at": format!("2026-11-24T04:{:02}:00Z", number / 10)});
    let first: Vec<Value> = (0..250).map(event).collect();
    enter(&world, None, &first).await;
    let (mut seen, mut path, mut pages) = (Vec::new(), "/audit?limit=40".to_owned(), 0);
    loop {
        let page = text(&get(&world, &path, &[]).await);
        seen.extend(
            page.split("data-id=\"")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().to_owned()),
        );
        pages += 1;
        // What comes in meanwhile is newer, and shifts nothing.
        enter(&world, None, &[event(300 + pages)]).await;
        let Some((_, rest)) = page.split_once("rel=\"next\" href=\"") else {
            break;
        };
        path = rest.split('"').next().unwrap().replace("&amp;", "&");
    }
    assert_eq!((pages, seen.len()), (7, 250));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 250);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_begins_only_where_no_condition_hides_what_is_older() {
    let world = open().await;
    let old = json!({"action": "n.counted", "at": "2020-01-01T00:00:00Z"});
    enter(&world, None, &[old, json!({"action": "n.added"})]).await;
    let (begins, no_older) = ("The timeline begins here", "No older events match");
    let mut last = String::new();
    for (query, said, unsaid) in [
        ("action=n.added", no_older, begins),
        ("since=2020-01-02", no_older, begins),
        ("range=1h", no_older, begins),
        ("tz=local", begins, no_older),
    ] {
        let page = text(&get(&world, &format!("/audit?{query}"), &[]).await);
        assert!(
            page.contains(said) && !page.contains(unsaid),
            "{query}: {page}"
        );
        let (_, key) = page.rsplit_once("data-key=\"").unwrap();
        key.split('"').next().unwrap().clone_into(&mut last);
    }
    for (query, said) in [
        ("", "Nothing older"),
        ("action=n.added&", no_older),
        ("range=1h&", no_older),
    ] {
        let path = format!("/audit?{query}before={last}");
        let page = text(&get(&world, &path, &[]).await);
        assert!(page.contains(&format!("<h2>{said}</h2>")), "{path}: {page}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_become_addresses_and_mistakes_are_told() {
    let world = open().await;
    let empty = text(&get(&world, "/audit", &[]).await);
    assert!(empty.contains("No events yet"), "{empty}");
    let none = text(&get(&world, "/audit?text=nothing&outcome=failure", &[]).await);
    assert!(
        none.contains("No events match") && none.contains("Clear all"),
        "{none}"
    );
    let answer = get(
        &world,
        "/audit?text=&source=&outcome=failure&since=2026-11-24T04:05&until=",
        &[],
    )
    .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/audit?outcome=failure&since=2026-11-24T04:05"))
    );
    for (query, named) in [
        ("since=yesterday", "since"),
        ("outcome=maybe", "outcome"),
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("text=%zz", "%"),
    ] {
        let answer = get(&world, &format!("/audit?{query}"), &[]).await;
        let page = text(&answer);
        assert_eq!(answer.status, 400, "{query}");
        assert!(
            page.contains("<details class=\"more\" open>")
                && page.contains("role=\"alert\"")
                && page.contains(named)
                && page.contains("id=\"filters\""),
            "{query}: {page}"
        );
    }
    // Without scripts people come there too.
    let counts = get(&world, "/audit/histogram?since=yesterday", &[]).await;
    assert_eq!(
        (counts.status, counts.header("content-type")),
        (400, Some("text/html; charset=utf-8"))
    );
    let page = text(&counts);
    assert!(
        page.contains("That did not work") && page.contains("since"),
        "{page}"
    );
    let shown = text(&get(&world, "/audit?since=2026-11-24&tz=local&actor=alice", &[]).await);
    for wanted in [
        "data-tz=\"local\"",
        "value=\"2026-11-24\"",
        "data-show=\"moment\">Tuesday, 24 November 2026, 00:00:00 UTC</time>",
        "value=\"alice\"",
        "<details class=\"more\">",
    ] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let missing = get(&world, "/audit/events/ffff", &[]).await;
    assert_eq!(missing.status, 404);
    assert!(text(&missing).contains("To the timeline"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_told_on_a_page() {
    let plan = World::at("mongodb://127.0.0.1:9/daybook?serverSelectionTimeoutMS=300");
    let world = plan.start_with("auth = \"none\"", "timeout = \"1s\"").await;
    for path in [
        "/audit",
        "/audit/histogram",
        "/audit/events/65f0c0ffee65f0c0ffee65f0",
    ] {
        let answer = get(&world, path, &[]).await;
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
        assert!(
            text(&answer).contains("The store does not answer"),
            "{}",
            text(&answer)
        );
    }
    world.stop().await;

    let plan = World::at("mongodb://127.0.0.1:9/daybook?serverSelectionTimeoutMS=300");
    let world = plan
        .start_with("auth = \"tokens\"", "timeout = \"1s\"")
        .await;
    let cookie = [("cookie", "daybook_session=dbk_0")];
    for answer in [
        get(&world, "/audit", &cookie).await,
        send(&world, "/audit/sign-in", &[], "token=x").await,
        send(&world, "/audit/sign-out", &cookie, "").await,
    ] {
        assert_eq!(answer.status, 503, "{}", text(&answer));
        assert!(text(&answer).contains("store"), "{}", text(&answer));
    }
    // Who shows nothing learns nothing, not even that.
    assert_eq!(get(&world, "/audit", &[]).await.status, 401);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_what_not_to_do() {
    let world = open().await;
    for path in [
        "/audit",
        "/audit/events/1",
        "/audit/sign-in",
        "/audit/nowhere",
        "/api/v1/events",
        "/metrics",
        "/nowhere",
    ] {
        let answer = get(&world, path, &[]).await;
        let policy = answer.header("content-security-policy").unwrap();
        for wanted in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'sha256-",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(wanted), "{path}: {policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(
            answer
                .header("permissions-policy")
                .unwrap()
                .contains("camera=()")
        );
    }
    // No other site's page has just opened it.
    for (site, apart) in [
        ("none", None),
        ("same-origin", None),
        ("same-site", Some("same-origin")),
        ("cross-site", Some("same-origin")),
    ] {
        let answer = get(&world, "/audit", &[("sec-fetch-site", site)]).await;
        let told = answer.header("cross-origin-opener-policy");
        assert_eq!((answer.status, told), (200, apart), "{site}");
    }
    let page = text(&get(&world, "/audit", &[]).await);
    // No inline script, and no style but the one that the policy names: it would stop them.
    let (_, style) = page.split_once("<style>").unwrap();
    let (style, rest) = style.split_once("</style>").unwrap();
    let answer = get(&world, "/audit", &[]).await;
    let hash = STANDARD.encode(Sha256::digest(style));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.contains(&format!("style-src 'sha256-{hash}';")),
        "{policy}"
    );
    assert!(
        !rest.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="),
        "{rest}"
    );
    assert!(
        page.split("<script")
            .skip(1)
            .all(|script| script.contains("src=\"/audit/assets/") && script.contains("></script>"))
    );
    let assets: BTreeSet<_> = page
        .split('"')
        .filter(|part| part.starts_with("/audit/assets/"))
        .collect();
    assert_eq!(assets.len(), 3, "{assets:?}");
    for path in assets {
        let answer = get(&world, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            answer.header("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        let tag = answer.header("etag").unwrap().to_owned();
        let again = get(&world, path, &[("if-none-match", &tag)]).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        let (directory, name) = path.rsplit_once('/').unwrap();
        for wrong in [
            format!("/audit/assets/0000000000000000/{name}"),
            format!("{directory}/../../../metrics"),
            format!("{directory}/none.js"),
            format!("{directory}/%ff"),
            format!("/audit/assets/%ff/{name}"),
        ] {
            assert_eq!(get(&world, &wrong, &[]).await.status, 404, "{wrong}");
        }
    }
    world.stop().await;
}
