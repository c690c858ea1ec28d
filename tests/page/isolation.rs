//! A tenant's session sees its tenant, on every route and whatever it asks for.

use daybook::store::Role;
use serde_json::json;
use testkit::world::eventually;

use super::*;

/// Stands in every part of the other tenant's events, and nowhere else.
const SECRET: &str = "othersecret";

fn event(tenant: &str, mark: &str, minute: u32) -> Value {
    json!({
        "action": format!("{mark}.happened"),
        "at": format!("2026-11-24T10:{minute:02}:00Z"),
        "actor": {"name": format!("{mark} person"), "id": format!("{mark}-id"), "ip": "198.51.100.7"},
        "target": {"type": "file", "id": format!("{mark}-file"), "name": format!("{mark} file")},
        "outcome": "failure",
        "tenantSlug": tenant,
        "metadata": {"note": format!("{mark} payload")},
    })
}

/// As a browser's window asks for the list: it gets it in parts, where the store is up.
async fn in_a_window(world: &World, path: &str, (name, value): (&str, &str)) -> (u16, String) {
    let mut got = None;
    eventually("the list in parts", async || {
        let request = world.client().get(world.url(path)).header(name, value);
        let answer = request.header("sec-fetch-dest", "document").send();
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        let is_in_parts = !answer.headers().contains_key("content-length");
        got = Some((status, answer.text().await.unwrap()));
        is_in_parts == (status == 200)
    })
    .await;
    got.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_tenant_is_seen_anywhere() {
    let world = guarded("").await;
    let recorder = token(&world, Role::Recorder(None), "services").await;
    let events: Vec<Value> = (0..20)
        .map(|minute| match minute % 2 {
            0 => event("acme", "ours", minute),
            _ => event("other", SECRET, minute),
        })
        .chain([json!({"action": format!("{SECRET}.tenantless")})])
        .collect();
    enter(&world, Some(&recorder), &events).await;
    let stored = world.events().await;
    let of = |mark: &str| {
        stored
            .iter()
            .find(|event| event.action.starts_with(mark))
            .unwrap()
    };
    let (ours, theirs) = (of("ours").id.clone(), of(SECRET).id.clone());

    let tenant = token(&world, Role::Tenant("acme".to_owned()), "acme's auditor").await;
    let session = sign_in(&world, &tenant).await;
    let bearer = format!("Bearer {tenant}");
    let mut pages = 0;
    for header in [
        ("cookie", session.as_str()),
        ("authorization", bearer.as_str()),
    ] {
        let queries = [
            "",
            "tenant=acme",
            "tenant=other",
            "tenant=*",
            "tenant=",
            "tenant=acme&tenant=other",
            "source=platform-api",
            "action=othersecret.*",
            "action=*",
            "actor=othersecret+person",
            "actor=othersecret-id",
            "ip=198.51.100.7",
            "target=othersecret-file",
            "outcome=failure",
            "text=secret",
            "text=e",
            "since=2026-11-24&until=2026-11-25",
            "range=30d",
            "limit=1",
            "limit=1000",
            "tz=local",
            "before=MTc2Mzk4OTIwMDAwMDpmZg",
        ];
        for path in [
            "/audit",
            "/audit/histogram",
            "/audit/events",
            "/api/v1/events",
            "/api/v1/events/histogram",
        ] {
            for query in queries {
                let address = format!("{path}?{query}");
                let answer = get(&world, &address, &[header]).await;
                let mut shown = vec![(answer.status, text(&answer))];
                if path == "/audit" {
                    shown.push(in_a_window(&world, &address, header).await);
                }
                // What was asked for stands in the form and in links, nothing else may.
                let asked = query.replace('+', " ");
                for (status, page) in shown {
                    assert!(
                        asked.contains(SECRET) || !page.contains(SECRET),
                        "{address}: {page}"
                    );
                    for part in [
                        "secret payload",
                        "secret file<",
                        "secret person from",
                        "secret.happened<",
                        "secret.tenantless",
                    ] {
                        assert!(!page.contains(part), "{address}: {page}");
                    }
                    pages += usize::from(status == 200);
                }
            }
        }
        for id in [&theirs, "0", "%00", "ffffffffffffffff"] {
            for path in ["/audit/events", "/api/v1/events"] {
                let answer = get(&world, &format!("{path}/{id}"), &[header]).await;
                assert_eq!(answer.status, 404, "{path}/{id}");
                assert!(!text(&answer).contains(SECRET));
            }
        }
        let mine = get(&world, &format!("/audit/events/{ours}"), &[header]).await;
        assert_eq!(mine.status, 200);
        assert!(text(&mine).contains("ours payload"));
        assert_eq!(
            get(&world, "/audit?tenant=other", &[header]).await.status,
            403
        );
        let list = text(&get(&world, "/audit", &[header]).await);
        // Its ten events and the one about the sign-in.
        assert_eq!(list.matches("<li class=\"event").count(), 11);
        assert!(list.contains("Tenant: <bdi>acme</bdi>. "), "{list}");
        // Neither is told which sources and tenants there are.
        assert!(
            !list.contains("name=\"tenant\"") && !list.contains("<option value=\"platform-api\"")
        );
    }
    assert!(pages > 100, "{pages}");
    let said = world.events().await;
    let signed_in = said
        .iter()
        .find(|event| event.action == "daybook.signed_in")
        .unwrap();
    assert_eq!(signed_in.tenant_slug.as_deref(), Some("acme"));

    let operator = token(&world, Role::Operator, "op").await;
    let session = sign_in(&world, &operator).await;
    let list = text(&get(&world, "/audit?limit=1000", &[("cookie", &session)]).await);
    assert!(list.contains(SECRET) && list.contains("ours") && list.contains("platform-api"));
    world.stop().await;
}
