//! The page in a real browser: the stories in `tests/browser`, told to a running demo and to a
//! service that asks for tokens. Needs `node`, `npm` and Chromium; see `scripts/test.sh`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::json;
use testkit::process::{Process, free_port};
use testkit::world::{client, eventually};

const DAYBOOK: &str = env!("CARGO_BIN_EXE_daybook");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Brings the one package that the stories need, once; it is pinned by its lock file.
fn install(stories: &Path) {
    let installed = stories.join("node_modules/playwright-core/package.json");
    if installed.exists() {
        return;
    }
    let done = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(stories)
        .status();
    assert!(done.expect("npm is installed").success(), "npm ci");
}

fn token(config: &str, role: &str) -> String {
    let made = Command::new(DAYBOOK)
        .args(["token", "new", "-c", config, "--role", role])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_in_a_browser() {
    let stories = Path::new(ROOT).join("tests/browser");
    install(&stories);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();

    let demo_port = free_port();
    let listen = format!("127.0.0.1:{demo_port}");
    let arguments = [
        "demo",
        "--listen",
        &listen,
        "--rate",
        "20",
        "--dir",
        &path("demo"),
    ];
    let mut demo = Process::spawn(DAYBOOK, &arguments, demo_port, &dir.path().join("demo.log"));

    let port = free_port();
    let config = path("daybook.toml");
    let text = format!(
        "[store]\nurl = \"sqlite:{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
         [journal]\ndir = \"{}\"\nmax_size = \"0B\"\n[[sources]]\nkind = \"recorder\"\nname = \"services\"\n",
        path("daybook.db"),
        path("journal"),
    );
    std::fs::write(&config, text).unwrap();
    let [operator, tenant, recorder] =
        ["operator", "tenant:acme", "recorder"].map(|role| token(&config, role));
    let log = dir.path().join("guarded.log");
    let mut guarded = Process::spawn(DAYBOOK, &["run", "-c", &config], port, &log);
    guarded.ready().await;
    demo.ready().await;
    let events = json!({"events": [
        {"action": "invoice.paid", "tenantSlug": "acme", "outcome": "success"},
        {"action": "elsewhere.happened", "tenantSlug": "other", "outcome": "success"},
    ]});
    let sent = client()
        .post(guarded.url("/api/v1/events"))
        .bearer_auth(&recorder)
        .body(events.to_string())
        .send();
    assert_eq!(sent.await.unwrap().status(), 200);
    eventually("both have their events", async || {
        let written = "daybook_events_written_total";
        demo.metric(written, "").await > 1000.0 && guarded.metric(written, "").await >= 2.0
    })
    .await;

    let told = tokio::process::Command::new("node")
        .arg(stories.join("main.mjs"))
        .env("DEMO_URL", demo.url(""))
        .env("GUARDED_URL", guarded.url(""))
        .env("OPERATOR_TOKEN", operator)
        .env("TENANT_TOKEN", tenant)
        .env("RECORDER_TOKEN", recorder)
        .env("SCREENSHOTS", Path::new(ROOT).join("target/screenshots"))
        .kill_on_drop(true)
        .output()
        .await
        .expect("node is installed");
    let told_out = String::from_utf8_lossy(&told.stdout);
    println!("{told_out}{}", String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "a story failed, see above");
    for process in [&mut demo, &mut guarded] {
        process.signal("TERM");
        assert_eq!(process.wait().await.code(), Some(0));
    }
}
