//! Whose an event is while the directory changes, and to which recorder it goes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use serde_json::json;
use testkit::World;
use testkit::http::{exchange, signed};
use testkit::mongod::Mongod;
use testkit::world::{Plan, eventually};

use super::{DAYBOOK, EVENTS, KEY, WEBHOOK, append, folder_line};

const USER: &str = "4c510ada-c86b-4815-8820-42cdf82c3d51";

/// A service with a mail server, whose events belong to a domain, and a log, whose events belong to
/// a user. Both go on and on.
struct Site {
    world: World,
    log: PathBuf,
    entered: u32,
}

impl Site {
    /// `refresh` and `file`: of `[tenants]`, the second a whole line.
    async fn start(plan: Plan, refresh: &str, file: &str) -> Self {
        let key = plan.file("key", KEY);
        let log = plan.file("audit.log", "");
        let world = plan
            .journal_size("0B")
            .settings(&format!("[tenants]\nrefresh = \"{refresh}\"\n{file}"))
            .source(&format!(
                "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
                key.display()
            ))
            .source(&format!("kind = \"ocis\"\npath = \"{}\"", log.display()))
            .start()
            .await;
        world.ready().await;
        Self {
            world,
            log,
            entered: 0,
        }
    }

    /// One more event of each source.
    async fn goes_on(&mut self) {
        self.entered += 1;
        self.login_fails("alice@acme.example", self.entered).await;
        append(&self.log, &folder_line(USER, &self.entered.to_string()));
    }

    /// The mail server tells of it; the number tells it from others.
    async fn login_fails(&self, account: &str, number: u32) {
        let event = json!({
            "id": "1",
            "createdAt": "2026-11-24T04:05:39Z",
            "type": "auth.failed",
            "data": {"accountName": account, "total": number},
        });
        let body = json!({"events": [event]}).to_string();
        let request = signed(WEBHOOK, KEY, &body);
        let answer = exchange(self.world.daybook().address(), &request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Goes on until new events of these sources belong to these tenants.
    async fn belong_to(&mut self, tenants: [(&str, &str); 2]) {
        let what = format!("new events belong to {tenants:?}");
        eventually(&what, async || {
            self.goes_on().await;
            let mut all_do = true;
            for (source, slug) in tenants {
                let found = format!("{EVENTS}?source={source}&tenant={slug}&limit=1");
                let (status, found) = self.world.get(&found).await;
                assert_eq!(status, 200, "{found}");
                all_do &= found["events"] != json!([]);
            }
            all_do
        })
        .await;
    }

    /// The same after a change, and sooner than with the `refresh` of thirty seconds that is the
    /// default.
    async fn soon_belong_to(&mut self, tenants: [(&str, &str); 2]) {
        let changed = Instant::now();
        self.belong_to(tenants).await;
        let took = changed.elapsed();
        assert!(took < Duration::from_secs(25), "{took:?}");
    }

    /// No event so far belongs to anybody else, or to nobody.
    async fn all_belong_to(&self, slug: &str) {
        for event in self.world.events().await {
            assert_eq!(event.tenant_slug.as_deref(), Some(slug), "{event:?}");
        }
    }
}

/// At once, as an editor or a deployment does it.
fn replace(file: &Path, text: &str) {
    let changed = file.with_extension("new");
    std::fs::write(&changed, text).unwrap();
    std::fs::rename(&changed, file).unwrap();
}

/// The domain and the user are known all the time: no stranger makes the directory be read early.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_directory_file_is_taken_over() {
    let plan = World::sqlite().await;
    let directory = |slug: &str| {
        format!(
            "[[tenants]]\nslug = \"{slug}\"\ndomains = [\"acme.example\"]\n\
             [[users]]\nauthentikSubjectId = \"{USER}\"\ntenantIds = [\"{slug}\"]\n"
        )
    };
    let file = plan.file("tenants.toml", directory("acme"));
    let mut site = Site::start(plan, "1s", &format!("file = \"{}\"", file.display())).await;
    site.belong_to([("stalwart", "acme"), ("ocis", "acme")])
        .await;
    site.all_belong_to("acme").await;

    replace(&file, &directory("globex"));
    site.soon_belong_to([("stalwart", "globex"), ("ocis", "globex")])
        .await;
    site.world.stop().await;
}

/// One newcomer after the other, each named in the directory's file right before his first event. Nothing
/// but a stranger makes it be read again here, and for a stranger it is not read twice within seconds.
async fn a_first_event_waits_for_the_directory(enter: impl AsyncFn(&Site, &str)) {
    let plan = World::sqlite().await;
    let file = plan.file("tenants.toml", "[[tenants]]\nslug = \"acme\"\n");
    let site = Site::start(plan, "1h", &format!("file = \"{}\"", file.display())).await;
    let mut entered = 0;
    eventually("a first event belongs to its tenant", async || {
        entered += 1;
        let newcomer = format!("newcomer-{entered}");
        let directory = format!(
            "[[tenants]]\nslug = \"acme\"\ndomains = [\"{newcomer}.example\"]\n\
             [[users]]\nauthentikSubjectId = \"{newcomer}\"\ntenantIds = [\"acme\"]\n"
        );
        replace(&file, &directory);
        enter(&site, &newcomer).await;
        let events = site.world.events_reach(entered).await;
        let mut slugs = events.iter().map(|event| event.tenant_slug.as_deref());
        slugs.any(|slug| slug == Some("acme"))
    })
    .await;
    site.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_of_a_newcomer_belongs_to_his_tenant() {
    a_first_event_waits_for_the_directory(async |site: &Site, newcomer: &str| {
        append(&site.log, &folder_line(newcomer, "first"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_webhook_of_a_newcomer_belongs_to_his_tenant() {
    a_first_event_waits_for_the_directory(async |site: &Site, newcomer: &str| {
        let account = format!("alice@{newcomer}.example");
        site.login_fails(&account, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_users_of_the_platforms_database_are_followed_and_left_alone() {
    let mongod = Mongod::shared().await;
    let name = "contract_tenants";
    let database = mongod.database(name).await;
    let tenants = database.collection::<Document>("tenants");
    let users = database.collection::<Document>("users");
    let (acme, globex) = (ObjectId::new(), ObjectId::new());
    let of_acme = doc! {
        "_id": acme, "slug": "acme", "name": "Acme Ltd", "domains": ["acme.example"],
        "groups": ["acme-staff"], "spaceIds": [], "theirs": 1,
    };
    let of_globex = doc! { "_id": globex, "slug": "globex", "domains": ["globex.example"] };
    tenants.insert_many([&of_acme, &of_globex]).await.unwrap();
    let alice = doc! {
        "_id": "alice", "authentikSubjectId": USER, "email": "alice@acme.example",
        "tenantIds": [acme],
    };
    users.insert_one(&alice).await.unwrap();

    let mut site = Site::start(World::at(&mongod.url(name)), "1s", "").await;
    site.belong_to([("stalwart", "acme"), ("ocis", "acme")])
        .await;
    site.all_belong_to("acme").await;

    let renamed = doc! { "$set": { "slug": "acme-ltd" } };
    tenants
        .update_one(doc! { "_id": acme }, renamed)
        .await
        .unwrap();
    site.soon_belong_to([("stalwart", "acme-ltd"), ("ocis", "acme-ltd")])
        .await;
    let moved = doc! { "$set": { "tenantIds": [globex] } };
    users.update_one(doc! {}, moved).await.unwrap();
    site.soon_belong_to([("stalwart", "acme-ltd"), ("ocis", "globex")])
        .await;
    site.world.stop().await;

    let mut of_acme = of_acme;
    of_acme.insert("slug", "acme-ltd");
    let mut alice = alice;
    alice.insert("tenantIds", vec![globex]);
    for (collection, documents) in [(&tenants, vec![of_acme, of_globex]), (&users, vec![alice])] {
        let count = collection.count_documents(doc! {}).await.unwrap();
        assert_eq!(count, documents.len() as u64);
        for document in documents {
            let same = doc! { "_id": document["_id"].clone() };
            let found = collection.find_one(same).await.unwrap();
            assert_eq!(found, Some(document));
        }
        let indexes = collection.list_index_names().await.unwrap();
        assert_eq!(indexes, ["_id_"]);
    }
}

/// A token without a source's name, and nobody's where none is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_events_go_to_the_first_recorder() {
    for auth in ["tokens", "none"] {
        let plan = World::sqlite().await.journal_size("0B");
        let tools = format!("[store]\nurl = \"{}\"\n", plan.store_url());
        let tools = plan.file("tools.toml", tools);
        let world = plan
            .source("kind = \"recorder\"\nname = \"second-by-name\"")
            .source("kind = \"recorder\"\nname = \"first-by-name\"")
            .start_with(&format!("auth = \"{auth}\""), "")
            .await;
        world.ready().await;
        let output = Command::new(DAYBOOK)
            .args(["token", "new", "--role", "recorder", "-c"])
            .arg(&tools)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).unwrap();
        let token = format!("Bearer {}", token.trim_end());
        let mut headers = Vec::new();
        if auth == "tokens" {
            headers.push(("authorization", token.as_str()));
        }
        let event = r#"{"action":"invoice.paid"}"#;
        let answer = world.post(EVENTS, event, &headers).await;
        assert_eq!(answer, (200, json!({"received": 1})), "{auth}");
        let events = world.events().await;
        let recorded: Vec<&str> = events
            .iter()
            .filter(|event| event.action == "invoice.paid")
            .map(|event| event.source.as_str())
            .collect();
        assert_eq!(recorded, ["second-by-name"], "{auth}");
        world.stop().await;
    }
}

/// A file on a disk that does not answer: readings that hang keep their threads, and later ones wait.
#[cfg(any(debug_assertions, feature = "probes"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_file_that_hangs_keeps_few_threads_however_often_its_reader_is_killed() {
    use daybook::config::Config;
    use daybook::probe::{Fault, Probes};
    use daybook::tenants::READINGS;
    use daybook::tree::{ChildState, TreeOptions};

    let plan = World::sqlite().await.journal_size("0B");
    let file = plan.file("tenants.toml", "[[tenants]]\nslug = \"acme\"\n");
    let probes = Probes::new();
    // One pass is struck by one of them, and the next by the next.
    let standing = |_| probes.strike("resolver", "in_read", Fault::Stand, 1);
    let readings: Vec<_> = (0..READINGS).map(standing).collect();
    let options = TreeOptions {
        probes: probes.clone(),
        ..TreeOptions::of(&Config::default())
    };
    let world = plan
        .settings(&format!("[tenants]\nfile = \"{}\"", file.display()))
        .source("kind = \"recorder\"")
        .options(options)
        .start()
        .await;
    let restarts = async || {
        let labels = "actor=\"resolver\",reason=\"killed\"";
        world.metric("daybook_actor_restarts_total", labels).await
    };
    // The last once more: nobody is left who could read.
    for reading in readings.iter().chain(readings.last()) {
        reading.struck().await;
        let before = restarts().await;
        eventually("the resolver is up, to be killed", async || {
            let actors = world.daybook().actors().await;
            let is_up = actors.get("resolver") == Some(&ChildState::Running);
            is_up && world.daybook().kill("resolver").await
        })
        .await;
        // Until then one that is dead already passes for running, and could be killed once more.
        eventually("its death is known", async || restarts().await > before).await;
    }
    assert_eq!(
        readings[0].passes(),
        READINGS as u64,
        "nobody else has read"
    );

    drop(readings);
    let event = r#"{"action":"invoice.paid"}"#;
    eventually("the directory is read", async || {
        world.post(EVENTS, event, &[]).await == (200, json!({"received": 1}))
    })
    .await;
    world.stop().await;
}
