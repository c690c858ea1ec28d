//! What real servers wrote, through the decoders: nothing lost, nothing given away.
#![allow(clippy::unwrap_used, reason = "tests")]

mod authentik_api;
mod ocis_log;
mod stalwart_webhooks;

use std::path::PathBuf;

use daybook::event::{AuditEvent, Decoded, TenantHints};
use serde_json::Value;

/// A captured file.
fn data(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a table, without its head.
fn table(path: &str) -> Vec<Vec<String>> {
    let text = String::from_utf8(data(path)).unwrap();
    text.lines()
        .skip(1)
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// The captured requests of a folder: name and body.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder);
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".http"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let request = data(&format!("{folder}/{name}"));
            let end = request
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .unwrap();
            (name, request[end + 4..].to_vec())
        })
        .collect()
}

/// Everything of a result that could reach the store or a log.
fn shown(decoded: &Decoded) -> String {
    match decoded {
        Decoded::Event(event, hints) => {
            let metadata = Value::from(event.metadata.clone());
            format!("{event:?} {hints:?} {metadata}")
        }
        Decoded::Dead(letter) => {
            format!("{letter:?} {}", String::from_utf8_lossy(&letter.raw))
        }
        Decoded::Filtered => String::new(),
    }
}

fn events(decoded: Vec<Decoded>) -> Vec<(AuditEvent, TenantHints)> {
    decoded
        .into_iter()
        .map(|decoded| match decoded {
            Decoded::Event(event, hints) => (*event, hints),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Whether the metadata is the payload, but for masks and Daybook's remarks.
fn assert_unaltered(payload: &Value, metadata: &Value) {
    match (payload, metadata) {
        (Value::Object(payload), Value::Object(metadata)) => {
            for (key, inner) in metadata {
                if key == "daybook" && !payload.contains_key(key) {
                    continue;
                }
                assert_unaltered(&payload[key], inner);
            }
            assert!(payload.keys().all(|key| metadata.contains_key(key)));
        }
        (Value::Array(payload), Value::Array(metadata)) => {
            assert_eq!(payload.len(), metadata.len());
            for (payload, metadata) in payload.iter().zip(metadata) {
                assert_unaltered(payload, metadata);
            }
        }
        (_, Value::String(text)) if text.contains("***") => {}
        _ => assert_eq!(payload, metadata),
    }
}
