//! Tiny values take many times their length when they are decoded; never all of them at once, whether
//! they come in or are read.

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::{exchange, post};
use testkit::process::{Process, free_port};
use testkit::world::{client, eventually};

use super::PATH;

/// Enough to tell: decoded at once, every two bytes of it would take more than thirty.
const BODY: usize = 24 << 20;
/// Its bytes, once more while they come in, and what is decoded of them at a time, which does not
/// grow with them; with what each thread's allocator keeps of that.
const MORE_MEMORY: u64 = 6 * BODY as u64;
const VALUES: usize = 95_000;

#[tokio::test(flavor = "multi_thread")]
async fn tiny_values_are_taken_refused_and_read_in_little_memory() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let port = free_port();
    let config = format!(
        "[store]\nurl = \"sqlite:{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n\
         [journal]\ndir = \"{}\"\n[[sources]]\nkind = \"recorder\"\n",
        path("daybook.db"),
        path("journal"),
    );
    std::fs::write(path("daybook.toml"), config).unwrap();
    let program = env!("CARGO_BIN_EXE_daybook");
    let config = path("daybook.toml");
    let log = dir.path().join("log");
    let mut service = Process::spawn(program, &["run", "-c", &config], port, &log);
    service.ready().await;
    let (before, _) = service.memory();
    let send = async |body: String| -> (u16, Value) {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let answer = exchange(address, post(PATH, &[], body)).await;
        (answer.status, answer.json())
    };
    let within_bounds = |what: &str| {
        let (_, peak) = service.memory();
        let (mib, bound) = (|bytes: u64| bytes >> 20, before + MORE_MEMORY);
        println!("{what}: peak {} MiB, before {} MiB", mib(peak), mib(before));
        assert!(peak < bound, "{what}: {} MiB of {}", mib(peak), mib(bound));
    };

    let zeros = |count: usize| vec!["0"; count].join(",");
    let values = zeros(VALUES);
    let event = |key: usize| {
        format!(
            "{{\"action\":\"a\",\"externalId\":\"{key:03}\",\"metadata\":{{\"v\":[{values}]}}}}"
        )
    };
    let count = BODY / event(0).len();
    let many = (0..count).map(event).collect::<Vec<_>>().join(",");
    let many = format!("{{\"events\":[{many}]}}");
    // On a slow machine they may not all be durable in time, and are sent again.
    let mut answer = (0, Value::Null);
    eventually("many events are taken", async || {
        answer = send(many.clone()).await;
        answer.0 != 503
    })
    .await;
    assert_eq!(answer, (200, json!({"received": count})));
    within_bounds("many events of many values");

    let huge = format!(
        "{{\"action\":\"a\",\"metadata\":{{\"v\":[{}]}}}}",
        zeros(BODY / 8)
    );
    let (status, answer) = send(huge).await;
    assert_eq!(status, 400, "{answer}");
    let told = answer["error"]["message"].as_str().unwrap();
    assert_eq!(told, "an event must not hold more than 100000 values");
    within_bounds("one event of too many values");

    let tiny = "{\"action\":\"a\"}";
    let tiny = format!(
        "{{\"events\":[{}]}}",
        vec![tiny; BODY / (tiny.len() + 1)].join(",")
    );
    let (status, answer) = send(tiny).await;
    assert_eq!(status, 400, "{answer}");
    let told = answer["error"]["message"].as_str().unwrap();
    assert_eq!(told, "events: must not hold more than 100000 events");
    within_bounds("too many events");

    let fields = (0..BODY / 12).map(|number| format!("\"{number:06}\":0"));
    let fields = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
    let (status, answer) = send(fields).await;
    assert_eq!(status, 400, "{answer}");
    within_bounds("too many fields");

    // What went into the journal comes out of it in little memory, too.
    eventually("all is entered", async || {
        let written = service.metric("daybook_events_written_total", "").await;
        // Some may have reached the store before all of them went to the journal.
        let repeated = service.metric("daybook_events_duplicate_total", "").await;
        let journaled = service.metric("daybook_journal_bytes", "").await;
        written + repeated >= count as f64 && journaled == 0.0
    })
    .await;
    within_bounds("all is entered");

    let client = client();
    let (mut listed, mut pages, mut next) = (0, 0, String::new());
    loop {
        let url = service.url(&format!(
            "/api/v1/events?source=recorder&limit=1000&before={next}"
        ));
        let page: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        listed += page["events"].as_array().unwrap().len();
        pages += 1;
        match page["next"].as_str() {
            Some(place) => next = place.to_owned(),
            None => break,
        }
    }
    assert_eq!(listed, count);
    assert!(pages > 10, "{pages} pages");
    within_bounds("all is listed");

    let url = service.url("/api/v1/export?format=ndjson&source=recorder");
    let exported = client.get(url).send().await.unwrap().text().await.unwrap();
    assert_eq!(exported.lines().count(), count);
    within_bounds("all is exported");
}
