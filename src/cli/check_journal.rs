//! Can the journal take what is pushed while the store is away?

use std::path::Path;

use crate::config::{Config, SourceConfig};
use crate::journal::{REMEDY, try_closing};

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
    try_directory(dir).map_err(|error| {
        Trouble::new(
            error,
            "let the user that Daybook runs as write journal.dir, or name another directory",
        )
    })?;
    let place = dir.display();
    try_closing(dir).map_err(|error| {
        let what = format!("{place} is open to others and cannot be closed: {error}");
        Trouble::new(what, REMEDY)
    })?;
    Ok(Fine::new(format!("{place} can be written")))
}
