//! A few seeds of the chaos that `cargo run -p testkit --bin soak` strikes for longer.
#![allow(missing_docs, reason = "tests")]

use std::time::Duration;

use testkit::chaos::{self, Plan};
use tokio::sync::Mutex;

/// Each wants the machine for itself.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn seed(seed: u64) {
    let _alone = ALONE.lock().await;
    let plan = Plan {
        seed,
        length: Duration::from_secs(25),
        events_per_second: 40.0,
        child: (env!("CARGO_BIN_EXE_soak").into(), vec!["child".to_owned()]),
        verbose: false,
    };
    let report = chaos::run(&plan).await.expect("a run");
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
