//! Bad configurations, each with the key, the place and the remedy that its error must name;
//! and good ones, so that the strictness stays honest.
#![allow(clippy::unwrap_used, reason = "tests")]

mod files;
mod good;
mod secrets;
mod texts;

use std::path::PathBuf;

use daybook::config::{ConfigError, LoadedConfig, Problem};

const NO_ENV: [(String, String); 0] = [];

fn load(text: &str) -> Result<LoadedConfig, ConfigError> {
    LoadedConfig::from_parts(
        Some((PathBuf::from("daybook.toml"), text.to_owned())),
        NO_ENV,
    )
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<LoadedConfig, ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    LoadedConfig::from_parts(Some((PathBuf::from("daybook.toml"), text.to_owned())), env)
}

/// The one problem of a configuration that has exactly one.
fn only_problem(result: Result<LoadedConfig, ConfigError>, what: &str) -> Problem {
    let error = match result {
        Ok(_) => panic!("loaded:\n{what}"),
        Err(error) => error,
    };
    assert_eq!(error.problems.len(), 1, "{what}\n{error}");
    error.problems[0].clone()
}

/// A directory with every file that a full configuration names.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        files.write("token", "api-token\n");
        files.write("key", "signature key\n");
        files.write("cert.pem", include_str!("../data/tls/cert.pem"));
        files.write("key.pem", include_str!("../data/tls/key.pem"));
        files.write("tenants.toml", "[[tenants]]\nslug = \"acme\"\n");
        files
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.directory.path().join(name), content).unwrap();
        self.path(name)
    }

    /// The example of the contract, its files put where this directory has them.
    fn contract(&self) -> String {
        include_str!("../data/config/contract.toml")
            .replace(
                "cert = \"…\"",
                &format!("cert = {:?}", self.path("cert.pem")),
            )
            .replace("key = \"…\"", &format!("key = {:?}", self.path("key.pem")))
            .replace(
                "\"tenants.toml\"",
                &format!("{:?}", self.path("tenants.toml")),
            )
            .replace("/run/secrets/authentik", &self.path("token"))
            .replace("/run/secrets/stalwart", &self.path("key"))
    }
}
