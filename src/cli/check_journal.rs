//! Can the journal take what is pushed while the store is away?

use std::path::Path;

use crate::config::{Config, SourceConfig};

use super::{Finding, Fine, Trouble};

/// `None`: nothing is pushed, or the journal is switched off.
pub(super) fn check(config: &Config) -> Option<Finding> {
    let is_pushed = |source: &SourceConfig| {
        matches!(
            source,
            SourceConfig::Stalwart(_) | SourceConfig::Recorder(_)
        )
    };
    let is_on = config.journal.max_size.bytes() > 0;
    (is_on && config.sources.iter().any(is_pushed)).then(|| try_directory(&config.journal.dir))
}

/// Makes nothing that stays: a directory made here would belong to whoever checks.
fn try_directory(dir: &Path) -> Finding {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = absolute.ancestors().find(|place| place.exists());
    let there = there.unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new();
    match draft.prefix(".daybook-check-").tempfile_in(there) {
        Ok(_) => Ok(Fine::new(format!("{} can be written", dir.display()))),
        Err(error) => Err(Trouble::new(
            format!("{} cannot be written: {error}", there.display()),
            "let the user that Daybook runs as write journal.dir, or name another directory",
        )),
    }
}
