//! The decoders of what senders and servers write.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::LazyLock;

use daybook::event::{Decoded, SourceName};
use daybook::sources::ocis::decode::{LineContext, decode_line};
use daybook::sources::recorder::decode::{RequestContext, decode_request, read_request};
use daybook::sources::stalwart::decode::{BodyContext, decode_body, quarantine};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::mutate::mutate;
use crate::http::Capture;

const SECRET: &str = "S3CR3T-must-not-come-out";

/// Bodies of real webhooks.
static BODIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let bodies = Capture::all().into_iter().map(|capture| capture.body);
    bodies.filter(|body| !body.is_empty()).collect()
});

/// Lines of real logs.
static LINES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/ocis");
    let files = std::fs::read_dir(folder).expect("captured logs");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "log"));
    paths.sort();
    let logs = paths.iter().map(|path| std::fs::read(path).expect("a log"));
    let lines = logs.flat_map(|log| {
        log.split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    });
    lines.filter(|line| !line.is_empty()).collect()
});

fn source() -> SourceName {
    SourceName::new("fuzz")
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000).expect("a time")
}

/// A webhook's body: as many outcomes as pieces, each event with a key of its own, the same each
/// time; no secret comes out of one that is sound.
pub(super) fn webhook(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let body = &BODIES[rng.random_range(0..BODIES.len())];
    let (body, sound) = match serde_json::from_slice::<Value>(body) {
        Ok(mut value) if rng.random_bool(0.3) => {
            hide_secret(&mut rng, &mut value);
            (value.to_string().into_bytes(), true)
        }
        _ => (mutate(&mut rng, body, &BODIES), false),
    };
    let source = source();
    let context = BodyContext {
        source: &source,
        received_at: now(),
    };
    let decode = || decode_body(&body, &context).map(Iterator::collect::<Vec<Decoded>>);
    let decoded = decode();
    assert_eq!(
        format!("{decoded:?}"),
        format!("{:?}", decode()),
        "not the same again"
    );
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            assert!(!sound, "{error}");
            let letter = quarantine(&body, &context, &error);
            assert_eq!(letter.raw_length, body.len() as u64);
            return;
        }
    };
    assert_eq!(decoded.len(), pieces_of(&body), "pieces and outcomes");
    let mut keys = HashSet::new();
    for piece in &decoded {
        match piece {
            Decoded::Event(event, _) => {
                assert!(keys.insert(event.external_id.clone()), "a key twice");
            }
            Decoded::Dead(letter) => assert!(letter.raw_length <= body.len() as u64),
            Decoded::Filtered => panic!("a webhook's event is never left out"),
        }
    }
    if sound {
        keeps_secret(&said(&decoded));
    }
}

fn pieces_of(body: &[u8]) -> usize {
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(body).expect("an object");
    let pieces: Vec<&RawValue> = serde_json::from_str(fields["events"].get()).expect("a list");
    pieces.len()
}

/// Everything that would be kept.
fn said(decoded: &[Decoded]) -> String {
    let pieces = decoded.iter().map(|piece| match piece {
        Decoded::Event(event, _) => format!("{event:?}"),
        Decoded::Dead(letter) => String::from_utf8_lossy(&letter.raw).into_owned(),
        Decoded::Filtered => String::new(),
    });
    pieces.collect::<Vec<_>>().join("\n")
}

fn keeps_secret(said: &str) {
    if let Some(at) = said.find(SECRET) {
        let before = &said[said.floor_char_boundary(at.saturating_sub(200))..at];
        panic!("a secret came out after: {before}");
    }
}

/// Puts a secret under a key that says so, into some object.
fn hide_secret(rng: &mut StdRng, value: &mut Value) {
    const KEYS: [&str; 5] = ["password", "access_token", "clientSecret", "Api-Key", "otp"];
    match value {
        Value::Object(fields) => {
            let inner = fields
                .values_mut()
                .filter(|value| value.is_object() || value.is_array());
            let mut inner: Vec<&mut Value> = inner.collect();
            if !inner.is_empty() && (fields_is_body(&inner) || rng.random_bool(0.7)) {
                let at = rng.random_range(0..inner.len());
                hide_secret(rng, inner[at]);
                return;
            }
            let key = KEYS[rng.random_range(0..KEYS.len())].to_owned();
            fields.insert(key, SECRET.into());
        }
        Value::Array(items) if !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            hide_secret(rng, &mut items[at]);
        }
        _ => {}
    }
}

/// Beside the list of events nothing is kept, so a secret there proves nothing.
fn fields_is_body(inner: &[&mut Value]) -> bool {
    inner.len() == 1 && inner[0].is_array()
}

/// A recorder's request: good as a whole, as each sound one is, or not at all; each event with a key
/// of its own, the same when it is only read again.
pub(super) fn recorder(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let sound = rng.random_bool(0.3);
    let mut events: Vec<Value> = (0..rng.random_range(usize::from(sound)..6))
        .map(|index| event(&mut rng, index, sound))
        .collect();
    let single = rng.random_bool(0.2);
    let mut body = match events.pop() {
        Some(event) if single => event,
        last => json!({ "events": events.into_iter().chain(last).collect::<Vec<_>>() }),
    }
    .to_string()
    .into_bytes();
    let mutated = !sound && rng.random_bool(0.7);
    if mutated {
        body = mutate(&mut rng, &body, &BODIES);
    }
    let source = source();
    let context = RequestContext {
        source: &source,
        received_at: now(),
        request_id: u128::from(seed),
    };
    let key = rng.random_bool(0.3).then_some("a key");
    let events: Vec<_> = match decode_request(&body, key, context) {
        Ok(events) => events.collect(),
        Err(error) => {
            assert!(!sound, "{error}");
            return;
        }
    };
    let again: Vec<_> = read_request(&body, key, context)
        .expect("it was good")
        .collect();
    assert_eq!(events, again);
    assert!(!events.is_empty());
    let keys: HashSet<&str> = events.iter().map(|event| &*event.external_id).collect();
    assert_eq!(keys.len(), events.len(), "a key twice");
    let value: Value = serde_json::from_slice(&body).expect("what is good is JSON");
    let wanted = value["events"].as_array().map_or(1, Vec::len);
    assert_eq!(events.len(), wanted);
    if !mutated {
        keeps_secret(&format!("{events:?}"));
    }
}

/// A sound one holds nothing odd, nor another's `externalId`.
fn event(rng: &mut StdRng, index: usize, sound: bool) -> Value {
    let mut event = Map::new();
    event.insert("action".to_owned(), "invoice.paid".into());
    let odd = [
        json!(null),
        json!(7),
        json!("x"),
        json!({}),
        json!([]),
        json!({"id": "1"}),
    ];
    for field in [
        "at",
        "actor",
        "target",
        "outcome",
        "tenantSlug",
        "externalId",
    ] {
        if !sound && rng.random_bool(0.05) {
            event.insert(
                field.to_owned(),
                odd[rng.random_range(0..odd.len())].clone(),
            );
        }
    }
    if rng.random_bool(0.5) {
        let id = if sound { index } else { rng.random_range(0..9) };
        event.insert("externalId".to_owned(), id.to_string().into());
    }
    if rng.random_bool(0.5) {
        let mut metadata = json!({"a": {"b": [1, {"c": "text"}]}, "n": 1.50});
        hide_secret(rng, &mut metadata);
        event.insert("metadata".to_owned(), metadata);
    }
    Value::Object(event)
}

/// A line of a log: always some outcome, the same each time, its parts in order and within the line.
pub(super) fn ocis(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut line = LINES[rng.random_range(0..LINES.len())].clone();
    if rng.random_bool(0.3) {
        // Glued to what a full disk has cut.
        let other = &LINES[rng.random_range(0..LINES.len())];
        let cut = other[..rng.random_range(0..=other.len())].to_vec();
        line.splice(0..0, cut);
    }
    if rng.random_bool(0.8) {
        line = mutate(&mut rng, &line, &LINES);
    }
    line.retain(|byte| *byte != b'\n');
    let source = source();
    let start = 1000;
    let context = LineContext {
        source: &source,
        file_key: "7",
        offset: start,
        read_at: now(),
        include_reads: rng.random_bool(0.5),
    };
    let decoded = decode_line(&line, &context);
    assert!(!decoded.is_empty(), "a line became nothing");
    let again = decode_line(&line, &context);
    assert_eq!(
        format!("{decoded:?}"),
        format!("{again:?}"),
        "not the same again"
    );
    let mut last = None;
    let mut lost = 0;
    for piece in &decoded {
        let position = match piece {
            Decoded::Event(event, _) => &event.external_id,
            Decoded::Dead(letter) => {
                lost += letter.raw_length;
                &letter.position
            }
            Decoded::Filtered => continue,
        };
        let offset = position
            .rsplit(':')
            .next()
            .and_then(|offset| offset.parse().ok());
        let offset: u64 = offset.expect("a position ends in an offset");
        assert!(
            last.is_none_or(|last| last < offset),
            "two parts at one place"
        );
        assert!(
            (start..start + line.len().max(1) as u64).contains(&offset),
            "outside of the line"
        );
        last = Some(offset);
    }
    assert!(lost <= line.len() as u64, "more was lost than there was");
}
