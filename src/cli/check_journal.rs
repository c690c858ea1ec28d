//! Can the journal take what is pushed while the store is away?

use std::path::Path;

use crate::config::{Config, SourceConfig};

use super::{Finding, Fine, Trouble, try_directory};

/// `None`: nothing is pushed, or the journal is switched off.
pub(super) fn check(config: &Config) -> Option<Finding> {
    let is_pushed = |source: &SourceConfig| {
        matches!(
            source,
            SourceConfig::Stalwart(_) | SourceConfig::Recorder(_)
        )
    };
    let is_on = config.journal.max_size.bytes() > 0;
    (is_on && config.sources.iter().any(is_pushed)).then(|| try_journal(&config.journal.dir))
}

fn try_journal(dir: &Path) -> Finding {
    match try_directory(dir) {
        Ok(()) => Ok(Fine::new(format!("{} can be written", dir.display()))),
        Err(error) => Err(Trouble::new(
            error,
            "let the user that Daybook runs as write journal.dir, or name another directory",
        )),
    }
}
