//! What the source says about itself. Pure.

use crate::status::SourceState;

const UNREADABLE_PAGE: &str =
    "a whole page of its events cannot be read: they are dead letters, and what is older is read";

/// What is known of the source's troubles.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Something a person should know although polling works.
    pub(super) warning: Option<String>,
    /// What failed, until the walk gets further down or a poll ends: the first page of each poll
    /// may well be answered meanwhile.
    failure: Option<(SourceState, String)>,
    has_unreadable_page: bool,
    unreadable_page_in_this_poll: bool,
}

impl Standing {
    pub(super) fn failed(&mut self, state: SourceState, reason: String) {
        self.failure = Some((state, reason));
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
                "its pages are longer than 64 MiB: it is asked for at most {rows} events at a time"
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
