//! What the source says about itself. Pure.

use serde_json::Value;

use super::client::{BLIND, ClientError};
use crate::status::SourceState;

const UNREADABLE_PAGE: &str =
    "a whole page of its events cannot be read: they are dead letters, and what is older is read";

/// What is known of the source's troubles.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Why the list may be empty, while it is.
    warning: Option<String>,
    /// What failed, until the walk gets further down or a poll ends: the first page of each poll
    /// may well be answered meanwhile.
    failure: Option<(SourceState, String)>,
    has_unreadable_page: bool,
    unreadable_page_in_this_poll: bool,
}

impl Standing {
    /// Takes in whose token it is, as far as Authentik tells. Quiet and blind look alike in the list.
    pub(super) fn asked_for_owner(&mut self, me: &Result<Value, ClientError>) {
        self.warning = match me {
            Ok(me) if me["user"]["type"] == "internal_service_account" => Some(
                "the token belongs to an outpost, which sees no events: use a service account with view_event".to_owned(),
            ),
            Ok(_) => None,
            // A proxy may let the list through and nothing else.
            Err(error) => Some(format!(
                "the token sees no event, and Authentik does not tell whose it is ({})",
                error.beside_the_list()
            )),
        };
    }

    /// Takes in how many events the list has.
    pub(super) fn saw(&mut self, count: u64, is_at_head: bool) {
        if count > 0 {
            self.warning = None;
        } else if is_at_head && self.warning.is_none() {
            self.warning = Some(BLIND.to_owned());
        }
    }

    pub(super) fn failed(&mut self, state: SourceState, reason: String) {
        self.failure = Some((state, reason));
    }

    /// Whether the token may see nothing.
    pub(super) fn doubts_token(&self) -> bool {
        self.warning.is_some()
    }

    pub(super) fn got_further(&mut self) {
        self.failure = None;
    }

    pub(super) fn met_unreadable_page(&mut self) {
        self.has_unreadable_page = true;
        self.unreadable_page_in_this_poll = true;
    }

    pub(super) fn poll_ended(&mut self) {
        self.failure = None;
        self.has_unreadable_page = std::mem::take(&mut self.unreadable_page_in_this_poll);
    }

    /// The state to show; `limit`: to how many rows a page the walk is limited.
    pub(super) fn state(
        &self,
        limit: Option<u64>,
        looking_up: Option<&str>,
    ) -> (SourceState, Option<String>) {
        if let Some((state, reason)) = &self.failure {
            return (*state, Some(reason.clone()));
        }
        let unreadable = self.has_unreadable_page.then_some(UNREADABLE_PAGE);
        let too_long = limit.map(|rows| {
            format!(
                "its pages are longer than 64 MiB, or do not come in time: it is asked for at most {rows} events at a time"
            )
        });
        let warning = self.warning.clone();
        let warning = warning
            .or(unreadable.map(str::to_owned))
            .or(too_long)
            .or(looking_up.map(str::to_owned));
        let state = match warning {
            Some(_) => SourceState::Warning,
            None => SourceState::Running,
        };
        (state, warning)
    }
}
