//! The store away, or changing its primary, under a steady load of webhooks; shortly. The same for
//! longer: `cargo run --release -p testkit --bin outage -- --minutes 10 --rate 200`.
#![allow(missing_docs, reason = "tests")]

use std::time::Duration;

use testkit::outage::{self, Fault, Plan, Report};
use tokio::sync::Mutex;

/// A machine that is busy with other tests needs room.
const SLOWEST: Duration = Duration::from_secs(30);

/// Each wants the machine for itself.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn suffer(faults: &[Fault], each: Duration, rate: f64, events: u64) -> Report {
    let _alone = ALONE.lock().await;
    let plan = Plan {
        faults: faults.to_vec(),
        each,
        rate,
        events,
        child: (
            env!("CARGO_BIN_EXE_outage").into(),
            vec!["child".to_owned()],
        ),
    };
    let report = outage::run(&plan).await.expect("a run");
    println!("{}", report.page());
    assert!(report.is_clean(), "{}", report.page());
    // Nobody waits for long: two seconds on an idle machine. That they are answered from the journal
    // and not when the store is back is for `answered` to say.
    assert!(report.slowest < SLOWEST, "{}", report.page());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn every_webhook_of_an_outage_is_answered_at_once_and_entered_in_order() {
    let each = Duration::from_secs(8);
    let report = suffer(&[Fault::Freeze, Fault::Kill], each, 100.0, 1).await;
    for outage in &report.outages {
        // The store was away and the mail server went on: its events were somewhere.
        assert!(outage.answered > 20, "{outage:?}");
        assert!(outage.journal_bytes > 0, "{outage:?}");
    }
    assert!(report.in_order > 200, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_primary_refuses_no_webhook() {
    let each = Duration::from_secs(6);
    let report = suffer(&[Fault::StepDown, Fault::KillPrimary], each, 30.0, 4).await;
    for outage in &report.outages {
        assert!(outage.answered > 50, "{outage:?}");
    }
    assert!(report.promised > 1_000, "{report:?}");
}
