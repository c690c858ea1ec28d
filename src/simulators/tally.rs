//! What a simulator has promised, for comparison with what arrived.

use std::collections::BTreeMap;

/// Counts per action, and the keys where the original gives any.
///
/// Actions are the words of the original (`login_failed`, `file_shared`, `auth.failed`), not the
/// timeline's verbs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many in all.
    pub total: u64,
    /// How many of each action; an empty action counts under the empty string.
    pub by_action: BTreeMap<String, u64>,
    /// Every key, in the order of promising; stays empty when keys are not remembered.
    pub keys: Vec<String>,
    forget_keys: bool,
}

impl Tally {
    /// One that counts and remembers keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that only counts: constant memory however long it runs.
    pub fn counting_only() -> Self {
        Self {
            forget_keys: true,
            ..Self::default()
        }
    }

    /// Notes one promised event.
    pub fn note(&mut self, action: &str, key: &str) {
        self.total += 1;
        match self.by_action.get_mut(action) {
            Some(count) => *count += 1,
            None => {
                self.by_action.insert(action.to_owned(), 1);
            }
        }
        if !self.forget_keys {
            self.keys.push(key.to_owned());
        }
    }

    /// How many of one action.
    pub fn of(&self, action: &str) -> u64 {
        self.by_action.get(action).copied().unwrap_or(0)
    }
}
