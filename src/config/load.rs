//! Reading: file, then environment, then checks; every problem with its key, file and line.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, Scope};
use super::section::{Report, Section};
use super::tree::{self, Place, Table};
use super::{Config, read};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key: `store.timeout`, `sources[1].url`; empty when no key is meant but a file as a whole.
    pub key: String,
    /// Where it stands: `daybook.toml:12`, or `environment variable DAYBOOK__STORE__TIMEOUT`.
    pub place: String,
    /// What was found.
    pub found: String,
    /// What is wanted, or what to write instead.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => writeln!(f, "error: {}", self.place)?,
            key => writeln!(f, "error: {key} ({})", self.place)?,
        }
        writeln!(f, "  found: {}", self.found)?;
        write!(f, "  wanted: {}", self.wanted)
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Every problem found, in the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    /// One block a problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn about_file(file: &Path, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        let problem = Problem {
            key: String::new(),
            place: file.display().to_string(),
            found: found.into(),
            wanted: wanted.into(),
        };
        Self {
            problems: vec![problem],
        }
    }
}

/// A configuration that passed its checks.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The tree.
    pub config: Config,
    /// The file it came from; `None`: defaults and environment only.
    pub file: Option<PathBuf>,
}

const FILE_VARIABLE: &str = "DAYBOOK_CONFIG";
const DEFAULT_FILE: &str = "daybook.toml";
const PREFIX: &str = "DAYBOOK__";
const INGEST_SWITCH: &str = "AUDIT_INGEST_ENABLED";

impl LoadedConfig {
    /// Reads `path`, else `$DAYBOOK_CONFIG`, else `./daybook.toml` if it is there, else the defaults;
    /// lays the environment over it; checks the result, the files that it names included.
    ///
    /// # Errors
    /// Every problem found. A file that was named and is not there is one.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from_process(path, Scope::Service)
    }

    /// The same for commands that work beside the service (`tail`, `export`, `token new`, …) and may
    /// run as a person who may not read its secrets: files and variables with secrets are not looked at.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load_for_tools(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from_process(path, Scope::Tools)
    }

    /// The same for a command that asks the service alone and opens no store: where that is may be in
    /// a file that is not for it (`store.url_file`), and is not looked at.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load_for_asking(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from_process(path, Scope::Asking)
    }

    /// [`LoadedConfig::load`] without a look at the process: `file` is the name and text of the
    /// configuration, `env` all environment variables.
    ///
    /// # Errors
    /// Every problem found.
    pub fn from_parts(
        file: Option<(PathBuf, String)>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::build(file, env.into_iter().collect(), Scope::Service)
    }

    /// [`LoadedConfig::load_for_tools`] without a look at the process.
    ///
    /// # Errors
    /// Every problem found.
    pub fn from_parts_for_tools(
        file: Option<(PathBuf, String)>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::build(file, env.into_iter().collect(), Scope::Tools)
    }

    fn load_from_process(path: Option<&Path>, scope: Scope) -> Result<Self, ConfigError> {
        let env = process_environment()?;
        let named = path.map(Path::to_path_buf).or_else(|| {
            env.get(FILE_VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        });
        let file = match named {
            Some(path) => {
                let text = read_text(&path)?;
                Some((path, text))
            }
            None => {
                let path = PathBuf::from(DEFAULT_FILE);
                match path.symlink_metadata() {
                    Ok(_) => {
                        let text = read_text(&path)?;
                        Some((path, text))
                    }
                    Err(_) => None,
                }
            }
        };
        Self::build(file, env, scope)
    }

    fn build(
        file: Option<(PathBuf, String)>,
        env: HashMap<String, String>,
        scope: Scope,
    ) -> Result<Self, ConfigError> {
        let mut table = match &file {
            Some((path, text)) => parse_file(path, text)?,
            None => Table::new(),
        };
        let mut report = Report::default();
        lay_environment_over(&mut table, &env, &mut report);
        let root = match &file {
            Some((path, _)) => Place::File(path.display().to_string().into()),
            None => Place::Default,
        };
        let (config, sources) = read::read(Section::root(table, root, &mut report), scope);
        check::check(&config, &sources, scope, &env, &mut report);
        report.into_result()?;
        Ok(Self {
            config,
            file: file.map(|(path, _)| path),
        })
    }
}

/// Parses a named TOML text, mistakes in its grammar told line by line.
pub(crate) fn parse_file(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let name: Arc<str> = path.display().to_string().into();
    let place = |line| Place::Line(Arc::clone(&name), line);
    tree::parse(text, &place).map_err(|errors| ConfigError {
        problems: errors
            .into_iter()
            .map(|error| Problem {
                key: error.key,
                place: place(error.line).to_string(),
                found: error.found,
                wanted: "TOML: `key = value` lines, texts in quotes, each key once".to_owned(),
            })
            .collect(),
    })
}

/// Reads a file that must be there and be text.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::about_file(
            path,
            "no such file",
            "a file that exists; relative paths count from the working directory",
        ),
        std::io::ErrorKind::IsADirectory => ConfigError::about_file(path, "a directory", "a file"),
        _ => ConfigError::about_file(path, error.to_string(), "a file that can be read"),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let file = format!("{}:{line}", path.display());
        ConfigError::about_file(
            Path::new(&file),
            "bytes that are no UTF-8",
            "a text in UTF-8",
        )
    })
}

/// Variables that are no Unicode matter only where they would be keys.
fn process_environment() -> Result<HashMap<String, String>, ConfigError> {
    let mut env = HashMap::new();
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                env.insert(name, value);
            }
            Err(_) if is_ours(&name) => problems.push(Problem {
                key: String::new(),
                place: format!("environment variable {name}"),
                found: "bytes that are no UTF-8".to_owned(),
                wanted: "a text in UTF-8".to_owned(),
            }),
            Err(_) => {}
        }
    }
    if problems.is_empty() {
        Ok(env)
    } else {
        Err(ConfigError { problems })
    }
}

fn is_ours(name: &str) -> bool {
    name == INGEST_SWITCH || name == FILE_VARIABLE || path_in(name).is_some()
}

/// `DAYBOOK__STORE__URL` → `store`, `url`.
fn path_in(name: &str) -> Option<Vec<String>> {
    let prefix = name.get(..PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    let path = name[PREFIX.len()..].to_ascii_lowercase();
    Some(path.split("__").map(str::to_owned).collect())
}

fn lay_environment_over(table: &mut Table, env: &HashMap<String, String>, report: &mut Report) {
    let mut variables: Vec<(Vec<String>, &str, &str)> = env
        .iter()
        .filter_map(|(name, value)| Some((path_in(name)?, name.as_str(), value.as_str())))
        .collect();
    // Indexes in the order of numbers, so that each one can append after the one before it.
    variables.sort_by_cached_key(|(path, name, _)| {
        let path: Vec<(usize, String)> = path
            .iter()
            .map(|segment| (segment.parse().unwrap_or(usize::MAX), segment.clone()))
            .collect();
        (path, (*name).to_owned())
    });

    let mut previous: Option<&[String]> = None;
    for (path, name, value) in &variables {
        let place = Place::Environment((*name).into());
        let key = tree::key_of(path);
        if path.iter().any(String::is_empty) {
            let wanted = "the key's parts with two underscores between them: DAYBOOK__STORE__URL";
            report.add_at(&key, place, "a variable that names no key", wanted);
            continue;
        }
        if previous == Some(path.as_slice()) {
            let wanted = "one variable for a key; they differ only in the case of letters";
            report.add_at(&key, place, "the key is set twice", wanted);
            continue;
        }
        previous = Some(path);
        if let Err((found, wanted)) = tree::lay_over(table, path, &place, value) {
            report.add_at(&key, place, found, wanted);
        }
    }
    lay_ingest_switch_over(table, env, &variables, report);
}

/// `AUDIT_INGEST_ENABLED` is another name of `ingest.enabled`; of two variables that disagree, off wins.
fn lay_ingest_switch_over(
    table: &mut Table,
    env: &HashMap<String, String>,
    variables: &[(Vec<String>, &str, &str)],
    report: &mut Report,
) {
    let Some(value) = env.get(INGEST_SWITCH) else {
        return;
    };
    let place = Place::Environment(INGEST_SWITCH.into());
    let node = tree::Node {
        place: place.clone(),
        value: tree::Value::Raw(value.clone()),
    };
    let ours = ["ingest".to_owned(), "enabled".to_owned()];
    let is_set_otherwise = variables.iter().any(|(path, _, _)| *path == ours);
    if is_set_otherwise && super::values::boolean(&node).is_ok_and(|on| on) {
        return;
    }
    if let Err((found, wanted)) = tree::lay_over(table, &ours, &place, value) {
        report.add_at("ingest.enabled", place, found, wanted);
    }
}
