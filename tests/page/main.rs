//! The page `/audit` over HTTP: who sees it, what it shows, what browsers are told.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod addresses;
mod isolation;
mod rendering;
mod sessions;

use daybook::http::auth::new_token;
use daybook::store::Role;
use serde_json::{Value, json};
use testkit::World;
use testkit::http::{Answer, exchange, post};
use testkit::world::{Plan, patiently};

const RECORDER: &str = "kind = \"recorder\"\nname = \"platform-api\"";

/// A world that demands tokens, and one that does not.
async fn guarded(http: &str) -> World {
    let world = plan()
        .await
        .start_with(&format!("auth = \"tokens\"\n{http}"), "")
        .await;
    world.ready().await;
    world
}

async fn open() -> World {
    let world = plan().await.start().await;
    world.ready().await;
    world
}

/// Without a journal: what is answered 200 can be read at once.
async fn plan() -> Plan {
    World::sqlite().await.journal_size("0B").source(RECORDER)
}

async fn token(world: &World, role: Role, name: &str) -> String {
    let (token, record) = new_token(role, Some(name.to_owned()), None);
    let store = world.daybook().store();
    patiently(async || store.insert_token(&record).await).await;
    token
}

/// Enters events through the API.
async fn enter(world: &World, token: Option<&str>, events: &[Value]) {
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let body = json!({ "events": events }).to_string();
    let (status, answer) = world
        .post("/api/v1/events", body, &[("authorization", &bearer)])
        .await;
    assert_eq!((status, &answer["received"]), (200, &json!(events.len())));
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: daybook.test\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    exchange(world.daybook().address(), request + "\r\n").await
}

async fn send(world: &World, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend_from_slice(headers);
    exchange(world.daybook().address(), post(path, &all, form)).await
}

/// Signs in; the cookie as a browser sends it back.
async fn sign_in(world: &World, token: &str) -> String {
    let answer = send(world, "/audit/sign-in", &[], &format!("token={token}")).await;
    assert_eq!(answer.status, 303, "{}", text(&answer));
    let cookie = answer.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}
