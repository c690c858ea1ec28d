//! What is gathered is found, counted and deleted like what stands in the table.

use super::*;
use crate::store::feed::Matcher;
use crate::store::{Bar, CursorMove};

/// Events of one commit: enough to be gathered.
const EVENTS: usize = 200;

const TENANTS: [Option<&str>; 3] = [None, Some("acme"), Some("globex")];

/// An event that shares its actor, address and target with others, at some time of three days.
fn shared(number: usize) -> AuditEvent {
    let minute = i64::try_from(number * 7919 % 4320).unwrap();
    AuditEvent {
        at: jiff::Timestamp::from_second(1_700_000_000 + 60 * minute).unwrap(),
        outcome: [None, Some(Outcome::Success)][number / 2 % 2],
        actor: Actor {
            id: Some(format!("actor-{}", number % 17).into()),
            name: Some(format!("Straße {}", number % 5).into()),
            ip: Some(format!("192.0.2.{}", number % 3).into()),
            ..Actor::default()
        },
        target: Target {
            id: Some(format!("target-{}", number % 101).into()),
            name: Some(format!("own-{number}").into()),
            ..Target::default()
        },
        ..event(number)
    }
}

fn rows(connection: &Connection, table: &str) -> usize {
    let count = format!("SELECT count(*) FROM {table}");
    let count: i64 = connection.query_row(&count, [], |row| row.get(0)).unwrap();
    usize::try_from(count).unwrap()
}

struct File {
    _directory: TempDir,
    connection: Connection,
    tables: Tables,
    known: index::Known,
}

impl File {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("daybook.db");
        let mut connection = open_connection(&path, AMPLE).unwrap();
        let tables = Tables::new(&Collections::default()).unwrap();
        tables.create(&mut connection).unwrap();
        while counts::count_some(&mut connection, &tables, 1).unwrap() {}
        while packs::pack_some(&mut connection, &tables, 1).unwrap() {}
        Self {
            _directory: directory,
            connection,
            tables,
            known: index::Known::default(),
        }
    }

    /// Enters the events of these numbers in one commit.
    fn commit(&mut self, numbers: std::ops::Range<usize>) {
        let events: Vec<AuditEvent> = numbers.clone().map(shared).collect();
        let record = |(number, event)| Record::Event {
            event,
            tenant_slug: TENANTS[number % 3],
        };
        let records: Vec<Record<'_>> = numbers.zip(&events).map(record).collect();
        let (parts, coming) = tokio::sync::mpsc::channel(2);
        let piece = commit::Piece::of(&records, 0, &self.known);
        let end = commit::Part::End {
            moves: Vec::<CursorMove>::new(),
            learned: Vec::new(),
        };
        assert!(parts.try_send(commit::Part::Piece(piece)).is_ok());
        assert!(parts.try_send(end).is_ok());
        let (connection, tables) = (&mut self.connection, &self.tables);
        let probe = Probe::default();
        let committed = commit::commit(connection, tables, coming, &self.known, &probe);
        let fates = committed.unwrap().records;
        assert_eq!(fates, vec![Fate::Written; events.len()]);
    }

    fn put_away(&mut self) -> bool {
        let (connection, tables) = (&mut self.connection, &self.tables);
        self.known.put_away(connection, tables).unwrap()
    }

    /// Deletes the oldest events.
    fn delete(&mut self, limit: usize, portion: Duration) -> Option<u64> {
        let (connection, tables) = (&mut self.connection, &self.tables);
        let (now, limit) = (jiff::Timestamp::now(), u32::try_from(limit).unwrap());
        retention::delete_events(connection, tables, now, limit, portion).unwrap()
    }

    fn rows(&self, table: &str) -> usize {
        rows(&self.connection, table)
    }

    /// The ids that a filter finds, page by page.
    fn find(&self, filter: &EventFilter) -> Vec<String> {
        let mut found: Vec<StoredEvent> = Vec::new();
        loop {
            let before = found.last().map(PageKey::of);
            let (connection, tables) = (&self.connection, &self.tables);
            let (before, payloads) = (before.as_ref(), Payloads::Whole);
            let page = query::events(connection, tables, filter, before, 7, payloads).unwrap();
            if page.events.is_empty() {
                return found.into_iter().map(|event| event.id).collect();
            }
            found.extend(page.events);
        }
    }

    fn count(&self, filter: &EventFilter) -> (u64, Vec<Bar>) {
        let counted = histogram::count_by_time(&self.connection, &self.tables, filter, 24);
        let counted = counted.unwrap();
        (counted.total, counted.bars)
    }
}

/// Conditions on terms alone and together, with and without others.
fn filters() -> Vec<EventFilter> {
    let mut filters = Vec::new();
    let some = |text: &str| Some(text.to_owned());
    for tenant in [None, some("acme")] {
        for (actor, ip, target, text) in [
            (some("actor-3"), None, None, None),
            (some("STRASSE 2"), None, None, None),
            (some("straße 2"), some("192.0.2.1"), None, None),
            (None, some("192.0.2.1"), None, None),
            (None, None, some("target-7"), None),
            (some("actor-3"), None, some("target-20"), None),
            (None, None, some("own-250"), None),
            (some("nobody"), None, None, None),
            (None, None, None, some("arget-1")),
            (None, None, None, some("ße 4")),
            (None, None, None, some("own-39")),
            (None, some("192.0.2.2"), None, some("actor-1")),
        ] {
            for (outcome, since, until) in [
                (None, None, None),
                (Some(Outcome::Success), None, None),
                (None, Some(1_700_050_000), Some(1_700_150_000)),
            ] {
                let time = |second| jiff::Timestamp::from_second(second).unwrap();
                filters.push(EventFilter {
                    tenant: tenant.clone(),
                    actor: actor.clone(),
                    ip: ip.clone(),
                    target: target.clone(),
                    text: text.clone(),
                    outcome,
                    since: since.map(time),
                    until: until.map(time),
                    ..EventFilter::default()
                });
            }
        }
    }
    filters
}

#[test]
fn gathered_terms_are_found_and_counted() {
    let mut file = File::new();
    for commit in 0..3 {
        file.commit(commit * EVENTS..(commit + 1) * EVENTS);
    }
    file.commit(3 * EVENTS..3 * EVENTS + 5);
    let (terms, gathered) = (file.tables.terms.clone(), file.tables.gathered.clone());
    assert!(file.rows(&terms) > 0, "a commit puts a slice away");
    assert!(file.rows(&gathered) > 0, "a commit gathers");

    let everything = query::events(
        &file.connection,
        &file.tables,
        &EventFilter::default(),
        None,
        u32::MAX,
        Payloads::LeftOut,
    );
    let everything = everything.unwrap().events;
    let mut before = Vec::new();
    for filter in filters() {
        let matcher = Matcher::new(filter.clone(), Caseless::Lowercase);
        let wanted = everything.iter().filter(|event| matcher.matches(event));
        let wanted: Vec<String> = wanted.map(|event| event.id.clone()).collect();
        assert_eq!(file.find(&filter), wanted, "{filter:?}");
        let counted = file.count(&filter);
        assert_eq!(counted.0, wanted.len() as u64, "{filter:?}");
        before.push((wanted, counted));
    }
    let found_some = before.iter().filter(|(found, _)| !found.is_empty());
    assert!(found_some.count() > 50);

    while file.put_away() {}
    assert_eq!(file.rows(&gathered), 0);
    // Actor, name, address, target, name; an odd text has a second term.
    assert_eq!(file.rows(&terms), 6 * everything.len());
    for (filter, before) in filters().iter().zip(before) {
        assert_eq!(
            (file.find(filter), file.count(filter)),
            before,
            "{filter:?}"
        );
    }
}

#[test]
fn the_slice_that_waited_longest_is_put_away() {
    let mut file = File::new();
    // Each commit gathers all slices and puts one away: after as many none of the first is left.
    let gathered = file.tables.gathered.clone();
    let oldest = format!("SELECT min(id & 0xffffffffffff) FROM {gathered}");
    for commit in 0..=64 {
        file.commit(commit * EVENTS..(commit + 1) * EVENTS);
    }
    let oldest: i64 = file
        .connection
        .query_row(&oldest, [], |row| row.get(0))
        .unwrap();
    let first_of_second = i64::try_from(EVENTS).unwrap() + 1;
    assert!(oldest >= first_of_second, "event {oldest} still waits");
}

#[test]
fn only_who_enters_events_puts_terms_away() {
    let mut file = File::new();
    file.commit(0..EVENTS);
    let gathered = file.tables.gathered.clone();
    let reader = index::Known::default();
    let waiting = file.rows(&gathered);
    let of_reader = reader.put_away(&mut file.connection, &file.tables);
    assert_eq!((of_reader.unwrap(), file.rows(&gathered)), (false, waiting));
    while file.put_away() {}
    assert_eq!(file.rows(&gathered), 0);
}

#[tokio::test]
async fn an_idle_writer_puts_everything_away() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory, AMPLE);
    store.prepare().await.unwrap();
    let events: Vec<AuditEvent> = (0..EVENTS).map(shared).collect();
    enter(&store, &events).await.unwrap();
    let file = Connection::open(directory.path().join("daybook.db")).unwrap();
    let until = std::time::Instant::now() + AMPLE;
    while rows(&file, &store.tables.gathered) > 0 {
        assert!(std::time::Instant::now() < until, "nothing is put away");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rows(&file, &store.tables.terms), 6 * EVENTS);
}

#[test]
fn deleted_events_leave_no_term_behind() {
    let mut file = File::new();
    file.commit(0..EVENTS);
    let (terms, gathered) = (file.tables.terms.clone(), file.tables.gathered.clone());
    assert!(file.rows(&gathered) > 0);
    assert_eq!(file.delete(EVENTS, AMPLE), Some(EVENTS as u64));
    assert_eq!((file.rows(&gathered), file.rows(&terms)), (0, 0));
}

#[test]
fn a_deletion_puts_its_own_events_terms_away_and_goes_as_far_as_it_has_time_for() {
    let mut file = File::new();
    file.commit(0..EVENTS);
    while file.put_away() {}
    file.commit(EVENTS..2 * EVENTS);
    let (terms, gathered) = (file.tables.terms.clone(), file.tables.gathered.clone());
    let waiting = file.rows(&gathered);
    assert!(waiting > 1);
    // The oldest of all is the first.
    assert_eq!(file.delete(1, AMPLE), Some(1));
    assert_eq!(file.rows(&gathered), waiting);
    for _ in 0..waiting {
        assert_eq!(file.delete(2 * EVENTS, Duration::ZERO), None);
    }
    assert_eq!(file.delete(2 * EVENTS, Duration::ZERO), Some(1));
    let rest = 2 * EVENTS - 2;
    assert_eq!(file.count(&EventFilter::default()).0, rest as u64);
    assert_eq!(file.delete(2 * EVENTS, AMPLE), Some(rest as u64));
    assert_eq!((file.rows(&gathered), file.rows(&terms)), (0, 0));
}
