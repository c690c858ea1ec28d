//! Whose Authentik's events are: where users cannot be looked up, a replay waits rather than enter
//! what nobody alters afterwards.

use std::path::{Path, PathBuf};

use daybook::simulators::authentik::{
    FakeAuthentik, FakeGroup, FakeUser, Fault, Permissions, Scripted, Times,
};
use daybook::store::EventFilter;
use testkit::World;
use testkit::world::Plan;

use super::broken_off::open;
use super::{fake_authentik, login, replay, run, with_authentik};

const GROUP: &str = "00000002-0000-4000-8000-000000000000";

/// Two pages by a member of a tenant.
async fn thirty_logins() -> FakeAuthentik {
    let fake = fake_authentik().await;
    fake.add_group(FakeGroup {
        pk: GROUP.to_owned(),
        name: "Acme Staff".to_owned(),
        is_superuser: false,
    });
    fake.add_user(FakeUser {
        pk: 4,
        username: "alice".to_owned(),
        name: "alice".to_owned(),
        email: "alice@example.org".to_owned(),
        uid: "subject-of-alice".to_owned(),
        uuid: "00000004-1111-4000-8000-000000000000".to_owned(),
        groups: vec![GROUP.to_owned()],
        is_active: true,
    });
    fake.insert_many((1..=30).map(login).collect());
    fake
}

fn with_tenants(plan: &Plan, fake: &FakeAuthentik) -> PathBuf {
    let (_, config) = with_authentik(plan, fake);
    let tenants = "[[tenants]]\nid = \"t1\"\nslug = \"acme\"\ngroups = [\"Acme Staff\"]\n";
    let tenants = plan.file("tenants.toml", tenants);
    let sources = std::fs::read_to_string(&config).unwrap();
    let text = format!("{sources}[tenants]\nfile = \"{}\"\n", tenants.display());
    plan.file("cli.toml", text)
}

const SLOW_DOWN: Fault = Fault::TooManyRequests {
    retry_after: 1,
    html: false,
};

/// How many of the events entered are the tenant's, and how many there are.
async fn entered(config: &Path) -> (usize, usize) {
    let filter = EventFilter {
        source: Some("authentik".to_owned()),
        ..EventFilter::default()
    };
    let store = open(config).await;
    let events = store.find_events(&filter, None, 1000).await.unwrap();
    let slugs = events.iter().map(|event| event.tenant_slug.as_deref());
    (
        slugs.filter(|slug| *slug == Some("acme")).count(),
        events.len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impersonated_user_is_looked_up_too() {
    let fake = thirty_logins().await;
    let mut event = login(31);
    event["user"] = serde_json::json!({"pk": 9, "email": "", "username": "akadmin",
        "on_behalf_of": {"pk": 4, "email": "", "username": "alice"}});
    fake.insert_many(vec![event]);
    let plan = World::sqlite().await;
    let config = with_tenants(&plan, &fake);
    let counts = replay(&config, "authentik", "400h");
    assert_eq!(counts["new"], 31, "{counts}");
    assert_eq!(entered(&config).await, (31, 31));
}

async fn is_waited_for(fault: Fault, times: u64) {
    let fake = thirty_logins().await;
    let fault = Scripted::new(fault).times(Times::Next(times));
    fake.script(fault.on("/core/users/4/"));
    let plan = World::sqlite().await;
    let config = with_tenants(&plan, &fake);
    let counts = replay(&config, "authentik", "400h");
    assert_eq!(counts["new"], 30, "{counts}");
    assert_eq!(fake.fault_hits(), times);
    assert_eq!(entered(&config).await, (30, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_to_be_left_alone_is_waited_for() {
    is_waited_for(SLOW_DOWN, 1).await;
}

/// It read the events a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_dead_since_is_no_lack_of_rights() {
    is_waited_for(Fault::Forbidden("Token invalid/expired"), 1).await;
}

/// Each is asked for twice. Where nobody else is told, it may be the server that fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_user_who_cannot_be_looked_up_is_waited_for() {
    is_waited_for(Fault::ServerError, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_can_ever_be_looked_up_it_ends_with_an_error() {
    let fake = thirty_logins().await;
    let slow_down = Scripted::new(SLOW_DOWN).times(Times::Forever);
    fake.script(slow_down.on("/core/users/4/"));
    let plan = World::sqlite().await;
    let config = with_tenants(&plan, &fake);
    let output = run(&config, "authentik", "400h");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("users cannot be looked up"), "{said}");
    assert_eq!(fake.fault_hits(), 5);
    assert_eq!(entered(&config).await, (0, 0));

    fake.clear_faults();
    let counts = replay(&config, "authentik", "400h");
    assert_eq!(counts["new"], 30, "{counts}");
    assert_eq!(entered(&config).await, (30, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_look_up_the_directory_decides() {
    let fake = thirty_logins().await;
    fake.add_token(&fake.token(), Permissions::EVENTS_ONLY);
    let plan = World::sqlite().await;
    let config = with_tenants(&plan, &fake);
    let counts = replay(&config, "authentik", "400h");
    assert_eq!(counts["new"], 30, "{counts}");
    assert_eq!(entered(&config).await, (0, 30));
}
