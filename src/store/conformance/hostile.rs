//! Whatever a source says is data, and comes back as it was said.

use bytestring::ByteString;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

pub(super) async fn every_payload_reads_back_equal(store: Subject) {
    let mut payloads = vec![
        json!({}),
        json!({ "a.b": 1, "a": { "b.c.d": { ".": ".." } }, ".leading": 1, "trailing.": 2 }),
        json!({ "$where": "1", "$set": { "a": 1 }, "a": { "$gt": "", "$": 1, "$$ROOT": [] } }),
        json!({ "r": { "$ref": "users", "$id": 1, "$db": "admin" }, "$ref": "x", "$id": 2, "$db": "y" }),
        json!({ "$oid": "507f1f77bcf86cd799439011", "x": { "$date": "now" }, "y": { "$numberLong": "1" } }),
        json!({ "_id": "not ours", "at": 1, "metadataJson": "{}", "__proto__": {} }),
        json!({ "": "empty", "nested": { "": { "": null } } }),
        json!({ "nul in a value": "a\0b", "\u{202e}bidi\u{feff}": "\u{202e}\r\n<b>&amp;\u{1f600}" }),
        json!({ "nul\0in a key": 1, "\0": { "\0\0": [{ "x\0": "\0" }] } }),
        json!({ "nul\u{2400}": 1, "nul\0": 2 }),
        json!({ "empty": [[], {}, [[]], ""], "long": "x".repeat(100_000) }),
        json!({ "integers": [0, -1, i32::MIN, i32::MAX, i64::MIN, i64::MAX, u64::MAX, 1_u64 << 63] }),
        json!({ "wide": (0..3000).map(|n| (n.to_string(), Value::from(n))).collect::<Map<_, _>>() }),
    ];
    for number in [
        "-0",
        "0.0",
        "-0.0",
        "1.0",
        "1.10",
        "0.1",
        "1e5",
        "1E5",
        "1e-5",
        "1.5e300",
        "1e308",
        "1e309",
        "-1e400",
        "1e6144",
        "1e-6176",
        "1e99999999999999999999",
        "0e99999999999999999999",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "9007199254740993.0",
        "0.30000000000000004",
        "3.141592653589793238462643383279502",
        "3.1415926535897932384626433832795028841971",
        "1234567890123456789012345678901234",
        "12345678901234567890123456789012345",
        "100000000000000000000000000000000000000000000",
        "0.00000000000000000000000000000000000000000000000000001",
    ] {
        payloads.push(parsed(&format!("{{\"n\":{number},\"in\":[{number}]}}")));
    }
    payloads.push(parsed(&format!("{{\"digits\":{}}}", "7".repeat(5000))));
    for depth in [50, 98, 99, 100, 101, 126] {
        payloads.push(parsed(&nested(depth, "{\"a\":", "}")));
        payloads.push(parsed(&format!(
            "{{\"a\":{}}}",
            nested(depth - 1, "[", "]")
        )));
    }

    let events = payloads
        .into_iter()
        .enumerate()
        .map(|(number, payload)| AuditEvent {
            metadata: object(payload).into(),
            ..event("payloads", &number.to_string())
        });
    let events: Vec<_> = events.collect();
    assert_equal_after_read_back(&store, "payloads", &events).await;
}

pub(super) async fn hostile_texts_read_back_equal(store: Subject) {
    let texts = [
        "",
        " ",
        "\0",
        "a\0b\0",
        "\r\n",
        "$where",
        "a.b.*",
        "'; DROP TABLE auditevents; --",
        "\u{202e}\u{feff}\u{1f600}\u{10ffff}",
        &"é".repeat(2000),
        &"long".repeat(10_000),
    ];
    let events = texts.iter().map(|text| {
        let part = Some(ByteString::from(*text));
        AuditEvent {
            action: (*text).into(),
            actor: Actor {
                id: part.clone(),
                email: part.clone(),
                name: part.clone(),
                ip: part.clone(),
            },
            target: Target {
                kind: part.clone(),
                id: part.clone(),
                name: part,
            },
            ..event("texts", text)
        }
    });
    let events: Vec<_> = events.collect();
    assert_equal_after_read_back(&store, "texts", &events).await;
    let repeated = commit_records(&store, records(&events)).await;
    assert!(repeated.iter().all(|fate| *fate == Fate::Duplicate));
}

pub(super) async fn random_payloads_read_back_equal(store: Subject) {
    let mut random = StdRng::seed_from_u64(20_261_124);
    let events = (0..400).map(|number| AuditEvent {
        metadata: random_object(&mut random, 4).into(),
        ..event("random", &number.to_string())
    });
    let events: Vec<_> = events.collect();
    assert_equal_after_read_back(&store, "random", &events).await;
}

pub(super) async fn deeper_payloads_than_a_parser_reads_are_not_lost(store: Subject) {
    let depths = [128, 149, 150, 151, 180, 199, 250, 1000];
    let events = depths.map(|depth| {
        let mut value = Value::Null;
        for level in 1..depth {
            value = if level % 2 == 0 {
                json!([value])
            } else {
                json!({ "a": value })
            };
        }
        AuditEvent {
            metadata: Map::from_iter([("deep".to_owned(), value)]).into(),
            ..event("deep", &depth.to_string())
        }
    });
    let fates = commit_records(&store, records(&events)).await;
    assert_eq!(fates, depths.map(|_| Fate::Written));
    let stored = of_source(&store, "deep").await;
    assert_eq!(stored.len(), depths.len());
    assert!(stored.iter().all(|event| !event.metadata.is_empty()));
}

async fn assert_equal_after_read_back(store: &Subject, source: &str, events: &[AuditEvent]) {
    let fates = commit_records(store, records(events)).await;
    let stored = of_source(store, source).await;
    for (event, fate) in events.iter().zip(fates) {
        let shown = serde_json::to_string(&event.metadata).expect("JSON");
        let shown = shown.chars().take(200).collect::<String>();
        assert_eq!(fate, Fate::Written, "{shown}");
        let read = stored
            .iter()
            .find(|read| read.external_id == event.external_id);
        let read = read.unwrap_or_else(|| panic!("not found: {shown}"));
        assert_same(read, event, None);
    }
    assert_eq!(stored.len(), events.len());
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}{}{}", open.repeat(depth), 1, close.repeat(depth))
}

fn random_object(random: &mut StdRng, depth: u32) -> Map<String, Value> {
    let size = random.random_range(0..6);
    (0..size)
        .map(|_| (random_text(random), random_value(random, depth)))
        .collect()
}

fn random_value(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => Value::Bool(random.random()),
        2 => Value::from(random.random::<i64>() >> random.random_range(0..64)),
        3 => Value::from(random.random::<u64>()),
        4 => Value::from(f64::from_bits(random.random())),
        5 => Value::String(random_text(random)),
        6 => Value::Object(random_object(random, depth - 1)),
        _ => {
            let size = random.random_range(0..5);
            Value::Array((0..size).map(|_| random_value(random, depth - 1)).collect())
        }
    }
}

fn random_text(random: &mut StdRng) -> String {
    const PIECES: [&str; 12] = [
        "a",
        "B",
        ".",
        "$",
        "\0",
        "é",
        "\u{1f600}",
        "\n",
        "0",
        " ",
        "\"",
        "\\",
    ];
    let size = random.random_range(0..5);
    (0..size)
        .map(|_| PIECES[random.random_range(0..PIECES.len())])
        .collect()
}
