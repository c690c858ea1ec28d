//! `daybook replay`: what is missing is entered, and nothing twice.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "replay/behind.rs"]
mod behind;
#[path = "replay/broken_off.rs"]
mod broken_off;
#[path = "replay/people.rs"]
mod people;
#[path = "replay/twins.rs"]
mod twins;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daybook::simulators::authentik::{
    FakeAuthentik, FakeAuthentikConfig, Fault, Permissions, Scripted, Times,
};
use daybook::simulators::ocis::OcisLog;
use daybook::simulators::people::People;
use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testkit::World;
use testkit::world::{Plan, eventually};

fn run(config: &Path, source: &str, since: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_daybook"))
        .args([
            "replay", "--json", "--source", source, "--since", since, "-c",
        ])
        .arg(config)
        .output()
        .unwrap()
}

fn replay(config: &Path, source: &str, since: &str) -> Value {
    let output = run(config, source, since);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Deletes the oldest part of the timeline, half of it at least, as a mistake would.
async fn lose_half(world: &World, source: &str) -> usize {
    let events = world.events().await;
    let mut times: Vec<_> = events
        .iter()
        .filter(|event| event.source == source)
        .map(|event| event.at)
        .collect();
    times.sort_unstable();
    let middle = times[times.len() / 2] + SignedDuration::from_millis(1);
    let store = world.daybook().store();
    let mut deleted = 0;
    // One call goes on only while there is time.
    loop {
        match store.delete_events_before(middle, 100_000).await.unwrap() {
            0 => break,
            some => deleted += some,
        }
    }
    assert!(deleted > 0);
    usize::try_from(deleted).unwrap()
}

fn keys_of(events: &[daybook::store::StoredEvent], source: &str) -> Vec<String> {
    let of_source = events.iter().filter(|event| event.source == source);
    let mut keys: Vec<_> = of_source.map(|event| event.external_id.clone()).collect();
    keys.sort();
    keys
}

fn append(log: &OcisLog, lines: u64, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    log.append_bulk(lines, &mut rng, &People::new(seed), Timestamp::now())
        .unwrap();
}

async fn all_read(world: &World, path: &Path) {
    eventually("everything is read", async || {
        let behind = world.metric("daybook_ocis_bytes_behind", "").await;
        let read = world
            .metric("daybook_events_received_total", "source=\"ocis\"")
            .await;
        behind == 0.0 && read > 0.0 && path.exists()
    })
    .await;
    eventually("everything is entered", async || {
        world.daybook().budget().in_use() == 0
    })
    .await;
}

async fn files_are_read_again(rotate: impl Fn(&Path, &Path), is_copied: bool) {
    let plan = World::sqlite().await;
    let path = plan.dir().join("audit.log");
    let log = OcisLog::new(path.clone());
    append(&log, 400, 1);
    let source = format!(
        "kind = \"ocis\"\npath = \"{}\"\npoll = \"250ms\"",
        path.display()
    );
    let config = plan.file(
        "cli.toml",
        format!(
            "[store]\nurl = \"{}\"\n[[sources]]\n{source}\n",
            plan.store_url()
        ),
    );
    let world = plan.source(&source).start().await;
    all_read(&world, &path).await;
    rotate(&path, &path.with_extension("log.1"));
    append(&log, 400, 2);
    let wanted = |world: &World| {
        let world = world.daybook().store().clone();
        async move {
            let filter = daybook::store::EventFilter::default();
            world.find_events(&filter, None, 5000).await.unwrap()
        }
    };
    let promised = log.promised();
    let changes = promised.total - promised.of("file_read") - promised.of("public_link_accessed");
    eventually("both files are read", async || {
        world
            .metric("daybook_events_written_total", "source=\"ocis\"")
            .await
            == changes as f64
    })
    .await;
    let before = wanted(&world).await;

    // Nothing is missing yet, whatever the copy's lines are called.
    let counts = replay(&config, "ocis", "2000-01-01");
    assert_eq!(
        (&counts["new"], &counts["known"]),
        (&json!(0), &json!(changes)),
        "{counts}"
    );
    let lost = lose_half(&world, "ocis").await;
    let counts = replay(&config, "ocis", "2000-01-01");
    assert_eq!(counts["new"], lost, "{counts}");
    let after = wanted(&world).await;
    if is_copied {
        assert_eq!(
            keys_of(&after, "ocis").len(),
            keys_of(&before, "ocis").len()
        );
    } else {
        assert_eq!(keys_of(&after, "ocis"), keys_of(&before, "ocis"));
    }
    let counts = replay(&config, "ocis", "2000-01-01");
    assert_eq!(counts["new"], 0, "{counts}");

    // The service goes on as before.
    let written = world
        .metric("daybook_events_written_total", "source=\"ocis\"")
        .await;
    append(&log, 50, 3);
    eventually("it goes on", async || {
        world
            .metric("daybook_events_written_total", "source=\"ocis\"")
            .await
            > written
    })
    .await;
    assert!(
        world
            .events()
            .await
            .iter()
            .any(|event| event.action == "daybook.source_replayed")
    );
    world.stop().await;
}

/// A space that was shared twice says the same twice, and not when.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_event_without_a_time_is_told_from_one_that_says_the_same() {
    let line = json!({
        "RemoteAddr": "", "User": "", "URL": "", "Method": "", "UserAgent": "", "Time": "",
        "App": "admin_audit", "Message": "user 'u' shared space 's' with 'v'",
        "Action": "space_shared", "CLI": false, "Level": 1, "SpaceID": "s", "GranteeUserID": "v",
    });
    let plan = World::sqlite().await;
    let path = plan.file("audit.log", format!("{line}\n{line}\n"));
    let source = format!("kind = \"ocis\"\npath = \"{}\"\n", path.display());
    let config = plan.file(
        "cli.toml",
        format!(
            "[store]\nurl = \"{}\"\n[[sources]]\n{source}",
            plan.store_url()
        ),
    );
    let file = plan.store_url().trim_start_matches("sqlite:").to_owned();
    let world = plan.source(&source).start().await;
    eventually("both are entered", async || {
        world.metric("daybook_events_written_total", "").await == 2.0
    })
    .await;
    let before = keys_of(&world.events().await, "ocis");
    let connection = rusqlite::Connection::open(file).unwrap();
    let lost = connection
        .execute(
            "DELETE FROM auditevents WHERE externalId = ?1",
            [&before[1]],
        )
        .unwrap();
    assert_eq!(lost, 1);
    for new in [1, 0] {
        let counts = replay(&config, "ocis", "2000-01-01");
        assert_eq!(counts["new"], new, "{counts}");
    }
    assert_eq!(keys_of(&world.events().await, "ocis"), before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_files_are_read_again() {
    files_are_read_again(
        |live, rotated| std::fs::rename(live, rotated).unwrap(),
        false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_files_are_read_again_and_known_by_their_content() {
    let copy_and_cut = |live: &Path, rotated: &Path| {
        std::fs::copy(live, rotated).unwrap();
        std::fs::File::options()
            .write(true)
            .open(live)
            .unwrap()
            .set_len(0)
            .unwrap();
    };
    files_are_read_again(copy_and_cut, true).await;
}

async fn fake_authentik() -> FakeAuthentik {
    let token = format!("secret-{:032x}", rand::random::<u128>());
    FakeAuthentik::start(FakeAuthentikConfig {
        token,
        ..FakeAuthentikConfig::default()
    })
    .await
}

fn login(hours_ago: i64) -> Value {
    let created = Timestamp::now() - SignedDuration::from_hours(hours_ago);
    json!({
        "action": "login", "app": "authentik.events.signals",
        "user": {"pk": 4, "email": "alice@example.org", "username": "alice"},
        "context": {}, "client_ip": "192.0.2.7", "created": format!("{created:.6}"),
    })
}

/// Counts to the length of a page that is too long.
fn large_login(hours_ago: i64) -> Value {
    let mut event = login(hours_ago);
    event["context"]["large"] = true.into();
    event
}

fn too_long_with_more_than(events: usize) -> Scripted {
    Scripted::new(Fault::Overlong(events))
        .on("/events/events/")
        .times(Times::Forever)
}

/// The lines of the source, and a configuration with it.
fn with_authentik(plan: &Plan, fake: &FakeAuthentik) -> (String, PathBuf) {
    let token = plan.file("token", fake.token());
    let source = format!(
        "kind = \"authentik\"\nurl = \"{}\"\ntoken_file = \"{}\"\ninterval = \"1s\"\npage_size = 20",
        fake.url(),
        token.display()
    );
    let config = plan.file(
        "cli.toml",
        format!(
            "[store]\nurl = \"{}\"\n[[sources]]\n{source}\n",
            plan.store_url()
        ),
    );
    (source, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn authentiks_list_is_walked_again() {
    let fake = fake_authentik().await;
    fake.insert_many((1..=300).map(login).collect());
    let plan = World::sqlite().await;
    let (source, config) = with_authentik(&plan, &fake);
    let world = plan.source(&source).start().await;
    let before = world.events_reach(300).await;
    let lost = lose_half(&world, "authentik").await;
    // Only as far back as asked for.
    let counts = replay(&config, "authentik", "200h");
    let expected = lost.saturating_sub(100);
    let new = usize::try_from(counts["new"].as_u64().unwrap()).unwrap();
    assert!(new.abs_diff(expected) <= 1, "{counts} of {lost}");
    let counts = replay(&config, "authentik", "400h");
    assert_eq!(counts["new"], lost - new, "{counts}");
    assert_eq!(
        keys_of(&world.events().await, "authentik"),
        keys_of(&before, "authentik")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_authentiks_that_is_too_long_is_read_in_smaller_ones() {
    let fake = fake_authentik().await;
    fake.insert_many((1..=60).map(large_login).collect());
    fake.script(too_long_with_more_than(15));
    let plan = World::sqlite().await;
    let (_, config) = with_authentik(&plan, &fake);
    let counts = replay(&config, "authentik", "400h");
    assert_eq!((&counts["read"], &counts["new"]), (&json!(60), &json!(60)));
    let requests = fake.requests();
    for page in ["page=1&page_size=20", "page=1&page_size=10"] {
        let asked = requests.iter().filter(|each| each.query.ends_with(page));
        assert_eq!(asked.count(), 1, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_authentiks_that_is_too_long_is_told() {
    let fake = fake_authentik().await;
    fake.insert_many((1..=10).map(login).collect());
    fake.insert_many(vec![large_login(11)]);
    fake.script(too_long_with_more_than(0));
    let plan = World::sqlite().await;
    let (_, config) = with_authentik(&plan, &fake);
    let output = run(&config, "authentik", "400h");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("an event is longer than 64 MiB"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_authentiks_that_tell_no_place_are_counted_once() {
    let fake = fake_authentik().await;
    let mut events: Vec<Value> = (1..=60).map(login).collect();
    for (number, event) in events.iter_mut().enumerate().step_by(2) {
        event["pk"] = number.into();
    }
    fake.insert_many(events);
    let plan = World::sqlite().await;
    let (_, config) = with_authentik(&plan, &fake);
    for (new, known) in [(30, 0), (0, 30)] {
        let counts = replay(&config, "authentik", "400h");
        let wanted =
            json!({"read": 60, "new": new, "known": known, "leftOut": 0, "unreadable": 30});
        assert_eq!(counts, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_sees_no_event_is_told_and_a_quiet_time_is_none() {
    let fake = fake_authentik().await;
    fake.insert_many((1..=60).map(login).collect());
    let plan = World::sqlite().await;
    let (_, config) = with_authentik(&plan, &fake);
    // From the second page on, and from the first.
    fake.at_request(2, |fake| {
        fake.add_token(&fake.token(), Permissions::OUTPOST);
    });
    for _ in 0..2 {
        let output = run(&config, "authentik", "400h");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("sees no event at all"), "{said}");
    }

    fake.add_token(&fake.token(), Permissions::READER);
    for (since, new, known, left_out) in [("30m", 0, 0, 20), ("400h", 40, 20, 0)] {
        let counts = replay(&config, "authentik", since);
        let wanted = json!({"read": new + known + left_out, "new": new, "known": known,
            "leftOut": left_out, "unreadable": 0});
        assert_eq!(counts, wanted);
    }
}

/// All that the walk has begun with go, and one comes that tells no place.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_authentiks_in_which_the_walk_cannot_go_on_is_told() {
    let fake = fake_authentik().await;
    fake.insert_many((1..=60).map(login).collect());
    let plan = World::sqlite().await;
    let (_, config) = with_authentik(&plan, &fake);
    fake.at_request(2, |fake| {
        fake.delete_user_events(4);
        let mut event = login(1);
        event["pk"] = 7.into();
        fake.insert_many(vec![event]);
    });
    let output = run(&config, "authentik", "400h");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("contradict each other"), "{said}");
}

#[test]
fn pushed_events_cannot_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("daybook.toml");
    let text = format!(
        "[store]\nurl = \"sqlite:{}/d.db\"\n[[sources]]\nkind = \"recorder\"\nname = \"api\"\n",
        dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let run = |source: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_daybook"))
            .args(["replay", "--source", source, "--since", "7d", "-c"])
            .arg(&config)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run("api").contains("dead-letters retry"), "{}", run("api"));
    assert!(run("odd").contains("there are: api"));
    assert!(!dir.path().join("d.db").exists());
}
