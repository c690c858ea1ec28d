//! `daybook check --online` against everything that people get wrong: each answer names the remedy,
//! and the exit code is 78.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use daybook::event::SourceName;
use daybook::journal::{Journal, JournalOptions, PushKind, PushRecord, waiting_bytes};
use daybook::simulators::authentik::{
    FakeAuthentik, FakeAuthentikConfig, Fault, Permissions, Times,
};
use daybook::simulators::people::People;
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use testkit::World;
use testkit::http::{exchange, signed};
use testkit::mongod::Mongod;
use testkit::process::{Process, free_port};
use testkit::world::{Plan, eventually};
use tokio::process::Command;

const KEY: &str = "the key of the hook";
const ROUTE: &str = "/ingest/stalwart/webhook";

/// A folder with everything right, to make one thing wrong in it.
struct Site {
    dir: TempDir,
    authentik: FakeAuthentik,
    /// Replaces of the configuration.
    changes: Vec<(String, String)>,
    /// The port of `http.listen`.
    port: u16,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Site {
    async fn new() -> Self {
        Self::with(Permissions::READER).await
    }

    async fn with(permissions: Permissions) -> Self {
        let dir = TempDir::new().unwrap();
        let authentik = FakeAuthentik::try_start(FakeAuthentikConfig {
            permissions,
            ..FakeAuthentikConfig::default()
        })
        .await
        .unwrap();
        let people = People::new(3);
        let mut rng = StdRng::seed_from_u64(3);
        let event =
            daybook::simulators::authentik::events::realistic(&mut rng, &people, Timestamp::now());
        authentik.insert(event, Duration::ZERO);
        let site = Self {
            dir,
            authentik,
            changes: Vec::new(),
            port: free_port(),
            environment: Vec::new(),
        };
        site.file("token", site.authentik.token());
        site.file("key", KEY);
        site.file("audit.log", capture("audit-full-server.log"));
        // A store without tables.
        site.file("daybook.db", "");
        site.file(
            "tenants.toml",
            "[[tenants]]\nslug = \"acme\"\nname = \"Acme\"\ndomains = [\"acme.example\"]\n",
        );
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn change(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.changes.push((from.into(), to.into()));
        self
    }

    fn toml(&self) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let mut text = format!(
            r#"[store]
url = "sqlite:{}"
timeout = "30s"
[http]
listen = "127.0.0.1:{}"
auth = "none"
[journal]
dir = "{}"
[tenants]
file = "{}"
[[sources]]
kind = "authentik"
url = "{}"
token_file = "{}"
[[sources]]
kind = "ocis"
path = "{}"
[[sources]]
kind = "stalwart"
secret_files = ["{}"]
[[sources]]
kind = "recorder"
name = "platform-api"
"#,
            path("daybook.db"),
            self.port,
            path("journal"),
            path("tenants.toml"),
            self.authentik.url(),
            path("token"),
            path("audit.log"),
            path("key"),
        );
        for (from, to) in &self.changes {
            assert!(text.contains(from.as_str()), "{from} is not in\n{text}");
            text = text.replace(from.as_str(), to);
        }
        text
    }

    /// Exit code and everything that was printed.
    async fn check(&self) -> (i32, String) {
        self.file("daybook.toml", self.toml());
        let output = Command::new(env!("CARGO_BIN_EXE_daybook"))
            .args(["check", "--online", "-c"])
            .arg(self.path("daybook.toml"))
            .envs(self.environment.iter().cloned())
            .output()
            .await
            .unwrap();
        let mut printed = String::from_utf8(output.stdout).unwrap();
        printed.push_str(&String::from_utf8(output.stderr).unwrap());
        for secret in [
            KEY,
            "a key of somebody else",
            self.authentik.token().as_str(),
        ] {
            assert!(!printed.contains(secret), "a secret in: {printed}");
        }
        (output.status.code().unwrap(), printed)
    }

    /// Exactly one finding is wrong, its answer has these parts, and the exit code is 78.
    async fn fails(&self, name: &str, parts: &[&str]) {
        let (code, printed) = self.check().await;
        assert_eq!(code, 78, "{printed}");
        let failures: Vec<&str> = printed
            .lines()
            .filter(|line| line.starts_with("FAIL"))
            .collect();
        assert_eq!(failures.len(), 1, "{printed}");
        let (_, told) = printed
            .split_once(&format!("FAIL  {name}: "))
            .unwrap_or_else(|| panic!("no failure of {name}: {printed}"));
        let told = told.split("\nok ").next().unwrap();
        assert!(told.contains("\n      remedy: "), "{printed}");
        for part in parts {
            assert!(told.contains(part), "{part:?} in: {told}");
        }
        println!("{name}: {}\n", told.trim_end());
    }

    /// The configuration itself is wrong.
    async fn is_refused(&self, parts: &[&str]) {
        let (code, printed) = self.check().await;
        assert_eq!(code, 78, "{printed}");
        for part in parts {
            assert!(printed.contains(part), "{part:?} in: {printed}");
        }
        println!("{}\n", printed.trim_end());
    }

    /// The service, with keys of its own choice, on this site's port.
    async fn serve(&mut self, key: &str) -> World {
        let world = self.serve_on(World::sqlite().await, key).await;
        world.ready().await;
        world
    }

    /// The same with a store of its own, ready or not.
    async fn serve_on(&mut self, plan: Plan, key: &str) -> World {
        let key = plan.file("key", key);
        let hook = format!(
            "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
            key.display()
        );
        let world = plan.source(&hook).start().await;
        self.port = world.daybook().address().port();
        world
    }
}

fn capture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ocis");
    std::fs::read(folder.join(name)).unwrap()
}

const HOOK_EVENT: &str = r#"{"events":[{"id":"1","createdAt":"2026-11-24T04:05:39Z","type":"auth.success","data":{"accountName":"alice"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_is_told_in_plain_words() {
    let mut site = Site::new().await;
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    for part in [
        "takes writes; 1 tenants",
        "1 event is visible, events would flow",
        "are audit records, events would flow",
        "once the service runs",
        "start the service and check again",
        "daybook token new --role recorder",
    ] {
        assert!(printed.contains(part), "{part:?} in: {printed}");
    }

    // With a service that runs, a signed request without events is sent, and nothing comes of it.
    let world = site.serve(KEY).await;
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains(
            "a signed test request to /ingest/stalwart/webhook was answered 200; no event came yet"
        ),
        "{printed}"
    );
    assert!(
        printed.contains("point Stalwart's webhook here"),
        "{printed}"
    );
    assert!(world.events().await.is_empty());
    let letters = world.metric("daybook_events_dead_lettered_total", "").await;
    assert_eq!(letters, 0.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_not_tried() {
    let mut site = Site::new().await;
    site.environment = vec![("AUDIT_INGEST_ENABLED", PathBuf::from("false"))];
    for name in ["token", "key", "audit.log"] {
        std::fs::remove_file(site.path(name)).unwrap();
    }
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    for name in ["authentik", "ocis", "stalwart", "platform-api"] {
        let told = format!("ok    {name}: switched off (ingest.enabled)\n");
        assert!(printed.contains(&told), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_switched_off_says_so_and_shows_what_waits() {
    let site = Site::new().await;
    let site = site.change("[journal]", "[ingest]\nenabled = false\n[journal]");
    let place = site.path("journal");
    let journal = Journal::open(JournalOptions::new(place.clone(), 1 << 20)).unwrap();
    let body = Bytes::from_static(HOOK_EVENT.as_bytes());
    let push = PushRecord::new(SourceName::new("stalwart"), PushKind::Stalwart, body);
    journal.append(push).await.unwrap();
    journal.close().await;
    let waiting = waiting_bytes(&place).unwrap() as f64;
    assert!(waiting > 0.0);

    site.file("daybook.toml", site.toml());
    let config = site.path("daybook.toml").display().to_string();
    let mut daybook = Process::spawn(
        env!("CARGO_BIN_EXE_daybook"),
        &["run", "-c", &config],
        site.port,
        &site.path("log"),
    );
    daybook.ready().await;
    eventually("what waits is shown", async || {
        daybook.metric("daybook_journal_bytes", "").await == waiting
    })
    .await;
    eventually("the switch is told of", async || {
        daybook.log().contains("ingest is switched off")
    })
    .await;
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0), "{}", daybook.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn authentik_and_what_is_wrong_with_it() {
    let site = Site::new().await;
    site.file("token", "wrong");
    let remedy = [
        "token is refused",
        "Tokens and App passwords",
        "expiring off",
    ];
    site.fails("authentik", &remedy).await;

    let site = Site::with(Permissions::NONE).await;
    let remedy = [
        "not permitted to read events",
        "Directory > Roles",
        "view_event",
    ];
    site.fails("authentik", &remedy).await;

    let site = Site::with(Permissions::OUTPOST).await;
    site.fails("authentik", &["sees no event", "not an outpost's"])
        .await;

    let site = Site::new().await;
    let url = site.authentik.url();
    let site = site.change(url.clone(), format!("{url}/api/v3"));
    site.is_refused(&["sources[0].url", "leave /api/v3 out"])
        .await;

    let site = Site::new().await;
    let url = site.authentik.url();
    let site = site.change(url.clone(), format!("{url}/identity"));
    site.fails("authentik", &["with a path only if", "web.path"])
        .await;

    let site = Site::new().await;
    let detail = "Authentication credentials were not provided.";
    site.authentik
        .set_fault(Fault::Forbidden(detail), Times::Forever);
    site.fails("authentik", &["a proxy", "Authorization header"])
        .await;

    // What it says of itself acts on no terminal.
    let site = Site::new().await;
    let fault = Fault::Forbidden("no\u{1b}[2J\u{202e}");
    site.authentik.set_fault(fault, Times::Forever);
    site.fails("authentik", &["token is refused", "no\\u{1b}[2J\\u{202e}"])
        .await;

    let site = Site::new().await;
    let url = site.authentik.url();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let site = site.change(url, nobody);
    site.fails("authentik", &["not reached", "check host and port"])
        .await;

    let site = Site::new().await;
    std::fs::remove_file(site.path("token")).unwrap();
    site.is_refused(&["sources[0].token_file", "token"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_what_is_wrong_with_them() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (folder, trusted, parts) in [
        (
            "tls",
            None,
            ["self-signed or of a private CA", "SSL_CERT_FILE"],
        ),
        ("tls-expired", Some("ca.pem"), ["has expired", "renew it"]),
    ] {
        let folder = data.join(folder);
        let tls = format!(
            "auth = \"none\"\ntls = {{ cert = \"{}\", key = \"{}\" }}",
            folder.join("cert.pem").display(),
            folder.join("key.pem").display()
        );
        let server = World::sqlite().await.start_with(&tls, "").await;
        let address = server.daybook().address();
        let mut site = Site::new().await;
        let url = site.authentik.url();
        site = site.change(url, format!("https://localhost:{}", address.port()));
        if let Some(ca) = trusted {
            site.environment = vec![("SSL_CERT_FILE", folder.join(ca))];
        }
        site.fails("authentik", &parts).await;
        // A server of any kind shows its certificate first.
        let url = format!("mongodb://{address}/daybook?tls=true&directConnection=true");
        let site = store_at(Site::new().await, &url);
        let site = site.change("timeout = \"30s\"", "timeout = \"10s\"");
        site.fails("store", &["invalid peer certificate", "?tlsCAFile=PATH"])
            .await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_and_what_is_wrong_with_it() {
    let site = Site::new().await;
    std::fs::remove_file(site.path("audit.log")).unwrap();
    site.fails("ocis", &["is not there", "OCIS_ADD_RUN_SERVICES=audit"])
        .await;

    site.file("audit.log", "");
    let remedy = [
        "is empty",
        "AUDIT_LOG_TO_FILE=true",
        "AUDIT_LOG_FILE_PATH and AUDIT_LOG_FORMAT do not exist",
    ];
    site.fails("ocis", &remedy).await;

    site.file("audit.log", capture("minimal-format.log"));
    site.fails("ocis", &["minimal format", "AUDIT_FORMAT=json"])
        .await;

    site.file("audit.log", b"\x1f\x8b\x08\x00\xff\n".repeat(9));
    site.fails("ocis", &["is an audit record", "no compressed part"])
        .await;

    site.file("audit.log", capture("console-stdout-with-noise.log"));
    site.fails("ocis", &["the console", "AUDIT_LOG_TO_CONSOLE=false"])
        .await;

    std::fs::remove_file(site.path("audit.log")).unwrap();
    std::fs::create_dir(site.path("audit.log")).unwrap();
    site.fails("ocis", &["is a directory", "name the file in it"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_and_what_is_wrong_with_it() {
    // Stalwart sends without a key.
    let mut site = Site::new().await;
    let world = site.serve(KEY).await;
    let site = store_at(site, world.store_url());
    let (status, _) = world.post(ROUTE, HOOK_EVENT, &[]).await;
    assert_eq!(status, 401);
    site.fails("stalwart", &["bore no signature", "set the same key there"])
        .await;

    // Stalwart signs with another key; afterwards everything is right.
    let address = world.daybook().address();
    for key in ["a key of somebody else", "a key of somebody else", KEY] {
        let answer = exchange(address, signed(ROUTE, key, HOOK_EVENT)).await;
        assert_eq!(answer.status, if key == KEY { 200 } else { 401 });
    }
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("its newest event is of 2026-11-24"),
        "{printed}"
    );
    assert!(
        printed.contains("1 unsigned and 2 wrongly signed"),
        "{printed}"
    );
    world.stop().await;

    let mut site = Site::new().await;
    let world = site.serve(KEY).await;
    let answer = exchange(
        world.daybook().address(),
        signed(ROUTE, "a key of somebody else", HOOK_EVENT),
    )
    .await;
    assert_eq!(answer.status, 401);
    site.fails(
        "stalwart",
        &["wrong signature", "another key: put the same one"],
    )
    .await;
    world.stop().await;

    // The service runs with the key of last week.
    let mut site = Site::new().await;
    let world = site.serve("the old key").await;
    site.fails(
        "stalwart",
        &["it runs with another one", "restart the service"],
    )
    .await;
    world.stop().await;

    let mut site = Site::new().await;
    let world = site.serve(KEY).await;
    let site = site.change(
        "kind = \"stalwart\"\n",
        "kind = \"stalwart\"\nroute = \"/hooks/mail\"\n",
    );
    site.fails("stalwart", &["has no such route", "another configuration"])
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_no_source_is_called_silent() {
    let mut site = Site::new().await;
    let world = site.serve(KEY).await;
    let (status, _) = world.post(ROUTE, HOOK_EVENT, &[]).await;
    assert_eq!(status, 401);
    let site = store_at(site, "sqlite:/proc/daybook/daybook.db");
    site.fails("store", &["/proc cannot be written"]).await;
    let (_, printed) = site.check().await;
    for part in [
        "was answered 200; whether events came, the store would tell",
        "1 unsigned and 0 wrongly signed",
        "accepts events at /api/v1/events; whether events came, the store would tell",
    ] {
        assert!(printed.contains(part), "{part:?} in: {printed}");
    }
    for part in ["no event", "point Stalwart", "daybook token new"] {
        assert!(!printed.contains(part), "{part:?} in: {printed}");
    }
    world.stop().await;
}

/// A request without events is answered 200 all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_own_store_takes_nothing_is_told() {
    let mut site = Site::new().await;
    let away = World::at("mongodb://127.0.0.1:9/daybook?serverSelectionTimeoutMS=300");
    let world = site.serve_on(away.journal_size("0B"), KEY).await;
    world.source_becomes("stalwart", "running").await;
    let (code, printed) = site.check().await;
    assert_eq!(code, 78, "{printed}");
    for name in ["stalwart", "platform-api"] {
        let failed = format!("FAIL  {name}: the running service is not ready: ");
        let mut lines = printed.lines();
        let line = lines.find(|line| line.starts_with(&failed));
        let line = line.unwrap_or_else(|| panic!("no failure of {name}: {printed}"));
        assert!(line.contains("the store does not take writes"), "{line}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_written_is_told_and_none_is_made() {
    let site = Site::new().await;
    let journal = site.path("journal");
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("ok    journal: "), "{printed}");
    assert!(!journal.exists());
    // Nobody makes a file there, whoever they are.
    let site = site.change(journal.display().to_string(), "/proc/daybook/journal");
    site.fails("journal", &["/proc cannot be written", "journal.dir"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_and_what_is_wrong_with_it() {
    let url = format!(
        "mongodb://127.0.0.1:{}/daybook?directConnection=true",
        free_port()
    );
    let site = store_at(Site::new().await, &url);
    let site = site.change("timeout = \"30s\"", "timeout = \"3s\"");
    site.fails("store", &["is a server running at mongodb://127.0.0.1"])
        .await;

    // A user that may read only.
    let mongod = Mongod::start_with(&["--auth"]).await;
    let admin = mongod.database("admin").await;
    let root = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
    admin.run_command(root).await.unwrap();
    let as_user = |user: &str, database: &str| {
        format!(
            "mongodb://{user}:{user}@127.0.0.1:{}/{database}?directConnection=true&authSource=admin",
            mongod.port()
        )
    };
    let client = mongodb::Client::with_uri_str(as_user("root", "admin"))
        .await
        .unwrap();
    let role = doc! { "role": "read", "db": "daybook" };
    let reader = doc! { "createUser": "reader", "pwd": "reader", "roles": [role] };
    client.database("admin").run_command(reader).await.unwrap();
    let site = store_at(Site::new().await, &as_user("reader", "daybook"));
    site.fails("store", &["refused access", "grant it readWrite"])
        .await;
    let site = store_at(Site::new().await, &as_user("nobody", "daybook"));
    site.fails("store", &["refused access", "authSource"]).await;

    // Two events of somebody else's that are one to Daybook.
    let events = client
        .database("twice")
        .collection::<Document>("auditevents");
    let event = doc! { "source": "hand", "externalId": "e-1" };
    events.insert_many([&event, &event]).await.unwrap();
    let site = store_at(Site::new().await, &as_user("root", "twice"));
    let remedy = ["\"hand\"", "\"e-1\"", "have the same key", "delete one"];
    site.fails("store", &remedy).await;

    // A file beside the configuration that holds the address.
    let site = Site::new().await;
    let store = format!("sqlite:{}", site.path("daybook.db").display());
    let url_file = format!("url_file = \"{}\"", site.path("url").display());
    let site = site.change(format!("url = \"{store}\""), url_file);
    site.file("url", format!("{store}\n"));
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    site.file("url", "");
    site.is_refused(&["store.url_file", "is empty"]).await;
    for secret in ["hunter2", "p@ss"] {
        site.file("url", secret);
        site.is_refused(&["store.url_file", "something else"]).await;
        let (_, printed) = site.check().await;
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_yet_is_not_made() {
    let site = Site::new().await;
    let store = site.path("daybook.db");
    std::fs::remove_file(&store).unwrap();
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    for part in [
        "ok    store: ",
        "daybook.db is not there yet, and can be made",
        "better: is this the configuration, and the working directory, of the service?",
    ] {
        assert!(printed.contains(part), "{part:?} in: {printed}");
    }
    assert!(!store.exists());

    let site = store_at(site, "sqlite:/proc/daybook/daybook.db");
    site.fails("store", &["/proc cannot be written", "the directory must"])
        .await;
    // Root may look into every directory, but nobody into a file.
    let site = Site::new().await;
    let within = format!("sqlite:{}", site.path("token/daybook.db").display());
    let site = store_at(site, &within);
    site.fails("store", &["this user cannot look", "the directory must"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_and_what_is_wrong_with_it() {
    let site = Site::new().await;
    site.file(
        "tenants.toml",
        "[[tenants]]\nslug = \"acme\"\ndomain = [\"acme.example\"]\n",
    );
    site.is_refused(&["tenants.toml:3", "did you mean `domains`"])
        .await;

    site.file("tenants.toml", "[[tenants]\nslug = \"acme\"\n");
    site.is_refused(&["tenants.toml"]).await;

    site.file("tenants.toml", "");
    let (code, printed) = site.check().await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("better: without tenants"), "{printed}");
}

fn store_at(site: Site, url: &str) -> Site {
    let sqlite = format!("sqlite:{}", site.path("daybook.db").display());
    site.change(sqlite, url)
}
