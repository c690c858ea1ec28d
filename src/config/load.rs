//! Reading: file, then environment, then checks; every problem with its key, file and line.

use std::path::{Path, PathBuf};

use super::Config;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key: `store.timeout`, `sources[1].url`.
    pub key: String,
    /// Where it stands: `daybook.toml:12`, or `environment variable DAYBOOK__STORE__TIMEOUT`.
    pub place: String,
    /// What was found.
    pub found: String,
    /// What is wanted, or what to write instead.
    pub wanted: String,
}

/// Why there is no configuration.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// Every problem found, in the order of the file.
    pub problems: Vec<Problem>,
}

/// A configuration that passed its checks.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The tree.
    pub config: Config,
    /// The file it came from; `None`: defaults and environment only.
    pub file: Option<PathBuf>,
}

impl LoadedConfig {
    /// Reads `path`, else `$DAYBOOK_CONFIG`, else `./daybook.toml` if it is there, else the defaults;
    /// lays the environment over it; checks the result.
    pub fn load(_path: Option<&Path>) -> Result<Self, ConfigError> {
        unimplemented!()
    }
}
