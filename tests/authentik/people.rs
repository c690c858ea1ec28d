//! Whose events they are: by the groups that Authentik tells, else by the directory.

use std::time::{Duration, Instant};

use daybook::simulators::authentik::{
    FakeAuthentik, FakeAuthentikConfig, FakeGroup, FakeUser, Fault, Permissions, Scripted, Times,
};
use jiff::Timestamp;
use serde_json::Value;
use testkit::World;
use testkit::world::eventually;

use super::{a_poll_passes, event_at, fake, fake_with, history, plan_of, ready};

const DIRECTORY: &str = r#"
[[tenants]]
id = "t1"
slug = "acme"
groups = ["Acme Staff"]
[[tenants]]
id = "t2"
slug = "globex"
groups = ["Globex"]
[[users]]
authentikSubjectId = "subject-of-carol"
email = "carol@example.org"
tenantIds = ["t2"]
"#;

async fn world(fake: &FakeAuthentik, lines: &str) -> World {
    let plan = World::sqlite().await;
    let file = plan.file("tenants.toml", DIRECTORY);
    let plan = plan.settings(&format!(
        "[tenants]\nfile = \"{}\"\nignored_groups = [\"authentik Admins\", \"globex\"]",
        file.display()
    ));
    ready(plan_of(plan, fake, lines).start().await).await
}

fn group(number: u32, name: &str) -> FakeGroup {
    FakeGroup {
        pk: group_pk(number),
        name: name.to_owned(),
        is_superuser: false,
    }
}

fn group_pk(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn user(pk: i64, name: &str, groups: &[u32]) -> FakeUser {
    FakeUser {
        pk,
        username: name.to_owned(),
        name: name.to_owned(),
        email: format!("{name}@example.org"),
        uid: format!("subject-of-{name}"),
        uuid: format!("{pk:08x}-1111-4000-8000-000000000000"),
        groups: groups.iter().map(|number| group_pk(*number)).collect(),
        is_active: true,
    }
}

fn act(fake: &FakeAuthentik, pk: i64, name: &str, email: &str) {
    let event = act_at(Timestamp::now(), pk, name, email);
    fake.insert(event, Duration::ZERO);
}

fn act_at(created: Timestamp, pk: i64, name: &str, email: &str) -> Value {
    let mut event = event_at(created);
    event["user"] = serde_json::json!({"pk": pk, "email": email, "username": name});
    event
}

/// An administrator moves somebody into the group number 4.
fn move_at(created: Timestamp) -> Value {
    let mut moved = act_at(created, 102, "akadmin", "");
    moved["action"] = "model_updated".into();
    moved["context"]["model"] = serde_json::json!({"pk": group_pk(4), "app": "authentik_core",
        "name": "Globex", "model_name": "group"});
    moved
}

async fn tenants_of(world: &World, count: usize) -> Vec<(String, Option<String>)> {
    let mut found: Vec<(String, Option<String>)> = world
        .events_reach(count)
        .await
        .into_iter()
        .map(|event| {
            let slug = event.tenant_slug.map(|slug| slug.to_string());
            (event.actor.name.unwrap_or_default().to_string(), slug)
        })
        .collect();
    found.sort();
    found
}

fn look_ups(fake: &FakeAuthentik, pk: i64) -> usize {
    let path = format!("/core/users/{pk}/");
    fake.requests()
        .iter()
        .filter(|r| r.path.ends_with(&path))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_group_that_is_a_tenants_wins() {
    let fake = fake().await;
    for (number, name) in [
        (1, "authentik Admins"),
        (2, "Acme Staff"),
        (3, "globex"),
        (4, "Globex"),
        (5, "acme"),
        (6, "Chess"),
    ] {
        fake.add_group(group(number, name));
    }
    // The fake shows groups in the order in which they were made.
    let people: [(i64, &str, &[u32], Option<&str>); 6] = [
        (101, "alice", &[1, 6, 2, 4], Some("acme")),
        (102, "bob", &[5], Some("acme")),
        (103, "dave", &[3], None),
        (104, "erin", &[3, 4, 5], Some("globex")),
        (105, "frank", &[6], None),
        (106, "carol", &[], Some("globex")),
    ];
    for (pk, name, groups, _) in people {
        fake.add_user(user(pk, name, groups));
        act(&fake, pk, name, "");
    }
    // Deleted since: Authentik knows nobody, the directory knows the address.
    act(&fake, 999, "carol", "carol@example.org");
    act(&fake, 998, "gone", "gone@example.org");
    let world = world(&fake, "").await;
    let mut wanted: Vec<(String, Option<String>)> = people
        .iter()
        .map(|(_, name, _, slug)| ((*name).to_owned(), slug.map(str::to_owned)))
        .collect();
    wanted.push(("carol".to_owned(), Some("globex".to_owned())));
    wanted.push(("gone".to_owned(), None));
    wanted.sort();
    assert_eq!(tenants_of(&world, wanted.len()).await, wanted);
    let view = world.source_becomes("authentik", "running").await;
    assert_eq!(view["reason"], Value::Null);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_in_anothers_name_is_that_users_unless_the_administrator_has_a_tenant() {
    let fake = fake().await;
    fake.add_group(group(1, "authentik Admins"));
    fake.add_group(group(2, "Acme Staff"));
    fake.add_group(group(4, "Globex"));
    let administrators: [(i64, &str, &[u32], &str); 2] = [
        (101, "akadmin", &[1], "acme"),
        (102, "erin", &[1, 4], "globex"),
    ];
    fake.add_user(user(103, "bob", &[2]));
    for (pk, name, groups, _) in administrators {
        fake.add_user(user(pk, name, groups));
        let mut event = event_at(Timestamp::now());
        event["user"] = serde_json::json!({"pk": pk, "email": "", "username": name,
            "on_behalf_of": {"pk": 103, "email": "", "username": "bob"}});
        fake.insert(event, Duration::ZERO);
    }
    let world = world(&fake, "").await;
    let wanted = administrators.map(|(_, name, _, slug)| (name.to_owned(), Some(slug.to_owned())));
    assert_eq!(tenants_of(&world, wanted.len()).await, wanted);
    assert_eq!(look_ups(&fake, 103), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_looked_up_once_and_remembered_after_the_deletion() {
    let fake = fake().await;
    fake.add_group(group(2, "Acme Staff"));
    fake.add_user(user(101, "alice", &[2]));
    for _ in 0..250 {
        act(&fake, 101, "alice", "");
        act(&fake, 999, "gone", "");
    }
    let world = world(&fake, "").await;
    world.events_reach(500).await;
    fake.remove_user(101);
    for _ in 0..3 {
        act(&fake, 101, "alice", "");
        let count = usize::try_from(fake.promised_total()).unwrap();
        world.events_reach(count).await;
    }
    let alices = tenants_of(&world, 503).await;
    let acme = alices
        .iter()
        .filter(|(_, slug)| slug.as_deref() == Some("acme"));
    assert_eq!(acme.count(), 253);
    assert_eq!(look_ups(&fake, 101), 1);
    // Whoever is not there is asked for again only after a while.
    assert!(look_ups(&fake, 999) <= 2, "{}", look_ups(&fake, 999));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_moved_to_another_tenant_is_there_with_the_next_event() {
    let fake = fake().await;
    fake.add_group(group(2, "Acme Staff"));
    fake.add_group(group(4, "Globex"));
    fake.add_user(user(101, "alice", &[2]));
    act(&fake, 101, "alice", "");
    let world = world(&fake, "").await;
    let at = |slug: &str| ("alice".to_owned(), Some(slug.to_owned()));
    assert_eq!(tenants_of(&world, 1).await, [at("acme")]);

    fake.add_user(user(101, "alice", &[4]));
    fake.insert(move_at(Timestamp::now()), Duration::ZERO);
    act(&fake, 101, "alice", "");
    let found = tenants_of(&world, 3).await;
    let wanted = [("akadmin".to_owned(), None), at("acme"), at("globex")];
    assert_eq!(found, wanted);
    assert_eq!(look_ups(&fake, 101), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_move_is_the_former_tenants_though_one_poll_tells_both() {
    let fake = fake().await;
    fake.add_group(group(2, "Acme Staff"));
    fake.add_group(group(4, "Globex"));
    fake.add_user(user(101, "alice", &[2]));
    act(&fake, 101, "alice", "");
    let world = world(&fake, "").await;
    let at = |slug: &str| ("alice".to_owned(), Some(slug.to_owned()));
    assert_eq!(tenants_of(&world, 1).await, [at("acme")]);

    fake.add_user(user(101, "alice", &[4]));
    let now = Timestamp::now();
    let ago = |milliseconds| now - Duration::from_millis(milliseconds);
    fake.insert_many(vec![
        act_at(ago(20), 101, "alice", ""),
        move_at(ago(10)),
        act_at(now, 101, "alice", ""),
    ]);
    let found = tenants_of(&world, 4).await;
    let akadmin = ("akadmin".to_owned(), None);
    assert_eq!(found, [akadmin, at("acme"), at("acme"), at("globex")]);
    assert!(look_ups(&fake, 101) >= 2);
    world.stop().await;
}

/// The move stands on the second page.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_after_a_move_is_not_the_former_tenants_where_a_later_change_is_read_first() {
    let fake = fake().await;
    fake.add_group(group(2, "Acme Staff"));
    fake.add_group(group(4, "Globex"));
    fake.add_user(user(101, "alice", &[2]));
    act(&fake, 101, "alice", "");
    let world = world(&fake, "page_size = 3").await;
    let at = |slug: &str| ("alice".to_owned(), Some(slug.to_owned()));
    assert_eq!(tenants_of(&world, 1).await, [at("acme")]);

    fake.add_user(user(101, "alice", &[4]));
    let now = Timestamp::now();
    let ago = |milliseconds| now - Duration::from_millis(milliseconds);
    fake.insert_many(vec![
        move_at(ago(40)),
        act_at(ago(30), 101, "alice", ""),
        act_at(ago(20), 101, "alice", ""),
        move_at(ago(10)),
    ]);
    let found = tenants_of(&world, 5).await;
    let akadmin = || ("akadmin".to_owned(), None);
    let [acme, globex] = ["acme", "globex"].map(at);
    let wanted = [akadmin(), akadmin(), acme, globex.clone(), globex];
    assert_eq!(found, wanted);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_look_up_the_directory_decides() {
    let fake = fake_with(FakeAuthentikConfig {
        permissions: Permissions::EVENTS_ONLY,
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.add_group(group(2, "Acme Staff"));
    fake.add_user(user(101, "alice", &[2]));
    for pk in 200..230 {
        act(&fake, pk, "someone", "");
    }
    act(&fake, 101, "alice", "alice@example.org");
    act(&fake, 106, "carol", "carol@example.org");
    let world = world(&fake, "").await;
    let found = tenants_of(&world, 32).await;
    assert!(found.contains(&("alice".to_owned(), None)));
    assert!(found.contains(&("carol".to_owned(), Some("globex".to_owned()))));
    let view = world.source_becomes("authentik", "warning").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(
        reason.contains("grant view_user and view_group"),
        "{reason}"
    );
    assert_eq!(world.metric("daybook_source_up", "authentik").await, 1.0);
    // The other side's log is not filled with refusals.
    let refused = fake.requests().iter().filter(|r| r.status == 403).count();
    assert!(refused <= 4, "{refused}");

    // Granted: its successor asks again, and the warning ends.
    fake.add_token(&fake.token(), Permissions::READER);
    assert!(world.daybook().kill("authentik").await);
    act(&fake, 101, "alice", "alice@example.org");
    let found = tenants_of(&world, 33).await;
    assert!(found.contains(&("alice".to_owned(), Some("acme".to_owned()))));
    world.source_becomes("authentik", "running").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_look_up_holds_nothing_up_beyond_its_limit() {
    let fake = fake().await;
    for pk in 200..300 {
        act(&fake, pk, "someone", "");
    }
    let slow = Scripted::new(Fault::Delay(Duration::from_secs(120))).times(Times::Forever);
    fake.script(slow.on("/core/users/2"));
    let started = Instant::now();
    let world = world(&fake, "").await;
    world.events_reach(100).await;
    assert!(fake.fault_hits() <= 8, "{}", fake.fault_hits());
    let view = world.source_becomes("authentik", "warning").await;
    assert!(
        view["reason"]
            .as_str()
            .unwrap()
            .contains("no answer in time")
    );

    let asked = fake.fault_hits();
    act(&fake, 201, "someone", "");
    world.events_reach(101).await;
    let again = fake.fault_hits() - asked;
    // For fifteen seconds after a limit of ten.
    let is_soon = started.elapsed() < Duration::from_secs(20);
    assert!(again == 0 || !is_soon, "nobody is looked up for a while");
    // After a pause they are tried again.
    fake.clear_faults();
    let status = world.daybook().board().source("authentik").unwrap();
    eventually("a look-up that succeeds", async || {
        act(&fake, 201, "someone", "");
        serde_json::to_value(status.view()).unwrap()["state"] == "running"
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_cannot_be_looked_up_costs_the_others_nothing() {
    let fake = fake().await;
    fake.add_group(group(2, "Acme Staff"));
    for pk in 200..240 {
        let name = format!("user{pk}");
        fake.add_user(user(pk, &name, &[2]));
        act(&fake, pk, &name, "");
    }
    let broken = Scripted::new(Fault::ServerError).times(Times::Forever);
    fake.script(broken.on("/core/users/200/"));
    let world = world(&fake, "").await;
    let found = tenants_of(&world, 40).await;
    let without = found.iter().filter(|(_, slug)| slug.is_none());
    let without: Vec<&str> = without.map(|(name, _)| name.as_str()).collect();
    assert_eq!(without, ["user200"]);

    // Nor those who come after.
    fake.add_user(user(300, "user300", &[2]));
    act(&fake, 300, "user300", "");
    act(&fake, 200, "user200", "");
    let found = tenants_of(&world, 42).await;
    assert!(found.contains(&("user300".to_owned(), Some("acme".to_owned()))));
    // The broken one is asked for twice, and again only after a while.
    assert_eq!(look_ups(&fake, 200), 2);
    world.source_becomes("authentik", "running").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_about_look_ups_ends_on_a_quiet_server_too() {
    let fake = fake().await;
    act(&fake, 200, "someone", "");
    let broken = Scripted::new(Fault::ServerError).times(Times::Forever);
    fake.script(broken.on("/core/users/200/"));
    let world = world(&fake, "").await;
    world.events_reach(1).await;
    a_poll_passes(&world, &fake).await;
    assert_eq!(fake.fault_hits(), 2);
    let view = world.source_becomes("authentik", "running").await;
    assert_eq!(view["reason"], Value::Null);
    world.stop().await;
}

/// An hour ago, by members of a tenant whose keys begin with 2.
fn insert_old(fake: &FakeAuthentik, count: usize) {
    fake.add_group(group(2, "Acme Staff"));
    let pks = 200..230;
    for pk in pks.clone() {
        fake.add_user(user(pk, "someone", &[2]));
    }
    let mut events = history(count, Duration::from_secs(3600), Duration::from_secs(1));
    for (event, pk) in events.iter_mut().zip(pks.cycle()) {
        event["user"] = serde_json::json!({"pk": pk, "email": "", "username": "someone"});
    }
    fake.insert_many(events);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_events_wait_for_their_people_and_new_ones_do_not() {
    let fake = fake().await;
    insert_old(&fake, 150);
    // A page of somebody else's above them.
    fake.insert_many(history(
        100,
        Duration::from_secs(1),
        Duration::from_millis(1),
    ));
    // What fails first is not told of once pages are answered.
    fake.script(Scripted::new(Fault::BadGateway).on("/events/events/"));
    let slow_down = Fault::TooManyRequests {
        retry_after: 1,
        html: false,
    };
    let slow_down = Scripted::new(slow_down).times(Times::Forever);
    fake.script(slow_down.on("/core/users/2"));
    let world = world(&fake, "").await;
    let view = world.source_becomes("authentik", "warning").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains("older events wait"), "{reason}");
    assert!(fake.requests().iter().any(|r| r.status == 502));
    act(&fake, 4, "alice", "");
    world.events_reach(101).await;

    fake.clear_faults();
    let found = tenants_of(&world, 251).await;
    let acme = found
        .iter()
        .filter(|(_, slug)| slug.as_deref() == Some("acme"));
    assert_eq!(acme.count(), 150);
    world.source_becomes("authentik", "running").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_can_ever_be_looked_up_older_events_come_all_the_same() {
    let fake = fake().await;
    insert_old(&fake, 350);
    let broken = Scripted::new(Fault::ServerError).times(Times::Forever);
    fake.script(broken.on("/core/users/2"));
    let world = world(&fake, "").await;
    world.events_reach(350).await;
    let view = world.source_becomes("authentik", "warning").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains("users cannot be looked up"), "{reason}");
    // Five times, and each time a few.
    assert!(fake.fault_hits() <= 60, "{}", fake.fault_hits());
    world.stop().await;
}
