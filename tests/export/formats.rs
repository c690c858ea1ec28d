//! What the formats hold, hostile names and all.

use std::collections::HashMap;

use super::{HOSTILE, Place, enter, hostile_events, lines};

#[tokio::test]
async fn ndjson_is_what_the_api_says() {
    let place = Place::new().await;
    enter(&*place.store, &hostile_events()).await;
    let exported =
        lines(&place.succeeds("export", &["--format", "ndjson", "--source", "stalwart"]));
    assert_eq!(exported.len(), HOSTILE.len() + 1);
    // Newest first, and each as it is stored.
    for (index, line) in exported.iter().enumerate() {
        assert_eq!(line["externalId"], (HOSTILE.len() - index).to_string());
        let id = line["id"].as_str().unwrap();
        let stored = place.store.event(id, None).await.unwrap().unwrap();
        assert_eq!(*line, serde_json::to_value(stored).unwrap());
    }
}

#[tokio::test]
async fn a_spreadsheet_finds_no_formula_and_every_cell() {
    let place = Place::new().await;
    let events = hostile_events();
    enter(&*place.store, &events).await;
    let text = place.succeeds("export", &["--format", "csv", "--source", "stalwart"]);
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let columns: HashMap<String, usize> = reader
        .headers()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, name)| (name.to_owned(), index))
        .collect();
    let mut rows = 0;
    for (row, event) in reader.records().zip(events.iter().rev()) {
        let row = row.unwrap();
        for cell in &row {
            let seen = cell.trim_start_matches(['\0', '\t', '\r', '\n', ' ']);
            assert!(
                !seen.starts_with(['=', '+', '-', '@', '\u{ff1d}']),
                "{cell:?}"
            );
        }
        let name = event.actor.name.as_deref().unwrap();
        let cell = &row[columns["actor.name"]];
        assert_eq!(cell.strip_prefix('\'').unwrap_or(cell), name);
        let metadata: serde_json::Value = serde_json::from_str(&row[columns["metadata"]]).unwrap();
        assert_eq!(metadata["data"]["login"], name);
        rows += 1;
    }
    assert_eq!(rows, events.len());
    // RFC 4180: CRLF after every record.
    assert!(text.ends_with("\"\r\n") && text.starts_with("at,id,"));
}

#[tokio::test]
async fn ecs_documents_keep_to_the_schema() {
    let place = Place::new().await;
    let mut events = hostile_events();
    events[0].actor.ip = Some("not an address".into());
    events[1].action = "ocis.file_deleted".into();
    events[1].target.kind = Some("file".into());
    events[2].action = "odd".into();
    events[4].action = "authentik.secret_viewed".into();
    events[5].action = "ocis.public_link_accessed".into();
    events[6].action = "team.file_deleted".into();
    events[7].action = "daybook.signed_out".into();
    events[8].action = "invoice.created".into();
    enter(&*place.store, &events).await;
    let mut documents =
        lines(&place.succeeds("export", &["--format", "ecs", "--source", "stalwart"]));
    documents.reverse();
    assert_eq!(documents.len(), events.len());
    for (document, event) in documents.iter().zip(&events) {
        assert_eq!(document["@timestamp"], event.at.to_string());
        assert_eq!(document["event"]["kind"], "event");
        assert_eq!(document["event"]["action"], *event.action);
        assert_eq!(document["event"]["outcome"], "failure");
        assert_eq!(document["event"]["provider"], "stalwart");
        // An empty name says nothing.
        let name = event.actor.name.as_deref().filter(|name| !name.is_empty());
        assert_eq!(document["user"]["name"].as_str(), name);
        assert_eq!(document["organization"]["id"], "acme");
        assert_eq!(document["daybook"]["external_id"], event.external_id);
        assert_eq!(
            document["daybook"]["metadata"].to_string(),
            serde_json::Value::from(event.metadata.clone()).to_string()
        );
    }
    assert_eq!(documents[0]["source"]["address"], "not an address");
    assert_eq!(documents[0]["source"]["ip"], serde_json::Value::Null);
    assert_eq!(documents[3]["source"]["ip"], "192.0.2.7");
    assert_eq!(documents[3]["related"]["ip"][0], "192.0.2.7");
    assert_eq!(documents[3]["event"]["category"][0], "authentication");
    assert_eq!(documents[3]["user"]["target"]["name"], HOSTILE[3]);
    assert_eq!(documents[1]["event"]["category"][0], "file");
    assert_eq!(documents[1]["event"]["type"][0], "deletion");
    assert_eq!(documents[1]["file"]["path"], HOSTILE[1]);
    for document in [2, 8] {
        let event = &documents[document]["event"];
        assert_eq!(event["category"], serde_json::Value::Null);
        assert_eq!(event["type"], serde_json::Value::Null);
    }
    for (document, category, kind) in [
        (4, "iam", "info"),
        (5, "file", "access"),
        (6, "file", "deletion"),
        (7, "authentication", "end"),
    ] {
        let event = &documents[document]["event"];
        assert_eq!(event["category"], serde_json::json!([category]));
        assert_eq!(event["type"], serde_json::json!([kind]));
    }
}
