//! Compare-and-set: no gap, no step back, no move by a superseded owner.

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

pub(super) async fn a_claim_makes_a_cursor_and_fences_older_ones(store: Subject) {
    let name = SourceName::new("claimed");
    let first = store.claim_cursor(&name).await.expect("claim");
    assert_eq!(
        (first.source.as_str(), first.generation, first.seq),
        ("claimed", 1, 0)
    );
    assert_eq!(first.detail, Value::Null);
    assert_eq!((first.last_event_at, first.last_event_id), (None, None));
    let moved = commit_moves(&store, vec![advance("claimed", 1, 0, 5)]).await;
    assert_eq!(moved, [MoveFate::Moved]);

    let second = store.claim_cursor(&name).await.expect("claim");
    assert_eq!((second.generation, second.seq), (2, 5));
    assert_eq!(second.detail, json!({ "offset": 5 }));
    for (from, to) in [(5, 9), (0, 5), (7, 9)] {
        let fenced = commit_moves(&store, vec![advance("claimed", 1, from, to)]).await;
        assert_eq!(fenced, [MoveFate::Fenced { owner: 2 }], "{from} to {to}");
    }
    let moved = commit_moves(&store, vec![advance("claimed", 2, 5, 9)]).await;
    assert_eq!(moved, [MoveFate::Moved]);
    let future = commit_moves(&store, vec![advance("claimed", 3, 9, 10)]).await;
    assert_eq!(future, [MoveFate::Fenced { owner: 2 }]);
}

pub(super) async fn an_advance_moves_covers_or_finds_a_gap(store: Subject) {
    claim(&store, "steps").await;
    for (from, to, expected, stands) in [
        (0, 10, MoveFate::Moved, 10),
        (0, 10, MoveFate::Covered, 10),
        (0, 7, MoveFate::Covered, 10),
        (10, 10, MoveFate::Covered, 10),
        (11, 12, MoveFate::Gap { stored: 10 }, 10),
        (11, 11, MoveFate::Gap { stored: 10 }, 10),
        (5, 12, MoveFate::Moved, 12),
        (12, 1 << 40, MoveFate::Moved, 1 << 40),
    ] {
        let fates = commit_moves(&store, vec![advance("steps", 1, from, to)]).await;
        assert_eq!(fates, [expected], "{from} to {to}");
        let cursor = cursor(&store, "steps").await.expect("a cursor");
        assert_eq!(cursor.seq, stands, "{from} to {to}");
        assert_eq!(cursor.detail, json!({ "offset": stands }));
    }
}

pub(super) async fn nobody_moves_an_unclaimed_cursor(store: Subject) {
    for generation in [0, 1] {
        let fates = commit_moves(&store, vec![advance("unclaimed", generation, 0, 1)]).await;
        assert_eq!(fates, [MoveFate::Fenced { owner: 0 }]);
    }
    assert_eq!(cursor(&store, "unclaimed").await, None);
}

pub(super) async fn what_a_move_leaves_out_stays(store: Subject) {
    claim(&store, "partial").await;
    let detail = json!({ "$set": { "a.b": [1, { "nul\0": u64::MAX }] }, "": null });
    let full = CursorMove {
        step: CursorStep::Advance {
            from: 0,
            to: 1,
            detail: detail.clone(),
        },
        last_event_at: Some(at(1_700_000_000_123)),
        last_event_id: Some("12:$34".to_owned()),
        ..advance("partial", 1, 0, 1)
    };
    assert_eq!(commit_moves(&store, vec![full]).await, [MoveFate::Moved]);
    let moved = cursor(&store, "partial").await.expect("a cursor");
    assert_eq!(moved.detail, detail);
    assert_eq!(
        commit_moves(&store, vec![advance("partial", 1, 1, 2)]).await,
        [MoveFate::Moved]
    );
    let later = cursor(&store, "partial").await.expect("a cursor");
    assert_eq!(later.detail, json!({ "offset": 2 }));
    assert_eq!(later.last_event_at, Some(at(1_700_000_000_123)));
    assert_eq!(later.last_event_id.as_deref(), Some("12:$34"));
    assert!(later.updated_at >= moved.updated_at);
}

pub(super) async fn a_touch_needs_no_claim_and_moves_nothing(store: Subject) {
    let touch = |last: Option<(i64, &str)>| CursorMove {
        source: SourceName::new("touched"),
        generation: 77,
        step: CursorStep::Touch,
        last_event_at: last.map(|(milliseconds, _)| at(milliseconds)),
        last_event_id: last.map(|(_, id)| id.to_owned()),
    };
    let two = vec![touch(Some((2000, "b"))), touch(Some((1000, "c")))];
    assert_eq!(
        commit_moves(&store, two).await,
        [MoveFate::Moved, MoveFate::Moved]
    );
    let touched = cursor(&store, "touched").await.expect("a cursor");
    assert_eq!((touched.generation, touched.seq), (0, 0));
    assert_eq!(
        touched.last_event_at,
        Some(at(2000)),
        "the newest, not the last"
    );
    assert_eq!(touched.last_event_id.as_deref(), Some("c"));

    commit_moves(&store, vec![touch(None)]).await;
    commit_moves(&store, vec![touch(Some((500, "d")))]).await;
    let touched = cursor(&store, "touched").await.expect("a cursor");
    assert_eq!(touched.last_event_at, Some(at(2000)));
    assert_eq!(touched.last_event_id.as_deref(), Some("d"));

    let fenced = commit_moves(&store, vec![advance("touched", 0, 0, 1)]).await;
    assert_eq!(
        fenced,
        [MoveFate::Fenced { owner: 0 }],
        "a touch is no claim"
    );
    assert_eq!(claim(&store, "touched").await.generation, 1);
}

pub(super) async fn cursors_move_with_their_records(store: Subject) {
    claim(&store, "left").await;
    claim(&store, "right").await;
    let (left, right) = (event("left", "1"), event("right", "1"));
    let touch = CursorMove {
        step: CursorStep::Touch,
        ..advance("middle", 0, 0, 0)
    };
    let commit = Commit {
        records: records([&left, &right]),
        moves: vec![
            advance("left", 1, 0, 3),
            touch,
            advance("right", 1, 4, 5),
            advance("nobody", 1, 0, 1),
        ],
        ..Commit::default()
    };
    let committed = store.commit(&commit).await.expect("commit");
    assert_eq!(committed.records, [Fate::Written, Fate::Written]);
    let fenced = MoveFate::Fenced { owner: 0 };
    let gap = MoveFate::Gap { stored: 0 };
    assert_eq!(
        committed.moves,
        [
            MoveFate::Moved,
            MoveFate::Moved,
            gap.clone(),
            fenced.clone()
        ]
    );

    let again = store.commit(&commit).await.expect("commit");
    assert_eq!(again.records, [Fate::Duplicate, Fate::Duplicate]);
    assert_eq!(
        again.moves,
        [MoveFate::Covered, MoveFate::Moved, gap, fenced]
    );
    let names = store.cursors().await.expect("cursors").into_iter();
    let names: Vec<_> = names.map(|cursor| cursor.source).collect();
    assert!(names.is_sorted(), "{names:?}");
}

pub(super) async fn racing_claims_have_generations_of_their_own(store: Subject) {
    let claims = (0..16).map(|_| claim(&store, "claim race"));
    let mut generations: Vec<_> = join_all(claims).await;
    generations.sort_by_key(|cursor| cursor.generation);
    let generations: Vec<_> = generations.iter().map(|cursor| cursor.generation).collect();
    assert_eq!(generations, (1..=16).collect::<Vec<_>>());
}

pub(super) async fn one_of_many_racing_advances_wins(store: Subject) {
    claim(&store, "advance race").await;
    for round in 0..10 {
        let moves = (0..8)
            .map(|_| commit_moves(&store, vec![advance("advance race", 1, round, round + 1)]));
        let fates = join_all(moves).await.concat();
        let moved = fates
            .iter()
            .filter(|fate| **fate == MoveFate::Moved)
            .count();
        let covered = fates
            .iter()
            .filter(|fate| **fate == MoveFate::Covered)
            .count();
        assert_eq!((moved, covered), (1, 7), "round {round}");
    }
}

/// The documented compare-and-set, without any store.
#[derive(Debug, Default)]
struct Model {
    generation: u64,
    seq: u64,
    last_event_at: Option<Timestamp>,
    last_event_id: Option<String>,
}

impl Model {
    fn apply(&mut self, step: &CursorMove) -> MoveFate {
        match &step.step {
            CursorStep::Touch => {
                self.last_event_at = self.last_event_at.max(step.last_event_at);
            }
            CursorStep::Advance { from, to, .. } => {
                if self.generation == 0 || step.generation != self.generation {
                    return MoveFate::Fenced {
                        owner: self.generation,
                    };
                }
                if *to <= self.seq {
                    return MoveFate::Covered;
                }
                if *from > self.seq {
                    return MoveFate::Gap { stored: self.seq };
                }
                self.seq = *to;
                self.last_event_at = step.last_event_at.or(self.last_event_at);
            }
        }
        if step.last_event_id.is_some() {
            self.last_event_id.clone_from(&step.last_event_id);
        }
        MoveFate::Moved
    }
}

pub(super) async fn random_steps_agree_with_a_model(store: Subject) {
    for seed in 0..4_u64 {
        random_steps(&store, seed).await;
    }
}

/// Steps drawn from a seed, on a cursor that only this seed has, agree with the model.
///
/// # Panics
/// When they do not.
pub async fn random_steps(store: &Subject, seed: u64) {
    let name = format!("model {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    for step in 0..60 {
        if random.random_bool(0.1) {
            model.generation += 1;
            let claimed = claim(store, &name).await;
            assert_eq!(
                (claimed.generation, claimed.seq),
                (model.generation, model.seq)
            );
            continue;
        }
        let from = random.random_range(0..20);
        let stale = u64::from(random.random_bool(0.2));
        let mut next = CursorMove {
            last_event_at: random
                .random_bool(0.5)
                .then(|| at(random.random_range(0..1000))),
            last_event_id: random.random_bool(0.5).then(|| step.to_string()),
            ..advance(
                &name,
                model.generation.saturating_sub(stale),
                from,
                from + random.random_range(0..5),
            )
        };
        if random.random_bool(0.2) {
            next.step = CursorStep::Touch;
        }
        let expected = model.apply(&next);
        let fates = commit_moves(store, vec![next.clone()]).await;
        assert_eq!(
            fates,
            [expected],
            "seed {seed}, step {step}: {next:?} on {model:?}"
        );
        if let Some(stored) = cursor(store, &name).await {
            assert_eq!(
                (stored.generation, stored.seq),
                (model.generation, model.seq)
            );
            assert_eq!(stored.last_event_at, model.last_event_at);
            assert_eq!(stored.last_event_id, model.last_event_id);
        }
    }
}

async fn claim(store: &Subject, source: &str) -> Cursor {
    let claimed = store.claim_cursor(&SourceName::new(source)).await;
    claimed.expect("claim")
}
