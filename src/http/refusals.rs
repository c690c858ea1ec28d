//! One log line an incident, for each source and reason that webhooks are refused for: a stranger
//! knocks as often as he likes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::event::SourceName;
use crate::telemetry::incident::Incident;
use crate::telemetry::metrics::Refusal;

/// Each source's refusals, by their reasons.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<(SourceName, Refusal), Incident>>);

impl Refusals {
    /// Counts a refusal. `Some` when it should be told, with the number of those before it that
    /// were not.
    pub fn note(&self, source: &SourceName, why: Refusal) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((source.clone(), why)).or_default().note()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_and_reason_is_told_of() {
        let refusals = Refusals::default();
        let (mail, other) = (SourceName::new("mail"), SourceName::new("other"));
        assert_eq!(refusals.note(&mail, Refusal::Unsigned), Some(0));
        assert_eq!(refusals.note(&mail, Refusal::Unsigned), None);
        assert_eq!(refusals.note(&other, Refusal::Unsigned), Some(0));
        assert_eq!(refusals.note(&mail, Refusal::WrongSignature), Some(0));
    }
}
