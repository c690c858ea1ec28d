//! A few seeds of the chaos that `cargo run -p testkit --bin soak` strikes for longer.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use testkit::chaos::{self, Plan};
use tokio::sync::Mutex;

/// Each wants the machine for itself.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What the runs start as their Daybook: this program, with this test alone and a configuration's
/// path behind it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as the other tests' child"]
async fn daybook_of_a_run() {
    let config = std::env::args().next_back().map(PathBuf::from).unwrap();
    if config
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        chaos::child(&config).await.unwrap();
    }
}

async fn seed(seed: u64) {
    let _alone = ALONE.lock().await;
    let arguments = ["--exact", "--ignored", "--nocapture", "daybook_of_a_run"];
    let plan = Plan {
        seed,
        length: Duration::from_secs(25),
        events_per_second: 40.0,
        child: (
            std::env::current_exe().unwrap(),
            arguments.map(str::to_owned).into(),
        ),
        verbose: false,
    };
    let report = chaos::run(&plan).await.unwrap();
    println!("{}", report.page(&plan));
    assert!(report.is_clean(), "{}", report.page(&plan));
    let struck = |kind: &str| report.strikes.get(kind).copied().unwrap_or_default();
    assert!(struck("actor kills confirmed") >= 5, "{report:?}");
    assert!(struck("process kills") >= 1, "{report:?}");
    assert!(
        struck("store freezes") + struck("store kills") >= 1,
        "{report:?}"
    );
    assert!(report.promised > 400, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_1() {
    seed(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_2() {
    seed(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_3() {
    seed(3).await;
}
