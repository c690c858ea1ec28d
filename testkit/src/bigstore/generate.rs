//! The events of a workspace of fifty tenants over ninety days.
//!
//! Few tenants and people do most of it; a file has nine events or so, soon one after the other; strangers try passwords from many addresses; one tenant left after a fifth of the time; and
//! one event is like no other.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use daybook::event::{Actor, AuditEvent, Outcome, SourceName, Target};
use daybook::store::{Commit, EventFilter, Record, Store};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

pub(super) const TENANTS: u64 = 50;
const DAYS: u64 = 90;
const BATCH: u64 = 1000;
/// Commits at once: each waits for the disk.
const IN_FLIGHT: usize = 16;

/// When the first event happened, in milliseconds since 1970.
pub(super) const START: i64 = 1_760_000_000_000;

/// How long it goes on, in milliseconds.
pub(super) const SPAN: i64 = DAYS as i64 * 86_400_000;

const FILE_ACTIONS: [&str; 14] = [
    "ocis.file_created",
    "ocis.file_uploaded",
    "ocis.file_uploaded",
    "ocis.file_uploaded",
    "ocis.file_deleted",
    "ocis.file_moved",
    "ocis.file_trashed",
    "ocis.share_created",
    "ocis.share_updated",
    "ocis.share_removed",
    "ocis.link_created",
    "ocis.link_removed",
    "ocis.file_version_restored",
    "ocis.item_purged",
];
const MAIL_ACTIONS: [&str; 12] = [
    "stalwart.auth_success",
    "stalwart.auth_success",
    "stalwart.auth_failed",
    "stalwart.auth_failed",
    "stalwart.message_ingested",
    "stalwart.message_ingested",
    "stalwart.message_ingested",
    "stalwart.message_queued",
    "stalwart.message_delivered",
    "stalwart.dkim_failed",
    "stalwart.dmarc_failed",
    "stalwart.ip_banned",
];
const IDENTITY_ACTIONS: [&str; 12] = [
    "authentik.login",
    "authentik.login",
    "authentik.login",
    "authentik.login_failed",
    "authentik.logout",
    "authentik.authorize_application",
    "authentik.authorize_application",
    "authentik.password_set",
    "authentik.model_created",
    "authentik.model_updated",
    "authentik.model_deleted",
    "authentik.impersonation_started",
];
const PLATFORM_ACTIONS: [&str; 4] = [
    "invoice.paid",
    "backup.finished",
    "backup.failed",
    "plan.changed",
];
const WORDS: [&str; 16] = [
    "report", "budget", "minutes", "contract", "invoice", "photo", "plan", "draft", "offer",
    "notes", "summary", "letter", "agenda", "protocol", "roadmap", "poster",
];
const NAMES: [&str; 20] = [
    "Alice", "Bob", "Carol", "David", "Erika", "Frank", "Grace", "Heidi", "Ivan", "Judith", "Karl",
    "Lena", "Mallory", "Niaj", "Olivia", "Peggy", "Rupert", "Sybil", "Trent", "Walter",
];

/// The slug of a tenant; small numbers are large tenants.
pub(super) fn tenant(number: u64) -> String {
    format!("tenant-{number:02}")
}

/// The mail address of a person.
pub(super) fn address_of(tenant: u64, person: u64) -> String {
    let name = NAMES[(person % NAMES.len() as u64) as usize].to_lowercase();
    format!("{name}.{person}@tenant-{tenant:02}.example")
}

/// A whole number below `below`, small ones far likelier.
fn skewed(random: &mut StdRng, below: u64) -> u64 {
    let share: f64 = random.random::<f64>().powi(3);
    ((share * below as f64) as u64).min(below - 1)
}

/// The event number `number` of `events`; always the same.
pub(super) fn event(number: u64, events: u64) -> (AuditEvent, Option<String>) {
    let mut random = StdRng::seed_from_u64(number);
    let place = number as f64 / events as f64;
    let at = START + (place * SPAN as f64) as i64 + random.random_range(0..60_000);
    // A file stays with its tenant.
    let file = (number / 20).saturating_sub(skewed(&mut random, 50));
    let mut tenant_number = match number % 20 {
        0..9 => skewed(&mut StdRng::seed_from_u64(file), TENANTS),
        _ => skewed(&mut random, TENANTS),
    };
    // The last tenant left early.
    if tenant_number == TENANTS - 1 && place > 0.2 {
        tenant_number = 0;
    }
    let people = 2000 / (tenant_number + 1) + 20;
    let person = skewed(&mut random, people);
    let mail = address_of(tenant_number, person);
    let name = format!("{} {person}", NAMES[(person % NAMES.len() as u64) as usize]);
    let id = format!("{tenant_number:08x}-0000-4000-8000-{person:012x}");
    let home = format!("198.51.{}.{}", tenant_number, person % 250);
    let mut one = AuditEvent {
        at: Timestamp::from_millisecond(at).unwrap_or_default(),
        source: SourceName::new("ocis"),
        external_id: format!("{number:012}"),
        action: "".into(),
        outcome: Some(Outcome::Success),
        actor: Actor::default(),
        target: Target::default(),
        tenant_slug: None,
        metadata: serde_json::Map::new().into(),
    };
    let mut pick = |from: &[&str]| from[random.random_range(0..from.len())].to_owned();
    match number % 20 {
        0..9 => {
            one.action = pick(&FILE_ACTIONS).into();
            one.actor.id = Some(id.into());
            let word = WORDS[(file % WORDS.len() as u64) as usize];
            let space = format!("{tenant_number:08x}-5555-4000-8000-{:012x}", file % 20);
            let opaque = file.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            one.target = Target {
                kind: Some("file".into()),
                id: Some(format!("{space}!{opaque:016x}-{file:012x}").into()),
                name: Some(format!("{word}-{file}.odt").into()),
            };
        }
        9..16 => {
            one.source = SourceName::new("stalwart");
            one.action = pick(&MAIL_ACTIONS).into();
            one.actor.email = Some(mail.clone().into());
            one.actor.ip = Some(home.into());
            one.target.kind = Some("account".into());
            one.target.name = Some(mail.into());
        }
        16..19 => {
            one.source = SourceName::new("authentik");
            one.action = pick(&IDENTITY_ACTIONS).into();
            one.actor = Actor {
                id: Some(id.into()),
                email: Some(mail.into()),
                name: Some(name.into()),
                ip: Some(home.into()),
            };
            one.target.kind = Some("application".into());
            one.target.name = Some(format!("app-{}", random.random_range(0..12)).into());
        }
        _ => {
            one.source = SourceName::new("platform-api");
            one.action = pick(&PLATFORM_ACTIONS).into();
            one.target.kind = Some("subscription".into());
            one.target.id = Some(format!("sub-{tenant_number}").into());
        }
    }
    if one.action.ends_with("failed") {
        one.outcome = Some(Outcome::Failure);
        if random.random_bool(0.3) {
            let (third, fourth) = (random.random_range(0..40), random.random_range(1..255));
            one.actor.ip = Some(format!("203.0.{third}.{fourth}").into());
        }
    }
    let tenant = (!number.is_multiple_of(200)).then(|| tenant(tenant_number));
    if number == events * 37 / 100 {
        needle(&mut one);
    }
    let filler: String = (0..6)
        .map(|_| format!("{:016x}", random.random::<u64>()))
        .collect();
    let metadata = json!({
        "type": one.action, "createdAt": one.at, "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
        "data": { "span": number, "trace": filler, "list": [1, 2, 3], "ok": true },
    });
    if let serde_json::Value::Object(members) = metadata {
        one.metadata = members.into();
    }
    (one, tenant)
}

/// Makes an event like no other.
fn needle(one: &mut AuditEvent) {
    one.source = SourceName::new("platform-api");
    one.action = "needle.found".into();
    one.outcome = Some(Outcome::Unknown);
    one.actor = Actor {
        id: Some("needle-actor".into()),
        email: Some("needle@haystack.example".into()),
        name: Some("Nadja Nadel".into()),
        ip: Some("192.0.2.77".into()),
    };
    one.target = Target {
        kind: Some("haystack".into()),
        id: Some("needle-target".into()),
        name: Some("the one stalk among ten million".into()),
    };
}

/// Fills a store up to this many events; one that was left half full is filled up.
///
/// # Errors
/// When the store fails, or holds other events.
pub async fn fill(store: &Arc<dyn Store>, events: u64, name: &str) -> Result<()> {
    let newest = store.find_events(&EventFilter::default(), None, 1).await?;
    let reached = match newest.first() {
        None => 0,
        Some(newest) => newest.external_id.parse().unwrap_or(events),
    };
    if reached + BATCH < events {
        // Some of these are there already.
        let start = reached.saturating_sub(100 * BATCH) / BATCH * BATCH;
        let begun = Instant::now();
        let batches = (start..events).step_by(BATCH as usize);
        let batches = batches.map(|from| async move {
            let until = events.min(from + BATCH);
            let made: Vec<_> = (from..until).map(|number| event(number, events)).collect();
            let records = made.iter().map(|(event, tenant)| Record::Event {
                event,
                tenant_slug: tenant.as_deref(),
            });
            let commit = Commit {
                records: records.collect(),
                ..Commit::default()
            };
            store.commit(&commit).await?;
            if from % (events / 10).max(1) < BATCH {
                let seconds = begun.elapsed().as_secs_f64();
                eprintln!("{name}: at event {from} after {seconds:.0} s");
            }
            Ok::<_, anyhow::Error>(())
        });
        stream::iter(batches)
            .buffered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        let rate = (events - start) as f64 / begun.elapsed().as_secs_f64();
        println!("{name}: {events} events, entered at {rate:.0} a second");
    }
    let needle = EventFilter {
        action: Some("needle.found".to_owned()),
        ..EventFilter::default()
    };
    ensure!(
        !store.find_events(&needle, None, 1).await?.is_empty(),
        "the store holds other events than this program's"
    );
    Ok(())
}
