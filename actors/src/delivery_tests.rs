use proptest::prelude::*;

use super::*;

impl Divisible for Vec<u32> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn split(mut self) -> (Self, Self) {
        let back = self.split_off(Vec::len(&self) / 2);
        (self, back)
    }
}

struct Delivery {
    delivered: Vec<u32>,
    poison: Vec<u32>,
    deaths: u32,
    sends: u32,
}

/// A receiver that dies of certain items, and a sender that goes by the outbox.
fn deliver(batches: &[Vec<u32>], deadly: &dyn Fn(u32) -> bool) -> Delivery {
    let mut outbox = Outbox::new();
    for batch in batches {
        outbox.push(batch.clone());
    }
    let mut result = Delivery {
        delivered: Vec::new(),
        poison: Vec::new(),
        deaths: 0,
        sends: 0,
    };
    while let Some(batch) = outbox.next() {
        result.sends += 1;
        assert!(result.sends < 1_000_000, "no end");
        if !batch.iter().any(|item| deadly(*item)) {
            result.delivered.extend(outbox.acked().unwrap());
            continue;
        }
        result.deaths += 1;
        if let Verdict::Poison(item) = outbox.callee_died(true) {
            assert_eq!(item.len(), 1);
            result.poison.extend(item);
        }
    }
    result
}

#[test]
fn one_poison_among_a_thousand_costs_seven_deaths() {
    let result = deliver(&[(0..1_000).collect()], &|item| item == 613);
    assert_eq!(result.poison, [613]);
    assert_eq!(result.delivered.len(), 999);
    assert_eq!(result.deaths, 7);
    assert!(result.sends < 150, "{} sends", result.sends);
}

#[test]
fn three_deaths_divide_and_two_do_not() {
    let mut outbox = Outbox::new();
    outbox.push(vec![1, 2]);
    assert!(!outbox.is_suspect());
    assert_eq!(outbox.callee_died(true), Verdict::Resend);
    assert_eq!(outbox.callee_died(true), Verdict::Resend);
    assert!(outbox.is_suspect());
    assert_eq!(outbox.next(), Some(&vec![1, 2]));
    assert_eq!(outbox.callee_died(true), Verdict::Divided);
    assert_eq!(outbox.next(), Some(&vec![1]));
    assert_eq!(outbox.pending_items(), 2);
}

#[test]
fn a_batch_that_sat_in_a_dead_mailbox_is_innocent() {
    let mut outbox = Outbox::new();
    outbox.push(vec![1, 2]);
    for _ in 0..100 {
        assert_eq!(outbox.callee_died(false), Verdict::Resend);
        outbox.refused();
    }
    assert!(!outbox.is_suspect());
    assert_eq!(outbox.next(), Some(&vec![1, 2]));
}

#[test]
fn kills_condemn_later_than_panics() {
    let mut outbox = Outbox::new();
    outbox.push(vec![7]);
    for _ in 0..9 {
        assert_eq!(outbox.callee_fell(Fate::Interrupted), Verdict::Resend);
    }
    assert_eq!(
        outbox.callee_fell(Fate::Interrupted),
        Verdict::Poison(vec![7])
    );
    assert!(outbox.is_empty());

    outbox.push(vec![8]);
    assert_eq!(outbox.callee_fell(Fate::Panicked), Verdict::Resend);
    assert_eq!(outbox.callee_fell(Fate::Finished), Verdict::Resend);
    assert_eq!(outbox.callee_fell(Fate::Panicked), Verdict::Resend);
    assert_eq!(outbox.callee_fell(Fate::Panicked), Verdict::Poison(vec![8]));
}

#[test]
fn what_replaces_a_poison_item_goes_before_the_rest() {
    let mut outbox = Outbox::new();
    outbox.push(vec![1]);
    outbox.push(vec![2]);
    outbox.callee_died(true);
    outbox.callee_died(true);
    assert_eq!(outbox.callee_died(true), Verdict::Poison(vec![1]));
    outbox.push_front(vec![100]);
    assert_eq!(outbox.acked(), Some(vec![100]));
    assert_eq!(outbox.acked(), Some(vec![2]));
    assert_eq!(outbox.acked(), None);
    assert_eq!(outbox.callee_died(true), Verdict::Resend);
}

#[test]
fn custody_tells_a_kill_from_a_panic() {
    let custody = Custody::new();
    assert_eq!(
        (custody.fate(), custody.was_taken()),
        (Fate::Untouched, false)
    );
    custody.clone().taken();
    assert_eq!(
        (custody.fate(), custody.was_taken()),
        (Fate::Interrupted, true)
    );

    let killed = Custody::new();
    drop(killed.begin());
    assert_eq!(killed.fate(), Fate::Interrupted);

    let panicked = Custody::new();
    let in_handler = panicked.clone();
    let handler = std::panic::AssertUnwindSafe(|| {
        let _handling = in_handler.begin();
        std::panic::resume_unwind(Box::new("poison"));
    });
    assert!(std::panic::catch_unwind(handler).is_err());
    assert_eq!(panicked.fate(), Fate::Panicked);

    let finished = Custody::new();
    finished.begin().finish();
    assert_eq!(
        (finished.fate(), finished.was_taken()),
        (Fate::Finished, false)
    );
}

proptest! {
    #[test]
    fn everything_but_the_poison_arrives_once_and_in_order(
        sizes in proptest::collection::vec(1usize..200, 1..5),
        seeds in proptest::collection::vec(0u32..800, 0..6),
    ) {
        let mut all = 0u32..;
        let batches: Vec<Vec<u32>> = sizes.iter().map(|n| all.by_ref().take(*n).collect()).collect();
        let total = all.start;
        let deadly: std::collections::BTreeSet<u32> =
            seeds.iter().copied().filter(|item| *item < total).collect();
        let result = deliver(&batches, &|item| deadly.contains(&item));

        let expected: Vec<u32> = (0..total).filter(|item| !deadly.contains(item)).collect();
        prop_assert_eq!(result.delivered, expected);
        prop_assert_eq!(result.poison, deadly.iter().copied().collect::<Vec<_>>());
        prop_assert!(result.deaths <= 7 * deadly.len() as u32);
    }
}
