use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::config::Secret;
use crate::simulators::authentik::{FakeAuthentik, FakeAuthentikConfig, Fault, Times};
use crate::telemetry::captured::Captured;
use crate::telemetry::metrics::Metrics;

async fn fake_and_client() -> (FakeAuthentik, Client) {
    let fake = FakeAuthentik::start(FakeAuthentikConfig::default()).await;
    let token = Secret::new(fake.token());
    let client = Client::new(&fake.url(), &token, PATIENCE, Metrics::new()).unwrap();
    (fake, client)
}

#[tokio::test]
async fn users_are_asked_for_in_the_order_of_the_rows() {
    let (fake, client) = fake_and_client().await;
    fake.set_fault(Fault::HangBeforeHeaders, Times::Forever);
    let mut people = People::default();
    let first_are_asked_for = async {
        while fake.requests().len() < AT_ONCE {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = people.look_up(&client, &[9, 3, 9, 7, 5, 1, 3]) => panic!("nobody is told"),
        () = first_are_asked_for => {}
    }
    let requests = fake.requests().into_iter();
    let mut paths: Vec<String> = requests.map(|request| request.path).collect();
    paths.sort();
    let wanted = [3, 5, 7, 9].map(|pk| format!("/api/v3/core/users/{pk}/"));
    assert_eq!(paths, wanted);
}

#[tokio::test]
async fn whoever_the_page_tells_of_stays_when_room_is_made() {
    let (_fake, client) = fake_and_client().await;
    let mut people = People::default();
    let now = Instant::now();
    let long_ago = now.checked_sub(REMEMBER).unwrap();
    for pk in 1..=REMEMBER_AT_MOST as i64 {
        // The second one is asked for again, and deleted.
        let since = if pk == 2 { long_ago } else { now };
        people.known.insert(pk, (since, Some(Person::default())));
    }
    let new = REMEMBER_AT_MOST as i64 + 1;
    assert_eq!(people.look_up(&client, &[1, 2, new]).await, None);
    assert!(people.get(1).is_some() && people.get(2).is_some());
    assert_eq!(people.known.len(), 3);
}

#[test]
fn a_trouble_is_forgotten_by_the_first_poll_that_begins_after_it() {
    let refused = ClientError::Refused {
        status: 403,
        detail: "You do not have permission to perform this action.".to_owned(),
    };
    for (error, is_forgotten) in [(ClientError::Late, true), (refused, false)] {
        let mut people = People::default();
        people.pause(error.clone());
        let until = people.trouble.as_ref().unwrap().until;
        people.poll_ended(until);
        assert!(people.trouble().is_some(), "{error}");
        people.poll_ended(until + Duration::from_secs(1));
        assert_eq!(people.trouble().is_none(), is_forgotten, "{error}");
    }
}

#[test]
fn a_trouble_that_comes_back_soon_is_logged_once() {
    let (captured, _guard) = Captured::begin();
    let mut people = People::default();
    let meet = |people: &mut People| {
        people.pause(ClientError::Late);
        let until = people.trouble.as_ref().unwrap().until;
        people.poll_ended(until + Duration::from_secs(1));
        assert!(people.trouble().is_none());
        people.note_slowness();
        people.poll_ended(Instant::now() + Duration::from_secs(1));
        assert!(people.trouble().is_none());
        captured.lines_with("look-ups").len()
    };
    assert_eq!([(); 3].map(|()| meet(&mut people)), [1, 1, 1]);
    people.failed = Instant::now().checked_sub(REMEMBER);
    assert_eq!(meet(&mut people), 2);
}

#[tokio::test]
async fn a_trouble_that_lasts_is_not_forgotten() {
    let (fake, client) = fake_and_client().await;
    fake.set_fault(Fault::ServerError, Times::Forever);
    let began = Instant::now();
    let mut people = People {
        untold: HashSet::from([1, 2, 3]),
        trouble: Some(Trouble {
            error: ClientError::Late,
            until: began.checked_sub(DOUBT_PAUSE).unwrap(),
            failures: TRIES,
        }),
        ..People::default()
    };
    people.look_up(&client, &[4]).await;
    assert!(fake.fault_hits() > 0 && people.is_fresh(4, Instant::now()));
    people.poll_ended(began);
    assert!(people.trouble().is_some());
}

#[test]
fn whoever_was_looked_up_before_a_change_is_so_again() {
    let mut people = People::default();
    let now = Instant::now();
    for (pk, seconds_ago) in [(1, 20), (2, 1)] {
        let since = now.checked_sub(Duration::from_secs(seconds_ago)).unwrap();
        people.known.insert(pk, (since, Some(Person::default())));
    }
    let fresh = |people: &People| [1, 2].map(|pk| people.is_fresh(pk, now));
    let note = |people: &mut People, seconds_ago| {
        let read_at = Timestamp::now();
        let at = read_at - SignedDuration::from_secs(seconds_ago);
        people.note_changes(at, at, read_at);
    };
    // Read late, as in a backlog.
    note(&mut people, 3600);
    assert_eq!(fresh(&people), [true, true]);
    note(&mut people, 10);
    note(&mut people, 3600);
    assert_eq!(fresh(&people), [false, true]);
    note(&mut people, -1);
    assert_eq!(fresh(&people), [false, false]);
    assert!(people.get(1).is_some() && people.get(2).is_some());
}

#[test]
fn events_of_before_a_change_are_told_by_what_was_known_until_then() {
    let mut people = People::default();
    let now = Timestamp::now();
    let ago = |seconds| now - SignedDuration::from_secs(seconds);
    let learn = |people: &mut People, pk, seconds_ago, group: &'static str| {
        let asked = Instant::now().checked_sub(Duration::from_secs(seconds_ago));
        let groups = vec![ByteString::from_static(group)];
        let person = Person {
            groups,
            ..Person::default()
        };
        people.learn(pk, asked.unwrap(), Some(person));
    };
    let group_at = |people: &People, pk, seconds_ago| {
        let mut hints = TenantHints::default();
        people.tell([Some(pk), None], ago(seconds_ago), &mut hints);
        hints.groups.pop().unwrap().to_string()
    };
    for (pk, asked) in [(1, 200), (2, 200), (3, 1000)] {
        learn(&mut people, pk, asked, "acme");
    }
    people.note_changes(ago(100), ago(90), now);
    learn(&mut people, 1, 80, "globex");
    learn(&mut people, 3, 80, "globex");
    let found = [110, 100, 95].map(|seconds_ago| group_at(&people, 1, seconds_ago));
    assert_eq!(found, ["acme", "globex", "globex"]);
    // What was known of this one may have been too old then.
    assert_eq!(group_at(&people, 3, 110), "globex");

    // The page once more, and the older one below it.
    people.note_changes(ago(100), ago(90), now);
    assert_eq!(group_at(&people, 1, 110), "acme");
    people.note_changes(ago(120), ago(120), now);
    let found = [130, 110].map(|seconds_ago| group_at(&people, 1, seconds_ago));
    assert_eq!(found, ["acme", "globex"]);

    // The first changes may have been about the second one too, who was asked for before them.
    people.note_changes(ago(30), ago(30), now);
    learn(&mut people, 1, 0, "initech");
    learn(&mut people, 2, 0, "initech");
    let found = [1, 2].map(|pk| group_at(&people, pk, 40));
    assert_eq!(found, ["globex", "initech"]);
    assert_eq!(group_at(&people, 1, 20), "initech");
}

#[test]
fn changes_of_users_and_groups_are_told_apart_from_others() {
    for (action, model_name, changes) in [
        ("model_updated", json!("group"), true),
        ("model_created", json!("user"), true),
        ("model_deleted", json!("user"), true),
        ("model_updated", json!("token"), false),
        ("model_updated", json!(7), false),
        ("review_overdue", json!("group"), false),
    ] {
        let context = json!({"model": {"pk": "09", "model_name": model_name}});
        let event = json!({"pk": "a", "action": action, "context": context});
        let raw = RawValue::from_string(event.to_string()).unwrap();
        assert_eq!(changes_people(&raw), changes, "{raw}");
    }
}

#[test]
fn a_proxys_page_is_no_lack_of_a_right() {
    for (detail, lacks) in [
        ("You do not have permission to perform this action.", true),
        ("Token invalid/expired", false),
        (HTML_PAGE, false),
    ] {
        let status = 403;
        let detail = detail.to_owned();
        let refused = ClientError::Refused { status, detail };
        assert_eq!(lacks_right(&refused), lacks, "{refused}");
    }
}

#[test]
fn an_impersonated_user_counts_only_once_the_administrator_is_known() {
    let mut people = People::default();
    let groups = |people: &People| {
        let mut hints = TenantHints::default();
        people.tell([Some(1), Some(2)], Timestamp::now(), &mut hints);
        hints.groups
    };
    let bob = Person {
        groups: vec!["acme".into()],
        ..Person::default()
    };
    people.known.insert(2, (Instant::now(), Some(bob)));
    assert!(groups(&people).is_empty());
    people.known.insert(1, (Instant::now(), None));
    assert_eq!(groups(&people), [ByteString::from_static("acme")]);
}
