//! A few seeds of the chaos that `cargo run -p testkit --bin soak` strikes for longer.
#![allow(missing_docs, reason = "tests")]

use testkit::chaos::{self, KINDS, Length, Plan, UPSTREAM_HITS};
use tokio::sync::Mutex;

/// Each wants the machine for itself.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn seed(seed: u64) {
    let _alone = ALONE.lock().await;
    let plan = Plan {
        seed,
        length: Length::Strikes(20),
        events_per_second: 40.0,
        child: (env!("CARGO_BIN_EXE_soak").into(), vec!["child".to_owned()]),
        verbose: false,
    };
    let report = chaos::run(&plan).await.expect("a run");
    println!("{}", report.page(&plan));
    assert!(report.is_clean(), "{}", report.page(&plan));
    let struck = |kind: &str| report.strikes.get(kind).copied().unwrap_or_default();
    for kind in KINDS.into_iter().chain([UPSTREAM_HITS]) {
        assert!(struck(kind) >= 1, "{kind}: {report:?}");
    }
    assert!(struck("actor kills confirmed") >= 1, "{report:?}");
    assert!(report.looks > 10, "{report:?}");
    assert!(report.promised > 250, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_1() {
    seed(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_2() {
    seed(2).await;
}
