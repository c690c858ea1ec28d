//! The listening socket with a certificate.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use daybook::config::LoadedConfig;
use daybook::tree::Daybook;
use testkit::World;
use testkit::process::Process;
use testkit::world::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

fn tls_lines() -> String {
    format!("auth = \"none\"\ntls = {{ cert = \"{DATA}/cert.pem\", key = \"{DATA}/key.pem\" }}")
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
        // What is answered stands in the store.
        .journal_size("0B")
        .start_with(&tls_lines(), "")
        .await;
    let address = world.daybook().address();
    let client = trusting_client();
    let base = format!("https://localhost:{}", address.port());
    eventually("readiness", async || {
        let answer = client.get(format!("{base}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let url = format!("{base}/api/v1/events");
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
        .start_with(&format!("{}\nheader_timeout = \"1s\"", tls_lines()), "")
        .await;
    let mut idle = tokio::net::TcpStream::connect(world.daybook().address())
        .await
        .unwrap();
    idle.write_all(&[0x16, 0x03]).await.unwrap();
    let mut nothing = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(60), idle.read_to_end(&mut nothing)).await;
    assert!(cut.is_ok(), "the connection is still open");
    world.stop().await;
}

/// Puts a pair of `tests/data` where the configuration names it.
fn put(pair: &str, dir: &Path) {
    for file in ["cert.pem", "key.pem"] {
        std::fs::copy(
            Path::new(DATA).with_file_name(pair).join(file),
            dir.join(file),
        )
        .unwrap();
    }
}

fn config_in(dir: &Path) -> PathBuf {
    let at = dir.display();
    let text = format!(
        "[store]\nurl = \"sqlite:{at}/d.db\"\n[http]\nlisten = \"127.0.0.1:0\"\nauth = \"none\"\n\
         tls = {{ cert = \"{at}/cert.pem\", key = \"{at}/key.pem\" }}\n\
         [journal]\ndir = \"{at}/journal\"\n"
    );
    let path = dir.join("daybook.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_new_connections() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    put("tls-expired", dir.path());
    let config = LoadedConfig::load(Some(&config)).unwrap().config;
    let mut daybook = Daybook::start(&config).await.unwrap();
    let url = format!("https://localhost:{}/healthz", daybook.address().port());
    // A client of its own each time: no connection and no session is taken up again.
    let is_trusted = async || trusting_client().get(&url).send().await.is_ok();
    assert!(!is_trusted().await, "the first certificate has expired");

    put("tls", dir.path());
    assert!(daybook.reload(&config).await.unwrap().certificate);
    assert!(is_trusted().await);
    assert!(!daybook.reload(&config).await.unwrap().certificate);

    let other_key = Path::new(DATA)
        .with_file_name("tls-expired")
        .join("key.pem");
    std::fs::copy(other_key, dir.path().join("key.pem")).unwrap();
    let refused = daybook.reload(&config).await.unwrap_err().to_string();
    assert!(refused.contains("is not the key"), "{refused}");
    assert!(is_trusted().await, "the former pair is no longer served");
    daybook.shutdown().await;
}

/// Pairs, and what is said of them.
const REFUSED: [(&str, &str); 2] = [
    (
        "tls-future",
        "cert.pem is not valid before 2099-01-01T00:00:00Z",
    ),
    ("tls-expired", "cert.pem expired at 2020-02-01T00:00:00Z"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_service_tells_what_clients_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    let log = dir.path().join("log");
    let [(future, not_yet), (expired, no_more)] = REFUSED;
    put(expired, dir.path());
    let arguments = ["run", "-c", config.to_str().unwrap()];
    // Nobody asks at its port.
    let daybook = Process::spawn(env!("CARGO_BIN_EXE_daybook"), &arguments, 0, &log);
    let logs = async |what: &str| eventually(what, async || daybook.log().contains(what)).await;
    logs(no_more).await;
    logs("listening").await;
    assert!(!daybook.log().contains(not_yet));
    put(future, dir.path());
    daybook.signal("HUP");
    logs(not_yet).await;
}

#[test]
fn check_tells_what_clients_will_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    let daybook = |command: &str| {
        let mut daybook = Command::new(env!("CARGO_BIN_EXE_daybook"));
        let output = daybook.arg(command).arg("-c").arg(&config).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    put("tls", dir.path());
    assert_eq!(daybook("check"), (Some(0), String::new()));

    for (pair, wanted) in REFUSED {
        put(pair, dir.path());
        let (code, said) = daybook("check");
        assert_eq!(code, Some(0));
        assert!(
            said.starts_with("warning: ") && said.contains(wanted),
            "{said}"
        );
    }

    std::fs::copy(Path::new(DATA).join("key.pem"), dir.path().join("key.pem")).unwrap();
    for command in ["check", "run"] {
        let (code, said) = daybook(command);
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(
            said.contains("http.tls.key (") && said.contains("daybook.toml:6)"),
            "{said}"
        );
    }
}
