//! What stands in MongoDB, read without Daybook: names, types and values of fields, and the index
//! that keeps events from being entered twice.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use daybook::simulators::authentik::{AuthentikControls, FakeAuthentik, FakeAuthentikConfig};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mongodb::bson::spec::ElementType;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::{Database, IndexModel};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::World;
use testkit::http::{exchange, signed};
use testkit::mongod::Mongod;
use testkit::world::{Plan, client, eventually};

use super::{EVENTS, KEY, WEBHOOK, append, folder_id, folder_line};

const USER: &str = "4c510ada-c86b-4815-8820-42cdf82c3d51";
const STRANGER: &str = "0f1f2a1e-7d0c-4a6e-8e2b-91a7f1f6a3d4";

const DIRECTORY: &str = r#"
[[tenants]]
slug = "acme"
domains = ["acme.example"]
[[users]]
authentikSubjectId = "4c510ada-c86b-4815-8820-42cdf82c3d51"
email = "alice@acme.example"
tenantIds = ["acme"]
"#;

/// Fields of an event that the contract names, but for its id, its key and its times.
const FIELDS: [&str; 7] = [
    "source",
    "action",
    "outcome",
    "actor",
    "target",
    "tenantSlug",
    "metadata",
];

/// An event as it has to stand there.
struct Expected {
    /// `None`: when it was received.
    at: Option<Timestamp>,
    /// `None`: see the test.
    external_id: Option<String>,
    /// Whatever is not among them must be absent.
    fields: Value,
}

async fn all(database: &Database, collection: &str) -> Vec<Document> {
    let collection = database.collection::<Document>(collection);
    let found = collection.find(doc! {}).await.unwrap();
    found.try_collect().await.unwrap()
}

/// Panics at what JSON has not.
fn as_json(value: &Bson) -> Value {
    match value {
        Bson::Null => Value::Null,
        Bson::Boolean(flag) => json!(flag),
        Bson::Int32(number) => json!(number),
        Bson::Int64(number) => json!(number),
        Bson::Double(number) => json!(number),
        Bson::String(text) => json!(text),
        Bson::Array(values) => values.iter().map(as_json).collect(),
        Bson::Document(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), as_json(member)))
            .collect(),
        other => panic!("{other:?} is no JSON"),
    }
}

fn fields(event: &Document) -> Value {
    FIELDS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), as_json(event.get(name)?))))
        .collect()
}

fn text<'a>(document: &'a Document, name: &str) -> &'a str {
    document.get_str(name).unwrap()
}

fn millis(document: &Document, name: &str) -> i64 {
    document.get_datetime(name).unwrap().timestamp_millis()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn log_in(pk: u32, email: &str, ago: Duration) -> Value {
    let created = Timestamp::now() - ago;
    json!({
        "action": "login",
        "app": "authentik.events.signals",
        "user": {"pk": pk, "email": email, "username": "alice"},
        "context": {"auth_method": "password", "attempts": 3},
        "client_ip": "192.0.2.7",
        "created": format!("{created:.6}"),
    })
}

/// The events as Authentik's own API shows them, newest first.
async fn served(authentik: &AuthentikControls) -> Vec<Value> {
    let list = format!(
        "{}/api/v3/events/events/?ordering=-created",
        authentik.url()
    );
    let request = client().get(list).bearer_auth(authentik.token());
    let page = request.send().await.unwrap().text().await.unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    page["results"].as_array().unwrap().clone()
}

fn of_authentik(event: &Value, tenant: Option<&str>) -> Expected {
    let id = event["user"]["pk"].to_string();
    let mut fields = json!({
        "source": "authentik",
        "action": "authentik.login",
        "outcome": "success",
        "actor": {"id": id, "email": event["user"]["email"], "name": "alice", "ip": "192.0.2.7"},
        "target": {"type": "user", "id": id, "name": "alice"},
        "metadata": event,
    });
    if let Some(slug) = tenant {
        fields["tenantSlug"] = json!(slug);
    }
    Expected {
        at: Some(time(event["created"].as_str().unwrap())),
        external_id: Some(event["pk"].as_str().unwrap().to_owned()),
        fields,
    }
}

fn of_ocis(user: &str, name: &str, tenant: Option<&str>) -> Expected {
    let metadata: Value = serde_json::from_str(&folder_line(user, name)).unwrap();
    let mut fields = json!({
        "source": "ocis",
        "action": "ocis.container_create",
        "outcome": "success",
        "actor": {"id": user},
        "target": {"type": "folder", "id": folder_id(user, name), "name": format!("./{name}")},
        "metadata": metadata,
    });
    if let Some(slug) = tenant {
        fields["tenantSlug"] = json!(slug);
    }
    Expected {
        at: Some(time("2026-11-24T03:44:09Z")),
        external_id: None,
        fields,
    }
}

/// A failed log-in as Stalwart sends it; its id is another one each time.
fn refused(id: u32, account: &str) -> Value {
    json!({
        "id": id.to_string(),
        "createdAt": "2026-11-24T04:05:39.25Z",
        "type": "auth.failed",
        "data": {"accountName": account, "remoteIp": "198.51.100.7", "remotePort": 4711},
    })
}

async fn push(world: &World, body: &str) -> Value {
    let request = signed(WEBHOOK, KEY, body);
    let answer = exchange(world.daybook().address(), &request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A world on MongoDB whose pushes are answered from the store alone, with a source of Stalwart.
async fn plan() -> Plan {
    let plan = World::mongodb(Mongod::shared().await).await;
    let key = plan.file("key", KEY);
    plan.journal_size("0B").source(&format!(
        "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
        key.display()
    ))
}

async fn database_of(world: &World) -> Database {
    let mongod = Mongod::shared().await;
    mongod.database(&world.database_name()).await
}

/// With a tenant and without, of each kind of source.
#[tokio::test(flavor = "multi_thread")]
async fn events_and_cursors_of_every_kind_have_the_promised_fields() {
    let begun = DateTime::now();
    let authentik = FakeAuthentik::start(FakeAuthentikConfig::default()).await;
    authentik.insert_many(vec![
        log_in(4, "alice@acme.example", Duration::from_secs(3600)),
        log_in(5, "bob@elsewhere.example", Duration::from_secs(7200)),
    ]);
    let served = served(&authentik).await;
    assert_eq!(served.len(), 2);

    let plan = plan().await;
    let token = plan.file("token", authentik.token());
    let directory = plan.file("tenants.toml", DIRECTORY);
    let log = plan.dir().join("audit.log");
    let first_line = folder_line(USER, "Reports");
    append(&log, &first_line);
    append(&log, &folder_line(STRANGER, "Drafts"));
    let read = folder_line(USER, "Reports").replace("container_create", "file_read");
    append(&log, &read);
    let world = plan
        .settings(&format!("[tenants]\nfile = \"{}\"", directory.display()))
        .source(&format!(
            "kind = \"authentik\"\nurl = \"{}\"\ntoken_file = \"{}\"",
            authentik.url(),
            token.display()
        ))
        .source(&format!("kind = \"ocis\"\npath = \"{}\"", log.display()))
        .source("kind = \"recorder\"\nname = \"platform-api\"")
        .start()
        .await;
    world.ready().await;

    // Stalwart gives other ids to the same events when it sends them again.
    for id in [1, 3] {
        let of = [
            refused(id, "alice@acme.example"),
            refused(id + 1, "mallory"),
        ];
        let received = push(&world, &json!({ "events": of }).to_string()).await;
        assert_eq!(received, json!({"received": 2}));
    }
    let paid = json!({
        "action": "invoice.paid",
        "at": "2024-11-24T05:05:39.123456+01:00",
        "actor": {"id": "u-1", "email": "alice@acme.example", "name": "Alice", "ip": "2001:db8::1"},
        "target": {"type": "invoice", "id": "4711", "name": "№ 4711"},
        "outcome": "unknown",
        "tenantSlug": "a-tenant-nobody-knows",
        "externalId": "inv-4711",
        "metadata": {
            "amount": 12.5, "cents": 1250, "bytes": 9_007_199_254_740_993_i64, "paid": true,
            "lines": [1, "two", {"three": null}],
        },
    });
    for event in [&paid, &json!({"action": "ping"})] {
        let answer = world.post(EVENTS, event.to_string(), &[]).await;
        assert_eq!(answer, (200, json!({"received": 1})));
    }

    let mut of_mail = ["alice@acme.example", "mallory"].map(|account| Expected {
        at: Some(time("2026-11-24T04:05:39.25Z")),
        external_id: None,
        fields: json!({
            "source": "stalwart",
            "action": "stalwart.auth_failed",
            "outcome": "failure",
            "target": {"type": "account", "name": account},
            "metadata": refused(if account == "mallory" { 2 } else { 1 }, account),
        }),
    });
    of_mail[0].fields["actor"] = json!({"email": "alice@acme.example", "ip": "198.51.100.7"});
    of_mail[0].fields["tenantSlug"] = json!("acme");
    of_mail[1].fields["actor"] = json!({"name": "mallory", "ip": "198.51.100.7"});
    let mut recorded = paid.clone();
    for name in ["at", "externalId"] {
        recorded.as_object_mut().unwrap().remove(name);
    }
    recorded["source"] = json!("platform-api");
    let mut expected = vec![
        of_authentik(&served[0], Some("acme")),
        of_authentik(&served[1], None),
        of_ocis(USER, "Reports", Some("acme")),
        of_ocis(STRANGER, "Drafts", None),
        Expected {
            at: Some(time("2024-11-24T04:05:39.123Z")),
            external_id: Some("inv-4711".to_owned()),
            fields: recorded,
        },
        Expected {
            at: None,
            external_id: None,
            fields: json!({"source": "platform-api", "action": "ping", "metadata": {}}),
        },
    ];
    expected.extend(of_mail);

    let database = database_of(&world).await;
    let mut events = Vec::new();
    eventually("all events stand there", async || {
        events = all(&database, "auditevents").await;
        events.len() >= expected.len()
    })
    .await;
    assert_eq!(events.len(), expected.len(), "{events:#?}");
    for expected in &expected {
        let is_it = |event: &&Document| fields(event) == expected.fields;
        let found: Vec<&Document> = events.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{:#} in {events:#?}", expected.fields);
        let event = found[0];
        let times = begun..=DateTime::now();
        let ingested_at = event.get_datetime("ingestedAt").unwrap();
        assert!(times.contains(ingested_at), "{event}");
        match expected.at {
            Some(at) => assert_eq!(millis(event, "at"), at.as_millisecond(), "{event}"),
            None => assert!(times.contains(event.get_datetime("at").unwrap()), "{event}"),
        }
        let key = text(event, "externalId");
        match &expected.external_id {
            Some(known) => assert_eq!(key, known),
            None => assert!(!key.is_empty()),
        }
        // Its id is the one of the API.
        let id = event.get_object_id("_id").unwrap().to_hex();
        let (status, shown) = world.get(&format!("{EVENTS}/{id}")).await;
        assert_eq!((status, &shown["externalId"]), (200, &json!(key)));
    }

    // Numbers keep their kind.
    let is_paid = |event: &&Document| text(event, "action") == "invoice.paid";
    let metadata = events.iter().find(is_paid).unwrap();
    let metadata = metadata.get_document("metadata").unwrap();
    let kinds = ["amount", "cents", "bytes"].map(|name| metadata.get(name).map(Bson::element_type));
    let wanted = [ElementType::Double, ElementType::Int32, ElementType::Int64];
    assert_eq!(kinds, wanted.map(Some));

    // The identity of the file, and where in it the line begins.
    let of_log = events
        .iter()
        .filter(|event| text(event, "source") == "ocis");
    let mut keys: Vec<(&str, usize)> = of_log
        .map(|event| text(event, "externalId"))
        .map(|key| key.rsplit_once(':').unwrap())
        .map(|(file, offset)| (file, offset.parse().unwrap()))
        .collect();
    keys.sort_unstable_by_key(|(_, offset)| *offset);
    let file = keys[0].0;
    assert!(!file.is_empty());
    assert_eq!(keys, [(file, 0), (file, first_line.len() + 1)]);

    let key_of = |source: &str, says: &str| {
        let is_it =
            |event: &&Document| text(event, "source") == source && event.to_string().contains(says);
        let event = events.iter().find(is_it).unwrap();
        (text(event, "externalId").to_owned(), millis(event, "at"))
    };
    let newest = key_of("authentik", "alice@acme.example");
    let last_mail = key_of("stalwart", "mallory");
    let ping = key_of("platform-api", "ping");
    let file = std::fs::metadata(&log).unwrap();
    let place = format!("{}:{}", file.ino(), file.len());
    let line_at = time("2026-11-24T03:44:09Z").as_millisecond();
    let last = [
        ("authentik", newest.0, newest.1),
        ("ocis", place, line_at),
        ("platform-api", ping.0, ping.1),
        ("stalwart", last_mail.0, last_mail.1),
    ];
    // A cursor moves after its events.
    let mut cursors = Vec::new();
    eventually("all cursors stand where their events end", async || {
        cursors = all(&database, "ingestcursors").await;
        last.iter().all(|(source, id, _)| {
            cursors.iter().any(|cursor| {
                text(cursor, "source") == *source
                    && cursor.get_str("lastEventId").ok() == Some(id.as_str())
            })
        })
    })
    .await;
    assert_eq!(cursors.len(), last.len(), "one a source: {cursors:#?}");
    for (source, _, at) in &last {
        let is_its = |cursor: &&Document| text(cursor, "source") == *source;
        let cursor = cursors.iter().find(is_its).unwrap();
        assert_eq!(millis(cursor, "lastEventAt"), *at, "{cursor}");
        let generation = cursor.get_i64("generation").unwrap();
        // Whoever reads claims the cursor; a pushed event only touches it.
        let is_read = matches!(*source, "authentik" | "ocis");
        assert_eq!(generation > 0, is_read, "{cursor}");
        let updated_at = cursor.get_datetime("updatedAt").unwrap();
        assert!((begun..=DateTime::now()).contains(updated_at), "{cursor}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_the_documented_fields_and_counts_its_repeats() {
    const BODY: &str = "no JSON of any kind";
    let begun = DateTime::now();
    let world = plan().await.start().await;
    world.ready().await;
    for _ in 0..2 {
        let answer = push(&world, BODY).await;
        assert_eq!(answer, json!({"received": 0, "quarantined": 1}));
    }
    let letters = all(&database_of(&world).await, "auditdeadletters").await;
    assert_eq!(letters.len(), 1, "{letters:#?}");
    let letter = &letters[0];
    let digest = Sha256::digest(BODY.as_bytes());
    let position: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, value) in [
        ("source", "stalwart"),
        ("position", position.as_str()),
        ("reason", "malformed"),
    ] {
        assert_eq!(text(letter, name), value, "{letter}");
    }
    let detail = text(letter, "detail");
    assert!(!detail.is_empty() && !detail.contains(BODY), "{letter}");
    assert_eq!(letter.get_binary_generic("raw").unwrap(), BODY.as_bytes());
    assert_eq!(letter.get_i64("rawLength").unwrap(), BODY.len() as i64);
    assert_eq!(letter.get_i64("attempts").unwrap(), 2);
    let at = letter.get_datetime("at").unwrap();
    let last_at = letter.get_datetime("lastAt").unwrap();
    assert!(begun <= *at && at <= last_at && *last_at <= DateTime::now());
    world.stop().await;
}

/// Others write into the collection too, without a key or with one that is no text.
#[tokio::test(flavor = "multi_thread")]
async fn the_index_on_the_key_is_unique_and_only_about_texts() {
    let world = plan().await.start().await;
    world.ready().await;
    let events = database_of(&world)
        .await
        .collection::<Document>("auditevents");
    world.stop().await;
    let listed = events.list_indexes().await.unwrap();
    let indexes: Vec<IndexModel> = listed.try_collect().await.unwrap();
    let keys = doc! { "source": 1, "externalId": 1 };
    let ours: Vec<&IndexModel> = indexes.iter().filter(|index| index.keys == keys).collect();
    assert_eq!(ours.len(), 1, "{indexes:#?}");
    let options = ours[0].options.as_ref().unwrap();
    assert_eq!(options.name.as_deref(), Some("source_1_externalId_1"));
    assert_eq!(options.unique, Some(true));
    let texts = doc! { "externalId": { "$type": "string" } };
    assert_eq!(options.partial_filter_expression, Some(texts));

    for without_key in [
        doc! {},
        doc! { "externalId": null },
        doc! { "externalId": 7 },
    ] {
        for _ in 0..2 {
            let mut event = without_key.clone();
            event.insert("source", "theirs");
            events.insert_one(event).await.unwrap();
        }
    }
    let keyed = || doc! { "source": "theirs", "externalId": "7" };
    events.insert_one(keyed()).await.unwrap();
    let refused = events.insert_one(keyed()).await.unwrap_err().to_string();
    assert!(refused.contains("source_1_externalId_1"), "{refused}");
    let other = doc! { "source": "others", "externalId": "7" };
    events.insert_one(other).await.unwrap();
}
