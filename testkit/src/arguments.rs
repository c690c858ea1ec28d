//! What the binaries of this crate are called with, and how they end.

use std::process::ExitCode;

/// The words behind a program's name.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// All of them.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// Whether a flag is among them.
    pub fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|word| word == flag)
    }

    /// The word behind a name.
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// The number behind a name, or this one when the name is not there.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(&self, name: &str, default: f64) -> Result<f64, anyhow::Error> {
        if !self.has(name) {
            return Ok(default);
        }
        let text = self.text(name).unwrap_or_default();
        text.parse()
            .map_err(|_| anyhow::anyhow!("{name} wants a number, found {text:?}"))
    }
}

/// Success for a clean run; says what went wrong with one that could not be made.
pub fn exit(outcome: Result<bool, anyhow::Error>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
