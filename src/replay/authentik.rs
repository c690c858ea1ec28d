//! Authentik's list again, newest first, by the walk that the source itself takes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Enterer, ReplayError};
use crate::config::AuthentikConfig;
use crate::event::{Decoded, SourceName};
use crate::sources::authentik::client::{BLIND, Client, ClientError};
use crate::sources::authentik::decode::{EventContext, EventHead, decode_event, decode_page};
use crate::sources::authentik::people::{People, WAIT};
use crate::sources::authentik::walk::{PageAnswer, RowKey, Walk, WalkCursor};
use crate::telemetry::metrics::Metrics;

/// Tries of one page.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn replay(
    config: &AuthentikConfig,
    enterer: &mut Enterer<'_>,
) -> Result<(), ReplayError> {
    let token = config
        .load_token()
        .map_err(|problem| ReplayError::Source(problem.to_string()))?;
    let client = Client::new(&config.url, &token, config.timeout, Metrics::new())
        .map_err(ReplayError::Source)?;
    let source = SourceName::new(enterer.source);
    let mut people = People::default();
    // The walk reads back by the overlap from what it takes for known.
    let known = WalkCursor {
        high_water: Some(enterer.since + config.overlap),
        ..WalkCursor::default()
    };
    let mut walk = Walk::new(known, config.overlap, config.page_size);
    // Positions of the letters that were counted: pages overlap.
    let mut unreadable = HashSet::new();
    walk.begin_poll();
    while let Some(request) = walk.next_request() {
        let (page, server_time) = match read(&client, request).await {
            Ok(read) => read,
            Err(ClientError::NoSuchPage) if request.page > 1 => (None, Timestamp::now()),
            Err(ClientError::TooLong) if walk.ask_for_less() => continue,
            Err(error) if request.page > 1 && error.is_late() && walk.ask_for_less() => continue,
            Err(ClientError::TooLong) => return Err(ClientError::EventTooLong.into()),
            Err(error) => return Err(error.into()),
        };
        let results = page.as_ref().map_or(&[][..], |page| &page.results);
        if request.page == 1 && results.is_empty() {
            return Err(ReplayError::Source(format!("authentik: {BLIND}")));
        }
        let mut rows = Vec::with_capacity(results.len());
        // They cannot take part in the walk.
        let mut placeless = Vec::new();
        for raw in results {
            match EventHead::read(raw) {
                Some(head) => rows.push((head, raw)),
                None => placeless.push(raw),
            }
        }
        let place = |head: &EventHead| RowKey {
            created: head.created,
            pk: head.pk.clone(),
        };
        let taken = walk.accept(&PageAnswer {
            rows: rows.iter().map(|(head, _)| place(head)).collect(),
            length: results.len() as u64,
            has_next: page.as_ref().is_some_and(|page| page.next != 0),
            count: page.as_ref().map_or(0, |page| page.count),
            server_time,
        });
        if walk.is_lost() {
            return Err(ClientError::Contradictory.into());
        }
        let heads = taken.rows.iter().map(|index| &rows[*index].0);
        let pks: Vec<i64> = heads.flat_map(EventHead::user_pks).flatten().collect();
        let waits_since = Instant::now();
        while let Some(pause) = people.look_up(&client, &pks).await {
            if waits_since.elapsed() > WAIT {
                return Err(ReplayError::People(ClientError::Late));
            }
            tokio::time::sleep(pause).await;
        }
        if let Some(error) = people.given_up() {
            return Err(ReplayError::People(error.clone()));
        }
        let context = EventContext {
            source: &source,
            received_at: Timestamp::now(),
        };
        let mut decoded = Vec::with_capacity(taken.rows.len() + placeless.len());
        let mut keys = Vec::with_capacity(taken.rows.len());
        for index in &taken.rows {
            let (head, raw) = &rows[*index];
            let mut event = decode_event(raw, &context);
            if let Decoded::Event(_, hints) = &mut event {
                people.tell(head.user_pks(), head.created, hints);
            }
            decoded.push(event);
            keys.push(place(head));
        }
        for raw in placeless {
            let event = decode_event(raw, &context);
            if let Decoded::Dead(letter) = &event
                && !unreadable.insert(letter.position.clone())
            {
                continue;
            }
            decoded.push(event);
        }
        enterer.enter(decoded).await?;
        walk.confirm(keys.into_iter());
    }
    if walk.has_gaps() {
        return Err(ClientError::Contradictory.into());
    }
    Ok(())
}

type Page = crate::sources::authentik::page::Page;

async fn read(
    client: &Client,
    request: crate::sources::authentik::walk::PageRequest,
) -> Result<(Option<Page>, Timestamp), ClientError> {
    let mut tries = 1;
    loop {
        let read = match client.events(request).await {
            Ok(answer) => decode_page(&answer.body)
                .map(|page| (Some(page), answer.server_time))
                .map_err(|error| ClientError::Unreadable(error.to_string())),
            Err(error) => Err(error),
        };
        match read {
            // In the same size it would be late again.
            Err(error) if request.page > 1 && request.page_size > 1 && error.is_late() => {
                return Err(error);
            }
            Err(error) if tries < TRIES && may_pass(&error) => {
                tries += 1;
                tokio::time::sleep(error.retry_after().unwrap_or(PAUSE).max(PAUSE)).await;
            }
            read => return read,
        }
    }
}

/// Whether the same request may be answered later.
fn may_pass(error: &ClientError) -> bool {
    let is_about_the_page = matches!(error, ClientError::NoSuchPage | ClientError::TooLong);
    !is_about_the_page && !error.needs_a_person()
}
