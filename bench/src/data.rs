//! What is measured on: logs and bodies in the shapes that the real servers write.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daybook::simulators::ocis::{self, OcisLine};
use daybook::simulators::people::People;
use daybook::simulators::stalwart::{self, StalwartEvent, StalwartProfile};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use mongodb::Database;
use mongodb::bson::doc;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::Sha256;

/// The people of every bench.
pub const SEED: u64 = 42;

/// The webhook's key.
pub const WEBHOOK_KEY: &str = "bench-signature-key";

/// Actions that change nothing.
const READS: [&str; 2] = ["file_read", "public_link_accessed"];

fn is_read(line: &OcisLine) -> bool {
    READS.contains(&line.action())
}

/// Writes a log in which one of `one_in` lines changes something and the others are reads; returns
/// how many change something. Lines of one kind are all different up to `pool` of them.
pub fn write_log(path: &Path, lines: u64, one_in: u64, pool: usize) -> Result<u64> {
    let people = People::new(SEED);
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut at = Timestamp::now()
        .checked_sub(SignedDuration::from_hours(24 * 30))
        .context("a time 30 days ago")?;
    let (mut changes, mut reads) = (Vec::new(), Vec::new());
    let wanted = usize::try_from(lines / one_in)
        .unwrap_or(pool)
        .clamp(1, pool);
    let wanted_reads = if one_in > 1 { pool } else { 0 };
    while changes.len() < wanted || reads.len() < wanted_reads {
        at += SignedDuration::from_millis(200);
        let line = ocis::realistic(&mut rng, &people, at);
        let (list, room) = if is_read(&line) {
            (&mut reads, wanted_reads)
        } else {
            (&mut changes, wanted)
        };
        if list.len() < room {
            list.push(line.to_bytes());
        }
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut changes, mut reads) = (changes.iter().cycle(), reads.iter().cycle());
    let mut changing = 0;
    for number in 0..lines {
        let line = if number % one_in == 0 {
            changing += 1;
            changes.next()
        } else {
            reads.next()
        };
        file.write_all(line.context("a pool with lines")?)?;
    }
    file.flush()?;
    Ok(changing)
}

/// A line that stands nowhere else.
pub fn one_line(number: u64) -> Vec<u8> {
    let people = People::new(SEED);
    let mut rng = StdRng::seed_from_u64(SEED + number);
    loop {
        let line = ocis::realistic(&mut rng, &people, Timestamp::now());
        if !is_read(&line) {
            return line.to_bytes();
        }
    }
}

/// The platform's tenants and users.
pub async fn write_directory(database: &Database) -> Result<()> {
    let directory = People::new(SEED).directory();
    let tenants = directory.tenants.iter().map(|tenant| {
        doc! {
            "_id": &tenant.id, "slug": &tenant.slug, "name": &tenant.name,
            "domains": &tenant.domains, "groups": &tenant.groups, "spaceIds": &tenant.space_ids,
        }
    });
    let users = directory.users.iter().map(|user| {
        doc! {
            "authentikSubjectId": &user.subject, "email": &user.email, "tenantIds": &user.tenant_ids,
        }
    });
    database.collection("tenants").insert_many(tenants).await?;
    database.collection("users").insert_many(users).await?;
    // For whoever asks for each event's user.
    let by_subject = mongodb::IndexModel::builder()
        .keys(doc! { "authentikSubjectId": 1 })
        .build();
    let users = database.collection::<mongodb::bson::Document>("users");
    users.create_index(by_subject).await?;
    Ok(())
}

/// A webhook's body with so many events that no other body has, and its signature.
pub fn signed_body(number: u64, events: usize) -> (Vec<u8>, String) {
    let people = People::new(SEED);
    let mut rng = StdRng::seed_from_u64(number);
    let mut made: Vec<StalwartEvent> = Vec::new();
    while made.len() < events {
        made.extend(stalwart::realistic(
            &mut rng,
            &people,
            Timestamp::now(),
            StalwartProfile::default(),
        ));
    }
    made.truncate(events);
    let events: Vec<serde_json::Value> = made
        .iter()
        .enumerate()
        .map(|(index, event)| {
            let mut data = event.data.clone();
            // What the server tells apart by time alone is told apart here by number.
            data.insert("queueId".to_owned(), (number * 1000 + index as u64).into());
            serde_json::json!({
                "id": format!("{}", number * 1000 + index as u64),
                "createdAt": event.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "type": event.kind,
                "data": data,
            })
        })
        .collect();
    let body = serde_json::json!({ "events": events })
        .to_string()
        .into_bytes();
    let mut mac =
        Hmac::<Sha256>::new_from_slice(WEBHOOK_KEY.as_bytes()).expect("any length is a key");
    mac.update(&body);
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    (body, signature)
}
