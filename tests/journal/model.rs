//! The journal against a model: any sequence of appends, drains, restarts and crashes, in which a
//! crash cuts the last segment anywhere behind its last answered byte, or anywhere at all.

use std::fs;

use daybook::journal::{Journal, JournalOptions};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        length: usize,
    },
    AppendTogether {
        count: usize,
        length: usize,
    },
    Drain {
        window: u64,
    },
    ReadOnly {
        window: u64,
    },
    Restart,
    /// The process dies in the middle of a group that was not answered yet.
    CrashBehindTheEnd {
        junk: Vec<u8>,
    },
    /// The disk forgets the last bytes: what stood in them is gone, and nothing else.
    CutOff {
        bytes: u64,
    },
    /// The drained position never reached the disk.
    ForgetDrained,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..600_usize).prop_map(|length| Step::Append { length }),
        2 => (1..8_usize, 0..300_usize)
            .prop_map(|(count, length)| Step::AppendTogether { count, length }),
        4 => (1..3000_u64).prop_map(|window| Step::Drain { window }),
        1 => (1..3000_u64).prop_map(|window| Step::ReadOnly { window }),
        2 => Just(Step::Restart),
        1 => prop_oneof![
            proptest::collection::vec(Just(0), 1..60),
            proptest::collection::vec(any::<u8>(), 1..11),
        ]
        .prop_map(|junk| Step::CrashBehindTheEnd { junk }),
        1 => (1..500_u64).prop_map(|bytes| Step::CutOff { bytes }),
        1 => Just(Step::ForgetDrained),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Model {
    dir: tempfile::TempDir,
    journal: Option<Journal>,
    next: u64,
    /// Appended and answered, in order; which are drained.
    answered: Vec<PushRecord>,
    drained: usize,
}

impl Model {
    fn options(&self) -> JournalOptions {
        JournalOptions {
            segment_bytes: 1500,
            ..options(self.dir.path())
        }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn make(&mut self, length: usize) -> PushRecord {
        self.next += 1;
        push(self.next, length)
    }

    fn check(&self) {
        assert_eq!(records(self.journal()), self.answered[self.drained..]);
        let figures = self.journal().figures();
        let left = &self.answered[self.drained..];
        assert_eq!(figures.bytes == 0, left.is_empty());
        assert_eq!(
            figures.oldest,
            left.first().map(|record| record.received_at)
        );
    }

    async fn with_closed(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.journal.take().unwrap().close().await;
        meanwhile(self.dir.path());
        self.journal = Some(Journal::open(self.options()).unwrap());
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { length } => {
                let record = self.make(length);
                self.journal().append(record.clone()).await.unwrap();
                self.answered.push(record);
            }
            Step::AppendTogether { count, length } => {
                let records: Vec<_> = (0..count).map(|_| self.make(length)).collect();
                let journal = self.journal().clone();
                let appends = records.iter().map(|record| journal.append(record.clone()));
                for outcome in futures_util::future::join_all(appends).await {
                    outcome.unwrap();
                }
                self.answered.extend(records);
            }
            Step::Drain { window } => {
                let window = self.journal().read(window).unwrap();
                self.drained += window.stored.len();
                self.journal().drained(window.next).await;
            }
            Step::ReadOnly { window } => {
                self.journal().read(window).unwrap();
            }
            Step::Restart => self.with_closed(|_| ()).await,
            Step::CrashBehindTheEnd { junk } => {
                self.with_closed(|dir| {
                    if let Some(last) = segments(dir).pop() {
                        let mut bytes = fs::read(&last).unwrap();
                        bytes.extend(junk);
                        fs::write(last, bytes).unwrap();
                    }
                })
                .await;
            }
            Step::CutOff { bytes } => {
                self.with_closed(|dir| {
                    if let Some(last) = segments(dir).pop() {
                        let file = fs::File::options().write(true).open(&last).unwrap();
                        let length = file.metadata().unwrap().len();
                        file.set_len(length.saturating_sub(bytes)).unwrap();
                    }
                })
                .await;
                // A disk that lies loses from the end, as much as it has cut off, and nothing else.
                let left = records(self.journal());
                let kept = (self.drained + left.len()).min(self.answered.len());
                assert_eq!(left, self.answered[self.drained..kept]);
                let lost = &self.answered[kept..];
                let whole = lost.iter().skip(1).map(|record| record.body.len() as u64);
                assert!(whole.sum::<u64>() <= bytes, "{} are lost", lost.len());
                self.answered.truncate(kept);
            }
            Step::ForgetDrained => {
                self.with_closed(|dir| {
                    let _none_yet = fs::remove_file(dir.join("drained"));
                })
                .await;
                let again = records(self.journal()).len();
                let undrained = self.answered.len() - self.drained;
                assert!(again >= undrained, "a record was lost");
                self.drained = self.answered.len() - again;
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_answered_record_is_lost_and_none_is_invented(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut model = Model {
                journal: None,
                dir,
                next: 0,
                answered: Vec::new(),
                drained: 0,
            };
            model.journal = Some(Journal::open(model.options()).unwrap());
            for step in steps {
                model.step(step).await;
            }
        });
    }
}
