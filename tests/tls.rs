//! The listening socket with a certificate.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use testkit::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

fn tls_lines() -> String {
    format!(
        "auth = \"none\"\nheader_timeout = \"1s\"\ntls = {{ cert = \"{DATA}/cert.pem\", key = \"{DATA}/key.pem\" }}"
    )
}

fn trusting_client() -> reqwest::Client {
    let pem = std::fs::read(Path::new(DATA).join("ca.pem")).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_taken_and_read_over_tls_and_not_in_the_clear() {
    let world = World::sqlite()
        .await
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .start_with(&tls_lines(), "")
        .await;
    let address = world.daybook().address();
    let client = trusting_client();
    let url = format!("https://localhost:{}/api/v1/events", address.port());
    let answer = client
        .post(&url)
        .body(r#"{"action":"invoice.paid"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let listed = client.get(&url).send().await.unwrap();
    let only_so = &listed.headers()["strict-transport-security"];
    assert_eq!(only_so, "max-age=31536000");
    let listed = listed.text().await.unwrap();
    assert!(listed.contains("invoice.paid"), "{listed}");

    let plain = testkit::world::client()
        .get(format!("http://{address}/healthz"))
        .send()
        .await;
    assert!(
        plain.is_err(),
        "plain HTTP is answered on a TLS socket: {plain:?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_handshake_is_cut_off() {
    let world = World::sqlite()
        .await
        .source("kind = \"recorder\"")
        .start_with(&tls_lines(), "")
        .await;
    let mut idle = tokio::net::TcpStream::connect(world.daybook().address())
        .await
        .unwrap();
    idle.write_all(&[0x16, 0x03]).await.unwrap();
    let mut nothing = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut nothing)).await;
    assert!(cut.is_ok(), "the connection is still open");
    world.stop().await;
}
