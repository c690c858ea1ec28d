use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A list as Authentik keeps it, and the order in which it answers.
struct Server {
    rows: Vec<RowKey>,
    max_page: u64,
    /// Whether every page has `max_page` rows, whatever is asked for.
    ignores_size: bool,
    now: i64,
    next_pk: u64,
    /// A page of more rows is too long.
    longest_page: u64,
}

/// Whether a row tells its place.
fn is_readable(row: &RowKey) -> bool {
    !row.pk.starts_with('x')
}

impl Server {
    fn new(rows: u64, max_page: u64, rng: &mut StdRng) -> Self {
        let mut server = Self {
            rows: Vec::new(),
            max_page,
            ignores_size: false,
            now: 1_000_000,
            next_pk: 0,
            longest_page: u64::MAX,
        };
        for _ in 0..rows {
            server.now += rng.random_range(0..3);
            server.insert(0, rng);
        }
        server
    }

    /// Inserts an event whose time lies so many seconds back.
    fn insert(&mut self, seconds_back: i64, rng: &mut StdRng) -> RowKey {
        self.next_pk += 1;
        let row = RowKey {
            created: Timestamp::from_second(self.now - seconds_back).unwrap(),
            pk: format!("{:08x}-{}", rng.random::<u32>(), self.next_pk),
        };
        let place = self.rows.partition_point(|each| row.is_below(each));
        self.rows.insert(place, row.clone());
        row
    }

    /// Makes unreadable what stands there.
    fn spoil(&mut self, rows: std::ops::Range<usize>) {
        for row in &mut self.rows[rows] {
            row.pk.insert(0, 'x');
        }
    }

    fn is_too_long(&self, request: PageRequest) -> bool {
        request.page_size.min(self.max_page) > self.longest_page
    }

    fn answer(&self, request: PageRequest) -> PageAnswer {
        let granted = request.page_size.min(self.max_page);
        let size = if self.ignores_size {
            self.max_page as usize
        } else {
            granted as usize
        };
        let from = ((request.page - 1) as usize * size).min(self.rows.len());
        let to = (from + size).min(self.rows.len());
        PageAnswer {
            rows: (self.rows[from..to].iter())
                .filter(|row| is_readable(row))
                .cloned()
                .collect(),
            length: (to - from) as u64,
            has_next: to < self.rows.len(),
            count: self.rows.len() as u64,
            server_time: Timestamp::from_second(self.now + 1).unwrap(),
        }
    }
}

const OVERLAP: Duration = Duration::from_secs(300);

fn poll(
    walk: &mut Walk,
    server: &mut Server,
    seen: &mut HashMap<String, u32>,
    between: impl FnMut(&mut Server),
) -> u32 {
    walk.begin_poll();
    finish_poll(walk, server, seen, between)
}

fn finish_poll(
    walk: &mut Walk,
    server: &mut Server,
    seen: &mut HashMap<String, u32>,
    mut between: impl FnMut(&mut Server),
) -> u32 {
    let mut requests = 0;
    while let Some(request) = walk.next_request() {
        requests += 1;
        assert!(!walk.is_lost(), "walk is lost at {request:?}");
        if server.is_too_long(request) {
            assert!(walk.ask_for_less(), "a single row is too long");
            continue;
        }
        let answer = server.answer(request);
        let taken = walk.accept(&answer);
        for index in &taken.rows {
            *seen.entry(answer.rows[*index].pk.clone()).or_default() += 1;
        }
        walk.confirm(taken.rows.iter().map(|index| answer.rows[*index].clone()));
        between(server);
    }
    requests
}

/// As the poller does: while older rows wait, the top is looked at again after five pages that led
/// onward. How many requests it takes, and how many gaps there are at most.
fn catch_up(
    walk: &mut Walk,
    server: &mut Server,
    seen: &mut HashMap<String, u32>,
    mut before_head: impl FnMut(&mut Server),
) -> (u32, usize) {
    let (mut requests, mut onward, mut most_gaps) = (0, 0, 0);
    walk.begin_poll();
    while let Some(request) = walk.next_request() {
        requests += 1;
        assert!(requests < 2_000, "stands still: {:?}", walk.cursor);
        assert!(!walk.is_lost(), "walk is lost at {request:?}");
        let answer = server.answer(request);
        let taken = walk.accept(&answer);
        for index in &taken.rows {
            *seen.entry(answer.rows[*index].pk.clone()).or_default() += 1;
        }
        walk.confirm(taken.rows.iter().map(|index| answer.rows[*index].clone()));
        most_gaps = most_gaps.max(taken.cursor.gaps.len());
        onward += u32::from(taken.onward);
        if onward >= 5 && walk.has_gaps() {
            onward = 0;
            before_head(server);
            walk.begin_poll();
        }
    }
    (requests, most_gaps)
}

fn missing(server: &Server, seen: &HashMap<String, u32>) -> usize {
    server
        .rows
        .iter()
        .filter(|row| is_readable(row) && !seen.contains_key(&row.pk))
        .count()
}

#[test]
fn a_backlog_is_read_once_and_a_quiet_poll_costs_one_request() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut server = Server::new(10_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let requests = poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
    assert!(seen.values().all(|count| *count == 1));
    assert!(requests < 120, "{requests} requests for 100 pages");
    let quiet = poll(&mut walk, &mut server, &mut seen, |_| {});
    assert!(quiet <= 2, "{quiet}");
    server.insert(0, &mut rng);
    let one_new = poll(&mut walk, &mut server, &mut seen, |_| {});
    assert!(one_new <= 2, "{one_new}");
    assert_eq!(missing(&server, &seen), 0);
}

/// What is read again for late events is no backlog, however many pages it has.
#[test]
fn reading_again_is_no_backlog() {
    let mut rng = StdRng::seed_from_u64(12);
    let mut server = Server::new(3_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut behind = 0;
    walk.begin_poll();
    while let Some(request) = walk.next_request() {
        walk.accept(&server.answer(request));
        behind += u32::from(walk.has_backlog());
    }
    assert!(behind > 20, "{behind}");

    server.now += 400;
    server.insert(0, &mut rng);
    walk.begin_deep_poll(Duration::from_secs(100_000));
    let mut pages = 0;
    while let Some(request) = walk.next_request() {
        walk.accept(&server.answer(request));
        pages += u32::from(walk.has_gaps());
        // The head may end above what was read before.
        assert!(!walk.has_backlog() || pages < 4, "at page {pages}");
    }
    assert!(pages > 20, "{pages}");
}

/// Whether the last poll before it was a quiet one or not.
#[test]
fn what_may_have_come_and_gone_lies_between_two_heads() {
    for is_quiet in [false, true] {
        let mut rng = StdRng::seed_from_u64(14);
        let mut server = Server::new(50, 100, &mut rng);
        let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
        let mut head = |server: &Server| {
            walk.begin_poll();
            let answer = server.answer(walk.next_request().unwrap());
            let taken = walk.accept(&answer);
            walk.confirm(taken.rows.iter().map(|index| answer.rows[*index].clone()));
            (answer.server_time, taken.unseen)
        };
        head(&server);
        server.now += 60;
        if !is_quiet {
            server.insert(0, &mut rng);
        }
        let (since, _) = head(&server);
        server.now += 3 * 86_400;
        server.insert(0, &mut rng);
        let (until, unseen) = head(&server);
        assert_eq!(unseen, Some(Unseen { since, until }), "quiet: {is_quiet}");
    }
}

#[test]
fn a_clock_that_was_ahead_hides_nothing_when_it_is_put_right() {
    let mut rng = StdRng::seed_from_u64(13);
    let mut server = Server::new(50, 5, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 5);
    let mut seen = HashMap::new();
    server.now += 1_000_000;
    for _ in 0..8 {
        server.insert(0, &mut rng);
    }
    poll(&mut walk, &mut server, &mut seen, |_| {});
    server.now -= 1_000_000;
    for _ in 0..4 {
        server.now += 60;
        server.insert(0, &mut rng);
        poll(&mut walk, &mut server, &mut seen, |_| {});
        assert_eq!(missing(&server, &seen), 0);
    }
}

#[test]
fn what_a_clock_that_was_ahead_left_hides_no_later_absence() {
    // The second list is too long for one page: the absence comes in the middle of its walk.
    for rows in [50, 2_000] {
        let mut rng = StdRng::seed_from_u64(21);
        let mut server = Server::new(rows, 100, &mut rng);
        let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut head = |walk: &mut Walk, server: &Server| {
            walk.begin_poll();
            let answer = server.answer(walk.next_request().unwrap());
            for index in walk.accept(&answer).rows {
                *seen.entry(answer.rows[index].pk.clone()).or_default() += 1;
            }
        };
        let ahead = 100_000_000;
        server.now += ahead;
        server.insert(0, &mut rng);
        head(&mut walk, &server);
        server.now -= ahead - 60;
        server.insert(0, &mut rng);
        head(&mut walk, &server);
        // Three days.
        for _ in 0..300 {
            server.now += 864;
            server.insert(0, &mut rng);
        }
        let mut walk = Walk::new(walk.cursor.clone(), OVERLAP, 100);
        walk.begin_poll();
        let answer = server.answer(walk.next_request().unwrap());
        let unseen = walk.unseen_before(&answer).unwrap();
        assert_eq!(unseen.length().as_hours(), 72, "{rows} rows");
        poll(&mut walk, &mut server, &mut seen, |_| {});
        assert_eq!(missing(&server, &seen), 0, "{rows} rows");
    }
}

/// Else a gap since then would be told, and the whole list be read once more.
#[test]
fn a_clock_that_is_behind_for_a_while_lowers_nothing() {
    let mut rng = StdRng::seed_from_u64(22);
    let mut server = Server::new(500, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    poll(&mut walk, &mut server, &mut seen, |_| {});
    let high_water = walk.cursor.high_water;
    server.now -= 900_000;
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert!(high_water.is_some());
    assert_eq!(walk.cursor.high_water, high_water);
}

#[test]
fn a_server_that_grants_seven_rows_is_read_too() {
    let mut rng = StdRng::seed_from_u64(2);
    // At row 420 every page of one to seven rows ends.
    let mut server = Server::new(1_500, 7, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let requests = poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
    assert!(requests < 500, "{requests}");
}

#[test]
fn a_list_whose_pages_ignore_the_size_asked_for_is_read_to_its_end() {
    for (max_page, rows, wanted) in [
        (7, 350, 100),
        (20, 350, 100),
        (100, 350, 100),
        (20, 350, 10),
        // The second page is the last one, and shorter than what is asked for.
        (7, 10, 100),
        (100, 130, 100),
    ] {
        for grows in [false, true] {
            let what = format!("{rows} rows, {max_page} a page, {wanted} wanted, {grows}");
            let mut rng = StdRng::seed_from_u64(20);
            let mut server = Server::new(rows, max_page, &mut rng);
            server.ignores_size = true;
            let mut walk = Walk::new(WalkCursor::default(), OVERLAP, wanted);
            let mut seen = HashMap::new();
            let mut left = if grows { 20 } else { 0 };
            let requests = poll(&mut walk, &mut server, &mut seen, |server| {
                if left > 0 {
                    left -= 1;
                    server.now += 1;
                    server.insert(0, &mut rng);
                }
            });
            let most = 3 * rows / max_page + 30;
            assert!(u64::from(requests) < most, "{what}: {requests}");
            poll(&mut walk, &mut server, &mut seen, |_| {});
            assert_eq!(missing(&server, &seen), 0, "{what}");
            assert!(!walk.has_gaps(), "{what}");
            let quiet = poll(&mut walk, &mut server, &mut seen, |_| {});
            assert!(quiet <= 2, "{what}: {quiet}");
        }
    }
}

#[test]
fn an_interrupted_walk_goes_on_where_it_was() {
    let mut rng = StdRng::seed_from_u64(3);
    let server = Server::new(5_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut cursor = WalkCursor::default();
    let mut requests = 0;
    for _ in 0..12 {
        walk = Walk::new(cursor.clone(), OVERLAP, 100);
        walk.begin_poll();
        for _ in 0..25 {
            let Some(request) = walk.next_request() else {
                break;
            };
            requests += 1;
            let answer = server.answer(request);
            let taken = walk.accept(&answer);
            for index in &taken.rows {
                *seen.entry(answer.rows[*index].pk.clone()).or_default() += 1;
            }
            cursor = taken.cursor;
        }
    }
    assert!(!walk.has_gaps());
    assert_eq!(missing(&server, &seen), 0);
    assert!(requests < 200, "{requests}");
}

#[test]
fn nothing_is_missed_while_events_arrive_late_and_expire() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let max_page = rng.random_range(3..60);
        let rows = rng.random_range(0..400);
        let mut server = Server::new(rows, max_page, &mut rng);
        let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 50);
        let mut seen = HashMap::new();
        let mut rng_between = StdRng::seed_from_u64(seed + 10_000);
        for _ in 0..6 {
            poll(&mut walk, &mut server, &mut seen, |server| {
                for _ in 0..rng_between.random_range(0..4) {
                    match rng_between.random_range(0..10) {
                        0..4 => {
                            server.now += rng_between.random_range(0..2);
                            server.insert(0, &mut rng_between);
                        }
                        4..6 => {
                            server.insert(rng_between.random_range(0..100), &mut rng_between);
                        }
                        6..9 if !server.rows.is_empty() => {
                            let at = rng_between.random_range(0..server.rows.len());
                            server.rows.remove(at);
                        }
                        9 => {
                            let keep = server.rows.len() - server.rows.len().min(5);
                            server.rows.truncate(keep);
                        }
                        _ => {}
                    }
                }
            });
        }
        // What a late event and a removal together may have hidden comes with a deep poll.
        walk.begin_deep_poll(OVERLAP * 2);
        finish_poll(&mut walk, &mut server, &mut seen, |_| {});
        assert_eq!(missing(&server, &seen), 0, "seed {seed}");
    }
}

#[test]
fn a_clock_in_the_future_does_not_cut_off_normal_events() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut server = Server::new(300, 100, &mut rng);
    server.insert(-86_400, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    poll(&mut walk, &mut server, &mut seen, |_| {});
    for _ in 0..250 {
        server.now += 5;
        server.insert(0, &mut rng);
    }
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
}

#[test]
fn a_quiet_server_never_counts_as_lost() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut server = Server::new(1_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    poll(&mut walk, &mut server, &mut seen, |_| {});
    for _ in 0..500 {
        assert!(poll(&mut walk, &mut server, &mut seen, |_| {}) <= 2);
    }
}

#[test]
fn a_late_event_is_found_although_an_old_one_went_at_the_same_time() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut server = Server::new(2_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    poll(&mut walk, &mut server, &mut seen, |_| {});
    server.rows.pop();
    server.insert(200, &mut rng);
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
}

#[test]
fn polls_during_a_long_walk_do_not_begin_it_again() {
    let mut rng = StdRng::seed_from_u64(8);
    // All of it within the overlap: the worst case.
    let mut server = Server::new(0, 100, &mut rng);
    for number in 0..10_000 {
        server.now += i64::from(number % 40 == 0);
        server.insert(0, &mut rng);
    }
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let mut cursor = WalkCursor::default();
    walk.begin_poll();
    let mut requests = 0;
    while let Some(request) = walk.next_request() {
        requests += 1;
        let answer = server.answer(request);
        let taken = walk.accept(&answer);
        for index in &taken.rows {
            *seen.entry(answer.rows[*index].pk.clone()).or_default() += 1;
        }
        walk.confirm(taken.rows.iter().map(|index| answer.rows[*index].clone()));
        cursor = taken.cursor;
        assert!(cursor.gaps.len() <= 2, "{:?}", cursor.gaps);
        if requests % 5 == 0 && walk.has_gaps() {
            server.now += 1;
            server.insert(0, &mut rng);
            walk.begin_poll();
        }
    }
    assert_eq!(missing(&server, &seen), 0);
    assert!(requests < 170, "{requests}");
    assert_eq!(cursor.fresh, None);
    let after = poll(&mut walk, &mut server, &mut seen, |_| {});
    assert!(after <= 2, "{after}");
}

#[test]
fn many_rows_of_one_time_do_not_hold_up_what_is_older() {
    let mut rng = StdRng::seed_from_u64(23);
    let mut server = Server::new(3_000, 100, &mut rng);
    for _ in 0..900 {
        server.insert(0, &mut rng);
    }
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let (requests, most_gaps) = catch_up(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
    assert!(seen.values().all(|count| *count == 1));
    assert!(requests < 300, "{requests}");
    assert!(most_gaps <= 3, "{most_gaps}");
}

/// What clocks that are less ahead tell, or right ones, stands below the first pages.
#[test]
fn rows_of_clocks_that_are_ahead_do_not_hold_up_what_is_older() {
    let mut rng = StdRng::seed_from_u64(24);
    let mut server = Server::new(3_000, 100, &mut rng);
    for third in 0..900 {
        server.insert(-third / 3, &mut rng);
    }
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let (requests, most_gaps) = catch_up(&mut walk, &mut server, &mut seen, |server| {
        server.now += 4;
        for ahead in (0..=300).step_by(25) {
            server.insert(-ahead, &mut rng);
        }
    });
    assert_eq!(missing(&server, &seen), 0);
    assert!(requests < 300, "{requests}");
    assert!(most_gaps <= 3, "{most_gaps}");
}

#[test]
fn a_flood_that_is_faster_than_the_reader_leaves_a_bounded_number_of_gaps() {
    let mut rng = StdRng::seed_from_u64(25);
    let mut server = Server::new(200, 10, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 10);
    let mut seen = HashMap::new();
    let mut floods = 30;
    let (_, most_gaps) = catch_up(&mut walk, &mut server, &mut seen, |server| {
        if floods > 0 {
            floods -= 1;
            for _ in 0..100 {
                server.now += 1;
                server.insert(0, &mut rng);
            }
        }
    });
    assert_eq!(floods, 0);
    assert_eq!(most_gaps, MOST_GAPS);
    assert_eq!(missing(&server, &seen), 0);
}

#[test]
fn a_late_event_behind_a_long_walk_is_found_when_it_ends() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut server = Server::new(3_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let mut requests = 0;
    let mut other = StdRng::seed_from_u64(10);
    poll(&mut walk, &mut server, &mut seen, |server| {
        requests += 1;
        if requests == 20 {
            server.insert(250, &mut other);
            server.now += 100;
        }
    });
    assert_eq!(missing(&server, &seen), 1);
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
}

#[test]
fn a_list_that_turns_empty_midway_closes_nothing() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut server = Server::new(2_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let hidden = std::cell::RefCell::new(Vec::new());
    let mut requests = 0;
    poll(&mut walk, &mut server, &mut seen, |server| {
        requests += 1;
        if requests == 5 {
            hidden.replace(std::mem::take(&mut server.rows));
        }
    });
    assert!(walk.has_gaps());
    for _ in 0..3 {
        assert!(poll(&mut walk, &mut server, &mut seen, |_| {}) <= 3);
    }
    server.rows = hidden.into_inner();
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
    assert!(!walk.has_gaps());
}

#[test]
fn only_what_should_have_been_known_counts_as_late() {
    let mut rng = StdRng::seed_from_u64(12);
    let mut server = Server::new(500, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut late = 0;
    let mut run = |walk: &mut Walk, server: &Server| {
        walk.begin_poll();
        while let Some(request) = walk.next_request() {
            let answer = server.answer(request);
            let taken = walk.accept(&answer);
            late += taken.late;
            walk.confirm(taken.rows.iter().map(|index| answer.rows[*index].clone()));
        }
        late
    };
    assert_eq!(run(&mut walk, &server), 0);
    server.insert(10, &mut rng);
    assert_eq!(run(&mut walk, &server), 0);
    server.insert(200, &mut rng);
    assert_eq!(run(&mut walk, &server), 1);
}

#[test]
fn a_cursor_of_a_walk_under_way_survives_being_stored() {
    let at = Timestamp::from_second(1_000).unwrap();
    let below = RowKey {
        created: at,
        pk: "a".to_owned(),
    };
    let cursor = WalkCursor {
        high_water: Some(at),
        gaps: vec![Gap {
            below,
            down_to: None,
            index: 99,
        }],
        fresh: Some(at),
    };
    let stored = serde_json::to_value(&cursor).unwrap();
    assert_eq!(
        serde_json::from_value::<WalkCursor>(stored).unwrap(),
        cursor
    );
    let without = serde_json::json!({"highWater": null, "gaps": []});
    assert_eq!(
        serde_json::from_value::<WalkCursor>(without).unwrap(),
        WalkCursor::default()
    );
}

#[test]
fn what_is_durable_is_not_entered_again_however_old_it_is() {
    let mut rng = StdRng::seed_from_u64(13);
    let mut server = Server::new(0, 100, &mut rng);
    for _ in 0..250 {
        server.now += 30;
        server.insert(0, &mut rng);
    }
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    for _ in 0..3 {
        poll(&mut walk, &mut server, &mut seen, |_| {});
    }
    for depth in [OVERLAP * 2, Duration::from_secs(86_400)] {
        walk.begin_deep_poll(depth);
        finish_poll(&mut walk, &mut server, &mut seen, |_| {});
    }
    assert_eq!(missing(&server, &seen), 0);
    assert!(seen.values().all(|count| *count == 1));
    // On the first page, far below the overlap, and late.
    let late = server.insert(2_000, &mut rng);
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(seen.get(&late.pk), Some(&1));
}

#[test]
fn a_run_of_rows_that_tell_no_place_is_stepped_over() {
    for (max_page, run) in [
        (1, 3),
        (2, 7),
        (7, 20),
        (7, 800),
        (100, 60),
        (100, 120),
        (100, 150),
    ] {
        for from in [0, 1, 100, 380] {
            for grows in [false, true] {
                let what = format!("{run} rows from {from} on, {max_page} a page, {grows}");
                let mut rng = StdRng::seed_from_u64(14);
                let mut server = Server::new(from as u64 + run as u64 + 230, max_page, &mut rng);
                server.spoil(from..from + run);
                let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
                let mut seen = HashMap::new();
                let mut other = StdRng::seed_from_u64(15);
                let mut left = if grows { 50 } else { 0 };
                let mut requests = 0;
                for _ in 0..2 {
                    requests += poll(&mut walk, &mut server, &mut seen, |server| {
                        if left > 0 {
                            left -= 1;
                            server.now += 1;
                            server.insert(0, &mut other);
                        }
                    });
                }
                requests += poll(&mut walk, &mut server, &mut seen, |_| {});
                assert_eq!(missing(&server, &seen), 0, "{what}");
                assert!(!walk.has_gaps(), "{what}");
                let pages = server.rows.len() as u32 / max_page as u32;
                assert!(requests < 6 * pages + 60, "{what}: {requests} requests");
            }
        }
    }
}

#[test]
fn unreadable_rows_on_top_of_a_walk_under_way_do_not_end_it() {
    let mut rng = StdRng::seed_from_u64(16);
    let mut server = Server::new(2_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    walk.begin_poll();
    for _ in 0..5 {
        let answer = server.answer(walk.next_request().unwrap());
        for index in walk.accept(&answer).rows {
            *seen.entry(answer.rows[index].pk.clone()).or_default() += 1;
        }
    }
    assert!(walk.has_gaps());
    for _ in 0..260 {
        server.now += 1;
        server.insert(0, &mut rng);
    }
    server.spoil(0..250);
    poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
    assert!(!walk.has_gaps());
}

#[test]
fn a_page_that_is_too_long_is_read_in_smaller_ones_for_a_while() {
    let mut rng = StdRng::seed_from_u64(18);
    let mut server = Server::new(1_000, 100, &mut rng);
    server.longest_page = 12;
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    let mut seen = HashMap::new();
    let requests = poll(&mut walk, &mut server, &mut seen, |_| {});
    assert_eq!(missing(&server, &seen), 0);
    assert!(requests < 200, "{requests}");
    assert!(walk.limit().is_some_and(|limit| limit <= 25));
    server.longest_page = u64::MAX;
    for _ in 0..500 {
        poll(&mut walk, &mut server, &mut seen, |_| {});
    }
    assert_eq!(walk.limit(), None);
    assert_eq!(walk.next_request(), None);
}

#[test]
fn a_single_row_that_is_too_long_is_told() {
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    walk.begin_poll();
    for page_size in [100, 50, 25, 12, 6, 3, 1] {
        assert_eq!(walk.next_request().unwrap().page_size, page_size);
        assert_eq!(walk.ask_for_less(), page_size > 1);
    }
}

#[test]
fn a_walk_whose_place_is_never_found_counts_as_lost_although_polls_begin() {
    let mut rng = StdRng::seed_from_u64(19);
    let mut server = Server::new(2_000, 100, &mut rng);
    let mut walk = Walk::new(WalkCursor::default(), OVERLAP, 100);
    walk.begin_poll();
    let request = walk.next_request().unwrap();
    walk.accept(&server.answer(request));
    // The first page of a server that has many new events, the others of one that has lost some.
    let mut lost_some = server.answer(PageRequest {
        page: 5,
        page_size: 100,
    });
    let mut requests = 0;
    while !walk.is_lost() {
        requests += 1;
        assert!(requests < 300);
        if requests % 5 == 0 {
            walk.begin_poll();
        }
        let request = walk.next_request().unwrap();
        let taken = if request.page > 1 {
            lost_some.count += 1;
            walk.accept(&lost_some)
        } else {
            for _ in 0..200 {
                server.now += 1;
                server.insert(0, &mut rng);
            }
            walk.accept(&server.answer(request))
        };
        assert!(!taken.further);
    }
}
